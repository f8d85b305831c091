"""Curves: what is drawn, read, smoothed and exported, from events whose values are known."""

from __future__ import annotations

import csv
import errno
import math
import time

import numpy as np
import pytest
from qtpy.QtWidgets import QCheckBox, QFileDialog, QSlider, QToolButton

from im2im_core.events import Losses, Progress, Validated
from im2im_core.jobs.eventlog import Stamped
from napari_im2im._curves import COLOURS, CurvesWidget, RunSeries, smoothed, term_words
from napari_im2im._run_panel import RunPanel


def losses(steps, attempt=1, start=0, **terms):
    values = terms or {"total": lambda step: 1 / step, "dice_loss": lambda step: 0.5 / step}
    return [
        Stamped(start + i + 1, attempt, 0.0, Losses(s, s / 10, {k: f(s) for k, f in values.items()}, 1e-3))
        for i, s in enumerate(steps)
    ]


def validated(steps, attempt=1, start=1000, **values):
    values = values or {"total": 0.5, "dice_loss": 0.3, "ap50": 0.8}
    return [Stamped(start + i, attempt, 0.0, Validated(s, s / 10, values)) for i, s in enumerate(steps)]


@pytest.fixture
def curves(qtbot):
    widget = CurvesWidget()
    qtbot.addWidget(widget)
    widget.resize(420, 320)
    return widget


def drawn(widget):
    return {key: np.column_stack(curve.getOriginalDataset()) for key, curve in widget._curves.items()}


def scores_of(widget):
    return {key[2] for key, curve in widget._curves.items() if curve in widget._score.items}


# ---- numbers -------------------------------------------------------------------


def test_smoothing_is_the_moving_average_without_the_pull_of_the_start():
    values, weight = [4.0, 2.0, 6.0, 1.0], 0.5
    expected = [
        sum(0.5 ** (i - j) * values[j] for j in range(i + 1)) / sum(0.5 ** (i - j) for j in range(i + 1))
        for i in range(4)
    ]
    np.testing.assert_allclose(smoothed(values, weight), expected)
    np.testing.assert_array_equal(smoothed(values, 0.0), values)
    np.testing.assert_allclose(smoothed([3.0] * 9, 0.99), 3.0)


def test_smoothing_leaves_gaps():
    found = smoothed([1.0, math.nan, 1.0], 0.5)
    assert math.isnan(found[1])
    np.testing.assert_allclose(found[[0, 2]], 1.0)


def test_metrics_are_told_from_losses():
    series = RunSeries()
    series.extend(losses([10, 20]) + validated([20]) + [Stamped(5, 1, 0.0, Progress("training", 1, 2, 0.0))])
    assert series.losses() == ["total", "dice_loss"]
    assert series.scores() == ["ap50"]


def test_steps_that_were_done_again_are_drawn_once():
    series = RunSeries()
    series.extend(losses([10, 20, 30, 40], total=lambda step: 1.0))
    series.extend(losses([30, 40, 50], attempt=2, start=10, total=lambda step: 2.0))
    assert series.columns["train", "total"] == ([10, 20, 30, 40, 50], [1.0, 1.0, 2.0, 2.0, 2.0])


# ---- drawing -------------------------------------------------------------------


def test_the_sum_and_the_metrics_are_drawn_first(curves):
    curves.add("a", losses([10, 20]) + validated([20]))
    assert set(drawn(curves)) == {("a", "train", "total"), ("a", "validation", "total"), ("a", "validation", "ap50")}
    np.testing.assert_allclose(drawn(curves)["a", "train", "total"], [[10, 0.1], [20, 0.05]])


def test_terms_can_be_shown_and_hidden(curves):
    curves.add("a", losses([10, 20]) + validated([20]))
    curves._on_term("dice_loss", True)
    assert ("a", "train", "dice_loss") in drawn(curves)
    curves._on_term("total", False)
    assert ("a", "train", "total") not in drawn(curves)
    assert [a.text() for a in curves._terms.menu().actions()] == ["loss", "Dice loss", "AP"]


