"""What the width of the objects in an image, and its voxel size, mean for a model, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from im2im_core.errors import DataError
from im2im_core.object_size import voxels_decide, worth_telling
from im2im_core.rescale import rescaling

if TYPE_CHECKING:
    from im2im_core.image import VoxelSize
    from im2im_core.inference import Inference

DECIDES = 2.0
"""Sizes that differ by less than this factor are not worth a warning."""


# ---- in words ------------------------------------------------------------------


@dataclass(frozen=True)
class SizeAdvice:
    """What a model will do about the size of the objects or pixels."""

    text: str
    """For the panel."""
    diameter: float | None
    """What to tell the prediction; None where the voxel size or the user's factor decides."""
    level: Literal["info", "warning"] = "info"


def advise(
    inference: Inference,
    voxel_size: VoxelSize,
    width: float | None,
    *,
    told: bool = False,
    override: float | Literal["auto"] = "auto",
) -> SizeAdvice:
    """What happens to an image of `voxel_size` whose objects are `width` pixels wide.

    Parameters
    ----------
    told : bool
        The user gave the width; an estimate counts only where the voxel size says nothing.
    override : float or "auto"
        Factor that the user demands.
    """
    trained = inference.input
    dimensions = inference.shapes.dimensions
    diameter = None
    if override == "auto" and width and trained.object_diameter:
        if told:
            diameter = width
        elif not voxels_decide(inference, voxel_size):
            diameter = worth_telling(width, trained.object_diameter)
    try:
        found = rescaling(trained, voxel_size, dimensions, override=override, object_diameter=diameter)
    except DataError as error:
        return SizeAdvice(f"{error.message}. {error.cure}", None, "warning")
    factor = found.factor[-1]
    text = f"{_objects(width, trained.object_diameter)}{_voxels(found.reason, trained.voxel_size, voxel_size)}"
    scaled = _scaled(factor)
    if found.unsure:
        why = "Neither the voxel size nor the width of the objects is known, so the image is used as it is."
        return SizeAdvice(why if any(trained.voxel_size) or trained.object_diameter else "", None, "warning")
    warning = _contradiction(width, trained.object_diameter, factor, told)
    return SizeAdvice(f"{text}{scaled}.{warning}", diameter, "warning" if warning else "info")


def advise_each(inference: Inference, told: float | None, *, override: float | Literal["auto"] = "auto") -> SizeAdvice:
    """What happens to several images, each of which is scaled on its own.

    Parameters
    ----------
    told : float, optional
        Width of the objects in all of them, as the user gave it.
    """
    trained = inference.input
    if override != "auto":
        return SizeAdvice(f"Each image will be scaled by {override:.2f}.", None)
    if told and trained.object_diameter:
        factor = trained.object_diameter / told
        return SizeAdvice(f"{_objects(told, trained.object_diameter)}each image will be scaled by {factor:.2f}.", told)
    ways = [
        words
        for words, known in (("its voxel size", any(trained.voxel_size)), ("its objects", trained.object_diameter))
        if known
    ]
    return SizeAdvice(f"Each image will be scaled by {' or '.join(ways)}." if ways else "", None)


def _objects(width: float | None, trained: float | None) -> str:
    if width is None or trained is None:
        return ""
    return f"Objects in your image look about {width:.0f} px wide; the model expects {trained:.0f}; "


def _voxels(reason: str, trained: VoxelSize, image: VoxelSize) -> str:
    if reason != "voxel size" or trained[2] is None or image[2] is None:
        return ""
    return f"pixels are {image[2]:.3g} µm, the model learned from {trained[2]:.3g} µm; "


def _scaled(factor: float) -> str:
    if abs(factor - 1) < 0.005:
        return "the image keeps its size"
    return f"the image will be scaled by {factor:.2f}"


def _contradiction(width: float | None, trained: float | None, factor: float, told: bool) -> str:
    """A warning where the voxel size and the look of the objects disagree."""
    if width is None or trained is None or told:
        return ""
    seen = width * factor / trained
    if 1 / DECIDES <= seen <= DECIDES:
        return ""
    return f" Objects would then be {width * factor:.0f} px wide: correct the width or the voxel size if that is wrong."
