"""A text that changes when the content of an image file may have changed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from im2im_core.image import Image

_WRITTEN = re.compile(r"(.+?)\|([^|]*)\|[^|]*\|\d+\|\d+", re.DOTALL)
"""Path, scene, axes, size and time, as `_text` writes them; more may follow where it is a part or several files."""


def file_identity(path: Path, scene: str, axes: str | None) -> str:
    """Path, scene, told axes, size and time of a file."""
    state = path.stat()
    return _text(path, scene, axes, state.st_size, state.st_mtime_ns)


def folder_identity(path: Path, parts: Iterable[Path], scene: str, axes: str | None) -> str:
    """Path, scene, told axes, number and newest time of `parts`: files, and folders with everything in them."""
    count = newest = 0
    for part in parts:
        if part.is_dir():
            inside, time = _tree(part)
            count, newest = count + inside, max(newest, time)
        elif part.exists():
            # A file that is replaced by an older one changes its folder.
            count, newest = count + 1, max(newest, part.stat().st_mtime_ns, part.parent.stat().st_mtime_ns)
    return _text(path, scene, axes, count, newest)


def _tree(folder: Path) -> tuple[int, int]:
    """Number of files below `folder`, and the newest time of files and folders."""
    count, newest, waiting = 0, folder.stat().st_mtime_ns, [os.fspath(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                newest = max(newest, entry.stat().st_mtime_ns)
                if entry.is_dir():
                    waiting.append(entry.path)
                else:
                    count += 1
    return count, newest


def _text(path: Path, scene: str, axes: str | None, size: int, time: int) -> str:
    return "|".join([str(path.resolve()), scene, axes or "", str(size), str(time)])


def file_of(image: Image) -> str:
    """File or folder that an image is read from, the first of several; empty where it is an array."""
    found = _WRITTEN.match(image.info.identity)
    return found[1] if found else ""


def scene_of(image: Image) -> str:
    """Name of the scene that an image is; empty where it is the only one of its file, or an array."""
    found = _WRITTEN.match(image.info.identity)
    return found[2] if found else ""
