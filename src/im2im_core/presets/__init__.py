"""Ready tasks, one YAML file each, with the reason of every choice as a comment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from im2im_core.errors import ConfigError, nearest
from im2im_core.yamlfile import parse_yaml

if TYPE_CHECKING:
    from im2im_core.recipe import Recipe


@dataclass(frozen=True)
class PresetInfo:
    """A ready task."""

    name: str
    task: str
    framework: str
    """Kind of its framework."""
    summary: str
    """One sentence, from the first comment of the preset."""


def list_presets() -> tuple[PresetInfo, ...]:
    """All ready tasks that ship with the package."""
    return tuple(_describe(p.name.removesuffix(".yaml"), p.read_text(encoding="utf-8")) for p in _preset_files())


def _preset_files() -> list[Any]:
    found = [p for p in files("im2im_core.presets").iterdir() if p.name.endswith(".yaml")]
    return sorted(found, key=lambda p: p.name)


def _describe(name: str, text: str) -> PresetInfo:
    """What its lines say; to parse all presets would take as long as a panel may take to open."""
    summary = text.splitlines()[0].lstrip("# ").strip()
    return PresetInfo(name, _stated(text, "task:"), _stated(text, r"framework:\n +kind:"), summary)


def _stated(text: str, key: str) -> str:
    found = re.search(rf"^{key} (\w+)", text, re.MULTILINE)
    return found[1] if found else ""


def load_preset(name: str) -> Recipe:
    """Recipe of a ready task.

    Raises
    ------
    ConfigError
        There is no such preset; the message lists those that exist.
    """
    from im2im_core.recipe import Recipe

    for path in _preset_files():
        if path.name == f"{name}.yaml":
            return Recipe.load(parse_yaml(path.read_text(encoding="utf-8"), name))
    known = [p.name.removesuffix(".yaml") for p in _preset_files()]
    raise ConfigError(f"There is no preset {name!r}", nearest(name, known))
