"""Which objects went wrong, and where: missed, extra, merged and split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from im2im_core.metrics.instances import match, matched_pairs
from im2im_core.metrics.sums import Mistakes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from im2im_core.metrics.instances import Matching

ErrorKind = Literal["missed", "extra", "merged", "split"]


@dataclass(frozen=True)
class ObjectError:
    """One mistake of a prediction and where to look for it."""

    kind: ErrorKind
    truth_ids: tuple[int, ...]
    pred_ids: tuple[int, ...]
    position: tuple[float, ...]
    """Centre of mass of the objects concerned, pixels."""
    box: tuple[tuple[int, int], ...]
    """First pixel and one past the last along each axis."""


def errors(
    pred: NDArray[Any], truth: NDArray[Any], weight: NDArray[Any] | None = None, iou: float = 0.5
) -> tuple[ObjectError, ...]:
    """Every object that went wrong, merged first, then split, missed and extra.

    A prediction that holds more than half of each of several true objects
    merged them; a true object that holds more than half of each of several
    predictions was split. Objects named there are not missed or extra as well.
    """
    return _located(list(_wrong(match(pred, truth, weight), iou)), np.asarray(pred), np.asarray(truth))


def mistakes(matching: Matching, iou: float = 0.5) -> Mistakes:
    """How many objects went wrong in each way, counted as in `errors`."""
    kinds = [kind for kind, _, _ in _wrong(matching, iou)]
    return Mistakes(*(kinds.count(kind) for kind in ("missed", "extra", "merged", "split")))


_Found = tuple[ErrorKind, tuple[int, ...], tuple[int, ...]]


def _wrong(matching: Matching, iou: float) -> Iterator[_Found]:
    """Merged, split, missed and extra objects by their numbers; what is mostly unknown is no mistake."""
    found = [*_groups("merged", matching), *_groups("split", matching)]
    yield from found
    pairs = matched_pairs(matching, iou)
    in_truth = {i for _, truths, _ in found for i in truths} | set(matching.truth_ids[matching.rows[pairs]].tolist())
    in_pred = {i for _, _, preds in found for i in preds} | set(matching.pred_ids[matching.columns[pairs]].tolist())
    truths, preds = matching.truth_ids[matching.truth_known], matching.pred_ids[matching.pred_known]
    yield from (("missed", (i,), ()) for i in truths.tolist() if i not in in_truth)
    yield from (("extra", (), (i,)) for i in preds.tolist() if i not in in_pred)


def _groups(kind: Literal["merged", "split"], matching: Matching) -> Iterator[_Found]:
    """Whole objects on one side that hold several parts of the other."""
    truths, preds = matching.truth_ids[matching.rows], matching.pred_ids[matching.columns]
    if kind == "merged":
        wholes, parts, index = preds, truths, matching.rows
        sizes, known = matching.truth_sizes[index], matching.truth_known[index]
    else:
        wholes, parts, index = truths, preds, matching.columns
        sizes, known = matching.pred_sizes[index], matching.pred_known[index]
    held = (2 * matching.pixels > sizes) & known
    owners, number = np.unique(wholes[held], return_counts=True)
    for owner in owners[number > 1].tolist():
        inside = tuple(int(i) for i in parts[held & (wholes == owner)])
        yield (kind, inside, (owner,)) if kind == "merged" else (kind, (owner,), inside)


def _located(found: list[_Found], pred: NDArray[Any], truth: NDArray[Any]) -> tuple[ObjectError, ...]:
    in_truth = _Places(truth, {i for _, ids, _ in found for i in ids})
    in_pred = _Places(pred, {i for _, _, ids in found for i in ids})
    result = []
    for kind, truths, preds in found:
        parts = [in_truth.of(i) for i in truths] + [in_pred.of(i) for i in preds]
        size = sum(p[0] for p in parts)
        position = np.sum([p[1] for p in parts], axis=0) / size
        first, last = np.min([p[2] for p in parts], axis=0), np.max([p[3] for p in parts], axis=0)
        box = tuple(zip(first.tolist(), (last + 1).tolist(), strict=True))
        result.append(ObjectError(kind, truths, preds, tuple(position.tolist()), box))
    return tuple(result)


class _Places:
    """Size, summed coordinates and corners of some objects, from one pass over their pixels."""

    def __init__(self, labels: NDArray[Any], ids: set[int]) -> None:
        self._ids = np.array(sorted(ids), dtype=np.int64)
        coordinates = np.nonzero(np.isin(labels, self._ids))
        index = np.searchsorted(self._ids, labels[coordinates].astype(np.int64))
        number = len(self._ids)
        self._size = np.bincount(index, minlength=number)
        self._sums = np.stack([np.bincount(index, c, number) for c in coordinates], axis=1)
        self._first = np.full((number, labels.ndim), np.iinfo(np.int64).max)
        self._last = np.zeros((number, labels.ndim), np.int64)
        for axis, coordinate in enumerate(coordinates):
            np.minimum.at(self._first[:, axis], index, coordinate)
            np.maximum.at(self._last[:, axis], index, coordinate)

    def of(self, identity: int) -> tuple[int, NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Number of pixels, sum of coordinates, first and last coordinate of an object."""
        i = int(np.searchsorted(self._ids, identity))
        return int(self._size[i]), self._sums[i], self._first[i], self._last[i]
