"""Why a network got its levels, and its patch and batch their sizes: sentences for a person who never built one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from im2im_core.engine.networks import behind_stem
from im2im_core.engine.planning.unet import COARSE, DATA_PART, PATCHES, SMALLEST_EDGE
from im2im_core.recipe.network import DynUNet

if TYPE_CHECKING:
    from im2im_core.image import VoxelSize
    from im2im_core.plans import Facts
    from im2im_core.recipe import Recipe
    from im2im_core.recipe.network import PerLevel


def by_sides(sizes: Sequence[int]) -> str:
    """Sizes as a person writes them."""
    return " x ".join(map(str, sizes))


def depth(recipe: Recipe, facts: Facts) -> str:
    """How deep a voxel is."""
    stem = recipe.network.stem
    seen = behind_stem(facts.voxel_size, stem)
    if recipe.data.dimensions == 2:
        return "planes have no depth"
    if None in seen:
        return "the voxel size is not known, voxels are taken as cubes"
    behind = f" behind the stem of {stem}" if stem > 1 else ""
    return f"voxels are {depth_ratio(recipe, seen):.1f} times as deep as wide{behind}"


def depth_ratio(recipe: Recipe, voxel_size: VoxelSize) -> float:
    """Depth of a voxel relative to its width; 1 for planes, and where it is not known."""
    z, y, x = voxel_size
    return z / math.sqrt(y * x) if z and y and x and recipe.data.dimensions == 3 else 1.0


def reasons(before: Recipe, after: Recipe, facts: Facts) -> dict[str, str]:
    """Setting -> why it has its value, for all of the network and its patch that were automatic `before`."""
    old, new = before.network, after.network
    assert isinstance(old, DynUNet)
    assert isinstance(new, DynUNet)
    strides, kernels = new.strides, new.kernels
    assert strides != "auto"
    assert kernels != "auto"
    found = {"network.filters": _filters(after, strides)}
    if old.strides == "auto":
        odd = any(edge % 2 and edge >= 2 * SMALLEST_EDGE for edge in _lowest(after, strides))
        found["network.strides"] = _strides(strides, odd, depth(before, facts))
    if old.kernels == "auto":
        found["network.kernels"] = _kernels(kernels)
    if before.data.patch == "auto":
        found["data.patch"] = _patch(after, facts, _divisor(strides, new.stem))
    return found


def _divisor(strides: PerLevel, stem: int) -> list[int]:
    """What a patch must be a multiple of."""
    product = [math.prod(column) for column in zip(*strides, strict=True)]
    return [*product[:-2], *(d * stem for d in product[-2:])]


def _lowest(recipe: Recipe, strides: PerLevel) -> list[int]:
    """Sizes of a patch in the lowest level."""
    return [p // d for p, d in zip(recipe.patch_size, _divisor(strides, recipe.network.stem), strict=True)]


def _filters(recipe: Recipe, strides: PerLevel) -> str:
    network = recipe.network
    assert isinstance(network, DynUNet)
    return (
        f"{len(strides)} levels, the lowest of {by_sides(_lowest(recipe, strides))} pixels; "
        f"{network.first_filters} channels, doubled from level to level up to {network.filters[-1]}"
    )


def _strides(strides: PerLevel, odd: bool, deep: str) -> str:
    """How often each axis is halved, and why Z waits; `odd` where halving ended early."""
    axes = "ZYX"[-len(strides[0]) :]
    halved = {axis: sum(level[n] > 1 for level in strides) for n, axis in enumerate(axes)}
    text = f"an axis is halved while at least {SMALLEST_EDGE} pixels are left: {_times(halved)}"
    text += "; an odd number of pixels is not halved" if odd else ""
    if "Z" not in halved:
        return text
    first = next((n for n, level in enumerate(strides, start=1) if level[0] > 1), 0)
    return f"{text}; {deep}" + (f", so Z waits until level {first}" if first > 2 else "")


def _times(halved: dict[str, int]) -> str:
    """How often each axis is halved: ``Z once, Y and X 4 times``."""
    few = {0: "never", 1: "once", 2: "twice"}
    by_count: dict[int, list[str]] = {}
    for axis, count in halved.items():
        by_count.setdefault(count, []).append(axis)
    return ", ".join(f"{' and '.join(names)} {few.get(n, f'{n} times')}" for n, names in by_count.items())


def _kernels(kernels: PerLevel) -> str:
    flat = [n for n, level in enumerate(kernels, start=1) if 1 in level]
    if not flat:
        return "neighbours along all axes lie about as close"
    where = f"level {flat[0]}" if len(flat) == 1 else f"levels {flat[0]} to {flat[-1]}"
    return f"1 where an axis has a single pixel, or pixels {COARSE:g} times as large as the finest: in {where}"


def _patch(recipe: Recipe, facts: Facts, divisor: Sequence[int]) -> str:
    patch = recipe.patch_size
    image = facts.shape[-len(patch) :]
    multiple = f"a multiple of {by_sides(divisor)}, as the network needs"
    if all(p > n - d for p, n, d in zip(patch, image, divisor, strict=True)):
        return f"the median image, {by_sides(image)}, to {multiple}"
    unit = "micrometres" if all(facts.voxel_size[-len(patch) :]) else "pixels"
    return (
        f"of the median image, {by_sides(image)}, the largest part with equal sides in {unit} "
        f"of which network.budget has room for {PATCHES[len(patch)]}; {multiple}"
    )


def batch(count: int, patch: Sequence[int], held: int, budget: int, facts: Facts) -> str:
    """Why a step sees `count` patches.

    Parameters
    ----------
    held : int
        Values that a step holds for one patch.
    """
    room, part = budget // held, int(DATA_PART * facts.pixels) // math.prod(patch)
    if count == room:
        return f"network.budget has room for {room} patches of {held / 1e6:.2g} million values each"
    if count == part:
        return f"{DATA_PART:.0%} of the pixels of the training images; network.budget has room for {room}"
    scarce = f"network.budget has room for {room}" if room < count else f"{DATA_PART:.0%} of the pixels are {part}"
    return f"the fewest; {scarce}"
