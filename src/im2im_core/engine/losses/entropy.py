"""Cross entropy, plain and focal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from im2im_core.engine.losses.base import known_only, weighted_mean
from im2im_core.engine.losses.classes import Classes

if TYPE_CHECKING:
    from im2im_core.recipe import losses as settings_of


class CrossEntropy:
    """Mean cross entropy, by the weight of the pixel times that of its class."""

    def __init__(self, settings: settings_of.CrossEntropy) -> None:
        self.classes = Classes(settings.class_weights)

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the known pixels."""
        self.classes.check(prediction.shape[1])
        return weighted_mean(entropy(prediction.float(), target, weight), self.classes.of_pixels(target, weight))


class Focal:
    """Cross entropy times (1 - probability of the truth) to the power gamma."""

    def __init__(self, settings: settings_of.Focal) -> None:
        self.classes = Classes(settings.class_weights)
        self.gamma = settings.gamma

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the known pixels, by the weight of the pixel times that of its class."""
        self.classes.check(prediction.shape[1])
        found = entropy(prediction.float(), target, weight)
        # The clamp keeps the slope of the power finite where the truth is certain.
        doubt = (1 - torch.exp(-found)).clamp_min(1e-6)
        return weighted_mean(doubt**self.gamma * found, self.classes.of_pixels(target, weight))


def entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy of each pixel ``(B, 1, [Z], Y, X)``."""
    known = known_only(target, weight)
    if logits.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(logits, known.float(), reduction="none")
    return functional.cross_entropy(logits, known[:, 0].long(), reduction="none")[:, None]
