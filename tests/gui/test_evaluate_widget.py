"""The Evaluate panel on real viewers: figures, mistakes that move the viewer, what is taken away."""

from __future__ import annotations

import csv
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from looks import crowded, nameless

from im2im_core.errors import DataError, Stopped
from im2im_core.evaluation import evaluate_pair
from im2im_core.events import Progress
from im2im_core.metrics import find_metric, title_of
from napari_im2im._dataset_teach import add_correction, correction_of
from napari_im2im._evaluate_layers import COLOURS, known_of
from napari_im2im._evaluate_widget import FIGURES, EvaluateWidget, figure_rows, shown_figures
from napari_im2im._evaluate_words import mistakes_words, progress_words
from napari_im2im._evaluate_work import ERROR_KINDS, PIXEL_KINDS, Known, compare
from napari_im2im._layers import OURS, RESULT, take_snapshot

PATIENCE = 60000


def truth_labels() -> np.ndarray:
    """Six squares of 8 pixels in a plane of 64 x 64; columns 4, 24, 44 and rows 4, 34."""
    labels = np.zeros((64, 64), np.uint32)
    for number, (y, x) in enumerate(((y, x) for y in (4, 34) for x in (4, 24, 44)), start=1):
        labels[y : y + 8, x : x + 8] = number
    return labels


def prediction_labels() -> np.ndarray:
    """1 missed, 2 and 3 merged, 4 split, 5 and 6 found, one extra at (54, 4)."""
    truth = truth_labels()
    labels = np.where(truth == 5, 50, 0) + np.where(truth == 6, 60, 0)
    labels[4:12, 24:52] = 23
    labels[34:42, 4:8], labels[34:42, 8:12] = 41, 42
    labels[54:60, 4:10] = 70
    return labels.astype(np.uint32)


@pytest.fixture
def panel(make_napari_viewer: Any, project: Any) -> Any:
    """Viewer with image, truth and prediction, and the open panel."""
    viewer = make_napari_viewer(show=True)
    viewer.add_image(np.zeros((64, 64)), name="image")
    viewer.add_labels(truth_labels(), name="truth", scale=(2, 2))
    viewer.add_labels(prediction_labels(), name="image · model", scale=(2, 2), metadata={"im2im": {}})
    widget = EvaluateWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Evaluate")
    return viewer, widget


def corrections(viewer: Any, image: Any, prediction: Any) -> Any:
    """The layer that “Teach it” makes of a prediction."""
    correction = correction_of(viewer, image, prediction)
    return add_correction(viewer, correction, correction.labels()[0])


def draw_complete(viewer: Any, labels: Any, top: int, left: int, bottom: int, right: int) -> Any:
    """A rectangle in which all of `labels` is right."""
    corners = [[top, left], [top, right], [bottom, right], [bottom, left]]
    marks = {"complete_regions": True, "complete_regions_of": labels.unique_id.hex}
    return viewer.add_shapes([corners], metadata=marks, name="complete", scale=labels.scale)


def done(widget: EvaluateWidget) -> bool:
    return widget.button.text() == "Compare" and widget._comparison is not None


def test_layers_are_guessed_and_figures_are_those_of_the_core(panel: Any, qtbot: Any) -> None:
    _, widget = panel
    assert widget.prediction.currentText() == "image · model"
    assert widget.truth.currentText() == "truth"
    widget.button.click()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    head, rows = figure_rows(widget._comparison.report)
    expected = evaluate_pair(prediction_labels(), truth_labels(), "labels")
    assert head == ["Figure", "image · model"]
    assert rows[0] == ["AP at IoU 0.5", f"{expected['average_precision@0.5']:.3f}"]
    assert widget.figures.item(0, 1).text() == rows[0][1]
    counted = {words: int(cell) for words, cell in rows if words in ("Missed", "Extra", "Merged", "Split")}
    assert counted == {"Missed": 1, "Extra": 1, "Merged": 1, "Split": 1}
    assert "compared as objects" in widget.said.text().lower()


