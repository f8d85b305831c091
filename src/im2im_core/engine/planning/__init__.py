"""Decides every automatic value before a start, from the images alone, with a reason for each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.engine.data import estimate_bytes
from im2im_core.engine.devices import choose_device, computes_in_bf16
from im2im_core.engine.frameworks.build import build_framework, divisor_of
from im2im_core.engine.planning.advice import advise
from im2im_core.engine.planning.facts import fingerprint
from im2im_core.engine.planning.network import (
    batch_within_budget,
    require_multiple,
    resolve_network,
    shape_within,
)
from im2im_core.engine.planning.probe import measure_steps
from im2im_core.engine.planning.runtime import choose_runtime
from im2im_core.engine.planning.words import by_sides, depth_ratio
from im2im_core.engine.prepare import items_of
from im2im_core.engine.rehearsal import rehearse
from im2im_core.engine.start_plan import settle_start
from im2im_core.inference import Shapes
from im2im_core.plans import Plan, budget_steps, steps_per_epoch, validation_steps
from im2im_core.recipe.data import SMALLEST_PATCH
from im2im_core.recipe.framework import FcnSettings
from im2im_core.recipe.network import DynUNet

if TYPE_CHECKING:
    from pathlib import Path

    from im2im_core.engine.frameworks.contract import Framework
    from im2im_core.engine.planning.labels import Looks
    from im2im_core.plans import Facts
    from im2im_core.recipe import Recipe
    from im2im_core.samples import Split

PATCH_PIXELS = {2: 16 * 128 * 128, 3: 2 * 32 * 96 * 96}
"""Pixels of a batch where it is automatic and the network does not say what it holds."""


def make_plan(
    recipe: Recipe,
    split: Split,
    probe: bool = False,
    cache_folder: Path | None = None,
    root: Path | None = None,
    looks: Looks | None = None,
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
    looks : dict, optional
        What `choose_patch` saw in label images; they are not read again.

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
    facts = fingerprint(recipe, split, looks)
    reasons: dict[str, str] = {"data.split": facts.split}
    recipe = _resolve_framework(recipe, facts, reasons)
    recipe = resolve_network(recipe, facts, reasons)
    framework = framework_of(recipe, facts)
    rehearse(recipe, framework)
    recipe, about_start = settle_start(recipe, framework, facts, root, reasons)
    recipe = _resolve_patch(recipe, facts, framework, reasons)
    recipe = _resolve_batch(recipe, facts, reasons)
    recipe = _resolve_precision(recipe, device, reasons)
    per_epoch = steps_per_epoch(recipe, facts)
    recipe, steps = _resolve_budget(recipe, per_epoch, reasons)
    items = items_of(split.train)
    need = estimate_bytes(items, framework, facts.pixels)
    runtime = choose_runtime(recipe, device, items, need, cache_folder, reasons)
    messages = (*about_start, *advise(recipe, facts))
    plan = Plan(recipe, reasons, facts, runtime, steps, per_epoch, messages=messages)
    return replace(plan, estimate=measure_steps(plan, framework)) if probe else plan


def choose_patch(recipe: Recipe, split: Split, looks: Looks, most: int | None = None) -> tuple[tuple[int, ...], str]:
    """Patch that a plan would choose, and why, for a recipe whose patch is auto.

    Parameters
    ----------
    looks : dict
        Takes up what is seen in label images.
    most : int, optional
        Pixels along Y and X, at most.

    Raises
    ------
    ConfigError, DataError, ResourceError
        As `make_plan`.
    """
    choose_device(recipe.training.device)
    facts = fingerprint(recipe, split, looks, count_classes=False)
    reasons: dict[str, str] = {}
    recipe = resolve_network(_resolve_framework(recipe, facts, reasons), facts, reasons, most)
    if recipe.data.patch == "auto":
        recipe = _resolve_patch(recipe, facts, framework_of(recipe, facts), reasons, most)
    return recipe.patch_size, reasons["data.patch"]


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
        ratio = depth_ratio(recipe, facts.voxel_size)
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


def _resolve_patch(
    recipe: Recipe, facts: Facts, framework: Framework, reasons: dict[str, str], most: int | None = None
) -> Recipe:
    divisor = divisor_of(framework)
    dims = recipe.data.dimensions
    patch = recipe.data.patch
    if patch == "auto":
        patch = _patch_by_goal(facts, divisor, most)
        reasons["data.patch"] = (
            f"median image {by_sides(facts.shape[-dims:])}, multiple of {by_sides(divisor)} for the network"
        )
    require_multiple(patch, divisor)
    return recipe.override({"data.patch": list(patch)})


def _resolve_batch(recipe: Recipe, facts: Facts, reasons: dict[str, str]) -> Recipe:
    if recipe.training.batch != "auto":
        return recipe
    pixels = PATCH_PIXELS[recipe.data.dimensions]
    batch = int(np.clip(pixels // int(np.prod(recipe.patch_size)), 2, 16))
    reason = f"{pixels} pixels per batch"
    if isinstance(recipe.network, DynUNet):
        batch, reason = batch_within_budget(recipe, facts)
    reasons["training.batch"] = reason
    return recipe.override({"training.batch": batch})


def _patch_by_goal(facts: Facts, divisor: tuple[int, ...], most: int | None) -> tuple[int, ...]:
    """A patch that has proved good, within the median image."""
    dims = len(divisor)
    largest = shape_within(facts, dims, most)
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
    half = computes_in_bf16(device)
    reasons["training.precision"] = f"{device} computes fastest in bf16" if half else f"{device} computes best in fp32"
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
