"""Labels while they are painted: a base and numbered changes on disk, from which a killed viewer's work comes back."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.errors import DataError, ResourceError
from im2im_core.events import Event, Message

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.project import Project

BLOCK = 256
"""Width of a block along the last two axes; along the others it is one plane."""
COMPACT_AFTER = 200
"""Changes after which the journal is written anew as one."""
BASE = "base.json"
_CHANGE = re.compile(r"(\d{6})\.json")

Place = tuple[int, ...]
"""Number of a block along every axis."""
OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class JournalInfo:
    """What is known of a journal before it is restored."""

    name: str
    """Name of the layer."""
    shape: tuple[int, ...]
    dtype: str
    changed: float
    """Unix time of the last change."""
    changes: int
    about: dict[str, Any]
    """What the writer noted to show the layer again, for example its scale."""


class Journal:
    """The journal of one layer, in the folder ``journal/UUID`` of a project.

    It starts from zeros or from an unchanged file. Every change is a file with the pixels of
    the blocks that differ and, written after it, a list of these blocks with their hashes.
    """

    def __init__(self, project: Project, uuid: str) -> None:
        if not re.fullmatch(r"[\w-]{1,80}", uuid):
            raise DataError(f"{uuid!r} cannot name a journal", "Use letters, digits and dashes")
        self.uuid = uuid
        self.folder = project.folder("journal") / uuid
        self._seen: dict[Place, bytes] = {}

    @property
    def exists(self) -> bool:
        """Whether something was journaled."""
        return (self.folder / BASE).is_file()

    # ---- writing ----

    def look(self, array: NDArray[Any]) -> None:
        """Take `array` for what is known already; only what differs from it is written later."""
        self._seen = {place: _digest(array[index]) for place, index in blocks(array.shape)}

    def differs(self, array: NDArray[Any], places: Iterable[Place] | None = None) -> bool:
        """Whether `array` has another shape or other pixels than what was looked at last."""
        wanted = None if places is None else set(places)
        known = {place for place, _ in blocks(array.shape)}
        if known != set(self._seen):
            return True
        chosen = ((p, index) for p, index in blocks(array.shape) if wanted is None or p in wanted)
        return any(_digest(array[index]) != self._seen[place] for place, index in chosen)

    def looked_at(self, file: Path, array: NDArray[Any]) -> bool:
        """Whether `file` holds exactly what was looked at last, in the shape and type of `array`.

        Raises
        ------
        DataError
            The file cannot be read, or its axes are not known.
        """
        from im2im_core.io import open_image

        stored = _read_file(file, open_image(file).info.axes)
        same = stored.shape == array.shape and stored.dtype == array.dtype
        return same and not self.differs(stored)

    def note_base(
        self, base: NDArray[Any] | Path, *, name: str = "labels", about: dict[str, Any] | None = None
    ) -> None:
        """Start the journal anew from an array, or from a file that holds what was looked at.

        Raises
        ------
        ResourceError
            The folder cannot be written to.
        """
        start = self._next()
        if isinstance(base, Path):
            from im2im_core.io import open_image

            info = open_image(base).info
            sizes = [n for axis, n in zip("TCZYX", info.shape, strict=True) if axis in info.axes]
            origin = {"file": str(base.resolve()), "identity": info.identity, "axes": info.axes}
            self._write_base(start, sizes, np.dtype(info.dtype).str, name, about or {}, origin)
            if not self._seen:
                self.look(_read_file(base, info.axes))
        else:
            self._write_base(start, list(base.shape), base.dtype.str, name, about or {}, {})
            self._seen = {}
            self.write_changes(base)

    def write_changes(self, array: NDArray[Any], places: Iterable[Place] | None = None) -> int:
        """Number of blocks that differ from what was seen last and are now on disk.

        Parameters
        ----------
        places : iterable of block numbers, optional
            Where to look; everywhere if not given.

        Raises
        ------
        ResourceError
            The disk is full or the folder is not writable.
        """
        wanted = None if places is None else set(places)
        changed: dict[Place, NDArray[Any]] = {}
        digests: dict[Place, bytes] = {}
        for place, index in blocks(array.shape):
            if wanted is not None and place not in wanted:
                continue
            block = np.array(array[index])  # a copy: the array may be painted on meanwhile
            digest, before = _digest(block), self._seen.get(place)
            if digest != before and (before is not None or block.any()):
                changed[place], digests[place] = block, digest
        if changed:
            self._write_change(changed)
            self._seen |= digests
            self._compact(array)
        return len(changed)

    def release(self) -> None:
        """Let other viewers offer what was written, although this process still runs."""
        from im2im_core.files import write_json

        if self.exists:
            write_json(self.folder / BASE, {**self._base(), "owner": None})

    def _write_change(self, changed: dict[Place, NDArray[Any]]) -> None:
        from im2im_core.files import atomic_path, write_json

        number = self._next()
        rows, offset = [], 0
        for place, block in changed.items():
            rows.append({"place": list(place), "offset": offset, "size": block.size, "sha256": _sha256(block)})
            offset += block.size
        with atomic_path(self.folder / f"{number:06d}.npy") as part, part.open("wb") as stream:
            np.save(stream, np.concatenate([b.ravel() for b in changed.values()]), allow_pickle=False)
        write_json(self.folder / f"{number:06d}.json", {"number": number, "time": time.time(), "blocks": rows})

    def _write_base(
        self, start: int, shape: list[int], dtype: str, name: str, about: dict[str, Any], origin: dict[str, Any]
    ) -> None:
        from im2im_core.files import write_json
        from im2im_core.jobs import _platform

        pid = os.getpid()
        content = {
            "start": start,
            "shape": shape,
            "dtype": dtype,
            "name": name,
            "about": about,
            "time": time.time(),
            "owner": [_platform.host_name(), pid, _platform.birth(pid)],
            **origin,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / BASE, content)

    def _compact(self, array: NDArray[Any]) -> None:
        """Write the whole journal as one change when it has become long."""
        from im2im_core.files import write_json

        numbers = self._numbers()
        if len(numbers) < COMPACT_AFTER:
            return
        kept = {key: value for key, value in self._base().items() if key not in ("file", "identity", "axes")}
        kept["start"] = self._next()
        whole = {place: np.ascontiguousarray(array[index]) for place, index in blocks(array.shape)}
        self._write_change({p: b for p, b in whole.items() if b.any()})
        # The old changes count until the new base says that they do not.
        write_json(self.folder / BASE, kept)
        for number in numbers:
            for ending in ("json", "npy"):
                (self.folder / f"{number:06d}.{ending}").unlink(missing_ok=True)

    # ---- reading ----

    def info(self) -> JournalInfo:
        """What the journal holds.

        Raises
        ------
        DataError
            It cannot be read.
        """
        base = self._base()
        numbers = [n for n in self._numbers() if n >= base["start"]]
        last = self.folder / (f"{numbers[-1]:06d}.json" if numbers else BASE)
        return JournalInfo(
            name=str(base["name"]),
            shape=tuple(base["shape"]),
            dtype=str(base["dtype"]),
            changed=last.stat().st_mtime,
            changes=len(numbers),
            about=base["about"],
        )

    @property
    def in_use(self) -> bool:
        """Whether the process that writes it still runs on this machine."""
        from im2im_core.jobs import _platform

        host, pid, born = self._base().get("owner") or ("", 0, None)
        return host == _platform.host_name() and isinstance(born, float) and _platform.is_alive(int(pid), born)

    def restore(self, on_event: OnEvent | None = None) -> NDArray[Any]:
        """The labels after the last change; blocks that are damaged stay as they were before, with a message each.

        Raises
        ------
        DataError
            The base cannot be read, or the file it names has changed.
        """
        base = self._base()
        array = self._start(base)
        known = dict(blocks(array.shape))
        for number in self._numbers():
            if number >= base["start"]:
                for text in self._apply(number, array, known):
                    if on_event:
                        on_event(Message(text, "warning", "Look at that place and paint it again", "journal_damaged"))
        return array

    def discard(self) -> None:
        """Delete the journal."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._seen = {}

    def _start(self, base: dict[str, Any]) -> NDArray[Any]:
        if "file" not in base:
            return np.zeros(base["shape"], np.dtype(base["dtype"]))
        from im2im_core.io import open_image

        path = Path(base["file"])
        if open_image(path).info.identity != base["identity"]:
            raise DataError(f"{path} has changed since {base['name']} was painted", "Put the old file back to restore")
        return _read_file(path, base["axes"])

    def _apply(self, number: int, array: NDArray[Any], known: dict[Place, tuple[slice, ...]]) -> Iterator[str]:
        """Put the blocks of one change into `array`; yields what had to be left out."""
        try:
            listed = json.loads((self.folder / f"{number:06d}.json").read_text(encoding="utf-8"))["blocks"]
            pixels = np.load(self.folder / f"{number:06d}.npy", allow_pickle=False)
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            yield f"Change {number} of the labels is damaged and was left out"
            return
        for row in listed if isinstance(listed, list) else ():
            try:
                place = tuple(row["place"])
                index = known[place]
                block = pixels[row["offset"] : row["offset"] + row["size"]].reshape(array[index].shape)
                intact = _sha256(block) == row["sha256"] and block.dtype == array.dtype
            except (KeyError, TypeError, ValueError, IndexError):
                intact = False
            if intact:
                array[index] = block
            else:
                yield f"A block of change {number} of the labels is damaged and was left out"

    def _base(self) -> dict[str, Any]:
        from im2im_core.files import read_json

        try:
            content = read_json(self.folder / BASE)
            shape = [int(n) for n in content["shape"]]
            np.dtype(content["dtype"])
            return {"name": "labels", "about": {}, **content, "shape": shape, "start": int(content["start"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"The journal {self.folder} cannot be read: {error}", "Delete the folder") from error

    def _numbers(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return sorted(int(m[1]) for f in os.listdir(self.folder) if (m := _CHANGE.fullmatch(f)))

    def _next(self) -> int:
        return max(self._numbers(), default=-1) + 1


# ---- public functions ----------------------------------------------------------


def list_journals(project: Project) -> tuple[Journal, ...]:
    """Journals that can be restored, latest change first; those of viewers that still run are left out."""
    found: list[tuple[float, Journal]] = []
    for base in project.root.glob(f"journal/*/{BASE}"):
        try:
            journal = Journal(project, base.parent.name)
            if not journal.in_use and (info := journal.info()).changes:
                found.append((info.changed, journal))
        except (DataError, ResourceError, OSError, TypeError, ValueError):
            continue
    return tuple(journal for _, journal in sorted(found, key=lambda item: -item[0]))


def blocks(shape: tuple[int, ...]) -> Iterator[tuple[Place, tuple[slice, ...]]]:
    """Number and slices of every block of an array of `shape`."""
    sizes = [1] * (len(shape) - 2) + [BLOCK, BLOCK]
    counts = [-(-n // size) for n, size in zip(shape, sizes, strict=True)]
    for place in np.ndindex(*counts):
        spans = zip(place, sizes, shape, strict=True)
        yield place, tuple(slice(i * size, min((i + 1) * size, n)) for i, size, n in spans)


def blocks_at(indices: Iterable[NDArray[Any]]) -> set[Place]:
    """Numbers of the blocks that hold the pixels at `indices`, one array of positions per axis."""
    columns = [np.asarray(column).ravel() for column in indices]
    columns[-2:] = [column // BLOCK for column in columns[-2:]]
    return {tuple(int(v) for v in row) for row in np.unique(np.stack(columns, axis=1), axis=0)}


# ---- pixels --------------------------------------------------------------------


def _digest(block: NDArray[Any]) -> bytes:
    """Short hash to see whether a block changed; blake2b lets other threads run meanwhile."""
    return hashlib.blake2b(np.ascontiguousarray(block).data, digest_size=8).digest()


def _sha256(block: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(block).data).hexdigest()


def _read_file(path: Path, axes: str) -> NDArray[Any]:
    from im2im_core.axes import from_tczyx
    from im2im_core.io import open_image

    return np.array(from_tczyx(open_image(path).read(), axes))
