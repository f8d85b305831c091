"""The runs of all known projects: how each stands, which is shown, which are compared."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QMenu, QTableWidget, QTableWidgetItem, QWidget

from im2im_core.errors import Im2ImError
from im2im_core.events import Finished, Progress, Validated
from im2im_core.jobs.eventlog import parse_line
from im2im_core.runs import ACTIVE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from im2im_core.events import Event
    from im2im_core.runs import Run

TAIL_BYTES = 1 << 16
"""End of the event log that is read for the list."""
COLUMNS = ("Run", "State", "Done", "Best", "Started")
SCORES = ("ap50", "dice", "psnr", "ssim", "pearson")
"""Metrics in the order in which one of them is shown; others follow, losses are not shown."""
WORDS = {"ap50": "AP", "ap75": "AP75", "dice": "Dice", "iou": "IoU", "psnr": "PSNR", "ssim": "SSIM", "pearson": "r"}
PATH = Qt.ItemDataRole.UserRole
_SPOKEN_OF = (b'"Progress"', b'"Validated"', b'"Finished"')


@dataclass(frozen=True)
class RunRow:
    """What the list shows of one run."""

    folder: str
    name: str
    project: str
    state: str
    done: float | None
    """Part of the budget that is used; None while unknown."""
    best: str
    """Best metric in words; empty before the first validation."""
    created: float
    message: str = ""
    remaining: float | None = None
    """Seconds left; None while unknown."""
    device: str = ""
    """What it works on, as queues name it; only of active runs."""

    @property
    def active(self) -> bool:
        """Whether a process works on it."""
        return self.state in ACTIVE


def row_of(run: Run) -> RunRow:
    """Row of a run, from the end of its event log, which is read backwards until all is known."""
    status, state = run.status, run.state
    done: float | None = 1.0 if state == "finished" else None
    best, remaining = "", None
    for event in _last_events(run.events):
        if done is None and isinstance(event, Progress) and event.task == "training":
            done, remaining = fraction(event), event.remaining
        if not best and (isinstance(event, Finished) or (isinstance(event, Validated) and event.best)):
            best = score_words(event.metrics if isinstance(event, Finished) else event.values)
        if best and done is not None:
            break
    project = run.folder.parent.parent.name
    return RunRow(str(run.folder), run.name, project, state, done, best, status.created, status.message, remaining)


@dataclass(frozen=True)
class _Known:
    """A row, and what the files it was read from looked like."""

    run: Run
    """Always the same object: it remembers since when a run on another host is silent."""
    signature: tuple[int, int]
    row: RunRow


class RowCache:
    """Rows of runs, read again only where their files changed."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def row(self, run: Run) -> RunRow:
        """Row of `run` as it stands now."""
        folder = str(run.folder)
        known, signature = self._known.get(folder), _signature(run)
        if known is None or known.signature != signature:
            run = known.run if known else run
            row = row_of(run)
            device = (known.row.device if known else "") or (_device_of(run) if row.active else "")
            known = _Known(run, signature, replace(row, device=device if row.active else ""))
        elif known.row.active and (state := known.run.state) != known.row.state:  # its process is gone
            known = replace(known, row=replace(known.row, state=state, device=""))
        self._known[folder] = known
        return known.row


def _signature(run: Run) -> tuple[int, int]:
    """Time of run.json and size of the event log."""
    try:
        size = run.events.stat().st_size
    except FileNotFoundError:
        size = 0
    return (run.folder / "run.json").stat().st_mtime_ns, size


def _device_of(run: Run) -> str:
    from im2im_core.jobs.queue import device_key

    try:
        return device_key(run.recipe.training.device)
    except Im2ImError:  # shown where the run is shown; the list does without
        return ""


def _last_events(path: Path) -> Iterator[Event]:
    """Events in the last part of a log that the list speaks of, newest first; others are not even decoded."""
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, 2)
            handle.seek(max(0, size - TAIL_BYTES))
            lines = handle.read().split(b"\n")
    except FileNotFoundError:
        return
    for line in reversed(lines):
        if any(name in line for name in _SPOKEN_OF) and (stamped := parse_line(line)):
            yield stamped.event


def fraction(event: Progress) -> float | None:
    """Part that is done, by count or, where the total is not known, by time."""
    if event.total:
        return min(1.0, event.done / event.total)
    if event.remaining is not None and event.elapsed + event.remaining > 0:
        return event.elapsed / (event.elapsed + event.remaining)
    return None


def score_words(values: dict[str, float], before: dict[str, float] | None = None, where: str = "") -> str:
    """The most telling metric in words, for example ``AP 0.91``; empty without metrics.

    Parameters
    ----------
    before : dict, optional
        Metrics of an earlier state: ``AP 0.91 (was 0.74)``.
    where : str
        Images that were looked at: ``AP 0.91 on the kept strip``.
    """
    name = next((n for n in SCORES if n in values), None)
    if name is None:
        return ""
    unit = " dB" if name == "psnr" else ""
    words = f"{WORDS.get(name, name)} {values[name]:.3g}{unit}" + (f" on {where}" if where else "")
    return f"{words} (was {before[name]:.3g}{unit})" if before and name in before else words


