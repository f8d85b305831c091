"""How good predictions are: figures per image, their mean, pooled over all images, with confidence intervals."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from im2im_core import metrics
from im2im_core.errors import DataError, Stopped
from im2im_core.events import Event, Message, Progress
from im2im_core.metrics import Kind, Ratio, Sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.image import Image

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""IoU from which an object counts as found."""
RESAMPLES = 1000
LOOKED_AT = 8
"""Images that decide what kind of truth a folder holds."""
FEW = 16
"""Different values up to which whole numbers may be classes."""

Parts = dict[str, Sums]
"""Sums of one image, by the detail that stands behind ``@`` in the names of the figures."""


@dataclass(frozen=True)
class Pair:
    """A prediction and its truth."""

    name: str
    prediction: NDArray[Any]
    truth: NDArray[Any]
    weight: NDArray[Any] | None = None
    """Importance per pixel, 0 = unknown."""
    group: str = ""
    """Image that it is a part of, for confidence intervals; empty = an image of its own."""


@dataclass(frozen=True)
class Row:
    """Figures of one pair."""

    name: str
    group: str
    values: dict[str, float]


@dataclass(frozen=True)
class Report:
    """Result of an evaluation. Figures are named ``metric`` or ``metric@detail``."""

    kind: Kind
    rows: tuple[Row, ...]
    mean: dict[str, float]
    """Mean over the images that have the figure."""
    pooled: dict[str, float]
    """The same formulas over the objects or pixels of all images together."""
    interval: dict[str, tuple[float, float]]
    """95 % confidence interval of the mean, by resampling whole images; empty for a single image."""
    notes: tuple[str, ...] = field(default=())
    """What was decided, in words."""

    def to_dict(self) -> dict[str, Any]:
        """Plain content for JSON; infinite and undefined figures become None."""
        content: dict[str, Any] = _jsonable(asdict(self))
        return content

    def to_csv(self) -> str:
        """One line per image and one column per figure, then the lines ``mean`` and ``pooled``."""
        names = list(self.mean)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image", *names])
        for label, values in [*((r.name, r.values) for r in self.rows), ("mean", self.mean), ("pooled", self.pooled)]:
            writer.writerow([label, *(values.get(n, "") for n in names)])
        return text.getvalue()

    def table(self) -> str:
        """Figures as text for a terminal: mean, interval and pooled."""
        lines = [("figure", "mean", "95 % interval", "pooled")]
        for name, value in self.mean.items():
            low_high = self.interval.get(name)
            interval = f"{low_high[0]:.4g} to {low_high[1]:.4g}" if low_high else ""
            pooled = f"{self.pooled[name]:.4g}" if name in self.pooled else ""
            lines.append((name, f"{value:.4g}", interval, pooled))
        widths = [max(len(line[i]) for line in lines) for i in range(4)]
        head = f"{len(self.rows)} image{'s' * (len(self.rows) != 1)}, compared as {self.kind}"
        body = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        return "\n".join([head, *self.notes, *body])


# ---- arrays ----


def evaluate_pair(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    kind: Kind,
    weight: NDArray[Any] | None = None,
    thresholds: tuple[float, ...] = THRESHOLDS,
    data_range: float | None = None,
) -> dict[str, float]:
    """Figures of one prediction by name, for example ``average_precision@0.5``, ``dice@1`` or ``psnr``.

    Parameters
    ----------
    data_range : float, optional
        Largest minus smallest possible value of an image; by default that of the truth.
    """
    return _measure(Pair("", prediction, truth, weight), kind, thresholds, data_range)[1]


