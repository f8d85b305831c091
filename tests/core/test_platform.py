"""Branches for Windows and macOS, walked on whatever system this is."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from im2im_core import files
from im2im_core.jobs import _platform
from im2im_core.jobs._platform import FileLock, birth, describe_exit, is_alive, is_reserved, reserve

posix = pytest.mark.skipif(os.name == "nt", reason="the branch of another system")


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_platform, "WINDOWS", True)


@pytest.mark.usefixtures("windows")
def test_processes_of_windows_get_a_group_and_a_priority() -> None:
    detached, attached = (_platform._flags(True, detached=d)["creationflags"] for d in (True, False))
    # CREATE_NEW_PROCESS_GROUP, DETACHED_PROCESS, BELOW_NORMAL_PRIORITY_CLASS; CREATE_NO_WINDOW
    assert detached == 0x200 | 0x8 | 0x4000
    assert attached == 0x08000000 | 0x4000
    assert _platform._flags(False, detached=False)["creationflags"] == 0x08000000
    before = psutil.Process().nice()
    _platform.lower_priority(os.getpid())
    assert psutil.Process().nice() == before


@pytest.mark.usefixtures("windows")
def test_fault_27_a_crash_on_windows_is_told_in_words() -> None:
    assert describe_exit(0xC0000005) == "crashed with code 0xc0000005, probably out of memory"
    assert describe_exit(4) == "ended with exit code 4"


@posix
@pytest.mark.parametrize(("refused", "taken"), [(None, True), (errno.EACCES, False), (errno.ENOLCK, True)])
def test_fault_26_locks_of_windows_lie_behind_the_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int | None, taken: bool
) -> None:
    asked: list[tuple[int, int]] = []

    def locking(handle: int, mode: int, size: int) -> None:
        asked.append((os.lseek(handle, 0, os.SEEK_CUR), size))
        if refused:
            raise OSError(refused, "no")

    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    lock = FileLock(tmp_path / "a.lock")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        assert lock.acquire() is taken
    lock.release()
    assert asked == [(1 << 30, 1)]
    assert (tmp_path / "a.lock").stat().st_size == 0


@posix
def test_folders_are_not_flushed_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        files.sync(tmp_path)
    assert flushed == []
    files.sync(tmp_path)
    assert len(flushed) == 1


@pytest.mark.parametrize(
    ("name", "reserved"),
    [("con", True), ("NUL.txt", True), ("com1", True), ("lpt9.tif", True), ("a.", True), ("a ", True), ("cone", False),
     ("com", False), ("nuclei 1", False)],
)  # fmt: skip
def test_fault_39_names_that_windows_keeps(name: str, reserved: bool) -> None:
    assert is_reserved(name) is reserved


@posix
@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_the_folder_of_the_user(platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
    monkeypatch.setattr(_platform, "WINDOWS", platform == "win32")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", platform)
        found = _platform.user_data_folder()
    assert found == tmp_path / ("Local" if platform == "win32" else "Library/Application Support")


@posix
def test_fault_26_the_dead_are_known_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """As macOS and Windows tell them: by psutil; one that ended and was not fetched is dead too."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = birth(process.pid)
        assert started is not None
        assert abs(started - time.time()) < 60
        assert is_alive(process.pid, started)
        assert not is_alive(process.pid, started - 10)  # the number of another process once
        process.kill()
        until = time.monotonic() + 30
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < until
        assert birth(process.pid) is None
    assert birth(process.pid) is None


def test_fault_06_space_is_reserved_by_writing_where_the_system_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    path, size = tmp_path / "a", (1 << 22) + 12345
    path.write_bytes(b"kept")
    with path.open("r+b") as handle:
        reserve(handle, size)
        reserve(handle, 10)  # smaller than it is: nothing is cut
    assert path.stat().st_size == size
    assert path.read_bytes()[:8] == b"kept" + bytes(4)

    class Full:
        def __getattr__(self, name: str) -> Any:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        reserve(Full(), size)  # type: ignore[arg-type]


# ---- limits of what is not ours ----

LIMITED = """
import json, sys
from im2im_core.jobs import _platform
sys.platform = sys.argv[1]
_platform.WINDOWS = sys.argv[1] == "win32"
names = sorted(_platform.confine(1 << 28, files=False))
import json
said = {}
for what, place in (("read", "/etc/hostname"), ("write", "canary")):
    try:
        with open(place, what[0]) as handle:
            handle.write("x" * 10_000) if what == "write" else None
        said[what] = 0
    except OSError as error:
        said[what] = error.errno
try:
    bytearray(1 << 29)
    said["memory"] = True
except MemoryError:
    said["memory"] = False
print(json.dumps([names, said]))
"""


@posix
@pytest.mark.parametrize(
    ("platform", "names", "read", "write", "memory"),
    [
        ("linux", ["RLIMIT_CORE", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_NOFILE"], errno.EMFILE, errno.EMFILE, False),
        ("darwin", ["RLIMIT_CORE", "RLIMIT_FSIZE"], 0, errno.EFBIG, True),
        ("win32", [], 0, 0, True),
    ],
)
def test_fault_38_limits_of_each_system(
    tmp_path: Path, platform: str, names: list[str], read: int, write: int, memory: bool
) -> None:
    if platform == "linux" and sys.platform != "linux":
        pytest.skip("Linux alone keeps to all limits")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, platform], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [names, {"read": read, "write": write, "memory": memory}]


@posix
def test_fault_38_limits_are_never_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    asked: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(resource, "getrlimit", lambda number: (100, 100))
    monkeypatch.setattr(resource, "setrlimit", asked.__setitem__)
    monkeypatch.setattr(_platform, "_data_bytes", lambda: 7)
    assert _platform.confine(500, files=True) == {"RLIMIT_CORE": 0, "RLIMIT_DATA": 507}
    assert asked == {resource.RLIMIT_CORE: (0, 0), resource.RLIMIT_DATA: (100, 100)}
    assert _platform.confine(0, files=True) == {"RLIMIT_CORE": 0}


def test_fault_38_memory_of_processes() -> None:
    assert 1e6 < _platform.memory_of(os.getpid()) < 1e12
    assert _platform.memory_of(2**30) == 0
    assert 1e6 < _platform.free_memory() < 1e14
