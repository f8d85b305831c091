"""Instances by watershed on predicted foreground and distance or boundary maps."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from im2im_core.engine.frameworks.contract import (
    Batch,
    Framework,
    OutputSpec,
    Player,
    TargetSpec,
    TrainContext,
    TranslateContext,
)
from im2im_core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from im2im_core.inference import Shapes
    from im2im_core.recipe.framework import InstanceDecoding, InstanceSettings

TOP = 1e-4
"""Height by which a plateau of the separation map must stand out to count as its top."""
FULL = 255
"""Encoded maps are stored as uint8; this value is 1.0."""


class Instance(Framework):
    """Foreground probability and a map that separates touching objects; a watershed cuts them apart.

    The distance map is the distance to the rim of the own object divided by its largest value in
    that object, so that it is 1 at every centre whatever the size, and keeps its values when a
    patch is magnified. The boundary map is 1 on the inner rim. Both come from labels alone
    (Bai & Urtasun 2017 for the idea of a learned watershed energy).

    Parameters
    ----------
    settings : InstanceSettings
    make_network : callable
        ``make_network(in_channels, out_channels)`` builds the network.
    shapes : Shapes
    """

    targets = (TargetSpec("maps", 3, np.uint8, "linear"),)
    monitor = "ap50"
    monitor_mode = "max"
    stitch = "instances"
    decode_halo = 48

    def __init__(self, settings: InstanceSettings, make_network: Callable[[int, int], Any], shapes: Shapes) -> None:
        super().__init__()
        self.settings = settings
        self.shapes = shapes
        self.network = make_network(shapes.input_channels, 2)
        self.outputs = (
            OutputSpec("foreground", "probability", 1),
            OutputSpec(settings.maps, "probability", 1),
        )
        self.results = (OutputSpec("labels", "labels", 1), *self.outputs)

    # ---- learning ----

    def encode(self, targets: Mapping[str, NDArray[Any]], weight: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
        """Foreground, separation map and where that map is known, as uint8 ``(3, Z, Y, X)``.

        A network that sees planes learns what can be seen in a plane: each is encoded on its own.
        """
        labels = _only_channel(targets["target"])
        unknown = None if weight is None else weight[0] == 0
        if unknown is not None:
            # What stands in an unknown region must not shape the maps of known objects.
            labels = np.where(unknown, np.zeros((), labels.dtype), labels)
        maps = np.empty((3, *labels.shape), np.uint8)
        parts = [(slice(z, z + 1),) for z in range(len(labels))] if self.shapes.dimensions == 2 else [(slice(None),)]
        for part in parts:
            maps[:, *part] = self._maps(labels[part], None if unknown is None else unknown[part])
        return {"maps": maps}

    def _maps(self, labels: NDArray[Any], unknown: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
        """Encoded maps of labels that are seen together."""
        separation = (
            distance_map(labels)
            if self.settings.maps == "distance"
            else inner_boundary(labels, self.settings.boundary_width).astype(np.float32)
        )
        maps = np.empty((3, *labels.shape), np.uint8)
        maps[0] = np.where(labels > 0, FULL, 0)
        maps[1] = np.round(separation * FULL)
        maps[2] = FULL if unknown is None else np.where(_beside_unknown(labels, unknown), 0, FULL)
        return maps

    def players(self) -> tuple[Player, ...]:
        return (Player("network", list(self.parameters())),)

    def loss_weights(self) -> dict[str, float]:
        s = self.settings
        return {"cross_entropy": s.foreground_weight, "dice": s.foreground_weight, s.maps: s.separation_weight}

    def losses(self, batch: Batch, player: str, context: TrainContext) -> dict[str, Tensor]:
        """Cross entropy and Dice of the foreground, cross entropy of the soft separation map."""
        logits = self.network(batch["source"]).float()
        maps, weight = batch["maps"], batch["weight"]
        # Where a pixel is unknown its target may be anything, NaN included: it must not be looked at.
        maps = torch.where(weight > 0, maps, 0).float() / FULL
        entropy = F.binary_cross_entropy_with_logits(logits, maps[:, :2], reduction="none")
        known = weight * maps[:, 2:3]
        return {
            "cross_entropy": _mean(entropy[:, :1], weight),
            "dice": _dice(torch.sigmoid(logits[:, :1]), maps[:, :1], weight),
            self.settings.maps: _mean(entropy[:, 1:2], known),
        }

    def metrics(
        self, results: Mapping[str, NDArray[Any]], targets: Mapping[str, NDArray[Any]], weight: NDArray[Any] | None
    ) -> dict[str, float]:
        """Average precision at IoU 0.5 and 0.75 of one image."""
        from im2im_core.metrics import average_precision, match

        found, truth = results["labels"][0], np.asarray(targets["target"])[0]
        mask = None if weight is None else np.asarray(weight)[0]
        matching = match(found, truth.reshape(found.shape), weight=None if mask is None else mask.reshape(found.shape))
        return {"ap50": average_precision(matching, 0.5), "ap75": average_precision(matching, 0.75)}

    # ---- predicting ----

    def translate(self, x: Tensor, context: TranslateContext) -> dict[str, Tensor]:
        maps = torch.sigmoid(self.network(x).float())
        return {"foreground": maps[:, :1], self.settings.maps: maps[:, 1:2]}

    def postprocess(self, maps: Mapping[str, NDArray[Any]], context: TranslateContext) -> dict[str, NDArray[Any]]:
        decoding = (
            self.settings.decoding.replace(**dict(context.options)) if context.options else self.settings.decoding
        )
        separation = np.asarray(maps[self.settings.maps][0], np.float32)
        if self.settings.maps == "boundary":
            separation = np.asarray(maps["foreground"][0], np.float32) * (1 - separation)
        labels = cut_instances(np.asarray(maps["foreground"][0], np.float32), separation, decoding)
        return {"labels": labels[None], **maps}

    def calibrate(self, samples: Iterable[tuple[Mapping[str, NDArray[Any]], Mapping[str, NDArray[Any]]]]) -> Any:
        """Settings with the foreground and seed thresholds that give the best AP, averaged over IoU 0.5 and 0.75."""
        pairs = list(samples)
        if not pairs or not self.settings.calibrate:
            return None
        best = max(_candidates(self.settings.decoding), key=lambda d: self._score(pairs, d))
        return self.settings.replace(decoding=best.model_dump())

    def _score(self, pairs: list[Any], decoding: InstanceDecoding) -> float:
        context = TranslateContext(options=decoding.model_dump())
        scores = [
            self.metrics(self.postprocess(maps, context), targets, targets.get("weight")) for maps, targets in pairs
        ]
        return float(np.mean([s["ap50"] + s["ap75"] for s in scores]))


def _candidates(current: InstanceDecoding) -> list[InstanceDecoding]:
    """The current thresholds first, so that they win a tie, then a few around the usual ones."""
    grid = itertools.product((0.4, 0.5), (0.04, 0.06, 0.08, 0.12))
    return [current, *(current.replace(foreground=f, seed=s) for f, s in grid)]


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)


def _dice(probability: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    axes = tuple(range(1, probability.ndim))
    overlap = (probability * target * weight).sum(axes)
    total = ((probability + target) * weight).sum(axes)
    return (1 - (2 * overlap + 1) / (total + 1)).mean()


def _only_channel(target: NDArray[Any]) -> NDArray[Any]:
    if target.shape[0] != 1:
        raise DataError(f"Instance labels have {target.shape[0]} channels", "Choose one with data.target_channels")
    plane: NDArray[Any] = target[0]
    return plane


# ---- maps from labels, labels from maps; (Z, Y, X) or (Y, X) ----


def inner_boundary(labels: NDArray[Any], width: int = 1) -> NDArray[np.bool_]:
    """Pixels of objects with another label (or background) within `width` pixels; the image border is none."""
    rim = np.zeros(labels.shape, bool)
    for axis, size in enumerate(labels.shape):
        if size < 2:
            continue
        first = [slice(None)] * labels.ndim
        second = list(first)
        first[axis], second[axis] = slice(0, -1), slice(1, None)
        change = labels[tuple(first)] != labels[tuple(second)]
        rim[tuple(first)] |= change
        rim[tuple(second)] |= change
    rim &= labels > 0
    if width > 1:
        from scipy.ndimage import binary_dilation

        rim = binary_dilation(rim, iterations=width - 1) & (labels > 0)
    return rim


def distance_map(labels: NDArray[Any]) -> NDArray[np.float32]:
    """Distance to the rim of the own object, divided by its largest value there; 0 in the background."""
    from scipy import ndimage

    inside = labels > 0
    if not inside.any():
        return np.zeros(labels.shape, np.float32)
    rim = inner_boundary(labels)
    if not rim.any():  # one object covers the whole image: everything is centre
        return inside.astype(np.float32)
    # The nearest rim pixel is always one of the own object: a line to another one crosses it first.
    distance = (ndimage.distance_transform_edt(~rim) + 1).astype(np.float32)
    distance[~inside] = 0
    ids, compact = np.unique(labels, return_inverse=True)
    compact = compact.reshape(labels.shape)
    largest = np.asarray(ndimage.maximum(distance, compact, np.arange(len(ids))), np.float32)
    largest[ids == 0] = 1
    relative: NDArray[np.float32] = distance / np.maximum(largest, 1)[compact]
    return relative


def _beside_unknown(labels: NDArray[Any], unknown: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels of objects that touch an unknown pixel: how far their rim is cannot be told."""
    from scipy.ndimage import binary_dilation

    cut = np.unique(labels[binary_dilation(unknown, iterations=2)])
    return np.isin(labels, cut[cut > 0])


