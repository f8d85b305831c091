"""Every other format through aicsimageio, lazily; it is imported only when it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from im2im_core.errors import DataError
from im2im_core.image import Image
from im2im_core.io.damage import DAMAGED
from im2im_core.io.stack import cure_of, stack_image

SUFFIXES = (".czi", ".lif", ".nd2", ".dv", ".r3d", ".png", ".jpg", ".jpeg", ".bmp", ".gif")
"""Names by which images of other formats are found in folders."""
PARTS = {
    ".czi": ("aicspylibczi", "'napari-im2im[czi]'"),
    ".lif": ("readlif", "'napari-im2im[lif]'"),
    ".nd2": ("nd2", "'napari-im2im[nd2]'"),
}
"""Formats that need an extra of their own."""


class AicsReader:
    """Reads whatever aicsimageio and its extras can."""

    name = "aicsimageio"

    def supports(self, path: Path) -> bool:
        """Whether the name or the folder is one of this reader."""
        return path.exists()

    def open(self, path: Path, *, scene: int | str = 0, axes: str | None = None) -> Image:
        """Lazy image of one scene."""
        try:
            return stack_image(_stack(path), path, scene, axes)
        except (ImportError, *DAMAGED) as error:
            raise DataError(f"{path}: aicsimageio cannot read it ({error})", cure_of(path, PARTS)) from error

    def scenes(self, path: Path) -> tuple[str, ...]:
        """Names of all images in the file."""
        try:
            return tuple(_stack(path).scenes)
        except (ImportError, *DAMAGED) as error:
            raise DataError(f"{path}: aicsimageio cannot read it ({error})", cure_of(path, PARTS)) from error


def _stack(path: Path) -> Any:
    try:
        from aicsimageio.aics_image import AICSImage
        from aicsimageio.exceptions import UnsupportedFileFormatError
    except ImportError as error:
        cure = "Install it: pip install 'napari-im2im[all]'"
        raise DataError(f"{path}: aicsimageio is not installed ({error})", cure) from error
    try:
        return AICSImage(path)
    except (UnsupportedFileFormatError, ImportError, *DAMAGED) as error:
        raise DataError(f"{path}: aicsimageio cannot read it ({error})", cure_of(path, PARTS)) from error
