"""Writes docs/reference.md from the settings classes: every field with its type, default and description."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pydantic import BaseModel

from im2im_core.recipe import Recipe
from im2im_core.recipe.fields import documented_fields, kind_of, union_classes

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
HEAD = """# Settings

Made from the settings classes by `python tools/make_reference.py`. A dotted name is the same on the
command line (`--training.minutes 10`), in YAML and in Python (`recipe.override({"training.minutes": 10})`).
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(render(), encoding="utf-8")


def render() -> str:
    """Text of the page."""
    seen: list[type[BaseModel]] = []
    sections = [_section(cls, name) for name, cls in _walk(Recipe, "recipe", seen)]
    return "\n".join([HEAD, *sections])


def _walk(cls: type[BaseModel], name: str, seen: list[type[BaseModel]]) -> Iterator[tuple[str, type[BaseModel]]]:
    if cls in seen:
        return
    seen.append(cls)
    yield name, cls
    for field, info in cls.model_fields.items():
        nested = union_classes(info.annotation) or tuple(c for a in get_args(info.annotation) for c in union_classes(a))
        for child in nested:
            inner = f"{name}.{field}".removeprefix("recipe.")
            kind = kind_of(child)
            yield from _walk(child, f"{inner} ({kind})" if kind else inner, seen)


def _section(cls: type[BaseModel], name: str) -> str:
    rows = [
        f"| `{field}` | {_default(info.get_default(call_default_factory=True))} | {_cell(info.description or '')} |"
        for field, info in documented_fields(cls).items()
        if field != "kind"
    ]
    text = (cls.__doc__ or "").strip()
    table = ["| setting | default | meaning |", "|---|---|---|", *rows] if rows else []
    return "\n".join([f"## {name}", "", text, "", *table, ""])


def _default(value: object) -> str:
    if isinstance(value, BaseModel):
        return f"`{kind_of(type(value)) or 'see below'}`"
    return "" if repr(value) == "PydanticUndefined" else f"`{_cell(str(value))}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
