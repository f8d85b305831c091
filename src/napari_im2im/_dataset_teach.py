"""Corrections of a prediction: a Labels layer that begins as the prediction; its pixels are made in a thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.axes import from_tczyx
from napari_im2im._layer_pairs import LABELLING, LABELS_OF, PREFILLED, TAUGHT_FROM, polygons_of, region_layers
from napari_im2im._layers import AXES_KEY, layer_axes

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Labels, Layer
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Correction:
    """What corrections are made from, taken on the main thread; nothing is read or copied yet."""

    prediction: Any = field(repr=False)
    look: dict[str, Any] = field(repr=False)
    """Name, place and metadata of the new layer."""
    earlier: Layer | None = None
    """Corrections of an earlier prediction of the image: what was corrected there is taken over with its regions."""
    earlier_axes: str = ""
    regions: tuple[NDArray[Any], ...] = field(default=(), repr=False)
    """Where `earlier` was corrected, in its pixels."""

    def labels(self) -> tuple[NDArray[np.uint32], int]:
        """Sparse labels (1 is background, every object has its number plus one) and the first number that is free.

        Reads the pixels, so it is not for the main thread.

        Raises
        ------
        DataError
            The prediction has numbers that cannot rise by one.
        """
        from im2im_core.partial import from_prediction

        labels = from_prediction(np.asarray(self.prediction))
        if self.earlier is not None:
            labels = _with_corrections(labels, np.asarray(self.earlier.data), self.earlier_axes, self.regions)
        return labels, max(int(labels.max(initial=1)) + 1, 2)


def correction_of(
    viewer: Viewer, image: Layer, prediction: Layer, earlier: Layer | None = None, model: str = ""
) -> Correction:
    """Corrections of `prediction`, which was made of `image` by `model`; an earlier layer of another size is left."""
    pixels = prediction.data[0] if prediction.multiscale else prediction.data
    regions = () if earlier is None else tuple(polygons_of(region_layers(viewer), earlier))
    taken = earlier is not None and bool(regions) and tuple(earlier.data.shape) == tuple(pixels.shape)
    metadata = {LABELLING: "sparse", PREFILLED: True}
    metadata |= {AXES_KEY: prediction.metadata[AXES_KEY]} if AXES_KEY in prediction.metadata else {}
    metadata |= {TAUGHT_FROM: model} if model else {}
    space = {name: getattr(prediction, name) for name in ("scale", "translate", "units", "axis_labels")}
    return Correction(
        pixels,
        {"name": f"{image.name} · corrections", "metadata": metadata, **space},
        earlier if taken else None,
        "" if earlier is None else layer_axes(earlier) or "TZYX"[-earlier.ndim :],
        regions if taken else (),
    )


def add_correction(viewer: Viewer, correction: Correction, labels: NDArray[Any]) -> Labels:
    """New layer of `labels`; the regions of an earlier one are its own from now on."""
    layer = viewer.add_labels(labels, **correction.look)
    earlier = correction.earlier
    if earlier is not None:
        earlier.visible = False
        for shapes in region_layers(viewer):
            if shapes.metadata.get(LABELS_OF) == earlier.unique_id.hex:
                shapes.metadata = {**shapes.metadata, LABELS_OF: layer.unique_id.hex}
    return layer


def _with_corrections(
    labels: NDArray[np.uint32], earlier: NDArray[Any], axes: str, regions: tuple[NDArray[Any], ...]
) -> NDArray[np.uint32]:
    """`labels` with all that was corrected in `earlier`, under numbers that nothing else has."""
    from im2im_core.axes import to_tczyx
    from im2im_core.datasets import complete_regions
    from im2im_core.partial import only_inside

    found, old = to_tczyx(labels.copy(), axes), to_tczyx(earlier, axes)
    t, _, z, y, x = old.shape
    corrected = only_inside(old, complete_regions((t, 1, z, y, x), axes.replace("C", ""), list(regions)))
    corrected = corrected.astype(labels.dtype)
    corrected[corrected > 1] += labels.max(initial=1)
    found[corrected > 0] = corrected[corrected > 0]
    merged: NDArray[np.uint32] = from_tczyx(found, axes)
    return merged
