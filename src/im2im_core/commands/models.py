"""``im2im models``: every model that can predict here, with its task and how good it is."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from im2im_core.commands import Command, Output, simple

if TYPE_CHECKING:
    from im2im_core.models import LocalModel

SHOWN = 2
"""Figures in a line of text; JSON has all."""


def _no_options(parser: argparse.ArgumentParser) -> None:
    """Nothing to configure."""


def _models(_: argparse.Namespace, output: Output) -> int:
    from im2im_core.models import list_models

    rows = [_row(model) for model in list_models()]
    width = max((len(row["name"]) for row in rows), default=0)
    output.result({"models": rows}, "\n".join(_line(row, width) for row in rows) or "There are no models yet.")
    return 0


def _row(model: LocalModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "task": model.inference.task,
        "dimensions": model.inference.shapes.dimensions,
        "origin": model.origin,
        "place": model.place,
        "path": str(model.path),
        "metrics": dict(model.metrics),
    }


def _line(row: dict[str, Any], width: int) -> str:
    from im2im_core.progress import numbers

    task = f"{row['task'].replace('_', ' ')} {row['dimensions']}D"
    figures = numbers(dict(list(row["metrics"].items())[:SHOWN])) or "no figures"
    return f"{row['name']:<{width}}  {task:<26}{figures:<24}{row['path']}"


COMMANDS = {
    "models": Command("List the models that can be used here: shipped, trained or added.", _no_options, simple(_models))
}
