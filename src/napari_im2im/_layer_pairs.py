"""Which open layers belong together: images with their labels or target images, by size and name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari import Viewer
    from napari.layers import Layer, Shapes
    from numpy.typing import NDArray

    from im2im_core.image import VoxelSize
    from im2im_core.samples import Sample

PREVIEW = "im2im_preview"
"""Key in the metadata of layers that only show a row of the table."""
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
    return [layer for layer in viewer.layers if kind_of(layer) == "image"]


def label_layers(viewer: Viewer) -> list[Layer]:
    """Labels layers that belong to the user."""
    return [layer for layer in viewer.layers if kind_of(layer) == "labels"]


def kind_of(layer: Layer) -> str:
    """image, labels or shapes; empty for all others and for our own previews."""
    from napari.layers import Image, Labels, Shapes

    if layer.metadata.get(PREVIEW):
        return ""
    kinds = ((Labels, "labels"), (Shapes, "shapes"), (Image, "image"))
    return next((name for cls, name in kinds if isinstance(layer, cls)), "")


def fits(image: Layer, target: Layer) -> bool:
    """Whether two layers have the same width and height."""
    from napari_im2im._layers import layer_shape

    one, other = _plane(image, layer_shape(image)), _plane(target, layer_shape(target))
    return one == other


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
    ranked = sorted(
        ((-_likeness(i.name, t.name), n, m) for n, t in enumerate(targets) for m, i in enumerate(images) if fits(i, t))
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
    from napari_im2im._layers import layer_axes

    axes = layer_axes(layer) or ""
    y, x = (axes.index("Y"), axes.index("X")) if len(axes) == len(shape) else (-2, -1)
    return shape[y], shape[x]


# ---- samples -------------------------------------------------------------------


def sample_of(pair: LayerPair, name: str, voxel_size: VoxelSize | None = None) -> Sample:
    """Sample of the pixels that the layers hold now.

    Raises
    ------
    DataError
        The axes of a layer are not known, or channels do not fit together.
    """
    from dataclasses import replace

    from im2im_core.samples import TARGET, Sample
    from napari_im2im._layers import take_snapshot

    source, target = take_snapshot(pair.images), take_snapshot([pair.target])
    if voxel_size is not None:
        source, target = (replace(s, voxel_size=voxel_size, path=None) for s in (source, target))
    path = file_of(pair.images[0])
    group = Path(path).name if path else name
    return Sample(name, group, source.image(), {TARGET: target.image()})


def as_sparse(sample: Sample) -> Sample:
    """Sample with dense labels, numbered as sparse ones: background becomes 1, every id rises by one."""
    from dataclasses import replace

    from im2im_core.axes import from_tczyx
    from im2im_core.image import ArrayImage
    from im2im_core.partial import from_prediction
    from im2im_core.samples import TARGET

    image = sample.targets[TARGET]
    info = image.info
    pixels = from_tczyx(from_prediction(image.read()), info.axes)
    return replace(sample, targets={TARGET: ArrayImage(pixels, info.axes, name=info.name, voxel_size=info.voxel_size)})


def file_of(layer: Layer) -> Path | None:
    """File that the layer was opened from."""
    path = layer.source.path
    return Path(str(path)) if path else None


def labelling_of(layer: Layer) -> str:
    """How a labels layer says that it was painted: dense or sparse."""
    return "sparse" if layer.metadata.get(LABELLING) == "sparse" else "dense"


# ---- complete regions ----------------------------------------------------------


def region_layers(viewer: Viewer) -> list[Shapes]:
    """Shapes layers whose insides are completely labelled."""
    return [layer for layer in viewer.layers if kind_of(layer) == "shapes" and layer.metadata.get(COMPLETE)]


def polygons_of(shapes: Iterable[Shapes], labels: Layer) -> list[NDArray[Any]]:
    """Corners of all regions that concern `labels`, in pixels of its own array."""
    found = []
    for layer in shapes:
        if layer.metadata.get(LABELS_OF) not in (None, labels.unique_id.hex):
            continue
        for corners, kind in zip(layer.data, layer.shape_type, strict=True):
            if kind in ("rectangle", "polygon", "ellipse"):
                found.append(_in_pixels(_outline(np.asarray(corners, float), kind), layer, labels))
    return found


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
