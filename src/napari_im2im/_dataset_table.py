"""The pairs that are shown, and every change that a person makes to them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qtpy.QtCore import QItemSelectionModel, QObject, Signal

from napari_im2im._dataset_choices import choose
from napari_im2im._dataset_memory import key_of
from napari_im2im._dataset_rows import draw_parts, join_copies, join_rows, separate_rows, set_part
from napari_im2im._layer_pairs import is_guess, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from napari.layers import Layer

    from napari_im2im._dataset_choices import ChoicesPanel
    from napari_im2im._dataset_rows import PairRow
    from napari_im2im._layer_pairs import LayerPair
    from napari_im2im._pair_table import PairTable


class TableRows(QObject):
    """Rows of a table; wishes of the view come in, changed rows go back to it."""

    changed = Signal()
    """Some row is another now."""
    replaced = Signal()
    """All rows are others now."""
    edited = Signal()
    """A person changed something."""
    regrouped = Signal()
    """Parts or groups are others, and with them what training and validation share."""

    def __init__(self, table: PairTable, choices: ChoicesPanel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.table, self._choices = table, choices
        self._kept: set[str] = set()
        table.pairs.useChanged.connect(self._on_use)
        table.pairs.partChanged.connect(self.set_part)
        table.joinWanted.connect(lambda numbers: self._regroup(join_rows(self.all(), numbers)))
        table.separateWanted.connect(lambda numbers: self._regroup(separate_rows(self.all(), numbers)))
        table.useWanted.connect(self.use)
        choices.validation.activated.connect(self.divide)

    # ---- content ----

    def all(self) -> tuple[PairRow, ...]:
        """Rows in their order."""
        return self.table.pairs.rows()

    def pairs(self) -> list[LayerPair]:
        """Pairs of layers among them."""
        return [row.layers for row in self.all() if row.layers]

    def labels(self) -> list[Layer]:
        """Labels layers among the targets."""
        return [pair.target for pair in self.pairs() if kind_of(pair.target) == "labels"]

    def guesses(self) -> list[PairRow]:
        """Rows whose labels began as a prediction."""
        return [row for row in self.all() if row.layers and is_guess(row.layers)]

    def show(self, rows: Sequence[PairRow]) -> None:
        """Show other rows; those that were selected stay so, also when they are opened again."""
        shown = self.all()
        keys = {key_of(shown[number]) for number in self.table.chosen()} or self._kept
        self.table.pairs.set_rows(rows, labels=self._choices.learns_labels)
        self._kept = set() if rows else keys
        self.select(keys)
        self.replaced.emit()
        self.changed.emit()

    def clear(self) -> None:
        """Show nothing; what comes next is something else."""
        self.show([])
        self._kept = set()

    def update(self, rows: Iterable[PairRow]) -> None:
        """Show `rows` in the place of those of the same names."""
        by_name = {row.name: row for row in rows}
        self.change(lambda row: by_name.get(row.name, row))

    def change(self, make: Callable[[PairRow], PairRow]) -> None:
        """Replace every row by what `make` says."""
        self.table.pairs.change(make)
        self.changed.emit()

    # ---- selection ----

    def selected_keys(self) -> list[str]:
        """Keys of the selected rows; none where all are selected."""
        rows, chosen = self.all(), self.table.chosen()
        return [key_of(rows[number]) for number in chosen] if len(chosen) < len(rows) else []

    def select(self, keys: Collection[str]) -> None:
        """Select the rows of `keys` too, without showing them in the viewer."""
        selection = self.table.selectionModel()
        assert selection is not None
        how = QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows
        for number, row in enumerate(self.all()):
            if key_of(row) in keys:
                selection.select(self.table.pairs.index(number, 0), how)

    def current(self) -> PairRow | None:
        """The row that is looked at."""
        rows, number = self.all(), self.table.currentIndex().row()
        return rows[number] if 0 <= number < len(rows) else None

    # ---- wishes ----

    def use(self, numbers: Iterable[int], on: bool) -> None:
        """Use rows, or leave them out."""
        rows = self.all()
        names = {rows[i].name for i in numbers if rows[i].sample}
        self.change(lambda row: replace(row, used=on) if row.name in names else row)
        self.edited.emit()

    def set_part(self, number: int, part: str) -> None:
        """Put a row, or all selected ones where it is among them, into a part."""
        choose(self._choices.validation, "own")
        self.update(set_part(self.all(), self._with_selected(number), part))
        self._say_regrouped()

    def exclude(self) -> None:
        """Leave out what nothing can be learned from."""
        self.change(lambda row: replace(row, used=False) if row.hopeless else row)
        if self._choices.validation.currentData() != "own":
            self.update(self.divided(self.all()))
        self.edited.emit()

    def join_copies(self) -> None:
        """Put images with the same pixels into one group."""
        self.update(join_copies(self.all()))
        self.edited.emit()

    def divide(self) -> None:
        """Draw the parts as it is chosen."""
        mode = self._choices.validation.currentData()
        if mode != "own":
            self.update(draw_parts(self.all(), mode))
        self.edited.emit()

    def divided(self, rows: Sequence[PairRow]) -> list[PairRow]:
        """`rows` with parts as it is chosen; those that a person gave are kept."""
        mode = self._choices.validation.currentData()
        if mode == "own":
            known = {row.name: row.part for row in self.all()}
            return [replace(row, part=known.get(row.name, row.part)) for row in rows]
        return draw_parts(rows, mode)

    def _on_use(self, number: int, on: bool) -> None:
        self.use(self._with_selected(number), on)

    def _with_selected(self, number: int) -> set[int]:
        chosen = self.table.chosen()
        return {number, *chosen} if number in chosen else {number}

    def _regroup(self, rows: Sequence[PairRow]) -> None:
        """Show other groups; parts are drawn anew where they are drawn at all."""
        mode = self._choices.validation.currentData()
        self.update(rows if mode == "own" else draw_parts(rows, mode))
        self._say_regrouped()

    def _say_regrouped(self) -> None:
        self.regrouped.emit()
        self.edited.emit()
