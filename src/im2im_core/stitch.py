"""Objects of an image that was decoded block by block: one id per object, none at the block borders.

A block is decoded with a rim of its neighbours and painted without it. Where the rims of two blocks
lie over each other, both tell of the same pixels: two objects that share at least half of the smaller
one there are one object::

        core of A              | core of B
      .....aaaaaaaaaaaaaaaaaaaa|aaaa   ]           A sees this much of B
                [   bbbbbbbbbbb|bbbb...........    B sees this much of A
                [ compared here, both sides ]      a and b are one object
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Block:
    """A part that is decoded at once."""

    index: tuple[int, ...]
    outer: Slices
    """What is decoded; ends at the image."""
    core: Slices
    """What is kept; the cores divide the image."""


def split_blocks(shape: Sequence[int], block: Sequence[int], halo: Sequence[int]) -> tuple[Block, ...]:
    """Blocks of an image, last axis fastest; a block is never smaller than its halo."""
    axes = []
    for n, b, h in zip(shape, block, halo, strict=True):
        size = max(b, h, 1)
        axes.append(
            [
                (i, slice(max(0, s - h), min(n, s + size + h)), slice(s, min(n, s + size)))
                for i, s in enumerate(range(0, n, size))
            ]
        )
    return tuple(
        Block(tuple(i for i, _, _ in cell), tuple(o for _, o, _ in cell), tuple(c for _, _, c in cell))
        for cell in itertools.product(*axes)
    )


def shifted(region: Slices, origin: Slices) -> Slices:
    """`region` as seen from the start of `origin`."""
    return tuple(slice(r.start - o.start, r.stop - o.start) for r, o in zip(region, origin, strict=True))


def intersect(a: Slices, b: Slices) -> Slices | None:
    """Common part of two regions; None where there is none."""
    common = tuple(slice(max(p.start, q.start), min(p.stop, q.stop)) for p, q in zip(a, b, strict=True))
    return common if all(s.start < s.stop for s in common) else None


class LabelStitcher:
    """Paints decoded blocks into `labels` and joins the objects that were cut.

    Memory holds the rims that wait for their neighbours: one row of blocks.

    Parameters
    ----------
    labels : array
        Zeros of the size of the image, uint32; an array or a memory-mapped file.
    blocks : sequence of Block
        In the order in which they are added.
    """

    def __init__(self, labels: NDArray[np.uint32], blocks: Sequence[Block]) -> None:
        self._labels = labels
        self._blocks = {block.index: block for block in blocks}
        self._rims: dict[tuple[int, ...], list[tuple[Slices, NDArray[np.uint32]]]] = {}
        self._parent = [0]

    def add(self, block: Block, decoded: NDArray) -> None:
        """Paint the core of `block`, whose labels over its outer part are `decoded`."""
        local = np.unique(decoded)
        local = local[local > 0]
        first = len(self._parent)
        self._parent.extend(range(first, first + len(local)))
        ids = np.where(decoded > 0, np.searchsorted(local, decoded) + first, 0).astype(np.uint32)
        for seen, other in self._rims.pop(block.index, []):
            self._join(other, ids[shifted(seen, block.outer)])
        for following in self._following(block):
            if zone := intersect(block.outer, following.outer):
                rim = ids[shifted(zone, block.outer)].copy()
                self._rims.setdefault(following.index, []).append((zone, rim))
        self._labels[block.core] = ids[shifted(block.core, block.outer)]

    def finish(self, first: int = 1) -> int:
        """Number of objects, after giving them the contiguous ids that start at `first`."""
        roots = np.array([self._root(i) for i in range(len(self._parent))])
        final = np.zeros(len(roots), np.uint32)
        count = 0
        for block in self._blocks.values():
            for root in np.unique(roots[np.unique(self._labels[block.core])]):
                if root and not final[root]:
                    final[root] = first + count
                    count += 1
        table = final[roots]
        for block in self._blocks.values():
            self._labels[block.core] = table[self._labels[block.core]]
        return count

    def _following(self, block: Block) -> list[Block]:
        """Neighbours that are added later."""
        steps = itertools.product((-1, 0, 1), repeat=len(block.index))
        near = [tuple(i + d for i, d in zip(block.index, step, strict=True)) for step in steps]
        return [self._blocks[index] for index in near if index > block.index and index in self._blocks]

    def _join(self, a: NDArray[np.uint32], b: NDArray[np.uint32]) -> None:
        both = (a > 0) & (b > 0)
        pairs, common = np.unique(np.stack([a[both], b[both]], 1), axis=0, return_counts=True)
        size_a, size_b = _sizes(a), _sizes(b)
        for (one, other), shared in zip(pairs.tolist(), common.tolist(), strict=True):
            if 2 * shared >= min(size_a[one], size_b[other]):
                self._unite(one, other)

    def _root(self, label: int) -> int:
        while self._parent[label] != label:
            self._parent[label] = self._parent[self._parent[label]]
            label = self._parent[label]
        return label

    def _unite(self, a: int, b: int) -> None:
        low, high = sorted((self._root(a), self._root(b)))
        self._parent[high] = low


def _sizes(labels: NDArray[np.uint32]) -> dict[int, int]:
    ids, counts = np.unique(labels, return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))
