"""How wide the objects in an image look: a quick classical estimate, where nobody says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

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


def look_at(image: Image) -> float | None:
    """Width of objects in the middle plane of the first time point and channel, pixels; None where none stand out."""
    _, _, z, y, x = image.info.shape
    rows, columns = _middle(y), _middle(x)
    plane = image.read((slice(0, 1), slice(0, 1), slice(z // 2, z // 2 + 1), rows, columns))[0, 0, 0]
    return object_width(plane)


def object_width(plane: NDArray[Any]) -> float | None:
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


def _foreground(smooth: NDArray[Any]) -> NDArray[np.bool_] | None:
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


# ---- what to tell a prediction ----


def estimated_diameter(image: Image, inference: Inference, override: float | Literal["auto"] = "auto") -> float | None:
    """Width by which to scale `image`, pixels; None where its voxel size or `override` decides, or nothing stands out.

    Reads pixels of the middle of the image.
    """
    rescale = inference.input.rescale
    trained = rescale.diameter if rescale.kind == "object_size" else inference.input.object_diameter
    if override != "auto" or not trained or voxels_decide(inference, image.info.voxel_size):
        return None
    width = look_at(image)
    return None if width is None else worth_telling(width, trained)


def voxels_decide(inference: Inference, voxel_size: VoxelSize) -> bool:
    """Whether the voxel sizes of model and image are both known, so that no estimate is needed."""
    rescale = inference.input.rescale
    wanted = rescale.voxel_size if rescale.kind == "voxel_size" else inference.input.voxel_size
    return rescale.kind != "object_size" and bool(wanted[2] and voxel_size[2])


def worth_telling(width: float, trained: float) -> float:
    """Width to scale by: the estimate where it clearly differs from what the model expects, else the latter."""
    return trained if 1 / CLEARLY <= width / trained <= CLEARLY else width
