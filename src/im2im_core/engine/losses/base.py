"""What every loss is: a scalar by weight, in which weight 0 leaves no trace."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

SMOOTH = 1e-5
"""Added to overlap and size, so that a class that is absent and not predicted costs nothing."""


class Loss(Protocol):
    """A scalar of prediction ``(B, C, [Z], Y, X)``, target and weight ``(B, 1, [Z], Y, X)``.

    Predictions of classes are logits; one channel is binary, several exclude each other. Targets
    of classes are indices ``(B, 1, [Z], Y, X)``. Without any weight the loss is 0 with gradient 0.
    """

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the known pixels."""


def known_only(values: Tensor, weight: Tensor) -> Tensor:
    """`values` with 0 wherever the weight is 0: what stands there, NaN included, is never looked at."""
    if values.dtype in (torch.uint16, torch.uint32):  # torch stores these but computes little with them
        values = values.long()
    return torch.where(weight > 0, values, torch.zeros((), dtype=values.dtype, device=values.device))


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of `values` ``(B, C, [Z], Y, X)`` by `weight` ``(B, 1, [Z], Y, X)``; 0 without any weight."""
    return ratio((values * weight).sum(), weight.sum() * values.shape[1])


def ratio(above: Tensor, below: Tensor) -> Tensor:
    """`above` by `below`, and `above` itself where `below` is 0."""
    return above / torch.where(below > 0, below, torch.ones_like(below))


def all_but_channels(x: Tensor) -> list[int]:
    """Axes of ``(B, C, [Z], Y, X)`` that a sum over a batch runs along."""
    return [0, *range(2, x.ndim)]


def spatial(x: Tensor) -> list[int]:
    """Axes [Z], Y, X of ``(B, C, [Z], Y, X)``."""
    return list(range(2, x.ndim))
