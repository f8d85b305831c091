"""The work behind the Evaluate panel, without Qt: figures per time point and channel, and where they went wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from im2im_core.errors import DataError, Stopped
from im2im_core.evaluation import Pair, Report, evaluate_many, guess_kind, spacing_of
from im2im_core.events import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from im2im_core.datasets import Labelling
    from im2im_core.events import Event
    from im2im_core.image import Image
    from im2im_core.metrics import ErrorKind, Kind, ObjectError
    from napari_im2im._layers import Snapshot

    OnEvent = Callable[[Event], None] | None
    ShouldStop = Callable[[], bool] | None

ERROR_KINDS: tuple[ErrorKind, ...] = ("missed", "extra", "merged", "split")
"""In the order of their numbers in the error layer, from 1."""
PIXEL_KINDS = ("missed", "extra", "confused")
"""How a pixel can have the wrong class, in the order of their numbers in the error layer, from 1."""
MOST_SHOWN = 2**28
"""Pixels of which a difference is kept in memory."""


@dataclass(frozen=True)
class Known:
    """What is known of the truth: how its labels were painted, and where they are complete."""

    labelling: Labelling = "dense"
    regions: tuple[NDArray[Any], ...] = ()
    """Corners in pixels of the truth, along its last axes; inside them everything is labelled."""
    prefilled: bool = False
    """Whether the labels began as a prediction, so that only what lies inside the regions was corrected."""

    @property
    def partly(self) -> bool:
        """Whether pixels may be unknown."""
        return self.labelling == "sparse" or bool(self.regions) or self.prefilled


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
    wrong: NDArray[Any] | None = None
    """What went wrong in each pixel, along T, C, Z, Y, X; None where nothing did, or it is too large to be shown.

    For objects the number of the kind in `ERROR_KINDS`, for classes in `PIXEL_KINDS`, for images
    prediction minus truth; 0 where nothing is known.
    """
    counts: tuple[int, ...] = ()
    """Wrong pixels of each of `PIXEL_KINDS`; only for classes."""
    span: float = 1.0
    """Difference that is shown in full colour; only for images."""
    too_large: bool = False
    """Whether `wrong` is left out for its size."""
    known: float = 1.0
    """Part of the pixels whose truth is known."""


@dataclass(frozen=True)
class _Sides:
    """The two images to be compared, and the weight of each pixel where not all are known."""

    name: str
    prediction: Image
    truth: Image
    weight: Image | None

    def pairs(self) -> Iterator[Pair]:
        """One pair per time point and channel; each counts as an image of its own."""
        times, channels, z, y, x = self.truth.info.shape
        flat = (0, 0, 0) if z == 1 else (0, 0)
        spacing = spacing_of(self.truth, self.prediction)
        for t in range(times):
            for c in range(channels):
                region = (slice(t, t + 1), slice(c, c + 1), slice(0, z), slice(0, y), slice(0, x))
                place = f" t={t}" * (times > 1) + f" c={c}" * (channels > 1)
                # Where labels are given once for all channels, so is the weight.
                weight = None if self.weight is None else self.weight.read((region[0], slice(0, 1), *region[2:]))[flat]
                left, right = self.prediction.read(region)[flat], self.truth.read(region)[flat]
                yield Pair(f"{self.name}{place}", left, right, weight, spacing=spacing)


def compare(
    prediction: Snapshot,
    truth: Snapshot,
    kind: Kind | Literal["auto"] = "auto",
    known: Known | None = None,
    on_event: OnEvent = None,
    should_stop: ShouldStop = None,
) -> Comparison:
    """Figures and mistakes of a prediction against the truth.

    Parameters
    ----------
    on_event : callable, optional
        Is told `Progress`, in the thread that compares.
    known : Known, optional
        What is known of the truth, everything if not given; pixels of which nothing is known do not count.

    Raises
    ------
    DataError
        The two do not have the same size, or nothing is known of the truth.
    Stopped
        `should_stop` said so.
    """
    if prediction.shape != truth.shape:
        raise DataError(
            f"“{prediction.name}” has the size {_words(prediction)}, “{truth.name}” {_words(truth)}",
            "Compare layers of the same image",
        )
    sides, share = _sides(prediction, truth, known or Known())
    reason = ""
    if kind == "auto":
        first = next(sides.pairs())
        kind, reason = guess_kind([(first.prediction, first.truth)])
    wrong = None if kind == "labels" else _wrong_pixels(truth.shape, kind)
    pairs = sides.pairs() if wrong is None else _noted(sides.pairs(), wrong)
    report = evaluate_many(pairs, kind, on_event, should_stop, total=truth.shape[0] * truth.shape[1])
    if kind == "labels":
        return Comparison(report, reason, *_mistakes(sides, on_event, should_stop), known=share)
    if wrong is None:
        return Comparison(report, reason, too_large=True, known=share)
    shown = wrong if wrong.any() else None
    if kind == "classes":
        return Comparison(report, reason, wrong=shown, counts=_counts(wrong), known=share)
    return Comparison(report, reason, wrong=shown, span=_span(wrong), known=share)


def _words(snapshot: Snapshot) -> str:
    return " × ".join(str(n) for n in snapshot.shape if n > 1)


# ---- what is known -------------------------------------------------------------


def _sides(prediction: Snapshot, truth: Snapshot, known: Known) -> tuple[_Sides, float]:
    """Both images as they are compared, and which part of the pixels is known."""
    if known.prefilled and not known.regions:
        raise DataError(
            f"“{truth.name}” began as a prediction, and nothing says which part of it was corrected",
            "Choose labels that were made without the model, or draw a rectangle around the part that is right "
            "and say in Dataset that everything inside it is labelled",
        )
    image = truth.image()
    if not known.partly:
        return _Sides(prediction.name, prediction.image(), image, None), 1.0
    from im2im_core.datasets import learning_sample
    from im2im_core.samples import TARGET, Sample

    # What counts here is what a training would learn from.
    whole = Sample(truth.name, truth.name, image, {TARGET: image})
    learned = learning_sample(whole, known.labelling, known.regions, prefilled=known.prefilled)
    assert learned.weight is not None
    share = float((learned.weight.read() > 0).mean())
    if not share:
        raise DataError(
            f"Nothing is known of any pixel of “{truth.name}”",
            "Paint background as 1 and objects from 2, or draw regions in which everything is labelled",
        )
    return _Sides(prediction.name, prediction.image(), learned.targets[TARGET], learned.weight), share


# ---- pixels --------------------------------------------------------------------


def _wrong_pixels(shape: tuple[int, ...], kind: Kind) -> NDArray[Any] | None:
    """Room for what is wrong in each pixel of ``(T, C, Z, Y, X)``; None where it is too large."""
    if int(np.prod(shape)) > MOST_SHOWN:
        return None
    return np.zeros(shape, np.uint8 if kind == "classes" else np.float32)


def _noted(pairs: Iterator[Pair], wrong: NDArray[Any]) -> Iterator[Pair]:
    """The same pairs; on the way what is wrong in each is written into `wrong`."""
    channels = wrong.shape[1]
    for number, pair in enumerate(pairs):
        target = wrong[number // channels, number % channels].reshape(pair.truth.shape)
        if wrong.dtype == np.uint8:
            target[...] = _class_errors(pair.prediction, pair.truth)
        else:
            np.subtract(pair.prediction, pair.truth, out=target, dtype=np.float32, casting="unsafe")
        if pair.weight is not None:
            target[pair.weight == 0] = 0
        yield pair


def _span(difference: NDArray[Any]) -> float:
    """Size of the largest differences but for a few pixels; 1 where there are none."""
    few = np.abs(difference[(..., *(slice(None, None, max(1, n // 256)) for n in difference.shape[-2:]))])
    finite = few[np.isfinite(few)]
    return float(np.percentile(finite, 99.8) if finite.size else 0.0) or float(finite.max(initial=0.0)) or 1.0


def _class_errors(prediction: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.uint8]:
    """Number of the kind in `PIXEL_KINDS` of every pixel that has the wrong class."""
    conditions = [prediction == truth, prediction == 0, truth == 0]
    return np.select(conditions, [0, 1, 2], 3).astype(np.uint8)


def _counts(wrong: NDArray[Any]) -> tuple[int, ...]:
    return tuple(int(n) for n in np.bincount(wrong.ravel(), minlength=len(PIXEL_KINDS) + 1)[1:])


# ---- objects -------------------------------------------------------------------


def _mistakes(
    sides: _Sides, on_event: OnEvent, should_stop: ShouldStop
) -> tuple[tuple[Mistake, ...], NDArray[np.uint8] | None]:
    from im2im_core.metrics import errors

    times, channels, *_ = shape = sides.truth.info.shape
    wrong = np.zeros(shape, np.uint8)
    found: list[Mistake] = []
    begun = time.monotonic()
    for number, pair in enumerate(sides.pairs()):
        if should_stop is not None and should_stop():
            raise Stopped(f"The search for mistakes was stopped after {number} images")
        if on_event is not None:
            on_event(_progress(number, times * channels, time.monotonic() - begun))
        t, c = divmod(number, channels)
        here = errors(pair.prediction, pair.truth, pair.weight)
        found += [_mistake(error, t, pair.name) for error in here]
        _paint(wrong[t, c].reshape(pair.truth.shape), pair, here)
    order = {kind: i for i, kind in enumerate(("merged", "split", "missed", "extra"))}
    return tuple(sorted(found, key=lambda m: (m.position[0], order[m.kind]))), wrong if found else None


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
