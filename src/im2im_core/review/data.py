"""Everything that is wrong with the data of a recipe: files, sizes, pixels, labels, voxels and the split."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from im2im_core.errors import DataError, ResourceError
from im2im_core.review.checks.labels import check_validation
from im2im_core.review.checks.whole_set import overlap_train_validation
from im2im_core.review.codes import Problem, problem
from im2im_core.review.look import examine, problem_of
from im2im_core.review.words import counted, some

if TYPE_CHECKING:
    from im2im_core.events import Event
    from im2im_core.layouts import NnunetLayout
    from im2im_core.layouts.base import Layout, SampleFiles
    from im2im_core.recipe.data import DataSettings
    from im2im_core.review.facts import SampleFacts
    from im2im_core.review.look import Review
    from im2im_core.samples import Sample

NO_IMAGES = (".txt", ".md", ".json", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".html", ".pdf", ".log", ".ini", ".db")
"""Endings of files that nobody takes for images."""


@dataclass(frozen=True)
class DataReview:
    """All that a look at the data of a recipe gave."""

    samples: tuple[Sample, ...]
    """All that can be opened."""
    facts: tuple[SampleFacts, ...]
    """Facts of those that can be read; none where the pixels were not looked at."""
    problems: tuple[Problem, ...]

    @property
    def failed(self) -> bool:
        """Whether something cannot be learned from as it is."""
        return any(p.severity == "error" for p in self.problems)


def check_data(
    data: DataSettings,
    task: str | None = None,
    *,
    root: Path = Path(),
    classes: Sequence[int] | None = None,
    pixels: bool = True,
    on_event: Callable[[Event], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> DataReview:
    """What each sample is, and every problem; what is wrong with some hides nothing of the others.

    Parameters
    ----------
    task : str, optional
        What the samples are for; guessed from the first target if not given.
    root : Path
        Folder that paths are relative to.
    classes : sequence of int, optional
        Classes that are declared, background 0 among them; those of dataset.json if not given.
    pixels : bool
        Look at the pixels too, not only at names and sizes.

    Raises
    ------
    Stopped
        `should_stop` said so.
    """
    from im2im_core.layouts.base import sources_of, survey_samples

    try:
        found = survey_samples(data, root)
    except DataError as error:
        told = problem("not_understood", error.message, cure=error.cure, file=_folder(data, root))
        return DataReview((), (), (told,))
    said = {p.file for p in found.problems if p.file}
    problems = [*map(problem_of, found.problems)]
    for path, layout in sources_of(data, root):
        problems += check_source(path, layout, found.files, said)
    samples = found.samples
    facts: tuple[SampleFacts, ...] = ()
    if not found.files and not problems:
        problems.append(problem("no_images", "There are no images"))
    if pixels and samples:
        classes = classes or declared_classes(data, root)
        looked = _examined(data, task or _task_of(samples), samples, classes, on_event, should_stop)
        facts = looked.facts
        problems += looked.problems
    if samples:
        problems += check_split(data, samples, found.parts, facts)
    return DataReview(samples, facts, tuple(_once(problems)))


def _examined(
    data: DataSettings,
    task: str,
    samples: Sequence[Sample],
    classes: Sequence[int] | None,
    on_event: Callable[[Event], None] | None,
    should_stop: Callable[[], bool] | None,
) -> Review:
    """What the pixels of `samples` give under the settings `data`."""
    return examine(
        samples,
        task,
        on_event,
        should_stop,
        labelling=data.labelling,
        invalid_pixels=data.invalid_pixels,
        classes=classes,
        patch=None if data.patch == "auto" else data.patch,
    )


def _folder(data: DataSettings, root: Path) -> str:
    return "" if data.path is None or data.more else str(root / Path(data.path).expanduser())


def _task_of(samples: Sequence[Sample]) -> str:
    """What the first target that can be read looks like."""
    from im2im_core.datasets import guess_task

    for sample in samples:
        try:
            return guess_task(sample)
        except (DataError, ResourceError, OSError):  # the look at its pixels says so
            continue
    return "label_free"


def _once(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Problems without those that were found with the files and again with the samples."""
    seen: dict[tuple[str, str, str], Problem] = {}
    for item in problems:
        said_by_name = item.sample and item.code in ("missing_partner", "shape_mismatch")
        seen.setdefault((item.sample, item.code, "" if said_by_name else item.text), item)
    return tuple(seen.values())


