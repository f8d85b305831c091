"""What a viewer and its attached process say to each other: one JSON line per message, arrays by file. No pickle."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.errors import ResourceError, Stopped
from im2im_core.jobs._platform import reserve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import DTypeLike, NDArray

_ARRAY = "$array"
COPIED_BYTES = 2**26
"""Bytes of an array that are copied between two looks at whether somebody wants to stop."""


@dataclass(frozen=True)
class ToWorker:
    """Base of what the viewer says."""


@dataclass(frozen=True)
class Warm(ToWorker):
    """Import what prediction needs while nothing else is to do."""


@dataclass(frozen=True)
class Submit(ToWorker):
    """Do `verb`."""

    job: int
    verb: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cancel(ToWorker):
    """Stop `job`; what is finished is kept."""

    job: int


@dataclass(frozen=True)
class FromWorker:
    """Base of what the attached process says."""

    job: int


@dataclass(frozen=True)
class Acknowledged(FromWorker):
    """The wish to cancel arrived; the job ends as soon as it can."""


@dataclass(frozen=True)
class Reported(FromWorker):
    """The job reports an event."""

    event: dict[str, Any]


@dataclass(frozen=True)
class Done(FromWorker):
    """The job ended well."""

    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cancelled(FromWorker):
    """The job ended because it was asked to."""


@dataclass(frozen=True)
class Broken(FromWorker):
    """The job ended with an error; `event` is a `Failed`."""

    event: dict[str, Any]


Message = ToWorker | FromWorker
_KINDS: dict[str, type] = {c.__name__: c for base in (ToWorker, FromWorker) for c in base.__subclasses__()}


def encode(message: Message) -> bytes:
    """JSON line of a message."""
    return json.dumps({"message": type(message).__name__, **asdict(message)}, default=str).encode("ascii") + b"\n"


def decode(line: bytes) -> Message | None:
    """Message of a JSON line; None for lines that are none."""
    try:
        content = json.loads(line)
        message: Message = _KINDS[content.pop("message")](**content)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return message


# ---- arrays ----


def create_array(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Writable memory-mapped .npy file whose disk space is reserved before a pixel is written.

    Raises
    ------
    ResourceError
        The disk does not have the space.
    """
    kind = np.dtype(dtype)
    size = kind.itemsize * int(np.prod(shape, dtype=np.int64))
    if size == 0:  # nothing to map
        np.save(path, np.empty(shape, kind), allow_pickle=False)
        return np.empty(shape, kind)
    try:
        with path.open("wb+") as handle:
            header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(handle, header)
            handle.flush()
            reserve(handle, handle.tell() + size)
    except OSError as error:
        path.unlink(missing_ok=True)
        cure = f"It needs {size / 1e6:.0f} MB; make room or set TMPDIR to a larger disk"
        raise ResourceError(f"Cannot write {path}: {error.strerror}", cure) from error
    return np.lib.format.open_memmap(path, mode="r+")


def pack(value: Any, folder: Path, should_stop: Callable[[], bool] | None = None) -> Any:
    """Plain content of `value`; each array in it becomes a scratch file in `folder`.

    Raises
    ------
    ResourceError
        The disk does not have the space.
    Stopped
        `should_stop` said so while pixels were copied.
    """
    if isinstance(value, dict):
        return {str(k): pack(v, folder, should_stop) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [pack(v, folder, should_stop) for v in value]
    if isinstance(value, np.ndarray):
        path = folder / f"{len(list(folder.glob('*.npy'))):06d}-{id(value):x}.npy"
        target = create_array(path, value.shape, value.dtype)
        try:
            _copy(value, target, should_stop or (lambda: False))
        except Stopped:
            path.unlink(missing_ok=True)
            raise
        return {_ARRAY: path.name}
    return value.item() if isinstance(value, np.generic) else value


def _copy(value: NDArray[Any], target: NDArray[Any], should_stop: Callable[[], bool]) -> None:
    """Copy in parts, so that nobody waits long for the end of it."""
    axis = next((a for a, size in enumerate(value.shape) if size > 1), None)
    if axis is None:
        target[...] = value
        return
    source, sink = np.moveaxis(value, axis, 0), np.moveaxis(target, axis, 0)
    rows = max(1, COPIED_BYTES * len(source) // max(1, value.nbytes))
    for start in range(0, len(source), rows):
        if should_stop():
            raise Stopped("The job was cancelled before it began")
        sink[start : start + rows] = source[start : start + rows]


def unpack(value: Any, folder: Path) -> Any:
    """What `pack` was given; arrays are memory-mapped, private copies are made when they are changed."""
    if isinstance(value, dict) and set(value) == {_ARRAY}:
        path = folder / str(value[_ARRAY])
        empty = 0 in _shape(path)
        return np.load(path, mmap_mode=None if empty else "c", allow_pickle=False)
    if isinstance(value, dict):
        return {k: unpack(v, folder) for k, v in value.items()}
    return [unpack(v, folder) for v in value] if isinstance(value, list) else value


def _shape(path: Path) -> tuple[int, ...]:
    with path.open("rb") as handle:
        np.lib.format.read_magic(handle)
        shape: tuple[int, ...] = np.lib.format.read_array_header_1_0(handle)[0]
        return shape
