"""``im2im check``: everything that is wrong with a folder of images and targets, before anything is trained."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_core.commands import Command, Output
from im2im_core.errors import ConfigError, DataError, Stopped, nearest

if TYPE_CHECKING:
    from im2im_core.recipe import Recipe
    from im2im_core.review.codes import Problem
    from im2im_core.review.data import DataReview
    from im2im_core.review.facts import SampleFacts
    from im2im_core.samples import Sample

SCHEMA = 1
"""Of the JSON result."""


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
    found = _looked(recipe, task, not args.headers_only)
    if isinstance(found, int):
        return found
    output.result(_content(found), "\n".join(_lines(found)))
    return DataError.exit_code if found.failed else 0


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


def _looked(recipe: Recipe, task: str | None, pixels: bool) -> DataReview | int:
    """What was found, or the exit code of a check that was asked to end; progress goes to stderr."""
    from im2im_core.jobs.signals import StopFlag
    from im2im_core.progress import reporter
    from im2im_core.review.data import check_data

    number = getattr(recipe.framework, "classes", "auto")
    classes = range(number) if isinstance(number, int) else None
    with StopFlag() as stop, reporter(as_json=False) as on_event:
        try:
            return check_data(recipe.data, task, classes=classes, pixels=pixels, on_event=on_event, should_stop=stop)
        except Stopped as error:
            sys.stderr.write(f"{error}\n")
            return stop.exit_code or error.exit_code


# ---- result ----


def _lines(found: DataReview) -> list[str]:
    """One line per sample, one per problem, and how many there are."""
    rows = [_row(sample, None) for sample in found.samples]
    lines = [
        f"{row['name']}: {row['shape']} {row['dtype']}, targets {', '.join(row['targets']) or 'none'}" for row in rows
    ]
    lines += map(_line, found.problems)
    counts = Counter(p.severity for p in found.problems)
    total = ", ".join(f"{n} {severity if n == 1 else f'{severity}s'}" for severity, n in counts.items())
    return [*lines, total or "no problems found"]


def _line(problem: Problem) -> str:
    cure = f". {problem.cure}" if problem.cure else ""
    return f"{problem.severity}: {problem.text}{cure} [{problem.code}]"


def _content(found: DataReview) -> dict[str, Any]:
    """The result as plain content."""
    facts = {f.sample: f for f in found.facts}
    counts = Counter(p.severity for p in found.problems)
    return {
        "schema": SCHEMA,
        "samples": [_row(sample, facts.get(sample.name)) for sample in found.samples],
        "problems": found.problems,
        "errors": counts["error"],
        "warnings": counts["warning"],
        "infos": counts["info"],
    }


def _row(sample: Sample, facts: SampleFacts | None) -> dict[str, Any]:
    """What a sample is, and the numbers of its pixels where they were looked at."""
    from im2im_core.io.identity import file_of

    info = sample.source.info
    row: dict[str, Any] = {
        "name": sample.name,
        "group": sample.group,
        "file": file_of(sample.source),
        "axes": info.axes,
        "shape": list(info.shape),
        "dtype": str(info.dtype),
        "voxel_size": list(info.voxel_size),
        "targets": sorted(sample.targets),
        "notes": list(info.notes),
    }
    if facts is not None:
        row |= {"minimum": facts.pixels.minimum, "maximum": facts.pixels.maximum, "mean": facts.pixels.mean}
    if facts is not None and facts.labels is not None:
        labels = facts.labels
        row |= {"objects": labels.objects, "foreground": labels.foreground, "diameter": labels.diameter}
    return row


COMMANDS = {"check": Command("Look for problems in a folder of images and targets.", _configure, _check)}
