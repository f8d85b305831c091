"""What a plan tells a person before the start: no validation, empty targets, unknown voxels, small images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from im2im_core.plans import Advice

if TYPE_CHECKING:
    from im2im_core.plans import Facts
    from im2im_core.recipe import Recipe


def advise(recipe: Recipe, facts: Facts) -> tuple[Advice, ...]:
    """What a person should know before the training starts."""
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
    if empty and empty == seen:
        text = "Nothing is labelled in any of the targets: the network can only learn background"
        return [Advice("nothing_labelled", text, "Check the labels")]
    found = []
    if empty:
        text = f"Nothing is labelled in {empty} of {seen} targets: they teach background only"
        found.append(Advice("nothing_labelled", text, "Check that this is meant"))
    if not facts.validation_labelled:
        text = "Nothing is labelled in the validation: its figures cannot tell a good model from a bad one"
        cure = "Name images with objects in data.split.validation_names, or change data.split.seed"
        found.append(Advice("validation_not_labelled", text, cure))
    return found


def _about_voxels(recipe: Recipe, facts: Facts) -> list[Advice]:
    z, y, _ = facts.voxel_size
    if y is None:
        text = "The images have no voxel size; predictions will assume that others have the same"
        return [Advice("no_voxel_size", text, "Set data.voxel_size where you know it")]
    if z is None and recipe.data.dimensions == 3 and facts.shape[0] > 1:
        text = "The stacks do not say how far apart their planes are: as far as their pixels?"
        return [Advice("no_voxel_size", text, "Set data.voxel_size where they are not")]
    return []
