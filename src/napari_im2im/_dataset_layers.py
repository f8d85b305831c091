"""Between rows of the Dataset panel and layers of the viewer: names, copies of pixels, previews."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.axes import from_tczyx
from napari_im2im._layer_pairs import LayerImage, as_sparse, kind_of, labelling_of, sample_of
from napari_im2im._layers import kept

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from im2im_core.image import Image
    from im2im_core.samples import Sample
    from napari_im2im._dataset_rows import PairRow
    from napari_im2im._dataset_source import Corrections
    from napari_im2im._layer_pairs import LayerPair

SHOWN_BYTES = 2**29
"""Images up to this size are shown whole, larger ones by their middle plane."""


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

    image, truth = (kept(one.opened if isinstance(one, LayerImage) else one) for one in _both(sample))
    image = image if source is None else prefer_file(image, source)
    truth = truth if target is None else prefer_file(truth, target)
    return replace(sample, source=image, targets={TARGET: truth})


def _both(sample: Sample) -> tuple[Image, Image]:
    from im2im_core.samples import TARGET

    return sample.source, sample.targets[TARGET]


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


# ---- rows of layers ------------------------------------------------------------


def row_of(pair: LayerPair, name: str, wanted: Corrections, labelling: str) -> PairRow:
    """Row of a pair of layers with what was corrected; nothing is read.

    Parameters
    ----------
    labelling : str
        How the labels of all pairs are understood; dense ones are read as sparse ones where it is sparse.

    Raises
    ------
    DataError
        A correction does not fit, or the layers do not fit together.
    """
    from im2im_core.image import select_channels
    from napari_im2im._dataset_rows import PairRow

    sample = sample_of(pair, name, wanted.voxel_size)
    if labelling == "sparse" and kind_of(pair.target) == "labels" and labelling_of(pair.target) == "dense":
        sample = as_sparse(sample)
    return PairRow(name, replace(sample, source=select_channels(sample.source, wanted.channels)), layers=pair)


def task_of_layers(pair: LayerPair) -> str:
    """What is likely to be learned from a pair, by its kinds and names; the pixels are asked in the review."""
    if kind_of(pair.target) == "labels":
        return "instance_segmentation"
    words = f"{pair.target.name} {pair.name}".lower()
    return "restoration" if "clean" in words or "noisy" in words else "label_free"
