"""Images in and out: lazy readers under one protocol, writers by region that never leave half a file."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from im2im_core.axes import AXES, full_region, to_tczyx
from im2im_core.errors import DataError, ResourceError, nearest
from im2im_core.image import Image, ImageInfo, VoxelSize
from im2im_core.io.aics import SUFFIXES as _OTHER_SUFFIXES
from im2im_core.io.aics import AicsReader
from im2im_core.io.bioio import BioioReader
from im2im_core.io.labels import as_labels
from im2im_core.io.ome_zarr import OmeZarrReader
from im2im_core.io.ome_zarr_writer import OmeZarrWriter
from im2im_core.io.protocol import Reader, RegionWriter
from im2im_core.io.tiff import SUFFIXES as _TIFF_SUFFIXES
from im2im_core.io.tiff import TiffReader
from im2im_core.io.tiff_writer import OmeTiffWriter

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "READERS",
    "Reader",
    "RegionWriter",
    "as_labels",
    "create_output",
    "is_image",
    "open_image",
    "scenes",
    "write_image",
]

AnyPath = str | os.PathLike[str]

READERS: dict[str, Reader] = {r.name: r for r in (TiffReader(), OmeZarrReader(), AicsReader(), BioioReader())}
"""Every reader by name, in the order in which they are asked."""


def open_image(path: AnyPath, *, scene: int | str = 0, axes: str | None = None, reader: str = "auto") -> Image:
    """Lazy image of a file or folder; no pixel is read yet.

    Parameters
    ----------
    scene : int or str
        Number or name of the image in the file.
    axes : str, optional
        One letter of T, C, Z, Y, X, S per dimension, for files that do not say it.
    reader : str
        "auto", or a name from `READERS`.

    Raises
    ------
    DataError
        The file is missing, cut short, of unknown format, or its axes are ambiguous.
    """
    path = Path(path)
    return _reader(path, reader).open(path, scene=scene, axes=axes)


def scenes(path: AnyPath, *, reader: str = "auto") -> tuple[str, ...]:
    """Names of all images in a file, each once."""
    path = Path(path)
    return _reader(path, reader).scenes(path)


def is_image(path: AnyPath) -> bool:
    """Whether the name is that of an image, folders ``*.zarr`` included; hidden files are not."""
    name = Path(path).name.lower()
    return not name.startswith(".") and name.endswith((*_TIFF_SUFFIXES, ".zarr", *_OTHER_SUFFIXES))


def create_output(
    path: AnyPath,
    info: ImageInfo,
    *,
    overwrite: bool = False,
    chunks: tuple[int, int, int, int, int] | None = None,
    pyramid: bool = False,
    labels: bool = False,
    version: Literal["0.4", "0.5"] = "0.4",
) -> RegionWriter:
    """Writer for an image of the shape, type, axes and metadata of `info`, chosen by the name of `path`.

    Parameters
    ----------
    chunks : tuple of int, optional
        Along T, C, Z, Y, X, for OME-Zarr.
    pyramid : bool
        Add smaller levels at the end.
    labels : bool
        Pixels are ids, so smaller levels are not averaged.
    version : str
        Of OME-Zarr.

    Raises
    ------
    ResourceError
        `path` exists and `overwrite` is off, or the disk is too small or not writable.
    DataError
        The name or the type of the pixels does not suit a format.
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith(".zarr"):
        return OmeZarrWriter(
            path, info, overwrite=overwrite, chunks=chunks, pyramid=pyramid, labels=labels, version=version
        )
    if name.endswith((".tif", ".tiff")):
        return OmeTiffWriter(path, info, overwrite=overwrite, pyramid=pyramid, labels=labels)
    raise DataError(f"{path}: images are not written in the format {path.suffix!r}", "Use .ome.tif or .ome.zarr")


def write_image(
    path: AnyPath,
    array: ArrayLike,
    axes: str,
    *,
    voxel_size: VoxelSize = (None, None, None),
    channels: tuple[str, ...] = (),
    time_step: float | None = None,
    overwrite: bool = False,
) -> Path:
    """Path of an array written as OME-TIFF or OME-Zarr, by the name of `path`."""
    import numpy as np

    path = Path(path)
    pixels = to_tczyx(np.asarray(array), axes)
    t, c, z, y, x = pixels.shape
    present = axes.upper().replace("S", "C")
    info = ImageInfo(
        name=path.name,
        shape=(t, c, z, y, x),
        dtype=pixels.dtype,
        axes="".join(a for a in AXES if a in present),
        voxel_size=voxel_size,
        channels=channels,
        time_step=time_step,
    )
    with create_output(path, info, overwrite=overwrite) as writer:
        writer.write(full_region(info.shape), pixels)
    return path


def _reader(path: Path, name: str) -> Reader:
    if name != "auto" and name not in READERS:
        raise DataError(f"There is no reader {name!r}", nearest(name, [*READERS, "auto"]))
    _check_there(path)
    if name != "auto":
        return READERS[name]
    chosen = next((r for r in READERS.values() if r.supports(path) and _installed(r.name)), None)
    if chosen is None:
        raise DataError(
            f"{path}: no reader for {path.suffix or 'this name'!r} is installed",
            "Install one: pip install 'napari-im2im[all]' (or [bioio]), or save the image as OME-TIFF or OME-Zarr",
        )
    return chosen


def _check_there(path: Path) -> None:
    if not path.exists():
        raise DataError(f"{path} does not exist", "Check the path")
    if not os.access(path, os.R_OK):
        raise ResourceError(f"{path} may not be read", "Check the permissions of the file")


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
