"""Arrays through a pipe: a JSON header, then the bytes of each array; who sends them may mean harm."""

from __future__ import annotations

import json
import math
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

HEADER_BYTES = 1 << 20
"""Largest header that is read."""
KINDS = "biuf"
"""Kinds of numbers that travel: switches, whole numbers, floats."""


def write_frame(handle: IO[bytes], header: dict[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Send `header` and `arrays`."""
    told = {**header, "arrays": [[a.dtype.str, list(a.shape)] for a in arrays]}
    text = json.dumps(told).encode("ascii")
    handle.write(len(text).to_bytes(8, "little") + text)
    for array in arrays:
        if array.size:
            handle.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    handle.flush()


def read_frame(handle: IO[bytes], most: int) -> tuple[dict[str, Any], list[NDArray[Any]]] | None:
    """Header and arrays that were sent; None where the pipe ended instead.

    Parameters
    ----------
    most : int
        Bytes that the arrays may have together.

    Raises
    ------
    ValueError
        It is no such message, or has more bytes than `most`; nothing of them was made room for.
    """
    length = int.from_bytes(_exactly(handle, 8) or b"", "little")
    if length > HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes")
    text = _exactly(handle, length)
    if not text:
        return None
    header = json.loads(text)
    if not isinstance(header, dict):
        raise ValueError("a header that is no mapping")
    arrays = [np.empty(shape, dtype) for dtype, shape in _described(header.pop("arrays", None), most)]
    for array in arrays:
        if array.size and not _fill(handle, array.reshape(-1).view(np.uint8).data):
            return None
    return header, arrays


def _described(told: Any, most: int) -> list[tuple[np.dtype[Any], tuple[int, ...]]]:
    """Types and shapes of the arrays that follow."""
    found = []
    try:
        for name, sizes in told:
            dtype, shape = np.dtype(str(name)), tuple(int(n) for n in sizes)
            most -= dtype.itemsize * math.prod(shape)
            if dtype.kind not in KINDS or min(shape, default=0) < 0 or most < 0:
                raise ValueError(f"an array of {dtype} with the shape {shape}")
            found.append((dtype, shape))
    except TypeError as error:
        raise ValueError(f"arrays that are described as {str(told)[:80]}") from error
    return found


def _exactly(handle: IO[bytes], size: int) -> bytes | None:
    """So many bytes; None where the pipe ends before."""
    content = bytearray(size)
    return bytes(content) if size and _fill(handle, memoryview(content)) else None


def _fill(handle: IO[bytes], view: memoryview) -> bool:
    """Whether all of `view` was read."""
    while view:
        count = handle.readinto(view)  # type: ignore[attr-defined]
        if not count:
            return False
        view = view[count:]
    return True
