"""What to train on, what for and for how long: the few things to decide before a start; all others are folded."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from im2im_core.datasets import TABLE
from im2im_core.errors import ConfigError, Im2ImError
from im2im_core.finetuning import SHORT_MINUTES, settings_of
from im2im_core.presets import list_presets, load_preset
from napari_im2im._later import Later
from napari_im2im._messages import MessageBar
from napari_im2im._preset_cards import USUAL, PresetCards
from napari_im2im._train_cures import cure_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from im2im_core.datasets import DatasetEntry
    from im2im_core.presets import PresetInfo
    from im2im_core.project import Project
    from im2im_core.recipe import Recipe
    from napari_im2im._form import ConfigForm
    from napari_im2im._train_cures import Cure

FOLDER, FILE = "folder…", "file…"
NOTHING = "nothing (new network)"
FILLING = "Looking at what to learn from…"
UNITS = {"minutes": (5.0, 0.1, 100_000.0, 1), "epochs": (60.0, 0.1, 1_000_000.0, 1), "steps": (1000.0, 1.0, 1e9, 0)}
"""Budget -> first value, smallest, largest, decimals."""
WATCH_TIP = (
    "Predict a region of your image at every validation from the start on: the selected rectangle of a Shapes layer, "
    "else what is visible of the chosen image"
)
FROM_TIP = (
    "A new network knows nothing yet. A trained one is taught on (fine-tuning): this makes a new run and a new model, "
    "the one it starts from stays as it is. To go on with a training that was paused or stopped, use Resume under Runs"
)
FIRST_PRESET = "instance_seg_2d"
SETTINGS = "im2im_core.recipe.root"
"""Module of the settings: many classes, the making of which takes as long as all else of a panel that opens."""


class StartPanel(QWidget):
    """Editor of a recipe: essentials, the folded rest, and the Start button with a summary beneath.

    Parameters
    ----------
    project : Project
        Where data sets are looked for and relative paths begin.
    """

    valueChanged = Signal(object)
    """New recipe, once per change."""
    startRequested = Signal()
    """Never while something is still being filled in: a Start that was pressed meanwhile follows then."""
    panelWanted = Signal(str)
    """Another panel in which something can be mended."""
    watchWanted = Signal(bool)
    """Whether a region of the user's shall be predicted as soon as the training runs."""

    def __init__(self, project: Project, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._project = project
        self._later = Later(self)
        self._filling = False
        self._before_filling = ""
        self._afterwards: dict[str, Any] = {}
        self._starts = False
        self._held: Recipe | None = None
        self._preset = FIRST_PRESET
        self._quiet = 0
        self._form: ConfigForm | None = None
        self._default = ""
        self._entries: dict[str, DatasetEntry] = {}
        self._models: list[tuple[str, str]] = []
        self._data = _combo("Data set to learn from")
        self._cards = PresetCards(list_presets())
        self._from = _combo(FROM_TIP)
        self._amount = QDoubleSpinBox()
        self._amount.setToolTip("How long the network learns: more helps until validation stops improving")
        self._amount.setAccessibleName("Budget")
        self._unit = _combo("What the budget is counted in")
        self._unit.addItems(list(UNITS))
        self._device = _combo("Where the network is trained")
        for name, title in devices():
            self._device.addItem(title, name)
        self._name = QLineEdit()
        self._name.setToolTip("Name of the run and of the model")
        self.messages = MessageBar()
        self.start_button = QPushButton("Start")
        self.start_button.setToolTip("Train in a process of its own; napari may be closed meanwhile")
        font = self.start_button.font()
        font.setBold(True)
        self.start_button.setFont(font)
        self._summary = QLabel()
        self._summary.setWordWrap(True)
        self._build()
        self._cards.setValue(self._preset)
        self.refresh()
        self._connect()
        if SETTINGS in sys.modules:
            self.begin()

    # ---- building ----

    def _build(self) -> None:
        for widget, name in (
            (self._data, "Data set"),
            (self._from, "Start from"),
            (self._unit, "Unit of the budget"),
            (self._device, "Device"),
            (self._name, "Name"),
        ):
            widget.setAccessibleName(name)
        rows = QFormLayout()
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        rows.addRow("Data set", self._data)
        rows.addRow("Start from", self._from)
        budget = QHBoxLayout()
        budget.addWidget(self._amount, 1)
        budget.addWidget(self._unit, 1)
        rows.addRow("Train for", budget)
        rows.addRow("Device", self._device)
        rows.addRow("Name", self._name)
        self._more = QToolButton()
        self._more.setText("All settings")
        self._more.setToolTip("Unfold every setting of the recipe, each with its help and a search box")
        self._more.setAccessibleName("All settings")
        self._more.setCheckable(True)
        self._more.setAutoRaise(True)
        self._more.setArrowType(Qt.ArrowType.RightArrow)
        self._more.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._tools = QHBoxLayout()
        self.watch_button = QToolButton()
        self.watch_button.setText("Watch this region")
        self.watch_button.setAccessibleName("Watch this region")
        self.watch_button.setToolTip(WATCH_TIP)
        self.watch_button.setCheckable(True)
        self._tools.addWidget(self._more)
        self._tools.addWidget(self.watch_button)
        self._tools.addStretch(1)
        self._rest = QVBoxLayout()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.addWidget(self._cards)
        layout.addLayout(rows)
        layout.addWidget(self.start_button)
        layout.addWidget(self._summary)
        layout.addWidget(self.messages)
        layout.addLayout(self._tools)
        layout.addLayout(self._rest)
        layout.addStretch(1)

    def _connect(self) -> None:
        self._cards.valueChanged.connect(self._on_preset)
        self._data.opened.connect(self._on_data_opened)
        self._data.activated.connect(self._on_data)
        self._from.activated.connect(self._on_from)
        self._amount.valueChanged.connect(self._on_budget)
        self._unit.activated.connect(self._on_unit)
        self._device.activated.connect(lambda: self._change({"training.device": self._device.currentData()}))
        self._name.editingFinished.connect(lambda: self._change({"name": self._name.text().strip() or "run"}))
        self._more.toggled.connect(self._on_unfold)
        self.watch_button.clicked.connect(self.watchWanted)
        self.start_button.clicked.connect(self._on_start)

    # ---- public API ----

    def begin(self) -> None:
        """Show the first preset; nothing where a recipe is shown already. Whoever asks for the recipe begins too."""
        if self._held is None:
            self._held = load_preset(FIRST_PRESET)
            self._list_choices()
            self._show()
            self._learn_from_newest()

    def begun(self) -> bool:
        """Whether a recipe is shown."""
        return self._held is not None

    @property
    def _recipe(self) -> Recipe:
        self.begin()
        assert self._held is not None
        return self._held

    def value(self) -> Recipe:
        """Recipe that Start would train.

        Raises
        ------
        ConfigError
            Something in the unfolded settings does not hold.
        """
        if self._form is not None:
            self._form.value()
        return self._recipe

    def setValue(self, recipe: Recipe, preset: str = "") -> None:
        """Show `recipe`; `preset` is the card to mark."""
        self._stop_filling()
        self._preset = preset
        self._take(recipe)

    def prepare(
        self,
        path: str | os.PathLike[str],
        *,
        task: str | None = None,
        dimensions: int | None = None,
        start_from: str | os.PathLike[str] | None = None,
        minutes: float | None = None,
    ) -> None:
        """Fill everything in for learning from the data set at `path`, as soon as that and the model were read.

        Parameters
        ----------
        task, dimensions : optional
            Choose the preset; what the model to start from needs goes first, what is not given is the data set's.
        start_from : path, optional
            Model that is taught on, for five minutes where `minutes` is not given.
        """
        given = self._project.resolve(path)
        where = self._project.relative(given.parent if given.name == TABLE else given)
        source = None if start_from is None else str(start_from)

        def fill(found: tuple[dict[str, DatasetEntry], dict[str, Any]]) -> None:
            self._on_entries(found[0])
            entry, wanted = self._entries.get(where), found[1]
            hint = wanted.get("task") or task or (entry.task_hint if entry else None)
            base = self._adapted(
                hint, wanted.get("data.dimensions") or dimensions or (entry.dimensions if entry else None)
            )
            budget = {} if minutes is None else {"training.minutes": minutes}
            self._change({**self._named_after(where, base.name), "data.path": where, **wanted, **budget}, base)

        self._fill_in(lambda: (_entries(self._project), _taught_on(source, self._project) if source else {}), fill)

    def filling(self) -> bool:
        """Whether something is being looked up that `value` will hold."""
        return self._filling

    def recipe(self) -> Recipe:
        """The last recipe that held, whatever is half typed now."""
        return self._recipe

    def preset(self) -> str:
        """Name of the card that is marked; empty for a recipe from elsewhere."""
        return self._preset

    def refresh(self, models: Sequence[tuple[str, str]] | None = None) -> None:
        """Look for data sets again, in a thread; `models` are titles and paths of networks to start from."""
        if models is not None:
            self._models = list(models)
            if self._held is not None:
                self._list_choices()
        self._later.ask("datasets", lambda: _entries(self._project), self._on_entries)

    def _on_entries(self, entries: dict[str, DatasetEntry]) -> None:
        if entries == self._entries:
            return
        self._entries = entries
        if self._held is not None:
            self._list_choices()
            self._learn_from_newest()

    def _learn_from_newest(self) -> None:
        if self._recipe.data.path is None and self._entries:
            self._learn_from(next(iter(self._entries)))

    def _list_choices(self) -> None:
        """Let the lists hold what there is, the choice as it was."""
        counts = {path: "1 image" if e.count == 1 else f"{e.count} images" for path, e in self._entries.items()}
        saved = [(f"{entry.name} ({counts[path]})", path) for path, entry in self._entries.items()]
        _fill(self._data, [*saved, (FOLDER, None)])
        _fill(self._from, [(NOTHING, None), *self._models, (FILE, FILE)])
        _choose(self._data, self._recipe.data.path, FOLDER)
        _choose(self._from, self._source(), NOTHING)

    def models(self) -> list[tuple[str, str]]:
        """Titles and paths of the networks to start from."""
        return list(self._models)

    def entry(self) -> DatasetEntry | None:
        """The saved data set that is chosen; None for a folder."""
        return self._entries.get(self._recipe.data.path or "")

    def setSummary(self, text: str, details: str = "") -> None:
        """Words beneath Start, `details` when pointed at."""
        self._summary.setText(text)
        self._summary.setToolTip(details)

    def summary(self) -> str:
        """Words beneath Start."""
        return str(self._summary.text())

    def setPlan(self, plan: Mapping[str, Any], note: str = "") -> None:
        """Show what the plan says: its sentence and `note`, its reasons, its messages."""
        from napari_im2im._plan_summary import summary

        reasons = "\n".join(f"{name}: {reason}" for name, reason in plan.get("reasons", {}).items())
        words = "; ".join(part for part in (summary(plan, self.entry()), note) if part)
        self.setSummary(words, reasons)
        self.messages.clear()
        validates = bool(plan["facts"]["validation"])
        for advice in plan.get("messages", ()):
            if advice["code"] != "not_validated":  # said below, in words that fit its button
                self._warn(advice, cure_of(advice["code"], plan))
        self._tell_dimensions(plan["facts"].get("shape"))
        if not validates:
            changes = {"data.split.by": "block", "data.split.validation": self._recipe.data.split.validation or 0.15}
            self.messages.add(
                "No image is kept for validation",
                "warning",
                "Keep a part of each image, so that you see how good the network is",
                "Keep a part",
                lambda: self.apply(changes),
            )

    def _warn(self, advice: Mapping[str, str], cure: Cure | None) -> None:
        """Say what the plan complains of, with a button where something can be done."""
        if cure is None:
            self.messages.add(advice["text"], "warning", advice["cure"])
        else:
            self.messages.add(advice["text"], "warning", cure.words, cure.button, lambda: self._mend(cure))

    def _mend(self, cure: Cure) -> None:
        if cure.changes:
            self.apply(cure.changes)
        if cure.setting:
            self._more.setChecked(True)
            if self._form is not None:
                self._form.search(cure.setting)
        if cure.panel:
            self.panelWanted.emit(cure.panel)

    def _tell_dimensions(self, shape: Sequence[int] | None) -> None:
        """Say so when images of `shape` (Z, Y, X) and network do not have the same dimensions."""
        now = self._recipe.data.dimensions
        found = now if shape is None else 3 if shape[0] > 1 else 2
        if found == now or not preset_name(self._recipe.task, found):
            return
        volumes = f"The images are volumes of {shape[0]} planes; this network sees each plane alone" if shape else ""
        planes = "The images are single planes; this network sees volumes"
        self.messages.add(
            volumes if found == 3 else planes,
            "warning",
            f"Use the {found}D preset, unless you want this",
            f"Use the {found}D preset",
            lambda: self._take(self._adapted(None, found)),
        )

    def addTool(self, widget: QWidget) -> None:
        """Put a small widget beside "All settings"."""
        self._tools.addWidget(widget)

    def apply(self, changes: Mapping[str, Any]) -> None:
        """Change settings by their dotted names, as a cure does; what is being filled in comes first."""
        if self._filling:
            self._afterwards.update(changes)
        else:
            self._change(dict(changes))

    # ---- changes ----

    @contextmanager
    def _silence(self) -> Iterator[None]:
        self._quiet += 1
        try:
            yield
        finally:
            self._quiet -= 1

    def _change(self, changes: dict[str, Any], base: Recipe | None = None) -> None:
        if self._quiet:
            return
        try:
            self._take((base or self._recipe).override(changes))
        except ConfigError as error:
            self.messages.add(error.message, "error", error.cure)

    def _take(self, recipe: Recipe, from_form: bool = False) -> None:
        changed = recipe != self._recipe
        self._held = recipe
        with self._silence():
            self._show()
            if self._form is not None and not from_form:
                self._form.setValue(recipe)
                self._show_default()
        if changed:
            self.valueChanged.emit(recipe)

    def _show(self) -> None:
        """Let all essentials show the recipe."""
        training = self._recipe.training
        with self._silence():
            self._cards.setValue(self._preset)
            _choose(self._data, self._recipe.data.path, FOLDER)
            _choose(self._from, self._source(), NOTHING)
            _choose(self._device, training.device, training.device)
            self._name.setText(self._recipe.name)
            unit = next((u for u in UNITS if getattr(training, u) is not None), "epochs")
            self._set_unit(unit)
            self._amount.setValue(float(getattr(training, unit) or UNITS[unit][0]))

    def _set_unit(self, unit: str) -> None:
        _, low, high, decimals = UNITS[unit]
        self._unit.setCurrentText(unit)
        self._amount.setDecimals(decimals)
        self._amount.setRange(low, high)

    def _fill_in(self, look: Callable[[], Any], done: Callable[[Any], object]) -> None:
        """Look something up in a thread and let `done` fill it in; Start waits for that, the newest wish counts."""

        def take(found: Any) -> None:
            starts, afterwards = self._starts, self._afterwards
            self._stop_filling()
            done(found)
            self._change(afterwards)
            if starts:
                self._on_start()

        def refuse(error: BaseException) -> None:
            self._stop_filling()
            self.messages.add_error(error)

        self._stop_filling()
        self._filling, self._before_filling = True, self.summary()
        self.setSummary(FILLING)
        self._later.ask("fill", look, take, refuse)

    def _stop_filling(self) -> None:
        """Wait for nothing any more; what is looked up now is dropped."""
        self._later.forget("fill")
        self._filling = self._starts = False
        self._afterwards = {}
        if self.summary() == FILLING:
            self.setSummary(self._before_filling)

    # ---- handlers ----

    def _on_start(self) -> None:
        self._starts = self._filling
        if not self._filling:
            self.startRequested.emit()

    def _on_preset(self, name: str) -> None:
        if not self._quiet:
            self._take(self._preset_recipe(name))

    def _preset_recipe(self, name: str) -> Recipe:
        """Recipe of a preset, from now on the chosen one, with what was decided already: images, device, time, name."""
        now = self._recipe
        kept: dict[str, Any] = {"data.path": now.data.path, "training.device": now.training.device}
        if now.training.minutes is not None:
            kept["training.minutes"] = now.training.minutes
        if now.name != self._preset:
            kept["name"] = now.name
        self._preset = name
        return load_preset(name).override(kept)

    def _adapted(self, task: str | None, dimensions: int | None) -> Recipe:
        """The recipe where it has the task and the dimensions already, else that of the preset which has them."""
        now = self._recipe
        wanted = (task if task in USUAL else now.task, dimensions or now.data.dimensions)
        name = preset_name(*wanted)
        return now if wanted == (now.task, now.data.dimensions) or not name else self._preset_recipe(name)

    def _on_data_opened(self) -> None:
        """A list that is opened shows what was saved a moment ago."""
        self.refresh()

    def _on_data(self, index: int) -> None:
        path = self._data.itemData(index)
        if path is None:
            path = QFileDialog.getExistingDirectory(self, "Folder with images and targets", str(self._project.root))
            path = self._project.relative(path) if path else self._recipe.data.path
        self._learn_from(path)
        self._show()

    def _learn_from(self, path: str | None) -> None:
        """Choose images; the preset follows the task and the dimensions of a saved data set."""
        entry = self._entries.get(path or "")
        base = self._adapted(entry.task_hint, entry.dimensions) if entry else self._recipe
        self._change({**self._named_after(path, base.name), "data.path": path}, base)

    def _named_after(self, path: str | None, name: str) -> dict[str, str]:
        """Name of the data set for the run, unless a person chose another."""
        before = self._title(self._recipe.data.path)
        wanted = self._title(path)
        return {"name": wanted} if wanted and name in (self._preset, before) else {}

    def _title(self, path: str | None) -> str:
        entry = self._entries.get(path or "")
        return entry.name if entry else Path(path or "").name.removesuffix(".csv")

    def _on_from(self, index: int) -> None:
        source = self._from.itemData(index)
        if source == FILE:
            filters = "Models and weights (*.zip *.safetensors *.pt *.pth);;All files (*)"
            source, _ = QFileDialog.getOpenFileName(self, "Model to start from", str(self._project.root), filters)
            source = source or self._source()
        if source and source != self._source():
            _choose(self._from, source, NOTHING)
            self._fill_in(lambda: _taught_on(source, self._project), self._on_taught)
            return
        self._stop_filling()
        if source is None:
            self._change({"training.start": {"kind": "new"}})
        self._show()

    def _source(self) -> str | None:
        """Full path of the model that is taught on; None for a new network."""
        model = self._recipe.training.taught_on
        return None if model is None else str(self._project.resolve(model))

    def _on_taught(self, changes: dict[str, Any]) -> None:
        self._change(changes, self._adapted(changes.get("task"), changes.get("data.dimensions")))
        self._show()

    def _on_unit(self) -> None:
        unit = self._unit.currentText()
        self._change({f"training.{unit}": _number(unit, UNITS[unit][0])})

    def _on_budget(self, amount: float) -> None:
        unit = self._unit.currentText()
        self._change({f"training.{unit}": _number(unit, amount)})

    def _on_unfold(self, on: bool) -> None:
        self._more.setArrowType(Qt.ArrowType.DownArrow if on else Qt.ArrowType.RightArrow)
        if self._form is None:
            self._make_form()
        if self._form is not None:
            self._form.setVisible(on)

    def _make_form(self) -> None:
        """The folded form is made when first unfolded: most people never need it."""
        from napari_im2im._form import ConfigForm

        self._form = ConfigForm(self._recipe)
        self._show_default()
        self._form.valueChanged.connect(lambda recipe: None if self._quiet else self._take(recipe, from_form=True))
        self._rest.addWidget(self._form)

    def _show_default(self) -> None:
        """Resetting a setting means the preset's value, however the recipe came about."""
        name = self._preset or preset_of(self._recipe)
        if self._form is not None and name != self._default:
            self._default = name
            self._form.setDefault(load_preset(name))


class _Choice(QComboBox):
    """Combo box that tells when its list is about to be seen."""

    opened = Signal()

    def showPopup(self) -> None:
        self.opened.emit()
        super().showPopup()


# ---- choices -------------------------------------------------------------------


def devices() -> list[tuple[str, str]]:
    """Devices of this computer with a title for each, found without torch."""
    found = [("auto", "automatic"), ("cpu", "processor (CPU)")]
    for index, place in enumerate(sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))):
        words = place.read_text(errors="replace").splitlines()
        model = next((w.partition(":")[2].strip() for w in words if w.startswith("Model")), "NVIDIA")
        found.append((f"cuda:{index}", f"GPU {index} ({model})"))
    if sys.platform == "win32":
        found.append(("cuda", "GPU (NVIDIA)"))
    if sys.platform == "darwin":
        found.append(("mps", "GPU (Apple)"))
    return found


