"""Where finished pixels go: arrays or files, and the journal from which a stopped prediction goes on."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from im2im_core.axes import Region, from_tczyx
from im2im_core.engine.predict_plan import OutGrid, Plan, Shape3
from im2im_core.errors import DataError, ResourceError
from im2im_core.events import Event, OutputWritten, TileDone
from im2im_core.image import ImageInfo
from im2im_core.io.space import require_space

LABEL_SHARE = 8
"""Label images shrink at least this much when Zarr compresses them; the journal is not compressed."""


class Sink(Protocol):
    """One output being filled."""

    def write(self, region: Region, pixels: NDArray[Any]) -> None:
        """Store ``(T, C, Z, Y, X)`` pixels."""

    def finish(self) -> NDArray[Any] | Path:
        """The complete output."""

    def abort(self) -> None:
        """Leave nothing behind."""


class MemorySink:
    """An output in an array: a new one, or `array`, which may be mapped from a file."""

    def __init__(self, grid: OutGrid, array: NDArray[Any] | None = None) -> None:
        self._grid = grid
        self._array = np.zeros(grid.shape, grid.dtype) if array is None else array

    def write(self, region: Region, pixels: NDArray[Any]) -> None:
        """Store ``(T, C, Z, Y, X)`` pixels."""
        self._array[region] = pixels

    def finish(self) -> NDArray[Any]:
        """Array with the axes that the output keeps."""
        return from_tczyx(self._array, self._grid.axes)

    def abort(self) -> None:
        """Give the memory back."""
        self._array = np.zeros(0)


def file_sink(path: Path, grid: OutGrid, info: ImageInfo, overwrite: bool) -> Sink:
    """An output that is streamed into a file; its name decides the format."""
    from im2im_core.io import create_output

    y, x = (min(256, n) for n in grid.shape[3:])
    return create_output(path, info, overwrite=overwrite, chunks=(1, 1, 1, y, x), labels=grid.spec.kind == "labels")


def require_room(to: Path, grids: Mapping[str, OutGrid], journal: Path) -> None:
    """Return when the outputs and the journal, which holds all their pixels again, fit on the disk.

    Raises
    ------
    ResourceError
        Names the megabytes needed and free.
    """
    sizes = {name: math.prod(grid.shape) * grid.dtype.itemsize for name, grid in grids.items()}
    zarr = to.name.lower().endswith(".zarr")
    files = sum(n // LABEL_SHARE if zarr and grids[name].spec.kind == "labels" else n for name, n in sizes.items())
    there = journal.stat().st_size if journal.exists() else 0
    require_space(to.parent, files + max(0, sum(sizes.values()) - there), f"{to} with its journal")


# ---- journal ----


@dataclass
class Resumed:
    """How far an earlier run came."""

    tile: tuple[int, ...] | None = None
    batch: int = 1
    chunk: Shape3 | None = None
    """Grid that the tiles ended on."""
    frame: int = 0
    tiles: int = 0
    """Tiles of `frame` that are final."""
    objects: int = 0


class Journal:
    """Every finished block, appended to one file; a torn end is cut off.

    A record is a line of JSON, for blocks followed by the raw pixels. A block counts once a later record
    says so, and its checksum is right.
    """

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        self._path, self._key = path, dict(key)
        self._file: BinaryIO | None = None

    def resume(self, replay: Callable[[str, Region, NDArray[Any]], None]) -> Resumed:
        """State of the earlier run after giving its blocks to `replay`; a fresh state where none fits.

        Raises
        ------
        DataError
            The unfinished output belongs to another image, model or choice of options.
        """
        state, end = Resumed(), 0
        waiting: list[tuple[str, Region, NDArray[Any]]] = []
        if self._path.exists():
            with self._path.open("rb") as file:
                for record, pixels in _records(file):
                    if pixels is not None:
                        waiting.append((record["output"], _region(record["region"]), pixels))
                        continue
                    self._take(record, state)
                    for block in waiting:
                        replay(*block)
                    waiting, end = [], file.tell()
        self._file = self._open("r+b" if end else "wb")
        self._file.seek(end)
        self._file.truncate()
        if not end:
            self._line({"key": self._key})
        return state

    def begin(self) -> None:
        """Start afresh."""
        self._file = self._open("wb")
        self._line({"key": self._key})

    def plan(self, plan: Plan) -> None:
        """Note how the image is cut from now on; tiles are counted in this cut."""
        self._line({"tile": plan.tile, "batch": plan.batch, "chunk": plan.chunk})

    def block(self, output: str, region: Region, pixels: NDArray[Any]) -> None:
        """Append pixels of one output."""
        content = np.ascontiguousarray(pixels)
        self._line(
            {
                "output": output,
                "region": [[s.start, s.stop] for s in region],
                "dtype": content.dtype.str,
                "shape": content.shape,
                "crc": zlib.crc32(content.data),
            },
            flush=False,
        )
        self._write(content.data)

    def done(self, frame: int, tiles: int, objects: int) -> None:
        """All blocks so far are final."""
        self._line({"frame": frame, "tiles": tiles, "objects": objects})

    def close(self, remove: bool) -> None:
        """Let go of the file, and delete it where the output is complete."""
        if self._file:
            self._file.close()
        if remove:
            self._path.unlink(missing_ok=True)

    def _take(self, record: dict[str, Any], state: Resumed) -> None:
        if "key" in record and record["key"] != json.loads(json.dumps(self._key)):
            raise DataError(
                f"{self._path} was left by a prediction of another image, model or choice of options",
                "Predict with the same ones, or without resume",
            )
        if "tile" in record:
            state.tile, state.batch, state.tiles = tuple(record["tile"]), record["batch"], 0
            state.chunk = tuple(record["chunk"]) if record["chunk"] else None
        if "frame" in record:
            state.frame, state.tiles, state.objects = record["frame"], record["tiles"], record["objects"]

    def _open(self, mode: str) -> BinaryIO:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return self._path.open(mode)  # type: ignore[return-value]
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def _line(self, record: dict[str, Any], flush: bool = True) -> None:
        self._write(json.dumps(record).encode() + b"\n")
        if flush and self._file:
            self._file.flush()

    def _write(self, content: Any) -> None:
        try:
            if self._file:
                self._file.write(content)
        except OSError as error:
            raise _unwritable(self._path, error) from error


def _unwritable(path: Path, error: OSError) -> ResourceError:
    return ResourceError(
        f"Cannot write {path}: {error.strerror or error}", "Check free space and permissions of the folder"
    )


def _region(pairs: list[list[int]]) -> Region:
    t, c, z, y, x = (slice(a, b) for a, b in pairs)
    return t, c, z, y, x


def _records(file: BinaryIO) -> Iterator[tuple[dict[str, Any], NDArray[Any] | None]]:
    """Records until the first one that is torn."""
    while (line := file.readline()).endswith(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:
            return
        if "crc" not in record:
            yield record, None
            continue
        dtype = np.dtype(record["dtype"])
        content = file.read(dtype.itemsize * int(np.prod(record["shape"])))
        if zlib.crc32(content) != record["crc"]:
            return
        yield record, np.frombuffer(content, dtype).reshape(record["shape"])


# ---- all outputs of a prediction ----


class Outputs:
    """Takes finished blocks of every output, in the order in which they are made."""

    def __init__(
        self,
        grids: Mapping[str, OutGrid],
        sinks: Mapping[str, Sink],
        journal: Journal | None,
        on_event: Callable[[Event], None],
    ) -> None:
        self.grids, self._sinks, self._journal, self._on_event = grids, sinks, journal, on_event

    def write(self, name: str, frame: int, region: tuple[slice, ...], pixels: NDArray[Any]) -> None:
        """Store ``(C, Z, Y, X)`` pixels of one volume at `region` of the whole source grid."""
        grid = self.grids[name]
        place = self._place(grid, frame, region)
        block = _cast(pixels, grid)[None]
        if self._journal:
            self._journal.block(name, place, block)
        self.store(name, place, block)

    def store(self, name: str, place: Region, block: NDArray[Any]) -> None:
        """Store a block ``(T, C, Z, Y, X)`` at its place in the output."""
        self._sinks[name].write(place, block)
        self._on_event(TileDone(name, tuple(s.start for s in place), tuple(s.stop for s in place)))

    def done(self, frame: int, tiles: int, objects: int) -> None:
        """All blocks so far are final."""
        if self._journal:
            self._journal.done(frame, tiles, objects)

    def finish(self) -> dict[str, NDArray[Any] | Path]:
        """All outputs, complete."""
        results = {name: sink.finish() for name, sink in self._sinks.items()}
        if self._journal:
            self._journal.close(remove=True)
        for name, result in results.items():
            if isinstance(result, Path):
                self._on_event(OutputWritten(str(result), name))
        return results

    def abort(self) -> None:
        """Keep only the journal."""
        if self._journal:
            self._journal.close(remove=False)
        for sink in self._sinks.values():
            sink.abort()

    @staticmethod
    def _place(grid: OutGrid, frame: int, region: tuple[slice, ...]) -> Region:
        times, channels = grid.shape[:2]
        planes = grid.frames // times
        time, plane = divmod(frame, planes)
        z, y, x = (slice(r.start - p.start, r.stop - p.start) for r, p in zip(region, grid.part, strict=True))
        if planes > 1:
            z = slice(plane, plane + 1)
        return slice(time, time + 1), slice(0, channels), z, y, x


def _cast(pixels: NDArray[Any], grid: OutGrid) -> NDArray[Any]:
    if grid.dtype.kind == "u" and pixels.size and pixels.max() > np.iinfo(grid.dtype).max:
        raise DataError(
            f"{grid.spec.name} has label {pixels.max()}, more than {grid.dtype} holds", "Decode it as instances"
        )
    return np.ascontiguousarray(pixels, grid.dtype)
