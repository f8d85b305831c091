"""``im2im convert``: a recipe from a configuration of another program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from im2im_core.commands import Command, Output
from im2im_core.commands.settings import split_settings, values_of
from im2im_core.errors import ConfigError

if TYPE_CHECKING:
    import argparse


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "im2im convert FILE.yaml [--section.field value …] [-o OUT.yaml]"
    parser.add_argument("file", metavar="FILE.yaml", help="configuration of a training with mmv_im2im")
    parser.add_argument(
        "-o", "--output", metavar="OUT.yaml", type=Path, help="write the recipe there; default: print it"
    )


def _convert(parser: argparse.ArgumentParser, arguments: list[str], output: Output) -> int:
    from im2im_core import api
    from im2im_core.files import write_atomic

    own, settings = split_settings(arguments)
    args = parser.parse_args(own)
    if args.output is not None and args.output.exists():
        raise ConfigError(f"{args.output} exists", "Name another file after -o")
    found = api.convert(args.file)
    found = found.override(values_of(found.recipe, settings))
    content = {"recipe": found.recipe.dump(), "notes": found.notes, "output": args.output}
    if args.output is None:
        output.result(content, found.to_yaml().rstrip("\n"))
        return 0
    write_atomic(args.output, found.to_yaml().encode())
    data = "" if found.recipe.data.path else " --data.path DATA"
    lines = [found.words(), f"{args.output} is written. What it will do: im2im plan {args.output}{data}"]
    output.result(content, "\n".join(line for line in lines if line))
    return 0


COMMANDS = {
    "convert": Command(
        "Turn the configuration of a training with mmv_im2im into a recipe, and say what has no counterpart.",
        _configure,
        _convert,
    )
}
