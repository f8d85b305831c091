"""Editors of single settings: `value()`, `setValue()` and `valueChanged`, whatever the type.

Check boxes, texts and choices come from magicgui. Numbers do not: its spin boxes round 1e-5 to 0
and correct what is out of range without a word, while here the reason stands under the field.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Union, get_args, get_origin

from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtWidgets import QAbstractSpinBox, QCheckBox, QHBoxLayout, QPlainTextEdit, QVBoxLayout, QWidget

from napari_im2im._form_draft import NEEDED, Unreadable
from napari_im2im._form_parse import (
    Limits,
    list_text,
    mapping_text,
    number_text,
    parse_list,
    parse_mapping,
    parse_number,
    stepped,
)
from napari_im2im._form_words import choice_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtpy.QtGui import QWheelEvent


class Editor(Protocol):
    """Widget that edits one value; what cannot be read is an `Unreadable`."""

    valueChanged: Any

    def value(self) -> Any:
        """What is entered."""

    def setValue(self, value: Any) -> None:
        """Show `value` without saying that it changed."""


class NumberEdit(QAbstractSpinBox):
    """A number of any size and precision; ``1e-3`` may be typed, arrows stay within the limits."""

    valueChanged = Signal(object)

    def __init__(self, whole: bool, limits: Limits, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._whole, self._limits = whole, limits
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMinimumWidth(70)
        line = self.lineEdit()
        assert line is not None  # every spin box has one
        self._line = line
        self._line.textEdited.connect(lambda: self.valueChanged.emit(self.value()))

    def value(self) -> int | float | Unreadable:
        """Number that is typed."""
        return parse_number(self._line.text(), self._whole)

    def setValue(self, value: Any) -> None:
        """Show a number, or what was typed instead of one."""
        self._line.setText(value.text if isinstance(value, Unreadable) else number_text(value))

    def start(self) -> int | float:
        """A number to begin with."""
        value = self._limits.start()
        return int(value) if self._whole else value

    # ---- Qt ----

    def stepBy(self, steps: int) -> None:
        """Move by the arrows."""
        value = self.value()
        new = self.start() if isinstance(value, Unreadable) else stepped(value, steps, self._whole)
        if self._limits.allow(new):
            self._line.setText(number_text(new))
            self.valueChanged.emit(self.value())

    def stepEnabled(self) -> QAbstractSpinBox.StepEnabledFlag:
        """Arrows that lead to an allowed value."""
        value, flags = self.value(), QAbstractSpinBox.StepEnabledFlag.StepNone
        for sign, flag in (
            (1, QAbstractSpinBox.StepEnabledFlag.StepUpEnabled),
            (-1, QAbstractSpinBox.StepEnabledFlag.StepDownEnabled),
        ):
            if isinstance(value, Unreadable) or self._limits.allow(stepped(value, sign, self._whole)):
                flags |= flag
        return flags

    def wheelEvent(self, event: QWheelEvent | None) -> None:
        """Leave the wheel to the scroll area unless the field is being edited."""
        if self.hasFocus():
            super().wheelEvent(event)
        elif event is not None:
            event.ignore()


class MagicEdit(QWidget):
    """A check box, text or choice made by magicgui."""

    valueChanged = Signal(object)

    def __init__(self, widget: Any, empty: Any = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._widget, self._empty = widget, empty
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(widget.native)
        self.setFocusProxy(widget.native)
        widget.native.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        widget.native.installEventFilter(_WheelGuard(self))
        widget.changed.connect(self._on_changed)

    def _on_changed(self) -> None:
        self.valueChanged.emit(self.value())

    def value(self) -> Any:
        """What is entered; an empty text stands for `empty`."""
        value = self._widget.value
        return self._empty if value == "" else value

    def setValue(self, value: Any) -> None:
        """Show `value`."""
        with self._widget.changed.blocked():
            self._widget.value = "" if value is None and self._empty is None else _shown(value)


class _WheelGuard(QObject):
    """Keeps a wheel that scrolls a form from changing the choice under the mouse."""

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Swallow wheel events of fields without focus."""
        assert event is not None
        if event.type() == QEvent.Type.Wheel and isinstance(watched, QWidget) and not watched.hasFocus():
            event.ignore()
            return True
        return False


def _shown(value: Any) -> Any:
    return value.text if isinstance(value, Unreadable) else value


class ListEdit(QWidget):
    """Values separated by commas."""

    valueChanged = Signal(object)

    def __init__(self, annotation: Any, empty: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._annotation, self._empty = annotation, empty
        self._text = text_edit()
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._text)
        self.setFocusProxy(self._text)
        self._text.valueChanged.connect(lambda: self.valueChanged.emit(self.value()))

    def value(self) -> Any:
        """Elements, or what an empty field stands for."""
        text = str(self._text.value())
        return parse_list(text, self._annotation) if text.strip() or self._empty == () else self._empty

    def setValue(self, value: Any) -> None:
        """Show the elements."""
        self._text.setValue(list_text(value) if isinstance(value, tuple | list) else value or "")


