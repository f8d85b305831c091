"""The recipe: everything that decides what is learned, as frozen settings."""

from __future__ import annotations

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
