"""``im2im presets``, ``im2im show`` and ``im2im plan``: what a training would be."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

from im2im_core.commands import Command, Output, add_trust, find_recipe, plain, simple
from im2im_core.commands.settings import annotated_yaml, of_section, override, split_settings
from im2im_core.errors import ConfigError, DataError

PRESET_OF = {
    "instance_segmentation": "instance_seg",
    "semantic_segmentation": "semantic_seg",
    "label_free": "labelfree",
}
"""Task -> beginning of the name of its presets."""
STACK_PLANES = 8
"""A stack with fewer planes is learned plane by plane."""


def _no_options(parser: argparse.ArgumentParser) -> None:
    """Nothing to configure."""


def _presets(_: argparse.Namespace, output: Output) -> int:
    from im2im_core import api

    presets = api.list_presets()
    width = max((len(p.name) for p in presets), default=0)
    output.result(
        {"presets": [{"name": p.name, "task": p.task, "summary": p.summary} for p in presets]},
        "\n".join(f"{p.name:<{width}}  {p.summary}" for p in presets),
    )
    return 0


def _configure_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="PRESET|RECIPE.yaml", help="see `im2im presets`")
    add_trust(parser)


def _show(parser: argparse.ArgumentParser, arguments: list[str], output: Output) -> int:
    from im2im_core.trust import trust_for_this_process

    own, settings = split_settings(arguments)
    args = parser.parse_args(own)
    trust_for_this_process(args.trust)
    recipe = override(find_recipe(args.recipe), settings)
    output.result({"recipe": recipe.dump()}, annotated_yaml(recipe))
    return 0


def _configure_plan(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "im2im plan DATA [--section.field value …] [options]\n"
        "       im2im plan PRESET|RECIPE.yaml --data.path DATA [--section.field value …] [options]"
    )
    parser.add_argument(
        "recipe", metavar="DATA|PRESET|RECIPE.yaml", help="folder or CSV table with images, or see `im2im presets`"
    )
    add_trust(parser)
    parser.add_argument("--project", metavar="FOLDER", help="default: the nearest")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="keep the plan, for `im2im train --plan`")
    parser.add_argument("--probe", action="store_true", help="also measure two steps: minutes and memory")


def _plan(parser: argparse.ArgumentParser, arguments: list[str], output: Output) -> int:
    from im2im_core import api
    from im2im_core.project import Project
    from im2im_core.trust import trust_for_this_process

    own, settings = split_settings(arguments)
    args = parser.parse_args(own)
    trust_for_this_process(args.trust)
    project = Project.open(args.project) if args.project else None
    guess = _guess_preset(Path(args.recipe), settings) if _is_data(args.recipe) else None
    recipe = find_recipe(guess.preset if guess else args.recipe)
    recipe = recipe.override({"data.path": str(Path(args.recipe).resolve())}) if guess else recipe
    plan = api.plan(override(recipe, settings), project=project, probe=args.probe)
    content = plain(plan.to_dict()) | ({"preset": guess.preset} if guess else {})
    if args.output is not None:
        if args.output.exists():
            raise ConfigError(f"{args.output} exists", "Name another file after -o")
        plan.to_file(args.output)
    width = max((len(name) for name in plan.reasons), default=0)
    lines = [guess.sentence] if guess else []
    lines += [f"{name:<{width}}  {reason}" for name, reason in plan.reasons.items()]
    output.result(content, "\n".join([*lines, *(f"{m.text}. {m.cure}" for m in plan.messages)]))
    return 0


class _Guess(NamedTuple):
    """Preset that fits what data look like."""

    preset: str
    sentence: str


def _is_data(name: str) -> bool:
    from im2im_core.layouts.table import TABLE_ENDINGS

    return Path(name).is_dir() or Path(name).suffix.lower() in TABLE_ENDINGS


def _guess_preset(data: Path, settings: list[str]) -> _Guess:
    """Preset for the task that the first image looks like, as `im2im check` guesses it.

    Raises
    ------
    DataError
        There is no image, or the files do not fit together.
    """
    from im2im_core.datasets import guess_task
    from im2im_core.layouts.base import load_samples
    from im2im_core.recipe import Recipe

    described = override(Recipe().override({"data.path": str(data.resolve())}), of_section(settings, "data"))
    samples, _ = load_samples(described.data, Path())
    if not samples:
        raise DataError(f"There are no images in {data}", "Name another folder")
    task = guess_task(samples[0])
    dimensions = 3 if samples[0].source.info.shape[2] >= STACK_PLANES else 2
    preset = f"{PRESET_OF[task]}_{dimensions}d"
    sentence = f"{samples[0].name} looks like {task.replace('_', ' ')} in {dimensions}D: preset {preset}"
    return _Guess(preset, f"{sentence}; name another one with: im2im plan PRESET --data.path {data}")


COMMANDS = {
    "presets": Command("List the ready tasks.", _no_options, simple(_presets)),
    "show": Command("Print a preset or recipe as YAML with every setting explained.", _configure_show, _show),
    "plan": Command("Say what a training would do and why, without starting it.", _configure_plan, _plan),
}
