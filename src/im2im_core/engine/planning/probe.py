"""Time and memory of a training, from two steps on random patches."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import psutil
import torch

from im2im_core.engine.devices import autocast, lay_out
from im2im_core.plans import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable

    from im2im_core.engine.frameworks.contract import Framework
    from im2im_core.plans import Plan


def measure_steps(
    plan: Plan, framework: Framework, steps: int = 2, clock: Callable[[], float] = time.perf_counter
) -> Estimate:
    """Time and memory of a few steps on random patches."""
    recipe, device = plan.recipe, torch.device(plan.runtime.device)
    torch.set_num_threads(plan.runtime.threads)
    size = recipe.patch_size
    batch = recipe.batch_size
    random = {
        "source": torch.randn(batch, framework.shapes.input_channels, *size),
        "weight": torch.ones(batch, 1, *size),
    }
    for spec in framework.targets:
        random[spec.name] = torch.zeros(batch, spec.channels, *size).to(torch.from_numpy(np.zeros(1, spec.dtype)).dtype)
    framework.to(device)
    lay_out(framework, plan.runtime.device)
    random = {k: v.to(device) for k, v in random.items()}
    before = psutil.Process().memory_info().rss
    with autocast(device, recipe.training.precision):
        seconds = _time_steps(framework, random, steps, clock)
    memory = (
        torch.cuda.max_memory_allocated(device)
        if device.type == "cuda"
        else max(psutil.Process().memory_info().rss - before, 0)
    )
    seconds *= recipe.training.accumulate
    minutes = recipe.training.minutes or (plan.steps or 1) * seconds / 60
    return Estimate(round(seconds, 4), round(memory / 1e9, 3), round(minutes, 1))


def _time_steps(framework: Framework, batch: dict[str, torch.Tensor], steps: int, clock: Callable[[], float]) -> float:
    from im2im_core.engine.frameworks.contract import TrainContext

    times = []
    for _ in range(steps + 1):  # the first one warms up
        start = clock()
        for player in framework.players():
            terms = framework.losses(batch, player.name, TrainContext(0, torch.Generator().manual_seed(0)))
            torch.stack(list(terms.values())).sum().backward()
        framework.zero_grad(set_to_none=True)
        times.append(clock() - start)
    return min(times[1:])
