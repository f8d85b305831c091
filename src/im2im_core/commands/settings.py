"""Settings on the command line: every field of the recipe is an option, with help made from the recipe."""

from __future__ import annotations

import textwrap
import types
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from im2im_core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from im2im_core.recipe import Recipe
    from im2im_core.recipe.fields import Field

WIDTH = 100
PATHS = ("data.path", "training.start.model")
"""Settings that name a file or folder: one that exists where the command is typed is meant from there."""


def override(recipe: Recipe, words: list[str]) -> Recipe:
    """Recipe with ``--section.field value`` words applied.

    Raises
    ------
    ConfigError
        A word is not an option, has no value, or the name or value is wrong.
    """
    return recipe.override(values_of(recipe, words))


def values_of(recipe: Recipe, words: list[str]) -> dict[str, Any]:
    """Dotted settings that ``--section.field value`` words give, of the types that they have in `recipe`.

    Raises
    ------
    ConfigError
        A word is not an option or has no value.
    """
    changes = dict(_pairs(words))
    kinds = {name: value for name, value in changes.items() if name.endswith(".kind")}
    return {name: parse_value(name, text, _annotation(recipe, name, kinds)) for name, text in changes.items()}


def _annotation(recipe: Recipe, name: str, kinds: dict[str, str]) -> Any:
    """Type of the setting `name` under the choices `kinds` and those of `recipe`; None where it is not known."""
    from im2im_core.recipe.fields import kind_of, union_classes

    owner: Any = type(recipe)
    current: Any = recipe
    *path, last = name.split(".")
    for depth, part in enumerate(path, start=1):
        if owner is None or part not in owner.model_fields:
            return None
        current = getattr(current, part, None)
        kind = kinds.get(".".join([*path[:depth], "kind"]), getattr(current, "kind", None))
        classes = union_classes(owner.model_fields[part].annotation)
        owner = classes[0] if len(classes) == 1 else next((c for c in classes if kind_of(c) == kind), None)
    info = None if owner is None else owner.model_fields.get(last)
    return None if info is None else info.annotation


