"""Is a TIFF complete: every directory and every array that it points to lies inside the file."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

from im2im_core.errors import DataError, ResourceError

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
# Only what decides about pixels and axes; a broken comment elsewhere harms nobody.
_ESSENTIAL = {256, 257, 258, 259, 262, 270, 273, 277, 278, 279, 284, 320, 322, 323, 324, 325, 330, 339, 347}
_NDPI = 65420


class _Form(NamedTuple):
    """Layout of the directories of one flavour of TIFF."""

    first: int
    tally: str
    entry: str
    pointer: str


_CLASSIC = _Form(4, "H", "HHI4s", "I")
_BIG = _Form(8, "Q", "HHQ8s", "Q")


def check_directories(path: Path) -> int:
    """Number of pages in the chain of directories, after checking that the chain is whole.

    Raises
    ------
    DataError
        The file is no TIFF, or ends before something that it points to.
    ResourceError
        The file may not be read.
    """
    try:
        with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _walk(data, path)
    except OSError as error:
        raise ResourceError(
            f"{path} cannot be read: {error.strerror or error}", "Check that it is a readable file"
        ) from error
    except ValueError as error:  # mmap of nothing
        raise DataError(f"{path}: the file is empty", "Copy or save it again") from error


def _walk(data: mmap.mmap, path: Path) -> int:
    order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
    if not order or len(data) < 16:
        raise DataError(f"{path}: this is no TIFF file", "Check the file; its name ends like that of a TIFF")
    form = _BIG if struct.unpack_from(order + "H", data, 2)[0] == 43 else _CLASSIC
    field = form.first
    seen: set[int] = set()
    while (offset := struct.unpack_from(order + form.pointer, data, field)[0]) != 0:
        field = _check_directory(data, path, order, form, offset, len(seen))
        if field == 0:  # NDPI stores the upper half of large offsets elsewhere
            return 0
        if offset in seen:
            raise DataError(f"{path}: the chain of pages is a circle", "The file is damaged; save it again")
        seen.add(offset)
    if not seen:
        raise DataError(f"{path}: the file has no pages, at least 1 was expected", "It was not written completely")
    return len(seen)


def _check_directory(data: mmap.mmap, path: Path, order: str, form: _Form, offset: int, page: int) -> int:
    """Position of the pointer to the next directory."""
    size = len(data)
    head, width, pointer = (struct.calcsize(order + f) for f in (form.tally, form.entry, form.pointer))
    if offset + head > size:
        raise cut_short(path, f"page {page + 1} begins", offset + head, size)
    (count,) = struct.unpack_from(order + form.tally, data, offset)
    stop = offset + head + count * width
    if stop + pointer > size:
        raise cut_short(path, f"the directory of page {page + 1} ends", stop + pointer, size)
    for code, kind, number, value in struct.iter_unpack(order + form.entry, data[offset + head : stop]):
        if code == _NDPI:
            return 0
        nbytes = number * _SIZES.get(kind, 1)
        if nbytes <= len(value) or code not in _ESSENTIAL:
            continue
        (start,) = struct.unpack(order + form.pointer, value)
        if start + nbytes > size:
            raise cut_short(path, f"tag {code} of page {page + 1} ends", start + nbytes, size)
    return int(stop)


def cut_short(path: Path, what: str, expected: int, found: int) -> DataError:
    """Error for a file that is shorter than it says."""
    return DataError(
        f"{path}: the file is cut short: {what} at byte {expected}, the file has {found} bytes",
        "Copy or save it again; nothing of it was used",
    )
