"""Collects the pairs from open layers, or from a folder or table: as they were left before, and corrected."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from im2im_core.errors import DataError
from napari_im2im._dataset_axes import layers_of, question, tell_axes, unclear_layers
from napari_im2im._dataset_choices import choose
from napari_im2im._dataset_layers import as_before, pair_names, row_of, task_of_layers
from napari_im2im._dataset_memory import LAST_FILES, LAST_LAYERS, Left, Memory, remember_rows
from napari_im2im._dataset_rows import load_rows, renamed
from napari_im2im._dataset_source import FILES, LAYERS, Corrections, CorrectionSet
from napari_im2im._later import Later
from napari_im2im._layer_pairs import image_layers, kind_of, label_layers, labelling_of, pair_layers, region_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari

    from im2im_core.project import Project
    from im2im_core.review import Problem
    from napari_im2im._dataset_choices import ChoicesPanel
    from napari_im2im._dataset_foot import FootPanel
    from napari_im2im._dataset_rows import Loaded, PairRow
    from napari_im2im._dataset_said import Said
    from napari_im2im._dataset_source import SourcePanel
    from napari_im2im._dataset_table import TableRows
    from napari_im2im._dataset_work import Work
    from napari_im2im._layer_pairs import LayerPair
    from napari_im2im._messages import Button, Message

SAVE_MILLISECONDS = 1000
ANSWERS = 3
"""Orders of dimensions that are offered as buttons; the editor has them all."""


@dataclass(frozen=True)
class Parts:
    """Parts of the panel that pairs are collected with."""

    source: SourcePanel
    choices: ChoicesPanel
    rows: TableRows
    foot: FootPanel
    said: Said
    work: Work


class Collecting(QObject):
    """The pairs in the table: where they come from, and what is remembered of them."""

    reviewWanted = Signal()
    loadWanted = Signal(object)
    """Function of ``(on_event, should_stop)`` that opens files; its result is for `loaded`."""

    def __init__(self, viewer: napari.Viewer, project: Project, parts: Parts, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer, self._project, self._parts = viewer, project, parts
        self.path: Path | None = None
        """Folder or table that is open; None for layers."""
        self.guessing = False
        """Whether the review shall find out what is to be learned."""
        self.corrected = CorrectionSet()
        self.beside: tuple[Problem, ...] = ()
        """What is odd about the open folder as a whole."""
        self.classes: tuple[int, ...] | None = None
        """Classes that the open data set itself declares."""
        self._pending: list[LayerPair] = []
        self._memory = Memory()
        self._recalled = False
        self._restoring = False
        self._way_back: Message | None = None
        self._asked: Message | None = None
        self._later = Later(self)
        self._save_soon = QTimer(self)
        self._save_soon.setSingleShot(True)
        self._save_soon.setInterval(SAVE_MILLISECONDS)
        self._save_soon.timeout.connect(self._on_remember)
        parts.source.pairAdded.connect(self.add_pair)
        parts.source.pairAllWanted.connect(self.pair_all)
        parts.source.folderChosen.connect(self.open_folder)
        parts.choices.corrections.valueChanged.connect(self._on_corrections)
        parts.rows.replaced.connect(self._on_selection)
        parts.rows.edited.connect(self.remember_soon)
        selection = parts.rows.table.selectionModel()
        assert selection is not None
        selection.selectionChanged.connect(self._on_selection)

    # ---- opening ----

    def recall(self) -> None:
        """Read what is remembered, once; layers that were left in this session are shown as they were."""
        if self._recalled:
            return
        self._recalled = True
        self._memory = Memory.read(self._project)
        if self._memory.was_last(LAST_LAYERS):
            self.take_pairs(self._memory.layers.pairs(self._viewer.layers))

    def open(self) -> None:
        """Show what was seen last in this session; else pairs of layers, else the folder of the last session."""
        self._parts.source.refresh()
        self.recall()
        path = self._memory.files.path
        if self.pairs() or self._parts.work.name:
            return
        is_there = bool(path) and Path(path).exists()
        if not (is_there and self._memory.was_last(LAST_FILES)):
            self.pair_all()
        if is_there and not self.pairs():
            self._restoring = True
            self.open_folder(path)
        elif is_there:
            self._offer_folder(path)

    def _offer_folder(self, path: str) -> None:
        text = f"“{Path(path).name}” is kept as you left it"
        self._offer(text, "Open it again", lambda: self.open_folder(path))

    def _offer(self, text: str, button: str, action: Any) -> None:
        """One way back at a time."""
        self._parts.said.end(self._way_back)
        self._way_back = self._parts.said.bar.add(text, "info", "", button, action)

    def _show_layers_again(self) -> None:
        pairs = self._memory.layers.pairs(self._viewer.layers)
        if pairs:
            self.take_pairs(pairs)
        else:
            self._parts.said.bar.add("The layers are not open any more")

    def _change_to(self, path: Path | None) -> None:
        """Leave what is open for a folder or for layers; it is remembered, and a button leads back to it."""
        loads = self._parts.work.name == "load"
        if loads or self._parts.work.name == "review":
            self._parts.work.cancel()
        self._parts.said.unsay()
        before, had_rows = self.path, bool(self._parts.rows.all() or self._pending)
        if had_rows:
            self._save_soon.stop()
            self._on_remember()
        if had_rows or before is not None:
            self._parts.foot.propose_name("", renew=True)
            self._show_corrections(CorrectionSet())
        self.path, self._pending = path, []
        self.beside, self.classes = (), None
        self._parts.said.end(self._asked)
        self._parts.rows.clear()
        if before is not None and (had_rows or loads):
            self._offer_folder(str(before))
        elif had_rows:
            self._offer("The pairs of layers are kept as you left them", "Show them again", self._show_layers_again)

    def _show_left(self, left: Left) -> None:
        """Choices as they were left."""
        self.guessing = False
        self._parts.choices.show_left(left)
        if left.name:
            self._parts.foot.name.setText(left.name)

    # ---- layers ----

    def pairs(self) -> list[LayerPair]:
        """Pairs of layers: those shown, and those that wait for an answer; while a folder is open, those left."""
        if self.path is not None:
            return self._memory.layers.pairs(self._viewer.layers)
        return [*self._parts.rows.pairs(), *self._pending]

    def add_pair(self, pair: LayerPair) -> None:
        """Show a pair beside the others; one with the same target is replaced."""
        self.recall()
        self.take_pairs([*(other for other in self.pairs() if other.target is not pair.target), pair])

    def pair_all(self) -> None:
        """Show all pairs that can be found among the layers."""
        self.take_pairs(pair_layers(image_layers(self._viewer), label_layers(self._viewer)))

    def take_pairs(self, pairs: Sequence[LayerPair]) -> None:
        """Show these pairs of layers; what was chosen for them is kept. None leave everything as it is."""
        if not pairs:
            return
        choices, rows = self._parts.choices, self._parts.rows
        if self.path is not None or not self.pairs():
            self._begin_layers(pairs)
        self._parts.said.unsay(keep_errors=True)
        self._parts.source.setCurrentIndex(LAYERS)
        if any(labelling_of(pair.target) == "sparse" for pair in pairs):
            choose(choices.labelling, "sparse")
        before = {row.layers.target.unique_id: row for row in rows.all() if row.layers}
        self._pending = []
        found = []
        for pair, name in zip(pairs, pair_names(pairs), strict=True):
            known = before.get(pair.target.unique_id)
            row = self._row_of(pair, name, known)
            if row is not None:
                found.append(as_before(row, known) if known else self._memory.layers.applied([row])[0])
        rows.show(rows.divided(found))
        self._ask_axes()
        self.remember_soon()
        self.reviewWanted.emit()

    def _begin_layers(self, pairs: Sequence[LayerPair]) -> None:
        """Leave the folder; choices are as they were for these layers, or as the first pair says."""
        self._change_to(None)
        left = self._memory.layers
        if left.task and any(pair.target.unique_id.hex in left.rows for pair in pairs):
            self._show_left(left)
            self._show_corrections(left.corrected())
        else:
            self._guess(pairs[0])

    def _guess(self, pair: LayerPair) -> None:
        """Set task and labelling from what the first pair says."""
        choices, labelling = self._parts.choices, labelling_of(pair.target)
        labels = kind_of(pair.target) == "labels"
        choose(choices.task, task_of_layers(pair))
        self.guessing = labels and labelling == "dense"
        if labels:
            choose(choices.labelling, labelling)
            choices.complete.setChecked(choices.complete.isChecked() or bool(region_layers(self._viewer)))

    def _row_of(self, pair: LayerPair, name: str, known: PairRow | None) -> PairRow | None:
        """Row of a pair; None where the axes of a layer are not known, or it is no pair.

        Where a correction does not fit, the row stays as it was `known`.
        """
        if unclear_layers([pair]):
            self._pending.append(pair)
            return None
        try:
            return self._made(pair, name)
        except DataError as error:
            self._parts.said.bar.add_error(error)
            return known if known and known.layers == pair else None

    def _made(self, pair: LayerPair, name: str) -> PairRow:
        return row_of(pair, name, self.corrected.of(pair.target.unique_id.hex), self._parts.choices.labelling_used)

    def fresh_rows(self) -> list[PairRow]:
        """Rows with the pixels that their layers hold now."""
        rows = []
        for row in self._parts.rows.all():
            sample = row.sample
            if row.layers:
                try:
                    sample = self._made(row.layers, row.name).sample
                except DataError as error:
                    self._parts.said.bar.add_error(error)
            if sample is not None and row.sample is not None:
                sample = replace(sample, group=row.sample.group)
            rows.append(replace(row, sample=sample))
        return rows

    def follow_layers(self) -> None:
        """Forget pairs of which a layer is gone, and name the others after their layers as these are called now."""
        self._parts.source.refresh()
        there, rows = set(self._viewer.layers), self._parts.rows
        left = [row for row in rows.all() if row.layers is None or set(layers_of([row.layers])) <= there]
        if len(left) < len(rows.all()):
            rows.show(left)
        self._pending = [pair for pair in self._pending if set(layers_of([pair])) <= there]
        if not self._pending:
            self._parts.said.end(self._asked)
        names = iter(pair_names(rows.pairs()))
        fresh = [renamed(row, next(names)) if row.layers else row for row in left]
        if [row.name for row in fresh] != [row.name for row in left]:
            rows.show(fresh)
            self.reviewWanted.emit()

    # ---- axes that only a person knows ----

    def _ask_axes(self) -> None:
        """A question with one button per answer that the layers allow; the answer holds for all that are alike."""
        unclear = unclear_layers(self._pending)
        self._parts.said.end(self._asked)
        if not unclear:
            return
        text, answers = question(unclear)
        if not answers:
            self._parts.said.bar.add(text, "error", "Choose layers of two to five dimensions")
            return
        buttons: list[Button] = [(axes, partial(self._answer_axes, axes)) for axes in answers[:ANSWERS]]
        if len(answers) > ANSWERS:
            choices = self._parts.choices
            buttons.append(("Another order…", lambda: choices.ask_correction(choices.corrections.axes)))
        cure = "Which are they? T time, C channel, Z plane, Y row, X column"
        # It stays until it is answered, whatever the review says of the other pairs.
        self._asked = self._parts.said.bar.add(text, "warning", cure, *buttons[0], buttons[1:])

    def _answer_axes(self, axes: str) -> None:
        tell_axes(unclear_layers(self._pending), axes)
        self.take_pairs(self.pairs())

    # ---- folders ----

    def open_folder(self, text: str) -> None:
        """Open a folder or table, or open it again with other corrections."""
        self.guessing = False
        path = Path(text)
        if path != self.path:
            self._change_to(path)
            if self._memory.files.path == str(path) and self.corrected == CorrectionSet():
                self._show_corrections(self._memory.files.corrected())
        self._parts.source.setCurrentIndex(FILES)
        self._parts.source.path.setText(text)
        self._parts.said.unsay()
        self._parts.rows.show([])
        corrected = self.corrected
        self.loadWanted.emit(lambda tell, stop: load_rows(path, corrected, tell, stop))

    def loaded(self, found: Loaded) -> None:
        """Show what is in the folder."""
        assert self.path is not None
        choices, rows = self._parts.choices, self._parts.rows
        self._parts.source.found.setText(f"{len(found.rows)} pairs: {found.layout}")
        self.beside, self.classes = found.problems, found.classes
        if found.task:
            choose(choices.task, found.task)
        choose(choices.labelling, "dense")
        choose(choices.validation, "own" if found.parts_given else "images")
        self._parts.foot.propose_name(self.path.stem)
        if self._memory.files.path == str(self.path):
            self._show_left(self._memory.files)
            rows.show(self._memory.files.applied(found.rows))
        else:
            rows.show(found.rows if found.parts_given else rows.divided(found.rows))
        if self._restoring:
            self._restoring = False
            self._parts.said.say("The pairs are as you left them", "info", "", "Check again", self.reviewWanted.emit)
        else:
            self.reviewWanted.emit()
        self.remember_soon()

    def not_loaded(self) -> None:
        """The folder could not be opened."""
        self._restoring = False

    # ---- corrections ----

    def _show_corrections(self, corrected: CorrectionSet) -> None:
        """Corrections that hold already: nothing has to be done about them."""
        self.corrected = corrected
        self._on_selection()

    def _on_selection(self, *_: object) -> None:
        """Show what holds for the selected rows; for all where none or all are selected."""
        keys, editor = self._parts.rows.selected_keys(), self._parts.choices.corrections
        blocked = editor.blockSignals(True)
        editor.setValue(self.corrected.of(keys[0]) if keys else self.corrected.every)
        editor.blockSignals(blocked)
        editor.show_scope(len(keys))

    def _on_corrections(self, value: Corrections) -> None:
        keys, before = self._parts.rows.selected_keys(), self.corrected
        self.corrected = before.with_value(value, keys)
        if self.path is not None:
            self._note()
            self.open_folder(str(self.path))
            return
        pairs = [p for p in self.pairs() if not keys or p.target.unique_id.hex in keys]
        changed = [p for p in pairs if before.of(p.target.unique_id.hex).axes != value.axes]
        tell_axes(layers_of(changed), value.axes)
        self.take_pairs(self.pairs())

    # ---- memory ----

    def remember_soon(self, *_: object) -> None:
        """Write down what is shown once it is quiet."""
        self._save_soon.start()

    def remember_now(self) -> None:
        """Write down what is not written yet: a few bytes, and the threads end with the panel."""
        if self._save_soon.isActive():
            self._save_soon.stop()
            self._note().write(self._project)

    def _on_remember(self) -> None:
        content, project = self._note(), self._project
        self._later.ask("memory", lambda: content.write(project), lambda _: None)

    def _note(self) -> Memory:
        """What shall be remembered: what is shown now, beside what was before."""
        rows, choices = self._parts.rows.all(), self._parts.choices
        if rows or self._pending:
            left = Left(
                "" if self.path is None else str(self.path),
                self._parts.foot.written_name(),
                "" if self.guessing else str(choices.task.currentData()),
                str(choices.labelling.currentData()),
                str(choices.validation.currentData()),
                choices.complete.isChecked(),
                asdict(self.corrected.every),
                remember_rows(rows, self._pending, self.corrected),
            )
            self._memory = self._memory.with_left(left)
        return self._memory
