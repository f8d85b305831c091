"""One worker that looks at run folders for the whole widget and tells what is new; it never touches the viewer."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QThreadPool, QTimer, Signal
from superqt.utils import FunctionWorker

from im2im_core.errors import Im2ImError
from im2im_core.jobs.watch import Watcher
from im2im_core.project import known_projects
from im2im_core.runs import Run
from napari_im2im._runs_table import RowCache, RunRow

if TYPE_CHECKING:
    from collections.abc import Callable

POLL_SECONDS = 0.3
LIST_SECONDS = 2.0
AGAIN_MILLISECONDS = 1000
"""Wait before the worker is started again after an error."""
PART_BYTES = 1 << 17
"""Part of a history that is told at once: the viewer draws a frame between two of them."""
PART_PAUSE = 0.02
LOG_BYTES = 20_000
"""End of a log that is shown."""


class RunWatch(QObject):
    """Follows any number of runs and the list of all runs, in one function worker.

    A generator worker would swallow RuntimeError (superqt takes it for a deleted widget), so
    the worker is a function that loops until it is told to end; whatever it raises is told
    by `broken`, and it is started again. It lives in no other object, so that a late signal
    never meets a deleted one.
    """

    seen = Signal(str, object)
    """Folder of a run and `Seen`: its new events and its state."""
    listed = Signal(object)
    """Rows of all runs, when something changed."""
    logged = Signal(str, str)
    """Folder of the run whose log is wanted, and the end of that log, when it changed."""
    broken = Signal(str, str)
    """What went wrong while looking, and the cure."""

    def __init__(self, list_runs: Callable[[], list[Run]] | None = None) -> None:
        super().__init__()
        self._list_runs = list_runs or all_runs
        self._watchers: dict[str, Watcher] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._worker: FunctionWorker[None] | None = None
        self._said: set[str] = set()
        self._states: dict[str, str] = {}
        self._rows = RowCache()
        self._log_of = ""
        self._log_seen: tuple[str, int] | None = None
        self._again = QTimer(self)
        self._again.setSingleShot(True)
        self._again.timeout.connect(self.start)

    # ---- called by the widget, in the main thread ----

    @property
    def running(self) -> bool:
        """Whether the worker looks."""
        return self._worker is not None

    def start(self) -> None:
        """Begin to look; nothing happens where it looks already."""
        if self._worker is not None:
            return
        worker: FunctionWorker[None] = FunctionWorker(lambda: self._work(worker))
        worker.errored.connect(lambda error, w=worker: self._on_error(w, error))
        worker.finished.connect(lambda w=worker: self._on_finished(w))
        self._worker = worker
        worker.start()

    def stop(self) -> None:
        """End the worker, within one look."""
        self._again.stop()
        if self._worker is not None:
            self._worker.quit()
            self._worker = None
        self._wake.set()

    def watch(self, folder: str) -> None:
        """Follow a run: its whole history comes first, then what is new."""
        with self._lock:
            if folder not in self._watchers:
                self._watchers[folder] = Watcher(Run(folder))
                self._states.pop(folder, None)
        self._wake.set()

    def unwatch(self, folder: str) -> None:
        """Follow a run no more."""
        with self._lock:
            self._watchers.pop(folder, None)

    def watched(self) -> list[str]:
        """Folders of the runs that are followed."""
        with self._lock:
            return list(self._watchers)

    def read_log(self, folder: str) -> None:
        """Tell the end of the log of the run in `folder` whenever it changes; of none where empty."""
        self._log_of, self._log_seen = folder, None
        self._wake.set()

    def look(self) -> None:
        """Look now instead of in a moment."""
        self._wake.set()

    def _on_error(self, worker: FunctionWorker[None], error: BaseException) -> None:
        if worker is self._worker:
            self._worker = None
            self.broken.emit(f"Looking at the runs failed: {error or type(error).__name__}", "It is tried again")
            self._again.start(AGAIN_MILLISECONDS)

    def _on_finished(self, worker: FunctionWorker[None]) -> None:
        if worker is self._worker:
            self._worker = None

    # ---- called by the worker, in its thread ----

    def _work(self, worker: FunctionWorker[None]) -> None:
        pool = QThreadPool.globalInstance()
        pool.releaseThread()  # this waits most of the time and must not hold up other workers
        since_list, rows = LIST_SECONDS, None
        try:
            while not worker.abort_requested:
                self._look_at_runs(worker)
                if since_list >= LIST_SECONDS:
                    since_list, rows = 0.0, self._look_at_list(rows)
                woken = self._wake.wait(POLL_SECONDS)
                self._wake.clear()
                since_list = LIST_SECONDS if woken else since_list + POLL_SECONDS
        except (KeyboardInterrupt, SystemExit) as error:  # would end the viewer when raised out of a Qt thread
            raise RuntimeError(f"interrupted by {type(error).__name__}") from error
        finally:
            pool.reserveThread()

    def _look_at_runs(self, worker: FunctionWorker[None]) -> None:
        with self._lock:
            watchers = dict(self._watchers)
        for folder, watcher in watchers.items():
            if worker.abort_requested:
                return
            try:
                self._look_at_run(worker, folder, watcher)
            except (Im2ImError, OSError) as error:
                self._complain(error)
        self._look_at_log()

    def _look_at_run(self, worker: FunctionWorker[None], folder: str, watcher: Watcher) -> None:
        """Tell what is new, a long history in parts."""
        unfinished = False
        while not worker.abort_requested and self._is_watched(folder, watcher):
            seen = watcher.poll(PART_BYTES)
            if seen.events or unfinished or self._states.get(folder) != seen.state:
                self._states[folder] = seen.state
                self.seen.emit(folder, seen)
            unfinished = seen.more
            if not unfinished:
                return
            time.sleep(PART_PAUSE)

    def _is_watched(self, folder: str, watcher: Watcher) -> bool:
        with self._lock:
            return self._watchers.get(folder) is watcher

    def _look_at_log(self) -> None:
        folder = self._log_of
        if not folder:
            return
        path = Path(folder) / "log.txt"
        now = (folder, path.stat().st_size if path.is_file() else 0)
        if now != self._log_seen:
            self._log_seen = now
            self.logged.emit(folder, end_of_log(folder, LOG_BYTES))

    def _look_at_list(self, before: list[RunRow] | None) -> list[RunRow]:
        rows = []
        for run in self._list_runs():
            try:
                rows.append(self._rows.row(run))
            except (Im2ImError, OSError) as error:
                self._complain(error)
        if rows != before:
            self.listed.emit(rows)
        return rows

    def _complain(self, error: Exception) -> None:
        """Tell a fault once, however often it is met."""
        text = getattr(error, "message", str(error))
        if text not in self._said:
            self._said.add(text)
            self.broken.emit(text, getattr(error, "cure", ""))


def all_runs() -> list[Run]:
    """Runs of all known projects."""
    return [run for project in known_projects() for run in project.runs()]


def end_of_log(folder: str, size: int = 4000) -> str:
    """The last part of what the processes of a run printed; empty where they printed nothing."""
    try:
        with (Path(folder) / "log.txt").open("rb") as handle:
            end = handle.seek(0, 2)
            handle.seek(max(0, end - size))
            return handle.read().decode("utf-8", "replace")
    except OSError:
        return ""
