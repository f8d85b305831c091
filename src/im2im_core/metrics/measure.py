"""Figures of one image: every group of metrics is computed once, from sums that can be pooled over images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from im2im_core.errors import ConfigError, DataError
from im2im_core.metrics import classes, images, instances, objects, partitions
from im2im_core.metrics.multiscale import ms_ssim_sums
from im2im_core.metrics.registry import METRICS, Group, Kind, Metric, find_metric
from im2im_core.metrics.resolution import frc_resolution, single_image_resolution
from im2im_core.metrics.sums import Ratio, Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from numpy.typing import NDArray

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""IoU from which an object counts as found."""
Key = tuple[Group, str]
"""Group of metrics, and the threshold or class; empty where there is none."""
Parts = dict[Key, Sums]
"""Sums of one image, or of several together."""


@dataclass(frozen=True)
class Scene:
    """A prediction and its truth, both ``([Z], Y, X)``, and what their comparison has to know."""

    prediction: NDArray[Any]
    truth: NDArray[Any]
    weight: NDArray[Any] | None = None
    """Importance per pixel, 0 = unknown."""
    data_range: float | None = None
    """Largest minus smallest possible value of an image; None = that of the truth."""
    spacing: tuple[float, float] | None = None
    """Size of a pixel along Y and X in micrometres; None where unknown."""


# ---- public API ----------------------------------------------------------------


def parts_of(
    scene: Scene,
    kind: Kind,
    thresholds: tuple[float, ...] = THRESHOLDS,
    groups: Collection[Group] | None = None,
) -> Parts:
    """Sums of all groups of a kind, or of `groups` alone; overlaps of objects are counted once for all.

    Raises
    ------
    DataError
        The two sides do not fit together, or are not what the kind says.
    """
    makers = _MAKERS[kind](scene, thresholds)
    wanted = [g for g in makers if groups is None or g in groups]
    return {(group, detail): sums for group in wanted for detail, sums in makers[group]().items()}


def parts_alone(image: NDArray[Any], spacing: tuple[float, float] | None = None) -> Parts:
    """Sums of what one image ``([Z], Y, X)`` tells without any truth."""
    sides = spacing or (1.0, 1.0)
    finest = single_image_resolution(image, sides)
    parts: Parts = {("alone", ""): Ratio(finest / max(sides), 1.0)}
    return parts | {("alone_um", ""): Ratio(finest, 1.0)} if spacing else parts


def figures_of(parts: Mapping[Key, Sums]) -> dict[str, float]:
    """Figures by name: ``metric`` or ``metric@detail``; of those that are averaged the mean stands first."""
    values: dict[str, float] = {}
    for name, attribute, keys in _names_of(tuple(parts)):
        found = [float(getattr(parts[key], attribute)) for key in keys]
        values[name] = sum(found) / len(found)
    return values


def completed(values: dict[str, float], kind: Kind) -> dict[str, float]:
    """`values`, and 1 for means over classes where no class occurs: background alone on both sides is right."""
    return {m.name: 1.0 for m in METRICS.values() if m.kind == kind and m.group == "overlap"} | values


def pooled(images: Iterable[Parts]) -> Parts:
    """Sums of all images together."""
    pool: Parts = {}
    for parts in images:
        pool |= {k: pool[k] + s if k in pool else s for k, s in parts.items()}
    return pool


def figure(metric: Metric, pred: NDArray[Any], truth: NDArray[Any], weight: NDArray[Any] | None = None) -> float:
    """One figure of one pair: at IoU 0.5, the mean over classes, with the range of the truth.

    Raises
    ------
    DataError
        The metric needs the size of a pixel, which arrays do not tell, or compares nothing.
    """
    if not metric.measurable:
        raise DataError(f"{metric.name} cannot be told from two arrays", "Evaluate image files, which tell more")
    parts = parts_of(Scene(pred, truth, weight), metric.kind, (0.5,), {metric.group})
    found = completed(figures_of(parts), metric.kind)
    return found[metric.name if metric.name in found else f"{metric.name}@0.5"]


# ---- a few of them -------------------------------------------------------------


@dataclass(frozen=True)
class Selection:
    """Figures of one kind that were asked for."""

    kind: Kind
    figures: tuple[str, ...]

    def measure(self, scene: Scene) -> dict[str, float]:
        """The figures of one pair; nothing that was not asked for is computed."""
        groups = {find_metric(name).group for name in self.figures}
        parts = parts_of(scene, self.kind, self._thresholds(), groups)
        # A mean is that over the usual thresholds, whatever else is asked for.
        usual = {key: sums for key, sums in parts.items() if key[0] != "counts" or float(key[1]) in THRESHOLDS}
        found = completed(figures_of(parts) | figures_of(usual), self.kind)
        return {name: found[name] for name in self.figures if name in found}  # an image may lack a class

    def _thresholds(self) -> tuple[float, ...]:
        details = {n.partition("@")[2] for n in self.figures if find_metric(n).thresholded}
        asked = {float(d) for d in details if d}
        return tuple(sorted(asked | set(THRESHOLDS if "" in details else ())))


