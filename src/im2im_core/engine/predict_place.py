"""From the network grid to the source grid: which pixels a finished block gives, and their values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_core.engine.blend import scaled
from im2im_core.engine.predict_plan import OutGrid, Plan
from im2im_core.rescale import interpolate, source_place
from im2im_core.stitch import intersect, shifted
from im2im_core.tiling import Slices, Tile


def place_block(
    plan: Plan, grid: OutGrid, tile: Tile, block: Slices, values: NDArray[Any]
) -> tuple[Slices, NDArray[Any]] | None:
    """Region of the output's whole grid that a block decides, and its pixels; None where it decides none.

    Parameters
    ----------
    block : slices
        Part of the network grid that `values` ``(C, Z, Y, X)`` cover, margin included.
    """
    on_map = scaled(block, grid.scale)
    if plan.source == plan.network:
        common = intersect(on_map, grid.part)
        return None if common is None else (common, values[(slice(None), *shifted(common, on_map))])
    map_shape = [s.stop for s in scaled(tuple(slice(0, n) for n in plan.network), grid.scale)]
    core = scaled(tile.inner, grid.scale)
    region: list[slice] = []
    pixels = values
    for axis in range(3):
        index = np.arange(grid.part[axis].start, grid.part[axis].stop)
        place = source_place(index, map_shape[axis], grid.whole[axis])
        mine = _owned(place, core[axis], tile.index[axis] == 0, tile.last[axis])
        if not mine.any():
            return None
        index, place = index[mine], place[mine] - on_map[axis].start
        region.append(slice(int(index[0]), int(index[-1]) + 1))
        pixels = _sampled(pixels, axis + 1, place, nearest=grid.spec.kind == "labels")
    return tuple(region), rescale_vectors(plan, grid, pixels)


def _owned(place: NDArray[np.float64], core: slice, first: bool, last: bool) -> NDArray[np.bool_]:
    """Places between a pixel of the core, or the one before it, and the next pixel of the core."""
    low = np.floor(place)
    owned: NDArray[np.bool_] = (first | (low >= core.start - 1)) & (last | (low <= core.stop - 2))
    return owned


def _sampled(pixels: NDArray[Any], axis: int, place: NDArray[np.float64], nearest: bool) -> NDArray[Any]:
    if nearest:
        index = np.minimum(np.floor(place + 0.5).astype(int), pixels.shape[axis] - 1)
        return np.asarray(pixels.take(index, axis))
    return interpolate(pixels, axis, np.clip(place, 0, pixels.shape[axis] - 1))


def rescale_vectors(plan: Plan, grid: OutGrid, pixels: NDArray[Any]) -> NDArray[Any]:
    """Displacements ``(C, …)`` in source instead of network pixels; other values as they are."""
    if grid.spec.kind != "vector" or grid.spec.channels not in (2, 3) or plan.source == plan.network:
        return pixels
    ratio = [s / n for s, n in zip(plan.source, plan.network, strict=True)][3 - grid.spec.channels :]
    return pixels * np.asarray(ratio, np.float32).reshape(-1, *[1] * (pixels.ndim - 1))
