"""Which samples train, validate and test: whole groups, or spatial blocks a patch apart; pure and deterministic."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from im2im_core.errors import ConfigError, DataError, nearest
from im2im_core.samples import Sample, Split, crop_sample

if TYPE_CHECKING:
    from im2im_core.recipe.data import DataSettings, SplitSettings

SAME_IMAGE = "same-image validation"
BLOCK = " (validation block)"
"""Ending of the name of a block that validates; the block that trains keeps the name of its image."""
UNPLANNED_PATCH = 128
"""Distance of blocks while the patch is still auto; a plan divides again where it chose another."""


@dataclass(frozen=True)
class Group:
    """Samples that stay together, and where they must go, if anywhere."""

    name: str
    samples: tuple[Sample, ...]
    part: str | None = None


def split_data(data: DataSettings, samples: Sequence[Sample], parts: Mapping[str, str]) -> Split:
    """Split of samples as the settings `data` want it; the same before a start and at every resume.

    It depends on the patch only where images are divided into blocks.
    """
    patch = data.patch if data.patch != "auto" else (UNPLANNED_PATCH,) * data.dimensions
    return split_samples(samples, data.split, patch, parts)


def split_samples(
    samples: Sequence[Sample], settings: SplitSettings, patch: Sequence[int], parts: Mapping[str, str]
) -> Split:
    """Training, validation and test samples; the same for the same input, in any order.

    Groups are never divided, and samples of the same image are one group. Named samples
    and `parts` go before the draw, and samples given for training are drawn only where there are
    no others. A single group is divided into spatial blocks that lie at least a patch apart; the
    validation is then called same-image validation.

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
    # What is given for training stays there, unless everything is.
    unmarked = [g for g in free if g.part is None]
    kept = [g for g in free if g.part is not None] if unmarked else []
    pool = sorted(unmarked or free, key=lambda g: _rank(settings.seed, g.name))
    last = fixed["validation"] or settings.validation == 0  # no further draw: all may go where others train
    spare = 0 if kept and last else 1
    test, pool = (fixed["test"], pool) if fixed["test"] else _draw(pool, kept, spare, settings.test, "test", reasons)
    if fixed["validation"]:
        validation = fixed["validation"]
    elif settings.by == "block" or len(pool) + len(kept) == 1:
        return _divide(pool, kept, test, settings, patch, reasons)
    else:
        spare = 0 if kept else 1
        validation, pool = _draw(pool, kept, spare, settings.validation, "validation", reasons)
    if settings.validation == 0 and not validation:
        reasons.append("no validation: data.split.validation is 0")
    return Split(_members([*pool, *kept]), _members(validation), _members(test), "; ".join(reasons))


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


def _draw(
    groups: list[Group], kept: list[Group], spare: int, fraction: float, part: str, reasons: list[str]
) -> tuple[list[Group], list[Group]]:
    """Drawn and remaining of `groups`: at least one where there is one beside the `spare`, which remain.

    The fraction is of `groups` and of those `kept` for training.
    """
    if fraction == 0:
        return [], groups
    count = min(max(1, round(fraction * (len(groups) + len(kept)))), len(groups) - spare)
    reasons.append(
        f"{count} of {len(groups)} groups are drawn for {part}" if count else f"no {part}: there is only one group"
    )
    return groups[:count], groups[count:]


def _members(groups: Sequence[Group]) -> tuple[Sample, ...]:
    return tuple(sorted((s for g in groups for s in g.samples), key=lambda s: s.name))


# ---- spatial blocks ----


def _divide(
    groups: list[Group],
    kept: list[Group],
    test: list[Group],
    settings: SplitSettings,
    patch: Sequence[int],
    reasons: list[str],
) -> Split:
    """Split of every image of `groups` into a training and a validation block; `kept` trains whole."""
    pairs: list[tuple[Sample, Sample | None]] = []
    for group in groups:
        at_end = _rank(settings.seed, group.name) < "8"  # the same side for all images of a group
        pairs += [_blocks(sample, settings.validation, patch, at_end) for sample in group.samples]
    train = sorted([*(t for t, _ in pairs), *_members(kept)], key=lambda s: s.name)
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
    return crop_sample(sample, {axis: training}), crop_sample(sample, {axis: validation}, BLOCK)


# ---- on disk ----


def outline(split: Split) -> dict[str, Any]:
    """Which sample, or which block of one, is in which part, as plain content."""
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    return {"reason": split.reason, **{part: [_entry(s) for s in samples] for part, samples in parts.items()}}


def _entry(sample: Sample) -> dict[str, Any]:
    if sample.region is None:
        return {"sample": sample.name}
    name = sample.name.removesuffix(BLOCK)
    return {"sample": name, "name": sample.name, "region": [[s.start, s.stop] for s in sample.region]}


def from_outline(content: Mapping[str, Any], samples: Sequence[Sample]) -> Split:
    """The same split again; samples that have gone are left out, new ones are not taken in.

    Raises
    ------
    DataError
        An image that was divided has another size now, or nothing is left to train on.
    """
    known = {s.name: s for s in samples}
    train, validation, test = (
        tuple(_from_entry(e, known[e["sample"]]) for e in content[part] if e["sample"] in known)
        for part in ("train", "validation", "test")
    )
    if not train:
        raise DataError("None of the images that this run began to learn from is there", "Put them back")
    return Split(train, validation, test, content["reason"])


def _from_entry(entry: Mapping[str, Any], sample: Sample) -> Sample:
    if "region" not in entry:
        return sample
    spans = [slice(start, stop) for start, stop in entry["region"]]
    shape = sample.source.info.shape
    cut = [axis for axis, (span, n) in enumerate(zip(spans, shape, strict=True)) if span != slice(0, n)]
    if len(cut) != 1 or cut[0] < 3 or spans[cut[0]].stop > shape[cut[0]]:
        raise DataError(
            f"{sample.name} has another size than when this run began, and was divided into blocks then",
            "Put the image back as it was, or start a new run",
        )
    return crop_sample(sample, {cut[0]: spans[cut[0]]}, entry["name"].removeprefix(sample.name))
