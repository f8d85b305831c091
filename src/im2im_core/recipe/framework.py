"""The learning frameworks to choose from; the engine class of each is named by `target`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from im2im_core.recipe.frameworks.embedseg import EmbedSegDecoding, EmbedSegSettings
from im2im_core.recipe.frameworks.fcn import FcnSettings
from im2im_core.recipe.frameworks.flows import FlowsDecoding, FlowsSettings
from im2im_core.recipe.frameworks.instance import InstanceDecoding, InstanceSettings
from im2im_core.recipe.frameworks.stardist import StarDistDecoding, StarDistSettings
from im2im_core.recipe.plugins import with_plugins

if TYPE_CHECKING:
    FrameworkSettings = FcnSettings | InstanceSettings | FlowsSettings | EmbedSegSettings | StarDistSettings
else:
    FrameworkSettings = with_plugins(
        "framework", FcnSettings, InstanceSettings, FlowsSettings, EmbedSegSettings, StarDistSettings
    )

__all__ = [
    "EmbedSegDecoding",
    "EmbedSegSettings",
    "FcnSettings",
    "FlowsDecoding",
    "FlowsSettings",
    "FrameworkSettings",
    "InstanceDecoding",
    "InstanceSettings",
    "StarDistDecoding",
    "StarDistSettings",
]
