"""``im2im check``: everything that is wrong with a folder of images and targets, before anything is trained."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_core.commands import Command, Output
from im2im_core.errors import ConfigError, DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from im2im_core.events import Event
    from im2im_core.recipe.data import DataSettings
    from im2im_core.review import Problem, SampleFacts
    from im2im_core.samples import Sample


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "im2im check DATA [--task TASK] [--data.field value …] [options]"
    parser.add_argument("data", metavar="DATA", help="folder or CSV table with images and targets")
    parser.add_argument("--headers-only", action="store_true", help="do not read the pixels")


def _check(parser: argparse.ArgumentParser, arguments: list[str], output: Output) -> int:
    from im2im_core.commands.settings import override, split_settings
    from im2im_core.recipe import Recipe

    own, settings = split_settings(arguments)
    args = parser.parse_args(own)
    if not Path(args.data).exists():
        raise ConfigError(f"{args.data} does not exist", "Name a folder or a CSV table")
    task, settings = _task_of(settings)
    recipe = override(Recipe(), settings).override({"data.path": str(Path(args.data).resolve())})
    rows, problems = check_data(recipe.data, task, pixels=not args.headers_only)
    lines = [
        f"{row['name']}: {row['shape']} {row['dtype']}, targets {', '.join(row['targets']) or 'none'}" for row in rows
    ]
    lines += [_line(problem) for problem in problems] or ["no problems found"]
    output.result({"samples": rows, "problems": problems}, "\n".join(lines))
    return DataError.exit_code if any(problem.severity == "error" for problem in problems) else 0


def _task_of(settings: list[str]) -> tuple[str | None, list[str]]:
    """Value of ``--task`` and the other settings; what is checked needs no framework that fits the task."""
    from im2im_core.recipe.fields import choices_of
    from im2im_core.recipe.root import Recipe

    words = [part for word in settings for part in (word.split("=", 1) if word.startswith("--task=") else [word])]
    if "--task" not in words:
        return None, words
    place = words.index("--task")
    task, known = "".join(words[place + 1 : place + 2]), choices_of(Recipe.model_fields["task"].annotation)
    if task not in known:
        raise ConfigError(f"There is no task {task!r}", nearest(task, known))
    return task, words[:place] + words[place + 2 :]


def _line(problem: Problem) -> str:
    return f"{problem.severity}: {problem.text}" + (f". {problem.cure}" if problem.cure else "")


def check_data(
    data: DataSettings,
    task: str | None = None,
    *,
    pixels: bool = True,
    on_event: Callable[[Event], None] | None = None,
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """What each sample is, and every problem.

    Parameters
    ----------
    task : str, optional
        What the samples are for; guessed from the first target if not given.
    pixels : bool
        Look at the pixels too, not only at names and sizes.
    """
    from im2im_core.datasets import guess_task
    from im2im_core.layouts.base import FilesError, load_samples
    from im2im_core.review import Problem, examine, problems_of

    try:
        samples, parts = load_samples(data, Path())
    except FilesError as error:
        return [], list(problems_of(error))
    rows = [_row(sample) for sample in samples]
    if not samples:
        return rows, [Problem("", "missing_partner", "error", "There are no images", "Name another folder")]
    if not pixels:
        return rows, _overlaps(data, samples, parts, ())
    task = task or guess_task(samples[0])
    found = examine(samples, task, on_event, labelling=data.labelling, invalid_pixels=data.invalid_pixels)
    return rows, [*found.problems, *_overlaps(data, samples, parts, found.facts)]


def _overlaps(
    data: DataSettings, samples: Sequence[Sample], parts: dict[str, str], facts: Sequence[SampleFacts]
) -> list[Problem]:
    """What training and validation share under the split that a training would make."""
    from im2im_core.review import Problem, overlap_train_validation
    from im2im_core.split import split_data

    try:
        split = split_data(data, samples, parts)
    except DataError as error:
        return [Problem("", "split", "error", error.message, error.cure)]
    return list(overlap_train_validation(split, facts))


def _row(sample: Sample) -> dict[str, Any]:
    info = sample.source.info
    return {
        "name": sample.name,
        "group": sample.group,
        "axes": info.axes,
        "shape": list(info.shape),
        "dtype": str(info.dtype),
        "voxel_size": list(info.voxel_size),
        "targets": sorted(sample.targets),
        "notes": list(info.notes),
    }


COMMANDS = {"check": Command("Look for problems in a folder of images and targets.", _configure, _check)}
