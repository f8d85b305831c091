"""Pictures of the tutorials and the README, taken from real trainings in a real viewer.

    python tools/with_display.py python tools/make_pictures.py [--minutes 3] [--only label_free]

Everything is pressed as a person would press it; nothing is drawn by hand.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs" / "images"
WINDOW = (1366, 768)
PATIENCE = 300.0
COLOURS = 128
"""A palette makes the pictures small; screenshots of a dark window lose nothing that is seen."""


class Stage:
    """A viewer in which panels are opened, and from which pictures are taken."""

    def __init__(self, story: str) -> None:
        import napari

        self.story = story
        self.viewer: Any = napari.Viewer(title="napari")
        self.viewer.window.resize(*WINDOW)
        self.window = self.viewer.window._qt_window
        self.number = 0
        wait(2)

    def sample(self, key: str) -> None:
        self.viewer.open_sample("napari-im2im", key)
        wait(1)

    def panel(self, name: str) -> Any:
        dock, widget = self.viewer.window.add_plugin_dock_widget("napari-im2im", name)
        dock.raise_()
        wait(1)
        return widget

    def front(self, kind: str) -> Any:
        """The open panel whose class has this name."""
        from qtpy.QtWidgets import QApplication

        def found() -> list[Any]:
            return [w for w in QApplication.allWidgets() if type(w).__name__ == kind and w.isVisible()]

        until(lambda: bool(found()), f"{kind} to open")
        return found()[0]

    def close(self, *names: str) -> None:
        for name, dock in list(self.viewer.window._wrapped_dock_widgets.items()):
            if any(n in name for n in names):
                self.viewer.window.remove_dock_widget(dock)
        wait(0.5)

    def picture(self, name: str) -> None:
        """Save the window as it is."""
        from PIL import Image
        from qtpy.QtCore import QBuffer

        wait(1)
        buffer = QBuffer()
        buffer.open(QBuffer.OpenModeFlag.WriteOnly)
        self.viewer.window._qt_window.activateWindow()
        self.window.screen().grabWindow(self.window.winId()).save(buffer, "PNG")
        image = Image.open(BytesIO(bytes(buffer.data()))).convert("RGB")
        self.number += 1
        path = DOCS / f"{self.story}_{self.number}_{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def wait(seconds: float) -> None:
    from qtpy.QtTest import QTest

    QTest.qWait(int(seconds * 1000))


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds:.0f} s for {what}")
        wait(0.1)


def click(widget: Any) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    until(widget.isEnabled, f"{widget.text()} to be ready")
    QTest.mouseClick(widget, Qt.MouseButton.LeftButton)
    wait(0.5)


# ---- stories -------------------------------------------------------------------


def segmentation(stage: Stage, minutes: float) -> None:
    """From a painted corner to labels, and how good they are."""
    stage.sample("painted_corner")
    stage.picture("sample")
    dataset = stage.panel("Dataset")
    learn(stage, dataset, minutes)
    result = use(stage)
    stage.picture("result")
    truth_of_the_sample(stage.viewer)
    evaluate(stage, result)
    stage.picture("evaluate")


def label_free(stage: Stage, minutes: float) -> None:
    """From transmitted light to fluorescence."""
    stage.sample("label_free")
    stage.picture("sample")
    dataset = stage.panel("Dataset")
    learn(stage, dataset, minutes)
    use(stage)
    stage.picture("result")


def learn(stage: Stage, dataset: Any, minutes: float) -> None:
    """From the Dataset panel to a trained model."""
    until(lambda: bool(dataset.rows()) and not dataset.work.name, "the pairs to be checked")
    stage.picture("dataset")
    click(dataset.train)
    train = stage.front("TrainWidget")
    train.ask_on_close = lambda names: "stop"
    stage.close("Dataset")
    train.start_panel.apply({"training.minutes": minutes})
    until(lambda: "memory" in train.start_panel.summary(), "the plan")
    stage.picture("train")
    click(train.start_panel.start_button)
    until(lambda: halfway(train), "half of the training", 60 * minutes + PATIENCE)
    stage.picture("running")
    until(train.run_panel.use_button.isVisible, "the end of the training", 60 * minutes + PATIENCE)
    stage.picture("done")


def halfway(train: Any) -> bool:
    """Whether less time is left than was used."""
    view = train._views.get(train.shown())
    progress = view.progress if view else None
    if view is None or progress is None or progress.task != "training":
        return False
    return bool(view.finished) or (progress.remaining or 1e9) < progress.elapsed


def use(stage: Stage) -> Any:
    """Layer that the trained model makes of the image it learned from."""
    train = stage.front("TrainWidget")
    click(train.run_panel.use_button)
    predict = stage.front("PredictWidget")
    stage.close("Train")
    click(predict.button)
    until(lambda: bool(results(stage)) and not predict.job.running, "the prediction")
    for layer in stage.viewer.layers:
        layer.visible = layer in results(stage) or type(layer).__name__ == "Image"
    return results(stage)[0]


def results(stage: Stage) -> list[Any]:
    """Layers that a model made."""
    from napari_im2im._layers import is_result

    return [layer for layer in stage.viewer.layers if is_result(layer)]


def truth_of_the_sample(viewer: Any) -> None:
    """Labels of every nucleus of the sample; a simulated image has them."""
    from im2im_core.microscope import fluorescence
    from napari_im2im._samples import PLANE, SEED

    image = viewer.layers["nuclei to learn"]
    truth = fluorescence(PLANE, seed=SEED + 1).labels
    viewer.add_labels(truth, name="truth", scale=image.scale, units=image.units, visible=False)


def evaluate(stage: Stage, result: Any) -> None:
    stage.close("Predict")
    panel = stage.panel("Evaluate")
    panel.prediction.setCurrentText(result.name)
    panel.truth.setCurrentText("truth")
    click(panel.button)
    until(lambda: panel.button.text() == "Compare" and panel.figures.isVisible(), "the figures")


STORIES: dict[str, Callable[[Stage, float], None]] = {"segmentation": segmentation, "label_free": label_free}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0, help="budget of each training")
    parser.add_argument("--only", choices=list(STORIES))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["IM2IM_HOME"] = home
        os.chdir(home)
        for name, story in STORIES.items():
            if arguments.only in (None, name):
                stage = Stage(name)
                story(stage, arguments.minutes)
                stage.viewer.close()
                wait(1)


if __name__ == "__main__":
    main()
