"""Optimizer, schedule, budget and devices of the file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from im2im_core.recipe.training import (
    SGD,
    Adam,
    AdamW,
    ClassOptimizer,
    ClassScheduler,
    Constant,
    EarlyStopping,
    OptimizerSettings,
    Plateau,
    Polynomial,
    SchedulerSettings,
    TrainingSettings,
)

if TYPE_CHECKING:
    from im2im_core.conversion.notes import Notes
    from im2im_core.conversion.source import Named, Section

EPOCHS = 1000
"""Budget of Lightning where none is named."""
ASLEEP = 1e-3
"""Part of the first learning rate below which nothing is learned any more."""
VALIDATIONS = 20
"""Validations in a budget that our plan makes; there each epoch ends with one."""
PATIENCE = 3
"""Validations without improvement that a training goes on for, at least: one validation alone may be bad luck."""
SAYS_NOTHING = (
    "benchmark",
    "check_val_every_n_epoch",
    "default_root_dir",
    "detect_anomaly",
    "deterministic",
    "enable_checkpointing",
    "enable_model_summary",
    "enable_progress_bar",
    "fast_dev_run",
    "log_every_n_steps",
    "logger",
    "min_epochs",
    "num_sanity_val_steps",
    "reload_dataloaders_every_n_epochs",
    "sync_batchnorm",
    "terminate_on_nan",
)
"""Arguments of Lightning's trainer that say nothing about what is learned."""
SAVING = ("ModelCheckpoint", "LearningRateMonitor", "RichProgressBar", "TQDMProgressBar", "ModelSummary", "Timer")
"""Callbacks that are not needed here: the best and the last checkpoints are kept, rates are shown."""


def budget(trainer: Section, scheduler: Named | None, notes: Notes) -> dict[str, float]:
    """Budget in steps or epochs, without the epochs in which the learning rate is too small to learn."""
    params = trainer.section("params")
    steps, epochs = params.whole("max_steps"), params.number("max_epochs")
    if steps is not None and steps > 0 and epochs is None:
        return {"steps": steps}
    total = epochs if epochs and epochs > 0 else EPOCHS
    notes.differs(
        params.place("max_epochs"), "an epoch is as many pixels as the training images have, whatever patches are cut"
    )
    return {"epochs": _awake(total, scheduler, params.place("max_epochs"), notes)}


def _awake(total: float, scheduler: Named | None, place: str, notes: Notes) -> float:
    """Epochs until the learning rate is below a thousandth of its start."""
    rate = scheduler.params.number("gamma") if scheduler and scheduler.name == "ExponentialLR" else None
    if rate is None or not 0 < rate < 1:
        return total
    useful = math.ceil(math.log(ASLEEP) / math.log(rate))
    if useful >= total:
        return total
    notes.differs(place, f"{useful} epochs of {total:g}: then the learning rate has fallen to {ASLEEP:g} of its start")
    return useful


def convert_training(usual: TrainingSettings, sections: tuple[Section, Section], batch: Any, notes: Notes) -> Any:
    """Settings of the training from the sections ``model`` and ``trainer``; `usual` gives what they do not say.

    Parameters
    ----------
    batch : int or "auto"
        Patches per step.
    """
    model, trainer = sections
    scheduler = model.named("scheduler")
    spent = budget(trainer, scheduler, notes)
    epochs = spent.get("epochs", EPOCHS)
    params = trainer.section("params")
    changes: dict[str, Any] = {"steps": None, "epochs": None, "minutes": None, **spent, "batch": batch}
    changes["optimizer"] = _optimizer(model.named("optimizer"), usual.optimizer, notes)
    changes["scheduler"] = _scheduler(scheduler, epochs, notes)
    changes["clip"] = params.number("gradient_clip_val")
    changes["accumulate"] = params.whole("accumulate_grad_batches", 1)
    changes["precision"] = _precision(params, notes)
    changes |= _devices(trainer, params, notes) | _callbacks(trainer, epochs, notes)
    if params.take("gradient_clip_algorithm", "norm") != "norm":
        notes.differs(params.place("gradient_clip_algorithm"), "the norm of the gradient is limited, not its values")
    params.drop(*SAYS_NOTHING)
    trainer.drop("verbose")
    return usual.replace(**changes)


# ---- optimizer and schedule ----


def _optimizer(named: Named | None, usual: OptimizerSettings, notes: Notes) -> OptimizerSettings:
    if named is None:
        return usual
    arguments = {key: named.params.take(key) for key in list(named.params.content) if key != "lr"}
    lr = named.params.number("lr", 1e-3)
    if named.name == "AdamW" and not set(arguments) - {"weight_decay", "betas"}:
        return AdamW.load({"lr": lr, "weight_decay": 0.01, **arguments})
    if named.name == "Adam" and not set(arguments) - {"betas"}:
        return Adam.load({"lr": lr, **arguments})
    if (
        named.name == "SGD"
        and arguments.get("nesterov")
        and not set(arguments) - {"nesterov", "momentum", "weight_decay"}
    ):
        rest = {key: value for key, value in arguments.items() if key != "nesterov"}
        return SGD.load({"lr": lr, "weight_decay": 0.0, **rest})
    if named.module == "torch.optim":
        return ClassOptimizer.load({"class_path": named.path, "lr": lr, "init_args": arguments})
    notes.missing(named.title, f"optimizer {usual.kind} of the preset, with its learning rate, in its place")
    return usual


