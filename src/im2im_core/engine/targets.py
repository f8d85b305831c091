"""Engine classes by the dotted name that a settings class carries."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from im2im_core.errors import ConfigError, nearest


def import_target(dotted: str) -> Any:
    """Class or function named by ``module:name``; the module is imported.

    Raises
    ------
    ConfigError
        The module or the name does not exist.
    """
    module_name, _, name = dotted.partition(":")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"target {dotted!r}: no module {error.name!r}", "Install the package that provides it"
        ) from error
    if not hasattr(module, name):
        public = [key for key in vars(module) if not key.startswith("_")]
        raise ConfigError(f"target {dotted!r}: {module_name} has no {name!r}", nearest(name, public))
    return getattr(module, name)
