"""Arrays and samples kept in the project as an immutable data set, so that a training on them can be repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.errors import DataError, nearest
from im2im_core.image import ArrayImage, Image
from im2im_core.samples import TARGET, Sample, Split

if TYPE_CHECKING:
    from collections.abc import Iterable

    from im2im_core.project import Project
    from im2im_core.recipe import Recipe

NAME = "given in Python"
"""Name of the data sets."""
PARTS = {"validation_names": "validation", "test_names": "test"}


def keep_samples(data: Iterable[Any] | Split, project: Project, recipe: Recipe) -> dict[str, Any]:
    """Changes of the recipe after which it reads `data` from the project; the same content is never written twice.

    Groups, parts, weights and all targets are kept. Unchanged files are referenced, everything else is stored.

    Parameters
    ----------
    data : iterable of Sample or (image, target) or (image, target, weight), or a Split
        Arrays of two dimensions are YX; of three ZYX for a 3D recipe, else ``data.axes``.

    Raises
    ------
    DataError
        Something is no sample, or two samples have the same name.
    """
    from im2im_core.datasets import save_dataset

    samples, parts = _given(data, recipe)
    if not samples:
        raise DataError("The list of samples is empty", "Give at least one image with its target")
    names = [s.name for s in samples]
    if doubled := sorted({n for n in names if names.count(n) > 1}):
        raise DataError(f"{names.count(doubled[0])} samples are called {doubled[0]!r}", "Give each a name of its own")
    parts |= _named(names, recipe)
    if recipe.data.more:  # what the settings say holds for the other folders too
        entry = save_dataset(project, NAME, samples, parts, task=recipe.task)
        return {"data.path": project.relative(entry.path), "data.layout.kind": "table"}
    labels = recipe.task in ("semantic_segmentation", "instance_segmentation")
    entry = save_dataset(project, NAME, samples, parts, recipe.data.labelling if labels else "dense", task=recipe.task)
    # What is saved needs no settings: axes are known, labels are dense, the table names the parts.
    return {
        "data.path": project.relative(entry.path),
        "data.layout.kind": "table",
        "data.axes": None,
        "data.labelling": "dense",
        **{f"data.split.{key}": [] for key in PARTS},
    }


def _given(data: Iterable[Any] | Split, recipe: Recipe) -> tuple[list[Sample], dict[str, str]]:
    """Samples, and the parts that a split gives them."""
    if not isinstance(data, Split):
        return [_as_sample(item, number, recipe) for number, item in enumerate(data)], {}
    by_part = {"train": data.train, "validation": data.validation, "test": data.test}
    return (
        [s for samples in by_part.values() for s in samples],
        {s.name: part for part, samples in by_part.items() for s in samples},
    )


def _named(names: list[str], recipe: Recipe) -> dict[str, str]:
    """Parts of the samples that the recipe names."""
    split, found = recipe.data.split, {}
    for key, part in PARTS.items():
        for name in getattr(split, key):
            if name not in names and not recipe.data.more:
                raise DataError(f"data.split.{key}: no sample is called {name!r}", nearest(name, names))
            found[name] = part
    return found


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
