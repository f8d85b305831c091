"""Old recipes lifted to today's schema by pure dict -> dict functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from im2im_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA_VERSION = 1
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Version -> function that lifts that version to the next one."""


def lift(content: Any) -> Any:
    """Content of the current schema version; anything that is not a mapping is returned as it is.

    Raises
    ------
    ConfigError
        The file is newer than this program or its version is not a number.
    """
    if not isinstance(content, dict):
        return content
    version = content.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or version < 1:
        raise ConfigError(f"schema_version is {version!r}", f"Use a number from 1 to {SCHEMA_VERSION}")
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"schema_version is {version}, this program knows up to {SCHEMA_VERSION}", "Update napari-im2im"
        )
    while version < SCHEMA_VERSION:
        content = MIGRATIONS[version](content)
        version += 1
        content = {**content, "schema_version": version}
    return content
