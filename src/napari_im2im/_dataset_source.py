"""Where pairs come from: open layers, or a folder or table; and what has to be corrected in all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from im2im_core.errors import DataError
from napari_im2im._icons import icon
from napari_im2im._layer_pairs import LayerPair, image_layers, label_layers, result_layers

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from napari import Viewer
    from napari.layers import Layer

    from im2im_core.image import VoxelSize

LAYERS, FILES = 0, 1
HEIGHTS = {LAYERS: 130, FILES: 96}
"""Room that each page takes at most; the table below needs the rest."""
AS_STORED = "as the files say"
AXES_CHOICES = tuple(
    "".join(lead) + "YX"
    for count, usual in enumerate((("",), ("Z", "T", "C"), ("CZ", "ZC", "TC", "TZ"), ("TCZ", "TZC")))
    for lead in dict.fromkeys([*map(tuple, usual), *permutations("TCZ", count)])
)
"""All that can be, the usual ones of each number of dimensions first."""
_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][+-]?\d+)?"


@dataclass(frozen=True)
class Corrections:
    """What the files or layers say wrong, or do not say."""

    axes: str | None = None
    channels: tuple[int | str, ...] | None = None
    voxel_size: VoxelSize | None = None


@dataclass(frozen=True)
class CorrectionSet:
    """Corrections of all pairs, and of single ones that have their own."""

    every: Corrections = field(default_factory=Corrections)
    own: Mapping[str, Corrections] = field(default_factory=dict)
    """Key of a row -> what holds for it instead."""

    def of(self, key: str) -> Corrections:
        """What holds for the row `key`."""
        return self.own.get(key, self.every)

    def with_value(self, value: Corrections, keys: Collection[str]) -> CorrectionSet:
        """The same with `value` for the rows `keys`; for all rows where there are none."""
        if not keys:
            return CorrectionSet(value)
        return replace(self, own={**self.own, **dict.fromkeys(keys, value)})


class SourcePanel(QTabWidget):
    """Chooses layers or files; says what was chosen and leaves the rest to others."""

    pairAdded = Signal(object)
    """A `LayerPair` the user put together."""
    pairAllWanted = Signal()
    folderChosen = Signal(str)
    """Folder or table."""

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.images = QListWidget()
        self.images.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.images.setToolTip("The image; select several layers where they are the channels of one image")
        self.images.setAccessibleName("Image")
        self.images.setMaximumHeight(74)
        self.target = QComboBox()
        self.target.setToolTip("What the network shall give for this image: labels, or another image")
        self.target.setAccessibleName("Target")
        self.target.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.target.setMinimumContentsLength(12)
        self.add_button = QPushButton("Add pair")
        self.add_button.setIcon(icon("add"))
        self.add_button.setToolTip("Put the chosen image and target into the table")
        self.add_button.clicked.connect(self._on_add)
        self.all_button = QPushButton("Find pairs")
        self.all_button.setToolTip("Pair all open layers by size and name")
        self.all_button.clicked.connect(self.pairAllWanted)
        self.path = QLineEdit()
        self.path.setAccessibleName("Folder or table")
        self.path.setToolTip("Write a path and press Enter, or choose it with the buttons")
        self.path.setPlaceholderText("Folder or CSV table with images and targets")
        self.path.returnPressed.connect(self._on_path)
        self.found = QLabel("IM and GT folders, X_IM and X_GT files, train/val/test folders or a table: any will do")
        self.found.setWordWrap(True)
        self.addTab(self._layers_page(), "Open layers")
        self.addTab(self._files_page(), "Files")
        self.setDocumentMode(True)
        self.currentChanged.connect(self._on_tab)
        self._on_tab(LAYERS)

    def _layers_page(self) -> QWidget:
        page = QWidget()
        layout = QGridLayout(page)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addWidget(QLabel("Image"), 0, 0)
        layout.addWidget(QLabel("Target"), 0, 1)
        layout.addWidget(self.images, 1, 0, 2, 1)
        layout.addWidget(self.target, 1, 1)
        buttons = QHBoxLayout()
        buttons.addWidget(self.add_button)
        buttons.addWidget(self.all_button)
        layout.addLayout(buttons, 2, 1)
        layout.setColumnStretch(0, 1)
        layout.setColumnStretch(1, 1)
        return page

    def _files_page(self) -> QWidget:
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(4, 4, 4, 4)
        row = QHBoxLayout()
        row.addWidget(self.path, 1)
        for word, tip, slot in (
            ("Folder…", "Choose a folder with images and targets", self._on_folder),
            ("Table…", "Choose a CSV table that names images and targets", self._on_table),
        ):
            button = QPushButton(word)
            button.setToolTip(tip)
            button.clicked.connect(slot)
            row.addWidget(button)
        layout.addLayout(row)
        layout.addWidget(self.found)
        layout.addStretch()
        return page

    # ---- content ----

    def refresh(self) -> None:
        """List the layers that are open now; the choice stays where it can."""
        images, labels = image_layers(self._viewer), label_layers(self._viewer)
        chosen = set(self._selected())
        target = self.target.currentData()
        self.images.clear()
        for layer in images:
            item = QListWidgetItem(layer.name)
            item.setData(256, layer)
            self.images.addItem(item)
            item.setSelected(layer in chosen)
        self.target.clear()
        for layer in [*labels, *images, *result_layers(self._viewer)]:
            self.target.addItem(layer.name, layer)
        self.target.setCurrentIndex(max(self._place_of(target), 0) if self.target.count() else -1)
        self.add_button.setEnabled(bool(images) and self.target.count() > 1)
        self.all_button.setEnabled(self.add_button.isEnabled())
        if not chosen and self.images.count():
            self.images.setCurrentRow(0)

    def choose(self, images: Sequence[Layer], target: Layer) -> None:
        """Select the layers of a pair."""
        for i in range(self.images.count()):
            item = self.images.item(i)
            if item is not None:
                item.setSelected(item.data(256) in images)
        self.target.setCurrentIndex(max(self._place_of(target), 0))

    def _selected(self) -> list[Layer]:
        return [item.data(256) for item in self.images.selectedItems()]

    def _place_of(self, layer: Any) -> int:
        return next((i for i in range(self.target.count()) if self.target.itemData(i) is layer), -1)

    # ---- wishes ----

    def _on_tab(self, index: int) -> None:
        self.setMaximumHeight(HEIGHTS[index])

    def _on_add(self) -> None:
        target = self.target.currentData()
        images = tuple(layer for layer in self._selected() if layer is not target)
        if images and target is not None:
            self.pairAdded.emit(LayerPair(images, target))

    def _on_path(self) -> None:
        text = self.path.text().strip()
        if text:
            self.folderChosen.emit(str(Path(text).expanduser()))

    def _on_folder(self) -> None:
        self._take(QFileDialog.getExistingDirectory(self, "Folder with images and targets", self.path.text()))

    def _on_table(self) -> None:
        tables = "Tables (*.csv *.tsv)"
        self._take(QFileDialog.getOpenFileName(self, "Table of images and targets", self.path.text(), tables)[0])

    def _take(self, path: str) -> None:
        if path:
            self.path.setText(path)
            self._on_path()


class CorrectionsEditor(QWidget):
    """Axes, channels and voxel size where what is stored is wrong or missing."""

    valueChanged = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._value = Corrections()
        self.axes = QComboBox()
        self.axes.addItem(AS_STORED, None)
        for axes in AXES_CHOICES:
            self.axes.addItem(axes, axes)
        self.axes.setToolTip("T time, C channel, Z plane, Y row, X column, in the order of the file")
        self.channels = QLineEdit()
        self.channels.setPlaceholderText("all")
        self.channels.setToolTip("Channels of the images that the network sees, by number from 0 or name: 0, 2")
        self.voxel_size = QLineEdit()
        self.voxel_size.setPlaceholderText(AS_STORED)
        self.voxel_size.setToolTip("Micrometres along Z, Y and X: 0.5, 0.2, 0.2. For planes Y and X suffice: 0.2, 0.2")
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for column, (word, editor) in enumerate(
            (("Axes", self.axes), ("Channels", self.channels), ("Voxel size Z, Y, X (µm)", self.voxel_size))
        ):
            editor.setAccessibleName(word)
            layout.addWidget(QLabel(word), 0, column)
            layout.addWidget(editor, 1, column)
            layout.setColumnStretch(column, 1)
        self.problem = QLabel()
        self.problem.setWordWrap(True)
        self.problem.hide()
        self.scope = QLabel()
        self.scope.setWordWrap(True)
        self.show_scope(0)
        layout.addWidget(self.scope, 2, 0, 1, 3)
        layout.addWidget(self.problem, 3, 0, 1, 3)
        self.axes.currentIndexChanged.connect(self._on_edit)
        self.channels.editingFinished.connect(self._on_edit)
        self.voxel_size.editingFinished.connect(self._on_edit)

    def value(self) -> Corrections:
        """The corrections that were understood last."""
        return self._value

    def setValue(self, value: Corrections) -> None:
        """Show `value`."""
        self.axes.setCurrentIndex(max(self.axes.findData(value.axes), 0))
        self.channels.setText(", ".join(map(str, value.channels or ())))
        self.voxel_size.setText(", ".join(f"{s:g}" for s in value.voxel_size or () if s))
        self._on_edit()

    def show_scope(self, selected: int) -> None:
        """Say whether `selected` pairs are corrected, or all where that is 0."""
        pairs = "the selected pair" if selected == 1 else f"the {selected} selected pairs"
        self.scope.setText(f"For {pairs}" if selected else "For all pairs, or those that are selected in the table")

    def _on_edit(self) -> None:
        try:
            value = Corrections(
                self.axes.currentData(), parse_channels(self.channels.text()), parse_voxel_size(self.voxel_size.text())
            )
        except DataError as error:
            self.problem.setText(str(error))
            self.problem.show()
            return
        self.problem.hide()
        if value != self._value:
            self._value = value
            self.valueChanged.emit(value)


def parse_channels(text: str) -> tuple[int | str, ...] | None:
    """Numbers and names of channels; None where nothing is written."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    return tuple(int(word) if word.isdigit() else word for word in words) or None


def parse_voxel_size(text: str) -> VoxelSize | None:
    """Micrometres along Z, Y, X; two numbers are Y and X, one holds for both. None where nothing is written.

    Raises
    ------
    DataError
        There are not one to three positive numbers.
    """
    if not text.strip():
        return None
    words = [word for word in re.split(r"[,;×x\s]+", text.replace("µm", " ").replace("um", " ")) if word]
    if not all(re.fullmatch(_NUMBER, word) and float(word) > 0 for word in words) or not 1 <= len(words) <= 3:
        raise DataError(f"“{text}” is not a voxel size", "Write micrometres along Z, Y, X, for example 0.5, 0.2, 0.2")
    numbers = [float(word) for word in words]
    y, x = (numbers * 2)[:2] if len(numbers) == 1 else numbers[-2:]
    return (numbers[0] if len(numbers) == 3 else None), y, x