def _scheduler(named: Named | None, epochs: float, notes: Notes) -> SchedulerSettings:
    if named is None:
        return Constant()
    named.section.drop("monitor", "interval", "frequency")
    if named.name == "ReduceLROnPlateau":
        return _plateau(named, epochs, notes)
    arguments = {key: named.params.take(key) for key in list(named.params.content)}
    if named.name == "PolynomialLR" and "total_iters" not in arguments:
        return Polynomial.load({"power": arguments.get("power", 1.0)})
    if named.module == "torch.optim.lr_scheduler":
        return ClassScheduler.load({"class_path": named.path, "init_args": arguments, "total": max(round(epochs), 1)})
    notes.missing(named.title, "the learning rate does not change")
    return Constant()


def _plateau(named: Named, epochs: float, notes: Notes) -> Plateau:
    patience = named.params.number("patience", 10.0) or 0.0
    factor = named.params.number("factor", 0.1)
    named.params.drop("mode", "threshold", "threshold_mode", "cooldown", "min_lr", "eps", "verbose")
    converted = _in_validations(patience, epochs, 1)
    notes.differs(named.params.place("patience"), _patience_words(patience, converted, epochs))
    return Plateau.load({"factor": factor, "patience": converted})


def _in_validations(epochs: float, budget: float, least: int) -> int:
    """Validations in as many epochs of the budget."""
    return max(least, round(epochs / budget * VALIDATIONS))


def _patience_words(epochs: float, validations: int, budget: float) -> str:
    there, here = f"{epochs:g} of {budget:g} epochs", f"{validations} of about {VALIDATIONS} validations"
    return f"{there} without improvement became {here}; with training.validate_every in steps it can be finer"


# ---- trainer ----


def _precision(params: Section, notes: Notes) -> str:
    value = str(params.take("precision", "32"))
    if value.startswith("64"):
        notes.differs(params.place("precision"), "numbers of 32 bits; 64 are not computed with here")
    if value in ("16", "16-mixed", "16-true"):
        notes.differs(params.place("precision"), "auto: bf16 where the device has instructions for it, else fp32")
        return "auto"
    return "auto" if value.startswith("bf16") else "fp32"


def _devices(trainer: Section, params: Section, notes: Notes) -> dict[str, Any]:
    accelerator = str(params.take("accelerator", "auto"))
    found: dict[str, Any] = {"device": accelerator if accelerator in ("cpu", "mps") else "auto", "devices": 1}
    for section, key in ((params, "devices"), (params, "gpus"), (trainer, "gpus")):  # the last overrides, there as here
        named = section.take(key)
        if named is not None:
            found["devices"] = _how_many(named, section.place(key), notes)
    found["nodes"] = params.whole("num_nodes", 1)
    for section in (params, trainer):
        strategy = section.take("strategy")
        if isinstance(strategy, str):
            found.setdefault("strategy", strategy)
        elif strategy is not None:
            notes.missing(section.place("strategy"), "only strategies with a name: training.strategy")
    return found


def _how_many(named: Any, place: str, notes: Notes) -> int:
    """Number of devices that Lightning would take: a number, a list of their numbers, or either as text."""
    if isinstance(named, str) and "," in named:
        named = [part for part in named.split(",") if part.strip()]
    if isinstance(named, list):
        which = ", ".join(str(number).strip() for number in named)
        if [str(number).strip() for number in named] != [str(number) for number in range(len(named))]:
            notes.differs(place, f"{len(named)} of them, the first; CUDA_VISIBLE_DEVICES={which} chooses these")
        return max(len(named), 1)
    text = str(named).strip()
    if text.isdigit() and int(text) > 0:
        return int(text)
    notes.differs(place, f"{text} became 1; where there are several, say how many: --training.devices")
    return 1


def _callbacks(trainer: Section, epochs: float, notes: Notes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for callback in trainer.several("callbacks"):
        if callback.name == "EarlyStopping":
            patience = callback.params.number("patience", 3.0) or 0.0
            converted = _in_validations(patience, epochs, PATIENCE)
            notes.differs(callback.params.place("patience"), _patience_words(patience, converted, epochs))
            change = abs(callback.params.number("min_delta", 0.0) or 0.0)
            found["early_stopping"] = EarlyStopping(enabled=True, patience=converted, min_change=change)
        elif callback.name == "StochasticWeightAveraging":
            start = callback.params.number("swa_epoch_start", 0.8) or 0.0
            found["swa"] = 1 - (start if start <= 1 else min(start / epochs, 1.0))
        elif callback.name not in SAVING:
            notes.missing(callback.title, "no such callback")
        callback.params.drop(*callback.params.content)
    return found
