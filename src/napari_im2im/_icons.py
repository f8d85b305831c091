"""Icons that need no network: Qt's own, by what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from qtpy.QtWidgets import QApplication, QStyle

if TYPE_CHECKING:
    from qtpy.QtGui import QIcon

IconName = Literal["info", "warning", "error", "reset", "copy", "add", "remove", "folder", "start", "stop"]
_PIXMAPS: dict[str, QStyle.StandardPixmap] = {
    "info": QStyle.StandardPixmap.SP_MessageBoxInformation,
    "warning": QStyle.StandardPixmap.SP_MessageBoxWarning,
    "error": QStyle.StandardPixmap.SP_MessageBoxCritical,
    "reset": QStyle.StandardPixmap.SP_BrowserReload,
    "copy": QStyle.StandardPixmap.SP_FileDialogContentsView,
    "add": QStyle.StandardPixmap.SP_FileDialogNewFolder,
    "remove": QStyle.StandardPixmap.SP_TrashIcon,
    "folder": QStyle.StandardPixmap.SP_DirIcon,
    "start": QStyle.StandardPixmap.SP_MediaPlay,
    "stop": QStyle.StandardPixmap.SP_MediaStop,
}


BESIDE = """
QToolButton { padding-left: 4px; padding-right: 16px; }
QToolButton::menu-indicator { subcontrol-origin: padding; subcontrol-position: right center; right: 4px; }
"""
"""Style of a tool button with a menu whose arrow stands beside its words and not on them."""


def icon(name: IconName) -> QIcon:
    """Icon of the running application's style."""
    style = QApplication.style()
    assert style is not None
    return style.standardIcon(_PIXMAPS[name])
