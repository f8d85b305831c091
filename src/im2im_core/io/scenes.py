"""Scenes by number or name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from im2im_core.errors import DataError, nearest
from im2im_core.io.identity import file_of

if TYPE_CHECKING:
    from im2im_core.image import Image

SHOWN = 5
"""Names of scenes that a message lists."""


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


def scene_number(path: Path, names: tuple[str, ...], asked: int | str) -> int:
    """Number of the scene that is called `asked`, or has that number, which may be written as text.

    Raises
    ------
    DataError
        There is none; the message lists those that are.
    """
    as_number = isinstance(asked, str) and asked.isdecimal() and asked not in names
    return pick_scene(path, names, int(asked) if as_number else asked)


def scenes_words(names: tuple[str, ...]) -> str:
    """For example ``3 scenes (A/1/0, A/1/1, B/12/0)``; of many the first."""
    more = " …" if len(names) > SHOWN else ""
    return f"{len(names)} scenes ({', '.join(names[:SHOWN])}{more})"


def require_one(image: Image, cure: str = "") -> Image:
    """The image itself, where it is the only one of its file.

    Parameters
    ----------
    cure : str
        What to do where it is not; how to name it in Python where not given.

    Raises
    ------
    DataError
        Its file has several scenes; the message lists them.
    """
    names = image.info.scenes
    if not names:
        return image
    scene = f"scene={names[-1]!r}"
    in_python = f"Say which, by name or number from 0: predict(…, {scene}), or im2im_core.io.open_image(path, {scene})"
    raise DataError(f"{file_of(image)} has {scenes_words(names)}", cure or in_python)
