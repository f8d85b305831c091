"""Arrays kept in the project as an immutable data set, so that a training on them can be resumed and repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.errors import DataError
from im2im_core.image import ArrayImage, Image, content_hash
from im2im_core.samples import TARGET, Sample

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from im2im_core.project import Project
    from im2im_core.recipe import Recipe


def keep_samples(data: Iterable[Any], project: Project, recipe: Recipe) -> Path:
    """Folder with sub-folders IM, GT and CM that holds `data`; named by its content, so nothing is written twice.

    Parameters
    ----------
    data : iterable of Sample or (image, target) or (image, target, weight)
        Arrays of two dimensions are YX; of three ZYX for a 3D recipe, else ``data.axes``.
    """
    samples = [_as_sample(item, number, recipe) for number, item in enumerate(data)]
    if not samples:
        raise DataError("The list of samples is empty", "Give at least one image with its target")
    pixels = [{part: image.read() for part, image in _parts(s).items()} for s in samples]
    key = content_hash(np.frombuffer("".join(content_hash(a) for p in pixels for a in p.values()).encode(), np.uint8))
    folder = project.folder("data") / key[:16]
    if not (folder / "complete").exists():
        for sample, arrays in zip(samples, pixels, strict=True):
            _write(folder, sample, arrays)
        (folder / "complete").touch()
    return folder


def _parts(sample: Sample) -> dict[str, Image]:
    parts = {"IM": sample.source}
    if TARGET in sample.targets:
        parts["GT"] = sample.targets[TARGET]
    if sample.weight is not None:
        parts["CM"] = sample.weight
    return parts


def _write(folder: Path, sample: Sample, arrays: dict[str, Any]) -> None:
    from im2im_core.axes import from_tczyx
    from im2im_core.io import write_image

    for part, image in _parts(sample).items():
        info = image.info
        target = folder / part / f"{sample.name}.ome.zarr"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_image(
            target,
            from_tczyx(arrays[part], info.axes),
            info.axes,
            voxel_size=info.voxel_size,
            channels=info.channels,
            time_step=info.time_step,
            overwrite=True,
        )


def _as_sample(item: Any, number: int, recipe: Recipe) -> Sample:
    if isinstance(item, Sample):
        return item
    if not isinstance(item, tuple | list) or len(item) not in (2, 3):
        raise DataError(
            f"Sample {number} is a {type(item).__name__}", "Give (image, target) or (image, target, weight)"
        )
    images = [_as_image(array, recipe) for array in item]
    name = f"image_{number:04d}"
    return Sample(name, name, images[0], {TARGET: images[1]}, images[2] if len(images) == 3 else None)


def _as_image(array: Any, recipe: Recipe) -> Image:
    if isinstance(array, Image):
        return array
    from im2im_core.image import as_image

    ndim = np.ndim(array)
    if recipe.data.axes and ndim == len(recipe.data.axes):
        return ArrayImage(np.asarray(array), recipe.data.axes)
    return as_image(np.asarray(array), dimensions=recipe.data.dimensions)
