"""The ready tasks as cards: a small drawn picture of what goes in and what comes out, and one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPainterPath, QPen, QPixmap
from qtpy.QtWidgets import QLabel, QListView, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from im2im_core.presets import PresetInfo

PICTURE = QSize(84, 44)
CARD = QSize(98, 68)
TITLES = {
    "instance_segmentation": "Objects",
    "semantic_segmentation": "Classes",
    "label_free": "Label-free",
    "restoration": "Clean up",
}
USUAL = {
    "instance_segmentation": "instance_seg",
    "semantic_segmentation": "semantic_seg",
    "label_free": "labelfree",
    "restoration": "restoration",
}
"""Task -> how the names of its usual presets begin; other ways to the same task come after all of these."""
_CELLS = ((0.24, 0.30, 0.17), (0.66, 0.24, 0.14), (0.46, 0.60, 0.19), (0.80, 0.70, 0.15), (0.16, 0.78, 0.13))
"""Centre and radius of the drawn cells, in parts of the picture's half."""
_OBJECTS = ("#3b9dff", "#ff8c2e", "#3fbf6b", "#d06be0", "#e5c51e")
_CLASSES = ("#ff8c2e", "#3b9dff", "#ff8c2e", "#ff8c2e", "#3b9dff")


class PresetCards(QWidget):
    """Choice of a ready task."""

    valueChanged = Signal(str)

    def __init__(self, presets: tuple[PresetInfo, ...], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._presets = {p.name: p for p in presets}
        self._list = QListWidget()
        self._list.setViewMode(QListView.ViewMode.IconMode)
        self._list.setMovement(QListView.Movement.Static)
        self._list.setResizeMode(QListView.ResizeMode.Adjust)
        self._list.setIconSize(PICTURE)
        self._list.setGridSize(CARD)
        self._list.setUniformItemSizes(True)
        self._list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._list.setFixedHeight(2 * CARD.height() + 8)
        self._list.setToolTip("What the network shall learn: each card shows what goes in and what comes out")
        self._list.setAccessibleName("Task")
        for info in sorted(presets, key=_order):
            self._list.addItem(_card(info))
        self._sentence = QLabel()
        self._sentence.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self._list)
        layout.addWidget(self._sentence)
        self._list.currentItemChanged.connect(self._on_current)

    def value(self) -> str:
        """Name of the chosen preset; empty when none is."""
        item = self._list.currentItem()
        return str(item.data(Qt.ItemDataRole.UserRole)) if item else ""

    def setValue(self, name: str) -> None:
        """Choose the preset `name`; one that does not exist leaves none chosen."""
        for row in range(self._list.count()):
            if self._list.item(row).data(Qt.ItemDataRole.UserRole) == name:
                self._list.setCurrentRow(row)
                return
        self._list.setCurrentItem(None)

    def _on_current(self) -> None:
        info = self._presets.get(self.value())
        self._sentence.setText(info.summary if info else "")
        if info:
            self.valueChanged.emit(info.name)


def _order(info: PresetInfo) -> tuple[bool, bool, int]:
    return not _is_usual(info), info.name.endswith("3d"), list(TITLES).index(info.task)


def _is_usual(info: PresetInfo) -> bool:
    return info.name.rpartition("_")[0] == USUAL.get(info.task)


def title_of(info: PresetInfo) -> str:
    """Short name of a preset for a card: its task where it is the usual one for it, else its own name."""
    name, _, dimensions = info.name.rpartition("_")
    return f"{TITLES.get(info.task, info.task) if _is_usual(info) else name} {dimensions.upper()}"


def _card(info: PresetInfo) -> QListWidgetItem:
    icon, drawn = QIcon(), picture(info.task, info.name.endswith("3d"))
    for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected):  # Qt would tint a selected picture
        icon.addPixmap(drawn, mode)
    item = QListWidgetItem(icon, title_of(info))
    item.setData(Qt.ItemDataRole.UserRole, info.name)
    item.setToolTip(info.summary)
    item.setData(Qt.ItemDataRole.AccessibleTextRole, f"{title_of(info)}: {info.summary}")
    return item


