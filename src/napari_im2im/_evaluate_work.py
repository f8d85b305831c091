"""The work behind the Evaluate panel, without Qt: figures per time point and channel, and where objects went wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from im2im_core.errors import DataError, Stopped
from im2im_core.evaluation import Pair, Report, evaluate_many, guess_kind
from im2im_core.events import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from im2im_core.events import Event
    from im2im_core.metrics import ErrorKind, Kind, ObjectError
    from napari_im2im._layers import Snapshot

ERROR_KINDS: tuple[ErrorKind, ...] = ("missed", "extra", "merged", "split")
"""In the order of their numbers in the error layer, from 1."""


@dataclass(frozen=True)
class Mistake:
    """One object that went wrong, and where."""

    kind: ErrorKind
    number: int
    """Of an object in the truth, for extra ones in the prediction."""
    frame: str
    position: tuple[float, float, float, float]
    """Centre along T, Z, Y, X, pixels."""
    extent: float
    """Largest side of the box around it, pixels."""


@dataclass(frozen=True)
class Comparison:
    """Result of comparing two layers."""

    report: Report
    reason: str
    """Why they were compared so; empty when the user chose."""
    mistakes: tuple[Mistake, ...] = ()
    overlay: NDArray[np.uint8] | None = None
    """Number of the error kind of each pixel, along T, Z, Y, X; None where nothing went wrong."""


def compare(
    prediction: Snapshot,
    truth: Snapshot,
    kind: Kind | Literal["auto"] = "auto",
    labelling: str = "dense",
    on_event: Callable[[Event], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Comparison:
    """Figures and mistakes of a prediction against the truth.

    Parameters
    ----------
    on_event : callable, optional
        Is told `Progress`, in the thread that compares.
    labelling : str
        "sparse" where 0 in the truth is unknown and 1 is background; unknown pixels do not count.

    Raises
    ------
    DataError
        The two do not have the same size.
    Stopped
        `should_stop` said so.
    """
    if prediction.shape != truth.shape:
        raise DataError(
            f"“{prediction.name}” has the size {_words(prediction)}, “{truth.name}” {_words(truth)}",
            "Compare layers of the same image",
        )
    reason = ""
    if kind == "auto":
        first = next(_pairs(prediction, truth, labelling))
        kind, reason = guess_kind([(first.prediction, first.truth)])
    total = truth.shape[0] * truth.shape[1]
    pairs = _pairs(prediction, truth, labelling)
    report = evaluate_many(pairs, kind, on_event, should_stop, total=total)
    if kind != "labels":
        return Comparison(report, reason)
    found = _mistakes(prediction, truth, labelling, on_event, should_stop)
    return Comparison(report, reason, *found)


def _words(snapshot: Snapshot) -> str:
    return " × ".join(str(n) for n in snapshot.shape if n > 1)


def _pairs(prediction: Snapshot, truth: Snapshot, labelling: str) -> Iterator[Pair]:
    """One pair per time point and channel; each counts as an image of its own."""
    left, right = prediction.image(), truth.image()
    times, channels, z, y, x = truth.shape
    for t in range(times):
        for c in range(channels):
            region = (slice(t, t + 1), slice(c, c + 1), slice(0, z), slice(0, y), slice(0, x))
            flat = (0, 0, 0) if z == 1 else (0, 0)
            place = f" t={t}" * (times > 1) + f" c={c}" * (channels > 1)
            known, weight = _learned(right.read(region)[flat], labelling)
            yield Pair(f"{prediction.name}{place}", left.read(region)[flat], known, weight)


def _learned(truth: NDArray[Any], labelling: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    if labelling != "sparse":
        return truth, None
    from im2im_core.partial import to_learning

    return to_learning(truth, "sparse")


def _mistakes(
    prediction: Snapshot,
    truth: Snapshot,
    labelling: str,
    on_event: Callable[[Event], None] | None,
    should_stop: Callable[[], bool] | None,
) -> tuple[tuple[Mistake, ...], NDArray[np.uint8] | None]:
    from im2im_core.metrics import errors

    times, channels, z, y, x = truth.shape
    overlay = np.zeros((times, z, y, x), np.uint8)
    found: list[Mistake] = []
    begun = time.monotonic()
    for number, pair in enumerate(_pairs(prediction, truth, labelling)):
        if should_stop is not None and should_stop():
            raise Stopped(f"The search for mistakes was stopped after {number} images")
        if on_event is not None:
            on_event(_progress(number, times * channels, time.monotonic() - begun))
        t = number // channels
        wrong = errors(pair.prediction, pair.truth, pair.weight)
        found += [_mistake(error, t, pair.name) for error in wrong]
        _paint(overlay[t].reshape(pair.truth.shape), pair, wrong)
    order = {kind: i for i, kind in enumerate(("merged", "split", "missed", "extra"))}
    return tuple(sorted(found, key=lambda m: (m.position[0], order[m.kind]))), overlay if found else None


def _progress(done: int, total: int, elapsed: float) -> Progress:
    return Progress("looking for mistakes", done, total, elapsed, elapsed / done * (total - done) if done else None)


def _mistake(error: ObjectError, t: int, frame: str) -> Mistake:
    z, y, x = (0.0, *error.position)[-3:]
    ids = error.truth_ids or error.pred_ids
    return Mistake(error.kind, ids[0], frame, (float(t), z, y, x), float(max(b - a for a, b in error.box[-2:])))


def _paint(target: NDArray[np.uint8], pair: Pair, wrong: tuple[ObjectError, ...]) -> None:
    """Number of the kind at the pixels of the objects concerned; true objects where there are some."""
    for kind in ERROR_KINDS:
        of_kind = [e for e in wrong if e.kind == kind]
        side, ids = (
            (pair.prediction, [i for e in of_kind for i in e.pred_ids])
            if kind in ("extra", "merged")
            else (pair.truth, [i for e in of_kind for i in e.truth_ids])
        )
        if ids:
            target[np.isin(side, ids)] = ERROR_KINDS.index(kind) + 1
