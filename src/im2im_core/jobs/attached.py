"""A process that works for the viewer and ends with it: prediction, evaluation, everything interactive."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from im2im_core.errors import Im2ImError, Stopped
from im2im_core.events import CommandDone, Event, Failed
from im2im_core.jobs import _platform
from im2im_core.jobs.eventlog import decode_event
from im2im_core.jobs.explain import error_of
from im2im_core.jobs.messages import (
    Acknowledged,
    Broken,
    Cancel,
    Cancelled,
    Done,
    FromWorker,
    Reported,
    Submit,
    ToWorker,
    Warm,
    decode,
    encode,
    pack,
    unpack,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CANCEL_SECONDS = 5.0
"""A job that was cancelled and goes on for so long is killed."""
WORKER = (sys.executable, "-P", "-m", "im2im_core.jobs.worker")


class AttachedJob:
    """One attached process, started on first use and started anew after a crash.

    Parameters
    ----------
    on_event : callable
        Is told every event, in a thread of its own; a front end hands it to its main thread.
    command : sequence of str
        Program to start; it gets the scratch folder as last argument.
    low_priority : bool
        Let the process give way to the viewer.
    """

    def __init__(
        self,
        on_event: Callable[[Event], None],
        *,
        command: Sequence[str] = WORKER,
        low_priority: bool = True,
    ) -> None:
        self._on_event, self._command, self._low_priority = on_event, tuple(command), low_priority
        self._lock = threading.RLock()
        """Held for moments only: a main thread may wait for it."""
        self._turn = threading.Lock()
        """Held by who starts the process or hands pixels over, which takes as long as it takes."""
        self._worker: _Worker | None = None
        self._count = 0
        self._wishes = 0
        self._closed = False

    def warm(self) -> None:
        """Start the process and let it import the networks, so that the first prediction comes at once."""
        with self._turn:
            self._ensure().send(Warm())

    def submit(self, verb: str, arguments: dict[str, Any]) -> Future[dict[str, Any]]:
        """Future with the result of `verb`; jobs are done one after the other.

        It raises the error that the job met (`Im2ImError` with the same exit code),
        or `Stopped` when it was cancelled. Arrays in it are mapped from scratch files and must be
        copied when they are to outlive `close`.
        """
        wishes = self._wishes
        with self._turn:
            worker = self._ensure()
            try:
                packed = pack(arguments, worker.scratch, lambda: self._closed or self._wishes != wishes)
            except Stopped as error:
                return _ended(error)
            with self._lock:
                if self._wishes != wishes or self._closed:
                    return _ended(Stopped("The job was cancelled before it began"))
                self._count += 1
                return worker.submit(Submit(self._count, verb, packed))

    def cancel(self) -> None:
        """Stop all jobs at once, those too that are still handed over; returns without waiting.

        A process that does not end them within five seconds is killed.
        """
        with self._lock:
            self._wishes += 1
            if self._worker:
                self._worker.cancel()

    def close(self) -> None:
        """End the process and delete the scratch files."""
        with self._lock:
            worker, self._worker, self._closed = self._worker, None, True
        if worker:
            worker.close()

    @property
    def pid(self) -> int | None:
        """Number of the process; None while there is none."""
        with self._lock:
            return self._worker.process.pid if self._worker and self._worker.alive else None

    def _ensure(self) -> _Worker:
        """The process, started where there is none; whoever asks has the turn."""
        worker = self._worker
        if worker is not None and worker.alive and not self._closed:
            return worker
        if worker is not None:
            worker.close()
        worker = None if self._closed else _Worker(self._command, self._on_event, self._low_priority)
        with self._lock:
            if not self._closed:
                self._worker = worker
        if self._closed:
            if worker is not None:
                worker.close()
            raise Stopped("The job is closed", "Make a new one")
        assert worker is not None
        return worker

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Worker:
    """One life of the process: its pipes, its scratch folder and the jobs it was given."""

    def __init__(self, command: Sequence[str], on_event: Callable[[Event], None], low_priority: bool) -> None:
        self._on_event = on_event
        self._futures: dict[int, Future[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._closing = False
        self._gone = False
        self.scratch = Path(tempfile.mkdtemp(prefix="im2im-"))
        self._log = self.scratch / "worker.log"
        with self._log.open("wb") as log:
            self.process = _platform.start_attached([*command, str(self.scratch)], log, os.environ, low_priority)
        self._birth = _platform.birth(self.process.pid) or 0.0
        if low_priority:
            _platform.lower_priority(self.process.pid)
        self._reader = threading.Thread(target=self._read, name="im2im-attached", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        return not self._gone and self.process.poll() is None

    # ---- to the process ----

    def submit(self, message: Submit) -> Future[dict[str, Any]]:
        future: Future[dict[str, Any]] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            self._futures[message.job] = future
            gone = self._gone
        self.send(message)
        if gone:  # it died just now: nobody else would end the future
            self._end_all()
        return future

    def send(self, message: ToWorker) -> None:
        assert self.process.stdin is not None
        with suppress(OSError, ValueError):  # the process is gone; the reader tells so
            self.process.stdin.write(encode(message))
            self.process.stdin.flush()

    def cancel(self) -> None:
        with self._lock:
            jobs = list(self._futures)
            if jobs and self._timer is None:
                self._timer = threading.Timer(CANCEL_SECONDS, self._kill_if_busy, [jobs])
                self._timer.daemon = True
                self._timer.start()
        for job in jobs:
            self.send(Cancel(job))

    def _kill_if_busy(self, jobs: list[int]) -> None:
        with self._lock:
            self._timer = None
            busy = any(job in self._futures for job in jobs)
            self._closing = self._closing or busy
        if busy:
            _platform.kill_tree(self.process.pid, self._birth)

    def close(self) -> None:
        self._closing = True
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()
        self._reap()
        if self._timer:
            self._timer.cancel()
        if threading.current_thread() is not self._reader:
            self._reader.join(CANCEL_SECONDS)
        shutil.rmtree(self.scratch, ignore_errors=True)

    # ---- from the process ----

    def _read(self) -> None:
        assert self.process.stdout is not None
        try:
            with self.process.stdout as lines:
                for line in lines:
                    message = decode(line)
                    if isinstance(message, FromWorker):
                        self._take(message)
        finally:  # also when a listener raised: nobody may wait for ever
            self._reap()
            with self._lock:
                self._gone = True
            self._end_all()

    def _reap(self) -> None:
        """Wait for the end of the process, at most a few seconds."""
        try:
            self.process.wait(CANCEL_SECONDS)
        except subprocess.TimeoutExpired:
            _platform.kill_tree(self.process.pid, self._birth)
            self.process.wait()

    def _take(self, message: FromWorker) -> None:
        if isinstance(message, Reported):
            self._tell(decode_event(message.event))
        elif isinstance(message, Acknowledged):
            self._tell(CommandDone(message.job, "cancel"))
        else:
            with self._lock:
                future = self._futures.pop(message.job, None)
            if future:
                self._settle(future, message)

    def _settle(self, future: Future[dict[str, Any]], message: FromWorker) -> None:
        if isinstance(message, Done):
            future.set_result(unpack(message.result, self.scratch))
        elif isinstance(message, Cancelled):
            future.set_exception(Stopped("The job was cancelled"))
        elif isinstance(message, Broken) and isinstance(failed := decode_event(message.event), Failed):
            self._tell(failed)
            future.set_exception(error_of(failed))

    def _end_all(self) -> None:
        """The process is gone: end what it still had to do, as cancelled if we ended it, else as failed."""
        with self._lock:
            futures, self._futures = list(self._futures.values()), {}
        if not futures:
            return
        error: Im2ImError = Stopped("The job was cancelled")
        if not self._closing:
            failed = self._crash()
            self._tell(failed)
            error = error_of(failed)
        for future in futures:
            with suppress(InvalidStateError):
                future.set_exception(error)

    def _crash(self) -> Failed:
        words = _platform.describe_exit(self.process.returncode)
        log = self._log.read_text(encoding="utf-8", errors="replace")[-4000:] if self._log.exists() else ""
        cure = "Close other programs, or choose smaller tiles; the next try starts a new process"
        return Failed(
            f"The process that computes was {words}" if "killed" in words else f"The process that computes {words}",
            cure,
            4,
            log,
        )

    def _tell(self, event: Event | None) -> None:
        if event is not None:
            self._on_event(event)


def _ended(error: Stopped) -> Future[dict[str, Any]]:
    """Future of a job that never began."""
    future: Future[dict[str, Any]] = Future()
    future.set_exception(error)
    return future
