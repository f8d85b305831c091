"""Between napari layers and images: axes by name, voxel size, a snapshot of the pixels, and results as layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.axes import AXES, from_tczyx
from im2im_core.errors import DataError
from im2im_core.image import ArrayImage, Image, VoxelSize, join_channels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari import Viewer
    from napari.layers import Layer
    from numpy.typing import NDArray


_NAMES = {
    **{a.lower(): a for a in AXES},
    "time": "T", "frame": "T", "channel": "C", "channels": "C", "depth": "Z", "plane": "Z", "row": "Y", "column": "X",
}  # fmt: skip
AXES_KEY = "axes"
"""Key in the metadata of a layer under which the answer of the user stands."""
OURS = "im2im_ours"
"""Key in the metadata of every layer that we add ourselves; it says what the layer is: RESULT, or a word of your own.

Labels that are prefilled for the user to correct are the user's and do not carry it.
"""
RESULT = "result"
COPIED_BYTES = 2**26
"""Arrays up to this size are copied at once; that takes the time of a frame. Others are read soon after."""
COLORMAPS = {"probability": "magma", "image": "gray"}


# ---- what a layer is -----------------------------------------------------------


def layer_axes(layer: Layer) -> str | None:
    """Axes of the pixels, for example ``CYX`` or ``YXS`` (S = RGB); None where only the user can say.

    The metadata of the layer count first, then its axis labels; two dimensions are YX.
    """
    told = layer.metadata.get(AXES_KEY)
    labels = tuple(_NAMES.get(str(label).strip().lower(), "") for label in layer.axis_labels)
    for axes in (str(told).upper().replace("S", "") if told else "", "".join(labels)):
        if len(axes) == layer.ndim and _is_valid(axes):
            return axes + "S" * _is_rgb(layer)
    return ("YX" if layer.ndim == 2 else "") + "S" * _is_rgb(layer) if layer.ndim == 2 else None


def axes_choices(layer: Layer) -> tuple[str, ...]:
    """Axes that a layer may have, the likeliest first."""
    lead = layer.ndim - 2
    letters = "ZT" if _is_rgb(layer) else "ZTC"
    order = sorted(permutations(letters, lead), key=lambda p: [AXES.index(a) for a in p] != sorted(map(AXES.index, p)))
    return tuple("".join(p) + "YX" + "S" * _is_rgb(layer) for p in order) if 0 <= lead <= len(letters) else ()


def set_axes(layer: Layer, axes: str) -> None:
    """Keep the answer of the user with the layer, so that nobody asks again."""
    layer.metadata = {**layer.metadata, AXES_KEY: axes.replace("S", "")}


def layer_voxel_size(layer: Layer, axes: str) -> VoxelSize:
    """Size of a voxel along Z, Y, X in micrometres; None where the layer gives no unit of length."""
    from im2im_core.io.units import micrometres

    z, y, x = (_length(layer, axes, a, micrometres) for a in "ZYX")
    return z, y, x


def unitless(layer: Layer) -> bool:
    """Whether the layer has a scale along Y and X but no unit to it."""
    scale = [float(s) for s in layer.scale[-2:]]
    return scale != [1.0, 1.0] and all(str(u) in ("pixel", "dimensionless") for u in layer.units[-2:])


def set_micrometres(layer: Layer) -> None:
    """Say that the spatial scale of the layer is in micrometres."""
    axes = (layer_axes(layer) or "ZYX"[-layer.ndim :]).replace("S", "").rjust(layer.ndim, "?")
    layer.units = tuple("micrometer" if a in "ZYX" else u for a, u in zip(axes, layer.units, strict=True))


def is_users(layer: Layer) -> bool:
    """Whether the layer holds what the user brought or made: no preview, result or overlay of ours."""
    return not layer.metadata.get(OURS)


def is_result(layer: Layer) -> bool:
    """Whether a prediction made it; to be learned from only where the user says so."""
    return bool(layer.metadata.get(OURS) == RESULT)


def is_image_layer(layer: Layer) -> bool:
    """Whether the pixels are intensities."""
    from napari.layers import Image

    return isinstance(layer, Image)


def is_labels(layer: Layer) -> bool:
    """Whether the pixels number objects or classes."""
    from napari.layers import Labels

    return isinstance(layer, Labels)


def is_shapes(layer: Layer) -> bool:
    """Whether it holds rectangles and the like."""
    from napari.layers import Shapes

    return isinstance(layer, Shapes)


def layer_shape(layer: Layer) -> tuple[int, ...]:
    """Shape of the pixels at full resolution."""
    return tuple(int(n) for n in _pixels(layer).shape)


def _length(layer: Layer, axes: str, axis: str, convert: Any) -> float | None:
    if axis not in axes:
        return None
    place = axes.replace("S", "").index(axis)
    found: float | None = convert(float(layer.scale[place]), str(layer.units[place]))
    return found


def _pixels(layer: Layer) -> Any:
    """The array of the layer, the finest one of a multiscale layer."""
    return layer.data[0] if layer.multiscale else layer.data


def _is_rgb(layer: Layer) -> bool:
    return bool(getattr(layer, "rgb", False))


def _is_valid(axes: str) -> bool:
    return set(axes) <= set(AXES) and len(set(axes)) == len(axes) and {"Y", "X"} <= set(axes)


# ---- snapshots -----------------------------------------------------------------


@dataclass(frozen=True)
class Placement:
    """Where a layer lies in the world, by axis."""

    axes: str
    scale: tuple[float, ...]
    translate: tuple[float, ...]
    units: tuple[str, ...]

    def of(self, axis: str) -> tuple[float, float, str]:
        """Scale, translation and unit along `axis`; those of a pixel where the layer has no such axis."""
        if axis not in self.axes:
            return 1.0, 0.0, "pixel"
        place = self.axes.index(axis)
        return self.scale[place], self.translate[place], self.units[place]


@dataclass(frozen=True)
class Snapshot:
    """What a job needs of some layers, taken once: later changes to the layers do not matter."""

    name: str
    axes: str
    arrays: tuple[Any, ...] = field(repr=False)
    """One array per layer; several are channels."""
    placement: Placement
    voxel_size: VoxelSize
    channels: tuple[str, ...] = ()
    time_step: float | None = None
    source: Path | None = None
    """File that the layer was opened from."""

    @cached_property
    def path(self) -> Path | None:
        """File that holds the same pixels, for layers that are read lazily.

        Looks into the file, which may lie on a slow disk, so it is not for the main thread.
        """
        return _same_file(self)

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Shape along T, C, Z, Y, X."""
        sizes = dict(zip(self.axes, self.arrays[0].shape, strict=True))
        if len(self.arrays) > 1:
            sizes["C"] = len(self.arrays)
        t, c, z, y, x = (int(sizes.get("S" if a == "C" and "S" in sizes else a, 1)) for a in AXES)
        return t, c, z, y, x

    def image(self) -> Image:
        """Lazy image of the snapshot; nothing is copied, but a file may be opened: not for the main thread."""
        if self.path is not None:
            from im2im_core.io import open_image

            return open_image(self.path, axes=_told_axes(self))
        one = len(self.arrays) == 1
        images = [
            ArrayImage(
                array,
                self.axes,
                name=self.name,
                voxel_size=self.voxel_size,
                channels=self.channels if one else (),
                time_step=self.time_step,
            )
            for array in self.arrays
        ]
        return images[0] if one else join_channels(images, self.name, self.channels)

    def arguments(self) -> dict[str, Any]:
        """Arguments of an attached job: a path, or the pixels with all that is known of them.

        Reads and copies the pixels, so it is not for the main thread.
        """
        if self.path is not None:
            return {"image": str(self.path), "axes": _told_axes(self)}
        image = self.image()
        return {
            "image": from_tczyx(image.read(), image.info.axes),
            "axes": image.info.axes,
            "name": self.name,
            "voxel_size": list(self.voxel_size),
            "channels": list(image.info.channels),
            "time_step": self.time_step,
        }


