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


COUNTS = [n for n, m in metrics.METRICS.items() if m.unit == "objects"]
WINDOWED = ("ssim", "ms_ssim", "frc_resolution")
"""Metrics that look at the neighbours of a pixel."""


@pytest.mark.parametrize(
    "name", [n for n, m in metrics.METRICS.items() if m.kind in ("labels", "classes") and n not in COUNTS]
)
def test_nothing_against_nothing_is_perfect_and_something_against_nothing_is_not(name):
    metric = metrics.METRICS[name]
    perfect = 1.0 if metric.higher_is_better else 0.0
    full = np.eye(4, dtype=int) * np.arange(1, 5)
    assert metric.function(E, E) == perfect
    assert metric.function(full, full) == pytest.approx(perfect)
    found = [metric.function(pred, truth) for pred, truth in ((full, E), (E, full))]
    worse = [value < 1 if metric.higher_is_better else value > 0 for value in found]
    one_sided = name in ("variation_of_information_split", "variation_of_information_merge")
    assert any(worse) if one_sided else all(worse)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_nothing_are_0_and_something_against_nothing_is_counted(name):
    count, full = metrics.METRICS[name].function, np.eye(4, dtype=int) * np.arange(1, 5)
    assert count(E, E) == 0
    assert count(full, E) == (4 if name in ("fp", "extra") else 0)
    assert count(E, full) == (4 if name in ("fn", "missed") else 0)


@pytest.mark.parametrize("name", [n for n, m in metrics.METRICS.items() if m.kind == "image" and m.measurable])
def test_images_without_structure_have_figures(name):
    value = metrics.METRICS[name].function(np.full((16, 16), 3.0), np.full((16, 16), 3.0))
    same = {"psnr": math.inf, "scale_invariant_psnr": math.inf, "pearson": 0, "frc_resolution": 2}
    assert value == same.get(name, 1.0 if metrics.METRICS[name].higher_is_better else 0.0)


@pytest.mark.parametrize("name", [n for n, m in metrics.METRICS.items() if m.measurable])
@pytest.mark.parametrize("depth", [None, 3])
def test_every_metric_is_a_float_and_ignores_what_is_unknown(name, depth):
    metric = metrics.METRICS[name]
    pred, truth = _random_labels(1) + 0, np.roll(_random_labels(1), 1, axis=0)
    if metric.kind == "image":
        pred, truth = (a + np.random.default_rng(i).normal(size=a.shape) for i, a in enumerate((pred, truth)))
    else:  # no object reaches from the known into the unknown
        pred[:, 18:] += 100
        truth[:, 18:] += 100
    if depth:
        pred, truth = (np.stack([a] * depth) for a in (pred, truth))
    weight = np.ones(truth.shape)
    weight[..., 18:] = 0
    spoiled = np.where(weight > 0, pred, 777)
    value = metric.function(pred, truth, weight)
    assert isinstance(value, float)
    assert math.isfinite(value)
    assert metric.function(spoiled, truth, weight) == value
    if name not in COUNTS and not name.startswith("foreground"):  # of which there is nothing else here
        assert metric.function(spoiled, truth) != metric.function(pred, truth)
    if name not in WINDOWED:  # whose windows end before the crop
        assert value == pytest.approx(metric.function(pred[..., :18], truth[..., :18]))


def test_metrics_of_files_cannot_be_told_from_arrays():
    for name in ("frc_resolution_um", "single_image_resolution"):
        with pytest.raises(DataError, match=name):
            metrics.METRICS[name].function(E, E)


def test_objects_wholly_ignored_do_not_exist():
    truth, weight = np.array([[1, 1, 0, 2, 2]]), np.array([[1, 1, 1, 0, 0]])
    matching = metrics.match(np.array([[1, 1, 0, 0, 3]]), truth, weight)
    assert (matching.truth_ids.tolist(), matching.pred_ids.tolist()) == ([1], [1])


