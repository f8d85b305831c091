"""Where the keyboard is: framed in our panels alone, in either theme, and not where the mouse put it."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QApplication, QDockWidget, QPushButton, QVBoxLayout, QWidget

from napari_im2im._focus_mark import COLOUR, FocusMark, mark_focus
from napari_im2im._panels import SETTLED, open_panel


@pytest.fixture
def dock(make_napari_viewer: Any) -> Any:
    """A dock with two buttons that is one of ours, in a window with a mark."""
    viewer = make_napari_viewer(show=True)
    panel = QWidget()
    layout = QVBoxLayout(panel)
    layout.addWidget(QPushButton("Pause"))
    layout.addWidget(QPushButton("Stop"))
    layout.addStretch(1)
    made = viewer.window.add_dock_widget(panel, name="ours")
    assert isinstance(made, QDockWidget)
    made.setProperty(SETTLED, True)
    mark_focus(panel.window())
    return made


def reach(widget: QWidget | None, before: QWidget | None = None) -> None:
    """The keyboard comes to `widget`; no window is active under a screen without a window manager."""
    application = QApplication.instance()
    assert isinstance(application, QApplication)
    application.focusChanged.emit(before, widget)


def marked(dock: QDockWidget) -> QWidget | None:
    frame = mark_focus(dock.window()).frame
    return None if frame is None else frame.parentWidget()


def test_what_has_the_keyboard_is_framed_until_it_moves_on(dock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (b for b in dock.findChildren(QPushButton) if b.text())
    assert mark_focus(dock.window()) is mark_focus(dock.window())
    for button in (first, second):
        reach(button)
        assert marked(dock) is button
    monkeypatch.setattr(QApplication, "mouseButtons", lambda: Qt.MouseButton.LeftButton)
    reach(first)
    assert marked(dock) is None
    monkeypatch.undo()
    reach(first)
    assert marked(dock) is first
    second.setEnabled(False)
    reach(first, second)  # Qt passes it on when a button is switched off
    assert marked(dock) is None
    reach(first)
    dock.setProperty(SETTLED, False)
    reach(second)
    assert marked(dock) is None
    reach(None)
    assert marked(dock) is None


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_frame_stands_out(dock: Any, qtbot: Any, make_napari_viewer: Any, theme: str) -> None:
    from napari import current_viewer

    current_viewer().theme = theme
    first, second = (b for b in dock.findChildren(QPushButton) if b.text())
    qtbot.wait(100)  # the window is drawn in its theme, and has found its own focus
    reach(second)
    second.resize(second.width(), second.height() + 9)
    assert mark_focus(dock.window()).frame.size() == second.size()
    picture = dock.grab().toImage()

    def blue(button: QPushButton) -> int:
        """Pixels in the colour of the mark along the upper rim of a button."""
        corner = button.mapTo(dock, button.rect().topLeft())
        line = [picture.pixelColor(corner.x() + 9 + i, corner.y() + j) for i in range(20) for j in range(3)]
        return sum(abs(QColor(COLOUR).red() - c.red()) + abs(QColor(COLOUR).blue() - c.blue()) < 20 for c in line)

    assert blue(second) >= 20
    assert blue(first) == 0


def test_the_first_panel_brings_the_mark_along(make_napari_viewer: Any, project: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer(show=True)
    panel = open_panel(viewer, "Evaluate")
    qtbot.waitUntil(lambda: panel.window().findChild(FocusMark) is not None, timeout=5000)
    viewer.window.remove_dock_widget("all")
