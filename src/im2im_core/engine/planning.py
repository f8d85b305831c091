"""Decides every automatic value before a start, from the images alone, with a reason for each."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch

from im2im_core.engine.data import estimate_bytes
from im2im_core.engine.frameworks.build import build_framework, geometry
from im2im_core.engine.prepare import items_of, labels_are_targets, median_diameter, read_time, without_unknown
from im2im_core.errors import ConfigError, DataError
from im2im_core.inference import Shapes
from im2im_core.plans import Estimate, Facts, Plan, Runtime
from im2im_core.recipe.framework import FcnSettings
from im2im_core.samples import TARGET

if TYPE_CHECKING:
    from collections.abc import Callable

    from im2im_core.engine.frameworks.contract import Framework
    from im2im_core.engine.prepare import Item
    from im2im_core.recipe import Recipe
    from im2im_core.samples import Sample, Split

LOOK_AT = 200
"""Label images that the fingerprint reads, evenly chosen."""
PATCH_PIXELS = {2: 16 * 128 * 128, 3: 2 * 32 * 96 * 96}
"""Pixels of a batch where patch and batch are automatic: what an 8 GB device takes."""


def make_plan(recipe: Recipe, split: Split, probe: bool = False) -> Plan:
    """Plan of a recipe on its images.

    Parameters
    ----------
    probe : bool
        Also run two steps on random patches to measure time and memory.

    Raises
    ------
    ConfigError
        A value of the recipe cannot work; found here rather than after the training.
    DataError
        The images do not fit the recipe.
    """
    facts = fingerprint(recipe, split)
    reasons: dict[str, str] = {"data.split": facts.split}
    recipe = _resolve_framework(recipe, facts, reasons)
    recipe = _resolve_network(recipe, facts, reasons)
    framework = framework_of(recipe, facts)
    recipe = _resolve_patch(recipe, facts, framework, reasons)
    device = choose_device(recipe.training.device)
    recipe = _resolve_precision(recipe, device, reasons)
    per_epoch = facts.pixels / (
        float(np.prod(recipe.patch_size))
        * recipe.batch_size
        * recipe.training.accumulate
        * recipe.training.devices
        * recipe.training.nodes
    )
    per_epoch = max(per_epoch, 1.0)
    recipe, steps = _resolve_budget(recipe, per_epoch, reasons)
    runtime = _runtime(recipe, device, items_of(split.train), framework)
    plan = Plan(recipe, reasons, facts, runtime, steps, per_epoch, messages=_messages(recipe, facts))
    return replace(plan, estimate=measure_steps(plan, framework)) if probe else plan


def framework_of(recipe: Recipe, facts: Facts) -> Framework:
    """Framework with the channels and classes of the images; weights are random."""
    return build_framework(recipe.framework, recipe.network, shapes_of(recipe, facts), facts.voxel_size)


def shapes_of(recipe: Recipe, facts: Facts) -> Shapes:
    """Numbers the network is built with."""
    return Shapes(
        dimensions=recipe.data.dimensions,
        input_channels=facts.input_channels,
        target_channels=facts.target_channels,
        classes=facts.classes,
    )


# ---- fingerprint ----


def fingerprint(recipe: Recipe, split: Split) -> Facts:
    """Sizes, channels, classes and object sizes of the training images.

    Raises
    ------
    DataError
        There is nothing to train on, or channels differ between images.
    """
    samples = split.train
    if not samples:
        raise DataError("There are no training images", "Check data.path and the split")
    infos = [s.source.info for s in samples]
    targets = [s.targets[TARGET].info for s in samples if TARGET in s.targets]
    if not targets:
        raise DataError(
            f"None of the {len(samples)} images has a target",
            f"Framework {recipe.framework.kind} learns from {recipe.framework.learns_from}",
        )
    diameter, classes = _look_at_labels(recipe, samples)
    return Facts(
        training=len(samples),
        validation=len(split.validation),
        test=len(split.test),
        split=split.reason,
        shape=_median([i.shape[2:] for i in infos]),
        pixels=int(sum(np.prod(i.shape[2:]) * i.shape[0] for i in infos)),
        input_channels=_one([(i.name, i.shape[1]) for i in infos], "input channels"),
        target_channels=_one([(i.name, i.shape[1]) for i in targets], "target channels"),
        classes=classes,
        voxel_size=_voxel_size([i.voxel_size for i in infos]),
        object_diameter=diameter,
        smallest=tuple(int(n) for n in np.min([i.shape[2:] for i in infos], axis=0)),  # type: ignore[arg-type]
    )


def _median(sizes: list[Any]) -> tuple[int, int, int]:
    z, y, x = (int(v) for v in np.median(sizes, axis=0))
    return z, y, x


def _one(values: list[tuple[str, int]], what: str) -> int:
    counts = {v for _, v in values}
    if len(counts) > 1:
        examples = ", ".join(f"{next(n for n, v in values if v == c)} has {c}" for c in sorted(counts))
        raise DataError(
            f"Images differ in their number of {what}: {examples}",
            "Choose the same ones for all with data.input_channels or data.target_channels",
        )
    return counts.pop()


def _voxel_size(sizes: list[Any]) -> tuple[float | None, float | None, float | None]:
    known = [[s for s in column if s] for column in zip(*sizes, strict=True)]
    z, y, x = (float(np.median(k)) if k else None for k in known)
    return z, y, x


def _look_at_labels(recipe: Recipe, samples: tuple[Sample, ...]) -> tuple[float | None, int]:
    """Median object diameter and number of classes."""
    if not labels_are_targets(recipe):
        return None, 2
    chosen = samples[:: max(1, len(samples) // LOOK_AT)]
    shift = 1 if recipe.data.labelling == "sparse" else 0
    diameters, highest = [], 1
    for sample in chosen:
        labels = read_time(sample.targets[TARGET], 0)
        if sample.weight is not None:
            labels = without_unknown(labels, read_time(sample.weight, 0)[:1])
        highest = max(highest, int(labels.max()) - shift)
        if recipe.task == "instance_segmentation" and (found := median_diameter(np.where(labels > shift, labels, 0))):
            diameters.append(found)
    return (float(np.median(diameters)) if diameters else None), highest + 1


# ---- resolving ----


def _resolve_framework(recipe: Recipe, facts: Facts, reasons: dict[str, str]) -> Recipe:
    framework = recipe.framework
    if not isinstance(framework, FcnSettings):
        return recipe
    changes: dict[str, Any] = {}
    if framework.classes == "auto" and framework.output == "segmentation":
        changes["framework.classes"] = max(facts.classes, 2)
        reasons["framework.classes"] = f"labels go from 0 to {facts.classes - 1}"
    if framework.output_channels == "auto" and framework.output == "image":
        changes["framework.output_channels"] = facts.target_channels
        reasons["framework.output_channels"] = f"targets have {facts.target_channels} channel(s)"
    return recipe.override(changes) if changes else recipe


def _resolve_network(recipe: Recipe, facts: Facts, reasons: dict[str, str]) -> Recipe:
    """Levels that leave Z as it is until the voxel is within a factor of two of a cube (Isensee et al. 2021)."""
    network = recipe.network
    if getattr(network, "anisotropy", None) != "auto":
        return recipe
    levels = len(getattr(network, "channels", None) or network.filters)  # type: ignore[union-attr]
    z, y, _ = facts.voxel_size
    ratio = z / y if z and y and recipe.data.dimensions == 3 else 1.0
    flat = tuple(ratio / 2**level >= 2 for level in range(levels))
    reasons["network.anisotropy"] = f"voxels are {ratio:.1f} times as deep as wide"
    return recipe.override({"network.anisotropy": list(flat)})


def _resolve_patch(recipe: Recipe, facts: Facts, framework: Framework, reasons: dict[str, str]) -> Recipe:
    divisor, _ = geometry(framework)
    dims = recipe.data.dimensions
    patch = recipe.data.patch
    if patch == "auto":
        patch = _choose_patch(dims, facts, divisor)
        reasons["data.patch"] = (
            f"median image {' x '.join(map(str, facts.shape[-dims:]))}, "
            f"multiple of {' x '.join(map(str, divisor))} for the network"
        )
    if any(p % d for p, d in zip(patch, divisor, strict=True)):
        fits = [(p // d * d or d, -(-p // d) * d) for p, d in zip(patch, divisor, strict=True)]
        wanted = " x ".join(f"{a} or {b}" if a != b else str(a) for a, b in fits)
        raise ConfigError(
            f"data.patch {tuple(patch)} is not divisible by {divisor}, which the network needs", f"Use {wanted}"
        )
    batch = recipe.training.batch
    if batch == "auto":
        batch = int(np.clip(PATCH_PIXELS[dims] // int(np.prod(patch)), 2, 16))
        reasons["training.batch"] = f"{PATCH_PIXELS[dims]} pixels per batch, what an 8 GB device takes"
    return recipe.override({"data.patch": list(patch), "training.batch": batch})


def _choose_patch(dims: int, facts: Facts, divisor: tuple[int, ...]) -> tuple[int, ...]:
    largest = facts.shape[-dims:]
    if dims == 2:
        goal: tuple[int, ...] = (128, 128) if (facts.object_diameter or 0) < 40 else (256, 256)
    else:
        goal = (32, 96, 96)
    return tuple(max(d, min(g, -(-n // d) * d) // d * d) for g, n, d in zip(goal, largest, divisor, strict=True))


def choose_device(wanted: str) -> str:
    """Device that `wanted` means on this machine."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _resolve_precision(recipe: Recipe, device: str, reasons: dict[str, str]) -> Recipe:
    if recipe.training.precision != "auto":
        return recipe
    half = device.startswith("cuda") and torch.cuda.is_bf16_supported()
    reasons["training.precision"] = "the GPU computes in bf16" if half else f"{device} computes best in fp32"
    return recipe.override({"training.precision": "bf16" if half else "fp32"})


