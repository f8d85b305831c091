"""Small pictures of images and labels, made in a thread as they come into sight."""

from __future__ import annotations

import queue
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtGui import QImage, QPixmap

from im2im_core.errors import DataError, ResourceError
from napari_im2im._dataset_work import still_there

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

    from im2im_core.image import Image
    from im2im_core.samples import Sample

SIDE = 44
"""Height of a picture, pixels; a pair is two of them side by side."""
GAP = 2
POLL_MILLISECONDS = 60
WAIT_SECONDS = 0.5
_Task = tuple[int, "Hashable", "Sample", bool]


class Thumbnails(QObject):
    """Pictures of pairs by key; what was asked for last is made first.

    The thread knows nothing of Qt: it puts arrays into a queue that a timer of this object reads.
    """

    made = Signal(object)
    """Key of a pair whose picture is there now."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._pixmaps: dict[Hashable, QPixmap] = {}
        self._asked: set[Hashable] = set()
        self._waiting = 0
        self._round = 0
        self._tasks: queue.LifoQueue[_Task | None] = queue.LifoQueue()
        self._results: queue.SimpleQueue[tuple[int, Hashable, Any]] = queue.SimpleQueue()
        self._running = False
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MILLISECONDS)
        self._timer.timeout.connect(self._on_poll)

    def get(self, key: Hashable, sample: Sample, *, labels: bool) -> QPixmap | None:
        """Picture of a pair; None while it is made."""
        if key not in self._asked:
            self._asked.add(key)
            self._waiting += 1
            self._tasks.put((self._round, key, sample, labels))
            self._start()
        return self._pixmaps.get(key)

    def clear(self) -> None:
        """Forget all pictures and what was asked for."""
        self._pixmaps.clear()
        self.renew()

    def renew(self) -> None:
        """Make every picture anew when it is asked for next; the old one is shown until then."""
        self._round += 1
        self._waiting = 0
        self._asked.clear()
        ends = 0
        with suppress(queue.Empty):
            while True:
                ends += self._tasks.get_nowait() is None
        for _ in range(ends):  # a thread that was told to end still must
            self._tasks.put(None)

    def stop(self) -> None:
        """End the thread."""
        self.clear()
        self._tasks.put(None)
        self._timer.stop()
        self._running = False

    def _start(self) -> None:
        if not self._running:
            self._running = True
            arguments = [self._tasks, self._results, weakref.ref(self)]
            threading.Thread(target=_work, args=arguments, name="thumbnails", daemon=True).start()
        self._timer.start()

    def _on_poll(self) -> None:
        while not self._results.empty():
            turn, key, picture = self._results.get()
            if turn == self._round:
                self._waiting -= 1
                self._pixmaps[key] = to_pixmap(picture)
                self.made.emit(key)
        if not self._waiting:
            self.stop_when_idle()

    def stop_when_idle(self) -> None:
        """End the thread until the next picture is asked for."""
        self._timer.stop()
        self._running = False
        self._tasks.put(None)


def _work(
    tasks: queue.LifoQueue[_Task | None],
    results: queue.SimpleQueue[tuple[int, Hashable, Any]],
    owner: weakref.ref[Thumbnails],
) -> None:
    while still_there(owner):
        try:
            task = tasks.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            continue
        if task is None:
            return
        turn, key, sample, labels = task
        results.put((turn, key, pair_picture(sample, labels=labels)))


# ---- pictures ------------------------------------------------------------------


def pair_picture(sample: Sample, *, labels: bool) -> NDArray[np.uint8]:
    """Image and target side by side as ``(Y, X, 3)``; grey where something is missing or cannot be read."""
    from im2im_core.samples import TARGET

    target = sample.targets.get(TARGET)
    left = _picture(sample.source, labels=False)
    right = _picture(target, labels=labels) if target is not None else None
    sheet = np.full((SIDE, 2 * SIDE + GAP, 3), 128, np.uint8)
    for picture, start in ((left, 0), (right, SIDE + GAP)):
        if picture is not None:
            y, x = picture.shape[:2]
            top, side = (SIDE - y) // 2, start + (SIDE - x) // 2
            sheet[top : top + y, side : side + x] = picture
    return sheet


def to_pixmap(picture: NDArray[np.uint8]) -> QPixmap:
    """Pixmap of a ``(Y, X, 3)`` picture; only in the main thread."""
    picture = np.ascontiguousarray(picture)
    height, width, _ = picture.shape
    return QPixmap.fromImage(QImage(picture.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888).copy())


def _picture(image: Image, *, labels: bool) -> NDArray[np.uint8] | None:
    from im2im_core.datasets import middle_plane

    try:
        plane = middle_plane(image)
    except (DataError, ResourceError, OSError):
        return None
    step = max(1, -(-max(plane.shape) // SIDE))
    small = plane[::step, ::step]
    return colours(small) if labels else greys(small)


def greys(plane: NDArray[Any]) -> NDArray[np.uint8]:
    """Plane from its 1st to its 99.5th percentile as grey levels ``(Y, X, 3)``; what is not finite is black."""
    values = np.nan_to_num(plane.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = np.percentile(values, (1, 99.5))
    scaled = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255
    return np.repeat(scaled.astype(np.uint8)[..., None], 3, axis=2)


def colours(plane: NDArray[Any]) -> NDArray[np.uint8]:
    """Labels ``(Y, X)`` as bright colours that differ between neighbouring numbers; 0 is black."""
    ids = np.nan_to_num(plane.astype(np.float64)).astype(np.int64)
    hue = (ids * 0.61803398875) % 1.0
    wheel = np.clip(np.abs((hue[..., None] + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1, 0, 1)
    return np.where(ids[..., None] > 0, 60 + wheel * 195, 0).astype(np.uint8)
