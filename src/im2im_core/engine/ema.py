"""Moving average of the weights: what validates, predicts and is exported."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from im2im_core.engine.frameworks.contract import Framework


class MovingAverage:
    """Copy of a framework whose weights follow the learning ones.

    The memory grows from nothing to `decay` over the first steps, so that a short training is
    not held back by its start. Buffers (statistics of normalisation layers) are copied.
    """

    def __init__(self, framework: Framework, decay: float) -> None:
        self.framework = copy.deepcopy(framework).eval().requires_grad_(False)
        self.decay = decay
        self._learning = framework

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step number `step`."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        learning = [p.detach() for p in self._learning.parameters()]
        torch._foreach_lerp_(list(self.framework.parameters()), learning, 1 - decay)
        # Asked for anew each time: moving a module to a device replaces its buffers.
        for own, learned in zip(self.framework.buffers(), self._learning.buffers(), strict=True):
            own.copy_(learned)
