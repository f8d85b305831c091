"""What the Dataset panel must not forget: pairs, choices and names, over closing it and between layers and folders."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dataset_world import SCALE, answers, folder_of, noise, press, press_answer, settled, squares, taught, wait
from napari.components import ViewerModel
from napari.layers import Image, Labels, Shapes

from im2im_core.datasets import list_datasets, load_dataset
from im2im_core.errors import DataError
from napari_im2im import _dataset_memory
from napari_im2im._dataset_axes import BEFORE, tell_axes
from napari_im2im._dataset_memory import MEMORY, Left, Memory
from napari_im2im._dataset_source import AXES_CHOICES
from napari_im2im._dataset_widget import DatasetWidget
from napari_im2im._layer_pairs import COMPLETE, PREFILLED, TAUGHT_FROM, LayerPair, sample_of
from napari_im2im._layers import AXES_KEY, OURS, RESULT, layer_axes

Open = Callable[..., DatasetWidget]


@pytest.fixture
def panel(qtbot: Any, project: Any) -> Iterator[Open]:
    """Opens the panel over a viewer without a window; closes the one before."""
    opened: list[DatasetWidget] = []

    def open_one(viewer: ViewerModel, *, waits: bool = True) -> DatasetWidget:
        for before in opened:
            before.hide()
            before.deleteLater()
        widget = DatasetWidget(viewer, project)
        opened[:] = [widget]
        widget.show()
        if waits:
            wait(qtbot, widget)
        return widget

    yield open_one
    for widget in opened:
        wait(qtbot, widget)
        widget.journal.stop()
        widget.hide()
        widget.deleteLater()


def viewer_of(*layers: Any) -> ViewerModel:
    viewer = ViewerModel()
    for layer in layers:
        viewer.add_layer(layer)
    return viewer


def pair_of(name: str, seed: int = 0) -> list[Any]:
    return [Image(noise(seed), name=name), Labels(squares(), name=f"{name} labels")]


# ---- over closing --------------------------------------------------------------


def test_pairs_of_layers_are_as_they_were_left(panel: Open, qtbot: Any) -> None:
    dapi, gfp = Image(noise(7), name="dapi"), Image(noise(8), name="gfp")
    cells = Labels(squares(), name="cells")
    viewer = viewer_of(*pair_of("a", 1), *pair_of("b", 2), *pair_of("c", 3), dapi, gfp, cells)
    widget = panel(viewer)
    widget.add_pair([dapi, gfp], cells)
    wait(qtbot, widget)
    widget.choices.task.setCurrentIndex(1)
    wait(qtbot, widget)
    widget.table_rows.use([0], False)
    widget.table_rows.set_part(1, "test")
    widget.table.joinWanted.emit((1, 2))
    widget.choices.corrections.voxel_size.setText("0.3, 0.3")
    widget.choices.corrections.voxel_size.editingFinished.emit()
    wait(qtbot, widget)
    widget.name.setText("mine")
    widget.collecting.remember_soon()
    left = [(r.name, r.used, r.part, r.group) for r in widget.rows()]
    assert left[0][1] is False
    assert left[2][2:] == ("test", "b")
    assert left[3][0] == "dapi + gfp"
    again = panel(viewer)
    assert [(r.name, r.used, r.part, r.group) for r in again.rows()] == left
    assert again.name.text() == "mine"
    assert again.choices.task.currentData() == "semantic_segmentation"
    assert again.choices.corrections.value().voxel_size == (None, 0.3, 0.3)
    sample = again.rows()[3].sample
    assert sample is not None
    assert sample.source.info.channels == ("dapi", "gfp")
    assert sample.source.info.voxel_size == (None, 0.3, 0.3)


def test_a_taught_model_is_known_after_closing(panel: Open, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    train = SimpleNamespace(prepare=lambda path, **how: asked.append(how))
    monkeypatch.setattr("napari_im2im._dataset_widget.open_panel", lambda viewer, name: train)
    image = Image(noise(), name="a", **SCALE)
    prediction = Labels(squares(), name="a · model", metadata={OURS: RESULT, "axes": "YX"}, **SCALE)
    viewer = viewer_of(image, prediction)
    widget = panel(viewer)
    painted = taught(qtbot, widget, image, prediction, "models/nuclei")
    assert painted.metadata[TAUGHT_FROM] == "models/nuclei"
    wait(qtbot, widget)
    widget.regions.draw()
    viewer.layers.selection.active.add_rectangles([[0, 0], [0, 63], [63, 63], [63, 0]])
    wait(qtbot, widget)
    again = panel(viewer)
    assert [r.layers.target for r in again.rows() if r.layers] == [painted]
    with qtbot.waitSignal(again.dataset_saved, timeout=30_000):
        again.train.click()
    assert asked[0]["start_from"] == "models/nuclei"


def test_the_folder_seen_last_comes_before_layers(
    panel: Open, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path / "stacks", "ab")
    viewer = viewer_of(*pair_of("a"))
    widget = panel(viewer)
    widget.open_folder(str(folder))
    wait(qtbot, widget)
    widget.table_rows.use([0], False)
    again = panel(viewer)
    wait(qtbot, again)
    assert [(r.name, r.used) for r in again.rows()] == [("a", False), ("b", True)]
    assert all(r.layers is None for r in again.rows())
    again.hide()
    monkeypatch.setattr(_dataset_memory, "SESSION", "the next day")
    later = panel(viewer)
    assert [r.layers is not None for r in later.rows()] == [True]
    press(later, "“stacks” is kept")
    wait(qtbot, later)
    assert [(r.name, r.used) for r in later.rows()] == [("a", False), ("b", True)]


def test_a_note_that_is_none_is_no_memory(project: Any) -> None:
    for text in ("", "[]", '{"files": 3}', '{"files": {"rows": {"a": 1}}, "layers": {}, "last": "", "session": ""}'):
        (project.root / MEMORY).parent.mkdir(exist_ok=True)
        (project.root / MEMORY).write_text(text)
        assert Memory.read(project) == Memory()
    memory = Memory().with_left(Left("folder", "name", rows={"a": {"used": False}}))
    memory.write(project)
    assert Memory.read(project) == memory


# ---- between folders and layers ------------------------------------------------


def test_a_pair_of_layers_beside_a_folder_loses_neither(panel: Open, qtbot: Any, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "stacks", "abc")
    first, second = pair_of("x"), pair_of("y", 1)
    viewer = viewer_of(*first, *second)
    widget = panel(viewer)
    widget.table_rows.use([0], False)
    widget.open_folder(str(folder))
    wait(qtbot, widget)
    assert widget.name.text() == "stacks"
    widget.table_rows.use([1], False)
    third = Image(noise(2), name="z")
    viewer.add_layer(third)
    widget.add_pair([third], first[1])
    wait(qtbot, widget)
    assert [(r.name, r.used) for r in widget.rows()] == [("y", True), ("z", True)]
    assert widget.name.text() == ""
    press(widget, "“stacks” is kept as you left it")
    wait(qtbot, widget)
    assert [(r.name, r.used) for r in widget.rows()] == [("a", True), ("b", False), ("c", True)]
    press(widget, "The pairs of layers are kept")
    wait(qtbot, widget)
    assert [r.name for r in widget.rows()] == ["y", "z"]


def test_teaching_beside_a_folder_keeps_the_folder(panel: Open, qtbot: Any, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "stacks", "ab")
    image, prediction = Image(noise(), name="x"), Labels(squares(), name="p", metadata={OURS: RESULT})
    viewer = viewer_of(image, prediction)
    widget = panel(viewer)
    widget.open_folder(str(folder))
    wait(qtbot, widget)
    widget.table_rows.use([0], False)
    for _ in range(2):
        taught(qtbot, widget, image, prediction)
        wait(qtbot, widget)
        assert [r.name for r in widget.rows()] == ["x"]
        press(widget, "“stacks” is kept")
        wait(qtbot, widget)
        assert [(r.name, r.used) for r in widget.rows()] == [("a", False), ("b", True)]
        widget = panel(viewer, waits=False)  # the second time the folder is just being opened again


def test_every_folder_gives_its_own_name(panel: Open, qtbot: Any, tmp_path: Path, project: Any) -> None:
    widget = panel(ViewerModel())
    widget.name.setText("typed before")
    for name, shown in (("first", "typed before"), ("second", "second"), ("third", "third")):
        widget.open_folder(str(folder_of(tmp_path / name, "ab")))
        wait(qtbot, widget)
        assert widget.name.text() == shown
    with qtbot.waitSignal(widget.dataset_saved, timeout=30_000):
        widget.save.click()
    assert [entry.name for entry in list_datasets(project)] == ["third"]


# ---- axes ----------------------------------------------------------------------


def test_fault_18_every_order_of_four_dimensions_can_be_said(panel: Open, qtbot: Any) -> None:
    image = Image(noise(0, (3, 2, 96, 96)), name="stack")
    labels = Labels(np.stack([squares()] * 3), name="stack labels")
    widget = panel(viewer_of(image, labels))
    (asked,) = widget.messages.messages()
    assert answers(asked) == ["CZYX", "ZCYX", "TCYX", "Another order…"]
    assert asked.minimumSizeHint().width() < widget.sizeHint().width()
    press_answer(asked, "Another order…")
    assert widget.choices.corrections.isVisible()
    widget.choices.corrections.axes.setCurrentIndex(widget.choices.corrections.axes.findData("ZTYX"))
    wait(qtbot, widget)
    assert widget.rows() == ()  # of the labels nobody can know it
    (asked,) = (m for m in widget.messages.messages() if "several things" in m.text)
    assert "stack labels" in asked.text
    assert layer_axes(image) == "ZTYX"
    widget.choices.corrections.axes.setCurrentIndex(widget.choices.corrections.axes.findData("ZCYX"))
    wait(qtbot, widget)
    (found,) = widget.rows()
    assert found.sample is not None
    assert found.sample.source.info.shape == (1, 2, 3, 96, 96)
    assert layer_axes(labels) == "ZYX"


def test_fault_18_the_editor_answers_and_takes_back(panel: Open, qtbot: Any) -> None:
    layers = [Image(noise(0, (3, 2, 96, 96)), name="s"), Labels(np.stack([squares()] * 3), name="s labels")]
    widget = panel(viewer_of(*layers))
    widget.choices.corrections.axes.setCurrentIndex(widget.choices.corrections.axes.findData("ZCYX"))
    wait(qtbot, widget)
    assert len(widget.rows()) == 1
    assert widget.messages.messages() == () or "several things" not in widget.messages.messages()[0].text
    widget.choices.corrections.axes.setCurrentIndex(0)
    wait(qtbot, widget)
    assert widget.rows() == ()
    assert all(AXES_KEY not in layer.metadata and BEFORE not in layer.metadata for layer in layers)
    (asked,) = (m for m in widget.messages.messages() if "several things" in m.text)
    press_answer(asked, "ZCYX")
    wait(qtbot, widget)
    assert len(widget.rows()) == 1


def test_one_answer_is_enough_for_all_layers_that_are_alike(panel: Open, qtbot: Any) -> None:
    layers = []
    for name in "abc":
        layers += [Image(noise(0, (3, 96, 96)), name=name), Labels(np.stack([squares()] * 3), name=f"{name} labels")]
    widget = panel(viewer_of(*layers))
    (asked,) = widget.messages.messages()
    assert "5 more layers" in asked.text
    press_answer(asked, "ZYX")
    wait(qtbot, widget)
    assert [r.name for r in widget.rows()] == ["a", "b", "c"]


def test_the_question_stays_while_other_pairs_are_looked_at(panel: Open, qtbot: Any) -> None:
    stack = [Image(noise(0, (3, 96, 96)), name="s"), Labels(np.stack([squares()] * 3), name="s labels")]
    viewer = viewer_of(*pair_of("a"), *stack)
    widget = panel(viewer)
    widget.review()
    wait(qtbot, widget)
    assert [r.name for r in widget.rows()] == ["a"]
    (asked,) = (m for m in widget.messages.messages() if "several things" in m.text)
    viewer.layers.remove(stack[0])
    qtbot.waitUntil(lambda: asked not in widget.messages.messages(), timeout=30_000)
    wait(qtbot, widget)


def test_what_a_layer_said_itself_comes_back() -> None:
    layer = Image(noise(0, (3, 96, 96)), metadata={AXES_KEY: "TYX"})
    tell_axes([layer], "ZYX")
    tell_axes([layer], "CYX")
    assert layer_axes(layer) == "CYX"
    tell_axes([layer], None)
    assert layer.metadata == {AXES_KEY: "TYX"}


def test_all_axes_can_be_chosen() -> None:
    assert len(AXES_CHOICES) == len(set(AXES_CHOICES)) == 1 + 3 + 6 + 6
    assert AXES_CHOICES[:4] == ("YX", "ZYX", "TYX", "CYX")


# ---- regions -------------------------------------------------------------------


def test_regions_that_were_there_before_the_panel_are_followed(panel: Open, qtbot: Any) -> None:
    labels = Labels(squares() + 1, name="a labels", metadata={"labelling": "sparse", PREFILLED: True})
    box = [[0, 0], [0, 63], [63, 63], [63, 0]]
    shapes = Shapes([box], shape_type="rectangle", metadata={COMPLETE: True})
    viewer = viewer_of(Image(noise(), name="a"), labels, shapes)
    widget = panel(viewer)

    def objects() -> str:
        return str(widget.table.pairs.index(0, 3).data())

    assert objects() == "16"
    shapes.data = [[[0, 0], [0, 31], [31, 31], [31, 0]]]
    qtbot.waitUntil(lambda: settled(widget) and objects() == "4", timeout=30_000)
    viewer.layers.remove(shapes)
    qtbot.waitUntil(lambda: settled(widget) and objects() == "0", timeout=30_000)


# ---- the main thread -----------------------------------------------------------


def test_teaching_reads_the_pixels_in_a_thread(panel: Open, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from im2im_core import partial

    asked: list[str] = []
    real = partial.from_prediction

    def watched(labels: Any) -> Any:
        asked.append(threading.current_thread().name)
        return real(labels)

    monkeypatch.setattr(partial, "from_prediction", watched)
    image, prediction = Image(noise(), name="x"), Labels(squares(), name="p", metadata={OURS: RESULT})
    widget = panel(viewer_of(image, prediction))
    taught(qtbot, widget, image, prediction)
    assert len(asked) == 1
    assert asked[0] != threading.main_thread().name


def test_labels_that_cannot_rise_are_said(panel: Open, qtbot: Any) -> None:
    image, wrong = Image(noise(), name="x"), Labels(squares().astype(np.int32) - 5, name="p", metadata={OURS: RESULT})
    viewer = viewer_of(image, wrong)
    widget = panel(viewer)
    widget.teach(image, wrong)
    qtbot.waitUntil(lambda: any(m.level == "error" for m in widget.messages.messages()), timeout=30_000)
    assert list(viewer.layers) == [image, wrong]


def test_a_file_is_opened_where_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tifffile
    from napari.layers._source import layer_source

    from im2im_core import io

    dask = pytest.importorskip("dask.array")
    opened: list[Any] = []
    real = io.open_image

    def watched(path: Any, **how: Any) -> Any:
        opened.append(path)
        return real(path, **how)

    monkeypatch.setattr(io, "open_image", watched)
    tifffile.imwrite(tmp_path / "a.tif", noise())
    with layer_source(path=str(tmp_path / "a.tif")):
        image = Image(dask.from_array(noise()), name="a")
    sample = sample_of(LayerPair((image,), Labels(squares())), "a")
    assert sample.source.info.shape == (1, 1, 1, 96, 96)
    assert opened == []
    np.testing.assert_array_equal(sample.source.read()[0, 0, 0], noise())
    assert opened
    (tmp_path / "a.tif").unlink()
    gone = sample_of(LayerPair((image,), Labels(squares())), "a")
    np.testing.assert_array_equal(gone.source.read()[0, 0, 0], noise())


def test_a_layer_that_is_no_image_is_an_error() -> None:
    with pytest.raises(DataError, match="several things"):
        sample_of(LayerPair((Image(noise(0, (2, 9, 9))),), Labels(squares())), "a")


# ---- corrections of some pairs -------------------------------------------------


def write_size(widget: DatasetWidget, text: str) -> None:
    widget.choices.corrections.voxel_size.setText(text)
    widget.choices.corrections.voxel_size.editingFinished.emit()


def sizes(widget: DatasetWidget) -> list[Any]:
    return [r.sample.source.info.voxel_size[1] for r in widget.rows() if r.sample]


def test_files_are_corrected_one_by_one(panel: Open, qtbot: Any, tmp_path: Path, project: Any) -> None:
    folder = folder_of(tmp_path / "stacks", "abc")
    viewer = ViewerModel()
    widget = panel(viewer)
    widget.open_folder(str(folder))
    wait(qtbot, widget)
    assert "all pairs" in widget.choices.corrections.scope.text()
    write_size(widget, "0.5, 0.5")
    wait(qtbot, widget)
    widget.table_rows.select({"b"})
    assert widget.choices.corrections.scope.text() == "For the selected pair"
    write_size(widget, "0.2, 0.2")
    wait(qtbot, widget)
    assert widget.table.chosen() == (1,)
    assert sizes(widget) == [0.5, 0.2, 0.5]
    widget.table.clearSelection()
    assert widget.choices.corrections.value().voxel_size == (None, 0.5, 0.5)
    with pytest.raises(DataError, match="one by one"):
        widget._copies()
    with qtbot.waitSignal(widget.dataset_saved, timeout=30_000):
        widget.save.click()
    wait(qtbot, widget)
    (entry,) = list_datasets(project)
    assert sorted(s.source.info.voxel_size[1] or 0 for s in load_dataset(entry.path)[0]) == [0.2, 0.5, 0.5]
    assert str(entry.path) in widget._copies()["command"]
    again = panel(viewer)
    wait(qtbot, again)
    assert sizes(again) == [0.5, 0.2, 0.5]
    write_size(again, "0.7, 0.7")
    wait(qtbot, again)
    assert sizes(again) == [0.7, 0.7, 0.7]


def test_layers_are_corrected_one_by_one(panel: Open, qtbot: Any) -> None:
    stacks = [(Image(noise(i, (3, 96, 96)), name=n), Labels(np.stack([squares()] * 3), name=f"{n} l")) for i, n in
              enumerate("ab")]  # fmt: skip
    widget = panel(viewer_of(*(layer for pair in stacks for layer in pair)))
    press_answer(widget.messages.messages()[0], "ZYX")
    wait(qtbot, widget)
    widget.table_rows.select({stacks[1][1].unique_id.hex})
    widget.choices.corrections.axes.setCurrentIndex(widget.choices.corrections.axes.findData("TYX"))
    wait(qtbot, widget)
    assert [layer_axes(layer) for pair in stacks for layer in pair] == ["ZYX", "ZYX", "TYX", "TYX"]
    widget.choices.corrections.channels.setText("7")
    widget.choices.corrections.channels.editingFinished.emit()
    wait(qtbot, widget)
    assert any("no channel 7" in m.text for m in widget.messages.messages())
    assert [r.name for r in widget.rows()] == ["a", "b"]
    assert [r.sample.source.info.axes for r in widget.rows() if r.sample] == ["ZYX", "TYX"]
