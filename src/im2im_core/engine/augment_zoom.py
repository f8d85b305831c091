"""One patch at a time, cut no larger than it is looked at: magnified, turned and flipped as it is copied."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from im2im_core.engine.augment_place import KNOWN, Turn, grown

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray


class Move(NamedTuple):
    """How a part of an image becomes a patch."""

    magnification: float
    turn: Turn

    def needed(self, patch: tuple[int, ...], window: tuple[int, ...]) -> tuple[int, ...]:
        """Size of the middle of a window ``([Z], Y, X)`` that the patch is made of."""
        if self.magnification == 1:
            return patch
        plane = zip(patch[-2:], window[-2:], strict=True)
        return (*patch[:-2], *(min(w, grown(p, (p - 1) / self.magnification + 1)) for p, w in plane))


def move_into(
    to: Mapping[str, NDArray[Any]], images: Mapping[str, NDArray[Any]], move: Move, linear: Collection[str]
) -> None:
    """Write images ``(C, [Z], Y, X)`` of one sample, moved, into arrays of patch size.

    Parameters
    ----------
    to, images : mapping
        ``source``, ``weight`` and targets; the images have the size that the move needs.
    move : Move
    linear : collection of str
        Targets that are interpolated linearly; of all others no value is made up.
    """
    to = {name: _before(array, move.turn) for name, array in to.items()}
    if move.magnification == 1:
        for name, image in images.items():
            to[name][...] = image
    else:
        _magnify_into(to, images, move.magnification, linear)


def _before(array: NDArray[Any], turn: Turn) -> NDArray[Any]:
    """View of an array, such that what is written to it is turned."""
    steps = [slice(None, None, -1 if axis in turn.flipped else 1) for axis in range(1 - array.ndim, 0)]
    flipped = array[(slice(None), *steps)]
    return flipped.swapaxes(-2, -1) if turn.transposed else flipped


def _magnify_into(
    to: Mapping[str, NDArray[Any]], images: Mapping[str, NDArray[Any]], zoom: float, linear: Collection[str]
) -> None:
    sizes = zip(to["source"].shape[-2:], images["source"].shape[-2:], strict=True)
    y, x = (_places(patch, size, zoom) for patch, size in sizes)
    weight = images["weight"]
    low, high = weight.min(), weight.max()
    unknown = weight <= 0 if linear and low <= 0 else None
    for name, image in images.items():
        if name == "source":
            _linear(image, y, x, to[name])
        elif name in linear:
            # An unknown pixel may hold anything, NaN too; it must not be mixed into its neighbours.
            _linear(image if unknown is None else np.where(unknown, image.dtype.type(0), image), y, x, to[name])
        elif name == "weight" and low == high:
            to[name].fill(low)
        else:
            to[name][...] = image.take(y.nearest, -2).take(x.nearest, -1)
    if unknown is not None:
        known = np.empty(to["weight"].shape, np.float32)
        _linear(~unknown, y, x, known)
        to["weight"][known <= KNOWN] = 0


class _Places(NamedTuple):
    """Where the pixels of a patch lie along one axis of an image."""

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    share: NDArray[np.float32]
    """Of the pixel `high`, from 0 to 1."""
    nearest: NDArray[np.intp]


@lru_cache(maxsize=4)  # the other axis is often the same
def _places(patch: int, size: int, zoom: float) -> _Places:
    exact = np.clip((np.arange(patch) - (patch - 1) / 2) / zoom + (size - 1) / 2, 0, size - 1)
    low = exact.astype(np.intp)
    return _Places(low, np.minimum(low + 1, size - 1), (exact - low).astype(np.float32), np.rint(exact).astype(np.intp))


def _linear(image: NDArray[Any], y: _Places, x: _Places, to: NDArray[Any]) -> None:
    values = np.asarray(image, np.float32)
    rows = _between(values.take(y.low, -2), values.take(y.high, -2), y.share[:, None])
    found = _between(rows.take(x.low, -1), rows.take(x.high, -1), x.share)
    to[...] = found if to.dtype.kind == "f" else np.rint(found, out=found)


def _between(low: NDArray[np.float32], high: NDArray[np.float32], share: NDArray[np.float32]) -> NDArray[np.float32]:
    """What lies at `share` of the way, in the memory of `high`."""
    high -= low
    high *= share
    high += low
    return high
