"""What a panel shows, kept in the project for the next time it is opened."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer

from im2im_core.errors import Im2ImError
from im2im_core.project import Project
from napari_im2im._later import Later

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = ".im2im"
SAVE_MILLISECONDS = 500
"""Quiet after a change before it is written."""


class PanelMemory(QObject):
    """Reads and writes ``.im2im/NAME.json`` of the project, in threads; nothing is written before it was read.

    Parameters
    ----------
    content : callable
        What is to be remembered now, as plain content.
    """

    def __init__(self, name: str, content: Callable[[], dict[str, Any]], parent: QObject | None = None) -> None:
        super().__init__(parent)
        # The project of now: where another one is chosen later, this panel still belongs to the first.
        self._file, self._content = _File(Project.open().root / FOLDER / f"{name}.json"), content
        self._recalled = False
        self._later = Later(self)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(SAVE_MILLISECONDS)
        self._timer.timeout.connect(self.save)

    def recall(self, done: Callable[[dict[str, Any]], object]) -> None:
        """Call `done` with what was remembered; with nothing where that was never or cannot be read."""

        def take(content: dict[str, Any]) -> None:
            self._recalled = True
            done(content)

        self._later.ask("recall", self._file.read, take)

    def save_soon(self) -> None:
        """Remember what is shown when no more changes come."""
        if self._recalled:
            self._timer.start()

    def save(self) -> None:
        """Remember what is shown now."""
        self._timer.stop()
        if self._recalled:
            self._file.write(self._content())


@dataclass
class _File:
    """The file; of several threads that write, the one that was asked last has the last word."""

    path: Path
    turn: threading.Lock = field(default_factory=threading.Lock)
    asked: int = 0

    def read(self) -> dict[str, Any]:
        from im2im_core.files import read_json

        try:
            content = read_json(self.path)
        except (OSError, ValueError, Im2ImError):  # never opened here, or not by this version
            return {}
        return content if isinstance(content, dict) else {}

    def write(self, content: dict[str, Any]) -> None:
        self.asked += 1
        # Not a daemon: closing napari waits for these few bytes.
        threading.Thread(target=self._write, args=[self.asked, content]).start()

    def _write(self, number: int, content: dict[str, Any]) -> None:
        from im2im_core.files import write_json

        with self.turn, suppress(Im2ImError, OSError):  # a memory that cannot be written must not hinder anybody
            if number == self.asked:
                write_json(self.path, content)
