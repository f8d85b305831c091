"""``im2im evaluate``: a model on a data set, or predictions against their truth."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from im2im_core.commands import Command, Output, add_trust, simple
from im2im_core.errors import ConfigError

if TYPE_CHECKING:
    from im2im_core.evaluation import Report
    from im2im_core.recipe import DataSettings

TOLD = ("axes", "input_channels", "target_channels", "scenes", "labelling")
"""Settings of the data that files may not say."""
MORE = "All figures of every image: --csv FILE, or --json"


def _configure(parser: argparse.ArgumentParser) -> None:
    from im2im_core.metrics import Kind

    parser.usage = "im2im evaluate MODEL DATA | PREDICTION TRUTH | IMAGE [options]"
    parser.add_argument("first", metavar="MODEL|PREDICTION", help="bundle or run; or an image or folder of images")
    parser.add_argument(
        "second",
        nargs="?",
        metavar="DATA|TRUTH",
        help="folder or table with truth; or the true image or folder; without it, the resolution of the images alone",
    )
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write every figure of every image as a table")
    parser.add_argument(
        "--kind",
        default="auto",
        choices=("auto", *get_args(Kind)),
        help="what is compared; auto: from the images",
    )
    for name in TOLD:
        parser.add_argument(f"--{name.replace('_', '-')}", help=f"for MODEL DATA: {_help(name)}".replace("%", "%%"))
    add_trust(parser)


def _help(name: str) -> str:
    from im2im_core.recipe import DataSettings
    from im2im_core.recipe.fields import documented_fields

    text = documented_fields(DataSettings)[name].description or ""
    return text[:1].lower() + text[1:].rstrip(".")


def _data(args: argparse.Namespace) -> str | DataSettings:
    """Data set as named, or with what was told of it."""
    from im2im_core.commands.settings import parse_value
    from im2im_core.recipe import DataSettings

    fields = DataSettings.model_fields
    told = {n: parse_value(n, t, fields[n].annotation) for n in TOLD if (t := getattr(args, n)) is not None}
    path: str = args.second
    return DataSettings.load({"path": str(Path(path).resolve()), **told}) if told else path


def _evaluate(args: argparse.Namespace, output: Output) -> int:
    from im2im_core.files import write_atomic
    from im2im_core.trust import trust_for_this_process

    trust_for_this_process(args.trust)
    report = _of_images(args, output) if _holds_images(Path(args.first)) else _of_model(args, output)
    if isinstance(report, int):
        return report
    if args.csv is not None:
        write_atomic(args.csv, report.to_csv().encode())
    output.result(report, f"{report.table()}\n{MORE}")
    return 0


def _of_images(args: argparse.Namespace, output: Output) -> Report:
    from im2im_core import api
    from im2im_core.progress import reporter

    if told := [n for n in TOLD if getattr(args, n) is not None]:
        raise ConfigError(
            f"--{told[0].replace('_', '-')} says how a model is to read its data, but {args.first} is no model",
            "Name a model and a data set, or leave the option out",
        )
    with reporter(output.json) as on_event:
        return api.evaluate(args.first, args.second, kind=args.kind, on_event=on_event)


def _of_model(args: argparse.Namespace, output: Output) -> Report | int:
    """Report, or the exit code of an evaluation that was asked to end."""
    from im2im_core import api
    from im2im_core.errors import Stopped
    from im2im_core.jobs.signals import StopFlag
    from im2im_core.progress import reporter

    if args.second is None:
        raise ConfigError(f"{args.first} is a model, but no data set is named", "Name a folder or table with truth")
    with StopFlag() as stop, reporter(output.json) as on_event:
        try:
            return api.evaluate_model(args.first, _data(args), on_event=on_event, should_stop=stop)
        except Stopped as error:
            sys.stderr.write(f"{error}\n")
            return stop.exit_code or error.exit_code


def _holds_images(path: Path) -> bool:
    from im2im_core.io import is_image
    from im2im_core.layouts.base import list_images

    described = any((path / name).is_file() for name in ("bioimageio.yaml", "rdf.yaml", "model.yaml", "run.json"))
    return path.exists() and not described and (is_image(path) or (path.is_dir() and bool(list_images(path))))


COMMANDS = {
    "evaluate": Command(
        "Score a model on a data set with truth, or predictions against their truth.", _configure, simple(_evaluate)
    ),
}
