"""Pairs of neighbouring pixels."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    Slices = tuple[slice, ...]


def neighbours(dimensions: int, diagonal: bool = True) -> Iterator[tuple[Slices, Slices]]:
    """Slices of ``([Z], Y, X)`` that lay each pixel upon one of its neighbours; every pair once.

    Parameters
    ----------
    diagonal : bool
        Whether pixels that share an edge or a corner are neighbours too.
    """
    for step in itertools.product((-1, 0, 1), repeat=dimensions):
        if step > (0,) * dimensions and (diagonal or sum(map(abs, step)) == 1):
            one = tuple(slice(max(-s, 0), -s if s > 0 else None) for s in step)
            other = tuple(slice(max(s, 0), s if s < 0 else None) for s in step)
            yield one, other
