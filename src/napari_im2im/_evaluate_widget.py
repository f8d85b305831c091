"""The Evaluate panel: two layers in, figures with intervals out, and every object that went wrong one click away."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QProgressBar,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from im2im_core.errors import DataError, Im2ImError, ResourceError, Stopped
from im2im_core.events import Progress
from im2im_core.metrics import find_metric, title_of
from im2im_core.metrics.registry import OBJECTS
from napari_im2im._copy_menu import CopyMenu
from napari_im2im._endings import when_destroyed
from napari_im2im._evaluate_layers import (
    COLOURS,
    axes_of,
    guess_sides,
    known_of,
    show_wrong,
    side_of,
    snapshots_of,
)
from napari_im2im._evaluate_words import as_texts, mistakes_words, progress_words, said_words
from napari_im2im._evaluate_work import Comparison, compare
from napari_im2im._later import Later
from napari_im2im._layers import axes_choices, is_image_layer, is_labels, layer_axes, set_axes
from napari_im2im._messages import MessageBar
from napari_im2im._panel_memory import PanelMemory
from napari_im2im._panels import settle_dock

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

    from im2im_core.evaluation import Report
    from im2im_core.events import Event
    from napari_im2im._evaluate_work import Mistake

KINDS = {
    "auto": "Find out",
    "labels": "Objects with numbers",
    "classes": "Classes of pixels",
    "image": "Images",
}
FIGURES = {
    "labels": (
        "average_precision@0.5",
        "average_precision",
        "f1@0.5",
        "panoptic_quality@0.5",
        "mean_matched_iou@0.5",
        "seg",
        "foreground_dice",
        "foreground_iou",
        "adapted_rand_error",
        "variation_of_information_split",
        "variation_of_information_merge",
        "missed",
        "extra",
        "merged",
        "split",
    ),
    "classes": ("dice", "iou", "accuracy"),
    "image": (
        "psnr",
        "scale_invariant_psnr",
        "ssim",
        "ms_ssim",
        "pearson",
        "mean_absolute_error",
        "nrmse",
        "frc_resolution",
        "frc_resolution_um",
    ),
}
"""Figures in the table by kind; the exported file holds all."""
MEANINGS = {
    "missed": "in the truth, not found",
    "extra": "found, not in the truth",
    "merged": "several objects found as one",
    "split": "one object found as several",
}
SHOWN_PIXELS = 400
"""Screen pixels that a mistake and its surroundings fill after a click."""
SURROUNDINGS = 6
"""Width of what is shown, in widths of the object."""
MOST_ROWS = 2000


class EvaluateWidget(QWidget):
    """Dock widget that compares a prediction with the truth."""

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = napari_viewer
        self._layers: list[Layer] = []
        self._comparison: Comparison | None = None
        self._sides: tuple[Layer, Layer] | None = None
        self._stop: threading.Event | None = None
        self._begun: set[threading.Event] = set()
        self.later = Later(self)
        self.memory = PanelMemory("evaluate_widget", self._content, self)
        self._make_parts()
        self._lay_out()
        events = napari_viewer.layers.events
        links = [(e, self._on_layers) for e in (events.inserted, events.removed, events.reordered, events.renamed)]
        for emitter, handler in links:
            emitter.connect(handler)
        begun = self._begun
        when_destroyed(self, lambda: [emitter.disconnect(handler) for emitter, handler in links])
        when_destroyed(self, lambda: [stop.set() for stop in begun])
        self._on_layers()
        self.memory.recall(self._on_recalled)

    # ---- parts ----

    def _make_parts(self) -> None:
        self.prediction = _combo("Prediction", "The layer to be judged", self._on_chosen)
        self.truth = _combo("Truth", "The layer that is right", self._on_chosen)
        self.axes = _combo("Dimensions", "What the dimensions of the layers are", self._on_axes)
        self.kind = _combo("Compare as", "How the layers are compared", lambda: self.memory.save_soon())
        for key, words in KINDS.items():
            self.kind.addItem(words, key)
        self.button = QPushButton("Compare")
        self.button.setMinimumHeight(32)
        self.button.clicked.connect(self._on_button)
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.bar.setAccessibleName("Progress of the comparison")
        self.bar.hide()
        self.said = QLabel()
        self.said.setWordWrap(True)
        self.figures = _table("Figures of each image and of all together")
        self.mistakes = _table("Objects that went wrong; click one to see it")
        self.mistakes.itemSelectionChanged.connect(self._on_mistake)
        self.mistakes_text = QLabel()
        self.mistakes_text.setWordWrap(True)
        self.copy = QPushButton("Copy table")
        self.copy.setToolTip("Copy the figures, to be pasted into a spreadsheet")
        self.copy.clicked.connect(self._on_copy)
        self.save = QPushButton("Save as CSV…")
        self.save.setToolTip("Write all figures, those that are not shown too, into a table")
        self.save.clicked.connect(self._on_save)
        self.share = CopyMenu(self._texts)
        self.share.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.share.setToolTip("Copy this comparison: for a shell, a file, a notebook or a paper")
        self.messages = MessageBar()
        self.share.failed.connect(self.messages.add_error)

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Prediction", self.prediction)
        form.addRow("Truth", self.truth)
        form.addRow("Dimensions", self.axes)
        form.addRow("Compare as", self.kind)
        self._form = form
        buttons = QHBoxLayout()
        buttons.addWidget(self.copy)
        buttons.addWidget(self.save)
        buttons.addWidget(self.share)
        buttons.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 6, 6, 6)
        column.addLayout(form)
        column.addWidget(self.button)
        column.addWidget(self.bar)
        column.addWidget(self.messages)
        column.addWidget(self.said)
        column.addWidget(self.figures, 2)
        column.addLayout(buttons)
        column.addWidget(self.mistakes_text)
        column.addWidget(self.mistakes, 3)
        column.addStretch(1)
        self.setMinimumWidth(300)
        self._show(None)

    # ---- choosing ----

    def _on_layers(self, event: Any = None) -> None:
        """Show the layers that there are now; what was chosen stays chosen."""
        chosen = self._layer(self.prediction), self._layer(self.truth)
        self._layers = [layer for layer in reversed(self._viewer.layers) if is_labels(layer) or is_image_layer(layer)]
        for combo, wanted in zip((self.prediction, self.truth), guess_sides(self._layers, *chosen), strict=True):
            combo.blockSignals(True)
            combo.clear()
            combo.addItems([layer.name for layer in self._layers])
            combo.setCurrentIndex(self._layers.index(wanted) if wanted is not None else -1)
            combo.blockSignals(False)
        self._on_chosen()

    def _layer(self, combo: QComboBox) -> Layer | None:
        index = combo.currentIndex()
        return self._layers[index] if 0 <= index < len(self._layers) else None

    def _on_chosen(self) -> None:
        prediction, truth = self._layer(self.prediction), self._layer(self.truth)
        ready = prediction is not None and truth is not None and prediction is not truth
        if self._stop is None:
            self.button.setEnabled(ready)
        self.share.setEnabled(ready)
        self.button.setToolTip("Judge the prediction" if ready else "Open two layers: a prediction and the truth")
        self.memory.save_soon()
        self._fill_axes(truth, prediction)

    def _fill_axes(self, truth: Layer | None, prediction: Layer | None) -> None:
        """Ask for the dimensions only where neither layer says them."""
        self.axes.blockSignals(True)
        self.axes.clear()
        unknown = truth is not None and prediction is not None and not (layer_axes(truth) or layer_axes(prediction))
        if unknown and truth is not None:
            self.axes.addItem("Please choose…", "")
            for axes in axes_choices(truth):
                self.axes.addItem(axes, axes)
        self._form.setRowVisible(self.axes, unknown)
        self.axes.blockSignals(False)

    def _on_axes(self) -> None:
        axes = self.axes.currentData()
        for layer in (self._layer(self.prediction), self._layer(self.truth)):
            if axes and layer is not None:
                set_axes(layer, axes)

    # ---- comparing ----

    def _on_button(self) -> None:
        if self._stop is not None:
            self._stop.set()
            self.button.setEnabled(False)
            self.button.setText("Stopping…")
            return
        self.messages.clear()
        try:
            self._start()
        except Im2ImError as error:
            self.messages.add_error(error)

    def _start(self) -> None:
        prediction, truth = self._layer(self.prediction), self._layer(self.truth)
        if prediction is None or truth is None:
            raise DataError("Two layers are needed", "Open a prediction and the truth")
        left, right = snapshots_of(prediction, truth)
        kind, known = self.kind.currentData(), known_of(self._viewer, truth)
        stop = self._stop = threading.Event()
        self._begun.add(stop)
        self.button.setText("Cancel")
        self.bar.setRange(0, 0)
        self.bar.setFormat("Comparing…")
        self.bar.show()
        say = self.later.sayer("compare")
        work = lambda: compare(left, right, kind, known, on_event=say, should_stop=stop.is_set)  # noqa: E731
        done = lambda comparison: self._on_compared(comparison, (prediction, truth))  # noqa: E731
        self.later.ask("compare", work, done, self._on_failed, heard=self._on_event)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Progress):
            several = event.total is not None and event.total > 1
            self.bar.setRange(0, event.total if several else 0)
            self.bar.setValue(event.done)
            self.bar.setFormat(progress_words(event) if several else event.task)

    def _on_compared(self, comparison: Comparison, sides: tuple[Layer, Layer]) -> None:
        self._at_rest()
        self._sides = sides
        self._show(comparison)
        show_wrong(self._viewer, comparison, sides[1])

    def _on_failed(self, error: BaseException) -> None:
        self._at_rest()
        self._show(self._comparison)
        if not isinstance(error, Stopped):
            self.messages.add_error(error)

    def _at_rest(self) -> None:
        self._begun.clear()
        self._stop = None
        self.bar.hide()
        self.button.setText("Compare")
        self._on_chosen()

    # ---- showing ----

    def _show(self, comparison: Comparison | None) -> None:
        self._comparison = comparison
        report = comparison.report if comparison else None
        for widget in (self.figures, self.copy, self.save, self.said):
            widget.setVisible(report is not None)
        wrong = comparison.mistakes if comparison else ()
        self.mistakes_text.setVisible(report is not None)
        self.mistakes.setVisible(bool(wrong))
        if comparison is None or report is None:
            return
        said = said_words(comparison, guessed=self.kind.currentData() == "auto")
        self.said.setText(said)
        self.said.setVisible(bool(said))
        _fill(self.figures, *figure_rows(report))
        _explain(self.figures, report)
        self.mistakes_text.setText(mistakes_words(comparison))
        self._fill_mistakes(wrong[:MOST_ROWS])

    def _fill_mistakes(self, wrong: tuple[Mistake, ...]) -> None:
        several = len({m.frame for m in wrong}) > 1
        head = ["Mistake", "Number", *(["Time"] if several else []), "Y, px", "X, px"]
        rows = [_mistake_row(m, several) for m in wrong]
        self.mistakes.blockSignals(True)
        _fill(self.mistakes, head, rows)
        for number, mistake in enumerate(wrong):
            item = self.mistakes.item(number, 0)
            assert item is not None
            item.setIcon(_swatch(COLOURS[mistake.kind]))
            item.setToolTip(f"{mistake.kind}: {MEANINGS[mistake.kind]}")
        self.mistakes.blockSignals(False)

    def _on_mistake(self) -> None:
        """Move the viewer to the chosen mistake."""
        rows = sorted({item.row() for item in self.mistakes.selectedItems()})
        truth = self._sides[1] if self._sides is not None else None
        if not rows or self._comparison is None or truth is None or truth not in self._viewer.layers:
            return
        mistake = self._comparison.mistakes[rows[0]]
        place = dict(zip("TZYX", mistake.position, strict=True))
        world = truth.data_to_world([place.get(a, 0.0) for a in axes_of(truth)])
        point = [*self._viewer.dims.point[: self._viewer.dims.ndim - len(world)], *world]
        self._viewer.dims.set_point(list(range(len(point))), point)
        camera = _camera(self._viewer)
        camera.center = tuple(point[-3:]) if len(point) > 2 else (0.0, *point)
        pixel = float(np.abs(truth.scale[-1]))
        wanted = SHOWN_PIXELS / max(pixel, SURROUNDINGS * mistake.extent * pixel)
        camera.zoom = max(wanted, camera.zoom)  # who is closer already, stays

    # ---- opened and closed ----

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        settle_dock(self)

    def hideEvent(self, event: Any) -> None:
        super().hideEvent(event)
        self.memory.save()

    def _content(self) -> dict[str, Any]:
        layers = {"prediction": self._layer(self.prediction), "truth": self._layer(self.truth)}
        names = {key: layer.name if layer is not None else "" for key, layer in layers.items()}
        return {**names, "kind": self.kind.currentData()}

    def _on_recalled(self, content: dict[str, Any]) -> None:
        """Show what was chosen when the panel was last open in this project; layers that are gone are guessed."""
        if (kind := self.kind.findData(content.get("kind"))) >= 0:
            self.kind.setCurrentIndex(kind)
        names = [layer.name for layer in self._layers]
        wanted = [str(content.get(key, "")) for key in ("prediction", "truth")]
        if self._stop is None and wanted[0] != wanted[1] and all(name in names for name in wanted):
            for combo, name in zip((self.prediction, self.truth), wanted, strict=True):
                combo.setCurrentIndex(names.index(name))

    # ---- taking away ----

    def _texts(self) -> dict[str, str]:
        prediction, truth = self._layer(self.prediction), self._layer(self.truth)
        if prediction is None or truth is None:
            raise DataError("Two layers are needed", "Open a prediction and the truth")
        kind, partly = self.kind.currentData(), known_of(self._viewer, truth).partly
        report = self._comparison.report if self._comparison and self._sides == (prediction, truth) else None
        if report is not None and kind not in ("auto", report.kind):
            report = None
        return as_texts(side_of(prediction), side_of(truth), kind, report, partly=partly)

    def _on_copy(self) -> None:
        clipboard = QApplication.clipboard()
        if self._comparison is not None and clipboard is not None:
            head, rows = figure_rows(self._comparison.report)
            clipboard.setText("\n".join("\t".join(line) for line in (head, *rows)))
            self.messages.add("The table is on the clipboard")

    def _on_save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save all figures", "evaluation.csv", "Tables (*.csv)")
        if path:
            self.save_csv(Path(path))

    def save_csv(self, path: Path) -> None:
        """Write all figures as a table."""
        from im2im_core.files import write_atomic

        assert self._comparison is not None
        try:
            write_atomic(path, self._comparison.report.to_csv().encode())
        except OSError as error:
            self.messages.add_error(ResourceError(f"Cannot write {path}: {error.strerror}", "Choose another folder"))
            return
        self.messages.add(f"Saved {path}")


# ---- helpers -------------------------------------------------------------------


def shown_figures(report: Report) -> list[str]:
    """Names of the figures in the table, one per row."""
    return [name for name in FIGURES[report.kind] if name in report.mean]


def figure_rows(report: Report) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of the table: one row per figure; mean, all together and intervals stand before the images."""
    rows = []
    for name in shown_figures(report):
        summary = [_number(name, report.mean[name]), _number(name, report.pooled.get(name))]
        if report.interval:
            summary.insert(1, _interval(name, report.interval.get(name)))
            summary.append(_interval(name, report.pooled_interval.get(name)))
        cells = [_number(name, row.values.get(name)) for row in report.rows]
        rows.append([title_of(name), *(summary if len(report.rows) > 1 else []), *cells])
    head = ["Figure", *_summary_columns(report), *(row.name for row in report.rows)]
    return head, rows