class MappingEdit(QWidget):
    """A mapping as YAML text."""

    valueChanged = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._text = QPlainTextEdit()
        self._text.setPlaceholderText("name: value")
        self._text.setTabChangesFocus(True)
        self._text.setFixedHeight(self._text.fontMetrics().lineSpacing() * 4)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._text)
        self.setFocusProxy(self._text)
        self._text.textChanged.connect(lambda: self.valueChanged.emit(self.value()))

    def value(self) -> Any:
        """The mapping."""
        return parse_mapping(self._text.toPlainText())

    def setValue(self, value: Any) -> None:
        """Show the mapping."""
        self._text.blockSignals(True)
        self._text.setPlainText(value.text if isinstance(value, Unreadable) else mapping_text(value))
        self._text.blockSignals(False)


class MaybeEdit(QWidget):
    """A value that may be absent: None with a box “set”, or a word such as auto with a box of that name."""

    valueChanged = Signal(object)

    def __init__(self, inner: Any, absent: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._inner, self._absent = inner, absent
        self._box = QCheckBox("set" if absent is None else str(absent))
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        layout.addWidget(inner, 1)
        self._started = False
        self._show()
        self._box.toggled.connect(self._on_toggled)
        inner.valueChanged.connect(self._on_changed)

    def _present(self) -> bool:
        return self._box.isChecked() == (self._absent is None)

    def _show(self) -> None:
        self._inner.setEnabled(self._present())

    def _on_toggled(self) -> None:
        self._show()
        if self._present() and not self._started and hasattr(self._inner, "start"):
            self._inner.setValue(self._inner.start())
        self._started = True
        self.valueChanged.emit(self.value())

    def _on_changed(self) -> None:
        self.valueChanged.emit(self.value())

    def value(self) -> Any:
        """The value, or what absence stands for."""
        return self._inner.value() if self._present() else self._absent

    def setValue(self, value: Any) -> None:
        """Show the value or its absence; what was entered before waits behind the box."""
        present = value != self._absent
        self._box.blockSignals(True)
        self._box.setChecked(present == (self._absent is None))
        self._box.blockSignals(False)
        if present:
            self._started = True
            self._inner.setValue(value)
        self._show()


# ---- which editor --------------------------------------------------------------


def text_edit(empty: Any = "", placeholder: str = "") -> MagicEdit:
    """Editor of one line of text."""
    from magicgui.widgets import LineEdit

    widget = LineEdit()
    widget.native.setPlaceholderText(placeholder)
    return MagicEdit(widget, empty)


def choice_edit(choices: Sequence[Any], helps: Sequence[str] = ()) -> MagicEdit:
    """Editor of a choice, in words; `helps` are the tooltips of its entries."""
    from magicgui.widgets import ComboBox

    widget = ComboBox(choices=[(choice_words(c), "" if c is None else c) for c in choices])
    for index, text in enumerate(helps):
        widget.native.setItemData(index, text, Qt.ItemDataRole.ToolTipRole)
    widget.native.setSizeAdjustPolicy(widget.native.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    return MagicEdit(widget, empty=None)


def check_edit() -> MagicEdit:
    """Editor of yes or no."""
    from magicgui.widgets import CheckBox

    return MagicEdit(CheckBox(text=""))


def make_editor(annotation: Any, metadata: Sequence[Any] = ()) -> Any:
    """Editor for values of a type that is no settings class."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return make_editor(inner, (*metadata, *more))
    if get_origin(annotation) in (Union, types.UnionType):
        return _union_editor(get_args(annotation), metadata)
    if get_origin(annotation) is Literal:
        return choice_edit(get_args(annotation))
    if annotation is bool:
        return check_edit()
    if annotation in (int, float):
        return NumberEdit(annotation is int, Limits.of(metadata))
    if get_origin(annotation) is tuple:
        return ListEdit(annotation, empty=())
    return MappingEdit() if (get_origin(annotation) or annotation) is dict else text_edit()


def _union_editor(members: tuple[Any, ...], metadata: Sequence[Any]) -> Any:
    """Editor of a value that may be None or a fixed word."""
    words = [w for m in members if get_origin(m) is Literal for w in get_args(m)]
    absent = None if type(None) in members else words[0]
    rest = [m for m in members if m is not type(None) and get_origin(m) is not Literal]
    if not rest:
        return choice_edit([absent, *words] if absent is None else words)
    if absent is None and rest[0] is str:
        return text_edit(empty=None, placeholder="not set")
    if absent is None and get_origin(rest[0]) is tuple:
        return _placeheld(ListEdit(rest[0], empty=None))
    listed = get_origin(rest[0]) is tuple
    return MaybeEdit(ListEdit(rest[0], empty=NEEDED) if listed else make_editor(rest[0], metadata), absent)


def _placeheld(editor: ListEdit) -> ListEdit:
    proxy: Any = editor.focusProxy()
    proxy.focusProxy().setPlaceholderText("not set")
    return editor
