"""Instances by clustered embeddings: every pixel points at the centre of its object and says how far that reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from im2im_core.engine.frameworks.contract import (
    Batch,
    OutputSpec,
    TargetSpec,
    TrainContext,
    TranslateContext,
)
from im2im_core.engine.frameworks.instances import InstanceFramework, beside_unknown, tidy
from im2im_core.engine.seed_clusters import REACH, cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from im2im_core.inference import Shapes
    from im2im_core.recipe.framework import EmbedSegDecoding, EmbedSegSettings

USUAL = 20.0
"""Diameter of the objects, pixels, where nobody says."""
FARTHEST = 8.0
"""Largest offset that the network can predict, in diameters."""
STEP = 1 / 8
"""Offset of a network output of 1, in diameters: fresh weights leave pixels near their place."""
SHARPER = 0.5
"""Logarithm of the precision of a network output of 1: fresh weights leave margins near the usual one."""
WIDEST = 8.0
"""Largest logarithm of a precision, up or down: a margin between a 55th of the usual one and 55 times it."""
MARGIN = 0.25
"""How far beyond an object its overlap is looked at, in sizes of its bounding box."""
BINS = 256
"""Errors are sorted into that many bins; what is left of the order within a bin does not matter."""
LEAST_HALO = 48
"""Pixels around a block that decide on its objects, at least."""


class EmbedSeg(InstanceFramework):
    """Offsets to object centres, the margin around each centre, and a seediness: clustered greedily at prediction.

    For a pixel at x the network predicts an offset o, a margin σ and a seediness. In training each object is
    compared with the set of pixels whose embedding x + o lies within the object's mean margin of its true centre,
    by the Lovász hinge of their overlap; the seediness learns how near a pixel came (Neven et al. 2019; Lalit et
    al. 2022 for medoids and volumes). Distances are measured in pixels of equal width along all axes.

    One way up of the network makes all channels, unless it is branched as the original is: the last layer keeps
    them apart, and a second way up costs half a step more.

    Parameters
    ----------
    settings : EmbedSegSettings
    make_network : callable
        ``make_network(in_channels, out_channels)`` builds the network; several numbers are as many branches.
    shapes : Shapes
    """

    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"foreground": (0.25, 0.4, 0.5, 0.6), "seed": (0.5, 0.7, 0.9)}

    def __init__(self, settings: EmbedSegSettings, make_network: Callable[[int, Any], Any], shapes: Shapes) -> None:
        super().__init__()
        self.settings = settings
        self.shapes = shapes
        d = shapes.dimensions
        self.margins = d if settings.sigmas == "per_axis" else 1
        self.diameter = USUAL if settings.diameter == "auto" else settings.diameter
        depth = 1.0 if settings.anisotropy == "auto" else settings.anisotropy
        self.spacing = (depth, 1.0, 1.0)[-d:]
        branches = (d + self.margins, 1)
        self.network = make_network(shapes.input_channels, branches if settings.branched else sum(branches))
        self.targets = (
            TargetSpec("objects", 1, np.int32, "nearest"),
            TargetSpec("centre", d, np.float16, "nearest"),
        )
        self.outputs = (
            OutputSpec("seediness", "probability", 1),
            OutputSpec("offset", "vector", d),
            OutputSpec("sigma", "image", self.margins),
        )
        self.results = (OutputSpec("labels", "labels", 1), *self.outputs)
        self.decode_halo = max(LEAST_HALO, round(2 * self.diameter))

    # ---- learning ----

    def encode_labels(self, labels: NDArray[Any], unknown: NDArray[np.bool_] | None) -> dict[str, NDArray[Any]]:
        """Object numbers and the offset to the centre of the own object, pixels along [Z], Y, X.

        Numbers are negative where the centre cannot be told: in objects beside an unknown region.
        """
        deep = (1.0,) * (3 - len(self.spacing)) + self.spacing
        numbers, offsets = centre_offsets(labels, deep, self.settings.centre)
        if unknown is not None:
            numbers = np.where(beside_unknown(labels, unknown), -numbers, numbers)
        return {"objects": numbers[None], "centre": offsets[-self.shapes.dimensions :].astype(np.float16)}

    def loss_weights(self) -> dict[str, float]:
        s = self.settings
        return {"instance": s.instance_weight, "variance": s.variance_weight, "seed": s.seed_weight}

    def losses(self, batch: Batch, player: str, context: TrainContext) -> dict[str, Tensor]:
        """Lovász hinge of every object, variance of its margins, squared error of the seediness."""
        offset, log_precision, seediness = self._predict(batch["source"])
        weight = batch["weight"]
        # Where a pixel is unknown its target may be anything, NaN included: it must not be looked at.
        numbers = torch.where(weight > 0, batch["objects"], 0)
        objects = find_objects(numbers, batch["centre"], batch.get("motion"), self.spacing)
        point = _flat(offset) + positions(numbers, self.spacing)
        flat = weight.flatten()
        log_precision = _flat(log_precision)
        middle, variance = objects.mean_and_variance(log_precision, flat)
        owner, place = windows(objects, numbers.shape[2:])
        own = objects.map[place] == owner
        near = self._nearness(point, middle, objects, owner, place)
        hinge = lovasz_hinge(near, own, flat[place], owner, objects.total)
        target = torch.zeros_like(flat)
        target[place[own]] = near.detach()[own]
        return {
            "instance": hinge,
            "variance": variance,
            "seed": self._seed_loss(seediness.flatten(), target, numbers.flatten(), flat),
        }

    def _predict(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Offsets in isotropic pixels, logarithm of 1/σ² relative to the usual margin, seediness."""
        d = self.shapes.dimensions
        raw = self.network(x).float()
        reach, unit = FARTHEST * self.diameter, STEP * self.diameter
        offset = reach * torch.tanh(raw[:, :d] * (unit / reach))
        log_precision = (SHARPER * raw[:, d : d + self.margins]).clamp(-WIDEST, WIDEST)
        return offset, log_precision, torch.sigmoid(raw[:, -1:])

    @property
    def _usual_sigma(self) -> float:
        """Margin with which an object of the usual diameter is its own cluster without any offset."""
        return self.diameter / 2 / REACH

    def _nearness(self, point: Tensor, middle: Tensor, objects: Objects, owner: Tensor, place: Tensor) -> Tensor:
        """Gaussian of the margin of each `owner` around its centre, at the embedding of each pixel in `place`."""
        sharpness = torch.exp(middle) / (2 * self._usual_sigma**2)
        distance = torch.zeros((), device=point.device)
        for axis, values in enumerate(point):
            away = values[place] - objects.centre[axis][owner]
            distance = distance + away.square() * sharpness[min(axis, self.margins - 1)][owner]
        return torch.exp(-distance)

    def _seed_loss(self, seediness: Tensor, target: Tensor, numbers: Tensor, weight: Tensor) -> Tensor:
        """Mean squared difference; objects whose centre is not known are left out."""
        known = torch.where(numbers < 0, 0, weight)
        factor = torch.where(numbers > 0, self.settings.foreground_weight, 1.0)
        return (known * factor * (seediness - target).square()).sum() / known.sum().clamp(min=1e-6)

    # ---- predicting ----

    def translate(self, x: Tensor, context: TranslateContext) -> dict[str, Tensor]:
        """Seediness, offset in pixels along [Z], Y, X, and margin in isotropic pixels."""
        offset, log_precision, seediness = self._predict(x)
        spacing = offset.new_tensor(self.spacing).reshape(-1, *(1,) * len(self.spacing))
        sigma = self._usual_sigma * torch.exp(-0.5 * log_precision)
        return {"seediness": seediness, "offset": offset / spacing, "sigma": sigma}

    def decode(self, maps: Mapping[str, NDArray[Any]], decoding: EmbedSegDecoding) -> NDArray[np.uint32]:
        """Labels of the clusters around the best seeds."""
        labels = cluster(
            np.asarray(maps["seediness"][0], np.float32),
            np.asarray(maps["offset"], np.float32),
            np.asarray(maps["sigma"], np.float32),
            self.spacing,
            decoding.foreground,
            decoding.seed,
            decoding.min_size,
        )
        return tidy(labels, decoding.min_size, decoding.fill_holes)


