"""Beneath the pairs: what would be saved, what is under way, and the name under which it is saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QHBoxLayout, QLabel, QLineEdit, QProgressBar, QPushButton, QVBoxLayout, QWidget

from im2im_core.progress import duration
from napari_im2im._copy_menu import CopyMenu
from napari_im2im._dataset_rows import summary
from napari_im2im._icons import icon

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_im2im._dataset_rows import PairRow

WORDS = {"load": "opening images", "review": "checking", "save": "saving"}
"""Task under way -> words."""


class FootPanel(QWidget):
    """Summary, progress and buttons.

    Parameters
    ----------
    folder : path
        Where data sets are kept.
    copies : callable
        Texts of the copy menu.
    """

    def __init__(self, folder: Path, copies: Callable[[], dict[str, str]], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._proposed = ""
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        layout.addLayout(self._summary_row())
        layout.addLayout(self._progress_row())
        layout.addLayout(self._save_row(folder, copies))

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

    def _save_row(self, folder: Path, copies: Callable[[], dict[str, str]]) -> QHBoxLayout:
        self.name = QLineEdit()
        self.name.setPlaceholderText("Name of the data set")
        self.name.setAccessibleName("Name of the data set")
        self.name.setToolTip("Under this name it is listed in Train; left empty, it is named after its images")
        self.save = QPushButton("Save")
        self.save.setToolTip(f"Keep these pairs in {folder}, unchanged from now on")
        self.train = QPushButton("Train with it")
        self.train.setIcon(icon("start"))
        self.train.setToolTip("Save, then open Train with this data set")
        row = QHBoxLayout()
        row.addWidget(self.name, 1)
        row.addWidget(self.save)
        row.addWidget(self.train)
        row.addWidget(CopyMenu(copies))
        return row

    # ---- pairs ----

    def show_rows(self, rows: Sequence[PairRow], task: str) -> None:
        """Say what `rows` are; `task` is what is under way."""
        self.summary.setText(summary(rows))
        bad = [row for row in rows if row.hopeless]
        self.exclude.setVisible(any(row.used for row in bad))
        self.exclude.setText("Exclude the problem" if len(bad) == 1 else f"Exclude the {len(bad)} problems")
        ready = any(row.used for row in rows) and not task
        self.save.setEnabled(ready)
        self.train.setEnabled(ready)
        self.check.setEnabled(bool(rows) and not task)
        self.name.setEnabled(task != "save")
        self.exclude.setEnabled(task != "save")

    # ---- name ----

    def propose_name(self, name: str, *, renew: bool = False) -> None:
        """Show `name`; what a person wrote stays unless it was for other pairs."""
        if renew or self.name.text() in ("", self._proposed):
            self.name.setText(name)
        self._proposed = name

    def written_name(self) -> str:
        """What a person wrote; empty where the name is only proposed."""
        return "" if self.name.text() == self._proposed else self.name.text()

    # ---- progress ----

    def begin(self, task: str) -> None:
        """Show that `task` is under way."""
        self.progress.setRange(0, 0)
        self.progress.setFormat(WORDS[task])
        self.progress.show()
        self.cancel.show()

    def show_progress(self, task: str, done: int, total: int, left: float | None = None) -> None:
        """Show how much is done, and how many seconds are `left`."""
        self.progress.setRange(0, max(total, 1))
        self.progress.setValue(done)
        self.progress.setFormat(f"{task}: %v of %m{f', {duration(left)} left' if left else ''}")

    def end(self) -> None:
        """Nothing is under way."""
        self.progress.hide()
        self.cancel.hide()
