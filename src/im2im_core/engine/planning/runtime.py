"""What does not change what is learned: device, threads, processes, and where prepared images wait."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil

from im2im_core.engine.cache import free_bytes
from im2im_core.engine.data import entry_key, target_statistics
from im2im_core.plans import Runtime

if TYPE_CHECKING:
    from pathlib import Path

    from im2im_core.engine.prepare import Item
    from im2im_core.recipe import Recipe

DISK_PART = 0.9
"""Part of the free disk that prepared images may take."""


def choose_runtime(
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
