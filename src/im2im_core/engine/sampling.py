"""Where a training patch is cut: a pure function of (seed, step, index).

So any front end, worker count or resume sees the same data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

INDEX_LIMIT = 20_000
"""Foreground pixels remembered per class and image."""
NUMBERS = 6
"""Random numbers that decide a patch: its entry, whether it is centred on a label, the class, its place."""


@dataclass(frozen=True)
class Draw:
    """One patch: which entry, and its centre along Z, Y, X."""

    entry: int
    centre: tuple[int, int, int]


@dataclass(frozen=True)
class ForegroundIndex:
    """Pixels that patches may be centred on, per class; flat indices into ``(Z, Y, X)``."""

    classes: tuple[NDArray[np.int64], ...]
    known: NDArray[np.int64] | None
    """Some known pixels where a part of the image is unknown; None where all is known."""

    @property
    def empty(self) -> bool:
        """Whether no pixel is labelled."""
        return not self.classes


def index_foreground(labels: NDArray[Any] | None, weight: NDArray[Any] | None, seed: int) -> ForegroundIndex:
    """Labelled and known pixels of one image ``(Z, Y, X)``.

    Labels with more than 64 ids are taken as instances, which form one class.
    """
    rng = np.random.default_rng((seed, 1))
    known = None
    if weight is not None and (weight == 0).any():
        known = _some(np.flatnonzero(weight.ravel() > 0), rng)
    if labels is None:
        return ForegroundIndex((), known)
    flat = labels.ravel() if weight is None else np.where(weight.ravel() > 0, labels.ravel(), 0)
    ids = np.unique(flat[flat > 0])
    groups = [np.flatnonzero(flat > 0)] if len(ids) > 64 else [np.flatnonzero(flat == i) for i in ids]
    return ForegroundIndex(tuple(_some(g, rng) for g in groups if len(g)), known)


def _some(pixels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    if len(pixels) <= INDEX_LIMIT:
        return pixels
    return np.sort(rng.choice(pixels, INDEX_LIMIT, replace=False))


def step_seed(seed: int, step: int) -> int:
    """Seed of everything random in a step."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 2)


def batch_generator(seed: int, step: int, number: int) -> torch.Generator:
    """Generator of the changes of micro-batch `number` of a step, counted over all processes."""
    return torch.Generator().manual_seed(step_seed(seed, step) + number)


def random_rows(seed: int, step: int, first: int, count: int) -> list[list[float]]:
    """Numbers from 0 to 1 that decide patches `first` to ``first + count`` of a step, a row for each.

    A row is the same whatever other rows are asked for.
    """
    rng = np.random.default_rng((seed, step))
    rows: list[list[float]] = rng.random((first + count, NUMBERS))[first:].tolist()
    return rows


def draw_patch(
    numbers: list[float],
    shapes: list[tuple[int, int, int]],
    chances: NDArray[np.float64],
    foregrounds: list[ForegroundIndex],
    foreground: float,
    active: NDArray[np.int64] | None = None,
) -> Draw:
    """The patch that a row of random numbers decides.

    Parameters
    ----------
    numbers : list of float
        A row of :func:`random_rows`.
    shapes : list of (Z, Y, X)
        Size of every entry.
    chances : array
        Running sum of the chance of every entry, ending in 1.
    foreground : float
        Part of the patches centred on a labelled pixel, the class drawn first.
    active : array, optional
        Entries that may be drawn now (rolling cache).
    """
    which, pick, group, *place = numbers
    entry = int(np.searchsorted(chances, which * chances[-1], side="right"))
    entry = min(entry, len(shapes) - 1)
    if active is not None:
        entry = int(active[entry % len(active)])
    shape, pixels = shapes[entry], foregrounds[entry]
    if pick < foreground and not pixels.empty:
        flat = _one(pixels.classes[int(group * len(pixels.classes))], place[0])
    elif pixels.known is not None and len(pixels.known):
        flat = _one(pixels.known, place[0])
    else:
        z, y, x = (int(p * n) for p, n in zip(place, shape, strict=True))
        return Draw(entry, (z, y, x))
    rest, x = divmod(flat, shape[2])
    return Draw(entry, (*divmod(rest, shape[1]), x))


def _one(pixels: NDArray[np.int64], number: float) -> int:
    return int(pixels[int(number * len(pixels))])


def window_around(
    centre: tuple[int, ...], window: tuple[int, ...], patch: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[slice, ...]:
    """Window of size `window` around `centre`, moved so that the inner patch stays inside the image where it can."""
    result = []
    for middle, size, inner, extent in zip(centre, window, patch, shape, strict=True):
        if extent <= inner:
            start = (extent - inner) // 2
        else:
            start = min(max(middle - inner // 2, 0), extent - inner)
        start -= (size - inner) // 2
        result.append(slice(start, start + size))
    return tuple(result)
