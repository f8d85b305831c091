"""What to predict: a layer (or several as channels), all open images, or files; and which part of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QFormLayout, QHBoxLayout, QLabel, QToolButton, QWidget

from im2im_core.errors import DataError
from napari_im2im._icons import icon
from napari_im2im._layers import (
    axes_choices,
    is_image_layer,
    is_shapes,
    is_users,
    layer_axes,
    layer_shape,
    set_axes,
    take_snapshot,
)
from napari_im2im._regions import shapes_region, visible_region

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

    from im2im_core.axes import Region
    from napari_im2im._layers import Snapshot

WHOLE, VISIBLE = "The whole image", "What is visible"
AXIS_WORDS = {"T": "time", "C": "channels", "Z": "planes", "S": "colours", "Y": "rows", "X": "columns"}
VISIBLE_ITEMS = 20
ALL, FILES = "all", "files"
"""Choices that are no single layer."""


class ImagePanel(QWidget):
    """Choice of the image; watches the layers of the viewer.

    Its owner calls `forget_viewer` at its end.
    """

    valueChanged = Signal()

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layers: list[Layer] = []
        self._files: tuple[Path, ...] = ()
        self._needs: tuple[int, tuple[str, ...]] = (1, ())
        self._image = _combo("Image", "The image that is predicted")
        self._image.currentIndexChanged.connect(self._on_image)
        self._axes = _combo("Dimensions", "What the dimensions of the image are")
        self._axes.currentIndexChanged.connect(self._on_axes)
        self._part = _combo("Part", "Which part of the image is predicted")
        self._part.currentIndexChanged.connect(lambda: self.valueChanged.emit())
        self._slots: list[QComboBox] = []
        self._recalled: tuple[Layer | None, list[str]] = (None, [])
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._row = self._image_row()
        self._form.addRow("Image", self._row)
        self._form.addRow("Dimensions", self._axes)
        self._form.addRow("Part", self._part)
        self._links = [(e, self._on_layers) for e in _layer_events(viewer)]
        for emitter, handler in self._links:
            emitter.connect(handler)
        self._on_layers()

    def _image_row(self) -> QWidget:
        row = QWidget()
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._image, 1)
        button = QToolButton()
        button.setIcon(icon("folder"))
        button.setToolTip("Predict files that are not open: images, or all images of a folder")
        button.setAccessibleName("Choose files")
        button.clicked.connect(self._on_files)
        layout.addWidget(button)
        return row

    # ---- public API ----

    def value(self) -> Layer | list[Layer] | tuple[Path, ...] | None:
        """The layer, or the list of all images that are open, or the files, or None."""
        index = self._image.currentIndex()
        if 0 <= index < len(self._layers):
            return self._layers[index]
        return {ALL: self._all(), FILES: self._files}.get(self._image.currentData())

    def setValue(self, value: Layer | list[Layer] | tuple[Path, ...]) -> None:
        """Choose a layer, all that are open (whichever the list names), or files."""
        if isinstance(value, tuple):
            self.offer_files(value)
        if isinstance(value, tuple | list):
            index = self._image.findData(FILES if isinstance(value, tuple) else ALL)
        else:
            index = self._layers.index(value) if value in self._layers else -1
        if index >= 0:
            self._image.setCurrentIndex(index)

    def files(self) -> tuple[Path, ...]:
        """The files that can be chosen, whether or not they are."""
        return self._files

    def offer_files(self, files: tuple[Path, ...]) -> None:
        """Put files into the list, in place of earlier ones."""
        self._files = files
        self._on_layers()

    def choices(self) -> dict[str, Any]:
        """Which part and which channels are chosen, as plain content."""
        return {"part": self._part.currentText(), "channels": [slot.currentText() for slot in self._slots]}

    def recall(self, choices: dict[str, Any]) -> None:
        """Choose a part and channels of the chosen layer by their names, where there are such."""
        self._part.setCurrentIndex(max(0, self._part.findText(str(choices.get("part", WHOLE)))))
        self._recalled = (self._layer(), [str(name) for name in choices.get("channels") or ()])
        self._fill_slots()

    def set_needs(self, channels: int, names: tuple[str, ...]) -> None:
        """Let the user say which channel is which, for a model that sees `channels` of them."""
        same, self._needs = self._needs == (channels, names), (channels, names)
        self._fill_slots(keep=same)

    def set_name(self, name: str) -> None:
        """Call the image as the model does; ``Image`` where it takes one alone."""
        label = self._form.labelForField(self._row)
        assert isinstance(label, QLabel)
        label.setText(name)
        self._image.setAccessibleName(name)

    def layers(self) -> list[Layer]:
        """The layers that are read: one, or one per channel."""
        layer = self._layer()
        if layer is None:
            return []
        chosen = [slot.currentData() for slot in self._slots]
        return chosen if chosen and all(not isinstance(c, int) for c in chosen) else [layer]

    def channels(self) -> tuple[int, ...] | None:
        """Channels of the image that the model sees; None for all."""
        chosen = [slot.currentData() for slot in self._slots]
        return tuple(chosen) if chosen and all(isinstance(c, int) for c in chosen) else None

    def snapshot(self, *, copy: bool = True) -> Snapshot:
        """Snapshot of the chosen layers.

        Raises
        ------
        DataError
            No image is chosen, or its dimensions are not known.
        """
        layers = self.layers()
        if not layers:
            raise DataError("No image is open", "Drag an image into napari, or choose files with the button beside")
        return take_snapshot(layers, copy=copy)

    def region(self, snapshot: Snapshot, dimensions: Literal[2, 3]) -> Region | None:
        """The chosen part; None for the whole image."""
        layer, part = self._layer(), self._part.currentData()
        if layer is None or part == WHOLE:
            return None
        if part == VISIBLE:
            return visible_region(self._viewer, layer, snapshot, dimensions)
        return shapes_region(part, layer, snapshot)

    def forget_viewer(self) -> None:
        """Stop watching the viewer."""
        for emitter, handler in self._links:
            emitter.disconnect(handler)
        self._links.clear()

    # ---- handlers ----

    def _layer(self) -> Layer | None:
        value = self.value()
        return None if isinstance(value, tuple | list) else value

    def _all(self) -> list[Layer]:
        """All images of the user."""
        return [layer for layer in self._layers if is_users(layer)]

    def _on_layers(self, event: Any = None) -> None:
        """Show the layers that there are now; what was chosen stays chosen."""
        before, other = self._layer(), self._image.currentData()
        self._layers = [layer for layer in reversed(self._viewer.layers) if is_image_layer(layer)]
        self._image.blockSignals(True)
        self._image.clear()
        for layer in self._layers:
            self._image.addItem(layer.name)
        if len(self._all()) > 1:
            self._image.addItem(f"All {len(self._all())} open images", ALL)
        if self._files:
            self._image.addItem(_file_words(self._files), FILES)
        self._image.setPlaceholderText("Choose an image" if self._image.count() else "Drag one into napari")
        wanted = before if before in self._layers else self._preferred()
        index = self._image.findData(other) if other else -1
        if index < 0:
            index = self._image.findData(FILES) if wanted is None else self._layers.index(wanted)
        self._image.setCurrentIndex(index)
        self._image.blockSignals(False)
        self._fill_parts()
        if self._layer() is not before or before is None:
            self._on_image()
        else:
            self._fill_slots(keep=True)

    def _preferred(self) -> Layer | None:
        """The selected image, else the topmost; what we added ourselves is never taken unasked."""
        users = [layer for layer in self._layers if is_users(layer)]
        active = self._viewer.layers.selection.active
        return active if active in users else next(iter(users), None)

    def _on_image(self) -> None:
        self._fill_axes()
        self._fill_slots()
        for row in (self._axes, self._part):
            self._form.setRowVisible(row, self._layer() is not None and (row is self._part or self._axes.count() > 0))
        self.valueChanged.emit()

    def _on_axes(self) -> None:
        layer, axes = self._layer(), self._axes.currentData()
        if layer is not None and axes:
            set_axes(layer, axes)
            self._fill_slots()
            self.valueChanged.emit()

    def _on_slot(self) -> None:
        self._recalled = (None, [])
        self.valueChanged.emit()

    def _on_files(self) -> None:
        paths, _ = QFileDialog.getOpenFileNames(self, "Images to predict; cancel to choose a folder instead")
        if not paths and (folder := QFileDialog.getExistingDirectory(self, "Folder of images to predict")):
            paths = [folder]
        if paths:
            self.setValue(tuple(Path(p) for p in paths))

    # ---- contents ----

    def _fill_parts(self) -> None:
        chosen = self._part.currentData()
        self._part.blockSignals(True)
        self._part.clear()
        for text in (WHOLE, VISIBLE):
            self._part.addItem(text, text)
        for layer in self._viewer.layers:
            if is_shapes(layer):
                self._part.addItem(f"Inside “{layer.name}”", layer)
        datas = [self._part.itemData(i) for i in range(self._part.count())]
        self._part.setCurrentIndex(next((i for i, d in enumerate(datas) if d is chosen), 0))
        self._part.blockSignals(False)

    def _fill_axes(self) -> None:
        layer = self._layer()
        self._axes.blockSignals(True)
        self._axes.clear()
        if layer is not None and layer.ndim > 2:
            known = layer_axes(layer)
            if known is None:
                self._axes.addItem("Please choose…", "")
            choices = axes_choices(layer)
            for axes in choices if known is None or known in choices else (known, *choices):
                self._axes.addItem(_axes_words(axes, layer_shape(layer)), axes)
            self._axes.setCurrentIndex(max(0, self._axes.findData(known or "")))
        self._axes.blockSignals(False)

    def _fill_slots(self, *, keep: bool = False) -> None:
        """One choice per channel of the model, where there is something to choose; names that are alike fit."""
        before = [slot.currentData() for slot in self._slots] if keep else []
        for slot in self._slots:
            self._form.removeRow(slot)
        self._slots = []
        count, names = self._needs
        recalled = self._recalled[1] if self._recalled[0] is self._layer() else []
        choices = self._channel_choices(count)
        if len(choices) <= 1:
            return
        for number in range(count):
            name = names[number] if number < len(names) else f"Channel {number + 1}" if count > 1 else "Channel"
            slot = _combo(name, "What the model sees as this channel")
            for text, data in choices:
                slot.addItem(text, data)
            kept = [i for i, (_, data) in enumerate(choices) if number < len(before) and data is before[number]]
            named = [i for i, (text, _) in enumerate(choices) if text.casefold() == name.casefold()]
            told = [i for i, (text, _) in enumerate(choices) if number < len(recalled) and text == recalled[number]]
            slot.setCurrentIndex(next(iter([*kept, *told, *named, min(number, len(choices) - 1)])))
            slot.currentIndexChanged.connect(self._on_slot)
            self._form.insertRow(2 + number, name, slot)
            self._slots.append(slot)

    def _channel_choices(self, count: int) -> list[tuple[str, Any]]:
        """Channels of the image, or the layers of the same size where a model needs several."""
        layer = self._layer()
        axes = layer_axes(layer) if layer is not None else None
        if layer is None or axes is None:
            return []
        if "C" in axes or "S" in axes:
            snapshot = take_snapshot([layer], copy=False)
            names = snapshot.channels or tuple(f"Channel {i + 1}" for i in range(snapshot.shape[1]))
            return [(name, i) for i, name in enumerate(names)] if len(names) != count or count > 1 else []
        others = [other for other in self._layers if is_users(other) and other is not layer]
        same = [other for other in others if layer_shape(other) == layer_shape(layer)]
        return [(other.name, other) for other in (layer, *same)] if count > 1 else []


def _combo(name: str, tip: str) -> QComboBox:
    combo = QComboBox()
    combo.setAccessibleName(name)
    combo.setToolTip(tip)
    combo.setMaxVisibleItems(VISIBLE_ITEMS)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(12)
    return combo


def _layer_events(viewer: Viewer) -> list[Any]:
    events = viewer.layers.events
    return [events.inserted, events.removed, events.reordered, events.renamed]


def _axes_words(axes: str, shape: tuple[int, ...]) -> str:
    return ", ".join(f"{n} {AXIS_WORDS[a]}" for a, n in zip(axes, shape, strict=True))


def _file_words(files: tuple[Path, ...]) -> str:
    return files[0].name if len(files) == 1 else f"{len(files)} files, {files[0].name} …"
