"""Smaller versions of targets and weights, for losses over several scales."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from im2im_core.engine.losses.base import known_only, ratio


def block_mean(x: Tensor, factors: tuple[int, ...]) -> Tensor:
    """Mean of each block of `factors` pixels along [Z], Y, X."""
    pool = functional.avg_pool2d if x.ndim == 4 else functional.avg_pool3d
    return pool(x, factors)


def shrink_image(values: Tensor, weight: Tensor, factors: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean of each block by weight, and the mean weight of the block.

    What is unknown takes no part in the mean; a block is unknown only where all of it is.

    Parameters
    ----------
    values : Tensor
        ``(B, C, [Z], Y, X)``.
    weight : Tensor
        ``(B, 1, [Z], Y, X)``.
    """
    total = block_mean(weight, factors)
    return ratio(block_mean(known_only(values, weight).float() * weight, factors), total), total


def shrink_classes(target: Tensor, weight: Tensor, factors: tuple[int, ...], classes: int) -> tuple[Tensor, Tensor]:
    """Class with the most weight in each block, the lower one of equals, and the mean weight of the block.

    Unknown pixels have no vote; a block is unknown only where all of it is.

    Parameters
    ----------
    target, weight : Tensor
        ``(B, 1, [Z], Y, X)``.
    """
    known = known_only(target, weight)[:, 0].long()
    # One class after the other: all of them at once would be as many maps of the full size.
    votes = [block_mean((known == k)[:, None] * weight, factors) for k in range(classes)]
    return torch.cat(votes, 1).argmax(1, keepdim=True), block_mean(weight, factors)
