"""Partial labels: what a painted layer says about each pixel, as learning targets and a weight (0 = unknown)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from im2im_core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Labelling = Literal["dense", "sparse"]
LARGEST = 2**32 - 1
"""Largest label that fits uint32."""


def to_learning(
    labels: NDArray[Any],
    labelling: Labelling,
    complete_mask: NDArray[np.bool_] | None = None,
    weight: NDArray[Any] | None = None,
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """Targets in which 0 is background, and the weight of every pixel.

    =========  ===========================  ======================================
    labelling  painted                      learned
    =========  ===========================  ======================================
    dense      0, n                         background, n; weight 1 everywhere
    sparse     0 (unknown)                  background, weight 0; 1 where complete
    sparse     1 (background), n ≥ 2        background, n - 1; weight 1
    =========  ===========================  ======================================

    Parameters
    ----------
    complete_mask : array of bool, optional
        Where everything is labelled, so that 0 is background; broadcast to the labels.
    weight : array, optional
        Importance from a weight image, multiplied in; broadcast to the labels.

    Raises
    ------
    DataError
        Labels are negative, fractional or too large, or a weight is negative or not finite.
    """
    from im2im_core.io.labels import as_labels

    known = as_labels(labels, "labels")
    importance = np.ones(known.shape, np.float32)
    if labelling == "sparse":
        importance[known == 0] = 0
        if complete_mask is not None:
            importance[np.broadcast_to(complete_mask, known.shape)] = 1
        known = np.where(known > 0, known - 1, known)
    if weight is not None:
        importance *= _checked_weight(weight)
    return known, importance


def from_prediction(labels: NDArray[Any]) -> NDArray[np.uint32]:
    """Labels numbered as sparse ones: background becomes 1, every id rises by one, so that nothing is unknown.

    Where they are a guess that a person corrects in parts, `only_inside` takes the rest of it back.

    Raises
    ------
    DataError
        Labels are negative, fractional or too large.
    """
    from im2im_core.io.labels import as_labels

    known = as_labels(labels, "labels")
    if known.size and known.max() == LARGEST:
        raise DataError(f"Label {LARGEST} cannot rise by one", "Relabel the objects from 1")
    return known + np.uint32(1)


def only_inside(labels: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Prefilled sparse labels without what nobody corrected: 0 (unknown) but for objects that reach into `mask`.

    Objects at its rim stay whole, because their shape is known; the weight outside of `mask` has to be 0.

    Parameters
    ----------
    mask : array of bool
        Where everything was corrected; broadcast to the labels.
    """
    inside = np.broadcast_to(mask, labels.shape)
    kept = np.unique(labels[inside])
    return np.where(inside | np.isin(labels, kept[kept > 1]), labels, labels.dtype.type(0))


def complete_mask(shape_yx: tuple[int, int], polygons: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
    """Mask ``(Y, X)`` that is True inside any of `polygons`.

    Parameters
    ----------
    polygons : sequence of array (N, 2 or more)
        Corners in pixels, as a Shapes layer holds polygons and rectangles; the last two
        columns are Y and X. The centre of pixel (0, 0) lies at (0, 0).

    Raises
    ------
    DataError
        A polygon has fewer than three corners or is no list of points.
    """
    from skimage.draw import polygon

    mask = np.zeros(shape_yx, bool)
    for corners in polygons:
        points = np.asarray(corners, float)
        if points.ndim != 2 or points.shape[0] < 3 or points.shape[1] < 2:
            raise DataError(
                f"A complete region has corners of shape {points.shape}",
                "Draw rectangles or polygons, not lines or points",
            )
        rows, columns = polygon(points[:, -2], points[:, -1], shape_yx)
        mask[rows, columns] = True
    return mask


def _checked_weight(weight: NDArray[Any]) -> NDArray[np.float32]:
    factor = np.asarray(weight, np.float32)
    if factor.size and not (factor.min() >= 0 and np.isfinite(factor.max())):
        raise DataError(
            f"Weights lie between {factor.min()} and {factor.max()}",
            "Weights are finite and not negative, 0 is unknown",
        )
    return factor
