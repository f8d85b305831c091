"""Automatic values of the network, its patch where it configures itself, and its batch; with reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from im2im_core.engine.networks import behind_stem
from im2im_core.engine.networks.monai_nets import flat_levels, levels_of
from im2im_core.engine.planning import words
from im2im_core.engine.planning.unet import (
    FEWEST_MULTIPLE,
    MOST_FILTERS,
    PATCHES,
    Topology,
    choose_batch,
    choose_filters,
    choose_kernels,
    choose_strides,
    largest_patch,
    values_held,
)
from im2im_core.errors import ConfigError
from im2im_core.recipe.network import DynUNet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from im2im_core.engine.planning.unet import Sizes
    from im2im_core.plans import Facts
    from im2im_core.recipe import Recipe


def resolve_network(recipe: Recipe, facts: Facts, reasons: dict[str, str], most: int | None = None) -> Recipe:
    """Recipe whose network is given in numbers; the patch too where the network configures itself.

    Parameters
    ----------
    most : int, optional
        Pixels of a patch along Y and X, at most.
    """
    network = recipe.network
    if isinstance(network, DynUNet):
        if network.filters == "auto":
            return _configure(recipe, network, facts, reasons, most)
        return _flatten(recipe, network, facts, reasons)
    if getattr(network, "anisotropy", None) != "auto":
        return recipe
    levels = len(network.channels)  # type: ignore[union-attr]
    reasons["network.anisotropy"] = words.depth(recipe, facts)
    seen = behind_stem(facts.voxel_size, network.stem)
    return recipe.override({"network.anisotropy": flat_levels("auto", levels, recipe.data.dimensions, seen)})


def _flatten(recipe: Recipe, network: DynUNet, facts: Facts, reasons: dict[str, str]) -> Recipe:
    """Recipe whose levels, which are given, leave Z as it is until the voxel is within a factor of two of a cube."""
    seen = behind_stem(facts.voxel_size, network.stem)
    kernels, strides = levels_of(network, len(network.filters), recipe.data.dimensions, seen)
    automatic = [name for name in ("strides", "kernels") if getattr(network, name) == "auto"]
    reasons.update({f"network.{name}": words.depth(recipe, facts) for name in automatic})
    return recipe.override({"network.kernels": kernels, "network.strides": strides})


# ---- the network configures itself ----


@dataclass(frozen=True)
class _Rules:
    """What the settings of a network and the voxels of the images leave to the rules."""

    network: DynUNet
    spacing: tuple[float, ...]
    """Size of a pixel that the network sees along each axis."""
    budget: int
    """Values that a step may hold."""

    def topology(self, patch: Sizes, exact: bool = False) -> Topology:
        """Strides and kernels for a patch; those that the settings give are kept."""
        strides, kernels = self.network.strides, self.network.kernels
        if strides == "auto":
            strides = choose_strides(patch, self.spacing, exact)
            if kernels != "auto":
                strides = (*strides, *[(1,) * len(patch)] * len(kernels))[: len(kernels)]
        return Topology(strides, choose_kernels(patch, self.spacing, strides) if kernels == "auto" else kernels)

    def filters(self, topology: Topology) -> Sizes:
        """Channels of each level."""
        most = self.network.most_filters
        most = MOST_FILTERS[len(self.spacing)] if most == "auto" else most
        return choose_filters(self.network.first_filters, most, len(topology.strides))

    def held(self, patch: Sizes) -> int:
        """Values that a step holds for one patch."""
        topology = self.topology(patch)
        return values_held(patch, self.filters(topology), topology.strides)

    def patch(self, image: Sizes) -> Sizes:
        """Largest patch of which a step has room for enough."""
        room = self.budget // PATCHES[len(image)]
        return largest_patch(
            image, self.spacing, lambda size: self.topology(size).divisor, lambda size: self.held(size) <= room
        )


def _configure(
    recipe: Recipe, network: DynUNet, facts: Facts, reasons: dict[str, str], most: int | None = None
) -> Recipe:
    """Recipe with levels and patch from median size, voxel size and the budget."""
    dims, given = recipe.data.dimensions, recipe.data.patch
    folded = (*(1,) * (dims - 2), network.stem, network.stem)
    rules = _Rules(network, _spacing(facts, folded), round(network.budget * 1e6))
    whole = shape_within(facts, dims, most) if given == "auto" else given
    seen = tuple(max(n // f, 1) for n, f in zip(whole, folded, strict=True))
    if given == "auto":
        seen = rules.patch(seen)
    elif network.strides == "auto":
        require_multiple(given, [*folded[:-2], *(FEWEST_MULTIPLE * f for f in folded[-2:])])
    topology = rules.topology(seen, exact=given != "auto")
    resolved = recipe.override(
        {
            "network.filters": rules.filters(topology),
            "network.strides": topology.strides,
            "network.kernels": topology.kernels,
            "data.patch": [n * f for n, f in zip(seen, folded, strict=True)] if given == "auto" else given,
        }
    )
    reasons.update(words.reasons(recipe, resolved, facts))
    return resolved


def batch_within_budget(recipe: Recipe, facts: Facts) -> tuple[int, str]:
    """Patches per step of a recipe whose DynUNet and patch are given in numbers, and why."""
    network = recipe.network
    assert isinstance(network, DynUNet)
    assert network.filters != "auto"
    assert network.strides != "auto"
    patch = recipe.patch_size
    seen = (*patch[:-2], *(n // network.stem for n in patch[-2:]))
    held, budget = values_held(seen, network.filters, network.strides), round(network.budget * 1e6)
    batch = choose_batch(patch, held, budget, facts.pixels)
    return batch, words.batch(batch, patch, held, budget, facts)


def require_multiple(patch: Sizes, divisor: Sequence[int]) -> None:
    """Do nothing where `patch` is a multiple of `divisor`.

    Raises
    ------
    ConfigError
        It is not; the nearest sizes that are stand in the cure.
    """
    if all(p % d == 0 for p, d in zip(patch, divisor, strict=True)):
        return
    fits = [(p // d * d or d, -(-p // d) * d) for p, d in zip(patch, divisor, strict=True)]
    wanted = " x ".join(f"{a} or {b}" if a != b else str(a) for a, b in fits)
    raise ConfigError(
        f"data.patch {tuple(patch)} is not divisible by {tuple(divisor)}, which the network needs", f"Use {wanted}"
    )


def shape_within(facts: Facts, dims: int, most: int | None) -> Sizes:
    """Median size of the images along [Z], Y, X; at most `most` pixels along Y and X."""
    shape = facts.shape[-dims:]
    return shape if most is None else (*shape[:-2], *(min(n, most) for n in shape[-2:]))


def _spacing(facts: Facts, folded: Sizes) -> tuple[float, ...]:
    """Size of a pixel that the network sees along each axis; as of cubes where the images do not say."""
    known = [s for s in facts.voxel_size[-len(folded) :] if s]
    sizes = known if len(known) == len(folded) else [1.0] * len(folded)
    return tuple(s * f for s, f in zip(sizes, folded, strict=True))
