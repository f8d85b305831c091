"""Budget and learning rate as functions of how much of the budget is used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch.optim.lr_scheduler import LRScheduler

from im2im_core.errors import ConfigError
from im2im_core.recipe.training import ClassScheduler, Constant, OneCycle, Plateau, Polynomial

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
    """Factor of the learning rate when the part `used` of the budget is spent; Plateau is handled by the driver.

    Raises
    ------
    ConfigError
        A scheduler that is named by its class refuses its arguments.
    """
    if isinstance(settings, OneCycle):
        return _one_cycle(settings, used)
    if isinstance(settings, Polynomial):
        return float((1 - used) ** settings.power)
    if isinstance(settings, ClassScheduler):
        factors = _stepped(settings.model_dump_json())
        # Steps are whole numbers that became fractions: 29 / 100 * 100 must be 29 again.
        return factors[min(int(used * len(factors) + 1e-9), len(factors) - 1)]
    assert isinstance(settings, Constant | Plateau)
    return 1.0


@cache
def _stepped(content: str) -> tuple[float, ...]:
    """Factors that a scheduler of torch gives, one per step: a table, so that a resumed training needs no state."""
    from im2im_core.trust import check_arguments, resolve_class

    settings = ClassScheduler.model_validate_json(content)
    made = resolve_class(settings.class_path, base=LRScheduler)
    check_arguments(made, settings.init_args, supplied=("optimizer",))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    factors = []
    try:
        scheduler = made(optimizer, **settings.init_args)
        for _ in range(settings.total):
            factors.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()  # torch warns where it is left out
            scheduler.step()
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"training.scheduler {settings.class_path} cannot be stepped with {settings.init_args}: {error}",
            "Change its init_args; one that follows the validation is kind plateau",
        ) from error
    return tuple(factors)


def _one_cycle(settings: OneCycle, used: float) -> float:
    if used < settings.warmup:
        return _cosine(settings.start, 1.0, used / settings.warmup)
    return _cosine(1.0, settings.end, (used - settings.warmup) / max(1 - settings.warmup, 1e-9))


def _cosine(first: float, last: float, part: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * min(part, 1.0))) / 2