def take_snapshot(layers: Sequence[Layer], *, copy: bool = True) -> Snapshot:
    """Snapshot of a layer, or of several that are the channels of one image.

    Parameters
    ----------
    copy : bool
        Keep the pixels as they are now; not needed by those who only glance at them.

    Raises
    ------
    DataError
        The axes of a layer are not known, or the layers do not fit together.
    """
    from im2im_core.io.units import seconds

    first = layers[0]
    axes = layer_axes(first)
    if axes is None:
        raise DataError(
            f"The layer “{first.name}” has {first.ndim} dimensions that can be several things",
            f"Say which they are: {', '.join(axes_choices(first))}",
        )
    arrays = tuple(_kept(layer) if copy else _pixels(layer) for layer in layers)
    if len(layers) > 1:
        _check_together(layers, axes)
    plain = axes.replace("S", "")
    return Snapshot(
        name=first.name if len(layers) == 1 else " + ".join(layer.name for layer in layers),
        axes=axes,
        arrays=arrays,
        placement=Placement(
            plain,
            tuple(float(s) for s in first.scale),
            tuple(float(t) for t in first.translate),
            tuple(str(u) for u in first.units),
        ),
        voxel_size=layer_voxel_size(first, axes),
        channels=_channel_names(layers, axes),
        time_step=_length(first, axes, "T", seconds),
        source=Path(str(first.source.path)) if len(layers) == 1 and first.source.path else None,
    )


