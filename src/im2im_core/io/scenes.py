"""Scenes by number or name."""

from __future__ import annotations

from pathlib import Path

from im2im_core.errors import DataError, nearest


def unique_names(names: list[str]) -> tuple[str, ...]:
    """`names` in order, with a number after those that occur again."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return tuple(result)


def pick_scene(path: Path, names: tuple[str, ...], scene: int | str) -> int:
    """Number of the scene.

    Raises
    ------
    DataError
        There is no such scene; the message lists those that are.
    """
    if isinstance(scene, str) and scene in names:
        return names.index(scene)
    if isinstance(scene, int) and 0 <= scene < len(names):
        return scene
    cure = nearest(scene, names) if isinstance(scene, str) else f"Its scenes are 0 to {len(names) - 1}"
    raise DataError(f"{path} has no scene {scene!r}", cure)
