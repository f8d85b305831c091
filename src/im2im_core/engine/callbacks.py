"""What happens between steps: reports, commands, checkpoints, validation, previews, early stop."""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl

from im2im_core.engine.checkpoint import CheckpointFolder
from im2im_core.errors import DataError
from im2im_core.events import Checkpointed, Event, Losses, Message, Previewed, Progress, Validated
from im2im_core.files import atomic_path
from im2im_core.recipe.training import Plateau

if TYPE_CHECKING:
    from collections.abc import Callable

    from im2im_core.engine.frameworks.contract import Framework
    from im2im_core.engine.previews import Previews
    from im2im_core.engine.train import StepModule
    from im2im_core.engine.validate import Validator
    from im2im_core.recipe import Recipe

TIME_SHARE = 0.07
"""Part of the time that validation may take where the time decides when it is due."""


@dataclass
class Ending:
    """Why the training ended."""

    reason: str = ""
    """"budget", "stop", "pause", "early", "signal" or "non_finite"; empty while it runs."""


class Reporter(pl.Callback):
    """Losses and progress as events and as rows of metrics.csv."""

    def __init__(self, recipe: Recipe, folder: Path, on_event: Callable[[Event], None], steps_per_epoch: float) -> None:
        self.every, self.on_event, self.per_epoch = recipe.logging.every, on_event, steps_per_epoch
        self.samples = (
            recipe.training.batch if isinstance(recipe.training.batch, int) else 1
        ) * recipe.training.accumulate
        self.table = MetricsTable(folder / "metrics.csv")
        self._mark = (0, 0.0)
        self._shown = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: StepModule) -> None:  # type: ignore[override]
        self._mark = (pl_module.counters.step, time.monotonic())

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: StepModule, *args: Any) -> None:  # type: ignore[override]
        if not trainer.is_global_zero:
            return
        step, now = pl_module.counters.step, time.monotonic()
        if step % self.every == 0:
            self._report(trainer, pl_module, step, now)
        if now - self._shown > 0.5:
            self._shown = now
            elapsed = pl_module.elapsed()
            left = pl_module.budget.remaining(step, elapsed, step / max(elapsed, 1e-6))
            self.on_event(Progress("training", step, pl_module.budget.steps, elapsed, left))

    def _report(self, trainer: pl.Trainer, module: StepModule, step: int, now: float) -> None:
        values = {n: float(v) for n, v in module.last.items()}
        # By the weights of the end, as the validation has it, so that a schedule does not bend the curve.
        weights = module.framework.weights_at(1.0)
        values["total"] = sum(weights[n] * v for n, v in values.items() if weights[n])
        speed = (step - self._mark[0]) / max(now - self._mark[1], 1e-6) * self.samples * trainer.world_size
        self._mark = (step, now)
        self.on_event(Losses(step, step / self.per_epoch, values, module.learning_rate, speed))
        self.table.add(step, "train", {**values, "learning_rate": module.learning_rate, "samples_per_second": speed})
        for logger in trainer.loggers:
            logger.log_metrics({f"train/{k}": v for k, v in values.items()}, step=step)


