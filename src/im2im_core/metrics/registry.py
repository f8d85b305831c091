"""All metrics by name: what they compare and which direction is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from im2im_core.errors import ConfigError, nearest
from im2im_core.metrics import classes, images, instances

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["labels", "classes", "image"]
"""Objects with their own numbers, classes per pixel, or intensities."""
Function = Callable[..., float]
"""``(pred, truth, weight=None) -> float``."""


@dataclass(frozen=True)
class Metric:
    """One way to compare a prediction with the truth."""

    function: Function
    kind: Kind
    higher_is_better: bool
    summary: str


def _of_matching(function: Callable[[instances.Matching], float]) -> Function:
    def measure(pred: NDArray[Any], truth: NDArray[Any], weight: NDArray[Any] | None = None) -> float:
        return function(instances.match(pred, truth, weight))

    return measure


def _of_range(function: Callable[..., float]) -> Function:
    """Metric whose data range is that of the truth."""

    def measure(pred: NDArray[Any], truth: NDArray[Any], weight: NDArray[Any] | None = None) -> float:
        return function(pred, truth, images.range_of(truth, weight), weight)

    return measure


METRICS: dict[str, Metric] = {
    "average_precision": Metric(
        _of_matching(instances.average_precision), "labels", True, "Objects found, over found, invented and missed"
    ),
    "precision": Metric(_of_matching(instances.precision), "labels", True, "Part of the predicted objects that exist"),
    "recall": Metric(_of_matching(instances.recall), "labels", True, "Part of the true objects that are found"),
    "f1": Metric(_of_matching(instances.f1), "labels", True, "Harmonic mean of precision and recall"),
    "panoptic_quality": Metric(
        _of_matching(instances.panoptic_quality), "labels", True, "F1 times the mean IoU of found objects"
    ),
    "mean_matched_iou": Metric(
        _of_matching(instances.mean_matched_iou), "labels", True, "Mean IoU of the found objects"
    ),
    "seg": Metric(_of_matching(instances.seg), "labels", True, "SEG of the Cell Tracking Challenge"),
    "adapted_rand_error": Metric(instances.adapted_rand_error, "labels", False, "1 - F-score of the Rand index"),
    "variation_of_information": Metric(
        instances.variation_of_information, "labels", False, "Bits by which the segmentations differ"
    ),
    "dice": Metric(classes.mean_dice, "classes", True, "Dice coefficient, mean over classes"),
    "iou": Metric(classes.mean_iou, "classes", True, "Intersection over union, mean over classes"),
    "accuracy": Metric(classes.accuracy, "classes", True, "Part of the pixels with the right class"),
    "psnr": Metric(_of_range(images.psnr), "image", True, "Peak signal-to-noise ratio, decibel"),
    "scale_invariant_psnr": Metric(
        _of_range(images.scale_invariant_psnr), "image", True, "PSNR after the best gain and offset, decibel"
    ),
    "ssim": Metric(_of_range(images.ssim), "image", True, "Structural similarity"),
    "pearson": Metric(images.pearson, "image", True, "Correlation of the pixels"),
    "mean_absolute_error": Metric(
        _of_range(images.mean_absolute_error), "image", False, "Mean absolute error, parts of the data range"
    ),
}


def find_metric(name: str) -> Metric:
    """Metric of a name or of a figure such as ``average_precision@0.5`` or ``dice@1``.

    Raises
    ------
    ConfigError
        There is no such metric; the message names the nearest.
    """
    base = name.partition("@")[0]
    if base not in METRICS:
        raise ConfigError(f"There is no metric {name!r}", nearest(base, METRICS))
    return METRICS[base]