def test_a_validation_before_the_first_loss_is_sorted_later(curves):
    curves.add("a", validated([5], start=0, total=0.5, dice_loss=0.3, ap50=0.8, mine=0.7))
    assert scores_of(curves) == {"ap50"}
    assert set(drawn(curves)) == {("a", "validation", "total"), ("a", "validation", "ap50")}
    curves.add("a", losses([10], start=10))
    assert scores_of(curves) == {"ap50", "mine"}


def test_all_scores_of_a_run_stand_in_the_legend_as_they_stand_in_the_table(curves, qtbot):
    scores = ("ap50", "ap75", "average_precision", "f1@0.5", "panoptic_quality@0.5", "seg")
    curves.resize(430, 400)
    curves.show()
    curves.add("a", losses([10, 20]) + validated([10, 20], total=0.5, **dict.fromkeys(scores, 0.83)))
    qtbot.wait(50)
    legend, plot = curves._score.legend, curves._score.vb
    assert len(legend.items) == len(scores)
    assert plot.sceneBoundingRect().contains(legend.sceneBoundingRect())
    assert curves._score.getAxis("left").labelString().count("score") == 1
    assert "0.001" not in curves._score.getAxis("left").labelString() + curves._loss.getAxis("left").labelString()


def test_several_runs_have_colours_of_their_own_and_leave_no_trace(curves):
    curves.add("a", losses([10, 20]))
    curves.add("b", losses([10, 20]))
    assert [curves.colour("a"), curves.colour("b")] == list(COLOURS[:2])
    assert len(drawn(curves)) == 2
    curves.remove("a")
    assert set(drawn(curves)) == {("b", "train", "total")}
    curves.add("c", losses([10]))
    assert curves.colour("c") == COLOURS[0]
    curves.clear()
    assert drawn(curves) == {}
    assert curves.names() == []


def test_losses_that_are_no_numbers_are_gaps(curves):
    curves.add("a", losses([10, 20, 30], total=lambda step: math.nan if step == 20 else 1.0))
    curves.show()
    curves._log.setChecked(True)
    curves.fit()
    assert np.isnan(drawn(curves)["a", "train", "total"][1, 1])


def test_reading_names_run_step_and_values(curves):
    curves.add("a", losses([10, 20]) + validated([20]))
    assert curves.read(18.0) == "step 20: loss (training) 0.05, loss (validation) 0.5"
    assert curves.read(18.0, scores=True) == "step 20: AP 0.8"
    curves.add("b", losses([10, 20]))
    assert "a: loss (training) 0.1" in curves.read(9.0)
    assert CurvesWidget.read(curves, 1.0, scores=True).startswith("step 20")


def test_reading_is_the_same_on_a_logarithmic_axis(curves):
    curves.add("a", losses([10, 20]))
    curves._log.setChecked(True)
    assert curves.read(10.0) == "step 10: loss (training) 0.1"


def test_terms_have_words_and_tools_have_names(curves):
    assert term_words("cross_entropy", False) == "cross entropy"
    assert [term_words(n, True) for n in ("ap50", "class_2_dice", "psnr")] == ["AP", "class 2 Dice", "PSNR"]
    assert term_words("panoptic_quality@0.5", True) == "PQ at IoU 0.5"
    for tool in (*curves.findChildren(QToolButton), *curves.findChildren(QSlider), *curves.findChildren(QCheckBox)):
        assert tool.toolTip()
        assert tool.accessibleName()


@pytest.mark.timing
def test_ten_thousand_points_are_updated_quickly(curves, qtbot):
    curves.show()
    curves.add("a", losses(range(1, 10_001)) + validated(range(500, 10_001, 500), start=20_000))
    curves._smooth.setValue(60)
    times = []
    for number in range(5):
        start = time.process_time()
        curves.add("a", losses([10_001 + number], start=30_000 + number))
        times.append(time.process_time() - start)
    assert min(times) < 0.05


