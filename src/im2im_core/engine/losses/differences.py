"""Differences of pixel values: absolute, squared, Huber's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

from im2im_core.engine.losses.base import known_only, weighted_mean

if TYPE_CHECKING:
    from im2im_core.recipe import losses as settings_of


class L1:
    """Mean absolute difference."""

    def __init__(self, settings: settings_of.L1) -> None: ...

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the known pixels and channels."""
        return weighted_mean((prediction.float() - known_only(target, weight)).abs(), weight)


class L2:
    """Mean squared difference."""

    def __init__(self, settings: settings_of.L2) -> None: ...

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the known pixels and channels."""
        return weighted_mean((prediction.float() - known_only(target, weight)).square(), weight)


class Huber:
    """Squared difference up to delta, absolute beyond."""

    def __init__(self, settings: settings_of.Huber) -> None:
        self.delta = settings.delta

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the known pixels and channels."""
        known = known_only(target, weight).float()
        return weighted_mean(
            functional.huber_loss(prediction.float(), known, reduction="none", delta=self.delta), weight
        )