def check_split(
    data: DataSettings, samples: Sequence[Sample], parts: dict[str, str], facts: Sequence[SampleFacts]
) -> tuple[Problem, ...]:
    """What is wrong with training and validation under the split that a training would make."""
    from im2im_core.split import split_data

    try:
        split = split_data(data, samples, parts)
    except DataError as error:
        return (problem("split", error.message, cure=error.cure),)
    return (*overlap_train_validation(split, facts), *check_validation(split.validation, facts))


# ---- files beside the samples ----


def check_source(
    path: Path, layout: Layout, files: Sequence[SampleFiles], said: Collection[str] = ()
) -> tuple[Problem, ...]:
    """What a folder holds that no sample has, and what its description and its files do not agree in.

    Parameters
    ----------
    files : sequence of SampleFiles
        All that was found in it.
    said : collection of str
        Files that another problem names.
    """
    described = nnunet_layout(path, layout)
    inside = tuple(f for f in files if f.source.is_relative_to(path))
    doubts = described.doubts(path, inside) if described else ()
    left = left_out(path, files, said) if path.is_dir() else None
    return (*map(problem_of, doubts), *([left] if left else []))


def declared_classes(data: DataSettings, root: Path) -> tuple[int, ...] | None:
    """Classes that the only source describes; None where there are several, or none says so."""
    from im2im_core.layouts.base import sources_of

    (path, layout), *more = sources_of(data, root)
    return None if more else described_classes(path, layout)


def described_classes(path: Path, layout: Layout) -> tuple[int, ...] | None:
    """Classes that the description of an nnU-Net data set names; None for other layouts."""
    from im2im_core.layouts.nnunet import read_about

    return None if nnunet_layout(path, layout) is None else read_about(path).classes


def nnunet_layout(path: Path, layout: Layout) -> NnunetLayout | None:
    """Layout of nnU-Net where `layout` is it, or finds that `path` has it."""
    from im2im_core.layouts import AutoLayout, NnunetLayout

    found = layout.detect(path) if isinstance(layout, AutoLayout) else layout
    return found if isinstance(found, NnunetLayout) else None


def left_out(root: Path, files: Sequence[SampleFiles], said: Collection[str] = ()) -> Problem | None:
    """Files in `root` and in the folders of the samples below it that belong to no sample; None without any.

    Parameters
    ----------
    said : collection of str
        Files that another problem names.
    """
    from im2im_core.io import is_image
    from im2im_core.layouts.base import visible

    used = {path.resolve() for path in (*map(Path, said), *(path for item in files for path in _paths(item)))}
    folders = {root.resolve(), *(p.parent for p in used if p.is_relative_to(root.resolve()))}
    seen = [path for folder in sorted(folders) for path in visible(folder) if path.resolve() not in used]
    left = [path for path in seen if is_image(path) or (path.is_file() and not _plainly_none(path))]
    names = [str(path.relative_to(root.resolve())) for path in left]
    if not names:
        return None
    text = f"{root.name} holds {counted(names, 'file')} that no sample uses ({some(names)})"
    return problem("left_out", text, file=str(root), value=names)


def _paths(item: SampleFiles) -> list[Path]:
    return [item.source, *item.more_channels, *item.targets.values(), *([item.weight] if item.weight else [])]


def _plainly_none(path: Path) -> bool:
    return path.suffix.lower() in NO_IMAGES
