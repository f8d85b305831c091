"""Processes to be killed: forked from one that has imported everything, so that hundreds of kills take minutes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from im2im_core.jobs._platform import birth

KILLS = int(os.environ.get("IM2IM_FAULT_KILLS", "200"))
"""How often processes are killed in the full form."""
SEED = int(os.environ.get("IM2IM_FAULT_SEED", "0"))
"""Which moments are drawn."""
LANES = 2
"""Trainings that are killed side by side: starting one keeps one core busy."""
PATIENCE = 600.0
"""Seconds until something that does not come is an error; far more than it takes."""

NURSERY = """
import os, sys, traceback
{imports}
for line in sys.stdin:
    argument = line.rstrip("\\n")
    pid = os.fork()
    if not pid:
        code = 1
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1):
            os.dup2(quiet, stream)
        try:
            code = work(argument)
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Nursery:
    """A process that forks one child after the other.

    Parameters
    ----------
    imports : str
        What it imports, and ``work(argument)``, which is what a child does; gives its exit code.
    environment : dict of str
        Added to that of this process.
    log : Path
        Where errors of the children go.
    """

    def __init__(self, imports: str, environment: dict[str, str], log: Path) -> None:
        self._errors = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY.format(imports=imports)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | environment,
        )
        self._pid: int | None = None

    def start(self, argument: object) -> int:
        """Process that does the work."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{argument}\n")
        self._process.stdin.flush()
        self._pid = self._number()
        return self._pid

    def wait(self) -> int:
        """Exit code of the child, negative for a signal."""
        code = self._number()
        self._pid = None
        return code

    def _number(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the nursery ended, see {self._errors.name}"
        return int(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._errors.close()


def until(condition: Callable[[], Any], pid: int | None = None) -> None:
    """Return when `condition` holds, or when the process `pid` has ended."""
    limit = time.monotonic() + PATIENCE
    while not condition() and (pid is None or birth(pid) is not None):
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.005)


def in_lanes(work: Callable[[int], None]) -> None:
    """Do `work` with the number of each lane, side by side."""
    with ThreadPoolExecutor(LANES) as pool:
        for done in [pool.submit(work, lane) for lane in range(LANES)]:
            done.result()


@contextmanager
def elsewhere() -> Iterator[Path]:
    """Temporary folder on another file system than that of the tests, where there is one; it must stay empty."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        yield folder
        large = [p for p in folder.rglob("*") if p.is_file() and p.stat().st_size > 4096]
        assert large == [], "left in the temporary folder of the system"
    finally:
        shutil.rmtree(folder)


def on_small_disk(folder: Path, megabytes: int, script: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Python `script` run with `folder` as a disk of its own; the test is skipped where none can be made."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    mount = f'mount -t tmpfs -o size={megabytes}m none "$1" || exit 99; shift; exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", mount, "sh", str(folder), sys.executable, str(script), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    if done.returncode == 99 or done.stderr.startswith("unshare"):
        pytest.skip("small disks cannot be made here")
    return done