@pytest.fixture
def harbour():
    """A region of which the right half is unknown; three boats in the truth, five in the prediction.

    truth   1 1 1 . 2 2 | 2 2 2 2 . .      2 lies mostly in the unknown
    pred    5 5 5 . . . | . . . 8 8 8      1 is found, 2 is not
            . 6 6 7 7 7 | 7 7 . . . .      6 is extra, 7 mostly known and extra
            . . . . . 9 | 9 9 9 . . .      9 lies mostly in the unknown
    weight  1 1 1 1 1 1 | 0 0 0 0 0 0
    """
    truth, pred = np.zeros((3, 12), int), np.zeros((3, 12), int)
    truth[0, :3], truth[0, 4:10] = 1, 2
    pred[0, :3], pred[0, 9:], pred[1, 1:3], pred[1, 3:8], pred[2, 5:9] = 5, 8, 6, 7, 9
    weight = np.zeros((3, 12))
    weight[:, :6] = 1
    return pred, truth, weight


def test_objects_mostly_in_the_unknown_are_neither_missed_nor_extra(harbour):
    matching = metrics.match(*harbour)
    counts = metrics.counts(matching)
    assert (counts.tp, counts.fp, counts.fn) == (1, 2, 0)
    assert metrics.seg(matching) == 1
    assert metrics.mistakes(matching) == metrics.Mistakes(missed=0, extra=2, merged=0, split=0)
    assert {(e.kind, e.pred_ids) for e in metrics.errors(*harbour)} == {("extra", (6,)), ("extra", (7,))}
    everything = metrics.counts(metrics.match(*harbour[:2]))
    assert (everything.tp, everything.fp, everything.fn) == (1, 4, 1)


def test_an_object_mostly_in_the_unknown_can_still_be_right(harbour):
    pred, truth, weight = harbour
    truth[2, 5] = 3
    counts = metrics.counts(metrics.match(pred, truth, weight))  # 9 and 3 share their only known pixel
    assert (counts.tp, counts.fp, counts.fn) == (2, 2, 0)


def test_a_match_of_a_true_object_mostly_in_the_unknown_does_not_count(harbour):
    pred, truth, weight = harbour
    pred[0, 4:6] = 4
    counts = metrics.counts(metrics.match(pred, truth, weight))
    assert (counts.tp, counts.fp, counts.fn) == (1, 2, 0)


def test_mistakes_of_the_village(village):
    assert metrics.mistakes(metrics.match(*village)) == metrics.Mistakes(missed=0, extra=1, merged=1, split=1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(24, 30), (3, 12, 18)])
def test_rand_error_and_information_are_those_of_skimage(seed, shape):
    pred, truth = _random_labels(seed, shape[-2:]), np.roll(_random_labels(seed + 9, shape[-2:]), 2, axis=0)
    if len(shape) == 3:
        pred, truth = (np.stack([np.roll(a, z, axis=1) for z in range(shape[0])]) for a in (pred, truth))
    table = metrics.contingency(pred, truth)
    pairs, bits = metrics.pixel_pairs(table), metrics.information(table)
    reference = skimage.metrics.adapted_rand_error(truth, pred)
    # scikit-image calls the pairs of its first image, the truth, the denominator of its precision.
    assert (pairs.error, pairs.recall, pairs.precision) == pytest.approx(reference)
    assert metrics.adapted_rand_error(pred, truth) == pairs.error
    assert (bits.split, bits.merge) == pytest.approx(skimage.metrics.variation_of_information(truth, pred))
    assert metrics.variation_of_information(pred, truth) == bits.total


def test_rand_precision_tells_of_merging_and_recall_of_splitting():
    two, one = np.array([[1, 1, 1, 2, 2, 2]]), np.array([[1, 1, 1, 1, 1, 1]])
    # Of 30 ordered pairs of pixels 12 lie in one half; one bit says which half it is.
    merged, split = (metrics.contingency(*pair) for pair in ((one, two), (two, one)))
    assert metrics.pixel_pairs(merged) == metrics.PixelPairs(both=12, truth=12, pred=30)
    assert (metrics.pixel_pairs(merged).precision, metrics.pixel_pairs(merged).recall) == (12 / 30, 1)
    assert (metrics.pixel_pairs(split).precision, metrics.pixel_pairs(split).recall) == (1, 12 / 30)
    assert (metrics.information(merged).split, metrics.information(merged).merge) == (0, 1)
    assert (metrics.information(split).split, metrics.information(split).merge) == (1, 0)


def test_foreground_is_that_of_a_binary_mask():
    pred, truth = _random_labels(3), _random_labels(4)
    found = metrics.foreground(metrics.contingency(pred, truth))
    assert found.dice == metrics.dice(pred > 0, truth > 0)[1]
    assert found.iou == metrics.iou(pred > 0, truth > 0)[1]


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


