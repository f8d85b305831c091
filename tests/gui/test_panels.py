"""Our panels in real docks: one column of tabs that fits a small screen, brought back, and gone when closed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qtpy.compat import isalive
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QDockWidget,
    QLabel,
    QLineEdit,
    QMainWindow,
    QScrollBar,
    QWidget,
)

from im2im_core.errors import DataError
from im2im_core.journal import Journal
from napari_im2im._journal_watch import watch_labels
from napari_im2im._panels import dock_of, open_panel

PANELS = ("Predict", "Dataset", "Train", "Evaluate")
SCREEN = (1366, 768)


@pytest.fixture
def viewer(
    children_end: Callable[[], None],
    make_napari_viewer: Any,
    project: Any,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> Any:
    """A viewer on a small screen, with nothing in the user's lists."""
    monkeypatch.setenv("IM2IM_HOME", str(tmp_path / "home"))
    made = make_napari_viewer(show=True)
    made.window.resize(*SCREEN)
    qtbot.wait(50)
    yield made
    made.window.remove_dock_widget("all")
    children_end()


def from_menu(viewer: Any, name: str) -> Any:
    """The panel as the Plugins menu opens it, which knows no tabs."""
    title = f"{name} (napari-im2im)"
    (action,) = [a for a in _entries(viewer.window.plugins_menu) if a.text().replace("&", "") == title]
    action.trigger()
    return viewer.window.dock_widgets[title]


def _entries(menu: Any) -> list[Any]:
    found = []
    for action in menu.actions():
        found += _entries(action.menu()) if action.menu() is not None else [action]
    return found


def window_of(widget: Any) -> QMainWindow:
    window = widget.window()
    assert isinstance(window, QMainWindow)
    return window


@pytest.mark.parametrize("opened", [open_panel, from_menu])
def test_four_panels_share_one_column_of_a_small_screen(viewer: Any, qtbot: Any, opened: Any) -> None:
    panels = {name: opened(viewer, name) for name in PANELS}
    qtbot.wait(300)
    docks = [dock_of(panel) for panel in panels.values()]
    window = window_of(panels["Predict"])
    first, *others = docks
    assert first is not None
    assert {d.windowTitle() for d in window.tabifiedDockWidgets(first)} == {d.windowTitle() for d in others if d}
    assert not panels["Evaluate"].visibleRegion().isEmpty()
    assert panels["Train"].visibleRegion().isEmpty()
    assert window.height() <= SCREEN[1]
    assert window.width() <= SCREEN[0]


def test_a_window_that_grew_beyond_its_screen_fits_again(viewer: Any, qtbot: Any) -> None:
    """As it does while a new panel lies below another one, before it becomes a tab."""
    window = viewer.window._qt_window
    room = window.screen().availableGeometry().height()
    open_panel(viewer, "Predict")
    open_panel(viewer, "Evaluate")
    window.resize(window.width(), room + 40)
    qtbot.waitUntil(lambda: window.height() <= room, timeout=30_000)
    window.resize(window.width(), room - 40)
    open_panel(viewer, "Dataset")
    qtbot.wait(300)
    assert window.height() == room - 40


def test_a_hidden_panel_comes_back_to_the_front(viewer: Any, qtbot: Any) -> None:
    dataset = open_panel(viewer, "Dataset")
    dock = dock_of(dataset)
    assert dock is not None
    open_panel(viewer, "Evaluate")
    dock.close()
    assert not dataset.isVisible()
    assert open_panel(viewer, "Dataset") is dataset
    qtbot.waitUntil(lambda: not dataset.visibleRegion().isEmpty(), timeout=30_000)


def test_panels_that_the_user_moved_apart_stay_apart(viewer: Any, qtbot: Any) -> None:
    dataset, evaluate = open_panel(viewer, "Dataset"), open_panel(viewer, "Evaluate")
    dock, other = dock_of(dataset), dock_of(evaluate)
    assert dock is not None
    assert other is not None
    dock.setFloating(True)
    dock.hide()
    open_panel(viewer, "Dataset")
    qtbot.wait(100)
    assert dock.isFloating()
    assert dock not in window_of(evaluate).tabifiedDockWidgets(other)


@pytest.mark.parametrize("name", PANELS)
def test_closing_a_dock_ends_the_panel(viewer: Any, qtbot: Any, name: str) -> None:
    panel = open_panel(viewer, name)
    qtbot.wait(50)
    dock = dock_of(panel)
    assert isinstance(dock, QDockWidget)
    dock.destroyOnClose()
    qtbot.waitUntil(lambda: not isalive(panel), timeout=30_000)
    assert open_panel(viewer, name) is not panel


@pytest.mark.parametrize("name", ["Predict", "Train"])
def test_what_is_painted_is_kept_safe_from_the_first_panel_on(viewer: Any, qtbot: Any, project: Any, name: str) -> None:
    labels = viewer.add_labels(np.zeros((40, 40), np.uint8), name="mine")
    open_panel(viewer, name)
    qtbot.wait(100)
    labels.paint((5, 5), 1)
    journal = Journal(project, labels.unique_id.hex)
    qtbot.waitUntil(lambda: journal.exists, timeout=30_000)
    assert watch_labels(viewer).watches(viewer)
    watch_labels(viewer).stop()


def test_a_panel_that_napari_does_not_know_is_said_in_words(viewer: Any) -> None:
    with pytest.raises(DataError, match="Nothing could not be opened"):
        open_panel(viewer, "Nothing")


# ---- words for everything that can be pressed ----------------------------------


@pytest.mark.parametrize("name", PANELS)
def test_everything_that_can_be_used_says_what_it_does(viewer: Any, qtbot: Any, name: str) -> None:
    panel = open_panel(viewer, name)
    qtbot.wait(300)
    kinds = (QAbstractButton, QComboBox, QAbstractSlider, QAbstractSpinBox, QLineEdit)
    used = [
        w for kind in kinds for w in panel.findChildren(kind) if w.isVisible() and w.isEnabled() and not _is_part(w)
    ]
    assert len(used) >= 3
    buddies = {label.buddy() for label in panel.findChildren(QLabel) if label.buddy() is not None}
    assert [_called(w) for w in used if not _tip(w)] == []
    assert [_called(w) for w in used if not _name(w) and w not in buddies] == []


def _is_part(widget: QWidget) -> bool:
    """Whether it is a part of another control, such as a scroll bar or the field of a box."""
    parent = widget.parentWidget()
    in_box = parent is not None and isinstance(parent, QComboBox | QAbstractSpinBox)
    names = ("qt_", "ScrollLeft", "ScrollRight")
    return isinstance(widget, QScrollBar) or in_box or widget.objectName().startswith(names)


def _tip(widget: QWidget) -> str:
    """Its tooltip, or that of the control that it belongs to."""
    parent = widget.parentWidget()
    return widget.toolTip() or (parent.toolTip() if parent is not None else "")


def _name(widget: QWidget) -> str:
    text = widget.text() if isinstance(widget, QAbstractButton) else ""
    return widget.accessibleName() or text


def _called(widget: QWidget) -> str:
    words = widget.text() if isinstance(widget, QAbstractButton | QLineEdit) else ""
    return f"{type(widget).__name__} {widget.objectName()!r} {words!r} in {type(widget.parentWidget()).__name__}"
