"""Images in bands of rows: whatever the size of an image, only so much of it is in memory at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from im2im_core.errors import Stopped
from im2im_core.events import Event, Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.axes import Region
    from im2im_core.image import Image

BAND_PIXELS = 2**25
"""Pixels in memory at a time, at most, unless a single row has more."""
TASK = "checking images"
TELL_SECONDS = 0.5
"""Time between two reports within one sample."""


class Band(NamedTuple):
    """Rows of one plane."""

    time_point: int
    channel: int
    plane: int
    first: int
    """Number of the first row."""
    pixels: NDArray[Any]
    """``(Y, X)``, all columns."""
    ends_plane: bool


class Watch:
    """Counts the pixels that were read, tells how long the rest takes, and stops where that is wanted.

    Parameters
    ----------
    samples, pixels : int
        How much there is in all.
    """

    def __init__(
        self,
        samples: int = 0,
        pixels: int = 0,
        on_event: Callable[[Event], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self._samples, self._pixels = samples, pixels
        self._on_event, self._should_stop = on_event, should_stop
        self._done = self._read = 0
        self._begin = self._told = time.monotonic()

    def at(self, sample: int) -> None:
        """`sample` samples are done."""
        self._done = sample
        self._tell(time.monotonic())

    def read(self, pixels: int) -> None:
        """So many more `pixels` were read.

        Raises
        ------
        Stopped
            It was asked to stop.
        """
        self._read += pixels
        self.check()
        now = time.monotonic()
        if now - self._told >= TELL_SECONDS:
            self._tell(now)

    def check(self) -> None:
        """Raise `Stopped` where it was asked to stop."""
        if self._should_stop and self._should_stop():
            raise Stopped(f"The check was stopped after {self._done} of {self._samples} samples")

    def _tell(self, now: float) -> None:
        self._told = now
        if self._on_event is None:
            return
        elapsed = now - self._begin
        left = elapsed / self._read * max(self._pixels - self._read, 0) if self._read else None
        self._on_event(Progress(TASK, self._done, self._samples, elapsed, left))


UNWATCHED = Watch()
"""Tells nobody and is never stopped."""


def bands(image: Image, watch: Watch = UNWATCHED) -> Iterator[Band]:
    """All pixels of `image` in the order of T, C, Z, Y."""
    times, channels, depth, height, width = image.info.shape
    rows = rows_of(height, width)
    for t, c, z in np.ndindex(times, channels, depth):
        for first in range(0, height, rows):
            last = min(first + rows, height)
            region: Region = (slice(t, t + 1), slice(c, c + 1), slice(z, z + 1), slice(first, last), slice(0, width))
            pixels = image.read(region)[0, 0, 0]
            watch.read(pixels.size)
            yield Band(t, c, z, first, pixels, last == height)


def rows_of(height: int, width: int) -> int:
    """Rows of a band; a power of two where a plane does not fit, so that bands and chunks seldom cross."""
    fitting = max(BAND_PIXELS // max(width, 1), 1)
    return height if fitting >= height else 1 << (fitting.bit_length() - 1)
