"""Instance segmentation: objects of a prediction matched with those of the truth, and figures from the match."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.errors import DataError
from im2im_core.metrics.sums import Counts, Ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Contingency:
    """How many pixels each pair of labels shares; sparse, background (0) included."""

    truth_ids: NDArray[Any]
    pred_ids: NDArray[Any]
    rows: NDArray[np.intp]
    """Index into `truth_ids` of each pair."""
    columns: NDArray[np.intp]
    """Index into `pred_ids` of each pair."""
    pixels: NDArray[np.int64]
    truth_hidden: NDArray[np.int64]
    """Pixels of each of `truth_ids` that are unknown and not in `pixels`, as far as the truth says."""
    pred_hidden: NDArray[np.int64]

    @cached_property
    def truth_sizes(self) -> NDArray[np.int64]:
        """Known pixels of each of `truth_ids`."""
        return np.bincount(self.rows, self.pixels, len(self.truth_ids)).astype(np.int64)

    @cached_property
    def pred_sizes(self) -> NDArray[np.int64]:
        """Known pixels of each of `pred_ids`."""
        return np.bincount(self.columns, self.pixels, len(self.pred_ids)).astype(np.int64)


@dataclass(frozen=True)
class Matching:
    """Objects of truth and prediction with all pairs that overlap; background left out."""

    truth_ids: NDArray[Any]
    pred_ids: NDArray[Any]
    truth_sizes: NDArray[np.int64]
    pred_sizes: NDArray[np.int64]
    rows: NDArray[np.intp]
    """Index into `truth_ids` of each pair."""
    columns: NDArray[np.intp]
    """Index into `pred_ids` of each pair."""
    pixels: NDArray[np.int64]
    """Pixels that each pair shares."""
    truth_known: NDArray[np.bool_]
    """Whether at least half of each true object is known; others are neither found nor missed."""
    pred_known: NDArray[np.bool_]
    """Whether at least half of each predicted object is known; others may be found, and are never invented."""

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each pair."""
        return self.pixels / (self.truth_sizes[self.rows] + self.pred_sizes[self.columns] - self.pixels)


def contingency(pred: NDArray[Any], truth: NDArray[Any], weight: NDArray[Any] | None = None) -> Contingency:
    """Pixels shared by each pair of labels, where `weight` is not 0.

    Raises
    ------
    DataError
        Shapes differ, or labels are negative or fractional.
    """
    check_shapes(pred, truth, weight)
    pred, truth = _as_labels(pred, "prediction").ravel(), _as_labels(truth, "truth").ravel()
    hidden_pred, hidden_truth = pred[:0], truth[:0]
    if weight is not None:
        known = np.asarray(weight).ravel() > 0
        hidden_pred, hidden_truth = pred[~known], truth[~known]
        pred, truth = pred[known], truth[known]
    # Labels come in runs along a row: sorting runs instead of pixels is an order of magnitude faster.
    starts = np.flatnonzero(
        np.concatenate([np.ones(min(pred.size, 1), bool), (pred[1:] != pred[:-1]) | (truth[1:] != truth[:-1])])
    )
    lengths = np.diff(np.append(starts, pred.size))
    pred_ids, columns = np.unique(pred[starts], return_inverse=True)
    truth_ids, rows = np.unique(truth[starts], return_inverse=True)
    codes, place = np.unique(rows.astype(np.int64) * len(pred_ids) + columns, return_inverse=True)
    pixels = np.bincount(place, weights=lengths, minlength=len(codes)).astype(np.int64)
    return Contingency(
        truth_ids,
        pred_ids,
        *np.divmod(codes, max(len(pred_ids), 1)),
        pixels,
        truth_hidden=_numbers_of(truth_ids, hidden_truth),
        pred_hidden=_numbers_of(pred_ids, hidden_pred),
    )


def match(pred: NDArray[Any], truth: NDArray[Any], weight: NDArray[Any] | None = None) -> Matching:
    """All overlaps between objects of prediction and truth; pixels of weight 0 are taken out of both.

    Labels are whole numbers, 0 is background. An object without a single
    known pixel does not exist. One that lies mostly on unknown pixels is no
    mistake where it has no partner (Kirillov et al., CVPR 2019, "void").
    """
    return matching_of(contingency(pred, truth, weight))


def matching_of(table: Contingency) -> Matching:
    """The same from overlaps that are counted already."""
    # Identities are sorted, so that background, where there is any, stands first.
    t = int(bool(table.truth_ids.size) and table.truth_ids[0] == 0)
    p = int(bool(table.pred_ids.size) and table.pred_ids[0] == 0)
    both = (table.rows >= t) & (table.columns >= p)
    return Matching(
        truth_ids=table.truth_ids[t:],
        pred_ids=table.pred_ids[p:],
        truth_sizes=table.truth_sizes[t:],
        pred_sizes=table.pred_sizes[p:],
        rows=table.rows[both] - t,
        columns=table.columns[both] - p,
        pixels=table.pixels[both],
        truth_known=(table.truth_hidden <= table.truth_sizes)[t:],
        pred_known=(table.pred_hidden <= table.pred_sizes)[p:],
    )


def matched_pairs(matching: Matching, iou: float = 0.5) -> NDArray[np.intp]:
    """Positions, among the pairs of `matching`, of the best one-to-one match with at least `iou`.

    Above 0.5 no object can have two partners. From there down, the match with
    the most pairs and, among those, the largest total IoU is taken (Hungarian
    method, as in StarDist), one connected group of candidates at a time.
    """
    candidates = np.flatnonzero(matching.iou >= iou)
    rows, columns = matching.rows[candidates], matching.columns[candidates]
    rivals = (np.bincount(rows, minlength=1)[rows] > 1) | (np.bincount(columns, minlength=1)[columns] > 1)
    if not rivals.any():
        return candidates
    settled = [_assign(matching, group) for group in _groups(matching, candidates)]
    return np.sort(np.concatenate(settled))


