"""``im2im presets``, ``im2im show`` and ``im2im plan``: what a training would be."""

from __future__ import annotations

import argparse
from pathlib import Path

from im2im_core.commands import Command, Output, add_trust, find_recipe, plain, simple
from im2im_core.commands.settings import annotated_yaml, override, split_settings
from im2im_core.errors import ConfigError


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
    parser.usage = "im2im plan PRESET|RECIPE.yaml --data.path FOLDER [--section.field value …] [options]"
    _configure_show(parser)
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
    plan = api.plan(override(find_recipe(args.recipe), settings), project=project, probe=args.probe)
    content = plain(plan.to_dict())
    if args.output is not None:
        if args.output.exists():
            raise ConfigError(f"{args.output} exists", "Name another file after -o")
        plan.to_file(args.output)
    width = max((len(name) for name in plan.reasons), default=0)
    output.result(content, "\n".join(f"{name:<{width}}  {reason}" for name, reason in plan.reasons.items()))
    return 0


COMMANDS = {
    "presets": Command("List the ready tasks.", _no_options, simple(_presets)),
    "show": Command("Print a preset or recipe as YAML with every setting explained.", _configure_show, _show),
    "plan": Command("Say what a training would do and why, without starting it.", _configure_plan, _plan),
}
