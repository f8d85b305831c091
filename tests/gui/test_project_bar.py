"""Another project from a panel: the panels open again in it, and the one in front stays in front."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from napari.utils.notifications import notification_manager

from im2im_core.project import Project, choose_project
from napari_im2im._panels import open_panel
from napari_im2im._project_bar import ProjectButton

PATIENCE = 20_000


@pytest.fixture(autouse=True)
def _chosen_project_is_forgotten() -> Iterator[None]:
    yield
    choose_project(None)


@pytest.fixture
def viewer(children_end: Callable[[], None], make_napari_viewer: Any, project: Any, qtbot: Any) -> Any:
    made = make_napari_viewer(show=True)
    made.window.resize(1366, 768)
    yield made
    made.window.remove_dock_widget("all")
    children_end()


def button_of(viewer: Any, name: str) -> ProjectButton:
    panel = viewer.window.dock_widgets[f"{name} (napari-im2im)"]
    (found,) = panel.findChildren(ProjectButton)
    return found


def entries(button: ProjectButton) -> dict[str, Any]:
    menu = button.menu()
    menu.aboutToShow.emit()
    return {action.text(): action for action in menu.actions() if action.text()}


def test_panels_open_again_in_the_project_that_is_chosen(
    viewer: Any, project: Project, tmp_path: Path, qtbot: Any
) -> None:
    other = Project.create(tmp_path / "other", "embryos")
    Project.open(project.root)
    for name in ("Dataset", "Train"):
        open_panel(viewer, name)
    qtbot.wait(100)
    before = button_of(viewer, "Train")
    assert before.text() == "Project: project"
    shown = entries(before)
    assert [a.isChecked() for n, a in shown.items() if n in ("project", "embryos")] == [True, False]
    shown["embryos"].trigger()
    qtbot.waitUntil(lambda: button_of(viewer, "Train") is not before, timeout=PATIENCE)
    assert Project.open() == other
    for name in ("Dataset", "Train"):
        assert button_of(viewer, name).text() == "Project: embryos"
    qtbot.waitUntil(lambda: button_of(viewer, "Train").isVisible(), timeout=PATIENCE)


def test_the_same_project_changes_nothing(viewer: Any, project: Project, qtbot: Any) -> None:
    open_panel(viewer, "Train")
    before = button_of(viewer, "Train")
    before.choose(project.root)
    qtbot.wait(100)
    assert button_of(viewer, "Train") is before


def test_a_folder_that_cannot_be_a_project_is_said(viewer: Any, project: Project, tmp_path: Path, qtbot: Any) -> None:
    open_panel(viewer, "Train")
    (tmp_path / "file").write_text("no folder")
    button_of(viewer, "Train").choose(tmp_path / "file" / "inside")
    (said,) = [n for n in notification_manager.records if "inside" in n.message]
    assert str(said.severity) == "error"
    assert Project.open() == project
