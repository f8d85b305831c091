"""Which open layers belong together: images with their labels or target images, by size and name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_im2im._layers import is_result, is_users, layer_axes, layer_shape, take_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari import Viewer
    from napari.layers import Layer, Shapes
    from numpy.typing import NDArray

    from im2im_core.axes import Region
    from im2im_core.image import Image, ImageInfo, VoxelSize
    from im2im_core.samples import Sample
    from napari_im2im._layers import Snapshot

PREFILLED = "prefilled"
"""Key in the metadata of a labels layer that began as a prediction: only complete regions of it are known."""
TAUGHT_FROM = "taught_from"
"""Key in its metadata: path of the model that predicted; a training on the corrections starts from it."""
COMPLETE = "complete_regions"
"""Key in the metadata of a Shapes layer inside which everything is labelled."""
LABELS_OF = "complete_regions_of"
"""Key that names the labels layer its regions are for; all labels where absent."""
LABELLING = "labelling"
_TARGET_WORDS = ("gt", "target", "truth", "clean", "fluorescence", "label", "labels", "mask", "masks", "seg", "painted")
_SPLIT = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class LayerPair:
    """Layers of one sample; several images are its channels."""

    images: tuple[Layer, ...]
    target: Layer

    @property
    def name(self) -> str:
        """Name of the image, or of its channels."""
        return " + ".join(layer.name for layer in self.images)


def image_layers(viewer: Viewer) -> list[Layer]:
    """Image layers that belong to the user."""
    return [layer for layer in viewer.layers if is_users(layer) and kind_of(layer) == "image"]


def label_layers(viewer: Viewer) -> list[Layer]:
    """Labels layers that belong to the user; what a model found is not the truth until somebody says so."""
    return [layer for layer in viewer.layers if is_users(layer) and kind_of(layer) == "labels"]


def result_layers(viewer: Viewer) -> list[Layer]:
    """Layers that predictions made, which a person may choose as targets."""
    return [layer for layer in viewer.layers if is_result(layer) and kind_of(layer) in ("image", "labels")]


def kind_of(layer: Layer) -> str:
    """image, labels or shapes; empty for all others, and for our own layers that are no results."""
    from napari.layers import Image, Labels, Shapes

    if not (is_users(layer) or is_result(layer)):
        return ""
    kinds = ((Labels, "labels"), (Shapes, "shapes"), (Image, "image"))
    return next((name for cls, name in kinds if isinstance(layer, cls)), "")


def pair_layers(images: Sequence[Layer], labels: Sequence[Layer]) -> list[LayerPair]:
    """Each labels layer with the image of the same size whose name is most like its own.

    Without labels, images whose name says that they are targets (clean, fluorescence, GT …)
    are paired with the other images.
    """
    if labels:
        return _match(images, labels)
    targets = [layer for layer in images if _words(layer.name) & set(_TARGET_WORDS)]
    return _match([layer for layer in images if layer not in targets], targets)


def _match(images: Sequence[Layer], targets: Sequence[Layer]) -> list[LayerPair]:
    planes = [_plane(i, layer_shape(i)) for i in images], [_plane(t, layer_shape(t)) for t in targets]
    ranked = sorted(
        (-_likeness(i.name, t.name), n, m)
        for n, t in enumerate(targets)
        for m, i in enumerate(images)
        if planes[0][m] == planes[1][n]
    )
    found: dict[int, int] = {}
    for _, n, m in ranked:
        if n not in found and m not in found.values():
            found[n] = m
    return [LayerPair((images[m],), targets[n]) for n, m in sorted(found.items())]


def _likeness(image: str, target: str) -> float:
    one, other = (" ".join(sorted(_words(name) - {*_TARGET_WORDS, "im", "image"})) for name in (image, target))
    return SequenceMatcher(None, one, other).ratio()


def _words(name: str) -> set[str]:
    return set(_SPLIT.split(name.lower())) - {""}


def _plane(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    axes = layer_axes(layer) or ""
    y, x = (axes.index("Y"), axes.index("X")) if len(axes) == len(shape) else (-2, -1)
    return shape[y], shape[x]


# ---- samples -------------------------------------------------------------------


def sample_of(pair: LayerPair, name: str, voxel_size: VoxelSize | None = None) -> Sample:
    """Sample that shows what the layers hold whenever it is read; nothing is opened, read or copied here.

    Raises
    ------
    DataError
        The axes of a layer are not known, or channels do not fit together.
    """
    from dataclasses import replace

    from im2im_core.samples import TARGET, Sample

    source, target = (take_snapshot(layers, copy=False) for layers in (pair.images, [pair.target]))
    if voxel_size is not None:
        source, target = (replace(s, voxel_size=voxel_size, source=None) for s in (source, target))
    path = file_of(pair.images[0])
    group = Path(path).name if path else name
    return Sample(name, group, LayerImage(source), {TARGET: LayerImage(target)})


class LayerImage:
    """Image of layers; where they are read lazily from a file, that is opened only when pixels are needed."""

    def __init__(self, snapshot: Snapshot) -> None:
        from dataclasses import replace

        self._snapshot = snapshot
        self._described = replace(snapshot, source=None).image()

    @property
    def info(self) -> ImageInfo:
        return self._described.info

    @cached_property
    def opened(self) -> Image:
        """The image in the file of the layers where there is one; not for the main thread."""
        return self._described if self._snapshot.source is None else self._snapshot.image()

    def read(self, region: Region | None = None) -> NDArray[Any]:
        return self.opened.read(region)


def as_sparse(sample: Sample) -> Sample:
    """Sample with dense labels, numbered as sparse ones: background becomes 1, every id rises by one."""
    from dataclasses import replace

    from im2im_core.samples import TARGET

    return replace(sample, targets={TARGET: _Raised(sample.targets[TARGET])})


class _Raised:
    """Dense labels as sparse ones; the numbers rise where they are read."""

    def __init__(self, image: Image) -> None:
        from dataclasses import replace

        self._image = image
        self._info = replace(image.info, dtype=np.dtype(np.uint32), identity=f"{image.info.identity}+1")

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, region: Region | None = None) -> NDArray[Any]:
        from im2im_core.partial import from_prediction

        return from_prediction(self._image.read(region))


def file_of(layer: Layer) -> Path | None:
    """File that the layer was opened from."""
    path = layer.source.path
    return Path(str(path)) if path else None


def labelling_of(layer: Layer) -> str:
    """How a labels layer says that it was painted: dense or sparse."""
    return "sparse" if layer.metadata.get(LABELLING) == "sparse" else "dense"


def is_prefilled(layer: Layer) -> bool:
    """Whether the layer began as a prediction, so that only its complete regions are known."""
    return bool(layer.metadata.get(PREFILLED))


def is_guess(pair: LayerPair) -> bool:
    """Whether the labels of a pair began as a prediction."""
    return kind_of(pair.target) == "labels" and is_prefilled(pair.target)


# ---- complete regions ----------------------------------------------------------

CLOSED = ("rectangle", "polygon", "ellipse")


def region_layers(viewer: Viewer) -> list[Shapes]:
    """Shapes layers whose insides are completely labelled."""
    return [layer for layer in viewer.layers if kind_of(layer) == "shapes" and layer.metadata.get(COMPLETE)]


def adoptable_regions(viewer: Viewer, labels: Iterable[Layer]) -> list[Shapes]:
    """Shapes layers of the user with a closed shape over one of `labels` that nobody called complete yet."""
    chosen = list(labels)
    found = []
    for layer in viewer.layers:
        if is_users(layer) and kind_of(layer) == "shapes" and not layer.metadata.get(COMPLETE):
            if any(_touches(points, one) for one in chosen for points in _closed_shapes(layer, one)):
                found.append(layer)
    return found


def adopt(shapes: Shapes) -> None:
    """Say that everything inside the shapes is labelled."""
    shapes.metadata = {**shapes.metadata, COMPLETE: True}


def _touches(points: NDArray[Any], labels: Layer) -> bool:
    low, high = points[:, -2:].min(axis=0), points[:, -2:].max(axis=0)
    size = np.array(_plane(labels, layer_shape(labels)))
    return bool((high >= 0).all() and (low < size).all())


def polygons_of(shapes: Iterable[Shapes], labels: Layer) -> list[NDArray[Any]]:
    """Corners of all regions that concern `labels`, in pixels of its own array."""
    found = []
    for layer in shapes:
        if layer.metadata.get(LABELS_OF) not in (None, labels.unique_id.hex):
            continue
        found += _closed_shapes(layer, labels)
    return found


def _closed_shapes(layer: Shapes, labels: Layer) -> list[NDArray[Any]]:
    """Corners of the shapes that have an inside, in pixels of `labels`."""
    return [
        _in_pixels(_outline(np.asarray(corners, float), kind), layer, labels)
        for corners, kind in zip(layer.data, layer.shape_type, strict=True)
        if kind in CLOSED
    ]


def _outline(corners: NDArray[Any], kind: str) -> NDArray[Any]:
    """Corners themselves; of an ellipse, which is held as its box, points along it."""
    if kind != "ellipse":
        return corners
    centre, across, down = corners.mean(axis=0), (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    turn = np.linspace(0, 2 * np.pi, 65)[:-1, None]
    points: NDArray[Any] = centre + np.cos(turn) * across + np.sin(turn) * down
    return points


def _in_pixels(points: NDArray[Any], shapes: Shapes, labels: Layer) -> NDArray[Any]:
    """Only axes that both layers have are known; regions of fewer axes hold on all planes."""
    shared = min(shapes.ndim, labels.ndim)
    rows = []
    for point in points:
        world = np.zeros(max(shapes.ndim, labels.ndim))
        world[-shapes.ndim :] = shapes.data_to_world(point)
        rows.append(np.asarray(labels.world_to_data(world[-labels.ndim :]))[-shared:])
    return np.array(rows)
