"""Writes OME-TIFF (BigTIFF) by region into a file whose space is reserved first."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.axes import AXES, Region, region_shape
from im2im_core.errors import DataError
from im2im_core.files import remove, sync
from im2im_core.image import ImageInfo
from im2im_core.io.layout import check_region
from im2im_core.io.outputs import begin, beside, cannot_write, fitting, publish, stored_dtype
from im2im_core.io.protocol import WriterBlock
from im2im_core.io.pyramid import level_factors, reduce_plane, reduced
from im2im_core.io.space import require_space

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TILE = 256
_BAND = 64  # rows: the grid on which regions are written fastest


class OmeTiffWriter(WriterBlock):
    """One image as an OME-TIFF.

    Pixels are uncompressed and contiguous, so that any region has its place in the file and
    any program can map it into memory. With `pyramid` the file is written once more at the
    end, in compressed tiles with smaller levels.
    """

    def __init__(
        self,
        path: Path,
        info: ImageInfo,
        *,
        overwrite: bool = False,
        pyramid: bool = False,
        labels: bool = False,
    ) -> None:
        self._path, self._info, self._labels = path, info, labels
        self._pyramid = pyramid and bool(level_factors(*info.shape[3:]))
        self._dtype = stored_dtype(info.dtype, ("int64", "uint64"), path.name)
        if not all(info.shape):
            raise DataError(f"{path.name}: an image of shape {info.shape} has no pixels", "Choose a larger region")
        self._part = begin(path, overwrite=overwrite)
        nbytes = math.prod(info.shape) * self._dtype.itemsize
        require_space(path.parent, 2 * nbytes if self._pyramid else nbytes, str(path))
        self.chunks = (1, 1, 1, min(_BAND, info.shape[3]), info.shape[4])
        self._lock = threading.Lock()
        self._file: int | None = None
        try:
            self._offset = self._reserve()
            self._file = os.open(self._part, os.O_RDWR | getattr(os, "O_BINARY", 0))
        except OSError as error:
            self.abort()
            raise cannot_write(path, error) from error

    def write(self, region: Region, pixels: NDArray[Any]) -> None:
        """Store `pixels`; may be called from several threads."""
        check_region(region, self._info.shape, self._path.name)
        fitted = fitting(pixels, self._dtype, region_shape(region), self._path.name)
        try:
            for place, run in _runs(region, fitted, self._info.shape):
                self._write_at(self._offset + place * self._dtype.itemsize, run)
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def finish(self) -> Path:
        """Final path, after all is safely on disk under it."""
        try:
            self._close()
            if self._pyramid:
                self._write_pyramid()
            sync(self._part)
        except OSError as error:
            raise cannot_write(self._path, error) from error
        publish(self._part, self._path)
        return self._path

    def abort(self) -> None:
        """Remove everything that was written."""
        self._close()
        remove(self._part)

    # ---- file ----

    def _reserve(self) -> int:
        """Position of the first pixel in a file that has all its directories and all its space."""
        import tifffile

        tifffile.imwrite(
            self._part, shape=self._info.shape, dtype=self._dtype, bigtiff=True, ome=True,
            photometric="minisblack", metadata=self._metadata(),
        )  # fmt: skip
        with tifffile.TiffFile(self._part) as tif:
            offset = tif.series[0].dataoffset
        if offset is None:
            raise OSError("the reserved space is not contiguous")
        # Without this a full disk would show only later, as a write that fails half way.
        if hasattr(os, "posix_fallocate"):
            with self._part.open("r+b") as handle:
                os.posix_fallocate(handle.fileno(), 0, self._part.stat().st_size)
        return int(offset)

    def _write_at(self, position: int, data: NDArray[Any]) -> None:
        if self._file is None:
            raise OSError("the file is closed")
        view = memoryview(np.ascontiguousarray(data).data).cast("B")
        while view:
            if hasattr(os, "pwrite"):
                written = os.pwrite(self._file, view, position)
            else:
                with self._lock:
                    os.lseek(self._file, position, os.SEEK_SET)
                    written = os.write(self._file, view)
            view, position = view[written:], position + written

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    # ---- metadata ----

    def _metadata(self) -> dict[str, Any]:
        content: dict[str, Any] = {"axes": AXES, "Name": self._info.name}
        for letter, size in zip("ZYX", self._info.voxel_size, strict=True):
            if size:
                content[f"PhysicalSize{letter}"] = size
                content[f"PhysicalSize{letter}Unit"] = "µm"
        if self._info.channels:
            content["Channel"] = {"Name": list(self._info.channels)}
        if self._info.time_step:
            content["TimeIncrement"] = self._info.time_step
            content["TimeIncrementUnit"] = "s"
        return content

    # ---- pyramid ----

    def _write_pyramid(self) -> None:
        import tifffile

        flat = self._part
        tiled = beside(self._path.with_name(f"{self._path.name}.tiled"), "part")
        pixels = np.memmap(flat, self._dtype, "r", self._offset, self._info.shape)
        *outer, height, width = self._info.shape
        factors = level_factors(height, width)
        options: dict[str, Any] = {
            "dtype": self._dtype, "tile": (_TILE, _TILE), "compression": "zlib", "photometric": "minisblack",
        }  # fmt: skip
        try:
            with tifffile.TiffWriter(tiled, bigtiff=True, ome=True) as tif:
                tif.write(
                    self._tiles(pixels, 1),
                    shape=self._info.shape,
                    subifds=len(factors),
                    metadata=self._metadata(),
                    **options,
                )
                for factor in factors:
                    shape = (*outer, reduced(height, factor), reduced(width, factor))
                    tif.write(self._tiles(pixels, factor), shape=shape, subfiletype=1, metadata=None, **options)
            del pixels
            os.replace(tiled, flat)
        finally:
            remove(tiled)

    def _tiles(self, pixels: NDArray[Any], factor: int) -> Iterator[NDArray[Any]]:
        """Tiles of a level in the order of the file, each reduced from the full image."""
        height, width = self._info.shape[3:]
        span = _TILE * factor
        planes = product(*(range(n) for n in self._info.shape[:3]))
        for plane, y, x in product(planes, range(0, height, span), range(0, width, span)):
            full = pixels[plane][y : y + span, x : x + span]
            small = reduce_plane(full, factor, labels=self._labels) if factor > 1 else np.array(full)
            yield np.pad(small, [(0, _TILE - n) for n in small.shape])


def _runs(region: Region, pixels: NDArray[Any], shape: tuple[int, ...]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Parts of `pixels` that are contiguous in the file, each with its place in elements."""
    # Axes after `split` are covered whole, so that everything from `split` on is one run.
    split = len(shape) - 1
    while split > 0 and region[split].start == 0 and region[split].stop == shape[split]:
        split -= 1
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    for index in product(*(range(n) for n in pixels.shape[:split])):
        start = [region[i].start + n for i, n in enumerate(index)] + [s.start for s in region[split:]]
        yield sum(a * b for a, b in zip(start, strides, strict=True)), pixels[index]
