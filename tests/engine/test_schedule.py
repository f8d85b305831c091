"""Budgets, learning rates and the moving average against closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from im2im_core.engine.ema import MovingAverage
from im2im_core.engine.schedule import Budget, learning_rate_factor
from im2im_core.errors import ConfigError, TrustError
from im2im_core.recipe.training import ClassScheduler, Constant, OneCycle, Plateau, Polynomial


def test_budget_in_steps() -> None:
    budget = Budget(steps=200)
    assert [budget.used(s, 1e9) for s in (0, 50, 200, 300)] == [0, 0.25, 1, 1]
    assert budget.remaining(50, 0, 10) == 15
    assert budget.remaining(50, 0, 0) is None


def test_budget_in_seconds() -> None:
    budget = Budget(seconds=60)
    assert [budget.used(10**6, t) for t in (0, 15, 60, 90)] == [0, 0.25, 1, 1]
    assert budget.remaining(0, 15, 0) == 45
    assert budget.remaining(0, 90, 0) == 0


@pytest.mark.parametrize("used", [0, 0.1, 0.55, 1])
def test_polynomial(used: float) -> None:
    assert learning_rate_factor(Polynomial(power=0.9), used) == pytest.approx((1 - used) ** 0.9)


@pytest.mark.parametrize("settings", [Constant(), Plateau()])
def test_constant_until_somebody_lowers_it(settings: Any) -> None:
    assert {learning_rate_factor(settings, u / 10) for u in range(11)} == {1.0}


def test_one_cycle_is_that_of_torch() -> None:
    settings = OneCycle(warmup=0.25, start=0.04, end=0.001)
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    steps = 100
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=steps, pct_start=0.25, div_factor=25, final_div_factor=40
    )
    for step in range(steps):
        rise = 0.25 * steps - 1  # where theirs stands at its peak
        used = 0.25 * step / rise if step <= rise else 0.25 + 0.75 * (step - rise) / (steps - 1 - rise)
        assert learning_rate_factor(settings, used) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-6)
        optimizer.step()
        theirs.step()


def test_one_cycle_corners() -> None:
    settings = OneCycle(warmup=0.2, start=0.1, end=0.01)
    assert [learning_rate_factor(settings, u) for u in (0, 0.1, 0.2, 0.6, 1)] == pytest.approx(
        [0.1, 0.55, 1, (1 + 0.01) / 2, 0.01]
    )
    assert learning_rate_factor(OneCycle(warmup=0, end=0), 0.5) == pytest.approx((1 + math.cos(math.pi / 2)) / 2)


# ---- moving average ----


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))
        self.norm = nn.BatchNorm1d(2)


def test_the_average_follows_the_formula() -> None:
    module: Any = Tiny()
    average = MovingAverage(module, 0.9)
    expected = 0.0
    for step in range(200):
        with torch.no_grad():
            module.w.fill_(step + 1.0)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        if step >= 100:  # every fourth step counts, for four
            decay = 1.0 if step % 4 != 3 else decay**4
        expected = decay * expected + (1 - decay) * (step + 1.0)
    assert average.framework.w[0].item() == pytest.approx(expected, rel=1e-5)
    assert not average.framework.w.requires_grad


def test_without_memory_the_average_is_the_weight() -> None:
    module: Any = Tiny()
    average = MovingAverage(module, 0.0)
    with torch.no_grad():
        module.w.fill_(7)
    average.update(0)
    assert torch.equal(average.framework.w, module.w)


def test_statistics_of_normalisation_layers_are_copied_also_after_a_move() -> None:
    module: Any = Tiny()
    average = MovingAverage(module, 0.9)
    module.to(torch.float64).to(torch.float32)  # as a move to a device: other buffers, the same parameters
    average.framework.to(torch.float64).to(torch.float32)
    module.norm(torch.full((4, 2), 5.0) + torch.arange(4.0)[:, None])
    average.update(0)
    assert torch.equal(average.framework.norm.running_mean, module.norm.running_mean)
    assert int(average.framework.norm.num_batches_tracked) == 1


def test_weights_of_the_last_part_count_alike() -> None:
    network = nn.Linear(1, 1)
    average = MovingAverage(network, 0.99)  # type: ignore[arg-type]
    seen = []
    for step in range(20):
        nn.init.constant_(network.weight, float(step**2))
        alike = max(0, step - 11)
        average.update(step, alike)
        seen += [step**2] if alike else []
    assert float(average.framework.weight.detach()) == pytest.approx(sum(seen) / len(seen), rel=1e-5)  # type: ignore[arg-type]


# ---- any scheduler of torch ----


def test_scheduler_by_import_path_is_that_of_torch() -> None:
    settings = ClassScheduler(
        class_path="torch.optim.lr_scheduler.CosineAnnealingLR", init_args={"T_max": 100}, total=100
    )
    for used in (0, 0.25, 0.5, 0.99):
        assert learning_rate_factor(settings, used) == pytest.approx((1 + math.cos(math.pi * used)) / 2, abs=1e-6)
    assert learning_rate_factor(settings, 1) == learning_rate_factor(settings, 0.995)
    halved = ClassScheduler(
        class_path="torch.optim.lr_scheduler.MultiStepLR", init_args={"milestones": [500], "gamma": 0.5}
    )
    assert [learning_rate_factor(halved, u) for u in (0, 0.4999, 0.5, 1)] == [1, 1, 0.5, 0.5]


@pytest.mark.parametrize(
    ("class_path", "init_args", "error", "text"),
    [
        ("torch.optim.lr_scheduler.CosineAnnealingLR", {"T_mx": 3}, ConfigError, "Did you mean 'T_max'"),
        ("torch.optim.lr_scheduler.CosineAnnealingLR", {"T_max": "x"}, ConfigError, "cannot be stepped"),
        ("torch.optim.lr_scheduler.ReduceLROnPlateau", {}, ConfigError, "kind plateau"),
        ("torch.optim.AdamW", {}, ConfigError, "is not a"),
        ("elsewhere.Scheduler", {}, TrustError, "trusted"),
    ],
)
def test_wrong_schedulers_are_refused(class_path: str, init_args: dict[str, Any], error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        learning_rate_factor(ClassScheduler(class_path=class_path, init_args=init_args), 0.0)
