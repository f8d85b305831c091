"""The Predict panel on real viewers, with a small process in place of the engine, and once with a real model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from napari_im2im._object_size import advise, object_width
from napari_im2im._predict_widget import PredictWidget

WORKER = (sys.executable, str(Path(__file__).with_name("predict_worker.py")))
INFERENCE: dict[str, Any] = {
    "task": "instance_segmentation",
    "shapes": {"dimensions": 2, "input_channels": 1},
    "input": {
        "normalization": {"kind": "percentile"},
        "rescale": {"kind": "none"},
        "object_diameter": 17.0,
    },
    "framework": {"kind": "instance"},
    "network": {"kind": "basic_unet"},
    "patch": [64, 64],
    "divisor": [16, 16],
    "halo": [20, 20],
    "outputs": [
        {"name": "labels", "kind": "labels", "channels": 1, "axes": "CZYX"},
        {"name": "foreground", "kind": "probability", "channels": 1, "axes": "CZYX"},
    ],
}
README = "# Toy\n\n## Limits\n\nNot for tissue sections. Check a few results by eye.\n"
PATIENCE = 60000
"""Milliseconds that a busy machine may need for what takes a moment."""
MakeModel = Callable[..., Path]


@pytest.fixture
def make_model(tmp_path: Path, project: Any) -> MakeModel:
    """Function that writes the description of a model whose name says what the process does."""
    from PIL import Image

    def make(name: str, **changes: Any) -> Path:
        folder = project.root / "models" / name
        folder.mkdir(parents=True)
        Image.fromarray(np.full((32, 32, 3), 120, np.uint8)).save(folder / "cover.png")
        (folder / "README.md").write_text(README)
        content = {
            "name": f"{name} nuclei",
            "description": "Finds nuclei in fluorescence images. More words.",
            "documentation": "README.md",
            "covers": ["cover.png"],
            "license": "MIT",
            "config": {"im2im": {"inference": {**INFERENCE, **changes}, "provenance": {"metrics": {"ap50": 0.91}}}},
        }
        (folder / "bioimageio.yaml").write_text(yaml.safe_dump(content))
        return folder

    return make


@pytest.fixture
def open_panel(make_napari_viewer: Any, qtbot: Any, make_model: MakeModel) -> Any:
    """Function that opens the panel on a viewer with one image and a model of that name chosen."""
    opened: list[PredictWidget] = []

    def open_it(how: str = "good", size: int = 128, **changes: Any) -> tuple[Any, PredictWidget]:
        path = make_model(how, **changes)
        viewer = make_napari_viewer(show=True)
        viewer.add_image(discs(size), name="cells")
        widget = PredictWidget(viewer, command=WORKER)
        viewer.window.add_dock_widget(widget, name="Predict")
        opened.append(widget)
        widget.set_model(path)
        qtbot.waitUntil(lambda: widget.button.isEnabled(), timeout=PATIENCE)
        return viewer, widget

    yield open_it
    for widget in opened:
        with suppress(RuntimeError):  # destroyed with its dock, which ends the process too
            widget.job.close().join(15)


def discs(size: int = 128) -> np.ndarray:
    """Discs of 31 pixels, 60 pixels apart."""
    y, x = np.mgrid[:size, :size]
    return ((((y % 60) - 30) ** 2 + ((x % 60) - 30) ** 2) < 15.5**2).astype(np.float32)


def predicted(viewer: Any) -> list[Any]:
    return [layer for layer in viewer.layers if "im2im" in layer.metadata]


def at_rest(widget: PredictWidget) -> bool:
    return not widget.job.running and widget.button.text() == "Predict"


# ---- the usual way -------------------------------------------------------------


def test_click_gives_labels_where_the_image_lies(open_panel: Any, qtbot: Any) -> None:
    viewer, widget = open_panel()
    image = viewer.layers["cells"]
    image.scale, image.translate = (0.5, 0.5), (10.0, -3.0)
    widget.button.click()
    qtbot.waitUntil(lambda: "4 objects" in widget.status.text(), timeout=PATIENCE)
    (layer,) = predicted(viewer)
    assert layer.name == "cells · good nuclei"
    rows = np.arange(128)[:, None] // 32 + 1
    np.testing.assert_array_equal(layer.data, rows * (discs() > 0))
    assert tuple(layer.scale) == (0.5, 0.5)
    assert tuple(layer.translate) == (10.0, -3.0)
    assert layer.metadata["im2im"]["model"] == "good nuclei"
    assert widget.status.text().endswith("s, CPU")
    layer.data[0, 0] = 7  # what a brush does
    assert [m.text for m in widget.messages.messages()] == ["a word"]


def test_card_and_size_are_in_words(open_panel: Any, qtbot: Any) -> None:
    _, widget = open_panel()
    assert widget.models.value().name == "good nuclei"
    text = widget.models._card._text.text()
    assert text.splitlines() == [
        "Finds nuclei in fluorescence images.",
        "On images it was not trained on: AP at IoU 0.5: 0.91",
        "Not for tissue sections.",
    ]
    qtbot.waitUntil(lambda: "31 px" in widget.size_text.text(), timeout=PATIENCE)
    assert widget.size_text.text() == (
        "Objects in your image look about 31 px wide; the model expects 17; the image will be scaled by 0.55."
    )
    assert widget._options().object_diameter == pytest.approx(31, abs=1)
    widget.width_box.setValue(17)
    assert "keeps its size" in widget.size_text.text()
    assert widget._options().object_diameter == 17


def test_results_come_tile_by_tile(open_panel: Any, qtbot: Any) -> None:
    viewer, widget = open_panel("waits", size=512)
    widget.button.click()
    qtbot.waitUntil(lambda: bool(predicted(viewer)), timeout=PATIENCE)
    assert widget.job.running
    first = np.asarray(predicted(viewer)[0].data)
    assert first[:32].any()
    assert not first[480:].any()
    assert "tile 1 of 16" in widget.bar.format()
    (widget.models.value().path / "go").touch()
    qtbot.waitUntil(lambda: at_rest(widget), timeout=PATIENCE)
    assert np.asarray(predicted(viewer)[0].data)[480:].any()


def test_time_lapse_asks_for_its_dimensions_and_keeps_time(open_panel: Any, qtbot: Any) -> None:
    viewer, widget = open_panel()
    stack = viewer.add_image(np.stack([discs(64)] * 3), name="film")
    widget.set_image(stack)
    widget.button.click()
    assert "can be several things" in widget.messages.messages()[0].text
    axes = widget.image._axes
    assert axes.currentText() == "Please choose…"
    axes.setCurrentIndex(axes.findData("TYX"))
    widget.button.click()
    qtbot.waitUntil(lambda: "objects" in widget.status.text(), timeout=PATIENCE)
    (layer,) = predicted(viewer)
    assert layer.data.shape == (3, 64, 64)
    assert stack.metadata["axes"] == "TYX"


def test_region_of_a_shape(open_panel: Any, qtbot: Any) -> None:
    viewer, widget = open_panel()
    image = viewer.layers["cells"]
    image.scale = (2.0, 2.0)
    viewer.add_shapes([[[20, 40], [20, 80], [60, 80], [60, 40]]], name="box")
    part = widget.image._part
    part.setCurrentIndex(part.count() - 1)
    region = widget.image.region(widget.image.snapshot(), 2)
    assert [(s.start, s.stop) for s in region] == [(0, 1), (0, 1), (0, 1), (10, 31), (20, 41)]
    viewer.layers["box"].data = []
    widget.button.click()
    assert "Nothing is drawn" in widget.messages.messages()[-1].text


def test_region_that_is_visible(open_panel: Any, qtbot: Any) -> None:
    viewer, widget = open_panel(size=1000)
    widget.image._part.setCurrentIndex(1)
    camera = getattr(viewer, "scene", viewer).camera
    camera.center, camera.zoom = (0, 300, 700), 10.0
    qtbot.waitUntil(lambda: np.ptp(viewer.layers["cells"].corner_pixels[:, 0]) < 500, timeout=PATIENCE)
    *_, y, x = widget.image.region(widget.image.snapshot(), 2)
    assert (y.start + y.stop) / 2 == pytest.approx(300, abs=2)
    assert (x.start + x.stop) / 2 == pytest.approx(700, abs=2)
    viewer.dims.ndisplay = 3
    widget.button.click()
    assert "no visible field" in widget.messages.messages()[-1].text


def test_teach_prefills_labels(open_panel: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr("napari_im2im._teach.open_dataset", opened.append)
    viewer, widget = open_panel()
    assert not widget.teach_button.isVisible()
    widget.button.click()
    qtbot.waitUntil(lambda: widget.teach_button.isVisible(), timeout=PATIENCE)
    widget.teach_button.click()
    labels = viewer.layers["cells · corrections"]
    np.testing.assert_array_equal(labels.data, np.asarray(predicted(viewer)[0].data) + 1)
    assert labels.metadata["labelling"] == "sparse"
    assert labels.mode == "paint"
    assert viewer.layers.selection.active is labels
    assert opened == [viewer]


def test_copy_speaks_of_the_file(open_panel: Any, tmp_path: Path) -> None:
    from im2im_core.errors import DataError

    _, widget = open_panel()
    with pytest.raises(DataError, match="not in a file"):
        widget._texts()
    widget.set_image((tmp_path / "a b.tif",))
    texts = widget._texts()
    assert f"'{tmp_path / 'a b.tif'}'" in texts["command"]
    compile(texts["python"], "copied", "exec")


def test_fifty_layers(open_panel: Any) -> None:
    viewer, widget = open_panel()
    for number in range(50):
        viewer.add_image(np.zeros((8, 8)), name=f"layer {number}")
    assert widget.image._image.count() == 51
    assert widget.image.value() is viewer.layers["cells"]
    viewer.layers["cells"].name = "renamed"
    assert "renamed" in widget.image._image.currentText()


# ---- what goes wrong -----------------------------------------------------------


@pytest.mark.parametrize("kind", ["runtime", "memory", "keyboard", "exit", "data"])
def test_fault_24_errors_are_shown_and_the_button_comes_back(open_panel: Any, qtbot: Any, kind: str) -> None:
    _, widget = open_panel(f"raises_{kind}")
    widget.button.click()
    qtbot.waitUntil(lambda: at_rest(widget) and bool(widget.messages.messages()), timeout=PATIENCE)
    assert widget.button.isEnabled()
    assert widget.messages.messages()[0].level == "error"


def test_fault_25_cancel_keeps_what_is_finished(open_panel: Any, qtbot: Any) -> None:
    viewer, widget = open_panel("slow", size=640)
    widget.button.click()
    qtbot.waitUntil(lambda: bool(predicted(viewer)), timeout=PATIENCE)
    with qtbot.waitSignal(widget.job.acknowledged, timeout=1500):
        widget.button.click()
        assert widget.button.text() == "Stopping…"
    qtbot.waitUntil(lambda: at_rest(widget), timeout=PATIENCE)
    assert "what was finished is kept" in widget.status.text()
    assert predicted(viewer)[0].name.endswith("(unfinished)")
    assert np.asarray(predicted(viewer)[0].data).any()


def test_fault_27_killed_process_is_told_in_words_and_replaced(open_panel: Any, qtbot: Any, make_model: Any) -> None:
    viewer, widget = open_panel("killed")
    widget.button.click()
    qtbot.waitUntil(lambda: at_rest(widget) and bool(widget.messages.messages()), timeout=PATIENCE)
    assert "killed by signal 9" in widget.messages.messages()[0].text
    widget.set_model(make_model("good"))
    qtbot.waitUntil(lambda: widget.models.value().name == "good nuclei", timeout=PATIENCE)
    widget.button.click()
    qtbot.waitUntil(lambda: bool(predicted(viewer)) and at_rest(widget), timeout=PATIENCE)


def test_fault_22_source_layer_deleted_meanwhile(open_panel: Any, qtbot: Any) -> None:
    viewer, widget = open_panel("slow")
    widget.button.click()
    viewer.layers["cells"].data[:] = 0
    viewer.layers.remove("cells")
    qtbot.waitUntil(lambda: bool(predicted(viewer)) and at_rest(widget), timeout=PATIENCE)
    (layer,) = predicted(viewer)
    assert layer.name == "cells · slow nuclei"
    assert np.asarray(layer.data)[96:].any()  # of the pixels at the time of the click


def test_fault_22_result_layer_deleted_meanwhile(open_panel: Any, qtbot: Any) -> None:
    viewer, widget = open_panel("slow")
    widget.button.click()
    qtbot.waitUntil(lambda: bool(predicted(viewer)), timeout=PATIENCE)
    viewer.layers.remove(predicted(viewer)[0])
    qtbot.waitUntil(lambda: at_rest(widget), timeout=PATIENCE)
    assert not predicted(viewer)


def test_fault_23_dock_closed_meanwhile(open_panel: Any, qtbot: Any) -> None:
    viewer, widget = open_panel("slow", size=640)
    widget.button.click()
    qtbot.waitUntil(lambda: bool(predicted(viewer)), timeout=PATIENCE)
    pid = widget.job.pid
    with qtbot.captureExceptions() as exceptions:
        viewer.window.remove_dock_widget(widget)
        widget.deleteLater()
        qtbot.wait(300)
        viewer.add_image(np.zeros((8, 8)))
        qtbot.waitUntil(lambda: not psutil.pid_exists(pid) or _is_zombie(pid), timeout=PATIENCE)
    assert not exceptions


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_nothing_open_says_what_to_do(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    viewer = make_napari_viewer()
    widget = PredictWidget(viewer, command=WORKER)
    qtbot.addWidget(widget)
    with qtbot.waitSignal(widget.models.loaded, timeout=PATIENCE):
        pass
    assert not widget.button.isEnabled()
    assert widget.button.toolTip() == "Choose a model first"
    assert "No model yet" in widget.models._card._text.text()
    widget.job.close().join(15)


@pytest.mark.slow
def test_real_model_predicts_like_the_core(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    from im2im_core import api
    from im2im_core.bundle import BundleMetadata
    from im2im_core.engine.export import export_bundle
    from im2im_core.engine.frameworks.build import build_framework
    from im2im_core.inference import Inference

    content = {
        **INFERENCE,
        "network": {"kind": "basic_unet", "features": [4, 4, 8, 8, 8, 4]},
        "input": {**INFERENCE["input"], "object_diameter": None, "voxel_size": [None, 0.5, 0.5]},
    }
    inference = Inference.load(content)
    framework = build_framework(inference.framework, inference.network, inference.shapes)
    folder = project.root / "models" / "real"
    metadata = BundleMetadata(name="real nuclei", authors=({"name": "Ada"},))
    export_bundle(framework, inference, folder, metadata=metadata, sample=discs(96)[None])
    viewer = make_napari_viewer()
    pixels = np.stack([discs(150), discs(150).T])
    viewer.add_image(pixels, name="film", axis_labels=("t", "y", "x"), scale=(2, 0.25, 0.25), units=("s", "um", "um"))
    widget = PredictWidget(viewer)
    qtbot.addWidget(widget)
    widget.set_model(folder)
    qtbot.waitUntil(lambda: "foreground" in widget.outputs, timeout=PATIENCE)
    assert "scaled by 0.50" in widget.size_text.text()
    widget.outputs["foreground"].setChecked(True)
    widget.button.click()
    qtbot.waitUntil(lambda: at_rest(widget), timeout=4 * PATIENCE)
    assert not [m for m in widget.messages.messages() if m.level == "error"]
    layers = {layer.metadata["im2im"]["output"]: layer for layer in predicted(viewer)}
    from im2im_core.image import ArrayImage

    image = ArrayImage(pixels, "TYX", voxel_size=(None, 0.25, 0.25), time_step=2.0)
    np.testing.assert_array_equal(layers["labels"].data, api.predict(folder, image))
    assert layers["foreground"].data.shape == (2, 150, 150)
    np.testing.assert_allclose(layers["labels"].scale, (2, 0.25, 0.25))
    assert layers["labels"].metadata["im2im"]["factor"] == [1.0, 0.5, 0.5]
    widget.job.close().join(15)


# ---- cost ----------------------------------------------------------------------


def test_opening_imports_no_torch() -> None:
    code = (
        "import sys; import napari_im2im._predict_widget, napari_im2im._evaluate_widget;"
        "assert not {'torch', 'monai', 'lightning', 'pytorch_lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# ---- size ----------------------------------------------------------------------


def test_width_of_discs_and_noise() -> None:
    assert object_width(discs(300)) == pytest.approx(31, rel=0.03)
    assert object_width(1 - discs(300)) == pytest.approx(31, rel=0.05)
    assert object_width(np.random.default_rng(0).normal(size=(300, 300))) is None
    assert object_width(np.zeros((64, 64))) is None


def test_voxel_size_decides_before_the_estimate() -> None:
    from im2im_core.inference import Inference

    trained = {**INFERENCE["input"], "voxel_size": [None, 0.5, 0.5]}
    model = Inference.load({**INFERENCE, "input": trained})
    advice = advise(model, (None, 0.25, 0.25), 34.0)
    assert advice.diameter is None
    assert "0.25 µm" in advice.text
    assert "scaled by 0.50" in advice.text
    assert advise(model, (None, 0.25, 0.25), 17.0 * 8).level == "warning"
    assert advise(model, (None, None, None), 34.0).diameter == 34.0
    assert advise(model, (None, None, None), None).level == "warning"
    assert advise(model, (None, 0.25, 0.25), 17.0, told=True).diameter == 17.0
