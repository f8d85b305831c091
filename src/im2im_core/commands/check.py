"""``im2im check``: everything that is wrong with a folder of images and targets, before anything is trained."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_core.commands import Command, Output
from im2im_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from im2im_core.image import Image
    from im2im_core.recipe import Recipe
    from im2im_core.samples import Sample


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "im2im check DATA [--data.field value …] [options]"
    parser.add_argument("data", metavar="DATA", help="folder or CSV table with images and targets")
    parser.add_argument("--headers-only", action="store_true", help="do not read the pixels")


def _check(parser: argparse.ArgumentParser, arguments: list[str], output: Output) -> int:
    from im2im_core.commands.settings import override, split_settings
    from im2im_core.recipe import Recipe

    own, settings = split_settings(arguments)
    args = parser.parse_args(own)
    if not Path(args.data).exists():
        raise ConfigError(f"{args.data} does not exist", "Name a folder or a CSV table")
    recipe = override(Recipe(), settings).override({"data.path": str(Path(args.data).resolve())})
    rows, problems = examine(recipe, pixels=not args.headers_only)
    lines = [
        f"{row['name']}: {row['shape']} {row['dtype']}, targets {', '.join(row['targets']) or 'none'}" for row in rows
    ]
    lines += [f"problem: {text}" for text in problems] or ["no problems found"]
    output.result({"samples": rows, "problems": problems}, "\n".join(lines))
    return DataError.exit_code if problems else 0


def examine(recipe: Recipe, pixels: bool = True) -> tuple[list[dict[str, Any]], list[str]]:
    """What each sample is, and every problem in words."""
    from im2im_core.layouts.base import FilesError, load_samples

    try:
        samples, _ = load_samples(recipe.data, Path())
    except FilesError as error:
        return [], [problem.text for problem in error.problems]
    rows = [_row(sample) for sample in samples]
    problems = [text for sample in samples for text in _problems(sample)] if pixels else []
    return rows, problems + ([] if samples else ["there are no images"])


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


def _problems(sample: Sample) -> list[str]:
    images = {"image": sample.source, **sample.targets}
    if sample.weight is not None:
        images["weight"] = sample.weight
    return [f"{sample.name}: {role} {text}" for role, image in images.items() for text in _pixel_problems(image)]


def _pixel_problems(image: Image) -> list[str]:
    """What is odd about the pixels: unreadable, constant, NaN or infinite."""
    import numpy as np

    try:
        pixels = image.read()
    except DataError as error:
        return [f"cannot be read: {error.message}"]
    found = []
    if pixels.dtype.kind == "f" and (count := int(pixels.size - np.isfinite(pixels).sum())):
        found.append(f"has {count} NaN or infinite pixels")
    if pixels.size and pixels.min() == pixels.max():
        found.append(f"is constant ({pixels.flat[0]})")
    return found


COMMANDS = {"check": Command("Look for problems in a folder of images and targets.", _configure, _check)}
