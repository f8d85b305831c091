"""Axes by name."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from im2im_core.axes import AXES, check_axes, from_tczyx, full_region, region_shape, to_tczyx
from im2im_core.errors import DataError

SIZES = dict(zip(AXES, (2, 3, 4, 5, 6), strict=True))


@given(st.permutations(list(AXES)), st.sets(st.sampled_from("TCZ")))
def test_any_order_becomes_tczyx_and_back(order: list[str], dropped: set[str]) -> None:
    axes = "".join(a for a in order if a not in dropped)
    array = np.arange(np.prod([SIZES[a] for a in axes])).reshape([SIZES[a] for a in axes])
    whole = to_tczyx(array, axes)
    assert whole.shape == tuple(1 if a in dropped else SIZES[a] for a in AXES)
    assert (from_tczyx(whole, axes) == array).all()


def test_each_element_stays_at_its_place() -> None:
    array = np.arange(24).reshape(2, 3, 4)  # X, Y, C
    whole = to_tczyx(array, "XYC")
    for x, y, c in itertools.product(range(2), range(3), range(4)):
        assert whole[0, c, 0, y, x] == array[x, y, c]


def test_rgb_samples_become_channels() -> None:
    assert to_tczyx(np.zeros((4, 5, 3)), "YXS").shape == (1, 3, 1, 4, 5)


def test_a_view_is_made_not_a_copy() -> None:
    array = np.zeros((4, 5))
    to_tczyx(array, "yx")[...] = 1
    assert array.all()


@pytest.mark.parametrize(
    ("axes", "ndim", "match"),
    [
        ("ZZYX", 4, "not valid"),
        ("QYX", 3, "not valid"),
        ("ZX", 2, "not valid"),
        ("ZYX", 2, "name 3 dimensions"),
        ("", 0, "not valid"),
    ],
)
def test_fault_18_wrong_axes_are_refused(axes: str, ndim: int, match: str) -> None:
    with pytest.raises(DataError, match=match):
        check_axes(axes, ndim, "a.tif")


def test_fault_18_channels_and_rgb_together_are_refused() -> None:
    with pytest.raises(DataError, match="channels and RGB"):
        to_tczyx(np.zeros((2, 4, 5, 3)), "CYXS")


def test_only_single_axes_are_dropped() -> None:
    with pytest.raises(ValueError, match="size not equal to one"):
        from_tczyx(np.zeros((1, 2, 1, 4, 5)), "YX")


def test_regions() -> None:
    assert region_shape(full_region((1, 2, 3, 4, 5))) == (1, 2, 3, 4, 5)
    assert np.zeros((1, 2, 3, 4, 5))[full_region((1, 2, 3, 4, 5))].size == 120
