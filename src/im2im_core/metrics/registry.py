"""All metrics by name, and what each of them is: title, unit, direction, meaning; read by CLI, panels and docs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from im2im_core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

Kind = Literal["labels", "classes", "image"]
"""Objects with their own numbers, classes per pixel, or intensities."""
Group = Literal[
    "counts", "seg", "foreground", "rand", "information", "mistakes", "overlap", "accuracy", "moments", "ssim",
    "ms_ssim", "frc", "frc_um", "alone", "alone_um",
]  # fmt: skip
"""What a metric is read from; metrics of one group are computed together."""
OBJECTS, BITS, DECIBEL, PIXELS, MICROMETRES = "objects", "bits", "dB", "px", "µm"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One way to compare a prediction with the truth."""

    name: str
    title: str
    """Short name for tables and curves."""
    kind: Kind
    group: Group
    attribute: str
    """Property of the sums of the group that is the figure."""
    summary: str
    """One sentence, without the full stop."""
    higher_is_better: bool = True
    unit: str = ""
    averaged: bool = False
    """Whether the mean over thresholds or classes is a figure too, under the bare name."""
    paper: str = ""
    also: tuple[str, ...] = ()
    """Other names under which it is found."""
    while_training: bool = False
    """Whether a training computes it unless told otherwise: cheap and telling."""

    @property
    def measurable(self) -> bool:
        """Whether two arrays are enough: a truth is compared, and the size of a pixel is not needed."""
        return self.group not in ("frc_um", "alone", "alone_um")

    @property
    def thresholded(self) -> bool:
        """Whether there is one figure per IoU threshold, ``name@0.5``."""
        return self.group == "counts"

    @property
    def direction(self) -> str:
        """Which figures are better, one word."""
        return "higher" if self.higher_is_better else "lower"

    @property
    def explanation(self) -> str:
        """Sentences for a tooltip: what it is, its unit, which direction is better, who proposed it."""
        unit = f", in {self.unit}" if self.unit else ""
        paper = f" {self.paper}." if self.paper else ""
        return f"{self.summary}{unit}; {self.direction} is better.{paper}"

    @property
    def function(self) -> Callable[..., float]:
        """``(pred, truth, weight=None) -> float`` with the defaults of an evaluation: IoU 0.5, the truth's range."""
        from im2im_core.metrics.measure import figure

        def measure(pred: NDArray[Any], truth: NDArray[Any], weight: NDArray[Any] | None = None) -> float:
            return figure(self, pred, truth, weight)

        return measure


_labels = partial(Metric, kind="labels")
_classes = partial(Metric, kind="classes")
_image = partial(Metric, kind="image")
_WORSE: dict[str, Any] = {"higher_is_better": False}
_RAND = "Arganda-Carreras et al., Frontiers in Neuroanatomy 9 (2015) 142"
_MEILA = "Meilă, Journal of Multivariate Analysis 98 (2007) 873"
_KOHO = "Koho et al., Nature Communications 10 (2019) 3103"
_PANOPTIC = "Kirillov et al., CVPR 2019"

