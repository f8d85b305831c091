"""Settings of the losses: by name with arguments, each with its weight and how that changes over the training."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from im2im_core.recipe.fields import kind_of
from im2im_core.recipe.losses.base import OUTPUTS, ClassesLoss, ImageLoss, LossBase, Output, RegionLoss
from im2im_core.recipe.losses.class_path import ClassLoss
from im2im_core.recipe.losses.classes import (
    Boundary,
    CenterlineDice,
    Connectivity,
    CrossEntropy,
    Dice,
    Focal,
    GeneralizedDice,
    Hausdorff,
    Lovasz,
    Topology,
    Tversky,
)
from im2im_core.recipe.losses.images import L1, L2, SSIM, FourierRing, Huber, MultiScaleSSIM, Perceptual
from im2im_core.recipe.losses.schedule import AlwaysOn, Ramp, ScheduleSettings, StartAt
from im2im_core.recipe.plugins import with_plugins

if TYPE_CHECKING:
    LossSettings = (
        L1
        | L2
        | Huber
        | SSIM
        | MultiScaleSSIM
        | FourierRing
        | Perceptual
        | Dice
        | GeneralizedDice
        | CrossEntropy
        | Focal
        | Tversky
        | Lovasz
        | Boundary
        | Hausdorff
        | CenterlineDice
        | Topology
        | Connectivity
        | ClassLoss
    )
else:
    LossSettings = with_plugins(
        "loss",
        L1,
        L2,
        Huber,
        SSIM,
        MultiScaleSSIM,
        FourierRing,
        Perceptual,
        Dice,
        GeneralizedDice,
        CrossEntropy,
        Focal,
        Tversky,
        Lovasz,
        Boundary,
        Hausdorff,
        CenterlineDice,
        Topology,
        Connectivity,
        ClassLoss,
    )


def outputs_of(loss: LossSettings | type[LossSettings]) -> tuple[Output, ...]:
    """Outputs that a loss can learn; one of another package that does not say is asked for both."""
    found: tuple[Output, ...] = getattr(loss, "fits", OUTPUTS)
    return found


def kinds_for(output: Output) -> list[str]:
    """Kinds of all losses that can learn `output`."""
    return [str(kind_of(cls)) for cls in get_args(LossSettings) if output in outputs_of(cls)]


def factor_of(loss: LossSettings, used: float) -> float:
    """Factor of a loss when the part `used` of the budget is spent; one of another package may have no schedule."""
    schedule: ScheduleSettings = getattr(loss, "schedule", AlwaysOn())
    return schedule.factor(used)


__all__ = [
    "L1",
    "L2",
    "SSIM",
    "AlwaysOn",
    "Boundary",
    "CenterlineDice",
    "ClassLoss",
    "ClassesLoss",
    "Connectivity",
    "CrossEntropy",
    "Dice",
    "Focal",
    "FourierRing",
    "GeneralizedDice",
    "Hausdorff",
    "Huber",
    "ImageLoss",
    "LossBase",
    "LossSettings",
    "Lovasz",
    "MultiScaleSSIM",
    "Output",
    "Perceptual",
    "Ramp",
    "RegionLoss",
    "ScheduleSettings",
    "StartAt",
    "Topology",
    "Tversky",
    "factor_of",
    "kinds_for",
    "outputs_of",
]
