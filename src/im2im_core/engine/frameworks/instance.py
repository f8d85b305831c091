"""Instances by watershed on predicted foreground and distance or boundary maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from im2im_core.engine.frameworks.contract import (
    Batch,
    OutputSpec,
    TargetSpec,
    TrainContext,
    TranslateContext,
)
from im2im_core.engine.frameworks.instances import InstanceFramework, beside_unknown, mean_by, tidy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from im2im_core.inference import Shapes
    from im2im_core.recipe.framework import InstanceDecoding, InstanceSettings

TOUCH = 4
"""Pixels up to which two objects count as touching."""
FULL = 255
"""Encoded maps are stored as uint8; this value is 1.0."""


class Instance(InstanceFramework):
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
    decode_halo = 48
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"foreground": (0.4, 0.5), "seed": (0.04, 0.06, 0.08, 0.12)}

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

    def encode_labels(self, labels: NDArray[Any], unknown: NDArray[np.bool_] | None) -> dict[str, NDArray[Any]]:
        """Foreground, separation map and how much that map counts (0: not known), as uint8 ``(3, Z, Y, X)``."""
        separation = (
            distance_map(labels)
            if self.settings.maps == "distance"
            else inner_boundary(labels, self.settings.boundary_width).astype(np.float32)
        )
        maps = np.empty((3, *labels.shape), np.uint8)
        maps[0] = np.where(labels > 0, FULL, 0)
        maps[1] = np.round(separation * FULL)
        maps[2] = np.round(FULL * self._emphasis(labels))
        if unknown is not None:
            maps[2][beside_unknown(labels, unknown)] = 0
        return {"maps": maps}

    def _emphasis(self, labels: NDArray[Any]) -> NDArray[np.float32] | float:
        """How much each pixel counts, of at most 1: most between objects that touch (Ronneberger et al. 2015)."""
        extra = self.settings.touch_weight
        return (1 + extra * touching(labels, TOUCH)) / (1 + extra) if extra else 1.0

    def loss_weights(self) -> dict[str, float]:
        s = self.settings
        return {"cross_entropy": s.foreground_weight, "dice_loss": s.foreground_weight, s.maps: s.separation_weight}

    def losses(self, batch: Batch, player: str, context: TrainContext) -> dict[str, Tensor]:
        """Cross entropy and Dice of the foreground, cross entropy of the soft separation map."""
        logits = self.network(batch["source"]).float()
        maps, weight = batch["maps"], batch["weight"]
        # Where a pixel is unknown its target may be anything, NaN included: it must not be looked at.
        maps = torch.where(weight > 0, maps, 0).float() / FULL
        entropy = F.binary_cross_entropy_with_logits(logits, maps[:, :2], reduction="none")
        known = weight * maps[:, 2:3]
        # The foreground of objects that reach into the unknown is known, though not how far their rim is.
        least = 1 / (1 + self.settings.touch_weight)
        return {
            "cross_entropy": mean_by(entropy[:, :1], weight * maps[:, 2:3].clamp(min=least)),
            "dice_loss": _dice(torch.sigmoid(logits[:, :1]), maps[:, :1], weight),
            self.settings.maps: mean_by(entropy[:, 1:2], known),
        }

    # ---- predicting ----

    def translate(self, x: Tensor, context: TranslateContext) -> dict[str, Tensor]:
        maps = torch.sigmoid(self.network(x).float())
        return {"foreground": maps[:, :1], self.settings.maps: maps[:, 1:2]}

    def decode(self, maps: Mapping[str, NDArray[Any]], decoding: InstanceDecoding) -> NDArray[np.uint32]:
        foreground = np.asarray(maps["foreground"][0], np.float32)
        separation = np.asarray(maps[self.settings.maps][0], np.float32)
        if self.settings.maps == "boundary":
            separation = foreground * (1 - separation)
        return cut_instances(foreground, separation, decoding)


def _dice(probability: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    axes = tuple(range(1, probability.ndim))
    overlap = (probability * target * weight).sum(axes)
    total = ((probability + target) * weight).sum(axes)
    return (1 - (2 * overlap + 1) / (total + 1)).mean()


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


def touching(labels: NDArray[Any], reach: int) -> NDArray[np.float32]:
    """1 on the line between two objects that are at most twice `reach` pixels apart, falling off beside it."""
    from scipy.ndimage import distance_transform_edt
    from skimage.segmentation import expand_labels

    grown = expand_labels(labels, reach)
    line = inner_boundary(grown) & ~inner_boundary(grown > 0)
    if not line.any():
        return np.zeros(labels.shape, np.float32)
    distance = distance_transform_edt(~line)
    near: NDArray[np.float32] = np.exp(-0.5 * (2 * distance / reach) ** 2).astype(np.float32)
    return near


def distance_map(labels: NDArray[Any], spacing: Sequence[float] | None = None) -> NDArray[np.float32]:
    """Distance to the rim of the own object, divided by its largest value there; 0 in the background.

    Parameters
    ----------
    spacing : sequence of float, optional
        Size of a pixel along each axis; all alike where not given.
    """
    from scipy import ndimage

    inside = labels > 0
    if not inside.any():
        return np.zeros(labels.shape, np.float32)
    rim = inner_boundary(labels)
    if not rim.any():  # one object covers the whole image: everything is centre
        return inside.astype(np.float32)
    # The nearest rim pixel is always one of the own object: a line to another one crosses it first.
    distance = (ndimage.distance_transform_edt(~rim, spacing) + 1).astype(np.float32)
    distance[~inside] = 0
    ids, compact = np.unique(labels, return_inverse=True)
    compact = compact.reshape(labels.shape)
    largest = np.asarray(ndimage.maximum(distance, compact, np.arange(len(ids))), np.float32)
    largest[ids == 0] = 1
    relative: NDArray[np.float32] = distance / np.maximum(largest, 1)[compact]
    return relative


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
    from scipy import ndimage

    connected = ndimage.generate_binary_structure(heights.ndim, heights.ndim)
    parts, count = ndimage.label(heights > 0, connected)
    if not count:
        return np.zeros(heights.shape, np.bool_)
    summits, found = ndimage.label(_summits(heights), connected)
    summits_of = np.bincount(ndimage.maximum(parts, summits, np.arange(1, found + 1)), minlength=count + 1)
    highest = np.asarray(ndimage.maximum(heights, parts, np.arange(count + 1)), np.float32)
    # Nothing is sorted for a part with one summit, as most have: all that is high enough is its top.
    floor = np.where((summits_of == 1) & (highest > prominence), highest - np.float32(prominence), np.inf)
    tops: NDArray[np.bool_] = heights >= floor.astype(np.float32)[parts]
    boxes = ndimage.find_objects(parts)
    # The others one by one: many small sorts are quicker than a large one.
    for number in np.flatnonzero((summits_of > 1) & (highest > prominence)):
        box = boxes[number - 1]
        tops[box] |= _tops(np.where(parts[box] == number, heights[box], 0), prominence)
    return tops


def _tops(heights: NDArray[np.float32], prominence: float) -> NDArray[np.bool_]:
    from skimage.morphology import reconstruction

    return _summits(reconstruction(np.maximum(heights - prominence, 0), heights))


def _summits(heights: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Plateaus above 0 with nothing higher beside them, also one that fills the image."""
    from skimage.morphology import local_maxima

    inner = tuple(slice(1, -1) for _ in heights.shape)
    summits: NDArray[np.bool_] = local_maxima(np.pad(heights, 1))[inner].astype(bool) & (heights > 0)
    return summits