def counts(matching: Matching, iou: float = 0.5) -> Counts:
    """Objects found, invented and missed at the threshold `iou`."""
    pairs = matched_pairs(matching, iou)
    invented, missed = matching.pred_known.copy(), matching.truth_known.copy()
    invented[matching.columns[pairs]] = missed[matching.rows[pairs]] = False
    right = pairs[matching.truth_known[matching.rows[pairs]]]
    return Counts(
        tp=len(right),
        fp=int(invented.sum()),
        fn=int(missed.sum()),
        iou=float(matching.iou[right].sum()),
    )


def average_precision(matching: Matching, iou: float = 0.5) -> float:
    """TP / (TP + FP + FN); 1 where neither side has objects.

    The definition of the 2018 Data Science Bowl (Caicedo et al., Nature
    Methods 16 (2019) 1247), of StarDist and Cellpose.
    """
    return counts(matching, iou).average_precision


def precision(matching: Matching, iou: float = 0.5) -> float:
    """TP / (TP + FP)."""
    return counts(matching, iou).precision


def recall(matching: Matching, iou: float = 0.5) -> float:
    """TP / (TP + FN)."""
    return counts(matching, iou).recall


def f1(matching: Matching, iou: float = 0.5) -> float:
    """2 TP / (2 TP + FP + FN)."""
    return counts(matching, iou).f1


def panoptic_quality(matching: Matching, iou: float = 0.5) -> float:
    """Sum of the IoU of matched objects over TP + FP/2 + FN/2 (Kirillov et al., CVPR 2019)."""
    return counts(matching, iou).panoptic_quality


def mean_matched_iou(matching: Matching, iou: float = 0.5) -> float:
    """Mean IoU of matched objects; 0 where objects exist and none match."""
    return counts(matching, iou).mean_matched_iou


def seg_sums(matching: Matching) -> Ratio:
    """Sum of the SEG measure over true objects, and their number."""
    majority = 2 * matching.pixels > matching.truth_sizes[matching.rows]
    majority &= matching.truth_known[matching.rows]
    number = int(matching.truth_known.sum())
    if number == 0:  # nothing to find: right unless something was invented
        return Ratio(0.0, float(matching.pred_known.any()))
    return Ratio(float(matching.iou[majority].sum()), number)


def seg(matching: Matching) -> float:
    """Mean over true objects of the IoU with the prediction that covers more than half of it, 0 where none does.

    SEG of the Cell Tracking Challenge (Maška et al., Bioinformatics 30 (2014) 1609).
    """
    return seg_sums(matching).value


def check_shapes(pred: NDArray[Any], truth: NDArray[Any], weight: NDArray[Any] | None = None) -> None:
    """Raise a DataError that names both shapes where they differ."""
    for name, other in (("prediction", pred), ("weight", weight)):
        if other is not None and np.shape(other) != np.shape(truth):
            raise DataError(
                f"The {name} has the shape {np.shape(other)}, the truth {np.shape(truth)}",
                "Compare images of the same size, with the same axes",
            )


def _numbers_of(ids: NDArray[Any], pixels: NDArray[Any]) -> NDArray[np.int64]:
    """How often each of the sorted `ids` occurs in `pixels`."""
    if not ids.size or not pixels.size:
        return np.zeros(len(ids), np.int64)
    place = np.minimum(np.searchsorted(ids, pixels), len(ids) - 1)
    return np.bincount(place[ids[place] == pixels], minlength=len(ids))


def _as_labels(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Whole, non-negative labels; fractions and negative numbers are refused, never rounded or wrapped."""
    array = np.asarray(array)
    if array.dtype == bool:
        return array.view(np.uint8)
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and (array == np.floor(array)).all()):
            raise DataError(
                f"The {name} has fractional or undefined labels ({array.dtype})",
                "Give whole numbers, or compare the two as images",
            )
        array = array.astype(np.int64)
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise DataError(
            f"The {name} has the negative label {array.min()}",
            "Use 0 for background and a weight of 0 for unknown pixels",
        )
    return array


def _groups(matching: Matching, candidates: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Candidates divided into sets that share no object."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number = len(matching.truth_ids)
    rows, columns = matching.rows[candidates], matching.columns[candidates]
    size = number + len(matching.pred_ids)
    graph = coo_array((np.ones(len(rows)), (rows, number + columns)), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    order = np.argsort(component[rows], kind="stable")
    breaks = np.flatnonzero(np.diff(component[rows][order])) + 1
    return [candidates[part] for part in np.split(order, breaks)]


def _assign(matching: Matching, group: NDArray[np.intp]) -> NDArray[np.intp]:
    from scipy.optimize import linear_sum_assignment

    if len(group) == 1:
        return group
    rows, row = np.unique(matching.rows[group], return_inverse=True)
    columns, column = np.unique(matching.columns[group], return_inverse=True)
    value = np.zeros((len(rows), len(columns)))
    # A further pair is worth more than any gain in IoU.
    value[row, column] = 1 + matching.iou[group] / (2 * min(value.shape))
    chosen = np.zeros(value.shape, bool)
    chosen[linear_sum_assignment(value, maximize=True)] = True
    return group[chosen[row, column]]
