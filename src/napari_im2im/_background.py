"""Short work off the main thread: whatever happens in it comes back as a call in the main thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject
from superqt.utils import FunctionWorker

if TYPE_CHECKING:
    from collections.abc import Callable


class Background(QObject):
    """Runs functions in threads; their answers reach the main thread while this object lives.

    Of several works with one key only the answer to the newest is told.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._newest: dict[str, _Job] = {}

    def run(
        self,
        key: str,
        work: Callable[[], Any],
        on_done: Callable[[Any], object],
        on_failed: Callable[[BaseException], object],
    ) -> None:
        """Do `work` in a thread, then call `on_done` with its result or `on_failed` with its error."""
        job = _Job(self, key, on_done, on_failed)
        self._newest[key] = job
        # A function worker: a generator worker swallows RuntimeError, which running out of GPU memory is.
        worker: FunctionWorker[Any] = FunctionWorker(lambda: _guarded(work))
        worker.returned.connect(job.on_returned)
        worker.errored.connect(job.on_errored)
        worker.start()

    def finish(self, key: str, job: _Job) -> bool:
        """Whether the answer of `job` is still wanted; it is then asked for no more."""
        wanted = self._newest.get(key) is job
        if wanted:
            del self._newest[key]
        return wanted


class _Job(QObject):
    """Receives one answer; deleted with its owner, so that a late answer meets nobody."""

    def __init__(
        self,
        owner: Background,
        key: str,
        on_done: Callable[[Any], object],
        on_failed: Callable[[BaseException], object],
    ) -> None:
        super().__init__(owner)
        self._owner, self._key = owner, key
        self._on_done, self._on_failed = on_done, on_failed

    def on_returned(self, result: Any) -> None:
        """Pass a result on."""
        if self._owner.finish(self._key, self):
            self._on_done(result)
        self.deleteLater()

    def on_errored(self, error: BaseException) -> None:
        """Pass an error on."""
        if self._owner.finish(self._key, self):
            self._on_failed(error)
        self.deleteLater()


def _guarded(work: Callable[[], Any]) -> Any:
    """Result of `work`; what would end the viewer when raised out of a thread becomes an ordinary error."""
    try:
        return work()
    except (KeyboardInterrupt, SystemExit) as error:
        raise RuntimeError(f"interrupted by {type(error).__name__}") from error
