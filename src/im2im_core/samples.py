"""What a network learns from: samples with a source, targets, perhaps a weight and a region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from im2im_core.axes import Region
from im2im_core.image import CroppedImage, Image

TARGET = "target"
"""Name of the only target of a plain pair."""


@dataclass(frozen=True)
class Sample:
    """One image with what is known about it.

    Splits never divide a `group` (same field, same embryo, near-duplicates).
    """

    name: str
    group: str
    source: Image
    targets: Mapping[str, Image] = field(default_factory=dict)
    weight: Image | None = None
    """Importance per pixel, 0 = unknown; same Z, Y, X as the source."""
    region: Region | None = None
    """Part of the image that belongs to this sample; None = all of it."""


@dataclass(frozen=True)
class Split:
    """Which samples train, which validate, which are kept for the end."""

    train: tuple[Sample, ...]
    validation: tuple[Sample, ...] = ()
    test: tuple[Sample, ...] = ()
    reason: str = ""
    """How it was made, in words; "same-image validation" where images had to be divided."""


def crop_sample(sample: Sample, spans: Mapping[int, slice], ending: str = "") -> Sample:
    """Part of `sample`, whose `region` says where it lies in the whole image.

    Parameters
    ----------
    spans : mapping of int to slice
        What is kept of the axes T, C, Z, Y, X, by their number; all of the others.
    ending : str
        Added to the name.
    """

    def region(image: Image) -> Region:
        t, c, z, y, x = (spans.get(axis, slice(0, n)) for axis, n in enumerate(image.info.shape))
        return t, c, z, y, x

    def crop(image: Image) -> Image:
        return CroppedImage(image, region(image))

    return replace(
        sample,
        name=sample.name + ending,
        source=crop(sample.source),
        targets={key: crop(image) for key, image in sample.targets.items()},
        weight=None if sample.weight is None else crop(sample.weight),
        region=region(sample.source),
    )
