"""Patches computed from a whole image in one pass, compiled: nothing larger than the patch is copied."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from im2im_core.engine.augment_place import KNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from numpy.typing import NDArray

    from im2im_core.engine.augment_zoom import Move
    from im2im_core.normalize import Scaling


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled when it is first called; kept on disk where there is a place for it."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither the package nor a folder of the user can be written
        return njit(nogil=True)(function)


def move_directly(
    to: Mapping[str, NDArray[Any]],
    images: Mapping[str, NDArray[Any]],
    scaling: Scaling,
    place: tuple[slice, ...],
    move: Move,
    linear: Collection[str],
) -> None:
    """Write a window of images ``(C, Z, Y, X)`` of which every pixel is labelled, moved, into arrays of patch size.

    The same as to cut the window and to move it by :mod:`augment_zoom`, in less than half the time.

    Parameters
    ----------
    to : mapping
        ``source``, ``weight`` and targets.
    images : mapping
        ``source`` as stored, and targets; beyond them they are mirrored, with weight 0.
    scaling : Scaling
        Normalises the source.
    place : tuple of slice
        Window along Z, Y, X, of the size that `move` needs.
    move : Move
    linear : collection of str
        Targets that are interpolated linearly; of all others no value is made up.
    """
    turn = move.turn
    window = np.array([(p.start, p.stop - p.start) for p in place])
    z, y, x = (axis in turn.flipped for axis in (-3, -2, -1))
    # What is flipped is the turned patch, so that its rows were columns before.
    flipped = (z, x, y) if turn.transposed else (z, y, x)
    how = (window, move.magnification, flipped, turn.transposed)
    for name, image in images.items():
        if name == "source":
            offset, scale = np.array(scaling.offset, np.float64), np.array(scaling.scale, np.float64)
            _linear(np.asarray(image), *how, offset, scale, False, to[name])
        elif name in linear:
            nothing = np.zeros(len(image))
            _linear(np.asarray(image), *how, nothing, nothing + 1, to[name].dtype.kind != "f", to[name])
        else:
            bits = np.dtype(f"u{image.dtype.itemsize}")  # copied as they are, halves of floats too
            _nearest(np.asarray(image).view(bits), *how, to[name].view(bits))
    extent = np.array(images["source"].shape[1:])
    _weigh(extent, *how, len(linear) > 0, to["weight"])


# ---- compiled ------------------------------------------------------------------


@compiled
def _along(extent: int, start: int, size: int, zoom: float, flipped: bool, count: int) -> Any:
    """Where `count` places lie along an axis of a window.

    Returns
    -------
    pixels, inside : arrays ``(3, count)``
        The pixels below, above and nearest, and whether they are in the image.
    share : array ``(count,)``
        Of the pixel above.
    """
    pixels = np.empty((3, count), np.uint32)
    inside = np.empty((3, count), np.bool_)
    share = np.empty(count, np.float32)
    for i in range(count):
        k = count - 1 - i if flipped else i
        exact = min(max((i - (count - 1) / 2) / zoom + (size - 1) / 2, 0.0), size - 1.0)
        low = math.floor(exact)
        share[k] = exact - low
        above = low + 1 if share[k] > 0 else low
        for n, found in enumerate((low, above, int(np.rint(exact)))):
            pixel = start + found
            inside[n, k] = 0 <= pixel < extent
            pixel %= 2 * extent
            pixels[n, k] = min(pixel, 2 * extent - 1 - pixel)
    return pixels, inside, share


@compiled
def _write(row: Any, transposed: bool, y: int, to: Any) -> None:
    if transposed:
        for x in range(len(row)):
            to[x, y] = row[x]
    else:
        for x in range(len(row)):
            to[y, x] = row[x]


@compiled
def _linear(
    image: Any, window: Any, zoom: float, flipped: Any, transposed: bool, offset: Any, scale: Any, whole: bool, to: Any
) -> None:
    """Normalised image ``(C, Z, Y, X)``, bilinear along Y, then X; rounded where `whole`."""
    height, width = (to.shape[3], to.shape[2]) if transposed else (to.shape[2], to.shape[3])
    planes = _along(image.shape[1], window[0, 0], window[0, 1], 1.0, flipped[0], to.shape[1])[0][0]
    ys, _, shares = _along(image.shape[2], window[1, 0], window[1, 1], zoom, flipped[1], height)
    xs, _, parts = _along(image.shape[3], window[2, 0], window[2, 1], zoom, flipped[2], width)
    first, last = xs.min(), xs.max() + 1
    row, found = np.empty(image.shape[3], np.float32), np.empty(width, np.float32)
    lows, highs = xs[0], xs[1]
    for c in range(to.shape[0]):
        less, by = np.float32(offset[c]), np.float32(1 / scale[c])
        for z in range(to.shape[1]):
            for y in range(height):
                low, high, share = image[c, planes[z], ys[0, y]], image[c, planes[z], ys[1, y]], shares[y]
                for x in range(first, last):
                    value = np.float32(low[x]) - less
                    row[x] = (value + (np.float32(high[x]) - less - value) * share) * by
                for x in range(width):
                    found[x] = row[lows[x]] + (row[highs[x]] - row[lows[x]]) * parts[x]
                if whole:
                    for x in range(width):
                        found[x] = np.float32(np.int32(found[x] + np.float32(0.5)))
                _write(found, transposed, y, to[c, z])


@compiled
def _nearest(image: Any, window: Any, zoom: float, flipped: Any, transposed: bool, to: Any) -> None:
    """Image ``(C, Z, Y, X)`` of any type; no value is made up."""
    height, width = (to.shape[3], to.shape[2]) if transposed else (to.shape[2], to.shape[3])
    planes = _along(image.shape[1], window[0, 0], window[0, 1], 1.0, flipped[0], to.shape[1])[0][2]
    ys = _along(image.shape[2], window[1, 0], window[1, 1], zoom, flipped[1], height)[0][2]
    xs = _along(image.shape[3], window[2, 0], window[2, 1], zoom, flipped[2], width)[0][2]
    found = np.empty(width, to.dtype)
    for c in range(to.shape[0]):
        for z in range(to.shape[1]):
            for y in range(height):
                row = image[c, planes[z], ys[y]]
                for x in range(width):
                    found[x] = row[xs[x]]
                _write(found, transposed, y, to[c, z])


@compiled
def _weigh(extent: Any, window: Any, zoom: float, flipped: Any, transposed: bool, mixed: bool, to: Any) -> None:
    """Weight ``(1, Z, Y, X)``: 1 in the image, and where values are `mixed`, only where nothing else has a part."""
    height, width = (to.shape[3], to.shape[2]) if transposed else (to.shape[2], to.shape[3])
    planes = _along(extent[0], window[0, 0], window[0, 1], 1.0, flipped[0], to.shape[1])[1][2]
    _, ys, shares = _along(extent[1], window[1, 0], window[1, 1], zoom, flipped[1], height)
    _, xs, parts = _along(extent[2], window[2, 0], window[2, 1], zoom, flipped[2], width)
    if planes.all() and ys.all() and xs.all():
        to[:] = 1
        return
    rows = np.where(ys[0], 1 - shares, 0) + np.where(ys[1], shares, 0)
    columns = np.where(xs[0], 1 - parts, 0) + np.where(xs[1], parts, 0)
    inside = np.empty(width, np.bool_)
    for z in range(to.shape[1]):
        for y in range(height):
            for x in range(width):
                inside[x] = planes[z] & ys[2, y] & xs[2, x] & (not mixed or rows[y] * columns[x] > KNOWN)
            _write(inside, transposed, y, to[0, z])
