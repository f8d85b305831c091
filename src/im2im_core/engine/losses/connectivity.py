"""Whether neighbouring pixels belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from im2im_core.engine.losses.base import all_but_channels, ratio
from im2im_core.engine.losses.classes import Classes
from im2im_core.engine.losses.neighbours import neighbours

if TYPE_CHECKING:
    from im2im_core.recipe import losses as settings_of

CERTAIN = 1e-7
"""A pair is never surer than this to belong together, so that its opposite has a logarithm."""


class Connectivity:
    """Mean cross entropy of pairs of neighbours, diagonal ones too, that both belong to a class.

    The probability of a pair is the product of both, the truth as well; its weight is the smaller
    one of both, so that no pair reaches into the unknown. A gap in what is thin breaks many pairs.
    """

    def __init__(self, settings: settings_of.Connectivity) -> None:
        self.classes = Classes(settings.class_weights, settings.background)

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the classes."""
        self.classes.check(prediction.shape[1])
        logarithm = self.classes.logarithms(prediction)
        truth = self.classes.truth(target, weight, prediction.shape[1])
        cost, total = torch.zeros(truth.shape[1], device=truth.device), torch.zeros((), device=truth.device)
        for step in neighbours(truth.ndim - 2):
            pair: list[tuple[Any, ...]] = [(..., *side) for side in step]
            one, other = pair
            joint = logarithm[one] + logarithm[other]
            together = truth[one] * truth[other]
            apart = torch.log(-torch.expm1(joint.clamp_max(-CERTAIN)))
            share = torch.minimum(weight[one], weight[other])
            entropy = -(together * joint + (1 - together) * apart)
            cost = cost + (entropy * share).sum(all_but_channels(entropy))
            total = total + share.sum()
        return self.classes.mean(ratio(cost, total))
