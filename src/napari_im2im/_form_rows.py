"""Rows and foldable sections of a form; a section makes its rows when it is first unfolded."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Protocol, Union, get_args, get_origin

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QPushButton, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from im2im_core.recipe.fields import kind_of, union_classes
from napari_im2im._form_draft import HIDDEN, Draft, default_content, item_classes
from napari_im2im._form_editors import MagicEdit, choice_edit, make_editor
from napari_im2im._form_words import choice_words, label_of, unit_of
from napari_im2im._icons import icon

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from napari_im2im._form_draft import Path

LABEL_LETTERS = 18
"""Width of the labels, in average letters; the longest word of any setting fits, in bold too."""
INDENT = 12


class Host(Protocol):
    """The form that rows belong to."""

    draft: Draft
    placed: frozenset[Path]
    """Fields that stand at the top and not in their section."""

    @property
    def searching(self) -> bool:
        """Whether the search box hides some of the fields."""

    def edit(self, path: Path, value: Any) -> None:
        """Take over what a person entered."""

    def shown_problem(self, path: Path) -> str:
        """What is wrong at `path`, when it is time to say so."""

    def wanted(self, path: Path) -> bool:
        """Whether the search leaves `path` visible."""


class FieldRow(QWidget):
    """Label, editor, unit, reset button and, below, what is wrong."""

    def __init__(
        self, host: Host, path: Path, info: FieldInfo, editor: Any, label: str, unit: str, parent: QWidget
    ) -> None:
        super().__init__(parent)
        self._host, self.path, self.editor = host, path, editor
        self._text = label
        self._label = QLabel(label)
        self._label.setWordWrap(True)
        self._label.setFixedWidth(self._label.fontMetrics().averageCharWidth() * LABEL_LETTERS)
        self._label.setBuddy(editor)
        self._reset = QToolButton()
        self._reset.setIcon(icon("reset"))
        self._reset.setAutoRaise(True)
        self._reset.setToolTip("Reset to default")
        self._reset.setAccessibleName(f"Reset {label} to default")
        keep = self._reset.sizePolicy()
        keep.setRetainSizeWhenHidden(True)
        self._reset.setSizePolicy(keep)
        self._reset.clicked.connect(self._on_reset)
        self._error: QLabel | None = None
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setVerticalSpacing(0)
        self._grid.setColumnStretch(1, 1)
        self._grid.addWidget(self._label, 0, 0)
        self._grid.addWidget(editor, 0, 1)
        if unit:
            self._grid.addWidget(QLabel(unit), 0, 2)
        self._grid.addWidget(self._reset, 0, 3)
        for widget in (self, self._label, editor):
            widget.setToolTip(info.description or "")
        editor.setAccessibleName(label)
        _name_parts(editor, label, info.description or "")
        editor.valueChanged.connect(self._on_edited)
        self.refresh()

    def _on_edited(self, value: Any) -> None:
        self._host.edit(self.path, value)

    def _on_reset(self) -> None:
        self._host.edit(self.path, self._host.draft.default(self.path))

    def refresh(self) -> None:
        """Show the value of the draft, whether it is the default, and what is wrong with it."""
        value = self._host.draft.get(self.path)
        if self.editor.value() != value:
            self.editor.setValue(value)
        changed = self._host.draft.changed(self.path)
        font = self._label.font()
        if font.bold() != changed:
            font.setBold(changed)
            self._label.setFont(font)
            self._label.setText(f"{self._text} •" if changed else self._text)
        self._reset.setVisible(changed)
        self._show_problem(self._host.shown_problem(self.path))
        self.setVisible(self._host.wanted(self.path))

    def _show_problem(self, text: str) -> None:
        if text and self._error is None:
            self._error = QLabel()
            self._error.setObjectName("im2im-problem")
            self._error.setWordWrap(True)
            self._error.setTextFormat(Qt.TextFormat.PlainText)
            self._grid.addWidget(self._error, 1, 1, 1, 3)
        if self._error is not None:
            self._error.setText(f"⚠ {text}" if text else "")
            self._error.setVisible(bool(text))


class Section(QWidget):
    """A title that unfolds what stands below it."""

    def __init__(self, host: Host, path: Path, title: str, help_text: str, parent: QWidget) -> None:
        super().__init__(parent)
        self._host, self.path, self._title = host, path, title
        self._body: QWidget | None = None
        self._before_search: bool | None = None
        self._button = QToolButton()
        self._button.setAutoRaise(True)
        self._button.setCheckable(True)
        self._button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._button.setToolTip(help_text)
        self.setToolTip(help_text)
        self._button.toggled.connect(self._on_toggled)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(2)
        self._layout.addWidget(self._button)
        self.refresh()

    def make_body(self) -> QWidget:
        """What is shown when unfolded."""
        return Panel(self._host, self.path, self)

    def unfold(self, unfolded: bool = True) -> None:
        """Show or hide what stands below the title."""
        self._button.setChecked(unfolded)

    def _on_toggled(self, unfolded: bool) -> None:
        if unfolded and self._body is None:
            self._body = self.make_body()
            self._body.setContentsMargins(INDENT, 0, 0, 4)
            self._layout.addWidget(self._body)
        if self._body is not None:
            self._body.setVisible(unfolded)
        self._button.setArrowType(Qt.ArrowType.DownArrow if unfolded else Qt.ArrowType.RightArrow)

    def refresh(self) -> None:
        """Show title, choice and changes; unfold while a search finds something below."""
        draft, host = self._host.draft, self._host
        value = draft.get(self.path)
        kind = value.get("kind") if isinstance(value, dict) else None
        changed = draft.changed(self.path)
        title = f"{self._title}: {choice_words(kind)}" if kind else self._title
        self._button.setText(f"{title} •" if changed else title)
        font = self._button.font()
        font.setBold(changed)
        self._button.setFont(font)
        self._button.setArrowType(Qt.ArrowType.DownArrow if self._button.isChecked() else Qt.ArrowType.RightArrow)
        self.setVisible(host.wanted(self.path))
        self._follow_search()
        if isinstance(self._body, (Panel, Items)):
            self._body.refresh()

    def _follow_search(self) -> None:
        if self._host.searching and self._host.wanted(self.path):
            if self._before_search is None:
                self._before_search = self._button.isChecked()
            self.unfold()
        elif not self._host.searching and self._before_search is not None:
            self.unfold(self._before_search)
            self._before_search = None


class Panel(QWidget):
    """All fields of the settings at a path: plain ones as rows, others as sections; follows a change of kind."""

    def __init__(self, host: Host, path: Path, parent: QWidget) -> None:
        super().__init__(parent)
        self._host, self.path = host, path
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(2)
        self._kind = None if (*path, "kind") in host.placed else kind_row(host, path, self)
        if self._kind is not None:
            self._layout.addWidget(self._kind)
        self._shown: dict[Any, list[Any]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Show the fields of the kind that is chosen."""
        cls = self._host.draft.class_at(self.path)
        if cls not in self._shown:
            self._shown[cls] = self._make(cls)
        if self._kind is not None:
            self._kind.refresh()
        for owner, children in self._shown.items():
            for child in children:
                if owner is cls:
                    child.refresh()
                else:
                    child.hide()

    def _make(self, cls: type[BaseModel] | None) -> list[Any]:
        names = [n for n in (cls.model_fields if cls else ()) if n not in HIDDEN]
        paths = [path for n in names if (path := (*self.path, n)) not in self._host.placed]
        children = [make_child(self._host, path, self) for path in paths]
        children.sort(key=lambda child: isinstance(child, Section))  # plain fields first, then what unfolds
        for child in children:
            self._layout.addWidget(child)
        return children


