r"""Star-convex shapes: rays from a centre to the rim, the pixels inside, and which of many proposals are objects.

A shape is a polygon (polyhedron) whose corners lie on rays from its centre. Within the angle between the rays of one
of its facets, a point is inside where a linear function of it is at most 1::

        v1 ·-----· v0        f(p) = G p, with G v0 = G v1 = 1 for corners v0, v1:
            \   /            0 at the centre, 1 on the facet
             \ /
              + centre

so that painting a shape takes one look-up of the facet and one product per pixel, in any dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CUBE = 20
"""Facets of all directions are looked up in a cube of this many pixels to each side."""
DEEP = 0.6
"""A proposal whose centre lies this deep in a better shape (0 centre, 1 rim) is another view of it."""
ALIKE = 0.5
"""Proposals of neighbouring pixels with a greater overlap are views of one object; the better one stays."""
LEAST = 0.1
"""Smallest distance along a ray, pixels: shapes of no extent have no inside."""


@dataclass(frozen=True, eq=False)
class Rays:
    """Directions in which the rim is sought.

    Parameters
    ----------
    directions : array (N, D)
        Unit vectors in space along [Z], Y, X.
    spacing : array (D)
        Size of a pixel along each axis, relative to its width.
    facets : array (M, D)
        Rays whose corners make one facet of a shape.
    """

    directions: NDArray[np.float64]
    spacing: NDArray[np.float64]
    facets: NDArray[np.intp]

    @cached_property
    def steps(self) -> NDArray[np.float64]:
        """The directions ``(N, D)`` in pixels: a distance times a step leads to the corner of a shape."""
        return self.directions / self.spacing

    @cached_property
    def fullness(self) -> float:
        """Factor of the distances by which the facets of a ball hold as much as the ball."""
        corners = self.directions[self.facets]
        size = self.directions.shape[1]
        held = np.abs(np.linalg.det(corners)).sum() / (2, 6)[size - 2]
        return float(((np.pi, 4 / 3 * np.pi)[size - 2] / held) ** (1 / size))

    @cached_property
    def inverse(self) -> NDArray[np.float64]:
        """Matrices ``(M, D, D)``: a point in pixels to its coordinates in the steps of a facet's rays."""
        return np.asarray(np.linalg.inv(self.steps[self.facets].transpose(0, 2, 1)), np.float64)

    def facet(self, points: NDArray[np.float64]) -> NDArray[np.int16]:
        """Facet in whose angle each of the points ``(K, D)`` lies; points are pixels from the centre."""
        if self.steps.shape[1] == 2:
            angle = np.arctan2(points[:, 0], points[:, 1]) * (len(self.steps) / (2 * np.pi))
            return (np.floor(angle + 1e-9) % len(self.steps)).astype(np.int16)
        found = [
            (self.inverse @ part.T).min(1).argmax(0) for part in np.array_split(points, max(1, len(points) // 5000))
        ]
        return np.concatenate(found).astype(np.int16)

    @cached_property
    def cube(self) -> NDArray[np.int16]:
        """Facets in three dimensions towards all points in space within `CUBE` along each axis, flat."""
        sides = [np.arange(-CUBE, CUBE + 1.0)] * 3
        return self.facet(np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 3) / self.spacing)

    def coordinates(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Matrix ``(K, N)`` of the points in pixels as sums of steps along the rays of their facets.

        Where the distances along the rays are r, the rim is reached from the centre towards a point p
        after ``1 / sum(coordinates(p) / r)`` times p.
        """
        number = self.facet(points)
        parts = np.einsum("kij,kj->ki", self.inverse[number], points)
        matrix = np.zeros((len(points), len(self.steps)))
        np.put_along_axis(matrix, self.facets[number], parts, 1)
        return matrix


@lru_cache(maxsize=8)
def make_rays(dimensions: int, count: int, anisotropy: float = 1.0) -> Rays:
    """Evenly spread rays: around a circle from X towards Y, or over a sphere along a golden spiral.

    Parameters
    ----------
    anisotropy : float
        Depth of a voxel relative to its width.
    """
    if dimensions == 2:
        angle = np.arange(count) * (2 * np.pi / count)
        directions = np.stack([np.sin(angle), np.cos(angle)], 1)
        facets = np.stack([np.arange(count), (np.arange(count) + 1) % count], 1)
        return Rays(directions, np.ones(2), facets)
    from scipy.spatial import ConvexHull

    height = 1 - (2 * np.arange(count) + 1) / count
    turn = np.arange(count) * (np.pi * (3 - np.sqrt(5)))
    width = np.sqrt(1 - height**2)
    directions = np.stack([height, width * np.sin(turn), width * np.cos(turn)], 1)
    facets = ConvexHull(directions).simplices.astype(np.intp)
    return Rays(directions, np.array([anisotropy, 1.0, 1.0]), facets)


class Painter:
    """Pixels of shapes of common rays.

    Parameters
    ----------
    grid : tuple of int
        Pixels that a cell is wide along each axis; shapes are centred in cells.
    reach : float
        Distance that no shape goes beyond, from its centre.
    """

    def __init__(self, rays: Rays, grid: tuple[int, ...], reach: float) -> None:
        self.rays, self.grid = rays, np.asarray(grid)
        self.reach = tuple(int(np.ceil(reach * rays.fullness / size)) + 1 for size in rays.spacing)
        # The centre of an even number of pixels lies half a pixel before the one in its middle.
        axes = [np.arange(-r, r + 1) + 0.5 * (g % 2 == 0) for r, g in zip(self.reach, grid, strict=True)]
        self._axes = [a.astype(np.float32) for a in axes]
        self._facets = self._look_up(axes)

    def _look_up(self, axes: list[NDArray[Any]]) -> NDArray[np.int16]:
        """Facet of every pixel around a centre."""
        points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
        if len(axes) == 2:
            facets = self.rays.facet(points)
        else:
            points = points * self.rays.spacing
            points *= CUBE / np.maximum(np.abs(points).max(1, keepdims=True), 1e-6)
            place = np.ravel_multi_index((np.rint(points).astype(np.intp) + CUBE).T, (2 * CUBE + 1,) * 3)
            facets = self.rays.cube[place]
        return facets.reshape([len(a) for a in axes])

    def middle(self, cells: NDArray[np.intp]) -> NDArray[np.intp]:
        """Middle pixels of cells; shapes are painted around them."""
        return np.asarray(cells * self.grid + self.grid // 2, np.intp)

    def inside(
        self, centre: tuple[int, ...], distances: NDArray[np.float32], shape: tuple[int, ...]
    ) -> tuple[tuple[slice, ...], NDArray[np.float32]]:
        """Box in an image of that shape, and there how far out each pixel is: 0 at the centre, 1 at the rim.

        Parameters
        ----------
        centre : tuple of int
            Middle pixel of its cell.
        """
        distances = distances * self.rays.fullness
        corners = distances[:, None] * self.rays.steps
        low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int) + 1
        box, table = [], []
        for c, a, b, r, n in zip(centre, low.tolist(), high.tolist(), self.reach, shape, strict=True):
            first, stop = max(c + max(a, -r), 0), min(c + min(b, r) + 1, n)
            box.append(slice(first, stop))
            table.append(slice(first - c + r, stop - c + r))
        # One linear function per facet, 1 at its corners.
        functions = np.einsum("mi,mij->jm", 1 / distances[self.rays.facets], self.rays.inverse).astype(np.float32)
        facets = self._facets[tuple(table)]
        out = np.zeros(facets.shape, np.float32)
        for axis, function in enumerate(functions):
            along = self._axes[axis][table[axis]]
            out += function[facets] * along.reshape([-1 if i == axis else 1 for i in range(len(table))])
        return tuple(box), out


@dataclass(frozen=True)
class Proposals:
    """Shapes with their centres ``(K, D)`` in cells, distances ``(K, N)`` and probabilities ``(K)``, best first."""

    cells: NDArray[np.intp]
    distances: NDArray[np.float32]
    probabilities: NDArray[np.float32]


def propose(
    probability: NDArray[np.float32],
    distances: NDArray[np.float32],
    rays: Rays,
    threshold: float,
    grid: tuple[int, ...],
) -> Proposals:
    """Cells above the threshold, but for those whose best neighbour proposes nearly the same shape.

    Parameters
    ----------
    probability : array ([Z], Y, X)
        Of cells.
    distances : array (N, [Z], Y, X)
        From the centre of each cell along the rays.
    grid : tuple of int
        Pixels that a cell is wide along each axis.
    """
    cells = np.argwhere(probability > threshold)
    best = _best_neighbour(probability, cells)
    at: tuple[Any, ...] = tuple(cells.T)
    own = np.maximum(distances[(slice(None), *at)], LEAST).T
    others = np.maximum(distances[(slice(None), *best.T)], LEAST).T
    # The rim around a centre nearby is farther from here by the way there.
    others = np.maximum(others + (best - cells) * grid * rays.spacing @ rays.directions.T, LEAST)
    size = len(grid)
    alike = (np.minimum(own, others) ** size).sum(1) / (np.maximum(own, others) ** size).sum(1)
    keep = (best == cells).all(1) | (alike < ALIKE)
    scores = probability[at][keep]
    order = np.argsort(-scores, kind="stable")
    return Proposals(cells[keep][order], own[keep][order], scores[order])


def _best_neighbour(probability: NDArray[np.float32], cells: NDArray[np.intp]) -> NDArray[np.intp]:
    """The most probable of each cell and those around it; the first of equals."""
    padded = np.pad(probability, 1, constant_values=-1)
    around = np.stack(np.meshgrid(*[[-1, 0, 1]] * probability.ndim, indexing="ij"), -1).reshape(-1, probability.ndim)
    strides = np.array(padded.strides) // padded.itemsize
    first = (cells + 1) @ strides
    values = padded.ravel()[first[:, None] + around @ strides]
    return np.asarray(cells + around[values.argmax(1)], np.intp)


def paint(proposals: Proposals, painter: Painter, shape: tuple[int, ...], overlap: float) -> NDArray[np.uint32]:
    """Labels of the proposals, the best first; one that shares too much with a better one is dropped.

    Greedy non-maximum suppression as in StarDist, with overlap as the shared part of the smaller shape. It is
    counted in the pixels that are painted, so that no pair of shapes has to be compared.

    Parameters
    ----------
    overlap : float
        Largest part of the smaller shape that may belong to a better one.
    """
    labels = np.zeros(shape, np.uint32)
    depth = np.zeros(shape, np.float32)
    sizes = [0]
    middles = painter.middle(proposals.cells)
    places = np.minimum(middles, np.asarray(shape) - 1)  # the last cell may reach beyond the image
    for place, middle, distances in zip(
        map(tuple, places.tolist()), map(tuple, middles.tolist()), proposals.distances, strict=True
    ):
        if labels[place] and depth[place] < DEEP:
            continue
        box, out = painter.inside(middle, distances, shape)
        mask = out <= 1
        size = int(np.count_nonzero(mask))
        under = labels[box]
        shared = np.bincount(under[mask], minlength=1)
        if size == 0 or any(shared[n] > overlap * min(size, sizes[n]) for n in np.flatnonzero(shared[1:]) + 1):
            continue
        fresh = mask & (under == 0)
        under[fresh] = len(sizes)
        depth[box][fresh] = out[fresh]
        sizes.append(size)
    return labels
