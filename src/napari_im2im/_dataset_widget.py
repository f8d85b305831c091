"""The Dataset widget: collect pairs from layers or files, look at them, and keep them as a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.compat import isalive
from qtpy.QtCore import QSize, Qt, QTimer, Signal
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from im2im_core.errors import DataError, Im2ImError, Stopped
from im2im_core.review.codes import CODES
from napari_im2im._dataset_choices import ChoicesPanel, choose
from napari_im2im._dataset_collect import Collecting, Parts
from napari_im2im._dataset_foot import FootPanel
from napari_im2im._dataset_preview import Preview
from napari_im2im._dataset_regions import Regions
from napari_im2im._dataset_rows import PairRow, Reviewed, entry_words, review_rows, with_review
from napari_im2im._dataset_said import Said, SetProblems
from napari_im2im._dataset_save import Saving
from napari_im2im._dataset_source import FILES, LAYERS, Corrections, SourcePanel
from napari_im2im._dataset_table import TableRows
from napari_im2im._dataset_teach import Teaching
from napari_im2im._dataset_work import Work
from napari_im2im._journal_watch import watch_labels
from napari_im2im._layer_pairs import LABELLING, TAUGHT_FROM, LayerPair, is_guess, kind_of
from napari_im2im._messages import MessageBar
from napari_im2im._pair_table import PairTable
from napari_im2im._panels import open_panel, settle_dock
from napari_im2im._project_bar import ProjectButton

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari
    from napari.layers import Layer
    from qtpy.QtGui import QHideEvent, QShowEvent

    from im2im_core.datasets import DatasetEntry
    from im2im_core.project import Project
    from napari_im2im._dataset_said import Mend

REFRESH_MILLISECONDS = 150
SHORT_MINUTES = 5.0
"""Budget of the training that is offered."""


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
        self._entry: DatasetEntry | None = None
        self._train_next = False
        self._review_next = False
        self.work = Work(self)
        self._build()
        self.said = Said(self.messages)
        self.table_rows = TableRows(self.table, self.choices, self)
        self.regions = Regions(napari_viewer, self.table_rows, self.choices.complete, self.said, self)
        self.preview = Preview(napari_viewer, self)
        parts = Parts(self.source, self.choices, self.table_rows, self.foot, self.said, self.work)
        self.collecting = Collecting(napari_viewer, self._project, parts, self)
        self.teaching = Teaching(napari_viewer, self.collecting, self.regions, self.said, self)
        self.set_problems = SetProblems(self.said, self._mends(), self._on_join, self._on_drop)
        self.journal = watch_labels(napari_viewer, self._project)
        self.journal.attach(self.messages)
        self._connect()
        self._refresh()
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(REFRESH_MILLISECONDS)
        self._soon.timeout.connect(self._on_layers_settled)
        self._opening = QTimer(self)
        self._opening.setSingleShot(True)
        self._opening.timeout.connect(self.collecting.open)
        self._opening.start()

    def sizeHint(self) -> QSize:
        """Wide enough for the table beside an image on a small screen."""
        return QSize(500, 640)

    # ---- building ----

    def _build(self) -> None:
        self.source = SourcePanel(self._viewer)
        self.source.setCornerWidget(ProjectButton(self._viewer, self._project))
        self.choices = ChoicesPanel()
        self.messages = MessageBar()
        self.table = PairTable()
        self.detail = QLabel()
        self.detail.setWordWrap(True)
        self.detail.setTextFormat(Qt.TextFormat.PlainText)
        self.detail.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.detail.hide()
        self.foot = FootPanel(self._project.root, self._copies)
        self.save, self.train = self.foot.save, self.foot.train
        self.draw, self.name = self.choices.draw, self.foot.name
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.setSpacing(5)
        for part in (self.source, self.choices, self.messages):
            layout.addWidget(part)
        layout.addWidget(self.table, 1)
        layout.addWidget(self.detail)
        layout.addWidget(self.foot)

    def _connect(self) -> None:
        choices, foot, rows = self.choices, self.foot, self.table_rows
        self.source.currentChanged.connect(self._on_tab)
        choices.task.currentIndexChanged.connect(self._on_task)
        choices.labelling.activated.connect(self._on_labelling)
        choices.complete.clicked.connect(self._on_complete)
        choices.draw.clicked.connect(self.regions.draw)
        self.table.rowChosen.connect(self._on_row)
        rows.changed.connect(self._on_rows_changed)
        rows.replaced.connect(self._on_rows_replaced)
        rows.regrouped.connect(self._show_set_problems)
        self.regions.changed.connect(self._on_regions)
        self.collecting.reviewWanted.connect(self.review)
        self.collecting.loadWanted.connect(lambda function: self._begin("load", function))
        foot.name.textEdited.connect(self.collecting.remember_soon)
        foot.exclude.clicked.connect(rows.exclude)
        foot.check.clicked.connect(self.review)
        foot.cancel.clicked.connect(self.work.cancel)
        foot.save.clicked.connect(self._on_save)
        foot.train.clicked.connect(self._on_train)
        self.work.progressed.connect(foot.show_progress)
        self.work.done.connect(self._on_done)
        self.work.failed.connect(self._on_failed)
        self.preview.work.failed.connect(lambda _, error: self._report(error))
        self.teaching.failed.connect(self._report)
        for event in ("inserted", "removed", "reordered", "renamed"):
            getattr(self._viewer.layers.events, event).connect(self._on_layers)

    def _mends(self) -> dict[str, Mend]:
        """Code of a problem -> button that mends it; without one only the user can."""
        task, corrections = self.choices.task, self.choices.corrections
        voxel_size: Mend = ("Set voxel size…", lambda: self.choices.ask_correction(corrections.voxel_size))
        return {
            "probably_classes": ("Learn classes", lambda: task.setCurrentIndex(1)),
            "probably_instances": ("Learn objects", lambda: task.setCurrentIndex(0)),
            **{code: voxel_size for code, kind in CODES.items() if kind.topic == "voxels"},
            "duplicate": ("Put them into one group", self._on_join),
        }

    def showEvent(self, event: QShowEvent | None) -> None:
        """Find a place among the other panels."""
        super().showEvent(event)
        settle_dock(self)

    def hideEvent(self, event: QHideEvent | None) -> None:
        """The window may be closing: what was painted or chosen last is written at once."""
        self.journal.flush()
        self.collecting.remember_now()
        super().hideEvent(event)

    # ---- public ----

    def rows(self) -> tuple[PairRow, ...]:
        """Pairs in the table."""
        return self.table_rows.all()

    def add_pair(self, images: Sequence[Layer], target: Layer) -> None:
        """Put a pair of layers into the table; a pair with the same target is replaced."""
        self.collecting.add_pair(LayerPair(tuple(images), target))

    def open_folder(self, path: str) -> None:
        """Put the pairs of a folder or table into the table, once they are opened in a thread."""
        self.collecting.open_folder(path)

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
        chosen = tuple(images) if isinstance(images, (list, tuple)) else (images,)
        self.teaching.teach(chosen, prediction, model)

    def review(self) -> None:
        """Look at all pixels of all pairs in a thread; what is being saved is saved first."""
        if self.work.name == "save":
            self._review_next = True
            return
        rows = self.collecting.fresh_rows()
        if not rows:
            return
        if any(row.layers for row in rows):
            self.table.thumbnails.renew()
        self.table_rows.show(rows)
        task = "" if self.collecting.guessing else str(self.choices.task.currentData())
        labelling = self.choices.labelling_used
        prefilled = {row.name: self.regions.polygons(row.layers) for row in rows if row.layers and is_guess(row.layers)}
        classes = self.collecting.classes
        self._begin(
            "review",
            lambda tell, stop: review_rows(rows, task, labelling, prefilled, tell, stop, classes=classes),
        )

    # ---- layers ----

    def _on_layers(self, event: Any) -> None:
        if isalive(self):  # the viewer does not know that this widget was closed
            self._soon.start()

    def _on_regions(self) -> None:
        """Another part of prefilled labels counts."""
        self._review_next = True
        self._soon.start()

    def _on_layers_settled(self) -> None:
        """Follow the layer list once it is quiet, and nothing is being saved."""
        if self.work.name == "save":
            self._soon.start()
            return
        self.collecting.follow_layers()
        self.regions.follow()
        self._review_late()
        shown = self.rows() or self.collecting.pairs()
        if not shown and self.source.currentIndex() == LAYERS and self.work.name == "":
            self.collecting.pair_all()
        self._show_choices()

    # ---- choices ----

    def _on_tab(self, index: int) -> None:
        if index == FILES:
            self.source.path.setFocus()

    def _on_task(self) -> None:
        self.collecting.guessing = False
        self.collecting.remember_soon()
        self._show_choices()
        self.review()

    def _on_labelling(self) -> None:
        """Note with every layer how it was painted."""
        box = self.choices.labelling
        if box.currentData() == "dense" and self._corrected_layers():
            choose(box, "sparse")
            self.said.say("Labels that began as a prediction are numbered so that 1 is background", "info")
            return
        for layer in self.table_rows.labels():
            layer.metadata = {**layer.metadata, LABELLING: box.currentData()}
        self.collecting.remember_soon()
        self.review()

    def _on_complete(self, on: bool) -> None:
        self.collecting.remember_soon()
        self.regions.complete(on)

    def _show_choices(self) -> None:
        self.choices.show_for(painted=bool(self.table_rows.labels()))

    # ---- rows ----

    def _on_rows_changed(self) -> None:
        self._entry = None
        self._refresh()

    def _on_rows_replaced(self) -> None:
        self._show_detail(None)
        self._show_choices()
        self.regions.follow()

    def _refresh(self) -> None:
        """Show what can be done now; nothing is changed while it is saved."""
        self.foot.show_rows(self.rows(), self.work.name)
        for part in (self.source, self.choices, self.table):
            part.setEnabled(self.work.name != "save")

    def _on_row(self, number: int) -> None:
        rows = self.rows()
        if 0 <= number < len(rows):
            self._show_detail(rows[number])
            self.preview.show(rows[number], rows, labels=self.choices.learns_labels)

    def _show_detail(self, row: PairRow | None) -> None:
        texts = [f"{p.text}. {p.cure}" for p in row.problems] if row else []
        self.detail.setText("\n".join(texts))
        self.detail.setVisible(bool(texts))

    # ---- problems ----

    def _reviewed(self, found: Reviewed) -> None:
        if self.collecting.guessing and found.task:
            self.collecting.guessing = False
            choose(self.choices.task, found.task)
            self._show_choices()
        self.table_rows.update(with_review(self.rows(), found))
        self.set_problems.found((*self.collecting.beside, *found.problems))
        self._show_set_problems()
        self._show_detail(self.table_rows.current())

    def _show_set_problems(self) -> None:
        self.set_problems.show(self.rows())

    def _on_join(self) -> None:
        self.set_problems.mended("duplicate")
        self.table_rows.join_copies()

    def _on_drop(self, numbers: Sequence[int]) -> None:
        self.table_rows.use(numbers, False)

    # ---- saving ----

    def _on_save(self) -> None:
        rows = self.collecting.fresh_rows()
        if not self.regions.all_drawn(rows):
            self._train_next = False
            return
        saving = Saving(
            rows,
            self.foot.name.text(),
            str(self.choices.task.currentData()),
            "sparse" if self.choices.labelling_used == "sparse" else "dense",
            {row.name: self.regions.polygons(row.layers) for row in rows if row.layers and row.used},
            frozenset(row.name for row in rows if row.layers and is_guess(row.layers)),
        )
        project = self._project
        self._begin("save", lambda tell, stop: saving.save(project, tell, stop))

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

    def _corrected_layers(self) -> list[Layer]:
        """Corrections of predictions among what is used."""
        return [row.layers.target for row in self.table_rows.guesses() if row.layers and row.used]

    def _taught_from(self) -> str | None:
        """Model whose predictions are corrected; the latest of several."""
        models = [layer.metadata.get(TAUGHT_FROM) for layer in self._corrected_layers()]
        return next((str(model) for model in reversed(models) if model), None)

    def _copies(self) -> dict[str, str]:
        """Texts of the copy menu: of the folder or table, or of pairs as they were saved last."""
        from napari_im2im._dataset_copies import copies

        folder, corrected = self.collecting.path, self.collecting.corrected
        path = None if corrected.own else folder
        path = path or (self._entry.path if self._entry else None)
        if path is None:
            what = "open layers" if folder is None else "corrected one by one"
            raise DataError(f"These pairs are {what}, which no command can read", "Save them first")
        corrections = corrected.every if path == folder else Corrections()
        return copies(path, str(self.choices.task.currentData()), self.rows(), corrections)

    # ---- work in the thread ----

    def _begin(self, name: str, function: Any) -> None:
        self.foot.begin(name)
        self.work.start(name, function)
        self._refresh()

    def _on_done(self, name: str, result: Any) -> None:
        self._end()
        if name == "load":
            self.collecting.loaded(result)
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
        self._end()
        if name == "load":
            self.collecting.not_loaded()
        elif name == "save":
            self._train_next = False
            self._review_late()
        self._report(error)

    def _report(self, error: BaseException) -> None:
        """Say what a person can do something about; the rest is a mistake of ours, which napari shows."""
        if isinstance(error, Stopped):
            return
        if not isinstance(error, (Im2ImError, OSError, MemoryError)):
            raise error
        self.messages.add_error(error)

    def _end(self) -> None:
        self.foot.end()
        self._refresh()
