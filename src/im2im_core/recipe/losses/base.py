"""What the settings of all losses share."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from im2im_core._base import Config
from im2im_core.recipe.losses.schedule import AlwaysOn, ScheduleSettings

Weight = Annotated[float, Ge(0)]
Output = Literal["image", "segmentation"]
"""What a network predicts: pixel values, or a class per pixel."""
OUTPUTS: tuple[Output, ...] = ("image", "segmentation")


class LossBase(Config):
    """What all losses share. Each loss respects the weight per pixel; weight 0 = unknown."""

    target: ClassVar[str]
    """Dotted name of the loss function, imported on use."""
    fits: ClassVar[tuple[Output, ...]]
    """Outputs that it can learn."""
    weight: Weight = 1.0
    """Factor of this term in the sum."""
    schedule: ScheduleSettings = AlwaysOn()
    """How that factor changes over the training."""


class ImageLoss(LossBase):
    """Compares pixel values."""

    fits: ClassVar[tuple[Output, ...]] = ("image",)


class ClassesLoss(LossBase):
    """Compares a probability of each class with the class of each pixel."""

    fits: ClassVar[tuple[Output, ...]] = ("segmentation",)
    class_weights: tuple[Weight, ...] | None = None
    """Factor of each class, background first; equal where not given."""


class RegionLoss(ClassesLoss):
    """Compares regions class by class; the mean over the classes that count."""

    background: bool = False
    """Count the background as a class."""
