"""Settings of instances by watershed on predicted maps."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Interval

from im2im_core._base import Config


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
    scribbles: ClassVar[bool] = False
    maps: Literal["distance", "boundary"] = "distance"
    """What separates touching objects: the distance to the rim (1 at the centre), or the boundary."""
    boundary_width: Annotated[int, Ge(1)] = 1
    """Width of the boundary inside each object, pixels."""
    foreground_weight: Annotated[float, Ge(0)] = 1.0
    """Factor of the foreground terms (Dice + cross entropy)."""
    separation_weight: Annotated[float, Ge(0)] = 1.0
    """Factor of the distance or boundary term."""
    touch_weight: Annotated[float, Ge(0)] = 0.0
    """How much more pixels count that lie between objects which touch; 0: all count alike."""
    decoding: InstanceDecoding = InstanceDecoding()
    """How instances are cut out of the predicted maps."""
    calibrate: bool = True
    """After training, choose the decoding thresholds that are best on the validation images."""
