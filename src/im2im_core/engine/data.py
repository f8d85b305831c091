"""From samples to batches: entries in a cache, patches by (seed, step, index)."""

from __future__ import annotations

import logging
import math
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from im2im_core._base import Config
from im2im_core.engine.augment_zoom import move_into
from im2im_core.engine.cache import DiskStore, MemoryStore, RollingStore, Store, key_of
from im2im_core.engine.prepare import Entry, Item, labels_are_targets, prepare, read_time
from im2im_core.engine.sampling import (
    ForegroundIndex,
    batch_generator,
    draw_patch,
    index_foreground,
    random_rows,
    window_around,
)
from im2im_core.normalize import Scaling, measure
from im2im_core.samples import TARGET

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from im2im_core.engine.augment import Augmenter
    from im2im_core.engine.augment_zoom import Move
    from im2im_core.engine.frameworks.contract import Framework, TargetSpec
    from im2im_core.recipe import Recipe

SOURCES = tuple(map(np.dtype, ("u1", "i1", "u2", "i2", "f4")))
"""Types of images that compiled code computes with in float32 without loss."""
MIXED = tuple(map(np.dtype, ("u1", "u2", "f4")))
"""Types of targets that it interpolates."""
DAMAGED = (OSError, EOFError, UnpicklingError, ValueError, LookupError, AttributeError, ImportError)
"""What compiled code raises whose files on disk are damaged, or cannot be written."""
log = logging.getLogger(__name__)
Window = tuple[int, int, int]


@dataclass(frozen=True)
class StreamSettings:
    """What decides the patches of a stream, apart from the images."""

    seed: int
    batch: int
    accumulate: int
    patch: Window
    """Along Z, Y, X; Z is 1 for planes."""
    window: Window
    """Size that is cut, at least the patch: room for free rotation and magnification."""
    foreground: float
    planes: bool
    """Whether Z is dropped (2D networks)."""
    rank: int = 0
    ranks: int = 1