@pytest.mark.parametrize("name", [n for n, m in metrics.METRICS.items() if m.kind == "image" and m.measurable])
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


def test_nrmse_is_that_of_skimage(noisy):
    pred, truth = noisy
    reference = skimage.metrics.normalized_root_mse(truth, pred, normalization="min-max")
    assert metrics.nrmse(pred, truth, metrics.range_of(truth)) == pytest.approx(reference)
    assert 20 * math.log10(1 / metrics.nrmse(pred, truth, 7.0)) == pytest.approx(metrics.psnr(pred, truth, 7.0))


def test_scale_invariant_psnr_is_that_of_zero_mean_images_scaled_to_each_other(noisy):
    """The form of Weigert et al. 2018: both without mean, the prediction times <truth, pred> / <pred, pred>."""
    pred, truth = noisy
    p, t = pred - pred.mean(), (truth - truth.mean()) / truth.std()
    scaled = p * (t * p).sum() / (p * p).sum()
    reference = skimage.metrics.peak_signal_noise_ratio(t, scaled, data_range=np.ptp(truth) / truth.std())
    assert metrics.scale_invariant_psnr(pred, truth, np.ptp(truth)) == pytest.approx(reference)


# ---- several scales ----


def _textured(seed, shape):
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    truth = sum(gaussian_filter(rng.random(shape), s) * s for s in (1, 4, 12))
    truth = (truth - truth.min()) / np.ptp(truth)
    return truth + rng.normal(0, 0.1, shape), truth


@pytest.mark.parametrize("shape", [(192, 200), (208, 181)])
def test_ms_ssim_is_that_of_monai(shape):
    torch = pytest.importorskip("torch")
    from monai.metrics import MultiScaleSSIMMetric

    pair = _textured(0, shape)
    reference = MultiScaleSSIMMetric(spatial_dims=2, data_range=1.0, kernel_size=11, kernel_sigma=1.5)
    expected = reference(*(torch.from_numpy(a)[None, None] for a in pair))
    assert metrics.ms_ssim(*pair, 1.0) == pytest.approx(float(expected), abs=1e-5)


def test_ms_ssim_of_a_stack_is_the_mean_over_planes_and_of_a_small_image_that_of_fewer_scales():
    pred, truth = (np.stack(pair) for pair in zip(*(_textured(i, (40, 44)) for i in range(3)), strict=True))
    planes = [metrics.ms_ssim(p, t, 1.0) for p, t in zip(pred, truth, strict=True)]
    assert metrics.ms_ssim(pred, truth, 1.0) == pytest.approx(np.mean(planes))
    assert 0 < metrics.ms_ssim(pred[0, :5, :9], truth[0, :5, :9], 1.0) < 1
    with pytest.raises(DataError, match="too small"):
        metrics.ms_ssim(pred[0, :2], truth[0, :2], 1.0)


def test_ms_ssim_of_one_scale_is_the_gaussian_ssim_of_skimage():
    pred, truth = _textured(2, (20, 21))  # half of it does not hold the window
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "win_size": 11}
    reference = skimage.metrics.structural_similarity(truth, pred, data_range=1.0, **settings)
    assert metrics.ms_ssim(pred, truth, 1.0) == pytest.approx(reference ** sum(metrics.multiscale.SCALES))


# ---- Fourier rings ----


def _band(seed, shape, low, high):
    """Noise whose frequencies lie between `low` and `high` cycles per pixel."""
    noise = np.random.default_rng(seed).normal(size=shape)
    radius = np.hypot(np.fft.fftfreq(shape[-2])[:, None], np.fft.fftfreq(shape[-1])[None])
    return np.fft.ifft2(np.fft.fft2(noise) * ((radius >= low) & (radius < high))).real


@pytest.mark.parametrize("shape", [(128, 128), (96, 130), (4, 64, 64)])
@pytest.mark.parametrize("cut", [0.1, 0.25])
def test_resolution_is_where_shared_frequencies_end(shape, cut):
    shared = _band(0, shape, 0, cut)
    first, second = (shared + _band(seed, shape, cut, 1) for seed in (1, 2))
    found = metrics.frc_resolution(first, second)
    assert 1 / found == pytest.approx(cut, abs=2 / min(shape[-2:]))  # two rings
    assert metrics.frc_resolution(first, second, spacing=(0.2, 0.2)) == pytest.approx(0.2 * found)


