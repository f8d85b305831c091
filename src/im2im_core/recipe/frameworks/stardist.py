"""Settings of instances as star-convex shapes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from annotated_types import Ge, Gt, Interval
from pydantic import model_validator

from im2im_core._base import Config

RAYS = {2: 32, 3: 64}
"""Rays where their number is automatic."""


class StarDistDecoding(Config):
    """How instances are made of the predicted shapes."""

    probability: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    """Pixels with a higher centre probability propose a shape; lower finds more objects."""
    overlap: Annotated[float, Interval(gt=0, lt=1)] = 0.4
    """A shape is dropped where it shares more than this part of the smaller one with a more probable shape."""
    refine: bool = True
    """Fit the rim of each shape to the predicted foreground; rays alone cut corners."""
    foreground: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    """Foreground probability at which refined rims lie; lower makes objects larger."""
    min_size: Annotated[int, Ge(0)] = 15
    """Smaller objects are dropped, pixels."""


class StarDistSettings(Config):
    """Instances as star-convex shapes, by their distances to the rim along rays (Schmidt et al. 2018)."""

    kind: Literal["stardist"] = "stardist"
    target: ClassVar[str] = "im2im_core.engine.frameworks.stardist:StarDist"
    learns_from: ClassVar[str] = "instance labels"
    tasks: ClassVar[tuple[str, ...]] = ("instance_segmentation",)
    scribbles: ClassVar[bool] = False
    rays: Annotated[int, Ge(8)] | Literal["auto"] = "auto"
    """Directions in which the rim is sought, a multiple of grid²; auto takes 32 in 2D and 64 in 3D."""
    grid: Literal[1, 2, 4] = 2
    """Distances are predicted once per grid × grid pixels of a plane; 1 for tiny objects, 4 for very large ones."""
    anisotropy: Annotated[float, Gt(0)] | Literal["auto"] = "auto"
    """Depth of a voxel relative to its width, which spreads the rays evenly in space; auto takes the voxel size."""
    diameter: Annotated[float, Gt(0)] | Literal["auto"] = "auto"
    """Typical diameter of the objects in Y and X, pixels; those of more than four times it are cut. Auto measures."""
    probability_weight: Annotated[float, Ge(0)] = 1.0
    """Factor of the cross entropy of the centre probability."""
    foreground_weight: Annotated[float, Ge(0)] = 1.0
    """Factor of the cross entropy of the foreground, which refines the rims."""
    distance_weight: Annotated[float, Ge(0)] = 0.2
    """Factor of the mean error of the distances, per pixel."""
    background_weight: Annotated[float, Ge(0)] = 1e-4
    """Factor of the mean distance in the background, which keeps it small where nothing is."""
    decoding: StarDistDecoding = StarDistDecoding()
    """How instances are made of the predicted shapes."""
    calibrate: bool = True
    """After training, choose the decoding that is best on the validation images."""

    @model_validator(mode="after")
    def _rays_fill_the_grid(self) -> Self:
        if self.rays != "auto" and self.rays % self.grid**2:
            fits = max(self.rays // self.grid**2, 1) * self.grid**2
            raise ValueError(
                f"rays {self.rays} is not a multiple of grid² = {self.grid**2}; use {fits} or {fits + self.grid**2}"
            )
        return self

    def ray_count(self, dimensions: int) -> int:
        """Number of rays of a network of that many dimensions."""
        return RAYS[dimensions] if self.rays == "auto" else self.rays
