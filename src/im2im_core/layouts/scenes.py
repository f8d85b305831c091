"""Scenes of the files of a data set: fields of a plate, positions of a stage, series; each is a sample of its own."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from im2im_core.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from im2im_core.layouts.base import SampleFiles

Asked = tuple[int | str, ...] | None
"""Numbers or names of scenes; None for all of them."""


class UnclearScene(DataError):
    """It is not clear which scenes of two files belong together."""


@dataclass(frozen=True)
class SceneFiles:
    """The files of a sample, and which scene of them it is."""

    files: SampleFiles
    number: int = 0
    names: tuple[str, ...] = ()
    """Names of all scenes of the image; empty where it is the only one of its file."""
    alone: bool = True
    """Whether no other scene of the image is learned from."""


def by_scene(files: SampleFiles, names: tuple[str, ...], asked: Asked) -> tuple[SceneFiles, ...]:
    """The scenes of an image that are learned from; they are one group, as they may show one specimen.

    Where one is chosen, it keeps the name of the file.

    Parameters
    ----------
    names : tuple of str
        Names of all scenes of the image; empty where it is the only one of its file.

    Raises
    ------
    DataError
        There is no such scene; the message lists those that are.
    """
    from im2im_core.io.scenes import scene_number

    if not names:
        if files.scene is not None:
            scene_number(files.source, (files.source.name,), files.scene)
        return (SceneFiles(files),)
    wanted = asked if files.scene is None else (files.scene,)
    chosen = (scene_number(files.source, names, one) for one in wanted) if wanted else range(len(names))
    numbers = tuple(dict.fromkeys(chosen))
    if len(numbers) == 1:
        return (SceneFiles(files, numbers[0], names),)
    group = files.group or files.name
    return tuple(
        SceneFiles(replace(files, name=f"{files.name}:{names[n]}", group=group, scene=names[n]), n, names, alone=False)
        for n in numbers
    )


def partner_scene(path: Path, names: tuple[str, ...], scene: SceneFiles, asked: Asked) -> int:
    """Number of the scene of a target, weight or channel that belongs to a scene of an image.

    It has the same name; where no name is the same, the same number of as many. A file with one image belongs
    to the only scene that is learned from.

    Parameters
    ----------
    names : tuple of str
        Names of all scenes of the file `path`; empty where it holds one image.

    Raises
    ------
    UnclearScene
        None belongs to it for certain.
    """
    from im2im_core.io.scenes import scene_number

    if not names and scene.alone:
        return 0
    name = scene.names[scene.number] if scene.names else ""
    if name in names:
        return names.index(name)
    if len(names) == len(scene.names):
        return scene.number
    if names and not scene.names and asked and len(asked) == 1:
        with suppress(DataError):
            return scene_number(path, names, asked[0])
    source = scene.files.source.name
    raise UnclearScene(
        f"{source} has {_count(scene.names)}, {path.name} {_count(names)}: it is not clear which belong together",
        "Choose one with data.scenes, or save the files with the same scenes",
    )


def _count(names: tuple[str, ...]) -> str:
    from im2im_core.io.scenes import scenes_words

    return scenes_words(names) if names else "one image"
