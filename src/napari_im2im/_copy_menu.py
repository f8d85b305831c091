"""A button that copies what a panel would do: as command, YAML, Python or a paragraph for the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QApplication, QMenu, QToolButton, QToolTip, QWidget

from im2im_core.errors import Im2ImError
from napari_im2im._icons import BESIDE, icon

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KINDS = {
    "command": "Copy as command",
    "yaml": "Copy as YAML",
    "python": "Copy as Python",
    "methods": "Copy as methods paragraph",
}
"""Key in what `get` returns -> title in the menu."""
SAID_FOR = 2000
"""Milliseconds for which the button says that it copied."""


class CopyMenu(QToolButton):
    """Menu with one entry per text that `get` offers under the keys command, yaml, python and methods.

    `get` is asked when an entry is chosen, so it always speaks of the settings of that moment.

    Parameters
    ----------
    kinds : sequence of str
        Keys that `get` offers.
    """

    copied = Signal(str)
    """Key of the text that is now on the clipboard."""
    failed = Signal(object)
    """The `Im2ImError` for which nothing could be copied."""

    def __init__(
        self, get: Callable[[], dict[str, str]], parent: QWidget | None = None, *, kinds: Sequence[str] = tuple(KINDS)
    ) -> None:
        super().__init__(parent)
        self._get = get
        self.setText("Copy")
        self.setIcon(icon("copy"))
        self.setStyleSheet(BESIDE)
        self.setToolTip("Copy these settings: for a shell, a file, a notebook or a paper")
        self.setAccessibleName("Copy these settings")
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self)
        for key in kinds:
            menu.addAction(KINDS[key], lambda key=key: self._on_copy(key))
        self.setMenu(menu)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(lambda: self.setText("Copy"))

    def _on_copy(self, key: str) -> None:
        try:
            text = self._get().get(key, "")
        except Im2ImError as error:
            self._say("Not copied", str(error))
            self.failed.emit(error)
            return
        clipboard = QApplication.clipboard()
        if not text or clipboard is None:
            self._say("Not copied", "There is nothing to copy yet")
            return
        clipboard.setText(text)
        self._say("Copied", f"{KINDS[key].removeprefix('Copy as ').capitalize()} is on the clipboard")
        self.copied.emit(key)

    def _say(self, word: str, sentence: str) -> None:
        self.setText(word)
        QToolTip.showText(self.mapToGlobal(self.rect().bottomLeft()), sentence, self)
        self._timer.start(SAID_FOR)
