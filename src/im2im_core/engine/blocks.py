"""A foreign model over arrays of any size: equal blocks with halo, mirrored at the rim, put together again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from im2im_core.errors import ConfigError

if TYPE_CHECKING:
    from im2im_core.bundle.foreign import AxisSpec, TensorSpec
    from im2im_core.engine.foreign import Arrays, ForeignModel

OnBlock = Callable[[int, int], None]
LARGEST = {1: 4096, 2: 512, 3: 128}
"""Size of a block along each axis where the model takes any size, by number of spatial axes."""


@dataclass(frozen=True)
class Cut:
    """How one spatial axis is divided: blocks of `block` pixels, of which all but the halo is kept."""

    size: int
    block: int
    halo: int

    @property
    def core(self) -> int:
        """Pixels that each block decides."""
        return self.block - 2 * self.halo

    @property
    def starts(self) -> range:
        """First pixel that each block decides."""
        return range(0, self.size, self.core)

    @property
    def padding(self) -> tuple[int, int]:
        """Mirrored pixels before and after the axis."""
        return self.halo, self.starts[-1] + self.block - self.halo - self.size


def run_in_blocks(model: ForeignModel, ready: Arrays, on_block: OnBlock | None = None) -> Arrays:
    """Outputs of `model` for preprocessed inputs of any size.

    Parameters
    ----------
    on_block : callable, optional
        Told before each block, and at the end, how many are done, of how many.

    Raises
    ------
    ConfigError
        The outputs do not lie on the grid of the inputs, or a block would be all halo.
    """
    cuts = _cuts(model, ready)
    total = math.prod(len(cut.starts) for cut in cuts.values())
    tell = on_block or _ignore
    if all(cut.block == cut.size for cut in cuts.values()):
        tell(0, 1)
        whole = model.forward(ready)
        tell(1, 1)
        return whole
    padded = {
        s.name: np.pad(ready[s.name], [cuts[a].padding if a in cuts else (0, 0) for a in s.names], mode="symmetric")
        for s in model.inputs
    }
    results: Arrays = {}
    for number, starts in enumerate(product(*(cut.starts for cut in cuts.values()))):
        tell(number, total)
        place = dict(zip(cuts, starts, strict=True))
        parts = model.forward({s.name: padded[s.name][_read(s, cuts, place)] for s in model.inputs})
        for spec in model.outputs:
            _put(results, spec, parts, cuts, place)
    tell(total, total)
    return results


def _ignore(done: int, total: int) -> None:
    """Nobody listens."""


def _cuts(model: ForeignModel, ready: Arrays) -> dict[str, Cut]:
    axes: dict[str, tuple[AxisSpec, int]] = {}
    for spec in model.inputs:
        for axis, size in zip(spec.axes, ready[spec.name].shape, strict=True):
            if axis.kind == "space" and not axis.reference and axes.setdefault(axis.name, (axis, size))[1] != size:
                raise ConfigError(
                    f"The inputs differ in size along {axis.name}: {axes[axis.name][1]} and {size}",
                    "Give inputs of one size",
                )
    halos = {a.name: a.halo for s in model.outputs for a in s.axes}
    return {
        name: _cut(axis, size, halos.get(name, 0), LARGEST.get(len(axes), 128)) for name, (axis, size) in axes.items()
    }


def _cut(axis: AxisSpec, size: int, halo: int, largest: int) -> Cut:
    block = axis.fit(min(size, largest))
    if size <= block:
        return Cut(size, block, 0)
    if block <= 2 * halo:
        block = axis.fit(4 * halo)
    if block <= 2 * halo:
        raise ConfigError(
            f"Blocks of {block} pixels along {axis.name} are all halo ({halo})", "The description is not consistent"
        )
    return Cut(size, block, halo)


def _read(spec: TensorSpec, cuts: dict[str, Cut], place: dict[str, int]) -> tuple[slice, ...]:
    return tuple(slice(place[a], place[a] + cuts[a].block) if a in cuts else slice(None) for a in spec.names)


def _put(results: Arrays, spec: TensorSpec, parts: Arrays, cuts: dict[str, Cut], place: dict[str, int]) -> None:
    """Copy what a block decides into the whole output."""
    part = parts[spec.name]
    keep: list[slice] = []
    write: list[slice] = []
    shape: list[int] = []
    for axis, size in zip(spec.names, part.shape, strict=True):
        if axis not in cuts:
            keep, write, shape = [*keep, slice(None)], [*write, slice(None)], [*shape, size]
            continue
        cut, start = cuts[axis], place[axis]
        if size != cut.block:
            raise ConfigError(
                f"Output {spec.name!r} has {size} pixels along {axis} for a block of {cut.block}",
                "Such a model runs only on images of a size that it takes as they are",
            )
        stop = min(start + cut.core, cut.size)
        keep.append(slice(cut.halo, cut.halo + stop - start))
        write.append(slice(start, stop))
        shape.append(cut.size)
    if spec.name not in results:
        results[spec.name] = np.zeros(shape, part.dtype)
    results[spec.name][tuple(write)] = part[tuple(keep)]
