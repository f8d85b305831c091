"""Numbers of a label image: ids, objects and their size, what is labelled and known; read band by band."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.errors import DataError
from im2im_core.review.bands import UNWATCHED, Watch, bands
from im2im_core.review.pixels import PixelDigest
from im2im_core.samples import TARGET

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.axes import Region
    from im2im_core.image import Image
    from im2im_core.review.aim import Aim
    from im2im_core.review.bands import Band
    from im2im_core.samples import Sample

MANY_IDS = 256


@dataclass(frozen=True)
class LabelFacts:
    """Numbers of one label image."""

    ids: int
    """Distinct ids, background left out."""
    values: tuple[int, ...]
    """The ids; empty where there are more than 256."""
    objects: int | None
    """Instances, or connected pieces of a class mask; None for class masks of several planes or too large a plane."""
    diameter: float | None
    """Median diameter in Y and X, pixels, as of discs of the same area; the largest plane of an object counts."""
    foreground: float
    """Percent of pixels that belong to an object or class."""
    labelled: float
    """Percent of pixels of which something is known."""
    pieces: int
    """Connected pieces on the fullest plane, of a large plane on its fullest band of rows."""
    pieces_ids: int
    """Distinct ids there."""
    flaw: str = ""
    """Why the pixels are no labels; empty where they are."""
    odd_value: float | None = None
    """First pixel that is no label."""
    digest: str = ""
    """Equal for equal type, shape and pixels of the first channel."""
    largest: int = 0
    """Largest id."""


@dataclass
class _LabelSums:
    """What is summed up over the bands of a label image."""

    lowest: int
    areas: dict[tuple[int, int], int] = field(default_factory=dict)
    """Time point and id -> pixels on its largest plane."""
    on_plane: dict[int, int] = field(default_factory=dict)
    """Id -> pixels on the plane under way."""
    foreground: int = 0
    labelled: int = 0
    size: int = 0
    fullest: NDArray[np.uint32] | None = None
    most: int = 0

    def add(self, band: Band, labels: NDArray[np.uint32], known: NDArray[np.bool_]) -> None:
        """Take the labels of one band into account."""
        ids, areas = np.unique(labels, return_counts=True)
        kept = ids >= self.lowest
        for key, area in zip(ids[kept].tolist(), areas[kept].tolist(), strict=True):
            self.on_plane[key] = self.on_plane.get(key, 0) + area
        here = int(areas[kept].sum())
        self.foreground += here
        self.labelled += int(known.sum())
        self.size += labels.size
        if here > self.most:
            self.fullest, self.most = labels, here
        if band.ends_plane:
            self._end_plane(band.time_point)

    def _end_plane(self, time_point: int) -> None:
        for key, area in self.on_plane.items():
            place = (time_point, key)
            self.areas[place] = max(self.areas.get(place, 0), area)
        self.on_plane.clear()


def label_facts(sample: Sample, aim: Aim, watch: Watch = UNWATCHED) -> LabelFacts:
    """Numbers of the labels of `sample`; with `flaw` set where its pixels are no labels.

    All pixels are read in any case, so that whatever cannot be read is found.
    """
    from im2im_core.image import select_channels
    from im2im_core.io.labels import as_labels

    image = select_channels(sample.targets[TARGET], (0,))
    sums, digest = _LabelSums(aim.lowest_object), PixelDigest(image)
    flaw, odd = "", None
    for band in bands(image, watch):
        digest.update(band.pixels)
        if flaw:
            continue
        try:
            labels = as_labels(band.pixels, sample.name)
        except DataError as error:
            flaw, odd = error.message, _odd_value(band.pixels)
            continue
        sums.add(band, labels, _known(sample, labels, band, aim))
    if flaw:
        return LabelFacts(0, (), None, None, 0.0, 0.0, 0, 0, flaw=flaw, odd_value=odd)
    return _summary(sums, aim, image, digest.text())


def _known(sample: Sample, labels: NDArray[np.uint32], band: Band, aim: Aim) -> NDArray[np.bool_]:
    """Pixels of a band of which something is known."""
    known = labels > 0 if aim.labelling == "sparse" else np.ones(labels.shape, bool)
    weight = sample.weight
    if weight is None or weight.info.shape[3:] != sample.targets[TARGET].info.shape[3:]:
        return known
    t, z = (min(n, weight.info.shape[axis] - 1) for n, axis in ((band.time_point, 0), (band.plane, 2)))
    rows, columns = slice(band.first, band.first + labels.shape[0]), slice(0, labels.shape[1])
    region: Region = (slice(t, t + 1), slice(0, 1), slice(z, z + 1), rows, columns)
    positive: NDArray[np.bool_] = weight.read(region)[0, 0, 0] > 0
    return known & positive


def _odd_value(pixels: NDArray[Any]) -> float | None:
    """First pixel that is negative, fractional or not finite; else the largest."""
    if pixels.dtype.kind not in "buif":
        return None
    odd = pixels[~((pixels >= 0) & (pixels == np.floor(pixels)) & np.isfinite(pixels))]
    return float(odd[0]) if odd.size else float(pixels.max())


def _summary(sums: _LabelSums, aim: Aim, image: Image, digest: str) -> LabelFacts:
    values = sorted({key for _, key in sums.areas})
    pieces = _pieces(sums.fullest, aim.lowest_object)
    instances = aim.task == "instance_segmentation"
    areas = np.array(list(sums.areas.values())) if instances else pieces
    times, _, depth, height, _ = image.info.shape
    whole = times * depth == 1 and (sums.fullest is None or len(sums.fullest) == height)
    by_pieces = len(pieces) if whole else None
    on_plane = 0 if sums.fullest is None else len(np.unique(sums.fullest[sums.fullest >= aim.lowest_object]))
    return LabelFacts(
        ids=len(values),
        values=tuple(values) if len(values) <= MANY_IDS else (),
        objects=len(sums.areas) if instances else by_pieces,
        diameter=float(np.median(np.sqrt(4 * areas / np.pi))) if len(areas) else None,
        foreground=100 * sums.foreground / max(sums.size, 1),
        labelled=100 * sums.labelled / max(sums.size, 1),
        pieces=len(pieces),
        pieces_ids=on_plane,
        digest=digest,
        largest=values[-1] if values else 0,
    )


def _pieces(band: NDArray[np.uint32] | None, lowest: int) -> NDArray[np.int64]:
    """Areas of the connected pieces of equal id in rows of a plane."""
    if band is None:
        return np.zeros(0, np.int64)
    from skimage.measure import label

    pieces = label(np.where(band >= lowest, band, 0), background=0, connectivity=2)
    return np.bincount(pieces.ravel())[1:]
