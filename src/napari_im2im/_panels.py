"""Our panels in one column: opened, brought back and destroyed the same way wherever they are called from."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

from qtpy.compat import isalive
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow

from im2im_core.errors import DataError
from napari_im2im._endings import when_destroyed

if TYPE_CHECKING:
    from napari import Viewer
    from qtpy.QtWidgets import QWidget

PLUGIN = "napari-im2im"
SETTLED = "im2im_settled"
"""Property of a dock that found its place once; afterwards it lies where the user puts it."""
FIT_MILLISECONDS = 100
"""Time in which a window has the size that a new dock gives it."""


def open_panel(viewer: Viewer, name: str) -> Any:
    """Widget of the panel `name` (Dataset, Train, Predict, Evaluate), on top of its column.

    A panel that is open already comes to the front; napari itself returns a hidden one without showing it.

    Raises
    ------
    DataError
        napari does not know the panel.
    """
    try:
        dock, widget = viewer.window.add_plugin_dock_widget(PLUGIN, name, tabify=True)
    except (KeyError, ValueError, TypeError, ModuleNotFoundError) as error:
        raise DataError(f"{name} could not be opened: {error}", f"Open it from Plugins > {PLUGIN}") from error
    settle_dock(widget)
    dock.show()
    dock.raise_()
    return widget


def settle_dock(widget: QWidget) -> None:
    """Put the dock of a panel behind the tabs of our other panels, and let the panel end with its dock.

    To be called whenever the panel is shown; only the first call for a dock does something, so that
    docks which the user moved apart stay apart.
    """
    dock = dock_of(widget)
    window = dock.parentWidget() if dock is not None else None
    if dock is None or not isinstance(window, QMainWindow) or dock.property(SETTLED):
        return
    dock.setProperty(SETTLED, True)
    QTimer.singleShot(0, partial(_watch, ref(window)))
    QTimer.singleShot(FIT_MILLISECONDS, partial(_fit, ref(window)))
    QTimer.singleShot(FIT_MILLISECONDS, partial(_mark_focus, ref(window)))
    # napari takes the panel out of a dock that is closed and forgets it; its timers and threads would stay.
    when_destroyed(dock, partial(_delete, ref(widget)))
    others = [d for d in window.findChildren(QDockWidget) if d is not dock and _is_open(d)]
    here = [d for d in others if window.dockWidgetArea(d) == window.dockWidgetArea(dock)]
    if here and dock not in window.tabifiedDockWidgets(here[-1]):
        window.tabifyDockWidget(here[-1], dock)
        QTimer.singleShot(0, lambda: _raise(dock))


def dock_of(widget: QWidget) -> QDockWidget | None:
    """Dock that holds `widget`; None while it is a window of its own."""
    parent: Any = widget
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parentWidget()
    return parent


def in_panel(widget: QWidget) -> bool:
    """Whether `widget` stands in one of our panels."""
    dock = dock_of(widget)
    return dock is not None and bool(dock.property(SETTLED))


def watch_soon() -> None:
    """Begin to watch the labels of the viewer in front soon, as every panel does; nothing without a window.

    napari calls no plugin at its start, so what is painted there is safe from our first panel or sample on.
    """
    from napari import current_viewer

    from napari_im2im._journal_watch import main_window

    viewer = current_viewer()
    window = main_window(viewer) if viewer is not None else None
    if isinstance(window, QMainWindow):
        QTimer.singleShot(0, partial(_watch, ref(window)))


def _is_open(dock: QDockWidget) -> bool:
    """Whether it is a dock of ours that lies in the window; tabs behind others count."""
    return bool(dock.property(SETTLED)) and not dock.isFloating() and not dock.isHidden()


def _watch(shown_in: ReferenceType[QMainWindow]) -> None:
    """Keep what is painted safe from the first panel on, whichever it is."""
    from napari import current_viewer

    from napari_im2im._journal_watch import main_window, watch_labels

    viewer, window = current_viewer(), shown_in()
    if viewer is not None and window is not None and isalive(window) and main_window(viewer) is window:
        watch_labels(viewer)


def _raise(dock: QDockWidget) -> None:
    if isalive(dock):
        dock.raise_()


def _fit(shown: ReferenceType[QMainWindow]) -> None:
    """Take back what the window grew beyond its screen while two panels lay below each other for a moment."""
    window = shown()
    if window is None or not isalive(window) or window.isMaximized() or window.isFullScreen():
        return
    screen = window.screen()
    room = screen.availableGeometry().height() if screen is not None else window.height()
    if window.height() > room:
        window.resize(window.width(), room)


def _mark_focus(shown: ReferenceType[QMainWindow]) -> None:
    """Show where the keyboard is, from the first panel on."""
    from napari_im2im._focus_mark import mark_focus

    window = shown()
    if window is not None and isalive(window):
        mark_focus(window)


def _delete(panel: ReferenceType[QWidget]) -> None:
    """Delete a panel whose dock is gone; one that was put into another dock lives on."""
    widget = panel()
    if widget is not None and isalive(widget) and widget.parentWidget() is None:
        widget.deleteLater()
