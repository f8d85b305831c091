"""What a network learns from: samples with a source, targets, perhaps a weight and a region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from im2im_core.axes import Region
from im2im_core.image import Image

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
