"""Which part of an image is meant: what is visible, or what a rectangle in a Shapes layer encloses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from im2im_core.axes import AXES, Region
from im2im_core.errors import DataError

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer, Shapes

    from napari_im2im._layers import Snapshot


def visible_region(viewer: Viewer, layer: Layer, snapshot: Snapshot, dimensions: int) -> Region:
    """Part of `layer` that the canvas shows, at the time point (and, for `dimensions` 2, the plane) that is shown.

    Raises
    ------
    DataError
        The view is three-dimensional, or the layer lies outside of it.
    """
    if viewer.dims.ndisplay == 3:
        raise DataError("In the 3D view there is no visible field", "Switch to the 2D view, or predict the whole image")
    corners = np.asarray(layer.corner_pixels, float)
    if layer.multiscale:
        corners = corners * layer.downsample_factors[layer.data_level]
    here = _data_point(viewer, layer)
    axes = snapshot.placement.axes
    shown = [axes[i] for i in range(len(axes)) if i - len(axes) in _displayed(viewer)]
    spans: dict[str, tuple[float, float]] = {}
    for place, axis in enumerate(axes):
        if axis in shown:
            spans[axis] = (float(corners[0, place]), float(corners[1, place]) + 1)
        elif axis == "T" or (axis == "Z" and dimensions == 2):
            spans[axis] = (here[place], here[place] + 1)
    return _clipped(spans, snapshot, "The visible field")


def shapes_region(shapes: Shapes, layer: Layer, snapshot: Snapshot) -> Region:
    """Box around the selected shapes, else around the shape drawn last, in pixels of `layer`; all planes and times.

    Raises
    ------
    DataError
        Nothing is drawn, or it lies outside of the image.
    """
    if not len(shapes.data):
        raise DataError(f"Nothing is drawn in “{shapes.name}”", "Draw a rectangle around the part that matters")
    chosen = sorted(shapes.selected_data) or [len(shapes.data) - 1]
    points = np.concatenate([np.asarray(shapes.data[i], float) for i in chosen])
    world = np.array([shapes.data_to_world(p)[-2:] for p in points])
    lead = [0.0] * (layer.ndim - 2)
    inside = np.array([layer.world_to_data([*lead, *p])[-2:] for p in world])
    low, high = inside.min(axis=0), inside.max(axis=0)
    # A pixel belongs to the box where its centre does; centres lie at whole numbers.
    spans = {a: (math.ceil(low[i]), math.floor(high[i]) + 1.0) for i, a in enumerate("YX")}
    return _clipped(spans, snapshot, f"The rectangle in “{shapes.name}”")


def _displayed(viewer: Viewer) -> set[int]:
    """Displayed axes, counted from the last."""
    return {d - viewer.dims.ndim for d in viewer.dims.displayed}


def _data_point(viewer: Viewer, layer: Layer) -> list[int]:
    point = layer.world_to_data(viewer.dims.point)[-layer.ndim :]
    return [round(float(p)) for p in point]


def _clipped(spans: dict[str, tuple[float, float]], snapshot: Snapshot, what: str) -> Region:
    slices = []
    for axis, size in zip(AXES, snapshot.shape, strict=True):
        start, stop = spans.get(axis, (0.0, float(size)))
        first, last = max(0, math.floor(start)), min(size, math.ceil(stop))
        if first >= last:
            raise DataError(f"{what} does not touch “{snapshot.name}”", "Move it over the image, or predict all of it")
        slices.append(slice(first, last))
    t, c, z, y, x = slices
    return t, c, z, y, x
