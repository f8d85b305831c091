"""Several devices learn as one: what the first process decides, all do at the same step."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

if TYPE_CHECKING:
    from im2im_core.engine.callbacks import Ending
    from im2im_core.engine.train import StepModule


class Agreement(pl.Callback):
    """Tells all processes after each step what the first one decided; the last of the callbacks.

    Only the first process validates, reads commands and looks at the clock. Without this the
    others would step on while it ends, or learn at another rate, and all would wait for ever.
    """

    def __init__(self, ending: Ending) -> None:
        self.ending = ending

    def on_train_start(self, trainer: pl.Trainer, pl_module: StepModule) -> None:  # type: ignore[override]
        self._agree(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: StepModule, *args: Any) -> None:  # type: ignore[override]
        self._agree(trainer, pl_module)

    def _agree(self, trainer: pl.Trainer, module: StepModule) -> None:
        if trainer.world_size == 1:
            return
        decided = (self.ending.reason, module.elapsed(), asdict(module.counters), bool(trainer.should_stop))
        reason, elapsed, counters, stop = trainer.strategy.broadcast(decided)
        self.ending.reason = reason
        module.agreed_seconds = elapsed
        module.counters = type(module.counters)(**counters)
        trainer.should_stop = bool(reason) or stop
