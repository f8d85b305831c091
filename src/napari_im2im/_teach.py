"""From a prediction that is not right to labels that a person corrects: one click, brush in hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.errors import DataError
from im2im_core.partial import from_prediction

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Labels, Layer

    from napari_im2im._layers import Snapshot

PLUGIN, DATASET = "napari-im2im", "Dataset"


def teach(viewer: Viewer, source: Snapshot, prediction: Layer) -> Labels:
    """Labels layer prefilled from `prediction`, chosen and ready to paint, with the Dataset panel open beside it.

    Raises
    ------
    DataError
        The prediction has numbers that cannot rise by one.
    """
    layer = correction_layer(viewer, source, prediction)
    prediction.visible = False
    viewer.layers.selection.active = layer
    layer.mode = "paint"
    layer.selected_label = 1
    open_dataset(viewer)
    return layer


def correction_layer(viewer: Viewer, source: Snapshot, prediction: Layer) -> Labels:
    """Sparse labels over `prediction`: 1 is background, every object has its number plus one, 0 becomes unknown."""
    labels = from_prediction(np.asarray(prediction.data))
    space: dict[str, Any] = {name: getattr(prediction, name) for name in ("scale", "translate", "units", "axis_labels")}
    metadata = {"labelling": "sparse", "image": source.name, "axes": prediction.metadata.get("axes", "")}
    return viewer.add_labels(labels, name=f"{source.name} · corrections", metadata=metadata, **space)


def open_dataset(viewer: Viewer) -> Any:
    """The Dataset panel; an open one comes to the front.

    Raises
    ------
    DataError
        napari does not know it.
    """
    try:
        dock, widget = viewer.window.add_plugin_dock_widget(PLUGIN, DATASET)
    except (KeyError, ValueError, TypeError, ModuleNotFoundError) as error:
        raise DataError(
            "The Dataset panel could not be opened", f"Open it from Plugins > {PLUGIN}; the corrections are kept"
        ) from error
    dock.raise_()
    return widget
