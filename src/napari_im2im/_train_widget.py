"""The Train widget: prepare a training, watch any run learn, use its model. It alone knows the viewer."""

from __future__ import annotations

import io
import sys
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

from qtpy.compat import isalive
from qtpy.QtCore import QObject, QSize, Qt, QTimer, QUrl, Signal
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QApplication, QFileDialog, QScrollArea, QTabWidget, QVBoxLayout, QWidget

from im2im_core.errors import ConfigError, Im2ImError
from im2im_core.events import CommandDone, Losses, Message
from im2im_core.files import read_json, write_json
from im2im_core.finetuning import SHORT_MINUTES
from im2im_core.jobs.queue import device_key
from im2im_core.progress import duration
from im2im_core.project import Project
from im2im_core.runs import ACTIVE, Run
from napari_im2im._background import Background
from napari_im2im._closing import ask, guard_of, is_active
from napari_im2im._panels import open_panel, settle_dock
from napari_im2im._plan_summary import Planner
from napari_im2im._preview_layer import PreviewLayer
from napari_im2im._project_bar import ProjectButton
from napari_im2im._run_panel import RunPanel, RunView
from napari_im2im._run_watch import RunWatch
from napari_im2im._start_panel import SETTINGS, WATCH_TIP, StartPanel
from napari_im2im._train_work import (
    Examined,
    ask_regions,
    command,
    copies,
    examine,
    export,
    import_settings,
    launch,
    local_models,
    resume,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import napari

    from im2im_core.jobs.watch import Seen
    from im2im_core.recipe import Recipe
    from napari_im2im._runs_table import RunRow
    from napari_im2im._watched_region import Wish

MEMORY = Path(".im2im") / "train_widget.json"
"""Where a project remembers what this widget showed."""
SAVE_MILLISECONDS = 1000
DRAW_MILLISECONDS = 60
"""The panel is drawn before its settings are imported."""
WARM_MILLISECONDS = 500
"""The panel is drawn and filled before anything is imported for later."""
NEW, RUNS = 0, 1
UNMEASURED = "not measured while a training runs"
LOOKING = "Looking at the images…"
WAITING = {"pause": "saving and pausing…", "stop": "finishing and keeping the best…", "abort": "ending…"}


class _Theme(QObject):
    """Tells a new theme by a Qt signal, which a deleted widget never hears."""

    changed = Signal()

    def on_theme(self, event: object) -> None:
        """Pass the viewer's event on."""
        self.changed.emit()


class TrainWidget(QWidget):
    """Prepare, start, watch and compare trainings.

    The training itself is a process of its own; this widget only reads its folder and
    leaves commands there, so that it can be closed and opened at any time.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    project : Project, optional
        The nearest project, or the user's default one.
    """

    model_ready = Signal(str)
    """Folder of a model that a person wants to use."""

    def __init__(self, napari_viewer: napari.Viewer, project: Project | None = None) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._project = project or Project.open()
        self._shown = ""
        self._views: dict[str, RunView] = {}
        self._labels: dict[str, str] = {}
        self._bars: dict[str, Any] = {}
        self._finished: set[str] = set()
        self._busy: set[str] = set()
        self._unmeasured = False
        self._planned: Mapping[str, Any] | None = None
        self._asked_previews: dict[int, str] = {}
        self._asked_attempts: dict[str, int] = {}
        self._wishes: Sequence[Wish] | None = None
        self._to_watch: dict[str, Sequence[Wish]] = {}
        self._deleted = self._begun = False
        self._examining = False
        self._ticked_before: list[str] = []
        self._asked_window: ReferenceType[QWidget] | None = None
        self.start_panel = StartPanel(self._project)
        self.run_panel = RunPanel()
        self.preview = PreviewLayer(napari_viewer)
        self.watch = RunWatch()
        self.planner = Planner()
        self.background = Background(self)
        self._theme = _Theme()
        self._save_soon = QTimer(self)
        self._save_soon.setSingleShot(True)
        self._save_soon.setInterval(SAVE_MILLISECONDS)
        self._settings_soon = QTimer(self)
        self._settings_soon.setSingleShot(True)
        self._settings_soon.setInterval(DRAW_MILLISECONDS)
        self._warm_soon = QTimer(self)
        self._warm_soon.setSingleShot(True)
        self._warm_soon.timeout.connect(self._warm)
        self._warm_soon.start(WARM_MILLISECONDS)
        self._build()
        self._connect()
        self._on_theme()
        if SETTINGS in sys.modules:
            self._begin()
        else:  # what is chosen before the settings are there would be lost when they come
            self.start_panel.setEnabled(False)

    # ---- building ----

    def _build(self) -> None:
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setWidget(self.start_panel)
        self.tabs = QTabWidget()
        self.tabs.addTab(scroll, "New training")
        self.tabs.addTab(self.run_panel, "Runs")
        self.tabs.setCornerWidget(ProjectButton(self._viewer, self._project))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.tabs)
        self._add_copy_menu()

    def _warm(self) -> None:
        """Make the curves ready, imported in a thread, so that the start of a training need not wait for them."""
        work = partial(import_module, "napari_im2im._curves")
        self.background.run("curves", work, lambda _: self.run_panel.prepare_curves(), _ignore)

    def _add_copy_menu(self) -> None:
        from napari_im2im._copy_menu import CopyMenu

        self.copy_menu = CopyMenu(lambda: copies(self.start_panel.value(), None, self._project, self._planned))
        self.copy_menu.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.start_panel.addTool(self.copy_menu)

    def _connect(self) -> None:
        self.start_panel.valueChanged.connect(self._on_recipe)
        self.start_panel.startRequested.connect(self._on_start)
        self.start_panel.panelWanted.connect(self._on_panel_wanted)
        self.start_panel.watchWanted.connect(self._on_watch_from_start)
        self.planner.planned.connect(self._on_planned)
        self.planner.refused.connect(self._on_refused)
        self.run_panel.commanded.connect(self._on_command)
        self.run_panel.useRequested.connect(self._on_use)
        self.run_panel.cureRequested.connect(self._on_cure)
        self.run_panel.slider.chosen.connect(self._on_preview)
        self.run_panel.slider.wanted.connect(self._on_preview_wanted)
        self.run_panel.slider.regionChosen.connect(self._on_region)
        self.run_panel.watchRequested.connect(self._on_watch)
        self.run_panel.logWanted.connect(lambda _: self._follow_log())
        self.preview.removed.connect(self._on_preview_removed)
        table = self.run_panel.table
        table.shown.connect(self.show_run)
        table.ticked.connect(self._on_ticked)
        table.asked.connect(self._on_asked)
        self.watch.seen.connect(self._on_seen)
        self.watch.listed.connect(self._on_listed)
        self.watch.logged.connect(self._on_log)
        self.watch.broken.connect(lambda text, cure: self.run_panel.say(text, "warning", cure))
        self.tabs.currentChanged.connect(self._on_tab)
        self._save_soon.timeout.connect(self._save)
        self._settings_soon.timeout.connect(self._import_settings)
        self._theme.changed.connect(self._on_theme)
        self._viewer.events.theme.connect(self._theme.on_theme)
        self.destroyed.connect(self.watch.stop)
        self.destroyed.connect(self.planner.cancel)
        self.destroyed.connect(partial(_close_bars, self._bars))

    def sizeHint(self) -> QSize:
        return QSize(440, 640)

    # ---- what a new training would be ----

    def prepare(
        self,
        path: str | os.PathLike[str],
        *,
        task: str | None = None,
        dimensions: int | None = None,
        start_from: str | os.PathLike[str] | None = None,
        minutes: float | None = None,
    ) -> None:
        """Fill the first page in for learning from the data set at `path`, so that Start is all that is left.

        Parameters
        ----------
        path : path
            Folder or table of a saved data set, or another folder; where relative, in the project.
        task : str, optional
            As recipes name it, for example ``instance_segmentation``; that of the data set where not given.
        dimensions : int, optional
            2 or 3; those of the data set where not given.
        start_from : path, optional
            Model that is taught on.
        minutes : float, optional
            Budget; five where a model is taught on, else as it was.
        """
        self._begin()
        self.tabs.setCurrentIndex(NEW)
        self.start_panel.prepare(path, task=task, dimensions=dimensions, start_from=start_from, minutes=minutes)
        self._look_for_models()

    def _on_recipe(self, recipe: Recipe) -> None:
        self._save_soon.start()
        self._planned = None
        if recipe.data.path is None:
            self.planner.cancel()
            self.start_panel.setSummary("Choose a data set, or a folder with images and targets")
        else:
            self.start_panel.setSummary(LOOKING)
            # Two measured steps would take their time from the training that runs, and measure nothing true.
            self._unmeasured = device_key(recipe.training.device) in self._busy
            self.planner.request(recipe, self._project.root, probe=not self._unmeasured)

    def _on_planned(self, plan: Mapping[str, Any]) -> None:
        self._planned = plan
        self.start_panel.setPlan(plan, UNMEASURED if self._unmeasured else "")

    def _look_for_models(self) -> None:
        self.background.run("models", local_models, self._on_models, _ignore)

    def _on_models(self, models: list[tuple[str, str]]) -> None:
        if models != self.start_panel.models():  # refreshing closes a list that is open
            self.start_panel.refresh(models)

    def _on_refused(self, message: str, cure: str) -> None:
        self.start_panel.setSummary("")
        self.start_panel.messages.clear()
        self.start_panel.messages.add(message, "error", cure)

    def _on_start(self) -> None:
        try:
            recipe = self.start_panel.value()
            if recipe.data.path is None:
                raise ConfigError("There are no images to learn from", "Choose a data set or a folder")
        except ConfigError as error:
            self.start_panel.messages.add(error.message, "error", error.cure)
            return
        self.planner.cancel()  # the training needs the processor now
        self.start_panel.start_button.setEnabled(False)
        self.start_panel.start_button.setText("Starting…")
        self.background.run("start", lambda: launch(self._project, recipe), self._on_launched, self._on_not_started)

    def _on_launched(self, folder: str) -> None:
        if self._wishes:
            self._to_watch[folder] = self._wishes
        self._on_started(folder)

    def _on_started(self, folder: str) -> None:
        self._end_start()
        self._busy.add(device_key(self.start_panel.recipe().training.device))
        self.tabs.setCurrentIndex(RUNS)
        self.show_run(folder)
        if self._deleted:  # the layers of a run before were cleared away: this one is watched again, not that one
            self.run_panel.slider.setOn(True)
        self.watch.look()

    def _on_not_started(self, error: BaseException) -> None:
        self._end_start()
        self.start_panel.messages.add(*_words(error))

    def _on_failed(self, error: BaseException) -> None:
        self.run_panel.say(*_words(error))
        self._show_state()

    def _end_start(self) -> None:
        self.start_panel.start_button.setEnabled(True)
        self.start_panel.start_button.setText("Start")

    # ---- the shown run ----

    def show_run(self, folder: str) -> None:
        """Show the run in `folder`, whoever started it; its whole history comes first."""
        self._begin()
        if not folder or folder == self._shown:
            return
        before, self._shown = self._shown, folder
        try:
            name = Run(folder).name
        except Im2ImError as error:
            self.run_panel.say(error.message, "error", error.cure)
            return
        ticked = self.run_panel.table.tickedFolders()
        if before and before not in ticked:
            self._leave(before)
        self.run_panel.setRun(name)
        self.preview.setRun(folder)
        self._follow_log()
        self.run_panel.table.select(folder)
        self._follow(folder)
        self._save_soon.start()

    def shown(self) -> str:
        """Folder of the run that is shown; empty when none is."""
        return self._shown

    def _follow(self, folder: str) -> None:
        """Read a run from its beginning."""
        try:
            self._leave(folder)
            self._labels[folder] = self._label(folder)
            self.watch.watch(folder)
        except Im2ImError as error:
            self.run_panel.say(error.message, "error", error.cure)

    def _leave(self, folder: str) -> None:
        self.watch.unwatch(folder)
        self._views.pop(folder, None)
        if folder in self._labels:
            self.run_panel.curves.remove(self._labels.pop(folder))
            self.run_panel.table.mark(folder, None)

    def _label(self, folder: str) -> str:
        path = Path(folder)
        taken = path.name in self._labels.values()
        return f"{path.name} ({path.parent.parent.name})" if taken else path.name

    def _on_seen(self, folder: str, seen: Seen) -> None:
        if folder not in self._labels:
            return
        view = self._views.setdefault(folder, RunView())
        fresh = view.take(seen)
        self.run_panel.curves.add(self._labels[folder], fresh)
        if len(self._labels) > 1:
            self.run_panel.table.mark(folder, self.run_panel.curves.colour(self._labels[folder]))
        if folder == self._shown:
            self._show_state()
            self._show_news([s.event for s in fresh], view, seen.more)
        begun = max((s.attempt for s in fresh if isinstance(s.event, Losses)), default=0)
        if seen.active and begun > self._asked_attempts.get(folder, 0):
            self._ask_regions(folder, begun)
        if not seen.active:
            self.watch.look()

    def _show_state(self) -> None:
        view = self._views.get(self._shown)
        if view is not None:
            self.run_panel.show_view(view)

    def _show_news(self, events: list[Any], view: RunView, more: bool) -> None:
        for event in events:
            if isinstance(event, Message) and event.level != "info" and (event.cure or event.code):
                self.run_panel.say(event.text, event.level, event.cure)
            elif isinstance(event, CommandDone) and self._asked_previews.get(event.number) == self._shown:
                shown = event.note.startswith("shown")
                words = f"The region is {event.note}" if shown else event.note.capitalize()
                self.run_panel.say(words, "info" if shown else "warning")
        if self.preview.add(events):
            self._show_previews()
        if view.due and not more:
            self._examine(view)

    def _examine(self, view: RunView) -> None:
        """Look for trouble in a thread; one look at a time, and another one when there is news by then."""
        if self._examining:
            return
        self._examining, view.unexamined, view.examined = True, 0, view.state
        folder, events, progress, state = self._shown, list(view.events), view.progress, view.state
        self.background.run(
            "examine",
            lambda: examine(folder, events, progress, state),
            lambda found: self._on_examined(folder, view, found),
            lambda error: self._on_not_examined(folder, error),
        )

    def _on_examined(self, folder: str, view: RunView, found: Examined) -> None:
        self._examining = False
        view.taught, view.kept = found.taught, found.kept
        self._place_previews(folder, found.voxel_size)
        if view is self._views.get(self._shown):
            self.run_panel.setDiagnoses(found.found, view.state in ACTIVE)
            self._show_state()
        self._examine_if_due()

    def _on_not_examined(self, folder: str, error: BaseException) -> None:
        """Say so of the run that failed; one that is no longer shown is examined when it is shown again."""
        self._examining = False
        if folder == self._shown:
            self.run_panel.say(*_words(error))
            self._place_previews(folder, ())
        self._examine_if_due()

    def _place_previews(self, folder: str, voxel_size: tuple[float | None, ...]) -> None:
        """Show what waited until its size was known."""
        if self.preview.setVoxelSize(folder, voxel_size) and folder == self._shown:
            self._on_preview(self.run_panel.slider.value())

    def _examine_if_due(self) -> None:
        view = self._views.get(self._shown)
        if view is not None and view.due:
            self._examine(view)

    # ---- log ----

    def _follow_log(self) -> None:
        self.watch.read_log(self._shown if self.run_panel.log_button.isChecked() else "")

    def _on_log(self, folder: str, text: str) -> None:
        if folder == self._shown:
            self.run_panel.setLog(text)

    # ---- preview ----

    def _on_preview(self, position: int) -> None:
        problem = self.preview.show(position)
        if problem:
            action = partial(self._leave_out, self._shown, self.preview.name, self.preview.steps[position])
            self.run_panel.say(problem, "warning", "The others can still be seen", "Leave it out", action)

    def _leave_out(self, folder: str, region: str, step: int) -> None:
        """Take a preview off the slider, where that is still shown."""
        if (folder, region) == (self._shown, self.preview.name):
            self.preview.leave_out(step)
            self._show_previews()

    def _on_preview_wanted(self, on: bool) -> None:
        self._deleted = False
        self.preview.setOn(on)
        self._on_preview(self.run_panel.slider.value())
        self._save_soon.start()

    def _on_preview_removed(self) -> None:
        """Who takes the prediction out of the viewer does not want it back at the next validation."""
        if self.run_panel.slider.isOn():
            self.run_panel.slider.setOn(False)
            self._deleted = True

    def _show_previews(self) -> None:
        slider = self.run_panel.slider
        slider.setRegions(self.preview.names, self.preview.name)
        slider.setSteps(self.preview.steps)
        self._on_preview(slider.value())

    def _on_region(self, name: str) -> None:
        self.preview.setRegion(name)
        self._show_previews()

    def _on_watch(self) -> None:
        """Ask the shown run for predictions of what the user points out."""
        from napari_im2im._watched_region import chosen_regions, watch_region

        folder = self._shown
        try:
            wishes = chosen_regions(self._viewer)
        except Im2ImError as error:
            self.run_panel.say(*_words(error))
            return
        self.run_panel.watch_button.setEnabled(False)
        done = partial(self._on_watched, folder)
        self.background.run("watch", lambda: watch_region(folder, wishes), done, self._on_failed)

    def _on_watched(self, folder: str, number: int) -> None:
        self._asked_previews[number] = folder
        self.run_panel.watch_button.setEnabled(True)
        self.run_panel.slider.setOn(True)

    def _on_panel_wanted(self, name: str) -> None:
        try:
            open_panel(self._viewer, name)
        except Im2ImError as error:
            self.start_panel.messages.add_error(error)

    def _on_watch_from_start(self, on: bool) -> None:
        """Take note of the region that is pointed out now; the training that is started next is asked for it."""
        from napari_im2im._watched_region import chosen_regions

        panel, self._wishes = self.start_panel, None
        try:
            self._wishes = chosen_regions(self._viewer) if on else None
        except Im2ImError as error:
            panel.messages.add_error(error)
        panel.watch_button.setChecked(self._wishes is not None)
        panel.watch_button.setToolTip(_wish_words(self._wishes[0]) if self._wishes else WATCH_TIP)
        if self._wishes:
            panel.messages.add(_wish_words(self._wishes[0]), "info")

    def _ask_regions(self, folder: str, attempt: int) -> None:
        """Ask an attempt that has just begun to learn for all regions that are to be watched; no run remembers them."""
        self._asked_attempts[folder] = attempt
        wishes = self._to_watch.pop(folder, None)

        def done(number: int | None) -> None:
            if number is not None:
                self._on_watched(folder, number)

        self.background.run(f"regions {folder}", lambda: ask_regions(folder, attempt, wishes), done, self._on_failed)

    # ---- commands ----

    def _on_command(self, verb: str) -> None:
        folder = self._shown
        if verb == "continue":
            start = {"kind": "model", "model": self._project.relative(folder)}
            self._prepare(folder, {"training.start": start, "training.minutes": SHORT_MINUTES})
        elif verb == "resume":
            self.run_panel.wait("starting again…")
            self.background.run("resume", lambda: resume(folder), self._on_started, self._on_failed)
        else:
            self.run_panel.wait(WAITING[verb])
            self.background.run("command", lambda: command(folder, verb), _ignore, self._on_failed)

    def _on_cure(self, changes: dict[str, Any]) -> None:
        self._prepare(self._shown, changes)

    def _prepare(self, folder: str, changes: dict[str, Any]) -> None:
        """Fill the first page with the recipe of a run and `changes`."""
        try:
            recipe = Run(folder).recipe.override(changes)
        except Im2ImError as error:
            self.run_panel.say(error.message, "error", error.cure)
            return
        self.start_panel.setValue(recipe)
        self.tabs.setCurrentIndex(NEW)

    def _on_use(self) -> None:
        model = str(Run(self._shown).model)
        self._open_predict(model)
        self.model_ready.emit(model)

    def _open_predict(self, model: str) -> None:
        """Open Predict with a model; the open one is used where there is one."""
        try:
            open_panel(self._viewer, "Predict").set_model(model)
        except Im2ImError as error:
            self.run_panel.say(error.message, "warning", f"{error.cure}; the model is in {model}")

    def _on_asked(self, what: str, folder: str) -> None:
        self.show_run(folder)
        if what in ("resume", "continue"):
            self._on_command(what)
        elif what == "folder":
            QDesktopServices.openUrl(QUrl.fromLocalFile(folder))
        elif what == "export":
            self._export(folder)
        else:
            self._copy(what, folder)

    def _export(self, folder: str) -> None:
        first = str(Path.home() / f"{Path(folder).name}.zip")
        path, _ = QFileDialog.getSaveFileName(self, "Model package", first, "Package (*.zip)")
        if path:
            self.background.run("export", lambda: export(folder, path), self._on_exported, self._on_failed)

    def _on_exported(self, path: str) -> None:
        self.run_panel.say(f"The model is in {path}", "info")

    def _copy(self, what: str, folder: str) -> None:
        try:
            run = Run(folder)
            text = copies(run.recipe, run, Project(run.folder.parent.parent))[what]
        except Im2ImError as error:
            self.run_panel.say(error.message, "error", error.cure)
            return
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(text)

    # ---- the list ----

    def _on_listed(self, rows: list[RunRow]) -> None:
        table = self.run_panel.table
        table.setValue(rows)
        table.select(self._shown)
        for folder, label in self._labels.items():
            table.mark(folder, self.run_panel.curves.colour(label) if len(self._labels) > 1 else None)
        finished = {r.folder for r in rows if r.state == "finished"}
        if finished != self._finished:
            self._finished = finished
            self._look_for_models()
        self._note_busy({r.device for r in rows if r.active})
        for folder in self._ticked_before:
            table.tick(folder)
        self._ticked_before = []
        active = [r.folder for r in table.value() if r.active]
        if active and not self._shown:
            self.show_run(active[0])
        self._show_activity(rows)

    def _note_busy(self, devices: set[str]) -> None:
        """Measure what could not be measured while a training held the device."""
        self._busy = devices
        recipe = self.start_panel.recipe()
        if self._unmeasured and self._planned is not None and device_key(recipe.training.device) not in devices:
            self._on_recipe(recipe)

    def _on_ticked(self, folders: list[str]) -> None:
        wanted = {*folders, *([self._shown] if self._shown else [])}
        for folder in [f for f in self._labels if f not in wanted]:
            self._leave(folder)
        for folder in [f for f in folders if f not in self._labels]:
            self._follow(folder)
        self._save_soon.start()

    def _show_activity(self, rows: list[RunRow]) -> None:
        """One bar per active run in the viewer's activity dock."""
        from napari.utils import progress

        active = {r.folder: r for r in rows if r.active and r.done is not None}
        for folder in [f for f in self._bars if f not in active]:
            self._bars.pop(folder).close()
        for folder, row in active.items():
            if folder not in self._bars:
                self._bars[folder] = progress(total=100, desc=row.name, bar_format="{bar}| ", file=io.StringIO())
            bar = self._bars[folder]
            left = duration(row.remaining)
            bar.set_description(f"{row.name}: {left} left" if left else row.name)
            bar.update(round(100 * (row.done or 0)) - bar.n)

    # ---- theme, memory, end ----

    def _on_theme(self) -> None:
        from napari.utils.theme import get_theme

        theme = get_theme(self._viewer.theme)
        self.run_panel.setColours(theme.background.as_hex(), theme.text.as_hex())

    def _on_tab(self, index: int) -> None:
        if index == NEW:
            self.start_panel.refresh()
            if self.start_panel.summary() == LOOKING:  # a start ended the planning
                self._on_recipe(self.start_panel.recipe())
        self._save_soon.start()

    def _save(self) -> None:
        content = self._content()
        path = self._project.root / MEMORY
        self.background.run("memory", lambda: write_json(path, content), _ignore, _ignore)

    def _content(self) -> dict[str, Any]:
        recipe: dict[str, Any] | None = None
        with suppress(ConfigError):  # half-typed settings are not worth remembering
            recipe = self.start_panel.value().dump()
        return {
            "recipe": recipe,
            "preset": self.start_panel.preset(),
            "tab": self.tabs.currentIndex(),
            "shown": self._shown,
            "ticked": self.run_panel.table.tickedFolders(),
            "live": self.run_panel.slider.isOn() or self._deleted,
        }

    def _import_settings(self) -> None:
        self.background.run("settings", import_settings, lambda _: self._begin(), lambda _: self._begin())

    def _begin(self) -> None:
        """Show the settings as they were; nothing when called again, as by whoever could not wait for it."""
        if not self._begun:
            self._begun = True
            self.start_panel.begin()
            self._restore()
            self.start_panel.setEnabled(True)
            if self.isVisible():
                self._look_around()

    def _look_around(self) -> None:
        """Look for data sets and models, which may have come while this was hidden, and at the runs."""
        self.start_panel.refresh()
        self._look_for_models()
        self.watch.start()

    def _restore(self) -> None:
        """Show what was shown when the widget was last open in this project; what is gone is left out."""
        from im2im_core.recipe import Recipe

        try:
            content = dict(read_json(self._project.root / MEMORY))
            recipe = Recipe.load(content["recipe"]) if content.get("recipe") else None
        except (OSError, ValueError, TypeError, Im2ImError):  # never opened here, or by a newer version
            content, recipe = {}, None
        if recipe is not None:
            self.start_panel.setValue(recipe, str(content.get("preset", "")))
        self._on_recipe(self.start_panel.recipe())
        shown = str(content.get("shown", ""))
        live = bool(content.get("live", True))
        # A training that ended lays nothing into the viewer unasked, which may show something else by now.
        over = bool(shown) and not self.preview.is_shown(shown) and not is_active(shown)
        self.run_panel.slider.setOn(live and not over)
        self._deleted = live and over
        self.preview.setOn(self.run_panel.slider.isOn())
        if (Path(shown) / "run.json").is_file() and shown:
            self.show_run(shown)
            self.tabs.setCurrentIndex(int(content.get("tab") == RUNS))
        self._ticked_before = [f for f in content.get("ticked", []) if (Path(f) / "run.json").is_file()]
        self.watch.start()

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        settle_dock(self)
        window: QWidget = self
        while window.parentWidget() is not None:  # a floating dock is a window too, but not the one that ends napari
            window = window.parentWidget()
        if window is not self and window is not self._window_asked():
            self._asked_window = ref(window)
            self._guard(window)
        if self._begun:
            self._look_around()
        else:  # whatever is looked for in threads would keep the panel from being drawn
            self._settings_soon.start()

    def _guard(self, window: QWidget) -> None:
        """Let closing the window ask as long as a training runs; in this panel's words while there is one."""
        guard, panel = guard_of(window), ref(self)

        def ask_here(names: list[str]) -> str:
            here = panel()
            return ask(names, guard.parent()) if here is None or not isalive(here) else here.ask_on_close(names)

        guard.setAsk(ask_here)
        guard.closing.connect(self._on_closing)

    def _on_closing(self) -> None:
        self._write_memory()
        _close_bars(self._bars)

    def hideEvent(self, event: Any) -> None:
        super().hideEvent(event)
        if self._save_soon.isActive():
            self._save_soon.stop()
            self._write_memory()

    def _write_memory(self) -> None:
        if self._begun:  # else what was shown last would be forgotten
            with suppress(Im2ImError):  # a memory that cannot be written must not hinder closing
                write_json(self._project.root / MEMORY, self._content())

    def _window_asked(self) -> QWidget | None:
        """Window whose closing is asked about; held weakly, or whoever keeps this widget keeps the viewer."""
        return self._asked_window() if self._asked_window else None

    def ask_on_close(self, names: list[str]) -> str:
        """What to do with trainings when the viewer is closed: keep, stop or cancel."""
        return ask(names, self._window_asked())


def _words(error: BaseException) -> tuple[str, str, str]:
    """Text, level and cure of an error."""
    text = getattr(error, "message", "") or str(error) or type(error).__name__
    return text, "error", getattr(error, "cure", "")


def _wish_words(wish: Wish) -> str:
    """What is going to be watched."""
    height, width = (span.stop - span.start for span in wish.region[3:])
    return f"{width} × {height} pixels of “{wish.layer}” are predicted at every validation from the start on"


def _close_bars(bars: dict[str, Any], _: object = None) -> None:
    """Take the bars out of the activity dock."""
    while bars:
        bars.popitem()[1].close()


def _ignore(_: object) -> None:
    """Take an answer and do nothing."""
