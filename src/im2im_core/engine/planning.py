"""Decides every automatic value before a start, from the images alone, with a reason for each."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch

from im2im_core.engine.cache import free_bytes
from im2im_core.engine.data import entry_key, estimate_bytes, target_statistics
from im2im_core.engine.devices import choose_device
from im2im_core.engine.frameworks.build import build_framework, geometry
from im2im_core.engine.networks import behind_stem
from im2im_core.engine.networks.monai_nets import flat_levels
from im2im_core.engine.prepare import (
    Factor,
    Item,
    factor_of,
    items_of,
    labels_are_targets,
    median_diameter,
    read_time,
    without_unknown,
)
from im2im_core.engine.rehearsal import rehearse
from im2im_core.engine.start_plan import settle_start
from im2im_core.errors import ConfigError, DataError
from im2im_core.inference import Shapes
from im2im_core.plans import Advice, Estimate, Facts, Plan, Runtime, budget_steps, steps_per_epoch, validation_steps
from im2im_core.recipe.data import SMALLEST_PATCH, ObjectRescale
from im2im_core.recipe.framework import FcnSettings
from im2im_core.rescale import grid_shape
from im2im_core.samples import TARGET

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from im2im_core.engine.frameworks.contract import Framework
    from im2im_core.image import ImageInfo, VoxelSize
    from im2im_core.recipe import Recipe
    from im2im_core.samples import Sample, Split

LOOK_AT = 200
"""Label images that the fingerprint reads, evenly chosen."""
PATCH_PIXELS = {2: 16 * 128 * 128, 3: 2 * 32 * 96 * 96}
"""Pixels of a batch where patch and batch are automatic: what an 8 GB device takes."""

DISK_PART = 0.9
"""Part of the free disk that prepared images may take."""


def make_plan(
    recipe: Recipe, split: Split, probe: bool = False, cache_folder: Path | None = None, root: Path | None = None
) -> Plan:
    """Plan of a recipe on its images.

    Parameters
    ----------
    probe : bool
        Also run two steps on random patches to measure time and memory.
    cache_folder : Path, optional
        Where prepared images would be kept; the free space there counts.
    root : Path, optional
        Where the path of the model to start from begins; the working folder where not given.

    Raises
    ------
    ConfigError
        A value of the recipe cannot work; found here rather than after the training.
    DataError
        The images do not fit the recipe.
    ResourceError
        The device is not there.
    """
    device = choose_device(recipe.training.device)
    facts = fingerprint(recipe, split)
    reasons: dict[str, str] = {"data.split": facts.split}
    recipe = _resolve_framework(recipe, facts, reasons)
    recipe = _resolve_network(recipe, facts, reasons)
    framework = framework_of(recipe, facts)
    rehearse(recipe, framework)
    recipe, about_start = settle_start(recipe, framework, facts, root, reasons)
    recipe = _resolve_patch(recipe, facts, framework, reasons)
    recipe = _resolve_precision(recipe, device, reasons)
    per_epoch = steps_per_epoch(recipe, facts)
    recipe, steps = _resolve_budget(recipe, per_epoch, reasons)
    items = items_of(split.train)
    need = estimate_bytes(items, framework, facts.pixels)
    runtime = _runtime(recipe, device, items, need, cache_folder, reasons)
    messages = (*about_start, *_messages(recipe, facts))
    plan = Plan(recipe, reasons, facts, runtime, steps, per_epoch, messages=messages)
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
    """Channels and classes of the training images, and sizes as the network sees them: after rescaling.

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
    seen = _look_at_labels(recipe, samples)
    factors = _factors(recipe, samples, seen)
    shapes = [grid_shape(i.shape[2:], f) for i, f in zip(infos, factors, strict=True)]
    return Facts(
        training=len(samples),
        validation=len(split.validation),
        test=len(split.test),
        split=split.reason,
        shape=_median(shapes),
        pixels=sum(math.prod(s) * i.shape[0] for s, i in zip(shapes, infos, strict=True)),
        input_channels=_one([(i.name, i.shape[1]) for i in infos], "input channels"),
        target_channels=_one([(i.name, i.shape[1]) for i in targets], "target channels"),
        classes=_highest_class(recipe, split, seen) + 1,
        voxel_size=_voxel_size([_divided(i.voxel_size, f) for i, f in zip(infos, factors, strict=True)]),
        object_diameter=_object_diameter(factors, seen),
        smallest=tuple(int(n) for n in np.min(shapes, axis=0)),  # type: ignore[arg-type]
        channels=_channel_names(infos),
        targets_seen=len(seen),
        targets_empty=sum(s.empty for s in seen.values()),
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


@dataclass(frozen=True)
class _Seen:
    """What the labels of one sample show, on the grid of the image."""

    highest: int
    """Largest class; instances count as classes here."""
    empty: bool
    """Nothing is labelled."""
    factor: Factor
    diameter: float | None = None
    """Median diameter of its objects, pixels."""


def _look_at_labels(recipe: Recipe, samples: tuple[Sample, ...]) -> dict[int, _Seen]:
    """What evenly chosen label images show, by the number of the sample; nothing where targets are no labels."""
    if not labels_are_targets(recipe):
        return {}
    return {n: _see(recipe, samples[n]) for n in range(0, len(samples), max(1, len(samples) // LOOK_AT))}


def _see(recipe: Recipe, sample: Sample) -> _Seen:
    labels = known_labels(recipe, sample)
    factor = factor_of(Item(sample, 0), recipe, labels)
    highest = int(labels.max(initial=0))
    diameter = median_diameter(labels) if recipe.task == "instance_segmentation" else None
    return _Seen(max(highest, 1), highest == 0, factor, diameter)


def _highest_class(recipe: Recipe, split: Split, seen: dict[int, _Seen]) -> int:
    """Largest class of the images looked at; of all that train or validate where it decides the number of classes.

    A rare class may occur in a single image; what is read at a time is what preparing that image reads.
    """
    highest = max((s.highest for s in seen.values()), default=1)
    if recipe.task != "semantic_segmentation" or getattr(recipe.framework, "classes", "auto") != "auto":
        return highest
    for number, sample in enumerate((*split.train, *split.validation)):
        first = 1 if number in seen else 0
        for moment in range(first, _label_times(sample)):
            highest = max(highest, int(known_labels(recipe, sample, moment).max(initial=0)))
    return highest


def _label_times(sample: Sample) -> int:
    """Time points whose labels can differ; none without labels."""
    if TARGET not in sample.targets:
        return 0
    longest = max(i.info.shape[0] for i in (sample.targets[TARGET], sample.weight) if i is not None)
    return min(sample.source.info.shape[0], longest)


def known_labels(recipe: Recipe, sample: Sample, time: int = 0) -> NDArray[Any]:
    """Labels ``(C, Z, Y, X)`` of a time point, in which 0 is background or unknown.

    Raises
    ------
    DataError
        They are fractional, negative, NaN or infinite where they are known.
    """
    from im2im_core.io.labels import as_labels
    from im2im_core.partial import to_learning

    target = sample.targets[TARGET]
    weight = None if sample.weight is None else read_time(sample.weight, time)[:1]
    labels = as_labels(without_unknown(read_time(target, time), weight), target.info.name)
    return to_learning(labels, "sparse")[0] if recipe.data.labelling == "sparse" else labels


def _factors(recipe: Recipe, samples: tuple[Sample, ...], seen: dict[int, _Seen]) -> list[Factor]:
    """Magnification of every sample; the median where it depends on labels that were not looked at."""
    if not isinstance(recipe.data.rescale, ObjectRescale):
        return [factor_of(Item(s, 0), recipe, None) for s in samples]
    if not labels_are_targets(recipe):
        raise ConfigError(
            f"data.rescale.kind is object_size, but task {recipe.task} has no labels to measure objects in",
            "Use voxel_size or none",
        )
    z, y, x = (float(v) for v in np.median([s.factor for s in seen.values()] or [(1.0, 1.0, 1.0)], axis=0))
    return [seen[n].factor if n in seen else (z, y, x) for n in range(len(samples))]


def _divided(voxel_size: VoxelSize, factor: Factor) -> VoxelSize:
    z, y, x = (None if s is None else s / f for s, f in zip(voxel_size, factor, strict=True))
    return z, y, x


def _object_diameter(factors: list[Factor], seen: dict[int, _Seen]) -> float | None:
    found = [s.diameter * math.sqrt(factors[n][1] * factors[n][2]) for n, s in seen.items() if s.diameter]
    return float(np.median(found)) if found else None


def _channel_names(infos: list[ImageInfo]) -> tuple[str, ...]:
    """Names of the input channels; empty where images do not say or differ."""
    named = {i.channels for i in infos}
    return named.pop() if len(named) == 1 else ()


# ---- resolving ----


def _resolve_framework(recipe: Recipe, facts: Facts, reasons: dict[str, str]) -> Recipe:
    framework = recipe.framework
    if not isinstance(framework, FcnSettings):
        return _resolve_objects(recipe, facts, reasons)
    changes: dict[str, Any] = {}
    if framework.classes == "auto" and framework.output == "segmentation":
        changes["framework.classes"] = max(facts.classes, 2)
        reasons["framework.classes"] = f"labels go from 0 to {facts.classes - 1}"
    if framework.output_channels == "auto" and framework.output == "image":
        changes["framework.output_channels"] = facts.target_channels
        reasons["framework.output_channels"] = f"targets have {facts.target_channels} channel(s)"
    return recipe.override(changes) if changes else recipe


def _resolve_objects(recipe: Recipe, facts: Facts, reasons: dict[str, str]) -> Recipe:
    """Shape of a voxel and size of the objects, where the framework measures in them."""
    changes: dict[str, Any] = {}
    if getattr(recipe.framework, "anisotropy", None) == "auto":
        ratio = _depth(recipe, facts.voxel_size)
        changes["framework.anisotropy"] = round(ratio, 3)
        reasons["framework.anisotropy"] = f"voxels are {ratio:.3g} times as deep as wide"
        if recipe.data.dimensions == 2:
            reasons["framework.anisotropy"] = "planes are seen one by one"
        elif None in facts.voxel_size:
            reasons["framework.anisotropy"] = "the images do not say how deep a voxel is"
    if getattr(recipe.framework, "diameter", None) == "auto" and facts.object_diameter:
        changes["framework.diameter"] = round(facts.object_diameter, 1)
        reasons["framework.diameter"] = f"objects have a median diameter of {facts.object_diameter:.3g} px"
    return recipe.override(changes) if changes else recipe


def _depth(recipe: Recipe, voxel_size: VoxelSize) -> float:
    """Depth of a voxel relative to its width; 1 for planes, and where it is not known."""
    z, y, x = voxel_size
    return z / math.sqrt(y * x) if z and y and x and recipe.data.dimensions == 3 else 1.0


def _resolve_network(recipe: Recipe, facts: Facts, reasons: dict[str, str]) -> Recipe:
    """Levels that leave Z as it is until the voxel is within a factor of two of a cube (Isensee et al. 2021)."""
    network = recipe.network
    if getattr(network, "anisotropy", None) != "auto":
        return recipe
    levels = len(getattr(network, "channels", None) or network.filters)  # type: ignore[union-attr]
    seen = behind_stem(facts.voxel_size, network.stem)
    ratio = _depth(recipe, seen)
    behind = f" behind the stem of {network.stem}" if network.stem > 1 else ""
    reasons["network.anisotropy"] = f"voxels are {ratio:.1f} times as deep as wide{behind}"
    return recipe.override({"network.anisotropy": flat_levels("auto", levels, recipe.data.dimensions, seen)})


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
    least = [-(-SMALLEST_PATCH // d) * d for d in divisor[-2:]]
    least = [*divisor[:-2], *least]
    return tuple(
        max(m, min(g, -(-n // d) * d) // d * d) for g, n, d, m in zip(goal, largest, divisor, least, strict=True)
    )


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
    steps = budget_steps(recipe, per_epoch) or 1
    if training.validate_every == "auto":
        reasons["training.validate_every"] = "twenty times in the budget"
        recipe = recipe.override({"training.validate_every": validation_steps(steps)})
    return recipe, steps


def _runtime(
    recipe: Recipe, device: str, items: list[Item], need: int, cache_folder: Path | None, reasons: dict[str, str]
) -> Runtime:
    """Device, processes and cache for prepared `items` that take `need` bytes together."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    training, cache = recipe.training, recipe.data.cache
    threads = training.threads if isinstance(training.threads, int) else cores
    workers = training.workers if isinstance(training.workers, int) else (min(4, cores - 1) if device != "cpu" else 0)
    kind: str = cache.kind
    if kind == "auto":
        fits = need < min(cache.memory_limit * 1e9, 0.4 * psutil.virtual_memory().available)
        kind = "memory" if fits and workers == 0 else "disk"
    if cache.kind == "auto" and kind == "disk" and (reason := _full_disk(recipe, items, need, cache_folder)):
        kind, reasons["data.cache.kind"] = "rolling", reason
    held = max(1, int(len(items) * min(1.0, cache.memory_limit * 1e9 / max(need, 1))))
    return Runtime(device=device, threads=threads, workers=workers, cache=kind, cache_held=held)


def _full_disk(recipe: Recipe, items: list[Item], need: int, cache_folder: Path | None) -> str:
    """Why `need` bytes of prepared images are not kept on disk; empty where they can be."""
    images, rolling = f"prepared images take {need / 1e9:.3g} GB", "a part of them at a time is held in memory"
    limit = recipe.data.cache.disk_limit
    if need >= limit * 1e9:
        return f"{images}, more than the {limit:g} GB of data.cache.disk_limit: {rolling}"
    if cache_folder is None:
        return ""
    free = free_bytes(cache_folder)
    if need < DISK_PART * free or need - _kept_bytes(recipe, items, cache_folder) < DISK_PART * free:
        return ""
    return f"{images}, {free / 1e9:.3g} GB are free in {cache_folder}: {rolling}"


def _kept_bytes(recipe: Recipe, items: list[Item], cache_folder: Path) -> int:
    """Bytes of prepared `items` that the cache has already, from an earlier training."""
    scaling = target_statistics(items, recipe)
    folders = {cache_folder / entry_key(item, recipe, scaling) for item in items}
    return sum(path.stat().st_size for folder in folders for path in folder.glob("*.raw"))


def _messages(recipe: Recipe, facts: Facts) -> tuple[Advice, ...]:
    found = []
    if not facts.validation:
        text = "No image is left for validation: the figures of the training images say little about others"
        found.append(Advice("not_validated", text, "Add images, or set data.split.by to block"))
    found += _about_targets(facts)
    found += _about_voxels(recipe, facts)
    patch = recipe.patch_size
    small = [n for n, p in zip(facts.smallest[-len(patch) :], patch, strict=True) if n < p]
    if small:
        text = f"Some images are smaller than the patch {tuple(patch)}; they are mirrored at their borders"
        found.append(Advice("smaller_than_patch", text, "Set a smaller data.patch, or leave them out"))
    return tuple(found)


def _about_targets(facts: Facts) -> list[Advice]:
    empty, seen = facts.targets_empty, facts.targets_seen
    if not empty:
        return []
    if empty == seen:
        text = "Nothing is labelled in any of the targets: the network can only learn background"
        return [Advice("nothing_labelled", text, "Check the labels")]
    text = f"Nothing is labelled in {empty} of {seen} targets: they teach background only"
    return [Advice("nothing_labelled", text, "Check that this is meant")]


def _about_voxels(recipe: Recipe, facts: Facts) -> list[Advice]:
    z, y, _ = facts.voxel_size
    if y is None:
        text = "The images have no voxel size; predictions will assume that others have the same"
        return [Advice("no_voxel_size", text, "Set data.voxel_size where you know it")]
    if z is None and recipe.data.dimensions == 3 and facts.shape[0] > 1:
        text = "The stacks do not say how far apart their planes are: as far as their pixels?"
        return [Advice("no_voxel_size", text, "Set data.voxel_size where they are not")]
    return []


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