def legend(widget):
    return [label for _, label in widget._loss.legend.items]


def test_legends_follow_the_theme_and_lie_inside_of_their_plot(curves, qtbot):
    curves.show()
    names = ("20261121-195642_embryos of the third experiment", "20261121-195910_nuclei", "20261122-101010_nuclei")
    for name in names:
        curves.add(name, losses([10, 20]) + validated([20]))
    curves.setColours("#ebe7e6", "#3b3a39")
    assert all("#ff3b3a39" in label.item.toHtml() or "#3b3a39" in label.item.toHtml() for label in legend(curves))
    texts = [label.text for label in legend(curves)]
    assert texts[0] == "embryos of the th…: loss, training"
    assert texts[2] == "195910_nuclei: loss, training"
    qtbot.wait(20)
    plot = curves._loss.vb.sceneBoundingRect()
    for label in legend(curves):
        place = label.sceneBoundingRect()
        assert plot.left() <= place.left()
        assert place.right() <= plot.right()


# ---- export --------------------------------------------------------------------


def test_table_holds_every_value_unsmoothed(curves, tmp_path):
    curves.add("a", losses([10, 20]) + validated([20]))
    curves._smooth.setValue(90)
    curves.save_table(tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 7
    assert {"run": "a", "part": "train", "name": "total", "step": "20", "value": "0.05"} in rows


def test_picture_is_written(curves, tmp_path):
    from PIL import Image

    curves.show()
    curves.add("a", losses([10, 20]) + validated([20]))
    curves.save_picture(tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as image:
        assert image.width == 2 * curves._area.width()
        assert len(image.convert("RGB").getcolors(1 << 24)) > 5


def test_colours_follow_the_theme(curves):
    curves.setColours("#ebe7e6", "#1e1e21")
    assert curves._area.backgroundBrush().color().name() == "#ebe7e6"
    assert curves._loss.getAxis("left").textPen().color().name() == "#1e1e21"


@pytest.mark.parametrize(
    ("typed", "filters", "written"),
    [("t", "Table (*.csv)", "t.csv"), ("p", "Picture (*.png)", "p.png"), ("p.png", "Picture (*.png)", "p.png")],
)
def test_saving_tells_where_the_file_is(typed, filters, written, curves, qtbot, tmp_path, monkeypatch):
    curves.show()
    curves.add("a", losses([10, 20]))
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / typed), filters))
    with qtbot.waitSignal(curves.exported, timeout=20_000) as told:
        curves._on_save()
    assert told.args == [str(tmp_path / written)]
    assert [p.name for p in tmp_path.iterdir()] == [written]
    assert (tmp_path / written).stat().st_size > 20


def test_a_table_that_cannot_be_written_is_told_in_words_and_left_whole(curves, qtbot, tmp_path, monkeypatch):
    from im2im_core import files

    curves.add("a", losses([10, 20]))
    path = tmp_path / "t.csv"
    path.write_text("before")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), "Table (*.csv)"))
    monkeypatch.setattr(files, "sync", full_disk)
    with qtbot.waitSignal(curves.refused, timeout=20_000) as told:
        curves._on_save()
    assert told.args[0].message == f"Cannot write {path}: No space left on device"
    assert path.read_text() == "before"
    monkeypatch.undo()
    panel = RunPanel()
    qtbot.addWidget(panel)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path / "inside" / "t.csv"), ""))
    panel.curves._on_save()
    qtbot.waitUntil(lambda: bool(panel.messages.messages()), timeout=20_000)
    (message,) = panel.messages.messages()
    assert (message.level, message.cure) == ("error", "Check free space and permissions of the folder")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    panel.curves._on_save()
    qtbot.waitUntil(lambda: len(panel.messages.messages()) > 1, timeout=20_000)
    assert panel.messages.messages()[-1].text == f"The curves are in {path}"


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")
