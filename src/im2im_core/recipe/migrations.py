"""Old recipes lifted to today's schema by pure dict -> dict functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from im2im_core.errors import ConfigError

Migration = Callable[[dict[str, Any]], dict[str, Any]]
SCHEMA_VERSION = 2


def _start_is_a_choice(content: dict[str, Any]) -> dict[str, Any]:
    """Version 2: ``training.start_from``, a path or nothing, became the choice ``training.start``."""
    training = content.get("training")
    if not isinstance(training, dict) or "start_from" not in training:
        return content
    rest = {name: value for name, value in training.items() if name != "start_from"}
    model = training["start_from"]
    start = {"kind": "new"} if model is None else {"kind": "model", "model": model}
    return {**content, "training": {**rest, "start": start}}


MIGRATIONS: dict[int, Migration] = {1: _start_is_a_choice}
"""Version -> function that lifts that version to the next one."""


def lift(content: Any) -> Any:
    """Content of a recipe in the current schema version; anything that is not a mapping is returned as it is.

    Raises
    ------
    ConfigError
        The file is newer than this program or its version is not a number.
    """
    return lift_by(content, MIGRATIONS, SCHEMA_VERSION)


def lift_by(content: Any, migrations: Mapping[int, Migration], current: int) -> Any:
    """Content in the version `current`, lifted step by step.

    Raises
    ------
    ConfigError
        It is newer than this program or its version is not a number.
    """
    if not isinstance(content, dict):
        return content
    version = content.get("schema_version", current)
    if not isinstance(version, int) or version < 1:
        raise ConfigError(f"schema_version is {version!r}", f"Use a number from 1 to {current}")
    if version > current:
        raise ConfigError(f"schema_version is {version}, this program knows up to {current}", "Update napari-im2im")
    while version < current:
        content = migrations[version](content)
        version += 1
        content = {**content, "schema_version": version}
    return content
