"""Metrics against hand-counted worlds, brute force, scikit-image and closed forms."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
import skimage.metrics

from im2im_core import metrics
from im2im_core.errors import ConfigError, DataError

E = np.zeros((4, 4), np.uint8)


@pytest.fixture
def village():
    """Truth and prediction of six houses.

    truth  1 1 1 1 . . 2 2 . 3 3 . 4 4 4 4 . .
    pred   7 7 7 . . . 8 8 8 8 8 . 9 9 5 5 . 6
    1 is found (IoU 3/4), 2 and 3 are merged into 8, 4 is split into 9 and 5, 6 is extra.
    """
    truth = np.array([[1, 1, 1, 1, 0, 0, 2, 2, 0, 3, 3, 0, 4, 4, 4, 4, 0, 0]])
    pred = np.array([[7, 7, 7, 0, 0, 0, 8, 8, 8, 8, 8, 0, 9, 9, 5, 5, 0, 6]])
    return pred, truth


def _random_labels(seed, shape=(24, 30), number=9):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, number, (shape[0] // 6, shape[1] // 6))
    return np.kron(coarse, np.ones((6, 6), int))


def test_match_finds_the_pairs_of_the_village(village):
    matching = metrics.match(*village)
    table = {
        (int(matching.truth_ids[r]), int(matching.pred_ids[c])): i
        for r, c, i in zip(matching.rows, matching.columns, matching.iou, strict=True)
    }
    assert table == pytest.approx({(1, 7): 3 / 4, (2, 8): 2 / 5, (3, 8): 2 / 5, (4, 9): 1 / 2, (4, 5): 1 / 2})


@pytest.mark.parametrize(("iou", "tp"), [(0.3, 3), (0.5, 2), (0.51, 1), (0.75, 1), (0.76, 0)])
def test_counts_of_the_village(village, iou, tp):
    counts = metrics.counts(metrics.match(*village), iou)
    assert (counts.tp, counts.fp, counts.fn) == (tp, 5 - tp, 4 - tp)
    assert counts.average_precision == pytest.approx(tp / (9 - tp))


def test_figures_of_the_village(village):
    matching = metrics.match(*village)
    assert metrics.precision(matching) == pytest.approx(2 / 5)
    assert metrics.recall(matching) == pytest.approx(2 / 4)
    assert metrics.f1(matching) == pytest.approx(4 / 9)
    assert metrics.mean_matched_iou(matching) == pytest.approx((0.75 + 0.5) / 2)
    assert metrics.panoptic_quality(matching) == pytest.approx(1.25 / (2 + 3 / 2 + 2 / 2))
    # Of 4 no prediction covers more than half; 2 and 3 are covered whole.
    assert metrics.seg(matching) == pytest.approx((0.75 + 0.4 + 0.4 + 0) / 4)


def test_errors_of_the_village(village):
    found = {(e.kind, e.truth_ids, e.pred_ids): e for e in metrics.errors(*village)}
    assert set(found) == {("merged", (2, 3), (8,)), ("split", (4,), (5, 9)), ("extra", (), (6,))}
    assert found["extra", (), (6,)].position == (0.0, 17.0)
    assert found["split", (4,), (5, 9)].box == ((0, 1), (12, 16))


def test_errors_names_a_missed_object_in_3d():
    truth = np.zeros((3, 5, 6), np.uint32)
    truth[1:, 2:4, 3:6] = 70_000
    (error,) = metrics.errors(np.zeros_like(truth), truth)
    assert (error.kind, error.truth_ids) == ("missed", (70_000,))
    assert error.position == (1.5, 2.5, 4.0)
    assert error.box == ((1, 3), (2, 4), (3, 6))


def test_no_errors_in_a_perfect_prediction(village):
    assert metrics.errors(village[1], village[1]) == ()


@pytest.mark.parametrize("iou", [0.05, 0.1, 0.2, 0.35, 0.5, 0.7])
@pytest.mark.parametrize("seed", range(6))
def test_match_is_the_best_of_all_matches(seed, iou):
    pred, truth = _random_labels(seed, (12, 18), 5), np.roll(_random_labels(seed + 50, (12, 18), 5), 2, axis=1)
    matching = metrics.match(pred, truth)
    table = np.zeros((len(matching.truth_ids), max(len(matching.pred_ids), len(matching.truth_ids))))
    for t, p in itertools.product(matching.truth_ids, matching.pred_ids):
        a, b = truth == t, pred == p
        table[list(matching.truth_ids).index(t), list(matching.pred_ids).index(p)] = (a & b).sum() / (a | b).sum()
    best = max(
        (sum(v >= iou for v in values), sum(v for v in values if v >= iou))
        for order in itertools.permutations(range(table.shape[1]), len(table))
        for values in [[table[i, j] for i, j in enumerate(order)]]
    )
    counts = metrics.counts(matching, iou)
    assert (counts.tp, counts.iou) == (best[0], pytest.approx(best[1]))


def test_match_settles_a_tie_that_greed_would_lose():
    # 1 overlaps both predictions, 2 only the one that fits 1 best: two pairs are possible.
    truth = np.array([[1, 1, 1, 1, 1, 2, 2, 2]])
    pred = np.array([[4, 4, 3, 3, 3, 3, 3, 3]])
    matching = metrics.match(pred, truth)
    assert metrics.counts(matching, 0.3).tp == 2


@pytest.mark.parametrize("name", [n for n, m in metrics.METRICS.items() if m.kind in ("labels", "classes")])
def test_nothing_against_nothing_is_perfect_and_something_against_nothing_is_not(name):
    metric = metrics.METRICS[name]
    perfect = 1.0 if metric.higher_is_better else 0.0
    full = np.eye(4, dtype=int) * np.arange(1, 5)
    assert metric.function(E, E) == perfect
    assert metric.function(full, full) == pytest.approx(perfect)
    for pred, truth in ((full, E), (E, full)):
        worse = metric.function(pred, truth)
        assert worse < 1 if metric.higher_is_better else worse > 0


@pytest.mark.parametrize("name", metrics.METRICS)
def test_every_metric_is_a_float_and_ignores_what_is_unknown(name):
    metric = metrics.METRICS[name]
    pred, truth = _random_labels(1) + 0, np.roll(_random_labels(1), 1, axis=0)
    if metric.kind == "image":
        pred, truth = (a + np.random.default_rng(i).normal(size=a.shape) for i, a in enumerate((pred, truth)))
    weight = np.ones(truth.shape)
    weight[:, 18:] = 0
    spoiled = np.where(weight > 0, pred, 7)
    value = metric.function(pred, truth, weight)
    assert isinstance(value, float)
    assert math.isfinite(value)
    assert metric.function(spoiled, truth, weight) == value
    assert metric.function(spoiled, truth) != metric.function(pred, truth)
    if name != "ssim":  # whose windows end before the crop
        assert value == pytest.approx(metric.function(pred[:, :18], truth[:, :18]))


def test_objects_wholly_ignored_do_not_exist():
    truth, weight = np.array([[1, 1, 0, 2, 2]]), np.array([[1, 1, 1, 0, 0]])
    matching = metrics.match(np.array([[1, 1, 0, 0, 3]]), truth, weight)
    assert (matching.truth_ids.tolist(), matching.pred_ids.tolist()) == ([1], [1])


@pytest.mark.parametrize("seed", range(4))
def test_rand_error_and_information_are_those_of_skimage(seed):
    pred, truth = _random_labels(seed), np.roll(_random_labels(seed + 9), 2, axis=0)
    reference = skimage.metrics.adapted_rand_error(truth, pred)[0]
    assert metrics.adapted_rand_error(pred, truth) == pytest.approx(reference)
    reference = skimage.metrics.variation_of_information(truth, pred).sum()
    assert metrics.variation_of_information(pred, truth) == pytest.approx(reference)


def test_fault_13_shapes_are_named():
    with pytest.raises(DataError, match=r"prediction has the shape \(4, 4\), the truth \(4, 5\)"):
        metrics.match(E, np.zeros((4, 5), int))
    with pytest.raises(DataError, match="weight"):
        metrics.psnr(E, E, 1.0, np.ones(3))


@pytest.mark.parametrize("dtype", [np.uint32, np.int64, np.uint64, np.float64])
def test_fault_17_large_labels_do_not_wrap(dtype):
    truth = np.array([[0, 65535, 65536, 70000, 0, 4_000_000_000]]).astype(dtype)
    matching = metrics.match(truth, truth)
    assert matching.truth_ids.tolist() == [65535, 65536, 70000, 4_000_000_000]
    assert metrics.average_precision(matching, 1.0) == 1


@pytest.mark.parametrize(
    ("labels", "text"), [([[0, -1]], "negative label -1"), ([[0, 0.5]], "fractional"), ([[0, np.nan]], "fractional")]
)
def test_fault_17_negative_and_fractional_labels_are_refused(labels, text):
    with pytest.raises(DataError, match=text):
        metrics.match(np.array(labels), np.array([[0, 1]]))


def test_dice_and_iou_per_class_by_hand():
    truth, pred = np.array([[1, 1, 2, 2, 0, 0]]), np.array([[1, 2, 2, 2, 2, 0]])
    assert metrics.dice(pred, truth) == pytest.approx({1: 2 / 3, 2: 4 / 6})
    assert metrics.iou(pred, truth) == pytest.approx({1: 1 / 2, 2: 2 / 4})
    assert metrics.accuracy(pred, truth) == pytest.approx(4 / 6)
    assert metrics.dice(pred, truth, classes=(1, 5)) == pytest.approx({1: 2 / 3, 5: 1.0})


@pytest.fixture
def noisy():
    rng = np.random.default_rng(0)
    truth = rng.normal(100, 20, (40, 48))
    return truth + rng.normal(0, 5, truth.shape), truth


def test_psnr_and_ssim_are_those_of_skimage(noisy):
    pred, truth = noisy
    psnr = skimage.metrics.peak_signal_noise_ratio(truth, pred, data_range=150)
    assert metrics.psnr(pred, truth, 150) == pytest.approx(psnr)
    ssim = skimage.metrics.structural_similarity(truth, pred, data_range=150)
    assert metrics.ssim(pred, truth, 150) == pytest.approx(ssim)


def test_psnr_by_closed_form():
    assert metrics.psnr(np.full((4, 4), 1.0), np.zeros((4, 4)), 10.0) == pytest.approx(20.0)
    assert metrics.psnr(E, E, 1.0) == math.inf
    assert metrics.mean_absolute_error(np.full((4, 4), 1.0), np.zeros((4, 4)), 10.0) == pytest.approx(0.1)


def test_unsigned_pixels_do_not_wrap_when_subtracted():
    low, high = np.full((4, 4), 10, np.uint8), np.full((4, 4), 12, np.uint8)
    assert metrics.psnr(low, high, 2.0) == metrics.psnr(high, low, 2.0) == pytest.approx(0.0)


def test_scale_invariant_psnr_forgives_gain_and_offset_alone(noisy):
    pred, truth = noisy
    plain = metrics.scale_invariant_psnr(pred, truth, 150)
    assert metrics.scale_invariant_psnr(3 * pred + 40, truth, 150) == pytest.approx(plain)
    assert plain >= metrics.psnr(pred, truth, 150)
    gain, offset = np.polyfit(pred.ravel(), truth.ravel(), 1)
    assert plain == pytest.approx(metrics.psnr(gain * pred + offset, truth, 150))


def test_pearson_is_that_of_numpy_and_0_for_a_constant(noisy):
    pred, truth = noisy
    assert metrics.pearson(pred, truth) == pytest.approx(np.corrcoef(pred.ravel(), truth.ravel())[0, 1])
    assert metrics.pearson(np.full_like(truth, 0.1), truth) == 0


@pytest.mark.parametrize("depth", [1, 2, 6])
def test_ssim_of_a_shallow_stack_is_the_mean_over_planes(depth):
    rng = np.random.default_rng(1)
    truth, pred = rng.random((2, depth, 20, 24))
    planes = [skimage.metrics.structural_similarity(t, p, data_range=1.0) for t, p in zip(truth, pred, strict=True)]
    assert metrics.ssim(pred, truth, 1.0) == pytest.approx(np.mean(planes))


def test_ssim_of_a_deep_stack_and_of_a_small_image():
    rng = np.random.default_rng(2)
    truth, pred = rng.random((2, 9, 12, 12))
    reference = skimage.metrics.structural_similarity(truth, pred, data_range=1.0)
    assert metrics.ssim(pred, truth, 1.0) == pytest.approx(reference)
    reference = skimage.metrics.structural_similarity(truth[0, :6], pred[0, :6], data_range=1.0, win_size=5)
    assert metrics.ssim(pred[0, :6], truth[0, :6], 1.0) == pytest.approx(reference)
    with pytest.raises(DataError, match="too small"):
        metrics.ssim(pred[0, :2], truth[0, :2], 1.0)


@pytest.mark.parametrize("name", [n for n, m in metrics.METRICS.items() if m.kind == "image"])
def test_fault_11_unknown_truth_is_ignored_and_a_nan_prediction_shows(name, noisy):
    metric, (pred, truth) = metrics.METRICS[name].function, noisy
    holes = truth.copy()
    holes[:3] = np.nan
    assert math.isfinite(metric(pred, holes))
    broken = pred.copy()
    broken[20, 20] = np.nan
    assert math.isnan(metric(broken, truth))


def test_range_of_a_constant_is_1_and_a_range_of_0_is_refused():
    assert metrics.range_of(np.array([3.0, np.nan, 7.0])) == 4
    assert metrics.range_of(E) == 1
    with pytest.raises(DataError, match="data range 0"):
        metrics.psnr(E, E, 0)


def test_sums_of_halves_give_the_figure_of_the_whole(noisy):
    pred, truth = noisy
    halves = metrics.moments(pred[:20], truth[:20], 9.0) + metrics.moments(pred[20:], truth[20:], 9.0)
    assert halves.psnr == pytest.approx(metrics.psnr(pred, truth, 9.0))
    assert halves.pearson == pytest.approx(metrics.pearson(pred, truth))


def test_find_metric_names_the_nearest():
    assert metrics.find_metric("average_precision@0.5") is metrics.METRICS["average_precision"]
    with pytest.raises(ConfigError, match="Did you mean 'pearson'"):
        metrics.find_metric("person")


def test_match_of_2000_objects_in_a_large_image_is_fast():
    tiles = np.arange(1, 2026, dtype=np.uint32).reshape(45, 45)
    truth = np.kron(tiles, np.ones((45, 45), np.uint32))
    truth[::45] = truth[:, ::45] = 0
    pred = np.roll(truth, 3, axis=0)
    begun = time.process_time()
    matching = metrics.match(pred, truth)
    found = metrics.counts(matching).tp
    assert time.process_time() - begun < 0.4
    assert found == 2025
