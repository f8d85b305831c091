"""The Models panel: all models of this user, what each is, how they differ; in, out, deleted and brought back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QLineEdit,
    QMenu,
    QPushButton,
    QSplitter,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from im2im_core.errors import Im2ImError
from im2im_core.library import Deleted, delete_model, export_model, import_model, restore_model
from im2im_core.model_cards import compare, provenance
from im2im_core.models import list_models, write_notes
from napari_im2im._icons import BESIDE, icon
from napari_im2im._later import Later
from napari_im2im._messages import MessageBar
from napari_im2im._model_views import ComparisonView, ModelView
from napari_im2im._models_table import ModelsTable
from napari_im2im._panels import open_panel, settle_dock

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari import Viewer

    from im2im_core.models import LocalModel

FIRST_LOOK_MILLISECONDS = 50
"""The panel is drawn before the models are read."""
EMPTY = "No model yet. Train one, or import a package (.zip) with the button above."
NOTHING = "Select a model to read about it, two or more to compare them."


class ModelsWidget(QWidget):
    """Dock widget with the library of models.

    Whatever reads or writes files does so in a thread.
    """

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = napari_viewer
        self._wanted: list[Path] = []
        self._seen = False
        self.later = Later(self)
        self._make_parts()
        self._lay_out()
        self._connect()
        self._on_chosen()
        self._first_look = QTimer(self)
        self._first_look.setSingleShot(True)
        self._first_look.timeout.connect(self.reload)
        self._first_look.start(FIRST_LOOK_MILLISECONDS)

    # ---- public API ----

    def reload(self) -> None:
        """Look for models again; those that are selected stay so."""
        self._first_look.stop()
        self.later.ask("list", list_models, self._on_listed, self._on_failed)

    def import_package(self, path: str | Path) -> None:
        """Copy a package into the project that is open, after it was checked."""
        self._say(f"Importing {Path(path).name}…")
        self.later.ask("import", lambda: _import(Path(path)), self._on_imported, self._on_failed)

    # ---- parts ----

    def _make_parts(self) -> None:
        self.search = QLineEdit()
        self.search.setPlaceholderText("Find a model")
        self.search.setClearButtonEnabled(True)
        self.search.setToolTip("Show only models in whose row these words stand")
        self.search.setAccessibleName("Find a model")
        self.import_button = QPushButton("Import…")
        self.import_button.setIcon(icon("add"))
        self.import_button.setToolTip("Copy a model package (.zip) into the project; it is checked first")
        self.table = ModelsTable()
        self.predict = QPushButton("Predict with it")
        self.predict.setMinimumHeight(30)
        self.export = QPushButton("Export…")
        self.delete = QPushButton("Delete")
        self.more = QToolButton()
        self.more.setText("More")
        self.more.setStyleSheet(BESIDE)
        self.more.setToolTip("Rename, copy where it comes from, show its folder")
        self.more.setAccessibleName("More to do with the model")
        self.more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.more.setMenu(self._menu())
        self.view, self.comparison = ModelView(), ComparisonView()
        self.nothing = QLabel("Looking for models…")
        self.nothing.setWordWrap(True)
        self.nothing.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.below = QStackedWidget()
        for page in (self.nothing, self.view, self.comparison):
            self.below.addWidget(page)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.status.hide()
        self.messages = MessageBar()

    def _menu(self) -> QMenu:
        menu = QMenu(self)
        self._single = [
            menu.addAction("Rename…", self._on_rename),
            menu.addAction("Copy where it comes from", self._on_provenance),
            menu.addAction("Show its folder", self._on_folder),
        ]
        menu.addSeparator()
        menu.addAction("Look for new models", self.reload)
        return menu

    def _lay_out(self) -> None:
        above = _row(self.search, self.import_button)
        actions = _row(self.predict, self.export, self.delete, self.more)
        upper, lower = QWidget(), QWidget()
        top, bottom = QVBoxLayout(upper), QVBoxLayout(lower)
        for layout in (top, bottom):
            layout.setContentsMargins(0, 0, 0, 0)
        top.addLayout(above)
        top.addWidget(self.table, 1)
        bottom.addLayout(actions)
        bottom.addWidget(self.status)
        bottom.addWidget(self.messages)
        bottom.addWidget(self.below, 1)
        parts = QSplitter(Qt.Orientation.Vertical)
        parts.setChildrenCollapsible(False)
        parts.addWidget(upper)
        parts.addWidget(lower)
        parts.setSizes([260, 320])
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 6, 6, 6)
        column.addWidget(parts)
        self.setMinimumWidth(380)

    def _connect(self) -> None:
        self.search.textChanged.connect(self.table.show_only)
        self.import_button.clicked.connect(self._on_import)
        self.table.chosen.connect(self._on_chosen)
        self.table.itemDoubleClicked.connect(lambda item: self._on_predict())
        self.predict.clicked.connect(self._on_predict)
        self.export.clicked.connect(self._on_export)
        self.delete.clicked.connect(self._on_delete)
        self.view.noted.connect(self._on_noted)

    # ---- what is shown ----

    def _on_listed(self, models: tuple[LocalModel, ...]) -> None:
        self.table.setValue(models)
        wanted, self._wanted = self._wanted, []
        if wanted:
            self.table.select(wanted)
        elif models and not self.table.value() and not self._seen:
            self.table.select([models[0].path])
        self._seen = True
        self._on_chosen()

    def _on_chosen(self) -> None:
        """Show the card of one model, or several side by side, and let the buttons say what they can do."""
        chosen = self.table.value()
        one = chosen[0] if len(chosen) == 1 else None
        self._set(self.predict, one is not None, "Open Predict with this model", "Select one model")
        self._set(self.export, one is not None, "Write the model as one zip", "Select one model")
        shipped = [m.name for m in chosen if m.origin == "shipped"]
        why = f"{shipped[0]} comes with the program and stays" if shipped else "Select a model"
        self._set(self.delete, bool(chosen) and not shipped, "Move it to the trash; it can be brought back", why)
        for action in self._single:
            assert action is not None
            action.setEnabled(one is not None)
        if one is not None:
            self.view.setValue(one)
            self.below.setCurrentWidget(self.view)
        elif len(chosen) > 1:
            self.later.ask("compare", lambda: compare(chosen), self._on_compared, self._on_failed)
        else:
            self.nothing.setText(NOTHING if self.table.models() else EMPTY if self._seen else "Looking for models…")
            self.below.setCurrentWidget(self.nothing)

    @staticmethod
    def _set(button: QPushButton, enabled: bool, tip: str, why_not: str) -> None:
        button.setEnabled(enabled)
        button.setToolTip(tip if enabled else why_not)

    def _on_compared(self, found: Any) -> None:
        if len(self.table.value()) > 1:
            self.comparison.setValue(found)
            self.below.setCurrentWidget(self.comparison)

    # ---- what is done ----

    def _one(self) -> LocalModel | None:
        chosen = self.table.value()
        return chosen[0] if len(chosen) == 1 else None

    def _on_predict(self) -> None:
        model = self._one()
        if model is None:
            return
        try:
            open_panel(self._viewer, "Predict").set_model(model.path)
        except Im2ImError as error:
            self._on_failed(error)

    def _on_import(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Import a model package", "", "Model packages (*.zip)")
        if path:
            self.import_package(path)

    def _on_imported(self, model: LocalModel) -> None:
        self._wanted = [model.path]
        self._say(f"“{model.name}” is in {model.path}")
        self.reload()

    def _on_export(self) -> None:
        model = self._one()
        if model is None:
            return
        name = f"{model.name.replace('/', '-')}.zip"
        path, _ = QFileDialog.getSaveFileName(self, "Write the model as", name, "Model packages (*.zip)")
        if path:
            self._say(f"Writing {Path(path).name}…")
            done = lambda written: self._say(f"Written: {written}")  # noqa: E731
            self.later.ask("export", lambda: export_model(model, path, overwrite=True), done, self._on_failed)

    def _on_delete(self) -> None:
        models = self.table.value()
        self.later.ask("delete", lambda: _delete(models), self._on_deleted, self._on_failed)

    def _on_deleted(self, found: tuple[list[Deleted], Im2ImError | None]) -> None:
        deleted, error = found
        if error is not None:
            self._on_failed(error)
        for each in deleted:
            said = f"“{each.name}” is in the trash" if each.trash else f"“{each.name}” is off the list; its files stay"
            self.messages.add(said, button_text="Undo", action=lambda d=each: self._on_undo(d))
        self.reload()

    def _on_undo(self, deleted: Deleted) -> None:
        self.later.ask(f"undo {deleted.trash}", lambda: restore_model(deleted), self._on_restored, self._on_failed)

    def _on_restored(self, model: LocalModel) -> None:
        self._wanted = [model.path]
        self.reload()

    def _on_rename(self) -> None:
        model = self._one()
        if model is None:
            return
        name, agreed = QInputDialog.getText(self, "Rename", "Name in your lists", text=model.name)
        if agreed:
            self._keep(model, name=name.strip())

    def _on_noted(self, model: LocalModel, text: str) -> None:
        self._keep(model, notes=text)

    def _keep(self, model: LocalModel, **told: str) -> None:
        work: Callable[[], None] = lambda: write_notes(model.path, **told)  # noqa: E731
        self.later.ask(f"note {model.path}", work, lambda _: self.reload(), self._on_failed)

    def _on_provenance(self) -> None:
        model = self._one()
        if model is not None:
            self.later.ask("provenance", lambda: _as_yaml(provenance(model)), self._on_copied, self._on_failed)

    def _on_copied(self, text: str) -> None:
        from qtpy.QtWidgets import QApplication

        clipboard = QApplication.clipboard()
        assert clipboard is not None
        clipboard.setText(text)
        self._say("Copied: recipe, data, versions and hashes of the model")

    def _on_folder(self) -> None:
        model = self._one()
        if model is not None:
            folder = model.path if model.path.suffix != ".zip" else model.path.parent
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder)))

    def _on_failed(self, error: BaseException) -> None:
        self._say("")
        self.messages.add_error(error)

    def _say(self, text: str) -> None:
        self.status.setText(text)
        self.status.setVisible(bool(text))

    # ---- opened ----

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        settle_dock(self)
        if self._seen:  # trainings may have ended meanwhile
            self.reload()


def _import(path: Path) -> LocalModel:
    from im2im_core.project import Project

    return import_model(path, Project.open())


def _delete(models: tuple[LocalModel, ...]) -> tuple[list[Deleted], Im2ImError | None]:
    """Models that were deleted, and why the next one was not."""
    deleted = []
    for model in models:
        try:
            deleted.append(delete_model(model))
        except Im2ImError as error:
            return deleted, error
    return deleted, None


def _as_yaml(content: dict[str, Any]) -> str:
    import yaml

    from im2im_core.commands import plain

    return str(yaml.safe_dump(plain(content), sort_keys=False, allow_unicode=True))


def _row(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    row.setContentsMargins(0, 0, 0, 0)
    for number, widget in enumerate(widgets):
        row.addWidget(widget, 1 if number == 0 else 0)
    return row
