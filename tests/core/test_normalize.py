"""Normalisation against closed forms: streamed equals whole, percentiles equal numpy's, scaling inverts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from im2im_core import normalize
from im2im_core.errors import DataError
from im2im_core.image import ArrayImage
from im2im_core.normalize import (
    CentreZScore,
    MinMax,
    NoNormalization,
    Percentile,
    Scaling,
    ZScore,
    fill_invalid,
    measure,
)

SETTINGS = (Percentile(), ZScore(), CentreZScore(planes=4), MinMax(), NoNormalization())


@pytest.fixture
def volume() -> NDArray[np.float32]:
    """Two time points, two channels of different brightness, 6 planes of which plane 2 is the sharpest."""
    rng = np.random.default_rng(0)
    sharpness = np.array([1, 2, 9, 3, 2, 1], np.float32)[:, None, None]
    planes = [100 * (c + 1) + 50 * t + sharpness * rng.normal(size=(6, 20, 30)) for t in range(2) for c in range(2)]
    return np.stack(planes).reshape(2, 2, 6, 20, 30).astype(np.float32)


def measured(array: NDArray[Any], settings: Any, time: int = 0, **options: Any) -> Scaling:
    return measure(ArrayImage(array, "TCZYX"[-array.ndim :]), settings, time, **options)


# ---- closed forms ----


def test_percentiles_are_those_of_numpy(volume: NDArray[Any]) -> None:
    found = measured(volume, Percentile(low=2, high=98), time=1)
    for channel in range(2):
        low, high = np.percentile(volume[1, channel], (2, 98))
        assert found.offset[channel] == pytest.approx(low)
        assert found.scale[channel] == pytest.approx(high - low)


def test_zscore_has_mean_0_and_deviation_1(volume: NDArray[Any]) -> None:
    normal = measured(volume, ZScore()).apply(volume[0])
    assert normal.mean((1, 2, 3)) == pytest.approx([0, 0], abs=1e-4)
    assert normal.std((1, 2, 3)) == pytest.approx([1, 1], rel=1e-4)


def test_minmax_reaches_0_and_1(volume: NDArray[Any]) -> None:
    normal = measured(volume, MinMax()).apply(volume[0])
    assert normal.min((1, 2, 3)) == pytest.approx([0, 0])
    assert normal.max((1, 2, 3)) == pytest.approx([1, 1])


def test_centre_zscore_looks_at_the_planes_around_the_sharpest(volume: NDArray[Any]) -> None:
    found = measured(volume, CentreZScore(planes=3))
    chunk = volume[0, 0, 1:4]  # plane 2 is the sharpest
    assert found.offset[0] == pytest.approx(chunk.mean(dtype=np.float64))
    assert found.scale[0] == pytest.approx(chunk.std(dtype=np.float64))


def test_centre_zscore_stays_inside_the_stack() -> None:
    stack = np.zeros((5, 8, 8), np.float32)
    stack[4] = np.arange(64).reshape(8, 8)
    assert CentreZScore(planes=4).limits(stack) == pytest.approx((stack[1:].mean(), stack[1:].std()))
    assert CentreZScore(planes=32).limits(stack) == pytest.approx((stack.mean(), stack.std()))


def test_none_leaves_pixels_alone() -> None:
    assert measured(np.full((4, 4), 7, np.uint16), NoNormalization()) == Scaling((0.0,), (1.0,))


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.kind)
def test_channels_and_times_are_measured_apart(volume: NDArray[Any], settings: Any) -> None:
    for time in range(2):
        found = measured(volume, settings, time)
        single = [measured(volume[time, c], settings) for c in range(2)]
        assert found.offset == tuple(s.offset[0] for s in single)
        assert found.scale == tuple(s.scale[0] for s in single)


# ---- streaming ----


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.kind)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32, np.float64, ">u2", bool])
def test_streamed_equals_whole(monkeypatch: pytest.MonkeyPatch, settings: Any, dtype: Any) -> None:
    image = (np.random.default_rng(1).random((3, 1100, 5)) * 200).astype(dtype)
    whole = measured(image, settings)
    monkeypatch.setattr(normalize, "BAND", 5 * 512)  # three bands of 512, 512 and 76 rows
    assert measured(image, settings) == whole


def test_a_large_image_is_strided_evenly_across_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(2).random((1, 1500, 20)).astype(np.float32)
    monkeypatch.setattr(normalize, "BAND", 20 * 512)
    monkeypatch.setattr(normalize, "SAMPLE_LIMIT", 1500 * 20 // 9 + 1)  # every third pixel along Y and X
    expected = image[0, ::3, ::3]
    found = measured(image, ZScore())
    assert found.offset[0] == pytest.approx(expected.mean(dtype=np.float64))
    assert found.scale[0] == pytest.approx(expected.std(dtype=np.float64))


@pytest.mark.parametrize("masked", [False, True])
def test_the_extremes_of_a_large_image_are_not_strided_over(monkeypatch: pytest.MonkeyPatch, masked: bool) -> None:
    image = np.full((2, 1500, 20), 100, np.uint16)
    image[0, 701, 7], image[1, 1499, 19] = 60_000, 3
    monkeypatch.setattr(normalize, "BAND", 20 * 512)
    monkeypatch.setattr(normalize, "SAMPLE_LIMIT", 2 * 1500 * 20 // 9 + 1)
    weight = np.ones((2, 1500, 20), np.float32)
    weight[1, 1499] = 0
    known = ArrayImage(weight, "ZYX") if masked else None
    assert measured(image, MinMax(), weight=known) == (
        Scaling((100.0,), (59_900.0,)) if masked else Scaling((3.0,), (59_997.0,))
    )


@pytest.mark.parametrize("value", [0, 7])
def test_few_spots_on_a_flat_ground_are_normalised(value: int) -> None:
    image = np.full((64, 64), value, np.uint16)
    image[10, 10], image[40, 40] = 30_000, 20_000
    found = measured(image, Percentile())
    assert found == Scaling((float(value),), (30_000.0 - value,))


def test_little_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    image = ArrayImage(np.zeros((2, 2048, 10), np.uint8), "ZYX")
    sizes = []

    class Watched:
        info = image.info

        def read(self, region: Any = None) -> NDArray[Any]:
            part = image.read(region)
            sizes.append(part.size)
            return part

    monkeypatch.setattr(normalize, "BAND", 10 * 512)
    measure(Watched(), ZScore(), 0)
    assert max(sizes) <= 10 * 512
    assert sum(sizes) == 2 * 2048 * 10


# ---- scaling ----


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=4, max_size=40), st.floats(-1e3, 1e3), st.floats(1e-2, 1e3))
def test_scaling_inverts(values: list[float], offset: float, scale: float) -> None:
    pixels = np.array(values, np.float32)[None]
    scaling = Scaling((offset,), (scale,))
    assert scaling.invert(scaling.apply(pixels)) == pytest.approx(pixels, rel=1e-3, abs=1e-2)


def test_scaling_follows_the_channel_axis() -> None:
    pixels = np.stack([np.full((2, 2), 10.0), np.full((2, 2), 30.0)], axis=-1)
    scaling = Scaling((0.0, 10.0), (10.0, 2.0))
    assert scaling.apply(pixels, axis=-1)[0, 0].tolist() == [1, 10]
    assert scaling.invert(scaling.apply(pixels, axis=-1), axis=-1) == pytest.approx(pixels)


def test_unsigned_pixels_below_the_offset_do_not_wrap() -> None:
    assert Scaling((10.0,), (2.0,)).apply(np.array([[4]], np.uint8)).tolist() == [[-3]]


# ---- faults ----


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.kind)
@pytest.mark.parametrize("value", [0, 7, 1e6])
@pytest.mark.parametrize("dtype", [np.uint32, np.float32])
def test_fault_14_constant_image_stays_finite(settings: Any, value: float, dtype: Any) -> None:
    image = np.full((3, 8, 8), value, dtype)
    normal = measured(image, settings).apply(image[None])
    assert np.isfinite(normal).all()
    if not isinstance(settings, NoNormalization):
        assert normal == pytest.approx(np.zeros((1, 3, 8, 8)), abs=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_fault_11_nan_pixels_are_an_error_by_default(bad: float) -> None:
    image = np.arange(16, dtype=np.float32).reshape(4, 4)
    image[1, 2] = bad
    with pytest.raises(DataError, match=r"1 NaN or infinite pixels .*invalid_pixels"):
        measured(image, Percentile())


@pytest.mark.parametrize("settings", SETTINGS[:-1], ids=lambda s: s.kind)
def test_fault_11_filled_pixels_are_left_out_of_the_statistics(settings: Any) -> None:
    image = np.random.default_rng(3).random((1, 8, 8)).astype(np.float32)
    broken = np.concatenate([image, np.full((1, 8, 2), np.nan, np.float32)], axis=-1)
    found, expected = measured(broken, settings, invalid="fill"), measured(image, settings)
    assert found.offset == pytest.approx(expected.offset)
    assert found.scale == pytest.approx(expected.scale)


def test_fault_11_an_image_without_any_number_stays_finite() -> None:
    assert measured(np.full((4, 4), np.nan), ZScore(), invalid="fill") == Scaling((0.0,), (1.0,))


def test_invalid_pixels_become_the_minimum() -> None:
    assert fill_invalid(np.array([2.0, np.nan, 5.0, np.inf])).tolist() == [2, 2, 5, 2]
    assert fill_invalid(np.array([np.nan])).tolist() == [0]
    whole = np.array([1, 2])
    assert fill_invalid(whole) is whole


@pytest.mark.parametrize("settings", SETTINGS[:-1], ids=lambda s: s.kind)
@pytest.mark.parametrize("garbage", [0, 1e6, np.nan, -np.inf])
def test_unknown_pixels_are_not_looked_at(settings: Any, garbage: float) -> None:
    image = np.random.default_rng(4).random((2, 8, 8)).astype(np.float32)
    wide = np.concatenate([image, np.full((2, 8, 4), garbage, np.float32)], axis=-1)
    weight = np.ones_like(wide)
    weight[..., 8:] = 0
    found = measured(wide, settings, weight=ArrayImage(weight, "ZYX"))
    expected = measured(image, settings)
    assert found.offset == pytest.approx(expected.offset)
    assert found.scale == pytest.approx(expected.scale)


@pytest.mark.parametrize("dtype", ["uint32", "int64", "float64"])
def test_wide_types_keep_their_steps_far_from_zero(dtype: str) -> None:
    pixels = (4_000_000_000 + np.arange(64).reshape(1, 1, 8, 8)).astype(dtype)
    scaling = measured(pixels[0, 0], MinMax())
    np.testing.assert_allclose(scaling.apply(pixels[0]), (np.arange(64) / 63).reshape(1, 8, 8), atol=1e-6)


@pytest.mark.parametrize("limit", [normalize.SAMPLE_LIMIT, 150])
def test_one_plane_of_weights_holds_for_all_planes(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(normalize, "SAMPLE_LIMIT", limit)
    clean = np.random.default_rng(0).random((5, 12, 16)).astype(np.float32)
    weight = np.ones((1, 12, 16), np.float32)
    weight[:, :, 8:] = 0
    spoiled = np.where(weight > 0, clean, np.nan).astype(np.float32)
    known = ArrayImage(weight, "ZYX")
    assert measured(spoiled, ZScore(), weight=known) == measured(clean, ZScore(), weight=known)
    full = ArrayImage(np.repeat(weight, 5, axis=0), "ZYX")
    assert measured(clean, ZScore(), weight=full) == measured(clean, ZScore(), weight=known)


def test_a_plane_is_known_where_any_of_its_weights_is(volume: NDArray[Any]) -> None:
    plane = volume[0, 0, :1]
    weight = np.zeros((6, 20, 30), np.float32)
    weight[2, :, :15] = 1
    found = measured(plane, MinMax(), weight=ArrayImage(weight, "ZYX"))
    assert found.offset[0] == plane[:, :, :15].min()
