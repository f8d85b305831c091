"""Writes OME-Zarr 0.4 or 0.5 by region, complete under its final name or not there at all."""

from __future__ import annotations

import json
import math
import threading
import time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from im2im_core.axes import AXES, Region, from_tczyx, full_region, region_shape
from im2im_core.errors import DataError, Im2ImError, ResourceError
from im2im_core.files import remove
from im2im_core.image import ImageInfo
from im2im_core.io.layout import check_region
from im2im_core.io.ome_zarr import absent_chunks, chunk_grid
from im2im_core.io.outputs import begin, cannot_write, fitting, publish, stored_dtype, sync_tree
from im2im_core.io.protocol import WriterBlock
from im2im_core.io.pyramid import level_factors, reduce_plane, reduced
from im2im_core.io.space import require_space

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TYPES = {"T": "time", "C": "channel"}
_SETTLE, _SETTLE_LIMIT = 0.1, 10.0  # seconds
_LABEL_SHARE = 8  # label images shrink at least this much when compressed
_COLOURS = ("FFFFFF", "FF00FF", "00FF00", "00FFFF", "FFFF00", "FF0000", "0000FF")


class OmeZarrWriter(WriterBlock):
    """One image as an OME-Zarr folder.

    Parameters
    ----------
    chunks : tuple of int, optional
        Along T, C, Z, Y, X; default one plane of 512 x 512, or 16 x 256 x 256 with Z.
    labels : bool
        Pixels are ids: smaller levels take one of them, never a mean.
    version : str
        0.4 (Zarr 2) or 0.5 (Zarr 3, every chunk with a checksum).
    """

    def __init__(
        self,
        path: Path,
        info: ImageInfo,
        *,
        overwrite: bool = False,
        chunks: tuple[int, int, int, int, int] | None = None,
        pyramid: bool = False,
        labels: bool = False,
        version: Literal["0.4", "0.5"] = "0.4",
    ) -> None:
        self._path, self._info, self._version = path, info, version
        self._pyramid, self._labels = pyramid, labels
        self._dtype = stored_dtype(info.dtype, (), path.name)
        self._part = begin(path, overwrite=overwrite)
        nbytes = math.prod(info.shape) * self._dtype.itemsize
        require_space(path.parent, nbytes // _LABEL_SHARE if labels else nbytes, str(path))
        t, c, z, y, x = (min(a, max(1, b)) for a, b in zip(chunks or _default_chunks(info), info.shape, strict=True))
        self.chunks = (t, c, z, y, x)
        self._lock = threading.Lock()
        self._range = [(math.inf, -math.inf)] * info.shape[1]
        self._levels = [self._create("0", info.shape)]

    def write(self, region: Region, pixels: NDArray[Any]) -> None:
        """Store `pixels`; regions aligned to `chunks` are each stored whole or not at all."""
        check_region(region, self._info.shape, self._path.name)
        fitted = fitting(pixels, self._dtype, region_shape(region), self._path.name)
        self._note_range(region, fitted)
        self._store(self._levels[0], region, fitted)

    def finish(self) -> Path:
        """Final path, after all is safely on disk under it."""
        if self._pyramid:
            for level, factor in enumerate(level_factors(*self._info.shape[3:]), 1):
                self._add_level(level, factor)
        try:
            self._write_metadata()
            sync_tree(self._part)
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._levels.clear()
        publish(self._part, self._path)
        return self._path

    def abort(self) -> None:
        """Remove everything that was written."""
        self._levels.clear()
        # A failed chunk ends `write` while its neighbours are still on their way to the disk:
        # they make the folder "not empty" while it is deleted, or make it anew.
        remove(self._part, patience=_SETTLE_LIMIT)
        time.sleep(_SETTLE)
        remove(self._part, patience=_SETTLE_LIMIT)

    # ---- arrays ----

    def _create(self, name: str, shape: tuple[int, ...]) -> Any:
        import tensorstore as ts

        sizes = [n for a, n in zip(AXES, shape, strict=True) if a in self._info.axes]
        chunks = [n for a, n in zip(AXES, self.chunks, strict=True) if a in self._info.axes]
        form = _zarr2 if self._version == "0.4" else _zarr3
        folder = (self._part / name).resolve()
        spec = form(sizes, chunks, self._dtype, self._info.axes.lower())
        spec["kvstore"] = {"driver": "file", "path": f"{folder.as_posix()}/"}
        # One flush of the whole folder at the end replaces a flush of every chunk.
        context = ts.Context({"file_io_sync": False})
        try:
            return ts.open(spec, create=True, read=True, write=True, context=context).result()
        except (ValueError, OSError) as error:
            raise _write_error(self._path, error) from error

    def _store(self, level: Any, region: Region, pixels: NDArray[Any]) -> None:
        place = tuple(s for a, s in zip(AXES, region, strict=True) if a in self._info.axes)
        try:
            level[place].write(from_tczyx(pixels, self._info.axes)).result()
        except (ValueError, OSError) as error:
            raise _write_error(self._path, error) from error

    def _add_level(self, number: int, factor: int) -> None:
        """Reduce the full image chunk by chunk."""
        *outer, height, width = self._info.shape
        shape = (*outer, reduced(height, factor), reduced(width, factor))
        level = self._create(str(number), shape)
        self._levels.append(level)
        for region in _blocks(shape, self.chunks):
            t, c, z, y, x = region
            rows = slice(y.start * factor, min(y.stop * factor, height))
            columns = slice(x.start * factor, min(x.stop * factor, width))
            place = tuple(s for a, s in zip(AXES, (t, c, z, rows, columns), strict=True) if a in self._info.axes)
            pixels = self._levels[0][place].read().result()
            small = reduce_plane(pixels, factor, labels=self._labels)
            self._store(level, region, small.reshape(region_shape(region)))

    # ---- metadata ----

    def _note_range(self, region: Region, pixels: NDArray[Any]) -> None:
        if self._labels or not pixels.size:
            return
        for offset, channel in enumerate(range(region[1].start, region[1].stop)):
            part = pixels[:, offset]
            low, high = float(part.min()), float(part.max())
            if math.isfinite(low) and math.isfinite(high):
                with self._lock:
                    self._range[channel] = (min(self._range[channel][0], low), max(self._range[channel][1], high))

    def _write_metadata(self) -> None:
        content: dict[str, Any] = {"multiscales": [self._multiscale()]}
        if not self._labels:  # aicsimageio fails without it, hence empty names where none are known
            names = self._info.channels or ("",) * self._info.shape[1]
            content["omero"] = {"channels": [self._channel(i, n) for i, n in enumerate(names)]}
        if self._labels:
            content["image-label"] = {"version": self._version}
        # Chunks of zeros are not stored; noting them lets a reader tell them from lost ones.
        absent = absent_chunks(self._part / "0", chunk_grid(self._levels[0]))
        done = {"im2im": {"complete": True, "absent": absent}}
        if self._version == "0.4":
            _write_json(self._part / ".zgroup", {"zarr_format": 2})
            _write_json(self._part / ".zattrs", {**content, **done})
            return
        ome = {"ome": {"version": self._version, **content}}
        _write_json(self._part / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": {**ome, **done}})

    def _multiscale(self) -> dict[str, Any]:
        known = dict(zip("ZYX", self._info.voxel_size, strict=True))
        axes = []
        for letter in self._info.axes:
            axis = {"name": letter.lower(), "type": _TYPES.get(letter, "space")}
            if letter == "T" and self._info.time_step:
                axis["unit"] = "second"
            elif known.get(letter):
                axis["unit"] = "micrometer"
            axes.append(axis)
        factors = [1, *level_factors(*self._info.shape[3:])][: len(self._levels)]
        version = {"version": self._version} if self._version == "0.4" else {}
        return {
            **version,
            "name": self._info.name,
            "axes": axes,
            "datasets": [
                {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": self._scale(factor)}]}
                for i, factor in enumerate(factors)
            ],
        }

    def _scale(self, factor: int) -> list[float]:
        z, y, x = (n or 1.0 for n in self._info.voxel_size)
        sizes = {"T": self._info.time_step or 1.0, "C": 1.0, "Z": z, "Y": y * factor, "X": x * factor}
        return [sizes[a] for a in self._info.axes]

    def _channel(self, number: int, name: str) -> dict[str, Any]:
        low, high = self._range[number]
        if low > high:
            low, high = 0.0, 1.0
        return {
            "label": name,
            "color": _COLOURS[number % len(_COLOURS)],
            "active": True,
            "window": {"min": low, "start": low, "end": high, "max": high},
        }


def _default_chunks(info: ImageInfo) -> tuple[int, int, int, int, int]:
    return (1, 1, 16, 256, 256) if info.shape[2] > 1 else (1, 1, 1, 512, 512)


def _blocks(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Any:
    """Regions of the chunk grid, those at the end cut to the image."""
    whole = full_region((shape[0], shape[1], shape[2], shape[3], shape[4]))
    steps = [range(0, s.stop, n) for s, n in zip(whole, chunks, strict=True)]
    for start in product(*steps):
        yield tuple(slice(a, min(a + n, size)) for a, n, size in zip(start, chunks, shape, strict=True))


def _zarr2(shape: list[int], chunks: list[int], dtype: np.dtype[Any], axes: str) -> dict[str, Any]:
    meta = {
        "shape": shape,
        "chunks": chunks,
        "dtype": dtype.newbyteorder("<").str,
        "compressor": {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1},
        "dimension_separator": "/",
        "fill_value": 0,
        "order": "C",
        "filters": None,
    }
    return {"driver": "zarr", "metadata": meta}


def _zarr3(shape: list[int], chunks: list[int], dtype: np.dtype[Any], axes: str) -> dict[str, Any]:
    blosc = {"cname": "zstd", "clevel": 3, "shuffle": "shuffle", "typesize": dtype.itemsize}
    meta = {
        "shape": shape,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "chunk_key_encoding": {"name": "default"},
        "data_type": dtype.name,
        "dimension_names": list(axes),
        "fill_value": 0,
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "blosc", "configuration": blosc},
            {"name": "crc32c"},
        ],
    }
    return {"driver": "zarr3", "metadata": meta}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def _write_error(path: Path, error: Exception) -> Im2ImError:
    text = str(error).partition(" [tensorstore_spec")[0].partition(" [source locations")[0]
    if text.startswith(("INVALID_ARGUMENT", "OUT_OF_RANGE")):
        return DataError(f"{path}: the image cannot be stored ({text})", "Check its shape and type")
    return ResourceError(f"Cannot write {path}: {text}", "Check free space and permissions of the folder")
