"""What only all samples together show: copies, types that differ, what training and validation share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from im2im_core.io.identity import file_of
from im2im_core.review.codes import Problem, problem

if TYPE_CHECKING:
    from im2im_core.axes import Region
    from im2im_core.review.aim import Aim
    from im2im_core.review.facts import SampleFacts
    from im2im_core.samples import Sample, Split


def check_copies(samples: Sequence[Sample], facts: Sequence[SampleFacts], aim: Aim) -> Iterator[Problem]:
    """No two images have the same pixels."""
    by_digest: dict[str, list[str]] = {}
    for item in facts:
        by_digest.setdefault(item.pixels.digest, []).append(item.sample)
    for names in by_digest.values():
        if len(names) > 1:
            yield problem("duplicate", f"{', '.join(names)} have the same pixels", names[0], value=names)


def check_types(samples: Sequence[Sample], facts: Sequence[SampleFacts], aim: Aim) -> Iterator[Problem]:
    """Images have one pixel type."""
    types = Counter(f.dtype for f in facts)
    if len(types) > 1:
        counts = ", ".join(f"{n} × {t}" for t, n in types.most_common())
        yield problem("mixed_types", f"Images have different types: {counts}", value=dict(types))


def overlap_train_validation(split: Split, facts: Sequence[SampleFacts] = ()) -> tuple[Problem, ...]:
    """Pixels or contents that training shares with validation or test.

    Parameters
    ----------
    facts : sequence of SampleFacts
        Facts of the samples; with them, copies under other names are found too.
    """
    digests = {f.sample: f.pixels.digest for f in facts}
    alike: dict[str, list[Sample]] = {}
    for train in split.train:
        for key in _keys(train, digests):
            alike.setdefault(key, []).append(train)
    return tuple(
        problem(
            "overlap_train_validation",
            f"{train.name} is used for training and {other.name}, which {reason}, for {part}",
            train.name,
            file=file_of(train.source),
            value=[train.name, other.name],
        )
        for part, held in (("validation", split.validation), ("test", split.test))
        for other in held
        for train in {s.name: s for key in _keys(other, digests) for s in alike.get(key, ())}.values()
        if (reason := _shared(train, other))
    )


def _keys(sample: Sample, digests: Mapping[str, str]) -> tuple[str, ...]:
    """Equal for samples that may share pixels: of one image, or of equal content."""
    digest = digests.get(sample.name)
    return (_uncropped(sample), *((digest,) if digest else ()))


def _shared(train: Sample, other: Sample) -> str:
    """Why two samples of equal keys are not independent; empty where they are."""
    if _uncropped(train) != _uncropped(other):
        return "has the same pixels"
    return "shows pixels of the same image" if _regions_meet(train.region, other.region) else ""


def _uncropped(sample: Sample) -> str:
    """Identity of the image that the sample, perhaps a block, was cut from."""
    identity = sample.source.info.identity
    return identity if sample.region is None else identity.rpartition("[")[0]


def _regions_meet(one: Region | None, other: Region | None) -> bool:
    if one is None or other is None:
        return True
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))
