"""Structural similarity over several scales."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.errors import DataError
from im2im_core.metrics.images import known_pixels
from im2im_core.metrics.instances import check_shapes
from im2im_core.metrics.sums import Ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponent of each scale, finest first (Wang et al. 2003)."""
WINDOW, SIGMA = 11, 1.5
"""Side and width of the Gaussian window, pixels."""


def ms_ssim(pred: NDArray[Any], truth: NDArray[Any], data_range: float, weight: NDArray[Any] | None = None) -> float:
    """Multi-scale structural similarity (Wang, Simoncelli & Bovik, Asilomar 2003), mean over planes.

    An image that is too small for five scales is compared on those whose
    window fits, their exponents scaled to the same sum.
    """
    return ms_ssim_sums(pred, truth, data_range, weight).value


def ms_ssim_sums(
    pred: NDArray[Any], truth: NDArray[Any], data_range: float, weight: NDArray[Any] | None = None
) -> Ratio:
    """Sum of the similarity of the planes ``(Y, X)`` that are known, and their number.

    Raises
    ------
    DataError
        Shapes differ, or a side is below 3 pixels.
    """
    check_shapes(pred, truth, weight)
    known = known_pixels(truth, weight)
    height, width = known.shape[-2:]
    if min(height, width) < 3:
        raise DataError(
            f"An image of {known.shape} pixels is too small for structural similarity",
            "Compare images of 3 pixels or more along each axis",
        )
    planes = (np.asarray(a).reshape(-1, height, width) for a in (pred, truth, known))
    found = [_plane(p, t, k, data_range) for p, t, k in zip(*planes, strict=True)]
    values = [value for value in found if value is not None]
    return Ratio(float(sum(values)), float(len(values)))


def _plane(pred: NDArray[Any], truth: NDArray[Any], known: NDArray[np.bool_], data_range: float) -> float | None:
    """Similarity of one plane; None where no window around a known pixel fits."""
    # Unknown pixels are made equal on both sides, so that they do not disturb their neighbours.
    pred, truth = (np.where(known, a, 0).astype(np.float64) for a in (pred, truth))
    if not np.isfinite(pred).all():
        return math.nan
    window = _window(min(pred.shape))
    contrasts: list[float] = []
    similarity = None
    for _ in SCALES:
        here = _scale(pred, truth, known, window, data_range)
        if here is None:
            break
        similarity, contrast = here
        contrasts.append(contrast)
        pred, truth, known = _halved(pred), _halved(truth), _halved(known) == 1
        if min(pred.shape) < len(window):
            break
    if similarity is None:
        return None
    exponents = np.array(SCALES[: len(contrasts)])
    exponents *= sum(SCALES) / exponents.sum()
    # The luminance counts at the coarsest scale alone; anticorrelation is as bad as no correlation.
    terms = np.maximum([*contrasts[:-1], similarity], 0.0)
    return float(np.prod(terms**exponents))


def _scale(
    pred: NDArray[np.float64],
    truth: NDArray[np.float64],
    known: NDArray[np.bool_],
    window: NDArray[np.float64],
    data_range: float,
) -> tuple[float, float] | None:
    """Mean structural similarity and mean of its contrast and structure, over known pixels whose window fits."""
    inside = (slice(len(window) // 2, -(len(window) // 2)),) * 2
    counted = known[inside]
    if not counted.any():
        return None
    luminance, contrast = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    p, t, pp, tt, pt = (_smooth(a, window)[inside] for a in (pred, truth, pred**2, truth**2, pred * truth))
    cs = (2 * (pt - p * t) + contrast) / (pp - p**2 + tt - t**2 + contrast)
    ssim = cs * (2 * p * t + luminance) / (p**2 + t**2 + luminance)
    return float(ssim[counted].mean()), float(cs[counted].mean())


def _window(smallest: int) -> NDArray[np.float64]:
    """Gaussian weights, as many as fit into the smallest side."""
    half = min(WINDOW, smallest - 1 + smallest % 2) // 2
    weights = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * SIGMA**2))
    return np.asarray(weights / weights.sum(), np.float64)


def _smooth(plane: NDArray[np.float64], window: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.ndimage import correlate1d

    return np.asarray(correlate1d(correlate1d(plane, window, 0), window, 1))


def _halved(plane: NDArray[Any]) -> NDArray[np.float64]:
    """Means of blocks of 2 x 2 pixels; an odd last row or column is left out, as in the paper's implementation."""
    height, width = (n // 2 * 2 for n in plane.shape)
    blocks = plane[:height, :width].reshape(height // 2, 2, width // 2, 2)
    return np.asarray(blocks.mean(axis=(1, 3)))
