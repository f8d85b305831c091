"""Smaller copies of an image for fast viewing: sizes of the levels and how pixels are reduced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SMALLEST = 512


def level_factors(height: int, width: int) -> list[int]:
    """Reduction of Y and X of each smaller level, until the larger side is at most 512."""
    factors = []
    factor = 1
    while max(height, width) > _SMALLEST * factor:
        factor *= 2
        factors.append(factor)
    return factors


def reduced(size: int, factor: int) -> int:
    """Pixels along an axis after reduction; the last one may cover fewer pixels."""
    return -(-size // factor)


def reduce_plane(pixels: NDArray[Any], factor: int, *, labels: bool) -> NDArray[Any]:
    """`pixels` with the last two axes reduced: mean of each block, or its first label."""
    if labels:
        return pixels[..., ::factor, ::factor]
    height, width = pixels.shape[-2:]
    pad = [(0, 0)] * (pixels.ndim - 2) + [(0, -height % factor), (0, -width % factor)]
    full = np.pad(pixels, pad, mode="edge")
    blocks = full.reshape(*full.shape[:-2], full.shape[-2] // factor, factor, full.shape[-1] // factor, factor)
    mean = blocks.mean(axis=(-3, -1), dtype=np.float64)
    rounded = np.rint(mean) if pixels.dtype.kind in "ui" else mean
    small: NDArray[Any] = rounded.astype(pixels.dtype)
    return small
