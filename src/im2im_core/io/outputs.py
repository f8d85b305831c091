"""Where a result is written until it is complete, and how it gets its final name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core import files
from im2im_core.errors import DataError, ResourceError
from im2im_core.files import remove, sync

if TYPE_CHECKING:
    from numpy.typing import NDArray


def begin(path: Path, *, overwrite: bool) -> Path:
    """Name, beside `path`, under which the result is written until it is complete.

    Raises
    ------
    ResourceError
        `path` exists and `overwrite` is off, or its folder cannot be made.
    """
    part = beside(path, "part")
    try:
        files.recover(path)
        if path.exists() and not overwrite:
            raise ResourceError(f"{path} exists", "Use --overwrite (overwrite=True) or another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(part)
    except OSError as error:
        raise cannot_write(path, error) from error
    return part


def beside(path: Path, ending: str) -> Path:
    """Hidden name of this process in the folder of `path`."""
    return path.with_name(f".{path.name[:180]}.{os.getpid()}.{ending}")


def publish(part: Path, path: Path) -> None:
    """Give the complete `part` its final name; what stood there is removed after that."""
    try:
        files.publish(part, path)
    except OSError as error:
        raise cannot_write(path, error) from error


def sync_tree(folder: Path) -> None:
    """Flush every file and folder under `folder` to disk."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(root, name))
        sync(Path(root))


def cannot_write(path: Path, error: OSError) -> ResourceError:
    """Error that names the path and what the system said."""
    return ResourceError(
        f"Cannot write {path}: {error.strerror or error}", "Check free space and permissions of the folder"
    )


def stored_dtype(dtype: np.dtype[Any], refused: tuple[str, ...], name: str) -> np.dtype[Any]:
    """Type that `dtype` is stored as: bool as uint8, float16 as float32, native byte order.

    Raises
    ------
    DataError
        The format has no such type.
    """
    dtype = np.dtype(dtype).newbyteorder("=")
    if dtype.kind not in "buif" or dtype.name in refused:
        raise DataError(
            f"{name}: pixels of type {dtype} cannot be stored in this format",
            "Convert them, for example to float32 or int32, or write to .ome.zarr",
        )
    return np.dtype({"bool": "uint8", "float16": "float32"}.get(dtype.name, dtype))


def fitting(pixels: NDArray[Any], dtype: np.dtype[Any], shape: tuple[int, ...], name: str) -> NDArray[Any]:
    """`pixels` in the type of the file, after checking that nothing is lost.

    Raises
    ------
    DataError
        The shape is not that of the region, or the type cannot hold every value.
    """
    if pixels.shape != shape:
        raise DataError(
            f"{name}: pixels of shape {pixels.shape} do not fill a region of shape {shape}",
            "Give pixels as (T, C, Z, Y, X)",
        )
    if not np.can_cast(pixels.dtype, dtype, "safe"):
        raise DataError(f"{name}: pixels of type {pixels.dtype} do not fit into {dtype}", "Convert them before writing")
    return pixels.astype(dtype, copy=False)
