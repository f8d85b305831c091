"""What goes wrong in a training, in plain words and with the cure, from nothing but its events; pure functions."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from im2im_core.events import Failed, Losses, Progress, Started, Validated
from im2im_core.progress import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from im2im_core.events import Event
    from im2im_core.recipe import Recipe

FLAT_CHANGE = 0.02
"""A loss that moved by less than this part of itself is flat."""
FLAT_POINTS = 20
RISE = 1.05
"""A validation loss this many times its best one has risen."""
STALE = 5
"""Validations without a new best after which it is worth to say so."""
SLOW = 0.5
"""Part of its best speed below which a training is called slow."""
FATAL = "Fatal Python error: "
"""What the interpreter writes into the log when native code crashes."""


@dataclass(frozen=True)
class Diagnosis:
    """One thing a person should know about a training, and what to do about it."""

    code: str
    """Stable name, the same for the same thing however often it is found."""
    text: str
    cure: str
    level: str = "warning"
    """info, warning or error"""
    recipe_changes: dict[str, Any] = field(default_factory=dict)
    """Dotted settings that carry the cure out in the next training; empty where settings do not help."""


@dataclass(frozen=True)
class _Case:
    """What every examination may look at."""

    losses: list[Losses]
    validations: list[Validated]
    progress: Progress | None
    plan: Mapping[str, Any]
    recipe: Recipe

    @property
    def facts(self) -> Mapping[str, Any]:
        return dict(self.plan.get("facts") or {})

    @property
    def lr(self) -> float:
        return float(self.recipe.training.optimizer.lr)


def diagnose(events: Sequence[Event], plan: Mapping[str, Any] | None, recipe: Recipe) -> list[Diagnosis]:
    """Everything that is worth saying about a training now, the most serious first.

    Parameters
    ----------
    events : sequence of Event
        What the run said, in order, repeated steps merged.
    plan : mapping, optional
        Content of ``plan.yaml``.
    recipe : Recipe
        The recipe that is trained.
    """
    case = _Case(
        [e for e in events if isinstance(e, Losses)],
        [e for e in events if isinstance(e, Validated)],
        next((e for e in reversed(events) if isinstance(e, Progress) and e.task == "training"), None),
        plan or {},
        recipe,
    )
    found = [diagnosis for examine in _EXAMINATIONS if (diagnosis := examine(case))]
    order = ("error", "warning", "info")
    return sorted(found, key=lambda d: order.index(d.level))


# ---- the loss ----


def _nan_loss(case: _Case) -> Diagnosis | None:
    recent = case.losses[-3:]
    bad = [e for e in recent if not all(math.isfinite(v) for v in e.values.values())]
    if not bad:
        return None
    lower = _round(case.lr / 3)
    return Diagnosis(
        "nan_loss",
        f"The loss is not a number since step {bad[0].step}: the steps are too large, or a pixel is not a number",
        f"Start again with a learning rate of {lower:g} and full precision, and check the data set",
        "error",
        {"training.optimizer.lr": lower, "training.precision": "fp32"},
    )


def _flat_loss(case: _Case) -> Diagnosis | None:
    values = [e.values.get("total", math.nan) for e in case.losses]
    if len(values) < FLAT_POINTS or not all(map(math.isfinite, values)):
        return None
    part = max(5, len(values) // 5)
    start, now = statistics.median(values[:part]), statistics.median(values[-part:])
    if abs(start - now) > FLAT_CHANGE * max(abs(start), 1e-9):
        return None
    higher = _round(case.lr * 3)
    return Diagnosis(
        "flat_loss",
        f"The loss has not moved in {case.losses[-1].step} steps (it is {now:.3g}, it began at {start:.3g})",
        f"Check that each target belongs to its image; then try a learning rate of {higher:g}",
        "warning",
        {"training.optimizer.lr": higher},
    )


# ---- what is found ----


def _no_foreground(case: _Case) -> Diagnosis | None:
    more = {"data.foreground": max(0.9, case.recipe.data.foreground)}
    facts = case.facts
    if case.recipe.task == "instance_segmentation" and facts and facts.get("object_diameter") is None:
        return Diagnosis(
            "no_foreground",
            "There is no object in the targets of the training images",
            "Add images with labelled objects; with few of them, show the network mostly patches around objects",
            "error",
            more,
        )
    names = ("ap50", "dice")
    seen = [next((e.values[n] for n in names if n in e.values), None) for e in case.validations]
    if len(seen) >= STALE and not any(seen) and None not in seen:
        return Diagnosis(
            "no_foreground",
            f"Nothing was found in the validation images up to step {case.validations[-1].step}",
            "Show the network more patches around objects, and check that the targets are not empty",
            "warning",
            more,
        )
    return None


# ---- validation ----


def _no_validation(case: _Case) -> Diagnosis | None:
    if case.facts.get("validation", 1):
        return None
    changes: dict[str, Any] = {"data.split.by": "block"}
    if not case.recipe.data.split.validation:
        changes["data.split.validation"] = 0.15
    return Diagnosis(
        "no_validation",
        "No image is kept for validation, so nobody can tell how good the network is on new images",
        "Keep a part of each image for validation",
        "warning",
        changes,
    )


def _overfit(case: _Case) -> Diagnosis | None:
    totals = [e.values.get("total", math.nan) for e in case.validations]
    if len(totals) < STALE or any(e.best for e in case.validations[-3:]):
        return None
    best = min(range(len(totals)), key=totals.__getitem__)
    risen = all(v > RISE * totals[best] for v in totals[-3:])
    step = case.validations[best].step
    before = [e.values.get("total", math.nan) for e in case.losses if e.step <= step][-5:]
    after = [e.values.get("total", math.nan) for e in case.losses if e.step > step][-5:]
    if not (risen and before and after and statistics.median(after) < statistics.median(before)):
        return None
    return Diagnosis(
        "overfit",
        f"The network learns the training images by heart: since step {step} it gets better on them "
        "and worse on the validation images",
        "Stop and keep the best. More images help most; stronger random changes of them help too",
        "warning",
        _more_variety(case.recipe),
    )


def _more_variety(recipe: Recipe) -> dict[str, Any]:
    """Stronger augmentation where it is weaker than this, and an end when nothing improves."""
    now = recipe.data.augmentation
    wanted: dict[str, Any] = {"rotate": 180.0, "contrast": 0.4, "gamma": 0.3, "noise": 0.1, "blur": 1.0}
    changes = {f"data.augmentation.{k}": v for k, v in wanted.items() if getattr(now, k) < v}
    if now.scale == (1.0, 1.0):
        changes["data.augmentation.scale"] = [0.8, 1.25]
    return {**changes, "training.early_stopping.enabled": True}


def _stopped_improving(case: _Case) -> Diagnosis | None:
    best = max((i for i, e in enumerate(case.validations) if e.best), default=None)
    if best is None or len(case.validations) - 1 - best < STALE:
        return None
    left = case.progress.remaining if case.progress else None
    words = f", {duration(left)} left" if left else ""
    return Diagnosis(
        "stopped_improving",
        f"Validation stopped improving at step {case.validations[best].step}{words}",
        "You can stop now and keep the best",
        "info",
        {"training.early_stopping.enabled": True},
    )


# ---- speed ----


def _idle(case: _Case) -> Diagnosis | None:
    speeds = [e.samples_per_second for e in case.losses if e.samples_per_second > 0]
    if len(speeds) < 15:
        return None
    recent = statistics.median(speeds[-5:])
    best = max(statistics.median(speeds[i : i + 5]) for i in range(len(speeds) - 5))
    if recent >= SLOW * best:
        return None
    cache = (case.plan.get("runtime") or {}).get("cache", "memory")
    cure = "Close other programs that compute"
    if cache != "memory":
        cure += f", or hold the images in memory (now: {cache})"
    return Diagnosis(
        "idle",
        f"The training became slow: {recent:.3g} patches per second, it was {best:.3g}",
        cure,
        "info",
        {"data.cache.kind": "memory"} if cache != "memory" else {},
    )


_EXAMINATIONS: tuple[Callable[[_Case], Diagnosis | None], ...] = (
    _nan_loss,
    _no_foreground,
    _flat_loss,
    _overfit,
    _stopped_improving,
    _no_validation,
    _idle,
)


# ---- how it ended ----


def diagnose_end(events: Sequence[Event], state: str, log: str, recipe: Recipe) -> Diagnosis | None:
    """Why a run is failed or interrupted; None for other states.

    Parameters
    ----------
    log : str
        The end of the run's ``log.txt``: native crashes are only told there.
    """
    if state == "failed":
        return _explain_failure(next((e for e in reversed(events) if isinstance(e, Failed)), None), recipe)
    if state != "interrupted":
        return None
    saved = "Resume goes on from the last checkpoint"
    if FATAL in log:
        reason = log.rpartition(FATAL)[2].splitlines()[0].strip()
        return Diagnosis(
            "crashed", f"The training crashed inside a library ({reason})", f"{saved}; log.txt has the details", "error"
        )
    killed = "The training was killed by signal 9, probably out of memory, or the computer was switched off"
    if sum(isinstance(e, Started) for e in events) > 1:
        return Diagnosis(
            "killed_again",
            f"{killed}; it is not the first time",
            f"Start anew with smaller batches. {saved}",
            "error",
            _less_memory(recipe),
        )
    cure = f"{saved}. If it happens again, start anew with smaller batches"
    return Diagnosis("killed", killed, cure, "error", _less_memory(recipe))


def _explain_failure(failed: Failed | None, recipe: Recipe) -> Diagnosis:
    if failed is None:
        return Diagnosis("failed", "The training failed", "log.txt has the details", "error")
    if failed.exit_code == 4 and "memory" in failed.message:
        return Diagnosis("out_of_memory", failed.message, failed.cure, "error", _less_memory(recipe))
    return Diagnosis("failed", failed.message, failed.cure, "error")


def _less_memory(recipe: Recipe) -> dict[str, Any]:
    """Half the batch, the same number of patches per step; nothing where a batch is one patch already."""
    training = recipe.training
    batch = training.batch if isinstance(training.batch, int) else 4
    if batch < 2:
        return {}
    return {"training.batch": batch // 2, "training.accumulate": training.accumulate * 2}


def _round(value: float) -> float:
    """`value` in one significant digit, as a person would choose it."""
    return float(f"{value:.0e}")
