"""Looks at a folder and decides which layout it has; says what it saw where none fits."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import field_validator

from im2im_core._base import Config
from im2im_core.errors import DataError
from im2im_core.layouts.base import (
    SampleFiles,
    check_group_pattern,
    image_stem,
    list_folders,
    list_images,
)
from im2im_core.layouts.nnunet import NnunetLayout, is_nnunet
from im2im_core.layouts.presplit import PreSplitLayout, part_folders
from im2im_core.layouts.subfolders import SubfolderLayout, folder_named
from im2im_core.layouts.suffix import SuffixLayout
from im2im_core.layouts.table import TABLE_ENDINGS, TableLayout, read_rows, tables_in

FOLDER_NAMES = tuple(
    (source, target)
    for source in ("IM", "images", "image", "inputs", "input")
    for target in ("GT", "masks", "mask", "labels", "label", "targets", "target")
)
"""Pairs of folders that are looked for, in this order."""
SUFFIXES = (("_IM", "_GT"), ("", "_masks"), ("", "_mask"), ("", "_labels"), ("", "_label"), ("", "_GT"))
"""Pairs of suffixes that are looked for, in this order."""
ACCEPTED = (
    "Accepted are: X_IM.tiff with X_GT.tiff in one folder (X.tiff with X_masks.tiff too); folders IM and GT "
    "(or images and masks) with equal file names; folders train, val and test with one of these in each; "
    "a CSV table with columns IM and GT; a raw data set of nnU-Net"
)

Found = SuffixLayout | SubfolderLayout | TableLayout | PreSplitLayout | NnunetLayout


class AutoLayout(Config):
    """The layout is found out by looking at the folder."""

    kind: Literal["auto"] = "auto"
    group_pattern: str | None = None
    """Regular expression; its first parentheses name the group in a sample name. Not given: each image its own."""

    _check_pattern = field_validator("group_pattern")(check_group_pattern)

    def detect(self, root: Path) -> Found:
        """Layout that `root` has.

        Raises
        ------
        DataError
            None fits; says what was seen and what is accepted.
        """
        if root.is_file() and root.suffix.lower() in TABLE_ENDINGS:
            return TableLayout(group_pattern=self.group_pattern)
        if not root.is_dir():
            what = "is not a folder or CSV table" if root.exists() else "does not exist"
            raise DataError(f"{root} {what}", "Name a folder or a CSV table")
        if is_nnunet(root):
            return NnunetLayout(group_pattern=self.group_pattern)
        if "train" in part_folders(root):
            return PreSplitLayout(group_pattern=self.group_pattern)
        found = _subfolders(root, self.group_pattern) or _suffixes(root, self.group_pattern)
        return found or _table(root, self.group_pattern)

    def find(self, root: Path) -> tuple[SampleFiles, ...]:
        """Samples below `root`, by the layout it has.

        Raises
        ------
        DataError
            No layout fits, or files are missing or doubled.
        """
        return self.detect(root).find(root)


def detect_pairs(folder: Path, group_pattern: str | None) -> SuffixLayout | SubfolderLayout:
    """Suffix or subfolder layout that `folder` has.

    Raises
    ------
    DataError
        Neither fits; says what was seen.
    """
    found = _subfolders(folder, group_pattern) or _suffixes(folder, group_pattern)
    if found is None:
        raise _not_understood(folder)
    return found


def _subfolders(root: Path, group_pattern: str | None) -> SubfolderLayout | None:
    for source, target in FOLDER_NAMES:
        if folder_named(root, source) and folder_named(root, target):
            weight = next((n for n in ("CM", "weights", "weight") if folder_named(root, n)), "CM")
            return SubfolderLayout(
                source_folder=source, target_folders=(target,), weight_folder=weight, group_pattern=group_pattern
            )
    return None


def _suffixes(root: Path, group_pattern: str | None) -> SuffixLayout | None:
    stems = [image_stem(p) for p in list_images(root)]
    for source, target in SUFFIXES:
        # With an empty source suffix one pair must really fit, else any name that ends so would decide.
        pairs = [s for s in stems if s.endswith(target) and (source or s.removesuffix(target) in stems)]
        if pairs or (source and any(s.endswith(source) for s in stems)):
            return SuffixLayout(source_suffix=source, target_suffixes=(target,), group_pattern=group_pattern)
    return None


def _table(root: Path, group_pattern: str | None) -> TableLayout:
    tables = tables_in(root)
    if len(tables) != 1:
        raise _not_understood(root)
    read_rows(tables[0])
    return TableLayout(file=tables[0].name, group_pattern=group_pattern)


def _not_understood(root: Path) -> DataError:
    """Error that says what is in `root`."""
    images = [p.name for p in list_images(root)]
    folders = [p.name for p in list_folders(root)]
    tables = [p.name for p in tables_in(root)]
    kinds = (("images", images), ("folders", folders), ("tables", tables))
    seen = ", ".join(f"{len(names)} {kind}{_some(names)}" for kind, names in kinds)
    return DataError(f"{root} has no pairs of images and targets; there are {seen}", ACCEPTED)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f" ({shown})" if names else ""
