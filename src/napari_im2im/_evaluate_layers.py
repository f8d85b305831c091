"""Layers around a comparison: which two are compared, what is known of the truth, and what went wrong as a layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_core.axes import from_tczyx
from napari_im2im._evaluate_words import Side
from napari_im2im._evaluate_work import ERROR_KINDS, PIXEL_KINDS, Known
from napari_im2im._layer_pairs import LABELS_OF, is_prefilled, labelling_of, polygons_of, region_layers
from napari_im2im._layers import (
    OURS,
    is_image_layer,
    is_labels,
    is_result,
    is_users,
    layer_axes,
    layer_shape,
    set_axes,
    take_snapshot,
)

if TYPE_CHECKING:
    import numpy as np
    from napari import Viewer
    from napari.layers import Layer

    from napari_im2im._evaluate_work import Comparison
    from napari_im2im._layers import Snapshot

COLOURS = {
    "missed": "#e6550d",
    "extra": "#3182bd",
    "merged": "#e7298a",
    "split": "#ffd92f",
    "confused": "#e7298a",
}
"""Colours of the kinds of mistakes, apart for most colour-blind people too."""
MISTAKES = "mistakes"
"""What the layer over objects or pixels that went wrong is called, and the mark of all layers that show mistakes."""
DIFFERENCE = "difference"
"""What the layer with prediction minus truth is called."""
DIVERGING = "PiYG"
"""Colours of differences: pink where the prediction is too dark, white where it is right, green where too bright."""


# ---- choosing ------------------------------------------------------------------


def guess_sides(
    layers: list[Layer], prediction: Layer | None, truth: Layer | None
) -> tuple[Layer | None, Layer | None]:
    """Which layer is the prediction and which the truth: those chosen before, else as far as the layers tell."""
    if prediction not in layers:
        prediction = next((layer for layer in _predictions(layers) if layer is not truth), None)
    if truth not in layers or truth is prediction:
        truth = next((layer for layer in _truths(layers, prediction) if layer is not prediction), None)
    return prediction, truth


def _predictions(layers: list[Layer]) -> list[Layer]:
    """What may be judged, the likeliest first: results that are no probabilities, then what the user brought."""
    results = [layer for layer in layers if is_result(layer) and _facts(layer).get("kind") != "probability"]
    labels = [layer for layer in layers if is_users(layer) and is_labels(layer)]
    images = [layer for layer in layers if is_users(layer) and is_image_layer(layer)]
    return [*sorted(results, key=lambda layer: not is_labels(layer)), *labels, *(images if len(images) > 1 else [])]


def _truths(layers: list[Layer], prediction: Layer | None) -> list[Layer]:
    """What may be right about `prediction`, the likeliest first: labels for labels, images for images.

    Neither what was predicted from nor labels that began as a prediction are the truth; a person may choose these.
    """
    if prediction is None:
        return []
    alike = is_labels if is_labels(prediction) else is_image_layer
    began = _facts(prediction).get("image")
    users = [layer for layer in layers if is_users(layer) and alike(layer) and layer.name != began]
    made = [layer for layer in users if not is_prefilled(layer)]
    made.sort(key=lambda layer: labelling_of(layer) == "sparse")
    fits = [layer for layer in made if layer_shape(layer) == layer_shape(prediction)]
    return fits if alike is is_image_layer else [*fits, *(layer for layer in made if layer not in fits)]


def _facts(layer: Layer) -> dict[str, Any]:
    found = layer.metadata.get("im2im")
    return found if isinstance(found, dict) else {}


# ---- reading -------------------------------------------------------------------


def known_of(viewer: Viewer, truth: Layer) -> Known:
    """What `truth` says of its pixels.

    Dense labels are known everywhere, but where a region names them: then somebody labelled a part.
    """
    if not is_labels(truth):
        return Known()
    labelling, prefilled, key = labelling_of(truth), is_prefilled(truth), truth.unique_id.hex
    shapes = region_layers(viewer)
    if labelling == "dense" and not prefilled:
        shapes = [layer for layer in shapes if layer.metadata.get(LABELS_OF) == key]
    return Known("sparse" if labelling == "sparse" else "dense", tuple(polygons_of(shapes, truth)), prefilled)


def side_of(layer: Layer) -> Side:
    """Name of the layer, and the file that it was opened from."""
    path = Path(str(layer.source.path)) if layer.source.path and is_users(layer) else None
    return Side(layer.name, path)


def snapshots_of(prediction: Layer, truth: Layer) -> tuple[Snapshot, Snapshot]:
    """Snapshots of both; where one says its dimensions, the other has the same."""
    known = layer_axes(truth) or layer_axes(prediction)
    for layer in (prediction, truth):
        if known and layer_axes(layer) is None and layer.ndim == len(known.replace("S", "")):
            set_axes(layer, known)
    return take_snapshot([prediction]), take_snapshot([truth])


def axes_of(layer: Layer) -> str:
    """Axes of the pixels, the likeliest ones where nobody said them; colours are no axis."""
    return (layer_axes(layer) or "TZYX"[-layer.ndim :]).replace("S", "")


# ---- showing -------------------------------------------------------------------


def show_wrong(viewer: Viewer, comparison: Comparison, truth: Layer | None) -> Layer | None:
    """Layer over `truth` with what is wrong in each pixel; it takes the place of that of an earlier comparison.

    Kinds of mistakes have their colours, and the status line names the kind under the pointer.
    """
    for old in [layer for layer in viewer.layers if layer.metadata.get(OURS) == MISTAKES]:
        viewer.layers.remove(old)
    if comparison.wrong is None or truth is None or truth not in viewer.layers:
        return None
    axes, wrong = axes_of(truth), comparison.wrong
    if "C" not in axes and wrong.shape[1] > 1:  # colours of an RGB image
        wrong = wrong.mean(axis=1, keepdims=True) if wrong.dtype.kind == "f" else wrong.max(axis=1, keepdims=True)
    space: dict[str, Any] = {name: getattr(truth, name) for name in ("scale", "translate", "units", "axis_labels")}
    space["metadata"] = {OURS: MISTAKES, "axes": axes}
    pixels = from_tczyx(wrong, axes)
    if comparison.report.kind == "image":
        look = {"name": DIFFERENCE, "colormap": DIVERGING, "opacity": 0.8, "rgb": False}
        return viewer.add_image(pixels, contrast_limits=(-comparison.span, comparison.span), **look, **space)
    return _mistakes(viewer, pixels, ERROR_KINDS if comparison.report.kind == "labels" else PIXEL_KINDS, space)


def _mistakes(viewer: Viewer, pixels: np.ndarray, kinds: tuple[str, ...], space: dict[str, Any]) -> Layer:
    from napari.utils.colormaps import DirectLabelColormap

    colours: dict[int | None, Any] = {i: COLOURS[kind] for i, kind in enumerate(kinds, start=1)}
    return viewer.add_labels(
        pixels,
        name=MISTAKES,
        colormap=DirectLabelColormap(color_dict={**colours, None: "transparent", 0: "transparent"}),
        features={"index": list(range(1, len(kinds) + 1)), "mistake": list(kinds)},
        **space,
    )
