"""Settings of one network from image to image."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge
from pydantic import Field

from im2im_core._base import Config
from im2im_core.recipe.losses import L1, L2, CrossEntropy, Dice, LossSettings

Loss = Annotated[LossSettings, Field(discriminator="kind")]


class FcnSettings(Config):
    """One network from image to image, learned from pairs: semantic segmentation, label-free, restoration."""

    kind: Literal["fcn"] = "fcn"
    target: ClassVar[str] = "im2im_core.engine.frameworks.fcn:Fcn"
    learns_from: ClassVar[str] = "pairs"
    tasks: ClassVar[tuple[str, ...]] = ("semantic_segmentation", "label_free", "restoration")
    output: Literal["image", "segmentation"] = "image"
    """image: predicts pixel values. segmentation: predicts a class per pixel."""
    classes: Annotated[int, Ge(2)] | Literal["auto"] = "auto"
    """Number of classes with the background; auto: from the labels."""
    output_channels: Annotated[int, Ge(1)] | Literal["auto"] = "auto"
    """Channels of a predicted image; auto: from the targets."""
    losses: tuple[Loss, ...] = ()
    """Terms of the loss; where empty: Dice + cross entropy for segmentation, L1 + L2 for images."""

    deep_supervision: Annotated[int, Ge(0)] = 0
    """Coarser levels of the network that learn too, each with half the weight of the next finer (Lee et al. 2015)."""

    def loss_terms(self) -> tuple[LossSettings, ...]:
        """Terms that are used, the usual ones where none are named."""
        if self.losses:
            return self.losses
        return (Dice(), CrossEntropy()) if self.output == "segmentation" else (L1(), L2())
