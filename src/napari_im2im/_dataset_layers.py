"""Between rows of the Dataset panel and layers of the viewer: names, copies of pixels, previews, corrections."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.axes import from_tczyx
from napari_im2im._layer_pairs import LABELLING, LABELS_OF, PREFILLED, polygons_of, region_layers
from napari_im2im._layers import kept, layer_axes, layer_shape

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari import Viewer
    from napari.layers import Labels, Layer
    from numpy.typing import NDArray

    from im2im_core.image import Image
    from im2im_core.samples import Sample
    from napari_im2im._dataset_rows import PairRow
    from napari_im2im._layer_pairs import LayerPair

SHOWN_BYTES = 2**29
"""Images up to this size are shown whole, larger ones by their middle plane."""


def correction_layer(viewer: Viewer, image: Layer, prediction: Layer, earlier: Layer | None = None) -> Labels:
    """Sparse labels over `prediction`: 1 is background, every object has its number plus one.

    Parameters
    ----------
    earlier : layer, optional
        Corrections of an earlier prediction of the image: what was corrected there is taken over with its regions.

    Raises
    ------
    DataError
        The prediction has numbers that cannot rise by one.
    """
    from im2im_core.partial import from_prediction

    labels = from_prediction(np.asarray(prediction.data))
    regions = [] if earlier is None else polygons_of(region_layers(viewer), earlier)
    taken = earlier is not None and bool(regions) and layer_shape(earlier) == labels.shape
    if earlier is not None and taken:
        labels = _with_corrections(labels, earlier, regions)
    space: dict[str, Any] = {name: getattr(prediction, name) for name in ("scale", "translate", "units", "axis_labels")}
    metadata = {LABELLING: "sparse", PREFILLED: True, **{k: v for k, v in prediction.metadata.items() if k == "axes"}}
    layer = viewer.add_labels(labels, name=f"{image.name} · corrections", metadata=metadata, **space)
    if earlier is not None and taken:
        earlier.visible = False
        for shapes in region_layers(viewer):
            if shapes.metadata.get(LABELS_OF) == earlier.unique_id.hex:
                shapes.metadata = {**shapes.metadata, LABELS_OF: layer.unique_id.hex}
    return layer


def _with_corrections(labels: NDArray[Any], earlier: Layer, regions: Sequence[Any]) -> NDArray[Any]:
    """`labels` with all that was corrected in `earlier`, under numbers that nothing else has."""
    from im2im_core.axes import to_tczyx
    from im2im_core.datasets import complete_regions
    from im2im_core.partial import only_inside

    axes = layer_axes(earlier) or "TZYX"[-labels.ndim :]
    found, old = to_tczyx(labels.copy(), axes), to_tczyx(np.asarray(earlier.data), axes)
    t, _, z, y, x = old.shape
    corrected = only_inside(old, complete_regions((t, 1, z, y, x), axes.replace("C", ""), regions)).astype(labels.dtype)
    corrected[corrected > 1] += labels.max(initial=1)
    found[corrected > 0] = corrected[corrected > 0]
    merged: NDArray[Any] = from_tczyx(found, axes)
    return merged


def pair_names(pairs: Sequence[LayerPair]) -> list[str]:
    """Names of pairs, numbered where several have the same."""
    names = [pair.name for pair in pairs]
    return [n if names.count(n) == 1 else f"{n} {names[:i].count(n) + 1}" for i, n in enumerate(names)]


def as_before(row: PairRow, before: PairRow | None) -> PairRow:
    """Row of the same layers with what the user chose for it."""
    if before is None or before.sample is None or row.sample is None or before.layers != row.layers:
        return row
    group = row.sample.group if before.sample.group == before.name else before.sample.group
    return replace(row, used=before.used, part=before.part, sample=replace(row.sample, group=group))


def held(sample: Sample, source: Path | None = None, target: Path | None = None) -> Sample:
    """Sample of the pixels of this moment: unchanged files where there are some, else copies; not for the main thread.

    Parameters
    ----------
    source, target : path, optional
        Files that the layers were opened from.
    """
    from im2im_core.datasets import prefer_file
    from im2im_core.samples import TARGET

    image, truth = kept(sample.source), kept(sample.targets[TARGET])
    image = image if source is None else prefer_file(image, source)
    truth = truth if target is None else prefer_file(truth, target)
    return replace(sample, source=image, targets={TARGET: truth})


def same_pixels(one: Image, other: Image) -> bool:
    """Whether two images have the same pixels; a layer may be another array by now."""
    return bool(np.array_equal(one.read(), other.read()))


def pixels_of(sample: Sample) -> tuple[tuple[str, str], Any, Any, tuple[float, float]]:
    """Axes, pixels of image and target, and the contrast; read in the thread."""
    from im2im_core.datasets import middle_plane
    from im2im_core.samples import TARGET

    def read(image: Image) -> tuple[str, Any]:
        info = image.info
        if int(np.prod(info.shape)) * info.dtype.itemsize > SHOWN_BYTES:
            return "YX", middle_plane(image)
        return info.axes, from_tczyx(image.read(), info.axes)

    axes, source = read(sample.source)
    other, target = read(sample.targets[TARGET]) if TARGET in sample.targets else ("", None)
    few = source[(..., *(slice(None, None, max(1, n // 256)) for n in source.shape[-2:]))]
    low, high = np.nanpercentile(few, (0.5, 99.8)) if few.size else (0.0, 1.0)
    return (axes, other), source, target, (float(low), float(max(high, low + 1e-6)))


def world_of(info: Any, axes: str) -> dict[str, Any]:
    """Scale and units that lay a preview out in micrometres where they are known."""
    sizes = dict(zip("ZYX", info.voxel_size, strict=True))
    return {
        "scale": tuple(sizes.get(a) or 1.0 for a in axes),
        "axis_labels": tuple(a.lower() for a in axes),
        "units": tuple("micrometer" if a in "ZYX" and sizes[a] else "pixel" for a in axes),
    }
