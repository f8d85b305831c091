"""Two ways to divide an image into segments: pairs of pixels that stay together, and information."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.metrics.instances import contingency
from im2im_core.metrics.sums import Information, Overlap, PixelPairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.metrics.instances import Contingency


def pixel_pairs(table: Contingency) -> PixelPairs:
    """Pairs of pixels in one object, over the foreground of the truth.

    Arganda-Carreras et al., Frontiers in Neuroanatomy 9 (2015) 142. Without any true object every pair of a
    predicted one is wrong; an object of one pixel counts as a pair, so that it cannot hide.
    """
    foreground = table.truth_ids[table.rows] != 0
    if not foreground.any():
        sizes = table.pred_sizes[table.pred_ids != 0].astype(np.float64)
        return PixelPairs(0.0, 0.0, max(_pairs(sizes), 1.0) if sizes.size else 0.0)
    pixels = table.pixels[foreground].astype(np.float64)
    in_truth = np.asarray(np.bincount(table.rows[foreground], pixels), np.float64)
    in_pred = np.asarray(np.bincount(table.columns[foreground], pixels), np.float64)
    return PixelPairs(_pairs(pixels), _pairs(in_truth), _pairs(in_pred))


def information(table: Contingency) -> Information:
    """Entropies of either segmentation given the other, background included.

    Meilă, Journal of Multivariate Analysis 98 (2007) 873; split and merge as Nunez-Iglesias et al., PLoS ONE 8
    (2013) e71715 read them.
    """
    pixels = float(table.pixels.sum())
    if not pixels:
        return Information(0.0, 0.0, 0.0)
    both, truth, pred = (_entropy(sizes / pixels) for sizes in (table.pixels, table.truth_sizes, table.pred_sizes))
    # Rounding may leave a trace below 0 where one side decides the other.
    return Information(max(both - truth, 0.0) * pixels, max(both - pred, 0.0) * pixels, pixels)


def foreground(table: Contingency) -> Overlap:
    """Pixels of objects of any number in both, in the prediction and in the truth."""
    truth, pred = table.truth_ids[table.rows] != 0, table.pred_ids[table.columns] != 0
    return Overlap(*(int(table.pixels[where].sum()) for where in (truth & pred, pred, truth)))


def adapted_rand_error(pred: NDArray[Any], truth: NDArray[Any], weight: NDArray[Any] | None = None) -> float:
    """1 - F-score of pairs of pixels over the foreground of the truth, as in scikit-image."""
    return pixel_pairs(contingency(pred, truth, weight)).error


def variation_of_information(pred: NDArray[Any], truth: NDArray[Any], weight: NDArray[Any] | None = None) -> float:
    """Entropy of either segmentation given the other, summed, in bits, background included."""
    return information(contingency(pred, truth, weight)).total


def _pairs(sizes: NDArray[np.float64]) -> float:
    """Number of ordered pairs of different pixels that lie in one set."""
    return float(sizes @ (sizes - 1))


def _entropy(part: NDArray[np.float64]) -> float:
    """Bits needed to say in which set a pixel lies."""
    part = part[part > 0]
    return float(-(part @ np.log2(part)))
