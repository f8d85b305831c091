"""What a panel must look like whatever the theme: nothing over something else, nothing without a name."""

from __future__ import annotations

from itertools import combinations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QPushButton, QStyle, QStyleOptionComboBox, QToolButton, QWidget


def crowded(parent: QWidget) -> list[tuple[str, str]]:
    """Pairs of visible widgets directly in `parent` that lie over each other, or over its rim."""
    direct = Qt.FindChildOption.FindDirectChildrenOnly
    shown = [w for w in parent.findChildren(QWidget, options=direct) if w.isVisible()]
    assert shown
    wide = [(w, parent) for w in shown if w.geometry().right() > parent.width()]
    over = [(a, b) for a, b in combinations(shown, 2) if a.geometry().intersects(b.geometry())]
    return [(type(a).__name__, type(b).__name__) for a, b in [*over, *wide]]


def nameless(parent: QWidget) -> list[str]:
    """Buttons and choices that a screen reader cannot name, or that have no tooltip."""
    found = [w for kind in (QComboBox, QPushButton, QToolButton) for w in parent.findChildren(kind)]
    ours = [w for w in found if w.isVisibleTo(parent) and not w.objectName().startswith("qt_")]
    assert ours
    return [f"{type(w).__name__} {_text(w)} {w.toolTip()}" for w in ours if not (_text(w) and w.toolTip())]


def cut(box: QComboBox) -> list[str]:
    """Choices of which not all letters are shown."""
    option = QStyleOptionComboBox()
    box.initStyleOption(option)
    style = box.style()
    assert style is not None
    part = QStyle.SubControl.SC_ComboBoxEditField
    room = style.subControlRect(QStyle.ComplexControl.CC_ComboBox, option, part, box).width()
    words = [box.itemText(i) for i in range(box.count())]
    return [w for w in words if box.fontMetrics().horizontalAdvance(w) > room]


def _text(widget: QWidget) -> str:
    return widget.accessibleName() or (widget.text() if isinstance(widget, QPushButton | QToolButton) else "")
