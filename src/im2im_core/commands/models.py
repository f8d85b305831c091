"""``im2im models``: the local library; what there is, how models differ, in and out, deleted and brought back."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from im2im_core.commands import Command, Output, indented, simple
from im2im_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from im2im_core.model_cards import Comparison
    from im2im_core.models import LocalModel

SHOWN = 2
"""Figures in a line of text; JSON has all."""
WIDEST = 40
"""Characters of a value in a table of text; JSON has all."""


class Action(NamedTuple):
    """One thing to do with models."""

    help: str
    arguments: tuple[tuple[tuple[str, ...], dict[str, Any]], ...]
    """Names and options of each argument, as argparse takes them."""
    run: Callable[[argparse.Namespace, Output], None]


def _configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", dest="action", title="actions; list where none is given")
    for name, action in ACTIONS.items():
        found = actions.add_parser(name, help=action.help, description=f"{action.help}.", allow_abbrev=False)
        for names, options in action.arguments:
            found.add_argument(*names, **options)
        found.add_argument("--json", action="store_true", help="machine-readable result on stdout and nothing else")


def _models(args: argparse.Namespace, output: Output) -> int:
    ACTIONS[args.action or "list"].run(args, output)
    return 0


# ---- looking -------------------------------------------------------------------


def _list(_: argparse.Namespace, output: Output) -> None:
    from im2im_core.models import list_models

    rows = [_row(model) for model in list_models()]
    width = max((len(row["name"]) for row in rows), default=0)
    output.result({"models": rows}, "\n".join(_line(row, width) for row in rows) or "There are no models yet.")


def _row(model: LocalModel) -> dict[str, Any]:
    from im2im_core.model_cards import when_words

    return {
        "name": model.name,
        "task": model.inference.task,
        "dimensions": model.inference.shapes.dimensions,
        "inputs": [i.name for i in model.inputs],
        "origin": model.origin,
        "place": model.place,
        "path": str(model.path),
        "metrics": dict(model.metrics),
        "trained_on": model.trained_on,
        "made": when_words(model.made),
        "bytes": model.size,
        "notes": model.notes,
    }


def _line(row: dict[str, Any], width: int) -> str:
    from im2im_core.progress import numbers

    task = f"{(row['task'] or 'image to image').replace('_', ' ')} {row['dimensions']}D"
    figures = numbers(dict(list(row["metrics"].items())[:SHOWN])) or "no figures"
    return f"{row['name']:<{width}}  {task:<26}{figures:<24}{row['made']}  {row['path']}"


def _card(args: argparse.Namespace, output: Output) -> None:
    from im2im_core.library import find_local
    from im2im_core.model_cards import card

    content = card(find_local(args.model))
    output.result(content, indented(content))


def _provenance(args: argparse.Namespace, output: Output) -> None:
    from im2im_core.library import find_local
    from im2im_core.model_cards import provenance

    content = provenance(find_local(args.model))
    output.result(content, indented(content))


def _compare(args: argparse.Namespace, output: Output) -> None:
    from im2im_core.library import find_local
    from im2im_core.model_cards import compare

    found = compare([find_local(name) for name in args.models])
    output.result(found, _table(found))


def _table(found: Comparison) -> str:
    """Figures, facts and differing settings, one column per model."""
    figures = {k: tuple("" if v is None else f"{v:.4g}" for v in row) for k, row in found.metrics.items()}
    settings = {k: tuple("" if v is None else str(v) for v in row) for k, row in found.settings.items()}
    parts = [("", {"": found.names}), ("figures", figures), ("about", found.facts), ("settings that differ", settings)]
    rows = [(k, r) for _, part in parts for k, r in part.items()]
    first = max(len(k) for k, _ in rows) + 2
    widths = [min(WIDEST, max(len(r[i]) for _, r in rows)) + 2 for i in range(len(found.names))]
    lines = []
    for title, part in parts:
        lines += [f"\n{title}"] if title and part else []
        lines += [_cells(f"  {key}" if title else key, row, first + 2, widths) for key, row in part.items()]
    return "\n".join(lines)


def _cells(key: str, row: Sequence[str], first: int, widths: Sequence[int]) -> str:
    cells = (f"{_short(text):<{width}}" for text, width in zip(row, widths, strict=True))
    return f"{key:<{first}}{''.join(cells)}".rstrip()


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


# ---- changing ------------------------------------------------------------------


def _delete(args: argparse.Namespace, output: Output) -> None:
    from im2im_core.library import delete_model, find_local

    models = [find_local(name) for name in args.models]
    if not args.yes:
        _ask(models, output)
    deleted = [delete_model(model) for model in models]
    lines = [
        f"{d.name} is in {d.trash}; `im2im models restore` brings it back"
        if d.trash
        else f"{d.name} is off the list; its files stay in {d.path}"
        for d in deleted
    ]
    output.result({"deleted": deleted}, "\n".join(lines))


def _ask(models: Sequence[LocalModel], output: Output) -> None:
    """Do nothing where a person at the terminal agrees.

    Raises
    ------
    ConfigError
        Nobody can be asked, or the answer is no.
    """
    names = ", ".join(f"{m.name} ({m.path})" for m in models)
    if output.json or not sys.stdin.isatty():
        raise ConfigError(f"{names} would be deleted", "Add --yes")
    sys.stderr.write(f"Delete {names}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ConfigError("Nothing was deleted", "Answer y, or add --yes")


def _restore(args: argparse.Namespace, output: Output) -> None:
    from im2im_core.library import list_deleted, restore_model

    found = [d for d in list_deleted() if args.model in (None, d.name, str(d.path), str(d.trash))]
    if not found:
        raise ConfigError(f"No deleted model is called {args.model!r}" if args.model else "No model was deleted")
    model = restore_model(found[0])
    output.result({"restored": str(model.path)}, f"{model.name} is back in {model.path}")


def _rename(args: argparse.Namespace, output: Output) -> None:
    from im2im_core.library import find_local
    from im2im_core.models import write_notes

    model = find_local(args.model)
    write_notes(model.path, name=args.name)
    output.result({"path": str(model.path), "name": args.name}, f"{model.name} is called {args.name} now")


def _note(args: argparse.Namespace, output: Output) -> None:
    from im2im_core.library import find_local
    from im2im_core.models import write_notes

    model = find_local(args.model)
    write_notes(model.path, notes=args.text)
    output.result({"path": str(model.path), "notes": args.text}, f"Noted of {model.name}: {args.text}")


def _import(args: argparse.Namespace, output: Output) -> None:
    from im2im_core.library import import_model
    from im2im_core.project import Project

    project = None if args.library else Project.open(args.project)
    model = import_model(args.package, project)
    output.result({"name": model.name, "path": str(model.path)}, f"{model.name} is in {model.path}")


def _export(args: argparse.Namespace, output: Output) -> None:
    from im2im_core.library import export_model, find_local

    path = export_model(find_local(args.model), args.output, overwrite=args.overwrite)
    size = path.stat().st_size
    output.result({"output": str(path), "bytes": size}, f"{path} ({size / 1e6:.1f} MB)")


def _argument(*names: str, **options: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    return names, options


_MODEL = _argument("model", metavar="MODEL", help="name of a model or of its run, or its path")
ACTIONS = {
    "list": Action("List the models that can be used here: shipped, trained, imported or added", (), _list),
    "card": Action("Show what a model does, takes and makes, and how good it is", (_MODEL,), _card),
    "compare": Action(
        "Show figures of models side by side, and the settings in which they differ",
        (_argument("models", metavar="MODEL", nargs="+", help="two or more names or paths"),),
        _compare,
    ),
    "provenance": Action("Show where a model comes from: recipe, data, versions, hashes", (_MODEL,), _provenance),
    "delete": Action(
        "Move models to the trash of their project; restore brings them back",
        (
            _argument("models", metavar="MODEL", nargs="+", help="names or paths"),
            _argument("--yes", action="store_true", help="do not ask"),
        ),
        _delete,
    ),
    "restore": Action(
        "Bring a deleted model back",
        (_argument("model", metavar="NAME", nargs="?", help="its name, path or trash; default: the last deleted"),),
        _restore,
    ),
    "rename": Action(
        "Give a model another name in your lists; the package stays as it is",
        (_MODEL, _argument("name", metavar="NAME", help="the new name; an empty one takes it away")),
        _rename,
    ),
    "note": Action(
        "Keep a note about a model",
        (_MODEL, _argument("text", metavar="TEXT", help="the note; an empty one takes it away")),
        _note,
    ),
    "import": Action(
        "Copy a package (zip or folder) into the project, after its hashes are compared",
        (
            _argument("package", metavar="PACKAGE", type=Path, help="zip or folder of a model package"),
            _argument("--library", action="store_true", help="into your own library instead of a project"),
            _argument("--project", metavar="FOLDER", help="default: the nearest"),
        ),
        _import,
    ),
    "export": Action(
        "Write a model as one zip",
        (
            _MODEL,
            _argument("output", metavar="OUT.zip", type=Path, help="package to write"),
            _argument("--overwrite", action="store_true", help="replace OUT.zip if it exists"),
        ),
        _export,
    ),
}
"""What can be done with models, by name."""

COMMANDS = {
    "models": Command("List models, compare, import, export, delete and restore them.", _configure, simple(_models))
}
