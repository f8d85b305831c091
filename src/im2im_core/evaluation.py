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
from im2im_core.metrics import THRESHOLDS, Kind, Parts, Scene, find_metric
from im2im_core.resampling import FEWEST, RESAMPLES, Resampling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.image import Image

LOOKED_AT = 8
"""Images that decide what kind of truth a folder holds."""
FEW = 16
"""Different values up to which whole numbers may be classes."""


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
    spacing: tuple[float, float] | None = None
    """Size of a pixel along Y and X in micrometres; None where unknown."""


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
    pooled_interval: dict[str, tuple[float, float]] = field(default_factory=dict)
    """95 % confidence interval of the pooled figures, from the same resampling."""
    images: int = 0
    """Number n of whole images that the resampling draws from; time points and channels of one file are one."""

    def to_dict(self) -> dict[str, Any]:
        """Plain content for JSON; infinite and undefined figures become None."""
        content: dict[str, Any] = _jsonable(asdict(self))
        return content

    def to_csv(self) -> str:
        """One line per image and one column per figure, then mean and pooled.

        Where there are intervals, their ends follow, and n: how many whole images they were drawn from.
        """
        lines = [*((r.name, r.values) for r in self.rows), ("mean", self.mean), ("pooled", self.pooled)]
        for label, interval in (("mean", self.interval), ("pooled", self.pooled_interval)):
            for end, words in enumerate(("2.5 %", "97.5 %") if interval else ()):
                lines.append((f"{label} {words}", {n: limits[end] for n, limits in interval.items()}))
        if self.interval:
            lines.append(("n", dict.fromkeys(self.mean, self.images)))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image", *self.mean])
        for label, values in lines:
            writer.writerow([label, *(values.get(n, "") for n in self.mean)])
        return text.getvalue()

    def table(self) -> str:
        """The main figures as text for a terminal: mean and pooled with their intervals, and which way is better."""
        lines = [("figure", "mean", "95 % interval", "pooled", "95 % interval", "unit", "better")]
        for name in self.main_figures():
            metric, pooled = find_metric(name), self.pooled.get(name)
            mean, of_mean = f"{self.mean[name]:.4g}", _interval_words(self.interval.get(name))
            of_pooled = _interval_words(self.pooled_interval.get(name))
            whole = "" if pooled is None else f"{pooled:.4g}"
            lines.append((name, mean, of_mean, whole, of_pooled, metric.unit, metric.direction))
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        head = f"{len(self.rows)} image{'s' * (len(self.rows) != 1)}, compared as {self.kind}"
        body = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        return "\n".join([head, *self.notes, *body, *self.remarks()])

    def main_figures(self) -> list[str]:
        """Names of the figures that a person wants to see: of several thresholds the lowest, but for the AP."""
        lowest = next((n.partition("@")[2] for n in self.mean if "@" in n and find_metric(n).thresholded), "")
        return [
            name
            for name in self.mean
            if (metric := find_metric(name)).averaged or not metric.thresholded or name.endswith(f"@{lowest}")
        ]

    def remarks(self) -> tuple[str, ...]:
        """How the intervals came about, in sentences; empty without intervals."""
        if not self.interval:
            return ()
        said = f"Intervals: {RESAMPLES} resamplings of n = {self.images} whole images, percentiles 2.5 and 97.5."
        few = f"They are too narrow where n is below {FEWEST}."
        return (said, few) if self.images < FEWEST else (said,)


def _interval_words(limits: tuple[float, float] | None) -> str:
    return f"{limits[0]:.4g} to {limits[1]:.4g}" if limits else ""


# ---- arrays ----


def evaluate_pair(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    kind: Kind,
    weight: NDArray[Any] | None = None,
    thresholds: tuple[float, ...] = THRESHOLDS,
    data_range: float | None = None,
    spacing: tuple[float, float] | None = None,
) -> dict[str, float]:
    """Figures of one prediction by name, for example ``average_precision@0.5``, ``dice@1`` or ``psnr``.

    Parameters
    ----------
    data_range : float, optional
        Largest minus smallest possible value of an image; by default that of the truth.
    spacing : tuple of float, optional
        Size of a pixel along Y and X in micrometres.
    """
    return _measure(Pair("", prediction, truth, weight, spacing=spacing), kind, thresholds, data_range)[1]


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
    sums: list[Parts] = []
    for pair in pairs:
        if should_stop is not None and should_stop():
            raise Stopped(f"Evaluation was stopped after {len(rows)} images")
        try:
            parts, values = _measure(pair, kind, thresholds, data_range)
        except DataError as error:
            raise DataError(f"{pair.name}: {error.message}", error.cure) from error
        sums.append(parts)
        rows.append(Row(pair.name, pair.group or pair.name, values))
        if on_event is not None:
            on_event(progress(len(rows), total, time.monotonic() - begun))
    return report_of(kind, rows, sums, seed, notes)


