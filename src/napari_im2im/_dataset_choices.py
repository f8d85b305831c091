"""What is learned from the pairs, how they are labelled and divided, and what has to be corrected in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_im2im._dataset_rows import LABEL_TASKS
from napari_im2im._dataset_source import CorrectionsEditor

if TYPE_CHECKING:
    from napari_im2im._dataset_memory import Left

TASKS = {
    "instance_segmentation": "Separate objects",
    "semantic_segmentation": "Classes of pixels",
    "label_free": "Another image",
    "restoration": "A better image",
}
"""Task of the recipe -> words."""
LABELLINGS = {
    "dense": "everything: 0 is background",
    "sparse": "parts: 0 unknown, 1 background, 2… objects",
}
MODES = {
    "images": "on whole images",
    "strip": "on a strip of each",
    "none": "on nothing",
    "own": "as in the table",
}


class ChoicesPanel(QWidget):
    """Choices that hold for all pairs; it changes nothing but itself."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.task = _choice(TASKS, "Learn", "What a network shall learn from these pairs")
        self.labelling = _choice(LABELLINGS, "Labelled", "What was painted; unknown pixels are never learned from")
        self.complete = QCheckBox("complete inside the rectangles")
        self.complete.setToolTip("Inside the rectangles every object is labelled, so what is not painted is background")
        self.draw = QPushButton("Draw one")
        self.draw.setToolTip("Draw a rectangle around a part of which every object is labelled")
        self.validation = _choice(
            MODES, "Validate", "What is kept to see how good the network is; whole images tell most"
        )
        self.validation.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.correct = QToolButton()
        self.correct.setText("Correct axes, channels, voxel size")
        self.correct.setToolTip("Say what the files or layers say wrong, or do not say")
        self.correct.setCheckable(True)
        self.correct.setAutoRaise(True)
        self.correct.setArrowType(Qt.ArrowType.RightArrow)
        self.correct.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.correct.toggled.connect(self._on_correct)
        self.corrections = CorrectionsEditor()
        self.corrections.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self._grid())
        layout.addWidget(self.corrections)

    def _grid(self) -> QGridLayout:
        self._labelled = QLabel("Labelled")
        grid = QGridLayout()
        grid.setHorizontalSpacing(6)
        grid.setVerticalSpacing(4)
        grid.addWidget(QLabel("Learn"), 0, 0)
        grid.addWidget(self.task, 0, 1)
        grid.addWidget(QLabel("Validate"), 0, 2)
        grid.addWidget(self.validation, 0, 3)
        grid.addWidget(self._labelled, 1, 0)
        grid.addWidget(self.labelling, 1, 1, 1, 3)
        grid.addWidget(self.complete, 2, 1, 1, 2)
        grid.addWidget(self.draw, 2, 3)
        grid.addWidget(self.correct, 3, 0, 1, 4)
        grid.setColumnStretch(1, 1)  # the rest is as wide as its words
        return grid

    @property
    def learns_labels(self) -> bool:
        """Whether the targets are labels."""
        return self.task.currentData() in LABEL_TASKS

    @property
    def labelling_used(self) -> str:
        """How the targets are to be understood: dense, or sparse where labels are painted in parts."""
        return str(self.labelling.currentData()) if self.learns_labels else "dense"

    def show_for(self, *, painted: bool) -> None:
        """Show only what makes sense for the task, and for labels that are `painted` in layers."""
        labels = self.learns_labels
        self._labelled.setVisible(labels)
        self.labelling.setVisible(labels)
        self.complete.setVisible(labels and painted)
        self.draw.setVisible(labels and painted)

    def show_left(self, left: Left) -> None:
        """Choices as they were left."""
        for box, value in (
            (self.task, left.task),
            (self.labelling, left.labelling),
            (self.validation, left.validation),
        ):
            if box.findData(value) >= 0:
                choose(box, value)
        self.complete.setChecked(left.complete)

    def ask_correction(self, editor: QWidget) -> None:
        """Unfold the corrections with the cursor in one of their editors."""
        self.correct.setChecked(True)
        editor.setFocus()

    def _on_correct(self, on: bool) -> None:
        self.corrections.setVisible(on)
        self.correct.setArrowType(Qt.ArrowType.DownArrow if on else Qt.ArrowType.RightArrow)


def choose(box: QComboBox, value: str) -> None:
    """Choose `value` as if nobody had touched the box."""
    blocked = box.blockSignals(True)
    box.setCurrentIndex(max(box.findData(value), 0))
    box.blockSignals(blocked)


def _choice(words: dict[str, str], name: str, tooltip: str) -> QComboBox:
    box = QComboBox()
    box.setAccessibleName(name)
    for value, word in words.items():
        box.addItem(word, value)
    box.setToolTip(tooltip)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(8)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return box
