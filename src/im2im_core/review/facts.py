"""What one sample is: sizes, voxels, and the numbers of all pixels of its image, targets and weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from im2im_core.review.bands import UNWATCHED, Watch
from im2im_core.review.label_facts import LabelFacts, label_facts
from im2im_core.review.pixels import PixelFacts, pixel_facts
from im2im_core.samples import TARGET

if TYPE_CHECKING:
    from im2im_core.image import VoxelSize
    from im2im_core.review.aim import Aim
    from im2im_core.samples import Sample


@dataclass(frozen=True)
class SampleFacts:
    """What one sample is."""

    sample: str
    shape: tuple[int, int, int, int, int]
    """Along T, C, Z, Y, X."""
    axes: str
    dtype: str
    voxel_size: VoxelSize
    channels: tuple[str, ...]
    pixels: PixelFacts
    target_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    targets: Mapping[str, PixelFacts] = field(default_factory=dict)
    """Pixels of image targets, and of all but the first where that holds labels."""
    labels: LabelFacts | None = None
    """The target of a segmentation."""
    weight: PixelFacts | None = None
    """Pixels of the weight image."""


def facts_of(sample: Sample, aim: Aim, watch: Watch = UNWATCHED) -> SampleFacts:
    """Facts of one sample; every pixel of every image is read.

    Raises
    ------
    DataError
        An image cannot be read.
    Stopped
        `watch` was asked to stop.
    """
    info = sample.source.info
    as_labels = aim.learns_labels and TARGET in sample.targets
    return SampleFacts(
        sample=sample.name,
        shape=info.shape,
        axes=info.axes,
        dtype=str(info.dtype),
        voxel_size=info.voxel_size,
        channels=info.channels,
        pixels=pixel_facts(sample.source, watch),
        target_shapes={key: image.info.shape for key, image in sample.targets.items()},
        targets={k: pixel_facts(i, watch) for k, i in sample.targets.items() if not (as_labels and k == TARGET)},
        labels=label_facts(sample, aim, watch) if as_labels else None,
        weight=None if sample.weight is None else pixel_facts(sample.weight, watch),
    )


def pixels_of(sample: Sample) -> int:
    """Pixels that `facts_of` reads, for the time that it takes."""
    images = [sample.source, *sample.targets.values(), *([sample.weight] if sample.weight else [])]
    return sum(int(np.prod(image.info.shape, dtype=np.int64)) for image in images)