def select(names: Iterable[str], kind: Kind) -> Selection:
    """Figures by name, for example ``f1``, ``f1@0.75``, ``seg``, ``dice@2``.

    Metrics with a threshold stand for that of 0.5, those that are averaged for their mean.

    Raises
    ------
    ConfigError
        There is no such metric, it does not fit the kind, or what stands behind ``@`` is no threshold or class.
    """
    return Selection(kind, tuple(dict.fromkeys(_full_name(name, kind) for name in names)))


def while_training(kind: Kind) -> tuple[str, ...]:
    """Names of the metrics that a training computes unless told otherwise."""
    return tuple(m.name for m in METRICS.values() if m.kind == kind and m.while_training)


def check_figure(name: str) -> None:
    """Do nothing where `name` is a metric and what stands behind ``@`` fits it; raises ConfigError otherwise."""
    metric, detail = find_metric(name), name.partition("@")[2]
    if not detail:
        return
    number = _number(detail)
    if metric.thresholded:
        if number is None or not 0 < number <= 1:
            raise ConfigError(
                f"{name}: {detail!r} is no IoU above 0 and up to 1", f"Write for example {metric.name}@0.75"
            )
    elif metric.group != "overlap":
        raise ConfigError(f"{name}: {metric.name} has no thresholds and no classes", f"Write {metric.name}")
    elif number is None or number < 1 or number != int(number):
        raise ConfigError(f"{name}: {detail!r} is no class", f"Write for example {metric.name}@1")


def _full_name(name: str, kind: Kind) -> str:
    check_figure(name)
    metric, detail = find_metric(name), name.partition("@")[2]
    if metric.kind != kind or not metric.measurable:
        fitting = [m.name for m in METRICS.values() if m.kind == kind and m.measurable]
        raise ConfigError(f"{metric.name} cannot be measured here", f"Choose from: {', '.join(fitting)}")
    if metric.thresholded and not detail and not metric.averaged:
        detail = "0.5"
    return f"{metric.name}@{float(detail):g}" if detail else metric.name


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


# ---- groups --------------------------------------------------------------------

_Makers = dict[Group, "Callable[[], dict[str, Any]]"]


def _of_labels(scene: Scene, thresholds: tuple[float, ...]) -> _Makers:
    table = instances.contingency(scene.prediction, scene.truth, scene.weight)
    matching = instances.matching_of(table)
    return {
        "counts": lambda: {f"{t:g}": instances.counts(matching, t) for t in thresholds},
        "seg": lambda: {"": instances.seg_sums(matching)},
        "foreground": lambda: {"": partitions.foreground(table)},
        "rand": lambda: {"": partitions.pixel_pairs(table)},
        "information": lambda: {"": partitions.information(table)},
        "mistakes": lambda: {"": objects.mistakes(matching)},
    }


def _of_classes(scene: Scene, thresholds: tuple[float, ...]) -> _Makers:
    table = instances.contingency(scene.prediction, scene.truth, scene.weight)
    return {
        "overlap": lambda: {str(c): overlap for c, overlap in classes.overlaps_of(table).items()},
        "accuracy": lambda: {"": classes.accuracy_sums(table)},
    }


def _of_image(scene: Scene, thresholds: tuple[float, ...]) -> _Makers:
    pred, truth, weight = scene.prediction, scene.truth, scene.weight
    span = scene.data_range if scene.data_range is not None else images.range_of(truth, weight)
    makers: _Makers = {
        "moments": lambda: {"": images.moments(pred, truth, span, weight)},
        "ssim": lambda: {"": images.ssim_sums(pred, truth, span, weight)},
        "ms_ssim": lambda: {"": ms_ssim_sums(pred, truth, span, weight)},
    }
    sides = scene.spacing or (1.0, 1.0)
    # The costly part is the same in pixels and in micrometres.
    finest = lru_cache(maxsize=1)(lambda: frc_resolution(pred, truth, weight, sides))
    makers["frc"] = lambda: {"": Ratio(finest() / max(sides), 1.0)}
    if scene.spacing:
        makers["frc_um"] = lambda: {"": Ratio(finest(), 1.0)}
    return makers


_MAKERS: dict[Kind, Callable[[Scene, tuple[float, ...]], _Makers]] = {
    "labels": _of_labels,
    "classes": _of_classes,
    "image": _of_image,
}


@lru_cache(maxsize=64)
def _names_of(keys: tuple[Key, ...]) -> tuple[tuple[str, str, tuple[Key, ...]], ...]:
    """Name and property of every figure that `keys` allow, and the keys that it is the mean of."""
    found: list[tuple[str, str, tuple[Key, ...]]] = []
    for metric in METRICS.values():
        own = tuple(key for key in keys if key[0] == metric.group)
        if metric.averaged and own:
            found.append((metric.name, metric.attribute, own))
        for key in own:
            name = f"{metric.name}@{key[1]}" if key[1] else metric.name
            found.append((name, metric.attribute, (key,)))
    return tuple(found)
