"""How far a trained network really looks: most of its theoretical receptive field does not matter (Luo et al. 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from im2im_core.engine.frameworks.contract import TranslateContext

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from im2im_core.engine.frameworks.contract import Framework

SHARE = 0.995
"""Part of the influence on an output pixel that must come from within the radius."""
GRAIN = 8


def effective_radius(framework: Framework, source: Tensor, theoretical: tuple[int, ...]) -> tuple[int, ...]:
    """Radius along each spatial axis within which 99.5 % of the influence on an output pixel lies.

    Parameters
    ----------
    source : Tensor
        A normalised image ``(1, C, [Z], Y, X)`` that the network was trained for.
    theoretical : tuple of int
        Radius beyond which nothing can have influence; the result is never larger.
    """
    size = source.shape[2:]
    middle = [n // 2 for n in size]
    places = [middle] + [[m + d * n // 8 for m, n in zip(middle, size, strict=True)] for d in (-1, 1)]
    mass = [np.zeros(n) for n in size]
    for place in places:
        influence = _influence(framework, source, place)
        for axis in range(len(size)):
            others = tuple(a for a in range(len(size)) if a != axis)
            mass[axis] += _by_distance(influence.sum(others), place[axis])
    return tuple(_radius(m, limit) for m, limit in zip(mass, theoretical, strict=True))


def _influence(framework: Framework, source: Tensor, place: list[int]) -> NDArray[np.float64]:
    """Size of the gradient of all maps at `place` along [Z], Y, X."""
    probe = source.clone().requires_grad_(True)
    with torch.enable_grad():
        maps = framework.translate(probe, TranslateContext())
        # A map on another grid, or without some axis, is taken as a whole.
        here: tuple[Any, ...] = (slice(None), slice(None), *place)
        picked = [m[here] if m.shape[2:] == source.shape[2:] else m for m in maps.values()]
        total = torch.stack([p.float().sum() for p in picked]).sum()
        (gradient,) = torch.autograd.grad(total, probe)
    found: NDArray[np.float64] = gradient[0].abs().sum(0).double().numpy()
    return found


def _by_distance(profile: NDArray[np.float64], centre: int) -> NDArray[np.float64]:
    distance = np.abs(np.arange(len(profile)) - centre)
    return np.bincount(distance, weights=profile, minlength=len(profile))[: len(profile)].astype(np.float64)


def _radius(mass: NDArray[np.float64], limit: int) -> int:
    if mass.sum() == 0:
        return limit
    reach = int(np.searchsorted(np.cumsum(mass) / mass.sum(), SHARE)) + 1
    return min(limit, -(-reach // GRAIN) * GRAIN)
