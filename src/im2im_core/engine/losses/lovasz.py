"""The Lovász extension of one minus IoU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from im2im_core.engine.losses.base import all_but_channels, known_only
from im2im_core.engine.losses.classes import Classes

if TYPE_CHECKING:
    from im2im_core.recipe import losses as settings_of


class Lovasz:
    """Convex extension of the Jaccard index, over the classes that occur in the batch (Berman et al. 2018).

    Pixels count by weight in intersection and union. Errors are differences of probabilities, or
    margins of the logit of a class against all others, as a hinge has them.
    """

    def __init__(self, settings: settings_of.Lovasz) -> None:
        self.classes = Classes(settings.class_weights, settings.background)
        self.hinge = settings.errors == "hinge"

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the classes that occur."""
        probability, truth = self.classes.maps(prediction, target, weight)
        truth = truth.round()
        if self.hinge:
            errors = functional.relu(1 - self._margins(prediction, weight) * (2 * truth - 1))
        else:
            errors = (truth - probability).abs()
        flat = weight.flatten()
        losses = [
            extension(e.flatten(), t.flatten(), flat) for e, t in zip(errors.unbind(1), truth.unbind(1), strict=True)
        ]
        return self.classes.mean(torch.stack(losses), (truth * weight).sum(all_but_channels(truth)) > 0)

    def _margins(self, prediction: Tensor, weight: Tensor) -> Tensor:
        """How far the logit of each class is above all others together; of one output channel, the output itself."""
        logits = prediction.float()
        if logits.shape[1] == 1:
            found = torch.cat([-logits, logits], 1)
        else:
            # Not from probabilities: where they are 0 or 1 the slope of a margin would be lost.
            others = [torch.logsumexp(logits[:, _all_but(k, logits.shape[1])], 1) for k in range(logits.shape[1])]
            found = logits - torch.stack(others, 1)
        return known_only(found if self.classes.background else found[:, 1:], weight)


def extension(errors: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Lovász extension of the Jaccard loss of one class.

    Parameters
    ----------
    errors, truth, weight : Tensor
        One value per pixel; truth is 0 or 1.
    """
    order = torch.argsort(errors.detach(), descending=True, stable=True)
    inside, outside = (truth * weight)[order], ((1 - truth) * weight)[order]
    union = inside.sum() + outside.cumsum(0)
    left = inside.sum() - inside.cumsum(0)
    jaccard = torch.where(union > 0, 1 - left / torch.where(union > 0, union, torch.ones_like(union)), 0.0)
    slope = torch.diff(jaccard, prepend=jaccard.new_zeros(1))
    return (errors[order] * slope).sum()


def _all_but(k: int, count: int) -> list[int]:
    return [i for i in range(count) if i != k]
