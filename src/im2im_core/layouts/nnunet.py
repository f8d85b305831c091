"""A raw data set of nnU-Net: ``imagesTr/CASE_0000.tif`` per channel, ``labelsTr/CASE.tif`` and ``dataset.json``.

Isensee et al., Nature Methods 18 (2021) 203.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from im2im_core._base import Config
from im2im_core.errors import DataError
from im2im_core.layouts.base import (
    FileProblem,
    FilesError,
    SampleFiles,
    check_group_pattern,
    files_error,
    group_of,
    pair,
    visible,
)
from im2im_core.samples import TARGET

if TYPE_CHECKING:
    from im2im_core.image import VoxelSize

ABOUT = "dataset.json"
IGNORE = "ignore"
"""Name of the label of pixels of which nothing is known."""
_CHANNEL = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class About:
    """What ``dataset.json`` says."""

    channels: tuple[str, ...]
    labels: dict[str, tuple[int, ...]]
    """Name of a class, or of a region made of several -> numbers."""
    ending: str
    count: int
    """Training cases."""
    listed: dict[str, Any] | None = None
    """Case -> its files, where these are listed one by one."""

    @property
    def ignored(self) -> int | None:
        """Label of pixels of which nothing is known."""
        return next((numbers[0] for name, numbers in self.labels.items() if name == IGNORE and numbers), None)

    @property
    def classes(self) -> tuple[int, ...]:
        """Numbers of all classes, background among them."""
        found = {n for name, numbers in self.labels.items() if name != IGNORE for n in numbers}
        return tuple(sorted(found | {0}))


class NnunetLayout(Config):
    """Raw data set of nnU-Net 2: imagesTr, labelsTr, dataset.json; imagesTs and labelsTs are the test part."""

    kind: Literal["nnunet"] = "nnunet"
    group_pattern: str | None = None
    """Regular expression; its first parentheses name the group in a case name. Not given: each case its own."""

    _check_pattern = field_validator("group_pattern")(check_group_pattern)

    def find(self, root: Path) -> tuple[SampleFiles, ...]:
        """Cases of `root`, those for training first.

        Raises
        ------
        DataError
            dataset.json is missing or not understood, or files are missing, doubled or of a format without a reader.
        """
        about = read_about(root)
        if about.listed is not None:
            return _listed(root, about, about.listed, self.group_pattern)
        files: list[SampleFiles] = []
        problems: list[FileProblem] = []
        folders = {"Tr": None, "Ts": "test"} if (root / "labelsTs").is_dir() else {"Tr": None}
        for ending in folders:
            try:
                found = _cases(root, ending, about, self.group_pattern)
            except FilesError as error:
                found = error.found
                problems += error.problems
            files += [replace(f, part="test") for f in found] if ending == "Ts" else found
        if problems:
            raise files_error(problems, files)
        return tuple(files)

    def doubts(self, root: Path, files: tuple[SampleFiles, ...]) -> tuple[FileProblem, ...]:
        """What `files` and dataset.json do not agree in, though they can be learned from.

        Raises
        ------
        DataError
            dataset.json is missing or not understood.
        """
        about, path = read_about(root), str(root / ABOUT)
        cases = [f for f in files if f.part != "test"]
        regions = [name for name, numbers in about.labels.items() if len(numbers) > 1]
        told: list[tuple[str, Any] | None] = [
            (f"{ABOUT} says {about.count} training cases, there are {len(cases)}", len(cases))
            if about.count != len(cases)
            else None,
            (f"{ABOUT} numbers the classes {about.classes}, with gaps", list(about.classes))
            if about.classes != tuple(range(len(about.classes)))
            else None,
            (f"the regions {', '.join(regions)} of {ABOUT} are learned as the classes that they are made of", regions)
            if regions
            else None,
        ]
        return tuple(FileProblem("", "dataset_json", text, path, value) for text, value in filter(None, told))


def is_nnunet(root: Path) -> bool:
    """Whether `root` looks like a raw data set of nnU-Net."""
    if (root / "imagesTr").is_dir():
        return True
    try:
        return '"file_ending"' in (root / ABOUT).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def read_about(root: Path) -> About:
    """What ``dataset.json`` in `root` says.

    Raises
    ------
    DataError
        It is missing, no JSON, or lacks something; or there is no reader for the format of the images.
    """
    from im2im_core.io import is_image

    path = root / ABOUT
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        channels = content.get("channel_names") or content["modality"]
        about = About(
            channels=tuple(str(channels[key]) for key in sorted(channels, key=int)),
            labels={str(name): _numbers(value) for name, value in content["labels"].items()},
            ending=str(content["file_ending"]),
            count=int(content["numTraining"]),
            listed=content.get("dataset"),
        )
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Cannot read {path}: {error}", "A data set of nnU-Net has this file; make it") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} is not as nnU-Net (version 2) has it: {type(error).__name__} {error}",
            "It needs channel_names, labels (name: number), numTraining and file_ending",
        ) from error
    if not is_image(f"image{about.ending}"):
        raise DataError(f"{path}: there is no reader for {about.ending}", "Convert the images and labels to OME-TIFF")
    return about


def _numbers(value: Any) -> tuple[int, ...]:
    """Numbers of a class, or of a region made of several."""
    return tuple(int(n) for n in value) if isinstance(value, (list, tuple)) else (int(value),)


# ---- files ----


def _cases(root: Path, ending: str, about: About, group_pattern: str | None) -> tuple[SampleFiles, ...]:
    """Cases in ``images`` and ``labels`` with an `ending` (Tr or Ts)."""
    by_channel: dict[int, list[tuple[str, Path]]] = {}
    problems: list[FileProblem] = []
    for path in _files(root / f"images{ending}", about.ending):
        found = _CHANNEL.fullmatch(_case(path, about.ending))
        if found is None:
            problems.append(FileProblem(path.name, "missing_partner", f"{path.name} has no channel number", str(path)))
            continue
        by_channel.setdefault(int(found[2]), []).append((found[1], path))
    labels = [(_case(p, about.ending), p) for p in _files(root / f"labels{ending}", about.ending)]
    try:
        files = pair(by_channel.get(0, ()), {TARGET: labels}, (), group_pattern)
    except FilesError as error:
        files = error.found
        problems += error.problems
    others = {number: dict(named) for number, named in by_channel.items() if number > 0}
    files = tuple(_complete(f, others, about, problems) for f in files)
    if problems:
        raise files_error(problems, files)
    return files


def _complete(
    item: SampleFiles, others: dict[int, dict[str, Path]], about: About, problems: list[FileProblem]
) -> SampleFiles:
    """Case with all its channels; those that are missing are added to `problems`."""
    # A single file may hold all channels, as RGB pictures do; what it lacks shows when it is opened.
    numbers = range(1, max(len(about.channels), 1 + max(others)) if others else 1)
    missing = [n for n in numbers if item.name not in others.get(n, {})]
    problems += [
        FileProblem(item.name, "missing_partner", f"{item.source.name} has no channel {n:04}", str(item.source), n)
        for n in missing
    ]
    paths = tuple(others[n][item.name] for n in numbers if n not in missing)
    return _described(replace(item, more_channels=paths), item.name, about)


def _described(item: SampleFiles, case: str, about: About) -> SampleFiles:
    """Case with what the files beside it say."""
    return replace(
        item,
        channel_names=about.channels,
        voxel_size=_spacing(item.source.parent / f"{case}.json"),
        ignored=about.ignored,
    )


def _spacing(path: Path) -> VoxelSize | None:
    """Voxel size Z, Y, X of the file beside a TIFF, which has no unit: micrometres; None where there is none.

    Raises
    ------
    DataError
        The file is there but holds no three sizes.
    """
    if not path.is_file():
        return None
    try:
        z, y, x = (float(size) for size in json.loads(path.read_text(encoding="utf-8"))["spacing"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} holds no spacing of three numbers", 'Write {"spacing": [z, y, x]}') from error
    return z, y, x


def _files(folder: Path, ending: str) -> list[Path]:
    return [p for p in visible(folder) if p.name.endswith(ending)]


def _case(path: Path, ending: str) -> str:
    return path.name[: len(path.name) - len(ending)]


def _listed(root: Path, about: About, listed: dict[str, Any], group_pattern: str | None) -> tuple[SampleFiles, ...]:
    """Cases whose files dataset.json lists one by one."""
    files: list[SampleFiles] = []
    problems: list[FileProblem] = []
    for case, entry in sorted(listed.items()):
        try:
            first, *more = (root / str(path) for path in entry["images"])
            label = root / str(entry["label"])
        except (KeyError, TypeError, ValueError) as error:
            text = f"{ABOUT} names no images and label of the case {case!r}"
            raise DataError(text, 'Write {"images": [...], "label": ...}') from error
        group, problem = group_of(case, group_pattern)
        gone = [p for p in (first, *more, label) if not p.exists()]
        problems += [FileProblem(case, "missing_partner", f"{p} does not exist", str(p)) for p in gone]
        problems += [problem] if problem else []
        item = SampleFiles(case, first, {} if label in gone else {TARGET: label}, None, group)
        if first not in gone:
            files.append(_described(replace(item, more_channels=tuple(p for p in more if p.exists())), case, about))
    if problems:
        raise files_error(problems, files)
    return tuple(files)
