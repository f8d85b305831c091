"""The pairs of a data set before it is saved: opened, reviewed, divided; all without a window."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_core.errors import DataError, Stopped
from im2im_core.events import Event, Progress

if TYPE_CHECKING:
    from im2im_core.datasets import DatasetEntry, Polygons
    from im2im_core.layouts.base import SampleFiles, Survey
    from im2im_core.review import Problem, SampleFacts
    from im2im_core.samples import Sample
    from napari_im2im._dataset_source import Corrections, CorrectionSet
    from napari_im2im._layer_pairs import LayerPair

SEVERITIES = ("info", "warning", "error")
DROPPED = ("constant",)
"""Warnings for which an image is better left out, as nothing can be learned from it."""
LABEL_TASKS = ("instance_segmentation", "semantic_segmentation")
SHARE = 0.15
"""Part of the groups that is kept for validation."""

OnEvent = Callable[[Event], None]
ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class PairRow:
    """One pair; frozen, so that a table and a thread can look at it at the same time."""

    name: str
    sample: Sample | None
    """None where the files could not be opened."""
    used: bool = True
    part: str = "train"
    facts: SampleFacts | None = None
    opening: tuple[Problem, ...] = ()
    """What was wrong with the files."""
    review: tuple[Problem, ...] = ()
    """What is odd about the pixels."""
    layers: LayerPair | None = None
    """Layers that the pair was made from; None for files."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Everything a person should know about the pair."""
        return self.opening + self.review

    @property
    def group(self) -> str:
        """Rows of one group go to the same part."""
        return self.sample.group if self.sample else self.name

    @property
    def severity(self) -> str:
        """Gravest of its problems; empty without any."""
        return max((p.severity for p in self.problems), key=SEVERITIES.index, default="")

    @property
    def hopeless(self) -> bool:
        """Whether nothing can be learned from it as it is."""
        return self.sample is None or any(p.severity == "error" or p.code in DROPPED for p in self.problems)


@dataclass(frozen=True)
class Loaded:
    """What was found in a folder or table."""

    rows: tuple[PairRow, ...]
    layout: str
    """What the folder looks like, in words."""
    parts_given: bool
    """Whether folders or the table say what validates."""
    task: str
    """What the first target looks like."""
    problems: tuple[Problem, ...] = ()
    """What is odd about the folder as a whole."""
    classes: tuple[int, ...] | None = None
    """Classes that the data set itself declares."""


@dataclass(frozen=True)
class Reviewed:
    """What a look at all pixels gave."""

    facts: Mapping[str, SampleFacts] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    task: str = ""
    """What the first target looks like, where nobody said what is to be learned."""


_LAYOUTS = {
    "suffix": "files told apart by the end of their names",
    "subfolders": "one folder for images, one for targets",
    "presplit": "folders for training and validation",
    "table": "a table",
    "nnunet": "a raw data set of nnU-Net",
}


# ---- opening -------------------------------------------------------------------


def load_rows(path: Path, corrections: CorrectionSet, on_event: OnEvent, should_stop: ShouldStop) -> Loaded:
    """Rows of a folder or table in any layout; what cannot be opened has a row too.

    Raises
    ------
    DataError
        The folder has no pairs.
    Stopped
        `should_stop` said so.
    """
    from im2im_core.datasets import guess_task
    from im2im_core.layouts import AutoLayout
    from im2im_core.layouts.base import FilesError
    from im2im_core.review import problems_of
    from im2im_core.review.data import check_source, described_classes

    layout = AutoLayout().detect(path)
    wrong: dict[str, list[Problem]] = {}
    try:
        files = layout.find(path)
    except FilesError as error:
        files = error.found
        for problem in problems_of(error):
            wrong.setdefault(problem.sample, []).append(problem)
    rows, begin = [], time.monotonic()
    said = {problem.file for found in wrong.values() for problem in found if problem.file}
    for done, item in enumerate(files):
        if should_stop():
            raise Stopped(f"Stopped after {done} of {len(files)} images were opened")
        on_event(Progress("opening images", done, len(files), time.monotonic() - begin))
        rows += _open_rows(item, corrections, tuple(wrong.pop(item.name, ())))
    rows += [PairRow(name or path.name, None, used=False, opening=tuple(found)) for name, found in wrong.items()]
    first = next((row.sample for row in rows if row.sample and row.sample.targets), None)
    return Loaded(
        tuple(rows),
        _LAYOUTS.get(layout.kind, layout.kind),
        any(item.part for item in files),
        _task_of(first, guess_task),
        check_source(path, layout, files, said),
        described_classes(path, layout),
    )


def _open_rows(item: SampleFiles, corrections: CorrectionSet, opening: tuple[Problem, ...]) -> list[PairRow]:
    """A row for each scene of the files; corrections of a scene come before those of its file."""
    from im2im_core.review.look import problem_of

    found = _survey(item, corrections.of(item.name))
    rows = []
    for each in found.files:
        own = _survey(each, corrections.of(each.name)) if each.name in corrections.own and each != item else found
        wrong = tuple(problem_of(p) for p in own.problems if p.name == each.name)
        sample = None if wrong else next((s for s in own.samples if s.name == each.name), None)
        used = not (opening or wrong)
        rows.append(PairRow(each.name, sample, used=used, part=item.part or "train", opening=opening + wrong))
    return rows


