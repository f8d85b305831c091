"""Settings of the learning frameworks, one class each; the engine class is named by `target`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Interval
from pydantic import Field

from im2im_core._base import Config
from im2im_core.recipe.losses import L1, L2, CrossEntropy, Dice, LossSettings
from im2im_core.recipe.plugins import with_plugins

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

    def loss_terms(self) -> tuple[LossSettings, ...]:
        """Terms that are used, the usual ones where none are named."""
        if self.losses:
            return self.losses
        return (Dice(), CrossEntropy()) if self.output == "segmentation" else (L1(), L2())


class InstanceDecoding(Config):
    """How instances are cut out of the predicted maps."""

    foreground: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    """Pixels with a higher foreground probability belong to an object."""
    seed: Annotated[float, Interval(gt=0, lt=1)] = 0.08
    """How much lower the map that separates objects must be between two of them; smaller cuts more."""
    smooth: Annotated[float, Ge(0)] = 1.0
    """Standard deviation of the Gaussian that smooths the seed map, pixels."""
    min_size: Annotated[int, Ge(0)] = 15
    """Smaller objects are dropped, pixels."""
    fill_holes: bool = True
    """Fill holes in objects."""


class InstanceSettings(Config):
    """Instances by watershed on predicted foreground and distance or boundary maps, learned from instance labels."""

    kind: Literal["instance"] = "instance"
    target: ClassVar[str] = "im2im_core.engine.frameworks.instance:Instance"
    learns_from: ClassVar[str] = "instance labels"
    tasks: ClassVar[tuple[str, ...]] = ("instance_segmentation",)
    maps: Literal["distance", "boundary"] = "distance"
    """What separates touching objects: the distance to the rim (1 at the centre), or the boundary."""
    boundary_width: Annotated[int, Ge(1)] = 1
    """Width of the boundary inside each object, pixels."""
    foreground_weight: Annotated[float, Ge(0)] = 1.0
    """Factor of the foreground terms (Dice + cross entropy)."""
    separation_weight: Annotated[float, Ge(0)] = 1.0
    """Factor of the distance or boundary term."""
    decoding: InstanceDecoding = InstanceDecoding()
    """How instances are cut out of the predicted maps."""
    calibrate: bool = True
    """After training, choose the decoding thresholds that are best on the validation images."""


if TYPE_CHECKING:
    FrameworkSettings = FcnSettings | InstanceSettings
else:
    FrameworkSettings = with_plugins("framework", FcnSettings, InstanceSettings)
