"""Whether pixels are finite, not constant, neither saturated nor in an odd range, and the target is another image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from im2im_core.io.identity import file_of
from im2im_core.review.codes import Problem, problem
from im2im_core.review.words import counted, some
from im2im_core.samples import TARGET

if TYPE_CHECKING:
    from im2im_core.image import Image
    from im2im_core.review.aim import Aim
    from im2im_core.review.facts import SampleFacts
    from im2im_core.review.pixels import PixelFacts
    from im2im_core.samples import Sample

FEW_VALUES = 4
"""Grey values from the lowest to the highest, at most, of images that may be masks."""
EXACT = 2**24
"""Whole numbers beyond it lose digits as float32, in which networks compute."""
MANY_SATURATED = 1.0
"""Percent."""


def check_finite(sample: Sample, facts: SampleFacts, aim: Aim) -> Iterator[Problem]:
    """No pixel is NaN or infinite."""
    for role, image, pixels in _measured(sample, facts):
        if pixels.invalid:
            yield problem(
                "nan_inf",
                f"{sample.name}: {role} has {pixels.invalid} NaN or infinite pixels",
                sample.name,
                severity="error" if aim.invalid_pixels == "error" else "warning",
                file=file_of(image),
                value={"nan": pixels.nan, "infinite": pixels.invalid - pixels.nan},
            )


def check_constant(sample: Sample, facts: SampleFacts, aim: Aim) -> Iterator[Problem]:
    """Neither images nor their channels or planes are one value everywhere."""
    for role, image, pixels in _measured(sample, facts):
        if role != "image" and aim.learns_labels:
            continue  # labels of another kind: all background is no fault
        file = file_of(image)
        if pixels.minimum == pixels.maximum:
            text = f"{sample.name}: {role} is {pixels.minimum:g} everywhere"
            yield problem("constant", text, sample.name, file=file, value=pixels.minimum)
        if pixels.constant_channels:
            names = [image.info.channels[c] if image.info.channels else str(c) for c in pixels.constant_channels]
            text = f"{sample.name}: {role} has one value everywhere in {counted(names, 'channel')}: {some(names)}"
            yield problem("constant_channel", text, sample.name, file=file, value=names)
        if pixels.constant_planes:
            places = [_place(place, image.info.shape) for place in pixels.constant_planes]
            text = f"{sample.name}: {role} has one value everywhere in {counted(places, 'plane')}: {some(places)}"
            yield problem("constant_plane", text, sample.name, file=file, value=places)


def _place(place: tuple[int, int, int], shape: tuple[int, ...]) -> str:
    """Where a plane is, by the axes that the image has several of."""
    return " ".join(f"{axis} {n}" for axis, n, size in zip("TCZ", place, shape, strict=False) if size > 1)


def check_saturation(sample: Sample, facts: SampleFacts, aim: Aim) -> Iterator[Problem]:
    """Few pixels are at the largest value that the type holds."""
    pixels = facts.pixels
    if pixels.saturated > MANY_SATURATED and pixels.minimum < pixels.maximum:
        text = f"{sample.name}: {pixels.saturated:.1f} % of the pixels are saturated at {pixels.maximum:g}"
        yield problem("saturated", text, sample.name, file=file_of(sample.source), value=pixels.saturated)


def check_range(sample: Sample, facts: SampleFacts, aim: Aim) -> Iterator[Problem]:
    """The image has grey values, and none that is lost when it is computed with."""
    pixels, file = facts.pixels, file_of(sample.source)
    span = [pixels.minimum, pixels.maximum]
    whole = sample.source.info.dtype.kind in "bui"
    if whole and 0 < pixels.maximum - pixels.minimum < FEW_VALUES:
        text = f"{sample.name}: the image has only the values {pixels.minimum:g} to {pixels.maximum:g}, like a mask"
        yield problem("dtype_range", text, sample.name, file=file, value=span)
    largest = max(abs(pixels.minimum), abs(pixels.maximum))
    if (whole and largest > EXACT) or largest > np.finfo(np.float32).max:
        text = f"{sample.name}: values up to {largest:.4g} lose digits when they are computed with"
        yield problem("dtype_range", text, sample.name, file=file, value=span)


def check_target(sample: Sample, facts: SampleFacts, aim: Aim) -> Iterator[Problem]:
    """The target is another image."""
    digests = {key: pixels.digest for key, pixels in facts.targets.items()}
    if facts.labels is not None:
        digests[TARGET] = facts.labels.digest
    for role, digest in digests.items():
        if digest == facts.pixels.digest and facts.pixels.minimum != facts.pixels.maximum:
            text = f"{sample.name}: {role} has exactly the pixels of the image"
            yield problem("target_is_image", text, sample.name, file=file_of(sample.targets[role]))


def check_weight(sample: Sample, facts: SampleFacts, aim: Aim) -> Iterator[Problem]:
    """Weights are finite and not negative, and something is known."""
    weight, labels = facts.weight, facts.labels
    if weight is not None and sample.weight is not None and (weight.invalid or weight.minimum < 0):
        file = file_of(sample.weight)
        text = f"{sample.name}: weight has {weight.invalid} invalid pixels and begins at {weight.minimum:g}"
        yield problem("weight_invalid", text, sample.name, file=file, value=weight.minimum)
    unknown = labels is not None and not labels.flaw and labels.labelled == 0
    if unknown or (weight is not None and weight.maximum <= 0):
        yield problem("nothing_known", f"{sample.name}: every pixel is unknown", sample.name, file=_source_of(sample))


def _source_of(sample: Sample) -> str:
    return file_of(sample.weight or sample.targets.get(TARGET) or sample.source)


def _measured(sample: Sample, facts: SampleFacts) -> Iterator[tuple[str, Image, PixelFacts]]:
    yield "image", sample.source, facts.pixels
    for key, pixels in facts.targets.items():
        yield key, sample.targets[key], pixels
