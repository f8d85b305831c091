"""Small questions answered in a thread: the latest answer arrives on the main thread, or nowhere when nobody waits."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer

from im2im_core.errors import Im2ImError

if TYPE_CHECKING:
    from collections.abc import Callable

    Waiting = tuple[int, Callable[[Any], object], Callable[[BaseException], object] | None]

POLL_MILLISECONDS = 30


class Later(QObject):
    """Asks functions in daemon threads; a new question of the same name makes the old one void.

    The threads know nothing of Qt: they put answers into a queue that a timer of this object
    reads. When the object is destroyed the timer is gone too, and late answers are dropped.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._answers: queue.SimpleQueue[tuple[str, int, Any]] = queue.SimpleQueue()
        self._waiting: dict[str, Waiting] = {}
        self._count = 0
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MILLISECONDS)
        self._timer.timeout.connect(self._on_poll)

    def ask(
        self,
        name: str,
        work: Callable[[], Any],
        done: Callable[[Any], object],
        failed: Callable[[BaseException], object] | None = None,
    ) -> None:
        """Call `done` with the result of `work` on the main thread.

        Parameters
        ----------
        failed : callable, optional
            Is told the error instead; without it, errors that are meant for a person are dropped.
        """
        self._count += 1
        self._waiting[name] = (self._count, done, failed)
        threading.Thread(target=_work, args=[self._answers, name, self._count, work], daemon=True).start()
        self._timer.start()

    def forget(self, name: str) -> None:
        """Drop the answer to `name`."""
        self._waiting.pop(name, None)

    def _on_poll(self) -> None:
        while not self._answers.empty():
            name, number, answer = self._answers.get()
            waiting = self._waiting.get(name)
            if waiting is None or waiting[0] != number:
                continue
            del self._waiting[name]
            self._give(answer, *waiting[1:])
        if not self._waiting:
            self._timer.stop()

    @staticmethod
    def _give(answer: Any, done: Callable[[Any], object], failed: Callable[[BaseException], object] | None) -> None:
        if not isinstance(answer, BaseException):
            done(answer)
        elif failed is not None:
            failed(answer)
        elif not isinstance(answer, Im2ImError):
            raise answer  # a mistake of ours: napari shows it


def _work(answers: queue.SimpleQueue[tuple[str, int, Any]], name: str, number: int, work: Callable[[], Any]) -> None:
    try:
        answer = work()
    except BaseException as error:  # the boundary of the thread: the main thread judges it
        answer = error
    answers.put((name, number, answer))