class PatchStream(Dataset[list[dict[str, Tensor]]]):
    """Batches by step number: item `s` is the list of micro-batches of step `s`.

    A pure function of (seed, step, index): front end, worker count and resume do not change it.
    """

    def __init__(
        self,
        store: Store,
        shapes: list[Window],
        foregrounds: list[ForegroundIndex],
        targets: tuple[TargetSpec, ...],
        settings: StreamSettings,
        active: ActivePart | None = None,
        augmenter: Augmenter | None = None,
    ) -> None:
        """With an `augmenter` patches are moved as they are cut, else they come as large as the window."""
        self.store, self.shapes, self.foregrounds, self.augmenter = store, shapes, foregrounds, augmenter
        self.targets, self.settings, self.active = targets, settings, active
        self.compiles = True
        """Whether compiled code has not failed yet."""
        self.linear = tuple(spec.name for spec in targets if spec.interpolation == "linear")
        # Larger images are drawn more often, but not in proportion: rare small ones must be seen too.
        weights = np.sqrt([float(np.prod(s)) for s in shapes])
        self.chances = np.cumsum(weights / weights.sum())

    def __len__(self) -> int:
        return 2**40

    def divide(self, rank: int, ranks: int) -> None:
        """Deliver the part of each step that belongs to process `rank` of `ranks`."""
        self.settings = replace(self.settings, rank=rank, ranks=ranks)

    def __getitem__(self, step: int) -> list[dict[str, Tensor]]:
        s = self.settings
        first = s.rank * s.accumulate * s.batch
        return [self._batch(step, first + k * s.batch) for k in range(s.accumulate)]

    def _batch(self, step: int, first: int) -> dict[str, Tensor]:
        s = self.settings
        active = self.active.at(step) if self.active else None
        moves: list[Move | None] = [None] * s.batch
        size, moved = s.window, {}
        if self.augmenter:
            generator = batch_generator(s.seed, step, first // s.batch)
            moves[:], moved["motion"] = self.augmenter.moves(s.batch, generator, s.patch)
            size = s.patch
        batch: dict[str, NDArray[Any]] = {}
        for i, (numbers, move) in enumerate(zip(random_rows(s.seed, step, first, s.batch), moves, strict=True)):
            entry, place = self._place(numbers, active)
            batch = batch or _blank(entry, s.batch, size, self.targets)
            out = {name: array[i] for name, array in batch.items()}
            if move is None:
                cut(entry, place, self.targets, False, out)
            else:
                self._move(out, entry, _middle(place, move.needed(s.patch, s.window)), move)
        images = {name: torch.from_numpy(array[:, :, 0] if s.planes else array) for name, array in batch.items()}
        return {**images, **moved}

    def _move(self, out: dict[str, NDArray[Any]], entry: Entry, place: tuple[slice, ...], move: Move) -> None:
        images = {name: array for name, array in entry.arrays.items() if name in out}
        plain = images["source"].dtype in SOURCES and all(images[name].dtype in MIXED for name in self.linear)
        move_directly = compiled_mover() if self.compiles and plain and "weight" not in images else None
        if move_directly:
            try:
                move_directly(out, images, entry.scaling, place, move, self.linear)
                return
            except DAMAGED as error:
                self.compiles = False
                log.warning("Patches are cut without compiled code from now on, which takes longer: %r", error)
        move_into(out, cut(entry, place, self.targets, False), move, self.linear)

    def _place(self, numbers: list[float], active: NDArray[np.int64] | None) -> tuple[Entry, tuple[slice, ...]]:
        """Entry and window of the patch that random numbers decide."""
        s = self.settings
        draw = draw_patch(numbers, self.shapes, self.chances, self.foregrounds, s.foreground, active)
        entry = self.store.get(draw.entry)
        return entry, window_around(draw.centre, s.window, s.patch, entry.shape)


@lru_cache(maxsize=1)
def compiled_mover() -> Callable[..., None] | None:
    """:func:`augment_direct.move_directly`; None where Numba cannot be imported, as it may not know a new NumPy yet."""
    try:
        from im2im_core.engine.augment_direct import move_directly
    except ImportError as error:
        log.warning("Patches are cut without compiled code, which takes longer: %s", error)
        return None
    return move_directly


@dataclass(frozen=True)
class ActivePart:
    """The entries a rolling cache holds at a step; every entry has its turn in each round."""

    count: int
    held: int
    period: int
    """Steps until the part changes."""
    seed: int

    def at(self, step: int) -> NDArray[np.int64]:
        """Numbers of the entries that may be drawn at `step`."""
        parts = -(-self.count // self.held)
        turn, part = divmod(step // self.period, parts)
        order = np.random.default_rng((self.seed, 2, turn)).permutation(self.count)
        return order[part * self.held : (part + 1) * self.held]


def cut(
    entry: Entry,
    place: tuple[slice, ...],
    targets: tuple[TargetSpec, ...],
    planes: bool,
    out: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, NDArray[Any]]:
    """Arrays of one window ``(C, [Z], Y, X)``: normalised source, targets and weight; weight 0 outside the image.

    Parameters
    ----------
    place : tuple of slice
        Window along Z, Y, X; beyond the image, source and targets are mirrored.
    out : mapping, optional
        Arrays ``(C, Z, Y, X)`` that are written to, such as the places of one patch in a batch.
    """
    arrays, shape = entry.arrays, entry.shape
    if out is None:
        size = tuple(p.stop - p.start for p in place)
        out = {name: array[0] for name, array in _blank(entry, 1, size, targets).items()}
    inside = tuple(
        slice(min(max(p.start, 0), n - 1), max(min(p.stop, n), 1)) for p, n in zip(place, shape, strict=True)
    )
    margins = [(i.start - p.start, p.stop - i.stop) for p, i in zip(place, inside, strict=True)]
    centre = (slice(None), *(slice(b, b + i.stop - i.start) for (b, _), i in zip(margins, inside, strict=True)))
    entry.scaling.apply(arrays["source"][(slice(None), *inside)], out=out["source"][centre])
    _mirror(out["source"], centre, margins)
    for spec in targets:
        out[spec.name][centre] = _same_depth(arrays[spec.name], shape)[(slice(None), *inside)]
        _mirror(out[spec.name], centre, margins)
    if any(margin != (0, 0) for margin in margins):
        out["weight"].fill(0)
    out["weight"][centre] = arrays["weight"][(slice(None), *inside)] if "weight" in arrays else 1
    return {name: array[:, 0] if planes else array for name, array in out.items()}


def _blank(entry: Entry, count: int, size: tuple[int, ...], targets: tuple[TargetSpec, ...]) -> dict[str, NDArray[Any]]:
    """Arrays ``(count, C, Z, Y, X)`` for that many windows of that size."""
    kinds = {spec.name: entry.arrays[spec.name].dtype for spec in targets}
    kinds = {"source": np.dtype(np.float32), **kinds, "weight": np.dtype(np.float32)}
    channels = {name: 1 if name == "weight" else len(entry.arrays[name]) for name in kinds}
    return {name: np.empty((count, channels[name], *size), kind) for name, kind in kinds.items()}


def _middle(place: tuple[slice, ...], size: tuple[int, ...]) -> tuple[slice, ...]:
    starts = [p.start + (p.stop - p.start - n) // 2 for p, n in zip(place, size, strict=True)]
    return tuple(slice(start, start + n) for start, n in zip(starts, size, strict=True))


def _same_depth(array: NDArray[Any], shape: Window) -> NDArray[Any]:
    """Targets of a projection have one plane for all; it is repeated as a view."""
    if array.shape[1] == shape[0]:
        return array
    return np.broadcast_to(array[:, :1], (array.shape[0], *shape))


def _mirror(image: NDArray[Any], centre: tuple[slice, ...], margins: list[tuple[int, int]]) -> None:
    """Mirror the `centre` of an image ``(C, Z, Y, X)`` into the margins around it."""
    sizes = [part.stop - part.start for part in centre[1:]]
    if any(max(margin) > size for margin, size in zip(margins, sizes, strict=True)):  # mirrored more than once
        image[...] = np.pad(image[centre], [(0, 0), *margins], mode="symmetric")
        return
    for axis, ((before, after), size) in enumerate(zip(margins, sizes, strict=True), start=1):
        lead, end = (slice(None),) * axis, before + size
        back = (*lead, slice(None, None, -1))
        if before:
            image[(*lead, slice(0, before))] = image[(*lead, slice(before, 2 * before))][back]
        if after:
            image[(*lead, slice(end, None))] = image[(*lead, slice(end - after, end))][back]


# ---- building ----


def target_statistics(items: list[Item], recipe: Recipe, limit: int = 64) -> Scaling | None:
    """Scaling of image targets: mean offset and scale over evenly chosen training images; None for labels."""
    if labels_are_targets(recipe) or not items:
        return None
    chosen = items[:: max(1, len(items) // limit)]
    found = [_target_scaling(i, recipe) for i in chosen]
    return Scaling(
        tuple(np.mean([f.offset for f in found], axis=0).tolist()),
        tuple(np.mean([f.scale for f in found], axis=0).tolist()),
    )


def _target_scaling(item: Item, recipe: Recipe) -> Scaling:
    target = item.sample.targets[TARGET]
    return measure(
        target,
        recipe.data.target_normalization,
        min(item.time, target.info.shape[0] - 1),
        recipe.data.invalid_pixels,
        item.sample.weight,
    )


@dataclass(frozen=True)
class Maker:
    """Prepares entries by number, here or in a worker process."""

    items: list[Item]
    recipe: Recipe
    framework: Framework
    scaling: Scaling | None

    def __call__(self, number: int) -> Entry:
        """Prepare entry `number`."""
        return prepare(self.items[number], self.recipe, self.framework, self.scaling)

    def __getstate__(self) -> dict[str, Any]:
        # Encoding needs the settings of the framework, not its weights, which may lie on a device.
        return {**vars(self), "framework": deepcopy(self.framework).to("meta")}


def build_store(
    kind: str,
    items: list[Item],
    recipe: Recipe,
    framework: Framework,
    scaling: Scaling | None,
    folder: Path,
    progress: Callable[[int], None],
    held: int = 1,
) -> Store:
    """Store of prepared entries of the `kind` that the plan chose: memory, disk or rolling."""
    make = Maker(items, recipe, framework, scaling)
    if kind == "memory":
        return MemoryStore(len(items), make, progress)
    if kind == "rolling":
        return RollingStore(held, make)
    return DiskStore(folder, [entry_key(i, recipe, scaling) for i in items], make, progress)


def entry_key(item: Item, recipe: Recipe, scaling: Scaling | None) -> str:
    """Cache key of an item: its images and all settings that change what is prepared."""
    sample, data = item.sample, recipe.data
    images = [sample.source, *sample.targets.values(), *([sample.weight] if sample.weight else [])]
    settings = (
        data.normalization,
        data.rescale,
        data.labelling,
        data.invalid_pixels,
        data.dimensions,
        recipe.framework,
    )
    facts = [str((i.info.shape, i.info.voxel_size)) for i in images]
    return key_of(
        *(i.info.identity for i in images),
        *facts,
        str(item.time),
        str(item.validation),
        str(scaling),
        *(s.model_dump_json() if isinstance(s, Config) else str(s) for s in settings),
    )


def index_of(item: Item, recipe: Recipe, entry: Entry, seed: int) -> ForegroundIndex:
    """Pixels of an entry that patches may be centred on."""
    weight = entry.arrays.get("weight")
    labels = None
    if labels_are_targets(recipe) and TARGET in item.sample.targets:
        # Targets of a projection have one plane for all.
        labels = np.broadcast_to(foreground_of(entry, item, recipe), entry.shape)
    return index_foreground(labels, None if weight is None else np.asarray(weight[0]), seed)


def foreground_of(entry: Entry, item: Item, recipe: Recipe) -> NDArray[Any]:
    """Class of every pixel ``(Z, Y, X)``; instances count as one class."""
    if recipe.task == "semantic_segmentation":
        return np.asarray(entry.arrays[TARGET][0])
    first = next(a for n, a in entry.arrays.items() if n not in ("source", "weight", "truth"))
    return np.asarray(first[0] > 0)


def estimate_bytes(items: list[Item], framework: Framework, pixels: int) -> int:
    """Bytes that the prepared entries will take, from sizes alone.

    Parameters
    ----------
    pixels : int
        Pixels of all items together after rescaling.
    """
    per_target = sum(t.channels * np.dtype(t.dtype).itemsize for t in framework.targets)
    before = total = 0
    for item in items:
        info, weighted = item.sample.source.info, item.sample.weight is not None
        size = math.prod(info.shape[2:])
        before += size
        total += size * (info.shape[1] * info.dtype.itemsize + per_target + 4 * weighted)
    return round(total * pixels / max(before, 1))


__all__ = [
    "ActivePart",
    "PatchStream",
    "StreamSettings",
    "build_store",
    "cut",
    "estimate_bytes",
    "index_of",
    "read_time",
    "target_statistics",
]
