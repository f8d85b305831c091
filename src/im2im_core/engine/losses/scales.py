"""Losses over the scales of a network: deep supervision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from im2im_core.engine.losses.shrink import shrink_classes, shrink_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def over_scales(
    predictions: Sequence[Tensor], target: Tensor, weight: Tensor, classes: int | None = None
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Each prediction with the target and weight of its grid.

    Parameters
    ----------
    predictions : sequence of Tensor
        ``(B, C, [Z], Y, X)``, the first on the grid of the target, the others on coarser ones.
    classes : int, optional
        Number of classes that the target holds; None = it is an image.
    """
    levels = [(predictions[0], target, weight)]
    for prediction in predictions[1:]:
        factors = tuple(n // m for n, m in zip(weight.shape[2:], prediction.shape[2:], strict=True))
        if classes is None:
            levels.append((prediction, *shrink_image(target, weight, factors)))
        else:
            levels.append((prediction, *shrink_classes(target, weight, factors, classes)))
    return levels


def sum_scales(losses: Sequence[Tensor]) -> Tensor:
    """Mean over the scales, each counting half as much as the next finer one (Isensee et al. 2021)."""
    shares = [0.5**k for k in range(len(losses))]
    return torch.stack([loss * share / sum(shares) for loss, share in zip(losses, shares, strict=True)]).sum()
