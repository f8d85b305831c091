"""Which samples train, validate and test: whole groups, or spatial blocks a patch apart; pure and deterministic."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from im2im_core.errors import ConfigError, DataError, nearest
from im2im_core.image import CroppedImage
from im2im_core.samples import Sample, Split

if TYPE_CHECKING:
    from im2im_core.axes import Region
    from im2im_core.image import Image
    from im2im_core.recipe.data import SplitSettings

SAME_IMAGE = "same-image validation"


@dataclass(frozen=True)
class Group:
    """Samples that stay together, and where they must go, if anywhere."""

    name: str
    samples: tuple[Sample, ...]
    part: str | None = None


def split_samples(
    samples: Sequence[Sample], settings: SplitSettings, patch: Sequence[int], parts: Mapping[str, str]
) -> Split:
    """Training, validation and test samples; the same for the same input, in any order.

    Groups are never divided, and samples of the same image are one group. Named samples
    and `parts` go before the draw. A single group is divided into spatial blocks that lie
    at least a patch apart; the validation is then called same-image validation.

    Parameters
    ----------
    patch : sequence of int
        Training patch along Y, X or Z, Y, X.
    parts : mapping of str to str
        Name of a sample -> train, validation or test, where its place or table says so.

    Raises
    ------
    ConfigError
        A named sample does not exist or is named for two parts.
    DataError
        Samples of one group must go to different parts, or nothing is left to train on.
    """
    wanted = {**parts, **_named(samples, settings)}
    groups = group_samples(samples, wanted)
    fixed = {part: [g for g in groups if g.part == part] for part in ("validation", "test")}
    free = [g for g in groups if g.part not in fixed]
    if not free:
        raise DataError("No sample is left for training", "Name fewer samples for validation and test")
    reasons = [f"{len(fixed[part])} of {len(groups)} groups are given for {part}" for part in fixed if fixed[part]]
    ordered = sorted(free, key=lambda g: _rank(settings.seed, g.name))
    test, ordered = (fixed["test"], ordered) if fixed["test"] else _draw(ordered, settings.test, "test", reasons)
    if fixed["validation"]:
        validation = fixed["validation"]
    elif settings.by == "block" or len(ordered) == 1:
        return _divide(ordered, test, settings, patch, reasons)
    else:
        validation, ordered = _draw(ordered, settings.validation, "validation", reasons)
    if not validation:
        reasons.append("no validation: data.split.validation is 0")
    return Split(_members(ordered), _members(validation), _members(test), "; ".join(reasons))


def group_samples(samples: Sequence[Sample], parts: Mapping[str, str]) -> list[Group]:
    """Groups by name, joined where they hold the same image, sorted by name.

    Raises
    ------
    DataError
        Samples of one group must go to different parts.
    """
    heads: dict[str, str] = {}

    def head(key: str) -> str:
        while heads.setdefault(key, key) != key:
            key = heads[key]
        return key

    for sample in samples:
        group, image = head(f"group {sample.group}"), head(f"image {sample.source.info.identity}")
        heads[max(group, image)] = min(group, image)
    members: dict[str, list[Sample]] = {}
    for sample in sorted(samples, key=lambda s: s.name):
        members.setdefault(head(f"group {sample.group}"), []).append(sample)
    return sorted((_group(found, parts) for found in members.values()), key=lambda g: g.name)


def _group(samples: list[Sample], parts: Mapping[str, str]) -> Group:
    name = min(s.group for s in samples)
    asked = {parts[s.name]: s.name for s in samples if s.name in parts}
    if len(asked) > 1:
        told = ", ".join(f"{sample!r} for {part}" for part, sample in sorted(asked.items()))
        raise DataError(
            f"Group {name!r} would be divided: {told}",
            "Samples of one group or one image must go to the same part; change the groups or the parts",
        )
    return Group(name, tuple(samples), next(iter(asked), None))


def _named(samples: Sequence[Sample], settings: SplitSettings) -> dict[str, str]:
    """Parts of the samples that the settings name."""
    known = {s.name for s in samples}
    both = sorted(set(settings.validation_names) & set(settings.test_names))
    if both:
        raise ConfigError(f"data.split names {both[0]!r} for validation and for test", "Remove it from one of them")
    for key, names in (("validation_names", settings.validation_names), ("test_names", settings.test_names)):
        unknown = sorted(set(names) - known)
        if unknown:
            raise ConfigError(f"data.split.{key}: no sample is called {unknown[0]!r}", nearest(unknown[0], known))
    return {**dict.fromkeys(settings.validation_names, "validation"), **dict.fromkeys(settings.test_names, "test")}


def _rank(seed: int, name: str) -> str:
    """Place in the draw, from seed and name alone, so that new images leave the others where they are."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def _draw(groups: list[Group], fraction: float, part: str, reasons: list[str]) -> tuple[list[Group], list[Group]]:
    """Drawn and remaining groups: at least one drawn where two are there, one always remains."""
    if fraction == 0:
        return [], groups
    count = min(max(1, round(fraction * len(groups))), len(groups) - 1)
    reasons.append(
        f"{count} of {len(groups)} groups are drawn for {part}" if count else f"no {part}: there is only one group"
    )
    return groups[:count], groups[count:]


