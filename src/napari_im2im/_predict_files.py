"""Files around a prediction: what is known of them before it, and their results as layers after it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.axes import from_tczyx
from im2im_core.commands.scenes import Scene
from im2im_core.errors import ResourceError
from im2im_core.object_size import look_at
from napari_im2im._layers import Placement, ResultSpec, Snapshot, add_result, is_image_layer, layer_axes, take_snapshot
from napari_im2im._predict_queue import listed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari import Viewer
    from napari.layers import Layer
    from numpy.typing import NDArray

    from im2im_core.image import Image, ImageInfo, VoxelSize
    from napari_im2im._predict_job import Result

FEW = 5
"""Up to so many results are opened as layers unasked."""
LARGEST = 2**30
"""Image and results of more bytes are not opened by us: they would fill the memory."""


# ---- before --------------------------------------------------------------------


@dataclass(frozen=True)
class FileLook:
    """What is known of files before they are predicted."""

    name: str
    """Of the first image, the only one that is looked at."""
    count: int
    """Images, as far as is known: those of the first file, and one in each of the others."""
    voxel_size: VoxelSize
    width: float | None
    """Width of the objects in it, pixels; None where it is not wanted or none stand out."""
    scenes: tuple[str, ...] = ()
    """Names of the images in the first file, where it has several."""
    alone: bool = True
    """Whether there is no other file."""

    @property
    def whose(self) -> str:
        """For example ``Judged by a.tif, the first of 12 images.``; empty for a single image."""
        return f" Judged by {self.name}, the first of {self.count} images." if self.count > 1 else ""


def look_at_files(files: Sequence[Path], *, with_width: bool) -> FileLook:
    """What the first image says; opens it, so it is not for the main thread.

    Raises
    ------
    Im2ImError
        There is no image, or it cannot be read.
    """
    from im2im_core.io import open_image

    _, pairs = listed(files)
    image = open_image(pairs[0][0])
    info = image.info
    count = len(pairs) - 1 + max(1, len(info.scenes))
    width = look_at(image) if with_width else None
    return FileLook(info.name, count, info.voxel_size, width, info.scenes, len(pairs) == 1)


# ---- after ---------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """Pixels of an image and of its results, as they go into layers."""

    path: Path
    scene: str | None
    """Name of the image in its file; None where it is the only one."""
    info: ImageInfo
    pixels: NDArray[Any]
    """With the axes of the image."""
    limits: tuple[float, float]
    results: tuple[tuple[dict[str, Any], str, NDArray[Any]], ...]
    """How each result is shown, its file, and its ``(T, C, Z, Y, X)`` pixels."""


def read_results(source: Path | Scene, result: Result) -> Opened:
    """Pixels of an image and of its results; not for the main thread.

    Raises
    ------
    Im2ImError
        A file cannot be read, or they are too large together.
    """
    from im2im_core.io import open_image

    path = source.path if isinstance(source, Scene) else source
    scene = source.name if isinstance(source, Scene) else None
    image = open_image(path, scene=scene or 0)
    facts = {str(layer["name"]): layer for layer in result.layers}
    files = {name: open_image(file) for name, file in result.paths.items() if name in facts}
    needed = sum(_bytes(each) for each in (image, *files.values()))
    if needed > LARGEST:
        folder = next(iter(result.paths.values()), "the folder")
        raise ResourceError(
            f"{image.info.name} and its results take {needed / 2**30:.1f} GB, so they are not opened",
            f"Drag {folder} into napari to look at parts of it",
        )
    pixels = from_tczyx(image.read(), image.info.axes)
    results = tuple((facts[name], str(result.paths[name]), file.read()) for name, file in files.items())
    return Opened(path, scene, image.info, pixels, _limits(pixels), results)


def add_opened(viewer: Viewer, opened: Opened, model: str, facts: dict[str, Any]) -> tuple[Snapshot, list[Layer]]:
    """New layers of the results, and what they were made from: the image, opened where it is not open yet."""
    source = _open_already(viewer, opened) or _add_image(viewer, opened)
    layers = []
    for number, (told, file, pixels) in enumerate(opened.results):
        spec = ResultSpec.from_facts(told)
        more = {"main": number == 0, "kind": spec.kind, "file": file, "finished": True, **dict(told.get("facts") or {})}
        layers.append(add_result(viewer, pixels, spec, source, model, {**facts, **more}))
    return source, layers


def _bytes(image: Image) -> int:
    return math.prod(image.info.shape) * image.info.dtype.itemsize


def _limits(pixels: NDArray[Any]) -> tuple[float, float]:
    """Contrast of a part of the pixels, read in the thread so that napari need not."""
    few = pixels[(..., *(slice(None, None, max(1, n // 256)) for n in pixels.shape[-2:]))]
    low, high = np.nanpercentile(few.astype(np.float32), (0.5, 99.8)) if few.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-6))


def _open_already(viewer: Viewer, opened: Opened) -> Snapshot | None:
    """Snapshot of the layer that was opened from the same file, where there is one with the same dimensions.

    Of a file with several scenes nothing says which of them a layer shows.
    """
    for layer in viewer.layers if opened.scene is None else ():
        if is_image_layer(layer) and layer.source.path and str(layer.source.path) == str(opened.path):
            known = layer_axes(layer) is not None
            snapshot = take_snapshot([layer], copy=False) if known else None
            if snapshot is not None and snapshot.shape == opened.info.shape:
                # The results are placed in the units of the file, whatever units the layer has.
                return replace(snapshot, voxel_size=opened.info.voxel_size, time_step=opened.info.time_step)
    return None


def _add_image(viewer: Viewer, opened: Opened) -> Snapshot:
    info = opened.info
    sizes = {**dict(zip("ZYX", info.voxel_size, strict=True)), "T": info.time_step}
    place = Placement(
        info.axes,
        tuple(sizes.get(a) or 1.0 for a in info.axes),
        (0.0,) * len(info.axes),
        tuple("pixel" if not sizes.get(a) else "second" if a == "T" else "micrometer" for a in info.axes),
    )
    layer = viewer.add_image(
        opened.pixels,
        name=info.name,
        scale=place.scale,
        units=place.units,
        axis_labels=tuple(a.lower() for a in info.axes),
        contrast_limits=opened.limits,
        rgb=False,
        metadata={"axes": info.axes, "channels": list(info.channels), "file": str(opened.path)},
    )
    return Snapshot(
        layer.name, info.axes, (opened.pixels,), place, info.voxel_size, info.channels, info.time_step, opened.path
    )
