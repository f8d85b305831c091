"""environment.json: versions, machine, seeds and data of an attempt, so that it can be understood years later."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from importlib import metadata
from typing import TYPE_CHECKING, Any

from im2im_core.files import write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from im2im_core.runs import Run

DISTRIBUTION = "napari-im2im"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def write_environment(
    run: Run,
    device: str = "",
    seeds: Mapping[str, int] | None = None,
    data: Mapping[str, str] | None = None,
) -> None:
    """Keep versions, platform, device, seeds and the hash of each input file."""
    content = {
        **describe_environment(),
        "device": device,
        "seeds": dict(seeds or {}),
        "data": dict(data or {}),
    }
    write_json(run.folder / "environment.json", content)


def describe_environment() -> dict[str, Any]:
    """Versions of Python, of this package and of all it needs, and the machine; imports nothing of it."""
    return {
        "time": time.time(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": platform.machine(),
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    needed = [found[0] for line in metadata.requires(DISTRIBUTION) or () if (found := _NAME.match(line))]
    return {name: version for name in (DISTRIBUTION, *needed) if (version := _version(name))}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
