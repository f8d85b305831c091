"""The process that trains: waits for its device, trains, and leaves state and exit code behind whatever happens."""

from __future__ import annotations

import argparse
import faulthandler
import functools
import logging
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from im2im_core.errors import Im2ImError, ResourceError, Stopped
from im2im_core.events import CommandDone, Event, Finished, Message, Paused
from im2im_core.jobs.commands import CommandInbox
from im2im_core.jobs.eventlog import EventLog
from im2im_core.jobs.explain import explain
from im2im_core.jobs.queue import DeviceQueue
from im2im_core.jobs.ranks import is_follower, rank, shared
from im2im_core.jobs.signals import StopFlag
from im2im_core.runs import HEARTBEAT_SECONDS, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from im2im_core.runs import State

    Train = Callable[[Run, Callable[[Event], None], Callable[[], bool]], None]

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None, train: Train | None = None) -> int:
    """Exit code of ``child train RUNFOLDER [--attempt N]``."""
    parser = argparse.ArgumentParser(prog="im2im_core.jobs.child")
    parser.add_argument("verb", choices=["train"])
    parser.add_argument("folder")
    parser.add_argument("--attempt", type=int)
    options = parser.parse_args(argv)
    faulthandler.enable()  # a crash in native code leaves its stack in log.txt
    try:
        return run_attempt(Run(options.folder), options.attempt, train)
    except Im2ImError as error:
        logger.error("%s", error)
        return error.exit_code


def run_attempt(run: Run, attempt: int | None = None, train: Train | None = None) -> int:
    """Exit code of one attempt at `run`, made in this process; state and events are written.

    Parameters
    ----------
    run : Run
        The run to start or to resume.
    attempt : int, optional
        Number of the attempt; the next one by default.
    train : callable, optional
        ``train(run, on_event, should_stop)``; `im2im_core.engine.session.run_training` by default.

    Raises
    ------
    ResourceError
        Another process owns the run, or its folder cannot be written to.
    """
    with StopFlag() as stop:
        if rank() > 0 and is_follower(run.recipe):  # a recipe that cannot be read is told by the attempt
            (train or _engine(0.0))(run, _ignore, stop)
            return stop.exit_code
        with run.claim(attempt) as number, EventLog(run, number) as log, _logging_to(run), _heartbeat(run), shared(run):
            return _Attempt(run, number, log, stop).work(train)


class _Attempt:
    """One try at a run: where it stands, and how it ends."""

    def __init__(self, run: Run, number: int, log: EventLog, stop: StopFlag) -> None:
        self._run, self._number, self._log, self._stop = run, number, log, stop
        self._end: Event | None = None

    def on_event(self, event: Event) -> None:
        """Write an event for everybody to read."""
        self._log.append(event)
        if isinstance(event, Finished | Paused):
            self._end = event

    def work(self, train: Train | None) -> int:
        """Exit code after everything that can happen; nothing is raised."""
        try:
            state = self._train(train)
            # a signal in the last moments does not matter to a training that ended by itself
            return self._close(state, 0 if state == "finished" else self._stop.exit_code)
        except Stopped as error:
            return self._close("stopped", self._stop.exit_code or error.exit_code, str(error))
        except KeyboardInterrupt:
            return self._close("stopped", 130, "Interrupted at once; resuming goes on from the last checkpoint")
        except SystemExit as error:  # what Lightning makes of a signal
            if self._stop():
                return self._close("stopped", self._stop.exit_code)
            return self._fail(error)
        except Exception as error:  # the boundary of the job: the only place that takes everything
            return self._fail(error)

    def _train(self, train: Train | None) -> State:
        begun = time.time()
        waiting = _Waiting(CommandInbox(self._run, self._number), self.on_event, self._stop)
        with ExitStack() as stack:
            for device in self._devices():
                if not stack.enter_context(DeviceQueue(device)).wait(waiting, partial(self._tell_place, device)):
                    return "paused" if waiting.verb == "pause" else "stopped"
            self._run.set_state("running")
            (train or _engine(time.time() - begun))(self._run, self.on_event, self._stop)
        if isinstance(self._end, Paused):
            return "paused"
        # Only a training that said so has a model; an aborted one says nothing and can be resumed.
        return "finished" if isinstance(self._end, Finished) else "stopped"

    def _devices(self) -> list[str]:
        """Devices to queue for, in the order in which all processes take them, so that none blocks another."""
        training = self._run.recipe.training
        device = str(self._run.plan.get("runtime", {}).get("device") or training.device)
        if training.devices == 1 or device.partition(":")[0] in ("cpu", "mps"):
            return [device]
        return [f"cuda:{i}" for i in range(training.devices)]

    def _tell_place(self, device: str, ahead: int) -> None:
        trainings = "training is" if ahead == 1 else "trainings are"
        place = "the device" if device == "auto" else device
        self.on_event(Message(f"Waiting for {place}: {ahead} {trainings} before this one", code="queued"))

    def _close(self, state: State, code: int, message: str = "") -> int:
        try:
            self._run.set_state(state, message)
        except ResourceError as error:  # the disk is full: readers see that the process is gone
            logger.error("%s", error)
        return code

    def _fail(self, error: BaseException) -> int:
        failed = explain(error)
        logger.error("%s", failed.message, exc_info=error)
        try:
            self.on_event(failed)
        except ResourceError as full:
            logger.error("%s", full)
        return self._close("failed", failed.exit_code, failed.message)


class _Waiting:
    """True when a signal or a command ends the waiting for a device; `verb` is the command."""

    def __init__(self, inbox: CommandInbox, on_event: Callable[[Event], None], stop: StopFlag) -> None:
        self._inbox, self._on_event, self._stop = inbox, on_event, stop
        self.verb = ""

    def __call__(self) -> bool:
        """Look for new commands and signals."""
        for command in self._inbox.poll():
            if command.verb in ("stop", "abort", "pause"):
                self._on_event(CommandDone(command.number, command.verb, "before the training began"))
                self.verb = self.verb or command.verb
        return bool(self.verb) or self._stop()


def process_start() -> float:
    """Unix time at which this process began: a budget in minutes counts from there."""
    import psutil

    return float(psutil.Process().create_time())


def _engine(waited: float) -> Train:
    """The real training; `waited` seconds in the queue are not taken from its budget."""
    from im2im_core.engine.session import run_training

    return functools.partial(run_training, started=process_start() + waited)


def _ignore(event: Event) -> None:
    """Take an event and do nothing."""


@contextmanager
def _heartbeat(run: Run) -> Iterator[None]:
    """Beats in a thread, so that a long step does not look like a dead process."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            run.beat()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class _LogFile(logging.FileHandler):
    """log.txt; what cannot be written to a full disk is left out."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave the record out."""


@contextmanager
def _logging_to(run: Run) -> Iterator[None]:
    """Adds log.txt to the places where log records go."""
    handler = _LogFile(run.log, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        with suppress(OSError):  # the disk is full, which the exit code says
            handler.close()


if __name__ == "__main__":
    sys.exit(main())
