"""The recipe: everything that decides what is learned, as frozen settings."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from im2im_core.recipe.data import DataSettings
    from im2im_core.recipe.framework import FcnSettings, FrameworkSettings, InstanceSettings
    from im2im_core.recipe.migrations import SCHEMA_VERSION
    from im2im_core.recipe.network import NetworkSettings
    from im2im_core.recipe.root import Recipe
    from im2im_core.recipe.training import TrainingSettings

__all__ = [
    "SCHEMA_VERSION",
    "DataSettings",
    "FcnSettings",
    "FrameworkSettings",
    "InstanceSettings",
    "NetworkSettings",
    "Recipe",
    "TrainingSettings",
]

_PLACES = {
    "SCHEMA_VERSION": "migrations",
    "DataSettings": "data",
    "FcnSettings": "framework",
    "FrameworkSettings": "framework",
    "InstanceSettings": "framework",
    "NetworkSettings": "network",
    "Recipe": "root",
    "TrainingSettings": "training",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: all the classes of the settings take longer to make than a panel may take to open."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
