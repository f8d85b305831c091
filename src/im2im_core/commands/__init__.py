"""The commands of ``im2im``, one file per group, and what they share: results, recipes by name, options."""

from __future__ import annotations

import dataclasses
import json as _json
import math
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import argparse

    from im2im_core.recipe import Recipe


class Command(NamedTuple):
    """One command: its description, its options, and the function that does it."""

    description: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.ArgumentParser, list[str], Output], int]
    """Called with the parser, the arguments after the command's name, and the output; returns the exit code."""


@dataclasses.dataclass(frozen=True)
class Output:
    """Where results go: text for a person, or JSON alone on stdout."""

    json: bool = False

    def text(self, text: str) -> None:
        """Write lines for a person; nothing in JSON mode."""
        if not self.json:
            sys.stdout.write(f"{text}\n")

    def line(self, content: Any) -> None:
        """Write one JSON object on one line; nothing in text mode."""
        if self.json:
            sys.stdout.write(f"{_json.dumps(plain(content), ensure_ascii=False)}\n")
            sys.stdout.flush()

    def result(self, content: Any, text: str) -> None:
        """Write a result in the form that was asked for."""
        self.line(content)
        self.text(text)


def plain(value: Any) -> Any:
    """`value` as JSON types: mappings, sequences, dataclasses, settings, numpy scalars, paths."""
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # as in events: JSON has no NaN
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def simple(function: Callable[[argparse.Namespace, Output], int]) -> Callable[..., int]:
    """Run function of a command without free settings: parses the arguments strictly."""

    def run(parser: argparse.ArgumentParser, arguments: list[str], output: Output) -> int:
        return function(parser.parse_args(arguments), output)

    return run


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust MODULE``."""
    parser.add_argument(
        "--trust",
        metavar="MODULE",
        action="append",
        default=[],
        help="installed package whose classes may be named, or hash of code inside a model",
    )


def find_recipe(name: str) -> Recipe:
    """Recipe from a file, or the preset of that name; the classes it names are trusted."""
    from im2im_core import api
    from im2im_core.trust import require_trusted_recipe

    recipe = api.load_recipe(name)
    require_trusted_recipe(recipe)
    return recipe


def indented(content: Any, indent: str = "") -> str:
    """Nested content as indented lines; rows of a table stand one below the other."""
    if not isinstance(content, dict):
        return f"{indent}{content}"
    width = max((len(str(name)) for name in content), default=0)
    lines = []
    for name, value in content.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", indented(value, f"{indent}  ")]
        elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            lines += [f"{indent}{name}", *(f"{indent}  {_row(row)}" for row in value)]
        else:
            lines.append(f"{indent}{name:<{width}}  {_shown(value)}")
    return "\n".join(lines)


def _row(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_shown(value)}" for name, value in row.items())


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_traceback(error: Exception) -> Path:
    """File with the traceback of an unexpected error, in the folder for temporary files."""
    import os
    import tempfile

    handle, name = tempfile.mkstemp(prefix="im2im-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write("".join(traceback.format_exception(error)))
    return Path(name)
