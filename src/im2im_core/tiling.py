r"""Tiles: which part of a large image is read, which part is written, and how neighbours are joined.

One axis with two cuts, seen from the tile in the middle::

    image      |----------------------------------------------------------|
    outer              [nnnn|..............................|ffffff]           what the network sees
    inner                   [==============================)                  what this tile answers for
    overlap                 [/////)                        [\\\\\)            blended with the neighbours

Every `outer` has the same size and starts at a multiple of the network's `divisor`, so that a tile is
pooled on the same grid as the whole image would be; the image is padded at its far end only, to a
multiple of `divisor`. A tile sees `halo` pixels (n: near, f: far, both rounded up to `divisor`) beyond
everything it writes, so with a halo of the receptive field, tiled and whole agree. The inner parts
divide the image without overlap; the first `overlap` pixels of an inner part are also written by the
tile before it, and the two weights there sum to one.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from im2im_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

Blending = Literal["gaussian", "linear", "none"]
Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Tile:
    """A tile by its regions along each spatial axis; stitching needs nothing else."""

    index: tuple[int, ...]
    """Place in the grid of tiles."""
    outer: Slices
    """What is read, with halo; may reach beyond the far end of the image, where it is padded."""
    inner: Slices
    """What this tile answers for; the inner parts divide the region without overlap."""
    last: tuple[bool, ...]
    """Whether no tile follows, along each axis."""

    def written(self, overlap: Sequence[int]) -> Slices:
        """Inner part and the part of the following neighbours that is blended with them."""
        return tuple(
            slice(s.start, s.stop if last else s.stop + o)
            for s, o, last in zip(self.inner, overlap, self.last, strict=True)
        )


def round_up(value: int, step: int) -> int:
    """Smallest multiple of `step` that is not below `value`."""
    return -(-value // step) * step


def padded_shape(shape: Sequence[int], divisor: Sequence[int]) -> tuple[int, ...]:
    """`shape` grown at the far ends to multiples of `divisor`.

    A network that pools everything into one pixel cannot normalise it, so at least two are kept.
    """
    padded = [round_up(n, d) for n, d in zip(shape, divisor, strict=True)]
    if max(divisor) > 1 and all(n == d for n, d in zip(padded, divisor, strict=True)):
        padded[-1] *= 2
    return tuple(padded)


def split_tiles(
    shape: Sequence[int],
    tile: Sequence[int],
    halo: Sequence[int],
    divisor: Sequence[int],
    *,
    overlap: Sequence[int] | None = None,
    chunk: Sequence[int] | None = None,
    region: Slices | None = None,
) -> tuple[Tile, ...]:
    """Tiles whose inner parts cover `region` (the whole image when None), last axis fastest.

    Parameters
    ----------
    shape, tile, halo, divisor, overlap : sequences of int
        One number per spatial axis. `tile` is the size of `outer`; where it reaches the padded
        image, the axis is not cut.
    chunk : sequence of int, optional
        Cuts fall on multiples of this.

    Raises
    ------
    ConfigError
        `tile` has no room for anything but its halo.
    """
    overlap = overlap or [0] * len(shape)
    whole = region or tuple(slice(0, n) for n in shape)
    padded = padded_shape(shape, divisor)
    axes = [
        list(_cut_axis(padded[a], tile[a], halo[a], overlap[a], divisor[a], chunk[a] if chunk else 0, whole[a]))
        for a in range(len(shape))
    ]
    grid = itertools.product(*(enumerate(cuts) for cuts in axes))
    return tuple(
        Tile(
            index=tuple(i for i, _ in cell),
            outer=tuple(outer for _, (outer, _) in cell),
            inner=tuple(inner for _, (_, inner) in cell),
            last=tuple(i == len(cuts) - 1 for (i, _), cuts in zip(cell, axes, strict=True)),
        )
        for cell in grid
    )


def _cut_axis(
    padded: int, tile: int, halo: int, overlap: int, divisor: int, chunk: int, region: slice
) -> Iterator[tuple[slice, slice]]:
    if tile >= padded:
        yield slice(0, padded), region
        return
    near, _, step = _step(tile, halo, overlap, divisor, chunk)
    # Nothing is hidden before the first pixel: without chunks the first tile writes its near halo too.
    grain = math.lcm(chunk or 1, divisor)
    begin = region.start // grain * grain
    end = begin + step + (near if begin == 0 and not chunk else 0)
    while begin < region.stop:
        start = min(max((begin - near) // divisor * divisor, 0), padded - tile)
        # The last tile is moved back inside the image and may find room for all that is left.
        stop = region.stop if start + tile >= padded else end
        yield slice(start, start + tile), slice(max(begin, region.start), min(stop, region.stop))
        begin, end = stop, stop + step


def _step(tile: int, halo: int, overlap: int, divisor: int, chunk: int) -> tuple[int, int, int]:
    near, far = round_up(halo, divisor), round_up(halo + overlap, divisor)
    grain = math.lcm(chunk or 1, divisor)
    step = (tile - near - far) // grain * grain
    if tile % divisor or step < max(overlap, 1):
        raise ConfigError(
            f"A tile of {tile} pixels with a halo of {near} + {far} does not fit a network with divisor {divisor}",
            f"Use a multiple of {divisor} that is at least {near + far + round_up(max(overlap, 1), grain)}",
        )
    return near, far, step


def smallest_tile(
    shape: Sequence[int], halo: Sequence[int], divisor: Sequence[int], overlap: Sequence[int]
) -> tuple[int, ...]:
    """Size below which a tile would be halo only, not larger than the padded image."""
    padded = padded_shape(shape, divisor)
    return tuple(
        min(n, round_up(h, d) + round_up(h + o, d) + round_up(max(o, 1), d))
        for n, h, d, o in zip(padded, halo, divisor, overlap, strict=True)
    )


def cost(shape: Sequence[int], tiles: Sequence[Tile]) -> float:
    """Pixels that the network sees, per pixel of the image."""
    seen: int = sum(math.prod(s.stop - s.start for s in t.outer) for t in tiles)
    return seen / math.prod(shape)


def choose_tile(
    shape: Sequence[int],
    halo: Sequence[int],
    divisor: Sequence[int],
    budget_pixels: int,
    max_cost: float = 1.35,
    *,
    overlap: Sequence[int] | None = None,
    chunk: Sequence[int] | None = None,
) -> tuple[int, ...]:
    """Size of the tiles: the whole image where it fits, else evenly cut with little spent on halos.

    Parameters
    ----------
    budget_pixels : int
        Largest tile that is preferred; up to four times as many where `max_cost` needs it.
    max_cost : float
        Processed pixels per image pixel that should not be exceeded.
    """
    overlap = overlap or [0] * len(shape)
    padded = padded_shape(shape, divisor)
    longest = max(padded)
    larger: list[tuple[int, ...]] = []
    for count in range(1, longest + 1):
        grain = longest / count
        tile = tuple(
            _even_tile(
                padded[a], max(1, round(padded[a] / grain)), halo[a], overlap[a], divisor[a], chunk[a] if chunk else 0
            )
            for a in range(len(shape))
        )
        smallest = tile == smallest_tile(shape, halo, divisor, overlap)
        if math.prod(tile) <= budget_pixels or smallest:
            break
        if math.prod(tile) <= 4 * budget_pixels and tile not in larger:
            larger.append(tile)
    for choice in (tile, *reversed(larger)):
        if cost(shape, split_tiles(shape, choice, halo, divisor, overlap=overlap, chunk=chunk)) <= max_cost:
            return choice
    return larger[0] if larger else tile


def _even_tile(padded: int, count: int, halo: int, overlap: int, divisor: int, chunk: int) -> int:
    """Size of `count` equal tiles along one axis."""
    near, far = round_up(halo, divisor), round_up(halo + overlap, divisor)
    if chunk:
        grain = math.lcm(chunk, divisor)
        return min(padded, round_up(-(-padded // count), grain) + near + far)
    even = round_up(-(-(padded + (near + far) * (count - 1)) // count), divisor)
    return min(padded, max(even, near + far + round_up(max(overlap, 1), divisor)))


def ramp(overlap: int, blending: Blending) -> NDArray[np.float32]:
    """Weight of the following tile across an overlap; that of the tile before is one minus it."""
    place = (np.arange(overlap) + 0.5) / max(overlap, 1)
    if blending == "gaussian":
        # The share of two Gaussians of width overlap / 4 that stand at its two ends.
        place = 1 / (1 + np.exp(8 * (1 - 2 * place)))
    return place.astype(np.float32)


def axis_weight(inner: slice, written: slice, first: bool, overlap: int, blending: Blending) -> NDArray[np.float32]:
    """Weights of one tile along one axis over `written`; with those of its neighbours they sum to one."""
    weight = np.ones(written.stop - written.start, np.float32)
    rise = ramp(overlap, blending)
    if overlap and not first:
        head = min(overlap, weight.size)
        weight[:head] *= rise[:head]
    tail = written.stop - inner.stop
    if tail:
        weight[-tail:] *= 1 - rise[:tail]
    return weight


def fit_padding(shape: Sequence[int], wanted: Sequence[int]) -> list[tuple[int, int]]:
    """Pixels to add at the far end of each axis."""
    return [(0, max(0, w - n)) for n, w in zip(shape, wanted, strict=True)]


def pad_reflect(pixels: NDArray, wanted: Sequence[int]) -> NDArray:
    """`pixels` mirrored at the far ends until the last axes have the size `wanted`; an axis of one pixel repeats it."""
    lead = pixels.ndim - len(wanted)
    for axis, (_, after) in enumerate(fit_padding(pixels.shape[lead:], wanted), start=lead):
        if after:
            widths = [(0, 0)] * pixels.ndim
            widths[axis] = (0, after)
            pixels = np.pad(pixels, widths, mode="reflect" if pixels.shape[axis] > 1 else "edge")
    return pixels
