"""Pixels of a TIFF series by region: only the strips or tiles that intersect it are read and decoded."""

from __future__ import annotations

import math
import threading
import zlib
from collections import OrderedDict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from im2im_core.errors import DataError
from im2im_core.io.tiff_check import cut_short

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CACHE_BYTES = 64 * 2**20
_JPEG = (6, 7, 34892, 33007)

Slices = tuple[slice, ...]


class Page(NamedTuple):
    """Where the pixels of one page are."""

    path: Path
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    jpegtables: bytes | None


class MappedPixels:
    """Series whose pixels lie in the file as one plain block."""

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._path, self._offset, self._shape, self._dtype = path, offset, shape, dtype
        end = offset + math.prod(shape) * dtype.itemsize
        size = path.stat().st_size
        if end > size:
            plane = max(1, math.prod(shape[-2:]) * dtype.itemsize)
            found = max(0, size - offset) // plane
            raise cut_short(path, f"{found} of {math.prod(shape[:-2])} planes are there, the last ends", end, size)

    def read(self, slices: Slices) -> NDArray[Any]:
        """Copy of a part, in the order and dtype of the file."""
        return np.array(np.memmap(self._path, self._dtype, "r", self._offset, self._shape)[slices])


class PagedPixels:
    """Series of pages that are read one by one.

    Parameters
    ----------
    pages : list of Page
        In the order of the outer dimensions of `shape`.
    keyframe : tifffile.TiffPage
        Page whose layout and compression all pages share.
    shape : tuple of int
        Outer dimensions, then those of one page.
    """

    def __init__(
        self, path: Path, pages: list[Page], keyframe: Any, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self._pages, self._keyframe, self._dtype = pages, keyframe, dtype
        self._paged = tuple(keyframe.shaped)
        outer = _outer_dimensions(shape, len(pages), self._paged)
        if outer is None:
            expected = math.prod(shape) // max(1, math.prod(self._paged))
            raise DataError(
                f"{path}: {expected} pages are expected for shape {shape}, {len(pages)} are in the file",
                "The file is not complete; copy or save it again",
            )
        self._outer, self._inner = shape[:outer], shape[outer:]
        self._decoded = _Recent(_CACHE_BYTES)
        self._tile, self._grid = _segment_grid(keyframe)
        self._check_extent()
        self.segments_decoded = 0

    @property
    def empty_segments(self) -> int:
        """Number of tiles that the file leaves out (they read as background)."""
        return sum(page.counts.count(0) for page in self._pages)

    def read(self, slices: Slices) -> NDArray[Any]:
        """Copy of a part, in the order of the file."""
        outer, inner = slices[: len(self._outer)], slices[len(self._outer) :]
        out = np.empty([s.stop - s.start for s in slices], self._dtype)
        paged = _spread(inner, self._inner, self._paged)
        for index in product(*(range(s.start, s.stop) for s in outer)):
            number = int(np.ravel_multi_index(index, self._outer)) if index else 0
            place = tuple(i - s.start for i, s in zip(index, outer, strict=True))
            target = out[place]
            target[...] = self._read_page(self._pages[number], number, paged).reshape(target.shape)
        return out

    def _check_extent(self) -> None:
        sizes = {path: _size_of(path) for path in {page.path for page in self._pages}}
        needed = 1 if self._keyframe.is_final else math.prod(self._grid)
        for number, page in enumerate(self._pages, 1):
            present = min(len(page.offsets), len(page.counts))
            if present < needed:
                raise DataError(
                    f"{page.path}: page {number} has {present} strips or tiles, {needed} are expected",
                    "The file is not complete; copy or save it again",
                )
            end = self._end_of(page)
            if end > sizes[page.path]:
                raise cut_short(page.path, f"page {number} of {len(self._pages)} ends", end, sizes[page.path])

    def _end_of(self, page: Page) -> int:
        if self._keyframe.is_final:
            return int(page.offsets[0] + math.prod(self._paged) * self._dtype.itemsize)
        return max(o + n for o, n in zip(page.offsets, page.counts, strict=False))

    def _read_page(self, page: Page, number: int, part: Slices) -> NDArray[Any]:
        if self._keyframe.is_final:
            return np.memmap(page.path, self._dtype, "r", page.offsets[0], self._paged)[part]
        out = np.empty([s.stop - s.start for s in part], self._dtype)
        ranges = [
            range(s.start // t, -(-s.stop // t)) if s.stop > s.start else range(0)
            for s, t in zip(part, self._tile, strict=True)
        ]
        with page.path.open("rb") as handle:
            for place in product(*ranges):
                start = tuple(p * t for p, t in zip(place, self._tile, strict=True))
                self._copy(self._segment(handle, page, number, place), start, part, out)
        return out

    def _copy(self, tile: NDArray[Any] | None, start: tuple[int, ...], part: Slices, out: NDArray[Any]) -> None:
        """Put the intersection of a decoded tile and `part` into `out`; None = left out of the file."""
        sizes = self._tile if tile is None else tile.shape
        low = [max(s.start, a) for s, a in zip(part, start, strict=True)]
        high = [min(s.stop, a + n, whole) for s, a, n, whole in zip(part, start, sizes, self._paged, strict=True)]
        target = tuple(slice(a - s.start, b - s.start) for a, b, s in zip(low, high, part, strict=True))
        source = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, start, strict=True))
        out[target] = self._keyframe.nodata if tile is None else tile[source]

    def _segment(self, handle: BinaryIO, page: Page, number: int, place: tuple[int, ...]) -> NDArray[Any] | None:
        index = int(np.ravel_multi_index(place, self._grid))
        found = self._decoded.get((number, index))
        if found is not None:
            return found
        offset, count = page.offsets[index], page.counts[index]
        if count == 0:
            return None
        handle.seek(offset)
        tile = self._decode(handle.read(count), index, page, number)
        self.segments_decoded += 1
        self._decoded.put((number, index), tile)
        return tile

    def _decode(self, data: bytes, index: int, page: Page, number: int) -> NDArray[Any]:
        """One strip or tile as (sample, depth, length, width, contiguous sample)."""
        from tifffile import TiffFileError

        options: dict[str, Any] = {}
        if self._keyframe.compression in _JPEG:
            options = {"jpegtables": page.jpegtables, "jpegheader": self._keyframe.jpegheader}
        try:
            tile, _, _ = self._keyframe.decode(data, index, **options)
        except (TiffFileError, ValueError, RuntimeError, OSError, zlib.error, KeyError) as error:
            raise DataError(
                f"{page.path}: strip or tile {index} of page {number + 1} cannot be decoded ({error})",
                "The file is damaged or its compression is not known here; copy or save it again",
            ) from error
        pixels: NDArray[Any] = np.asarray(tile)[np.newaxis]
        return pixels


