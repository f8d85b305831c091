"""Starts a training as a detached process, which outlives whoever started it."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from im2im_core.errors import ResourceError
from im2im_core.jobs import _platform
from im2im_core.runs import ACTIVE, probe

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    from im2im_core.runs import Run

START_SECONDS = 60.0
# -P: the folder the user happens to be in must not be searched for modules
CHILD = (sys.executable, "-P", "-m", "im2im_core.jobs.child")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def start_training(run: Run, *, low_priority: bool = True, command: Sequence[str] = CHILD) -> int:
    """Process number of the training, once it owns the run (it may still wait for its device).

    Parameters
    ----------
    run : Run
        A new run, or one to resume.
    low_priority : bool
        Let it give way to other programs, as a viewer wants it.
    command : sequence of str
        Program to start in place of `im2im_core.jobs.child`.

    Raises
    ------
    ResourceError
        The folder is read-only, another process owns the run, or the process ended at once.
    """
    before = run.status
    if before.attempt and run.state in ACTIVE:
        raise ResourceError(f"Run {run.name} is used by process {before.pid} on {before.host}", "Stop it first")
    probe(run.folder)
    attempt = before.attempt + 1
    arguments = [*command, "train", str(run.folder), "--attempt", str(attempt)]
    process = _platform.start_detached(arguments, run.log, environment(run), low_priority)
    if low_priority:
        _platform.lower_priority(process.pid)
    threading.Thread(target=process.wait, daemon=True).start()  # so that no zombie is left
    return _await_claim(run, process, attempt)


def resume_training(run: Run, *, low_priority: bool = True, command: Sequence[str] = CHILD) -> int:
    """Process number of the next attempt of `run`, which goes on from its last checkpoint.

    Raises
    ------
    ConfigError
        The run is finished.
    ResourceError
        As for `start_training`.
    """
    run.require_unfinished()
    return start_training(run, low_priority=low_priority, command=command)


def environment(run: Run) -> dict[str, str]:
    """Environment of the process: the caller's, with the number of threads of the plan."""
    threads = run.plan.get("runtime", {}).get("threads")
    fixed = dict.fromkeys(_THREAD_VARIABLES, str(threads)) if isinstance(threads, int) else {}
    return {**os.environ, **fixed}


def _await_claim(run: Run, process: subprocess.Popen[bytes], attempt: int) -> int:
    """Wait until the child wrote itself into run.json: from then on its state can be trusted."""
    limit = time.monotonic() + START_SECONDS
    while time.monotonic() < limit:
        status = run.status
        if status.attempt >= attempt:
            return status.pid
        if process.poll() is not None:
            tail = run.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
            raise ResourceError(
                f"The training {_platform.describe_exit(process.returncode)} before it began: {' '.join(tail)}",
                f"See {run.log}",
            )
        time.sleep(0.02)
    return process.pid
