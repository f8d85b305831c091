"""What is known of one model, and several side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QScrollArea,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from im2im_core.model_cards import card
from napari_im2im._model_list import metric_words

if TYPE_CHECKING:
    from im2im_core.model_cards import Comparison
    from im2im_core.models import LocalModel

COVER = 96
"""Width and height of the picture, pixels."""
HEAD = ("name", "what it does", "figures", "notes")
"""What the card shows in its own way; the rest is a list."""


class ModelView(QScrollArea):
    """Card of one model, with a line for notes."""

    noted = Signal(object, str)
    """Model and what the user wrote about it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model: LocalModel | None = None
        self._picture = QLabel()
        self._picture.setFixedSize(COVER, COVER)
        self._name, self._sentence = _words(), _words()
        font = self._name.font()
        font.setBold(True)
        font.setPointSizeF(font.pointSizeF() * 1.15)
        self._name.setFont(font)
        self._notes = QLineEdit()
        self._notes.setPlaceholderText("Your notes")
        self._notes.setToolTip("What you want to remember of this model; kept on this computer, not in the package")
        self._notes.setAccessibleName("Notes about the model")
        self._notes.editingFinished.connect(self._on_notes)
        self._rows = QWidget()
        self._list = QFormLayout(self._rows)
        self._list.setContentsMargins(0, 0, 0, 0)
        self._list.setVerticalSpacing(2)
        self._list.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        self._list.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._lay_out()

    def _lay_out(self) -> None:
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(0, 4, 4, 4)
        head = QHBoxLayout()
        beside = QVBoxLayout()
        beside.addWidget(self._name)
        beside.addWidget(self._sentence)
        beside.addStretch(1)
        head.addWidget(self._picture, 0, Qt.AlignmentFlag.AlignTop)
        head.addLayout(beside, 1)
        column.addLayout(head)
        column.addWidget(self._notes)
        column.addWidget(self._rows)
        column.addStretch(1)
        self.setWidget(inner)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def setValue(self, model: LocalModel) -> None:
        """Show a model; reads its picture, which is small."""
        self._on_notes()
        self._model = model
        content = card(model)
        picture = QPixmap(str(model.cover)) if model.cover else QPixmap()
        self._picture.setVisible(not picture.isNull())
        if not picture.isNull():
            keep, smooth = Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
            self._picture.setPixmap(picture.scaled(COVER, COVER, keep, smooth))
        self._name.setText(model.name)
        self._sentence.setText(model.sentence)
        self._sentence.setVisible(bool(model.sentence))
        self._notes.setText(model.notes)
        figures = [(metric_words(name), f"{value:.4g}") for name, value in model.metrics]
        self._fill([*figures, *((k.capitalize(), str(v)) for k, v in content.items() if k not in HEAD)])

    def texts(self) -> dict[str, str]:
        """What the list under the head says, by its labels."""
        found = {}
        for row in range(self._list.rowCount()):
            roles = (QFormLayout.ItemRole.LabelRole, QFormLayout.ItemRole.FieldRole)
            label, field = (self._list.itemAt(row, role) for role in roles)
            if label is not None and field is not None:
                found[label.widget().text()] = field.widget().text()  # type: ignore[union-attr]
        return found

    def _fill(self, rows: list[tuple[str, str]]) -> None:
        while self._list.rowCount():
            self._list.removeRow(0)
        for name, text in rows:
            self._list.addRow(name, _words(text))

    def _on_notes(self) -> None:
        model, text = self._model, self._notes.text().strip()
        if model is not None and text != model.notes:
            self._model = None  # until it is shown anew, it is told once
            self.noted.emit(model, text)


class ComparisonView(QTableWidget):
    """Models side by side: figures first, what they are, then the settings in which they differ."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setWordWrap(False)
        self.setShowGrid(False)
        self.setAccessibleName("Comparison of models")
        rows = self.verticalHeader()
        assert rows is not None
        rows.setDefaultSectionSize(22)
        columns = self.horizontalHeader()
        assert columns is not None
        for head in (rows, columns):
            head.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
            head.setTextElideMode(Qt.TextElideMode.ElideRight)

    def setValue(self, found: Comparison) -> None:
        """Show a comparison; the best figure of each row is bold."""
        rows: list[tuple[str, tuple[Any, ...], int | None]] = [
            (metric_words(name), tuple("" if v is None else f"{v:.4g}" for v in values), _best(name, values))
            for name, values in found.metrics.items()
        ]
        rows += [(name.capitalize(), values, None) for name, values in found.facts.items()]
        rows += [(name, values, None) for name, values in found.settings.items()]
        self.clear()
        self.setColumnCount(len(found.names))
        self.setRowCount(len(rows))
        self.setHorizontalHeaderLabels(list(found.names))
        self.setVerticalHeaderLabels([name for name, _, _ in rows])
        for row, (name, values, best) in enumerate(rows):
            for column, value in enumerate(values):
                text = "" if value is None else str(value)
                item = QTableWidgetItem(text)
                item.setToolTip(f"{name}: {text}")
                font = item.font()
                font.setBold(column == best)
                item.setFont(font)
                self.setItem(row, column, item)
        for column, name in enumerate(found.names):
            title = self.horizontalHeaderItem(column)
            assert title is not None
            title.setToolTip(name)
        columns = self.horizontalHeader()
        assert columns is not None
        columns.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)


def _best(name: str, values: tuple[float | None, ...]) -> int | None:
    """Column of the best figure; None where they are equal or one model alone has it. Errors and losses are low."""
    known = [v for v in values if v is not None]
    if len(known) < 2 or len(set(known)) < 2:
        return None
    low = any(word in name for word in ("loss", "error", "mae", "mse"))
    return values.index(min(known) if low else max(known))


def _words(text: str = "") -> QLabel:
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
    return label
