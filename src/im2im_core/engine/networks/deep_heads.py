"""Predictions from the coarser levels of a network, for losses at each of its scales."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from im2im_core.engine.networks.branched import parts_of
from im2im_core.engine.networks.stem import Folded, unfold
from im2im_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


class DeepHeads(nn.Module):
    """One linear layer per coarser level, from the features on its way up to the channels of the prediction.

    It holds no level itself: a network keeps its weights and its names, and predicts without it.

    Parameters
    ----------
    body : nn.Module
        The network, within its stem where it has one.
    count : int
        Levels that predict, the finest of the coarser ones first.
    channels : int
        Channels of the prediction behind the stem.
    probe : Tensor
        A small input ``(1, C, [Z], Y, X)``; shows how many channels each level has.

    Raises
    ------
    ConfigError
        The network has no levels that are known, or fewer.
    """

    def __init__(self, body: nn.Module, count: int, channels: int, probe: Tensor) -> None:
        super().__init__()
        self.count = count
        known = len(_levels(body))
        if known < count:
            levels = (
                f"{known} coarser level{'' if known == 1 else 's'}" if known else "no coarser levels that are known"
            )
            raise ConfigError(
                f"deep_supervision is {count}, but the network has {levels}",
                f"Use at most {known}" if known else "Choose network dynunet, basic_unet or unet, or 0",
            )
        dimensions = probe.ndim - 2
        convolution = nn.Conv2d if dimensions == 2 else nn.Conv3d
        with torch.no_grad(), _watched(body, count) as features:
            training = body.training
            body.eval()(probe)
            body.train(training)
        self.layers = nn.ModuleList(convolution(f.shape[1], channels, 1) for f in features)

    def forward(self, body: nn.Module, x: Tensor) -> list[Tensor]:
        """Full prediction, then those of the coarser levels, each on its own grid."""
        with _watched(body, self.count) as features:
            y: Tensor = body(x)
        coarse = [layer(f) for layer, f in zip(self.layers, features, strict=True)]
        return [y, *(unfold(c, body.factor) for c in coarse)] if isinstance(body, Folded) else [y, *coarse]


def _levels(body: nn.Module) -> list[nn.Module]:
    """Modules whose output is what a coarser level hands up, finest first; none where the network is not known."""
    from monai.networks.nets.unet import UNet

    inner = body.network if isinstance(body, Folded) else body
    if parts := parts_of(inner):
        return list(parts.up)[-2::-1]
    return _nested(inner.model) if isinstance(inner, UNet) else []


def _nested(block: Any) -> list[nn.Module]:
    """Levels of a U-Net whose levels stand within each other; the bottom has no way up."""
    found: list[nn.Module] = []
    while len(block) == 3:  # down, the levels below, up
        block = block[1].submodule
        if not (isinstance(block, nn.Sequential) and len(block) == 3):
            break
        found.append(block)
    return found


@contextmanager
def _watched(body: nn.Module, count: int) -> Iterator[list[Tensor]]:
    """Output of the finest `count` coarser levels, filled while `body` runs within this context.

    The hooks are taken away again: one that stays would lead a copy of the network to this one.
    """
    found: dict[int, Tensor] = {}
    ordered: list[Tensor] = []

    def keep(level: int) -> Any:
        return lambda module, given, output: found.__setitem__(level, output)

    hooks = [m.register_forward_hook(keep(k)) for k, m in enumerate(_levels(body)[:count])]
    try:
        yield ordered
        ordered += [found[k] for k in range(count)]
    finally:
        for hook in hooks:
            hook.remove()
