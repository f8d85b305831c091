"""The choice of a model: a list with names, and a card with picture, purpose, figures and limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtGui import QAction, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QMenu,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from im2im_core.errors import DataError, Im2ImError
from im2im_core.metrics import is_figure, title_of
from im2im_core.models import LocalModel, add_model, forget_model, list_models
from napari_im2im._icons import icon
from napari_im2im._later import Later

if TYPE_CHECKING:
    import os

COVER = 72
"""Width and height of the picture of a model, pixels."""
FIRST_LOOK_MILLISECONDS = 50
"""The panel is drawn before the models are read, whose thread shares the interpreter with the drawing."""
FIGURES = 3
"""Figures shown on the card; all stand in its tooltip."""


class ModelList(QWidget):
    """Editor whose value is a model of this user, or None.

    The list is read in a thread, so that it costs the viewer nothing.
    """

    valueChanged = Signal(object)
    """The `LocalModel` that is chosen now, or None."""
    failed = Signal(object)
    """The `Im2ImError` for which a package could not be added or chosen."""
    loaded = Signal()
    """The list is complete."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._models: tuple[LocalModel, ...] = ()
        self._wanted: Path | None = None
        self._preferred: Path | None = None
        self._later = Later(self)
        self._combo = QComboBox()
        self._combo.setToolTip("The model that predicts")
        self._combo.setAccessibleName("Model")
        self._combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._combo.setMinimumContentsLength(12)
        self._combo.currentIndexChanged.connect(self._on_chosen)
        self._card = ModelCard()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        row = QHBoxLayout()
        row.addWidget(self._combo, 1)
        row.addWidget(self._menu_button())
        layout.addLayout(row)
        layout.addWidget(self._card)
        self._card.show_text("Looking for models…")
        self._first_look = QTimer(self)
        self._first_look.setSingleShot(True)
        self._first_look.timeout.connect(self.reload)
        self._first_look.start(FIRST_LOOK_MILLISECONDS)

    def _menu_button(self) -> QToolButton:
        button = QToolButton()
        button.setIcon(icon("add"))
        button.setToolTip("Add a model from a file or folder, or take one off the list")
        button.setAccessibleName("Add a model")
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(button)
        menu.addAction("Add a model package (.zip)…", self._on_add_zip)
        menu.addAction("Add a model folder…", self._on_add_folder)
        menu.addAction("Look for new models", self.reload)
        self._forget = QAction("Take this model off the list", menu)
        self._forget.triggered.connect(self._on_forget)
        menu.addAction(self._forget)
        button.setMenu(menu)
        return button

    # ---- public API ----

    def value(self) -> LocalModel | None:
        """The chosen model."""
        index = self._combo.currentIndex()
        return self._models[index] if 0 <= index < len(self._models) else None

    def setValue(self, path: str | os.PathLike[str]) -> None:
        """Choose the model at `path`, now or as soon as the list knows it; `failed` where it never does."""
        self._wanted, self._preferred = Path(path).resolve(), None
        if not self._choose_wanted():
            self.reload()

    def prefer(self, path: str | os.PathLike[str]) -> None:
        """Choose the model at `path` if the list has it and nobody asked for another one."""
        if self._wanted is None:
            self._preferred = Path(path)
            if self._models:
                self._choose_preferred()

    def add(self, path: str | os.PathLike[str]) -> None:
        """Put a package onto the list and choose it."""
        self._later.ask("add", lambda: add_model(path), lambda model: self.setValue(model.path), self._on_failed)

    def reload(self) -> None:
        """Look for models again; the chosen one stays chosen."""
        self._first_look.stop()
        self._later.ask("list", list_models, self._on_listed, self._on_failed)

    # ---- handlers ----

    def _on_listed(self, models: tuple[LocalModel, ...]) -> None:
        before = self.value()
        if models != self._models:  # filling closes a list that is open
            self._fill(models, before)
        missing = self._wanted
        if not self._choose_wanted() and not self._choose_preferred() and (self.value() != before or not models):
            self._on_chosen()
        if self._wanted is not None:
            self._wanted = None
            self._say_missing(missing)
        self.loaded.emit()

    def _fill(self, models: tuple[LocalModel, ...], chosen: LocalModel | None) -> None:
        self._combo.blockSignals(True)
        self._combo.clear()
        self._models = models
        for model in models:
            self._combo.addItem(model.name)
            tip = f"{model.sentence}\n{model.place}"
            self._combo.setItemData(self._combo.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        if chosen:
            self._select(chosen.path)
        self._combo.blockSignals(False)

    def _say_missing(self, path: Path | None) -> None:
        chosen = self.value()
        still = f"; “{chosen.name}” is still chosen" if chosen else ""
        cure = "Add it with the button beside the list, or choose another one"
        self.failed.emit(DataError(f"There is no model that can be used at {path}{still}", cure))

    def _choose_preferred(self) -> bool:
        path, self._preferred = self._preferred, None
        if path is None or not self._select(path):
            return False
        self._on_chosen()
        return True

    def _choose_wanted(self) -> bool:
        if self._wanted is None or not self._select(self._wanted):
            return False
        self._wanted = None
        self._on_chosen()
        return True

    def _select(self, path: Path) -> bool:
        """Whether there is a model at `path`; it is selected then."""
        places = [m.path.resolve() for m in self._models]
        found = next((i for i, p in enumerate(places) if path.resolve() in (p, p.parent)), None)
        if found is not None:
            self._combo.blockSignals(True)
            self._combo.setCurrentIndex(found)
            self._combo.blockSignals(False)
        return found is not None

    def _on_chosen(self) -> None:
        model = self.value()
        self._forget.setEnabled(model is not None and model.origin == "added")
        if model:
            self._card.show_model(model)
        else:
            self._card.show_text("No model yet. Train one, or add a package with the button on the right.")
        self.valueChanged.emit(model)

    def _on_add_zip(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Add a model package", "", "Model packages (*.zip *.yaml)")
        if path:
            self.add(path)

    def _on_add_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Add a model folder or a finished run")
        if path:
            self.add(path)

    def _on_forget(self) -> None:
        model = self.value()
        if model is not None:
            forget_model(model.path)
            self.reload()

    def _on_failed(self, error: BaseException) -> None:
        self._wanted = None
        self.failed.emit(error if isinstance(error, Im2ImError) else Im2ImError(f"The list of models: {error}"))


class ModelCard(QWidget):
    """What a person wants to know before using a model."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._picture = QLabel()
        self._picture.setFixedSize(COVER, COVER)
        self._picture.setAlignment(Qt.AlignmentFlag.AlignTop)
        self._text = QLabel()
        self._text.setWordWrap(True)
        self._text.setTextFormat(Qt.TextFormat.PlainText)
        self._text.setAlignment(Qt.AlignmentFlag.AlignTop)
        self._text.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._picture, 0, Qt.AlignmentFlag.AlignTop)
        layout.addWidget(self._text, 1)

    def show_text(self, text: str) -> None:
        """Show a sentence instead of a model."""
        self._picture.hide()
        self._text.setText(text)
        self.setToolTip("")

    def show_model(self, model: LocalModel) -> None:
        """Show the card of a model."""
        picture = QPixmap(str(model.cover)) if model.cover else QPixmap()
        self._picture.setVisible(not picture.isNull())
        if not picture.isNull():
            keep, smooth = Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
            self._picture.setPixmap(picture.scaled(COVER, COVER, keep, smooth))
        self._text.setText(card_text(model))
        self.setToolTip(_details(model))


def card_text(model: LocalModel) -> str:
    """Purpose, figures and limits, one line each."""
    lines = [model.sentence or f"{_task(model)}, {model.inference.shapes.dimensions}D"]
    if model.metrics:
        figures = "; ".join(f"{metric_words(name)}: {value:.2f}" for name, value in model.metrics[:FIGURES])
        lines.append(f"On data it was not trained on: {figures}")
    if model.not_for:
        lines.append(model.not_for.split(". ")[0].rstrip(".") + ".")
    return "\n".join(lines)


def _details(model: LocalModel) -> str:
    figures = "\n".join(f"{metric_words(name)}: {value:.4g}" for name, value in model.metrics)
    trained = f"Trained on: {model.trained_on}" if model.trained_on else ""
    licence = f"Licence of the weights: {model.licence}" if model.licence else ""
    parts = [model.name, str(model.path), model.place, trained, figures, model.not_for, licence]
    return "\n".join(p for p in parts if p)


def _task(model: LocalModel) -> str:
    return model.inference.task.replace("_", " ").capitalize() or "Image to image"


def metric_words(name: str) -> str:
    """Name of a metric as people say it."""
    words = {"ap50": "AP at IoU 0.5", "ap75": "AP at IoU 0.75", "dice": "Dice", "psnr": "PSNR", "pearson": "Pearson r"}
    if name not in words and is_figure(name):
        return title_of(name)
    return words.get(name, name.replace("_", " "))
