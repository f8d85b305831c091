"""Sample images open offline, at once, the same each time, and say what they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from im2im_core.partial import complete_mask, to_learning
from napari_im2im import _samples

SAMPLES: list[Callable[[], list[Any]]] = [
    _samples.nuclei_2d,
    _samples.nuclei_3d,
    _samples.painted_corner,
    _samples.living_nuclei,
    _samples.label_free,
    _samples.low_light_pair,
]


@pytest.mark.parametrize("sample", SAMPLES)
def test_sample_opens_at_once_and_the_same_each_time(sample: Callable[[], list[Any]]) -> None:
    first = sample()
    start = time.process_time()
    second = sample()
    assert time.process_time() - start <= 2.0
    for (data, options, kind), (again, _, _) in zip(first, second, strict=True):
        np.testing.assert_array_equal(np.asarray(data), np.asarray(again))
        assert kind in ("image", "labels", "shapes")
        assert len(options["scale"]) == len(options["units"]) == len(options["axis_labels"])
        assert all(0 < s for s in options["scale"])
        if kind != "shapes":
            assert len(options["scale"]) == data.ndim
        assert options["metadata"]


def test_scale_is_the_voxel_size() -> None:
    _, options, _ = _samples.nuclei_3d()[0]
    z, y, x = options["scale"]
    assert (z / y, y) == pytest.approx((3.0, x))
    assert options["units"] == ("micrometer",) * 3
    assert options["axis_labels"] == ("z", "y", "x")
    assert _samples.living_nuclei()[0][1]["units"] == ("second", "micrometer", "micrometer")


def test_painted_corner_is_exact_where_it_is_known() -> None:
    from im2im_core.microscope import fluorescence

    truth = fluorescence(_samples.PLANE, seed=_samples.SEED + 1).labels
    _, (painted, options, _), (polygons, region, _) = _samples.painted_corner()
    assert options["metadata"]["labelling"] == "sparse"
    assert region["metadata"]["complete_regions"]
    targets, weight = to_learning(painted, "sparse", complete_mask(_samples.PLANE, polygons))
    known = weight > 0
    np.testing.assert_array_equal(targets[known], truth[known])
    corner = (slice(0, _samples.CORNER),) * 2
    assert known[corner].mean() > 0.95
    assert 0.02 < known.mean() < 0.3
    assert len(np.unique(targets[corner])) > 3


@pytest.mark.parametrize("key", ["nuclei_2d", "painted_corner", "timelapse"])
def test_sample_opens_in_the_viewer(key: str, make_napari_viewer: Callable[[], Any]) -> None:
    viewer = make_napari_viewer()
    viewer.open_sample("napari-im2im", key)
    assert len(viewer.layers) >= 2
    for layer in viewer.layers:
        assert str(layer.units[-1]) == "micrometer"
