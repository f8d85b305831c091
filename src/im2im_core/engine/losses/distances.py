"""Losses by distance to a boundary: Kervadec's and Karimi's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from im2im_core.engine.losses.base import all_but_channels, ratio
from im2im_core.engine.losses.classes import Classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.recipe import losses as settings_of


class Boundary:
    """Mean of probability times signed distance to the true boundary, mean over classes, in pixels.

    The distance is positive outside a region and negative inside, where the pixels of its rim have
    0. It is measured to the nearest known pixel on the other side; a class without a known boundary
    in an image costs nothing there.
    """

    def __init__(self, settings: settings_of.Boundary) -> None:
        self.classes = Classes(settings.class_weights, settings.background)
        self.thickness = settings.thickness

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the classes."""
        probability, truth = self.classes.maps(prediction, target, weight)
        outside, inside = rim_distances(truth, weight, self.thickness)
        signed = outside - (inside - 1).clamp_min(0)
        return self.classes.mean(_mean_of_classes(probability * signed, weight))


class Hausdorff:
    """Mean squared error times the powers of the distances to the true and to the predicted boundary.

    A smooth stand-in for the Hausdorff distance; an error far from both boundaries costs most.
    """

    def __init__(self, settings: settings_of.Hausdorff) -> None:
        self.classes = Classes(settings.class_weights, settings.background)
        self.power = settings.power
        self.thickness = settings.thickness

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the classes."""
        probability, truth = self.classes.maps(prediction, target, weight)
        true, predicted = (rim_distances(m, weight, self.thickness).sum(0) for m in (truth, probability.detach()))
        cost = (probability - truth).square() * (true**self.power + predicted**self.power)
        return self.classes.mean(_mean_of_classes(cost, weight))


def rim_distances(maps: Tensor, weight: Tensor, thickness: float = 1.0) -> Tensor:
    """Distance of each pixel outside a region to the region, and of each one inside to the outside.

    ``(2, B, K, [Z], Y, X)``; both are 0 on the other side, where the pixel is unknown, and in images in which all known
    pixels are on one side.

    Parameters
    ----------
    maps : Tensor
        ``(B, K, [Z], Y, X)``; more than 0.5 is inside.
    weight : Tensor
        ``(B, 1, [Z], Y, X)``; 0 = unknown.
    thickness : float
        Size of a voxel along Z relative to that in the plane.
    """
    inside, known = (maps > 0.5).cpu().numpy(), (weight > 0).cpu().numpy()
    size = (thickness, 1.0, 1.0)[-(maps.ndim - 2) :]
    found = np.zeros((2, *maps.shape), np.float32)
    for b, k in np.ndindex(*maps.shape[:2]):
        region, rest = inside[b, k] & known[b, 0], ~inside[b, k] & known[b, 0]
        if region.any() and rest.any():
            found[0, b, k] = np.where(rest, _distance_to(region, size), 0)
            found[1, b, k] = np.where(region, _distance_to(rest, size), 0)
    return torch.from_numpy(found).to(maps.device)


def _distance_to(mask: NDArray[np.bool_], size: tuple[float, ...]) -> NDArray[np.float64]:
    distance: NDArray[np.float64] = distance_transform_edt(~mask, sampling=size)
    return distance


def _mean_of_classes(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of each class over the batch by weight, ``(K,)``."""
    return ratio((values * weight).sum(all_but_channels(values)), weight.sum())
