"""One long task at a time in a thread, with progress and a way to stop it."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.compat import isalive
from qtpy.QtCore import QObject, QTimer, Signal
from superqt.utils import FunctionWorker

from im2im_core.errors import Stopped
from im2im_core.events import Event, Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    Function = Callable[[Callable[[Event], None], Callable[[], bool]], Any]

POLL_MILLISECONDS = 80


class Work(QObject):
    """Runs functions of ``(on_event, should_stop)``; a new one takes the place of the one before.

    Only what the latest function returned or raised is reported, always in the main thread.
    """

    progressed = Signal(str, int, int, object)
    """What is done, how much of it, of how much, and seconds left; None while these are unknown."""
    done = Signal(str, object)
    """Name of the task and what it returned."""
    failed = Signal(str, object)
    """Name of the task and its error; a stopped task fails with `Stopped`."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.name = ""
        """Name of the task under way; empty when there is none."""
        self._stops: list[threading.Event] = []
        self._events: deque[Event] = deque(maxlen=1)
        self._worker: FunctionWorker[Any] | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MILLISECONDS)
        self._timer.timeout.connect(self._on_poll)

    def start(self, name: str, function: Function) -> None:
        """Run `function` in a thread."""
        self.cancel()
        stop: threading.Event = threading.Event()
        events: deque[Event] = deque(maxlen=1)
        self._stops[:] = [stop]
        self._events, self.name = events, name
        owner = weakref.ref(self)
        worker: FunctionWorker[Any] = FunctionWorker(
            lambda: function(events.append, lambda: stop.is_set() or not still_there(owner))
        )
        self._worker = worker
        worker.returned.connect(partial(self._end, worker, stop, self.done))
        worker.errored.connect(partial(self._end, worker, stop, self.failed))
        self._timer.start()
        worker.start()

    def cancel(self) -> None:
        """Ask the task to stop and forget it."""
        for stop in self._stops:
            stop.set()
        self._worker = None
        if self.name:
            name, self.name = self.name, ""
            self._timer.stop()
            self.failed.emit(name, Stopped("Stopped"))

    def _end(self, worker: FunctionWorker[Any], stop: threading.Event, signal: Any, result: Any) -> None:
        # A task that was stopped, perhaps because this object was destroyed, has nobody to report to.
        if stop.is_set() or not isalive(self) or worker is not self._worker:
            return
        name, self.name, self._worker = self.name, "", None
        self._timer.stop()
        signal.emit(name, result)

    def _on_poll(self) -> None:
        while self._events:
            event = self._events.pop()
            if isinstance(event, Progress):
                self.progressed.emit(event.task, event.done, event.total or 0, event.remaining)


def still_there(owner: weakref.ref[Any]) -> bool:
    """Whether a Qt object was not destroyed; may be asked from any thread."""
    found = owner()
    return found is not None and bool(isalive(found))
