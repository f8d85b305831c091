"""A text that changes when the content of an image file may have changed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def file_identity(path: Path, scene: str, axes: str | None) -> str:
    """Path, scene, told axes, size and time of a file."""
    state = path.stat()
    return _text(path, scene, axes, state.st_size, state.st_mtime_ns)


def folder_identity(path: Path, parts: Iterable[Path], scene: str, axes: str | None) -> str:
    """Path, scene, told axes, number and newest time of the metadata files `parts` and of their folders."""
    found = [p for p in parts if p.exists()]
    newest = max((s.stat().st_mtime_ns for p in found for s in (p, p.parent)), default=0)
    count = sum(1 for folder in {p.parent for p in found} for _ in folder.iterdir())
    return _text(path, scene, axes, count, newest)


def _text(path: Path, scene: str, axes: str | None, size: int, time: int) -> str:
    return "|".join([str(path.resolve()), scene, axes or "", str(size), str(time)])
