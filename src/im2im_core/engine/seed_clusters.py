"""Objects from embedded pixels: greedy clustering around the best seeds, in numpy, the same on every machine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELL = 16.0
"""Side of the cells that embeddings are looked up in, isotropic pixels."""
REACH = math.sqrt(2 * math.log(2))
"""Standard deviations from its centre to where a Gaussian is one half."""
CHUNK = 4096
"""Pixels among which the next free seed is looked for at a time."""


class Embedded(NamedTuple):
    """Pixels of the foreground, in the order of the cells that their embeddings lie in."""

    place: NDArray[np.int64]
    """Flat index of each pixel in the image."""
    point: NDArray[np.float32]
    """Embedding ``(D, N)``, isotropic pixels."""
    sigma: NDArray[np.float32]
    """Margin ``(S, N)``, isotropic pixels; one for all axes, or one for each."""
    seediness: NDArray[np.float32]
    start: NDArray[np.int64]
    """First pixel of each cell, and the end."""
    cells: tuple[int, ...]
    """Number of cells along each axis."""


def cluster(
    seediness: NDArray[np.float32],
    offset: NDArray[np.float32],
    sigma: NDArray[np.float32],
    spacing: tuple[float, ...],
    foreground: float,
    seed: float,
    min_size: int = 1,
) -> NDArray[np.uint32]:
    """Instance labels ``([Z], Y, X)``: around each seed, best first, the pixels within its margin (Neven et al. 2019).

    A pixel clusters with a seed where a Gaussian of the seed's margin around the seed's embedding is above one
    half at the pixel's embedding, or less than a pixel away. A seed whose cluster is small, or mostly taken, gives
    no object, and its pixels start none. Only the cells near a seed are looked at, so the time grows with the
    pixels, not with the objects.

    Parameters
    ----------
    seediness : array ([Z], Y, X)
    offset : array (D, [Z], Y, X)
        From each pixel to the centre of its object, pixels.
    sigma : array (S, [Z], Y, X)
        Margin of each pixel, isotropic pixels.
    spacing : tuple of float
        Isotropic pixels per pixel along each axis.
    foreground, seed : float
        Pixels with a higher seediness are clustered; those that start an object have at least `seed`.
    """
    pixels = embed(seediness, offset, sigma, spacing, foreground)
    labels = np.zeros(seediness.size, np.uint32)
    free = np.ones(len(pixels.place), bool)
    count = 0
    for first in _seeds(pixels, free, max(seed, foreground)):
        members = _near(pixels, first)
        fresh = members[free[members]]
        free[fresh] = False
        free[first] = False
        if len(fresh) >= max(min_size, 1) and 2 * len(fresh) > len(members):
            count += 1
            labels[pixels.place[fresh]] = count
    return labels.reshape(seediness.shape)


def embed(
    seediness: NDArray[np.float32],
    offset: NDArray[np.float32],
    sigma: NDArray[np.float32],
    spacing: tuple[float, ...],
    foreground: float,
) -> Embedded:
    """Foreground pixels with their embeddings, ordered so that what lies in a row of cells stands together."""
    shape = seediness.shape
    place = np.flatnonzero(seediness.ravel() > foreground)
    axes = np.unravel_index(place, shape)
    point = np.empty((len(shape), len(place)), np.float32)
    key = np.zeros(len(place), np.int64)
    cells = tuple(int(n * s // CELL) + 1 for n, s in zip(shape, spacing, strict=True))
    for axis, (index, step, count) in enumerate(zip(axes, spacing, cells, strict=True)):
        point[axis] = (index + offset[axis].ravel()[place]) * step
        # Beyond the image there is one row of cells: its first or last.
        key = key * count + np.clip(point[axis] // CELL, 0, count - 1).astype(np.int64)
    # Keys of 16 bits are sorted by counting.
    order = np.argsort(key.astype(np.min_scalar_type(math.prod(cells))), kind="stable")
    start = np.zeros(math.prod(cells) + 1, np.int64)
    np.cumsum(np.bincount(key, minlength=math.prod(cells)), out=start[1:])
    place = place[order]
    margins = np.stack([s.ravel()[place] for s in sigma])
    return Embedded(place, point[:, order], margins, seediness.ravel()[place], start, cells)


def _seeds(pixels: Embedded, free: NDArray[np.bool_], least: float) -> Iterator[int]:
    """Free pixels with a seediness of at least `least`, best first, ties in the order of their cells."""
    candidates = np.flatnonzero(pixels.seediness >= least)
    order = candidates[np.argsort(-pixels.seediness[candidates], kind="stable")]
    for begin in range(0, len(order), CHUNK):
        chunk = order[begin : begin + CHUNK]
        chunk = chunk[free[chunk]]
        while len(chunk):
            yield int(chunk[0])
            chunk = chunk[free[chunk]]


def _near(pixels: Embedded, seed: int) -> NDArray[np.int64]:
    """Pixels that cluster with a seed, itself among them."""
    centre = pixels.point[:, seed]
    radius = np.broadcast_to(np.maximum(REACH * pixels.sigma[:, seed], 1), centre.shape)
    last = np.array(pixels.cells) - 1
    low = np.clip((centre - radius) // CELL, 0, last).astype(int)
    high = np.clip((centre + radius) // CELL, 0, last).astype(int)
    rows = np.zeros(1, np.int64)
    for axis in range(len(last) - 1):
        rows = (rows[:, None] * pixels.cells[axis] + np.arange(low[axis], high[axis] + 1)).ravel()
    begins = pixels.start[rows * pixels.cells[-1] + low[-1]].tolist()
    ends = pixels.start[rows * pixels.cells[-1] + high[-1] + 1].tolist()
    found = []
    for begin, end in zip(begins, ends, strict=True):
        distance = np.zeros(end - begin, np.float32)
        for values, middle, reach in zip(pixels.point, centre, radius, strict=True):
            distance += ((values[begin:end] - middle) / reach) ** 2
        found.append(np.flatnonzero(distance <= 1) + begin)
    return np.concatenate(found)