def test_ring_correlation_is_the_signal_over_signal_and_noise():
    """Of two images with the same signal and independent noise, both white."""
    signal = np.random.default_rng(0).normal(size=(256, 256))
    for noise in (0.5, 2.0):
        pair = (signal + noise * np.random.default_rng(i).normal(size=signal.shape) for i in (1, 2))
        rings = metrics.fourier_ring_correlation(*pair)
        assert rings.correlation[20:].mean() == pytest.approx(1 / (1 + noise**2), abs=0.02)


def test_rings_of_a_direct_sum_are_the_same():
    pred, truth = _band(1, (32, 32), 0, 1), _band(2, (32, 32), 0, 1)
    rings = metrics.fourier_ring_correlation(pred, truth)
    window = metrics.resolution._window(np.ones(pred.shape, bool))
    spectra = [np.fft.fft2((a - a.mean()) * window) for a in (pred, truth)]
    radius = np.rint(32 * np.hypot(np.fft.fftfreq(32)[:, None], np.fft.fftfreq(32)[None]))
    for ring, value in enumerate(rings.correlation, start=1):
        p, t = (s[radius == ring] for s in spectra)
        expected = (p * t.conj()).sum().real / np.sqrt((abs(p) ** 2).sum() * (abs(t) ** 2).sum())
        assert value == pytest.approx(expected)
    np.testing.assert_allclose(rings.frequencies, np.arange(1, 17) / 32)


def test_resolution_has_its_limits():
    noise = np.random.default_rng(0).normal(size=(2, 48, 64))
    assert metrics.frc_resolution(noise[0], noise[0]) == 2
    assert metrics.frc_resolution(noise[0], np.zeros_like(noise[0])) == 48
    assert metrics.frc_resolution(noise[0], noise[1], np.zeros_like(noise[0])) == 2
    assert metrics.frc_resolution(noise[0], noise[0], spacing=(0.3, 0.1)) == pytest.approx(0.6)


@pytest.mark.parametrize("cut", [0.06, 0.12])
def test_resolution_of_one_image_is_where_its_structure_ends(cut):
    shape = (256, 256)
    image, other = (4 * _band(0, shape, 0, cut) + _band(seed, shape, 0, 1) for seed in (1, 2))
    found = metrics.single_image_resolution(image)
    for expected in (cut, 1 / metrics.frc_resolution(image, other)):
        assert 1 / found == pytest.approx(expected, abs=3 / 256)  # three rings
    assert metrics.single_image_resolution(np.stack([image, image]), (0.5, 0.5)) == pytest.approx(found / 2)


def test_resolution_of_one_image_is_at_best_4_pixels():
    assert metrics.single_image_resolution(_band(0, (64, 64), 0, 0.2)) == 4
    with pytest.raises(DataError, match="too small"):
        metrics.single_image_resolution(np.zeros((3, 9)))
    with pytest.raises(DataError, match="not finite"):
        metrics.single_image_resolution(np.full((9, 9), np.nan))


# ---- by name ----


def test_names_of_others_are_found():
    assert metrics.find_metric("recognition_quality@0.5") is metrics.METRICS["f1"]
    assert metrics.find_metric("sq") is metrics.METRICS["mean_matched_iou"]


def test_panoptic_quality_is_segmentation_times_recognition_quality(village):
    found = {n: metrics.find_metric(n).function(*village) for n in ("pq", "sq", "rq")}
    assert found["pq"] == pytest.approx(found["sq"] * found["rq"])


def test_titles_say_what_a_figure_is():
    titles = {
        n: metrics.title_of(n) for n in ("average_precision@0.5", "average_precision", "dice@2", "psnr", "tp@0.5")
    }
    assert list(titles.values()) == [
        "AP at IoU 0.5",
        "AP, mean over IoU 0.5 to 0.9",
        "Dice of class 2",
        "PSNR, dB",
        "Found at IoU 0.5",
    ]