def _survey(item: SampleFiles, corrections: Corrections) -> Survey:
    from im2im_core.layouts.base import survey_files

    return survey_files(
        [item], axes=corrections.axes, input_channels=corrections.channels, voxel_size=corrections.voxel_size
    )


def _task_of(sample: Sample | None, guess: Callable[[Sample], str]) -> str:
    try:
        return guess(sample) if sample else ""
    except (DataError, OSError):  # the review will say what is wrong with it
        return ""


# ---- reviewing -----------------------------------------------------------------


def review_rows(
    rows: Sequence[PairRow],
    task: str,
    labelling: str,
    prefilled: Mapping[str, Polygons],
    on_event: OnEvent,
    should_stop: ShouldStop,
    *,
    classes: Sequence[int] | None = None,
) -> Reviewed:
    """Facts and problems of all rows that could be opened.

    Parameters
    ----------
    task : str
        What is to be learned; guessed from the first target where empty.
    prefilled : mapping of str to polygons
        Name of a row whose labels began as a prediction -> where they were corrected; only that counts.
    classes : sequence of int, optional
        Classes that the data set itself declares.

    Raises
    ------
    Stopped
        `should_stop` said so.
    """
    from im2im_core.datasets import guess_task
    from im2im_core.review import examine

    samples = [row.sample for row in rows if row.sample and row.sample.targets]
    guessed = "" if task or not samples else _task_of(samples[0], guess_task)
    samples = [_corrected(s, prefilled[s.name]) if s.name in prefilled else s for s in samples]
    found = examine(samples, task or guessed, on_event, should_stop, labelling=labelling, classes=classes)
    return Reviewed({f.sample: f for f in found.facts}, found.problems, guessed)


def _corrected(sample: Sample, polygons: Polygons) -> Sample:
    """Sample of which only what was corrected is left; all unknown where no region is drawn yet."""
    from im2im_core.axes import from_tczyx
    from im2im_core.datasets import complete_regions
    from im2im_core.image import ArrayImage
    from im2im_core.partial import only_inside
    from im2im_core.samples import TARGET

    image = sample.targets[TARGET]
    info = image.info
    labels = only_inside(image.read(), complete_regions(info.shape, info.axes, polygons))
    known = ArrayImage(from_tczyx(labels, info.axes), info.axes, name=info.name, voxel_size=info.voxel_size)
    return replace(sample, targets={TARGET: known})


def with_review(rows: Iterable[PairRow], found: Reviewed) -> list[PairRow]:
    """Rows with what the review says of each."""
    by_sample: dict[str, list[Problem]] = {}
    for problem in found.problems:
        by_sample.setdefault(problem.sample, []).append(problem)
    return [
        replace(row, facts=found.facts.get(row.name), review=tuple(by_sample.get(row.name, ()))) if row.sample else row
        for row in rows
    ]


def main_problem(row: PairRow) -> Problem:
    """The gravest problem of a row that has some."""
    return max(row.problems, key=lambda p: SEVERITIES.index(p.severity))


def unlike(rows: Sequence[PairRow]) -> list[int]:
    """Numbers of the used rows whose image has another number of channels than most."""
    counts = [row.sample.source.info.shape[1] if row.sample and row.used else 0 for row in rows]
    known = [count for count in counts if count]
    usual = max(set(known), key=known.count, default=0)
    return [number for number, count in enumerate(counts) if count not in (0, usual)]


# ---- parts ---------------------------------------------------------------------


def draw_parts(rows: Sequence[PairRow], mode: str) -> list[PairRow]:
    """Rows with parts: ``images`` keeps whole images for validation, ``strip`` a strip of each, ``none`` nothing.

    A single image, or a single group of images, is never kept whole: a strip is taken of it.
    """
    from im2im_core.recipe.data import SplitSettings
    from im2im_core.split import group_samples, split_samples

    samples = [row.sample for row in rows if row.used and row.sample]
    if not samples:
        return list(rows)
    if mode == "images" and len(group_samples(samples, {})) > 1:
        split = split_samples(samples, SplitSettings(validation=SHARE), (128, 128), {})
        held = {sample.name for sample in split.validation}
        return [replace(row, part="validation" if row.name in held else "train") for row in rows]
    part = "train" if mode == "none" else "strip"
    return [replace(row, part=part) for row in rows]


def set_part(rows: Sequence[PairRow], numbers: Iterable[int], part: str) -> list[PairRow]:
    """Rows in which the groups of `numbers` go to `part`; a group is never divided."""
    groups = {rows[number].group for number in numbers}
    return [replace(row, part=part) if row.group in groups else row for row in rows]


