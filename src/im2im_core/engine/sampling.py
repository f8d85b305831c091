"""Where a training patch is cut: a pure function of (seed, step, index).

So any front end, worker count or resume sees the same data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

INDEX_LIMIT = 20_000
"""Foreground pixels remembered per class and image."""


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


def draw_patch(
    seed: int,
    step: int,
    index: int,
    shapes: list[tuple[int, int, int]],
    chances: NDArray[np.float64],
    foregrounds: list[ForegroundIndex],
    foreground: float,
    active: NDArray[np.int64] | None = None,
) -> Draw:
    """Patch number `index` of step `step`.

    Parameters
    ----------
    shapes : list of (Z, Y, X)
        Size of every entry.
    chances : array
        Running sum of the chance of every entry, ending in 1.
    foreground : float
        Part of the patches centred on a labelled pixel, the class drawn first.
    active : array, optional
        Entries that may be drawn now (rolling cache).
    """
    rng = np.random.default_rng((seed, step, index))
    entry = int(np.searchsorted(chances, rng.random() * chances[-1], side="right"))
    entry = min(entry, len(shapes) - 1)
    if active is not None:
        entry = int(active[entry % len(active)])
    shape, pixels = shapes[entry], foregrounds[entry]
    pick, place = rng.random(), rng.random(4)
    if pick < foreground and not pixels.empty:
        group = pixels.classes[int(place[3] * len(pixels.classes))]
        flat = int(group[int(place[0] * len(group))])
    elif pixels.known is not None and len(pixels.known):
        flat = int(pixels.known[int(place[0] * len(pixels.known))])
    else:
        return Draw(entry, tuple(int(p * n) for p, n in zip(place, shape, strict=False)))  # type: ignore[arg-type]
    z, y, x = np.unravel_index(flat, shape)
    return Draw(entry, (int(z), int(y), int(x)))


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
