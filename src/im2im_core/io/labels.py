"""Label images as whole numbers whose ids are never changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST = np.iinfo(np.uint32).max


def as_labels(pixels: NDArray[Any], name: str) -> NDArray[np.uint32]:
    """Labels as uint32, every id as in the file.

    Raises
    ------
    DataError
        A label is negative, fractional, not finite or larger than uint32 can hold.
    """
    pixels = np.asarray(pixels)
    if pixels.dtype.kind not in "buif":
        raise DataError(f"{name}: labels of type {pixels.dtype} are not numbers", "Save the labels as integers")
    if pixels.dtype.kind == "f":
        _check_whole(pixels, name)
    if pixels.size and pixels.dtype.kind != "b":
        _check_range(pixels, name)
    return pixels.astype(np.uint32)


def _check_whole(pixels: NDArray[Any], name: str) -> None:
    wrong = ~np.isfinite(pixels) | (pixels != np.floor(pixels))
    if wrong.any():
        value = pixels[wrong].flat[0]
        raise DataError(f"{name}: label {value} is not a whole number", "Save the labels as integers")


def _check_range(pixels: NDArray[Any], name: str) -> None:
    low, high = pixels.min(), pixels.max()
    if low < 0:
        raise DataError(f"{name}: label {low} is negative", "Use 0 for background and positive ids for objects")
    if int(high) > _LARGEST:
        raise DataError(f"{name}: label {high} is larger than {_LARGEST}", "Number the objects anew")