def preset_name(task: str, dimensions: int) -> str:
    """Name of the preset of a task in 2D or 3D; empty where there is none."""
    name = f"{USUAL.get(task, task)}_{dimensions}d"
    return name if any(name == info.name for info in _presets()) else ""


@cache
def _presets() -> tuple[PresetInfo, ...]:
    return list_presets()


def preset_of(recipe: Recipe) -> str:
    """The preset that is nearest to a recipe: that of its framework, else the usual one of its task."""
    usual = preset_name(recipe.task, recipe.data.dimensions)
    alike = [p.name for p in _presets() if p.task == recipe.task and p.name.endswith(f"{recipe.data.dimensions}d")]
    own = [p.name for p in _presets() if p.name in alike and p.framework == recipe.framework.kind]
    return usual if usual in own or not own else own[0]


def _entries(project: Project) -> dict[str, DatasetEntry]:
    """Saved data sets by their path in the project, newest first; reads a file of each."""
    from im2im_core.datasets import list_datasets

    return {project.relative(entry.path): entry for entry in list_datasets(project)}


def _taught_on(source: str, project: Project) -> dict[str, Any]:
    """Changes with which the network in `source` is taught on for a short time."""
    start = {"kind": "model", "model": project.relative(source)}
    return {"training.start": start, "training.minutes": SHORT_MINUTES, **_settings_of(source)}


