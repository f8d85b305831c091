"""Random changes of the intensities of a source, each sample by its own draw."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from im2im_core.engine.augment import Draw


def change_intensity(source: Tensor, draw: Draw, generator: torch.Generator) -> Tensor:
    """The source itself, blurred, noisy, bent, stretched and shifted in place."""
    drawn = (draw.blur, draw.noise, draw.gamma, draw.contrast, draw.brightness)
    # One after the other: a sample stays in the cache of a processor meanwhile.
    for sample, values in zip(source, torch.stack(drawn, 1).tolist(), strict=True):
        blur, noise, gamma, contrast, brightness = values
        if blur:
            _blur(sample, blur)
        if noise:
            drawn_noise = torch.randn(sample.shape, generator=generator, device=generator.device)
            sample.add_(drawn_noise.to(sample), alpha=noise)
        if gamma:
            _bend(sample, 1 + gamma)
        if contrast or brightness:
            _stretch(sample, contrast, brightness)
    return source


def _blur(sample: Tensor, sigma: float) -> None:
    """Gaussian blur ``(C, [Z], Y, X)`` in the Y-X plane as a sum of shifted copies, Y then X."""
    reach = min(math.ceil(3 * sigma), *(n - 1 for n in sample.shape[-2:]))
    kernel = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-reach, reach + 1)]
    total = sum(kernel)
    planes = sample.flatten(0, -3)
    for axis in (-2, -1):
        size = planes.shape[axis]
        padding = [0, 0, reach, reach] if axis == -2 else [reach, reach, 0, 0]
        padded = functional.pad(planes[None], padding, mode="reflect")[0]
        torch.mul(padded.narrow(axis, 0, size), kernel[0] / total, out=planes)
        for k, part in enumerate(kernel[1:], 1):
            planes.add_(padded.narrow(axis, k, size), alpha=part / total)


def _bend(sample: Tensor, exponent: float) -> None:
    """Raise to a power between the least and the greatest value of each channel."""
    for channel in sample:
        low, high = (float(value) for value in channel.aminmax())
        if high > low:
            channel.sub_(low).div_(high - low).pow_(exponent).mul_(high - low).add_(low)


def _stretch(sample: Tensor, contrast: float, brightness: float) -> None:
    """Stretch the distance from the mean of each channel, and shift."""
    mean = sample.mean(tuple(range(1, sample.ndim)), keepdim=True)
    sample.mul_(1 + contrast).add_(mean.mul_(-contrast).add_(brightness))
