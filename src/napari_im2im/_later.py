"""Small questions answered in a thread: the latest answer arrives on the main thread, or nowhere when nobody waits."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer

from im2im_core.errors import Im2ImError

if TYPE_CHECKING:
    from collections.abc import Callable

    Failed = Callable[[BaseException], object] | None
    Waiting = tuple[int, Callable[[Any], object], Failed, Callable[[Any], object] | None]
    Answers = queue.SimpleQueue[tuple[str, int, Any]]

POLL_MILLISECONDS = 30


class Later(QObject):
    """Asks functions in daemon threads; a new question of the same name makes the old one void.

    The threads know nothing of Qt: they put answers into a queue that a timer of this object
    reads. When the object is destroyed the timer is gone too, and late answers are dropped.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._answers: Answers = queue.SimpleQueue()
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
        *,
        heard: Callable[[Any], object] | None = None,
    ) -> None:
        """Call `done` with the result of `work` on the main thread.

        Parameters
        ----------
        failed : callable, optional
            Is told the error instead; without it, errors that are meant for a person are dropped.
        heard : callable, optional
            Is told, on the main thread, what `work` says meanwhile through `sayer`.
        """
        self._count += 1
        self._waiting[name] = (self._count, done, failed, heard)
        threading.Thread(target=_work, args=[self._answers, name, self._count, work], daemon=True).start()
        self._timer.start()

    def sayer(self, name: str) -> Callable[[Any], None]:
        """Function with which the thread that is asked next under `name` tells something before its answer."""
        answers, number = self._answers, self._count + 1
        return lambda item: answers.put((name, number, _Said(item)))

    def forget(self, name: str) -> None:
        """Drop the answer to `name`."""
        self._waiting.pop(name, None)

    def _on_poll(self) -> None:
        while not self._answers.empty():
            name, number, answer = self._answers.get()
            waiting = self._waiting.get(name)
            if waiting is None or waiting[0] != number:
                continue
            if isinstance(answer, _Said):
                if waiting[3] is not None:
                    waiting[3](answer.item)
                continue
            del self._waiting[name]
            self._give(answer, *waiting[1:3])
        if not self._waiting:
            self._timer.stop()

    @staticmethod
    def _give(answer: Any, done: Callable[[Any], object], failed: Failed) -> None:
        if not isinstance(answer, BaseException):
            done(answer)
        elif failed is not None:
            failed(answer)
        elif not isinstance(answer, Im2ImError):
            raise answer  # a mistake of ours: napari shows it


@dataclass(frozen=True)
class _Said:
    """Something that is told before the answer."""

    item: Any


def _work(answers: Answers, name: str, number: int, work: Callable[[], Any]) -> None:
    try:
        answer = work()
    except BaseException as error:  # the boundary of the thread: the main thread judges it
        answer = error
    answers.put((name, number, answer))
