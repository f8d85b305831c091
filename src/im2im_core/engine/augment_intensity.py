"""Random changes of the intensities of a source, each sample by its own draw."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from im2im_core.engine.augment_place import chunks

if TYPE_CHECKING:
    from collections.abc import Callable

    from im2im_core.engine.augment import Draw


def change_intensity(source: Tensor, draw: Draw, generator: torch.Generator) -> Tensor:
    """The source itself, blurred, noisy, bent, stretched and shifted in place."""

    def noisy(part: Tensor, deviation: Tensor) -> Tensor:
        noise = torch.randn(part.shape, generator=generator, device=generator.device)
        return noise.to(part).mul_(_column(deviation, part)).add_(part)

    _change(source, _blurred, draw.blur)
    _change(source, noisy, draw.noise)
    _change(source, _bent, draw.gamma)
    _change(source, _stretched, draw.contrast, draw.brightness)
    return source


def _change(source: Tensor, change: Callable[..., Tensor], *drawn: Tensor) -> None:
    """Change the samples for which a value was drawn that is not 0."""
    applied = torch.stack(drawn).ne(0).any(0)
    for rows in chunks(applied.nonzero()[:, 0].tolist(), source.device):
        index = torch.tensor(rows, device=source.device)
        source.index_copy_(0, index, change(source.index_select(0, index), *(values[rows] for values in drawn)))


def _column(values: Tensor, image: Tensor) -> Tensor:
    """One value per sample, shaped to be broadcast over `image`."""
    return values.to(image).reshape(-1, *(1,) * (image.ndim - 1))


def _blurred(source: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur in the Y-X plane as a sum of shifted copies, Y then X."""
    reach = min(math.ceil(3 * float(sigma.max())), *(n - 1 for n in source.shape[-2:]))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernels = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).to(source)
    planes = source.flatten(1, -3)
    for axis in (-2, -1):
        size = planes.shape[axis]
        padding = [0, 0, reach, reach] if axis == -2 else [reach, reach, 0, 0]
        padded = functional.pad(planes, padding, mode="reflect")
        planes = torch.zeros_like(planes)
        for k in range(2 * reach + 1):
            planes.addcmul_(padded.narrow(axis, k, size), kernels[:, k, None, None, None])
    return planes.reshape(source.shape)


def _bent(source: Tensor, change: Tensor) -> Tensor:
    """Source with exponent 1 + change between the least and the greatest value of each channel."""
    axes = tuple(range(2, source.ndim))
    low, high = source.amin(axes, keepdim=True), source.amax(axes, keepdim=True)
    spread = torch.where(high > low, high - low, torch.ones_like(high))
    return (source - low).div_(spread).pow_(_column(1 + change, source)).mul_(spread).add_(low)


def _stretched(source: Tensor, contrast: Tensor, brightness: Tensor) -> Tensor:
    """Source with its distance from the mean of each channel stretched, and shifted."""
    mean = source.mean(tuple(range(2, source.ndim)), keepdim=True)
    stretch = _column(contrast, source)
    return torch.addcmul(_column(brightness, source) - stretch * mean, source, 1 + stretch)