def report_of(kind: Kind, rows: list[Row], sums: list[Parts], seed: int = 0, notes: tuple[str, ...] = ()) -> Report:
    """Mean, pooled figures and intervals of rows that are measured.

    Raises
    ------
    DataError
        There is no row.
    """
    if not rows:
        raise DataError("There is nothing to evaluate", "Give at least one prediction with its truth")
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    mean = {n: float(np.mean([r.values[n] for r in rows if n in r.values])) for n in names}
    pooled = metrics.figures_of(metrics.pooled(sums))
    draws = Resampling.of([row.group for row in rows], seed)
    intervals = (draws.of_means([r.values for r in rows], names), draws.of_pooled(sums)) if draws else ({}, {})
    number = len({row.group for row in rows})
    return Report(kind, tuple(rows), mean, pooled, intervals[0], notes, intervals[1], number)


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
    found, wanted = images_in(predictions), images_in(truths)
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


def images_in(path: Path) -> dict[str, Path]:
    """The image, or those of a folder, by their names without endings."""
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
    """Pairs of every scene of every file, time point by time point, flat axes removed."""
    for name, predicted, true in partners:
        for scene, prediction, truth in _scene_pairs(predicted, true):
            if prediction.info.shape != truth.info.shape:
                raise DataError(
                    f"{predicted}{scene} has the shape {prediction.info.shape} along T, C, Z, Y, X, "
                    f"{true}{scene} {truth.info.shape}",
                    "Compare images of the same size, with the same axes",
                )
            spacing = spacing_of(truth, prediction)
            for place, (left, right) in frames(f"{name}{scene}", prediction, truth):
                yield Pair(place, left, right, None, name, spacing)
                if first_only:
                    break


def _scene_pairs(prediction: Path, truth: Path) -> Iterator[tuple[str, Image, Image]]:
    """Scenes that belong together, by name, else by number: ``:NAME`` in the truth, empty where it holds one image."""
    from im2im_core.io import open_image

    first, other = open_image(prediction), open_image(truth)
    if len(first.info.scenes) != len(other.info.scenes):
        counts = [max(1, len(image.info.scenes)) for image in (first, other)]
        raise DataError(
            f"{prediction} has {counts[0]} scenes, {truth} has {counts[1]}",
            "Compare files with the same scenes, or save each scene as a file of its own",
        )
    if not other.info.scenes:
        yield "", first, other
        return
    by_name = set(first.info.scenes) == set(other.info.scenes)
    for number, name in enumerate(other.info.scenes):
        yield f":{name}", open_image(prediction, scene=name if by_name else number), open_image(truth, scene=number)


def frames(name: str, *images: Image) -> Iterator[tuple[str, list[NDArray[Any]]]]:
    """Name and pixels ``([Z], Y, X)`` of every time point and channel of images of one size."""
    times, channels, depth, height, width = images[-1].info.shape
    flat = (0, 0, 0) if depth == 1 else (0, 0)
    for t in range(times):
        for c in range(channels):
            region = (slice(t, t + 1), slice(c, c + 1), slice(0, depth), slice(0, height), slice(0, width))
            place = f" t={t}" * (times > 1) + f" c={c}" * (channels > 1)
            yield name + place, [image.read(region)[flat] for image in images]


def spacing_of(*images: Image) -> tuple[float, float] | None:
    """Size of a pixel along Y and X in micrometres, as the first of `images` that knows it says."""
    for image in images:
        _, y, x = image.info.voxel_size
        if y is not None and x is not None:
            return y, x
    return None


# ---- figures ----


def _measure(
    pair: Pair, kind: Kind, thresholds: tuple[float, ...], data_range: float | None
) -> tuple[Parts, dict[str, float]]:
    """Sums of a pair, and its figures."""
    scene = Scene(pair.prediction, pair.truth, pair.weight, data_range, pair.spacing)
    parts = metrics.parts_of(scene, kind, thresholds)
    return parts, metrics.completed(metrics.figures_of(parts), kind)


def progress(done: int, total: int | None, elapsed: float) -> Progress:
    """How far an evaluation is after `elapsed` seconds."""
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
