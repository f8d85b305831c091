"""Sums that metrics are made of: the pooled figure of many images is the same formula over the sum of their parts."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True)
class Sums:
    """Numbers that add up over images."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Ratio(Sums):
    """A mean: a sum over a number of things."""

    total: float
    count: float

    @property
    def value(self) -> float:
        """The mean; 1 where there was nothing to be wrong about."""
        return self.total / self.count if self.count else 1.0


@dataclass(frozen=True)
class Counts(Sums):
    """Objects found, invented and missed at one IoU threshold."""

    tp: int
    fp: int
    fn: int
    iou: float
    """Sum of the IoU of the found objects."""

    @property
    def precision(self) -> float:
        """Part of the predicted objects that are true."""
        return self._part(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Part of the true objects that are found."""
        return self._part(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return self._part(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN)."""
        return self._part(self.tp, self.tp + self.fp + self.fn)

    @property
    def mean_matched_iou(self) -> float:
        """Mean IoU of the found objects."""
        return self._part(self.iou, self.tp)

    @property
    def panoptic_quality(self) -> float:
        """Mean IoU of the found objects times F1."""
        return self._part(2 * self.iou, 2 * self.tp + self.fp + self.fn)

    def _part(self, numerator: float, denominator: float) -> float:
        """Quotient; without any object on either side all is right (1), otherwise 0/0 is 0."""
        return _quotient(numerator, denominator, wrong=bool(self.fp or self.fn))


@dataclass(frozen=True)
class Mistakes(Sums):
    """Objects that went wrong, by the way in which they did."""

    missed: int
    extra: int
    merged: int
    """Predicted objects that hold several true ones."""
    split: int
    """True objects that hold several predicted ones."""


@dataclass(frozen=True)
class PixelPairs(Sums):
    """Ordered pairs of different pixels that lie in one object: in both, in the truth, in the prediction."""

    both: float
    truth: float
    pred: float

    @property
    def precision(self) -> float:
        """Part of the pairs that the prediction joins that belong together."""
        return self._part(self.both, self.pred)

    @property
    def recall(self) -> float:
        """Part of the pairs that belong together that the prediction joins."""
        return self._part(self.both, self.truth)

    @property
    def error(self) -> float:
        """1 - harmonic mean of precision and recall."""
        return 1 - self._part(2 * self.both, self.truth + self.pred)

    def _part(self, numerator: float, denominator: float) -> float:
        """Quotient; without any pair there is nothing to tear apart or to join, and all is right."""
        return _quotient(numerator, denominator, wrong=self.truth + self.pred > 0)


@dataclass(frozen=True)
class Information(Sums):
    """Bits times pixels by which two segmentations differ, and pixels."""

    split_bits: float
    """Entropy of the prediction given the truth, summed over pixels."""
    merge_bits: float
    """Entropy of the truth given the prediction, summed over pixels."""
    pixels: float

    @property
    def split(self) -> float:
        """Bits per pixel by which the prediction is finer."""
        return self.split_bits / self.pixels if self.pixels else 0.0

    @property
    def merge(self) -> float:
        """Bits per pixel by which the truth is finer."""
        return self.merge_bits / self.pixels if self.pixels else 0.0

    @property
    def total(self) -> float:
        """Variation of information, bits."""
        return self.split + self.merge


@dataclass(frozen=True)
class Overlap(Sums):
    """Pixels of one class in both, in the prediction and in the truth."""

    both: int
    pred: int
    truth: int

    @property
    def dice(self) -> float:
        """Twice the common part over the sum; 1 where the class is in neither."""
        return Ratio(2 * self.both, self.pred + self.truth).value

    @property
    def iou(self) -> float:
        """The common part over the union; 1 where the class is in neither."""
        return Ratio(self.both, self.pred + self.truth - self.both).value


@dataclass(frozen=True)
class Moments(Sums):
    """Sums over pixels that errors and correlation follow from; errors are in units of each image's data range."""

    count: int
    squared: float
    """Sum of squared errors."""
    absolute: float
    """Sum of absolute errors."""
    fitted: float
    """Sum of squared errors after the best gain and offset."""
    pred: float
    truth: float
    pred_pred: float
    truth_truth: float
    pred_truth: float

    @property
    def psnr(self) -> float:
        """Peak signal-to-noise ratio in decibel; infinite where nothing differs."""
        return _decibel(self.squared, self.count)

    @property
    def scale_invariant_psnr(self) -> float:
        """PSNR after the best gain and offset of each image."""
        return _decibel(self.fitted, self.count)

    @property
    def nrmse(self) -> float:
        """Root of the mean squared error in units of the data range."""
        return math.sqrt(self.squared / self.count) if self.count else 0.0

    @property
    def mean_absolute_error(self) -> float:
        """In units of the data range."""
        return self.absolute / self.count if self.count else 0.0

    @property
    def pearson(self) -> float:
        """Correlation coefficient; 0 where either side is constant."""
        count = max(self.count, 1)
        pred = self.pred_pred - self.pred**2 / count
        truth = self.truth_truth - self.truth**2 / count
        # Rounding leaves a trace of variance in a constant image.
        if pred <= 1e-12 * self.pred_pred or truth <= 1e-12 * self.truth_truth:
            return 0.0
        covariance = self.pred_truth - self.pred * self.truth / count
        return covariance / math.sqrt(pred * truth)


def _quotient(numerator: float, denominator: float, *, wrong: bool) -> float:
    """`numerator` over `denominator`; of nothing at all 1, or 0 where something is `wrong`."""
    if denominator:
        return numerator / denominator
    return 0.0 if wrong else 1.0


def _decibel(squared: float, count: int) -> float:
    if math.isnan(squared):
        return math.nan
    return 10 * math.log10(count / squared) if squared > 0 else math.inf
