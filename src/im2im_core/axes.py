"""Axes by name: everything is ``(T, C, Z, Y, X)``, never by guess."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from im2im_core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

AXES = "TCZYX"
Region = tuple[slice, slice, slice, slice, slice]
"""Slices with explicit start and stop along T, C, Z, Y, X."""


def check_axes(axes: str, ndim: int, name: str = "image") -> str:
    """`axes` itself, upper case, after checking letters, duplicates and number.

    Raises
    ------
    DataError
        A letter is unknown or doubled, Y or X is missing, or the number does not match `ndim`.
    """
    axes = axes.upper()
    unknown = sorted(set(axes) - set(AXES) - {"S"})
    if unknown or len(set(axes)) != len(axes) or not {"Y", "X"} <= set(axes):
        raise DataError(
            f"{name}: axes {axes!r} are not valid",
            "Use each of T, C, Z, Y, X at most once, Y and X always (S = RGB samples), for example 'CZYX'",
        )
    if len(axes) != ndim:
        raise DataError(
            f"{name}: axes {axes!r} name {len(axes)} dimensions, the array has {ndim}", "Give one letter per dimension"
        )
    return axes


def to_tczyx(array: NDArray, axes: str) -> NDArray:
    """View of `array` as ``(T, C, Z, Y, X)``; missing axes have size 1, S (RGB) becomes C."""
    axes = check_axes(axes, array.ndim)
    if "S" in axes:
        axes = _merge_samples(axes)
    present = [axes.index(a) for a in AXES if a in axes]
    moved = array.transpose(present)
    index = tuple(slice(None) if a in axes else np.newaxis for a in AXES)
    return moved[index]


def _merge_samples(axes: str) -> str:
    if "C" in axes:
        raise DataError(f"axes {axes!r} have channels and RGB samples", "Split the image into one or the other")
    return axes.replace("S", "C")


def from_tczyx(array: NDArray, axes: str) -> NDArray:
    """Array with only `axes`, in that order; dropped axes must have size 1."""
    drop = tuple(i for i, a in enumerate(AXES) if a not in axes)
    kept = [a for a in AXES if a in axes]
    return np.squeeze(array, axis=drop).transpose([kept.index(a) for a in axes])


def full_region(shape: tuple[int, ...]) -> Region:
    """Region that covers ``(T, C, Z, Y, X)`` `shape` whole."""
    t, c, z, y, x = (slice(0, n) for n in shape)
    return t, c, z, y, x


def region_shape(region: Region) -> tuple[int, int, int, int, int]:
    """Number of elements of `region` along each axis."""
    t, c, z, y, x = (s.stop - s.start for s in region)
    return t, c, z, y, x
