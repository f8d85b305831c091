"""MONAI's networks from their settings; each builder gives the module and its divisor per spatial axis."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from im2im_core.errors import ConfigError

if TYPE_CHECKING:
    from im2im_core.engine.networks import VoxelSize
    from im2im_core.recipe.network import AttentionUnet, BasicUNet, ClassNetwork, DynUNet, Norm, UNet

Built = tuple[nn.Module, tuple[int, ...]]
ACTIVATION = ("leakyrelu", {"negative_slope": 0.01, "inplace": True})
ANISOTROPIC = 2.0
"""Z to in-plane spacing from which a level leaves Z as it is."""
FEWEST_LEVELS = 3
"""Levels of MONAI's DynUNet, at least."""


def basic_unet(
    settings: BasicUNet, dimensions: int, in_channels: int, out_channels: int, voxel_size: VoxelSize | None
) -> Built:
    """MONAI's BasicUNet: five levels, each half the size of the one above."""
    from monai.networks.nets.basic_unet import BasicUNet as Module

    module = Module(
        dimensions,
        in_channels,
        out_channels,
        settings.features,
        act=ACTIVATION,
        norm=_norm(settings.norm, settings.features),
        dropout=settings.dropout,
    )
    return module, (16,) * dimensions


def unet(settings: UNet, dimensions: int, in_channels: int, out_channels: int, voxel_size: VoxelSize | None) -> Built:
    """MONAI's UNet with residual units; flat levels have kernel and stride 1 along Z."""
    from im2im_core.engine.networks.flat_unet import FlatUNet

    flat = flat_levels(settings.anisotropy, len(settings.channels), dimensions, voxel_size)
    strides = [_along_axes(2, dimensions, level) for level in flat[:-1]]
    # With residual units MONAI normalises the output channels too.
    widths = (*settings.channels, out_channels) if settings.residual_units else settings.channels
    module = FlatUNet(
        dimensions,
        in_channels,
        out_channels,
        settings.channels,
        strides,
        num_res_units=settings.residual_units,
        act=ACTIVATION,
        norm=_norm(settings.norm, widths),
        dropout=settings.dropout,
    )
    return module, _product(strides, dimensions)


def dynunet(
    settings: DynUNet, dimensions: int, in_channels: int, out_channels: int, voxel_size: VoxelSize | None
) -> Built:
    """MONAI's DynUNet; levels leave Z as it is where the settings or the voxel size want it."""
    from monai.networks.nets.dynunet import DynUNet as Module

    if settings.filters == "auto":
        raise ConfigError("network.filters is still auto", "Make a plan first, or give the channels of each level")
    if len(settings.filters) < FEWEST_LEVELS:
        raise ConfigError(
            f"network.filters {settings.filters} has {len(settings.filters)} levels", "A DynUNet needs at least three"
        )
    kernels, strides = levels_of(settings, len(settings.filters), dimensions, voxel_size)
    module = Module(
        dimensions,
        in_channels,
        out_channels,
        kernels,
        strides,
        strides[1:],
        filters=settings.filters,
        dropout=settings.dropout or None,
        norm_name=_norm(settings.norm, settings.filters),
        act_name=ACTIVATION,
        res_block=settings.residual,
    )
    return module, _product(strides, dimensions)


def levels_of(
    settings: DynUNet, levels: int, dimensions: int, voxel_size: VoxelSize | None
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Kernels and strides of each level: those of the settings, else flat along Z where the voxel size wants it."""
    flat = flat_levels("auto", levels, dimensions, voxel_size)
    kernels, strides = settings.kernels, settings.strides
    if kernels == "auto":
        kernels = tuple(_along_axes(3, dimensions, level) for level in flat)
    if strides == "auto":
        strides = ((1,) * dimensions, *(_along_axes(2, dimensions, level) for level in flat[:-1]))
    return kernels, strides


def attention_unet(
    settings: AttentionUnet, dimensions: int, in_channels: int, out_channels: int, voxel_size: VoxelSize | None
) -> Built:
    """MONAI's AttentionUnet with one kind of normalisation throughout."""
    from monai.networks.nets.attentionunet import AttentionUnet as Module

    strides = (2,) * (len(settings.channels) - 1)
    module = Module(dimensions, in_channels, out_channels, settings.channels, strides, dropout=settings.dropout)
    _exchange_norms(module, settings.norm, dimensions)
    return module, (2 ** len(strides),) * dimensions


def from_class_path(
    settings: ClassNetwork, dimensions: int, in_channels: int, out_channels: int, voxel_size: VoxelSize | None
) -> Built:
    """Any trusted network class; dimensions and channels are filled in where its signature has them."""
    from im2im_core.trust import check_arguments, resolve_class

    found = resolve_class(settings.class_path, nn.Module)
    filled = {
        "spatial_dims": dimensions,
        "dimensions": dimensions,
        "in_channels": in_channels,
        "out_channels": out_channels,
    }
    known = inspect.signature(found).parameters
    filled = {name: value for name, value in filled.items() if name in known}
    check_arguments(found, settings.init_args, filled)
    arguments = filled | settings.init_args
    try:
        module = found(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"network: {settings.class_path}({arguments}) failed: {error}", "Change network.init_args"
        ) from error
    return module, (settings.divisor,) * dimensions


def flat_levels(
    anisotropy: tuple[bool, ...] | str, levels: int, dimensions: int, voxel_size: VoxelSize | None
) -> list[bool]:
    """Which levels leave Z as it is; from the spacing at each level where `anisotropy` is "auto".

    Z is left until the voxel is within a factor of two of a cube (Isensee et al. 2021).
    """
    if not isinstance(anisotropy, str):
        if len(anisotropy) > levels:
            raise ConfigError(
                f"network.anisotropy {list(anisotropy)} has {len(anisotropy)} levels, the network {levels}",
                f"Give at most {levels}",
            )
        return [*anisotropy, *[False] * (levels - len(anisotropy))]
    if dimensions == 2 or voxel_size is None:
        return [False] * levels
    z, y, x = voxel_size
    if z is None or y is None or x is None:
        return [False] * levels
    # Each flat level doubles the in-plane spacing alone, so the ratio halves from level to level.
    ratio = z / math.sqrt(y * x)
    return [ratio / 2**level >= ANISOTROPIC for level in range(levels)]


def _along_axes(value: int, dimensions: int, flat: bool) -> tuple[int, ...]:
    """`value` along each axis, 1 along Z of a flat level."""
    return (1 if flat and dimensions == 3 else value, *(value,) * (dimensions - 1))


def _product(strides: Sequence[Sequence[int]], dimensions: int) -> tuple[int, ...]:
    return tuple(math.prod(stride[axis] for stride in strides) for axis in range(dimensions))


def _norm(kind: Norm, widths: Sequence[int]) -> tuple[str, dict[str, Any]]:
    """MONAI's name and arguments of a normalisation layer for layers of `widths` channels."""
    if kind == "group":
        return "group", {"num_groups": math.gcd(8, *widths)}
    return kind, {"affine": True}


def _exchange_norms(module: nn.Module, kind: Norm, dimensions: int) -> None:
    """Replace every batch or instance normalisation inside `module` by `kind`."""
    from monai.networks.layers.utils import get_norm_layer

    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _NormBase):
                width = child.num_features
                setattr(parent, name, get_norm_layer(_norm(kind, (width,)), dimensions, width))