def _summary_columns(report: Report) -> dict[str, str]:
    """Titles of the columns before those of the images, with what they mean."""
    if len(report.rows) < 2:
        return {}
    mean = {"Mean": "Mean over the images"}
    pooled = {"All together": "The same formula over the objects or pixels of all images together"}
    if not report.interval:
        return mean | pooled
    how = " ".join(report.remarks())
    of_mean, of_pooled = (f"95 % interval{of} (n = {report.images})" for of in ("", " of all"))
    return mean | {of_mean: f"Of the mean. {how}"} | pooled | {of_pooled: f"Of all together. {how}"}


def _explain(table: QTableWidget, report: Report) -> None:
    """Say what rows and columns are, where the pointer rests."""
    for row, name in enumerate(shown_figures(report)):
        item = table.item(row, 0)
        assert item is not None
        item.setToolTip(find_metric(name).explanation)
    for column, text in enumerate(_summary_columns(report).values(), start=1):
        head = table.horizontalHeaderItem(column)
        assert head is not None
        head.setToolTip(text)


def _mistake_row(mistake: Mistake, several: bool) -> list[str]:
    time = [f"{mistake.position[0]:.0f}"] if several else []
    return [mistake.kind, str(mistake.number), *time, *(f"{p:.0f}" for p in mistake.position[2:])]


