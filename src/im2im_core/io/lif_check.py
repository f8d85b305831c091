"""Whether a LIF file is whole: its readers fill what is missing with zeros."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from im2im_core.errors import DataError

MAGIC, PART = 0x70, 0x2A
_HEADER = struct.Struct("<II")
_SHORT_SIZE, _LONG_SIZE = struct.Struct("<I"), struct.Struct("<Q")


def check_lif(path: Path) -> None:
    """Do nothing where every block of the file is complete; only the sizes of blocks are read.

    Raises
    ------
    DataError
        A block ends behind the end of the file, or something else stands where one should begin.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        end = 0
        while end < size:
            file.seek(end)
            start, end = end, _end_of_block(file, end)
            if not start < end <= size:
                raise DataError(
                    f"{path} is cut short: a block of it begins at byte {start} and is not complete in {size} bytes",
                    "Copy or save it again",
                )


def _end_of_block(file: BinaryIO, start: int) -> int:
    """First byte after the block that begins at `start`; 0 where none begins there.

    A block of pixels says its size first, in four bytes or, in newer files, in eight.
    """
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        return 0
    magic, length = _HEADER.unpack(head)
    if magic != MAGIC:
        return 0
    end: int = start + _HEADER.size + length
    if start == 0:  # the first one is the description, without pixels
        return end
    inside = file.read(1 + _LONG_SIZE.size + 1)
    for kind in (_SHORT_SIZE, _LONG_SIZE):
        if len(inside) > kind.size + 1 and inside[0] == PART and inside[1 + kind.size] == PART:
            return end + int(kind.unpack_from(inside, 1)[0])
    return 0
