"""The rules of the self-configuring U-Net (Isensee et al. 2021): levels, patch and batch from numbers alone.

No device is asked: what a step may hold is a number of the recipe, so that a plan is the same everywhere.
``docs/planning.md`` explains the rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Sizes = tuple[int, ...]
"""One number along each spatial axis, [Z], Y, X."""

SMALLEST_EDGE = 4
"""Pixels that are left along an axis in the lowest level, at least."""
SMALLEST_PLANE = 16
"""Pixels of a patch along Y and X, at least: two reductions down to the smallest edge."""
FEWEST_LEVELS = 3
"""Levels of a network, at least."""
FEWEST_MULTIPLE = 2 ** (FEWEST_LEVELS - 1)
"""What a patch must be a multiple of along Y and X, at least."""
MOST_LEVELS = 7
"""Levels of a network, at most: beyond, a pixel would see farther than any tile reaches."""
COARSE = 2.0
"""An axis waits while its pixels are this many times as large as the finest."""
PATCHES = {2: 8, 3: 2}
"""Patches that a step must have room for, by dimensions: planes are small, and many of them steady the training."""
MOST_FILTERS = {2: 512, 3: 320}
"""Channels of a level, at most, by dimensions."""
ENCODED, DECODED = 2, 3
"""Maps of each level that a step holds: two convolutions down; one transposed and two plain ones up."""
DATA_PART = 0.05
"""Part of the pixels of all training images that a step may see, at most."""


@dataclass(frozen=True)
class Topology:
    """Kernels and strides of each level."""

    strides: tuple[Sizes, ...]
    kernels: tuple[Sizes, ...]

    @property
    def divisor(self) -> Sizes:
        """What a patch must be a multiple of."""
        return tuple(math.prod(column) for column in zip(*self.strides, strict=True))


def choose_strides(patch: Sizes, spacing: Sequence[float], exact: bool = False) -> tuple[Sizes, ...]:
    """Strides of each level: axes are halved until `SMALLEST_EDGE` pixels would be undercut, coarse ones later.

    Parameters
    ----------
    spacing : sequence of float
        Size of a pixel along each axis, in one unit.
    exact : bool
        The patch is given: an axis is only halved while its size is even.
    """
    size, pixel = list(patch), list(spacing)
    strides: list[Sizes] = [(1,) * len(patch)]
    while len(strides) < MOST_LEVELS:
        large = [i for i, n in enumerate(size) if n >= 2 * SMALLEST_EDGE and not (exact and n % 2)]
        if not large:
            break
        finest = min(pixel[i] for i in large)
        stride = tuple(2 if i in large and pixel[i] < COARSE * finest else 1 for i in range(len(size)))
        size = [n // s for n, s in zip(size, stride, strict=True)]
        pixel = [p * s for p, s in zip(pixel, stride, strict=True)]
        strides.append(stride)
    in_plane = (*(1,) * (len(patch) - 2), 2, 2)
    return (*strides, *[in_plane] * (FEWEST_LEVELS - len(strides)))


def choose_kernels(patch: Sizes, spacing: Sequence[float], strides: Sequence[Sizes]) -> tuple[Sizes, ...]:
    """Kernels of each level: 1 along an axis that is `COARSE` there, or one pixel thick; else 3."""
    kernels, pixel = [], list(spacing)
    joined = [False] * len(patch)
    for stride in strides:
        pixel = [p * s for p, s in zip(pixel, stride, strict=True)]
        # An axis that was once as fine as the others stays: halving stops first along the shortest.
        joined = [j or p < COARSE * min(pixel) for j, p in zip(joined, pixel, strict=True)]
        kernels.append(tuple(3 if j and n > 1 else 1 for j, n in zip(joined, patch, strict=True)))
    return tuple(kernels)


def choose_filters(first: int, most: int, levels: int) -> Sizes:
    """Channels of each level: doubled from `first` up to `most`."""
    return tuple(min(first * 2**level, most) for level in range(levels))


def values_held(patch: Sizes, filters: Sequence[int], strides: Sequence[Sizes]) -> int:
    """Values of all maps that a step holds for one patch, until the gradient has been through them.

    The sum over the levels of pixels × channels × maps: five maps, in the lowest level two.
    """
    total, size = 0, list(patch)
    for level, (channels, stride) in enumerate(zip(filters, strides, strict=True)):
        size = [n // s for n, s in zip(size, stride, strict=True)]
        maps = ENCODED if level == len(strides) - 1 else ENCODED + DECODED
        total += math.prod(size) * channels * maps
    return total


def largest_patch(
    image: Sizes, spacing: Sequence[float], divisor_of: Callable[[Sizes], Sizes], fits: Callable[[Sizes], bool]
) -> Sizes:
    """Largest block of equal sides in micrometres, cut off where the image ends, that `fits`; at least the smallest.

    Parameters
    ----------
    divisor_of : callable
        What a patch of about this size must be a multiple of.
    """
    finest = min(spacing)
    longest = max(n * s / finest for n, s in zip(image, spacing, strict=True))
    least = (*(1,) * (len(image) - 2), SMALLEST_PLANE, SMALLEST_PLANE)
    best: Sizes = ()
    for edge in range(SMALLEST_PLANE, max(math.ceil(longest), SMALLEST_PLANE) + 1):
        wanted = (min(n, round(edge * finest / s)) for n, s in zip(image, spacing, strict=True))
        size = tuple(max(w, m) for w, m in zip(wanted, least, strict=True))
        patch = tuple(max(n // d, 1) * d for n, d in zip(size, divisor_of(size), strict=True))
        if best and patch != best and not fits(patch):
            break
        best = patch
    return best


def choose_batch(patch: Sizes, held: int, budget: int, pixels: int) -> int:
    """Patches per step: what the budget has room for, at most `DATA_PART` of all `pixels`, at least two."""
    return max(2, min(budget // held, int(DATA_PART * pixels) // math.prod(patch)))
