"""A framework from its settings, and the geometry of its networks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from im2im_core.engine.networks import Network, VoxelSize, build_network
from im2im_core.engine.targets import import_target

if TYPE_CHECKING:
    from im2im_core.engine.frameworks.contract import Framework
    from im2im_core.inference import Shapes
    from im2im_core.recipe.framework import FrameworkSettings
    from im2im_core.recipe.network import NetworkSettings


def build_framework(
    settings: FrameworkSettings, network: NetworkSettings, shapes: Shapes, voxel_size: VoxelSize | None = None
) -> Framework:
    """Framework with fresh weights; its class is named by the settings.

    Parameters
    ----------
    voxel_size
        Median voxel size of the images, Z, Y, X; decides which network levels leave Z alone.
    """

    def make_network(in_channels: int, out_channels: int | tuple[int, ...], deep: int = 0) -> Network:
        return build_network(network, shapes.dimensions, in_channels, out_channels, voxel_size, deep)

    built: Framework = import_target(settings.target)(settings, make_network, shapes)
    return built


def divisor_of(framework: Framework) -> tuple[int, ...]:
    """What patches and tiles must be a multiple of along each spatial axis, over all networks of the framework."""
    axes = range(framework.shapes.dimensions)
    return tuple(math.lcm(1, *(network.divisor[axis] for network in _networks(framework))) for axis in axes)


def geometry(framework: Framework) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Divisor and halo of the framework along each spatial axis, over all its networks.

    Tiles must be a multiple of the divisor; the halo is how far beyond a pixel its networks see, which takes
    a while to find out.
    """
    axes = range(framework.shapes.dimensions)
    halo = tuple(max((n.receptive_field[axis] for n in _networks(framework)), default=0) for axis in axes)
    return divisor_of(framework), halo


def _networks(framework: Framework) -> list[Network]:
    return [module for module in framework.modules() if isinstance(module, Network)]
