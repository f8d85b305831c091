"""Messages in words, each with its cure and, where there is one, a button that mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from qtpy.QtCore import QEvent, QObject, QSize, Qt, Signal
from qtpy.QtWidgets import (
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_im2im._icons import icon

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qtpy.QtGui import QResizeEvent

    Button = tuple[str, Callable[[], object]]

Level = Literal["info", "warning", "error"]
_LEVELS: dict[str, Level] = {"info": "info", "warning": "warning", "error": "error"}
ICON_SIZE = 20
HIGHEST = 160
"""Height of the list in pixels; what does not fit is reached by scrolling, so that no panel leaves the screen."""


class Message(QFrame):
    """One message; stays until it is dismissed, mended or cleared."""

    dismissed = Signal()

    def __init__(
        self,
        text: str,
        level: Level,
        cure: str,
        button_text: str | None,
        action: Callable[[], object] | None,
        others: Sequence[Button] = (),
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName(f"im2im-{level}")
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.text, self.level, self.cure = text, level, cure
        layout = QGridLayout(self)
        layout.setContentsMargins(6, 4, 4, 4)
        layout.setHorizontalSpacing(8)
        layout.setColumnStretch(1, 1)
        layout.addWidget(_picture(level), 0, 0, Qt.AlignmentFlag.AlignTop)
        layout.addWidget(_paragraph(text), 0, 1)
        if cure:
            layout.addWidget(_paragraph(cure, bold=True), 1, 1)
        if button_text and action:
            self.button = self._button(button_text, action)
            row = QHBoxLayout()
            for button in (self.button, *(self._button(*other) for other in others)):
                row.addWidget(button)
            row.addStretch()
            layout.addLayout(row, 2, 1)
        self.close_button = QToolButton()
        self.close_button.setText("×")  # in the colour of the theme; the icon of the style is black on dark ground
        self.close_button.setAutoRaise(True)
        self.close_button.setToolTip("Dismiss this message")
        self.close_button.setAccessibleName(f"Dismiss: {text}")
        self.close_button.clicked.connect(self.dismissed)
        layout.addWidget(self.close_button, 0, 2, Qt.AlignmentFlag.AlignTop)

    def _button(self, text: str, action: Callable[[], object]) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(f"{self.text}. {self.cure}" if self.cure else self.text)
        button.clicked.connect(lambda: self._on_mend(action))
        return button

    def _on_mend(self, action: Callable[[], object]) -> None:
        """Mend first: when that fails, the message must still be there."""
        action()
        self.dismissed.emit()


class MessageBar(QScrollArea):
    """List of messages, newest last; takes no room while there are none, and never much."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None, *, highest: int = HIGHEST) -> None:
        super().__init__(parent)
        self._highest = highest
        self._messages: list[Message] = []
        self._list = QWidget()
        self._layout = QVBoxLayout(self._list)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(4)
        self.setWidget(self._list)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        scroll = self.verticalScrollBar()
        assert scroll is not None
        scroll.rangeChanged.connect(lambda _, last: scroll.setValue(last))  # the newest is what matters
        self.hide()

    def sizeHint(self) -> QSize:
        """As high as the messages at this width, but never higher than it may be."""
        hint = super().sizeHint()
        return QSize(hint.width(), min(self._wanted_height(), self._highest))

    def minimumSizeHint(self) -> QSize:
        """The same height: messages must be read, and they take little."""
        return QSize(0, self.sizeHint().height())

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """At another width the words take another number of lines."""
        super().resizeEvent(event)
        self._fit()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Messages that get their fonts and margins from the theme want another height than before."""
        taken = super().eventFilter(watched, event)
        if watched is self._list and event is not None and event.type() == QEvent.Type.LayoutRequest:
            self._fit()
        return taken

    def _fit(self) -> None:
        """Show a scroll bar where the messages are higher than the list may be, and nowhere else.

        Left to itself, a scroll bar that came for many messages stays for one: beside it the words need
        another line, and for that line it is needed.
        """
        policy = Qt.ScrollBarPolicy
        high = self._wanted_height() > self._highest
        self.setVerticalScrollBarPolicy(policy.ScrollBarAlwaysOn if high else policy.ScrollBarAlwaysOff)
        self.updateGeometry()

    def _wanted_height(self) -> int:
        frame = 2 * self.frameWidth()
        if self._layout.hasHeightForWidth():
            return self._layout.totalHeightForWidth(self.width() - frame) + frame
        return self._layout.totalSizeHint().height() + frame

    def add(
        self,
        text: str,
        level: str = "info",
        cure: str = "",
        button_text: str | None = None,
        action: Callable[[], object] | None = None,
        others: Sequence[Button] = (),
    ) -> Message:
        """Message that was added; the same text and cure stand only once.

        Parameters
        ----------
        level : str
            info, warning or error; anything else is shown as info.
        cure : str
            What to do about it.
        button_text, action
            A button that mends it; the message goes when `action` returned.
        others : sequence of (text, action)
            More buttons beside it.
        """
        for shown in [m for m in self._messages if (m.text, m.cure) == (text, cure)]:
            self._remove(shown)
        message = Message(text, _LEVELS.get(level, "info"), cure, button_text, action, others, self._list)
        message.dismissed.connect(lambda: self._remove(message))
        self._messages.append(message)
        self._layout.addWidget(message)
        self.show()
        self._fit()
        self.changed.emit()
        return message

    def add_error(self, error: BaseException) -> Message:
        """Message made from an error, with its cure where it has one."""
        text = getattr(error, "message", "") or str(error) or type(error).__name__
        return self.add(text, "error", getattr(error, "cure", ""))

    def messages(self) -> tuple[Message, ...]:
        """Messages that are shown, oldest first."""
        return tuple(self._messages)

    def clear(self, *, keep_errors: bool = False) -> None:
        """Remove all messages; with `keep_errors` only those that report no error."""
        for message in [m for m in self._messages if not (keep_errors and m.level == "error")]:
            self._remove(message)

    def _remove(self, message: Message) -> None:
        if message not in self._messages:
            return
        self._messages.remove(message)
        self._layout.removeWidget(message)
        message.hide()
        message.deleteLater()
        self.setVisible(bool(self._messages))
        self._fit()
        self.changed.emit()


def _picture(level: Level) -> QLabel:
    label = QLabel()
    label.setPixmap(icon(level).pixmap(ICON_SIZE, ICON_SIZE))
    label.setAccessibleName(level)
    label.setToolTip(level)
    return label


def _paragraph(text: str, bold: bool = False) -> QLabel:
    label = QLabel(text)
    label.setTextFormat(Qt.TextFormat.PlainText)  # file names may look like tags
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
    policy.setHeightForWidth(True)  # else each takes the lines of a narrow column, and words are scrolled out of sight
    label.setSizePolicy(policy)
    if bold:
        font = label.font()
        font.setBold(True)
        label.setFont(font)
    return label
