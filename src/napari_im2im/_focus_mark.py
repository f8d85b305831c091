"""Where the keyboard is, drawn around buttons and choices of our panels: napari's themes do not show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPen
from qtpy.QtWidgets import QApplication, QWidget

from napari_im2im._panels import in_panel

if TYPE_CHECKING:
    from qtpy.QtGui import QPaintEvent

NAME = "im2im-focus-mark"
COLOUR = "#1f86e8"
"""Three times as light or dark as the ground of either theme, or more."""
WIDTH = 2.0


class FocusFrame(QWidget):
    """A line within the rim of a widget: outside of it, it would be cut where the parent ends."""

    def __init__(self, framed: QWidget) -> None:
        super().__init__(framed)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.resize(framed.size())
        framed.installEventFilter(self)
        self.show()
        self.raise_()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Follow the size of the widget."""
        if event is not None and event.type() == QEvent.Type.Resize and isinstance(watched, QWidget):
            self.resize(watched.size())
        return False

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """A line with rounded corners."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(QColor(COLOUR), WIDTH))
        inset = WIDTH / 2
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(inset, inset, -inset, -inset), 3, 3)
        painter.end()


class FocusMark(QObject):
    """Frames what has the keyboard in a panel of ours, unless the mouse, or a button that went, put it there."""

    def __init__(self, window: QWidget) -> None:
        super().__init__(window)
        self.setObjectName(NAME)
        self.frame: FocusFrame | None = None
        application = QApplication.instance()
        assert isinstance(application, QApplication)
        application.focusChanged.connect(self._on_focus)

    def _on_focus(self, before: QWidget | None, now: QWidget | None) -> None:
        if self.frame is not None and isalive(self.frame):
            self.frame.hide()
            self.frame.deleteLater()
        self.frame = None
        by_mouse = QApplication.mouseButtons() != Qt.MouseButton.NoButton
        by_itself = before is not None and not (isalive(before) and before.isEnabled() and before.isVisible())
        if now is not None and not by_mouse and not by_itself and now.window() is self.parent() and in_panel(now):
            self.frame = FocusFrame(now)


def mark_focus(window: QWidget) -> FocusMark:
    """The mark of a window, made where there is none."""
    found = window.findChild(FocusMark, NAME)
    return found if isinstance(found, FocusMark) else FocusMark(window)
