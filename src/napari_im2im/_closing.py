"""Closing napari while trainings run: asked about once per window, whether or not the Train panel is open."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QCoreApplication, QEvent, QObject, Signal
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QMessageBox, QWidget

from im2im_core.errors import Im2ImError
from im2im_core.runs import ACTIVE, Run

if TYPE_CHECKING:
    from collections.abc import Callable

STARTED: set[str] = set()
"""Folders of the runs that were started from this napari: closing it asks about those that still train."""
NAME = "im2im-closing-guard"


class ClosingGuard(QObject):
    """Lives as long as a window and asks before it closes."""

    closing = Signal()
    """The window is about to close."""

    def __init__(self, window: QWidget) -> None:
        super().__init__(window)
        self.setObjectName(NAME)
        self._ask: Callable[[list[str]], str] | None = None
        self._passing = False
        window.installEventFilter(self)

    def setAsk(self, ask: Callable[[list[str]], str] | None) -> None:
        """Who asks: takes the names of runs and gives keep, stop or cancel; our own question where None."""
        self._ask = ask

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Ask about trainings that run when the window is closed."""
        window = self.parent()
        if not isinstance(window, QWidget) or watched is not window or event.type() != QEvent.Type.Close:
            return False
        active = [folder for folder in sorted(STARTED) if is_active(folder)]
        if self._passing or not active:
            self.closing.emit()
            return False
        event.setAccepted(self._may_close(window, active))
        return True

    def _may_close(self, window: QWidget, active: list[str]) -> bool:
        """Whether the window closes; trainings are told to stop only when nobody else has kept it open."""
        names = [Path(folder).name for folder in active]
        answer = self._ask(names) if self._ask else ask(names, window)
        if answer == "cancel" or not self._pass_on(window):
            return False
        for folder in active if answer == "stop" else ():
            with suppress(Im2ImError):  # it ended by itself in this moment
                _stop(folder)
        return True

    def _pass_on(self, window: QWidget) -> bool:
        """Whether everybody else lets the window close.

        Who has answered us means to close and is not asked again: napari asks when the frame of the window
        was clicked, but not when a program sends the event.
        """
        again = QCloseEvent()
        self._passing = True
        try:
            QCoreApplication.sendEvent(window, again)
        finally:
            self._passing = False
        return bool(again.isAccepted())


def guard_of(window: QWidget) -> ClosingGuard:
    """The guard of a window, made where there is none."""
    found = window.findChild(ClosingGuard, NAME)
    return found if isinstance(found, ClosingGuard) else ClosingGuard(window)


def ask(names: list[str], parent: QObject | None) -> str:
    """What to do with trainings when the viewer is closed: keep, stop or cancel."""
    which = names[0] if len(names) == 1 else f"{len(names)} trainings"
    box = QMessageBox(parent if isinstance(parent, QWidget) else None)
    box.setWindowTitle("A training is running")
    box.setText(f"Keep {which} running?")
    words = ["Training goes on without napari. Open Train again to see it."]
    others = _other_work(parent)
    if others:
        words.append(f"Closing ends: {', '.join(others)}")
    box.setInformativeText("\n\n".join(words))
    keep = box.addButton("Keep running", QMessageBox.ButtonRole.AcceptRole)
    stop = box.addButton("Stop and keep the best", QMessageBox.ButtonRole.DestructiveRole)
    box.addButton("Do not close", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(keep)
    box.exec()
    return {keep: "keep", stop: "stop"}.get(box.clickedButton(), "cancel")


def _other_work(window: QObject | None) -> list[str]:
    """What napari says is going on in the window; nothing where it does not know."""
    tasks = getattr(getattr(window, "_window", None), "_task_status_manager", None)
    return [] if tasks is None else list(tasks.get_status())


def _stop(folder: str) -> None:
    from im2im_core.jobs.commands import send_command

    send_command(Run(folder), "stop")


def is_active(folder: str) -> bool:
    """Whether the run in `folder` waits or trains; False where there is none."""
    try:
        return Run(folder).state in ACTIVE
    except Im2ImError:
        return False
