"""Flows from labels: in each object, up the heat that spreads from its centre; all objects of a size at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Box = tuple[slice, ...]
CLASS = 4
"""Sides of the boxes are rounded up to multiples of this; boxes of one shape are heated together."""
CACHED = 2**16
"""Pixels that are heated together: few enough to stay near the processor."""
STEPS = 2
"""Steps for which heat spreads, in sides of a box: it reaches the corners in half a side."""
FASTEST = 1 / 3
"""Part of the heat that goes to each neighbour along the finest axis in one step."""
SMALLEST = float(np.finfo(np.float32).tiny)
"""Less heat than this has no place in a float32."""


class Stack(NamedTuple):
    """Objects in boxes of one shape, with one empty pixel all around."""

    inside: NDArray[np.bool_]
    """(N, [Z], Y, X)"""
    boxes: list[Box]
    """Where each box lies in the image, without the empty pixels."""


def heat_flows(labels: NDArray[Any], anisotropy: float = 1.0) -> NDArray[np.float32]:
    """Unit flows ``(D, [Z], Y, X)`` of labels ``([Z], Y, X)``; 0 in the background and at the centres.

    Heat enters at the centre of an object and is lost at its rim; the flow goes up the heat (Stringer et al. 2021).
    While heat spreads from a source that never cools, it only ever rises. Where it rises the mean of the neighbours
    is above the pixel, so some neighbour is warmer: whenever this is stopped, and whatever the shape, rings and
    bays included, the centre is the only place that no way leads up from. Pieces of an object that do not touch
    have a centre each, because no flow can lead from one to the other.

    Parameters
    ----------
    anisotropy : float
        Depth of a voxel relative to its width. Heat spreads over real distances; the flow counts in voxels, so
        that following it leads straight to the centre.
    """
    spacing = np.ones(labels.ndim)
    if labels.ndim == 3:
        spacing[0] = anisotropy
    flows = np.zeros((labels.ndim, *labels.shape), np.float32)
    for stack in _stacks(labels):
        made = _flows(stack.inside, spacing)
        for row, box in enumerate(stack.boxes):
            # Boxes overlap, objects do not: outside of its object a flow is 0.
            place: Box = (slice(None), *box)
            flows[place] += made[:, row][(slice(None), *_filled(box))]
    return flows


def _stacks(labels: NDArray[Any]) -> Iterator[Stack]:
    """Connected pieces of all objects, in boxes of few shapes."""
    from scipy.ndimage import find_objects
    from skimage.measure import label

    pieces = label(labels, connectivity=labels.ndim)
    groups: dict[tuple[int, ...], list[tuple[int, Box]]] = {}
    for number, box in enumerate(find_objects(pieces), start=1):
        shape = tuple(-(-(s.stop - s.start) // CLASS) * CLASS for s in box)
        groups.setdefault(shape, []).append((number, box))
    for shape, members in groups.items():
        count = max(1, CACHED // math.prod(shape))
        for start in range(0, len(members), count):
            chosen = members[start : start + count]
            inside = np.zeros((len(chosen), *(n + 2 for n in shape)), bool)
            for row, (number, box) in zip(inside, chosen, strict=True):
                row[_filled(box)] = pieces[box] == number
            yield Stack(inside, [box for _, box in chosen])


def _filled(box: Box) -> Box:
    """Part of a box of a stack that a piece fills, behind the empty pixels."""
    return tuple(slice(1, 1 + s.stop - s.start) for s in box)


def _flows(inside: NDArray[np.bool_], spacing: NDArray[np.float64]) -> NDArray[np.float32]:
    """Unit flows ``(D, N, [Z], Y, X)`` of objects in boxes."""
    sources = _centres(inside, spacing)
    heat = _heated(inside, sources, spacing).ravel()
    pixels = np.flatnonzero(inside)
    # Once over the step for the slope over real distances, once for the way in voxels.
    steps = zip(_strides(inside.shape), spacing.tolist(), strict=True)
    rises = np.stack([(heat[pixels + n] - heat[pixels - n]) / size**2 for n, size in steps])
    rises /= _or_one(np.abs(rises).max(0))  # far from the centre they may be too small to be squared
    rises /= _or_one(np.sqrt((rises**2).sum(0)))
    flows = np.zeros((len(spacing), inside.size), np.float32)
    flows[:, pixels] = rises
    flows[:, sources] = 0
    return flows.reshape(-1, *inside.shape)


def _or_one(lengths: NDArray[np.floating]) -> NDArray[np.floating]:
    """`lengths` to divide by, with 1 for 0."""
    return np.where(lengths > 0, lengths, lengths.dtype.type(1))


def _strides(shape: tuple[int, ...]) -> list[int]:
    """How far apart neighbours along each axis but the first are in a flat array."""
    return [math.prod(shape[axis + 1 :]) for axis in range(1, len(shape))]


def _centres(inside: NDArray[np.bool_], spacing: NDArray[np.float64]) -> NDArray[np.int64]:
    """Flat index of the pixel of each object that is nearest to the median of its pixels."""
    distance = np.zeros(inside.shape, np.float32)
    for axis, step in enumerate(spacing, start=1):
        others = tuple(a for a in range(1, inside.ndim) if a != axis)
        below = np.cumsum(inside.sum(others), axis=1)
        half = below[:, -1:] / 2
        # The median of an even number of pixels lies between two.
        middle = ((below < half).sum(1) + (below <= half).sum(1)) / 2
        place = np.arange(inside.shape[axis]) - middle[:, None]
        shape = [len(inside), *(n if a == axis else 1 for a, n in enumerate(inside.shape[1:], start=1))]
        distance += ((step * place) ** 2).reshape(shape).astype(np.float32)
    distance[~inside] = np.inf
    size = math.prod(inside.shape[1:])
    nearest: NDArray[np.int64] = distance.reshape(-1, size).argmin(1) + size * np.arange(len(inside))
    return nearest


def _heated(
    inside: NDArray[np.bool_], sources: NDArray[np.int64], spacing: NDArray[np.float64]
) -> NDArray[np.floating]:
    """Heat of each object after a time that its box decides, and longer where some of it is still cold.

    Nothing depends on the objects that are heated together.
    """
    size, within = math.prod(inside.shape[1:]), tuple(range(1, inside.ndim))
    share = FASTEST * (spacing.min() / spacing) ** 2
    # What comes to the far corner of a box at first.
    least = math.prod(share) ** max(inside.shape[1:])
    heat = np.zeros(inside.shape, np.float32 if least > SMALLEST else np.float64)
    waiting, before = np.arange(len(inside)), inside.sum(within)
    while len(waiting):
        places = sources[waiting] % size + size * np.arange(len(waiting))
        heat[waiting] = _spread(heat[waiting], inside[waiting], places, share.tolist())
        cold = (inside[waiting] & (heat[waiting] == 0)).sum(within)
        rising = (cold > 0) & (cold < before)  # the last of a very long object is too cold for a number
        waiting, before = waiting[rising], cold[rising]
    return heat


def _spread(
    heat: NDArray[np.floating], inside: NDArray[np.bool_], sources: NDArray[np.int64], share: list[float]
) -> NDArray[np.floating]:
    """`heat` after some more steps, in each of which a pixel gives `share` to both its neighbours along an axis."""
    shape, strides = heat.shape, _strides(heat.shape)
    heat, other = heat.ravel(), np.zeros(heat.size, heat.dtype)
    kept = (inside * heat.dtype.type(math.prod(share))).ravel()
    for _ in range(STEPS * max(shape[1:])):
        heat[sources] += 1
        # One long row: what leaves a box on one side enters the empty pixels of the next, and is gone at the end.
        for stride, part in zip(strides, share, strict=True):
            middle, warmed = heat[stride:-stride], other[stride:-stride]
            np.add(heat[: -2 * stride], heat[2 * stride :], out=warmed)
            warmed += middle if part == FASTEST else middle * (1 / part - 2)
            heat, other = other, heat
        heat *= kept
    return heat.reshape(shape)
