"""What each sample is and what is odd about it, before anything is trained; read band by band."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from im2im_core.errors import DataError, ResourceError
from im2im_core.io.identity import file_of
from im2im_core.review.aim import Aim
from im2im_core.review.bands import Watch
from im2im_core.review.checks import SAMPLE_CHECKS, SET_CHECKS
from im2im_core.review.codes import Problem, problem
from im2im_core.review.facts import SampleFacts, facts_of, pixels_of

if TYPE_CHECKING:
    from im2im_core.events import Event
    from im2im_core.layouts.base import FileProblem, FilesError
    from im2im_core.samples import Sample


@dataclass(frozen=True)
class Review:
    """All that a look at the samples gave."""

    facts: tuple[SampleFacts, ...]
    problems: tuple[Problem, ...]


def review(
    samples: Sequence[Sample],
    task: str,
    on_event: Callable[[Event], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    *,
    labelling: str = "dense",
    invalid_pixels: str = "error",
) -> tuple[Problem, ...]:
    """Problems of all samples and of the set; see `examine`."""
    return examine(samples, task, on_event, should_stop, labelling=labelling, invalid_pixels=invalid_pixels).problems


def examine(
    samples: Sequence[Sample],
    task: str,
    on_event: Callable[[Event], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    *,
    labelling: str = "dense",
    invalid_pixels: str = "error",
    classes: Sequence[int] | None = None,
    patch: Sequence[int] | None = None,
) -> Review:
    """Facts and problems of all samples; every pixel is read once, a band of rows at a time.

    Parameters
    ----------
    task : str
        Task of the recipe; decides whether targets are labels.
    labelling : "dense" or "sparse"
        How labels are to be understood, as in ``data.labelling``.
    invalid_pixels : "error" or "fill"
        As in ``data.invalid_pixels``; decides how grave NaN pixels are.
    classes : sequence of int, optional
        Classes that are declared, background 0 among them.
    patch : sequence of int, optional
        Size of the training patches along Y, X or Z, Y, X.

    Raises
    ------
    Stopped
        `should_stop` said so.
    """
    aim = Aim(task, labelling, invalid_pixels, tuple(classes) if classes else None, tuple(patch) if patch else None)
    watch = Watch(len(samples), sum(map(pixels_of, samples)), on_event, should_stop)
    facts: list[SampleFacts] = []
    readable: list[Sample] = []
    problems: list[Problem] = []
    for done, sample in enumerate(samples):
        watch.at(done)
        watch.check()
        try:
            found = facts_of(sample, aim, watch)
            problems += [p for check in SAMPLE_CHECKS for p in check(sample, found, aim)]
        except (DataError, ResourceError, OSError) as error:
            problems.append(unreadable(sample, error))
            continue
        facts.append(found)
        readable.append(sample)
    watch.at(len(samples))
    problems += [p for check in SET_CHECKS for p in check(readable, facts, aim)]
    return Review(tuple(facts), tuple(problems))


def unreadable(sample: Sample, error: DataError | ResourceError | OSError) -> Problem:
    """Problem of a sample whose pixels cannot be read, with the cure that the reader knows."""
    text = error.message if isinstance(error, (DataError, ResourceError)) else str(error)
    cure = error.cure if isinstance(error, (DataError, ResourceError)) else ""
    return problem("unreadable", text, sample.name, cure=cure, file=file_of(sample.source))


def problems_of(error: FilesError) -> tuple[Problem, ...]:
    """Problems that kept samples from being opened, in the form of a review."""
    return tuple(map(problem_of, error.problems))


def problem_of(found: FileProblem) -> Problem:
    """Problem with the files of a sample, in the form of a review."""
    return problem(found.code, found.text, found.name, file=found.file, value=found.value)
