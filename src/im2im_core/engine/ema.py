"""Moving average of the weights: what validates, predicts and is exported."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from im2im_core.engine.frameworks.contract import Framework

STRIDE = 4
"""Steps between two updates."""
EVERY_STEP_UNTIL = 100
"""Step until which the weights change so fast that each of them counts."""


class MovingAverage:
    """Copy of a framework whose weights follow the learning ones.

    The memory grows from nothing to `decay` over the first steps, so that a short training is
    not held back by its start. Later every fourth step counts, for four: neighbouring weights
    differ little, and to move all of them costs a hundredth of a step. Buffers (statistics of
    normalisation layers) are copied.
    """

    def __init__(self, framework: Framework, decay: float) -> None:
        self.framework = copy.deepcopy(framework).eval().requires_grad_(False)
        self.decay = decay
        self._parameters = list(zip(self.framework.parameters(), framework.parameters(), strict=True))
        self._buffers = list(zip(buffer_places(self.framework), buffer_places(framework), strict=True))

    @torch.no_grad()
    def update(self, step: int, alike: int = 0) -> None:
        """Take in the weights after step number `step`.

        Parameters
        ----------
        alike : int
            Steps, with this one, whose weights count alike; 0 where older ones count less and less.
        """
        decay = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        if alike:
            decay = 1 - 1 / alike
        elif decay and step >= EVERY_STEP_UNTIL:
            if (step + 1) % STRIDE:
                return
            decay **= STRIDE
        own: list[torch.Tensor] = [p for p, _ in self._parameters]
        learning = [p.detach() for _, p in self._parameters]
        torch._foreach_lerp_(own, learning, 1 - decay)
        for (average, name), (learned, _) in self._buffers:
            getattr(average, name).copy_(getattr(learned, name))


def buffer_places(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """Modules with the names of their buffers.

    Moving a module to a device replaces its buffers, so they are looked up where they live; to
    search a whole network for them at each step costs more than to copy them.
    """
    return [(m, name) for m in network.modules() for name, _ in m.named_buffers(recurse=False)]
