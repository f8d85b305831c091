"""Budget and learning rate as functions of how much of the budget is used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from im2im_core.recipe.training import Constant, OneCycle, Plateau, Polynomial

if TYPE_CHECKING:
    from im2im_core.recipe.training import SchedulerSettings


@dataclass(frozen=True)
class Budget:
    """Steps or seconds of a training."""

    steps: int | None = None
    seconds: float | None = None

    def used(self, step: int, elapsed: float) -> float:
        """Part of the budget that is used, 0 to 1."""
        part = step / self.steps if self.steps else elapsed / (self.seconds or 1.0)
        return min(max(part, 0.0), 1.0)

    def remaining(self, step: int, elapsed: float, speed: float) -> float | None:
        """Seconds left at `speed` steps per second; None while unknown."""
        if self.seconds:
            return max(self.seconds - elapsed, 0.0)
        return (self.steps - step) / speed if self.steps and speed > 0 else None


def learning_rate_factor(settings: SchedulerSettings, used: float) -> float:
    """Factor of the learning rate when the part `used` of the budget is spent; Plateau is handled by the driver."""
    if isinstance(settings, OneCycle):
        return _one_cycle(settings, used)
    if isinstance(settings, Polynomial):
        return float((1 - used) ** settings.power)
    assert isinstance(settings, Constant | Plateau)
    return 1.0


def _one_cycle(settings: OneCycle, used: float) -> float:
    if used < settings.warmup:
        return _cosine(settings.start, 1.0, used / settings.warmup)
    return _cosine(1.0, settings.end, (used - settings.warmup) / max(1 - settings.warmup, 1e-9))


def _cosine(first: float, last: float, part: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * min(part, 1.0))) / 2