@pytest.mark.parametrize("kind", FIGURES)
def test_every_row_says_what_it_is_and_which_way_is_better(panel: Any, qtbot: Any, kind: str) -> None:
    viewer, widget = panel
    for name in ("image · model", "truth"):  # a size of a pixel, for the resolution in micrometres
        viewer.layers[name].units = ("um", "um")
    widget.kind.setCurrentIndex(widget.kind.findData(kind))
    widget.button.click()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    assert shown_figures(widget._comparison.report) == list(FIGURES[kind])
    for row, name in enumerate(FIGURES[kind]):
        assert widget.figures.item(row, 0).text() == title_of(name)
        assert widget.figures.item(row, 0).toolTip() == find_metric(name).explanation


def test_mistakes_are_listed_coloured_and_shown(panel: Any, qtbot: Any) -> None:
    viewer, widget = panel
    widget.button.click()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    found = {(m.kind, m.number) for m in widget._comparison.mistakes}
    assert found == {("merged", 2), ("split", 4), ("missed", 1), ("extra", 70)}
    overlay = viewer.layers["mistakes"]
    assert tuple(overlay.scale) == (2, 2)
    assert overlay.data[4, 4] == ERROR_KINDS.index("missed") + 1
    assert overlay.data[5, 40] == ERROR_KINDS.index("merged") + 1
    assert overlay.data[34, 5] == ERROR_KINDS.index("split") + 1
    assert overlay.data[55, 5] == ERROR_KINDS.index("extra") + 1
    assert overlay.data[36, 26] == 0
    row = next(i for i, m in enumerate(widget._comparison.mistakes) if m.kind == "missed")
    camera = getattr(viewer, "scene", viewer).camera
    camera.zoom = 0.5
    widget.mistakes.selectRow(row)
    np.testing.assert_allclose(camera.center[-2:], (7.5 * 2, 7.5 * 2))
    assert camera.zoom == pytest.approx(400 / (6 * 8 * 2))
    widget.button.click()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    assert [layer.name for layer in viewer.layers].count("mistakes") == 1


