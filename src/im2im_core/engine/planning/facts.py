"""The fingerprint of the images: sizes, channels, classes, voxels, objects."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.engine.planning.labels import any_labelled, highest_class, look_at_labels, require_whole_objects
from im2im_core.engine.prepare import Factor, Item, factor_of, labels_are_targets
from im2im_core.errors import ConfigError, DataError
from im2im_core.plans import Facts
from im2im_core.recipe.data import ObjectRescale
from im2im_core.rescale import grid_shape
from im2im_core.samples import TARGET, Split

if TYPE_CHECKING:
    from im2im_core.engine.planning.labels import Looks, Seen
    from im2im_core.image import ImageInfo, VoxelSize
    from im2im_core.recipe import Recipe
    from im2im_core.samples import Sample


def fingerprint(recipe: Recipe, split: Split, looks: Looks | None = None, count_classes: bool = True) -> Facts:
    """Channels and classes of the training images, and sizes as the network sees them: after rescaling.

    Parameters
    ----------
    looks : dict, optional
        What was seen in label images before; they are not read again.
    count_classes : bool
        Read all labels where their number decides the outputs, and those that validate until one has an object; else
        those looked at must do.

    Raises
    ------
    DataError
        There is nothing to train on, channels differ between images, or scribbles do not teach the framework.
    """
    samples = split.train
    if not samples:
        raise DataError("There are no training images", "Check data.path and the split")
    infos = [s.source.info for s in samples]
    targets = [s.targets[TARGET].info for s in samples if TARGET in s.targets]
    if not targets:
        raise DataError(
            f"None of the {len(samples)} images has a target",
            f"Framework {recipe.framework.kind} learns from {recipe.framework.learns_from}",
        )
    looks = {} if looks is None else looks
    seen = look_at_labels(recipe, samples, looks)
    require_whole_objects(recipe, seen.values())
    factors = _factors(recipe, samples, seen)
    shapes = [grid_shape(i.shape[2:], f) for i, f in zip(infos, factors, strict=True)]
    return Facts(
        training=len(samples),
        validation=len(split.validation),
        test=len(split.test),
        split=split.reason,
        shape=_median(shapes),
        pixels=sum(math.prod(s) * i.shape[0] for s, i in zip(shapes, infos, strict=True)),
        input_channels=_one([(i.name, i.shape[1]) for i in infos], "input channels"),
        target_channels=_one([(i.name, i.shape[1]) for i in targets], "target channels"),
        classes=highest_class(recipe, split if count_classes else Split(()), looks) + 1,
        voxel_size=_voxel_size([_divided(i.voxel_size, f) for i, f in zip(infos, factors, strict=True)]),
        object_diameter=_object_diameter(factors, seen),
        smallest=tuple(int(n) for n in np.min(shapes, axis=0)),  # type: ignore[arg-type]
        channels=_channel_names(infos),
        targets_seen=len(seen),
        targets_empty=sum(s.empty for s in seen.values()),
        validation_labelled=not count_classes or any_labelled(recipe, split.validation, looks),
    )


def _median(sizes: list[Any]) -> tuple[int, int, int]:
    z, y, x = (int(v) for v in np.median(sizes, axis=0))
    return z, y, x


def _one(values: list[tuple[str, int]], what: str) -> int:
    counts = {v for _, v in values}
    if len(counts) > 1:
        examples = ", ".join(f"{next(n for n, v in values if v == c)} has {c}" for c in sorted(counts))
        raise DataError(
            f"Images differ in their number of {what}: {examples}",
            "Choose the same ones for all with data.input_channels or data.target_channels",
        )
    return counts.pop()


def _voxel_size(sizes: list[Any]) -> tuple[float | None, float | None, float | None]:
    known = [[s for s in column if s] for column in zip(*sizes, strict=True)]
    z, y, x = (float(np.median(k)) if k else None for k in known)
    return z, y, x


def _factors(recipe: Recipe, samples: tuple[Sample, ...], seen: dict[int, Seen]) -> list[Factor]:
    """Magnification of every sample; the median where it depends on labels that were not looked at."""
    if not isinstance(recipe.data.rescale, ObjectRescale):
        return [factor_of(Item(s, 0), recipe, None) for s in samples]
    if not labels_are_targets(recipe):
        raise ConfigError(
            f"data.rescale.kind is object_size, but task {recipe.task} has no labels to measure objects in",
            "Use voxel_size or none",
        )
    z, y, x = (float(v) for v in np.median([s.factor for s in seen.values()] or [(1.0, 1.0, 1.0)], axis=0))
    return [seen[n].factor if n in seen else (z, y, x) for n in range(len(samples))]


def _divided(voxel_size: VoxelSize, factor: Factor) -> VoxelSize:
    z, y, x = (None if s is None else s / f for s, f in zip(voxel_size, factor, strict=True))
    return z, y, x


def _object_diameter(factors: list[Factor], seen: dict[int, Seen]) -> float | None:
    found = [s.diameter * math.sqrt(factors[n][1] * factors[n][2]) for n, s in seen.items() if s.diameter]
    return float(np.median(found)) if found else None


def _channel_names(infos: list[ImageInfo]) -> tuple[str, ...]:
    """Names of the input channels; empty where images do not say or differ."""
    named = {i.channels for i in infos}
    return named.pop() if len(named) == 1 else ()