def _settings_of(source: str) -> dict[str, Any]:
    """Settings that follow from a model; of one that cannot be read none: the plan says what is wrong with it."""
    try:
        follows = settings_of(source)
    except (Im2ImError, OSError):
        return {}
    return {name: value for name, value in follows.items() if name != "task" or value in USUAL}


def _combo(tip: str) -> _Choice:
    box = _Choice()
    box.setToolTip(tip)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(12)
    return box


def _fill(box: QComboBox, items: Sequence[tuple[str, str | None]]) -> None:
    """Let the list hold `items`, in place: clearing it would close it under the eyes of who has it open."""
    for index, (title, value) in enumerate(items):
        if index == box.count():
            box.addItem(title, value)
        elif (box.itemText(index), box.itemData(index)) != (title, value):
            box.setItemText(index, title)
            box.setItemData(index, value)
            box.setItemData(index, None, Qt.ItemDataRole.ToolTipRole)
    while box.count() > len(items):
        box.removeItem(box.count() - 1)


def _choose(box: QComboBox, value: str | None, empty: str) -> None:
    """Select the entry that holds `value`, made where there is none; `empty` for None."""
    index = box.findData(value) if value is not None else box.findText(empty)
    if index < 0 and value is not None:
        path = Path(value)
        box.insertItem(0, (path.parent.name if path.name == "model" else path.name) or value, value)
        box.setItemData(0, value, Qt.ItemDataRole.ToolTipRole)
        index = 0
    box.setCurrentIndex(index)


def _number(unit: str, amount: float) -> float | int:
    return int(amount) if unit == "steps" else round(amount, 3)
