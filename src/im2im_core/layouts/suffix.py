"""One folder in which a suffix tells image, target and weight apart: ``X_IM.tiff``, ``X_GT.tiff``, ``X_CM.tiff``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import field_validator, model_validator

from im2im_core._base import Config
from im2im_core.errors import DataError
from im2im_core.layouts.base import SampleFiles, check_group_pattern, image_stem, list_images, pair, target_names


class SuffixLayout(Config):
    """One folder; a suffix before the ending says what a file is. Other files are left alone."""

    kind: Literal["suffix"] = "suffix"
    source_suffix: str = "_IM"
    """Suffix of images; may be empty where every other image has a suffix."""
    target_suffixes: tuple[str, ...] = ("_GT",)
    """Suffixes of targets; the first is the target, further ones are named by their suffix."""
    weight_suffix: str = "_CM"
    """Suffix of optional weight images (0 = unknown)."""
    group_pattern: str | None = None
    """Regular expression; its first parentheses name the group in a sample name. Not given: each image its own."""

    _check_pattern = field_validator("group_pattern")(check_group_pattern)

    @model_validator(mode="after")
    def _suffixes_differ(self) -> Self:
        suffixes = (self.source_suffix, *self.target_suffixes, self.weight_suffix)
        if not self.target_suffixes or not all(suffixes[1:]) or len(set(suffixes)) < len(suffixes):
            raise ValueError(f"suffixes {suffixes} must differ, and those of targets and weight must not be empty")
        return self

    def find(self, root: Path) -> tuple[SampleFiles, ...]:
        """Samples in `root`, sorted by name.

        Raises
        ------
        DataError
            No image has the suffix, or partners are missing or doubled.
        """
        found: dict[str, list[tuple[str, Path]]] = {}
        # The longest suffix decides, so that an empty source suffix takes what is left.
        suffixes = sorted((self.source_suffix, *self.target_suffixes, self.weight_suffix), key=len, reverse=True)
        images = list_images(root)
        for path in images:
            stem = image_stem(path)
            suffix = next((s for s in suffixes if stem.endswith(s) and len(stem) > len(s)), None)
            if suffix is not None:
                found.setdefault(suffix, []).append((stem[: len(stem) - len(suffix)], path))
        if not found:
            raise DataError(
                f"{root} has {len(images)} images, none named *{self.source_suffix} or *{self.target_suffixes[0]}",
                "Rename the files or change source_suffix and target_suffixes",
            )
        names = target_names(self.target_suffixes)
        targets = {n: found.get(s, []) for n, s in zip(names, self.target_suffixes, strict=True)}
        return pair(found.get(self.source_suffix, []), targets, found.get(self.weight_suffix, []), self.group_pattern)