_OF_OBJECTS = (
    _labels(
        name="average_precision",
        title="AP",
        group="counts",
        attribute="average_precision",
        summary="Objects found over objects found, invented and missed, TP / (TP + FP + FN); without a threshold "
        "the mean over IoU 0.5 to 0.9",
        averaged=True,
        also=("ap",),
        paper="Caicedo et al., Nature Methods 16 (2019) 1247",
        while_training=True,
    ),
    _labels(
        name="f1",
        title="F1",
        group="counts",
        attribute="f1",
        summary="Harmonic mean of precision and recall of objects, 2 TP / (2 TP + FP + FN); the recognition "
        "quality (RQ) of the panoptic quality",
        also=("recognition_quality", "rq"),
        while_training=True,
    ),
    _labels(
        name="precision",
        title="Precision",
        group="counts",
        attribute="precision",
        summary="Part of the predicted objects that exist",
    ),
    _labels(
        name="recall",
        title="Recall",
        group="counts",
        attribute="recall",
        summary="Part of the true objects that are found",
    ),
    _labels(
        name="panoptic_quality",
        title="PQ",
        group="counts",
        attribute="panoptic_quality",
        summary="Panoptic quality: F1 times the mean IoU of found objects, SQ · RQ",
        paper=_PANOPTIC,
        also=("pq",),
        while_training=True,
    ),
    _labels(
        name="mean_matched_iou",
        title="SQ, mean IoU of found objects",
        group="counts",
        attribute="mean_matched_iou",
        summary="Mean IoU of the found objects; the segmentation quality (SQ) of the panoptic quality",
        paper=_PANOPTIC,
        also=("segmentation_quality", "sq"),
    ),
    _labels(
        name="tp",
        title="Found",
        group="counts",
        attribute="tp",
        summary="Objects found: predicted and true, one to one",
        unit=OBJECTS,
    ),
    _labels(
        name="fp",
        title="Invented",
        group="counts",
        attribute="fp",
        summary="Predicted objects without a partner",
        unit=OBJECTS,
        **_WORSE,
    ),
    _labels(
        name="fn",
        title="Not found",
        group="counts",
        attribute="fn",
        summary="True objects without a partner",
        unit=OBJECTS,
        **_WORSE,
    ),
    _labels(
        name="seg",
        title="SEG",
        group="seg",
        attribute="value",
        summary="Mean over true objects of the IoU with the prediction that covers more than half of it; the "
        "segmentation measure of the Cell Tracking Challenge",
        paper="Maška et al., Bioinformatics 30 (2014) 1609",
        while_training=True,
    ),
    _labels(
        name="foreground_dice",
        title="Dice of the foreground",
        group="foreground",
        attribute="dice",
        summary="Dice coefficient of all objects together against background, 2 |A ∩ B| / (|A| + |B|)",
        paper="Dice, Ecology 26 (1945) 297",
    ),
    _labels(
        name="foreground_iou",
        title="IoU of the foreground",
        group="foreground",
        attribute="iou",
        summary="Intersection over union of all objects together against background",
        paper="Jaccard 1901",
    ),
    _labels(
        name="adapted_rand_error",
        title="Adapted Rand error",
        group="rand",
        attribute="error",
        summary="1 - F-score of pairs of pixels that lie in one object, over the foreground of the truth",
        paper=_RAND,
        **_WORSE,
    ),
    _labels(
        name="adapted_rand_precision",
        title="Adapted Rand precision",
        group="rand",
        attribute="precision",
        summary="Part of the pairs of pixels joined by the prediction that belong together; low where objects "
        "are merged",
        paper=_RAND,
    ),
    _labels(
        name="adapted_rand_recall",
        title="Adapted Rand recall",
        group="rand",
        attribute="recall",
        summary="Part of the pairs of pixels of one true object that the prediction joins; low where objects are split",
        paper=_RAND,
    ),
    _labels(
        name="variation_of_information",
        title="VOI",
        group="information",
        attribute="total",
        summary="Entropy of either segmentation given the other, summed, background included",
        unit=BITS,
        paper=_MEILA,
        also=("voi",),
        **_WORSE,
    ),
    _labels(
        name="variation_of_information_split",
        title="VOI, split",
        group="information",
        attribute="split",
        summary="Entropy of the prediction given the truth: what is torn apart",
        unit=BITS,
        paper=_MEILA,
        also=("voi_split",),
        **_WORSE,
    ),
    _labels(
        name="variation_of_information_merge",
        title="VOI, merge",
        group="information",
        attribute="merge",
        summary="Entropy of the truth given the prediction: what is joined",
        unit=BITS,
        paper=_MEILA,
        also=("voi_merge",),
        **_WORSE,
    ),
    _labels(
        name="missed",
        title="Missed",
        group="mistakes",
        attribute="missed",
        summary="True objects that nothing was found for",
        unit=OBJECTS,
        **_WORSE,
    ),
    _labels(
        name="extra",
        title="Extra",
        group="mistakes",
        attribute="extra",
        summary="Predicted objects where the truth has none",
        unit=OBJECTS,
        **_WORSE,
    ),
    _labels(
        name="merged",
        title="Merged",
        group="mistakes",
        attribute="merged",
        summary="Predicted objects that each hold more than half of several true ones",
        unit=OBJECTS,
        **_WORSE,
    ),
    _labels(
        name="split",
        title="Split",
        group="mistakes",
        attribute="split",
        summary="True objects that each hold more than half of several predicted ones",
        unit=OBJECTS,
        **_WORSE,
    ),
)

_OF_CLASSES = (
    _classes(
        name="dice",
        title="Dice",
        group="overlap",
        attribute="dice",
        summary="Dice coefficient of a class, 2 |A ∩ B| / (|A| + |B|); without a class the mean over those that "
        "occur, background left out",
        averaged=True,
        paper="Dice, Ecology 26 (1945) 297",
        while_training=True,
    ),
    _classes(
        name="iou",
        title="IoU",
        group="overlap",
        attribute="iou",
        summary="Intersection over union of a class; without a class the mean over those that occur, background "
        "left out",
        averaged=True,
        paper="Jaccard 1901",
        also=("jaccard",),
        while_training=True,
    ),
    _classes(
        name="accuracy",
        title="Accuracy",
        group="accuracy",
        attribute="value",
        summary="Part of all known pixels that have the right class",
    ),
)