def kept(image: Image) -> Image:
    """The same image with a copy of its pixels, where they lie in memory and may be edited in the next moment.

    Reads the pixels, so it is not for the main thread.
    """
    info = image.info
    in_file = not info.identity.startswith("array:")
    if in_file or int(np.prod(info.shape)) * info.dtype.itemsize > COPIED_BYTES:
        return image
    return ArrayImage(
        from_tczyx(image.read().copy(), info.axes),
        info.axes,
        name=info.name,
        voxel_size=info.voxel_size,
        channels=info.channels,
        time_step=info.time_step,
    )


def _kept(layer: Layer) -> Any:
    """A copy, as the layer may be edited in the next moment; large and lazy arrays themselves."""
    array = _pixels(layer)
    return array.copy() if isinstance(array, np.ndarray) and array.nbytes <= COPIED_BYTES else array


def _check_together(layers: Sequence[Layer], axes: str) -> None:
    if "C" in axes or "S" in axes:
        raise DataError(f"“{layers[0].name}” has channels itself", "Choose it alone, or layers without channels")
    shape = layer_shape(layers[0])
    for layer in layers[1:]:
        if layer_shape(layer) != shape:
            raise DataError(
                f"“{layer.name}” has the size {layer_shape(layer)}, “{layers[0].name}” {shape}",
                "Choose layers of the same size as channels",
            )


def _channel_names(layers: Sequence[Layer], axes: str) -> tuple[str, ...]:
    if len(layers) > 1:
        return tuple(layer.name for layer in layers)
    if "S" in axes:
        return ("red", "green", "blue", "alpha")[: layer_shape(layers[0])[-1]]
    names = layers[0].metadata.get("channels") or ()
    if "C" not in axes or len(names) != layer_shape(layers[0])[axes.index("C")]:
        return ()
    return tuple(str(n) for n in names)


def _told_axes(snapshot: Snapshot) -> str | None:
    """Axes that a file must be told, because it does not say them itself."""
    from im2im_core.io import open_image

    assert snapshot.path is not None
    try:
        open_image(snapshot.path)
    except DataError:
        return snapshot.axes
    return None