class RunsTable(QTableWidget):
    """Table of runs, newest first; tells what is chosen and changes nothing itself."""

    shown = Signal(str)
    """Folder of the run to show."""
    ticked = Signal(list)
    """Folders of the runs to compare."""
    asked = Signal(str, str)
    """What to do (resume, continue, folder, export, command, yaml, python, methods) and the folder of the run."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(COLUMNS), parent)
        self.setHorizontalHeaderLabels(list(COLUMNS))
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(22)
        self.setShowGrid(False)
        self.setWordWrap(False)
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(36)
        self.setToolTip("Tick runs to compare their curves; right-click for more")
        self.setAccessibleName("Runs")
        self._rows: dict[str, RunRow] = {}
        self.currentCellChanged.connect(self._on_current)
        self.itemChanged.connect(self._on_item)
        self.customContextMenuRequested.connect(self._on_menu)

    # ---- content ----

    def value(self) -> list[RunRow]:
        """Rows that are shown, newest first."""
        return list(self._rows.values())

    def setValue(self, rows: list[RunRow]) -> None:
        """Show `rows`; what is selected and ticked stays so."""
        rows = sorted(rows, key=lambda r: r.created, reverse=True)
        if rows == self.value():
            return
        ticked, current = set(self.tickedFolders()), self.current()
        self.blockSignals(True)
        self.setRowCount(len(rows))
        self._rows = {r.folder: r for r in rows}
        for index, row in enumerate(rows):
            self._fill(index, row, row.folder in ticked)
        self.blockSignals(False)
        self.select(current)

    def rowOf(self, folder: str) -> RunRow | None:
        """Row of the run in `folder`."""
        return self._rows.get(folder)

    def current(self) -> str:
        """Folder of the selected run; empty when none is."""
        item = self.item(self.currentRow(), 0) if self.currentRow() >= 0 else None
        return str(item.data(PATH)) if item else ""

    def select(self, folder: str) -> None:
        """Select the run in `folder` without telling anybody."""
        index = next((i for i in range(self.rowCount()) if self.item(i, 0).data(PATH) == folder), -1)
        self.blockSignals(True)
        self.setCurrentCell(index, 0)
        self.blockSignals(False)

    def tickedFolders(self) -> list[str]:
        """Folders of the runs that are compared."""
        items = [self.item(i, 0) for i in range(self.rowCount())]
        return [str(i.data(PATH)) for i in items if i and i.checkState() == Qt.CheckState.Checked]

    def tick(self, folder: str, on: bool = True) -> None:
        """Tick or untick a run, as a click does."""
        for index in range(self.rowCount()):
            if self.item(index, 0).data(PATH) == folder:
                self.item(index, 0).setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)

    def mark(self, folder: str, colour: str | None) -> None:
        """Show the colour of a run's curves beside its name; None for no mark."""
        for index in range(self.rowCount()):
            item = self.item(index, 0)
            if item.data(PATH) == folder:
                self.blockSignals(True)
                item.setIcon(_dot(colour) if colour else QIcon())
                self.blockSignals(False)

    def _fill(self, index: int, row: RunRow, ticked: bool) -> None:
        done = "" if row.done is None else f"{100 * row.done:.0f} %"
        texts = (_short(row.name), row.state, done, row.best, _when(row.created))
        for column, text in enumerate(texts):
            item = self.item(index, column) or QTableWidgetItem()
            item.setText(text)
            item.setToolTip(row.message or f"{row.name} in project {row.project}")
            if column == 0:
                item.setData(PATH, row.folder)
                item.setIcon(QIcon())
                item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
                item.setCheckState(Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)
            self.setItem(index, column, item) if item.tableWidget() is None else None

    # ---- handlers ----

    def _on_current(self, row: int) -> None:
        item = self.item(row, 0)
        if item is not None:
            self.shown.emit(str(item.data(PATH)))

    def _on_item(self, item: QTableWidgetItem) -> None:
        if item.column() == 0:
            self.ticked.emit(self.tickedFolders())

    def _on_menu(self, place: object) -> None:
        item = self.itemAt(place)
        if item is not None:
            self.menu(str(self.item(item.row(), 0).data(PATH))).exec(self.viewport().mapToGlobal(place))

    def menu(self, folder: str) -> QMenu:
        """Context menu of the run in `folder`."""
        from napari_im2im._copy_menu import KINDS

        row = self._rows[folder]
        menu = QMenu(self)
        resumable = row.state in ("paused", "stopped", "interrupted", "failed")
        for key, title, enabled in (
            ("resume", "Go on from where it ended", resumable),
            ("continue", "Teach its model on…", row.state == "finished"),
            ("folder", "Open folder", True),
            ("export", "Export model as zip…", row.state == "finished"),
        ):
            menu.addAction(title, lambda k=key: self.asked.emit(k, folder)).setEnabled(enabled)
        menu.addSeparator()
        for key, title in KINDS.items():
            menu.addAction(title, lambda k=key: self.asked.emit(k, folder))
        return menu


def _short(name: str) -> str:
    """Name of a run without the time it begins with, which has a column of its own."""
    time_of_start, _, rest = name.partition("_")
    return rest if rest and time_of_start.replace("-", "").isdigit() else name


def _when(created: float) -> str:
    """Time today, else the date."""
    then, now = time.localtime(created), time.localtime()
    return time.strftime("%H:%M" if then[:3] == now[:3] else "%d %b", then) if created else ""


def _dot(colour: str) -> QIcon:
    pixmap = QPixmap(10, 10)
    pixmap.fill(QColor(colour))
    return QIcon(pixmap)
