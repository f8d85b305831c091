"""The Predict panel on real viewers, with a small process in place of the engine, and once with a real model."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from looks import crowded, nameless

from im2im_core.events import Message
from im2im_core.object_size import object_width
from napari_im2im._layers import OURS, RESULT
from napari_im2im._object_size import advise
from napari_im2im._predict_queue import FileQueue, Request
from napari_im2im._predict_send import sent
from napari_im2im._predict_widget import PredictWidget
from napari_im2im._predict_words import asked_for

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
TRIES = 3
"""Predictions whose median counts."""
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


# ---- several images ----


@pytest.fixture
def two_inputs(project: Any) -> Path:
    """Description of a model of another tool that takes two images."""
    axes = [{"type": "batch"}, {"type": "channel", "channel_names": ["c"]}]
    axes += [{"type": "space", "id": a, "size": {"min": 16, "step": 1}} for a in "yx"]
    content = {
        "format_version": "0.5.4",
        "name": "pair model",
        "inputs": [{"id": "left", "axes": axes}, {"id": "right", "axes": axes, "description": "The one beside"}],
        "outputs": [{"id": "labels", "axes": axes}],
        "weights": {},
    }
    folder: Path = project.root / "models" / "pair"
    folder.mkdir(parents=True)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_one_chooser_per_input(open_panel: Any, qtbot: Any, two_inputs: Path) -> None:
    viewer, widget = open_panel()
    assert widget.more_images.isHidden()
    widget.set_model(two_inputs)
    qtbot.waitUntil(lambda: not widget.more_images.isHidden(), timeout=PATIENCE)
    assert widget.button.toolTip() == "Choose an image for “right” too"
    assert not widget.button.isEnabled()
    viewer.add_image(np.zeros((64, 64), np.float32), name="small")
    assert widget.more_images.value() == {"right": None}
    other = viewer.add_image(np.ones((128, 128), np.float32), name="beside")
    assert widget.more_images.value() == {"right": other}
    assert (widget.image.value().name, widget.button.isEnabled()) == ("cells", True)
    texts = widget._texts()
    assert "--input left=IMAGE.tif --input right=IMAGE.tif" in texts["command"]
    assert "image = {'left': ..., 'right': ...}" in texts["python"]
    widget.button.click()
    qtbot.waitUntil(lambda: at_rest(widget) and len(predicted(viewer)) == 1, timeout=PATIENCE)
    assert predicted(viewer)[0].data.all()  # ones are added to discs and background
    widget.image.setValue([])
    assert "one open layer for each" in widget.button.toolTip()


def test_choosers_go_with_their_model(open_panel: Any, qtbot: Any, two_inputs: Path) -> None:
    viewer, widget = open_panel()
    beside = viewer.add_image(discs(), name="right")
    viewer.add_image(discs(), name="top")
    widget.set_model(two_inputs)
    qtbot.waitUntil(lambda: widget.more_images.value() == {"right": beside}, timeout=PATIENCE)
    assert widget._content()["more_images"] == {"right": "right"}
    viewer.layers.remove(beside)
    assert widget.more_images.names() == {"right": "top"}
    widget.set_model(two_inputs.parent / "good")
    qtbot.waitUntil(lambda: widget.more_images.isHidden(), timeout=PATIENCE)
    assert widget.more_images.value() == {}
    assert widget.button.isEnabled()


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
    assert layer.editable
    layer.data[0, 0] = 7  # what a brush does
    assert [m.text for m in widget.messages.messages()] == ["a word"]


def test_card_and_size_are_in_words(open_panel: Any, qtbot: Any) -> None:
    _, widget = open_panel()
    assert widget.models.value().name == "good nuclei"
    text = widget.models._card._text.text()
    assert text.splitlines() == [
        "Finds nuclei in fluorescence images.",
        "On data it was not trained on: AP at IoU 0.5: 0.91",
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


def test_teach_prefills_labels(open_panel: Any, qtbot: Any) -> None:
    viewer, widget = open_panel()
    assert not widget.teach_button.isVisible()
    widget.button.click()
    qtbot.waitUntil(lambda: widget.teach_button.isVisible(), timeout=PATIENCE)
    widget.teach_button.click()
    qtbot.waitUntil(lambda: "cells · corrections" in viewer.layers, timeout=PATIENCE)
    labels = viewer.layers["cells · corrections"]
    np.testing.assert_array_equal(labels.data, np.asarray(predicted(viewer)[0].data) + 1)
    assert labels.metadata["labelling"] == "sparse"
    assert labels.mode == "paint"
    assert labels.opacity < 0.5 < predicted(viewer)[0].opacity  # what lies below it is seen
    assert viewer.layers.selection.active is labels
    (dataset,) = (w for name, w in viewer.window.dock_widgets.items() if name.startswith("Dataset"))
    assert [(row.layers.images[0].name, row.layers.target) for row in dataset.rows()] == [("cells", labels)]
    assert labels.metadata["taught_from"] == str(widget.models.value().path)
    qtbot.waitUntil(lambda: not dataset.work.name, timeout=PATIENCE)
    viewer.window.remove_dock_widget(dataset)
    dataset.deleteLater()


def test_copy_speaks_of_the_file(open_panel: Any, tmp_path: Path) -> None:
    _, widget = open_panel()
    widget.set_image((tmp_path / "a b.tif",))
    texts = widget._texts()
    assert f"'{tmp_path / 'a b.tif'}' -o '{tmp_path / 'predictions' / 'a b.tif'}'" in texts["command"]
    assert "#" not in texts["command"]
    compile(texts["python"], "copied", "exec")
    widget.set_image((tmp_path / "a.tif", tmp_path / "b.tif"))
    assert f"{tmp_path / 'b.tif'} -o {tmp_path / 'predictions'}" in widget._texts()["command"]


def test_copy_says_what_the_panel_does(open_panel: Any, tmp_path: Path) -> None:
    """Open layers, told dimensions, more results and a part of the image are in the texts."""
    from napari.layers._source import Source

    viewer, widget = open_panel()
    viewer.add_shapes([[[10, 20], [10, 40], [30, 40], [30, 20]]], name="box")
    widget.image._part.setCurrentIndex(widget.image._part.count() - 1)
    widget.outputs["foreground"].setChecked(True)
    texts = widget._texts()
    first, second, command = texts["command"].splitlines()
    assert first.startswith("# “cells” is open in napari and not one file")
    assert "Y 10 to 31, X 20 to 41" in second
    assert "--outputs labels,foreground" in command
    assert "region = (slice(0, 1), slice(0, 1), slice(0, 1), slice(10, 31), slice(20, 41))" in texts["python"]
    assert "outputs=['labels', 'foreground']" in texts["python"]
    assert "axes='YX'" in texts["python"]
    compile(texts["python"], "copied", "exec")
    assert "blending: gaussian" in texts["yaml"]
    assert "good nuclei" in texts["methods"]
    film = viewer.add_image(np.stack([discs(64)] * 3), name="film", metadata={"axes": "TYX"})
    film._source = Source(path=str(tmp_path / "film.tif"))
    widget.set_image(film)
    widget.image._part.setCurrentIndex(0)
    command = widget._texts()["command"]
    assert f"{tmp_path / 'film.tif'} -o" in command
    assert "--axes TYX" in command
    assert "#" not in command


def test_copied_command_is_one_that_the_program_takes(open_panel: Any, tmp_path: Path) -> None:
    import shlex

    from im2im_core.cli import main

    _, widget = open_panel()
    widget.set_image((tmp_path / "a b.tif",))
    widget.outputs["foreground"].setChecked(True)
    words = shlex.split(widget._texts()["command"])
    assert main(words[1:]) == 3  # understood; the file is not there


# ---- whose layers, whose choices -----------------------------------------------


def test_layers_that_we_added_are_not_the_users_image(open_panel: Any, make_napari_viewer: Any, qtbot: Any) -> None:
    viewer, first = open_panel()
    source = viewer.add_image(discs(32), name="source of run-1", metadata={OURS: "preview"})
    viewer.add_image(discs(128), name="cells · model", metadata={OURS: RESULT, "im2im": {}})
    viewer.layers.selection.active = source
    first.image._layers = []
    first.image._on_layers()  # as at the opening of a panel
    assert first.image.value() is viewer.layers["cells"]
    viewer.layers.remove("cells")
    assert first.image.value() is None
    assert not first.button.isEnabled()
    first.image.setValue(source)  # who wants it, may
    assert first.image.value() is source


def test_a_new_model_keeps_the_image_and_a_missing_one_is_told(open_panel: Any, qtbot: Any, make_model: Any) -> None:
    viewer, widget = open_panel()
    other = viewer.add_image(discs(64), name="other")
    widget.set_image(other)
    widget.set_model(make_model("slow"))
    qtbot.waitUntil(lambda: widget.models.value().name == "slow nuclei", timeout=PATIENCE)
    assert widget.image.value() is other
    widget.set_model("/nowhere/at/all")
    qtbot.waitUntil(lambda: bool(widget.messages.messages()), timeout=PATIENCE)
    text = widget.messages.messages()[0].text
    assert "/nowhere/at/all" in text
    assert "“slow nuclei” is still chosen" in text


def test_what_is_said_of_one_model_goes_with_it(open_panel: Any, qtbot: Any, make_model: Any) -> None:
    _, widget = open_panel()
    widget.button.click()
    qtbot.waitUntil(lambda: "objects" in widget.status.text(), timeout=PATIENCE)
    widget.models.valueChanged.emit(widget.models.value())  # as when the list is read again
    assert "objects" in widget.status.text()
    widget.set_model(make_model("another"))
    qtbot.waitUntil(lambda: not widget.status.isVisible(), timeout=PATIENCE)
    assert widget.teach_button.isVisible()


def test_models_of_runs_that_ended_are_there_when_the_panel_is_shown(
    open_panel: Any, qtbot: Any, make_model: Any
) -> None:
    _, widget = open_panel()
    widget.hide()
    make_model("fresh")
    assert "fresh nuclei" not in [m.name for m in widget.models._models]
    widget.show()
    qtbot.waitUntil(lambda: "fresh nuclei" in [m.name for m in widget.models._models], timeout=PATIENCE)
    assert widget.models.value().name == "good nuclei"


def test_a_reopened_panel_shows_what_was_chosen(open_panel: Any, qtbot: Any, make_model: Any) -> None:
    viewer, widget = open_panel()
    make_model("another")
    viewer.add_image(discs(64), name="second")
    qtbot.waitUntil(lambda: widget.memory._recalled, timeout=PATIENCE)
    widget.outputs["foreground"].setChecked(True)
    widget.more.setChecked(True)
    widget._form.setValue(widget._form.value().replace(seed=7))
    assert widget.image.value() is viewer.layers["cells"]
    viewer.window.remove_dock_widget(widget)
    remembered = Path(".im2im/predict_widget.json")
    qtbot.waitUntil(lambda: remembered.exists() and '"seed": 7' in remembered.read_text(), timeout=PATIENCE)
    viewer.layers.selection.active = viewer.layers["second"]
    again = PredictWidget(viewer, command=WORKER)
    viewer.window.add_dock_widget(again, name="Predict")
    qtbot.waitUntil(lambda: again.models.value() is not None and "foreground" in again.outputs, timeout=PATIENCE)
    qtbot.waitUntil(lambda: again.outputs["foreground"].isChecked(), timeout=PATIENCE)
    assert again.models.value().name == "good nuclei"
    assert again.image.value() is viewer.layers["cells"]
    qtbot.waitUntil(lambda: again._options().seed == 7, timeout=PATIENCE)
    again.job.close().join(15)


def reopened(viewer: Any, widget: PredictWidget, qtbot: Any, word: str) -> PredictWidget:
    """The panel, closed and opened again once `word` was written down."""
    viewer.window.remove_dock_widget(widget)
    remembered = Path(".im2im/predict_widget.json")
    qtbot.waitUntil(lambda: remembered.exists() and word in remembered.read_text(), timeout=PATIENCE)
    again = PredictWidget(viewer, command=WORKER)
    viewer.window.add_dock_widget(again, name="Predict")
    qtbot.waitUntil(lambda: again.models.value() is not None and again.memory._recalled, timeout=PATIENCE)
    return again


def test_a_reopened_panel_knows_part_channel_width_and_result(open_panel: Any, qtbot: Any) -> None:
    viewer, widget = open_panel()
    pixels = np.stack([discs(64)] * 3)
    stack = viewer.add_image(pixels, name="stack", metadata={"axes": "CYX", "channels": ["DNA", "actin", "tubulin"]})
    viewer.add_shapes([[[10, 20], [10, 40], [30, 40], [30, 20]]], name="box")
    qtbot.waitUntil(lambda: widget.memory._recalled, timeout=PATIENCE)
    widget.set_image(stack)
    widget.image._slots[0].setCurrentIndex(1)
    widget.image._part.setCurrentIndex(2)
    widget.width_box.setValue(23)
    widget.button.click()
    qtbot.waitUntil(lambda: widget.teach_button.isVisible(), timeout=PATIENCE)
    again = reopened(viewer, widget, qtbot, "stack · good nuclei")
    qtbot.waitUntil(lambda: bool(again.image._slots), timeout=PATIENCE)
    assert again.image.value() is stack
    assert again.image.channels() == (1,)
    assert again.image._part.currentText() == "Inside “box”"
    assert again._options().object_diameter == 23
    assert again.teach_button.isVisible()
    source, layer = again._last
    assert (source.name, layer) == ("stack", viewer.layers["stack · good nuclei"])
    again.job.close().join(15)


def test_a_reopened_panel_knows_its_files(open_panel: Any, qtbot: Any, tmp_path: Path) -> None:
    viewer, widget = open_panel()
    qtbot.waitUntil(lambda: widget.memory._recalled, timeout=PATIENCE)
    files = (tmp_path / "a.tif", tmp_path / "b.tif")
    widget.set_image(files)
    again = reopened(viewer, widget, qtbot, "b.tif")
    assert again.image.value() == files
    again.set_image(viewer.layers["cells"])
    again.image.offer_files(())
    again._on_recalled({**again._content(), "kind": "files", "files": ["c.tif"], "viewer": 0})  # of another day
    assert again.image.value() is viewer.layers["cells"]
    assert again.image.files() == ()
    again.job.close().join(15)


def test_a_width_that_was_typed_stays_until_another_image_is_chosen(open_panel: Any, qtbot: Any) -> None:
    viewer, widget = open_panel()
    widget.width_box.setValue(20)
    widget.image._part.setCurrentIndex(1)  # of the image that was chosen from the beginning
    assert widget._options().object_diameter == 20
    film = np.stack([discs(128)] * 2)
    viewer.add_image(film, name="film", metadata={"axes": "CYX", "channels": ["a", "b"]})
    widget.set_image(viewer.layers["film"])
    widget.width_box.setValue(20)
    widget._on_looked(31.0)  # an estimate that comes late
    assert widget._options().object_diameter == 20
    widget.image._part.setCurrentIndex(1)
    widget.image._slots[0].setCurrentIndex(1)
    assert widget._options().object_diameter == 20
    assert "scaled by 0.85" in widget.size_text.text()
    widget.set_image(viewer.layers["cells"])
    assert widget.width_box.value() != 20
    qtbot.waitUntil(lambda: "31 px" in widget.size_text.text(), timeout=PATIENCE)


def test_a_late_count_is_not_said_of_the_next_prediction(
    open_panel: Any, qtbot: Any, make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import napari_im2im._predict_widget as module

    counting, go = threading.Event(), threading.Event()

    def count(*_: Any) -> int:
        counting.set()
        go.wait(60)
        return 99

    _, widget = open_panel()
    monkeypatch.setattr(module, "count_objects", count)
    widget.button.click()
    qtbot.waitUntil(counting.is_set, timeout=PATIENCE)
    widget.set_model(make_model("waits"))
    qtbot.waitUntil(lambda: widget.models.value().name == "waits nuclei", timeout=PATIENCE)
    widget.button.click()
    go.set()
    qtbot.wait(200)
    assert widget.job.running
    assert "99" not in widget.status.text()
    assert not widget.status.isVisible()
    (widget.models.value().path / "go").touch()
    qtbot.waitUntil(lambda: at_rest(widget), timeout=PATIENCE)


# ---- files, and all that is open -----------------------------------------------


def write_discs(folder: Path, *names: str) -> tuple[Path, ...]:
    """Files with a voxel size of half a micrometre."""
    from im2im_core.io import write_image

    return tuple(write_image(folder / name, discs(128), "YX", voxel_size=(None, 0.5, 0.5)) for name in names)


def test_files_say_how_they_are_scaled(open_panel: Any, qtbot: Any, tmp_path: Path) -> None:
    trained = {**INFERENCE["input"], "voxel_size": [None, 1.0, 1.0]}
    _, widget = open_panel(input=trained)
    widget.set_image(write_discs(tmp_path, "a.tif", "b.tif"))
    assert widget.width_box.isVisible()
    qtbot.waitUntil(lambda: "0.5 µm" in widget.size_text.text(), timeout=PATIENCE)
    assert "scaled by 0.50" in widget.size_text.text()
    assert widget.size_text.text().endswith("Judged by a.tif, the first of 2 images.")
    assert widget._options().object_diameter is None
    widget.width_box.setValue(34)
    assert widget._options().object_diameter == 34
    assert "--object-diameter 34" in widget._texts()["command"]


def test_results_of_files_are_opened_over_their_images(open_panel: Any, qtbot: Any, tmp_path: Path) -> None:
    viewer, widget = open_panel()
    first, second = write_discs(tmp_path, "a.tif", "b.tif")
    widget.set_image((first, second))
    assert widget.open_box.isVisible()
    assert widget.open_box.isChecked()
    widget.button.click()
    qtbot.waitUntil(lambda: at_rest(widget) and len(predicted(viewer)) == 2, timeout=PATIENCE)
    assert "2 of 2 images predicted" in widget.status.text()
    layer = next(x for x in predicted(viewer) if x.metadata["im2im"]["image"] == "a.tif")
    np.testing.assert_array_equal(layer.data, discs() > 0)
    assert tuple(layer.scale) == tuple(viewer.layers["a.tif"].scale) == (0.5, 0.5)
    assert layer.name == "a.tif · good nuclei"
    facts = layer.metadata["im2im"]
    assert facts["finished"]
    assert facts["model_path"] == str(widget.models.value().path)
    assert Path(facts["file"]).is_file()
    assert not widget.teach_button.isVisible()


def test_a_result_lies_on_the_layer_that_its_file_was_opened_as(open_panel: Any, qtbot: Any, tmp_path: Path) -> None:
    from napari.layers._source import Source

    viewer, widget = open_panel()
    (path,) = write_discs(tmp_path, "a.tif")
    layer = viewer.add_image(discs(128), name="opened", translate=(5, 7))
    layer._source = Source(path=str(path))
    widget.set_image((path,))
    widget.button.click()
    qtbot.waitUntil(lambda: widget.teach_button.isVisible(), timeout=PATIENCE)
    (result,) = predicted(viewer)
    assert tuple(result.scale) == (1, 1)
    assert tuple(result.translate) == (5, 7)
    assert widget._last[0].name == "opened"


def write_scenes(path: Path) -> Path:
    """File with two images of discs, of which the second is moved."""
    import tifffile

    with tifffile.TiffWriter(path, ome=True) as file:
        for name, shift in (("left", 0), ("right", 5)):
            metadata = {"axes": "YX", "Name": name, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
            file.write(np.roll(discs(128), shift, 1), metadata=metadata, photometric="minisblack")
    return path


def test_each_scene_of_a_file_is_predicted(open_panel: Any, qtbot: Any, tmp_path: Path) -> None:
    viewer, widget = open_panel()
    path = write_scenes(tmp_path / "a.ome.tif")
    assert widget.scene_box.isHidden()
    widget.set_image((path,))
    qtbot.waitUntil(lambda: widget.scene_box.isVisible(), timeout=PATIENCE)
    assert [widget.scene_box.itemText(i) for i in range(3)] == ["Each of the 2 scenes", "left", "right"]
    assert not nameless(widget)
    texts = widget._texts()
    assert f" -o {tmp_path / 'predictions'} " in texts["command"]
    assert "for scene in scenes(image):" in texts["python"]
    compile(texts["python"], "copied", "exec")
    widget.button.click()
    qtbot.waitUntil(lambda: at_rest(widget) and len(predicted(viewer)) == 2, timeout=PATIENCE)
    assert "2 of 2 images predicted" in widget.status.text()
    results = {layer.metadata["im2im"]["image"]: layer for layer in predicted(viewer)}
    assert results.keys() == {"a.ome.tif:left", "a.ome.tif:right"}
    for (name, result), shift in zip(sorted(results.items()), (0, 5), strict=True):
        np.testing.assert_array_equal(result.data, np.roll(discs(128), shift, 1) > 0)
        np.testing.assert_array_equal(viewer.layers[name].data, np.roll(discs(128), shift, 1))
    files = {Path(layer.metadata["im2im"]["file"]).name for layer in results.values()}
    assert files == {"a_left.ome.tif", "a_right.ome.tif"}


def test_one_scene_of_a_file_can_be_chosen(open_panel: Any, qtbot: Any, tmp_path: Path) -> None:
    viewer, widget = open_panel()
    widget.set_image((write_scenes(tmp_path / "a.ome.tif"),))
    qtbot.waitUntil(lambda: widget.scene_box.isVisible(), timeout=PATIENCE)
    widget.scene_box.setCurrentIndex(2)
    widget.scene_box.activated.emit(2)
    assert widget._content()["scene"] == "right"
    texts = widget._texts()
    assert "--scene right" in texts["command"]
    assert "scene='right'" in texts["python"]
    widget.button.click()
    qtbot.waitUntil(lambda: at_rest(widget) and len(predicted(viewer)) == 1, timeout=PATIENCE)
    (result,) = predicted(viewer)
    np.testing.assert_array_equal(result.data, np.roll(discs(128), 5, 1) > 0)
    widget.set_image(write_discs(tmp_path, "b.tif"))
    assert widget.scene_box.isHidden()
    assert widget._content()["scene"] is None


def test_a_lazy_layer_of_a_file_with_scenes_is_sent_as_pixels(make_napari_viewer: Any, tmp_path: Path) -> None:
    import dask.array
    from napari.layers._source import Source

    from napari_im2im._layers import take_snapshot

    path = write_scenes(tmp_path / "a.ome.tif")
    viewer = make_napari_viewer()
    layer = viewer.add_image(dask.array.from_array(np.roll(discs(128), 5, 1)), name="right", scale=(0.5, 0.5))
    layer.units = ("micrometer", "micrometer")
    layer._source = Source(path=str(path))
    snapshot = take_snapshot([layer])
    assert snapshot.path is None
    np.testing.assert_array_equal(snapshot.image().read()[0, 0, 0], np.roll(discs(128), 5, 1))


def test_many_results_stay_files_unless_they_are_wanted(open_panel: Any, qtbot: Any, tmp_path: Path) -> None:
    viewer, widget = open_panel()
    write_discs(tmp_path / "in", *(f"{n}.tif" for n in range(6)))
    widget.set_image((tmp_path / "in",))
    qtbot.waitUntil(lambda: not widget.open_box.isChecked(), timeout=PATIENCE)
    widget.button.click()
    qtbot.waitUntil(lambda: "6 of 6 images predicted" in widget.status.text(), timeout=PATIENCE)
    assert not widget.later._waiting
    assert not predicted(viewer)
    (message,) = widget.messages.messages()
    assert message.button.text() == "Show the folder"


def test_results_that_are_too_large_are_told(
    open_panel: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import napari_im2im._predict_files as module

    viewer, widget = open_panel()
    monkeypatch.setattr(module, "LARGEST", 1000)
    widget.set_image(write_discs(tmp_path, "a.tif"))
    widget.button.click()
    qtbot.waitUntil(lambda: any("not opened" in m.text for m in widget.messages.messages()), timeout=PATIENCE)
    assert not predicted(viewer)


def test_folders_are_listed_in_a_thread(
    open_panel: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import napari_im2im._predict_files as before
    import napari_im2im._predict_queue as module

    listed, seen = module.listed, []

    def noting(files: Any) -> Any:
        seen.append(threading.current_thread() is threading.main_thread())
        return listed(files)

    _, widget = open_panel()
    for place in (module, before):
        monkeypatch.setattr(place, "listed", noting)
    (tmp_path / "empty").mkdir()
    widget.set_image((tmp_path / "empty",))
    widget.button.click()
    qtbot.waitUntil(lambda: at_rest(widget) and bool(widget.messages.messages()), timeout=PATIENCE)
    assert "There is no image" in widget.messages.messages()[0].text
    assert seen
    assert not any(seen)
    assert not widget.status.isVisible()


def test_all_open_images_one_after_the_other(open_panel: Any, qtbot: Any) -> None:
    viewer, widget = open_panel()
    small = np.kron(discs(60)[::2, ::2], np.ones((1, 1)))
    viewer.add_image(np.tile(small, (4, 4)), name="small", scale=(2, 2))
    viewer.add_image(np.zeros((3, 16, 16)), name="unclear")  # time or planes or channels: nobody said
    widget.set_image([])
    assert widget.image._image.currentText() == "All 3 open images"
    assert widget.size_text.text() == "Each image will be scaled by its objects."
    widget.button.click()
    qtbot.waitUntil(lambda: at_rest(widget), timeout=PATIENCE)
    assert "2 of 3 images predicted" in widget.status.text()
    assert "1 failed" in widget.status.text()
    assert any("“unclear”" in m.text for m in widget.messages.messages())
    layers = {layer.name: layer for layer in predicted(viewer)}
    assert set(layers) == {"cells · good nuclei", "small · good nuclei"}
    diameters = [layers[f"{n} · good nuclei"].metadata["im2im"]["diameter"] for n in ("cells", "small")]
    assert diameters == [pytest.approx(31, abs=1), pytest.approx(15.5, abs=2)]  # each its own
    assert tuple(layers["small · good nuclei"].scale) == (2, 2)
    widget.width_box.setValue(25)
    assert "each image will be scaled by 0.68" in widget.size_text.text()
    assert widget._options().object_diameter == 25


def test_a_warning_has_the_button_that_mends_it(open_panel: Any, qtbot: Any) -> None:
    viewer, widget = open_panel("unsure")
    widget.button.click()
    qtbot.waitUntil(lambda: at_rest(widget), timeout=PATIENCE)
    first = widget.messages.messages()[0]
    assert first.button.text() == "Give the width of the objects"
    first.button.click()
    assert first not in widget.messages.messages()
    widget.unit_button.show()
    widget._on_message(Message("The size is not known", "warning", "Give it", "unknown_size"))
    message = widget.messages.messages()[-1]
    viewer.layers["cells"].scale = (0.5, 0.5)
    message.button.click()
    assert str(viewer.layers["cells"].units[0]) == "micrometer"
    widget.unit_button.hide()
    viewer.layers.clear()
    widget._on_message(Message("The size is not known", "warning", "Give it", "unknown_size"))
    widget.messages.messages()[-1].button.click()
    assert widget._form.isVisible()


def test_an_empty_list_of_images_says_how_to_fill_it(open_panel: Any) -> None:
    viewer, widget = open_panel()
    viewer.layers.clear()
    assert widget.image.value() is None
    assert widget.image._image.placeholderText() == "Drag one into napari"
    viewer.add_image(discs(32), name="another")
    assert widget.image._image.placeholderText() == "Choose an image"


def test_channels_fit_by_name(open_panel: Any) -> None:
    viewer, widget = open_panel()
    film = np.stack([discs(32)] * 3)
    layer = viewer.add_image(film, name="stack", metadata={"axes": "CYX", "channels": ["DNA", "actin", "tubulin"]})
    widget.set_image(layer)
    widget.image.set_needs(2, ("tubulin", "dna"))
    assert widget.image.channels() == (2, 0)
    widget.image._slots[0].setCurrentIndex(1)
    layer.name = "renamed"
    assert widget.image.channels() == (1, 0)


def test_a_model_of_another_tool_is_described_by_its_package(open_panel: Any, tmp_path: Path) -> None:
    from im2im_core.bundle.foreign import ForeignDescription
    from im2im_core.inference import InputDescription, OutputDescription, Shapes
    from im2im_core.models import LocalModel
    from im2im_core.normalize import NoNormalization
    from im2im_core.recipe.data import NoRescale

    viewer, widget = open_panel()
    described = ForeignDescription(
        "theirs",
        Shapes(dimensions=2, input_channels=1),
        InputDescription(normalization=NoNormalization(), rescale=NoRescale()),
        (OutputDescription(name="denoised", kind="image", channels=1, axes="CYX"),),
    )
    widget.models._on_listed((LocalModel(tmp_path / "theirs", "theirs", "added", "from here", described),))
    assert widget.models.value().name == "theirs"
    assert widget.button.isEnabled()
    assert widget._options().object_diameter is None
    assert widget.width_box.isHidden()
    assert "bioimage.io" in widget._texts()["methods"]
    assert list(widget.outputs) == ["denoised"]
    image = sent(widget.image.snapshot(), None, widget.models.value(), widget._options())["image"]
    np.testing.assert_array_equal(image, viewer.layers["cells"].data)


def test_only_needed_pixels_travel(make_model: Any) -> None:
    from napari.layers import Image

    from im2im_core.models import read_model
    from im2im_core.predict_options import PredictOptions
    from napari_im2im._layers import take_snapshot

    model = read_model(make_model("good"))
    pixels = np.random.default_rng(0).random((4, 2, 800, 800), np.float32)
    layer = Image(pixels, metadata={"axes": "TCYX", "channels": ["dna", "actin"]})
    region = (slice(1, 2), slice(0, 2), slice(0, 1), slice(400, 420), slice(0, 30))
    part = sent(take_snapshot([layer]), region, model, PredictOptions(channels=(1,)))
    assert part["image"].size < pixels.size / 20
    assert part["region"] == [[1, 2], [0, 2], [0, 1], [400, 420], [0, 30]]
    assert part["excerpt"]["shape"] == [4, 1, 1, 800, 800]
    assert [t for t, _, _ in part["excerpt"]["scalings"]] == [1]
    assert part["options"]["channels"] is None
    assert part["channels"] == []  # the order is the user's
    whole = sent(take_snapshot([layer]), None, model, PredictOptions(channels=(1,)))
    np.testing.assert_array_equal(whole["image"], pixels[:, 1:])
    assert whole["axes"] == "TCYX"


@pytest.mark.timing
def test_fifty_layers(open_panel: Any, qtbot: Any) -> None:
    from napari.layers import Image

    viewer, widget = open_panel()
    spent: list[float] = []
    follow = widget.image._on_layers
    for emitter, handler in widget.image._links:
        emitter.disconnect(handler)

    def timed(event: Any = None) -> None:
        began = time.thread_time()  # of this thread: others may keep the machine busy
        follow(event)
        spent.append(time.thread_time() - began)

    viewer.layers.events.inserted.connect(timed)
    viewer.layers.events.renamed.connect(timed)
    viewer.layers.extend([Image(np.zeros((8, 8)), name=f"layer {number}") for number in range(50)])
    assert len(spent) == 50
    assert float(np.median(spent)) < 0.02
    assert max(spent) < 0.1
    assert widget.image._image.count() == 52  # all of them at once is one more choice
    assert widget.image.value() is viewer.layers["cells"]
    viewer.layers["cells"].name = "renamed"
    assert "renamed" in widget.image._image.currentText()
    began = time.thread_time()
    other = PredictWidget(viewer, command=WORKER)
    assert time.thread_time() - began < 0.3
    qtbot.addWidget(other)
    assert other.image._image.count() == 52
    other.job.close().join(15)


# ---- what goes wrong -----------------------------------------------------------


@pytest.mark.parametrize("kind", ["runtime", "memory", "oom", "keyboard", "exit", "data"])
def test_fault_24_errors_are_shown_and_the_button_comes_back(open_panel: Any, qtbot: Any, kind: str) -> None:
    _, widget = open_panel(f"raises_{kind}")
    widget.button.click()
    qtbot.waitUntil(lambda: at_rest(widget) and bool(widget.messages.messages()), timeout=PATIENCE)
    assert widget.button.isEnabled()
    message = widget.messages.messages()[0]
    assert message.level == "error"
    if kind in ("memory", "oom"):
        assert message.text == "The memory does not suffice"
        assert "smaller" in message.cure


@pytest.mark.timing
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


@pytest.mark.timing
def test_fault_25_cancel_while_pixels_are_read(open_panel: Any, qtbot: Any) -> None:
    dask = pytest.importorskip("dask.array")
    viewer, widget = open_panel()
    slow, reading, go = threading.Event(), threading.Event(), threading.Event()

    def block(block_id: Any = None) -> np.ndarray:
        if slow.is_set():
            reading.set()
            go.wait(60)
        return np.ones((64, 64), np.float32)

    empty = np.empty((0, 0), np.float32)
    lazy = dask.map_blocks(block, chunks=((64,), (64,)), dtype=np.float32, meta=empty)
    layer = viewer.add_image(lazy, name="lazy", contrast_limits=(0, 1))
    slow.set()
    widget.set_image(layer)
    widget.button.click()
    assert reading.wait(60)
    began = time.monotonic()
    widget.button.click()
    assert time.monotonic() - began < 0.1
    qtbot.waitUntil(lambda: at_rest(widget), timeout=1000)
    assert widget.status.text() == "Stopped."
    go.set()
    widget.set_image(viewer.layers["cells"])
    widget.button.click()  # the next one is not disturbed by the one that was given up
    qtbot.waitUntil(lambda: "4 objects" in widget.status.text(), timeout=PATIENCE)


def test_fault_07_a_folder_that_cannot_be_written_to(
    open_panel: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer, widget = open_panel()
    make = Path.mkdir

    def refuse(path: Path, *args: Any, **options: Any) -> None:
        if path.name.startswith("predictions-"):
            raise PermissionError(13, "Permission denied", str(path))
        make(path, *args, **options)

    widget.set_image((tmp_path / "a.tif", tmp_path / "b.tif"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        widget.button.click()
        qtbot.waitUntil(lambda: at_rest(widget) and bool(widget.messages.messages()), timeout=PATIENCE)
    assert "Permission denied" in widget.messages.messages()[0].text
    widget.set_image(viewer.layers["cells"])
    widget.button.click()
    qtbot.waitUntil(lambda: "4 objects" in widget.status.text(), timeout=PATIENCE)
    assert at_rest(widget)


def test_fault_07_a_folder_that_vanishes_between_two_files(open_panel: Any, qtbot: Any, tmp_path: Path) -> None:
    from im2im_core.errors import ResourceError

    class Vanishing(FileQueue):
        def make_folder(self) -> None:
            if len(self.todo) == 1:
                raise ResourceError("Cannot make the folder", "Check its permissions")
            super().make_folder()

    _, widget = open_panel("raises_data")
    request = Request(widget.models.value(), widget._options(), ())
    widget._next(Vanishing(request, (tmp_path / "a.tif", tmp_path / "b.tif")))
    qtbot.waitUntil(lambda: at_rest(widget), timeout=PATIENCE)
    assert widget._queue is None
    assert "0 of 2 images predicted" in widget.status.text()
    assert "Cannot make the folder" in [m.text for m in widget.messages.messages()]


def test_a_wrong_setting_disturbs_nothing_else(open_panel: Any, qtbot: Any) -> None:
    viewer, widget = open_panel()
    widget.more.setChecked(True)
    form = widget._form
    form.edit(("rescale",), 0.5)
    assert "scaled by 0.50" in widget.size_text.text()
    form.edit(("rescale",), -3)
    assert form.problems()
    viewer.add_image(discs(64), name="another")
    widget.set_image(viewer.layers["another"])
    widget.set_image(viewer.layers["cells"])
    widget.width_box.setValue(20)
    assert "scaled by 0.50" in widget.size_text.text()  # the last setting that held
    widget.button.click()
    assert "rescale" in widget.messages.messages()[0].text.lower()  # but nothing is predicted with it
    assert at_rest(widget)


def test_fault_36_code_of_a_package_runs_after_one_click(open_panel: Any, qtbot: Any) -> None:
    from im2im_core.trust import consented_modules

    viewer, widget = open_panel("untrusted")
    widget.button.click()
    qtbot.waitUntil(lambda: at_rest(widget) and bool(widget.messages.messages()), timeout=PATIENCE)
    (message,) = widget.messages.messages()
    assert "runs Python code: model.py" in message.text
    assert str(widget.models.value().path) in message.cure
    assert "--trust" not in message.cure
    assert not predicted(viewer)
    assert not consented_modules()
    message.button.click()
    qtbot.waitUntil(lambda: "4 objects" in widget.status.text(), timeout=PATIENCE)
    assert consented_modules() == ("a" * 64,)


def test_refusals_that_nothing_mends_have_no_button() -> None:
    from im2im_core.errors import TrustError
    from im2im_core.trust import require_trust

    assert asked_for(TrustError("a", "Get the package again")) is None
    with pytest.raises(TrustError) as caught:
        require_trust("some_package.nets.Net")
    assert asked_for(caught.value) == "some_package"


@pytest.mark.parametrize(("how", "signal"), [("killed", 9), ("segfaults", 11)])
def test_fault_27_killed_process_is_told_in_words_and_replaced(
    open_panel: Any, qtbot: Any, make_model: Any, how: str, signal: int
) -> None:
    viewer, widget = open_panel(how)
    widget.button.click()
    qtbot.waitUntil(lambda: at_rest(widget) and bool(widget.messages.messages()), timeout=PATIENCE)
    assert f"killed by signal {signal}" in widget.messages.messages()[0].text
    widget.set_model(make_model("good"))
    qtbot.waitUntil(lambda: widget.models.value().name == "good nuclei", timeout=PATIENCE)
    widget.button.click()
    qtbot.waitUntil(lambda: bool(predicted(viewer)) and at_rest(widget), timeout=PATIENCE)


def check_unfinished(layer: Any) -> None:
    """The layer says that it is not complete, and can be painted on."""
    assert layer.name.endswith("(unfinished)")
    assert layer.metadata["im2im"]["finished"] is False
    assert layer.editable
    assert np.asarray(layer.data).any()
    layer.data_setitem((np.array([0]), np.array([0])), 7)
    assert layer.data[0, 0] == 7


def test_fault_27_killed_process_leaves_its_layer_as_unfinished(open_panel: Any, qtbot: Any) -> None:
    viewer, widget = open_panel("killed_later")
    widget.button.click()
    qtbot.waitUntil(lambda: at_rest(widget) and bool(widget.messages.messages()), timeout=PATIENCE)
    assert "killed by signal 9" in widget.messages.messages()[0].text
    (layer,) = predicted(viewer)
    check_unfinished(layer)


def test_fault_22_source_layer_deleted_meanwhile(open_panel: Any, qtbot: Any) -> None:
    viewer, widget = open_panel("slow")
    widget.button.click()
    viewer.layers["cells"].data[:] = 0
    viewer.layers.remove("cells")
    qtbot.waitUntil(lambda: bool(predicted(viewer)) and at_rest(widget), timeout=PATIENCE)
    (layer,) = predicted(viewer)
    assert layer.name == "cells · slow nuclei"
    assert np.asarray(layer.data)[96:].any()  # of the pixels at the time of the click


def test_fault_22_source_layer_edited_and_renamed_meanwhile(open_panel: Any, qtbot: Any) -> None:
    viewer, widget = open_panel("slow")
    image = viewer.layers["cells"]
    widget.button.click()
    image.data[:] = 0
    image.name = "other name"
    image.scale = (3.0, 3.0)
    assert widget.image._image.currentText() == "other name"
    qtbot.waitUntil(lambda: bool(predicted(viewer)) and at_rest(widget), timeout=PATIENCE)
    (layer,) = predicted(viewer)
    assert layer.name == "cells · slow nuclei"
    assert tuple(layer.scale) == (1.0, 1.0)
    rows = np.arange(128)[:, None] // 32 + 1
    np.testing.assert_array_equal(layer.data, rows * (discs() > 0))
    assert widget.image.value() is image


@pytest.mark.timing
def test_fault_21_viewer_closed_meanwhile(open_panel: Any, qtbot: Any) -> None:
    viewer, widget = open_panel("slow", size=640)
    widget.button.click()
    qtbot.waitUntil(lambda: bool(predicted(viewer)), timeout=PATIENCE)
    pid = widget.job.pid
    with qtbot.captureExceptions() as exceptions:
        began = time.monotonic()
        viewer.close()
        qtbot.waitUntil(lambda: not psutil.pid_exists(pid) or _is_zombie(pid), timeout=PATIENCE)
        assert time.monotonic() - began < 10
    assert not exceptions


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
    (layer,) = predicted(viewer)
    assert layer.metadata["im2im"]["finished"] is False
    assert not layer.editable  # a stroke would meet the next tile
    pid = widget.job.pid
    with qtbot.captureExceptions() as exceptions:
        viewer.window.remove_dock_widget(widget)
        qtbot.waitUntil(lambda: layer.name.endswith("(unfinished)"), timeout=PATIENCE)
        check_unfinished(layer)
        viewer.add_image(np.zeros((8, 8)))
        qtbot.waitUntil(lambda: not psutil.pid_exists(pid) or _is_zombie(pid), timeout=PATIENCE)
    assert not exceptions
    check_unfinished(layer)  # the file of its pixels is deleted by now


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


def real_model(root: Path) -> Path:
    """Package with a small network that was never trained."""
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
    folder = root / "models" / "real"
    metadata = BundleMetadata(name="real nuclei", authors=({"name": "Ada"},))
    export_bundle(framework, inference, folder, metadata=metadata, sample=discs(96)[None])
    return folder


def wait_until_warm(widget: PredictWidget, qtbot: Any) -> None:
    """Return when the process has imported the networks: what is asked next is done afterwards."""
    attached = widget.job._attached
    attached.warm()
    qtbot.waitUntil(attached.submit("ping", {}).done, timeout=4 * PATIENCE)


@pytest.fixture
def real_panel(make_napari_viewer: Any, qtbot: Any, project: Any) -> Any:
    """Open panel with the real process, which has imported the networks, as it does while a person looks at it."""
    viewer = make_napari_viewer(show=True)
    viewer.add_image(discs(256), name="cells")
    widget = PredictWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Predict")
    wait_until_warm(widget, qtbot)
    yield widget
    widget.job.close().join(15)


@pytest.mark.timing
@pytest.mark.slow
def test_first_prediction_comes_a_second_after_the_click_and_what_it_computes(
    real_panel: PredictWidget, qtbot: Any, project: Any
) -> None:
    widget, folder = real_panel, real_model(project.root)
    seen: list[float] = []
    results: list[Any] = []
    widget.job.tile.connect(lambda tile: seen.append(time.monotonic()))
    widget.job.finished.connect(results.append)
    over: list[float] = []
    for number in range(TRIES):  # each in a process that has predicted nothing yet
        if number:
            widget.job.rest()
            wait_until_warm(widget, qtbot)
        copy = shutil.copytree(folder, folder.with_name(f"copy-{number}"))
        widget.set_model(copy)
        chosen = lambda copy=copy: (model := widget.models.value()) is not None and model.path == copy  # noqa: E731
        qtbot.waitUntil(chosen, timeout=PATIENCE)
        seen.clear()
        results.clear()
        began = time.monotonic()
        widget.button.click()
        qtbot.waitUntil(lambda: bool(results), timeout=PATIENCE)
        over.append(seen[0] - began - results[0].facts["seconds"])
        qtbot.waitUntil(lambda: "object" in widget.status.text(), timeout=PATIENCE)
    assert float(np.median(over)) <= 1.0, over
    assert widget.status.text().endswith("s, CPU")


@pytest.mark.slow
def test_real_model_predicts_like_the_core(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    from im2im_core import api

    folder = real_model(project.root)
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


# ---- looks ---------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_panel_fits_a_small_screen(open_panel: Any, qtbot: Any, theme: str) -> None:
    viewer, widget = open_panel()
    viewer.theme = theme
    window = viewer.window._qt_window
    window.resize(1366, 768)
    assert not nameless(widget)
    widget.more.setChecked(True)
    widget.teach_button.show()
    widget.messages.add("Something " * 12, "warning", "with a cure " * 12, "Mend it", lambda: None)
    qtbot.waitUntil(lambda: widget.height() > 0 and window.height() <= 768, timeout=PATIENCE)
    qtbot.wait(50)
    assert window.width() <= 1366
    assert window.height() <= 768
    assert widget.height() <= window.height()
    assert not crowded(widget._area.widget())


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


def test_the_panel_is_wide_enough_for_what_the_model_brings(open_panel: Any, qtbot: Any) -> None:
    from qtpy.QtWidgets import QLabel, QScrollArea

    _, widget = open_panel()
    inner = widget.findChild(QScrollArea).widget()
    qtbot.waitUntil(lambda: inner.width() >= inner.minimumSizeHint().width(), timeout=PATIENCE)
    assert widget.minimumWidth() >= inner.minimumSizeHint().width()
    inner.layout().addWidget(wide := QLabel("wide"))
    wide.setMinimumWidth(480)
    qtbot.waitUntil(lambda: widget.minimumWidth() > 480, timeout=PATIENCE)