def test_time_points_are_rows_with_mean_interval_and_pooled(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer()
    film = np.stack([truth_labels()] * 3)
    seen = film.copy()
    seen[1] = prediction_labels()
    viewer.add_labels(film, name="truth")
    viewer.add_labels(seen, name="film · model", metadata={"im2im": {}, "axes": "TYX"})
    widget = EvaluateWidget(viewer)
    qtbot.addWidget(widget)
    widget.button.click()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    head, rows = figure_rows(widget._comparison.report)
    images = ["film · model t=0", "film · model t=1", "film · model t=2"]
    intervals = ["95 % interval (n = 3)", "95 % interval of all (n = 3)"]
    assert head == ["Figure", "Mean", intervals[0], "All together", intervals[1], *images]
    report = widget._comparison.report
    assert rows[0][2] == "{:.3f} to {:.3f}".format(*report.interval["average_precision@0.5"])
    assert rows[0][4] == "{:.3f} to {:.3f}".format(*report.pooled_interval["average_precision@0.5"])
    assert "n = 3 whole images" in widget.figures.horizontalHeaderItem(4).toolTip()
    assert {m.position[0] for m in widget._comparison.mistakes} == {1.0}
    widget.mistakes.selectRow(0)
    assert viewer.dims.current_step[0] == 1
    assert viewer.layers["mistakes"].data.shape == (3, 64, 64)


def test_unknown_dimensions_are_asked(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer()
    for name in ("a", "b"):
        viewer.add_labels(np.stack([truth_labels()] * 2), name=name)
    widget = EvaluateWidget(viewer)
    qtbot.addWidget(widget)
    widget.button.click()
    assert "can be several things" in widget.messages.messages()[0].text
    widget.axes.setCurrentIndex(widget.axes.findData("ZYX"))
    widget.button.click()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    assert len(widget._comparison.report.rows) == 1


def test_sparse_truth_counts_only_what_is_known() -> None:
    from napari.layers import Labels

    truth = truth_labels()
    sparse = np.where(truth == 5, 6, 0).astype(np.uint32)
    sparse[30:46, 20:40] = np.where(truth[30:46, 20:40] == 5, 6, 1)
    layers = [Labels(prediction_labels(), name="p"), Labels(sparse, name="t")]
    left, right = (take_snapshot([layer]) for layer in layers)
    report = compare(left, right, "labels", Known("sparse")).report
    assert report.mean["f1@0.5"] == 1.0
    assert compare(left, right, "labels").report.mean["f1@0.5"] < 0.5


def test_different_sizes_say_so(panel: Any, qtbot: Any) -> None:
    viewer, widget = panel
    viewer.add_labels(np.zeros((10, 10), np.uint32), name="small")
    widget.truth.setCurrentIndex(widget.truth.findText("small"))
    widget.button.click()
    qtbot.waitUntil(lambda: bool(widget.messages.messages()), timeout=PATIENCE)
    assert "64 × 64" in widget.messages.messages()[0].text
    assert widget.button.isEnabled()
    with pytest.raises(DataError, match="10 × 10"):
        compare(*(take_snapshot([viewer.layers[n]]) for n in ("truth", "small")))


def test_images_and_classes(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer()
    truth = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    viewer.add_image(truth, name="truth")
    viewer.add_image(truth + 0.1, name="restored", metadata={"im2im": {}})
    widget = EvaluateWidget(viewer)
    qtbot.addWidget(widget)
    widget.truth.setCurrentIndex(widget.truth.findText("truth"))
    widget.button.click()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    head, rows = figure_rows(widget._comparison.report)
    assert head[1:] == ["restored"]
    assert float(dict(rows)["Mean absolute error"]) == pytest.approx(0.1, abs=1e-3)
    assert widget.mistakes.isHidden()
    assert "mistakes" not in viewer.layers


def test_each_kind_of_mistake_has_its_colour_and_name(panel: Any, qtbot: Any) -> None:
    viewer, widget = panel
    widget.button.click()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    layer = viewer.layers["mistakes"]
    places = {"missed": (4, 4), "merged": (5, 40), "split": (34, 5), "extra": (55, 5)}
    names = {kind: layer.get_status(at)["value"] for kind, at in places.items()}
    assert names == {kind: f"{ERROR_KINDS.index(kind) + 1}; mistake: {kind}" for kind in places}
    colours = {tuple(layer.get_color(int(layer.data[at]))) for at in places.values()}
    assert len(colours) == 4


def test_pixels_of_wrong_classes_are_shown_by_kind(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer()
    truth = np.zeros((32, 32), np.uint8)
    truth[:8], truth[8:16] = 1, 2
    seen = truth.copy()
    seen[0, :4], seen[20, :3], seen[10, :2] = 0, 1, 1
    viewer.add_labels(truth, name="truth", translate=(3, 4))
    viewer.add_labels(seen, name="seen", metadata={OURS: RESULT})
    widget = EvaluateWidget(viewer)
    qtbot.addWidget(widget)
    widget.kind.setCurrentIndex(widget.kind.findData("classes"))
    widget.button.click()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    layer = viewer.layers["mistakes"]
    assert [int((layer.data == i).sum()) for i in (1, 2, 3)] == [4, 3, 2]
    assert list(layer.features["mistake"]) == list(PIXEL_KINDS) == ["missed", "extra", "confused"]
    assert tuple(layer.translate) == (3, 4)
    assert "4 missed (background in the prediction), 3 extra" in widget.mistakes_text.text()
    seen[:] = truth
    widget.button.click()
    qtbot.waitUntil(lambda: widget.mistakes_text.text() == "No pixel went wrong.", timeout=PATIENCE)
    assert "mistakes" not in viewer.layers


def test_images_give_their_difference_as_a_layer(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer()
    truth = np.random.default_rng(0).integers(0, 200, (2, 32, 32)).astype(np.uint8)
    seen = truth.astype(np.int16)
    seen[1] -= 20
    viewer.add_image(truth, name="truth", metadata={"axes": "CYX"})
    viewer.add_image(seen, name="seen", metadata={OURS: RESULT, "axes": "CYX"})
    widget = EvaluateWidget(viewer)
    qtbot.addWidget(widget)
    widget.button.click()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    layer = viewer.layers["difference"]
    np.testing.assert_array_equal(layer.data, seen.astype(np.float32) - truth)
    assert tuple(layer.contrast_limits) == (-20, 20)
    assert (widget.prediction.currentText(), widget.truth.currentText()) == ("seen", "truth")


def test_a_difference_that_is_too_large_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari.layers import Image

    monkeypatch.setattr("napari_im2im._evaluate_work.MOST_SHOWN", 100)
    left, right = (take_snapshot([Image(np.full((32, 32), value, np.float32))]) for value in (0.0, 1.0))
    comparison = compare(left, right, "image")
    assert comparison.wrong is None
    assert "too large to be shown" in mistakes_words(comparison)


def test_table_is_copied_and_saved(panel: Any, qtbot: Any, tmp_path: Path) -> None:
    from qtpy.QtWidgets import QApplication

    _, widget = panel
    widget.button.click()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    widget.copy.click()
    lines = QApplication.clipboard().text().splitlines()
    assert lines[0].split("\t") == ["Figure", "image · model"]
    assert lines[1].startswith("AP at IoU 0.5\t")
    widget.save_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open() as file:
        names = [row[0] for row in csv.reader(file)]
    assert names == ["image", "image · model", "mean", "pooled"]
    widget.save_csv(tmp_path / "none" / "a.csv")
    assert widget.messages.messages()[-1].level == "error" or (tmp_path / "none" / "a.csv").exists()


def test_cancel_and_closed_dock(panel: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*args: Any, should_stop: Any = None, **kwargs: Any) -> None:
        while not should_stop():
            time.sleep(0.01)
        raise Stopped("asked")

    monkeypatch.setattr("napari_im2im._evaluate_widget.compare", slow)
    viewer, widget = panel
    widget.button.click()
    assert widget.button.text() == "Cancel"
    widget.button.click()
    qtbot.waitUntil(lambda: widget.button.text() == "Compare", timeout=PATIENCE)
    assert not widget.messages.messages()
    widget.button.click()
    stop = widget._stop
    with qtbot.captureExceptions() as exceptions:
        viewer.window.remove_dock_widget(widget)
        qtbot.waitUntil(stop.is_set, timeout=PATIENCE)
        viewer.add_labels(truth_labels())
        qtbot.wait(200)
    assert not exceptions


def test_ours_are_never_the_truth(make_napari_viewer: Any, qtbot: Any) -> None:
    """A result is judged against what the user made, not against previews, overlays or what it began as."""
    viewer = make_napari_viewer()
    labels = truth_labels()
    made = {OURS: RESULT, "im2im": {"image": "image", "kind": "labels"}}
    viewer.add_image(np.zeros((64, 64)), name="image")
    viewer.add_labels(labels, name="mine")
    viewer.add_labels(labels, name="image · model", metadata=made)
    chance = {OURS: RESULT, "im2im": {"image": "image", "kind": "probability"}}
    viewer.add_image(np.zeros((64, 64)), name="image · model · foreground", metadata=chance)
    viewer.add_labels(labels, name="target of run", metadata={OURS: "preview"})
    viewer.add_labels(labels, name="mistakes", metadata={OURS: "mistakes"})
    corrections(viewer, viewer.layers["image"], viewer.layers["image · model"])
    widget = EvaluateWidget(viewer)
    qtbot.addWidget(widget)
    assert widget.prediction.currentText() == "image · model"
    assert widget.truth.currentText() == "mine"
    viewer.layers.remove("mine")
    assert widget.truth.currentText() == ""
    assert not widget.button.isEnabled()


def test_corrections_count_only_inside_their_rectangle(panel: Any, qtbot: Any) -> None:
    """Elsewhere they are the prediction itself, which agrees with itself."""
    viewer, widget = panel
    viewer.layers.remove("truth")
    made = corrections(viewer, viewer.layers["image"], viewer.layers["image · model"])
    assert widget.truth.currentText() == ""
    widget.truth.setCurrentIndex(widget.truth.findText("image · corrections"))
    widget.button.click()
    qtbot.waitUntil(lambda: bool(widget.messages.messages()), timeout=PATIENCE)
    assert "began as a prediction" in widget.messages.messages()[0].text
    assert "draw a rectangle" in widget.messages.messages()[0].cure
    made.data[48:, :] = 1  # the extra object is none
    draw_complete(viewer, made, 48, 0, 63, 63)
    widget.kind.setCurrentIndex(widget.kind.findData("labels"))
    widget.button.click()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    assert widget._comparison.report.mean["fp@0.5"] == 1
    assert widget._comparison.report.mean["tp@0.5"] == 0
    assert [(m.kind, m.number) for m in widget._comparison.mistakes] == [("extra", 70)]
    assert "known for 25 % of the pixels" in widget.said.text()


def test_background_inside_a_complete_rectangle_is_known(panel: Any, qtbot: Any) -> None:
    viewer, widget = panel
    truth = viewer.layers["truth"]
    truth.data, truth.metadata = np.where(truth.data > 0, truth.data + 1, 0), {"labelling": "sparse"}
    widget.kind.setCurrentIndex(widget.kind.findData("labels"))
    widget.button.click()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    assert widget._comparison.report.mean["fp@0.5"] == 1  # half of 4; the object at (54, 4) is on unknown
    assert "extra" not in widget.mistakes_text.text()
    draw_complete(viewer, truth, 0, 0, 63, 63)
    widget.button.click()
    qtbot.waitUntil(
        lambda: widget.button.text() == "Compare" and "extra" in widget.mistakes_text.text(), timeout=PATIENCE
    )
    dense = evaluate_pair(prediction_labels(), truth_labels(), "labels")
    assert widget._comparison.report.mean == pytest.approx(dense, nan_ok=True)
    assert "# the truth is labelled in parts" in widget._texts()["command"]


def test_a_truth_of_which_nothing_is_known_is_refused(panel: Any, qtbot: Any) -> None:
    viewer, widget = panel
    truth = viewer.layers["truth"]
    truth.data, truth.metadata = np.zeros_like(truth.data), {"labelling": "sparse"}
    widget.button.click()
    qtbot.waitUntil(lambda: bool(widget.messages.messages()), timeout=PATIENCE)
    assert "Nothing is known of any pixel of “truth”" in widget.messages.messages()[0].text


def test_dense_labels_are_judged_everywhere_whatever_region_others_have(panel: Any) -> None:
    viewer, _ = panel
    truth, other = viewer.layers["truth"], viewer.layers["image · model"]
    shapes = draw_complete(viewer, other, 0, 0, 8, 8)
    assert not known_of(viewer, truth).partly
    shapes.metadata = {**shapes.metadata, "complete_regions_of": truth.unique_id.hex}
    assert len(known_of(viewer, truth).regions) == 1


def test_of_two_images_the_other_is_the_truth(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer()
    viewer.add_image(np.zeros((32, 32)), name="clean")
    viewer.add_image(np.zeros((16, 16)), name="small")
    viewer.add_image(np.zeros((32, 32)), name="noisy")
    restored = {OURS: RESULT, "im2im": {"image": "noisy", "kind": "image"}}
    viewer.add_image(np.zeros((32, 32)), name="noisy · model", metadata=restored)
    widget = EvaluateWidget(viewer)
    qtbot.addWidget(widget)
    assert (widget.prediction.currentText(), widget.truth.currentText()) == ("noisy · model", "clean")
    viewer.layers.remove("noisy · model")
    assert (widget.prediction.currentText(), widget.truth.currentText()) == ("noisy", "clean")


def test_progress_comes_with_the_time_left(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer(show=True)
    film = np.stack([truth_labels()] * 4)
    viewer.add_labels(film, name="truth", metadata={"axes": "TYX"})
    viewer.add_labels(film, name="prediction", metadata={"axes": "TYX"})
    widget = EvaluateWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Evaluate")
    said: list[str] = []
    take = widget._on_event
    widget._on_event = lambda event: (take(event), said.append(widget.bar.format()))
    widget.button.click()
    assert not widget.bar.isHidden()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    assert widget.bar.isHidden()
    assert any(text.startswith("evaluating, image 2 of 4") for text in said)
    assert any(text.startswith("looking for mistakes, image 1 of 4") for text in said)
    words = progress_words(Progress("evaluating", 1, 4, 2.0, 6.0))
    assert words == "evaluating, image 1 of 4, 6 s left"


def test_comparison_is_copied_in_four_ways(panel: Any, qtbot: Any, tmp_path: Path) -> None:
    from napari.layers._source import Source

    viewer, widget = panel
    texts = widget._texts()
    assert texts["command"].startswith("# “image · model” is open in napari and not a file")
    assert "im2im evaluate PREDICTION.tif TRUTH.tif" in texts["command"]
    assert "methods" not in texts
    assert list(yaml.safe_load(texts["yaml"])) == ["comparison"]
    for name, file in (("truth", "t.tif"), ("image · model", "p q.tif")):
        viewer.layers[name]._source = Source(path=str(tmp_path / file))
    widget.button.click()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    texts = widget._texts()
    assert texts["command"] == f"im2im evaluate '{tmp_path / 'p q.tif'}' {tmp_path / 't.tif'} --kind labels"
    compile(texts["python"], "copied", "exec")
    assert "kind='labels'" in texts["python"]
    assert "TP / (TP + FP + FN)" in texts["methods"]
    assert [action.text() for action in widget.share.menu().actions()] == [
        "Copy as command", "Copy as YAML", "Copy as Python", "Copy as methods paragraph",
    ]  # fmt: skip
    written = yaml.safe_load(texts["yaml"])
    assert written["comparison"]["truth"] == str(tmp_path / "t.tif")
    assert written["comparison"]["kind"] == "labels"
    expected = evaluate_pair(prediction_labels(), truth_labels(), "labels")
    assert written["mean"] == pytest.approx(expected, nan_ok=True)
    assert [row["name"] for row in written["rows"]] == ["image · model"]


def test_figures_are_copied_only_with_the_layers_and_the_kind_they_belong_to(panel: Any, qtbot: Any) -> None:
    viewer, widget = panel
    widget.button.click()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    assert "mean" in yaml.safe_load(widget._texts()["yaml"])
    widget.kind.setCurrentIndex(widget.kind.findData("classes"))
    assert list(yaml.safe_load(widget._texts()["yaml"])) == ["comparison"]
    assert "Dice" in widget._texts()["methods"]
    widget.kind.setCurrentIndex(widget.kind.findData("auto"))
    viewer.add_labels(truth_labels(), name="other")
    widget.truth.setCurrentIndex(widget.truth.findText("other"))
    assert list(yaml.safe_load(widget._texts()["yaml"])) == ["comparison"]
    widget.kind.setCurrentIndex(widget.kind.findData("labels"))
    viewer.add_labels(np.zeros((9, 9), np.uint8), name="small")
    widget.truth.setCurrentIndex(widget.truth.findText("small"))
    widget.button.click()  # fails: what is shown still belongs to the first truth
    qtbot.waitUntil(lambda: bool(widget.messages.messages()), timeout=PATIENCE)
    viewer.layers["small"].scale = (50, 50)
    widget.mistakes.selectRow(0)
    assert max(getattr(viewer, "scene", viewer).camera.center) < 2 * 64


def test_a_reopened_panel_shows_what_was_chosen(panel: Any, qtbot: Any, project: Any) -> None:
    viewer, widget = panel
    qtbot.waitUntil(lambda: widget.memory._recalled, timeout=PATIENCE)
    viewer.add_labels(truth_labels(), name="other")
    widget.truth.setCurrentIndex(widget.truth.findText("other"))
    widget.kind.setCurrentIndex(widget.kind.findData("labels"))
    viewer.window.remove_dock_widget(widget)
    remembered = Path(".im2im/evaluate_widget.json")
    qtbot.waitUntil(lambda: remembered.exists() and '"other"' in remembered.read_text(), timeout=PATIENCE)
    again = EvaluateWidget(viewer)
    viewer.window.add_dock_widget(again, name="Evaluate")
    qtbot.waitUntil(lambda: again.kind.currentData() == "labels", timeout=PATIENCE)
    assert again.prediction.currentText() == "image · model"
    assert again.truth.currentText() == "other"


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_panel_fits_a_small_screen(panel: Any, qtbot: Any, theme: str) -> None:
    viewer, widget = panel
    viewer.theme = theme
    window = viewer.window._qt_window
    window.resize(1366, 768)
    widget.button.click()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    widget.messages.add("Something " * 12, "warning", "with a cure " * 12)
    qtbot.wait(50)
    assert window.width() <= 1366
    assert window.height() <= 768
    assert widget.height() <= window.height()
    assert not crowded(widget)
    assert not nameless(widget)


@pytest.mark.timing
def test_fifty_layers_and_none(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer()
    widget = EvaluateWidget(viewer)
    qtbot.addWidget(widget)
    assert not widget.button.isEnabled()
    assert "Open two layers" in widget.button.toolTip()
    for number in range(50):
        viewer.add_labels(np.zeros((4, 4), np.uint8), name=str(number))
    assert widget.truth.count() == 50
    assert widget.button.isEnabled()
    begin = time.thread_time()
    second = EvaluateWidget(viewer)
    qtbot.addWidget(second)
    assert time.thread_time() - begin < 0.3
    begin = time.thread_time()
    viewer.layers["7"].name = "seven"
    second.kind.setCurrentIndex(1)
    assert time.thread_time() - begin < 0.3
    assert second.truth.findText("seven") >= 0


# ---- faults --------------------------------------------------------------------


class Held:
    """A comparison that waits until the test lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        monkeypatch.setattr("napari_im2im._evaluate_widget.compare", self)

    def __call__(self, *arguments: Any, should_stop: Any, **named: Any) -> Any:
        while not self.go.wait(0.01):
            if should_stop():
                raise Stopped("asked")
        return compare(*arguments, should_stop=should_stop, **named)


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, KeyboardInterrupt, SystemExit])
def test_fault_24_errors_are_shown_and_the_button_comes_back(
    panel: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error("it went wrong")

    monkeypatch.setattr("napari_im2im._evaluate_widget.compare", fails)
    _, widget = panel
    widget.button.click()
    qtbot.waitUntil(lambda: bool(widget.messages.messages()), timeout=PATIENCE)
    (message,) = widget.messages.messages()
    assert (message.level, "it went wrong" in message.text) == ("error", True)
    assert widget.button.text() == "Compare"
    assert widget.button.isEnabled()
    assert widget.bar.isHidden()
    monkeypatch.setattr("napari_im2im._evaluate_widget.compare", compare)
    widget.button.click()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    assert not widget.messages.messages()


def test_fault_22_layers_renamed_and_edited_meanwhile(panel: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    viewer, widget = panel
    widget.button.click()
    truth, prediction = viewer.layers["truth"], viewer.layers["image · model"]
    truth.name, prediction.name = "other", "another"
    truth.data[:], prediction.data[:] = 0, 0
    held.go.set()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    expected = evaluate_pair(prediction_labels(), truth_labels(), "labels")
    assert widget._comparison.report.mean == pytest.approx(expected, nan_ok=True)  # of the time of the click
    assert (widget.prediction.currentText(), widget.truth.currentText()) == ("another", "other")
    assert "mistakes" in viewer.layers


def test_fault_22_layers_deleted_meanwhile(panel: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    viewer, widget = panel
    widget.button.click()
    for name in ("truth", "image · model"):
        viewer.layers.remove(name)
    held.go.set()
    with qtbot.captureExceptions() as exceptions:
        qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
        widget.mistakes.selectRow(0)
    assert not exceptions
    assert widget.figures.rowCount() > 0
    assert "mistakes" not in viewer.layers
    assert not widget.button.isEnabled()


def test_fault_21_viewer_closed_meanwhile(panel: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Held(monkeypatch)
    viewer, widget = panel
    widget.button.click()
    stop = widget._stop
    with qtbot.captureExceptions() as exceptions:
        viewer.close()
        qtbot.waitUntil(stop.is_set, timeout=30_000)
        qtbot.wait(100)
    assert not exceptions


def test_a_theme_that_changes_while_the_panel_is_open_reaches_it(panel: Any, qtbot: Any) -> None:
    viewer, widget = panel
    widget.button.click()
    qtbot.waitUntil(lambda: done(widget), timeout=PATIENCE)
    seen = {}
    for theme in ("dark", "light", "dark"):
        viewer.theme = theme
        qtbot.wait(50)
        shown = widget.grab().toImage()
        back = shown.pixelColor(2, shown.height() - 3).lightness()
        assert seen.setdefault(theme, back) == back
        assert not crowded(widget)
    assert seen["light"] > seen["dark"] + 60
    swatch = widget.mistakes.item(0, 0).icon().pixmap(12, 12).toImage().pixelColor(6, 6).name()
    assert swatch == COLOURS[widget._comparison.mistakes[0].kind]
