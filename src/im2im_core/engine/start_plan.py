"""What a plan says of the model that a training starts from: that it fits, its hash, and what should be known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from im2im_core.engine.start import begin_from, hold_back, learning_rates
from im2im_core.engine.start_weights import read_start
from im2im_core.errors import DataError, Im2ImError
from im2im_core.finetuning import located
from im2im_core.plans import Advice
from im2im_core.recipe.framework import FcnSettings
from im2im_core.recipe.start import TrainedModel

if TYPE_CHECKING:
    from pathlib import Path

    from im2im_core.engine.frameworks.contract import Framework
    from im2im_core.inference import InputDescription
    from im2im_core.plans import Facts
    from im2im_core.recipe import Recipe

ALIKE = 1.5
"""Ratio of sizes up to which nothing is said: rescaling by less helps little."""


def settle_start(
    recipe: Recipe, framework: Framework, facts: Facts, root: Path | None, reasons: dict[str, str]
) -> tuple[Recipe, tuple[Advice, ...]]:
    """Recipe with the hash of the weights it starts from, and what a person should know about them.

    The weights are put into `framework` and held back there as they will be, so that what does not fit is
    said now.

    Raises
    ------
    DataError, TrustError, ConfigError
        As `begin_from` and `hold_back`; or the images have more classes or channels than the last layers.
    """
    settings = recipe.training.start
    if not isinstance(settings, TrainedModel):
        return recipe, ()
    _require_room(recipe, facts)
    begun = begin_from(framework, recipe, facts.voxel_size, root)
    held = hold_back(framework, settings)
    rates = set(learning_rates(framework, settings, recipe.data.dimensions).values())
    assert begun is not None
    words = [begun.text, held, f"learning rates from {min(rates):.2g} to {max(rates):.2g} times" if rates else ""]
    reasons["training.start"] = "; ".join(filter(None, words))
    recipe = recipe.override({"training.start.sha256": begun.sha256})
    seen = _seen_by(located(settings.model, root))
    return recipe, () if seen is None else _about_sizes(recipe, facts, seen)


def record_start(recipe: Recipe, root: Path) -> Recipe:
    """Recipe with the hash of the weights it starts from, where it does not have it yet.

    Raises
    ------
    DataError, TrustError, ConfigError
        As `read_start`.
    """
    settings = recipe.training.start
    if not isinstance(settings, TrainedModel) or settings.sha256:
        return recipe
    return recipe.override({"training.start.sha256": read_start(located(settings.model, root)).sha256})


def _require_room(recipe: Recipe, facts: Facts) -> None:
    """Do nothing where the framework has a class, or a channel, for all that the images have."""
    framework = recipe.framework
    if not isinstance(framework, FcnSettings):
        return
    segments = framework.output == "segmentation"
    name, what = ("classes", "classes") if segments else ("output_channels", "target channels")
    has, found = getattr(framework, name), facts.classes if segments else facts.target_channels
    if isinstance(has, int) and (found > has or (found != has and not segments)):
        raise DataError(
            f"The images have {found} {what}, the model that is taught on makes {has}",
            f"Set training.start.output_layer to new and framework.{name} to {found}",
        )


def _seen_by(source: Path) -> InputDescription | None:
    """What the model was used to see, where it is a package of ours."""
    from im2im_core.bundle import open_bundle

    try:
        bundle = open_bundle(source)
        return bundle.inference.input if bundle.is_ours else None
    except (Im2ImError, OSError):  # a file with weights alone
        return None


def _about_sizes(recipe: Recipe, facts: Facts, seen: InputDescription) -> tuple[Advice, ...]:
    """Where objects, or else voxels, have another size than those that the model knows."""
    if recipe.data.rescale.kind != "none":
        return ()
    if facts.object_diameter and seen.object_diameter:
        if not _differ(facts.object_diameter, seen.object_diameter):
            return ()
        text = (
            f"Objects are {facts.object_diameter:.3g} pixels wide here; the model that is taught on knows "
            f"{seen.object_diameter:.3g}"
        )
        cure = f"Set data.rescale.kind to object_size and data.rescale.diameter to {seen.object_diameter:.3g}"
        return (Advice("other_size", text, cure),)
    here, there = facts.voxel_size[1], seen.voxel_size[1]
    if not here or not there or not _differ(here, there):
        return ()
    text = f"Pixels are {here:.3g} µm wide here; the model that is taught on knows {there:.3g} µm"
    sizes = [round(known or mine or there, 4) for known, mine in zip(seen.voxel_size, facts.voxel_size, strict=True)]
    cure = f"Set data.rescale.kind to voxel_size and data.rescale.voxel_size to {sizes}"
    return (Advice("other_size", text, cure),)


def _differ(one: float, other: float) -> bool:
    return max(one / other, other / one) > ALIKE
