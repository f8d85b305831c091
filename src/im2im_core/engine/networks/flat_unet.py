"""MONAI's UNet whose flat levels also have a kernel of one plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.nets.unet import UNet
from torch import nn


class FlatUNet(UNet):
    """A level with stride 1 along Z and 2 in the plane convolves in the plane only.

    Parameters
    ----------
    strides : sequence of tuple of int
        One stride per axis for each level but the last.
    """

    def __init__(
        self,
        dimensions: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        strides: Sequence[tuple[int, ...]],
        **options: Any,
    ) -> None:
        super().__init__(dimensions, in_channels, out_channels, channels, strides, **options)  # type: ignore[arg-type]

    def _get_down_layer(self, in_channels: int, out_channels: int, strides: Any, is_top: bool) -> nn.Module:
        self.kernel_size = _kernel(strides, self.dimensions)
        return super()._get_down_layer(in_channels, out_channels, strides, is_top)

    def _get_up_layer(self, in_channels: int, out_channels: int, strides: Any, is_top: bool) -> nn.Module:
        self.kernel_size = self.up_kernel_size = _kernel(strides, self.dimensions)
        return super()._get_up_layer(in_channels, out_channels, strides, is_top)


def _kernel(strides: int | tuple[int, ...], dimensions: int) -> tuple[int, ...]:
    if isinstance(strides, int):
        return (3,) * dimensions
    return tuple(1 if stride < max(strides) else 3 for stride in strides)
