"""How far a network looks, measured: by what changes on one side of a block when the other side does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from im2im_core.engine.foreign import Arrays, ForeignModel

SMALLEST_CHANGE = 1e-5
"""Changes below this part of the largest output do not count."""


def measured_reach(
    model: ForeignModel, ready: Arrays, blocks: Mapping[str, int], names: Sequence[str]
) -> dict[str, int | None]:
    """Input pixels beyond which the network does not look, along each named axis; None where it sees all of a block.

    Noise with the mean and spread of the preprocessed image goes through the network twice, the second time
    with other noise in one half: the outputs of the other half change as far as the network looks. Unlike the
    theoretical receptive field it needs no graph, and leaves out what is too faint to matter (Luo et al.,
    Understanding the effective receptive field in deep convolutional neural networks, NeurIPS 2016).

    Parameters
    ----------
    blocks : mapping of int
        Size of a block along each spatial axis, by name.
    """
    random = np.random.default_rng(0)
    noise = {s.name: _noise(ready[s.name], _shape(ready[s.name], s.names, blocks), random) for s in model.inputs}
    before = model.forward(noise)
    found: dict[str, int | None] = {}
    for name in names:
        changed = {}
        for spec in model.inputs:
            values = noise[spec.name].copy()
            if name in spec.names:
                half = [slice(None)] * values.ndim
                half[spec.names.index(name)] = slice(blocks[name] // 2, None)
                values[tuple(half)] = _noise(ready[spec.name], values[tuple(half)].shape, random)
            changed[spec.name] = values
        after = model.forward(changed)
        reaches = [
            _reach(before[s.name], after[s.name], s.names.index(name), blocks[name])
            for s in model.outputs
            if name in s.names
        ]
        known = [r for r in reaches if r is not None]
        found[name] = max(known, default=0) if len(known) == len(reaches) else None
    return found


def _shape(array: NDArray[Any], names: Sequence[str], blocks: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(blocks.get(name, size) for name, size in zip(names, array.shape, strict=True))


def _noise(like: NDArray[Any], shape: tuple[int, ...], random: np.random.Generator) -> NDArray[Any]:
    spread = float(like.std(dtype=np.float64)) or 1.0
    values: NDArray[Any] = random.normal(float(like.mean(dtype=np.float64)), spread, shape)
    if like.dtype.kind in "iu":
        limits = np.iinfo(like.dtype)
        values = values.clip(limits.min, limits.max)
    return (values > spread).astype(bool) if like.dtype.kind == "b" else values.astype(like.dtype)


def _reach(before: NDArray[Any], after: NDArray[Any], axis: int, block: int) -> int | None:
    """Input pixels between the half that changed and the first output that did; None where all of them did."""
    others = tuple(a for a in range(before.ndim) if a != axis)
    change = np.abs(after.astype(np.float64) - before).max(axis=others)
    changed = change > SMALLEST_CHANGE * max(float(np.abs(before).max()), 1e-12)
    made = int(before.shape[axis])
    first = int(np.argmax(changed)) if changed.any() else made
    if first == 0:
        return None
    # In input pixels, rounded up: outputs may lie on another grid.
    return max(0, -(-(made // 2 - first) * block // made))
