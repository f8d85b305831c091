"""Short work off the main thread: whatever happens in it comes back as a signal, never as an exception in a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal
from superqt.utils import FunctionWorker

if TYPE_CHECKING:
    from collections.abc import Callable


class Background(QObject):
    """Runs functions one by one in threads of their own; answers in the main thread.

    It lives in no other object: an answer that comes after a widget is gone meets nobody.
    """

    done = Signal(str, object)
    """Key of the work and what it returned."""
    failed = Signal(str, str, str)
    """Key of the work, what went wrong, and the cure."""

    def run(self, key: str, work: Callable[[], Any]) -> None:
        """Do `work` in a thread; `key` comes back with the answer."""
        worker: FunctionWorker[Any] = FunctionWorker(lambda: _guarded(work))
        worker.returned.connect(lambda result: self.done.emit(key, result))
        worker.errored.connect(lambda error: self._on_error(key, error))
        worker.start()

    def _on_error(self, key: str, error: BaseException) -> None:
        text = getattr(error, "message", "") or str(error) or type(error).__name__
        self.failed.emit(key, text, getattr(error, "cure", ""))


def _guarded(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except (KeyboardInterrupt, SystemExit) as error:  # would end the viewer when raised out of a Qt thread
        raise RuntimeError(f"interrupted by {type(error).__name__}") from error
