"""Every other format through bioio, where aicsimageio cannot be installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from im2im_core.errors import DataError
from im2im_core.image import Image
from im2im_core.io.damage import DAMAGED
from im2im_core.io.stack import cure_of, stack_image

PARTS = {
    ".czi": ("bioio_czi", "bioio-czi"),
    ".lif": ("bioio_lif", "bioio-lif"),
    ".nd2": ("bioio_nd2", "bioio-nd2"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp", ".gif"), ("bioio_imageio", "bioio-imageio")),
}
"""Formats that need a plugin of their own."""


class BioioReader:
    """Reads whatever bioio and its installed plugins can."""

    name = "bioio"

    def supports(self, path: Path) -> bool:
        """Whether the name or the folder is one of this reader."""
        return path.exists()

    def open(self, path: Path, *, scene: int | str = 0, axes: str | None = None) -> Image:
        """Lazy image of one scene."""
        try:
            return stack_image(_stack(path), path, scene, axes)
        except (ImportError, *DAMAGED) as error:
            raise DataError(f"{path}: bioio cannot read it ({error})", cure_of(path, PARTS)) from error

    def scenes(self, path: Path) -> tuple[str, ...]:
        """Names of all images in the file."""
        try:
            return tuple(_stack(path).scenes)
        except (ImportError, *DAMAGED) as error:
            raise DataError(f"{path}: bioio cannot read it ({error})", cure_of(path, PARTS)) from error


def _stack(path: Path) -> Any:
    try:
        from bioio import BioImage
        from bioio_base.exceptions import UnsupportedFileFormatError
    except ImportError as error:
        cure = "Install it: pip install 'napari-im2im[bioio]'"
        raise DataError(f"{path}: bioio is not installed ({error})", cure) from error
    try:
        return BioImage(path)
    except (UnsupportedFileFormatError, ImportError, *DAMAGED) as error:
        raise DataError(f"{path}: bioio cannot read it ({error})", cure_of(path, PARTS)) from error
