"""The Predict panel: choose a model, press one button, see the result appear tile by tile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from im2im_core.errors import Im2ImError, TrustError
from im2im_core.jobs.attached import WORKER
from napari_im2im._copy_menu import CopyMenu
from napari_im2im._endings import when_destroyed
from napari_im2im._file_queue import FileQueue
from napari_im2im._image_panel import ImagePanel
from napari_im2im._later import Later
from napari_im2im._layers import AXES_KEY, is_image_layer, is_labels, is_users, layer_axes, set_micrometres, unitless
from napari_im2im._live_result import LiveResults
from napari_im2im._messages import MessageBar
from napari_im2im._model_list import ModelList
from napari_im2im._object_size import SizeAdvice, advise, look_at
from napari_im2im._panel_memory import PanelMemory
from napari_im2im._panels import dock_of, settle_dock
from napari_im2im._predict_job import PredictJob, Result
from napari_im2im._predict_send import sent
from napari_im2im._predict_words import (
    Asked,
    as_texts,
    asked_for,
    closing_line,
    count_objects,
    objects_words,
    progress_words,
    trust_words,
)
from napari_im2im._teach import teach

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from napari import Viewer
    from napari.layers import Layer

    from im2im_core._base import Config
    from im2im_core.axes import Region
    from im2im_core.bundle.foreign import ForeignDescription
    from im2im_core.events import Message, Progress
    from im2im_core.inference import Inference
    from im2im_core.models import LocalModel
    from im2im_core.predict_options import PredictOptions
    from napari_im2im._form import ConfigForm
    from napari_im2im._layers import Snapshot

KINDS = ("labels", "probability", "image")
"""Kinds of results that can be shown as layers."""


class PredictWidget(QWidget):
    """Dock widget that applies a model to a layer or to files.

    Parameters
    ----------
    command : sequence of str
        Program of the attached process; tests give a small one.
    """

    def __init__(
        self, napari_viewer: Viewer, parent: QWidget | None = None, *, command: Sequence[str] = WORKER
    ) -> None:
        super().__init__(parent)
        self._viewer = napari_viewer
        self._width: float | None = None
        self._told = False
        self._advice = SizeAdvice("", None)
        self._source: Snapshot | None = None
        self._live: LiveResults | None = None
        self._last: tuple[Snapshot, Layer] | None = None
        self._files: FileQueue | None = None
        self._form: ConfigForm | None = None
        self._valid: Config | None = None
        self._chosen: set[str] = set()
        self._seen = self._told_model = self._told_image = False
        self.job = PredictJob(self, command=command)
        self.later = Later(self)
        self.memory = PanelMemory("predict_widget", self._content, self)
        self._make_parts()
        self._lay_out()
        self._connect()
        self._on_ready()
        self.memory.recall(self._on_recalled)
        self.job.warm()

    # ---- public API ----

    def set_model(self, path: str | os.PathLike[str]) -> None:
        """Choose the model at `path`, a package or a finished run; the image stays the one that is chosen."""
        self._told_model = True
        self.models.setValue(path)

    def set_image(self, image: Layer | tuple[Path, ...]) -> None:
        """Choose a layer, or files."""
        self._told_image = True
        self.image.setValue(image)

    # ---- parts ----

    def _make_parts(self) -> None:
        self.models = ModelList()
        self.image = ImagePanel(self._viewer)
        self.size_text = _paragraph()
        self.width_box = QDoubleSpinBox()
        self.width_box.setRange(0, 9999)
        self.width_box.setDecimals(0)
        self.width_box.setSuffix(" px")
        self.width_box.setSpecialValueText("not known")
        self.width_box.setKeyboardTracking(False)
        self.width_box.setToolTip("Width of a typical object in your image; correct it if the estimate is wrong")
        self.width_box.setAccessibleName("Width of the objects in your image")
        self.unit_button = QPushButton("The layer's scale is in µm")
        self.unit_button.setToolTip("The layer has a scale without a unit; say that it is in micrometres")
        self.outputs_row = QWidget()
        self.outputs: dict[str, QCheckBox] = {}
        self.more = QToolButton()
        self.more.setText("Settings")
        self.more.setToolTip("Tiles, thresholds and everything else that can be set")
        self.more.setAccessibleName("Settings of the prediction")
        self.more.setCheckable(True)
        self.more.setArrowType(Qt.ArrowType.RightArrow)
        self.more.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.more.setAutoRaise(True)
        self.copy = CopyMenu(self._texts)
        self.copy.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.copy.setToolTip("Copy this prediction: for a shell, a file, a notebook or a paper")
        self.button = QPushButton("Predict")
        self.button.setDefault(True)
        self.button.setMinimumHeight(32)
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.bar.setAccessibleName("Progress of the prediction")
        self.status = _paragraph()
        self.teach_button = QPushButton("Not right? Teach it.")
        self.teach_button.setToolTip("Correct the result with the brush and train the model on the corrections")
        self.messages = MessageBar()

    def _lay_out(self) -> None:
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(6, 6, 6, 6)
        column.setSpacing(6)
        column.addWidget(self.models)
        column.addWidget(self.image)
        column.addWidget(self.size_text)
        column.addWidget(self.unit_button)
        column.addLayout(_row(self._width_label(), self.width_box, stretch=True))
        results = QHBoxLayout(self.outputs_row)
        results.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.outputs_row)
        column.addLayout(_row(self.more, self.copy, stretch=True))
        self._form_place = QVBoxLayout()
        column.addLayout(self._form_place)
        column.addWidget(self.button)
        column.addWidget(self.bar)
        column.addWidget(self.status)
        column.addWidget(self.teach_button)
        column.addWidget(self.messages)
        column.addStretch(1)
        area = self._area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QScrollArea.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(inner)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(area)
        self._widen()
        self.bar.hide()
        self.status.hide()
        self.teach_button.hide()

    def _widen(self) -> None:
        """Leave room for the scroll bar, so that it hides nothing when it comes."""
        inner, bar = self._area.widget(), self._area.verticalScrollBar()
        assert inner is not None
        assert bar is not None
        self.setMinimumWidth(max(300, inner.minimumSizeHint().width() + bar.sizeHint().width()))

    def _width_label(self) -> QLabel:
        self._width_text = QLabel("Objects in your image are")
        return self._width_text

    def _connect(self) -> None:
        self.models.valueChanged.connect(self._on_model)
        self.models.failed.connect(self._on_error)
        self.image.valueChanged.connect(self._on_image)
        self.width_box.valueChanged.connect(self._on_width)
        self.unit_button.clicked.connect(self._on_unit)
        self.more.toggled.connect(self._on_more)
        self.button.clicked.connect(self._on_button)
        self.teach_button.clicked.connect(self._on_teach)
        self.copy.failed.connect(self._on_error)
        self.models.valueChanged.connect(self._on_memorable)
        self.image.valueChanged.connect(self._on_memorable)
        job = self.job
        job.progress.connect(self._on_progress)
        job.begun.connect(lambda event: self._live.begin(event) if self._live else None)
        job.tile.connect(lambda event: self._live.take(event) if self._live else None)
        job.message.connect(self._on_message)
        job.finished.connect(self._on_finished)
        job.failed.connect(self._on_failed)
        job.cancelled.connect(self._on_cancelled)
        when_destroyed(self, self.image.forget_viewer)

    # ---- model and image ----

    def _on_model(self, model: LocalModel | None) -> None:
        self._fill_outputs(model.inference if model else None)
        if model:
            self.image.set_needs(model.inference.shapes.input_channels, model.inference.input.channel_names)
        self._on_ready()
        self._look()

    def _on_image(self) -> None:
        self._width, self._told = None, False
        self._on_ready()
        self._look()

    def _fill_outputs(self, inference: Inference | ForeignDescription | None) -> None:
        layout = self.outputs_row.layout()
        assert isinstance(layout, QHBoxLayout)
        while (item := layout.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        self.outputs = {}
        shown = [o for o in inference.outputs if o.kind in KINDS and {"Y", "X"} <= set(o.axes)] if inference else []
        layout.addWidget(QLabel("Make"))
        for number, output in enumerate(shown):
            box = QCheckBox(output.name.replace("_", " "))
            box.setToolTip(f"Add a layer with the {output.name.replace('_', ' ')} ({output.kind})")
            box.setChecked(output.name in self._chosen if self._chosen & {o.name for o in shown} else number == 0)
            box.toggled.connect(self._on_output)
            layout.addWidget(box)
            self.outputs[output.name] = box
        layout.addStretch(1)
        self.outputs_row.setVisible(len(shown) > 1)

    def _on_output(self) -> None:
        self._chosen = set(self._wanted_outputs())
        self._on_ready()
        self._on_memorable()

    def _on_ready(self) -> None:
        """Let the button say whether it can do something, and why not."""
        reason = self._why_not()
        if not self.job.running:
            self.button.setText("Predict")
            self.button.setEnabled(not reason)
        self.button.setToolTip(reason or "Apply the model to the image")

    def _why_not(self) -> str:
        if self.models.value() is None:
            return "Choose a model first"
        if self.image.value() is None:
            there = any(is_image_layer(layer) for layer in self._viewer.layers)
            return "Choose an image first" if there else "Open an image first: drag it into napari"
        if self.outputs and not any(box.isChecked() for box in self.outputs.values()):
            return "Choose at least one result"
        return ""

    # ---- size of objects ----

    def _look(self) -> None:
        """Estimate the size of the objects in a thread, then say what happens to the image."""
        self._advise()
        model = self.models.value()
        if model is None or self._width is not None or isinstance(self.image.value(), tuple):
            return
        try:
            snapshot = self.image.snapshot(copy=False)
        except Im2ImError:  # no image, or a question is open: the form shows it
            return
        if model.inference.input.object_diameter:
            self.later.ask("width", lambda: look_at(snapshot.image()), self._on_looked, _ignore)

    def _on_looked(self, width: float | None) -> None:
        self._width, self._told = width, False
        self._advise()

    def _on_width(self, width: float) -> None:
        self._width, self._told = width or None, width > 0
        self._advise()

    def _on_unit(self) -> None:
        for layer in self.image.layers():
            set_micrometres(layer)
        self._advise()

    def _advise(self) -> None:
        """Say how the image is scaled and why."""
        model, layers = self.models.value(), self.image.layers()
        snapshot = None
        try:
            snapshot = self.image.snapshot(copy=False) if layers else None
        except Im2ImError:  # the dimensions are not known yet
            pass
        expects = bool(model and model.inference.input.object_diameter)
        for widget in (self.width_box, self._width_text):
            widget.setVisible(expects and snapshot is not None)
        needs_unit = bool(snapshot and model and any(model.inference.input.voxel_size) and unitless(layers[0]))
        self.unit_button.setVisible(needs_unit)
        self._advice = SizeAdvice("", None)
        if model and snapshot:
            # What is being typed may not hold yet; the last settings that did are good enough to speak of.
            override = self._valid.rescale if self._valid is not None else "auto"  # type: ignore[attr-defined]
            self._advice = advise(model.inference, snapshot.voxel_size, self._width, told=self._told, override=override)
        self.size_text.setText(self._advice.text)
        self.size_text.setVisible(bool(self._advice.text))
        self.width_box.blockSignals(True)
        self.width_box.setValue(self._width or 0)
        self.width_box.blockSignals(False)

    # ---- settings ----

    def _on_more(self, unfolded: bool) -> None:
        self.more.setArrowType(Qt.ArrowType.DownArrow if unfolded else Qt.ArrowType.RightArrow)
        if self._form is None:
            from napari_im2im._form import ConfigForm
            from napari_im2im._predict_settings import settings_class

            self._form = ConfigForm(settings_class()())
            if self._valid is not None:
                self._form.setValue(self._valid)
            self._form.valueChanged.connect(self._on_settings)
            self._form_place.addWidget(self._form)
        self._form.setVisible(unfolded)
        self._widen()

    def _on_settings(self, settings: Config) -> None:
        self._valid = settings
        self._advise()
        self._on_memorable()

    def _settings(self) -> Config:
        """Settings that are entered; raises ConfigError where they do not hold."""
        from napari_im2im._predict_settings import settings_class

        return self._form.value() if self._form else self._valid or settings_class()()

    def _options(self) -> PredictOptions:
        from napari_im2im._predict_settings import to_options

        diameter = self._advice.diameter if self.image.layers() else None
        return to_options(self._settings(), channels=self.image.channels(), object_diameter=diameter)

    def _texts(self) -> dict[str, str]:
        model = self.models.value()
        if model is None:
            raise Im2ImError("No model is chosen", "Choose one first")
        files, axes = self._files_and_axes()
        layers = self.image.layers()
        asked = Asked(
            model,
            self._options(),
            files,
            " + ".join(layer.name for layer in layers) or "the image",
            axes,
            tuple(self._more_outputs()),
            self._region(model) if layers else None,
        )
        return as_texts(asked)

    def _files_and_axes(self) -> tuple[tuple[Path, ...], str]:
        """Files of what is chosen, none where it is not one file, and the axes that must be told."""
        value, layers = self.image.value(), self.image.layers()
        if isinstance(value, tuple):
            return value, ""
        if len(layers) == 1 and layers[0].source.path:
            return (Path(str(layers[0].source.path)),), str(layers[0].metadata.get(AXES_KEY, ""))
        axes = layer_axes(layers[0]) or "" if layers else ""
        return (), f"C{axes}" if len(layers) > 1 else axes

    def _region(self, model: LocalModel) -> Region | None:
        return self.image.region(self.image.snapshot(copy=False), model.inference.shapes.dimensions)

    def _wanted_outputs(self) -> list[str]:
        return [name for name, box in self.outputs.items() if box.isChecked()]

    def _more_outputs(self) -> list[str]:
        """Results that are made, where they are not just the main one."""
        wanted = self._wanted_outputs()
        return [] if wanted == list(self.outputs)[:1] else wanted

    # ---- the prediction ----

    def _on_button(self) -> None:
        if self.job.running:
            self._on_cancel()
            return
        self.messages.clear()
        try:
            self._start()
        except Im2ImError as error:
            self._on_error(error)

    def _on_cancel(self) -> None:
        self.button.setEnabled(False)
        self.button.setText("Stopping…")
        self.job.cancel()

    def _start(self) -> None:
        model, value = self.models.value(), self.image.value()
        if model is None or value is None:
            raise Im2ImError(self._why_not())
        options = self._options()
        arguments = {"model": str(model.path), "outputs": self._wanted_outputs() or None}
        if isinstance(value, tuple):
            self._next_file(FileQueue.of(value, {**arguments, "options": options.dump()}))
        else:
            self._start_layer(model, options, arguments)
        self._last = None
        self.teach_button.hide()
        self.status.hide()
        self.button.setText("Cancel")
        self.button.setToolTip("Stop; what is finished is kept")

    def _start_layer(self, model: LocalModel, options: PredictOptions, arguments: dict[str, Any]) -> None:
        source = self.image.snapshot()
        region = self.image.region(source, model.inference.shapes.dimensions)
        self.job.start(lambda: {**sent(source, region, model, options), **arguments})
        main = next(iter(arguments["outputs"] or [model.inference.outputs[0].name]))
        facts = {
            "model_path": str(model.path),
            "channels": list(options.channels or ()),
            "region": [[s.start, s.stop] for s in region or ()],
        }
        self._source, self._files = source, None
        self._live = LiveResults(self._viewer, source, model.name, main, facts, self)
        self._wait()

    def _next_file(self, files: FileQueue) -> None:
        arguments = files.next()
        self.job.start(lambda: arguments)
        self._live, self._files = None, files
        self._wait()

    def _wait(self) -> None:
        self.bar.setRange(0, 1)
        self.bar.setValue(0)
        self.bar.setFormat("Getting ready…")
        self.bar.show()

    def _on_progress(self, progress: Progress) -> None:
        self.bar.setRange(0, progress.total or 0)
        self.bar.setValue(progress.done)
        lead = f"{self._files.place}, " if self._files else ""
        self.bar.setFormat(f"{lead}{progress_words(progress)}")

    def _on_message(self, message: Message) -> None:
        if message.level != "info":
            self.messages.add(message.text, message.level, message.cure)

    # ---- its end ----

    def _on_finished(self, result: Result) -> None:
        if self._files:
            self._files.done += 1
            self._after_file()
            return
        layers = self._live.finish(result) if self._live else {}
        self._at_rest()
        device = str(result.facts.get("device", ""))
        main = next(iter(layers.values()), None)
        if main is None or not is_labels(main):
            self._say(closing_line("Done", result.seconds, device))
            return
        source, self._source = self._source, None
        assert source is not None
        self._last = (source, main)
        self.teach_button.show()
        self._say(closing_line("Done", result.seconds, device))
        pixels, times = main.data, source.shape[0] if "T" in main.metadata["axes"] else 1
        self.later.ask(
            "count",
            lambda: count_objects(pixels, times),
            lambda count: self._say(closing_line(objects_words(count), result.seconds, device)),
        )

    def _on_failed(self, error: Im2ImError) -> None:
        self._show_failure(error)
        if self._files:
            self._files.failed.append(error)
            self._after_file()
            return
        if self._live:
            self._live.stop()
        self._at_rest()

    def _after_file(self) -> None:
        """Go on with the next file, or say what became of all."""
        files = self._files
        assert files is not None
        if files.todo:
            try:
                self._next_file(files)
            except Im2ImError as error:  # the folder is gone, or the disk is full: the others would fail too
                self._on_error(error)
            else:
                return
        self._files = None
        self._at_rest()
        self._say(files.summary())
        if files.done:
            url = QUrl.fromLocalFile(str(files.folder))
            text = f"The results are in {files.folder}"
            self.messages.add(text, button_text="Show the folder", action=lambda: QDesktopServices.openUrl(url))

    def _on_cancelled(self) -> None:
        kept = self._live.stop() if self._live else {}
        files, self._files = self._files, None
        self._at_rest()
        if files:
            self._say(f"Stopped: {files.summary()}.")
        else:
            self._say("Stopped; what was finished is kept." if kept else "Stopped.")

    def _at_rest(self) -> None:
        self._live = None
        self.bar.hide()
        self._on_ready()

    def _show_failure(self, error: Im2ImError) -> None:
        """Show why a prediction failed; where consent is all that is missing, with a button that gives it."""
        model = self.models.value()
        key = asked_for(error) if isinstance(error, TrustError) else None
        if key is None or model is None:
            self._on_error(error)
            return
        text, cure = trust_words(error, model)
        self.messages.add(text, "warning", cure, "Trust it", lambda: self._on_trust(key))

    def _on_trust(self, key: str) -> None:
        from im2im_core.trust import record_consent

        try:
            record_consent(key)
        except Im2ImError as error:
            self._on_error(error)
            return
        if not self.job.running:
            self._on_button()

    def _on_error(self, error: Im2ImError) -> None:
        self.messages.add_error(error)
        self._on_ready()

    def _say(self, text: str) -> None:
        self.status.setText(text)
        self.status.setVisible(bool(text))

    def _on_teach(self) -> None:
        if self._last is None:
            return
        source, layer = self._last
        try:
            teach(self._viewer, source, layer)
        except Im2ImError as error:
            self._on_error(error)

    # ---- opened and closed ----

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        settle_dock(self)
        if self._seen:  # runs may have ended meanwhile
            self.models.reload()
            self.job.warm()
        self._seen = True

    def hideEvent(self, event: Any) -> None:
        super().hideEvent(event)
        self.memory.save()
        dock = dock_of(self)
        window = dock.parentWidget() if dock is not None else None
        if window is not None and not window.isVisible():  # the viewer is closed, whoever still holds it
            self.job.rest()

    def _on_memorable(self) -> None:
        self.memory.save_soon()

    def _content(self) -> dict[str, Any]:
        model, layers = self.models.value(), self.image.layers()
        return {
            "model": str(model.path) if model else "",
            "image": layers[0].name if layers else "",
            "outputs": self._wanted_outputs(),
            "settings": self._valid.dump() if self._valid is not None else None,
        }

    def _on_recalled(self, content: dict[str, Any]) -> None:
        """Show what was shown when the panel was last open in this project; what is gone is left out."""
        self._chosen = {str(name) for name in content.get("outputs") or ()}
        self._recall_settings(content.get("settings"))
        if content.get("model") and not self._told_model:
            self.models.prefer(str(content["model"]))
        named = (layer for layer in self._viewer.layers if layer.name == content.get("image"))
        found = next((layer for layer in named if is_image_layer(layer) and is_users(layer)), None)
        if found is not None and not self._told_image:
            self.image.setValue(found)

    def _recall_settings(self, settings: Any) -> None:
        from napari_im2im._predict_settings import settings_class

        if settings is None or self._form is not None:
            return
        try:
            self._valid = settings_class().load(settings)
        except Im2ImError:  # of another version
            return
        self._advise()


def _ignore(error: BaseException) -> None:
    """An estimate that cannot be made is simply not shown."""


def _paragraph() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
    return label


def _row(*widgets: QWidget, stretch: bool = False) -> QHBoxLayout:
    row = QHBoxLayout()
    row.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        row.addWidget(widget)
    if stretch:
        row.addStretch(1)
    return row