class _Recent:
    """The decoded segments used last, up to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._kept: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> NDArray[Any] | None:
        """Kept array, or None."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: tuple[int, int], value: NDArray[Any]) -> None:
        """Keep an array, dropping those used longest ago."""
        with self._lock:
            if key in self._kept or value.nbytes > self._limit:
                return
            self._kept[key] = value
            self._used += value.nbytes
            while self._used > self._limit:
                self._used -= self._kept.popitem(last=False)[1].nbytes


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(
            f"{path}: a file of this image is missing", "Put all files of the image in one folder"
        ) from error


def _outer_dimensions(shape: tuple[int, ...], pages: int, paged: tuple[int, ...]) -> int | None:
    """Number of leading dimensions that count pages; None when the pages do not fill `shape`."""
    inner = [n for n in paged if n > 1]
    for split in range(len(shape), -1, -1):
        if math.prod(shape[:split]) == pages and [n for n in shape[split:] if n > 1] == inner:
            return split
    return None


def _spread(slices: Slices, shape: tuple[int, ...], paged: tuple[int, ...]) -> Slices:
    """Slices along all five dimensions of a page from those along the dimensions that are larger than 1."""
    large = (s for s, n in zip(slices, shape, strict=True) if n > 1)
    return tuple(next(large) if n > 1 else slice(0, 1) for n in paged)


def _segment_grid(keyframe: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape of a strip or tile and their number, along (sample, depth, length, width, contiguous sample)."""
    samples, depth, length, width, contiguous = keyframe.shaped
    if keyframe.is_tiled:
        tile = (1, keyframe.tiledepth, keyframe.tilelength, keyframe.tilewidth, contiguous)
    else:
        tile = (1, 1, min(keyframe.rowsperstrip or length, length), width, contiguous)
    whole = (samples, depth, length, width, contiguous)
    return tile, tuple(-(-n // t) for n, t in zip(whole, tile, strict=True))
