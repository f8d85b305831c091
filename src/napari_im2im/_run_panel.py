"""One run as a person watches it: where it stands, its curves, its messages, and the list of all runs beneath."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSplitter,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from im2im_core.events import Finished, Losses, Message, Progress, Validated
from im2im_core.jobs.eventlog import merge_steps
from im2im_core.progress import duration
from im2im_core.runs import ACTIVE, Run
from napari_im2im._messages import MessageBar
from napari_im2im._preview_layer import PreviewSlider
from napari_im2im._runs_table import RunsTable, fraction, score_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from im2im_core.doctor import Diagnosis
    from im2im_core.events import Event
    from im2im_core.jobs.eventlog import Stamped
    from im2im_core.jobs.watch import Seen
    from im2im_core.recipe import Recipe
    from napari_im2im._curves import CurvesWidget
    from napari_im2im._messages import Message as Shown

EVERY_LOSSES = 20
"""Points of the loss curve between two examinations of a run; each validation is examined too."""
STATES = {
    "queued": "waits for its turn",
    "running": "is training",
    "paused": "is paused; its state is saved",
    "stopped": "was stopped",
    "finished": "is done",
    "failed": "failed",
    "interrupted": "was interrupted",
}
NO_RUN = "No run is shown yet: start one, or choose one below"
STOPPABLE = ("overfit", "stopped_improving")
RESUMABLE = ("paused", "stopped", "interrupted", "failed")


@dataclass
class RunView:
    """What is known of one run, gathered from its events."""

    state: str = ""
    last: int = 0
    """Number of the newest event; older ones are not taken again."""
    events: list[Stamped] = field(default_factory=list)
    progress: Progress | None = None
    finished: Finished | None = None
    waiting: str = ""
    unexamined: int = 0
    _settings: tuple[Recipe, dict[str, Any]] | None = None

    def take(self, seen: Seen) -> list[Stamped]:
        """Events that are new; one validation or many losses make the run worth examining."""
        fresh = [s for s in seen.events if s.seq > self.last]
        self.state = seen.state
        for stamped in fresh:
            self._note(stamped.event)
        if fresh:
            self.last = fresh[-1].seq
            self.events += fresh
        return fresh

    def _note(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.progress = event
        elif isinstance(event, Finished):
            self.finished = event
        elif isinstance(event, Message) and event.code == "queued":
            self.waiting = event.text
        elif isinstance(event, Validated):
            self.unexamined = EVERY_LOSSES
        elif isinstance(event, Losses):
            self.unexamined += 1

    def curve_events(self) -> list[Event]:
        """Events for an examination: repeated steps once, in order, the last progress at the end."""
        return [s.event for s in merge_steps(self.events)] + ([self.progress] if self.progress else [])

    def all_events(self) -> list[Event]:
        """Every event in order."""
        return [s.event for s in self.events]

    def settings(self, folder: str) -> tuple[Recipe, dict[str, Any]]:
        """Recipe and plan of the run; read once, as soon as there is a plan, which never changes."""
        if self._settings is None or not self._settings[1]:
            run = Run(folder)
            self._settings = (run.recipe, run.plan)
        return self._settings

    @property
    def done(self) -> float | None:
        """Part of the budget that is used; None while unknown."""
        return None if self.progress is None else fraction(self.progress)

    def words(self) -> str:
        """Where the run stands, in words."""
        if self.state == "queued" and self.waiting:
            return self.waiting
        if self.state != "running" or self.progress is None:
            return STATES.get(self.state, self.state)
        event = self.progress
        count = f"{event.done}" if event.total is None else f"{event.done} of {event.total}"
        what = f"step {count}" if event.task == "training" else f"{event.task}: {count}"
        left = duration(event.remaining)
        return f"{what}, {left} left" if left else what


class RunPanel(QWidget):
    """View of the shown run and of the list; tells what a person wants and changes no run itself."""

    commanded = Signal(str)
    """pause, resume, stop, abort or continue, for the shown run."""
    useRequested = Signal()
    cureRequested = Signal(object)
    """Dotted settings with which a new training shall be prepared."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.table = RunsTable()
        self.slider = PreviewSlider()
        self.messages = MessageBar()
        self._curves: CurvesWidget | None = None
        self._colours = ("#23242b", "#f0f1f2")
        self._said: dict[str, tuple[str, Shown]] = {}
        self._dismissed: set[str] = set()
        self._title = QLabel(NO_RUN)
        font = self._title.font()
        font.setBold(True)
        self._title.setFont(font)
        self._title.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._words = QLabel()
        self._words.setWordWrap(True)
        self._bar = QProgressBar()
        self._bar.setRange(0, 1000)
        self._bar.setTextVisible(False)
        self._bar.setMaximumHeight(8)
        self._buttons = self._make_buttons()
        self._build()
        self.setState("")

    # ---- building ----

    def _make_buttons(self) -> dict[str, QPushButton | QToolButton]:
        tips = {
            "pause": ("Pause", "Save exactly and give memory and processor back"),
            "resume": ("Resume", "Go on from the last saved step"),
            "stop": ("Stop", "Finish now and keep the best network"),
            "continue": ("Continue", "Teach this model on, with the same or other images"),
        }
        buttons: dict[str, QPushButton | QToolButton] = {}
        for verb, (text, tip) in tips.items():
            button = QPushButton(text)
            button.setToolTip(tip)
            button.clicked.connect(lambda _=False, v=verb: self.commanded.emit(v))
            buttons[verb] = button
        abort = QPushButton("Abort")
        abort.setToolTip("End now without making a model; Resume can still go on from the last saved step")
        abort.setFlat(True)
        abort.clicked.connect(lambda: self.commanded.emit("abort"))
        buttons["abort"] = abort
        return buttons

    def _build(self) -> None:
        self._done = QFrame()
        self._done.setFrameShape(QFrame.Shape.StyledPanel)
        done = QHBoxLayout(self._done)
        done.setContentsMargins(6, 4, 6, 4)
        self._done_words = QLabel()
        self._done_words.setWordWrap(True)
        self.use_button = QPushButton("Use it")
        self.use_button.setToolTip("Open Predict with this model")
        self.use_button.clicked.connect(self.useRequested)
        done.addWidget(self._done_words, 1)
        done.addWidget(self.use_button)
        self._done.hide()
        head = QHBoxLayout()
        head.addWidget(self._words, 1)
        for button in self._buttons.values():
            head.addWidget(button)
        self._stage = QVBoxLayout()
        self._stage.setContentsMargins(0, 0, 0, 0)
        upper = QWidget()
        column = QVBoxLayout(upper)
        column.setContentsMargins(0, 0, 0, 0)
        for item in (self._title, head, self._bar, self._done, self.messages, self._stage, self.slider):
            column.addWidget(item) if isinstance(item, QWidget) else column.addLayout(item)
        column.setStretchFactor(self._stage, 1)
        splitter = QSplitter(Qt.Orientation.Vertical)
        splitter.setChildrenCollapsible(False)
        splitter.addWidget(upper)
        splitter.addWidget(self.table)
        splitter.setStretchFactor(0, 3)
        splitter.setStretchFactor(1, 1)
        self.table.setMinimumHeight(90)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.addWidget(splitter)

    @property
    def curves(self) -> CurvesWidget:
        """Curves, made when first needed: drawing them takes a library that opening should not wait for."""
        if self._curves is None:
            from napari_im2im._curves import CurvesWidget

            self._curves = CurvesWidget()
            self._curves.setColours(*self._colours)
            self._stage.addWidget(self._curves)
        return self._curves

    def setColours(self, background: str, text: str) -> None:
        """Ground and text of the curves, as the viewer's theme has them."""
        self._colours = (background, text)
        if self._curves is not None:
            self._curves.setColours(background, text)

    def sizeHint(self) -> QSize:
        return QSize(420, 600)

    # ---- the shown run ----

    def setRun(self, name: str) -> None:
        """Show another run, of which nothing is known yet."""
        self._title.setText(name or NO_RUN)
        self._said.clear()
        self._dismissed.clear()
        self.messages.clear()
        self._done.hide()
        self.slider.setSteps([])
        self.setState("")

    def setState(self, state: str) -> None:
        """Offer what can be done with a run in `state`."""
        active = state in ACTIVE
        visible = {
            "pause": active,
            "stop": active,
            "abort": active,
            "resume": state in RESUMABLE,
            "continue": state == "finished",
        }
        for verb, button in self._buttons.items():
            button.setVisible(visible[verb])
            button.setEnabled(True)
        self._bar.setVisible(active)
        self._words.setVisible(bool(state))

    def button(self, verb: str) -> QPushButton | QToolButton:
        """Button of a verb."""
        return self._buttons[verb]

    def wait(self, words: str) -> None:
        """Say what was asked for until the run answers."""
        self._words.setText(words)
        self._words.show()
        for button in self._buttons.values():
            button.setEnabled(False)

    def show_view(self, view: RunView) -> None:
        """Show where the run stands."""
        self.setState(view.state)
        self._words.setText(view.words())
        done = view.done
        self._bar.setRange(0, 0 if done is None else 1000)
        self._bar.setValue(round(1000 * (done or 0)))
        self._show_done(view)

    def _show_done(self, view: RunView) -> None:
        finished = view.finished if view.state == "finished" else None
        self._done.setVisible(finished is not None)
        if finished is not None:
            score = score_words(finished.metrics)
            reached = f" {score} on validation." if score else ""
            self._done_words.setText(f"Done.{reached} {finished.step} steps, {duration(finished.seconds)}.")
            self.use_button.setVisible(bool(finished.model))

    # ---- messages ----

    def say(self, text: str, level: str = "error", cure: str = "") -> None:
        """Message about the shown run."""
        self.messages.add(text, level, cure)

    def setDiagnoses(self, found: list[Diagnosis], active: bool) -> None:
        """Show what was found; what is no longer true goes, what a person dismissed stays away."""
        codes = {d.code for d in found}
        for code in [c for c in self._said if c not in codes]:
            self._forget(code)
        for diagnosis in found:
            shown = self._said.get(diagnosis.code)
            if diagnosis.code in self._dismissed or (shown and shown[0] == diagnosis.text):
                continue
            self._forget(diagnosis.code)
            self._tell(diagnosis, active)

    def codes(self) -> list[str]:
        """Codes of the diagnoses that are shown."""
        return list(self._said)

    def _tell(self, diagnosis: Diagnosis, active: bool) -> None:
        text, action = self._cure_button(diagnosis.code, diagnosis.recipe_changes, active)
        message = self.messages.add(diagnosis.text, diagnosis.level, diagnosis.cure, text, action)
        self._said[diagnosis.code] = (diagnosis.text, message)
        message.dismissed.connect(lambda c=diagnosis.code: self._on_dismissed(c))

    def _cure_button(
        self, code: str, changes: Mapping[str, Any], active: bool
    ) -> tuple[str | None, Callable[[], object] | None]:
        if active and code in STOPPABLE:
            return "Stop now", lambda: self.commanded.emit("stop")
        if changes:
            return "Prepare a new training with it", lambda: self.cureRequested.emit(dict(changes))
        return None, None

    def _on_dismissed(self, code: str) -> None:
        if self._said.pop(code, None) is not None:
            self._dismissed.add(code)

    def _forget(self, code: str) -> None:
        shown = self._said.pop(code, None)
        if shown is not None:
            shown[1].dismissed.emit()
