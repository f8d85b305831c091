"""The Dataset widget on real viewers: collect, review, correct, save; and nothing painted is ever lost."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from dataset_world import SCALE, answers, folder_of, noise, press, press_answer, settled, squares, taught, wait
from napari.components import ViewerModel
from napari.layers import Image, Labels, Shapes
from qtpy.QtWidgets import QPushButton

from im2im_core import datasets
from im2im_core.datasets import list_datasets, load_dataset, read_about
from im2im_core.errors import DataError, ResourceError
from im2im_core.image import ArrayImage
from im2im_core.journal import Journal, list_journals
from im2im_core.samples import TARGET, Sample
from napari_im2im._dataset_choices import choose
from napari_im2im._dataset_rows import (
    PairRow,
    Reviewed,
    draw_parts,
    join_copies,
    join_rows,
    separate_rows,
    set_part,
    summary,
    with_review,
)
from napari_im2im._dataset_source import CorrectionsEditor, parse_channels, parse_voxel_size
from napari_im2im._dataset_widget import DatasetWidget
from napari_im2im._dataset_work import Work
from napari_im2im._journal_watch import watch_labels
from napari_im2im._layer_pairs import COMPLETE, LABELS_OF, LayerPair, pair_layers, polygons_of
from napari_im2im._layers import OURS, RESULT
from napari_im2im._pair_table import NAME, OBJECTS, PART, PROBLEMS, USE, PairTable
from napari_im2im._thumbnails import Thumbnails, colours, greys, pair_picture


def row(name: str, group: str = "", part: str = "train", seed: int | None = None) -> PairRow:
    pixels = noise(sum(map(ord, name)) if seed is None else seed)
    target = {TARGET: ArrayImage(squares(), "YX", name=name)}
    return PairRow(name, Sample(name, group or name, ArrayImage(pixels, "YX", name=name), target), part=part)


def opened(make_napari_viewer: Any, qtbot: Any, project: Any, *layers: Any) -> tuple[Any, DatasetWidget]:
    """Viewer with `layers` and the widget in it, after the first review."""
    viewer = make_napari_viewer()
    for layer in layers:
        viewer.add_layer(layer)
    widget = DatasetWidget(viewer, project)
    viewer.window.add_dock_widget(widget, name="Dataset")
    qtbot.waitUntil(lambda: settled(widget), timeout=30_000)
    return viewer, widget


def cell(widget: DatasetWidget, number: int, column: int) -> str:
    return str(widget.table.pairs.index(number, column).data())


# ---- from layers ---------------------------------------------------------------


def test_story_a_a_painted_corner_becomes_a_data_set(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    painted = np.zeros((96, 192), np.uint8)
    painted[:, :96] = np.where(squares() > 0, 2 + squares() % 50, 0)
    shapes = Shapes([[[0, 0], [0, 95], [95, 95], [95, 0]]], shape_type="rectangle", metadata={COMPLETE: True}, **SCALE)
    image = Image(noise(0, (96, 192)), name="nuclei", **SCALE)
    labels = Labels(painted, name="nuclei labels", metadata={"labelling": "sparse"}, **SCALE)
    _, widget = opened(make_napari_viewer, qtbot, project, image, labels, shapes)
    assert (cell(widget, 0, NAME).splitlines()) == ["nuclei", "96 × 192 px", "0.5 × 0.5 µm"]
    assert cell(widget, 0, OBJECTS) == "36"
    assert cell(widget, 0, PART) == "train + strip"
    assert widget.choices.complete.isChecked()
    widget.name.setText("corner")
    with qtbot.waitSignal(widget.dataset_saved, timeout=30_000) as saved:
        widget.save.click()
    (entry,) = list_datasets(project)
    assert saved.args == [str(entry.path)]
    assert (entry.name, entry.labelling, entry.task_hint) == ("corner", "sparse", "instance_segmentation")
    samples, parts = load_dataset(entry.path)
    assert sorted(parts.values()) == ["train", "validation"]
    for sample in samples:
        assert sample.source.info.voxel_size == (None, 0.5, 0.5)
        assert sample.weight is not None
    held = next(s for s in samples if parts[s.name] == "validation")
    assert held.weight is not None
    assert held.weight.read().all()
    assert held.targets[TARGET].read().max() > 1
    wait(qtbot, widget)


def test_painting_more_makes_a_new_data_set(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    labels = Labels(squares(), name="a labels")
    _, widget = opened(make_napari_viewer, qtbot, project, Image(noise(), name="a"), labels)
    for _ in range(2):
        with qtbot.waitSignal(widget.dataset_saved, timeout=30_000):
            widget.save.click()
        labels.data[40:50, 60:70] = 99
        wait(qtbot, widget)
    newer, older = list_datasets(project)
    first, second = (np.max([s.targets[TARGET].read().max() for s in load_dataset(e.path)[0]]) for e in (older, newer))
    assert (first, second) == (36, 99)


def test_dense_and_sparse_labels_in_one_set_are_both_understood(
    make_napari_viewer: Any, qtbot: Any, project: Any
) -> None:
    strokes = np.where(squares() > 18, squares() + 1, 0)
    whole = [Image(noise(0), name="whole"), Labels(squares(), name="whole labels")]
    part = [Image(noise(1), name="part"), Labels(strokes, name="part labels", metadata={"labelling": "sparse"})]
    _, widget = opened(make_napari_viewer, qtbot, project, *whole, *part)
    with qtbot.waitSignal(widget.dataset_saved, timeout=30_000):
        widget.save.click()
    (entry,) = list_datasets(project)
    by_name = {s.name: s for s in load_dataset(entry.path)[0]}
    np.testing.assert_array_equal(by_name["whole"].targets[TARGET].read()[0, 0, 0], squares())
    assert by_name["part"].targets[TARGET].read().max() == 36
    known = {name: 1.0 if s.weight is None else s.weight.read().mean() for name, s in by_name.items()}
    assert known["whole"] == 1
    assert known["part"] == pytest.approx((strokes > 0).mean())
    wait(qtbot, widget)


def test_several_layers_are_channels_and_corrections_reach_the_samples(
    make_napari_viewer: Any, qtbot: Any, project: Any
) -> None:
    dapi, gfp = Image(noise(0), name="dapi"), Image(noise(1), name="gfp")
    labels = Labels(squares(), name="labels")
    _, widget = opened(make_napari_viewer, qtbot, project, dapi, gfp, labels)
    widget.add_pair([dapi, gfp], labels)
    wait(qtbot, widget)
    (found,) = widget.rows()
    assert found.sample is not None
    assert found.sample.source.info.channels == ("dapi", "gfp")
    assert any("no voxel size" in m.text for m in widget.messages.messages())
    press(widget, "no voxel size")
    assert widget.choices.corrections.isVisibleTo(widget)
    widget.choices.corrections.channels.setText("gfp")
    widget.choices.corrections.voxel_size.setText("0.2, 0.2")
    widget.choices.corrections.voxel_size.editingFinished.emit()
    wait(qtbot, widget)
    (found,) = widget.rows()
    assert found.sample is not None
    assert found.sample.source.info.channels == ("gfp",)
    assert found.sample.source.info.voxel_size == (None, 0.2, 0.2)
    assert not any("no voxel size" in m.text for m in widget.messages.messages())


def test_fault_18_unclear_axes_are_a_question_with_buttons(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    image = Image(noise(0, (5, 96, 96)), name="stack")
    labels = Labels(np.stack([squares()] * 5), name="stack labels")
    _, widget = opened(make_napari_viewer, qtbot, project, image, labels)
    assert widget.rows() == ()
    (asked,) = widget.messages.messages()
    assert answers(asked) == ["ZYX", "TYX", "CYX"]
    press_answer(asked, "TYX")
    wait(qtbot, widget)
    (found,) = widget.rows()
    assert found.sample is not None
    assert found.sample.source.info.shape == (5, 1, 1, 96, 96)
    assert found.sample.targets[TARGET].info.axes == "TYX"


def test_fault_22_a_removed_layer_takes_its_row_along(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    layers = [Image(noise(0), name="a"), Labels(squares(), name="a labels")]
    more = [Image(noise(1), name="b"), Labels(squares(), name="b labels")]
    viewer, widget = opened(make_napari_viewer, qtbot, project, *layers, *more)
    assert [r.name for r in widget.rows()] == ["a", "b"]
    widget.review()
    viewer.layers.remove(layers[1])
    qtbot.waitUntil(lambda: [r.name for r in widget.rows()] == ["b"], timeout=30_000)
    wait(qtbot, widget)


def test_of_a_corrected_prediction_only_the_rectangle_is_learned_from(
    make_napari_viewer: Any, qtbot: Any, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    train = SimpleNamespace(prepare=lambda path, **how: asked.append((path, how)))
    monkeypatch.setattr("napari_im2im._dataset_widget.open_panel", lambda viewer, name: train)
    image, prediction = Image(noise(0, (96, 192)), name="a", **SCALE), Labels(squares(192), name="a · model", **SCALE)
    prediction.metadata = {OURS: RESULT, "axes": "YX"}
    viewer, widget = opened(make_napari_viewer, qtbot, project, image, prediction)
    assert widget.rows() == ()
    painted = taught(qtbot, widget, image, prediction, "models/nuclei")
    wait(qtbot, widget)
    np.testing.assert_array_equal(painted.data, squares(192) + 1)
    assert painted.mode == "paint"
    assert painted.selected_label == 74
    assert widget.choices.labelling.currentData() == "sparse"
    assert [r.layers.target for r in widget.rows() if r.layers] == [painted]
    widget.save.click()
    assert widget.work.name == ""
    assert list_datasets(project) == ()
    press(widget, "nothing says yet")
    shapes = viewer.layers.selection.active
    assert shapes.mode == "add_rectangle"
    assert shapes.metadata[LABELS_OF] == painted.unique_id.hex
    np.testing.assert_allclose(shapes.scale, painted.scale)
    assert widget.choices.complete.isChecked()
    shapes.add_rectangles([[0, 0], [0, 63], [63, 63], [63, 0]])
    qtbot.waitUntil(lambda: settled(widget) and cell(widget, 0, OBJECTS) == "16", timeout=30_000)
    choose(widget.choices.validation, "none")
    widget.table_rows.divide()
    with qtbot.waitSignal(widget.dataset_saved, timeout=30_000):
        widget.train.click()
    wait(qtbot, widget)
    (entry,) = list_datasets(project)
    how = {"task": "instance_segmentation", "dimensions": 2, "start_from": "models/nuclei", "minutes": 5.0}
    assert asked == [(str(entry.path), how)]
    (saved,), _ = load_dataset(entry.path)
    assert saved.weight is not None
    known = saved.weight.read()[0, 0, 0]
    assert known[:64, :64].all()
    assert known.sum() == 64 * 64
    assert any("1 image, 1 region (16 objects)" in m.text for m in widget.messages.messages())


def test_the_corrections_of_an_earlier_round_are_kept(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    image = Image(noise(), name="a")
    worse, better = Labels(3 * squares(), name="worse"), Labels(squares(), name="better")
    for prediction in (worse, better):
        prediction.metadata = {OURS: RESULT, "axes": "YX"}
    viewer, widget = opened(make_napari_viewer, qtbot, project, image, worse, better)
    first = taught(qtbot, widget, image, worse)
    first.data[16:24, 16:24] = 500
    widget.regions.draw()
    viewer.layers.selection.active.add_rectangles([[0, 0], [0, 31], [31, 31], [31, 0]])
    second = taught(qtbot, widget, image, better)
    wait(qtbot, widget)
    assert [r.layers.target for r in widget.rows() if r.layers] == [second]
    inside = np.zeros((96, 96), bool)
    inside[:32, :32] = True
    corrected, number = second.data[20, 20], 1 + squares().max()
    assert corrected == 500 + number
    assert ((second.data == corrected) == (first.data == 500)).all()
    assert (second.data[:32, :32] > 1).sum() == (first.data[:32, :32] > 1).sum()
    np.testing.assert_array_equal(second.data[~inside], squares()[~inside] + 1)
    assert len(widget.regions.polygons(widget.rows()[0].layers)) == 1
    assert not first.visible


def test_what_a_model_found_is_no_target_until_it_is_chosen(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    image = Image(noise(), name="nuclei to learn")
    result = Labels(squares(), name="nuclei to learn · Nuclei 2D", metadata={OURS: RESULT})
    overlay = Labels(squares(), name="nuclei to learn mistakes", metadata={OURS: "overlay"})
    painted = Labels(squares(), name="painted labels")
    _, widget = opened(make_napari_viewer, qtbot, project, image, painted, result, overlay)
    assert [r.layers.target for r in widget.rows() if r.layers] == [painted]
    offered = [widget.source.target.itemData(i) for i in range(widget.source.target.count())]
    assert offered == [painted, image, result]
    widget.source.choose([image], result)
    widget.source.add_button.click()
    wait(qtbot, widget)
    assert [r.layers.target for r in widget.rows() if r.layers] == [painted, result]


def test_a_rectangle_that_the_user_drew_is_taken(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    strokes = np.where(squares() > 18, squares() + 1, 0)
    labels = Labels(strokes, name="a labels", metadata={"labelling": "sparse"})
    own = Shapes([[[0, 0], [0, 40], [40, 40], [40, 0]]], shape_type="rectangle", name="Shapes")
    line = Shapes([[[0, 0], [9, 9]]], shape_type="line", name="a line")
    far = Shapes([[[500, 500], [500, 600], [600, 600]]], shape_type="polygon", name="far away")
    viewer, widget = opened(make_napari_viewer, qtbot, project, Image(noise(), name="a"), labels, own, line, far)
    widget.choices.complete.click()
    assert [layer.name for layer in (own, line, far) if layer.metadata.get(COMPLETE)] == ["Shapes"]
    assert len(viewer.layers) == 5
    wait(qtbot, widget)


def test_one_image_is_one_image(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    labels = Labels(squares(192), name="a labels")
    _, widget = opened(make_napari_viewer, qtbot, project, Image(noise(0, (96, 192)), name="a"), labels)
    with qtbot.waitSignal(widget.dataset_saved, timeout=30_000):
        widget.save.click()
    wait(qtbot, widget)
    said = [m.text for m in widget.messages.messages() if "is saved" in m.text]
    assert said == ["“a” is saved: 1 image (72 objects); a strip of it validates"]
    (entry,) = list_datasets(project)
    assert (entry.count, entry.strips, entry.dimensions) == (1, 1, 2)


def test_nothing_can_be_changed_while_it_is_saved(
    make_napari_viewer: Any, qtbot: Any, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    real = datasets.save_dataset

    def slow(*arguments: Any, **more: Any) -> Any:
        go.wait(10)
        return real(*arguments, **more)

    monkeypatch.setattr(datasets, "save_dataset", slow)
    labels = Labels(squares(), name="l")
    viewer, widget = opened(make_napari_viewer, qtbot, project, Image(noise(), name="a"), labels)
    widget.save.click()
    choices = (
        widget.source,
        widget.choices.task,
        widget.choices.labelling,
        widget.choices.validation,
        widget.table,
        widget.name,
    )
    assert not any(choice.isEnabled() for choice in choices)
    viewer.layers["a"].name = "renamed"
    qtbot.wait(300)
    widget.review()
    assert widget.work.name == "save"
    with qtbot.waitSignal(widget.dataset_saved, timeout=30_000):
        go.set()
    qtbot.waitUntil(lambda: [r.name for r in widget.rows()] == ["renamed"] and settled(widget), timeout=30_000)
    assert all(choice.isEnabled() for choice in choices)
    assert list_datasets(project)[0].name == "a"


def test_rows_follow_the_names_of_their_layers(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    viewer, widget = opened(
        make_napari_viewer, qtbot, project, Image(noise(), name="a"), Labels(squares(), name="a labels")
    )
    widget.table_rows.use([0], False)
    viewer.layers["a"].name = "embryo"
    qtbot.waitUntil(lambda: settled(widget) and [r.name for r in widget.rows()] == ["embryo"], timeout=30_000)
    assert widget.source.images.item(0).text() == "embryo"
    (found,) = widget.rows()
    assert found.sample is not None
    assert (found.sample.name, found.group, found.used) == ("embryo", "embryo", False)


@pytest.mark.timing
def test_50_layers_cost_the_main_thread_nothing(qtbot: Any, project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer = ViewerModel()
    pixels = noise(0, (1024, 512))
    labels = np.zeros((1024, 512), np.uint16)
    labels[:8, :8] = 1
    for number in range(25):
        viewer.add_layer(Image(pixels.copy(), name=f"field {number}"))
        viewer.add_layer(Labels(labels.copy(), name=f"field {number} labels"))
    read_in: set[str] = set()
    real = ArrayImage.read

    def watched(self: ArrayImage, region: Any = None) -> Any:
        read_in.add(threading.current_thread().name)
        return real(self, region)

    monkeypatch.setattr(ArrayImage, "read", watched)
    monkeypatch.setattr(Work, "start", lambda *_: None)
    begin = time.thread_time()
    widget = DatasetWidget(viewer, project)
    qtbot.addWidget(widget)
    widget._opening.stop()
    widget.collecting.open()
    spent = time.thread_time() - begin
    assert len(widget.rows()) == 25
    assert threading.main_thread().name not in read_in
    assert spent < 0.3
    widget.journal.stop()


def test_copies_speak_of_what_is_saved(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    _, widget = opened(make_napari_viewer, qtbot, project, Image(noise(), name="a"), Labels(squares(), name="l"))
    with pytest.raises(DataError, match="Save them first"):
        widget._copies()
    with qtbot.waitSignal(widget.dataset_saved, timeout=30_000):
        widget.save.click()
    wait(qtbot, widget)
    (entry,) = list_datasets(project)
    texts = widget._copies()
    check, train = texts["command"].splitlines()
    assert check == f"im2im check {entry.path} --task instance_segmentation"
    assert train.startswith("im2im train instance_seg_2d")
    assert f"--data.path {entry.path}" in train
    assert str(entry.path) in texts["yaml"]
    compile(texts["python"], "copied", "exec")
    assert "36 labelled objects" in texts["methods"]


# ---- from files ----------------------------------------------------------------


def test_story_b_problems_are_listed_and_excluded_with_one_click(
    make_napari_viewer: Any, qtbot: Any, project: Any, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "stacks", "abcdefgh")
    tifffile.imwrite(folder / "GT" / "b.tif", squares()[:-1].astype(np.uint16))
    content = (folder / "IM" / "c.tif").read_bytes()
    (folder / "IM" / "c.tif").write_bytes(content[: len(content) // 2])
    tifffile.imwrite(folder / "IM" / "d.tif", np.full((96, 96), 7, np.uint16))
    (folder / "GT" / "e.tif").unlink()
    viewer, widget = opened(make_napari_viewer, qtbot, project)
    widget.open_folder(str(folder))
    qtbot.waitUntil(lambda: len(widget.rows()) == 8 and settled(widget), timeout=30_000)
    said = {r.name: cell(widget, i, PROBLEMS) for i, r in enumerate(widget.rows()) if r.problems}
    assert said == {"b": "sizes differ", "c": "cannot be read", "d": "constant", "e": "partner missing"}
    widget.table.selectRow(2)
    assert "cut short" in widget.detail.text()
    assert "c.tif" in widget.detail.text()
    assert widget.foot.exclude.text() == "Exclude the 4 problems"
    widget.foot.exclude.click()
    assert [r.name for r in widget.rows() if r.used] == list("afgh")
    assert "4 of 8 pairs used, 144 objects" in widget.foot.summary.text()
    widget.table.selectRow(0)
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=30_000)
    np.testing.assert_array_equal(viewer.layers[1].data, squares())
    with qtbot.waitSignal(widget.dataset_saved, timeout=30_000):
        widget.save.click()
    (entry,) = list_datasets(project)
    assert (entry.name, entry.count) == ("stacks", 4)
    assert read_about(entry.path)["excluded"] == list("bcde")
    assert not (entry.path / "images").exists()
    assert list(load_dataset(entry.path)[1].values()).count("validation") == 1
    wait(qtbot, widget)


def test_a_table_with_parts_keeps_them(make_napari_viewer: Any, qtbot: Any, project: Any, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "t", "abc")
    lines = ["IM,GT,group,part", *(f"IM/{n}.tif,GT/{n}.tif,{g},{p}" for n, g, p in ("a1v", "b2t", "c2t"))]
    (folder / "table.csv").write_text("\n".join(lines).replace(",v", ",val").replace(",t", ",train"))
    _, widget = opened(make_napari_viewer, qtbot, project)
    widget.open_folder(str(folder / "table.csv"))
    qtbot.waitUntil(lambda: len(widget.rows()) == 3 and settled(widget), timeout=30_000)
    assert [r.part for r in widget.rows()] == ["validation", "train", "train"]
    assert widget.choices.validation.currentData() == "own"
    widget.table.pairs.setData(widget.table.pairs.index(1, PART), "test")
    assert [r.part for r in widget.rows()] == ["validation", "test", "test"]


def test_scenes_of_a_file_are_rows_of_one_group(
    make_napari_viewer: Any, qtbot: Any, project: Any, tmp_path: Path
) -> None:
    import tifffile

    folder = folder_of(tmp_path / "plates", "z")
    for role, pixels in (("IM", noise()), ("GT", squares().astype(np.uint16))):
        with tifffile.TiffWriter(folder / role / "a.ome.tif", ome=True) as file:
            for name, turned in (("left", pixels), ("right", pixels[::-1])):
                file.write(turned, metadata={"axes": "YX", "Name": name}, photometric="minisblack")
    _, widget = opened(make_napari_viewer, qtbot, project)
    widget.open_folder(str(folder))
    qtbot.waitUntil(lambda: len(widget.rows()) == 3 and settled(widget), timeout=30_000)
    assert [(r.name, r.group) for r in widget.rows()] == [("a:left", "a"), ("a:right", "a"), ("z", "z")]
    assert all(r.used for r in widget.rows())
    widget.table_rows.set_part(0, "validation")
    assert [r.part for r in widget.rows()][:2] == ["validation", "validation"]
    widget.table.selectRow(1)
    widget.choices.corrections.voxel_size.setText("0.3, 0.3")
    widget.choices.corrections.voxel_size.editingFinished.emit()
    qtbot.waitUntil(lambda: len(widget.rows()) == 3 and settled(widget), timeout=30_000)
    sizes = [r.sample.source.info.voxel_size[2] for r in widget.rows()]
    assert sizes[1] == 0.3
    assert sizes[0] is None
    assert (widget.rows()[1].sample.source.read()[0, 0, 0] == noise()[::-1]).all()


def test_a_folder_is_remembered_as_it_was_left(
    make_napari_viewer: Any, qtbot: Any, project: Any, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "stacks", "abcd")
    viewer, widget = opened(make_napari_viewer, qtbot, project)
    widget.open_folder(str(folder))
    qtbot.waitUntil(lambda: len(widget.rows()) == 4 and settled(widget), timeout=30_000)
    widget.table_rows.use([0], False)
    widget.table_rows.set_part(1, "test")
    widget.table.selectAll()
    widget.table.joinWanted.emit((2, 3))
    widget.choices.corrections.voxel_size.setText("0.3, 0.3")
    widget.choices.corrections.voxel_size.editingFinished.emit()
    qtbot.waitUntil(lambda: len(widget.rows()) == 4 and settled(widget), timeout=30_000)
    left = [(r.name, r.used, r.part, r.group) for r in widget.rows()]
    assert left[0][1:3] == (False, left[0][2])
    assert left[1][2] == "test"
    assert left[2][3] == left[3][3]
    widget.name.setText("mine")
    widget.collecting.remember_soon()
    widget.show()
    widget.hide()
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    second = DatasetWidget(viewer, project)
    qtbot.addWidget(second)
    qtbot.waitUntil(lambda: len(second.rows()) == 4 and settled(second), timeout=30_000)
    assert [(r.name, r.used, r.part, r.group) for r in second.rows()] == left
    assert second.name.text() == "mine"
    assert second.choices.corrections.value().voxel_size == (None, 0.3, 0.3)
    assert second.source.path.text() == str(folder)


def test_a_folder_that_is_none_is_said_in_words(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    _, widget = opened(make_napari_viewer, qtbot, project)
    widget.open_folder("/does/not/exist")
    wait(qtbot, widget)
    assert "does not exist" in widget.messages.messages()[0].text
    assert not widget.save.isEnabled()
    assert "No pairs yet" in widget.foot.summary.text()


# ---- what goes wrong -----------------------------------------------------------


def test_fault_05_24_errors_reach_the_user_and_the_button_comes_back(
    make_napari_viewer: Any, qtbot: Any, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, widget = opened(make_napari_viewer, qtbot, project, Image(noise(), name="a"), Labels(squares(), name="l"))

    def raises(error: BaseException) -> None:
        def save(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(datasets, "save_dataset", save)
        widget.save.click()
        assert not widget.save.isEnabled()
        wait(qtbot, widget)
        assert widget.save.isEnabled()

    raises(ResourceError("The disk is full", "Free 3 MB"))
    assert [(m.text, m.cure) for m in widget.messages.messages() if m.level == "error"] == [
        ("The disk is full", "Free 3 MB")
    ]
    with qtbot.captureExceptions() as caught:
        raises(RuntimeError("a mistake of ours"))
    assert [str(error) for _, error, _ in caught] == ["a mistake of ours"]


def test_fault_25_cancel_stops_at_once(
    make_napari_viewer: Any, qtbot: Any, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, widget = opened(make_napari_viewer, qtbot, project, Image(noise(), name="a"), Labels(squares(), name="l"))
    ended: list[bool] = []

    def endless(tell: Any, stop: Any) -> None:
        while not stop():
            time.sleep(0.01)
        ended.append(True)

    widget._begin("review", endless)
    assert widget.foot.cancel.isVisibleTo(widget)
    widget.foot.cancel.click()
    assert not widget.work.name
    assert not widget.foot.cancel.isVisibleTo(widget)
    qtbot.waitUntil(lambda: bool(ended), timeout=30_000)


def test_fault_23_closing_while_it_works_leaves_nothing(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    viewer, widget = opened(make_napari_viewer, qtbot, project, Image(noise(), name="a"), Labels(squares(), name="l"))
    ended: list[bool] = []

    def endless(tell: Any, stop: Any) -> None:
        while not stop():
            time.sleep(0.01)
        ended.append(True)

    with qtbot.captureExceptions() as caught:
        widget._begin("review", endless)
        viewer.window.remove_dock_widget(widget)
        widget.deleteLater()
        qtbot.waitUntil(lambda: bool(ended), timeout=30_000)
        viewer.add_image(noise(3))
        qtbot.wait(300)
    assert caught == []


# ---- parts and problems without a viewer ---------------------------------------


def test_parts_keep_groups_together() -> None:
    rows = [row("a", "1"), row("b", "1"), row("c"), row("d"), row("e")]
    drawn = draw_parts(rows, "images")
    assert {r.part for r in drawn} == {"train", "validation"}
    assert drawn[0].part == drawn[1].part
    assert [r.part for r in draw_parts(rows[:2], "images")] == ["strip", "strip"]
    assert [r.part for r in draw_parts(rows, "none")] == ["train"] * 5
    assert [r.part for r in set_part(rows, [1], "test")] == ["test", "test", "train", "train", "train"]
    assert summary(rows[:3]) == "3 pairs: 3 train, nothing validates"


def test_rows_of_one_specimen_are_one_group() -> None:
    rows = [row("a"), row("b", part="validation"), row("c"), row("d", "c")]
    joined = join_rows(rows, [1, 2])
    assert [r.group for r in joined] == ["a", "b", "b", "b"]
    assert [r.part for r in joined] == ["train", "validation", "validation", "validation"]
    assert [r.group for r in separate_rows(joined, [1, 2, 3])] == ["a", "b", "c", "d"]
    assert [r.group for r in separate_rows(joined, [1])] == ["a", "b (2)", "b", "b"]


def test_groups_are_edited_where_they_are_seen(qtbot: Any) -> None:
    table = PairTable()
    qtbot.addWidget(table)
    table.pairs.set_rows([row("a"), row("b"), row("c", "b")])
    assert str(table.pairs.index(1, NAME).data()).endswith("same specimen as c")
    assert "no voxel size" in str(table.pairs.index(0, NAME).data())
    table.selectRow(0)
    same, separate, *_ = table.menu().actions()
    assert (same.text(), separate.text()) == ("Same specimen", "Separate")
    assert not same.isEnabled()
    table.selectAll()
    with qtbot.waitSignal(table.joinWanted) as wish:
        table.menu().actions()[0].trigger()
    assert wish.args == [(0, 1, 2)]
    with qtbot.waitSignal(table.separateWanted):
        table.menu().actions()[1].trigger()
    table.thumbnails.stop()


def test_pictures_are_made_anew_while_the_old_ones_are_shown(qtbot: Any) -> None:
    thumbnails = Thumbnails()
    sample = row("a").sample
    assert sample is not None
    assert thumbnails.get("a", sample, labels=True) is None
    qtbot.waitUntil(lambda: thumbnails.get("a", sample, labels=True) is not None, timeout=30_000)
    old = thumbnails.get("a", sample, labels=True)
    thumbnails.renew()
    with qtbot.waitSignal(thumbnails.made, timeout=30_000):
        assert thumbnails.get("a", sample, labels=True) is old
    assert thumbnails.get("a", sample, labels=True) is not old
    thumbnails.stop()


def test_copies_are_joined_into_one_group() -> None:
    from im2im_core.review import examine
    from napari_im2im._dataset_rows import overlaps

    rows = [row("a", seed=1), row("b", part="validation", seed=1), row("c", seed=2)]
    found = examine([r.sample for r in rows if r.sample], "instance_segmentation")
    rows = with_review(rows, Reviewed({f.sample: f for f in found.facts}, found.problems))
    assert len(overlaps(rows)) == 1
    joined = join_copies(rows)
    assert [r.group for r in joined] == ["a", "a", "c"]
    assert [r.part for r in joined] == ["train", "train", "train"]
    assert overlaps(joined) == ()


# ---- table ---------------------------------------------------------------------


def test_400_rows_ask_only_for_the_pictures_in_sight(qtbot: Any) -> None:
    table = PairTable()
    qtbot.addWidget(table)
    table.resize(480, 400)
    begin = time.process_time()
    table.pairs.set_rows([row(f"image {i}", seed=0) for i in range(400)])
    table.show()
    qtbot.waitExposed(table)
    qtbot.waitUntil(lambda: len(table.thumbnails._pixmaps) > 3, timeout=30_000)
    assert len(table.thumbnails._asked) < 40
    table.scrollToBottom()
    qtbot.wait(200)
    assert len(table.thumbnails._asked) < 80
    assert time.process_time() - begin < 10
    table.thumbnails.stop()


def test_use_and_part_are_wishes(qtbot: Any) -> None:
    from qtpy.QtCore import Qt

    table = PairTable()
    qtbot.addWidget(table)
    table.pairs.set_rows([row("a"), PairRow("gone", None, used=False)])
    with qtbot.waitSignal(table.pairs.useChanged) as wish:
        index = table.pairs.index(0, USE)
        table.pairs.setData(index, Qt.CheckState.Unchecked.value, Qt.ItemDataRole.CheckStateRole)
    assert wish.args == [0, False]
    assert table.pairs.rows()[0].used
    assert not table.pairs.flags(table.pairs.index(1, USE)) & Qt.ItemFlag.ItemIsUserCheckable
    editor = table.itemDelegateForColumn(PART).createEditor(table, None, table.pairs.index(0, PART))
    assert [editor.itemText(i) for i in range(editor.count())] == ["train", "validate", "test", "train + strip"]
    table.thumbnails.stop()


def test_pictures_show_what_is_there() -> None:
    ramp = greys(np.linspace(0, 1, 1000).reshape(10, 100))
    assert ramp.min() == 0
    assert ramp.max() == 255
    shown = colours(np.array([[0, 1], [2, 2]]))
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert (shown[0, 1] != shown[1, 0]).any()
    assert (shown[1, 0] == shown[1, 1]).all()
    picture = pair_picture(row("a").sample, labels=True)  # type: ignore[arg-type]
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


# ---- layers without a viewer ---------------------------------------------------


def test_layers_are_paired_by_size_and_name() -> None:
    images = [Image(noise(), name=n) for n in ("cell_07", "cell_08", "other")] + [Image(noise(0, (64, 64)), name="big")]
    labels = [Labels(squares(), name="cell_08 masks"), Labels(squares(), name="cell_07 labels")]
    found = pair_layers(images, labels)
    assert [(p.name, p.target.name) for p in found] == [("cell_08", "cell_08 masks"), ("cell_07", "cell_07 labels")]
    light = [Image(noise(), name="fluorescence"), Image(noise(), name="transmitted light")]
    assert [(p.name, p.target.name) for p in pair_layers(light, [])] == [("transmitted light", "fluorescence")]
    assert pair_layers([images[3]], labels) == []


def test_50_layers_are_paired_quickly() -> None:
    images = [Image(noise(), name=f"field {i}") for i in range(25)]
    labels = [Labels(squares(), name=f"field {i} labels") for i in range(25)]
    begin = time.process_time()
    found = pair_layers(images, labels)
    assert time.process_time() - begin < 1
    assert all(p.target.name == f"{p.name} labels" for p in found)
    assert len(found) == 25


def test_regions_are_found_in_pixels_of_the_labels() -> None:
    labels = Labels(np.zeros((4, 20, 20), int), scale=(2, 0.5, 0.5), translate=(0, 1, 1))
    box = np.array([[6.0, 2, 2], [6, 2, 4], [6, 4, 4], [6, 4, 2]])
    other = Shapes([box], metadata={COMPLETE: True, LABELS_OF: "another"}, ndim=3)
    shapes = Shapes([box], shape_type="rectangle", metadata={COMPLETE: True}, ndim=3)
    (found,) = polygons_of([shapes, other], labels)
    np.testing.assert_allclose(found, [[3, 2, 2], [3, 2, 6], [3, 6, 6], [3, 6, 2]])
    flat = Shapes([box[:, 1:]], shape_type="ellipse", metadata={COMPLETE: True})
    (found,) = polygons_of([flat], labels)
    assert found.shape == (64, 2)
    np.testing.assert_allclose(np.hypot(*(found - [4, 4]).T), 2)


# ---- corrections ---------------------------------------------------------------


def test_corrections_are_read_as_a_person_writes_them(qtbot: Any) -> None:
    assert parse_channels(" 0, GFP ") == (0, "GFP")
    assert parse_channels("") is None
    assert parse_voxel_size("0.5, 0.2, 0.2") == parse_voxel_size("0.5 × 0.2 × 0.2 µm") == (0.5, 0.2, 0.2)
    assert parse_voxel_size("0.2") == (None, 0.2, 0.2)
    for wrong in ("a", "0", "-1", "1,2,3,4", "1,2,nan"):
        with pytest.raises(DataError, match="voxel size"):
            parse_voxel_size(wrong)
    editor = CorrectionsEditor()
    qtbot.addWidget(editor)
    editor.voxel_size.setText("wide")
    editor.voxel_size.editingFinished.emit()
    assert "is not a voxel size" in editor.problem.text()
    with qtbot.waitSignal(editor.valueChanged):
        editor.voxel_size.setText("0.3")
        editor.voxel_size.editingFinished.emit()
    value = editor.value()
    editor.setValue(value)
    assert editor.value() == value


# ---- journal -------------------------------------------------------------------


@pytest.mark.timing
def test_fault_01_what_is_painted_is_on_disk_within_two_seconds_and_comes_back(
    make_napari_viewer: Any, qtbot: Any, project: Any
) -> None:
    labels = Labels(np.zeros((300, 300), np.uint16), name="mine", metadata={"labelling": "sparse"}, **SCALE)
    viewer, widget = opened(make_napari_viewer, qtbot, project, Image(noise(0, (300, 300)), name="a"), labels)
    journal = Journal(project, labels.unique_id.hex)
    qtbot.wait(1200)
    assert not journal.exists
    labels.paint((10, 10), 3)
    qtbot.waitUntil(lambda: journal.exists and (journal.restore() == labels.data).all(), timeout=2000)
    labels.data[290, 290] = 70
    qtbot.waitUntil(lambda: bool((journal.restore() == labels.data).all()), timeout=3000)
    labels.data = np.roll(labels.data, 5)
    qtbot.waitUntil(lambda: bool((journal.restore() == labels.data).all()), timeout=2000)
    assert list_journals(project) == ()
    before = labels.data.copy()
    widget.journal.stop()
    assert [j.uuid for j in list_journals(project)] == [journal.uuid]
    viewer.layers.clear()
    second = DatasetWidget(viewer, project)
    qtbot.addWidget(second)
    wait(qtbot, second)
    qtbot.waitUntil(lambda: bool(second.messages.messages()), timeout=30_000)
    press(second, "“mine” (300 × 300) was painted")
    qtbot.waitUntil(lambda: "mine" in viewer.layers, timeout=30_000)
    restored = viewer.layers["mine"]
    np.testing.assert_array_equal(restored.data, before)
    np.testing.assert_allclose(restored.scale, labels.scale)
    assert restored.metadata["labelling"] == "sparse"
    qtbot.waitUntil(lambda: not journal.exists, timeout=30_000)
    moved = Journal(project, restored.unique_id.hex)
    np.testing.assert_array_equal(moved.restore(), before)
    wait(qtbot, second)
    second.journal.stop()


def test_fault_05_a_full_disk_is_said_while_painting(
    make_napari_viewer: Any, qtbot: Any, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = Labels(np.zeros((40, 40), np.uint8), name="mine")
    _, widget = opened(make_napari_viewer, qtbot, project, labels)

    def full(self: Any, *_: Any, **__: Any) -> int:
        raise ResourceError("Cannot write: No space left on device", "Free some space")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "note_base", full)
        labels.paint((5, 5), 1)
        qtbot.waitUntil(lambda: any("kept safe" in m.text for m in widget.messages.messages()), timeout=30_000)
    journal = Journal(project, labels.unique_id.hex)
    qtbot.waitUntil(lambda: journal.exists and bool((journal.restore() == labels.data).all()), timeout=30_000)


def test_what_was_painted_while_nobody_watched_is_a_change(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    labels = Labels(np.zeros((40, 40), np.uint8), name="mine")
    viewer, widget = opened(make_napari_viewer, qtbot, project, labels)
    journal = Journal(project, labels.unique_id.hex)
    labels.paint((5, 5), 1)
    qtbot.waitUntil(lambda: journal.exists, timeout=30_000)
    widget.journal.stop()
    labels.data[30, 30] = 9
    second = DatasetWidget(viewer, project)
    qtbot.addWidget(second)
    qtbot.waitUntil(lambda: bool((journal.restore() == labels.data).all()), timeout=30_000)
    wait(qtbot, second)
    second.journal.stop()


def test_one_watch_serves_all_panels_of_a_viewer(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    labels = Labels(np.zeros((40, 40), np.uint8), name="mine")
    viewer = make_napari_viewer()
    viewer.add_layer(labels)
    watch = watch_labels(viewer, project)
    assert watch_labels(viewer) is watch
    journal = Journal(project, labels.unique_id.hex)
    labels.paint((5, 5), 1)
    qtbot.waitUntil(lambda: journal.exists, timeout=30_000)
    widget = DatasetWidget(viewer, project)
    qtbot.addWidget(widget)
    assert widget.journal is watch
    wait(qtbot, widget)
    watch.stop()
    second = watch_labels(viewer, project)
    assert second is not watch
    second.stop()


def test_a_journal_is_discarded_only_when_asked_twice(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    journal = Journal(project, "painted-before")
    journal.note_base(np.eye(30, dtype=np.uint8), name="old")
    journal.write_changes(np.ones((30, 30), np.uint8))
    journal.release()
    viewer, widget = opened(make_napari_viewer, qtbot, project)
    said = widget.messages.messages
    qtbot.waitUntil(lambda: bool(said()), timeout=30_000)
    (offer,) = said()
    offer.findChildren(QPushButton)[1].click()
    assert journal.exists
    (sure,) = said()
    assert "gone for good" in sure.text
    restore = sure.findChildren(QPushButton)[1]
    sure.button.click()
    assert not journal.exists
    assert said() == ()
    restore.click()
    qtbot.waitUntil(lambda: any(m.level == "error" for m in said()), timeout=30_000)
    assert len(viewer.layers) == 0


def test_painting_into_a_file_is_said_not_to_be_kept(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    zarr = pytest.importorskip("zarr")
    labels = Labels(zarr.zeros((40, 40), dtype="u2"), name="in a file")
    viewer, widget = opened(make_napari_viewer, qtbot, project, labels)
    assert widget.messages.messages() == ()
    viewer.layers["in a file"].events.paint(value=[])
    assert ["cannot be kept safe" in m.text for m in widget.messages.messages()] == [True]
    viewer.layers["in a file"].events.paint(value=[])
    assert len(widget.messages.messages()) == 1


# ---- opening -------------------------------------------------------------------


def test_a_pair_of_layers_names_itself() -> None:
    one, two = Image(noise(), name="a"), Image(noise(), name="b")
    assert LayerPair((one, two), Labels(squares())).name == "a + b"
