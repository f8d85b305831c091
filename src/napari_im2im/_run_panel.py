"""One run as a person watches it: where it stands, its curves, its messages, and the list of all runs beneath."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QAction, QFontDatabase
from qtpy.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QSplitter,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from im2im_core.events import Failed, Finished, Losses, Message, Progress, Started, Validated
from im2im_core.progress import duration
from im2im_core.runs import ACTIVE
from napari_im2im._messages import MessageBar
from napari_im2im._preview_layer import PreviewSlider
from napari_im2im._runs_table import RunsTable, fraction, score_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from im2im_core.doctor import Diagnosis
    from im2im_core.events import Event
    from im2im_core.jobs.eventlog import Stamped
    from im2im_core.jobs.watch import Seen
    from napari_im2im._curves import CurvesWidget
    from napari_im2im._messages import Message as Shown

EVERY_LOSSES = 20
"""Points of the loss curve between two examinations of a run; each validation is examined too."""
STATES = {
    "queued": "is starting…",
    "running": "is getting ready…",
    "paused": "is paused; its state is saved",
    "stopped": "was stopped",
    "finished": "is done",
    "failed": "failed",
    "interrupted": "was interrupted",
}
NO_RUN = "No run is shown yet: start one, or choose one below"
STOPPABLE = ("overfit", "stopped_improving")
RESUMABLE = ("paused", "stopped", "interrupted", "failed")
RESUME_MENDS = ("killed", "crashed")
"""Diagnoses after which going on from the last checkpoint is what to try first."""
EXAMINED = (Losses, Validated, Started, Failed)
"""Events that an examination looks at; others are not kept."""
LOG_HEIGHT = 110


@dataclass
class RunView:
    """What is known of one run, gathered from its events."""

    state: str = ""
    last: int = 0
    """Number of the newest event; older ones are not taken again."""
    events: list[Stamped] = field(default_factory=list)
    """Those that an examination looks at."""
    progress: Progress | None = None
    finished: Finished | None = None
    first: Validated | None = None
    """The first validation."""
    taught: bool = False
    """Whether the training began with a trained network."""
    kept: str = ""
    """Which images validate, in words; empty while unknown."""
    waiting: str = ""
    unexamined: int = 0
    examined: str = ""
    """State in which the run was examined last."""

    def take(self, seen: Seen) -> list[Stamped]:
        """Events that are new; one validation or many losses make the run worth examining."""
        fresh = [s for s in seen.events if s.seq > self.last]
        self.state = seen.state
        for stamped in fresh:
            self._note(stamped.event)
        if fresh:
            self.last = fresh[-1].seq
            self.events += [s for s in fresh if isinstance(s.event, EXAMINED)]
        return fresh

    def _note(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.progress = event
        elif isinstance(event, Finished):
            self.finished = event
        elif isinstance(event, Message) and event.code == "queued":
            self.waiting = event.text
        elif isinstance(event, Validated):
            self.first = self.first or event
            self.unexamined = EVERY_LOSSES
        elif isinstance(event, Losses):
            self.unexamined += 1

    @property
    def due(self) -> bool:
        """Whether there is enough news for an examination."""
        return self.unexamined >= EVERY_LOSSES or (self.state not in ACTIVE and self.examined != self.state)

    def score(self) -> str:
        """How good the finished network is and how good it was, in words; empty where nobody measured."""
        if self.finished is None:
            return ""
        last = self.first is not None and self.first.step >= self.finished.step
        before = self.first.values if self.first is not None and self.taught and not last else None
        return score_words(self.finished.metrics, before, self.kept or "validation")

    @property
    def done(self) -> float | None:
        """Part of the budget that is used; None while unknown."""
        return None if self.progress is None or self._between else fraction(self.progress)

    @property
    def _between(self) -> bool:
        """Whether the images are read and no step was told yet."""
        event = self.progress
        return event is not None and event.task != "training" and event.total is not None and event.done >= event.total

    def words(self) -> str:
        """Where the run stands, in words."""
        if self.state == "queued" and self.waiting:
            return self.waiting
        if self.state != "running" or self.progress is None or self._between:
            return STATES.get(self.state, self.state)
        event = self.progress
        count = f"{event.done}" if event.total is None else f"{event.done} of {event.total}"
        what = f"step {count}" if event.task == "training" else f"{event.task}: {count}"
        if event.task == "training" and fraction(event) == 1:
            return f"{what}, finishing…"
        left = duration(event.remaining)
        return f"{what}, {left} left" if left else what


class RunPanel(QWidget):
    """View of the shown run and of the list; tells what a person wants and changes no run itself."""

    commanded = Signal(str)
    """pause, resume, stop, abort or continue, for the shown run."""
    useRequested = Signal()
    cureRequested = Signal(object)
    """Dotted settings with which a new training shall be prepared."""
    watchRequested = Signal()
    """A region of the user's shall be predicted at every validation."""
    logWanted = Signal(bool)
    """Whether the log is unfolded."""

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

    def _make_buttons(self) -> dict[str, QPushButton]:
        tips = {
            "pause": ("Pause", "Save exactly and give memory and processor back"),
            "resume": ("Resume", "Go on with this training exactly where it stood, in the same run"),
            "stop": ("Stop", "Finish now and keep the best network; more behind the arrow"),
            "continue": (
                "Teach on",
                "Teach this model on in a new run; this one stays as it is",
            ),
        }
        buttons: dict[str, QPushButton] = {}
        for verb, (text, tip) in tips.items():
            button = QPushButton(text)
            button.setToolTip(tip)
            button.clicked.connect(lambda _=False, v=verb: self.commanded.emit(v))
            buttons[verb] = button
        self._more = self._make_more()
        return buttons

    def _make_more(self) -> QToolButton:
        """The arrow beside Stop; a button that holds both cuts its own text in napari's themes."""
        more = QToolButton()
        more.setArrowType(Qt.ArrowType.DownArrow)
        more.setAutoRaise(True)
        more.setAccessibleName("More ways to end")
        more.setToolTip("More ways to end")
        self.abort_action = QAction("Abort without a model", self)
        self.abort_action.setToolTip("End now; Resume can still go on from the last saved step")
        self.abort_action.triggered.connect(lambda: self.commanded.emit("abort"))
        menu = QMenu(more)
        menu.setToolTipsVisible(True)
        menu.addAction("Stop and keep the best", lambda: self.commanded.emit("stop"))
        menu.addAction(self.abort_action)
        more.clicked.connect(lambda: menu.popup(more.mapToGlobal(more.rect().bottomLeft())))
        return more

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
        head.insertWidget(head.indexOf(self._buttons["stop"]) + 1, self._more)
        self._stage = QVBoxLayout()
        self._stage.setContentsMargins(0, 0, 0, 0)
        tools = self._make_tools()
        upper = QWidget()
        column = QVBoxLayout(upper)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        for item in (
            self._title,
            head,
            self._bar,
            self._done,
            self.messages,
            self._stage,
            self.slider,
            tools,
            self._log,
        ):
            column.addWidget(item) if isinstance(item, QWidget) else column.addLayout(item)
        column.setStretchFactor(self._stage, 1)
        splitter = QSplitter(Qt.Orientation.Vertical)
        splitter.setChildrenCollapsible(False)
        splitter.addWidget(upper)
        splitter.addWidget(self.table)
        splitter.setStretchFactor(0, 3)
        splitter.setStretchFactor(1, 1)
        splitter.setSizes([600, 150])  # curves need the room; the table scrolls
        self.table.setMinimumHeight(90)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.addWidget(splitter)

    def _make_tools(self) -> QHBoxLayout:
        """Row with the log and the region to watch; the log itself lies beneath, folded."""
        self.log_button = QToolButton()
        self.log_button.setText("Log")
        self.log_button.setToolTip("What the training printed")
        self.log_button.setAccessibleName("Log")
        self.log_button.setCheckable(True)
        self.log_button.setAutoRaise(True)
        self.log_button.setArrowType(Qt.ArrowType.RightArrow)
        self.log_button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.log_button.toggled.connect(self._on_log)
        self._log = QPlainTextEdit()
        self._log.setReadOnly(True)
        self._log.setFixedHeight(LOG_HEIGHT)
        self._log.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self._log.setPlaceholderText("Nothing was printed yet")
        self._log.setAccessibleName("What the training printed")
        self._log.hide()
        self.watch_button = QPushButton("Watch this region")
        self.watch_button.setToolTip(
            "Predict a region of your image at every validation: the selected rectangle of a Shapes layer, "
            "else what is visible of the chosen image"
        )
        self.watch_button.clicked.connect(self.watchRequested)
        row = QHBoxLayout()
        row.addWidget(self.log_button)
        row.addStretch(1)
        row.addWidget(self.watch_button)
        return row

    def _on_log(self, on: bool) -> None:
        self.log_button.setArrowType(Qt.ArrowType.DownArrow if on else Qt.ArrowType.RightArrow)
        self._log.setVisible(on)
        self.logWanted.emit(on)

    @property
    def curves(self) -> CurvesWidget:
        """Curves, shown when first needed."""
        curves = self.prepare_curves()
        curves.show()
        return curves

    def prepare_curves(self) -> CurvesWidget:
        """Curves, hidden when made: drawing them takes a library that opening should not wait for."""
        if self._curves is None:
            from napari_im2im._curves import CurvesWidget

            self._curves = CurvesWidget()
            self._curves.hide()
            self._curves.setColours(*self._colours)
            self._curves.exported.connect(lambda path: self.say(f"The curves are in {path}", "info"))
            self._curves.refused.connect(self.messages.add_error)
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
        self._log.clear()
        self._done.hide()
        self.slider.setSteps([])
        self.setState("")

    def setState(self, state: str) -> None:
        """Offer what can be done with a run in `state`."""
        active = state in ACTIVE
        visible = {
            "pause": active,
            "stop": active,
            "resume": state in RESUMABLE,
            "continue": state == "finished",
        }
        for verb, button in self._buttons.items():
            button.setVisible(visible[verb])
            button.setEnabled(True)
        self._more.setVisible(visible["stop"])
        self._more.setEnabled(True)
        self.watch_button.setVisible(active)
        self.watch_button.setEnabled(True)
        self._bar.setVisible(active)
        self._words.setVisible(bool(state))

    def button(self, verb: str) -> QPushButton:
        """Button of a verb."""
        return self._buttons[verb]

    def wait(self, words: str) -> None:
        """Say what was asked for until the run answers."""
        self._words.setText(words)
        self._words.show()
        for button in (*self._buttons.values(), self._more):
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
            score = view.score()
            reached = f" {score}." if score else ""
            steps = f"{finished.step} step{'' if finished.step == 1 else 's'}"
            self._done_words.setText(f"Done.{reached} {steps}, {duration(finished.seconds)}.")
            self.use_button.setVisible(bool(finished.model))

    def setLog(self, text: str) -> None:
        """Show the end of the log; who has scrolled back stays there."""
        bar = self._log.verticalScrollBar()
        place, at_end = bar.value(), bar.value() >= bar.maximum()
        self._log.setPlainText(text)
        bar.setValue(bar.maximum() if at_end else place)

    def log(self) -> str:
        """Text of the log that is shown."""
        return str(self._log.toPlainText())

    # ---- messages ----

    def say(
        self,
        text: str,
        level: str = "error",
        cure: str = "",
        button: str | None = None,
        action: Callable[[], object] | None = None,
    ) -> None:
        """Message about the shown run, with a button that mends it where there is one."""
        self.messages.add(text, level, cure, button, action)

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
        if code in RESUME_MENDS:
            return "Resume", lambda: self.commanded.emit("resume")
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
