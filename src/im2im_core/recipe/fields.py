"""Walks through the settings classes: every field with its dotted name, type, default and description.

Command-line help, forms, YAML comments and the reference page are all made from this.
"""

from __future__ import annotations

import ast
import inspect
import sys
import types
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from im2im_core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Field:
    """One setting, reached by its dotted `name`."""

    name: str
    annotation: Any
    """Type without the Annotated wrapper."""
    default: Any
    help: str
    choices: tuple[Any, ...] = ()
    """Allowed values where they are a fixed list."""


@cache
def documented_fields(cls: type[BaseModel]) -> dict[str, FieldInfo]:
    """Fields of a settings class, each with the string that stands under it as its description.

    The source is read here, when help is wanted, and not when the class is made: reading the
    sources of all settings takes longer than predicting a small image.
    """
    for base in reversed(cls.__mro__):
        for name, text in _strings_under_fields(base).items():
            if name in cls.model_fields:
                cls.model_fields[name].description = text
    return cls.model_fields


def _strings_under_fields(cls: type) -> dict[str, str]:
    body = _class_bodies(cls.__module__).get(cls.__qualname__, [])
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


@cache
def _class_bodies(module: str) -> dict[str, list[ast.stmt]]:
    """Statements of each class at the top of a module; none where there is no source."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError, KeyError):
        return {}
    return {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}


def union_classes(annotation: Any) -> tuple[type[BaseModel], ...]:
    """Settings classes that `annotation` allows: one, several (a tagged union) or none."""
    if get_origin(annotation) is Annotated:
        return union_classes(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(c for a in get_args(annotation) for c in union_classes(a))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    return ()


def kind_of(cls: type[BaseModel]) -> str | None:
    """Tag of a settings class that is a member of a union; None for others."""
    field = cls.model_fields.get("kind")
    return field.default if field else None


def choices_of(annotation: Any) -> tuple[Any, ...]:
    """Fixed values that `annotation` allows; empty where others are allowed too."""
    if get_origin(annotation) is Annotated:
        return choices_of(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return (False, True) if annotation is bool else ()


def walk(settings: BaseModel, prefix: str = "") -> Iterator[Field]:
    """Every field of `settings`, sections opened, unions opened at their current choice."""
    for name, info in documented_fields(type(settings)).items():
        value, dotted = getattr(settings, name), prefix + name
        if isinstance(value, BaseModel):
            yield from _walk_choice(value, info, dotted)
        else:
            yield Field(dotted, info.annotation, value, info.description or "", choices_of(info.annotation))


def _walk_choice(value: BaseModel, info: FieldInfo, dotted: str) -> Iterator[Field]:
    kinds = [k for c in union_classes(info.annotation) if (k := kind_of(c))]
    if kinds:
        yield Field(f"{dotted}.kind", str, kind_of(type(value)), info.description or "", tuple(kinds))
    for field in walk(value, f"{dotted}."):
        if field.name != f"{dotted}.kind":
            yield field


def class_at(model: type[BaseModel], path: tuple[Any, ...]) -> type[BaseModel] | None:
    """Settings class reached by a validation path (field names, union tags, positions)."""
    found: tuple[type[BaseModel], ...] = (model,)
    for part in path:
        found = _step(found, part)
    return found[0] if len(found) == 1 else None


def _step(classes: tuple[type[BaseModel], ...], part: Any) -> tuple[type[BaseModel], ...]:
    if isinstance(part, int):
        return classes
    tagged = tuple(c for c in classes if kind_of(c) == part)
    if len(classes) > 1 and tagged:
        return tagged
    opened = [
        union_classes(c.model_fields[part].annotation) or _items(c.model_fields[part].annotation)
        for c in classes
        if part in c.model_fields
    ]
    return tuple(dict.fromkeys(c for group in opened for c in group))


def _items(annotation: Any) -> tuple[type[BaseModel], ...]:
    """Settings classes inside a tuple or list type."""
    return tuple(c for a in get_args(annotation) for c in union_classes(a))


def apply_overrides(model: type[BaseModel], content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """New plain content with dotted `changes`; ``kind`` changes are applied first."""
    ordered = sorted(changes.items(), key=lambda item: (not item[0].endswith(".kind"), item[0].count(".")))
    result = content
    for name, value in ordered:
        result = _set(model, result, name.split("."), value, name)
    return result


def _set(model: type[BaseModel] | None, content: Any, path: list[str], value: Any, full: str) -> Any:
    head, rest = path[0], path[1:]
    if isinstance(content, list) and head.isdigit() and int(head) < len(content):
        return [
            _set(None, item, rest, value, full) if i == int(head) and rest else (value if i == int(head) else item)
            for i, item in enumerate(content)
        ]
    if not isinstance(content, dict):
        raise ConfigError(
            f"{full}: there is nothing below {'.'.join(full.split('.')[: -len(path)])}", "Set the whole value instead"
        )
    if model is not None and head not in model.model_fields:
        raise ConfigError(f"Unknown setting {full!r}", nearest(head, model.model_fields))
    if not rest:
        return _assign(model, content, head, value)
    child = model.model_fields[head].annotation if model else None
    inner = content.get(head)
    return {**content, head: _set_child(child, {} if inner is None else inner, rest, value, full)}


def _set_child(annotation: Any, inner: Any, rest: list[str], value: Any, full: str) -> Any:
    classes = union_classes(annotation) if annotation is not None else ()
    if rest == ["kind"] and len(classes) > 1:
        if isinstance(inner, dict) and inner.get("kind") == value:
            return inner
        return {"kind": value}
    chosen = (
        classes[0]
        if len(classes) == 1
        else next((c for c in classes if isinstance(inner, dict) and kind_of(c) == inner.get("kind")), None)
    )
    return _set(chosen, inner, rest, value, full)


def _assign(model: type[BaseModel] | None, content: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    cleared = {
        other: None
        for group in getattr(model, "exclusive", ())
        if name in group
        for other in group
        if other != name and value is not None
    }
    return {**content, **cleared, name: value}
