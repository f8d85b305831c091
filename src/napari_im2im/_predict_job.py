"""One prediction at a time in an attached process, seen from Qt: signals on the main thread, nothing that blocks it."""

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from im2im_core.errors import Im2ImError, ResourceError, Stopped
from im2im_core.events import CommandDone, Event, Message, OutputBegun, Progress, TileDone
from im2im_core.jobs.attached import WORKER, AttachedJob
from napari_im2im._endings import when_destroyed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

POLL_MILLISECONDS = 40
"""A fresh message waits at most so long before it is seen."""


@dataclass(frozen=True)
class Result:
    """What a prediction gave."""

    paths: dict[str, str]
    """File of each output; .npy files that filled while it ran, or the files that were asked for."""
    layers: tuple[dict[str, Any], ...]
    """How each output is to be shown, and the facts about it."""
    seconds: float
    """From the click to the last pixel."""

    @property
    def facts(self) -> dict[str, Any]:
        """Facts of the main output: model, tile, factor, device."""
        return dict(self.layers[0].get("facts") or {}) if self.layers else {}


@dataclass
class _Task:
    """One prediction on its way."""

    number: int
    folder: Path
    began: float = field(default_factory=time.monotonic)
    handed: bool = False
    """Whether the process knows of it; until then its pixels are read."""


class PredictJob(QObject):
    """Supervises the attached process; exactly one of finished, failed and cancelled follows each `start`.

    Parameters
    ----------
    command : sequence of str
        Program that computes; tests give a small one.
    """

    progress = Signal(object)
    """`Progress` of the tiles."""
    begun = Signal(object)
    """`OutputBegun`: a result has its file."""
    tile = Signal(object)
    """`TileDone`: pixels in that file are final."""
    message = Signal(object)
    """`Message` in words."""
    acknowledged = Signal()
    """The process knows that it shall stop."""
    finished = Signal(object)
    """`Result` of the prediction."""
    failed = Signal(object)
    """The `Im2ImError` that ended it."""
    cancelled = Signal()

    def __init__(self, parent: QObject | None = None, *, command: Sequence[str] = WORKER) -> None:
        super().__init__(parent)
        self._queue: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._current = _Current()
        self._task: _Task | None = None
        self._closed = False
        self._command = command
        self._attached = self._new_process()
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MILLISECONDS)
        self._timer.timeout.connect(self._on_poll)
        current = self._current
        when_destroyed(self, lambda: _close_later(current))

    def _new_process(self) -> AttachedJob:
        current, said = self._current, self._queue
        # Its threads know the queue and not this object, which may be destroyed before they end.
        current.attached = AttachedJob(lambda event: said.put((current.number, event)), command=self._command)
        return current.attached

    # ---- public API ----

    def warm(self) -> None:
        """Let the process start and import the networks, without waiting for it."""
        threading.Thread(target=_quietly, args=[self._attached.warm], daemon=True).start()

    def start(self, arguments: Callable[[], dict[str, Any]]) -> None:
        """Predict with what `arguments` gives; it is called in a thread, as it may read pixels.

        Raises
        ------
        Stopped
            The job is closed.
        ResourceError
            The results have no place on the disk.
        """
        if self._closed:
            raise Stopped("The job is closed", "Open the widget again")
        try:
            folder = Path(tempfile.mkdtemp(prefix="im2im-live-"))
        except OSError as error:
            cure = "Make room, or set TMPDIR to another disk and start napari again"
            raise ResourceError(f"The results have no place on the disk: {error.strerror}", cure) from error
        self._current.number += 1
        self._current.folder = folder
        self._task = _Task(self._current.number, self._current.folder)
        task = (self._attached, self._queue, self._current, self._task, arguments)
        threading.Thread(target=_submit, args=task, daemon=True).start()
        self._timer.start()

    def cancel(self) -> None:
        """Stop the prediction; `cancelled` follows within seconds, at once where pixels are still read."""
        task = self._task
        if task is None:
            return
        self._current.cancelled = task.number
        if not task.handed:
            self._queue.put((task.number, Stopped("The prediction was cancelled before it began")))
        self._attached.cancel()

    @property
    def running(self) -> bool:
        """Whether a prediction is on its way."""
        return self._task is not None

    @property
    def pid(self) -> int | None:
        """Number of the process; None while there is none."""
        return self._attached.pid

    def rest(self) -> None:
        """End the process, and a prediction with it, without waiting; the next prediction starts a new one."""
        if not self._closed:
            threading.Thread(target=self._attached.close).start()
            self._attached = self._new_process()

    def close(self) -> threading.Thread:
        """End the process without waiting for it; the thread that waits is given back."""
        self._closed = True
        self._timer.stop()
        self._task = None
        return _close_later(self._current)

    # ---- from the threads ----

    def _on_poll(self) -> None:
        while not self._queue.empty():
            number, item = self._queue.get()
            task = self._task
            if task is None or number != task.number:
                continue
            if isinstance(item, Event):
                self._tell(item)
            else:
                self._end(task, item)

    def _tell(self, event: Event) -> None:
        match event:
            case Progress():
                self.progress.emit(event)
            case TileDone():
                self.tile.emit(event)
            case OutputBegun():
                self.begun.emit(event)
            case Message():
                self.message.emit(event)
            case CommandDone(verb="cancel"):
                self.acknowledged.emit()

    def _end(self, task: _Task, item: dict[str, Any] | BaseException) -> None:
        self._task = self._current.folder = None
        self._timer.stop()
        if isinstance(item, dict):
            seconds = time.monotonic() - task.began
            self.finished.emit(Result(dict(item["results"]), tuple(item["layers"]), seconds))
        elif isinstance(item, Stopped):
            self.cancelled.emit()
        elif isinstance(item, Im2ImError):
            self.failed.emit(item)
        else:
            words = str(item) or type(item).__name__
            self.failed.emit(Im2ImError(f"The prediction ended: {words}", "Try again; report it if it comes back"))
        # Files that a layer maps stay readable; their disk space is given back with the layer.
        _forget(task.folder)


