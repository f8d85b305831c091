"""TIFF, OME-TIFF and ImageJ TIFF through tifffile, region by region, never a truncated file as a whole one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.axes import Region, full_region
from im2im_core.errors import DataError
from im2im_core.image import Image, ImageInfo
from im2im_core.io.damage import damage_told
from im2im_core.io.identity import file_identity
from im2im_core.io.layout import Layout, check_region, resolve_layout
from im2im_core.io.scenes import pick_scene, unique_names
from im2im_core.io.tiff_check import check_directories, cut_short
from im2im_core.io.tiff_metadata import RGB_NAMES, Metadata, pixel_notes, read_metadata
from im2im_core.io.tiff_pages import MappedPixels, Page, PagedPixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
_RGB = 2
_YCBCR = 6
_PLANAR = 2


class TiffReader:
    """Reads TIFF files; each series of pages is a scene, of a pyramid the largest level."""

    name = "tifffile"

    def supports(self, path: Path) -> bool:
        """Whether the name or the folder is one of this reader."""
        return path.name.lower().endswith(SUFFIXES)

    def open(self, path: Path, *, scene: int | str = 0, axes: str | None = None) -> Image:
        """Lazy image of one scene."""
        return TiffImage(path, scene, axes)

    def scenes(self, path: Path) -> tuple[str, ...]:
        """Names of all images in the file."""
        check_directories(path)
        with damage_told(path), _opened(path) as tif:
            return _scene_names(tif)


class TiffImage:
    """One series of a TIFF file; holds no open file and can be sent to another process."""

    def __init__(self, path: Path, scene: int | str = 0, axes: str | None = None) -> None:
        self._origin = (path, scene, axes)
        check_directories(path)
        with damage_told(path), _opened(path) as tif:
            names = _scene_names(tif)
            index = pick_scene(path, names, scene)
            series = tif.series[index]
            _check_series(tif, series, path)
            self._layout = _layout(tif, series, path, axes)
            self._pixels = _pixels(tif, series, path)
            metadata = read_metadata(tif, series, index)
            self._info = self._describe(series, metadata, index, names if len(names) > 1 else ())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._origin

    @property
    def info(self) -> ImageInfo:
        """What is known before a pixel is read."""
        return self._info

    def read(self, region: Region | None = None) -> NDArray[Any]:
        """Pixels of `region` as ``(T, C, Z, Y, X)``."""
        region = check_region(region or full_region(self._info.shape), self._info.shape, self._info.name)
        try:
            block = self._pixels.read(self._layout.slices(region))
        except (OSError, ValueError) as error:  # ValueError: mapping a file that became shorter
            raise DataError(
                f"{self._origin[0]}: the file cannot be read any more ({error})", "Was it moved, changed or deleted?"
            ) from error
        return np.ascontiguousarray(self._layout.arrange(block)).astype(self._info.dtype, copy=False)

    def _describe(self, series: Any, metadata: Metadata, index: int, scenes: tuple[str, ...]) -> ImageInfo:
        path, _, axes = self._origin
        scene = scenes[index] if scenes else ""
        layout, channels, notes = self._layout, metadata.channels, metadata.notes + pixel_notes(series.keyframe)
        if layout.rgb and int(series.keyframe.photometric) in (_RGB, _YCBCR) and layout.tczyx[1] <= len(RGB_NAMES):
            channels = RGB_NAMES[: layout.tczyx[1]]
            notes += (f"RGB samples are read as channels {', '.join(channels)}",)
        if isinstance(self._pixels, PagedPixels) and (empty := self._pixels.empty_segments):
            notes += (f"{empty} tiles are left out of the file; they read as background",)
        return ImageInfo(
            name=f"{path.name}:{scene}" if scene else path.name,
            shape=layout.tczyx,
            dtype=np.dtype(series.dtype).newbyteorder("="),
            axes=layout.axes,
            voxel_size=metadata.voxel_size,
            channels=channels if len(channels) == layout.tczyx[1] else (),
            time_step=metadata.time_step,
            identity=file_identity(path, scene, axes),
            notes=notes,
            refused=metadata.refused,
            scenes=scenes,
        )


def _opened(path: Path) -> Any:
    import tifffile

    try:
        return tifffile.TiffFile(path)
    except (tifffile.TiffFileError, ValueError, RuntimeError) as error:
        raise DataError(f"{path}: this is no TIFF that can be read ({error})", "Save it again as TIFF") from error


def _scene_names(tif: Any) -> tuple[str, ...]:
    names = unique_names([series.name or f"image {i}" for i, series in enumerate(tif.series)])
    if not names:
        raise DataError(f"{tif.filename}: the file has no images", "It was not written completely; save it again")
    return names


def _check_series(tif: Any, series: Any, path: Path) -> None:
    """Refuse a file whose metadata did not fit its pages, which tifffile then reads as something smaller."""
    if tif.is_imagej and not tif.is_ome and series.kind != "imagej":
        declared = int((tif.imagej_metadata or {}).get("images", 1))
        page = tif.pages.first
        raise cut_short(
            path,
            f"ImageJ declares {declared} planes, {len(tif.pages)} pages are found; the last plane ends",
            page.dataoffsets[0] + declared * page.nbytes,
            path.stat().st_size,
        )
    if series.keyframe.dtype is None or np.dtype(series.dtype).kind not in "buif":
        raise DataError(f"{path}: pixels of type {series.dtype} are not supported", "Save them as integers or floats")
    if series.transform is not None:
        raise DataError(f"{path}: this TIFF stores coded intensities ({series.kind})", "Save it again as plain TIFF")


def _layout(tif: Any, series: Any, path: Path, given: str | None) -> Layout:
    shape, axes = series.get_shape(False), series.get_axes(False)
    planar_rgb = series.keyframe.planarconfig == _PLANAR and int(series.keyframe.photometric) == _RGB
    if series.kind == "shaped" and planar_rgb and not any("axes" in m for m in tif.shaped_metadata or ()):
        axes = axes.replace("S", "Q")  # tifffile calls any stack of three 8-bit planes RGB unless told otherwise
    return resolve_layout(path.name, tuple(shape), axes, given)


def _pixels(tif: Any, series: Any, path: Path) -> MappedPixels | PagedPixels:
    shape = tuple(series.get_shape(False))
    dtype = np.dtype(series.dtype).newbyteorder(tif.byteorder)
    if not series.is_multifile and series.dataoffset is not None:
        return MappedPixels(path, series.dataoffset, shape, dtype)
    found = list(series.pages)
    missing = sum(page is None for page in found)
    if missing:
        raise DataError(
            f"{path}: {len(found)} pages are expected, {len(found) - missing} are found",
            "The file is cut short, or other files of the same image are missing from its folder",
        )
    keyframe = series.keyframe
    plain = keyframe.is_final
    stored = dtype if plain else dtype.newbyteorder("=")
    pages = [_page(page) for page in found]
    expected = math.prod(shape) // max(1, math.prod(keyframe.shaped))
    if len(pages) > expected > 0:
        pages = pages[:expected]
    return PagedPixels(path, pages, keyframe, shape, stored)


def _page(page: Any) -> Page:
    handle = page.parent.filehandle
    return Page(
        Path(handle.path), tuple(page.dataoffsets), tuple(page.databytecounts), getattr(page, "jpegtables", None)
    )
