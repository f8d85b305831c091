"""Settings of the networks: MONAI's, or any class by import path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Interval, MinLen

from im2im_core._base import Config
from im2im_core.recipe.classpath import ClassPath
from im2im_core.recipe.plugins import with_plugins

Width = Annotated[int, Ge(1)]
Levels = Annotated[tuple[Width, ...], MinLen(2)]
"""Channels of each level; a U-Net has at least two."""
Norm = Literal["batch", "instance", "group"]


class _Network(Config):
    """What all shipped networks share."""

    target: ClassVar[str]
    """Dotted name of the function that builds the module, imported on use."""
    stem: Annotated[int, Interval(ge=1, le=4)] = 1
    """Pixels folded into channels before the network and back after it, along Y and X: 2 = a quarter of the work."""
    norm: Norm = "batch"
    """Normalisation layers. batch is fixed at prediction, so tiles leave no seams."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Part of the features dropped while training."""


class BasicUNet(_Network):
    """U-Net with two convolutions per level (Falk et al. 2019)."""

    kind: Literal["basic_unet"] = "basic_unet"
    target: ClassVar[str] = "im2im_core.engine.networks.monai_nets:basic_unet"
    features: tuple[Width, Width, Width, Width, Width, Width] = (32, 32, 64, 128, 256, 32)
    """Channels of the five levels and of the last layer."""


class UNet(_Network):
    """U-Net with residual units (Kerfoot et al. 2019)."""

    kind: Literal["unet"] = "unet"
    target: ClassVar[str] = "im2im_core.engine.networks.monai_nets:unet"
    channels: Levels = (32, 64, 128, 256)
    """Channels of each level."""
    residual_units: Annotated[int, Ge(0)] = 2
    """Residual units per level."""
    anisotropy: tuple[bool, ...] | Literal["auto"] = "auto"
    """Levels that leave Z as it is (kernel 1, stride 1 along Z), first level first; auto: from the voxel size."""


class DynUNet(_Network):
    """The self-configuring U-Net's network (Isensee et al. 2021)."""

    kind: Literal["dynunet"] = "dynunet"
    target: ClassVar[str] = "im2im_core.engine.networks.monai_nets:dynunet"
    filters: tuple[Width, ...] = (32, 64, 128, 256)
    """Channels of each level."""
    anisotropy: tuple[bool, ...] | Literal["auto"] = "auto"
    """Levels that leave Z as it is (kernel 1, stride 1 along Z), first level first; auto: from the voxel size."""
    residual: bool = False
    """Residual instead of plain blocks."""


class AttentionUnet(_Network):
    """U-Net with attention gates in its skip connections (Oktay et al. 2018)."""

    kind: Literal["attention_unet"] = "attention_unet"
    target: ClassVar[str] = "im2im_core.engine.networks.monai_nets:attention_unet"
    channels: Levels = (32, 64, 128, 256)
    """Channels of each level."""


class ClassNetwork(ClassPath):
    """Any network class by import path; it maps (B, C, [Z], Y, X) to the same grid."""

    target: ClassVar[str] = "im2im_core.engine.networks.monai_nets:from_class_path"
    stem: Annotated[int, Interval(ge=1, le=4)] = 1
    """Pixels folded into channels before the network and unfolded after it, along Y and X."""
    divisor: Annotated[int, Ge(1)] = 16
    """The patch must be a multiple of this along each axis."""


if TYPE_CHECKING:
    NetworkSettings = BasicUNet | UNet | DynUNet | AttentionUnet | ClassNetwork
else:
    NetworkSettings = with_plugins("network", BasicUNet, UNet, DynUNet, AttentionUnet, ClassNetwork)
