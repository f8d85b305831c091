"""Training: one LightningModule drives any framework, always with manual optimisation."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from im2im_core.engine.checkpoint import Checkpoint
from im2im_core.engine.devices import autocast
from im2im_core.engine.ema import MovingAverage, buffer_places
from im2im_core.engine.frameworks.contract import Framework, Player, TrainContext
from im2im_core.engine.optimizers import make_optimizer
from im2im_core.engine.sampling import batch_generator, step_seed
from im2im_core.engine.schedule import Budget, learning_rate_factor
from im2im_core.engine.start import learning_rates
from im2im_core.errors import ConfigError, ResourceError
from im2im_core.events import Event, Message
from im2im_core.recipe.training import Plateau

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from im2im_core.engine.augment import Augmenter
    from im2im_core.engine.data import PatchStream
    from im2im_core.recipe import Recipe

log = logging.getLogger(__name__)


@dataclass
class Counters:
    """Where a training stands; all of it is in every checkpoint."""

    step: int = 0
    elapsed: float = 0.0
    """Seconds of training, earlier attempts included."""
    best: float | None = None
    best_step: int = 0
    best_total: float | None = None
    """Sum of the losses of that validation; None in checkpoints of earlier versions."""
    stale: int = 0
    """Validations in a row without improvement."""
    waited: int = 0
    """The same since the learning rate was lowered."""
    plateau: float = 1.0
    """Factor of the learning rate that a Plateau schedule has reached."""
    validations: int = 0
    averaged: int = 0
    """Steps at the end of the budget whose weights count alike."""
    splits: int = 1
    """Parts that each batch is divided into, because the memory did not suffice for the whole."""


class StepModule(pl.LightningModule):
    """Steps of any framework: turns of the players, accumulation, clipping, schedule, moving average.

    Lightning counts every optimizer step and refuses clipping and accumulation where there are
    several, so this module owns them. One `training_step` is one round of all players.
    """

    def __init__(
        self,
        framework: Framework,
        recipe: Recipe,
        augmenter: Augmenter | None,
        budget: Budget,
        on_event: Callable[[Event], None],
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.framework, self.recipe, self.augmenter, self.budget = framework, recipe, augmenter, budget
        self.on_event = on_event
        self.players = learning_players(framework)
        self.rates = learning_rates(framework, recipe.training.start, recipe.data.dimensions)
        self.average = MovingAverage(framework, recipe.training.ema)
        learning_rate_factor(recipe.training.scheduler, 0.0)  # refuses its arguments now, not at the first step
        self.counters = Counters()
        self.clock = Clock()
        self.bad_losses = 0
        self.when_augmented: Callable[[], None] = lambda: None
        """Called once in each step, before it computes."""
        self.last: dict[str, Tensor] = {}
        self.learning_rate = 0.0
        self._weights = framework.weights_at(0.0)
        self._used = 0.0
        self._buffer_places = buffer_places(framework)
        self.agreed_seconds: float | None = None
        """Time of the first of several processes, which all learn by."""

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        default = self.recipe.training.optimizer
        return [make_optimizer(p.optimizer or default, list(p.parameters), self.rates) for p in self.players]

    def on_fit_start(self) -> None:
        self.average.framework.to(self.device)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.recipe.training.precision == "fp16")

    def training_step(self, batch: list[dict[str, Tensor]], batch_idx: int) -> None:
        """One step: every player's turn over all micro-batches."""
        step = self.counters.step
        seed = step_seed(self.recipe.training.seed, step)
        first = self.global_rank * self.recipe.training.accumulate
        batch = [self._augmented(b, step, first + k) for k, b in enumerate(batch)]
        self.when_augmented()
        used = self._schedule(step)
        self._used, self._weights = used, self.framework.weights_at(used)
        optimizers = self.optimizers(use_pl_optimizer=False)
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        terms: dict[str, Tensor] = {}
        for player, optimizer in zip(self.players, optimizers, strict=True):
            if step % player.every == 0:
                terms |= self._turn(player, optimizer, batch, seed)
        self.last = terms
        self.counters.step += 1
        swa = self.recipe.training.swa
        self.counters.averaged += bool(swa and used >= 1 - swa)
        self.average.update(step, self.counters.averaged)

    def _augmented(self, batch: dict[str, Tensor], step: int, number: int) -> dict[str, Tensor]:
        if self.augmenter is None:
            return batch
        generator = batch_generator(self.recipe.training.seed, step, number)
        return dict(self.augmenter(batch, generator, self.recipe.patch_size))

    def _turn(
        self, player: Any, optimizer: torch.optim.Optimizer, batch: list[dict[str, Tensor]], seed: int
    ) -> dict[str, Tensor]:
        others = [p for o in self.players if o.name != player.name for p in o.parameters]
        kept = [getattr(module, name).clone() for module, name in self._buffer_places]
        for p in others:
            p.requires_grad_(False)
        while (terms := self._try_gradients(player, optimizer, batch, seed)) is None:
            self._reset_buffers(kept)
            self._split_further(batch)
        for p in others:
            p.requires_grad_(True)
        if not self._update(optimizer, player, terms):
            # Normalisation layers have seen what must not count.
            self._reset_buffers(kept)
        return terms

    def _try_gradients(
        self, player: Any, optimizer: torch.optim.Optimizer, batch: list[dict[str, Tensor]], seed: int
    ) -> dict[str, Tensor] | None:
        """Mean loss terms, gradients in the parameters; None where the memory does not suffice."""
        try:
            optimizer.zero_grad(set_to_none=True)
            return self._gradients(player, [part for b in batch for part in split_batch(b, self.counters.splits)], seed)
        except torch.OutOfMemoryError as error:
            if self.trainer.world_size > 1:  # the others would wait for gradients that never come
                raise ResourceError(
                    f"The memory of {self.device} does not suffice for {len(batch[0]['source'])} patches",
                    "Choose a smaller training.batch with a larger training.accumulate, or a smaller data.patch",
                ) from error
            # What failed is released when this frame ends, not before: the caller tries again.
            return None

    def _gradients(self, player: Any, batch: list[dict[str, Tensor]], seed: int) -> dict[str, Tensor]:
        seed_device(self.device, seed)
        terms: dict[str, Tensor] = {}
        first = self.global_rank * len(batch)
        for k, micro in enumerate(batch, first):
            rng = torch.Generator(device="cpu").manual_seed(seed + 7919 * (k + 1))
            context = TrainContext(self.counters.step, rng, self._used)
            with autocast(self.device, self.recipe.training.precision):
                found = self.framework.losses(micro, player.name, context)
                total = self._total(found) / len(batch)
            if total.requires_grad:  # a schedule may let nothing count for a while
                self.manual_backward(self._scaler.scale(total))
            for name, value in found.items():
                terms[name] = terms.get(name, 0) + value.detach() / len(batch)
        return terms

    def _total(self, terms: dict[str, Tensor]) -> Tensor:
        """Weighted sum of the terms that count at the moment: 0 times an infinite one would be NaN."""
        counting = [self._weights[n] * v for n, v in terms.items() if self._weights[n]]
        return torch.stack(counting).sum() if counting else torch.zeros((), device=self.device)

    def _split_further(self, batch: list[dict[str, Tensor]]) -> None:
        """Halve the batches; twice as many are summed, so that a step learns from as many patches as before.

        Raises
        ------
        ResourceError
            A batch is a single patch already.
        """
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        size, patch = len(batch[0]["source"]), " x ".join(map(str, self.recipe.data.patch))
        if self.counters.splits >= size:
            raise ResourceError(
                f"The memory of {self.device} does not suffice for one patch of {patch}",
                "Choose a smaller data.patch or network, or another device",
            )
        self.counters.splits *= 2
        parts = -(-size // self.counters.splits)
        self.on_event(
            Message(
                f"The memory of {self.device} does not suffice for {size} patches of {patch}: going on with "
                f"{parts} at a time, as many per step as before",
                "warning",
                "Choose a smaller training.batch or data.patch to save time",
                "out_of_memory",
            )
        )

    def _reset_buffers(self, kept: list[Tensor]) -> None:
        for (module, name), before in zip(self._buffer_places, kept, strict=True):
            getattr(module, name).copy_(before)

    def _update(self, optimizer: torch.optim.Optimizer, player: Any, terms: dict[str, Tensor]) -> bool:
        """Clip and step, unless the losses or gradients are not finite: then the weights stay as they are."""
        if all(p.grad is None for p in player.parameters):  # a schedule lets nothing count for a while
            return True
        self._scaler.unscale_(optimizer)
        limit = self.recipe.training.clip
        norm = torch.nn.utils.clip_grad_norm_(list(player.parameters), limit or float("inf"))
        finite = bool(torch.isfinite(norm))
        if self.trainer.world_size == 1:  # with several devices only what all of them see may decide
            finite = finite and all(bool(torch.isfinite(v)) for n, v in terms.items() if self._weights[n])
        self.bad_losses = 0 if finite else self.bad_losses + 1
        if finite or self._scaler.is_enabled():
            self._scaler.step(optimizer)
        self._scaler.update()
        return finite

    def _schedule(self, step: int) -> float:
        """Part of the budget that is used, after the learning rates were set by it."""
        used = self.budget.used(step, self.elapsed() if self.agreed_seconds is None else self.agreed_seconds)
        scheduler = self.recipe.training.scheduler
        factor = self.counters.plateau if isinstance(scheduler, Plateau) else learning_rate_factor(scheduler, used)
        optimizers = self.optimizers(use_pl_optimizer=False)
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
            self.learning_rate = max(group["lr"] for group in optimizer.param_groups)
        return used

    def elapsed(self) -> float:
        """Seconds of training so far, earlier attempts included."""
        return self.counters.elapsed + self.clock.seconds()

    # ---- state ----

    def checkpoint(self) -> Checkpoint:
        """Everything an exact resume needs."""
        optimizers = self.optimizers(use_pl_optimizer=False)
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        counters = {**vars(self.counters), "elapsed": self.elapsed()}
        weights = {f"model.{k}": v for k, v in self.framework.state_dict().items()}
        weights |= {f"ema.{k}": v for k, v in self.average.framework.state_dict().items()}
        state = {
            "counters": counters,
            "optimizers": [o.state_dict() for o in optimizers],
            "scaler": self._scaler.state_dict(),
            "framework": self.framework.state(),
        }
        return Checkpoint(self.counters.step, weights, state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint: weights, moving average, optimizers, counters."""
        load_split(self.framework, checkpoint.weights, "model.")
        load_split(self.average.framework, checkpoint.weights, "ema.")
        self.framework.load_state(checkpoint.state["framework"])
        self.counters = Counters(**checkpoint.state["counters"])
        self.clock = Clock()
        optimizers = self.optimizers(use_pl_optimizer=False)
        for optimizer, state in zip(
            optimizers if isinstance(optimizers, list) else [optimizers], checkpoint.state["optimizers"], strict=True
        ):
            optimizer.load_state_dict(state)
        if checkpoint.state["scaler"]:
            self._scaler.load_state_dict(checkpoint.state["scaler"])


def learning_players(framework: Framework) -> tuple[Player, ...]:
    """Players with those of their parameters that are not frozen."""
    return tuple(
        replace(player, parameters=[p for p in player.parameters if p.requires_grad]) for player in framework.players()
    )


def split_batch(batch: dict[str, Tensor], parts: int) -> list[dict[str, Tensor]]:
    """The batch in at most `parts` smaller ones."""
    if parts == 1:
        return [batch]
    pieces = {name: tensor.chunk(parts) for name, tensor in batch.items()}
    return [{name: piece[k] for name, piece in pieces.items()} for k in range(len(pieces["source"]))]


def load_split(framework: Framework, weights: dict[str, Tensor], prefix: str) -> None:
    """Load the part of `weights` under `prefix` strictly."""
    framework.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})


class Clock:
    """Seconds since it was made, or since `start` (unix time) where the process began earlier.

    Counted by a clock that nobody sets, so that a correction of the time of day changes no budget.
    """

    def __init__(self, start: float | None = None) -> None:
        earlier = 0.0 if start is None else time.time() - start
        self._begin = time.monotonic() - earlier

    def seconds(self) -> float:
        """Seconds until now."""
        return time.monotonic() - self._begin


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the generators that a step draws from; `torch.manual_seed` seeds all devices and takes milliseconds."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


# ---- data ----


class Steps(Sampler[int]):
    """Step numbers from `start` on, without end; the driver decides when to stop."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)


SHORT = 0.02
"""Seconds; a batch that takes longer to read is begun at once, whatever is computed."""
PATIENCE = 1.0
"""Seconds that the thread that reads ahead waits at most: a training that fails never tells it to begin."""


class PatchLoader:
    """Batches of a stream from step `start` on; a worker that dies is replaced by fewer workers.

    Since a batch is a pure function of its step, nothing is lost or seen twice.
    """

    def __init__(self, stream: PatchStream, start: int, workers: int, on_event: Callable[[Event], None]) -> None:
        self.stream, self.start, self.workers, self.on_event = stream, start, workers, on_event
        self.waits = False
        """Whether the thread that reads ahead lets a step change its patches first: at once they hold each other up."""
        self.may_read = threading.Event()
        self._seconds = 0.0  # that the last batch took to read

    def __iter__(self) -> Iterator[list[dict[str, Tensor]]]:
        step = self.start
        while True:
            try:
                for batch in self._batches(step):
                    step += 1
                    yield batch
            except RuntimeError as error:
                if "DataLoader worker" not in str(error) or self.workers == 0:
                    raise
                self.workers //= 2
                self.on_event(
                    Message(
                        f"A process that prepares patches died; going on with {self.workers}",
                        "warning",
                        "If this happens again, set training.workers to 0",
                        "worker_died",
                    )
                )

    def _ahead(self, start: int) -> Iterator[list[dict[str, Tensor]]]:
        """Batches cut in a thread while the step before is computed."""
        with ThreadPoolExecutor(1, "patches", step_back) as pool:
            following = pool.submit(self._read, start)
            try:
                for step in itertools.count(start + 1):
                    self.may_read.set()  # it is waited for
                    batch = following.result()
                    self.may_read.clear()
                    following = pool.submit(self._read, step)
                    yield batch
            finally:
                self.may_read.set()

    def _read(self, step: int) -> list[dict[str, Tensor]]:
        if self.waits and self._seconds < SHORT:
            self.may_read.wait(PATIENCE)
        start = perf_counter()
        batch = self.stream[step]
        self._seconds = perf_counter() - start
        return batch

    def _batches(self, start: int) -> Iterator[list[dict[str, Tensor]]]:
        workers = self.workers
        if workers == 0:
            return self._ahead(start)
        loader: DataLoader[list[dict[str, Tensor]]] = DataLoader(
            self.stream,
            batch_size=None,
            sampler=Steps(start),
            num_workers=workers,
            multiprocessing_context="spawn",
            prefetch_factor=2,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=ignore_interrupt,
        )
        with without_child_signal():
            return iter(loader)


BACK = 5
"""How much nicer the thread that reads is than those that compute."""


def step_back() -> None:
    """Let this thread work where the computing ones wait: on few cores it would hold all of them up otherwise."""
    if sys.platform == "linux":  # where a thread has a priority of its own
        own = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + BACK)


def ignore_interrupt(worker: int) -> None:
    """Leave Ctrl-C, which reaches every process of a terminal, to the training process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def without_child_signal() -> Iterator[None]:
    """Keeps torch from raising at any point when a worker dies; asking for the next batch tells it too."""
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)


class PatchData(pl.LightningDataModule):
    """The training stream as Lightning wants it."""

    def __init__(self, loader: PatchLoader) -> None:
        super().__init__()
        self.loader = loader

    def train_dataloader(self) -> PatchLoader:
        assert self.trainer is not None
        self.loader.stream.divide(self.trainer.global_rank, self.trainer.world_size)
        return self.loader


# ---- running ----


def make_trainer(recipe: Recipe, device: str, callbacks: list[pl.Callback], folder: Any) -> pl.Trainer:
    """Lightning trainer that leaves checkpoints, progress and steps to us."""
    training = recipe.training
    accelerator, index = split_device(device)
    for name in ("pytorch_lightning", "lightning_fabric"):  # devices and advertisements are not for our users
        logging.getLogger(name).setLevel(logging.ERROR)
    logger: Any = False
    if recipe.logging.tensorboard:
        from pytorch_lightning.loggers import TensorBoardLogger

        logger = TensorBoardLogger(save_dir=folder, name="tensorboard", version="")
    return pl.Trainer(
        accelerator=accelerator,
        devices=[index] if index is not None and training.devices == 1 else training.devices,
        num_nodes=training.nodes,
        strategy=training.strategy,
        precision="32-true",
        max_epochs=-1,
        max_steps=-1,
        logger=logger,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        use_distributed_sampler=False,
        default_root_dir=folder,
        log_every_n_steps=recipe.logging.every,
    )


def split_device(device: str) -> tuple[str, int | None]:
    """Lightning accelerator and index of ``cpu``, ``cuda``, ``cuda:1`` or ``mps``."""
    kind, _, number = device.partition(":")
    known = {"cpu": "cpu", "cuda": "gpu", "mps": "mps"}
    if kind not in known:
        raise ConfigError(f"training.device is {device!r}", "Use auto, cpu, cuda, cuda:1 or mps")
    return known[kind], int(number) if number else (0 if kind == "cuda" else None)


class KeepSignals(pl.Callback):
    """Puts the caller's signal handlers back after Lightning has installed its own, which exit with code 0."""

    def __init__(self) -> None:
        self._handlers = {}
        if threading.current_thread() is threading.main_thread():
            names = ("SIGINT", "SIGTERM", "SIGUSR1")
            numbers = [getattr(signal, n) for n in names if hasattr(signal, n)]
            self._handlers = {n: signal.getsignal(n) for n in numbers}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for number, handler in self._handlers.items():
            if handler is not None:
                signal.signal(number, handler)


def fit(module: StepModule, loader: PatchLoader, trainer: pl.Trainer) -> None:
    """Run the training until a callback stops it."""
    loader.waits = trainer.strategy.root_device.type == "cpu"
    module.when_augmented = loader.may_read.set
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", module="lightning_fabric")
        trainer.fit(module, datamodule=PatchData(loader))