_OF_IMAGES = (
    _image(
        name="psnr",
        title="PSNR",
        group="moments",
        attribute="psnr",
        summary="Peak signal-to-noise ratio, 10 log10(range² / mean squared error) with the range of the truth",
        unit=DECIBEL,
        while_training=True,
    ),
    _image(
        name="scale_invariant_psnr",
        title="PSNR, scale-invariant",
        group="moments",
        attribute="scale_invariant_psnr",
        summary="PSNR after the gain and offset of the prediction that fit the truth best, as in CARE",
        unit=DECIBEL,
        paper="Weigert et al., Nature Methods 15 (2018) 1090",
        also=("si_psnr",),
        while_training=True,
    ),
    _image(
        name="ssim",
        title="SSIM",
        group="ssim",
        attribute="value",
        summary="Structural similarity, mean over the known pixels whose window of 7 pixels fits",
        paper="Wang et al., IEEE Transactions on Image Processing 13 (2004) 600",
        while_training=True,
    ),
    _image(
        name="ms_ssim",
        title="MS-SSIM",
        group="ms_ssim",
        attribute="value",
        summary="Structural similarity over five scales, fewer where the image is small; stacks plane by plane",
        paper="Wang et al., Asilomar Conference on Signals, Systems and Computers 2003, 1398",
    ),
    _image(
        name="pearson",
        title="Pearson r",
        group="moments",
        attribute="pearson",
        summary="Correlation of the pixels; 0 where either side is constant",
        while_training=True,
    ),
    _image(
        name="mean_absolute_error",
        title="Mean absolute error",
        group="moments",
        attribute="mean_absolute_error",
        summary="Mean absolute error in parts of the range of the truth",
        also=("mae",),
        **_WORSE,
    ),
    _image(
        name="nrmse",
        title="NRMSE",
        group="moments",
        attribute="nrmse",
        summary="Root of the mean squared error in parts of the range of the truth",
        also=("normalized_root_mse", "rmse"),
        **_WORSE,
    ),
    _image(
        name="frc_resolution",
        title="FRC resolution",
        group="frc",
        attribute="value",
        summary="Finest detail that prediction and truth share: where their Fourier ring correlation falls below "
        "1/7; at best 2 pixels; stacks by the rings of all planes together",
        unit=PIXELS,
        paper="Nieuwenhuizen et al., Nature Methods 10 (2013) 557",
        also=("frc",),
        **_WORSE,
    ),
    _image(
        name="frc_resolution_um",
        title="FRC resolution",
        group="frc_um",
        attribute="value",
        summary="Finest detail that prediction and truth share, where the size of a pixel is known",
        unit=MICROMETRES,
        paper="Nieuwenhuizen et al., Nature Methods 10 (2013) 557",
        **_WORSE,
    ),
    _image(
        name="single_image_resolution",
        title="Resolution of the image alone",
        group="alone",
        attribute="value",
        summary="Finest detail of one image without any truth: Fourier ring correlation of its pixels on a "
        "checkerboard below 1/7; at best 4 pixels; noise must not be correlated between pixels",
        unit=PIXELS,
        paper=_KOHO,
        **_WORSE,
    ),
    _image(
        name="single_image_resolution_um",
        title="Resolution of the image alone",
        group="alone_um",
        attribute="value",
        summary="Finest detail of one image without any truth, where the size of a pixel is known",
        unit=MICROMETRES,
        paper=_KOHO,
        **_WORSE,
    ),
)

METRICS: dict[str, Metric] = {m.name: m for m in (*_OF_OBJECTS, *_OF_CLASSES, *_OF_IMAGES)}


def find_metric(name: str) -> Metric:
    """Metric of a name or of a figure such as ``average_precision@0.5`` or ``dice@1``.

    Raises
    ------
    ConfigError
        There is no such metric; the message names the nearest.
    """
    base = name.partition("@")[0]
    if base in METRICS:
        return METRICS[base]
    others = {other: metric for metric in METRICS.values() for other in metric.also}
    if base not in others:
        raise ConfigError(f"There is no metric {name!r}", nearest(base, [*METRICS, *others]))
    return others[base]


def is_figure(name: str) -> bool:
    """Whether `name` is that of a metric, perhaps with a threshold or class."""
    return name.partition("@")[0] in METRICS


def title_of(figure: str) -> str:
    """What a figure is called in a table, for example ``AP at IoU 0.5``, ``Dice of class 1`` or ``PSNR, dB``."""
    metric, detail = find_metric(figure), figure.partition("@")[2]
    if metric.unit and metric.unit != OBJECTS:
        return f"{metric.title}, {metric.unit}"
    if not detail:
        return f"{metric.title}, mean over IoU 0.5 to 0.9" if metric.thresholded else metric.title
    return f"{metric.title} at IoU {detail}" if metric.thresholded else f"{metric.title} of class {detail}"
