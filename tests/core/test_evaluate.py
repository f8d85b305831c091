"""Evaluation: figures of known worlds, pooled sums, intervals, pairing of files, the kind of truth."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
import tifffile

from im2im_core import metrics
from im2im_core.alone import evaluate_alone
from im2im_core.errors import DataError, Stopped
from im2im_core.evaluation import Pair, evaluate_files, evaluate_many, evaluate_pair, guess_kind
from im2im_core.events import Message, Progress
from im2im_core.metrics import METRICS, THRESHOLDS, find_metric, psnr
from im2im_core.microscope import fluorescence


def _dots(*columns, width=12):
    """Row of 2x2 squares with numbers 1, 2 … that begin at `columns`."""
    labels = np.zeros((4, width), np.uint16)
    for number, x in enumerate(columns, start=1):
        labels[1:3, x : x + 2] = number
    return labels


@pytest.fixture
def good_and_bad():
    """One image with both objects found, one with one of four found."""
    return [
        Pair("good", _dots(1, 5), _dots(1, 5)),
        Pair("bad", _dots(0), _dots(0, 3, 6, 9)),
    ]


def test_labels_of_a_pair():
    values = evaluate_pair(_dots(1, 5), _dots(1, 8), "labels")
    assert values["average_precision@0.5"] == pytest.approx(1 / 3)
    assert values["average_precision"] == pytest.approx(1 / 3)
    assert (values["tp@0.9"], values["fp@0.9"], values["fn@0.9"]) == (1, 1, 1)
    assert values["seg"] == pytest.approx(0.5)


def test_thresholds_are_a_choice():
    shifted = np.roll(_dots(1, 5), 1, axis=1)  # IoU 1/3 each
    values = evaluate_pair(shifted, _dots(1, 5), "labels", thresholds=(0.3, 0.35))
    assert (values["f1@0.3"], values["f1@0.35"], values["average_precision"]) == (1, 0, 0.5)


def test_classes_and_images_of_a_pair():
    truth, pred = np.array([[1, 1, 2, 0]]), np.array([[1, 2, 2, 0]])
    values = evaluate_pair(pred, truth, "classes", weight=np.array([[1, 1, 1, 0]]))
    assert values["dice@1"] == values["dice@2"] == values["dice"] == pytest.approx(2 / 3)
    assert values["accuracy"] == pytest.approx(2 / 3)
    rng = np.random.default_rng(0)
    truth, pred = rng.random((2, 12, 12))
    values = evaluate_pair(pred, truth, "image", data_range=2.0)
    assert values["psnr"] == pytest.approx(psnr(pred, truth, 2.0))
    gained = values["psnr"] - evaluate_pair(pred, truth, "image")["psnr"]
    assert gained == pytest.approx(20 * math.log10(2 / np.ptp(truth)))


@pytest.mark.parametrize("kind", ["labels", "classes", "image"])
def test_every_figure_belongs_to_a_metric_of_its_kind(kind):
    labels = fluorescence((48, 48), seed=0).labels
    values = evaluate_pair(labels, labels, kind, spacing=(0.5, 0.5))
    assert {find_metric(n).kind for n in values} == {kind}
    compared = {n for n, m in METRICS.items() if m.kind == kind and not m.group.startswith("alone")}
    assert {n.partition("@")[0] for n in values} == compared


def test_names_of_figures_are_those_of_the_first_release():
    """Who reads the JSON finds what was there."""
    labels = fluorescence((48, 48), seed=0).labels
    by_threshold = "average_precision f1 precision recall panoptic_quality mean_matched_iou tp fp fn".split()
    expected = {
        "labels": {f"{n}@{t:g}" for n in by_threshold for t in THRESHOLDS}
        | {"average_precision", "seg", "adapted_rand_error", "variation_of_information"},
        "classes": {"dice", "iou", "accuracy"} | {f"{n}@{c}" for n in ("dice", "iou") for c in np.unique(labels) if c},
        "image": {"psnr", "scale_invariant_psnr", "pearson", "mean_absolute_error", "ssim"},
    }
    for kind, names in expected.items():
        assert names <= set(evaluate_pair(labels, labels, kind))
    content = evaluate_many([Pair("a", labels, labels)], "labels").to_dict()
    assert {"kind", "rows", "mean", "pooled", "interval", "notes"} <= set(content)


def test_resolution_is_told_in_micrometres_where_pixels_have_a_size():
    image = np.random.default_rng(0).random((32, 32))
    values = evaluate_pair(image, image, "image", spacing=(0.2, 0.1))
    assert (values["frc_resolution"], values["frc_resolution_um"]) == (2, 0.4)
    assert "frc_resolution_um" not in evaluate_pair(image, image, "image")


def test_an_image_without_classes_counts_as_right():
    nothing = np.zeros((4, 5), int)
    assert evaluate_pair(nothing, nothing, "classes") == {"dice": 1, "iou": 1, "accuracy": 1}


def test_mean_is_over_images_and_pooled_over_objects(good_and_bad):
    report = evaluate_many(good_and_bad, "labels")
    assert report.mean["recall@0.5"] == pytest.approx((1 + 1 / 4) / 2)
    assert report.pooled["recall@0.5"] == pytest.approx(3 / 6)
    assert report.pooled["tp@0.5"] == 3
    assert report.pooled["seg"] == pytest.approx(3 / 6)


def test_pooled_pixels_are_those_of_all_images_together():
    rng = np.random.default_rng(0)
    truth, pred = rng.integers(0, 3, (2, 8, 30))
    pairs = [Pair("a", pred[:, :10], truth[:, :10]), Pair("b", pred[:, 10:], truth[:, 10:])]
    for kind, names in (("classes", ("dice@1", "iou@2", "accuracy", "dice")), ("image", ("psnr", "pearson"))):
        whole = evaluate_pair(pred, truth, kind)
        report = evaluate_many(pairs, kind)
        for name in names:
            assert report.pooled[name] == pytest.approx(whole[name])


def test_a_class_that_an_image_lacks_does_not_count_for_it():
    report = evaluate_many([Pair("a", _dots(1, 5), _dots(1, 5)), Pair("b", _dots(1), _dots(1))], "classes")
    assert "dice@2" not in report.rows[1].values
    assert report.mean["dice@2"] == 1


def test_interval_holds_the_mean_and_narrows_with_more_images():
    def interval(number):
        rng = np.random.default_rng(1)
        truth = np.zeros((number, 12, 12))
        truth[:, 6:] = 1
        pairs = [Pair(str(i), t + rng.normal(0, rng.uniform(0.1, 0.5), t.shape), t) for i, t in enumerate(truth)]
        report = evaluate_many(pairs, "image")
        low, high = report.interval["psnr"]
        assert low < report.mean["psnr"] < high
        return low, high, report

    low, high, report = interval(40)
    values = [r.values["psnr"] for r in report.rows]
    assert high - low == pytest.approx(2 * 1.96 * np.std(values) / math.sqrt(40), rel=0.15)
    few = interval(6)
    assert few[1] - few[0] > high - low
    assert interval(6)[:2] == few[:2]


def test_interval_resamples_whole_files():
    values = [(1, 5), (5, 1)]
    pairs = [
        Pair(f"{g} t={t}", _dots(x), _dots(1), group=g)
        for g, xs in zip("ab", values, strict=True)
        for t, x in enumerate(xs)
    ]
    report = evaluate_many(pairs, "labels")
    # Each file is half right, so every resample of files has the same mean.
    assert report.interval["f1@0.5"] == (0.5, 0.5)
    assert evaluate_many(pairs[:2], "labels").interval == {}


def test_pooled_interval_is_that_of_pooled_resamples(good_and_bad):
    """Three images, drawn by hand in the same way."""
    pairs = [*good_and_bad, Pair("third", _dots(1, 6), _dots(1, 5))]
    report = evaluate_many(pairs, "labels", seed=4)
    draws = np.random.default_rng(4).integers(0, 3, (1000, 3))
    tp, fn = (np.array([r.values[f"{n}@0.5"] for r in report.rows])[draws].sum(1) for n in ("tp", "fn"))
    expected = np.percentile(tp / (tp + fn), (2.5, 97.5))
    assert report.pooled_interval["recall@0.5"] == pytest.approx(tuple(expected))
    assert set(report.pooled_interval) == set(report.pooled)
    assert report.images == 3
    assert evaluate_many(pairs, "labels", seed=4).pooled_interval == report.pooled_interval
    assert evaluate_many(pairs[:1], "labels").pooled_interval == {}


def test_pooled_rand_and_information_are_those_of_all_pixels():
    rng = np.random.default_rng(0)
    one, other = rng.integers(1, 4, (2, 2, 6, 6))
    pairs = [Pair("a", one[0], other[0]), Pair("b", one[1], other[1])]
    report = evaluate_many(pairs, "labels")
    # Pixels of different images never belong together: the same as one image in which no number occurs twice.
    table = metrics.contingency(one + np.array([0, 10])[:, None, None], other + np.array([0, 10])[:, None, None])
    assert report.pooled["adapted_rand_error"] == pytest.approx(metrics.pixel_pairs(table).error)
    assert report.pooled["variation_of_information_split"] == pytest.approx(metrics.information(table).split)
    assert report.pooled["merged"] == sum(r.values["merged"] for r in report.rows)


def test_a_class_that_some_images_lack_has_a_pooled_interval():
    pairs = [Pair("a", _dots(1, 5), _dots(1, 5)), Pair("b", _dots(1), _dots(1))]
    assert evaluate_many(pairs, "classes").pooled_interval["dice@2"] == (1, 1)


def test_interval_of_a_time_lapse_draws_whole_films():
    pairs = [Pair(f"{g}{t}", _dots(1), _dots(1 + (g == "b")), group=g) for g in "ab" for t in range(3)]
    report = evaluate_many(pairs, "labels")
    assert report.images == 2
    assert report.pooled_interval["tp@0.5"] == (0, 6)


def test_report_as_dictionary_csv_and_table(good_and_bad):
    report = evaluate_many(good_and_bad, "labels", notes=("Because",))
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert content["rows"][1]["values"]["recall@0.5"] == 0.25
    assert content["pooled_interval"]["recall@0.5"] == [0.25, 1]
    assert content["images"] == 2
    lines = {line["image"]: line for line in csv.DictReader(io.StringIO(report.to_csv()))}
    ends = [f"{row} {end}" for row in ("mean", "pooled") for end in ("2.5 %", "97.5 %")]
    assert list(lines) == ["good", "bad", "mean", "pooled", *ends, "n"]
    assert float(lines["pooled"]["recall@0.5"]) == 0.5
    assert float(lines["pooled 2.5 %"]["recall@0.5"]) == 0.25
    assert lines["n"]["recall@0.5"] == "2"
    table = report.table().splitlines()
    assert table[:2] == ["2 images, compared as labels", "Because"]
    (line,) = (t for t in table if t.startswith("recall@0.5"))
    assert line.split()[1:] == ["0.625", "0.25", "to", "1", "0.5", "0.25", "to", "1", "higher"]
    assert not any(t.startswith("recall@0.6") for t in table)
    assert any(t.startswith("average_precision@0.9") for t in table)
    assert any(t.startswith("missed") and t.endswith("objects  lower") for t in table)
    assert "n = 2 whole images" in table[-2]
    assert "too narrow" in table[-1]


def test_a_report_of_one_image_has_no_intervals(good_and_bad):
    report = evaluate_many(good_and_bad[:1], "labels")
    assert "resampling" not in report.table()
    assert "2.5 %" not in report.to_csv()


# ---- one image alone ----


def test_without_a_truth_the_resolution_is_told(tmp_path):
    rng = np.random.default_rng(0)
    film = rng.random((2, 32, 32)).astype(np.float32)
    settings = {"axes": "TYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "film.ome.tif", film, ome=True, photometric="minisblack", metadata=settings)
    events = []
    report = evaluate_alone(tmp_path, events.append)
    assert [r.name for r in report.rows] == ["film t=0", "film t=1"]
    assert {r.group for r in report.rows} == {"film"}
    expected = metrics.single_image_resolution(film[1])
    values = report.rows[1].values
    assert values == pytest.approx({"single_image_resolution": expected, "single_image_resolution_um": expected / 2})
    assert [e.done for e in events] == [1, 2]
    assert evaluate_alone(film[1]).mean == pytest.approx({"single_image_resolution": expected})
    with pytest.raises(DataError, match=r"array: .* too small"):
        evaluate_alone(film[0, :2])


def test_infinite_and_undefined_figures_stay_valid_json():
    same = np.arange(64.0).reshape(8, 8)
    report = evaluate_many([Pair("same", same, same), Pair("broken", same * np.nan, same)], "image")
    assert math.isnan(report.mean["ssim"])
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert content["rows"][0]["values"]["psnr"] is None


def test_progress_is_reported_and_stop_is_heard(good_and_bad):
    events = []
    evaluate_many(good_and_bad, "labels", events.append, total=2)
    assert [(e.done, e.total) for e in events if isinstance(e, Progress)] == [(1, 2), (2, 2)]
    with pytest.raises(Stopped, match="after 1 images"):
        evaluate_many(good_and_bad, "labels", events.append, lambda: len(events) > 2)


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(DataError, match="nothing to evaluate"):
        evaluate_many([], "labels")


def test_fault_13_a_pair_that_does_not_fit_is_named():
    with pytest.raises(DataError, match=r"second: The prediction has the shape \(4, 12\), the truth \(4, 13\)"):
        evaluate_many([Pair("first", _dots(1), _dots(1)), Pair("second", _dots(1), _dots(1, width=13))], "labels")


# ---- kinds ----


def test_kinds_are_told_apart():
    specimen = fluorescence((96, 96), seed=0)
    cases = {
        "labels": [(specimen.labels, specimen.labels)],
        "classes": [(specimen.classes, specimen.classes)],
        "image": [(specimen.clean, specimen.clean)],
    }
    for kind, pairs in cases.items():
        assert guess_kind(pairs)[0] == kind
    assert guess_kind([(specimen.image, specimen.image)])[0] == "image"
    assert guess_kind([(specimen.labels > 0, specimen.labels > 0)])[0] == "classes"


def test_few_objects_are_still_objects():
    assert guess_kind([(_dots(1, 5), _dots(1, 5))])[0] == "labels"
    assert guess_kind([(_dots(1), _dots(1)), (_dots(1, 5), _dots(1, 5))])[0] == "labels"


# ---- files ----


@pytest.fixture
def folders(tmp_path):
    def write(side, **images):
        (tmp_path / side).mkdir(exist_ok=True)
        for name, pixels in images.items():
            axes = {2: "YX", 3: "ZYX", 4: "TZYX"}[pixels.ndim]
            tifffile.imwrite(
                tmp_path / side / f"{name}.ome.tif", pixels, ome=True, photometric="minisblack", metadata={"axes": axes}
            )
        return tmp_path / side

    return write


def test_files_are_paired_by_name_whatever_the_ending(folders):
    wide = {"width": 40}
    predictions = folders("pred", a=_dots(1, 9, **wide), b=_dots(2, **wide))
    truths = folders("truth", a=_dots(1, 9, **wide), b=_dots(20, **wide))
    (truths / "a.ome.tif").rename(truths / "a.tif")
    (truths / "notes.txt").write_text("not an image")
    events = []
    report = evaluate_files(predictions, truths, on_event=events.append)
    assert [r.name for r in report.rows] == ["a", "b"]
    assert report.kind == "labels"
    assert "objects" in report.notes[0]
    assert report.mean["f1@0.5"] == 0.5
    assert [e.code for e in events if isinstance(e, Message)] == ["kind_guessed"]


def test_two_files_are_a_pair_whatever_their_names(folders):
    predictions, truths = folders("pred", mine=_dots(1)), folders("truth", yours=_dots(1))
    report = evaluate_files(predictions / "mine.ome.tif", truths / "yours.ome.tif", kind="classes")
    assert report.mean["dice"] == 1
    assert report.notes == ()


def test_time_points_are_images_of_their_own(folders):
    truth = np.zeros((3, 2, 16, 16), np.uint16)
    truth[:, :, 4:9, 4:9] = 1
    pred = truth.copy()
    pred[1] = 0
    report = evaluate_files(folders("pred", film=pred), folders("truth", film=truth), kind="labels")
    assert [r.name for r in report.rows] == ["film t=0", "film t=1", "film t=2"]
    assert {r.group for r in report.rows} == {"film"}
    assert report.mean["recall@0.5"] == pytest.approx(2 / 3)


def test_fault_12_missing_partners_are_named(folders):
    predictions = folders("pred", a=_dots(1), b=_dots(1))
    truths = folders("truth", b=_dots(1), c=_dots(1))
    with pytest.raises(DataError, match="a has no truth, c has no prediction"):
        evaluate_files(predictions, truths)


def test_doubled_names_and_absent_folders_are_named(folders, tmp_path):
    predictions, truths = folders("pred", a=_dots(1)), folders("truth", a=_dots(1))
    tifffile.imwrite(truths / "a.tif", _dots(1))
    with pytest.raises(DataError, match="same name but for the ending"):
        evaluate_files(predictions, truths)
    with pytest.raises(DataError, match="nowhere does not exist"):
        evaluate_files(tmp_path / "nowhere", truths)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="hold no images"):
        evaluate_files(tmp_path / "empty", tmp_path / "empty")


def test_fault_13_files_of_other_shapes_are_named(folders):
    predictions, truths = folders("pred", a=_dots(1)), folders("truth", a=_dots(1, width=13))
    with pytest.raises(DataError, match=r"a\.ome\.tif has the shape \(1, 1, 1, 4, 12\)"):
        evaluate_files(predictions, truths, kind="labels")