def _resolve_budget(recipe: Recipe, per_epoch: float, reasons: dict[str, str]) -> tuple[Recipe, int | None]:
    training = recipe.training
    if training.steps is training.epochs is training.minutes is None:
        recipe = recipe.override({"training.epochs": 100})
        reasons["training.epochs"] = "no budget was given"
        training = recipe.training
    if training.minutes is not None:
        return recipe, None
    steps = training.steps or max(1, round((training.epochs or 1) * per_epoch))
    if training.validate_every == "auto":
        reasons["training.validate_every"] = "twenty times in the budget"
        recipe = recipe.override({"training.validate_every": max(min(5, steps), steps // 20)})
    return recipe, steps


def _runtime(recipe: Recipe, device: str, items: list[Item], framework: Framework) -> Runtime:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    training = recipe.training
    threads = training.threads if isinstance(training.threads, int) else cores
    workers = training.workers if isinstance(training.workers, int) else (min(4, cores - 1) if device != "cpu" else 0)
    need = estimate_bytes(items, recipe, framework)
    cache = recipe.data.cache
    kind = cache.kind
    if kind == "auto":
        fits = need < min(cache.memory_limit * 1e9, 0.4 * psutil.virtual_memory().available)
        kind = "memory" if fits and workers == 0 else "disk" if need < cache.disk_limit * 1e9 else "rolling"
    held = max(1, int(len(items) * min(1.0, cache.memory_limit * 1e9 / max(need, 1))))
    return Runtime(device=device, threads=threads, workers=workers, cache=kind, cache_held=held)


def _messages(recipe: Recipe, facts: Facts) -> tuple[str, ...]:
    found = []
    if not facts.validation:
        found.append("No image is left for validation: the figures of the training images say little about others")
    if facts.voxel_size[1] is None:
        found.append("The images have no voxel size; predictions will assume that others have the same")
    patch = recipe.patch_size
    small = [n for n, p in zip(facts.smallest[-len(patch) :], patch, strict=True) if n < p]
    if small:
        found.append(f"Some images are smaller than the patch {tuple(patch)}; they are mirrored at their borders")
    return tuple(found)


# ---- probe ----


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
    random = {k: v.to(device) for k, v in random.items()}
    before = psutil.Process().memory_info().rss
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
