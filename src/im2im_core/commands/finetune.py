"""``im2im finetune``: a trained model is taught on, with the settings that its weights need."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from im2im_core.commands import Command, Output, find_recipe
from im2im_core.commands.predict import find_model
from im2im_core.commands.settings import split_settings, values_of
from im2im_core.commands.train import add_run_options, begin

if TYPE_CHECKING:
    from im2im_core.recipe import Recipe


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "im2im finetune MODEL DATA [--section.field value …] [options]"
    parser.epilog = (
        "Network, normalisation, rescaling and patch are those of the model, all else that of the preset of its task. "
        "--training.start.freeze, rates and decay say what learns and how fast, input_layer and output_layer what is "
        "done about other channels and classes; `im2im train PRESET --help` lists every setting."
    )
    parser.add_argument("model", metavar="MODEL", help="run, model package (folder or zip) or file with weights")
    parser.add_argument("data", metavar="DATA", nargs="?", help="folder or table with images and targets")
    parser.add_argument("--preset", metavar="PRESET|RECIPE.yaml", help="in place of the preset of the model's task")
    parser.add_argument("--parameters", action="store_true", help="list the parameters of the model, and train nothing")
    add_run_options(parser)


def _finetune(parser: argparse.ArgumentParser, arguments: list[str], output: Output) -> int:
    from im2im_core.trust import trust_for_this_process

    own, words = split_settings(arguments)
    args = parser.parse_args(own)
    trust_for_this_process(args.trust)
    model = find_model(args.model).resolve()
    if args.parameters:
        return _list_parameters(model, output)
    if args.data is None:
        parser.error("the images are missing")
    return begin(_recipe(model, args, words), None, args, output)


def _recipe(model: Path, args: argparse.Namespace, words: list[str]) -> Recipe:
    from im2im_core.finetuning import finetuning_recipe

    base = find_recipe(args.preset) if args.preset else None
    data = Path(args.data)
    given = {"data.path": str(data.resolve()) if data.exists() else args.data}
    given |= values_of(finetuning_recipe(model, base=base), words)  # the types of values depend on what follows
    return finetuning_recipe(model, given, base)


def _list_parameters(model: Path, output: Output) -> int:
    from im2im_core.engine.start_weights import read_start

    shapes = {name: list(value.shape) for name, value in read_start(model).weights.items()}
    lines = [f"{name}  {' x '.join(map(str, shape)) or 'a number'}" for name, shape in shapes.items()]
    output.result(shapes, "\n".join(lines))
    return 0


COMMANDS = {"finetune": Command("Teach a trained model on, with images of your own.", _configure, _finetune)}
