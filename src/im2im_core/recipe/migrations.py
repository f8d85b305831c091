"""Old recipes lifted to today's schema by pure dict -> dict functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from im2im_core.errors import ConfigError

Migration = Callable[[dict[str, Any]], dict[str, Any]]
SCHEMA_VERSION = 4


def _start_is_a_choice(content: dict[str, Any]) -> dict[str, Any]:
    """Version 2: ``training.start_from``, a path or nothing, became the choice ``training.start``."""
    training = content.get("training")
    if not isinstance(training, dict) or "start_from" not in training:
        return content
    rest = {name: value for name, value in training.items() if name != "start_from"}
    model = training["start_from"]
    start = {"kind": "new"} if model is None else {"kind": "model", "model": model}
    return {**content, "training": {**rest, "start": start}}


def levels_by_axis(network: Any, dimensions: int) -> Any:
    """Settings of a network from when a list of flat levels stood for kernels and strides of a DynUNet."""
    if not isinstance(network, dict) or network.get("kind") != "dynunet":
        return network
    network = {"filters": [32, 64, 128, 256], **network}  # what was meant where nothing was said
    flat = network.pop("anisotropy", "auto")
    if isinstance(flat, str) or not isinstance(network["filters"], list | tuple):
        return network
    levels = [*flat, *[False] * (len(network["filters"]) - len(flat))]
    kernels = [_along_axes(3, dimensions, level) for level in levels]
    strides = [_along_axes(1, dimensions, False), *(_along_axes(2, dimensions, level) for level in levels[:-1])]
    return {**network, "strides": strides, "kernels": kernels}


def _along_axes(value: int, dimensions: int, flat: bool) -> list[int]:
    """`value` along each axis, 1 along Z of a flat level."""
    return [1 if flat and dimensions == 3 else value, *[value] * (dimensions - 1)]


def _levels_have_axes(content: dict[str, Any]) -> dict[str, Any]:
    """Version 3: the flat levels of a DynUNet became its kernels and strides."""
    data = content.get("data")
    dimensions = data.get("dimensions", 2) if isinstance(data, dict) else 2
    return {**content, "network": levels_by_axis(content["network"], dimensions)} if "network" in content else content


def _first_scene(content: dict[str, Any]) -> dict[str, Any]:
    """Version 4: all scenes of a file are learned from; until then the first alone was."""
    data = content.get("data")
    return {**content, "data": {"scenes": [0], **data}} if isinstance(data, dict) and data.get("path") else content


MIGRATIONS: dict[int, Migration] = {1: _start_is_a_choice, 2: _levels_have_axes, 3: _first_scene}
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
