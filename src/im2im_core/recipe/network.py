"""Settings of the networks: MONAI's, or any class by import path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from annotated_types import Ge, Gt, Interval, MinLen
from pydantic import model_validator

from im2im_core._base import Config
from im2im_core.recipe.classpath import ClassPath
from im2im_core.recipe.plugins import with_plugins

Width = Annotated[int, Ge(1)]
Levels = Annotated[tuple[Width, ...], MinLen(2)]
"""Channels of each level; a U-Net has at least two."""
PerLevel = tuple[tuple[Width, ...], ...]
"""One number along each axis, for each level."""
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
    """Self-configuring U-Net (Isensee et al. 2021).

    What is auto follows from the images; the plan says how.
    """

    kind: Literal["dynunet"] = "dynunet"
    target: ClassVar[str] = "im2im_core.engine.networks.monai_nets:dynunet"
    filters: tuple[Width, ...] | Literal["auto"] = "auto"
    """Channels of each level; auto: first_filters, doubled from level to level up to most_filters."""
    strides: PerLevel | Literal["auto"] = "auto"
    """Reduction of each level along its axes, Z, Y, X or Y, X, first level first; auto: from patch and voxel size."""
    kernels: PerLevel | Literal["auto"] = "auto"
    """Kernel of each level along its axes; auto: 1 along an axis while it is twice as coarse as the finest, else 3."""
    first_filters: Width = 32
    """Channels of the first level where filters are auto."""
    most_filters: Width | Literal["auto"] = "auto"
    """Most channels of a level where filters are auto; auto: 512 in 2D, 320 in 3D."""
    budget: Annotated[float, Gt(0)] = 64
    """Million values that a step may hold; automatic patch and batch follow from it; 1000 fill a GPU of 8 GB."""
    residual: bool = False
    """Residual instead of plain blocks."""

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        given = {
            name: len(value)
            for name, value in (("filters", self.filters), ("strides", self.strides), ("kernels", self.kernels))
            if value != "auto"
        }
        if len(set(given.values())) > 1:
            counts = ", ".join(f"{name} has {count} levels" for name, count in given.items())
            raise ValueError(f"{counts}; give as many of each, or auto")
        return self

    @model_validator(mode="after")
    def _first_level_keeps_the_grid(self) -> Self:
        if self.strides != "auto" and self.strides and set(self.strides[0]) != {1}:
            raise ValueError(f"strides begin with {self.strides[0]}; the first level must be 1 along each axis")
        return self

    @model_validator(mode="after")
    def _kernels_have_a_middle(self) -> Self:
        even = [] if self.kernels == "auto" else [k for level in self.kernels for k in level if k % 2 == 0]
        if even:
            raise ValueError(f"kernels has the size {even[0]}; use odd numbers")
        return self


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
