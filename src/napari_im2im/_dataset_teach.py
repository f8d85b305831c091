"""Corrections of a prediction: a Labels layer that begins as the prediction; its pixels are made in a thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from im2im_core.axes import from_tczyx
from napari_im2im._later import Later
from napari_im2im._layer_pairs import (
    LABELLING,
    LABELS_OF,
    PREFILLED,
    TAUGHT_FROM,
    LayerPair,
    is_guess,
    polygons_of,
    region_layers,
)
from napari_im2im._layers import AXES_KEY, COPIED_BYTES, layer_axes

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Labels, Layer
    from numpy.typing import NDArray

    from napari_im2im._dataset_collect import Collecting
    from napari_im2im._dataset_regions import Regions
    from napari_im2im._dataset_said import Said

HOW_TO_CORRECT = (
    "Correct a corner (1 is background, every number from 2 is a nucleus, key M gives a new number), "
    "then draw a rectangle around it: only what lies inside is learned from"
)

OPACITY = 0.35
"""Of corrections, which cover everything: background is painted too, and the image must be seen through it."""


class Teaching(QObject):
    """Lets a person correct predictions; what becomes of a prediction is in the table once its pixels are made."""

    failed = Signal(object)
    """Error of the thread."""

    def __init__(
        self, viewer: Viewer, collecting: Collecting, regions: Regions, said: Said, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._viewer, self._collecting, self._regions, self._said = viewer, collecting, regions, said
        self._later = Later(self)

    def teach(self, images: tuple[Layer, ...], prediction: Layer, model: str) -> None:
        """Corrections of `prediction`, which `model` made of `images`; the brush is in hand when they are there."""
        self._collecting.recall()
        pairs = self._collecting.pairs()
        earlier = next((pair.target for pair in pairs if pair.images == images and is_guess(pair)), None)
        correction = correction_of(self._viewer, images[0], prediction, earlier, model)
        waiting = None
        if int(np.prod(correction.prediction.shape)) * 4 > COPIED_BYTES:
            waiting = self._said.bar.add(f"The labels of “{prediction.name}” are made ready to be corrected")

        def ready(made: tuple[Any, int]) -> None:
            self._said.end(waiting)
            if {*images, prediction} <= set(self._viewer.layers):
                painted = add_correction(self._viewer, correction, made[0])
                self._show(images, prediction, painted, made[1])

        def failed(error: BaseException) -> None:
            self._said.end(waiting)
            self.failed.emit(error)

        self._later.ask(f"teach {images[0].unique_id.hex}", correction.labels, ready, failed)

    def _show(self, images: tuple[Layer, ...], prediction: Layer, painted: Labels, number: int) -> None:
        """Corrections take the place of other labels of the image."""
        prediction.visible = False
        others = [p for p in self._collecting.pairs() if p.images != images and p.target is not prediction]
        self._collecting.take_pairs([*others, LayerPair(images, painted)])
        self._viewer.layers.selection.active = painted
        painted.selected_label = number
        painted.mode = "paint"
        self._said.bar.add(HOW_TO_CORRECT, "info", "", "Draw the rectangle", self._regions.draw)


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
    layer = viewer.add_labels(labels, opacity=OPACITY, **correction.look)
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
