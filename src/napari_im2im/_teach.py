"""From a prediction that is not right to labels that a person corrects: one click, brush in hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from im2im_core.errors import DataError
from napari_im2im._layers import is_image_layer
from napari_im2im._panels import open_panel

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

    from napari_im2im._layers import Snapshot


def teach(viewer: Viewer, source: Snapshot, prediction: Layer) -> None:
    """Prefill a Labels layer from `prediction`, ready to paint and paired with its image in the Dataset panel.

    A training on the corrections starts from the model whose path the prediction notes.

    Raises
    ------
    DataError
        The image is not open any more.
    """
    names = source_names(source)
    by_name = {layer.name: layer for layer in viewer.layers if is_image_layer(layer)}
    gone = [name for name in names if name not in by_name]
    if gone:
        raise DataError(f"The image “{gone[0]}” is not open any more", "Open it, and predict again")
    model = prediction.metadata.get("im2im", {}).get("model_path", "")
    open_panel(viewer, "Dataset").teach([by_name[name] for name in names], prediction, str(model))


def source_names(source: Snapshot) -> tuple[str, ...]:
    """Names of the layers that a prediction was made from."""
    return source.channels if len(source.arrays) > 1 else (source.name,)
