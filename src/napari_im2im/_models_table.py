"""The models of this user as a table: what each does, how good it is, where it is from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from im2im_core.model_cards import size_words, task_words, when_words
from napari_im2im._model_list import metric_words
from napari_im2im._runs_table import score_words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qtpy.QtGui import QResizeEvent

    from im2im_core.models import LocalModel

COLUMNS = ("Model", "Task", "Figure", "Made", "Trained on", "From", "Size")
LEAVING = ("Size", "Trained on", "From", "Made", "Task")
"""Columns that go, in this order, where the panel is narrow; the card tells them all."""
NAME_WIDTH = 150
"""Pixels that the names have at least."""
WIDEST = 130
"""Pixels of any other column at most."""
PADDING = 18
FROM = {"shipped": "shipped", "added": "added", "library": "library", "run": "training", "project": "project"}
PATH, ORDER = Qt.ItemDataRole.UserRole, Qt.ItemDataRole.UserRole + 1


class _Cell(QTableWidgetItem):
    """Cell that is sorted by its value and not by its words."""

    def __lt__(self, other: QTableWidgetItem) -> bool:
        return bool(self.data(ORDER) < other.data(ORDER))


class ModelsTable(QTableWidget):
    """Table of models; tells which are selected and changes nothing itself."""

    chosen = Signal()
    """Other models are selected."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(COLUMNS), parent)
        self._models: tuple[LocalModel, ...] = ()
        self._words = ""
        self.setHorizontalHeaderLabels(list(COLUMNS))
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setAccessibleName("Models")
        rows, columns = self.verticalHeader(), self.horizontalHeader()
        assert rows is not None
        assert columns is not None
        rows.hide()
        rows.setDefaultSectionSize(24)
        columns.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        columns.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        columns.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        columns.setHighlightSections(False)
        self._header = columns
        self.itemSelectionChanged.connect(self.chosen)

    # ---- public API ----

    def value(self) -> tuple[LocalModel, ...]:
        """Models that are selected, in the order of the table."""
        rows = sorted({item.row() for item in self.selectedItems()})
        known = {str(m.path): m for m in self._models}
        paths = [str(item.data(PATH)) for row in rows if (item := self.item(row, 0)) is not None]
        return tuple(known[path] for path in paths if path in known)

    def models(self) -> tuple[LocalModel, ...]:
        """All models, shown or not."""
        return self._models

    def setValue(self, models: Sequence[LocalModel]) -> None:
        """Show `models`; those that are selected stay so."""
        if tuple(models) == self._models:
            return
        selected = [m.path for m in self.value()]
        self._models = tuple(models)
        self.blockSignals(True)
        self.setSortingEnabled(False)
        self.setRowCount(len(models))
        for row, model in enumerate(models):
            for column, (text, order) in enumerate(_cells(model, row)):
                self.setItem(row, column, _cell(text, order, model))
        self._header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        self.setSortingEnabled(True)
        self.blockSignals(False)
        self.show_only(self._words)
        self._fit()
        self.select(selected)

    def select(self, paths: Sequence[Path]) -> None:
        """Select the models at `paths`."""
        wanted = {str(p) for p in paths}
        self.blockSignals(True)
        self.clearSelection()
        for row in range(self.rowCount()):
            item = self.item(row, 0)
            if item is not None and str(item.data(PATH)) in wanted:
                for column in range(self.columnCount()):
                    cell = self.item(row, column)
                    assert cell is not None
                    cell.setSelected(True)
                self.scrollToItem(item)
        self.blockSignals(False)
        self.chosen.emit()

    def show_only(self, words: str) -> None:
        """Show models in whose row all `words` stand."""
        self._words = words
        wanted = words.casefold().split()
        for row in range(self.rowCount()):
            cells = [self.item(row, column) for column in range(self.columnCount())]
            text = " ".join(cell.text() for cell in cells if cell is not None).casefold()
            self.setRowHidden(row, not all(word in text for word in wanted))

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Show the columns that fit."""
        super().resizeEvent(event)
        self._fit()

    # ---- widths ----

    def _fit(self) -> None:
        widths = {name: self._wanted(i) for i, name in enumerate(COLUMNS) if i}
        view = self.viewport()
        free = (view.width() if view is not None else self.width()) - NAME_WIDTH
        gone: set[str] = {name for name in widths if not self._has_text(COLUMNS.index(name))}
        for name in LEAVING:
            if sum(w for n, w in widths.items() if n not in gone) <= free:
                break
            gone.add(name)
        for name, width in widths.items():
            index = COLUMNS.index(name)
            self.setColumnHidden(index, name in gone)
            self.setColumnWidth(index, width)

    def _wanted(self, column: int) -> int:
        head = self._header.fontMetrics().horizontalAdvance(COLUMNS[column]) + PADDING
        return min(WIDEST, max(head, self.sizeHintForColumn(column) + PADDING // 2))

    def _has_text(self, column: int) -> bool:
        cells = (self.item(row, column) for row in range(self.rowCount()))
        return any(cell is not None and cell.text() for cell in cells)


def _cells(model: LocalModel, row: int) -> list[tuple[str, Any]]:
    """Words and order of each column."""
    figure = model.key_metric
    said = score_words(dict(model.metrics)) or (f"{metric_words(figure[0])} {figure[1]:.3g}" if figure else "")
    task = task_words(model)
    return [
        (model.name, model.name.casefold()),
        (task, task),
        (said, figure[1] if figure else float("-inf")),
        (when_words(model.made), model.made),
        (model.trained_on, model.trained_on.casefold()),
        (FROM[model.origin], FROM[model.origin]),
        (size_words(model.size), model.size),
    ]


def _cell(text: str, order: Any, model: LocalModel) -> _Cell:
    cell = _Cell(text)
    cell.setData(PATH, str(model.path))
    cell.setData(ORDER, order)
    cell.setToolTip("\n".join(part for part in (model.name, model.sentence, model.place, model.notes) if part))
    return cell
