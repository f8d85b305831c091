"""Is there room on the disk before a large file is begun."""

from __future__ import annotations

import shutil
from pathlib import Path

from im2im_core.errors import ResourceError

_RESERVE = 16 * 2**20  # metadata and other writers


def require_space(folder: Path, nbytes: int, what: str) -> None:
    """Return when `nbytes` fit on the disk of `folder`, which need not exist yet.

    Raises
    ------
    ResourceError
        Names the megabytes needed and free.
    """
    existing = next(p for p in (folder, *folder.resolve().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    need = nbytes + _RESERVE
    if free < need:
        raise ResourceError(
            f"{what} needs {need / 2**20:.0f} MB, {free / 2**20:.0f} MB are free in {existing}",
            "Free space or write to another disk",
        )
