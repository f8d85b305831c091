"""Every difference between operating systems that jobs meet: processes, signals, locks, folders."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from im2im_core.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WINDOWS = os.name == "nt"
STOP_SIGNALS = tuple(n for n in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGBREAK") if hasattr(signal, n))
"""Signals that ask a training to save and end."""
_LOCK_BYTE = 1 << 30  # far behind any content: Windows locks are mandatory and would hide what they cover
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, 524}
"""Errors of network file systems without locks; 524 is Linux' own ENOTSUPP, which leaks from NFS."""
_NIX_NICE = 5


# ---- folders and names ----


def user_data_folder() -> Path:
    """Folder in which the operating system wants programs to keep a user's data."""
    if WINDOWS:
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")


def host_name() -> str:
    """Name of this machine."""
    return socket.gethostname()


def is_reserved(name: str) -> bool:
    """Whether Windows makes no file or folder of this name: a device, or one that ends with a dot or space."""
    stem = name.partition(".")[0].rstrip().lower()
    devices = ("con", "prn", "aux", "nul", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(1, 10)))
    return stem in devices or name != name.rstrip(". ")


def likely_device() -> str:
    """Device that ``auto`` most likely means, found without torch."""
    if Path("/dev/nvidia0").exists() or (WINDOWS and shutil.which("nvidia-smi")):
        return "cuda:0"
    return "mps" if sys.platform == "darwin" and os.uname().machine == "arm64" else "cpu"


# ---- processes ----


def birth(pid: int) -> float | None:
    """When process `pid` was started, as this system counts; None when it is dead or a zombie.

    On Linux this is seconds since boot, which no change of the clock moves.
    """
    if sys.platform == "linux":
        return _linux_birth(pid)
    import psutil

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    return None


def _linux_birth(pid: int) -> float | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name in brackets may hold spaces
    state, ticks = fields[0], float(fields[19])
    return None if state in "ZX" else ticks / os.sysconf("SC_CLK_TCK")


def is_alive(pid: int, started: float) -> bool:
    """Whether the process `pid` that was born at `started` still runs; a recycled pid does not count."""
    now = birth(pid)
    return now is not None and abs(now - started) < 0.02 + (0 if sys.platform == "linux" else 2)


def start_detached(
    command: Sequence[str], log: Path, environment: Mapping[str, str], low_priority: bool
) -> subprocess.Popen[bytes]:
    """Process in a session of its own that outlives this one; it writes to `log` and inherits no pipe."""
    with log.open("ab") as output:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            **_flags(low_priority, detached=True),
        )


def start_attached(
    command: Sequence[str], log: IO[bytes], environment: Mapping[str, str], low_priority: bool
) -> subprocess.Popen[bytes]:
    """Process that talks over its standard input and output and writes errors to `log`."""
    return subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=dict(environment),
        **_flags(low_priority, detached=False),
    )


def _flags(low_priority: bool, detached: bool) -> dict[str, Any]:
    if not WINDOWS:
        return {"start_new_session": detached}
    flags = 0x00000200 if detached else 0  # CREATE_NEW_PROCESS_GROUP
    flags |= 0x00000008 if detached else 0x08000000  # DETACHED_PROCESS, or CREATE_NO_WINDOW
    flags |= 0x00004000 if low_priority else 0  # BELOW_NORMAL_PRIORITY_CLASS
    return {"creationflags": flags}


def lower_priority(pid: int) -> None:
    """Let process `pid` give way to the viewer; Windows does this at the start."""
    if not WINDOWS:
        with suppress(OSError):  # it ended already, or the system does not allow it: no harm
            os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid) + _NIX_NICE)


def kill_tree(pid: int, started: float) -> None:
    """End process `pid` and all it started, at once; nothing happens if `pid` is another process by now."""
    import psutil

    if not is_alive(pid, started):
        return
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for member in [*process.children(recursive=True), process]:
            with suppress(psutil.Error):
                member.kill()


def describe_exit(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0 and not (WINDOWS and code > 255):
        return f"ended with exit code {code}"
    if code >= 0:
        return f"crashed with code {code:#x}, probably out of memory"
    return f"killed by signal {-code}, probably out of memory"


def take_stdout() -> int:
    """Handle of standard output for messages alone; whatever libraries print goes to standard error."""
    handle = os.dup(1)
    os.dup2(2, 1)
    return handle


# ---- limits ----


def free_memory() -> int:
    """Bytes of memory that programs can have now without anything being moved to the disk."""
    import psutil

    return int(psutil.virtual_memory().available)


def memory_of(pid: int) -> int:
    """Bytes of memory that process `pid` holds; 0 where it is gone."""
    import psutil

    with suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def confine(memory: int, files: bool) -> dict[str, int]:
    """Limits that hold for this process from now on and cannot be taken back; their names and values.

    Linux keeps to all of them. macOS lets a process write no file and leave no image of its memory, but
    does not count memory, and Windows knows no such limits: there the process that started this one watches
    its memory and its time.

    Parameters
    ----------
    memory : int
        Bytes that may be taken beyond what is taken now; 0 for as many as there are.
    files : bool
        Whether files may still be opened and written; pipes that are open stay so.
    """
    if WINDOWS:
        return {}
    import resource

    wanted = {"RLIMIT_CORE": 0} | ({} if files else {"RLIMIT_FSIZE": 0})
    if sys.platform == "linux":
        wanted |= {"RLIMIT_DATA": _data_bytes() + memory} if memory else {}
        wanted |= {} if files else {"RLIMIT_NOFILE": 0}
    for name, value in wanted.items():
        number = getattr(resource, name)
        most = resource.getrlimit(number)[1]
        lowest = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(number, (lowest, lowest))
    return wanted


def _data_bytes() -> int:
    """Bytes that Linux counts as data of this process: what it made room for, touched or not."""
    status = Path("/proc/self/status").read_text(errors="replace")
    return next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData")), 0)


# ---- files ----


class FileLock:
    """Lock on a file that the system drops when the holder dies, so that none is ever stale.

    The lock belongs to this process, not to processes it starts. The file must not be opened by
    anything else in this process: POSIX drops all locks of a process when it closes any handle.
    """

    _held: set[str] = set()
    _guard = threading.Lock()

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key = os.path.realpath(path)
        self._handle: BinaryIO | None = None

    def acquire(self) -> bool:
        """Whether the lock is ours now; never waits."""
        with self._guard:
            if self._key in self._held:
                return False
            try:
                handle = open(self._path, "ab")
            except OSError as error:
                raise ResourceError(
                    f"Cannot write {self._path}: {error.strerror}", "Check the permissions of the folder"
                ) from error
            if not _lock(handle):
                handle.close()
                return False
            self._handle = handle
            self._held.add(self._key)
            return True

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not ours."""
        with self._guard:
            if self._handle is not None:
                self._handle.close()
                self._handle = None
                self._held.discard(self._key)


def _lock(handle: BinaryIO) -> bool:
    """Whether an exclusive lock was taken; true too on file systems that know no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle.fileno(), _LOCK_BYTE, os.SEEK_SET)
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _LOCK_BYTE)
    except OSError as error:
        return error.errno in _NO_LOCKS
    return True


def reserve(handle: BinaryIO, size: int) -> None:
    """Give an open file `size` bytes of real disk, so that mapped memory can never run out of it (SIGBUS)."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle.fileno(), 0, size)
        return
    handle.seek(0, os.SEEK_END)
    missing = size - handle.tell()
    block = bytes(min(missing, 1 << 22)) if missing > 0 else b""
    while missing > 0:
        missing -= handle.write(block[:missing])
    handle.flush()
