"""Maps of tiles become maps of the image, as soon as every tile that has a say in a part has spoken."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_core.stitch import intersect, shifted
from im2im_core.tiling import Blending, Slices, Tile, axis_weight

Maps = Mapping[str, NDArray[Any]]
Scale = tuple[Fraction, Fraction, Fraction]
UNIT: Scale = (Fraction(1), Fraction(1), Fraction(1))


def scaled(region: Slices, scale: Sequence[Fraction]) -> Slices:
    """`region` of the network grid on the grid of a map; a dropped axis (scale 0) has one element."""
    return tuple(
        slice(int(r.start * s), -int(-r.stop * s // 1)) if s else slice(0, 1)
        for r, s in zip(region, scale, strict=True)
    )


class Blender:
    """Joins the tiles of one volume, given in order, last axis fastest.

    A finished block is the inner part of a tile, `margin` pixels larger at its near side so that it can
    be interpolated. Only the strips that neighbours share are kept: memory is that of one row of seams.

    Parameters
    ----------
    overlap : sequence of int
        Pixels along each axis over which neighbours are mixed.
    scales : mapping, optional
        Size of each map relative to the network grid, 0 along a dropped axis.
    """

    def __init__(
        self,
        overlap: Sequence[int],
        blending: Blending,
        *,
        margin: Sequence[int] | None = None,
        scales: Mapping[str, Scale] | None = None,
    ) -> None:
        self._overlap = tuple(overlap)
        self._margin = tuple(margin or [0] * len(overlap))
        self._blending = blending
        self._scales = dict(scales or {})
        self._waiting: dict[tuple[int, ...], list[tuple[Slices, dict[str, NDArray[Any]]]]] = {}

    def add(self, tile: Tile, maps: Maps) -> tuple[Slices, dict[str, NDArray[np.float32]]]:
        """Region on the network grid and finished maps ``(C, Z, Y, X)`` there."""
        self._share(tile, maps)
        region = self.block(tile)
        pieces = [*self._waiting.pop(tile.index, []), self._piece(tile, maps, region)]
        return region, {name: self._sum(name, region, pieces) for name in maps}

    def block(self, tile: Tile) -> Slices:
        """Part that is finished once `tile` is added."""
        return tuple(
            slice(s.start - (m if i else 0), s.stop)
            for s, m, i in zip(tile.inner, self._margin, tile.index, strict=True)
        )

    def _share(self, tile: Tile, maps: Maps) -> None:
        """Keep what later neighbours will need of this tile."""
        for step in itertools.product((0, 1), repeat=len(tile.index)):
            ends = any(d and last for d, last in zip(step, tile.last, strict=True))
            if not any(step) or ends:
                continue
            index = tuple(i + d for i, d in zip(tile.index, step, strict=True))
            zone = tuple(
                slice(s.stop - m, s.stop + o) if d else slice(s.start - (m if i else 0), s.stop)
                for s, o, m, d, i in zip(tile.inner, self._overlap, self._margin, step, tile.index, strict=True)
            )
            if all(s.stop > s.start for s in zone):
                self._waiting.setdefault(index, []).append(self._piece(tile, maps, zone))

    def _piece(self, tile: Tile, maps: Maps, zone: Slices) -> tuple[Slices, dict[str, NDArray[Any]]]:
        """Weighted maps of `tile` over `zone`."""
        written = intersect(tile.written(self._overlap), zone)
        if written is None:
            return zone, {}
        parts = {}
        for name, values in maps.items():
            scale = self._scales.get(name, UNIT)
            part = scaled(written, scale)
            cut = values[(slice(None), *shifted(part, scaled(tile.outer, scale)))]
            parts[name] = self._weighted(tile, cut, part, scale)
        return written, parts

    def _weighted(self, tile: Tile, cut: NDArray[Any], part: Slices, scale: Scale) -> NDArray[np.float32]:
        inner, full = scaled(tile.inner, scale), scaled(tile.written(self._overlap), scale)
        for axis in range(len(part)):
            overlap = int(self._overlap[axis] * scale[axis])
            if not overlap:
                continue
            weight = axis_weight(inner[axis], full[axis], tile.index[axis] == 0, overlap, self._blending)
            weight = weight[part[axis].start - full[axis].start : part[axis].stop - full[axis].start]
            if (weight != 1).any():
                shape = [1] * cut.ndim
                shape[axis + 1] = -1
                cut = cut * weight.reshape(shape)
        return cut

    def _sum(
        self, name: str, region: Slices, pieces: list[tuple[Slices, dict[str, NDArray[Any]]]]
    ) -> NDArray[np.float32]:
        scale = self._scales.get(name, UNIT)
        target = scaled(region, scale)
        own = pieces[-1][1][name]
        if len(pieces) == 1:
            return np.asarray(own, np.float32)
        total = np.zeros((len(own), *(s.stop - s.start for s in target)), np.float32)
        for place, parts in pieces:
            common = intersect(scaled(place, scale), target)
            if name in parts and common:
                inside = shifted(common, scaled(place, scale))
                total[(slice(None), *shifted(common, target))] += parts[name][(slice(None), *inside)]
        return total