# ---- pictures ------------------------------------------------------------------


def picture(task: str, volume: bool) -> QPixmap:
    """What goes in, an arrow, what comes out; planes behind each other for volumes."""
    scale = 2  # sharp on screens with small pixels
    pixmap = QPixmap(PICTURE * scale)
    pixmap.setDevicePixelRatio(scale)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    side = 33.0
    for left, draw in ((1.0, _draw_input), (PICTURE.width() - side - 5, _draw_output)):
        for plane in (2, 1) if volume else ():
            _draw_frame(painter, QRectF(left + 2 * plane, 6 - 2 * plane + 2, side - 2, side - 2))
        frame = QRectF(left, 8 if volume else 5, side - 2, side - 2)
        painter.save()
        painter.setClipRect(frame)
        draw(painter, frame, task)
        painter.restore()
    _draw_arrow(painter, PICTURE.width() / 2 - 2)
    painter.end()
    return pixmap


def _draw_frame(painter: QPainter, frame: QRectF) -> None:
    painter.setPen(QPen(QColor("#777777"), 0.8))
    painter.setBrush(QColor("#1a1a1a"))
    painter.drawRect(frame)


def _draw_arrow(painter: QPainter, middle: float) -> None:
    height = PICTURE.height() / 2
    painter.setPen(QPen(QColor("#888888"), 1.4))
    painter.drawLine(QPointF(middle - 3, height), QPointF(middle + 3, height))
    painter.drawLine(QPointF(middle, height - 3), QPointF(middle + 3, height))
    painter.drawLine(QPointF(middle, height + 3), QPointF(middle + 3, height))


def _draw_cells(painter: QPainter, frame: QRectF, colours: tuple[str, ...]) -> None:
    painter.setPen(Qt.PenStyle.NoPen)
    for (x, y, radius), colour in zip(_CELLS, colours, strict=True):
        shape = QPainterPath()
        centre = QPointF(frame.left() + x * frame.width(), frame.top() + y * frame.height())
        shape.addEllipse(centre, radius * frame.width(), 0.85 * radius * frame.height())
        painter.fillPath(shape, QColor(colour))


def _draw_input(painter: QPainter, frame: QRectF, task: str) -> None:
    transmitted = task == "label_free"
    painter.fillRect(frame, QColor("#8c8c8c" if transmitted else "#101010"))
    _draw_cells(painter, frame, ("#a4a4a4" if transmitted else "#9a9a9a",) * 5)
    if task == "restoration":
        _draw_noise(painter, frame)
    if transmitted:
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(QColor("#5c5c5c"), 0.9))
        for x, y, radius in _CELLS:
            centre = QPointF(frame.left() + x * frame.width(), frame.top() + y * frame.height())
            painter.drawEllipse(centre, radius * frame.width(), 0.85 * radius * frame.height())


def _draw_noise(painter: QPainter, frame: QRectF) -> None:
    state = 12345
    painter.setPen(Qt.PenStyle.NoPen)
    for _ in range(260):
        state = (1103515245 * state + 12345) % 2**31  # the same picture each time, without a library
        x, y, grey = state % 97 / 97, state // 97 % 89 / 89, 40 + state // 8633 % 190
        spot = QRectF(frame.left() + x * frame.width(), frame.top() + y * frame.height(), 1.5, 1.5)
        painter.fillRect(spot, QColor(grey, grey, grey, 200))


def _draw_output(painter: QPainter, frame: QRectF, task: str) -> None:
    painter.fillRect(frame, QColor("#101010"))
    colours = {
        "instance_segmentation": _OBJECTS,
        "semantic_segmentation": _CLASSES,
        "label_free": ("#45d06a",) * 5,
        "restoration": ("#e6e6e6",) * 5,
    }
    _draw_cells(painter, frame, colours.get(task, _OBJECTS))