class ItemsSection(Section):
    """A section whose settings form a list."""

    def make_body(self) -> QWidget:
        """The list."""
        return Items(self._host, self.path, self)


class Items(QWidget):
    """Settings in a list: each a section with a button to remove it, and a button to add one."""

    def __init__(self, host: Host, path: Path, parent: QWidget) -> None:
        super().__init__(parent)
        self._host, self.path = host, path
        self._rows: list[QWidget] = []
        self._sections: list[Section] = []
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(2)
        info = host.draft.info(path)
        assert info is not None
        self._classes = item_classes(info.annotation)
        self._add = QPushButton(icon("add"), "Add")
        self._add.setToolTip(info.description or "Add one more")
        self._add.setAccessibleName(f"Add to {label_of(str(path[-1]))}")
        self._add.clicked.connect(self._on_add)
        self._layout.addWidget(self._add, 0, Qt.AlignmentFlag.AlignLeft)
        self.refresh()

    def refresh(self) -> None:
        """Show as many items as there are."""
        count = len(self._host.draft.get(self.path) or ())
        while len(self._rows) > count:
            self._sections.pop()
            row = self._rows.pop()
            self._layout.removeWidget(row)
            row.hide()
            row.deleteLater()
        while len(self._rows) < count:
            self._rows.append(self._make(len(self._rows)))
            self._layout.insertWidget(len(self._rows) - 1, self._rows[-1])
            self._rows[-1].show()
        for section in self._sections[:count]:
            section.refresh()

    def _make(self, index: int) -> QWidget:
        row = QWidget(self)
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        self._sections.append(Section(self._host, (*self.path, index), str(index + 1), "Unfold its settings", row))
        layout.addWidget(self._sections[-1], 1)
        remove = QToolButton()
        remove.setIcon(icon("remove"))
        remove.setAutoRaise(True)
        remove.setToolTip("Remove")
        remove.setAccessibleName(f"Remove number {index + 1}")
        remove.clicked.connect(lambda: self._on_remove(index))
        layout.addWidget(remove, 0, Qt.AlignmentFlag.AlignTop)
        return row

    def _on_add(self) -> None:
        items = self._host.draft.get(self.path)
        self._host.edit(self.path, (*items, default_content(self._classes[0])))
        if len(self._sections) > len(items):
            self._sections[-1].unfold()

    def _on_remove(self, index: int) -> None:
        items = self._host.draft.get(self.path)
        self._host.edit(self.path, (*items[:index], *items[index + 1 :]))