class MetricsTable:
    """``metrics.csv``: one row per value, so that any number of terms fits and attempts simply append."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            self._write([("step", "part", "name", "value")])

    def add(self, step: int, part: str, values: dict[str, float]) -> None:
        """Append the values of one step."""
        self._write([(step, part, name, f"{value:.6g}") for name, value in values.items()])

    def forget_after(self, step: int) -> None:
        """Drop what an interrupted attempt wrote after the checkpoint at `step`; it comes again."""
        with self.path.open(newline="", encoding="utf-8") as handle:
            head, *rows = csv.reader(handle)
        kept = [r for r in rows if len(r) == len(head) and r[0].isdigit() and int(r[0]) <= step]
        with atomic_path(self.path) as part, part.open("w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows([head, *kept])

    def _write(self, rows: list[tuple[Any, ...]]) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows(rows)


class Checkpointer(pl.Callback):
    """Saves at least every `minutes`, and at the end; stops on losses that stay NaN."""

    def __init__(
        self, folder: CheckpointFolder, recipe: Recipe, on_event: Callable[[Event], None], ending: Ending
    ) -> None:
        self.folder, self.recipe, self.on_event, self.ending = folder, recipe, on_event, ending
        self.seconds = 0.0
        self._last = time.monotonic()
        self._saved_step = -1

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: StepModule, *args: Any) -> None:  # type: ignore[override]
        if pl_module.bad_losses >= self.recipe.training.non_finite_limit:
            self.ending.reason = "non_finite"
            trainer.should_stop = True
            if not self.folder.entries():
                # Bad steps change nothing, so this is the last good state.
                self.save(trainer, pl_module, "non_finite")
        elif time.monotonic() - self._last > self.recipe.training.checkpoint_minutes * 60 and not pl_module.bad_losses:
            self.save(trainer, pl_module, "interval")

    def save(self, trainer: pl.Trainer, module: StepModule, reason: str) -> None:
        """Write a checkpoint of the current step, once."""
        if trainer.is_global_zero and module.counters.step != self._saved_step:
            self.seconds = self.folder.save(module.checkpoint())
            self._saved_step = module.counters.step
            self.on_event(Checkpointed(module.counters.step, "checkpoints", reason, round(self.seconds, 3)))
        self._last = time.monotonic()


class Stopper(pl.Callback):
    """Ends the training at a step boundary: budget used, user's wish or signal."""

    def __init__(
        self, should_stop: Callable[[], str], ending: Ending, checkpointer: Checkpointer, validation: Validation
    ) -> None:
        self.should_stop, self.ending = should_stop, ending
        self.checkpointer, self.validation = checkpointer, validation

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: StepModule, *args: Any) -> None:  # type: ignore[override]
        if self.ending.reason:
            trainer.should_stop = True
            return
        if not trainer.is_global_zero:
            return
        budget = pl_module.budget
        # A budget in minutes includes the last checkpoint and the last validation.
        reserve = 1.0 + 1.5 * self.checkpointer.seconds + self.validation.seconds if budget.seconds else 0.0
        reason = self.should_stop()
        if not reason and budget.used(pl_module.counters.step, pl_module.elapsed() + reserve) >= 1:
            reason = "budget"
        if reason:
            self.ending.reason = reason
            trainer.should_stop = True


