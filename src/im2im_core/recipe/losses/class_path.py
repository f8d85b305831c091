"""Settings of a loss that is named by its import path."""

from __future__ import annotations

from typing import ClassVar

from im2im_core.recipe.classpath import ClassPath
from im2im_core.recipe.losses.base import OUTPUTS, Output, Weight
from im2im_core.recipe.losses.schedule import AlwaysOn, ScheduleSettings


class ClassLoss(ClassPath):
    """Any loss class by import path, called as ``loss(prediction, target)``; keeps one value per pixel."""

    target: ClassVar[str] = "im2im_core.engine.losses.class_path:FromClassPath"
    fits: ClassVar[tuple[Output, ...]] = OUTPUTS
    weight: Weight = 1.0
    """Factor of this term in the sum."""
    schedule: ScheduleSettings = AlwaysOn()
    """How that factor changes over the training."""
