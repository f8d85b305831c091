"""The checks: of one sample, and of all samples together; one concept per file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from im2im_core.review.checks import labels, pixels, sizes, voxels, whole_set

if TYPE_CHECKING:
    from im2im_core.review.aim import Aim
    from im2im_core.review.codes import Problem
    from im2im_core.review.facts import SampleFacts
    from im2im_core.samples import Sample

SampleCheck = Callable[["Sample", "SampleFacts", "Aim"], Iterator["Problem"]]
SetCheck = Callable[[Sequence["Sample"], Sequence["SampleFacts"], "Aim"], Iterator["Problem"]]
"""Called with the samples that could be read, and the facts of each."""

SAMPLE_CHECKS: tuple[SampleCheck, ...] = (
    sizes.check_partners,
    sizes.check_spacing,
    sizes.check_patch,
    sizes.check_channels,
    pixels.check_finite,
    pixels.check_constant,
    pixels.check_saturation,
    pixels.check_range,
    pixels.check_target,
    pixels.check_weight,
    labels.check_numbers,
    labels.check_declared,
)
SET_CHECKS: tuple[SetCheck, ...] = (
    whole_set.check_copies,
    whole_set.check_types,
    labels.check_kind,
    labels.check_gaps,
    labels.check_number,
    voxels.check_missing,
    voxels.check_doubts,
    voxels.check_alike,
    sizes.check_further_images,
    sizes.check_assumptions,
)
