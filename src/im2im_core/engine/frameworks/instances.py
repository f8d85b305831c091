"""What all frameworks share that learn from instance labels and give instance labels."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from im2im_core.engine.frameworks.contract import Framework, Player, TranslateContext
from im2im_core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from im2im_core.inference import Shapes


class InstanceFramework(Framework):
    """Learns from instance labels; its maps are decoded into instance labels.

    A subclass says how labels become targets (`encode_labels`) and maps become labels (`decode`).
    Its settings have ``decoding``, a settings class whose fields are the options of a prediction,
    and ``calibrate``.
    """

    monitor = "ap50"
    monitor_mode: Literal["min", "max"] = "max"
    stitch: Literal["none", "instances"] = "instances"
    shapes: Shapes
    settings: Any
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """Decoding options that `calibrate` tries, all combinations."""

    # ---- what a subclass gives ----

    @abstractmethod
    def encode_labels(self, labels: NDArray[Any], unknown: NDArray[np.bool_] | None) -> dict[str, NDArray[Any]]:
        """Targets ``(C, Z, Y, X)`` of labels ``(Z, Y, X)`` that are seen together; labels are 0 where unknown.

        The first channel of the first target is positive on objects: patches are centred there.
        """

    @abstractmethod
    def decode(self, maps: Mapping[str, NDArray[Any]], decoding: Any) -> NDArray[np.uint32]:
        """Instance labels ``([Z], Y, X)`` of blended maps ``(C, [Z], Y, X)``."""

    # ---- learning ----

    def encode(self, targets: Mapping[str, NDArray[Any]], weight: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
        """Targets of the labels.

        A network that sees planes learns what can be seen in a plane: each is encoded on its own.
        """
        labels = only_channel(targets["target"])
        unknown = None
        if weight is not None:
            # A single plane of labels, as of a projection, holds for all planes that are known.
            labels, unknown = np.broadcast_arrays(labels, weight[0] == 0)
            # What stands in an unknown region must not shape the targets of known objects.
            labels = np.where(unknown, np.zeros((), labels.dtype), labels)
        if self.shapes.dimensions == 3:
            return self.encode_labels(labels, unknown)
        planes = [slice(z, z + 1) for z in range(len(labels))]
        parts = [self.encode_labels(labels[z], None if unknown is None else unknown[z]) for z in planes]
        return {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}

    def players(self) -> tuple[Player, ...]:
        return (Player("network", list(self.parameters())),)

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

    def postprocess(self, maps: Mapping[str, NDArray[Any]], context: TranslateContext) -> dict[str, NDArray[Any]]:
        decoding = self.settings.decoding
        if context.options:
            decoding = decoding.replace(**dict(context.options))
        return {"labels": self.decode(maps, decoding)[None], **maps}

    def calibrate(self, samples: Iterable[tuple[Mapping[str, NDArray[Any]], Mapping[str, NDArray[Any]]]]) -> Any:
        """Settings with the decoding of `grid` that gives the best AP, averaged over IoU 0.5 and 0.75."""
        pairs = list(samples)
        if not pairs or not self.settings.calibrate or not self.grid:
            return None
        best = max(self._candidates(), key=lambda d: self._score(pairs, d))
        return self.settings.replace(decoding=best.model_dump())

    def _candidates(self) -> list[Any]:
        """The current decoding first, so that it wins a tie."""
        current = self.settings.decoding
        choices = itertools.product(*self.grid.values())
        return [current, *(current.replace(**dict(zip(self.grid, c, strict=True))) for c in choices)]

    def _score(self, pairs: list[Any], decoding: Any) -> float:
        context = TranslateContext(options=decoding.model_dump())
        scores = [
            self.metrics(self.postprocess(maps, context), targets, targets.get("weight")) for maps, targets in pairs
        ]
        return float(np.mean([s["ap50"] + s["ap75"] for s in scores]))


def mean_by(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of `values` by `weight`; 0 without any weight."""
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)


# ---- labels (Z, Y, X) or (Y, X) ----


def only_channel(target: NDArray[Any]) -> NDArray[Any]:
    """Labels ``(Z, Y, X)`` of a target ``(1, Z, Y, X)``.

    Raises
    ------
    DataError
        It has several channels.
    """
    if target.shape[0] != 1:
        raise DataError(f"Instance labels have {target.shape[0]} channels", "Choose one with data.target_channels")
    plane: NDArray[Any] = target[0]
    return plane


def beside_unknown(labels: NDArray[Any], unknown: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels of objects that touch an unknown pixel: where their rim and centre are cannot be told."""
    from scipy.ndimage import binary_dilation

    cut = np.unique(labels[binary_dilation(unknown, iterations=2)])
    return np.isin(labels, cut[cut > 0])


def tidy(labels: NDArray[np.uint32], min_size: int, fill_holes: bool) -> NDArray[np.uint32]:
    """Labels without objects below `min_size`, holes filled, ids 1…n without gaps."""
    from scipy import ndimage

    sizes = np.bincount(labels.ravel())
    keep = sizes >= max(min_size, 1)
    keep[0] = False
    renumber = np.zeros(len(sizes), np.uint32)
    renumber[keep] = np.arange(1, int(keep.sum()) + 1, dtype=np.uint32)
    labels = renumber[labels]
    if fill_holes and (enclosed := _enclosed(labels)).any():
        for number, box in enumerate(ndimage.find_objects(labels), start=1):
            if box is None or not enclosed[box].any():
                continue
            own = labels[box] == number
            filled = ndimage.binary_fill_holes(own)
            view = labels[box]
            view[filled & (view == 0)] = number
    return labels


def _enclosed(labels: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Background from which no way through the background leads to the border: only there can holes be."""
    from scipy import ndimage

    parts, count = ndimage.label(labels == 0)
    closed = np.ones(count + 1, bool)
    closed[0] = False
    for axis in range(labels.ndim):
        for side in (0, -1):
            closed[np.unique(parts.take(side, axis))] = False
    found: NDArray[np.bool_] = closed[parts]
    return found
