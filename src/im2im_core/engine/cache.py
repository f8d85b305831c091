"""Where prepared images wait: in memory when they fit, memory-mapped when not, rolling when even the disk is small."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from im2im_core.engine.prepare import Entry
from im2im_core.errors import ResourceError
from im2im_core.files import read_json, sha256, sync, write_json
from im2im_core.normalize import Scaling

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

CACHE_VERSION = 3


class Store(Protocol):
    """Entries by number."""

    def get(self, number: int) -> Entry: ...


class MemoryStore:
    """All entries in memory, prepared once, up front."""

    def __init__(self, count: int, make: Callable[[int], Entry], progress: Callable[[int], None]) -> None:
        self._entries = []
        for number in range(count):
            self._entries.append(make(number))
            progress(number + 1)

    def get(self, number: int) -> Entry:
        return self._entries[number]


class DiskStore:
    """Entries as memory-mapped raw files, validated by content, prepared on first use or again when damaged.

    Parameters
    ----------
    folder : Path
        May be deleted at any time; everything in it can be made again.
    keys : list of str
        One per entry; changes when its images or the settings that prepare it change.
    """

    def __init__(
        self, folder: Path, keys: list[str], make: Callable[[int], Entry], progress: Callable[[int], None]
    ) -> None:
        self._folders = [folder / key for key in keys]
        self._make = make
        self._open: dict[int, Entry] = {}
        for number in range(len(keys)):
            self.get(number)
            progress(number + 1)

    def get(self, number: int) -> Entry:
        if number not in self._open:
            folder = self._folders[number]
            entry = load_entry(folder)
            if entry is None:
                save_entry(self._make(number), folder)
                entry = load_entry(folder)
            if entry is None:
                raise ResourceError(f"The cache in {folder} cannot be read back", "Check the disk")
            self._open[number] = entry
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        # A worker process opens the files itself.
        return {**self.__dict__, "_open": {}}


class RollingStore:
    """At most `capacity` entries in memory; others are prepared again when their turn comes."""

    def __init__(self, capacity: int, make: Callable[[int], Entry]) -> None:
        self._capacity, self._make = max(1, capacity), make
        self._held: OrderedDict[int, Entry] = OrderedDict()
        self._lock = threading.Lock()  # patches are cut ahead in a thread

    def get(self, number: int) -> Entry:
        with self._lock:
            return self._get(number)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process has its own lock and fills its own part.
        return {"_capacity": self._capacity, "_make": self._make}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_capacity"], state["_make"])  # type: ignore[misc]

    def _get(self, number: int) -> Entry:
        if number not in self._held:
            while len(self._held) >= self._capacity:
                self._held.popitem(last=False)
            self._held[number] = self._make(number)
        self._held.move_to_end(number)
        return self._held[number]


def key_of(*parts: str) -> str:
    """Name of a cache entry from everything that decides its content."""
    return hashlib.sha256("\0".join((str(CACHE_VERSION), *parts)).encode()).hexdigest()[:32]


def save_entry(entry: Entry, folder: Path) -> None:
    """Write an entry so that it either stands whole under `folder` or not at all.

    Raises
    ------
    ResourceError
        The disk is full; names the megabytes needed and free.
    """
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True, exist_ok=True)
        files = {name: _save_array(array, part / f"{name}.raw") for name, array in entry.arrays.items()}
        write_json(
            part / "manifest.json",
            {"name": entry.name, "offset": entry.scaling.offset, "scale": entry.scaling.scale, "files": files},
        )
        shutil.rmtree(folder, ignore_errors=True)
        _place(part, folder)
        sync(folder.parent)
    except OSError as error:
        need = sum(a.nbytes for a in entry.arrays.values()) / 1e6
        raise ResourceError(
            f"Cannot write the cache {folder}: {error.strerror}; {need:.0f} MB needed, "
            f"{free_bytes(folder) / 1e6:.0f} MB free",
            "Free some space, or set data.cache.kind to memory or rolling",
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _place(part: Path, folder: Path) -> None:
    """Give `part` its final name, unless another training wrote the same entry in the meantime."""
    try:
        os.replace(part, folder)
    except OSError:
        if load_entry(folder) is None:
            raise


def free_bytes(folder: Path) -> int:
    """Bytes that are free where `folder` lies, which need not exist yet."""
    existing = next((p for p in (folder, *folder.parents) if p.exists()), Path("/"))
    return shutil.disk_usage(existing).free


def _save_array(array: NDArray[Any], path: Path) -> dict[str, Any]:
    array = np.ascontiguousarray(array)
    with path.open("wb") as handle:
        if hasattr(os, "posix_fallocate") and array.nbytes:
            os.posix_fallocate(handle.fileno(), 0, array.nbytes)
        handle.write(array.data.cast("B") if array.size else b"")
        handle.flush()
        os.fsync(handle.fileno())
    return {"dtype": array.dtype.str, "shape": array.shape, "sha256": sha256(path)}


def load_entry(folder: Path) -> Entry | None:
    """Entry mapped from `folder`; None when it is missing, torn or was changed."""
    try:
        manifest = read_json(folder / "manifest.json")
        arrays = {name: _map_array(folder / f"{name}.raw", facts) for name, facts in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, json.JSONDecodeError):
        return None
    return Entry(manifest["name"], arrays, Scaling(tuple(manifest["offset"]), tuple(manifest["scale"])))


def _map_array(path: Path, facts: dict[str, Any]) -> NDArray[Any]:
    dtype, shape = np.dtype(facts["dtype"]), tuple(facts["shape"])
    if path.stat().st_size != dtype.itemsize * int(np.prod(shape)) or sha256(path) != facts["sha256"]:
        raise ValueError(f"{path} was changed")
    return np.memmap(path, dtype, "r", shape=shape)
