"""Between the source grid and the network grid: factors from voxel or object size, resampling by region.

Pixel centres of two grids over the same field correspond by ``u = (v + 0.5) * n_u / n_v - 0.5``, so the
outer rims of both grids coincide. Every function here works on any part of the grid and gives the same
numbers there as for the whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from im2im_core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from im2im_core.image import VoxelSize
    from im2im_core.inference import InputDescription

TOLERANCE = 0.1
"""Images within this of the size of the training are not resampled where the training was not either."""
LIMIT = 16.0
"""A larger factor is a wrong voxel size rather than another microscope."""


@dataclass(frozen=True)
class Rescaling:
    """How much larger the network grid is than the source grid, and why."""

    factor: tuple[float, float, float]
    """Along Z, Y, X."""
    reason: str
    unsure: bool = False
    """The size of the image is not known, so that nothing could be adapted."""


def rescaling(
    trained: InputDescription,
    voxel_size: VoxelSize,
    dimensions: int,
    *,
    override: float | Literal["auto"] = "auto",
    object_diameter: float | None = None,
) -> Rescaling:
    """Factor that brings an image to the pixel size of the training.

    Parameters
    ----------
    override : float or "auto"
        Factor that the user demands.
    object_diameter : float, optional
        Object diameter in the image in pixels, as told by the user.

    Raises
    ------
    DataError
        The factor is absurd.
    """
    found = _decide(trained, voxel_size, override, object_diameter)
    z, y, x = found.factor
    found = Rescaling((1.0 if dimensions == 2 else z, y, x), found.reason, found.unsure)
    if not all(1 / LIMIT <= f <= LIMIT for f in found.factor):
        raise DataError(
            f"The image would be rescaled by {_words(found.factor)} along Z, Y, X ({found.reason})",
            "Correct the voxel size of the image, or set rescale to 1",
        )
    return found


def _decide(
    trained: InputDescription,
    voxel_size: VoxelSize,
    override: float | Literal["auto"],
    object_diameter: float | None,
) -> Rescaling:
    if override != "auto":
        return Rescaling((override,) * 3, "as told")
    if trained.rescale.kind == "object_size" or (object_diameter and trained.object_diameter):
        return _by_object(trained, object_diameter)
    target = trained.rescale.voxel_size if trained.rescale.kind == "voxel_size" else trained.voxel_size
    factor = [v / t if v and t else 1.0 for v, t in zip(voxel_size, target, strict=True)]
    if trained.rescale.kind == "none":
        factor = [f if abs(f - 1) > TOLERANCE else 1.0 for f in factor]
    z, y, x = factor
    known = all(v for v in voxel_size[1:]) or not any(target)
    reason = "voxel size" if known else "the voxel size of the image is not known"
    return Rescaling((z, y, x), reason, unsure=not known)


def _by_object(trained: InputDescription, told: float | None) -> Rescaling:
    rescale = trained.rescale
    diameter = rescale.diameter if rescale.kind == "object_size" else trained.object_diameter
    if told is None or diameter is None:
        return Rescaling((1.0, 1.0, 1.0), "the object diameter of the image is not known", unsure=True)
    factor = diameter / told
    # A training on one object size leaves the planes as they are.
    z = 1.0 if rescale.kind == "object_size" else factor
    return Rescaling((z, factor, factor), f"objects of {told:g} pixels, trained at {diameter:g}")


def _words(factor: Sequence[float]) -> str:
    return ", ".join(f"{f:.3g}" for f in factor)


def grid_shape(shape: Sequence[int], factor: Sequence[float]) -> tuple[int, int, int]:
    """Shape ``(Z, Y, X)`` of the network grid over an image of `shape`."""
    z, y, x = (max(1, round(n * f)) for n, f in zip(shape, factor, strict=True))
    return z, y, x


# ---- resampling by region ----


def source_place(target: NDArray, size_source: int, size_target: int) -> NDArray[np.float64]:
    """Fractional index in the source grid of each index of the target grid, inside the source."""
    place = (np.asarray(target, np.float64) + 0.5) * (size_source / size_target) - 0.5
    inside: NDArray[np.float64] = np.clip(place, 0, size_source - 1)
    return inside


def read_resampled(
    read: Callable[[tuple[slice, ...]], NDArray],
    shape: Sequence[int],
    grid: Sequence[int],
    region: Sequence[slice],
    order: Literal["linear", "nearest"] = "linear",
) -> NDArray:
    """Pixels ``(C, …)`` of `region` on `grid`, read from an image of `shape` on its own grid.

    Parameters
    ----------
    read : callable
        Gives the pixels ``(C, …)`` of slices along the spatial axes.
    shape, grid : sequences of int
        Sizes of the source and of the target grid along each spatial axis.
    """
    if tuple(shape) == tuple(grid):
        return read(tuple(region))
    windows = [_window(r, n, g, order) for r, n, g in zip(region, shape, grid, strict=True)]
    pixels = read(tuple(w for w, _, _ in windows))
    for axis, (_, place, sigma) in enumerate(windows, start=1):
        pixels = _along(pixels, axis, place, sigma, order)
    return pixels


def _window(region: slice, source: int, target: int, order: str) -> tuple[slice, NDArray[np.float64], float]:
    """Source slice that `region` needs, the place of each target index in it, the width of the smoothing."""
    place = source_place(np.arange(region.start, region.stop), source, target)
    # Shrinking skips pixels, so it is smoothed first, as scikit-image's resize does.
    sigma = max(0.0, (source / target - 1) / 2) if order == "linear" else 0.0
    margin = math.ceil(4 * sigma) + 1
    start = max(0, math.floor(place[0]) - margin)
    stop = min(source, math.floor(place[-1]) + margin + 2)
    return slice(start, stop), place - start, sigma


def _along(pixels: NDArray, axis: int, place: NDArray[np.float64], sigma: float, order: str) -> NDArray:
    if order == "nearest":
        # Halves go up on every grid; numpy's rounding to even would depend on the window.
        return pixels.take(np.floor(place + 0.5).astype(int), axis)
    if sigma:
        from scipy.ndimage import gaussian_filter1d

        pixels = gaussian_filter1d(pixels.astype(np.float32, copy=False), sigma, axis=axis, mode="nearest")
    return interpolate(pixels, axis, place)


def interpolate(pixels: NDArray, axis: int, place: NDArray[np.float64]) -> NDArray[np.float32]:
    """Linear interpolation along `axis` at the fractional indices `place`."""
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, pixels.shape[axis] - 1)
    share = (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(pixels.ndim)])
    below = pixels.take(low, axis).astype(np.float32, copy=False)
    above = pixels.take(high, axis).astype(np.float32, copy=False)
    mixed: NDArray[np.float32] = below + (above - below) * share
    return mixed


def resample(pixels: NDArray, grid: Sequence[int], order: Literal["linear", "nearest"] = "linear") -> NDArray:
    """Whole `pixels` ``(C, Z, Y, X)`` on `grid`; what training and prediction share."""
    spatial = pixels.shape[1:]
    whole = tuple(slice(0, n) for n in grid)
    return read_resampled(lambda region: pixels[(slice(None), *region)], spatial, grid, whole, order)