def cut_instances(
    foreground: NDArray[np.float32], separation: NDArray[np.float32], decoding: InstanceDecoding
) -> NDArray[np.uint32]:
    """Instance labels: the prominent peaks of the smoothed separation map, grown over the foreground by watershed."""
    from scipy import ndimage
    from skimage.segmentation import watershed

    mask = foreground > decoding.foreground
    if not mask.any():
        return np.zeros(foreground.shape, np.uint32)
    smooth = ndimage.gaussian_filter(separation, decoding.smooth) if decoding.smooth else separation
    seeds, _ = ndimage.label(prominent_peaks(np.where(mask, smooth, 0), decoding.seed))
    labels = watershed(-smooth, seeds, mask=mask).astype(np.uint32)
    return tidy(labels, decoding.min_size, decoding.fill_holes)


def prominent_peaks(heights: NDArray[np.float32], prominence: float) -> NDArray[np.bool_]:
    """Tops of `heights` that stand at least `prominence` above every path to a higher one (h-maxima; Soille 1999).

    Unlike a threshold this finds the low peak of a small object as well as the valley between
    two large ones that touch.
    """
    from skimage.morphology import reconstruction

    lowered = reconstruction(np.maximum(heights - prominence, 0), heights)
    # A top is a plateau of the lowered map with nothing higher beside it.
    flattened = reconstruction(np.maximum(lowered - TOP, 0), lowered)
    tops: NDArray[np.bool_] = lowered - flattened > TOP / 2
    return tops


def tidy(labels: NDArray[np.uint32], min_size: int, fill_holes: bool) -> NDArray[np.uint32]:
    """Labels without objects below `min_size`, holes filled, ids 1…n without gaps."""
    from scipy import ndimage

    sizes = np.bincount(labels.ravel())
    keep = sizes >= max(min_size, 1)
    keep[0] = False
    renumber = np.zeros(len(sizes), np.uint32)
    renumber[keep] = np.arange(1, int(keep.sum()) + 1, dtype=np.uint32)
    labels = renumber[labels]
    if fill_holes:
        for number, box in enumerate(ndimage.find_objects(labels), start=1):
            if box is None:
                continue
            own = labels[box] == number
            filled = ndimage.binary_fill_holes(own)
            view = labels[box]
            view[filled & (view == 0)] = number
    return labels