def join_rows(rows: Sequence[PairRow], numbers: Iterable[int]) -> list[PairRow]:
    """Rows in which `numbers` show the same specimen: one group, which goes where the first of them goes."""
    chosen = [rows[number] for number in numbers if rows[number].sample]
    groups = {row.group for row in chosen}
    return [
        replace(row, part=chosen[0].part, sample=replace(row.sample, group=chosen[0].group))
        if row.sample and row.group in groups
        else row
        for row in rows
    ]


def separate_rows(rows: Sequence[PairRow], numbers: Iterable[int]) -> list[PairRow]:
    """Rows in which each of `numbers` is a group of its own."""
    chosen = set(numbers)
    taken = {row.group for number, row in enumerate(rows) if number not in chosen}
    result = []
    for number, row in enumerate(rows):
        if number in chosen and row.sample:
            group = row.name if row.name not in taken else f"{row.name} ({number + 1})"
            row = replace(row, sample=replace(row.sample, group=group))
        result.append(row)
    return result


def renamed(row: PairRow, name: str) -> PairRow:
    """Row under another name; a group that had the old one follows."""
    if row.sample is None or row.name == name:
        return row
    group = name if row.sample.group == row.name else row.sample.group
    facts = replace(row.facts, sample=name) if row.facts else None
    return replace(row, name=name, sample=replace(row.sample, name=name, group=group), facts=facts)


def join_copies(rows: Sequence[PairRow]) -> list[PairRow]:
    """Rows in which images with the same pixels are one group, and go where the first of them goes."""
    heads: dict[str, PairRow] = {}
    result = []
    for row in rows:
        if row.sample is None or row.facts is None:
            result.append(row)
            continue
        head = heads.setdefault(row.facts.pixels.digest, row)
        result.append(replace(row, part=head.part, sample=replace(row.sample, group=head.group)))
    return result


def overlaps(rows: Sequence[PairRow]) -> tuple[Problem, ...]:
    """What training and validation share under the parts that the rows have."""
    from im2im_core.review import overlap_train_validation
    from im2im_core.samples import Split

    def of(part: str) -> tuple[Sample, ...]:
        return tuple(r.sample for r in rows if r.used and r.sample and (r.part == part or (part, r.part) == SAME))

    facts = [row.facts for row in rows if row.facts]
    return overlap_train_validation(Split(of("train"), of("validation"), of("test")), facts)


def empty_validation(rows: Sequence[PairRow]) -> tuple[Problem, ...]:
    """What is wrong with what validates under the parts that the rows have."""
    from im2im_core.review import check_validation

    used = [row for row in rows if row.used and row.sample]
    held = [row.sample for row in used if row.sample and row.part in ("validation", "strip")]
    return tuple(check_validation(held, [row.facts for row in used if row.facts]))


SAME = ("train", "strip")
"""A sample with a strip trains too."""


def summary(rows: Sequence[PairRow]) -> str:
    """What would be saved, in words."""
    if not rows:
        return "No pairs yet: open an image and its labels, or choose a folder"
    used = [row for row in rows if row.used]
    counts = {part: sum(row.part == part for row in used) for part in ("train", "validation", "test", "strip")}
    words = [
        f"{counts['train'] + counts['strip']} train",
        f"{counts['validation']} validate" if counts["validation"] else "",
        f"{counts['test']} test" if counts["test"] else "",
        f"a strip of {counts['strip']} is kept to validate (same image)" if counts["strip"] else "",
    ]
    if used and not counts["validation"] and not counts["strip"]:
        words.append("nothing validates")
    objects = sum(row.facts.labels.objects or 0 for row in used if row.facts and row.facts.labels)
    pairs = "1 pair" if len(rows) == 1 else f"{len(rows)} pairs"
    lead = pairs if len(used) == len(rows) else f"{len(used)} of {pairs} used"
    return f"{lead}{f', {objects} objects' if objects else ''}: {', '.join(word for word in words if word)}"


def entry_words(entry: DatasetEntry) -> str:
    """What a saved data set holds, for example ``1 image, 1 region (38 objects); a strip of it validates``."""
    words = ["1 image" if entry.count == 1 else f"{entry.count} images"]
    if entry.regions:
        words.append("1 region" if entry.regions == 1 else f"{entry.regions} regions")
    text = ", ".join(words)
    if entry.objects is not None:
        text += " (1 object)" if entry.objects == 1 else f" ({entry.objects} objects)"
    if entry.strips:
        text += f"; a strip of {'it' if entry.count == 1 else f'{entry.strips} of them'} validates"
    return text


def as_saved(rows: Sequence[PairRow]) -> dict[str, Any]:
    """Samples, parts and excluded names for `save_dataset`."""
    used = [row for row in rows if row.used and row.sample]
    return {
        "samples": [row.sample for row in used],
        "parts": {row.name: row.part for row in used},
        "excluded": [row.name for row in rows if not row.used],
        "objects": {
            row.name: row.facts.labels.objects
            for row in used
            if row.layers is None and row.facts and row.facts.labels and row.facts.labels.objects is not None
        },
    }