@dataclass
class _Current:
    """What the threads need to know of the wishes of the main thread."""

    number: int = 0
    """Of the latest prediction."""
    cancelled: int = 0
    """Of the latest prediction that was cancelled."""
    folder: Path | None = None
    """Where the results of the running prediction fill."""
    attached: AttachedJob | None = None
    """The process."""


def _submit(
    attached: AttachedJob,
    said: queue.SimpleQueue[tuple[int, Any]],
    current: _Current,
    task: _Task,
    arguments: Callable[[], dict[str, Any]],
) -> None:
    """Hand a prediction over and wait for its end."""
    try:
        given = arguments()
        task.handed = True
        if current.cancelled >= task.number:  # asked while the pixels were read: nobody waits for them
            raise Stopped("The prediction was cancelled before it began")
        live = {} if given.get("to") else {"live": str(task.folder)}
        future = attached.submit("predict", {**given, **live})
        if current.cancelled >= task.number:  # asked while they were handed over
            attached.cancel()
        result: Any = future.result()
    except BaseException as error:  # the boundary of the thread: the main thread judges it
        result = error
    said.put((task.number, result))


def _quietly(work: Callable[[], object]) -> None:
    with suppress(Im2ImError, OSError):  # a start tells of the same error in time
        work()


def _close_later(current: _Current) -> threading.Thread:
    """Thread that ends the process; not a daemon, so that Python waits for it and nothing stays behind."""
    thread = threading.Thread(target=_close, args=[current])
    thread.start()
    return thread


def _close(current: _Current) -> None:
    if current.attached is not None:
        current.attached.close()
    if current.folder is not None:
        _forget(current.folder)


def _forget(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
