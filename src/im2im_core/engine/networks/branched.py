"""Networks with one way down and several ways up, each for channels of its own (Neven et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from im2im_core.errors import ConfigError


class Parts(NamedTuple):
    """Modules of a U-Net by what they do."""

    down: Sequence[nn.Module]
    """Levels from the image down; each takes the output of the one before."""
    up: Sequence[nn.Module]
    """Levels from the bottom up; each takes the output of the one before and of the level down beside it."""
    last: nn.Module


class Branched(nn.Module):
    """Output of several U-Nets, channels one after another, of which the levels down are shared.

    Parameters
    ----------
    networks : iterable of nn.Module
        Alike but for their number of output channels; the levels down are those of the first.

    Raises
    ------
    ConfigError
        The network is not one whose levels are known.
    """

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        parts = [_known(network) for network in networks]
        self.down = nn.ModuleList(parts[0].down)
        self.up = nn.ModuleList(nn.ModuleList(p.up) for p in parts)
        self.last = nn.ModuleList(p.last for p in parts)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, [Z], Y, X)`` with the channels of all branches."""
        levels = []
        for level in self.down:
            x = level(x)
            levels.append(x)
        *beside, bottom = levels
        found = []
        for ways, last in zip(self.up, self.last, strict=True):
            y = bottom
            for way, skip in zip(ways, reversed(beside), strict=True):  # type: ignore[call-overload]
                y = way(y, skip)
            found.append(last(y))
        return torch.cat(found, 1)


def _known(network: nn.Module) -> Parts:
    parts = parts_of(network)
    if parts is None:
        raise ConfigError(
            f"framework.branched is true, but the levels of {type(network).__name__} are not known",
            "Choose network basic_unet or dynunet, or set framework.branched to false",
        )
    return parts


def parts_of(network: nn.Module) -> Parts | None:
    """Levels of a U-Net whose levels stand side by side; None of other networks."""
    from monai.networks.nets.basic_unet import BasicUNet
    from monai.networks.nets.dynunet import DynUNet

    n = network
    if isinstance(n, BasicUNet):
        down = [n.conv_0, n.down_1, n.down_2, n.down_3, n.down_4]
        return Parts(down, [n.upcat_4, n.upcat_3, n.upcat_2, n.upcat_1], n.final_conv)
    if isinstance(n, DynUNet):
        return Parts([n.input_block, *n.downsamples, n.bottleneck], list(n.upsamples), n.output_block)
    return None
