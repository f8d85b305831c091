"""Further images that a model takes together with the first: one choice of a layer for each of its inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QWidget

from napari_im2im._layers import is_image_layer, layer_shape, take_snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari import Viewer
    from napari.layers import Layer

    from im2im_core.bundle.foreign import ForeignInput
    from napari_im2im._layers import Snapshot


class MoreImages(QWidget):
    """Choice of one layer per input after the first; hidden for models that take one image.

    Its owner calls `forget_viewer` at its end.
    """

    valueChanged = Signal()

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._inputs: tuple[ForeignInput, ...] = ()
        self._first: Layer | None = None
        self._layers: list[Layer] = []
        self._combos: dict[str, QComboBox] = {}
        self._recalled: dict[str, str] = {}
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        events = viewer.layers.events
        self._links = [events.inserted, events.removed, events.reordered, events.renamed]
        for emitter in self._links:
            emitter.connect(self._on_layers)
        self.hide()

    # ---- public API ----

    def value(self) -> dict[str, Layer | None]:
        """Layer of each further input by its name; None where none is chosen."""
        return {name: self._layer(combo) for name, combo in self._combos.items()}

    def setValue(self, layers: Mapping[str, Layer]) -> None:
        """Choose layers by the names of their inputs."""
        for name, layer in layers.items():
            if name in self._combos and layer in self._layers:
                self._combos[name].setCurrentIndex(self._layers.index(layer))

    def set_inputs(self, inputs: Sequence[ForeignInput]) -> None:
        """Show one choice for each of `inputs`, which are those after the first."""
        if tuple(inputs) == self._inputs:
            return
        self._inputs = tuple(inputs)
        for combo in self._combos.values():
            self._form.removeRow(combo)
        self._combos = {given.name: self._add_row(given) for given in inputs}
        self.setVisible(bool(self._combos))
        self._on_layers()

    def set_first(self, layer: Layer | None) -> None:
        """The layer that is chosen as the first input, so that the others begin with further ones of its size."""
        if layer is not self._first:
            self._first = layer
            self._on_layers()

    def snapshots(self) -> dict[str, Snapshot]:
        """Snapshot of each chosen layer by the name of its input.

        Raises
        ------
        DataError
            The dimensions of a layer are not known.
        """
        return {name: take_snapshot([layer]) for name, layer in self.value().items() if layer is not None}

    def missing(self) -> str:
        """Name of an input for which no layer is chosen; empty where all have one."""
        return next((name for name, layer in self.value().items() if layer is None), "")

    def names(self) -> dict[str, str]:
        """Name of the chosen layer of each input."""
        return {name: layer.name for name, layer in self.value().items() if layer is not None}

    def recall(self, names: Mapping[str, Any]) -> None:
        """Choose layers by their names as soon as there are such inputs."""
        self._recalled = {str(name): str(layer) for name, layer in names.items()}
        self._on_layers()

    def forget_viewer(self) -> None:
        """Stop watching the viewer."""
        for emitter in self._links:
            emitter.disconnect(self._on_layers)
        self._links.clear()

    # ---- parts and handlers ----

    def _add_row(self, given: ForeignInput) -> QComboBox:
        combo = QComboBox()
        combo.setAccessibleName(given.name)
        combo.setToolTip(given.description or f"The image that the model takes as “{given.name}”")
        combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        combo.setMinimumContentsLength(12)
        combo.setPlaceholderText("Choose an image")
        combo.currentIndexChanged.connect(lambda: self.valueChanged.emit())
        self._form.addRow(given.name, combo)
        return combo

    def _layer(self, combo: QComboBox) -> Layer | None:
        index = combo.currentIndex()
        return self._layers[index] if 0 <= index < len(self._layers) else None

    def _on_layers(self, event: Any = None) -> None:
        """Show the layers that there are now; what was chosen stays chosen."""
        before = self.value()
        self._layers = [layer for layer in reversed(self._viewer.layers) if is_image_layer(layer)]
        taken: list[Layer | None] = [self._first]
        for name, combo in self._combos.items():
            combo.blockSignals(True)
            combo.clear()
            combo.addItems([layer.name for layer in self._layers])
            wanted = before[name] if before[name] in self._layers and before[name] not in taken else None
            layer = wanted or self._preferred(name, taken)
            combo.setCurrentIndex(self._layers.index(layer) if layer is not None else -1)
            combo.blockSignals(False)
            taken.append(layer)
        if self._combos:
            self.valueChanged.emit()

    def _preferred(self, name: str, taken: list[Layer | None]) -> Layer | None:
        """The layer of that name, else the next of the size of the first that is not taken yet."""
        free = [layer for layer in self._layers if layer not in taken]
        recalled = [layer for layer in free if layer.name == self._recalled.get(name)]
        named = [layer for layer in free if layer.name.casefold() == name.casefold()]
        first = self._first
        same = [y for y in free if first is not None and layer_shape(y) == layer_shape(first)]
        return next(iter([*recalled, *named, *same]), None)
