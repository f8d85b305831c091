"""Which project the panels work in: its name, and a menu with the others."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QDockWidget, QFileDialog, QMenu, QSizePolicy, QToolButton

from im2im_core.errors import Im2ImError
from im2im_core.project import Project, choose_project, known_projects
from napari_im2im._icons import BESIDE, icon
from napari_im2im._panels import SETTLED, dock_of, open_panel

if TYPE_CHECKING:
    from napari import Viewer
    from qtpy.QtWidgets import QWidget

LISTED = 8
"""Projects in the menu, the latest first."""
WORKING = ("Dataset", "Train")
"""Panels that keep what they make in the project; the others show all projects."""


class ProjectButton(QToolButton):
    """Name of the project; its menu goes to another one, makes one, or shows the folder."""

    def __init__(self, viewer: Viewer, project: Project, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer, self._project = viewer, project
        self.setText(f"Project: {project.name}")
        self.setIcon(icon("folder"))
        self.setStyleSheet(BESIDE)
        self.setToolButtonStyle(self.toolButtonStyle().ToolButtonTextBesideIcon)
        self.setAutoRaise(True)
        self.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.setToolTip(f"Data sets, runs and models are kept in {project.root}")
        self.setAccessibleName(f"Project {project.name}; choose another one")
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        menu.aboutToShow.connect(self._fill)
        self.setMenu(menu)

    def choose(self, folder: Path) -> None:
        """Work in the project `folder`, which becomes one if it is none; the panels open again in it."""
        try:
            project = Project.create(folder)
        except Im2ImError as error:
            from napari.utils.notifications import show_error

            show_error(str(error))
            return
        if project != self._project:
            # Later: the panel of this button is one of those that are replaced.
            QTimer.singleShot(0, partial(work_in, self._viewer, project))

    def _fill(self) -> None:
        menu = self.menu()
        assert menu is not None
        menu.clear()
        for project in known_projects()[:LISTED]:
            action = menu.addAction(project.name, partial(self.choose, project.root))
            assert action is not None
            action.setToolTip(str(project.root))
            action.setCheckable(True)
            action.setChecked(project == self._project)
        menu.addSeparator()
        menu.addAction("Another folder …", self._ask)
        menu.addAction("Show the folder", lambda: QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._project.root))))

    def _ask(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of the project", str(self._project.root.parent))
        if folder:
            self.choose(Path(folder))


def work_in(viewer: Viewer, project: Project) -> None:
    """Open the panels that belong to a project again, in `project`; the one that lay in front does so again."""
    choose_project(project)
    docks = {name: dock for name in WORKING if (dock := _dock(viewer, name)) is not None}
    front = [name for name, dock in docks.items() if not dock.visibleRegion().isEmpty()]
    for dock in docks.values():
        viewer.window.remove_dock_widget(dock)
    for name in [*(name for name in docks if name not in front), *front]:
        open_panel(viewer, name)


def _dock(viewer: Viewer, name: str) -> QDockWidget | None:
    """Open dock of our panel `name`."""
    shown = viewer.window.dock_widgets.get(f"{name} (napari-im2im)")
    dock = dock_of(shown) if isinstance(shown, QObject) else None
    return dock if dock is not None and dock.property(SETTLED) else None
