"""The whole way with a mouse: from an opened sample with painted labels to a predicted layer."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QMenu, QWidget

from im2im_core.runs import Run
from napari_im2im._dataset_widget import DatasetWidget
from napari_im2im._predict_widget import PredictWidget
from napari_im2im._train_widget import TrainWidget

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")

PATIENCE = 240_000
MOST_CLICKS = 8


class Mouse:
    """Presses what is visible and counts; nothing is called that a person could not press."""

    def __init__(self, qtbot: Any) -> None:
        self.qtbot = qtbot
        self.clicks = 0

    def click(self, widget: QWidget) -> None:
        self.qtbot.waitUntil(lambda: widget.isEnabled() and in_sight(widget), timeout=PATIENCE)
        QTest.mouseClick(widget, Qt.MouseButton.LeftButton)
        self.clicks += 1

    def choose(self, menu: QMenu, text: str) -> QMenu | None:
        """Click on an entry of an open menu; the menu below it is returned."""
        self.qtbot.waitUntil(menu.isVisible, timeout=PATIENCE)
        (action,) = [a for a in menu.actions() if a.text().replace("&", "") == text]
        place = menu.actionGeometry(action).center()
        QTest.mouseMove(menu, place)  # a menu that has just opened takes no click where the pointer was not
        self.qtbot.wait(100)
        QTest.mouseClick(menu, Qt.MouseButton.LeftButton, pos=place)
        self.clicks += 1
        return action.menu()


def in_sight(widget: QWidget) -> bool:
    """Whether its middle can be pressed: what is scrolled away or behind another tab is visible to Qt alone."""
    middle = widget.rect().center()
    return widget.isVisible() and widget.visibleRegion().contains(middle)


def open_panel(mouse: Mouse, viewer: Any, title: str) -> None:
    """Plugins > napari-im2im > `title`, each with a click."""
    menu = viewer.window.plugins_menu
    bar = viewer.window._qt_window.menuBar()
    QTest.mouseClick(bar, Qt.MouseButton.LeftButton, pos=bar.actionGeometry(menu.menuAction()).center())
    mouse.clicks += 1
    below = mouse.choose(menu, "napari-im2im")
    assert below is not None
    mouse.choose(below, f"{title} (napari-im2im)")


def panel(kind: type, qtbot: Any) -> Any:
    """The open panel of a kind."""

    def found() -> list[Any]:
        return [w for w in QApplication.allWidgets() if type(w) is kind and w.isVisible()]

    qtbot.waitUntil(lambda: bool(found()), timeout=PATIENCE)
    return found()[0]


@pytest.fixture
def ends_with_the_test(project: Any) -> Any:
    """Kill trainings that a failed test leaves."""
    yield
    for run in project.runs():
        if run.state in ("queued", "running") and run.status.pid:
            os.kill(run.status.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.usefixtures("ends_with_the_test")
def test_at_most_eight_clicks_from_a_sample_to_a_predicted_layer(
    children_end: Any,
    make_napari_viewer: Any,
    project: Any,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("IM2IM_HOME", str(tmp_path / "home"))
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1366, 768)
    viewer.open_sample("napari-im2im", "painted_corner")
    mouse = Mouse(qtbot)

    open_panel(mouse, viewer, "Dataset")
    mouse.click(panel(DatasetWidget, qtbot).train)
    train = panel(TrainWidget, qtbot)
    train.ask_on_close = lambda names: "stop"
    qtbot.waitUntil(lambda: train.start_panel.recipe().data.path is not None, timeout=PATIENCE)
    mouse.click(train.start_panel.start_button)
    qtbot.waitUntil(lambda: bool(train.shown()), timeout=PATIENCE)
    run = Run(train.shown())
    qtbot.waitUntil(lambda: validated(run), timeout=PATIENCE)
    mouse.click(train.run_panel.button("stop"))
    mouse.click(train.run_panel.use_button)
    predict = panel(PredictWidget, qtbot)
    before = set(viewer.layers)
    mouse.click(predict.button)
    qtbot.waitUntil(lambda: bool(set(viewer.layers) - before) and not predict.job.running, timeout=PATIENCE)

    (layer,) = set(viewer.layers) - before
    assert layer.data.shape == viewer.layers["nuclei to learn"].data.shape
    assert np.issubdtype(layer.data.dtype, np.integer)
    assert run.state == "finished"
    assert mouse.clicks <= MOST_CLICKS
    train.watch.stop()
    train.planner.cancel()
    viewer.window.remove_dock_widget("all")
    children_end()


def validated(run: Run) -> bool:
    """Whether the training has shown how good it is."""
    from im2im_core.events import Validated
    from im2im_core.jobs.eventlog import read_events

    return any(isinstance(stamped.event, Validated) for stamped in read_events(run))
