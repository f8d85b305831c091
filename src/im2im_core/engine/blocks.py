"""A foreign model over arrays of any size: equal blocks with halo, put together as if it had seen the whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.engine.reach import measured_reach
from im2im_core.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.bundle.foreign import AxisSpec, TensorSpec
    from im2im_core.engine.foreign import Arrays, ForeignModel

OnBlock = Callable[[int, int], None]
OnNote = Callable[[str], None]
LARGEST = {1: 4096, 2: 512, 3: 128}
"""Size of a block along each axis where the model takes any size, by number of spatial axes."""
GRID = 16
"""Blocks of one fixed size begin at multiples of it: most networks halve the image up to four times."""


@dataclass(frozen=True)
class Span:
    """Part of an axis that one block reads, and the part of it that the block decides."""

    read: slice
    decided: slice


@dataclass(frozen=True)
class Cut:
    """How one spatial axis is divided into blocks that lie inside of it.

    At the rim of the image a block ends where the image ends, so that the network fills up what
    is beyond it as it does for a whole image. Blocks begin at multiples of `step`, so that the
    network halves each of them at the same pixels as the whole image.
    """

    size: int
    block: int
    halo: int = 0
    step: int = 1

    @property
    def padded(self) -> int:
        """Size with the mirrored pixels at the end that let all blocks begin at multiples of the step."""
        return self.block + max(0, -(-(self.size - self.block) // self.step)) * self.step

    @property
    def core(self) -> int:
        """Pixels from one block to the next."""
        free = self.block - 2 * self.halo
        return free // self.step * self.step or free

    @property
    def spans(self) -> list[Span]:
        """The blocks, from the first pixel to the last."""
        count = 1 + max(0, -(-(self.padded - self.block) // self.core))
        found = []
        for number in range(count):
            start = min(number * self.core, self.padded - self.block)
            first = 0 if number == 0 else number * self.core + self.halo
            last = self.size if number == count - 1 else (number + 1) * self.core + self.halo
            found.append(Span(slice(start, start + self.block), slice(first, min(last, self.size))))
        return found


def run_in_blocks(
    model: ForeignModel,
    ready: Arrays,
    on_block: OnBlock | None = None,
    *,
    tile: tuple[int, ...] | None = None,
    on_note: OnNote | None = None,
) -> Arrays:
    """Outputs of `model` for preprocessed inputs of any size.

    Parameters
    ----------
    on_block : callable, optional
        Told before each block, and at the end, how many are done, of how many.
    tile : tuple of int, optional
        Size of a block along the spatial axes; the next larger one that the model takes is used.
    on_note : callable, optional
        Told in words where blocks cannot equal the whole.

    Raises
    ------
    ConfigError
        The outputs do not lie on the grid of the inputs, a block would be all halo, or the model takes blocks of
        one other size.
    """
    tell = on_block or _ignore
    axes = _spatial_axes(model, ready)
    blocks = _blocks(axes, tile)
    if all(blocks[name] == size for name, (_, size) in axes.items()):
        tell(0, 1)
        whole = model.forward(ready)
        tell(1, 1)
        return whole
    cuts = _cuts(model, ready, axes, blocks, on_note or _silent)
    padded = {s.name: np.pad(ready[s.name], _padding(s, cuts), mode="symmetric") for s in model.inputs}
    total = math.prod(len(cut.spans) for cut in cuts.values())
    results: Arrays = {}
    for number, spans in enumerate(product(*(cut.spans for cut in cuts.values()))):
        tell(number, total)
        place = dict(zip(cuts, spans, strict=True))
        parts = model.forward({s.name: padded[s.name][_read(s, place)] for s in model.inputs})
        for spec in model.outputs:
            _put(results, spec, parts[spec.name], cuts, place)
    tell(total, total)
    return results


def _ignore(done: int, total: int) -> None:
    """Nobody listens."""


def _silent(text: str) -> None:
    """Nobody listens."""


# ---- how the axes are cut ----


def _spatial_axes(model: ForeignModel, ready: Arrays) -> dict[str, tuple[AxisSpec, int]]:
    """Spatial axes of the inputs by name, with the size of the arrays along them."""
    axes: dict[str, tuple[AxisSpec, int]] = {}
    for spec in model.inputs:
        for axis, size in zip(spec.axes, ready[spec.name].shape, strict=True):
            if axis.kind != "space":
                continue
            known = axes.setdefault(axis.name, (axis, size))
            if known[1] != size:
                raise ConfigError(
                    f"The inputs differ in size along {axis.name}: {known[1]} and {size}", "Give inputs of one size"
                )
            if known[0].reference:
                axes[axis.name] = (axis, size)
    return axes


def _blocks(axes: Mapping[str, tuple[AxisSpec, int]], tile: tuple[int, ...] | None) -> dict[str, int]:
    if tile is not None and len(tile) != len(axes):
        raise ConfigError(
            f"tile has {len(tile)} numbers; the model works along {', '.join(axes)}", "Give one number for each"
        )
    sizes = tile or [LARGEST.get(len(axes), 128)] * len(axes)
    blocks = {}
    for (name, (axis, size)), wanted in zip(axes.items(), sizes, strict=True):
        if tile is not None and axis.size not in (None, wanted):
            raise ConfigError(
                f"tile is {wanted} along {name}; the model takes {axis.size} pixels only", "Leave tile out"
            )
        blocks[name] = axis.fit(min(size, wanted))
    return blocks


def _cuts(
    model: ForeignModel,
    ready: Arrays,
    axes: Mapping[str, tuple[AxisSpec, int]],
    blocks: dict[str, int],
    note: OnNote,
) -> dict[str, Cut]:
    """Cut of each axis; where the package names no halo, it is measured how far the network looks."""
    halos = {name: _declared_halo(model, name) for name in axes}
    unknown = [name for name, (_, size) in axes.items() if size > blocks[name] and not halos[name]]
    for name, reach in measured_reach(model, ready, blocks, unknown).items() if unknown else ():
        halos[name] = reach if reach is not None else blocks[name] // 4
        if reach is None:
            note(
                f"The network looks further than a block of {blocks[name]} pixels along {name}, and the package "
                "names no halo: seams between blocks may show"
            )
    return {name: _cut(axis, size, blocks[name], halos[name]) for name, (axis, size) in axes.items()}


def _declared_halo(model: ForeignModel, name: str) -> int:
    """Pixels of the input along an axis that lie in the halo of an output."""
    found = [a.halo / _factor(model, a) for s in model.outputs for a in s.axes if a.name == name and a.halo]
    return math.ceil(max(found, default=0))


def _factor(model: ForeignModel, axis: AxisSpec) -> Fraction:
    """Pixels of an output per pixel of the input that its axis refers to."""
    if not axis.reference:
        return Fraction(1)
    tensor, name = axis.reference
    referred = next((a for s in model.inputs if s.name == tensor for a in s.axes if a.name == name), axis)
    return Fraction(referred.scale / axis.scale).limit_denominator(1000)


def _cut(axis: AxisSpec, size: int, block: int, halo: int) -> Cut:
    step = axis.step if axis.size is None else GRID if block % GRID == 0 else 1
    if size <= block:
        return Cut(size, block, 0, step)
    if block <= 2 * halo:
        block = axis.fit(4 * halo)
    if size <= block:
        return Cut(size, block, 0, step)
    if block <= 2 * halo:
        raise ConfigError(
            f"Blocks of {block} pixels along {axis.name} are all halo ({halo})", "The description is not consistent"
        )
    return Cut(size, block, halo, step)


# ---- blocks in and out ----


def _padding(spec: TensorSpec, cuts: Mapping[str, Cut]) -> list[tuple[int, int]]:
    return [(0, cuts[a].padded - cuts[a].size if a in cuts else 0) for a in spec.names]


def _read(spec: TensorSpec, place: Mapping[str, Span]) -> tuple[slice, ...]:
    return tuple(place[a].read if a in place else slice(None) for a in spec.names)


def _put(
    results: Arrays, spec: TensorSpec, part: NDArray[Any], cuts: Mapping[str, Cut], place: Mapping[str, Span]
) -> None:
    """Copy what a block decides into the whole output, which may have other pixels than the input."""
    keep: list[slice] = []
    write: list[slice] = []
    shape: list[int] = []
    for axis, made in zip(spec.names, part.shape, strict=True):
        if axis not in cuts:
            keep, write, shape = [*keep, slice(None)], [*write, slice(None)], [*shape, made]
            continue
        cut, span = cuts[axis], place[axis]
        factor = Fraction(made, cut.block)
        first, last, start, size = (
            n * factor for n in (span.decided.start, span.decided.stop, span.read.start, cut.size)
        )
        if not all(n.denominator == 1 for n in (first, start)):
            raise ConfigError(
                f"Output {spec.name!r} has {made} pixels along {axis} for a block of {cut.block}",
                "Such a model runs only on images of a size that it takes as they are",
            )
        keep.append(slice(int(first - start), math.ceil(last - start)))
        write.append(slice(int(first), math.ceil(last)))
        shape.append(math.ceil(size))
    if spec.name not in results:
        results[spec.name] = np.zeros(shape, part.dtype)
    results[spec.name][tuple(write)] = part[tuple(keep)]
