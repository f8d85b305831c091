"""Overlaps of predicted and true regions: Dice, generalised Dice, Tversky."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from im2im_core.engine.losses.base import SMOOTH, all_but_channels
from im2im_core.engine.losses.classes import Classes

if TYPE_CHECKING:
    from im2im_core.recipe import losses as settings_of

FLAT = 1e-6
"""Loss below which its root is a straight line: the slope of a root at 0 is infinite."""


class Dice:
    """One minus the soft Dice overlap over the whole batch, mean over classes."""

    def __init__(self, settings: settings_of.Dice) -> None:
        self.classes = Classes(settings.class_weights, settings.background)

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the classes."""
        probability, truth = self.classes.maps(prediction, target, weight)
        overlap, predicted, true = _sums(probability, truth, weight)
        return self.classes.mean(1 - (2 * overlap + SMOOTH) / (predicted + true + SMOOTH))


class GeneralizedDice:
    """One minus the Dice overlap of all classes together, each divided by the square of its true size.

    A class that does not occur counts as much as the rarest one that does.
    """

    def __init__(self, settings: settings_of.GeneralizedDice) -> None:
        self.classes = Classes(settings.class_weights, settings.background)

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Loss of the whole batch."""
        probability, truth = self.classes.maps(prediction, target, weight)
        overlap, predicted, true = _sums(probability, truth, weight)
        smallest = torch.where(true > 0, true, torch.inf).min()
        # Relative to the rarest class, so that the smoothing means the same whatever the sizes.
        relative = torch.where(true > 0, (smallest / true) ** 2, torch.ones_like(true))
        factors = relative * self.classes.factors(true)
        overlap, size = (factors * overlap).sum(), (factors * (predicted + true)).sum()
        return 1 - (2 * overlap + SMOOTH) / (size + SMOOTH)


class Tversky:
    """One minus the overlap, with a price for what is predicted too much and too little, mean over classes."""

    def __init__(self, settings: settings_of.Tversky) -> None:
        self.classes = Classes(settings.class_weights, settings.background)
        self.false_positives = settings.false_positives
        self.false_negatives = settings.false_negatives
        self.gamma = settings.gamma

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the classes."""
        probability, truth = self.classes.maps(prediction, target, weight)
        overlap, predicted, true = _sums(probability, truth, weight)
        wrong = self.false_positives * (predicted - overlap) + self.false_negatives * (true - overlap)
        missed = 1 - (overlap + SMOOTH) / (overlap + wrong + SMOOTH)
        return self.classes.mean(_root(missed, self.gamma))


def _sums(probability: Tensor, truth: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Overlap, predicted and true size of each class over the batch, ``(K,)``, by weight."""
    axes = all_but_channels(probability)
    return (
        (probability * truth * weight).sum(axes),
        (probability * weight).sum(axes),
        (truth * weight).sum(axes),
    )


def _root(x: Tensor, gamma: float) -> Tensor:
    """`x` to the power 1/gamma, a straight line through 0 below `FLAT`."""
    if gamma == 1:
        return x
    return torch.where(x > FLAT, x.clamp_min(FLAT) ** (1 / gamma), x * FLAT ** (1 / gamma - 1))
