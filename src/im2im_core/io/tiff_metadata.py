"""Voxel size, channel names and time step of a TIFF, from OME-XML, ImageJ text or resolution tags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from im2im_core.image import VoxelSize
from im2im_core.io.units import micrometres, refused_size, seconds

_PLAUSIBLE = (0.0005, 20.0)  # micrometres; coarser is the 72 to 600 dpi of screens and printers
_INCH, _CENTIMETRE = 2, 3
_PALETTE, _MIN_IS_WHITE = 3, 0
RGB_NAMES = ("red", "green", "blue", "alpha")


@dataclass(frozen=True)
class Metadata:
    """What a TIFF says beside its pixels."""

    voxel_size: VoxelSize = (None, None, None)
    channels: tuple[str, ...] = ()
    time_step: float | None = None
    notes: tuple[str, ...] = ()
    refused: tuple[tuple[str, float], ...] = ()
    """As in `ImageInfo`."""


def read_metadata(tif: Any, series: Any, index: int) -> Metadata:
    """Metadata of scene `index`."""
    if series.kind == "ome":
        return ome_metadata(tif.ome_metadata, index)
    if series.kind == "imagej":
        return _imagej_metadata(tif.imagej_metadata or {}, series.keyframe)
    return _tag_metadata(series.keyframe)


def pixel_notes(keyframe: Any) -> tuple[str, ...]:
    """What the reader had to decide about the values."""
    notes = {
        _PALETTE: "the file has a colour table; its indices are read",
        _MIN_IS_WHITE: "the file says that 0 is white; values are not inverted",
    }
    note = notes.get(int(keyframe.photometric))
    return (note,) if note else ()


# ---- OME ----


def ome_metadata(xml: str, index: int) -> Metadata:
    """Metadata of the image number `index` of an OME-XML text."""
    pixels = [p for image in _children(ElementTree.fromstring(xml), "Image") for p in _children(image, "Pixels")]
    if index >= len(pixels):
        return Metadata()
    chosen = pixels[index]
    names = tuple(c.get("Name") or "" for c in _children(chosen, "Channel"))
    return Metadata(
        voxel_size=(_ome_length(chosen, "Z"), _ome_length(chosen, "Y"), _ome_length(chosen, "X")),
        channels=tuple(n or f"channel {i}" for i, n in enumerate(names)) if any(names) else (),
        time_step=seconds(_number(chosen.get("TimeIncrement")), chosen.get("TimeIncrementUnit", "s")),
        refused=tuple(r for axis in "ZYX" for r in refused_size(axis, _number(chosen.get(f"PhysicalSize{axis}")))),
    )


def _children(element: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
    return [child for child in element if child.tag.rpartition("}")[2] == tag]


def _ome_length(pixels: ElementTree.Element, axis: str) -> float | None:
    size = _number(pixels.get(f"PhysicalSize{axis}"))
    return micrometres(size, pixels.get(f"PhysicalSize{axis}Unit", "µm"))


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


# ---- ImageJ ----


def _imagej_metadata(content: dict[str, Any], keyframe: Any) -> Metadata:
    unit = str(content.get("unit", ""))
    x, y = _per_unit(keyframe)
    return Metadata(
        voxel_size=(
            micrometres(_number(content.get("spacing")), unit),
            micrometres(y, str(content.get("yunit", unit))),
            micrometres(x, unit),
        ),
        time_step=seconds(_number(content.get("finterval")), str(content.get("tunit", "s"))),
        refused=refused_size("Z", _number(content.get("spacing"))),
    )


# ---- resolution tags ----


def _tag_metadata(keyframe: Any) -> Metadata:
    factor = {_INCH: 25400.0, _CENTIMETRE: 10000.0}.get(int(keyframe.resolutionunit or 0))
    x, y = _per_unit(keyframe)
    if factor is None or x is None or y is None:
        return Metadata()
    size = (None, y * factor, x * factor)
    if all(_PLAUSIBLE[0] <= s <= _PLAUSIBLE[1] for s in size[1:] if s):
        return Metadata(voxel_size=size)
    return Metadata(
        notes=(f"pixel size {x * factor:.3g} µm of the resolution tags looks like that of a screen; it is not used",)
    )


def _per_unit(keyframe: Any) -> tuple[float | None, float | None]:
    """Size of a pixel along X and Y in the unit of the file."""
    sizes: list[float | None] = []
    for tag in (keyframe.tags.get(282), keyframe.tags.get(283)):
        count, length = tag.value if tag is not None else (0, 1)
        sizes.append(length / count if count and length else None)
    return sizes[0], sizes[1]
