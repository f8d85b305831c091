"""Correlation over rings in Fourier space."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from im2im_core.engine.losses.base import known_only, ratio, spatial

if TYPE_CHECKING:
    from im2im_core.recipe import losses as settings_of

TAPER = 1 / 8
"""Part of each side over which the image fades out, so that edges add no frequencies (Nieuwenhuizen et al. 2013)."""
FAINT = 1e-12
"""Energy of a ring, relative to the image, below which rounding decides its correlation."""


class FourierRing:
    """One minus the mean over frequencies of the correlation of prediction and target on each ring or shell.

    Images are brought to a mean of 0, and pixels enter by their weight. Rings without anything in
    the target, up to the frequency of two pixels, do not count; the mean brightness never does.
    """

    def __init__(self, settings: settings_of.FourierRing) -> None: ...

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over rings, then over images and channels, by the weight of each image."""
        # Relative to the largest, or the energy of small weights would be lost in rounding.
        share = ratio(weight, weight.max()) * taper(tuple(weight.shape[2:]), weight.device)
        p = _spectrum(known_only(prediction.float(), weight), share)
        t = _spectrum(known_only(target, weight).float(), share)
        number, count = rings(tuple(weight.shape[2:]))
        number = number.to(weight.device)
        cross = _sum_rings((p * t.conj()).real, number, count)
        energy_p, energy_t = (_sum_rings(x.abs().square(), number, count) for x in (p, t))
        correlation = cross / ((energy_p + FAINT).sqrt() * (energy_t + FAINT).sqrt())
        counts = (energy_t > 100 * FAINT).float()
        of_images = ratio((counts * (1 - correlation)).sum(2), counts.sum(2))
        by = weight.mean([1, *spatial(weight)])[:, None]
        return ratio((of_images * by).sum(), by.sum() * of_images.shape[1])


def taper(size: tuple[int, ...], device: torch.device) -> Tensor:
    """Window ``([Z], Y, X)`` that is 1 inside and fades out towards each side."""
    window = torch.ones((), device=device)
    for n in size:
        place = (torch.arange(n, device=device) + 0.5) / n
        side = torch.minimum(place, 1 - place) / TAPER
        window = window[..., None] * torch.sin(side.clamp_max(1) * math.pi / 2).square()
    return window


@cache
def rings(size: tuple[int, ...]) -> tuple[Tensor, int]:
    """Number of the ring of each frequency, from 1 on, and how many there are; 0 = on none of them."""
    longest = max(size)
    squared = np.zeros(())
    for n in size:
        squared = squared[..., None] + np.fft.fftfreq(n) ** 2
    # What lies between two rings belongs to the outer one, however it is rounded.
    number = np.floor(np.sqrt(squared) * longest + 0.5 + 1e-6).astype(np.int64)
    return torch.from_numpy(np.where(number <= longest // 2, number, 0)), longest // 2


def _spectrum(values: Tensor, share: Tensor) -> Tensor:
    """Fourier transform of an image of mean 0 and energy 1."""
    axes = spatial(values)
    mean = ratio((values * share).sum(axes, keepdim=True), share.sum(axes, keepdim=True))
    centred = (values - mean) * share
    centred = centred / (centred.square().sum(axes, keepdim=True) + FAINT).sqrt()
    spectrum: Tensor = torch.fft.fftn(centred, dim=axes, norm="ortho")
    return spectrum


def _sum_rings(values: Tensor, number: Tensor, count: int) -> Tensor:
    """Sum on each ring, ``(B, C, count)``."""
    flat = values.flatten(2)
    sums = flat.new_zeros(*flat.shape[:2], count + 1).index_add(2, number.flatten(), flat)
    return sums[..., 1:]
