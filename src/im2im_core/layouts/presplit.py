"""Folders ``train``, ``val`` and ``test`` that decide the split, each in a layout of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from im2im_core._base import Config
from im2im_core.errors import DataError
from im2im_core.layouts.base import (
    FileProblem,
    FilesError,
    Part,
    SampleFiles,
    check_group_pattern,
    files_error,
    list_folders,
)
from im2im_core.layouts.subfolders import SubfolderLayout, folder_named
from im2im_core.layouts.suffix import SuffixLayout

FOLDERS: dict[Part, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}
"""Accepted folder names of each part."""


class PreSplitLayout(Config):
    """Folders train, val (or valid, validation) and test; only train must exist."""

    kind: Literal["presplit"] = "presplit"
    inside: Annotated[SuffixLayout | SubfolderLayout, Field(discriminator="kind")] | None = None
    """Layout within each of the folders; found out where not given."""
    group_pattern: str | None = None
    """Regular expression; its first parentheses name the group in a sample name. Used where inside is not given."""

    _check_pattern = field_validator("group_pattern")(check_group_pattern)

    def find(self, root: Path) -> tuple[SampleFiles, ...]:
        """Samples of all parts, train first.

        Raises
        ------
        DataError
            There is no folder train, or files are missing or doubled in any part.
        """
        folders = part_folders(root)
        if "train" not in folders:
            seen = ", ".join(p.name for p in list_folders(root)) or "no folders"
            raise DataError(f"{root} has no folder 'train'; there is: {seen}", "Name the folders train, val and test")
        files: list[SampleFiles] = []
        problems: list[FileProblem] = []
        for part, folder in folders.items():
            try:
                found = self._layout(folder).find(folder)
            except FilesError as error:
                found = error.found
                problems += [replace(p, text=f"{folder.name}: {p.text}") for p in error.problems]
            files += [replace(f, part=part) for f in found]
        if problems:
            raise files_error(problems, files)
        return tuple(files)

    def _layout(self, folder: Path) -> SuffixLayout | SubfolderLayout:
        from im2im_core.layouts.auto import detect_pairs

        return self.inside or detect_pairs(folder, self.group_pattern)


def part_folders(root: Path) -> dict[Part, Path]:
    """Folder of each part that `root` has."""
    found = {part: next((f for n in names if (f := folder_named(root, n))), None) for part, names in FOLDERS.items()}
    return {part: folder for part, folder in found.items() if folder is not None}
