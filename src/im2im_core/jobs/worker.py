"""The attached process: does what it is told over standard input, and ends when that closes."""

from __future__ import annotations

import logging
import os
import queue
import shutil
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from im2im_core.errors import ConfigError, Stopped, nearest
from im2im_core.jobs._platform import take_stdout
from im2im_core.jobs.eventlog import encode_event
from im2im_core.jobs.explain import explain
from im2im_core.jobs.messages import (
    Acknowledged,
    Broken,
    Cancel,
    Cancelled,
    Done,
    FromWorker,
    Reported,
    Submit,
    Warm,
    decode,
    encode,
    pack,
    unpack,
)
from im2im_core.jobs.verbs import VERBS, warm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from im2im_core.events import Event
    from im2im_core.jobs.verbs import Verb

logger = logging.getLogger(__name__)
GRACE_SECONDS = 3.0
"""Time that a job has to end after standard input closed."""


def main(argv: Sequence[str] | None = None, verbs: Mapping[str, Verb] = VERBS) -> int:
    """Exit code of ``worker SCRATCHFOLDER``; knows `verbs`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is for the viewer, which tells us
    logging.basicConfig(level=logging.WARNING)
    _Worker(Path(arguments[0]), take_stdout(), verbs).work(sys.stdin.buffer)
    return 0


class _Worker:
    """Takes messages in one thread and does the jobs in the main thread."""

    def __init__(self, scratch: Path, output: int, verbs: Mapping[str, Verb]) -> None:
        self._scratch, self._output, self._verbs = scratch, output, verbs
        self._jobs: queue.Queue[Submit | Warm | None] = queue.Queue()
        self._cancelled: set[int] = set()
        self._ending = threading.Event()
        self._lock = threading.Lock()

    def work(self, source: BinaryIO) -> None:
        """Do jobs until `source` closes."""
        threading.Thread(target=self._listen, args=[source], daemon=True).start()
        while (job := self._jobs.get()) is not None:
            if isinstance(job, Submit):
                self._do(job)
            else:
                warm()
        shutil.rmtree(self._scratch, ignore_errors=True)  # the viewer may have died

    def _listen(self, source: BinaryIO) -> None:
        for line in source:
            message = decode(line)
            if isinstance(message, Cancel):
                self._cancelled.add(message.job)
                self._say(Acknowledged(message.job))
            elif isinstance(message, Submit | Warm):
                self._jobs.put(message)
        self._ending.set()
        timer = threading.Timer(GRACE_SECONDS, self._leave)
        timer.daemon = True
        timer.start()
        self._jobs.put(None)

    def _leave(self) -> None:
        """End in the middle of whatever is computed: nobody waits for it any more."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        os._exit(1)

    def _do(self, job: Submit) -> None:
        def should_stop() -> bool:
            return self._ending.is_set() or job.job in self._cancelled

        def on_event(event: Event) -> None:
            self._say(Reported(job.job, encode_event(event)))

        try:
            if should_stop():
                raise Stopped("The job was cancelled before it began")
            if job.verb not in self._verbs:
                raise ConfigError(f"Unknown job {job.verb!r}", nearest(job.verb, self._verbs))
            arguments: dict[str, Any] = unpack(job.arguments, self._scratch)
            result = self._verbs[job.verb](arguments, on_event, should_stop)
            self._say(Done(job.job, pack(result, self._scratch)))
        except Stopped:
            self._say(Cancelled(job.job))
        except Exception as error:  # the boundary of the job: the only place that takes everything
            logger.error("%s failed", job.verb, exc_info=error)
            self._say(Broken(job.job, encode_event(explain(error))))

    def _say(self, message: FromWorker) -> None:
        line = memoryview(encode(message))
        with self._lock, suppress(OSError):  # the viewer is gone: standard input closes in a moment
            while line:
                line = line[os.write(self._output, line) :]


if __name__ == "__main__":
    sys.exit(main())
