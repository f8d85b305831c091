"""An image: a lazy ``(T, C, Z, Y, X)`` array with its own axes, voxel size, channel names and identity."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from im2im_core.axes import AXES, Region, full_region, to_tczyx
from im2im_core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

VoxelSize = tuple[float | None, float | None, float | None]
"""Size of a voxel along Z, Y, X in micrometres; None where unknown."""


@dataclass(frozen=True)
class ImageInfo:
    """What is known of an image before a pixel is read."""

    name: str
    shape: tuple[int, int, int, int, int]
    """Along T, C, Z, Y, X; 1 where the source has no such axis."""
    dtype: np.dtype[Any]
    axes: str
    """The axes that the source really has, a subsequence of TCZYX, for example ``CYX``."""
    voxel_size: VoxelSize = (None, None, None)
    channels: tuple[str, ...] = ()
    """Names of the channels; empty where unknown."""
    time_step: float | None = None
    """Seconds between time points; None where unknown."""
    identity: str = ""
    """Changes when the content may have changed: path, scene, size and time of the file, or a hash."""
    notes: tuple[str, ...] = field(default=())
    """What a reader had to assume, in words."""
    refused: tuple[tuple[str, float], ...] = field(default=())
    """Axes and their voxel sizes in the file that cannot be (zero, negative, not finite); taken as unknown."""
    scenes: tuple[str, ...] = field(default=())
    """Names of all images in its file; empty where it is the only one."""


@runtime_checkable
class Image(Protocol):
    """A lazy array: `info` costs no pixels, `read` reads only the region asked for."""

    @property
    def info(self) -> ImageInfo: ...

    def read(self, region: Region | None = None) -> NDArray[Any]:
        """Pixels of `region` as ``(T, C, Z, Y, X)`` in the dtype of the source, native byte order."""
        ...


class ArrayImage:
    """Image over an array in memory (or any array-like that slices lazily: dask, zarr, memmap).

    Parameters
    ----------
    array : array-like
        Pixels with the dimensions named by `axes`.
    axes : str
        One letter of T, C, Z, Y, X, S per dimension; S are RGB samples and become channels.
    """

    def __init__(
        self,
        array: Any,
        axes: str,
        *,
        name: str = "array",
        voxel_size: VoxelSize = (None, None, None),
        channels: tuple[str, ...] = (),
        time_step: float | None = None,
        identity: str = "",
        scenes: tuple[str, ...] = (),
    ) -> None:
        if not hasattr(array, "ndim"):
            array = np.asarray(array)
        self._array = to_tczyx(array, axes)
        if self._array.dtype == object:
            raise DataError(f"{name}: pixels are Python objects", "Convert the array to numbers")
        present = "".join(a for a in AXES if a in axes.upper().replace("S", "C"))
        t, c, z, y, x = self._array.shape
        self._info = ImageInfo(
            name=name,
            shape=(t, c, z, y, x),
            dtype=np.dtype(self._array.dtype).newbyteorder("="),
            axes=present,
            voxel_size=voxel_size,
            channels=channels,
            time_step=time_step,
            identity=identity or f"array:{id(array):x}",
            scenes=scenes,
        )

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, region: Region | None = None) -> NDArray[Any]:
        part = self._array[region or full_region(self._info.shape)]
        return np.asarray(part).astype(self._info.dtype, copy=False)


class CroppedImage:
    """Part of another image, still lazy.

    `region` may keep axes whole; coordinates of `read` are relative to it.
    """

    def __init__(self, image: Image, region: Region, name: str = "") -> None:
        self._image, self._region = image, region
        t, c, z, y, x = (s.stop - s.start for s in region)
        info = image.info
        channels = info.channels[region[1]] if info.channels else ()
        spans = ",".join(f"{s.start}:{s.stop}" for s in region)
        self._info = replace(
            info,
            name=name or info.name,
            shape=(t, c, z, y, x),
            channels=channels,
            identity=f"{info.identity}[{spans}]",
        )

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, region: Region | None = None) -> NDArray[Any]:
        inner = region or full_region(self._info.shape)
        moved = tuple(slice(o.start + i.start, o.start + i.stop) for o, i in zip(self._region, inner, strict=True))
        return self._image.read(moved)  # type: ignore[arg-type]


def select_channels(image: Image, channels: tuple[int | str, ...] | None) -> Image:
    """Image with only `channels`, by number or name, in that order; all when None.

    Raises
    ------
    DataError
        A channel does not exist; the message lists those that do.
    """
    if channels is None:
        return image
    return _ChannelImage(image, tuple(_channel_index(image.info, c) for c in channels))


def channels_named(info: ImageInfo, names: tuple[str, ...]) -> tuple[str, ...] | None:
    """`names` where the image has a channel of each that is not in its place already; else None, which is all."""
    clear = len(set(names)) == len(names) and all(info.channels.count(n) == 1 for n in names)
    return names if names and clear and info.channels != names else None


def _channel_index(info: ImageInfo, channel: int | str) -> int:
    count = info.shape[1]
    if isinstance(channel, str) and channel in info.channels:
        return info.channels.index(channel)
    if isinstance(channel, int) and 0 <= channel < count:
        return channel
    names = ", ".join(f"{i} {n!r}" for i, n in enumerate(info.channels)) or f"0 to {count - 1}"
    raise DataError(f"{info.name} has no channel {channel!r}", f"Its channels are: {names}")


class _ChannelImage:
    """Some channels of another image, in a given order."""

    def __init__(self, image: Image, indices: tuple[int, ...]) -> None:
        self._image, self._indices = image, indices
        info = image.info
        t, _, z, y, x = info.shape
        self._info = replace(
            info,
            shape=(t, len(indices), z, y, x),
            channels=tuple(info.channels[i] for i in indices) if info.channels else (),
            identity=f"{info.identity}/c{indices}",
        )

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, region: Region | None = None) -> NDArray[Any]:
        t, c, z, y, x = region or full_region(self._info.shape)
        planes = [self._image.read((t, slice(i, i + 1), z, y, x)) for i in self._indices[c]]
        return np.concatenate(planes, axis=1)


def join_channels(images: Sequence[Image], name: str, channels: tuple[str, ...] = ()) -> Image:
    """Image whose channels are those of several images, put together only where they are read.

    Parameters
    ----------
    channels : tuple of str
        Names of all channels; empty where unknown.

    Raises
    ------
    DataError
        The images differ in size along another axis than C.
    """
    sizes = {image.info.name: (image.info.shape[0], *image.info.shape[2:]) for image in images}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{key} {size}" for key, size in sizes.items())
        raise DataError(f"{name}: its channels differ in size along T, Z, Y, X: {told}", "Give them the same size")
    return _JoinedImage(tuple(images), name, channels)


class _JoinedImage:
    """Channels of several images, one after the other."""

    def __init__(self, images: tuple[Image, ...], name: str, channels: tuple[str, ...]) -> None:
        self._places = [(image, c) for image in images for c in range(image.info.shape[1])]
        info = images[0].info
        t, _, z, y, x = info.shape
        present = {axis for image in images for axis in image.info.axes} | ({"C"} if len(self._places) > 1 else set())
        self._info = replace(
            info,
            name=name,
            shape=(t, len(self._places), z, y, x),
            dtype=np.result_type(*(image.info.dtype for image in images)),
            axes="".join(axis for axis in AXES if axis in present),
            channels=channels if len(channels) == len(self._places) else (),
            identity="+".join(image.info.identity for image in images),
            notes=tuple(dict.fromkeys(note for image in images for note in image.info.notes)),
        )

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, region: Region | None = None) -> NDArray[Any]:
        t, c, z, y, x = region or full_region(self._info.shape)
        planes = [image.read((t, slice(i, i + 1), z, y, x)) for image, i in self._places[c]]
        return np.concatenate(planes, axis=1, dtype=self._info.dtype)


def content_hash(array: NDArray[Any]) -> str:
    """Hex digest of dtype, shape and pixels."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def as_image(
    source: Any,
    axes: str | None = None,
    name: str = "array",
    dimensions: int | None = None,
    scene: int | str | None = None,
) -> Image:
    """Image from an `Image`, a path or an array.

    An array of two dimensions is YX; of three dimensions it is ZYX only where
    `dimensions` is 3. Anything else needs `axes`. A file with several scenes needs `scene`.

    Parameters
    ----------
    scene : int or str, optional
        Number or name of the image in a file that has several.

    Raises
    ------
    DataError
        The axes of an array cannot be known, or which scene of a file is meant.
    """
    if isinstance(source, Image):
        return source
    if hasattr(source, "shape") and hasattr(source, "dtype"):
        guess = {2: "YX"}.get(source.ndim) or ("ZYX" if source.ndim == dimensions == 3 else None)
        if axes is None and guess is None:
            raise DataError(
                f"{name}: an array of shape {tuple(source.shape)} can be several things",
                "Say which with axes=, for example 'ZYX', 'CYX' or 'TYX'",
            )
        return ArrayImage(source, axes or guess or "", name=name)
    from im2im_core.io import open_image, scenes
    from im2im_core.io.scenes import require_one, scene_number

    if scene is None:
        return require_one(open_image(source, axes=axes))
    path = Path(source)
    return open_image(path, axes=axes, scene=scene_number(path, scenes(path), scene))
