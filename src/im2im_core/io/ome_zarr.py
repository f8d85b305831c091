"""OME-Zarr 0.4 and 0.5 (and plain Zarr arrays with axes told) through tensorstore, chunk by chunk."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.axes import AXES, Region, full_region
from im2im_core.errors import DataError
from im2im_core.image import Image, ImageInfo
from im2im_core.io.damage import damage_told
from im2im_core.io.identity import folder_identity
from im2im_core.io.layout import check_region, resolve_layout
from im2im_core.io.scenes import pick_scene, unique_names
from im2im_core.io.units import micrometres, refused_size, seconds

if TYPE_CHECKING:
    from numpy.typing import NDArray

MARKERS = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
"""Files of which at least one stands in every Zarr group or array."""
_KINDS = "buif"


class OmeZarrReader:
    """Reads folders; scenes are images of a collection or ``well/field`` of a plate, of a pyramid the largest level."""

    name = "tensorstore"

    def supports(self, path: Path) -> bool:
        """Whether the name or the folder is one of this reader."""
        return path.name.lower().endswith(".zarr") or any((path / marker).is_file() for marker in MARKERS)

    def open(self, path: Path, *, scene: int | str = 0, axes: str | None = None) -> Image:
        """Lazy image of one scene."""
        return OmeZarrImage(path, scene, axes)

    def scenes(self, path: Path) -> tuple[str, ...]:
        """Names of all images in the file."""
        with damage_told(path):
            return unique_names([name for name, _ in _scenes(path)])


@dataclass(frozen=True)
class _Source:
    """One array with what its group says about it."""

    array: Path
    group: Path
    axes: list[dict[str, Any]] | None = None
    scale: list[float] | None = None
    channels: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    absent: list[list[int]] | None = None
    """Chunks that our own writer left out, as ranges of their numbers; None where somebody else wrote the image."""


class OmeZarrImage:
    """Largest level of one image; opens its array again when sent to another process."""

    def __init__(self, path: Path, scene: int | str = 0, axes: str | None = None) -> None:
        self._origin = (path, scene, axes)
        with damage_told(path):
            found = _scenes(path)
            names = unique_names([name for name, _ in found])
            index = pick_scene(path, names, scene)
            self._source = source = found[index][1]()
            self._store = open_array(source.array)
            if source.absent is not None:
                check_chunks(source.array, self._store, source.absent)
            shape = tuple(self._store.shape)
            self._layout = resolve_layout(path.name, shape, _letters(source, len(shape)), axes, squeeze=False)
            self._info = self._describe(index, names if len(names) > 1 else ())

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
            block = self._store[self._layout.slices(region)].read().result()
        except (ValueError, OSError, NotImplementedError) as error:
            spans = ", ".join(f"{a} {s.start}:{s.stop}" for a, s in zip(AXES, region, strict=True))
            raise DataError(
                f"{self._origin[0]}: the region {spans} cannot be read ({_short(error)})",
                "The chunk named is damaged; copy or save the image again",
            ) from error
        return np.ascontiguousarray(self._layout.arrange(block)).astype(self._info.dtype, copy=False)

    def _describe(self, index: int, scenes: tuple[str, ...]) -> ImageInfo:
        path, _, axes = self._origin
        scene = scenes[index] if scenes else ""
        source, layout = self._source, self._layout
        dtype = np.dtype(self._store.dtype.numpy_dtype)
        if dtype.kind not in _KINDS:
            raise DataError(f"{path}: pixels of type {dtype} are not supported", "Save them as integers or floats")
        sizes, time_step, notes = _scales(source)
        parts = [*(source.group / marker for marker in MARKERS), source.array]
        return ImageInfo(
            name=f"{path.name}:{scene}" if scene else path.name,
            shape=layout.tczyx,
            dtype=dtype.newbyteorder("="),
            axes=layout.axes,
            voxel_size=(sizes.get("Z"), sizes.get("Y"), sizes.get("X")),
            channels=source.channels if len(source.channels) == layout.tczyx[1] else (),
            time_step=time_step,
            identity=folder_identity(path, parts, scene, axes),
            notes=notes,
            refused=_refused(source),
            scenes=scenes,
        )


# ---- the array ----


def open_array(folder: Path, **options: Any) -> Any:
    """Tensorstore array of a Zarr 2 or 3 folder.

    Raises
    ------
    DataError
        The folder holds no array that can be read.
    """
    import tensorstore as ts

    driver = "zarr3" if (folder / "zarr.json").is_file() else "zarr"
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{folder.resolve().as_posix()}/"}}
    try:
        return ts.open(spec, open=True, **{"read": True, **options}).result()
    except (ValueError, OSError, NotImplementedError) as error:
        raise DataError(
            f"{folder}: this is no Zarr array that can be read ({_short(error)})", "Check that the folder is complete"
        ) from error


def _short(error: Exception) -> str:
    """Message of tensorstore without the specification it appends."""
    return str(error).partition(" [tensorstore_spec")[0].partition(" [source locations")[0]


def chunk_grid(array: Any) -> tuple[int, ...]:
    """Number of chunks of a tensorstore array along each dimension."""
    return tuple(-(-n // c) for n, c in zip(array.shape, array.chunk_layout.write_chunk.shape, strict=True))


def absent_chunks(folder: Path, grid: tuple[int, ...]) -> list[list[int]]:
    """Chunks of an array of ours that are not in `folder`, as ranges [first, one after the last] of their numbers."""
    start = folder / "c" if (folder / "zarr.json").is_file() else folder
    there = np.zeros(grid, bool)
    for root, folders, names in os.walk(start):
        folders[:] = [name for name in folders if name.isdigit()]
        before = [int(part) for part in Path(root).relative_to(start).parts]
        for name in names if len(before) == len(grid) - 1 else ():
            if name.isdigit():
                there[(*before, int(name))] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[True], there.ravel(), [True]])))
    return [[int(first), int(last)] for first, last in edges.reshape(-1, 2)]


def check_chunks(folder: Path, array: Any, left_out: list[list[int]]) -> None:
    """Do nothing where every chunk that was written is there; zarr reads a lost one as zeros.

    Raises
    ------
    DataError
        A chunk is missing; names the first.
    """
    grid = chunk_grid(array)
    if (found := absent_chunks(folder, grid)) == left_out:
        return
    written = np.ones(math.prod(grid), bool)
    for first, last in left_out:
        written[first:last] = False
    lost = [n for first, last in found for n in range(first, last) if written[n]]
    if lost:
        name = "/".join(str(n) for n in np.unravel_index(lost[0], grid))
        raise DataError(
            f"{folder}: {len(lost)} chunk(s) of the image are missing, the first is {name}",
            "Copy the whole folder again, or make the image again",
        )


# ---- the groups ----


def attributes(folder: Path) -> dict[str, Any]:
    """Attributes of a group or array; empty where there are none.

    Raises
    ------
    DataError
        The metadata file is damaged.
    """
    for name, key in (("zarr.json", "attributes"), (".zattrs", None)):
        if (folder / name).is_file():
            try:
                content = json.loads((folder / name).read_text(encoding="utf-8"))
                found = content.get(key, {}) if key else content
            except (ValueError, AttributeError) as error:
                raise DataError(
                    f"{folder / name} is not valid JSON ({error})", "Copy or save the image again"
                ) from error
            return dict(found)
    return {}


def _is_array(folder: Path) -> bool:
    if (folder / ".zarray").is_file():
        return True
    meta = folder / "zarr.json"
    return meta.is_file() and '"array"' in meta.read_text(encoding="utf-8")


def _ome(folder: Path) -> dict[str, Any]:
    content = attributes(folder)
    return dict(content.get("ome", content))


Scene = tuple[str, Any]
"""Name, and a function without arguments that makes its `_Source`."""


def _scenes(path: Path) -> list[Scene]:
    try:
        found = list(_find_scenes(path))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: the OME-Zarr metadata is incomplete ({error!r})", "Save the image again") from error
    if not found:
        raise DataError(f"{path}: the folder holds no image", "Name a folder with OME-Zarr metadata or a Zarr array")
    return found


def _find_scenes(path: Path) -> Iterator[Scene]:
    if _is_array(path):
        yield path.name, lambda: _plain(path)
        return
    content = _ome(path)
    if "multiscales" in content:
        for number, image in enumerate(content["multiscales"]):
            yield (image.get("name") or f"image {number}"), _later(path, number)
    elif "plate" in content:
        for well in content["plate"].get("wells", ()):
            folder = _inside(path, well["path"])
            for field_ in _ome(folder).get("well", {}).get("images", ()):
                yield f"{well['path']}/{field_['path']}", _later(_inside(folder, field_["path"]), 0)
    elif "well" in content:
        for field_ in content["well"].get("images", ()):
            yield str(field_["path"]), _later(_inside(path, field_["path"]), 0)
    else:
        for name in _collection(path):
            yield name, _later(_inside(path, name), 0)


def _inside(folder: Path, name: str) -> Path:
    """Path of `name` below `folder`.

    Raises
    ------
    DataError
        It is somewhere else.
    """
    parts = Path(str(name)).parts
    if Path(str(name)).is_absolute() or ".." in parts:
        raise DataError(f"{folder}: {name!r} leads out of the folder", "Copy the image again, or mend its metadata")
    return folder / str(name)


def _later(group: Path, number: int) -> Any:
    return lambda: _multiscale(group, number)


def _collection(path: Path) -> list[str]:
    """Sub-folders that are images, in the order of the series list or natural order."""
    listed = _ome(path / "OME").get("series")
    if listed:
        return [str(name) for name in listed]
    names = [p.name for p in path.iterdir() if p.is_dir() and "multiscales" in _ome(p)] if path.is_dir() else []
    return sorted(names, key=lambda n: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", n)])


def _plain(array: Path) -> _Source:
    meta = array / "zarr.json"
    names = json.loads(meta.read_text(encoding="utf-8")).get("dimension_names") if meta.is_file() else None
    names = names or attributes(array).get("_ARRAY_DIMENSIONS")
    axes = [{"name": str(n)} for n in names] if names else None
    return _Source(array, array, axes)


def _multiscale(group: Path, number: int) -> _Source:
    content = _ome(group)
    try:
        image = content["multiscales"][number]
        dataset = image["datasets"][0]
        array = _inside(group, dataset["path"])
        scale = _product(_scale_of(image), _scale_of(dataset))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{group}: the OME-Zarr metadata is incomplete ({error!r})", "Save the image again") from error
    axes = [a if isinstance(a, dict) else {"name": a} for a in image.get("axes", ())] or None
    labels = [str(c.get("label") or "") for c in content.get("omero", {}).get("channels", ())]
    channels = tuple(n or f"channel {i}" for i, n in enumerate(labels)) if any(labels) else ()
    return _Source(array, group, axes, scale, channels, absent=_left_out(group))


def _left_out(group: Path) -> list[list[int]] | None:
    """Chunks of the largest level that were not written, where our own writer noted them."""
    ours = attributes(group).get("im2im")
    found = ours.get("absent") if isinstance(ours, dict) else None
    return found if isinstance(found, list) else None


def _scale_of(content: dict[str, Any]) -> list[float] | None:
    steps = content.get("coordinateTransformations") or ()
    return next((step["scale"] for step in steps if step.get("type") == "scale" and "scale" in step), None)


def _product(first: list[float] | None, second: list[float] | None) -> list[float] | None:
    if first is None or second is None:
        return first or second
    return [a * b for a, b in zip(first, second, strict=True)]


# ---- the metadata ----


def _letters(source: _Source, ndim: int) -> str:
    """One letter per dimension; Q where unknown."""
    if source.axes is None:
        # OME-Zarr up to 0.2 had five dimensions in this order and no list of axes
        return {2: "YX", 5: AXES if source.group != source.array else "QQQYX"}.get(ndim, "Q" * (ndim - 2) + "YX")
    named = {"time": "T", "channel": "C"}
    letters = [str(a.get("name", "")).upper() for a in source.axes]
    letters = [
        n if n in AXES and len(n) == 1 else named.get(str(a.get("type")), "Q")
        for n, a in zip(letters, source.axes, strict=True)
    ]
    if len(letters) != ndim:
        raise DataError(
            f"{source.group}: the metadata names {len(letters)} axes, the array has {ndim} dimensions",
            "Save the image again",
        )
    return "".join(letters)


def _scales(source: _Source) -> tuple[dict[str, float | None], float | None, tuple[str, ...]]:
    """Micrometres along Z, Y, X, seconds between time points, and what was assumed."""
    if source.axes is None or source.scale is None:
        return {}, None, ()
    letters = _letters(source, len(source.scale))
    lengths: dict[str, float | None] = {}
    time_step = None
    notes: list[str] = []
    for letter, axis, value in zip(letters, source.axes, source.scale, strict=True):
        unit = axis.get("unit")
        if letter == "T":
            time_step = seconds(value, str(unit)) if unit else None
        elif letter in "ZYX":
            lengths[letter] = micrometres(value, str(unit or "micrometer")) if unit or value != 1 else None
            if not unit and value != 1:
                notes.append(f"scale {value:g} along {letter} has no unit; micrometres are assumed")
    return lengths, time_step, tuple(notes)


def _refused(source: _Source) -> tuple[tuple[str, float], ...]:
    """Axes and scales that cannot be the size of a voxel."""
    if source.axes is None or source.scale is None:
        return ()
    letters = _letters(source, len(source.scale))
    return tuple(
        r for a, value in zip(letters, source.scale, strict=True) if a in "ZYX" for r in refused_size(a, value)
    )
