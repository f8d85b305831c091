"""How a prediction is done: tiles, blending, precision, size, thresholds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from im2im_core._base import Config


class PredictOptions(Config):
    """Options of one prediction; the defaults suit a new image of the kind the model was trained on."""

    channels: tuple[int | str, ...] | None = None
    """Channels of the image that the model sees, by number or name; all where not given."""
    tile: tuple[Annotated[int, Ge(1)], ...] | Literal["auto"] = "auto"
    """Size of the tiles along Y, X or Z, Y, X in network pixels; auto: from the free memory."""
    batch: Annotated[int, Ge(1)] | Literal["auto"] = "auto"
    """Tiles computed at once; auto: from the size of a tile."""
    blending: Literal["gaussian", "linear", "none"] = "gaussian"
    """How neighbouring tiles are joined; none cuts them at a line."""
    max_cost: Annotated[float, Gt(1)] = 1.35
    """Pixels computed per pixel of the image that automatic tiles should not exceed."""
    test_time_augmentation: bool = False
    """Average over the mirrored images; 4 times the work in 2D, 8 times in 3D."""
    precision: Literal["32", "bf16", "16"] = "32"
    """Number format of the network; bf16 and 16 are faster and less exact."""
    rescale: Annotated[float, Gt(0)] | Literal["auto"] = "auto"
    """Magnification before the network; auto: from voxel or object size, 1 = none."""
    object_diameter: Annotated[float, Gt(0)] | Literal["auto"] | None = None
    """Typical diameter of the objects in the image, pixels; brings them to the size of the training. Auto looks."""
    foreground: Annotated[float, Interval(gt=0, lt=1)] | None = None
    """Replaces the model's foreground threshold."""
    seed_threshold: Annotated[float, Interval(gt=0, lt=1)] | None = None
    """Replaces the model's smallest height of a seed."""
    probability: Annotated[float, Interval(gt=0, lt=1)] | None = None
    """Replaces the model's least probability of a centre (star-convex shapes)."""
    overlap: Annotated[float, Interval(gt=0, lt=1)] | None = None
    """Replaces the model's largest part of a shape that a better one may cover (star-convex shapes)."""
    min_size: Annotated[int, Ge(0)] | None = None
    """Replaces the model's smallest object, pixels."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of models that draw samples."""
    overwrite: bool = False
    """Replace an output that exists."""
    resume: bool = False
    """Go on with an output that was stopped half-way."""

    def decoding(self) -> dict[str, float | int]:
        """Thresholds that replace those of the model, by their names in its decoding settings."""
        named = {
            "foreground": self.foreground,
            "seed": self.seed_threshold,
            "probability": self.probability,
            "overlap": self.overlap,
            "min_size": self.min_size,
        }
        return {name: value for name, value in named.items() if value is not None}


def output_path(path: Path, name: str, main: bool) -> Path:
    """File of an output: the main one has the path itself, others _NAME before the ending."""
    if main:
        return path
    stem, dot, rest = path.name.partition(".")
    return path.with_name(f"{stem}_{name}{dot}{rest}")
