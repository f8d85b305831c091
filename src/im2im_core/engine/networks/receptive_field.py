"""How far a network sees: NaN is painted into the input and followed to the output."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

LONGEST = 1024
"""Pixels tried along one axis."""
UNBOUNDED = 64
"""Radius given to a network that sees the whole image (attention, squeeze and excitation), pixels."""

_CONVOLUTIONS: dict[tuple[bool, int], Callable[..., Tensor]] = {
    (False, 1): functional.conv1d,
    (False, 2): functional.conv2d,
    (False, 3): functional.conv3d,
    (True, 1): functional.conv_transpose1d,
    (True, 2): functional.conv_transpose2d,
    (True, 3): functional.conv_transpose3d,
}


class _Spread(nn.Module):
    """A convolution reduced to its geometry: all channels become one, are spread, and are copied to all outputs."""

    def __init__(self, conv: _ConvNd) -> None:
        super().__init__()
        dims = len(conv.kernel_size)
        transposed = isinstance(conv, _ConvTransposeNd)
        self.run = _CONVOLUTIONS[transposed, dims]
        self.out_channels = conv.out_channels
        self.options = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}
        if transposed:
            self.options["output_padding"] = conv.output_padding
        self.kernel = torch.ones(1, 1, *conv.kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        y = self.run(x.sum(1, keepdim=True), self.kernel, **self.options)
        return y.expand(-1, self.out_channels, *y.shape[2:]).contiguous()


def radius(network: nn.Module, dimensions: int, in_channels: int, divisor: tuple[int, ...]) -> tuple[int, ...]:
    """Pixels along each spatial axis beyond which the input cannot change an output pixel.

    Normalisation layers count as fixed. The weights of `network` do not matter and are not touched.
    """
    bare = _bare(network)
    with torch.no_grad():
        return tuple(_along(bare, axis, dimensions, in_channels, divisor) for axis in range(dimensions))


def _bare(network: nn.Module) -> nn.Module:
    """Copy of `network` in which convolutions only spread and normalisation does nothing."""
    bare = copy.deepcopy(network).cpu().float().eval()
    for parent in list(bare.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _ConvNd):
                setattr(parent, name, _Spread(child))
            elif isinstance(child, (_NormBase, nn.GroupNorm, nn.LayerNorm)):
                setattr(parent, name, nn.Identity())
    return bare


def _along(bare: nn.Module, axis: int, dimensions: int, in_channels: int, divisor: tuple[int, ...]) -> int:
    """Radius along one axis; the probed image doubles until the reach ends inside it."""
    step = divisor[axis]
    half = -(-32 // step) * step
    while 2 * half <= LONGEST:
        found = _worst(bare, axis, half, (in_channels, divisor))
        if found is not None:
            return found
        half *= 2
    return UNBOUNDED


def _worst(bare: nn.Module, axis: int, half: int, shape: tuple[int, tuple[int, ...]]) -> int | None:
    """Largest reach of the pixels of one block, to either side; None where it leaves the image.

    Striding makes the reach a staircase over the positions in a block. Where both ends of a stretch
    reach equally far, its first (last) pixel has the longest way to the right (left).
    """
    step = shape[1][axis]
    ends = {i: _reach(bare, axis, half, half + i, shape) for i in {0, step - 1}}
    stretches, longest = [(0, step - 1)], 0
    while stretches:
        first, last = stretches.pop()
        for i in (first, last):
            low, high = ends[i]
            if low == 0 or high == 2 * half + step - 1:
                return None
            longest = max(longest, half + i - low, high - half - i)
        if ends[first] != ends[last] and last - first > 1:
            middle = (first + last) // 2
            ends[middle] = _reach(bare, axis, half, half + middle, shape)
            stretches += [(first, middle), (middle, last)]
    return longest


def _reach(bare: nn.Module, axis: int, half: int, at: int, shape: tuple[int, tuple[int, ...]]) -> tuple[int, int]:
    """First and last output index along `axis` that input index `at` can change."""
    in_channels, divisor = shape
    size = [2 * half + n if i == axis else n for i, n in enumerate(divisor)]
    x = torch.zeros(1, in_channels, *size)
    x.select(2 + axis, at).fill_(torch.nan)
    y = bare(x)
    others = [i for i in range(y.ndim) if i != 2 + axis]
    changed = torch.isnan(y).sum(others).nonzero()
    return int(changed.min()), int(changed.max())