def _name_parts(editor: QWidget, label: str, help_text: str) -> None:
    """Let all that takes the keyboard inside of an editor have its name and help: readers of screens stop there."""
    for part in editor.findChildren(QWidget):
        if part.focusPolicy() != Qt.FocusPolicy.NoFocus and not part.objectName().startswith("qt_"):
            part.setAccessibleName(part.accessibleName() or label)
            part.setToolTip(part.toolTip() or help_text)


# ---- which widget --------------------------------------------------------------


def make_child(host: Host, path: Path, parent: QWidget) -> FieldRow | Section:
    """Row or section for the field at `path`."""
    info = host.draft.info(path)
    assert info is not None
    name, help_text = str(path[-1]), info.description or ""
    if name == "kind":
        row = kind_row(host, path[:-1], parent)
        assert row is not None
        return row
    if union_classes(info.annotation):
        return Section(host, path, label_of(name), help_text, parent)
    if item_classes(info.annotation):
        return ItemsSection(host, path, label_of(name), help_text, parent)
    editor = make_editor(info.annotation, info.metadata)
    unit = "" if isinstance(editor, MagicEdit) else unit_of(name, help_text)
    return FieldRow(host, path, info, editor, label_of(name), unit, parent)


def kind_row(host: Host, path: Path, parent: QWidget) -> FieldRow | None:
    """Row that chooses the kind of the settings at `path`; None where there is but one."""
    place = path if path and isinstance(path[-1], str) else path[:-1]
    info = host.draft.info(place) if place else None
    if info is None:
        return None
    classes = union_classes(info.annotation) or item_classes(info.annotation)
    absent = get_origin(info.annotation) in (Union, types.UnionType) and type(None) in get_args(info.annotation)
    if len(classes) + absent < 2:
        return None
    choices = [*([None] if absent else []), *(kind_of(c) for c in classes)]
    helps = [*(["Not given"] if absent else []), *(c.__doc__ or "" for c in classes)]
    label = label_of(str(place[-1])) if place == path else "kind"
    return FieldRow(host, (*path, "kind"), info, choice_edit(choices, helps), label, "", parent)
