"""Agreement of soft skeletons: clDice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from im2im_core.engine.losses.base import SMOOTH, all_but_channels
from im2im_core.engine.losses.classes import Classes

if TYPE_CHECKING:
    from im2im_core.recipe import losses as settings_of


class CenterlineDice:
    """One minus the harmonic mean of two parts: of the predicted skeleton in the true region, and of the true one.

    What is unknown is taken for empty on both sides, so that a right prediction has the right skeleton.
    """

    def __init__(self, settings: settings_of.CenterlineDice) -> None:
        self.classes = Classes(settings.class_weights, settings.background)
        self.iterations = settings.iterations

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the classes."""
        probability, truth = self.classes.maps(prediction, target, weight)
        precision = _part(soft_skeleton(probability, self.iterations), truth, weight)
        sensitivity = _part(soft_skeleton(truth, self.iterations), probability, weight)
        return self.classes.mean(1 - 2 * precision * sensitivity / (precision + sensitivity))


def soft_skeleton(maps: Tensor, iterations: int) -> Tensor:
    """What openings take away from maps that are eroded again and again (Shit et al. 2021).

    Parameters
    ----------
    maps : Tensor
        ``(B, K, [Z], Y, X)``, 0 to 1.
    """
    skeleton = functional.relu(maps - _open(maps))
    for _ in range(iterations):
        maps = _erode(maps)
        more = functional.relu(maps - _open(maps))
        skeleton = skeleton + functional.relu(more - skeleton * more)
    return skeleton


def _erode(maps: Tensor) -> Tensor:
    """Smallest value among a pixel and its neighbours along the axes."""
    eroded = maps
    for axis in range(maps.ndim - 2):
        window = [3 if i == axis else 1 for i in range(maps.ndim - 2)]
        eroded = torch.minimum(eroded, -_largest(-maps, window))
    return eroded


def _open(maps: Tensor) -> Tensor:
    return _largest(_erode(maps), [3] * (maps.ndim - 2))


def _largest(maps: Tensor, window: list[int]) -> Tensor:
    pool = functional.max_pool2d if maps.ndim == 4 else functional.max_pool3d
    return pool(maps, window, stride=1, padding=[w // 2 for w in window])


def _part(skeleton: Tensor, region: Tensor, weight: Tensor) -> Tensor:
    """Part of each skeleton that is in the region, ``(K,)``, by weight."""
    axes = all_but_channels(skeleton)
    return ((skeleton * region * weight).sum(axes) + SMOOTH) / ((skeleton * weight).sum(axes) + SMOOTH)
