"""The Evaluate panel on real viewers: figures, mistakes that move the viewer, what is taken away."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from looks import crowded, nameless

from im2im_core.errors import DataError
from im2im_core.evaluation import evaluate_pair
from im2im_core.events import Progress
from napari_im2im._evaluate_widget import EvaluateWidget, figure_rows
from napari_im2im._evaluate_words import progress_words
from napari_im2im._evaluate_work import ERROR_KINDS, compare
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
def panel(make_napari_viewer: Any) -> Any:
    """Viewer with image, truth and prediction, and the open panel."""
    viewer = make_napari_viewer(show=True)
    viewer.add_image(np.zeros((64, 64)), name="image")
    viewer.add_labels(truth_labels(), name="truth", scale=(2, 2))
    viewer.add_labels(prediction_labels(), name="image · model", scale=(2, 2), metadata={"im2im": {}})
    widget = EvaluateWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Evaluate")
    return viewer, widget


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
    assert "compared as objects" in widget.said.text().lower()


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
    assert head == ["Figure", "Mean", "95 % interval", "All together", *images]
    assert " to " in rows[0][2]
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
    report = compare(left, right, "labels", "sparse").report
    assert report.mean["f1@0.5"] == 1.0
    assert compare(left, right, "labels", "dense").report.mean["f1@0.5"] < 0.5


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
    import time

    from im2im_core.errors import Stopped

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
    began = {"labelling": "sparse", "image": "image"}
    viewer.add_labels(labels + 1, name="image · corrections", metadata=began)
    widget = EvaluateWidget(viewer)
    qtbot.addWidget(widget)
    assert widget.prediction.currentText() == "image · model"
    assert widget.truth.currentText() == "mine"
    viewer.layers.remove("mine")
    assert widget.truth.currentText() == ""
    assert not widget.button.isEnabled()


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


def test_comparison_is_copied_in_three_ways(panel: Any, qtbot: Any, tmp_path: Path) -> None:
    from napari.layers._source import Source

    viewer, widget = panel
    texts = widget._texts()
    assert texts["command"].startswith("# “image · model” is open in napari and not a file")
    assert "im2im evaluate PREDICTION.tif TRUTH.tif" in texts["command"]
    assert "methods" not in texts
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
        "Copy as command", "Copy as Python", "Copy as methods paragraph",
    ]  # fmt: skip


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
