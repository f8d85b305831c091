"""Networks of the recipe, wrapped so that their geometry is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from im2im_core.engine.networks import receptive_field
from im2im_core.engine.networks.branched import Branched
from im2im_core.engine.networks.deep_heads import DeepHeads
from im2im_core.engine.networks.stem import Folded
from im2im_core.engine.targets import import_target

if TYPE_CHECKING:
    from im2im_core.recipe.network import NetworkSettings

VoxelSize = tuple[float | None, float | None, float | None]
"""Z, Y, X in micrometres; None = not known."""


class Network(nn.Module):
    """A network from ``(B, C, [Z], Y, X)`` to the same grid, with its geometry.

    Parameters
    ----------
    body : nn.Module
        What the settings asked for.
    branches : tuple of int
        Channels that each of its ways up makes.
    divisor : tuple of int
        Along each spatial axis the input must be a multiple of this.
    deep : int
        Coarser levels that predict too, while it learns.
    """

    def __init__(
        self,
        body: nn.Module,
        dimensions: int,
        in_channels: int,
        branches: tuple[int, ...],
        divisor: tuple[int, ...],
        stem: int = 1,
        deep: int = 0,
    ) -> None:
        super().__init__()
        factors = (1,) * (dimensions - 2) + (stem, stem)
        self.body = Folded(body, stem) if stem > 1 else body
        self.in_channels = in_channels
        self.branches = branches
        self.out_channels = sum(branches)
        self.divisor = tuple(d * f for d, f in zip(divisor, factors, strict=True))
        self._radius: tuple[int, ...] | None = None
        if deep:
            # Two pixels at the bottom: layers that normalise an image by itself refuse a single one.
            probe = torch.zeros(1, in_channels, *(2 * d for d in self.divisor))
            self.heads = DeepHeads(self.body, deep, self.out_channels * stem**2, probe)

    @property
    def receptive_field(self) -> tuple[int, ...]:
        """Pixels along each spatial axis that an output pixel sees to either side; probed once."""
        if self._radius is None:
            self._radius = receptive_field.radius(self.body, len(self.divisor), self.in_channels, self.divisor)
        return self._radius

    def forward(self, x: Tensor) -> Tensor:
        """Output ``(B, C, [Z], Y, X)`` on the grid of `x`."""
        y: Tensor = self.body(x)
        return y

    def scales(self, x: Tensor) -> list[Tensor]:
        """Output on the grid of `x`, then those of the coarser levels that learn, each on its own grid."""
        if not hasattr(self, "heads"):
            return [self(x)]
        found: list[Tensor] = self.heads(self.body, x)
        return found


def build_network(
    settings: NetworkSettings,
    dimensions: int,
    in_channels: int,
    out_channels: int | tuple[int, ...],
    voxel_size: VoxelSize | None = None,
    deep: int = 0,
) -> Network:
    """Network of the recipe for the channels at hand, with fresh weights of the global random state.

    Parameters
    ----------
    out_channels
        Several numbers: as many ways up, each for so many channels of the output.
    voxel_size
        Decides which levels leave Z alone where the settings say "auto".
    deep
        Coarser levels that predict too, while it learns.
    """
    fold = settings.stem**2
    builder = import_target(settings.target)
    seen = behind_stem(voxel_size, settings.stem)
    branches = (out_channels,) if isinstance(out_channels, int) else out_channels
    built = [builder(settings, dimensions, in_channels * fold, count * fold, seen) for count in branches]
    bodies, divisors = zip(*built, strict=True)
    body = bodies[0] if len(bodies) == 1 else Branched(bodies)
    return Network(body, dimensions, in_channels, branches, divisors[0], settings.stem, deep)


def behind_stem(voxel_size: VoxelSize | None, stem: int) -> VoxelSize:
    """Voxel size that the network sees."""
    z, y, x = voxel_size or (None, None, None)
    return z, y and y * stem, x and x * stem
