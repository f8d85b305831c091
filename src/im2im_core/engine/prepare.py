"""Deterministic work on one image, done once: read, rescale, measure, encode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.errors import DataError
from im2im_core.image import ArrayImage, Image
from im2im_core.normalize import Scaling, fill_invalid, measure
from im2im_core.recipe.data import ObjectRescale, VoxelRescale
from im2im_core.rescale import grid_shape, resample
from im2im_core.samples import TARGET, Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.engine.frameworks.contract import Framework
    from im2im_core.recipe import Recipe

KNOWN = 0.999
"""Part of an interpolated pixel that must come from known ones for it to be known."""
Factor = tuple[float, float, float]
"""Magnification from the source grid to the network grid along Z, Y, X."""


@dataclass(frozen=True)
class Item:
    """One time point of one sample: what becomes one entry of the cache."""

    sample: Sample
    time: int
    validation: bool = False

    @property
    def name(self) -> str:
        """Name of the sample, with the time point where there are several."""
        return self.sample.name if self.sample.source.info.shape[0] == 1 else f"{self.sample.name}@{self.time}"


@dataclass(frozen=True)
class Entry:
    """Prepared arrays of one item: raw ``source`` (C, Z, Y, X), encoded targets, perhaps ``weight`` and ``truth``."""

    name: str
    arrays: dict[str, NDArray[Any]]
    scaling: Scaling

    @property
    def shape(self) -> tuple[int, int, int]:
        """Size along Z, Y, X on the network grid."""
        z, y, x = self.arrays["source"].shape[1:]
        return z, y, x


def items_of(samples: tuple[Sample, ...], validation: bool = False) -> list[Item]:
    """One item per sample and time point."""
    return [Item(s, t, validation) for s in samples for t in range(s.source.info.shape[0])]


def read_time(image: Image, time: int) -> NDArray[Any]:
    """Pixels ``(C, Z, Y, X)`` of one time point; an image with a single time point serves all."""
    t = min(time, image.info.shape[0] - 1)
    _, c, z, y, x = image.info.shape
    pixels: NDArray[Any] = image.read((slice(t, t + 1), slice(0, c), slice(0, z), slice(0, y), slice(0, x)))[0]
    return pixels


def labels_are_targets(recipe: Recipe) -> bool:
    """Whether targets are labels (classes or instances) and not pixel values."""
    return recipe.task in ("semantic_segmentation", "instance_segmentation")


def prepare(item: Item, recipe: Recipe, framework: Framework, target_scaling: Scaling | None) -> Entry:
    """Entry of one item: everything that is the same in every epoch.

    Raises
    ------
    DataError
        NaN or infinite pixels where the recipe says so, or labels that are none.
    """
    data = recipe.data
    name = item.sample.source.info.name
    pixels = _checked(name, read_time(item.sample.source, item.time), data.invalid_pixels)
    scaling = measure(ArrayImage(pixels, "CZYX", name=name), data.normalization, 0, data.invalid_pixels)
    source = fill_invalid(pixels)
    targets, weight = _targets(item, recipe)
    factor = factor_of(item, recipe, targets.get(TARGET) if labels_are_targets(recipe) else None)
    if factor != (1.0, 1.0, 1.0):
        grid = grid_shape(source.shape[1:], factor)
        order = "nearest" if labels_are_targets(recipe) else "linear"
        source = resample(source.astype(np.float32), grid, "linear")
        targets = {n: resample(a, grid, order) for n, a in targets.items()}  # type: ignore[arg-type]
        weight = None if weight is None else _resampled_weight(weight, grid, order)
    if not labels_are_targets(recipe) and target_scaling is not None:
        targets = {n: target_scaling.apply(a) for n, a in targets.items()}
    arrays = {"source": np.ascontiguousarray(source), **framework.encode(targets, weight)}
    if weight is not None:
        arrays.setdefault("weight", weight)
    if item.validation:
        arrays["truth"] = targets[TARGET]
    return Entry(item.name, arrays, scaling)


def _checked(name: str, pixels: NDArray[Any], policy: str) -> NDArray[Any]:
    """`pixels` unless they contain NaN or infinities and the policy calls that an error."""
    if policy == "error" and pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        count = int((~np.isfinite(pixels)).sum())
        raise DataError(
            f"{name} has {count} NaN or infinite pixels",
            "Mend the image, or let such pixels be filled: data.invalid_pixels = fill",
        )
    return pixels


def _resampled_weight(weight: NDArray[np.float32], grid: tuple[int, int, int], order: str) -> NDArray[np.float32]:
    """Weight on the network grid; a target mixed from unknown pixels is unknown."""
    result = np.asarray(resample(weight, grid, "nearest"), np.float32)
    if order == "linear":
        result[resample((weight > 0).astype(np.float32), grid, "linear") < KNOWN] = 0
    return result


def _targets(item: Item, recipe: Recipe) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32] | None]:
    """Targets ``(C, Z, Y, X)`` by name, 0 where unknown, and the weight ``(1, Z, Y, X)`` of the source, or None."""
    from im2im_core.io.labels import as_labels
    from im2im_core.partial import to_learning

    weight = _weight(item)
    targets = {}
    for name, image in item.sample.targets.items():
        pixels = without_unknown(read_time(image, item.time), weight)
        if labels_are_targets(recipe):
            pixels = as_labels(pixels, image.info.name)
            if recipe.data.labelling == "sparse":
                pixels, known = to_learning(pixels, "sparse")
                weight = known[:1] if weight is None else weight * known[:1]
        else:
            # Filled before anything is resampled: a single NaN would spread over a whole window.
            pixels = fill_invalid(_checked(image.info.name, pixels, recipe.data.invalid_pixels))
        targets[name] = pixels
    return targets, None if weight is None else _for_all_planes(weight, item.sample.source.info.shape[2])


def _for_all_planes(weight: NDArray[np.float32], depth: int) -> NDArray[np.float32]:
    """`weight` with `depth` planes; a single one, which layouts allow, holds for all."""
    return np.repeat(weight, depth, axis=1) if weight.shape[1] == 1 < depth else weight


def _weight(item: Item) -> NDArray[np.float32] | None:
    image = item.sample.weight
    if image is None:
        return None
    weight = read_time(image, item.time)[:1].astype(np.float32)
    if not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise DataError(
            f"{image.info.name} has weights that are negative, NaN or infinite",
            "Weights are finite and not negative; 0 is unknown",
        )
    return weight


def without_unknown(pixels: NDArray[Any], weight: NDArray[Any] | None) -> NDArray[Any]:
    """`pixels` with 0 where the weight is 0, so that nothing later can look at what stands there.

    A single plane of either stands for all of the other: a pixel of it is known where any of them is.
    """
    if weight is None:
        return pixels
    known = np.asarray(weight > 0)
    if known.shape[1] != pixels.shape[1]:
        known = np.asarray(known.any(axis=1, keepdims=True))
    return pixels if known.all() else np.where(known, pixels, np.zeros((), pixels.dtype))


def factor_of(item: Item, recipe: Recipe, labels: NDArray[Any] | None) -> Factor:
    """Magnification of one item to the voxel or object size of the recipe.

    Raises
    ------
    DataError
        The voxel size of the image is not known.
    """
    rescale = recipe.data.rescale
    if isinstance(rescale, VoxelRescale):
        size = item.sample.source.info.voxel_size
        if None in size[-recipe.data.dimensions :]:
            raise DataError(f"{item.name} has no voxel size", "Set data.voxel_size, or data.rescale.kind to none")
        z, y, x = ((s or w) / w for s, w in zip(size, rescale.voxel_size, strict=True))
        return (z if recipe.data.dimensions == 3 else 1.0), y, x
    if isinstance(rescale, ObjectRescale) and labels is not None and (found := median_diameter(labels)):
        factor = rescale.diameter / found
        return 1.0, factor, factor
    return 1.0, 1.0, 1.0


def median_diameter(labels: NDArray[Any]) -> float | None:
    """Median diameter of the objects in Y and X, pixels, as of discs of the same area; None without objects.

    In 3D the plane in which an object is largest counts.
    """
    planes = labels.reshape(-1, *labels.shape[-2:])
    ids, compact = np.unique(planes, return_inverse=True)
    compact = compact.reshape(planes.shape)
    areas = np.zeros(len(ids))
    for plane in compact:
        areas = np.maximum(areas, np.bincount(plane.ravel(), minlength=len(ids)))
    areas = areas[ids > 0]
    return float(np.median(np.sqrt(4 * areas / np.pi))) if len(areas) else None
