"""Semantic segmentation: overlap of prediction and truth per class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.metrics.instances import contingency
from im2im_core.metrics.sums import Overlap, Ratio

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from im2im_core.metrics.instances import Contingency


def overlaps(
    pred: NDArray[Any],
    truth: NDArray[Any],
    weight: NDArray[Any] | None = None,
    classes: Iterable[int] | None = None,
) -> dict[int, Overlap]:
    """Common, predicted and true pixels of each class, where `weight` is not 0.

    Parameters
    ----------
    classes : iterable of int
        Classes to report; by default those that occur, background (0) left out.
    """
    return overlaps_of(contingency(pred, truth, weight), classes)


def overlaps_of(table: Contingency, classes: Iterable[int] | None = None) -> dict[int, Overlap]:
    """The same from overlaps that are counted already."""
    preds, truths = table.pred_ids[table.columns], table.truth_ids[table.rows]
    if classes is None:
        classes = sorted({*preds.tolist(), *truths.tolist()} - {0})
    return {
        int(c): Overlap(
            both=int(table.pixels[(preds == c) & (truths == c)].sum()),
            pred=int(table.pixels[preds == c].sum()),
            truth=int(table.pixels[truths == c].sum()),
        )
        for c in classes
    }


def dice(
    pred: NDArray[Any],
    truth: NDArray[Any],
    weight: NDArray[Any] | None = None,
    classes: Iterable[int] | None = None,
) -> dict[int, float]:
    """Dice coefficient per class (Dice, Ecology 26 (1945) 297); 1 where a class is in neither."""
    return {c: overlap.dice for c, overlap in overlaps(pred, truth, weight, classes).items()}


def iou(
    pred: NDArray[Any],
    truth: NDArray[Any],
    weight: NDArray[Any] | None = None,
    classes: Iterable[int] | None = None,
) -> dict[int, float]:
    """Intersection over union per class (Jaccard 1901); 1 where a class is in neither."""
    return {c: overlap.iou for c, overlap in overlaps(pred, truth, weight, classes).items()}


def mean_dice(pred: NDArray[Any], truth: NDArray[Any], weight: NDArray[Any] | None = None) -> float:
    """Mean over the classes that occur; 1 where there is background alone."""
    return float(np.mean(list(dice(pred, truth, weight).values()) or [1.0]))


def mean_iou(pred: NDArray[Any], truth: NDArray[Any], weight: NDArray[Any] | None = None) -> float:
    """Mean over the classes that occur; 1 where there is background alone."""
    return float(np.mean(list(iou(pred, truth, weight).values()) or [1.0]))


def accuracy_sums(table: Contingency) -> Ratio:
    """Number of pixels of the right class, and of all known pixels."""
    right = table.pred_ids[table.columns] == table.truth_ids[table.rows]
    return Ratio(float(table.pixels[right].sum()), float(table.pixels.sum()))


def accuracy(pred: NDArray[Any], truth: NDArray[Any], weight: NDArray[Any] | None = None) -> float:
    """Part of the known pixels that have the right class, background included."""
    return accuracy_sums(contingency(pred, truth, weight)).value
