"""The Dataset widget: collect pairs from layers or files, look at them, and keep them as a data set."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.compat import isalive
from qtpy.QtCore import QItemSelectionModel, QSize, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from im2im_core.errors import DataError, Im2ImError, Stopped
from napari_im2im._copy_menu import CopyMenu
from napari_im2im._dataset_axes import layers_of, question, tell_axes, unclear_layers
from napari_im2im._dataset_layers import (
    as_before,
    held,
    pair_names,
    pixels_of,
    same_pixels,
    world_of,
)
from napari_im2im._dataset_memory import LAST_FILES, LAST_LAYERS, Left, Memory, key_of, remember_rows
from napari_im2im._dataset_rows import (
    LABEL_TASKS,
    Loaded,
    PairRow,
    Reviewed,
    as_saved,
    draw_parts,
    entry_words,
    join_copies,
    join_rows,
    load_rows,
    overlaps,
    renamed,
    review_rows,
    separate_rows,
    set_part,
    summary,
    unlike,
    with_review,
)
from napari_im2im._dataset_source import FILES, LAYERS, Corrections, CorrectionsEditor, CorrectionSet, SourcePanel
from napari_im2im._dataset_teach import add_correction, correction_of
from napari_im2im._dataset_work import Work
from napari_im2im._icons import icon
from napari_im2im._journal_watch import watch_labels
from napari_im2im._later import Later
from napari_im2im._layer_pairs import (
    COMPLETE,
    LABELLING,
    LABELS_OF,
    TAUGHT_FROM,
    LayerPair,
    adopt,
    adoptable_regions,
    as_sparse,
    file_of,
    image_layers,
    is_prefilled,
    kind_of,
    label_layers,
    labelling_of,
    pair_layers,
    polygons_of,
    region_layers,
    sample_of,
)
from napari_im2im._layers import COPIED_BYTES, OURS
from napari_im2im._messages import Message, MessageBar
from napari_im2im._pair_table import PairTable
from napari_im2im._panels import open_panel, settle_dock

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    import napari
    from napari.layers import Labels, Layer
    from qtpy.QtGui import QHideEvent, QShowEvent

    from im2im_core.datasets import DatasetEntry
    from im2im_core.project import Project
    from im2im_core.review import Problem
    from im2im_core.samples import Sample
    from napari_im2im._messages import Button

TASKS = {
    "instance_segmentation": "Objects, each of its own",
    "semantic_segmentation": "Classes of pixels",
    "label_free": "Another image (label-free)",
    "restoration": "A better image (restoration)",
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
REFRESH_MILLISECONDS = 150
SAVE_MILLISECONDS = 1000
SHORT_MINUTES = 5.0
"""Budget of the training that is offered."""
PREVIEW = "preview"
ANSWERS = 3
"""Orders of dimensions that are offered as buttons; the editor has them all."""
HOW_TO_CORRECT = (
    "Correct a corner (1 is background, every number from 2 is a nucleus, key M gives a new number), "
    "then draw a rectangle around it: only what lies inside is learned from"
)


class DatasetWidget(QWidget):
    """Collects pairs, shows what is odd about them, and saves them so that any front end trains on the same.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    project : Project, optional
        The nearest project, or the user's default one.
    """

    dataset_saved = Signal(str)
    """Folder of the data set, to be given as ``data.path``."""

    def __init__(self, napari_viewer: napari.Viewer, project: Project | None = None) -> None:
        super().__init__()
        from im2im_core.project import Project

        self._viewer = napari_viewer
        self._project = project or Project.open()
        self._path: Path | None = None
        self._entry: DatasetEntry | None = None
        self._pending: list[LayerPair] = []
        self._chosen_keys: set[str] = set()
        self._auto_name = ""
        self._corrected = CorrectionSet()
        self._way_back: Message | None = None
        self._train_next = False
        self._review_next = False
        self._guessing = False
        self._memory = Memory()
        self._recalled = False
        self._restoring = False
        self._shown = ""
        self._set_problems: tuple[Problem, ...] = ()
        self._previews: list[Layer] = []
        self._regions: set[Any] = set()
        self._said: list[Message] = []
        self.messages = MessageBar()
        self.work = Work(self)
        self.show_work = Work(self)
        self.later = Later(self)
        self.journal = watch_labels(napari_viewer, self._project)
        self.journal.attach(self.messages)
        self._build()
        self._connect()
        self._refresh_summary()
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(REFRESH_MILLISECONDS)
        self._soon.timeout.connect(self._on_layers_settled)
        self._save_soon = QTimer(self)
        self._save_soon.setSingleShot(True)
        self._save_soon.setInterval(SAVE_MILLISECONDS)
        self._save_soon.timeout.connect(self._on_remember)
        self._opening = QTimer(self)
        self._opening.setSingleShot(True)
        self._opening.timeout.connect(self._on_open)
        self._opening.start()

    def sizeHint(self) -> QSize:
        """Wide enough for the table beside an image on a small screen."""
        return QSize(500, 640)

    # ---- building ----

    def _build(self) -> None:
        self.source = SourcePanel(self._viewer)
        self.corrections = CorrectionsEditor()
        self.corrections.hide()
        self.table = PairTable()
        self.detail = QLabel()
        self.detail.setWordWrap(True)
        self.detail.setTextFormat(Qt.TextFormat.PlainText)
        self.detail.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.detail.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.setSpacing(5)
        layout.addWidget(self.source)
        layout.addLayout(self._choices())
        layout.addWidget(self.corrections)
        layout.addWidget(self.messages)
        layout.addWidget(self.table, 1)
        layout.addWidget(self.detail)
        layout.addLayout(self._summary_row())
        layout.addLayout(self._progress_row())
        layout.addLayout(self._save_row())

    def _choices(self) -> QGridLayout:
        self.task = _choice(TASKS, "Learn", "What a network shall learn from these pairs")
        self.labelling = _choice(LABELLINGS, "Labelled", "What was painted; unknown pixels are never learned from")
        self.complete = QCheckBox("complete inside the rectangles")
        self.complete.setToolTip("Inside the rectangles every object is labelled, so what is not painted is background")
        self.draw = QPushButton("Draw one")
        self.draw.setToolTip("Draw a rectangle around a part of which every object is labelled")
        self.validation = _choice(
            MODES, "Validate", "What is kept to see how good the network is; whole images tell most"
        )
        self.correct = QToolButton()
        self.correct.setText("Correct axes, channels, voxel size")
        self.correct.setToolTip("Say what the files or layers say wrong, or do not say")
        self.correct.setCheckable(True)
        self.correct.setAutoRaise(True)
        self.correct.setArrowType(Qt.ArrowType.RightArrow)
        self.correct.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        grid = QGridLayout()
        grid.setHorizontalSpacing(6)
        grid.setVerticalSpacing(4)
        grid.addWidget(QLabel("Learn"), 0, 0)
        grid.addWidget(self.task, 0, 1)
        grid.addWidget(QLabel("Validate"), 0, 2)
        grid.addWidget(self.validation, 0, 3)
        self._labelled = QLabel("Labelled")
        grid.addWidget(self._labelled, 1, 0)
        grid.addWidget(self.labelling, 1, 1, 1, 3)
        grid.addWidget(self.complete, 2, 1, 1, 2)
        grid.addWidget(self.draw, 2, 3)
        grid.addWidget(self.correct, 3, 0, 1, 4)
        grid.setColumnStretch(1, 1)
        grid.setColumnStretch(3, 1)
        return grid

    def _summary_row(self) -> QHBoxLayout:
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.exclude = QPushButton()
        self.exclude.setIcon(icon("remove"))
        self.exclude.setToolTip("Leave out every pair from which nothing can be learned as it is")
        self.exclude.hide()
        self.check = QPushButton("Check again")
        self.check.setToolTip("Look at all pixels again, for example after painting")
        row = QHBoxLayout()
        row.addWidget(self.summary, 1)
        row.addWidget(self.exclude)
        row.addWidget(self.check)
        return row

    def _progress_row(self) -> QHBoxLayout:
        self.progress = QProgressBar()
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip("Stop what is under way; nothing is changed")
        row = QHBoxLayout()
        row.addWidget(self.progress, 1)
        row.addWidget(self.cancel)
        self.progress.hide()
        self.cancel.hide()
        return row

    def _save_row(self) -> QHBoxLayout:
        self.name = QLineEdit()
        self.name.setPlaceholderText("Name of the data set")
        self.name.setAccessibleName("Name of the data set")
        self.name.setToolTip("Under this name it is listed in Train; left empty, it is named after its images")
        self.save = QPushButton("Save")
        self.save.setToolTip(f"Keep these pairs in {self._project.root}, unchanged from now on")
        self.train = QPushButton("Train with it")
        self.train.setIcon(icon("start"))
        self.train.setToolTip("Save, then open Train with this data set")
        self.copy_menu = CopyMenu(self._copies)
        row = QHBoxLayout()
        row.addWidget(self.name, 1)
        row.addWidget(self.save)
        row.addWidget(self.train)
        row.addWidget(self.copy_menu)
        return row

    def _connect(self) -> None:
        self.source.pairAdded.connect(self._on_pair)
        self.source.pairAllWanted.connect(self._on_pair_all)
        self.source.folderChosen.connect(self._on_folder)
        self.source.currentChanged.connect(self._on_tab)
        self.corrections.valueChanged.connect(self._on_corrections)
        self.correct.toggled.connect(self._on_correct)
        self.task.currentIndexChanged.connect(self._on_task)
        self.labelling.activated.connect(self._on_labelling)
        self.complete.clicked.connect(self._on_complete)
        self.draw.clicked.connect(self._on_draw)
        self.validation.activated.connect(self._on_validation)
        self.table.pairs.useChanged.connect(self._on_use)
        self.table.pairs.partChanged.connect(self._on_part)
        self.table.rowChosen.connect(self._on_row)
        selection = self.table.selectionModel()
        assert selection is not None
        selection.selectionChanged.connect(self._on_selection)
        self.table.joinWanted.connect(self._on_same)
        self.table.separateWanted.connect(self._on_separate)
        self.table.useWanted.connect(self._on_use_chosen)
        self.name.textEdited.connect(self._remember_soon)
        self.exclude.clicked.connect(self._on_exclude)
        self.check.clicked.connect(self.review)
        self.cancel.clicked.connect(self.work.cancel)
        self.save.clicked.connect(self._on_save)
        self.train.clicked.connect(self._on_train)
        self.work.progressed.connect(self._on_progress)
        self.work.done.connect(self._on_done)
        self.work.failed.connect(self._on_failed)
        self.show_work.done.connect(self._on_preview)
        self.show_work.failed.connect(self._on_failed)
        for event in ("inserted", "removed", "reordered", "renamed"):
            getattr(self._viewer.layers.events, event).connect(self._on_layers)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Find a place among the other panels."""
        super().showEvent(event)
        settle_dock(self)

    def hideEvent(self, event: QHideEvent | None) -> None:
        """The window may be closing: what was painted or chosen last is written at once."""
        self.journal.flush()
        if self._save_soon.isActive():
            self._save_soon.stop()
            self._content().write(self._project)  # a few bytes, and the threads end with the panel
        super().hideEvent(event)

    # ---- public ----

    def rows(self) -> tuple[PairRow, ...]:
        """Pairs in the table."""
        return self.table.pairs.rows()

    def add_pair(self, images: Sequence[Layer], target: Layer) -> None:
        """Put a pair of layers into the table; a pair with the same target is replaced."""
        self._recall()
        self._on_pair(LayerPair(tuple(images), target))

    def teach(self, images: Layer | Sequence[Layer], prediction: Layer, model: str = "") -> None:
        """Prefill a Labels layer from a prediction, pair it with `images`, and give the user the brush.

        Of the labels only what lies inside complete regions is learned from: the rest is still a guess.
        What was corrected of an earlier prediction of the same image is taken over. The pixels are
        made in a thread; what goes wrong there is said in this panel.

        Parameters
        ----------
        images : layer, or several that are the channels of one image
        model : str
            Path of the model that predicted; a training on the corrections starts from it.
        """
        self._recall()
        chosen = tuple(images) if isinstance(images, (list, tuple)) else (images,)
        earlier = next((p.target for p in self._pairs() if p.images == chosen and _is_guess(p)), None)
        correction = correction_of(self._viewer, chosen[0], prediction, earlier, model)
        waiting = None
        if int(np.prod(correction.prediction.shape)) * 4 > COPIED_BYTES:
            waiting = self.messages.add(f"The labels of “{prediction.name}” are made ready to be corrected")

        def ready(made: tuple[Any, int]) -> None:
            self._end_message(waiting)
            if not {*chosen, prediction} <= set(self._viewer.layers):
                return
            painted = add_correction(self._viewer, correction, made[0])
            painted.selected_label = made[1]
            self._taught(chosen, prediction, painted)

        def failed(error: BaseException) -> None:
            self._end_message(waiting)
            self._report(error)

        self.later.ask(f"teach {chosen[0].unique_id.hex}", correction.labels, ready, failed)

    def _taught(self, images: tuple[Layer, ...], prediction: Layer, painted: Labels) -> None:
        """Corrections are there: they take the place of other labels of the image."""
        prediction.visible = False
        others = [p for p in self._pairs() if p.images != images and p.target is not prediction]
        self._take_pairs([*others, LayerPair(images, painted)])
        self._viewer.layers.selection.active = painted
        painted.mode = "paint"
        self.messages.add(HOW_TO_CORRECT, "info", "", "Draw the rectangle", self._on_draw)

    def review(self) -> None:
        """Look at all pixels of all pairs in a thread; what is being saved is saved first."""
        if self.work.name == "save":
            self._review_next = True
            return
        rows = self._fresh_rows()
        if not rows:
            return
        if any(row.layers for row in rows):
            self.table.thumbnails.renew()
        self._set_rows(rows)
        task = "" if self._guessing else str(self.task.currentData())
        labelling = self._labelling()
        prefilled = {row.name: self._polygons(row.layers) for row in rows if row.layers and self._is_guess(row)}
        self._begin("review", lambda tell, stop: review_rows(rows, task, labelling, prefilled, tell, stop))

    # ---- collecting ----

    def _recall(self) -> None:
        """Read what is remembered, once; layers that were left in this session are shown as they were."""
        if self._recalled:
            return
        self._recalled = True
        self._memory = Memory.read(self._project)
        if self._memory.was_last(LAST_LAYERS):
            self._take_pairs(self._memory.layers.pairs(self._viewer.layers))

    def _on_open(self) -> None:
        """What was seen last in this session; else pairs of layers, else the folder of the last session."""
        self.source.refresh()
        self._recall()
        path = self._memory.files.path
        if self._pairs() or self.work.name:
            return
        is_there = bool(path) and Path(path).exists()
        if not (is_there and self._memory.was_last(LAST_FILES)):
            self._on_pair_all()
        if is_there and not self._pairs():
            self._restoring = True
            self._on_folder(path)
        elif is_there:
            self._offer_folder(path)

    def _offer_folder(self, path: str) -> None:
        self._end_message(self._way_back)
        text = f"“{Path(path).name}” is kept as you left it"
        self._way_back = self.messages.add(text, "info", "", "Open it again", lambda: self._on_folder(path))

    def _offer_layers(self) -> None:
        self._end_message(self._way_back)
        text = "The pairs of layers are kept as you left them"
        self._way_back = self.messages.add(text, "info", "", "Show them again", self._show_layers_again)

    def _show_layers_again(self) -> None:
        pairs = self._memory.layers.pairs(self._viewer.layers)
        if pairs:
            self._take_pairs(pairs)
        else:
            self.messages.add("The layers are not open any more")

    def _on_layers(self, event: Any) -> None:
        if isalive(self):  # the viewer does not know that this widget was closed
            self._soon.start()

    def _on_regions(self, event: Any = None) -> None:
        """Another part of prefilled labels counts."""
        if isalive(self) and any(self._is_guess(row) for row in self.rows()):
            self._review_next = True
            self._soon.start()

    def _follow_regions(self) -> None:
        """Hear of every change of the regions, whoever drew them and whenever."""
        shapes = region_layers(self._viewer)
        for layer in shapes:
            layer.events.data.connect(self._on_regions)  # the same listener is kept once
        known = {layer.unique_id for layer in shapes}
        if known != self._regions:
            self._regions = known
            self._on_regions()

    def _on_layers_settled(self) -> None:
        """Follow the layer list once it is quiet, and nothing is being saved."""
        if self.work.name == "save":
            self._soon.start()
            return
        self.source.refresh()
        there = set(self._viewer.layers)
        left = [r for r in self.rows() if r.layers is None or {*r.layers.images, r.layers.target} <= there]
        if len(left) < len(self.rows()):
            self._set_rows(left)
        self._pending = [pair for pair in self._pending if set(layers_of([pair])) <= there]
        self._follow_names()
        self._follow_regions()
        self._review_late()
        if not left and self.source.currentIndex() == LAYERS and self.work.name == "":
            self._on_pair_all()
        self._show_choices()

    def _pairs(self) -> list[LayerPair]:
        """Pairs of layers: those shown, and those that wait for an answer; while a folder is open, those left."""
        if self._path is not None:
            return self._memory.layers.pairs(self._viewer.layers)
        return [*(row.layers for row in self.rows() if row.layers), *self._pending]

    def _on_pair(self, pair: LayerPair) -> None:
        self._take_pairs([*(other for other in self._pairs() if other.target is not pair.target), pair])

    def _on_pair_all(self) -> None:
        pairs = pair_layers(image_layers(self._viewer), label_layers(self._viewer))
        if pairs:
            self._take_pairs(pairs)

    def _follow_names(self) -> None:
        """Name rows after their layers, as these are called now."""
        rows = self.rows()
        layered = [row.layers for row in rows if row.layers]
        names = iter(pair_names(layered))
        fresh = [renamed(row, next(names)) if row.layers else row for row in rows]
        if [row.name for row in fresh] != [row.name for row in rows]:
            self._set_rows(fresh)
            self.review()

    def _take_pairs(self, pairs: Sequence[LayerPair]) -> None:
        if not pairs:
            return
        if self._path is not None or not self._pairs():
            self._begin_layers(pairs)
        self._unsay(keep_errors=True)
        self.source.setCurrentIndex(LAYERS)
        if any(labelling_of(pair.target) == "sparse" for pair in pairs):
            self._choose(self.labelling, "sparse")
        before = {row.layers.target.unique_id: row for row in self.rows() if row.layers}
        self._pending = []
        rows = []
        for pair, name in zip(pairs, pair_names(pairs), strict=True):
            known = before.get(pair.target.unique_id)
            row = self._row_of(pair, name, known)
            if row is not None:
                rows.append(as_before(row, known) if known else self._memory.layers.applied([row])[0])
        self._set_rows(self._divided(rows))
        self._ask_axes()
        self._show_choices()
        self._follow_regions()
        self._remember_soon()
        self.review()

    def _begin_layers(self, pairs: Sequence[LayerPair]) -> None:
        """Leave the folder; choices are as they were for these layers, or as the first pair says."""
        self._change_to(None)
        left = self._memory.layers
        if any(pair.target.unique_id.hex in left.rows for pair in pairs) and left.task:
            self._show_left(left)
        else:
            self._guess(pairs[0])

    def _change_to(self, path: Path | None) -> None:
        """Leave what is open for a folder or for layers; it is remembered, and a button leads back to it."""
        if self.work.name in ("load", "review"):
            self.work.cancel()
        self._unsay()
        had_rows, before = bool(self._pairs() if self._path is None else self.rows()), self._path
        if had_rows:
            self._save_soon.stop()
            self._on_remember()
        if had_rows or before is not None:
            self._name_after("", renew=True)
            self._show_corrections(CorrectionSet())
        self._path, self._pending = path, []
        self._set_rows([])
        self._chosen_keys = set()
        if before is not None and had_rows:
            self._offer_folder(str(before))
        elif had_rows:
            self._offer_layers()

    def _end_message(self, message: Message | None) -> None:
        if message is not None and message in self.messages.messages():
            message.dismissed.emit()

    def _name_after(self, name: str, *, renew: bool = False) -> None:
        """Propose `name`; what a person wrote stays unless it was for other pairs."""
        if renew or self.name.text() in ("", self._auto_name):
            self.name.setText(name)
        self._auto_name = name

    def _show_left(self, left: Left) -> None:
        """Choices as they were left."""
        self._guessing = False
        for box, value in (
            (self.task, left.task),
            (self.labelling, left.labelling),
            (self.validation, left.validation),
        ):
            if box.findData(value) >= 0:
                self._choose(box, value)
        self.complete.setChecked(left.complete)
        if left.name:
            self.name.setText(left.name)
        self._show_corrections(left.corrected())

    def _show_corrections(self, corrected: CorrectionSet) -> None:
        """Corrections that hold already: nothing has to be done about them."""
        self._corrected = corrected
        self._on_selection()

    def _on_selection(self, *_: object) -> None:
        """Show what holds for the selected rows; for all where none or all are selected."""
        keys = self._selected_keys()
        blocked = self.corrections.blockSignals(True)
        self.corrections.setValue(self._corrected.of(keys[0]) if keys else self._corrected.every)
        self.corrections.blockSignals(blocked)
        self.corrections.show_scope(len(keys))

    def _selected_keys(self) -> list[str]:
        """Keys of the selected rows; none where all are selected."""
        rows, chosen = self.rows(), self.table.chosen()
        return [key_of(rows[number]) for number in chosen] if len(chosen) < len(rows) else []

    def _select(self, keys: Collection[str]) -> None:
        selection = self.table.selectionModel()
        assert selection is not None
        how = QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows
        for number, row in enumerate(self.rows()):
            if key_of(row) in keys:
                selection.select(self.table.pairs.index(number, 0), how)
        self._on_selection()

    def _row_of(self, pair: LayerPair, name: str, known: PairRow | None) -> PairRow | None:
        """Row of a pair; None where the axes of a layer are not known, or it is no pair.

        Where a correction does not fit, the row stays as it was `known`.
        """
        if unclear_layers([pair]):
            self._pending.append(pair)
            return None
        try:
            return PairRow(name, self._sample(pair, name), layers=pair)
        except DataError as error:
            self.messages.add_error(error)
            return known if known and known.layers == pair else None

    def _sample(self, pair: LayerPair, name: str) -> Sample:
        from im2im_core.image import select_channels

        wanted = self._corrected.of(pair.target.unique_id.hex)
        sample = sample_of(pair, name, wanted.voxel_size)
        if self._labelling() == "sparse" and kind_of(pair.target) == "labels" and labelling_of(pair.target) == "dense":
            sample = as_sparse(sample)
        return replace(sample, source=select_channels(sample.source, wanted.channels))

    def _ask_axes(self) -> None:
        """A question with one button per answer that the layers allow; the answer holds for all that are alike."""
        unclear = unclear_layers(self._pending)
        if not unclear:
            return
        text, answers = question(unclear)
        if not answers:
            self.messages.add(text, "error", "Choose layers of two to five dimensions")
            return
        buttons: list[Button] = [(axes, partial(self._answer_axes, axes)) for axes in answers[:ANSWERS]]
        if len(answers) > ANSWERS:
            buttons.append(("Another order…", self._on_other_axes))
        self._say(
            text, "warning", "Which are they? T time, C channel, Z plane, Y row, X column", *buttons[0], buttons[1:]
        )

    def _on_other_axes(self) -> None:
        self.correct.setChecked(True)
        self.corrections.axes.setFocus()

    def _answer_axes(self, axes: str) -> None:
        tell_axes(unclear_layers(self._pending), axes)
        self._take_pairs(self._pairs())

    def _guess(self, pair: LayerPair) -> None:
        """Set task and labelling from what the first pair says; the pixels are asked in the review."""
        target = pair.target
        self._guessing = False
        if kind_of(target) != "labels":
            words = f"{target.name} {pair.name}".lower()
            self._choose(self.task, "restoration" if "clean" in words or "noisy" in words else "label_free")
            return
        self._choose(self.task, "instance_segmentation")
        self._choose(self.labelling, labelling_of(target))
        self._guessing = labelling_of(target) == "dense"
        if region_layers(self._viewer):
            self.complete.setChecked(True)

    def _on_folder(self, text: str) -> None:
        self._guessing = False
        path = Path(text)
        if path != self._path:
            self._change_to(path)
            if self._memory.files.path == text and self._corrected == CorrectionSet():
                self._show_corrections(self._memory.files.corrected())
        self.source.setCurrentIndex(FILES)
        self.source.path.setText(text)
        wanted = self._corrected
        self._unsay()
        self._set_rows([])
        self._begin("load", lambda tell, stop: load_rows(path, wanted, tell, stop))

    def _loaded(self, found: Loaded) -> None:
        assert self._path is not None
        self.source.found.setText(f"{len(found.rows)} pairs: {found.layout}")
        if found.task:
            self._choose(self.task, found.task)
        self._choose(self.labelling, "dense")
        self._choose(self.validation, "own" if found.parts_given else "images")
        self._name_after(self._path.stem)
        if self._memory.files.path == str(self._path):
            self._show_as_left(found)
        else:
            self._set_rows(found.rows if found.parts_given else self._divided(found.rows))
        self._show_choices()
        if self._restoring:
            self._restoring = False
            self._say("The pairs are as you left them", "info", "", "Check again", self.review)
        else:
            self.review()
        self._remember_soon()

    def _show_as_left(self, found: Loaded) -> None:
        """Choices and rows as they were when this folder was last open."""
        corrected = self._corrected
        self._show_left(self._memory.files)
        self._show_corrections(corrected)
        self._set_rows(self._memory.files.applied(found.rows))

    def _on_tab(self, index: int) -> None:
        if index == FILES:
            self.source.path.setFocus()

    # ---- choices ----

    def _on_correct(self, on: bool) -> None:
        self.corrections.setVisible(on)
        self.correct.setArrowType(Qt.ArrowType.DownArrow if on else Qt.ArrowType.RightArrow)

    def _on_corrections(self, value: Corrections) -> None:
        keys, before = self._selected_keys(), self._corrected
        self._corrected = before.with_value(value, keys)
        if self._path is not None:
            self._content()
            self._on_folder(str(self._path))
            return
        pairs = [p for p in self._pairs() if not keys or p.target.unique_id.hex in keys]
        changed = [p for p in pairs if before.of(p.target.unique_id.hex).axes != value.axes]
        tell_axes(layers_of(changed), value.axes)
        self._take_pairs(self._pairs())

    def _on_task(self) -> None:
        self._guessing = False
        self._remember_soon()
        self._show_choices()
        self.review()

    def _on_labelling(self) -> None:
        if self.labelling.currentData() == "dense" and self._learns_corrections():
            self._choose(self.labelling, "sparse")
            self._say("Labels that began as a prediction are numbered so that 1 is background", "info")
            return
        for row in self.rows():
            if row.layers and kind_of(row.layers.target) == "labels":
                metadata = {**row.layers.target.metadata, LABELLING: self.labelling.currentData()}
                row.layers.target.metadata = metadata
        self._show_choices()
        self._remember_soon()
        self.review()

    def _on_complete(self, on: bool) -> None:
        """Take the shapes that are drawn for the regions; where there are none, let the user draw one."""
        self._remember_soon()
        if not on:
            return
        self._adopt_regions()
        if not any(len(layer.data) for layer in region_layers(self._viewer)):
            self._on_draw()

    def _adopt_regions(self) -> None:
        for shapes in adoptable_regions(self._viewer, [r.layers.target for r in self._label_rows() if r.layers]):
            adopt(shapes)
            self.messages.add(f"Everything inside the shapes of “{shapes.name}” is taken for labelled", "info")
        self._follow_regions()

    def _is_guess(self, row: PairRow) -> bool:
        """Whether the labels of a row began as a prediction."""
        return row.layers is not None and _is_guess(row.layers)

    def _has_all_regions(self, rows: Sequence[PairRow]) -> bool:
        """Whether every prefilled row has a region; where one has none, the user is asked for it."""
        lacking = [r for r in rows if r.used and r.layers and self._is_guess(r) and not self._polygons(r.layers)]
        if not lacking:
            return True
        text = f"{lacking[0].name}: nothing says yet which part of the prediction is corrected"
        cure = "Only what lies inside a rectangle is learned from"
        drawn = adoptable_regions(self._viewer, [r.layers.target for r in lacking if r.layers])
        if drawn:
            self._say(text, "warning", cure, f"Take the shapes of “{drawn[0].name}”", self._take_shapes)
        else:
            self._say(text, "warning", cure, "Draw the rectangle", self._on_draw)
        return False

    def _take_shapes(self) -> None:
        self.complete.setChecked(True)
        self._adopt_regions()

    def _on_draw(self) -> None:
        """Let the user draw a rectangle in the Shapes layer of the first painted pair."""
        labels = next((r.layers.target for r in self._label_rows() if r.layers), None)
        if labels is None:
            return
        chosen = self._chosen_labels() or labels
        key = chosen.unique_id.hex
        shapes = next((s for s in region_layers(self._viewer) if s.metadata.get(LABELS_OF) == key), None)
        if shapes is None:
            shapes = self._viewer.add_shapes(
                ndim=chosen.ndim,
                name=f"complete regions of {chosen.name}",
                scale=chosen.scale,
                translate=chosen.translate,
                units=chosen.units,
                edge_color="yellow",
                face_color="transparent",
                edge_width=1,
                metadata={COMPLETE: True, LABELS_OF: key},
            )
            self._follow_regions()
        self.complete.setChecked(True)
        self._viewer.layers.selection.active = shapes
        shapes.mode = "add_rectangle"

    def _chosen_labels(self) -> Layer | None:
        """Labels of the selected row, else of the first one that lacks a region."""
        rows = self.rows()
        chosen = [*(rows[i] for i in self.table.chosen()), *(r for r in rows if self._is_guess(r))]
        return next((r.layers.target for r in chosen if r.layers and kind_of(r.layers.target) == "labels"), None)

    def _label_rows(self) -> list[PairRow]:
        return [row for row in self.rows() if row.layers and kind_of(row.layers.target) == "labels"]

    def _on_validation(self) -> None:
        if self.validation.currentData() != "own":
            self._set_rows(draw_parts(self.rows(), self.validation.currentData()), reset=False)
        self._remember_soon()

    def _divided(self, rows: Sequence[PairRow]) -> list[PairRow]:
        mode = self.validation.currentData()
        if mode == "own":
            known = {row.name: row.part for row in self.rows()}
            return [replace(row, part=known.get(row.name, row.part)) for row in rows]
        return draw_parts(rows, mode)

    def _labelling(self) -> str:
        return str(self.labelling.currentData()) if self.task.currentData() in LABEL_TASKS else "dense"

    def _choose(self, box: QComboBox, value: str) -> None:
        blocked = box.blockSignals(True)
        box.setCurrentIndex(max(box.findData(value), 0))
        box.blockSignals(blocked)

    def _show_choices(self) -> None:
        """Only what makes sense for the task and the source."""
        labels = self.task.currentData() in LABEL_TASKS
        painted = labels and bool(self._label_rows())
        self._labelled.setVisible(labels)
        self.labelling.setVisible(labels)
        self.complete.setVisible(painted)
        self.draw.setVisible(painted)

    # ---- rows ----

    def _set_rows(self, rows: Sequence[PairRow], *, reset: bool = True) -> None:
        self._entry = None
        if reset:
            shown = self.rows()
            keys = {key_of(shown[number]) for number in self.table.chosen()} or self._chosen_keys
            self.table.pairs.set_rows(rows, labels=self.task.currentData() in LABEL_TASKS)
            self._chosen_keys = set() if rows else keys  # rows that are opened again stay selected
            self._select(keys)
            self._show_detail(None)
        else:
            by_name = {row.name: row for row in rows}
            self.table.pairs.change(lambda row: by_name.get(row.name, row))
        self._refresh_summary()

    def _fresh_rows(self) -> list[PairRow]:
        """Rows with the pixels that their layers hold now."""
        rows = []
        for row in self.rows():
            try:
                sample = self._sample(row.layers, row.name) if row.layers else row.sample
            except DataError as error:
                self.messages.add_error(error)
                sample = row.sample
            if sample is not None and row.sample is not None:
                sample = replace(sample, group=row.sample.group)
            rows.append(replace(row, sample=sample))
        return rows

    def _on_use(self, number: int, on: bool) -> None:
        self._on_use_chosen({number, *self.table.chosen()} if number in self.table.chosen() else {number}, on)

    def _on_use_chosen(self, numbers: Iterable[int], on: bool) -> None:
        names = {self.rows()[i].name for i in numbers if self.rows()[i].sample}
        self.table.pairs.change(lambda row: replace(row, used=on) if row.name in names else row)
        self._entry = None
        self._refresh_summary()
        self._remember_soon()

    def _on_same(self, numbers: Sequence[int]) -> None:
        self._regroup(join_rows(self.rows(), numbers))

    def _on_separate(self, numbers: Sequence[int]) -> None:
        self._regroup(separate_rows(self.rows(), numbers))

    def _regroup(self, rows: Sequence[PairRow]) -> None:
        """Show other groups; parts are drawn anew where they are drawn at all."""
        mode = self.validation.currentData()
        self._set_rows(rows if mode == "own" else draw_parts(rows, mode), reset=False)
        self._show_set_problems()
        self._remember_soon()

    def _on_part(self, number: int, part: str) -> None:
        chosen = {number, *self.table.chosen()} if number in self.table.chosen() else {number}
        self._choose(self.validation, "own")
        self._set_rows(set_part(self.rows(), chosen, part), reset=False)
        self._show_set_problems()
        self._remember_soon()

    def _on_exclude(self) -> None:
        self.table.pairs.change(lambda row: replace(row, used=False) if row.hopeless else row)
        if self.validation.currentData() != "own":
            self._set_rows(self._divided(self.rows()), reset=False)
        self._refresh_summary()
        self._remember_soon()

    def _refresh_summary(self) -> None:
        rows = self.rows()
        self.summary.setText(summary(rows))
        bad = [row for row in rows if row.hopeless]
        left = [row for row in bad if row.used]
        self.exclude.setVisible(bool(left))
        self.exclude.setText("Exclude the problem" if len(bad) == 1 else f"Exclude the {len(bad)} problems")
        ready = any(row.used for row in rows) and not self.work.name
        self.save.setEnabled(ready)
        self.train.setEnabled(ready)
        self.check.setEnabled(bool(rows) and not self.work.name)
        saving = self.work.name == "save"
        for widget in (self.source, self.task, self.labelling, self.complete, self.draw, self.validation):
            widget.setEnabled(not saving)
        for widget in (self.correct, self.corrections, self.table, self.name, self.exclude):
            widget.setEnabled(not saving)

    # ---- problems ----

    def _reviewed(self, found: Reviewed) -> None:
        if self._guessing and found.task:
            self._guessing = False
            self._choose(self.task, found.task)
            self._show_choices()
        self._set_rows(with_review(self.rows(), found), reset=False)
        self._set_problems = tuple(p for p in found.problems if not p.sample or p.code == "duplicate")
        self._show_set_problems()
        number = self.table.currentIndex().row()
        self._show_detail(self.rows()[number] if 0 <= number < len(self.rows()) else None)

    def _show_set_problems(self) -> None:
        """What concerns all pairs, each with a button that mends it."""
        self._unsay(keep_errors=True)
        for problem in self._set_problems:
            text, action = self._mend(problem)
            self._say(problem.text, problem.severity, "" if action else problem.cure, text, action)
        shared = overlaps(self.rows())
        if shared:
            more = f" ({len(shared)} such pairs)" if len(shared) > 1 else ""
            self._say(f"{shared[0].text}{more}", "warning", "", "Put them into one group", self._on_join)
        odd = unlike(self.rows())
        if odd:
            names = ", ".join(self.rows()[i].name for i in odd[:3])
            self._say(
                f"{len(odd)} images have another number of channels ({names})",
                "error",
                "",
                "Exclude them",
                lambda: self._drop(odd),
            )

    def _say(self, *message: Any) -> None:
        """A message that goes when the pairs are looked at again."""
        self._said.append(self.messages.add(*message))

    def _unsay(self, *, keep_errors: bool = False) -> None:
        """Remove what was said of the pairs; offers to restore labels and advice stay."""
        for message in self.messages.messages():
            if message in self._said or (message.level == "error" and not keep_errors):
                message.dismissed.emit()
        self._said.clear()

    def _mend(self, problem: Problem) -> tuple[str | None, Callable[[], object] | None]:
        """Button that mends `problem`; none where only the user can."""
        mends: dict[str, tuple[str, Callable[[], object]]] = {
            "probably_classes": ("Learn classes", lambda: self.task.setCurrentIndex(1)),
            "probably_instances": ("Learn objects", lambda: self.task.setCurrentIndex(0)),
            "voxel_size_missing": ("Set voxel size…", self._on_voxel_size),
            "voxel_size_suspicious": ("Set voxel size…", self._on_voxel_size),
            "duplicate": ("Put them into one group", self._on_join),
        }
        return mends.get(problem.code, (None, None))

    def _on_voxel_size(self) -> None:
        self.correct.setChecked(True)
        self.corrections.voxel_size.setFocus()

    def _on_join(self) -> None:
        self._set_problems = tuple(p for p in self._set_problems if p.code != "duplicate")
        self._set_rows(join_copies(self.rows()), reset=False)

    def _drop(self, numbers: Sequence[int]) -> None:
        names = {self.rows()[i].name for i in numbers}
        self.table.pairs.change(lambda row: replace(row, used=False) if row.name in names else row)
        self._refresh_summary()

    def _show_detail(self, row: PairRow | None) -> None:
        texts = [f"{p.text}. {p.cure}" for p in row.problems] if row else []
        self.detail.setText("\n".join(texts))
        self.detail.setVisible(bool(texts))

    # ---- showing a pair ----

    def _on_row(self, number: int) -> None:
        rows = self.rows()
        if not 0 <= number < len(rows):
            return
        row = rows[number]
        self._show_detail(row)
        if row.layers:
            self._show_layers(row.layers)
        elif row.sample:
            sample, is_labels = row.sample, self.task.currentData() in LABEL_TASKS
            self._shown = row.name
            self.show_work.start("show", lambda tell, stop: (sample, is_labels, *pixels_of(sample)))

    def _show_layers(self, pair: LayerPair) -> None:
        """Hide the layers of all other pairs."""
        own = {*pair.images, pair.target}
        for row in self.rows():
            for layer in (*row.layers.images, row.layers.target) if row.layers else ():
                layer.visible = layer in own
        for preview in self._previews:
            preview.visible = False
        self._viewer.layers.selection.active = pair.target

    def _on_preview(self, name: str, result: Any) -> None:
        """Show the images of a row of files in two layers that are used for all rows."""
        sample, is_labels, axes, source, target, limits = result
        for layer in [layer for layer in self._previews if layer in self._viewer.layers]:
            self._viewer.layers.remove(layer)
        look = {**world_of(sample.source.info, axes[0]), "metadata": {OURS: PREVIEW}}
        image = self._viewer.add_image(source, name=f"{sample.name} (image)", contrast_limits=limits, **look)
        self._previews = [image]
        if target is not None:
            look = {**world_of(sample.source.info, axes[1]), "metadata": {OURS: PREVIEW}}
            shown = f"{sample.name} (target)"
            is_whole = target.dtype.kind in "bui"
            add = self._viewer.add_labels if is_labels and is_whole else self._viewer.add_image
            self._previews.append(add(target, name=shown, opacity=0.5, **look))
        self._viewer.reset_view()

    # ---- saving ----

    def _on_save(self) -> None:
        from im2im_core.datasets import save_dataset
        from im2im_core.samples import TARGET

        rows = self._fresh_rows()
        if not self._has_all_regions(rows):
            self._train_next = False
            return
        regions = {row.name: self._polygons(row.layers) for row in rows if row.layers and row.used}
        regions = {name: found for name, found in regions.items() if found}
        prefilled = {row.name for row in rows if self._is_guess(row)}
        files = {r.name: (file_of(r.layers.images[0]), file_of(r.layers.target)) for r in rows if r.layers}
        content, task, labelling = as_saved(rows), self.task.currentData(), self._labelling()
        name = self.name.text().strip() or (rows[0].name if len(rows) == 1 else f"{len(rows)} pairs")
        project = self._project

        def work(tell: Any, stop: Any) -> tuple[DatasetEntry, list[str]]:
            samples = [held(s, *files[s.name]) if s.name in files else s for s in content["samples"]]
            entry = save_dataset(
                project,
                name,
                samples,
                content["parts"],
                labelling,
                task=task,
                regions=regions,
                prefilled=prefilled,
                objects=content["objects"],
                excluded=content["excluded"],
                on_event=tell,
                should_stop=stop,
            )
            # What was painted meanwhile is not in it and stays in the journal.
            live = {sample.name: sample.targets[TARGET] for sample in content["samples"] if sample.name in files}
            same = [s.name for s in samples if s.name in live and same_pixels(s.targets[TARGET], live[s.name])]
            return entry, same

        self._begin("save", work)

    def _polygons(self, pair: LayerPair) -> list[Any]:
        """Complete regions of a pair; those of prefilled labels count in any case, as nothing else does."""
        if kind_of(pair.target) != "labels" or not (self.complete.isChecked() or is_prefilled(pair.target)):
            return []
        return polygons_of(region_layers(self._viewer), pair.target)

    def _saved(self, entry: DatasetEntry, same: Sequence[str]) -> None:
        for row in self.rows():
            if row.name in same and row.layers and kind_of(row.layers.target) == "labels":
                self.journal.settle(row.layers.target)
        self._entry = entry
        self.messages.add(f"“{entry.name}” is saved: {entry_words(entry)}", "info")
        self.dataset_saved.emit(str(entry.path))
        if self._train_next:
            self._open_train(entry)

    def _on_train(self) -> None:
        self._train_next = True
        self._on_save()

    def _open_train(self, entry: DatasetEntry) -> None:
        try:
            panel = open_panel(self._viewer, "Train")
            panel.prepare(
                str(entry.path),
                task=entry.task_hint,
                dimensions=entry.dimensions,
                start_from=self._taught_from(),
                minutes=SHORT_MINUTES,
            )
        except Im2ImError as error:
            self.messages.add_error(error)

    def _learns_corrections(self) -> bool:
        """Whether corrections of a prediction are among what is used."""
        return any(row.used and self._is_guess(row) for row in self.rows())

    def _taught_from(self) -> str | None:
        """Model whose predictions are corrected; the latest of several."""
        corrected = [row.layers.target for row in self.rows() if row.layers and row.used and self._is_guess(row)]
        return next((str(m) for layer in reversed(corrected) if (m := layer.metadata.get(TAUGHT_FROM))), None)

    def _copies(self) -> dict[str, str]:
        """Texts of the copy menu: of the folder or table, or of layers as they were saved last."""
        from napari_im2im._dataset_copies import copies

        path = None if self._corrected.own else self._path
        path = path or (self._entry.path if self._entry else None)
        if path is None:
            what = "open layers" if self._path is None else "corrected one by one"
            raise DataError(f"These pairs are {what}, which no command can read", "Save them first")
        corrections = self._corrected.every if path == self._path else Corrections()
        return copies(path, str(self.task.currentData()), self.rows(), corrections)

    # ---- memory ----

    def _remember_soon(self, *_: object) -> None:
        self._save_soon.start()

    def _on_remember(self) -> None:
        content, project = self._content(), self._project
        self.later.ask("memory", lambda: content.write(project), lambda _: None)

    def _content(self) -> Memory:
        """What shall be remembered: what is open now, beside what was before."""
        if not self.rows() and not self._pending:
            return self._memory
        name = self.name.text()
        left = Left(
            "" if self._path is None else str(self._path),
            "" if name == self._auto_name else name,
            "" if self._guessing else str(self.task.currentData()),
            str(self.labelling.currentData()),
            str(self.validation.currentData()),
            self.complete.isChecked(),
            asdict(self._corrected.every),
            remember_rows(self.rows(), self._pending, self._corrected),
        )
        self._memory = self._memory.with_left(left)
        return self._memory

    # ---- work in the thread ----

    def _begin(self, name: str, function: Any) -> None:
        self.progress.setRange(0, 0)
        self.progress.setFormat({"load": "opening images", "review": "checking", "save": "saving"}[name])
        self.progress.show()
        self.cancel.show()
        self.work.start(name, function)
        self._refresh_summary()

    def _on_progress(self, task: str, done: int, total: int) -> None:
        self.progress.setRange(0, max(total, 1))
        self.progress.setValue(done)
        self.progress.setFormat(f"{task}: %v of %m")

    def _on_done(self, name: str, result: Any) -> None:
        self._end()
        if name == "load":
            self._loaded(result)
        elif name == "review":
            self._reviewed(result)
        else:
            self._saved(*result)
            self._train_next = False
            self._review_late()

    def _review_late(self) -> None:
        """Do what had to wait until everything was saved."""
        if self._review_next:
            self._review_next = False
            self.review()

    def _on_failed(self, name: str, error: Any) -> None:
        if name != "show":
            self._end()
        self._restoring = self._restoring and name != "load"
        if name == "save":
            self._train_next = False
            self._review_late()
        if not isinstance(error, Stopped):
            self._report(error)

    def _report(self, error: BaseException) -> None:
        """Say what a person can do something about; the rest is a mistake of ours, which napari shows."""
        if not isinstance(error, (Im2ImError, OSError, MemoryError)):
            raise error
        self.messages.add_error(error)

    def _end(self) -> None:
        self.progress.hide()
        self.cancel.hide()
        self._refresh_summary()


# ---- small things --------------------------------------------------------------


def _is_guess(pair: LayerPair) -> bool:
    """Whether the labels of a pair began as a prediction."""
    return kind_of(pair.target) == "labels" and is_prefilled(pair.target)


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
