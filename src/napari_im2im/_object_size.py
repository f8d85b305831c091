"""How wide the objects in an image look, and what that means for a model: a quick classical estimate, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from im2im_core.errors import DataError
from im2im_core.rescale import rescaling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.image import Image, VoxelSize
    from im2im_core.inference import Inference

LOOKED_AT = 1024
"""Width of the part in the middle of the image that is looked at, pixels."""
SMALLEST = 5.0
"""Below this width, what is found is noise."""
FEWEST = 3
SEPARATED = 0.68
"""Part of the variance that lies between the two classes; noise alone gives 2/π = 0.64."""
CLEARLY = 1.2
"""An estimate within this factor of what the model expects is taken for the same."""
DECIDES = 2.0
"""Sizes that differ by less than this factor are not worth a warning."""


def look_at(image: Image) -> float | None:
    """Width of objects in the middle plane of the first time point and channel, pixels; None where none stand out."""
    _, _, z, y, x = image.info.shape
    rows, columns = _middle(y), _middle(x)
    plane = image.read((slice(0, 1), slice(0, 1), slice(z // 2, z // 2 + 1), rows, columns))[0, 0, 0]
    return object_width(plane)


def object_width(plane: NDArray) -> float | None:
    """Diameter of a disc of the mean area of the bright (or dark) objects in ``(Y, X)``, pixels; None without objects.

    Foreground by Otsu's threshold, objects by the peaks of the distance to its rim, so that
    touching ones count each.
    """
    from scipy.ndimage import distance_transform_edt, gaussian_filter, label, maximum_filter

    bright = _foreground(gaussian_filter(np.nan_to_num(plane.astype(np.float32)), 1.5))
    if bright is None:
        return None
    distance = distance_transform_edt(bright)
    parts, count = label(bright)
    widest = np.zeros(count + 1)
    np.maximum.at(widest, parts.ravel(), distance.ravel())
    kept = widest > SMALLEST / 2
    if not kept.any():
        return None
    typical = float(np.median(widest[kept]))
    ridge = gaussian_filter(distance, typical / 4)
    peaks = (ridge == maximum_filter(ridge, size=2 * round(typical * 0.7) + 1)) & (distance > typical / 2)
    number = label(peaks, np.ones((3, 3)))[1]
    area = float(np.count_nonzero(kept[parts]))
    return 2 * float(np.sqrt(area / (number * np.pi))) if number >= FEWEST else None


def _foreground(smooth: NDArray) -> NDArray[np.bool_] | None:
    """The brighter or darker class of pixels, whichever is smaller; None where the two are one."""
    from skimage.filters import threshold_otsu

    variance = float(smooth.var())
    if variance == 0:
        return None
    bright = smooth > threshold_otsu(smooth)
    share = float(bright.mean())
    if share in (0.0, 1.0):
        return None
    apart = float(smooth[bright].mean() - smooth[~bright].mean())
    if share * (1 - share) * apart**2 < SEPARATED * variance:
        return None
    found: NDArray[np.bool_] = ~bright if share > 0.5 else bright
    return found


def _middle(size: int) -> slice:
    start = max(0, (size - LOOKED_AT) // 2)
    return slice(start, min(size, start + LOOKED_AT))


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
    if override == "auto" and width and (told or not _voxels_decide(inference, voxel_size)):
        diameter = _worth_telling(width, trained.object_diameter, told)
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


def own_diameter(image: Image, inference: Inference, override: float | Literal["auto"]) -> float | None:
    """What to tell the prediction of `image`, by an estimate of its own; reads pixels, so not for the main thread."""
    if not inference.input.object_diameter:
        return None
    return advise(inference, image.info.voxel_size, look_at(image), override=override).diameter


def _voxels_decide(inference: Inference, voxel_size: VoxelSize) -> bool:
    """Whether the voxel sizes of model and image are both known, so that no estimate is needed."""
    rescale = inference.input.rescale
    wanted = rescale.voxel_size if rescale.kind == "voxel_size" else inference.input.voxel_size
    return rescale.kind != "object_size" and bool(wanted[2] and voxel_size[2])


def _worth_telling(width: float, trained: float | None, told: bool) -> float | None:
    """Width to scale by: what the user told, or an estimate that clearly differs from what the model expects."""
    if trained is None:
        return None
    near = 1 / CLEARLY <= width / trained <= CLEARLY
    return trained if near and not told else width


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