class Validation(pl.Callback):
    """Validates the moving average, keeps the best, lowers the rate or ends when nothing improves.

    Parameters
    ----------
    may_skip : bool
        Leave out validations that are due while more than a small part of the time goes into them.
        Not on the CPU, where a training is the same whatever the time it takes.
    """

    def __init__(
        self,
        validator: Validator,
        recipe: Recipe,
        folder: CheckpointFolder,
        on_event: Callable[[Event], None],
        ending: Ending,
        table: MetricsTable,
        per_epoch: float,
        may_skip: bool = False,
    ) -> None:
        self.may_skip = may_skip
        self.validator, self.recipe, self.folder = validator, recipe, folder
        self.on_event, self.ending, self.table, self.per_epoch = on_event, ending, table, per_epoch
        self.previews: Previews | None = None
        self.last: float | None = None
        """Monitored figure of the newest validation."""
        self.last_total: float | None = None
        """Sum of its losses."""
        self.seconds = 0.0
        """How long the last one took, with previews and the best checkpoint."""
        self._next = 0.0
        self._validated = -1

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: StepModule, *args: Any) -> None:  # type: ignore[override]
        if trainer.is_global_zero and self._due(pl_module):
            self.run(trainer, pl_module)

    def _due(self, module: StepModule) -> bool:
        every, elapsed = self.recipe.training.validate_every, module.elapsed()
        if isinstance(every, int):
            return module.counters.step % every == 0 and not (self.may_skip and elapsed < self._next)
        if not self._next:
            self._next = max(0.1 * (module.budget.seconds or 0), elapsed)
        return elapsed >= self._next

    def run(self, trainer: pl.Trainer, module: StepModule) -> dict[str, float]:
        """Validate now, unless this step was validated already."""
        if self._validated == module.counters.step:
            return {}
        start = time.monotonic()
        values = self.validator.run(module.average.framework) if self.validator.views else {}
        for preview in self.previews.watched if self.previews else ():
            self.on_event(preview.write(module))
        self._validated = module.counters.step
        if values:
            self._judge(trainer, module, values, start)
        self.seconds = time.monotonic() - start
        self._next = module.elapsed() + self.seconds / TIME_SHARE
        return values

    def _judge(self, trainer: pl.Trainer, module: StepModule, values: dict[str, float], start: float) -> None:
        counters, framework = module.counters, module.framework
        counters.validations += 1
        name, value = monitored(framework, values)
        self.last, self.last_total = value, values.get("total")
        sign = -1 if name == framework.monitor and framework.monitor_mode == "max" else 1
        threshold = self.recipe.training.early_stopping.min_change
        better = np.isfinite(value) and (counters.best is None or sign * (counters.best - value) > threshold)
        # Where few objects are validated, or none, the first weights may score 1 by finding nothing.
        kept = better or value == counters.best
        if better:
            counters.best, counters.best_step, counters.best_total = value, counters.step, self.last_total
            counters.stale = counters.waited = 0
            self.folder.save(module.checkpoint(), best=True)
        else:
            counters.stale, counters.waited = counters.stale + 1, counters.waited + 1
        seconds = time.monotonic() - start
        self.on_event(Validated(counters.step, counters.step / self.per_epoch, values, bool(kept), seconds))
        self.table.add(counters.step, "validation", values)
        for logger in trainer.loggers:
            logger.log_metrics({f"validation/{k}": v for k, v in values.items()}, step=counters.step)
        self._react(module)
        if kept and not better:  # of equals the later weights, which have learned more
            self.folder.save(module.checkpoint(), best=True)

    def _react(self, module: StepModule) -> None:
        counters, training = module.counters, self.recipe.training
        scheduler, early = training.scheduler, training.early_stopping
        if isinstance(scheduler, Plateau) and counters.waited > scheduler.patience:
            counters.plateau *= scheduler.factor
            counters.waited = 0
        if early.enabled and counters.stale >= early.patience:
            self.ending.reason = "early"
            self.on_event(
                Message(
                    f"Validation stopped improving after step {counters.best_step}; the best is kept", code="early_stop"
                )
            )


def monitored(framework: Framework, values: dict[str, float]) -> tuple[str, float]:
    """Name and value of the figure that decides which weights are best."""
    name = framework.monitor if framework.monitor in values else "total"
    return name, values[name]


@dataclass
class Preview:
    """Live prediction of one region, kept for every validation."""

    folder: Path
    name: str
    predict: Callable[[StepModule], np.ndarray]

    def write(self, module: StepModule) -> Previewed:
        """Predict the region now and keep it as an .npy file."""
        result = self.predict(module)
        path = self.folder / f"{self.name}_{module.counters.step:08d}.npy"
        with atomic_path(path) as part, part.open("wb") as handle:
            np.save(handle, result, allow_pickle=False)
        return Previewed(module.counters.step, f"{self.folder.name}/{path.name}", self.name)


def non_finite_error(module: StepModule) -> DataError:
    """What to tell when losses stayed NaN or infinite."""
    names = [n for n, v in module.last.items() if not np.isfinite(float(v))]
    return DataError(
        f"Loss {', '.join(names) or 'gradient'} was NaN or infinite for {module.bad_losses} steps "
        f"up to step {module.counters.step}",
        "Lower training.optimizer.lr, use precision fp32, or run im2im check on the data; the last good state is kept",
    )