def test_only_what_is_asked_for_is_measured(village, monkeypatch):
    scene = metrics.Scene(*village)
    selection = metrics.select(("f1", "f1@0.75", "sq", "seg"), "labels")
    assert selection.figures == ("f1@0.5", "f1@0.75", "mean_matched_iou@0.5", "seg")
    monkeypatch.setattr(metrics.partitions, "information", None)
    found = selection.measure(scene)
    assert found["f1@0.5"] == pytest.approx(4 / 9)
    assert found["f1@0.75"] == pytest.approx(2 / 9)
    both = metrics.select(("average_precision", "f1@0.75"), "labels").measure(scene)
    assert both["f1@0.75"] == pytest.approx(2 / 9)
    assert both["average_precision"] == metrics.select(("ap",), "labels").measure(scene)["average_precision"]
    assert metrics.select(("average_precision",), "labels").measure(scene) == {
        "average_precision": pytest.approx(
            np.mean([metrics.average_precision(metrics.match(*village), t) for t in metrics.THRESHOLDS])
        )
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [("seg@0.5", "no thresholds"), ("f1@2", "no IoU"), ("f1@x", "no IoU"), ("dice@1.5", "no class"), ("sge", "'seg'")],
)
def test_figures_that_do_not_exist_are_refused(name, text):
    with pytest.raises(ConfigError, match=text):
        metrics.select((name,), "labels")


def test_figures_of_another_kind_are_refused():
    for name, kind in (("seg", "image"), ("psnr", "labels"), ("frc_resolution_um", "image")):
        with pytest.raises(ConfigError, match="cannot be measured here"):
            metrics.select((name,), kind)


def test_find_metric_names_the_nearest():
    assert metrics.find_metric("average_precision@0.5") is metrics.METRICS["average_precision"]
    with pytest.raises(ConfigError, match="Did you mean 'pearson'"):
        metrics.find_metric("person")


@pytest.fixture
def city():
    """2,025 houses in an image of 2,025 x 2,025 pixels, and their prediction, moved by 3 pixels."""
    tiles = np.arange(1, 2026, dtype=np.uint32).reshape(45, 45)
    truth = np.kron(tiles, np.ones((45, 45), np.uint32))
    truth[::45] = truth[:, ::45] = 0
    return np.roll(truth, 3, axis=0), truth


def _seconds(work):
    begun = time.process_time()
    work()
    return time.process_time() - begun


@pytest.mark.timing
def test_all_figures_of_2000_objects_cost_less_than_two_of_skimage(city):
    pred, truth = city

    def reference():
        skimage.metrics.variation_of_information(truth, pred)
        skimage.metrics.adapted_rand_error(truth, pred)

    ours = min(_seconds(lambda: metrics.parts_of(metrics.Scene(pred, truth), "labels")) for _ in range(2))
    assert ours < _seconds(reference)
    assert metrics.counts(metrics.match(pred, truth)).tp == 2025


def test_overlaps_are_counted_once_for_all_figures(city, monkeypatch):
    counted, real = [], metrics.instances.contingency
    monkeypatch.setattr(metrics.instances, "contingency", lambda *a: counted.append(1) or real(*a))
    pred, truth = (a[:200, :200] for a in city)
    metrics.parts_of(metrics.Scene(pred, truth), "labels")
    assert counted == [1]


def test_what_a_training_measures_of_labels_counts_overlaps_once(city, monkeypatch):
    """All figures of labels come from the overlaps, which cost nearly all of the time."""
    counted, real = [], metrics.instances.contingency
    monkeypatch.setattr(metrics.instances, "contingency", lambda *a: counted.append(1) or real(*a))
    pred, truth = (a[:200, :200] for a in city)
    found = metrics.select(metrics.while_training("labels"), "labels").measure(metrics.Scene(pred, truth))
    assert found
    assert counted == [1]


@pytest.mark.timing
def test_what_a_training_measures_of_images_is_cheap(city):
    """Those that are left out cost more than all that are measured."""
    scene = metrics.Scene(*(a[:512, :512].astype(np.float32) for a in city))
    chosen = metrics.select(metrics.while_training("image"), "image")
    chosen.measure(scene)
    works = (lambda: chosen.measure(scene), lambda: metrics.parts_of(scene, "image"))
    # By turns, and in the time of this process: what else runs slows down both alike.
    rounds = [[_seconds(work) for work in works] for _ in range(9)]
    assert np.median([ours / everything for ours, everything in rounds]) < 0.6
