"""What the label images of a training show, each of them read once however often is planned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.engine.prepare import (
    Factor,
    Item,
    factor_of,
    labels_are_targets,
    median_diameter,
    read_time,
    without_unknown,
)
from im2im_core.errors import DataError
from im2im_core.samples import TARGET
from im2im_core.split import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from im2im_core.recipe import Recipe
    from im2im_core.samples import Sample, Split

LOOK_AT = 200
"""Label images that the fingerprint reads, evenly chosen."""


@dataclass(frozen=True)
class Seen:
    """What the labels of one sample show, on the grid of the image."""

    highest: int
    """Largest class; instances count as classes here."""
    empty: bool
    """Nothing is labelled."""
    factor: Factor
    diameter: float | None = None
    """Median diameter of its objects, pixels."""
    whole: bool = True
    """Some object is known with all of its rim; False where unknown pixels touch each of them."""


Looks = dict[str, Seen]
"""Name of an image -> what its labels show; a block of an image is known by that image."""


def look_at_labels(recipe: Recipe, samples: tuple[Sample, ...], looks: Looks) -> dict[int, Seen]:
    """What evenly chosen label images show, by the number of the sample; nothing where targets are no labels.

    Parameters
    ----------
    looks : dict
        What was seen before, which is not read again; it takes up what is new.
    """
    if not labels_are_targets(recipe):
        return {}
    chosen = range(0, len(samples), max(1, len(samples) // LOOK_AT))
    for number in chosen:
        if image_name(samples[number]) not in looks:
            looks[image_name(samples[number])] = _see(recipe, samples[number])
    return {number: looks[image_name(samples[number])] for number in chosen}


def image_name(sample: Sample) -> str:
    """Name of the image that `sample` is, or is a block of."""
    return sample.name.removesuffix(BLOCK)


def require_whole_objects(recipe: Recipe, seen: Iterable[Seen]) -> None:
    """Refuse scribbles where the framework has to know the rims of objects.

    Raises
    ------
    DataError
        Objects are painted, but the rim of none of them is known.
    """
    painted = [s for s in seen if not s.empty]
    if not painted or any(s.whole for s in painted) or getattr(recipe.framework, "scribbles", True):
        return
    raise DataError(
        f"No object is known as a whole in any of {len(painted)} label images: unknown pixels touch all of them",
        f"Framework {recipe.framework.kind} does not learn from scribbles. Paint every object inside of a rectangle "
        'and mark it as complete ("complete inside the rectangles"), or paint background (1) all around whole '
        "objects; presets of semantic segmentation learn from scribbles",
    )


def _see(recipe: Recipe, sample: Sample) -> Seen:
    labels, unknown = _known(recipe, sample)
    factor = factor_of(Item(sample, 0), recipe, labels)
    highest = int(labels.max(initial=0))
    if recipe.task != "instance_segmentation":
        return Seen(max(highest, 1), highest == 0, factor)
    whole = unknown is None or _some_object_is_whole(labels, unknown, recipe.data.dimensions)
    return Seen(max(highest, 1), highest == 0, factor, median_diameter(labels), whole)


def _some_object_is_whole(labels: NDArray[Any], unknown: NDArray[np.bool_], dimensions: int) -> bool:
    """Whether unknown pixels leave some object alone, in planes that are seen one by one or in the volume."""
    from im2im_core.engine.frameworks.instances import beside_unknown

    labels, unknown = np.broadcast_arrays(labels, unknown)
    parts = (a.reshape(-1, *a.shape[-dimensions:]) for a in (labels, unknown))
    return any(bool(((seen > 0) & ~beside_unknown(seen, mask)).any()) for seen, mask in zip(*parts, strict=True))


def highest_class(recipe: Recipe, split: Split, looks: Looks) -> int:
    """Largest class of the images looked at; of all that train or validate where it decides the number of classes.

    A rare class may occur in a single image; what is read at a time is what preparing that image reads.
    """
    highest = max((s.highest for s in looks.values()), default=1)
    if recipe.task != "semantic_segmentation" or getattr(recipe.framework, "classes", "auto") != "auto":
        return highest
    for sample in (*split.train, *split.validation):
        first = 1 if image_name(sample) in looks else 0
        for moment in range(first, _label_times(sample)):
            highest = max(highest, int(known_labels(recipe, sample, moment).max(initial=0)))
    return highest


def any_labelled(recipe: Recipe, samples: tuple[Sample, ...], looks: Looks) -> bool:
    """Whether something is labelled in any of `samples`; true without samples, or where targets are no labels.

    Blocks count by their whole image where that was looked at; else images are read until something is found.
    """
    labelled = [sample for sample in samples if TARGET in sample.targets]
    if not labelled or not labels_are_targets(recipe):
        return True
    if any(not looks[name].empty for sample in labelled if (name := image_name(sample)) in looks):
        return True
    moments = ((sample, moment) for sample in labelled for moment in range(_label_times(sample)))
    return any(known_labels(recipe, sample, moment).any() for sample, moment in moments)


def _label_times(sample: Sample) -> int:
    """Time points whose labels can differ; none without labels."""
    if TARGET not in sample.targets:
        return 0
    longest = max(i.info.shape[0] for i in (sample.targets[TARGET], sample.weight) if i is not None)
    return min(sample.source.info.shape[0], longest)


def known_labels(recipe: Recipe, sample: Sample, time: int = 0) -> NDArray[Any]:
    """Labels ``(C, Z, Y, X)`` of a time point, in which 0 is background or unknown.

    Raises
    ------
    DataError
        They are fractional, negative, NaN or infinite where they are known.
    """
    return _known(recipe, sample, time)[0]


def _known(recipe: Recipe, sample: Sample, time: int = 0) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Labels as `known_labels`, and the mask ``(1, Z, Y, X)`` of what is unknown; None where everything is known."""
    from im2im_core.io.labels import as_labels
    from im2im_core.partial import to_learning

    target = sample.targets[TARGET]
    weight = None if sample.weight is None else read_time(sample.weight, time)[:1]
    labels = as_labels(without_unknown(read_time(target, time), weight), target.info.name)
    if recipe.data.labelling == "sparse":
        labels, painted = to_learning(labels, "sparse")
        weight = painted[:1] if weight is None else weight * painted[:1]
    return labels, None if weight is None or (weight > 0).all() else np.asarray(weight == 0)
