"""The review table: one row per pair of image and target, with what it is, where it goes and what is odd about it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QEvent, QModelIndex, QObject, QSize, Qt, Signal
from qtpy.QtGui import QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHeaderView,
    QMenu,
    QStyledItemDelegate,
    QTableView,
    QWidget,
)

from im2im_core.review.codes import CODES
from napari_im2im._dataset_rows import PairRow, main_problem
from napari_im2im._icons import icon
from napari_im2im._thumbnails import GAP, SIDE, Thumbnails

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from qtpy.QtGui import QContextMenuEvent

    from im2im_core.image import Image, VoxelSize
    from im2im_core.samples import Sample

COLUMNS = ("Use", "Image, target", "Name", "Objects", "Part", "Problems")
USE, PICTURE, NAME, OBJECTS, PART, PROBLEMS = range(len(COLUMNS))
PARTS = {"train": "train", "validation": "validate", "test": "test", "strip": "train + strip"}
"""Part of a sample -> its word; a strip is kept of the image itself to validate."""
SEVERITY_SIDE = 18
PART_HELP = {
    "train": "The network learns from it",
    "validation": "Shows, while training, how good the network is on images it does not learn from",
    "test": "Kept for the very end",
    "strip": "A strip of the image validates, the rest trains; weaker than whole images kept for validation",
}


class PairModel(QAbstractTableModel):
    """Rows for the view; changes come in through `set_rows` and `change`, wishes of the user go out as signals."""

    useChanged = Signal(int, bool)
    """Row and whether it shall be used."""
    partChanged = Signal(int, str)
    """Row and part."""

    def __init__(self, thumbnails: Thumbnails, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._rows: list[PairRow] = []
        self._fellows: dict[str, list[PairRow]] = {}
        self._thumbnails = thumbnails
        self._labels = True
        thumbnails.made.connect(self._on_made)

    # ---- content ----

    def rows(self) -> tuple[PairRow, ...]:
        """All rows."""
        return tuple(self._rows)

    def set_rows(self, rows: Iterable[PairRow], *, labels: bool = True) -> None:
        """Show other rows; pictures of the same samples are kept."""
        self.beginResetModel()
        if labels != self._labels:
            self._thumbnails.clear()
        self._rows, self._labels = list(rows), labels
        self._sort_groups()
        self.endResetModel()

    def change(self, make: Callable[[PairRow], PairRow]) -> None:
        """Replace every row by what `make` says; selection and scroll position stay."""
        self._rows = [make(row) for row in self._rows]
        self._sort_groups()
        if self._rows:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self._rows) - 1, len(COLUMNS) - 1))

    # ---- Qt ----

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(COLUMNS)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if role == Qt.ItemDataRole.DisplayRole and orientation == Qt.Orientation.Horizontal:
            return COLUMNS[section]
        return None

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        if index.column() == USE and self._rows[index.row()].sample is not None:
            flags |= Qt.ItemFlag.ItemIsUserCheckable
        if index.column() == PART:
            flags |= Qt.ItemFlag.ItemIsEditable
        return flags

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        row, column = self._rows[index.row()], index.column()
        if role == Qt.ItemDataRole.CheckStateRole and column == USE:
            return Qt.CheckState.Checked if row.used else Qt.CheckState.Unchecked
        if role == Qt.ItemDataRole.DecorationRole:
            return self._decoration(row, column)
        if role == Qt.ItemDataRole.DisplayRole:
            return _text(row, column, self._fellow(row))
        if role == Qt.ItemDataRole.ToolTipRole:
            return _tooltip(row, column)
        if role == Qt.ItemDataRole.EditRole and column == PART:
            return row.part
        return None

    def setData(self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        if role == Qt.ItemDataRole.CheckStateRole and index.column() == USE:
            self.useChanged.emit(index.row(), Qt.CheckState(value) == Qt.CheckState.Checked)
            return True
        if role == Qt.ItemDataRole.EditRole and index.column() == PART:
            self.partChanged.emit(index.row(), value)
            return True
        return False

    def _fellow(self, row: PairRow) -> str:
        """Another row of the same group; empty where it is alone."""
        return next((other.name for other in self._fellows.get(row.group, ()) if other.name != row.name), "")

    def _sort_groups(self) -> None:
        self._fellows = {}
        for row in self._rows:
            self._fellows.setdefault(row.group, []).append(row)

    def _decoration(self, row: PairRow, column: int) -> Any:
        if column == PICTURE and row.sample is not None:
            pixmap = self._thumbnails.get(thumbnail_key(row.sample), row.sample, labels=self._labels)
            return None if pixmap is None else _untinted(pixmap)
        if column == PROBLEMS and row.severity:
            return icon(row.severity).pixmap(SEVERITY_SIDE, SEVERITY_SIDE)
        return None

    def _on_made(self, key: object) -> None:
        for number, row in enumerate(self._rows):
            if row.sample is not None and thumbnail_key(row.sample) == key:
                index = self.index(number, PICTURE)
                self.dataChanged.emit(index, index, [Qt.ItemDataRole.DecorationRole])


class _PartDelegate(QStyledItemDelegate):
    """Chooses the part of a row from a list."""

    def createEditor(self, parent: QWidget | None, option: Any, index: QModelIndex) -> QWidget:
        editor = QComboBox(parent)
        editor.setToolTip("What the image is for")
        for part, word in PARTS.items():
            editor.addItem(word, part)
            editor.setItemData(editor.count() - 1, PART_HELP[part], Qt.ItemDataRole.ToolTipRole)
        editor.activated.connect(lambda: self._finish(editor))
        return editor

    def _finish(self, editor: QComboBox) -> None:
        self.commitData.emit(editor)
        self.closeEditor.emit(editor)

    def setEditorData(self, editor: QWidget | None, index: QModelIndex) -> None:
        if isinstance(editor, QComboBox):
            editor.setCurrentIndex(editor.findData(index.data(Qt.ItemDataRole.EditRole)))
            editor.showPopup()

    def setModelData(self, editor: QWidget | None, model: Any, index: QModelIndex) -> None:
        if isinstance(editor, QComboBox):
            model.setData(index, editor.currentData(), Qt.ItemDataRole.EditRole)


class PairTable(QTableView):
    """View of the pairs; asks for nothing but what is in sight."""

    rowChosen = Signal(int)
    """A row that was clicked or reached with the keyboard."""
    joinWanted = Signal(tuple)
    """Rows that show the same specimen."""
    separateWanted = Signal(tuple)
    """Rows that show specimens of their own."""
    useWanted = Signal(tuple, bool)
    """Rows and whether they shall be used."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.thumbnails = Thumbnails(self)
        self.pairs = PairModel(self.thumbnails, self)
        self.setModel(self.pairs)
        self.setItemDelegateForColumn(PART, _PartDelegate(self))
        self.setIconSize(QSize(2 * SIDE + GAP, SIDE))
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked | QAbstractItemView.EditTrigger.EditKeyPressed)
        self.setShowGrid(False)
        self.setWordWrap(True)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        rows, columns = self.verticalHeader(), self.horizontalHeader()
        assert rows is not None
        assert columns is not None
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(SIDE + 10)
        columns.setHighlightSections(False)
        for column, width in ((USE, 34), (PICTURE, 2 * SIDE + GAP + 10), (NAME, 120), (OBJECTS, 52), (PART, 62)):
            self.setColumnWidth(column, width)
        columns.setSectionResizeMode(PROBLEMS, QHeaderView.ResizeMode.Stretch)
        columns.setMinimumSectionSize(30)
        selection = self.selectionModel()
        assert selection is not None
        selection.currentRowChanged.connect(lambda now, _: self.rowChosen.emit(now.row()))
        self.clicked.connect(self._on_clicked)
        self.setAccessibleName("Pairs of image and target")
        self.setToolTip("Right-click on selected rows to say that they show the same specimen")

    def chosen(self) -> tuple[int, ...]:
        """Numbers of the selected rows."""
        selection = self.selectionModel()
        return tuple(sorted(i.row() for i in selection.selectedRows())) if selection else ()

    def _on_clicked(self, index: QModelIndex) -> None:
        if index.column() == PART:
            self.edit(index)

    def menu(self) -> QMenu:
        """What can be done with the selected rows."""
        rows = self.chosen()
        menu = QMenu(self)
        for text, tip, signal, words, needed in (
            ("Same specimen", "These images never go to training and validation apart", self.joinWanted, (rows,), 2),
            ("Separate", "Each of these images may go to another part", self.separateWanted, (rows,), 1),
            ("Use", "Learn from or validate with them", self.useWanted, (rows, True), 1),
            ("Leave out", "Keep them out of the data set", self.useWanted, (rows, False), 1),
        ):
            action = menu.addAction(text, partial(signal.emit, *words))
            assert action is not None
            action.setToolTip(tip)
            action.setEnabled(len(rows) >= needed)
        menu.setToolTipsVisible(True)
        return menu

    def contextMenuEvent(self, event: QContextMenuEvent | None) -> None:
        """Offer what can be done with the selected rows; the menu key of the keyboard does too."""
        if event is not None and self.chosen():
            menu = self.menu()
            menu.exec(event.globalPos())
            menu.deleteLater()

    def changeEvent(self, event: QEvent | None) -> None:
        """Repaint the icons of a new theme."""
        super().changeEvent(event)
        viewport = self.viewport()
        if viewport is not None:
            viewport.update()


