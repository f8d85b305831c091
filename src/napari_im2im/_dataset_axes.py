"""What the dimensions of layers are where only a person can say: told, and taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_im2im._dataset_source import AXES_CHOICES
from napari_im2im._layers import AXES_KEY, axes_choices, layer_axes, set_axes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari.layers import Layer

    from napari_im2im._layer_pairs import LayerPair

BEFORE = "axes_before"
"""Key in the metadata of a layer whose axes a person told: what stood there before; empty where nothing did."""


def tell_axes(layers: Iterable[Layer], axes: str | None) -> None:
    """Keep the answer with the layers that it fits; without one, take back what was told.

    Layers of which nothing is known and that lack just the channels, as labels of a stack with
    channels do, have the other axes.
    """
    for layer in layers:
        if axes is None:
            _take_back(layer)
            continue
        plain = axes.replace("S", "")
        if layer.ndim == len(plain) - 1 and layer_axes(layer) is None:
            plain = plain.replace("C", "")
        if layer.ndim == len(plain):
            before = layer.metadata.get(BEFORE, layer.metadata.get(AXES_KEY, ""))
            set_axes(layer, plain)
            layer.metadata = {**layer.metadata, BEFORE: before}


def _take_back(layer: Layer) -> None:
    if BEFORE not in layer.metadata:
        return
    rest = {key: value for key, value in layer.metadata.items() if key not in (AXES_KEY, BEFORE)}
    before = layer.metadata[BEFORE]
    layer.metadata = {**rest, AXES_KEY: before} if before else rest


def layers_of(pairs: Iterable[LayerPair]) -> list[Layer]:
    """Layers of all `pairs`, each once."""
    return list(dict.fromkeys(layer for pair in pairs for layer in (*pair.images, pair.target)))


def unclear_layers(pairs: Iterable[LayerPair]) -> list[Layer]:
    """Layers of `pairs` of which only a person can say what their dimensions are."""
    return [layer for layer in layers_of(pairs) if layer_axes(layer) is None]


def question(unclear: Sequence[Layer]) -> tuple[str, tuple[str, ...]]:
    """Question about the first of the layers that are `unclear`, and all answers to it, the usual ones first."""
    first = unclear[0]
    others = sum(layer.ndim == first.ndim for layer in unclear) - 1
    more = f", as {others} more layers have" if others > 1 else ", as another layer has" if others else ""
    answers = sorted(axes_choices(first), key=lambda axes: AXES_CHOICES.index(axes.replace("S", "")))
    return f"The layer “{first.name}” has {first.ndim} dimensions that can be several things{more}", tuple(answers)