def evaluate_many(
    pairs: Iterable[Pair],
    kind: Kind,
    on_event: Callable[[Event], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    *,
    thresholds: tuple[float, ...] = THRESHOLDS,
    data_range: float | None = None,
    total: int | None = None,
    seed: int = 0,
    notes: tuple[str, ...] = (),
) -> Report:
    """Report over all `pairs`, which are taken one at a time.

    Parameters
    ----------
    total : int, optional
        Number of pairs, for the progress shown.
    seed : int
        Of the resampling behind the confidence intervals.

    Raises
    ------
    DataError
        There is no pair, or the two sides of one do not fit together; the message names it.
    Stopped
        `should_stop` said so.
    """
    begun = time.monotonic()
    rows: list[Row] = []
    pool: Parts = {}
    for pair in pairs:
        if should_stop is not None and should_stop():
            raise Stopped(f"Evaluation was stopped after {len(rows)} images")
        try:
            parts, values = _measure(pair, kind, thresholds, data_range)
        except DataError as error:
            raise DataError(f"{pair.name}: {error.message}", error.cure) from error
        pool = _added(pool, parts)
        rows.append(Row(pair.name, pair.group or pair.name, values))
        if on_event is not None:
            on_event(_progress(len(rows), total, time.monotonic() - begun))
    if not rows:
        raise DataError("There is nothing to evaluate", "Give at least one prediction with its truth")
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    mean = {n: float(np.mean([r.values[n] for r in rows if n in r.values])) for n in names}
    return Report(kind, tuple(rows), mean, _figures(pool), _intervals(rows, names, seed), notes)


def guess_kind(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> tuple[Kind, str]:
    """What kind of truth `pairs` of (prediction, truth) hold, and the reason in words.

    Fractions and noisy whole numbers are images. Whole numbers in patches are
    classes where there are few of them and they either only separate
    foreground from background or mostly lie in several pieces each;
    otherwise they number objects.
    """
    several = whole = 0
    values: set[int] = set()
    for prediction, truth in pairs:
        if prediction.dtype.kind == "f" or truth.dtype.kind == "f":
            return "image", "compared as images, because pixels are fractions"
        if not _in_patches(truth):
            return "image", "compared as images, because neighbouring pixels of the truth differ"
        ids = np.unique(truth)
        values.update(ids.tolist(), np.unique(prediction).tolist())
        if len(ids) <= FEW:
            several += _ids_in_pieces(truth)
        whole += int((ids != 0).sum())
    if len(values) <= 2:
        return "classes", "compared as classes, because there are at most two values"
    if len(values) <= FEW and 2 * several > whole:
        return "classes", f"compared as classes, because there are {len(values)} values and most lie in several pieces"
    return "labels", "compared as objects, because the truth numbers them"


# ---- files ----


def evaluate_files(
    predictions: str | Path,
    truths: str | Path,
    kind: Kind | Literal["auto"] = "auto",
    on_event: Callable[[Event], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    *,
    thresholds: tuple[float, ...] = THRESHOLDS,
    data_range: float | None = None,
) -> Report:
    """Report over two files, or over two folders whose files have the same names but for their endings.

    Every time point and channel is compared on its own; confidence intervals
    resample whole files.

    Raises
    ------
    DataError
        A partner is missing, names are doubled or shapes differ; the message names the files.
    """
    partners = _partners(Path(predictions), Path(truths))
    notes: tuple[str, ...] = ()
    if kind == "auto":
        first = islice(((p.prediction, p.truth) for p in _read_pairs(partners, first_only=True)), LOOKED_AT)
        kind, note = guess_kind(first)
        notes = (f"{note[0].upper()}{note[1:]}",)
        if on_event is not None:
            on_event(Message(notes[0], cure="Name the kind if this is wrong", code="kind_guessed"))
    return evaluate_many(
        _read_pairs(partners), kind, on_event, should_stop, thresholds=thresholds, data_range=data_range, notes=notes
    )


def _partners(predictions: Path, truths: Path) -> list[tuple[str, Path, Path]]:
    """Name, prediction and truth of each image."""
    if _is_single(predictions) and _is_single(truths):
        return [(_stem(truths), predictions, truths)]
    found, wanted = _by_stem(predictions), _by_stem(truths)
    lonely = [f"{name} has no truth" for name in sorted(found.keys() - wanted.keys())]
    lonely += [f"{name} has no prediction" for name in sorted(wanted.keys() - found.keys())]
    if lonely:
        raise DataError(
            f"{predictions} and {truths} do not pair up: {', '.join(lonely)}",
            "Files that belong together need the same name, apart from the ending; remove or add the others",
        )
    if not found:
        raise DataError(f"{predictions} and {truths} hold no images", "Name folders of images or two images")
    return [(name, found[name], wanted[name]) for name in sorted(found)]


def _is_single(path: Path) -> bool:
    """Whether the path is one image: a file, or a folder that is an OME-Zarr."""
    if not path.exists():
        raise DataError(f"{path} does not exist", "Check the name")
    return path.is_file() or path.suffix.lower() == ".zarr"


def _by_stem(path: Path) -> dict[str, Path]:
    from im2im_core.io import is_image

    if _is_single(path):
        return {_stem(path): path}
    result: dict[str, Path] = {}
    for entry in sorted(path.iterdir()):
        if not is_image(entry):
            continue
        other = result.setdefault(_stem(entry), entry)
        if other != entry:
            raise DataError(f"{other} and {entry.name} have the same name but for the ending", "Keep one of them")
    return result


def _stem(path: Path) -> str:
    stem = path.stem
    return stem[:-4] if stem.lower().endswith(".ome") else stem


def _read_pairs(partners: list[tuple[str, Path, Path]], first_only: bool = False) -> Iterator[Pair]:
    """Pairs of every file, time point by time point, flat axes removed."""
    from im2im_core.io import open_image

    for name, prediction_path, truth_path in partners:
        prediction, truth = open_image(prediction_path), open_image(truth_path)
        if prediction.info.shape != truth.info.shape:
            raise DataError(
                f"{prediction_path} has the shape {prediction.info.shape} along T, C, Z, Y, X, "
                f"{truth_path} {truth.info.shape}",
                "Compare images of the same size, with the same axes",
            )
        for pair in _frames(name, prediction, truth):
            yield pair
            if first_only:
                break


def _frames(name: str, prediction: Image, truth: Image) -> Iterator[Pair]:
    times, channels, depth, height, width = truth.info.shape
    for t in range(times):
        for c in range(channels):
            region = (slice(t, t + 1), slice(c, c + 1), slice(0, depth), slice(0, height), slice(0, width))
            flat = (0, 0, 0) if depth == 1 else (0, 0)
            place = f" t={t}" * (times > 1) + f" c={c}" * (channels > 1)
            yield Pair(name + place, prediction.read(region)[flat], truth.read(region)[flat], group=name)


# ---- figures ----


def _measure(
    pair: Pair, kind: Kind, thresholds: tuple[float, ...], data_range: float | None
) -> tuple[Parts, dict[str, float]]:
    """Sums of a pair, and its figures."""
    pred, truth, weight = pair.prediction, pair.truth, pair.weight
    if kind == "labels":
        matching = metrics.match(pred, truth, weight)
        parts: Parts = {f"{t:g}": metrics.counts(matching, t) for t in thresholds}
        parts |= {"seg": metrics.seg_sums(matching)}
        return parts, _figures(parts) | {
            "adapted_rand_error": metrics.adapted_rand_error(pred, truth, weight),
            "variation_of_information": metrics.variation_of_information(pred, truth, weight),
        }
    if kind == "classes":
        parts = {str(c): overlap for c, overlap in metrics.overlaps(pred, truth, weight).items()}
        parts |= {"accuracy": metrics.accuracy_sums(pred, truth, weight)}
        return parts, _figures(parts)
    span = data_range if data_range is not None else metrics.range_of(truth, weight)
    parts = {"": metrics.moments(pred, truth, span, weight), "ssim": metrics.ssim_sums(pred, truth, span, weight)}
    return parts, _figures(parts)


_FIGURES: dict[type[Sums], tuple[str, ...]] = {
    metrics.Counts: ("average_precision", "f1", "precision", "recall", "panoptic_quality", "mean_matched_iou"),
    metrics.Overlap: ("dice", "iou"),
    metrics.Moments: ("psnr", "scale_invariant_psnr", "pearson", "mean_absolute_error"),
}


def _figures(parts: Parts) -> dict[str, float]:
    """Figures by name: ``metric@detail``, and the mean over details as ``metric``."""
    result: dict[str, float] = {}
    for detail, sums in parts.items():
        if isinstance(sums, Ratio):
            result[detail] = sums.value
            continue
        for name in _FIGURES[type(sums)]:
            result[f"{name}@{detail}" if detail else name] = float(getattr(sums, name))
    for name in ("average_precision", "dice", "iou"):
        details = [value for key, value in result.items() if key.startswith(f"{name}@")]
        if details:
            result[name] = float(np.mean(details))
    for detail, counts in parts.items():
        if isinstance(counts, metrics.Counts):
            result |= {f"{n}@{detail}": float(getattr(counts, n)) for n in ("tp", "fp", "fn")}
    return result


def _added(pool: Parts, parts: Parts) -> Parts:
    return pool | {k: pool[k] + s if k in pool else s for k, s in parts.items()}


def _intervals(rows: list[Row], names: list[str], seed: int) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap (Efron 1979) of the mean over rows, whole groups drawn with replacement."""
    groups = {name: i for i, name in enumerate(dict.fromkeys(row.group for row in rows))}
    if len(groups) < 2:
        return {}
    draws = np.random.default_rng(seed).integers(0, len(groups), (RESAMPLES, len(groups)))
    owner = np.array([groups[row.group] for row in rows])
    result = {}
    for name in names:
        has = np.array([name in row.values for row in rows])
        values = np.array([row.values.get(name, 0.0) for row in rows])
        if not np.isfinite(values).all():
            continue
        number = np.bincount(owner, has, len(groups))[draws].sum(axis=1)
        total = np.bincount(owner, values, len(groups))[draws].sum(axis=1)
        means = total[number > 0] / number[number > 0]
        low, high = np.percentile(means, (2.5, 97.5))
        result[name] = (float(low), float(high))
    return result


def _progress(done: int, total: int | None, elapsed: float) -> Progress:
    remaining = elapsed / done * (total - done) if total else None
    return Progress("evaluating", done, total, elapsed, remaining)


# ---- what the values are ----


def _in_patches(truth: NDArray[Any]) -> bool:
    """Whether most neighbours along a row are equal, as in a label image and unlike in a noisy one."""
    return bool((truth[..., 1:] == truth[..., :-1]).mean() > 0.5) if truth.shape[-1] > 1 else True


def _ids_in_pieces(truth: NDArray[Any]) -> int:
    """Number of values other than 0 that lie in several separate pieces."""
    from scipy.ndimage import label

    everywhere = np.ones((3,) * truth.ndim)
    return sum(label(truth == i, everywhere)[1] > 1 for i in np.unique(truth).tolist() if i != 0)


def _jsonable(content: Any) -> Any:
    if isinstance(content, dict):
        return {k: _jsonable(v) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return [_jsonable(v) for v in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