def _members(groups: Sequence[Group]) -> tuple[Sample, ...]:
    return tuple(sorted((s for g in groups for s in g.samples), key=lambda s: s.name))


# ---- spatial blocks ----


def _divide(
    groups: list[Group], test: list[Group], settings: SplitSettings, patch: Sequence[int], reasons: list[str]
) -> Split:
    """Split of every image of `groups` into a training and a validation block."""
    pairs: list[tuple[Sample, Sample | None]] = []
    for group in groups:
        at_end = _rank(settings.seed, group.name) < "8"  # the same side for all images of a group
        pairs += [_blocks(sample, settings.validation, patch, at_end) for sample in group.samples]
    train = sorted((t for t, _ in pairs), key=lambda s: s.name)
    validation = sorted((v for _, v in pairs if v is not None), key=lambda s: s.name)
    if validation:
        reasons.append(
            f"{SAME_IMAGE}: one block of {len(validation)} of {len(pairs)} images, a patch away from training"
        )
    elif settings.validation == 0:
        reasons.append("no validation: data.split.validation is 0")
    else:
        need = 3 * max(patch[-2:])
        reasons.append(f"no validation: a block, a gap and training need {need} pixels along Y or X, no image has them")
    return Split(tuple(train), tuple(validation), _members(test), "; ".join(reasons))


def _blocks(sample: Sample, fraction: float, patch: Sequence[int], at_end: bool) -> tuple[Sample, Sample | None]:
    """Training and validation block along the longer of Y and X; all for training where there is no room."""
    shape = sample.source.info.shape
    axis = 4 if shape[4] > shape[3] else 3
    length, size = shape[axis], patch[axis - 5]
    if fraction == 0 or length < 3 * size:
        return sample, None
    block = min(max(round(fraction * length), size), length - 2 * size)
    validation = slice(length - block, length) if at_end else slice(0, block)
    training = slice(0, length - block - size) if at_end else slice(block + size, length)
    return _cropped(sample, axis, training, ""), _cropped(sample, axis, validation, " (validation block)")


def _cropped(sample: Sample, axis: int, span: slice, ending: str) -> Sample:
    """Part of `sample`; its images are cropped, and `region` says where the part lies in the whole image."""

    def crop(image: Image) -> Image:
        return CroppedImage(image, _region(image, axis, span))

    return replace(
        sample,
        name=sample.name + ending,
        source=crop(sample.source),
        targets={key: crop(image) for key, image in sample.targets.items()},
        weight=None if sample.weight is None else crop(sample.weight),
        region=_region(sample.source, axis, span),
    )


def _region(image: Image, axis: int, span: slice) -> Region:
    t, c, z, y, x = (span if i == axis else slice(0, n) for i, n in enumerate(image.info.shape))
    return t, c, z, y, x
