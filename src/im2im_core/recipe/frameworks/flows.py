"""Settings of instances by flow fields."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Interval

from im2im_core._base import Config


class FlowsDecoding(Config):
    """How pixels that follow the predicted flows become objects."""

    foreground: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    """Pixels with a higher foreground probability belong to an object."""
    flow_error: Annotated[float, Ge(0)] = 0.4
    """Objects are dropped whose flows differ more than this from those of their shape (mean square); 0 keeps all."""
    steps: Annotated[int, Ge(1)] = 200
    """Pixels that each pixel may go along the flows to its sink, at least; more for long objects."""
    min_size: Annotated[int, Ge(0)] = 15
    """Smaller objects are dropped, pixels."""
    fill_holes: bool = True
    """Fill holes in objects."""


class FlowsSettings(Config):
    """Instances by following predicted flows to the centre of each object, learned from instance labels."""

    kind: Literal["flows"] = "flows"
    target: ClassVar[str] = "im2im_core.engine.frameworks.flows:Flows"
    learns_from: ClassVar[str] = "instance labels"
    tasks: ClassVar[tuple[str, ...]] = ("instance_segmentation",)
    scribbles: ClassVar[bool] = False
    anisotropy: Annotated[float, Gt(0)] | Literal["auto"] = "auto"
    """Depth of a voxel relative to its width, over which heat spreads in an object; auto: from the voxel size."""
    flow_weight: Annotated[float, Ge(0)] = 0.5
    """Factor of the mean squared error of the flows, which are five long where it is taken."""
    foreground_weight: Annotated[float, Ge(0)] = 1.0
    """Factor of the cross entropy of the foreground."""
    decoding: FlowsDecoding = FlowsDecoding()
    """How pixels that follow the predicted flows become objects."""
    calibrate: bool = True
    """After training, choose the decoding thresholds that are best on the validation images."""