def _number(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if find_metric(name).unit == OBJECTS and value.is_integer():
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


def _interval(name: str, limits: tuple[float, float] | None) -> str:
    return f"{_number(name, limits[0])} to {_number(name, limits[1])}" if limits else ""


def _camera(viewer: Viewer) -> Any:
    """The camera, which moved into the scene with napari 0.9."""
    return viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera


def _combo(name: str, tip: str, changed: Any) -> QComboBox:
    combo = QComboBox()
    combo.setAccessibleName(name)
    combo.setToolTip(tip)
    combo.setMaxVisibleItems(20)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(12)
    combo.currentIndexChanged.connect(changed)
    return combo


def _table(tip: str) -> QTableWidget:
    table = QTableWidget()
    table.setToolTip(tip)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setMinimumHeight(110)
    rows, columns = table.verticalHeader(), table.horizontalHeader()
    assert rows is not None
    assert columns is not None
    rows.hide()
    columns.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    return table


def _fill(table: QTableWidget, head: list[str], rows: list[list[str]]) -> None:
    table.clear()
    table.setColumnCount(len(head))
    table.setHorizontalHeaderLabels(head)
    table.setRowCount(len(rows))
    for r, row in enumerate(rows):
        for c, text in enumerate(row):
            item = QTableWidgetItem(text)
            if c:
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            table.setItem(r, c, item)


def _swatch(colour: str) -> Any:
    from qtpy.QtGui import QColor, QIcon, QPixmap

    pixmap = QPixmap(12, 12)
    pixmap.fill(QColor(colour))
    return QIcon(pixmap)
