"""Files that are never half written: temp file in the same folder, fsync, rename, fsync of the folder."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_core.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Temporary file name in the folder of `path`, renamed to `path` when the block succeeds.

    The file is flushed to disk before the rename and its folder after it, so that a power
    loss leaves either the old or the new content. On any error the temporary file is removed.

    Raises
    ------
    ResourceError
        The folder cannot be written to or the disk is full.
    """
    part = path.with_name(f".{path.name[:180]}{_thread()}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        sync(part)
        os.replace(part, path)
        sync(path.parent)
    except OSError as error:
        raise ResourceError(
            f"Cannot write {path}: {error.strerror or error}",
            "Check free space and permissions of the folder",
        ) from error
    finally:
        with suppress(OSError):  # gone already, or the folder never was one
            part.unlink()


def _thread() -> str:
    """Part of a temporary name: two threads may write one file at the same time."""
    return "" if threading.current_thread() is threading.main_thread() else f".{threading.get_native_id()}"


def publish(part: Path, path: Path) -> None:
    """Give a complete file or folder its final name; what stood there goes only when the new one stands.

    Raises
    ------
    OSError
        It cannot be renamed; what stood there stands there still.
    """
    # A folder cannot replace a full folder, so the old one steps aside first; its name does
    # not end in .part, so that a crash between the renames never costs the old result.
    aside = path.exists() and (path.is_dir() or part.is_dir())
    old = path.with_name(f".{path.name[:180]}.{os.getpid()}.old")
    if aside:
        remove(old)
        os.replace(path, old)
    try:
        os.replace(part, path)
    except OSError:
        if aside:
            os.replace(old, path)
        raise
    sync(path.parent)
    if aside:
        remove(old)


def recover(path: Path) -> None:
    """Put back what a process that was killed in `publish` had moved aside; delete it where the new one stands.

    Raises
    ------
    OSError
        It cannot be renamed or deleted.
    """
    start = f".{path.name[:180]}."
    for old in path.parent.glob(f"{glob.escape(start)}*.old"):
        pid = old.name.removeprefix(start).removesuffix(".old")
        if pid.isdigit() and not _alive(int(pid)):
            if path.exists():
                remove(old)
            else:
                os.replace(old, path)


def remove(path: Path, patience: float = 0.0) -> None:
    """Delete a file or folder if it is there.

    For `patience` seconds it is tried again where it fails: another thread may still be ending a
    write into the folder, which makes it "not empty" after all its files were deleted.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            _remove_once(path)
            return
        except OSError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.02)


def _remove_once(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a crash leaves the old or the new file, never half of one."""
    with atomic_path(path) as part:
        part.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, atomically."""
    write_atomic(path, json.dumps(content, indent=1, ensure_ascii=False).encode())


def read_json(path: Path) -> Any:
    """Content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def sync(path: Path) -> None:
    """Flush a file or, where the system can, a folder to disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder for fsync
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Hex digest of the content of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def remove_stale_parts(folder: Path) -> None:
    """Delete temporary files that a killed process left in `folder`."""
    for part in folder.glob(".*.part"):
        pid = part.suffixes[-2].lstrip(".") if len(part.suffixes) > 1 else ""
        if not (pid.isdigit() and _alive(int(pid))):
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    import psutil

    return pid != os.getpid() and psutil.pid_exists(pid)
