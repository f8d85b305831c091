"""The whole way with a mouse: from painted labels to a predicted layer, and from a bad prediction to a better model."""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QMenu, QWidget

from im2im_core.datasets import list_datasets, load_dataset
from im2im_core.jobs import start
from im2im_core.journal import Journal
from im2im_core.runs import Run
from im2im_core.samples import TARGET
from napari_im2im import _train_widget
from napari_im2im._dataset_widget import DatasetWidget
from napari_im2im._layers import is_result
from napari_im2im._plan_summary import Planner
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


def results(viewer: Any, before: set[Any]) -> list[Any]:
    """Predictions that were not there before."""
    return [layer for layer in viewer.layers if layer not in before and is_result(layer)]


def validated(run: Run) -> bool:
    """Whether the training has shown how good it is."""
    from im2im_core.events import Validated
    from im2im_core.jobs.eventlog import read_events

    return any(isinstance(stamped.event, Validated) for stamped in read_events(run))


# ---- teaching ------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Predictions and trainings by small processes, a plan that is printed."""
    here = Path(__file__)
    defaults = PredictWidget.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "command", (sys.executable, str(here.with_name("predict_worker.py"))))
    training = (sys.executable, str(here.with_name("fake_training.py")))
    monkeypatch.setattr(start, "start_training", partial(start.start_training, command=training))
    script = tmp_path / "plan.py"
    plan = {
        "facts": {"training": 1, "validation": 1, "test": 0, "split": "a strip is kept"},
        "runtime": {"device": "cpu"},
        "recipe": {"training": {"minutes": None}},
        "reasons": {},
        "messages": [],
        "estimate": {"seconds_per_step": 0.1, "memory_gigabytes": 0.1, "minutes": 1.0},
        "steps": 100,
    }
    script.write_text(f"print({json.dumps(plan)!r})")
    monkeypatch.setattr(_train_widget, "Planner", partial(Planner, (sys.executable, str(script))))


def describe_model(folder: Path, name: str) -> Path:
    """Description of a model that the small process runs."""
    inference = {
        "task": "instance_segmentation",
        "shapes": {"dimensions": 2, "input_channels": 1},
        "input": {"normalization": {"kind": "percentile"}, "rescale": {"kind": "none"}, "object_diameter": 31.0},
        "framework": {"kind": "instance"},
        "network": {"kind": "basic_unet"},
        "patch": [64, 64],
        "divisor": [16, 16],
        "halo": [20, 20],
        "outputs": [{"name": "labels", "kind": "labels", "channels": 1, "axes": "CZYX"}],
    }
    content = {"name": name, "description": "A toy.", "license": "MIT", "config": {"im2im": {"inference": inference}}}
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("rdf.yaml", "bioimageio.yaml"):
        (folder / file).write_text(yaml.safe_dump(content))
    return folder


def discs(size: int = 128) -> np.ndarray:
    """Discs of 31 pixels, 60 pixels apart."""
    y, x = np.mgrid[:size, :size]
    return ((((y % 60) - 30) ** 2 + ((x % 60) - 30) ** 2) < 15.5**2).astype(np.float32)


@pytest.mark.slow
@pytest.mark.usefixtures("ends_with_the_test", "quick")
def test_a_prediction_that_is_not_right_teaches_a_better_model(
    children_end: Any,
    make_napari_viewer: Any,
    project: Any,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Predict, Teach it, paint, Train, Use it: real panels all the way."""
    monkeypatch.setenv("IM2IM_HOME", str(tmp_path / "home"))
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1366, 768)
    viewer.add_image(discs(), name="cells")
    mouse = Mouse(qtbot)

    open_panel(mouse, viewer, "Predict")
    predict = panel(PredictWidget, qtbot)
    predict.set_model(describe_model(project.root / "models" / "good", "good nuclei"))
    mouse.click(predict.button)
    mouse.click(predict.teach_button)
    dataset = panel(DatasetWidget, qtbot)
    qtbot.waitUntil(lambda: "cells · corrections" in viewer.layers, timeout=PATIENCE)
    painted = viewer.layers["cells · corrections"]
    qtbot.waitUntil(lambda: painted.mode == "paint" and viewer.layers.selection.active is painted, timeout=PATIENCE)
    painted.brush_size = 12
    painted.paint((5, 5), 50)
    journal = Journal(project, painted.unique_id.hex)
    qtbot.waitUntil(lambda: journal.exists and bool((journal.restore() == painted.data).all()), timeout=PATIENCE)
    mouse.click(dataset.draw)
    viewer.layers.selection.active.add_rectangles([[0, 0], [0, 99], [99, 99], [99, 0]])

    qtbot.waitUntil(dataset.train.isEnabled, timeout=PATIENCE)
    mouse.click(dataset.train)
    train = panel(TrainWidget, qtbot)
    train.ask_on_close = lambda names: "stop"
    qtbot.waitUntil(lambda: train.start_panel.recipe().data.path is not None, timeout=PATIENCE)
    (entry,) = list_datasets(project)
    samples, _ = load_dataset(entry.path)
    assert entry.regions == 1
    assert any((sample.targets[TARGET].read() == 49).any() for sample in samples)  # 1 is background where one paints
    mouse.click(train.start_panel.start_button)
    qtbot.waitUntil(lambda: bool(train.shown()), timeout=PATIENCE)
    run = Run(train.shown())
    qtbot.waitUntil(lambda: validated(run), timeout=PATIENCE)
    mouse.click(train.run_panel.button("stop"))
    qtbot.waitUntil(lambda: run.state == "finished", timeout=PATIENCE)
    describe_model(run.model, "taught nuclei")

    mouse.click(train.run_panel.use_button)
    qtbot.waitUntil(lambda: predict.models.value().name == "taught nuclei", timeout=PATIENCE)
    before = set(viewer.layers)
    mouse.click(predict.button)
    fresh = partial(results, viewer, before)  # the last previews of the training may come now, too
    qtbot.waitUntil(lambda: bool(fresh()) and not predict.job.running, timeout=PATIENCE)
    (layer,) = fresh()
    assert layer.name == "cells · taught nuclei"
    train.watch.stop()
    train.planner.cancel()
    viewer.window.remove_dock_widget("all")
    children_end()