def _same_file(snapshot: Snapshot) -> Path | None:
    """File of a layer that is read lazily, where our reader sees the same image in it.

    Arrays in memory may have been changed, so they are copied instead.
    """
    from im2im_core.io import is_image, open_image

    path = snapshot.source
    if path is None or isinstance(snapshot.arrays[0], np.ndarray) or not path.exists() or not is_image(path):
        return None
    try:
        info = open_image(path).info
    except DataError:
        return None
    # Of a file with several scenes nothing says which of them the layer shows.
    same = not info.scenes and info.shape == snapshot.shape and info.dtype == snapshot.arrays[0].dtype
    told, known = (*info.voxel_size, info.time_step), (*snapshot.voxel_size, snapshot.time_step)
    return path if same and all(_is_close(a, b) for a, b in zip(told, known, strict=True)) else None


def _is_close(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and abs(one - other) <= 1e-3 * other)


# ---- results -------------------------------------------------------------------


@dataclass(frozen=True)
class ResultSpec:
    """How one result of a prediction is to be shown, as the engine describes it."""

    name: str
    kind: str
    axes: str
    scale: tuple[float, ...]
    translate: tuple[float, ...]

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> ResultSpec:
        """From the facts of an event or the layers of a result."""
        return cls(
            str(facts["name"]), str(facts["kind"]), str(facts["axes"]), tuple(facts["scale"]), tuple(facts["translate"])
        )

    @property
    def is_labels(self) -> bool:
        """Whether pixels are numbers of objects or classes."""
        return self.kind == "labels"


def result_axes(spec: ResultSpec, shape: Sequence[int]) -> str:
    """Axes of the layer of a result of `shape` along T, C, Z, Y, X: those it has, one channel left out."""
    return "".join(a for a in AXES if a in spec.axes and not (a == "C" and shape[1] == 1))


def squeeze_result(array: NDArray[Any], axes: str) -> NDArray[Any]:
    """View of ``(T, C, Z, Y, X)`` pixels with only `axes`."""
    return array[tuple(slice(None) if a in axes else 0 for a in AXES)]


def result_world(spec: ResultSpec, axes: str, source: Snapshot) -> dict[str, Any]:
    """Scale, translate, units and axis names that put a result onto the layer it was made from."""
    scale, translate, units = [], [], []
    for axis in axes:
        if axis == "C":
            size, origin, unit = 1.0, 0.0, "pixel"
        else:
            size, origin, unit = _on_source(spec, axis, source)
        scale.append(size)
        translate.append(origin)
        units.append(unit)
    return {
        "scale": tuple(scale),
        "translate": tuple(translate),
        "units": tuple(units),
        "axis_labels": tuple(a.lower() for a in axes),
    }


def _on_source(spec: ResultSpec, axis: str, source: Snapshot) -> tuple[float, float, str]:
    """The engine counts in micrometres where known; what matters here is the ratio to the source's pixel."""
    pixel = source.time_step if axis == "T" else source.voxel_size["ZYX".index(axis)]
    size, origin, unit = source.placement.of(axis)
    place = spec.axes.index(axis)
    ratio, offset = spec.scale[place] / (pixel or 1.0), spec.translate[place] / (pixel or 1.0)
    return size * ratio, origin + size * offset, unit


def add_result(
    viewer: Viewer, array: NDArray[Any], spec: ResultSpec, source: Snapshot, model: str, facts: dict[str, Any]
) -> Layer:
    """New layer over ``(T, C, Z, Y, X)`` pixels of a result, named ``image · model``; shown where the image lies."""
    axes = result_axes(spec, array.shape)
    look: dict[str, Any] = {
        **result_world(spec, axes, source),
        "name": f"{source.name} · {model}" + ("" if facts.get("main", True) else f" · {spec.name}"),
        "metadata": {
            "axes": axes,
            OURS: RESULT,
            "im2im": {**facts, "model": model, "image": source.name, "output": spec.name},
        },
    }
    pixels = squeeze_result(array, axes)
    if spec.is_labels:
        look["metadata"]["labelling"] = "dense"
        return viewer.add_labels(pixels, **look)
    limits = (0.0, 1.0) if spec.kind == "probability" else None
    colormap = COLORMAPS.get(spec.kind, "gray")
    return viewer.add_image(pixels, colormap=colormap, contrast_limits=limits, blending="additive", rgb=False, **look)
