"""Scenes of the images that a command is given: fields of a plate, positions of a stage, series of a file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from im2im_core.errors import ConfigError, DataError, ResourceError


class Scene(NamedTuple):
    """One image of a file that has several."""

    path: Path
    name: str

    def __str__(self) -> str:
        """File and scene, as results call them."""
        return f"{self.path}:{self.name}"


def each_scene(jobs: Iterable[tuple[Path, Path]], asked: str | None, out: Path) -> list[tuple[Path | Scene, Path]]:
    """Each image with the file of its result; one with several scenes gives a result for each, named after it.

    Parameters
    ----------
    asked : str, optional
        Name or number of the only scene that is wanted.
    out : Path
        Where the results of the command go.

    Raises
    ------
    ConfigError
        Several scenes are to be written to one file.
    DataError
        There is no scene `asked`.
    """
    from im2im_core.io.scenes import scenes_words, unique_names

    found: list[tuple[Path | Scene, Path]] = []
    for path, target in jobs:
        names = _names(path)
        if asked is not None and names:
            found.append((Scene(path, named_scene(path, names, asked)), target))
        elif len(names) < 2:
            found.append((path, target))
        elif target == out:
            raise ConfigError(
                f"{path} has {scenes_words(names)}",
                "Name a folder after -o, or one of them with --scene",
            )
        else:
            files = (name.replace(" ", "-") for name in unique_names([_safe(name) for name in names]))
            found += [(Scene(path, name), _beside(target, file)) for name, file in zip(names, files, strict=True)]
    return found


def named_scene(path: Path, names: tuple[str, ...], asked: str) -> str:
    """Name of the scene that is called `asked`, or has that number.

    Raises
    ------
    DataError
        There is none; the message lists those that are.
    """
    from im2im_core.io.scenes import scene_number

    return names[scene_number(path, names, asked)]


def _names(path: Path) -> tuple[str, ...]:
    """Names of the scenes; none where the file cannot be read, which is said when its turn comes."""
    from im2im_core.io import scenes

    try:
        return scenes(path)
    except (DataError, ResourceError, OSError):
        return ()


def _safe(scene: str) -> str:
    """Name of a scene without characters that file systems do not like."""
    return re.sub(r"[^\w.+-]+", "-", scene).strip("-") or "scene"


def _beside(target: Path, scene: str) -> Path:
    """`target` with the scene in its name."""
    ending = next((e for e in (".ome.tif", ".ome.tiff", ".ome.zarr") if target.name.lower().endswith(e)), target.suffix)
    stem = target.name[: len(target.name) - len(ending)]
    return target.with_name(f"{stem}_{scene}{target.name[len(stem) :]}")
