"""One folder per role with equal file names: ``IM/x.tiff``, ``GT/x.png``, ``CM/x.tiff``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from annotated_types import MinLen
from pydantic import field_validator

from im2im_core._base import Config
from im2im_core.errors import DataError
from im2im_core.layouts.base import (
    Named,
    SampleFiles,
    check_group_pattern,
    image_stem,
    list_folders,
    list_images,
    pair,
    target_names,
)

TOLERATED = ("_masks", "_mask", "_labels", "_label", "_GT", "_CM", "_weight")
"""Endings that a target or weight may have beyond the name of its image."""


class SubfolderLayout(Config):
    """One folder per role; equal file names belong together, endings may differ."""

    kind: Literal["subfolders"] = "subfolders"
    source_folder: str = "IM"
    """Folder of the images."""
    target_folders: Annotated[tuple[str, ...], MinLen(1)] = ("GT",)
    """Folders of the targets; the first is the target, further ones are named by their folder."""
    weight_folder: str = "CM"
    """Folder of optional weight images (0 = unknown); it need not exist."""
    group_pattern: str | None = None
    """Regular expression; its first parentheses name the group in a sample name. Not given: each image its own."""

    _check_pattern = field_validator("group_pattern")(check_group_pattern)

    def find(self, root: Path) -> tuple[SampleFiles, ...]:
        """Samples below `root`, sorted by name.

        Raises
        ------
        DataError
            A folder is missing or empty, or partners are missing or doubled.
        """
        sources = [(image_stem(p), p) for p in list_images(_folder(root, self.source_folder))]
        if not sources:
            raise DataError(f"{root / self.source_folder} holds no images", "Put the images there")
        names = {name for name, _ in sources}
        folders = zip(target_names(self.target_folders), self.target_folders, strict=True)
        targets = {key: _partners(_folder(root, folder), names) for key, folder in folders}
        weight = folder_named(root, self.weight_folder)
        return pair(sources, targets, _partners(weight, names) if weight else (), self.group_pattern)


def folder_named(root: Path, name: str) -> Path | None:
    """Folder `name` in `root`, upper and lower case alike where there is no exact match; None if there is none."""
    exact = root / name
    if exact.is_dir():
        return exact
    return next((p for p in list_folders(root) if p.name.lower() == name.lower()), None)


def _folder(root: Path, name: str) -> Path:
    found = folder_named(root, name)
    if found is None:
        seen = ", ".join(p.name for p in list_folders(root)) or "no folders" if root.is_dir() else "nothing"
        raise DataError(f"{root} has no folder {name!r}; there is: {seen}", "Rename it or change the layout settings")
    return found


def _partners(folder: Path, names: set[str]) -> Named:
    return [(_sample_name(image_stem(p), names), p) for p in list_images(folder)]


def _sample_name(stem: str, names: set[str]) -> str:
    """Name of the sample that a target called `stem` belongs to; `stem` itself where none fits."""
    if stem in names:
        return stem
    shorter = (stem.removesuffix(ending) for ending in TOLERATED if stem.endswith(ending))
    return next((s for s in shorter if s in names), stem)
