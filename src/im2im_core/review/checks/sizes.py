"""Whether image, target and weight fit together, axes are what they seem, and what the readers assumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from im2im_core.io.identity import file_of, scene_of
from im2im_core.review.codes import Problem, problem
from im2im_core.review.words import some

if TYPE_CHECKING:
    from im2im_core.image import Image, VoxelSize
    from im2im_core.review.aim import Aim
    from im2im_core.review.facts import SampleFacts
    from im2im_core.samples import Sample

SAME_SIZE = 0.01
"""Relative difference below which two voxel sizes are the same."""


def check_partners(sample: Sample, facts: SampleFacts, aim: Aim) -> Iterator[Problem]:
    """A target is there, and everything has the size of the image."""
    from im2im_core.layouts.base import shape_mismatches

    file = file_of(sample.source)
    if not sample.targets:
        yield problem("missing_partner", f"{sample.name} has no target", sample.name, file=file)
    shapes: dict[str, tuple[int, ...]] = {"image": facts.shape, **facts.target_shapes}
    for text in shape_mismatches(sample):
        yield problem("shape_mismatch", text, sample.name, file=file, value=shapes)


def check_spacing(sample: Sample, facts: SampleFacts, aim: Aim) -> Iterator[Problem]:
    """Targets have the voxel size of the image, where both say one."""
    for role, image in sample.targets.items():
        if _differ(facts.voxel_size, image.info.voxel_size, facts.shape):
            sizes = (facts.voxel_size, image.info.voxel_size)
            text = f"{sample.name}: voxels are {_size(sizes[0])} in the image and {_size(sizes[1])} in the {role}"
            yield problem("spacing_mismatch", text, sample.name, file=file_of(image), value=sizes)


def _differ(one: VoxelSize, other: VoxelSize, shape: tuple[int, ...]) -> bool:
    """Whether two voxel sizes differ along an axis that has more than one voxel."""
    return any(n > 1 and a and b and abs(a / b - 1) > SAME_SIZE for a, b, n in zip(one, other, shape[2:], strict=True))


def _size(size: VoxelSize) -> str:
    return " × ".join(f"{s:.4g}" for s in size if s) + " µm"


def check_patch(sample: Sample, facts: SampleFacts, aim: Aim) -> Iterator[Problem]:
    """The image holds a patch."""
    sizes = facts.shape[-len(aim.patch) :] if aim.patch else ()
    if aim.patch and any(n < p for n, p in zip(sizes, aim.patch, strict=True)):
        text = f"{sample.name}: {_times(sizes)} pixels are less than a patch of {_times(aim.patch)}"
        yield problem("smaller_than_patch", text, sample.name, file=file_of(sample.source), value=sizes)


def _times(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes))


def check_channels(sample: Sample, facts: SampleFacts, aim: Aim) -> Iterator[Problem]:
    """Channels are channels, and planes are planes."""
    sizes, file = dict(zip("TCZYX", facts.shape, strict=True)), file_of(sample.source)
    if sizes["C"] in (3, 4) and facts.dtype == "uint8" and not facts.channels:
        text = f"{sample.name}: {sizes['C']} channels of 8 bit are taken as channels; they may be one RGB picture"
        cure = "Choose channels with data.input_channels, or convert the picture to grey"
        yield problem("rgb_or_channels_question", text, sample.name, cure=cure, file=file, value=sizes["C"])
    for axis in "TZ":
        if sizes[axis] in (3, 4) and axis in facts.axes and "C" not in facts.axes:
            text = f"{sample.name}: {sizes[axis]} planes are taken as {axis}; they may be channels"
            cure = "Set data.axes if they are, for example to CYX"
            yield problem("rgb_or_channels_question", text, sample.name, cure=cure, file=file, value=sizes[axis])


def check_further_images(samples: Sequence[Sample], facts: Sequence[SampleFacts], aim: Aim) -> Iterator[Problem]:
    """All scenes of a file are used."""
    used: dict[tuple[str, str], set[str]] = {}
    found: dict[tuple[str, str], tuple[Sample, Image]] = {}
    for sample in samples:
        for role, image in _images(sample):
            if image.info.scenes and (file := file_of(image)):
                used.setdefault((file, role), set()).add(scene_of(image))
                found.setdefault((file, role), (sample, image))
    for (file, role), (sample, image) in found.items():
        left = [name for name in image.info.scenes if name not in used[file, role]]
        if left:
            count = len(image.info.scenes)
            text = f"{sample.name}: the file of the {role} holds {count} images, not used: {some(left)}"
            yield problem("further_images", text, sample.name, file=file, value=left)


def check_assumptions(samples: Sequence[Sample], facts: Sequence[SampleFacts], aim: Aim) -> Iterator[Problem]:
    """What readers had to assume, each once with the images that it holds for."""
    names: dict[str, list[str]] = {}
    for sample in samples:
        for note in dict.fromkeys(note for _, image in _images(sample) for note in image.info.notes):
            names.setdefault(note, []).append(sample.name)
    for note, found in names.items():
        text = f"{len(found)} of {len(samples)} images: {note} ({some(found)})"
        yield problem("assumed", text, value=found)


def _images(sample: Sample) -> Iterator[tuple[str, Image]]:
    yield "image", sample.source
    yield from sample.targets.items()
    if sample.weight is not None:
        yield "weight", sample.weight