def _untinted(pixmap: QPixmap) -> QIcon:
    """Icon that looks the same in a selected row."""
    picture = QIcon(pixmap)
    picture.addPixmap(pixmap, QIcon.Mode.Selected)
    return picture


# ---- words ---------------------------------------------------------------------


def thumbnail_key(sample: Sample) -> tuple[str, ...]:
    """Changes when the picture of `sample` may have changed."""
    return sample.source.info.identity, *(image.info.identity for image in sample.targets.values())


def size_text(image: Image) -> str:
    """Axes and sizes in words, for example ``Z 20 · Y 160 · X 160``."""
    sizes = dict(zip("TCZYX", image.info.shape, strict=True))
    lead = [f"{a} {sizes[a]}" for a in "TCZ" if a in image.info.axes or sizes[a] > 1]
    return " · ".join([*lead, f"{sizes['Y']} × {sizes['X']} px"])


def voxel_text(size: VoxelSize) -> str:
    """Voxel size in words; Z first where it is known."""
    known = [f"{s:.3g}" for s in size if s is not None]
    return f"{' × '.join(known)} µm" if known else "no voxel size"


def _text(row: PairRow, column: int, fellow: str) -> str:
    if column == NAME and row.sample is not None:
        image = row.sample.source
        third = f"same specimen as {fellow}" if fellow else voxel_text(image.info.voxel_size)
        return f"{row.name}\n{size_text(image)}\n{third}"
    if column == NAME:
        return row.name
    if column == OBJECTS:
        labels = row.facts.labels if row.facts else None
        return "" if labels is None or labels.objects is None else str(labels.objects)
    if column == PART:
        return PARTS[row.part] if row.used else "not used"
    if column == PROBLEMS and row.problems:
        first = main_problem(row)
        more = f" (+{len(row.problems) - 1})" if len(row.problems) > 1 else ""
        return CODES[first.code].short + more
    return ""


def _tooltip(row: PairRow, column: int) -> str:
    if column == PROBLEMS:
        return "\n".join(f"{p.text}. {p.cure}" for p in row.problems)
    if column == NAME and row.sample is not None:
        info = row.sample.source.info
        channels = f"\nchannels: {', '.join(info.channels)}" if info.channels else ""
        targets = "".join(f"\n{key}: {size_text(i)}, {i.info.dtype}" for key, i in row.sample.targets.items())
        size = voxel_text(info.voxel_size)
        return f"{row.name}\naxes {info.axes}, {info.dtype}{channels}{targets}\n{size}\ngroup: {row.group}"
    if column == PART:
        return PART_HELP[row.part]
    return {USE: "Whether the pair is used", OBJECTS: "Labelled objects"}.get(column, "")