def split_settings(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Words of the command itself, and the ``--section.field value`` words among them."""
    own: list[str] = []
    settings: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        if not (name.startswith("--") and ("." in name or name == "--task")):
            own.append(word)
            continue
        settings.append(word)
        if not equals and rest and not rest[0].startswith("--"):
            settings.append(rest.pop(0))
    return own, settings


def _pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or len(word) < 3:
            raise ConfigError(f"{word!r} is not expected here", "Settings are written --section.field value")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"--{name} has no value", "Settings are written --section.field value")
            value = rest.pop(0)
        yield _known(name), value


def of_section(words: list[str], section: str) -> list[str]:
    """Those of the ``--section.field value`` words that belong to `section`."""
    return [f"--{name}={value}" for name, value in _pairs(words) if name.startswith(f"{section}.")]


def _known(name: str) -> str:
    """`name`, which must start with a section; a mistyped command option gets a hint."""
    from im2im_core.recipe import Recipe

    head = name.split(".")[0].replace("-", "_")
    if head not in Recipe.model_fields:
        raise ConfigError(f"Unknown option --{name}", nearest(head, Recipe.model_fields))
    return name.replace("-", "_")


def parse_value(name: str, text: str, annotation: Any) -> Any:
    """Value that `text` stands for: YAML, or the text itself where the setting `name` is a text."""
    from im2im_core.recipe.fields import choices_of
    from im2im_core.yamlfile import parse_yaml

    for choice in choices_of(annotation):
        if str(choice) == text:  # "32" and "none" stay texts where a text is the choice
            return choice
    if str in _members(annotation) and int not in _members(annotation):
        # Text stays as typed: "#1", "2024" and "a: b" are good names of folders.
        value = None if text in ("null", "") and type(None) in _members(annotation) else text
        return str(Path(value).resolve()) if value and name in PATHS and Path(value).exists() else value
    return parse_yaml(text, f"--{name}")


def _members(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


# ---- help ----------------------------------------------------------------------


def settings_help(recipe: Recipe) -> str:
    """Every setting of `recipe` with type, unit or range, default, choices and description."""
    from im2im_core.recipe.fields import documented_fields

    lines: list[str] = []
    section = ""
    for field in walk_options(recipe):
        head = field.name.split(".")[0] if "." in field.name else ""
        if head != section:
            section = head
            lines.append(f"\n{section}: {documented_fields(type(recipe))[section].description}")
        lines += _entry(recipe, field)
    return "\n".join(lines)


def walk_options(settings: BaseModel) -> list[Field]:
    """Every setting that can be an option; ``--name`` names the run and the schema version is not a choice."""
    from im2im_core.recipe.fields import walk

    return [field for field in walk(settings) if field.name not in ("schema_version", "name")]


def _entry(recipe: Recipe, field: Field) -> list[str]:
    head = f"  --{field.name}  {describe_type(recipe, field)}  [{_shown(field.default)}]"
    return [head, *textwrap.wrap(field.help, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)]


def _shown(value: Any) -> str:
    from im2im_core.commands import plain

    content = plain(value)
    if content is None:
        return "none"
    if isinstance(content, bool):
        return str(content).lower()
    return _inline(content)


def _inline(content: Any) -> str:
    """Content as one line of YAML."""
    import yaml

    text = yaml.safe_dump(content, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def describe_type(recipe: BaseModel, field: Field) -> str:
    """Type of a setting in words, with its range, for example ``whole number >= 1 or auto``."""
    if field.choices and field.choices != (False, True):
        return " | ".join(str(choice) for choice in field.choices)
    owner: Any = recipe
    *path, last = field.name.split(".")
    for part in path:
        owner = getattr(owner, part)
    info = type(owner).model_fields[last]
    return _words(info.annotation) + _range(tuple(info.metadata))


_NAMES = {int: "whole number", float: "number", str: "text", bool: "true | false", type(None): "none", dict: "mapping"}


def _words(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(arguments[0]) + _range(arguments[1:])
    if origin is Literal:
        return " | ".join(str(a) for a in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(a) for a in arguments)
    if origin in (tuple, list):
        items = [a for a in arguments if a is not Ellipsis]
        inner = _words(items[0]) if items else "anything"
        return f"list of {inner}" if Ellipsis in arguments or origin is list else f"{len(items)} x {inner}"
    return _NAMES.get(origin or annotation) or _class_name(annotation)


def _class_name(annotation: Any) -> str:
    from im2im_core.recipe.fields import kind_of, union_classes

    classes = union_classes(annotation)
    return (kind_of(classes[0]) if classes else None) or str(getattr(annotation, "__name__", annotation))


def _range(metadata: tuple[Any, ...]) -> str:
    signs = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
    bounds = [
        f"{sign} {getattr(item, name)}"
        for item in metadata
        for name, sign in signs
        if getattr(item, name, None) is not None
    ]
    return f" {' and '.join(bounds)}" if bounds else ""


# ---- YAML with the descriptions ------------------------------------------------


def annotated_yaml(settings: BaseModel, indent: int = 0) -> str:
    """Full YAML of `settings`, the description of each setting as a comment above it."""
    from pydantic import BaseModel

    from im2im_core.recipe.fields import documented_fields

    pad, lines = " " * indent, []
    for name, info in documented_fields(type(settings)).items():
        value = getattr(settings, name)
        lines += textwrap.wrap(info.description or "", WIDTH, initial_indent=f"{pad}# ", subsequent_indent=f"{pad}# ")
        if isinstance(value, BaseModel):
            body = annotated_yaml(value, indent + 2)
            lines.append(f"{pad}{name}:{'' if body else ' {}'}")
            lines += [body] if body else []
        else:
            lines.append(f"{pad}{name}: {_inline(settings.model_dump(mode='json', include={name})[name])}")
    return "\n".join(lines)
