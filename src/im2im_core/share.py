"""One recipe in other words: as a command, as commented YAML, as Python, as a methods paragraph."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from im2im_core.methods import methods_paragraph
from im2im_core.recipe import Recipe
from im2im_core.recipe.fields import kind_of, union_classes

if TYPE_CHECKING:
    import os

    PathLike = str | os.PathLike[str]

__all__ = ["as_command", "as_python", "as_yaml", "differences", "methods_paragraph"]
UNSHARED = ("schema_version", "name")
"""Fields that are no settings of a command: ``--name`` names the run."""


def differences(recipe: Recipe, base: Recipe) -> dict[str, Any]:
    """Dotted settings, as plain values, with which ``base.override(...)`` becomes `recipe`, its name aside."""
    found = _differences(recipe, base)
    return {name: value for name, value in found.items() if name not in UNSHARED}


def _differences(goal: BaseModel, base: BaseModel | None, prefix: str = "") -> dict[str, Any]:
    """Settings in which `goal` differs from `base`, or from the defaults of its class where `base` is None."""
    found: dict[str, Any] = {}
    for name, info in type(goal).model_fields.items():
        value = getattr(goal, name)
        default = None if info.is_required() else info.get_default(call_default_factory=True)
        before = getattr(base, name) if base is not None else default
        if isinstance(value, BaseModel) and union_classes(info.annotation):
            found |= _section(value, before, f"{prefix}{name}")
        elif value != before or (base is None and info.is_required()):
            found[prefix + name] = goal.model_dump(mode="json", include={name})[name]
    return _without_cleared(goal, found, prefix)


def _section(value: BaseModel, before: Any, name: str) -> dict[str, Any]:
    if type(value) is type(before):
        return _differences(value, before, f"{name}.")
    kind = kind_of(type(value))
    inside = _differences(value, None, f"{name}.")
    return {f"{name}.kind": kind, **inside} if kind else inside


def _without_cleared(goal: BaseModel, found: dict[str, Any], prefix: str) -> dict[str, Any]:
    """`found` without the budgets that another budget clears anyway."""
    cleared = {
        prefix + name
        for group in getattr(goal, "exclusive", ())
        if any(getattr(goal, other) is not None for other in group)
        for name in group
        if getattr(goal, name) is None
    }
    return {name: value for name, value in found.items() if name not in cleared}


# ---- command -------------------------------------------------------------------


def as_command(
    recipe: Recipe,
    base_preset: str,
    *,
    data: PathLike | None = None,
    plan: PathLike | None = None,
    project: PathLike | None = None,
) -> str:
    """Shell command that trains `recipe`: the preset and the settings that differ from it.

    Parameters
    ----------
    data : path, optional
        Replaces ``data.path``, which may be relative to a project that the shell does not stand in.
    plan : path, optional
        File of a plan: its recipe is what settings differ from, and its choices are used again.
    project : path, optional
        Where the run is kept.
    """
    from im2im_core import api
    from im2im_core.plans import Plan

    if data is not None:
        recipe = recipe.override({"data.path": str(data)})
    base = api.load_preset(base_preset) if plan is None else Plan.from_file(Path(plan)).recipe
    start = [base_preset] if plan is None else ["--plan", str(plan)]
    words = ["im2im", "train", *start, *(["--project", str(project)] if project is not None else [])]
    if recipe.name != base.name:
        words += ["--name", recipe.name]
    for name, value in differences(recipe, base).items():
        words += _option(name, value)
    return shlex.join(words)


def _option(name: str, value: Any) -> list[str]:
    text = value if isinstance(value, str) else _inline(value)
    return [f"--{name}={text}"] if text.startswith("--") else [f"--{name}", text]


def _inline(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


# ---- YAML and Python -----------------------------------------------------------


def as_yaml(recipe: Recipe) -> str:
    """Full recipe with the description of every setting as a comment; a file for ``im2im train``."""
    from im2im_core.commands.settings import annotated_yaml

    return f"{annotated_yaml(recipe)}\n"


def as_python(recipe: Recipe, preset: str, *, data: PathLike | None = None) -> str:
    """Python that trains `recipe`: the preset and the settings that differ from it."""
    from im2im_core import api

    if data is not None:
        recipe = recipe.override({"data.path": str(data)})
    base = api.load_preset(preset)
    changes = differences(recipe, base) | ({} if recipe.name == base.name else {"name": recipe.name})
    lines = "".join(f"    {name!r}: {value!r},\n" for name, value in changes.items())
    override = f".override({{\n{lines}}})" if changes else ""
    return (
        "import im2im_core as im2im\n\n"
        f"recipe = im2im.load_preset({preset!r}){override}\n"
        "run = im2im.train(recipe)\n"
        "print(run.model)  # im2im.predict(run.model, image)\n"
    )
