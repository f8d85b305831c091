"""Objects from flows: pixels follow them, and those that meet are one object."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

STRIDE = 5
"""Steps of one pixel that are computed; longer ways are put together of these."""
SURE = 0.2
"""Flows that are shorter are no full step."""
CARRIES = 0.5
"""Flows that are longer lead on where the mask has a gap."""
REACH = 3
"""Sinks within this distance along each axis are one, pixels."""
TOGETHER = 2**15
"""Pixels that go together: few enough to stay near the processor."""


def follow_flows(
    flows: NDArray[np.float32], mask: NDArray[np.bool_], steps: int, anisotropy: float = 1.0
) -> NDArray[np.uint32]:
    """Labels ``([Z], Y, X)`` of the pixels of `mask`: those whose flows lead to one place have one number.

    Every pixel goes a few steps of one pixel along the flows (Euler's method, as in Stringer et al. 2021), and
    ends on the grid again. From there it goes on as the pixel there did, so ways are doubled by a look-up: nearly
    as exact as small steps all along, in a fraction of the time. Where many ends lie is a sink; ends climb to the
    densest place nearby.

    Parameters
    ----------
    flows : array (D, [Z], Y, X)
        Along [Z], Y, X in pixels; about one long.
    steps : int
        Steps that each pixel goes at least.
    anisotropy : float
        Depth of a voxel relative to its width; sinks in neighbouring planes are as far apart as this.
    """
    labels = np.zeros(mask.size, np.uint32)
    pixels = np.flatnonzero(mask)
    if len(pixels) == 0:
        return labels.reshape(mask.shape)
    ends = _led(flows, mask, steps)[pixels]
    reach = tuple(REACH if mask.ndim - axis < 3 else max(1, round(REACH / anisotropy)) for axis in range(mask.ndim))
    labels[pixels] = _meeting(ends, mask.shape, reach)
    return labels.reshape(mask.shape)


def _led(flows: NDArray[np.float32], mask: NDArray[np.bool_], steps: int) -> NDArray[np.int64]:
    """Flat index of the pixel that each pixel comes to in at least `steps` steps."""
    length = np.sqrt((flows**2).sum(0))
    going = mask | (length > CARRIES)
    field = np.where(going, flows / np.maximum(length, SURE), np.float32(0)).reshape(len(flows), -1)
    pixels = np.flatnonzero(going)
    leads = np.arange(mask.size)
    for start in range(0, len(pixels), TOGETHER):
        part = pixels[start : start + TOGETHER]
        leads[part] = _stride(field, mask.shape, part)
    for _ in range(math.ceil(math.log2(max(steps / STRIDE, 1)))):
        leads[pixels] = leads[leads[pixels]]
    return leads


def _strides(shape: tuple[int, ...]) -> list[int]:
    """How far apart neighbours along each axis are in a flat array."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _stride(field: NDArray[np.float32], shape: tuple[int, ...], pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Flat index of the pixel that each of `pixels` comes to in `STRIDE` steps."""
    strides = _strides(shape)
    home = np.unravel_index(pixels, shape)
    # The way is kept apart from the place it starts at, so that it does not depend on where in an image that is.
    way = field[:, pixels]
    limits = [(-h, n - 1 - h) for h, n in zip(home, shape, strict=True)]
    for step in range(STRIDE):
        place = pixels.copy()
        for along, (low, high), stride in zip(way, limits, strides, strict=True):
            nearest = np.rint(along).astype(np.int64)
            np.clip(nearest, low, high, out=nearest)
            nearest *= stride
            place += nearest
        if step < STRIDE - 1:
            for along, values in zip(way, field, strict=True):
                along += values.take(place)
    return place


def _meeting(ends: NDArray[np.int64], shape: tuple[int, ...], reach: tuple[int, ...]) -> NDArray[np.uint32]:
    """Number of the sink that each of `ends` belongs to, from 1 in the order of the sinks in the image."""
    counts = np.bincount(ends, minlength=math.prod(shape))
    cells = np.flatnonzero(counts)
    wide = tuple(n + 2 * r for n, r in zip(shape, reach, strict=True))  # no neighbour lies outside
    found = np.unravel_index(cells, shape)
    places = np.ravel_multi_index(tuple(p + r for p, r in zip(found, reach, strict=True)), wide)
    crowd = np.zeros(math.prod(wide), np.int64)
    crowd[places] = counts[cells]
    density = np.zeros(len(cells), np.int64)
    for shift in _shifts(wide, (1,) * len(wide)):
        density += crowd[places + shift]
    # Ranks differ where densities are alike, so that nothing climbs in a circle.
    order = np.lexsort((-places, density))
    crowd[places[order]] = np.arange(1, len(cells) + 1)
    highest = np.zeros(len(cells), np.int64)
    for shift in _shifts(wide, reach):
        np.maximum(highest, crowd[places + shift], out=highest)
    tops = order[highest - 1]
    while not np.array_equal(tops, above := tops[tops]):
        tops = above
    numbers = np.zeros(len(counts), np.uint32)
    numbers[cells] = np.unique(tops, return_inverse=True)[1] + 1
    return np.asarray(numbers[ends])


def _shifts(shape: tuple[int, ...], reach: tuple[int, ...]) -> Iterator[int]:
    """Flat distances to all pixels within `reach` along each axis."""
    for offset in itertools.product(*(range(-r, r + 1) for r in reach)):
        yield sum(o * s for o, s in zip(offset, _strides(shape), strict=True))
