"""Settings of the losses: by name with arguments, each with its weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Gt

from im2im_core._base import Config
from im2im_core.recipe.classpath import ClassPath
from im2im_core.recipe.plugins import with_plugins

Weight = Annotated[float, Ge(0)]


class _Loss(Config):
    """What all losses share. Each loss respects the weight per pixel; weight 0 = unknown."""

    target: ClassVar[str]
    """Dotted name of the loss function, imported on use."""
    weight: Weight = 1.0
    """Factor of this term in the sum."""


class L1(_Loss):
    """Mean absolute difference."""

    kind: Literal["l1"] = "l1"
    target: ClassVar[str] = "im2im_core.engine.losses:L1"


class L2(_Loss):
    """Mean squared difference."""

    kind: Literal["l2"] = "l2"
    target: ClassVar[str] = "im2im_core.engine.losses:L2"


class Huber(_Loss):
    """Squared difference where small, absolute where large."""

    kind: Literal["huber"] = "huber"
    target: ClassVar[str] = "im2im_core.engine.losses:Huber"
    delta: Annotated[float, Gt(0)] = 1.0
    """Difference at which it changes from squared to absolute."""


class SSIM(_Loss):
    """One minus the structural similarity (Wang et al. 2004)."""

    kind: Literal["ssim"] = "ssim"
    target: ClassVar[str] = "im2im_core.engine.losses:SSIM"
    window: Annotated[int, Ge(3)] = 7
    """Width of the window, pixels."""


class Dice(_Loss):
    """One minus the Dice overlap of each class (Milletari et al. 2016)."""

    kind: Literal["dice"] = "dice"
    target: ClassVar[str] = "im2im_core.engine.losses:Dice"
    background: bool = False
    """Count the background as a class."""


class CrossEntropy(_Loss):
    """Cross entropy, binary for one output channel."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    target: ClassVar[str] = "im2im_core.engine.losses:CrossEntropy"
    class_weights: tuple[Weight, ...] | None = None
    """Factor of each class, background first; equal where not given."""


class Focal(_Loss):
    """Cross entropy that looks away from what is already right (Lin et al. 2017)."""

    kind: Literal["focal"] = "focal"
    target: ClassVar[str] = "im2im_core.engine.losses:Focal"
    gamma: Annotated[float, Ge(0)] = 2.0
    """How strongly easy pixels are ignored."""


class ClassLoss(ClassPath):
    """Any loss class by import path, called as ``loss(prediction, target)``; keeps one value per pixel."""

    target: ClassVar[str] = "im2im_core.engine.losses:FromClassPath"
    weight: Weight = 1.0
    """Factor of this term in the sum."""


if TYPE_CHECKING:
    LossSettings = L1 | L2 | Huber | SSIM | Dice | CrossEntropy | Focal | ClassLoss
else:
    LossSettings = with_plugins("loss", L1, L2, Huber, SSIM, Dice, CrossEntropy, Focal, ClassLoss)
