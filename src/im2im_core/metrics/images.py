"""Predicted images: how close the pixels are to the truth.

Pixels of weight 0 and pixels whose truth is NaN or infinite are unknown and
ignored. A prediction that is not finite gives NaN, so that it cannot hide.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.errors import DataError
from im2im_core.metrics.instances import check_shapes
from im2im_core.metrics.sums import Moments, Ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 7
"""Side of the SSIM window in pixels, the default of scikit-image."""


def range_of(truth: NDArray[Any], weight: NDArray[Any] | None = None) -> float:
    """Largest minus smallest known pixel; 1 where that is nothing."""
    known = np.asarray(truth)[known_pixels(truth, weight)]
    spread = float(known.max()) - float(known.min()) if known.size else 0.0
    return spread or 1.0


def known_pixels(truth: NDArray[Any], weight: NDArray[Any] | None = None) -> NDArray[np.bool_]:
    """Where the truth is finite and the weight is not 0."""
    finite = np.asarray(np.isfinite(truth), bool)
    return finite if weight is None else finite & (np.asarray(weight) > 0)


def moments(pred: NDArray[Any], truth: NDArray[Any], data_range: float, weight: NDArray[Any] | None = None) -> Moments:
    """Sums over the known pixels, errors in units of `data_range`."""
    check_shapes(pred, truth, weight)
    if not data_range > 0:
        raise DataError(f"The data range {data_range} is not above 0", "Give the largest minus the smallest value")
    known = known_pixels(truth, weight)
    p, t = np.asarray(pred)[known].astype(np.float64), np.asarray(truth)[known].astype(np.float64)
    if not p.size:
        return Moments(0, *(0.0,) * 8)
    if not np.isfinite(p).all():
        return Moments(p.size, *(math.nan,) * 8)
    difference = (p - t) / data_range
    return Moments(
        count=p.size,
        squared=float(difference @ difference),
        absolute=float(np.abs(difference).sum()),
        fitted=_fitted(p, t) / data_range**2,
        pred=float(p.sum()),
        truth=float(t.sum()),
        pred_pred=float(p @ p),
        truth_truth=float(t @ t),
        pred_truth=float(p @ t),
    )


def psnr(pred: NDArray[Any], truth: NDArray[Any], data_range: float, weight: NDArray[Any] | None = None) -> float:
    """Peak signal-to-noise ratio in decibel: 10 log10(range² / mean squared error); infinite without error."""
    return moments(pred, truth, data_range, weight).psnr


def scale_invariant_psnr(
    pred: NDArray[Any], truth: NDArray[Any], data_range: float, weight: NDArray[Any] | None = None
) -> float:
    """PSNR after the gain and offset of the prediction that fit the truth best (Weigert et al., Nat. Methods 2018)."""
    return moments(pred, truth, data_range, weight).scale_invariant_psnr


def pearson(pred: NDArray[Any], truth: NDArray[Any], weight: NDArray[Any] | None = None) -> float:
    """Correlation of the pixels; 0 where either side is constant."""
    return moments(pred, truth, 1.0, weight).pearson


def mean_absolute_error(
    pred: NDArray[Any], truth: NDArray[Any], data_range: float, weight: NDArray[Any] | None = None
) -> float:
    """Mean absolute error in units of `data_range`."""
    return moments(pred, truth, data_range, weight).mean_absolute_error


def nrmse(pred: NDArray[Any], truth: NDArray[Any], data_range: float, weight: NDArray[Any] | None = None) -> float:
    """Root of the mean squared error in units of `data_range`."""
    return moments(pred, truth, data_range, weight).nrmse


def ssim(pred: NDArray[Any], truth: NDArray[Any], data_range: float, weight: NDArray[Any] | None = None) -> float:
    """Structural similarity (Wang et al., IEEE TIP 13 (2004) 600), mean over the known pixels whose window fits.

    A stack with fewer planes than the window is compared plane by plane; the
    window shrinks to the image where Y or X are smaller.
    """
    return ssim_sums(pred, truth, data_range, weight).value


def ssim_sums(pred: NDArray[Any], truth: NDArray[Any], data_range: float, weight: NDArray[Any] | None = None) -> Ratio:
    """Sum of the structural similarity over known pixels, and their number."""
    check_shapes(pred, truth, weight)
    known = known_pixels(truth, weight)
    # Unknown pixels are made equal on both sides, so that they do not disturb their neighbours.
    p, t = (np.where(known, a, 0).astype(np.float64) for a in (pred, truth))
    if not np.isfinite(p).all():
        return Ratio(math.nan, 1.0)
    if p.ndim == 3 and p.shape[0] < WINDOW:
        parts = [_ssim_block(*planes, data_range) for planes in zip(p, t, known, strict=True)]
    else:
        parts = [_ssim_block(p, t, known, data_range)]
    return sum(parts[1:], parts[0])


def _ssim_block(
    pred: NDArray[np.float64], truth: NDArray[np.float64], known: NDArray[np.bool_], data_range: float
) -> Ratio:
    from skimage.metrics import structural_similarity

    smallest = min(pred.shape)
    window = min(WINDOW, smallest - 1 + smallest % 2)
    if window < 3:
        raise DataError(
            f"An image of {pred.shape} pixels is too small for structural similarity",
            "Compare images of 3 pixels or more along each axis",
        )
    _, each = structural_similarity(truth, pred, data_range=data_range, win_size=window, full=True)
    # Windows at the border reach outside; scikit-image leaves them out of its mean too.
    inside = (slice(window // 2, -(window // 2)),) * pred.ndim
    return Ratio(float(each[inside][known[inside]].sum()), float(known[inside].sum()))


def _fitted(pred: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Smallest sum of squares of ``gain * pred + offset - truth``."""
    p, t = pred - pred.mean(), truth - truth.mean()
    power = p @ p
    gain = (p @ t) / power if power > 0 else 0.0
    rest = t - gain * p
    return float(rest @ rest)
