"""A process for code that is not ours: it gets arrays and gives arrays, within limits, and may die without harm."""

from __future__ import annotations

import logging
import os
import subprocess
import tempfile
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from im2im_core.errors import DataError, Im2ImError, ResourceError
from im2im_core.events import Failed
from im2im_core.jobs import _platform
from im2im_core.jobs.explain import error_of
from im2im_core.jobs.frames import read_frame, write_frame

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

    from numpy.typing import NDArray

logger = logging.getLogger(__name__)
SECONDS = 1800.0
"""Time for one answer: a block of a large network on a slow processor takes minutes."""
SHARE = 0.9
"""Part of the memory that is free at the start which it may take."""
PERIOD = 0.2
"""Seconds between two looks at the memory that it has taken."""
_END_SECONDS = 5.0
_LAST_SECONDS = 1.0


class Confined:
    """One life of such a process; it ends with this object, and when the program that started it ends.

    Linux holds it to limits (see `_platform.confine`, which it calls itself before it loads anything that is
    not ours). On every system this side watches its memory and its time, and ends it where they are too much.

    Parameters
    ----------
    command : sequence of str
        Program to start: it reads frames from its standard input and answers each on its standard output.
    name : str
        What runs there, for messages.
    memory : int, optional
        Bytes that it may take; most of what is free now where not given.
    seconds : float
        Time that one answer may take.
    """

    def __init__(
        self, command: Sequence[str], name: str, *, memory: int | None = None, seconds: float = SECONDS
    ) -> None:
        self.memory = memory or int(SHARE * _platform.free_memory())
        self._name, self._seconds = name, seconds
        self._lock = threading.Lock()
        self._log = tempfile.TemporaryFile()
        self._process = _platform.start_attached(command, self._log, os.environ, low_priority=False)
        self._birth = _platform.birth(self._process.pid) or 0.0
        self._end = weakref.finalize(self, _end, self._process, self._birth, self._log)

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._end.alive and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def ask(self, header: dict[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> list[NDArray[Any]]:
        """Arrays that the process answers.

        Raises
        ------
        Im2ImError
            It says that it failed, of the kind that it says.
        RuntimeError
            What it runs failed, in its own words.
        ResourceError
            It died, or took more memory or time than it may; it is ended then.
        DataError
            Its answer makes no sense; it is ended then.
        """
        with self._lock:
            try:
                with _Watch(self._process, self._birth, self.memory, self._seconds) as watch:
                    found = self._exchange(header, arrays)
            except BaseException:  # an answer that was not taken would be taken for the next one
                self.close()
                raise
            if found is None:
                raise self._died(watch.reason)
        answer, results = found
        if isinstance(failed := answer.get("failed"), dict):
            raise _error(failed)
        return results

    def _exchange(
        self, header: dict[str, Any], arrays: Sequence[NDArray[Any]]
    ) -> tuple[dict[str, Any], list[NDArray[Any]]] | None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            write_frame(self._process.stdin, header, arrays)
            return read_frame(self._process.stdout, self.memory)
        except ValueError as error:
            raise DataError(
                f"The process that runs {self._name} answers what makes no sense: {error}",
                "Do not use the model; get the package again",
            ) from error
        except OSError:  # the pipe is closed: it died
            return None

    def _died(self, reason: str) -> ResourceError:
        """Error that says how it ended."""
        with suppress(ValueError):
            self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 4000))
            logger.warning("%s", self._log.read().decode(errors="replace"))
        with suppress(subprocess.TimeoutExpired):  # its pipes close a moment before it has ended
            self._process.wait(_LAST_SECONDS)
        self.close()
        words = reason or _platform.describe_exit(self._process.poll() or 0)
        was = "was " if words.startswith("killed") else ""
        return ResourceError(
            f"The process that runs {self._name} {was}{words}",
            "Close other programs, or choose smaller tiles; the next try starts a new process",
        )

    def close(self) -> None:
        """End the process; nothing happens where it ended before."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Watch:
    """Ends a process that takes too much memory or time while this context lasts."""

    def __init__(self, process: subprocess.Popen[bytes], birth: float, memory: int, seconds: float) -> None:
        self._process, self._birth, self._memory = process, birth, memory
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="im2im-watch", daemon=True)
        self.reason = ""
        """Why it was ended, in words; empty where it was not."""

    def _look(self) -> None:
        until = time.monotonic() + self._seconds
        while not self._over.wait(PERIOD):
            if _platform.memory_of(self._process.pid) > self._memory:
                self.reason = f"took more than {self._memory / 1e9:.1f} GB of memory and was ended"
            elif time.monotonic() > until:
                self.reason = f"gave no answer in {self._seconds / 60:.0f} minutes and was ended"
            if self.reason:
                _platform.kill_tree(self._process.pid, self._birth)
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _end(process: subprocess.Popen[bytes], birth: float, log: IO[bytes]) -> None:
    """Leave no process, pipe or file behind; there is nothing in it that could be lost."""
    _platform.kill_tree(process.pid, birth)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECONDS)
    for handle in (process.stdin, process.stdout, log):
        assert handle is not None
        with suppress(OSError):  # what stood in the pipe has no reader any more
            handle.close()


def _error(told: dict[str, Any]) -> Im2ImError | RuntimeError:
    """What the process says of its failure; an exit code of 0 means what it runs, not what it is asked."""
    message, cure, code = (told.get(key) for key in ("message", "cure", "exit_code"))
    if isinstance(code, int) and code:
        return error_of(Failed(str(message), str(cure or ""), code))
    return RuntimeError(str(message))
