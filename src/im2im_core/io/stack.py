"""Images of aicsimageio and bioio, whose objects speak the same language, as lazy images."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_core.axes import Region
from im2im_core.errors import DataError
from im2im_core.image import ArrayImage, ImageInfo
from im2im_core.io.damage import DAMAGED
from im2im_core.io.identity import file_identity, folder_identity
from im2im_core.io.layout import DROPPED, resolve_layout
from im2im_core.io.lif_check import check_lif
from im2im_core.io.ome_zarr import OmeZarrReader
from im2im_core.io.protocol import Reader
from im2im_core.io.scenes import pick_scene
from im2im_core.io.tiff import TiffReader
from im2im_core.io.tiff_metadata import RGB_NAMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

Parts = Mapping[str, tuple[str, str]]
"""Ending of a name -> module that reads it, and what to ask pip for."""
_INVENTED = re.compile(r"Channel:(.*:)?\d+")


class StackImage(ArrayImage):
    """Lazy image whose pixels are decoded when they are read, so that damage shows only then."""

    def read(self, region: Region | None = None) -> NDArray[Any]:
        """Pixels of `region`.

        Raises
        ------
        DataError
            They cannot be decoded.
        """
        try:
            return super().read(region)
        except DAMAGED as error:
            raise DataError(
                f"{self.info.name}: the pixels cannot be decoded ({str(error) or type(error).__name__})",
                "The file is damaged or cut short; copy or save it again",
            ) from error


def stack_image(stack: Any, path: Path, scene: int | str, axes: str | None) -> StackImage:
    """Lazy image of one scene of an ``AICSImage`` or ``BioImage``."""
    scenes = tuple(stack.scenes)
    index = pick_scene(path, scenes, scene)
    if path.suffix.lower() == ".lif":
        check_lif(path)
    own = _own(path, index, axes)
    stack.set_scene(scenes[index])
    order = str(stack.dims.order)
    data = stack.get_image_dask_data(order)
    layout = resolve_layout(path.name, tuple(data.shape), order, axes)
    array = data[tuple(0 if a == DROPPED else slice(None) for a in layout.letters)]
    name = scenes[index] if len(scenes) > 1 else ""
    return StackImage(
        array,
        layout.letters.replace(DROPPED, ""),
        name=f"{path.name}:{name}" if name else path.name,
        voxel_size=own.voxel_size if own else _voxel_size(stack.physical_pixel_sizes),
        channels=_channels(stack, layout.tczyx[1], layout.rgb),
        time_step=own.time_step if own else _time_step(stack),
        identity=_identity(path, name, axes),
        scenes=scenes if len(scenes) > 1 else (),
    )


def cure_of(path: Path, parts: Parts) -> str:
    """What to do about a file that cannot be read: install its reader, or make the file anew."""
    module, package = parts.get(path.suffix.lower(), ("", ""))
    if not module:
        return "Save it as OME-TIFF or OME-Zarr"
    if not _is_installed(module):
        return f"Install its reader: pip install {package}"
    return "The file is damaged or cut short; copy or save it again"


def _own(path: Path, index: int, axes: str | None) -> ImageInfo | None:
    """What our own reader says of a format that it knows.

    Those libraries return fewer planes of a file that was cut short, guess axes, and leave out the units of sizes.
    """
    readers: tuple[Reader, ...] = (TiffReader(), OmeZarrReader())
    own = next((reader for reader in readers if reader.supports(path)), None)
    return own.open(path, scene=index, axes=axes).info if own else None


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _voxel_size(sizes: Any) -> tuple[float | None, float | None, float | None]:
    if sizes is None:
        return None, None, None
    z, y, x = (float(v) if v and v > 0 else None for v in (sizes.Z, sizes.Y, sizes.X))
    return z, y, x


def _channels(stack: Any, count: int, rgb: bool) -> tuple[str, ...]:
    if rgb:
        return RGB_NAMES[:count]
    names = tuple(str(n) for n in stack.channel_names or ())
    return () if len(names) != count or all(not n or _INVENTED.fullmatch(n) for n in names) else names


def _time_step(stack: Any) -> float | None:
    """Seconds between time points, where the library knows them; a plain number is of a unit that it does not tell."""
    interval = getattr(stack, "time_interval", None)
    return interval.total_seconds() if isinstance(interval, timedelta) and interval > timedelta(0) else None


def _identity(path: Path, scene: str, axes: str | None) -> str:
    if path.is_dir():
        return folder_identity(path, [path], scene, axes)
    return file_identity(path, scene, axes)
