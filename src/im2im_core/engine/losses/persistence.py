"""Components of the bright part of a map as the threshold falls: where each is born and where it dies."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

from im2im_core.engine.losses.neighbours import neighbours

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Indices = NDArray[np.int64]


class Features(NamedTuple):
    """Components as flat indices of pixels."""

    births: Indices
    """The brightest pixel of each."""
    deaths: Indices
    """The saddle at which it meets an older one; -1 = never."""


def components(values: NDArray[np.float32], known: NDArray[np.bool_], diagonal: bool) -> Features:
    """Components of all superlevel sets of `values`, restricted to `known` pixels; persistent homology in degree 0.

    Each hill that runs up to one maximum is a node; the highest passes between hills make a graph,
    along whose maximum spanning tree hills meet, the lower one dying (Edelsbrunner & Harer 2010).

    Parameters
    ----------
    values : ndarray
        ``([Z], Y, X)``; equal values are told apart by their place.
    diagonal : bool
        Whether pixels that share an edge or a corner are neighbours too.
    """
    rank = np.empty(values.size, np.int64)
    order = np.argsort(values, axis=None, kind="stable")
    rank[order] = np.arange(values.size)
    pairs = [_known_pairs(known, one, other) for one, other in neighbours(values.ndim, diagonal)]
    top = _tops(rank, order, pairs)
    first, second, height = _passes(rank, top, pairs)
    dies = _meet(rank, first, second, height)
    births = np.flatnonzero((top == np.arange(values.size)) & known.ravel())
    heights = np.array([dies.get(int(b), -1) for b in births], np.int64)
    return Features(births, np.where(heights >= 0, order[np.maximum(heights, 0)], -1))


def _known_pairs(known: NDArray[np.bool_], one: tuple[slice, ...], other: tuple[slice, ...]) -> tuple[Indices, Indices]:
    place = np.arange(known.size).reshape(known.shape)
    both = known[one] & known[other]
    return place[one][both], place[other][both]


def _tops(rank: Indices, order: Indices, pairs: list[tuple[Indices, Indices]]) -> Indices:
    """Maximum that the steepest way up from each pixel ends at."""
    best = rank.copy()
    for a, b in pairs:  # in one direction no pixel occurs twice on the same side
        best[a] = np.maximum(best[a], rank[b])
        best[b] = np.maximum(best[b], rank[a])
    up = order[best]
    while not np.array_equal(up, further := up[up]):
        up = further
    return up


def _passes(rank: Indices, top: Indices, pairs: list[tuple[Indices, Indices]]) -> tuple[Indices, Indices, Indices]:
    """Pairs of hills that touch, by their maxima, and the rank of the highest pass between them."""
    a, b = (np.concatenate(side) if side else np.empty(0, np.int64) for side in zip(*pairs, strict=True))
    height = np.minimum(rank[a], rank[b])
    first, second = np.minimum(top[a], top[b]), np.maximum(top[a], top[b])
    kept = np.flatnonzero(first != second)
    kept = kept[np.argsort(-height[kept], kind="stable")]
    _, highest = np.unique(first[kept] * rank.size + second[kept], return_index=True)
    kept = kept[highest]
    return first[kept], second[kept], height[kept]


def _meet(rank: Indices, first: Indices, second: Indices, height: Indices) -> dict[int, int]:
    """Rank of the pass at which each maximum dies, from the highest pass to the lowest."""
    size = rank.size
    # The spanning tree minimises, and takes 0 for no edge.
    tree = minimum_spanning_tree(coo_array((size - height, (first, second)), shape=(size, size)).tocsr()).tocoo()
    parent: dict[int, int] = {}
    dies: dict[int, int] = {}
    for k in np.argsort(tree.data, kind="stable"):
        a, b = (_root(parent, int(end)) for end in (tree.row[k], tree.col[k]))
        low, high = (a, b) if rank[a] < rank[b] else (b, a)
        parent[low] = high
        dies[low] = size - int(tree.data[k])
    return dies


def _root(parent: dict[int, int], node: int) -> int:
    while node in parent:
        parent[node] = parent.get(parent[node], parent[node])
        node = parent[node]
    return node
