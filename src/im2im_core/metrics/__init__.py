"""Figures that say how good a prediction is, without torch; pixels of weight 0 are ignored by all of them."""

from __future__ import annotations

from im2im_core.metrics.classes import accuracy, accuracy_sums, dice, iou, mean_dice, mean_iou, overlaps
from im2im_core.metrics.images import (
    mean_absolute_error,
    moments,
    pearson,
    psnr,
    range_of,
    scale_invariant_psnr,
    ssim,
    ssim_sums,
)
from im2im_core.metrics.instances import (
    Matching,
    adapted_rand_error,
    average_precision,
    contingency,
    counts,
    f1,
    match,
    matched_pairs,
    mean_matched_iou,
    panoptic_quality,
    precision,
    recall,
    seg,
    seg_sums,
    variation_of_information,
)
from im2im_core.metrics.objects import ErrorKind, ObjectError, errors
from im2im_core.metrics.registry import METRICS, Kind, Metric, find_metric
from im2im_core.metrics.sums import Counts, Moments, Overlap, Ratio, Sums

__all__ = [
    "METRICS", "Counts", "ErrorKind", "Kind", "Matching", "Metric", "Moments", "ObjectError", "Overlap", "Ratio",
    "Sums", "accuracy", "accuracy_sums", "adapted_rand_error", "average_precision", "contingency", "counts", "dice",
    "errors", "f1", "find_metric", "iou", "match", "matched_pairs", "mean_absolute_error", "mean_dice", "mean_iou",
    "mean_matched_iou", "moments", "overlaps", "panoptic_quality", "pearson", "precision", "psnr", "range_of",
    "recall", "scale_invariant_psnr", "seg", "seg_sums", "ssim", "ssim_sums", "variation_of_information",
]
