"""Structural similarity at one scale and at several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from im2im_core.engine.losses.base import known_only, ratio, spatial, weighted_mean
from im2im_core.engine.losses.shrink import shrink_image
from im2im_core.errors import ConfigError

if TYPE_CHECKING:
    from im2im_core.recipe import losses as settings_of

SCALE_POWERS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""How much each scale counts, finest first (Wang et al. 2003)."""
LEAST = 0.05
"""Similarity of a scale below which an exponential goes on for its power, which has no slope to learn from below 0."""


class SSIM:
    """One minus the mean structural similarity in uniform windows, for images of range 0 to 1.

    A window counts only the pixels that are known and inside the image, so nothing leaks over
    the rim of an unknown region.
    """

    def __init__(self, settings: settings_of.SSIM) -> None:
        self.window = _odd(settings.kind, settings.window)

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the windows around known pixels."""
        p, t = known_only(prediction.float(), weight), known_only(target, weight).float()
        luminance, structure = similarity(p, t, weight, self.window)
        return weighted_mean(1 - luminance * structure, weight)


class MultiScaleSSIM:
    """One minus the product over scales of mean contrast and structure, to the power of each scale.

    Luminance counts at the coarsest scale alone. An axis is halved while the window still fits in,
    and the powers of the scales that are left are brought back to a sum of one.
    """

    def __init__(self, settings: settings_of.MultiScaleSSIM) -> None:
        self.window = _odd(settings.kind, settings.window)
        self.scales = settings.scales

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over images and channels, by the weight of each image."""
        p, t, w = known_only(prediction.float(), weight), known_only(target, weight).float(), weight
        factors = self._factors(tuple(p.shape[2:]))
        used = SCALE_POWERS[: len(factors) + 1]
        powers = [power / sum(used) for power in used]
        product = torch.ones(p.shape[:2], device=p.device)
        for scale, power in enumerate(powers):
            luminance, structure = similarity(p, t, w, self.window)
            last = scale == len(factors)
            mean = _mean_of_images(luminance * structure if last else structure, w)
            product = product * _power(mean, power)
            if not last:
                smaller = shrink_image(p, w, factors[scale])
                t, _ = shrink_image(t, w, factors[scale])
                p, w = smaller
        of_images = weight.mean([1, *spatial(weight)])[:, None]
        return ratio(((1 - product) * of_images).sum(), of_images.sum() * p.shape[1])

    def _factors(self, size: tuple[int, ...]) -> list[tuple[int, ...]]:
        """What each axis is divided by between two scales."""
        found: list[tuple[int, ...]] = []
        for _ in range(self.scales - 1):
            step = tuple(2 if n >= 2 * self.window else 1 for n in size)
            if max(step) == 1:
                break
            found.append(step)
            size = tuple(n // f for n, f in zip(size, step, strict=True))
        return found


def similarity(p: Tensor, t: Tensor, weight: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Luminance, and contrast times structure, around each pixel ``(B, C, [Z], Y, X)``.

    Parameters
    ----------
    p, t : Tensor
        0 where the weight is 0.
    """
    local = _window_mean((weight > 0).float(), window)
    local = torch.where(local > 0, local, torch.ones_like(local))
    mean_p, mean_t = _window_mean(p, window) / local, _window_mean(t, window) / local
    var_p = (_window_mean(p * p, window) / local - mean_p * mean_p).clamp_min(0)
    var_t = (_window_mean(t * t, window) / local - mean_t * mean_t).clamp_min(0)
    covariance = _window_mean(p * t, window) / local - mean_p * mean_t
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_p * mean_t + c1) / (mean_p**2 + mean_t**2 + c1)
    return luminance, (2 * covariance + c2) / (var_p + var_t + c2)


def _window_mean(x: Tensor, window: int) -> Tensor:
    pool = functional.avg_pool2d if x.ndim == 4 else functional.avg_pool3d
    # Padding apart from pooling: pooling alone refuses a volume that is thinner than the window.
    padded = functional.pad(x, [window // 2] * 2 * (x.ndim - 2))
    return pool(padded, window, stride=1)


def _mean_of_images(values: Tensor, weight: Tensor) -> Tensor:
    """Mean by weight over each image and channel, ``(B, C)``."""
    return ratio((values * weight).sum(spatial(values)), weight.sum(spatial(weight)))


def _power(x: Tensor, power: float) -> Tensor:
    """`x` to a power, with an exponential of the same value and slope below `LEAST`."""
    below = LEAST**power * torch.exp(power * (x.clamp_max(LEAST) / LEAST - 1))
    return torch.where(x > LEAST, x.clamp_min(LEAST) ** power, below)


def _odd(kind: str, window: int) -> int:
    if window % 2 == 0:
        raise ConfigError(f"{kind} window {window} is even", f"Use {window + 1}")
    return window