# ---- centres of labels (Z, Y, X) ----


def centre_offsets(
    labels: NDArray[Any], spacing: tuple[float, ...], centre: str
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Numbers 1…n of the objects, and the offset ``(3, Z, Y, X)`` from each of their pixels to their centre, pixels.

    Parameters
    ----------
    spacing : tuple of float
        Isotropic pixels per pixel along Z, Y, X.
    centre : "medoid" or "centroid"
        The centroid is the mean of an object's pixels; the medoid that pixel of it which is nearest to their
        geometric median.
    """
    place = np.flatnonzero(labels)
    numbers, offsets = np.zeros(labels.size, np.int32), np.zeros((3, labels.size), np.float32)
    if len(place):
        ids, owner = np.unique(labels.ravel()[place], return_inverse=True)
        numbers[place] = owner + 1
        scale = np.array(spacing, np.float64)[:, None]
        points = np.stack(np.unravel_index(place, labels.shape)) * scale
        middle = _medoids(points, owner, len(ids)) if centre == "medoid" else _means(points, owner, len(ids))
        offsets[:, place] = (middle[:, owner] - points) / scale
    return numbers.reshape(labels.shape), offsets.reshape(3, *labels.shape)


def _means(
    points: NDArray[np.float64], owner: NDArray[Any], count: int, weight: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Mean point ``(D, count)`` of each owner."""
    total = np.bincount(owner, weight, count)
    sums = [np.bincount(owner, axis if weight is None else axis * weight, count) for axis in points]
    return np.stack(sums) / total


def _medoids(points: NDArray[np.float64], owner: NDArray[Any], count: int, rounds: int = 10) -> NDArray[np.float64]:
    """Point of each owner that is nearest to their geometric median (Weiszfeld 1937), all owners at once."""
    middle = _means(points, owner, count)
    for _ in range(rounds):
        # Half a pixel keeps the weight of a point that is hit finite.
        distance = np.sqrt(((points - middle[:, owner]) ** 2).sum(0) + 0.25)
        middle = _means(points, owner, count, 1 / distance)
    away = ((points - middle[:, owner]) ** 2).sum(0)
    order = np.lexsort((away, owner))
    nearest = order[np.searchsorted(owner[order], np.arange(count))]
    return points[:, nearest]


# ---- objects of a batch; pixels of all its samples are numbered through ----


class Objects(NamedTuple):
    """All objects of a batch that have a centre."""

    total: int
    """How many there are."""
    place: Tensor
    """Flat index ``(M,)`` of each of their pixels."""
    owner: Tensor
    """Object ``(M,)`` of each of their pixels, from 0."""
    map: Tensor
    """Object of every pixel of the batch, flat; -1 = none."""
    centre: Tensor
    """``(D, total)`` in isotropic pixels."""
    sample: Tensor
    """Sample ``(total,)`` of the batch that each is in."""
    low: Tensor
    """First pixel ``(total, D)`` of the bounding box."""
    high: Tensor
    """Last pixel ``(total, D)`` of the bounding box."""

    def mean(self, values: Tensor, weight: Tensor) -> Tensor:
        """Mean ``(C, total)`` of values ``(C, M)`` of the pixels of each object, by weight ``(M,)``."""
        total = weight.new_zeros(self.total).index_add(0, self.owner, weight)
        sums = values.new_zeros(len(values), self.total).index_add(1, self.owner, values * weight)
        return sums / total

    def mean_and_variance(self, values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``(C, total)`` of values ``(C, N)`` in each object, and the variance around it, mean over objects.

        Values are logarithms of a precision; the variance is that of a tenth of them, as in the paper.
        """
        own, by = values[:, self.place], weight[self.place]
        mean = self.mean(own, by)
        around = (own - mean.detach()[:, self.owner]).square()
        return mean, self.mean(around, by).sum() / max(self.total * len(values), 1) / 100


def _flat(maps: Tensor) -> Tensor:
    """``(C, N)`` of maps ``(B, C, [Z], Y, X)``."""
    return maps.movedim(1, 0).flatten(1)


def positions(numbers: Tensor, spacing: tuple[float, ...]) -> Tensor:
    """Place ``(D, N)`` of every pixel in its sample, isotropic pixels."""
    axes = [torch.arange(n, device=numbers.device) * s for n, s in zip(numbers.shape[2:], spacing, strict=True)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")).float()
    return grid.flatten(1).repeat(1, len(numbers))


def find_objects(numbers: Tensor, offsets: Tensor, motion: Tensor | None, spacing: tuple[float, ...]) -> Objects:
    """Objects with positive `numbers` ``(B, 1, [Z], Y, X)``.

    Parameters
    ----------
    offsets : tensor (B, D, [Z], Y, X)
        To the centre, pixels of the image that the patch is from.
    motion : tensor (B, D, D), optional
        From offsets in the patch to those in the image.
    """
    grid = numbers.shape[2:]
    flat = numbers.flatten().long()
    place = (flat > 0).nonzero()[:, 0]
    sample = place // grid.numel()
    # The same number in two samples is two objects.
    key = sample * (1 << 32) + flat[place]
    keys, owner = torch.unique(key, return_inverse=True)
    count = len(keys)
    index = torch.stack(torch.unravel_index(place % grid.numel(), grid), 1)
    box = index.new_zeros(2, count, len(grid)).scatter_reduce(
        1, owner[None, :, None].expand(2, -1, len(grid)), torch.stack([index, -index]), "amax", include_self=False
    )
    found = Objects(
        total=count,
        place=place,
        owner=owner,
        map=torch.full_like(flat, -1).index_copy(0, place, owner),
        centre=offsets.new_zeros(len(grid), count, dtype=torch.float32),
        sample=keys >> 32,
        low=-box[1],
        high=box[0],
    )
    return found._replace(centre=_centres(found, index, _flat(offsets)[:, place].float(), motion, spacing))


def _centres(
    objects: Objects, index: Tensor, offsets: Tensor, motion: Tensor | None, spacing: tuple[float, ...]
) -> Tensor:
    """Mean ``(D, total)`` of where the pixels of each object say that its centre is, isotropic pixels."""
    even = torch.ones_like(offsets[0])
    seen, away = objects.mean(index.T.float(), even), objects.mean(offsets, even)
    if motion is not None:
        away = torch.einsum("kij,jk->ik", torch.linalg.inv(motion.float())[objects.sample], away)
    return (seen + away) * away.new_tensor(spacing)[:, None]


def windows(objects: Objects, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Pairs of an object and a pixel in or around its bounding box: number of the object, flat index of the pixel."""
    margin = ((objects.high - objects.low + 1) * MARGIN).ceil().long().clamp(min=2)
    last = objects.high.new_tensor(grid) - 1
    low = (objects.low - margin).clamp(min=0)
    size = torch.minimum(objects.high + margin, last) - low + 1
    # Rows of boxes first, then the pixels of each row: only those are many.
    rows = size[:, :-1].prod(1)
    owner, number = _spread(rows)
    line = objects.sample[owner]
    for axis, length in enumerate(grid[:-1]):
        inner = size[:, axis + 1 : -1].prod(1)[owner]
        line = line * length + low[owner, axis] + number // inner % size[owner, axis]
    row, column = _spread(size[owner, -1])
    return owner[row], (line * grid[-1] + low[owner, -1])[row] + column


def _spread(counts: Tensor) -> tuple[Tensor, Tensor]:
    """For groups of that many members: the group of each member, and its number in the group."""
    group = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    first = counts.cumsum(0) - counts
    return group, torch.arange(len(group), device=counts.device) - first[group]


def lovasz_hinge(near: Tensor, own: Tensor, weight: Tensor, owner: Tensor, count: int) -> Tensor:
    """Lovász hinge of the overlap of each object with the pixels near its centre, mean over objects.

    The convex surrogate of 1 - IoU (Yu & Blaschko 2015; Berman et al. 2018): errors are sorted, and each counts by
    how much the overlap loses when it is added to the larger ones. Sorting is by bins, for all objects at once.

    Parameters
    ----------
    near : tensor (P,)
        Of pairs of an object and a pixel: 1 at the centre, 0 far away.
    own : tensor (P,)
        Whether the pixel is one of the object.
    weight : tensor (P,)
        Of the pixel; 0 leaves the pair out.
    owner : tensor (P,)
        Number of the object, below `count`.
    """
    error = torch.where(own, 2 - 2 * near, 2 * near)
    with torch.no_grad():
        slot = ((1 - error / 2) * BINS).long().clamp_(0, BINS - 1) + owner * BINS
        sums = torch.bincount(slot * 2 + own, weight, 2 * BINS * count).to(weight.dtype).reshape(count, BINS, 2)
        added, missed = (sums.cumsum(1) - sums / 2).unbind(2)
        size = sums[:, :, 1].sum(1, keepdim=True)
        union = (size + added).clamp(min=1e-6)
        lost = torch.stack([(size - missed) / union.square(), 1 / union], 2)
        slope = lost.flatten()[slot * 2 + own] * weight
    return (error * slope).sum() / max(count, 1)
