"""Sample images for File > Open Sample: simulated, the same each time, without a network."""

from __future__ import annotations

import sys
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from im2im_core.image import VoxelSize

    LayerTuple = tuple[Any, dict[str, Any], str]
    Sample = Callable[[], list[LayerTuple]]

SEED = 20
PLANE = (384, 384)
STACK = (20, 160, 160)
FRAMES = 12
FRAME = (192, 192)
CORNER = 96
"""Width of the painted corner, pixels."""
FAINT = 6.0
"""Photons per pixel of the low-light image."""


def _kept_safe(sample: Sample) -> Sample:
    """The same sample; where a viewer opens it, what is painted there is journaled from now on."""

    @wraps(sample)
    def opened() -> list[LayerTuple]:
        if "napari._qt.qt_main_window" in sys.modules:  # scripts read samples without a window
            from napari_im2im._panels import watch_soon

            watch_soon()
        return sample()

    return opened


@_kept_safe
def nuclei_2d() -> list[LayerTuple]:
    """Nuclei in fluorescence with the number of each."""
    from im2im_core.microscope import fluorescence

    seen = fluorescence(PLANE, seed=SEED)
    space = _space(seen.axes, seen.voxel_size)
    return [_image(seen.image, "nuclei", space), _labels(seen.labels, "nuclei labels", space)]


@_kept_safe
def nuclei_3d() -> list[LayerTuple]:
    """A stack of nuclei with the number of each; planes are three pixels apart."""
    from im2im_core.microscope import fluorescence

    seen = fluorescence(STACK, seed=SEED)
    space = _space(seen.axes, seen.voxel_size)
    return [_image(seen.image, "nuclei 3D", space), _labels(seen.labels, "nuclei 3D labels", space)]


@_kept_safe
def painted_corner() -> list[LayerTuple]:
    """Nuclei of which only a corner is labelled: complete inside the rectangle, unknown elsewhere."""
    from im2im_core.microscope import fluorescence

    seen = fluorescence(PLANE, seed=SEED + 1)
    space = _space(seen.axes, seen.voxel_size)
    rectangle = np.array([[0, 0], [0, CORNER], [CORNER, CORNER], [CORNER, 0]], float)
    region = {
        **space,
        "name": "complete regions",
        "shape_type": "rectangle",
        "edge_color": "yellow",
        "face_color": "transparent",
        "edge_width": 1,
        "metadata": {"complete_regions": True},
    }
    return [
        _image(seen.image, "nuclei to learn", space),
        _labels(_paint(seen.labels), "painted labels", space, "sparse"),
        ([rectangle], region, "shapes"),
    ]


def _paint(labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Sparse labels of what touches the corner: 0 unknown, 1 background, 2 and more are nuclei.

    Nuclei at the rim of the rectangle are painted whole, as a person would; a stroke of background runs beyond it.
    """
    inside = np.unique(labels[:CORNER, :CORNER])
    painted = np.where(np.isin(labels, inside[inside > 0]), labels + 1, 0).astype(np.uint32)
    stroke = labels[CORNER // 2, CORNER:] == 0
    painted[CORNER // 2, CORNER:][stroke] = 1
    return painted


@_kept_safe
def living_nuclei() -> list[LayerTuple]:
    """A time-lapse of nuclei that move and divide, with labels that follow them."""
    from im2im_core.microscope import timelapse

    seen = timelapse(FRAMES, FRAME, SEED, cycle=12)
    space = _space(seen.axes, seen.voxel_size, seen.time_step)
    return [_image(seen.image, "living nuclei", space), _labels(seen.labels, "living nuclei labels", space)]


@_kept_safe
def label_free() -> list[LayerTuple]:
    """Transmitted light and the fluorescence of the same nuclei."""
    from im2im_core.microscope import fluorescence

    seen = fluorescence(PLANE, seed=SEED + 2)
    space = _space(seen.axes, seen.voxel_size)
    return [
        _image(seen.clean, "fluorescence", space, colormap="green", blending="additive"),
        _image(seen.transmitted, "transmitted light", space),
    ]


@_kept_safe
def low_light_pair() -> list[LayerTuple]:
    """An image with few photons and the clean image of the same nuclei."""
    from im2im_core.microscope import fluorescence, low_light

    seen = fluorescence(PLANE, seed=SEED + 3)
    space = _space(seen.axes, seen.voxel_size)
    return [
        _image(seen.clean, "clean", space),
        _image(low_light(seen, FAINT, SEED), "low light", space),
    ]


# ---- layers --------------------------------------------------------------------


def _space(axes: str, voxel_size: VoxelSize, time_step: float | None = None) -> dict[str, Any]:
    """Scale, units and axis names of a layer with `axes`."""
    sizes: dict[str, float | None] = {"T": time_step, **dict(zip("ZYX", voxel_size, strict=True))}
    return {
        "scale": tuple(sizes[a] or 1.0 for a in axes),
        "units": tuple("second" if a == "T" else "micrometer" for a in axes),
        "axis_labels": tuple(a.lower() for a in axes),
    }


def _image(pixels: NDArray[Any], name: str, space: dict[str, Any], **look: Any) -> LayerTuple:
    return pixels, {**space, "name": name, "metadata": {"simulated": True}, **look}, "image"


def _labels(pixels: NDArray[Any], name: str, space: dict[str, Any], labelling: str = "dense") -> LayerTuple:
    return pixels, {**space, "name": name, "metadata": {"simulated": True, "labelling": labelling}}, "labels"
