"""environment.json: versions, machine, seeds and data of an attempt, so that it can be understood years later."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from importlib import metadata
from typing import TYPE_CHECKING, Any

from im2im_core.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from im2im_core.runs import Run

DISTRIBUTION = "napari-im2im"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def write_environment(
    run: Run,
    device: str = "",
    seeds: Mapping[str, int] | None = None,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Keep versions, platform, device and seeds of this attempt, and what the run learns from."""
    content = {
        **describe_environment(),
        "device": device,
        "seeds": dict(seeds or {}),
        "data": dict(data or {}),
    }
    write_json(run.folder / "environment.json", content)


def read_data(run: Run) -> dict[str, Any]:
    """What the run learns from, as its first attempt wrote it; empty before that."""
    try:
        content = read_json(run.folder / "environment.json")["data"]
    except (OSError, ValueError, KeyError, TypeError):  # not there yet, or not to be read: it is written anew
        return {}
    return dict(content) if isinstance(content, dict) else {}


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
