"""The Predict panel: choose a model, press one button, see the result appear tile by tile."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
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

from im2im_core.errors import DataError, Im2ImError, TrustError
from im2im_core.jobs.attached import WORKER
from im2im_core.object_size import estimated_diameter, look_at
from napari_im2im._copy_menu import CopyMenu
from napari_im2im._endings import when_destroyed
from napari_im2im._image_panel import ImagePanel
from napari_im2im._later import Later
from napari_im2im._layers import (
    AXES_KEY,
    is_image_layer,
    is_labels,
    is_result,
    is_users,
    layer_axes,
    set_micrometres,
    take_snapshot,
    unitless,
)
from napari_im2im._live_result import LiveResults
from napari_im2im._messages import HIGHEST, MessageBar
from napari_im2im._model_list import ModelList
from napari_im2im._more_images import MoreImages
from napari_im2im._object_size import SizeAdvice, advise, advise_each
from napari_im2im._panel_memory import PanelMemory
from napari_im2im._panels import dock_of, settle_dock
from napari_im2im._predict_files import FEW, FileLook, add_opened, look_at_files, read_results
from napari_im2im._predict_job import PredictJob, Result
from napari_im2im._predict_queue import FileQueue, LayerQueue, Request
from napari_im2im._predict_send import sent, sent_together
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
from napari_im2im._teach import source_names, teach

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    from napari_im2im._predict_files import Opened

KINDS = ("labels", "probability", "image")
"""Kinds of results that can be shown as layers."""


class PredictWidget(QWidget):
    """Dock widget that applies a model to a layer, to all that are open, or to files.

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
        self._used: Path | None = None
        self._queue: FileQueue | LayerQueue | None = None
        self._image: Any = None
        self._looked: tuple[Any, ...] = ()
        self._look_of_files: FileLook | None = None
        self._told_open = False
        self._scene: str | None = None
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
        self._on_image()
        self.memory.recall(self._on_recalled)
        self.job.warm()

    # ---- public API ----

    def set_model(self, path: str | os.PathLike[str]) -> None:
        """Choose the model at `path`, a package or a finished run; the image stays the one that is chosen."""
        self._told_model = True
        self.models.setValue(path)

    def set_image(self, image: Layer | list[Layer] | tuple[Path, ...]) -> None:
        """Choose a layer, all that are open (a list), or files."""
        self._told_image = True
        self.image.setValue(image)

    # ---- parts ----

    def _make_parts(self) -> None:
        self.models = ModelList()
        self.image = ImagePanel(self._viewer)
        self.more_images = MoreImages(self._viewer)
        self.scene_box = QComboBox()
        self.scene_box.setAccessibleName("Scene of the file")
        self.scene_box.setToolTip(
            "The file holds several images (fields, positions, series): each is predicted, or one"
        )
        self.scene_box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.scene_box.setMinimumContentsLength(12)
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
        self.open_box = QCheckBox("Open the results as layers")
        self.open_box.setToolTip("Show each result when it is written, over its image; the files stay in their folder")
        self.open_box.hide()
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
        self.messages = MessageBar(highest=2 * HIGHEST)  # nothing below needs the room

    def _lay_out(self) -> None:
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(6, 6, 6, 6)
        column.setSpacing(6)
        column.addWidget(self.models)
        column.addWidget(self.image)
        column.addWidget(self.more_images)
        column.addWidget(self.scene_box)
        column.addWidget(self.size_text)
        column.addWidget(self.unit_button)
        column.addLayout(_row(self._width_label(), self.width_box, stretch=True))
        results = QHBoxLayout(self.outputs_row)
        results.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.outputs_row)
        column.addWidget(self.open_box)
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
        inner.installEventFilter(self)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(area)
        self._widen()
        self.bar.hide()
        self.status.hide()
        self.teach_button.hide()
        self.scene_box.hide()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Keep as wide as what a model, an image or the settings bring in."""
        if event is not None and event.type() == QEvent.Type.LayoutRequest and watched is self._area.widget():
            self._widen()
        return super().eventFilter(watched, event)

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
        self.open_box.clicked.connect(self._on_open_box)
        self.scene_box.activated.connect(self._on_scene)
        self.more.toggled.connect(self._on_more)
        self.button.clicked.connect(self._on_button)
        self.teach_button.clicked.connect(self._on_teach)
        self.copy.failed.connect(self._on_error)
        self.models.valueChanged.connect(self._on_memorable)
        self.image.valueChanged.connect(self._on_memorable)
        self.more_images.valueChanged.connect(self._on_ready)
        self.more_images.valueChanged.connect(self._on_memorable)
        job = self.job
        job.progress.connect(self._on_progress)
        job.begun.connect(lambda event: self._live.begin(event) if self._live else None)
        job.tile.connect(lambda event: self._live.take(event) if self._live else None)
        job.message.connect(self._on_message)
        job.finished.connect(self._on_finished)
        job.failed.connect(self._on_failed)
        job.cancelled.connect(self._on_cancelled)
        when_destroyed(self, self.image.forget_viewer)
        when_destroyed(self, self.more_images.forget_viewer)

    # ---- model and image ----

    def _on_model(self, model: LocalModel | None) -> None:
        if model is not None and model.path != self._used and not self.job.running:
            self._say("")  # what stands there is about another model
        self._fill_outputs(model.inference if model else None)
        if model:
            self.image.set_needs(model.inference.shapes.input_channels, model.inference.input.channel_names)
        inputs = model.inputs if model else ()
        self.image.set_name(inputs[0].name if inputs else "Image")
        self.more_images.set_inputs(inputs[1:])
        self._on_ready()
        self._look()

    def _on_image(self) -> None:
        value = self.image.value()
        chosen = "all" if isinstance(value, list) else value
        if chosen != self._image:
            self._image, self._width, self._told = chosen, None, False
            self._forget_look()
            files = value if isinstance(value, tuple) else ()
            self._offer_opening(len(files))
            self.more_images.set_first(next(iter(self.image.layers()), None))
        self._on_ready()
        self._look()

    def _forget_look(self) -> None:
        """What was found out about another image holds no more, nor what is still being found out."""
        self._looked, self._look_of_files, self._scene = (), None, None
        self._offer_scenes(())
        self.later.forget("look")

    def _offer_opening(self, count: int) -> None:
        self.open_box.setVisible(count > 0)
        if not self._told_open:
            self.open_box.setChecked(0 < count <= FEW)

    def _offer_scenes(self, names: tuple[str, ...]) -> None:
        """Let one of the images of a file be chosen, where there are several; at first it is each of them."""
        self.scene_box.clear()
        if names:
            self.scene_box.addItem(f"Each of the {len(names)} scenes", None)
            for name in names:
                self.scene_box.addItem(name, name)
            self.scene_box.setCurrentIndex(names.index(self._scene) + 1 if self._scene in names else 0)
        self.scene_box.setVisible(bool(names))

    def _on_scene(self) -> None:
        self._scene = self.scene_box.currentData()
        self._on_memorable()

    def _on_open_box(self) -> None:
        self._told_open = True
        self._on_memorable()

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
        if self.more_images.value() and isinstance(self.image.value(), tuple | list):
            return "This model takes several images at once: choose one open layer for each"
        if missing := self.more_images.missing():
            return f"Choose an image for “{missing}” too"
        if self.outputs and not any(box.isChecked() for box in self.outputs.values()):
            return "Choose at least one result"
        return ""

    # ---- size of objects ----

    def _look(self) -> None:
        """Estimate the size of the objects in a thread, then say what happens to the image."""
        self._advise()
        model, value = self.models.value(), self.image.value()
        if model is None:
            return
        expects = bool(model.inference.input.object_diameter)
        layers = self.image.layers()
        key = (value, expects) if isinstance(value, tuple) else (*layers, *map(layer_axes, layers))
        if not key or key == self._looked:
            return
        if isinstance(value, tuple):
            self._looked = key
            self.later.ask("look", lambda: look_at_files(value, with_width=expects), self._on_files_looked, _ignore)
        elif expects and not self._told:
            self._look_at_layers(key)

    def _look_at_layers(self, key: tuple[Any, ...]) -> None:
        try:
            snapshot = self.image.snapshot(copy=False)
        except Im2ImError:  # no image, or a question is open: the form shows it
            return
        self._looked, self._width = key, None
        self._advise()
        self.later.ask("look", lambda: look_at(snapshot.image()), self._on_looked, _ignore)

    def _on_looked(self, width: float | None) -> None:
        if not self._told:  # what a person typed meanwhile is worth more
            self._width = width
            self._advise()

    def _on_files_looked(self, look: FileLook) -> None:
        self._look_of_files = look
        self._offer_opening(look.count)
        self._offer_scenes(look.scenes if look.alone else ())
        if not self._told:
            self._width = look.width
        self._advise()

    def _on_width(self, width: float) -> None:
        self._width, self._told = width or None, width > 0
        self._advise()
        self._on_memorable()

    def _on_unit(self) -> None:
        for layer in self.image.layers():
            set_micrometres(layer)
        self._advise()

    def _advise(self) -> None:
        """Say how the image is scaled and why."""
        model, layers = self.models.value(), self.image.layers()
        self._advice = self._advice_now() if model else SizeAdvice("", None)
        for widget in (self.width_box, self._width_text):
            widget.setVisible(self._asks_width())
        needs_unit = bool(layers and model and any(model.inference.input.voxel_size) and unitless(layers[0]))
        self.unit_button.setVisible(needs_unit and layer_axes(layers[0]) is not None)
        self.size_text.setText(self._advice.text)
        self.size_text.setVisible(bool(self._advice.text))
        self.width_box.blockSignals(True)
        self.width_box.setValue(self._width or 0)
        self.width_box.blockSignals(False)

    def _asks_width(self) -> bool:
        """Whether the width of the objects matters and there is an image that has one."""
        model, value, layers = self.models.value(), self.image.value(), self.image.layers()
        there = layer_axes(layers[0]) is not None if layers else bool(value)
        return there and bool(model and model.inference.input.object_diameter)

    def _advice_now(self) -> SizeAdvice:
        model, value = self.models.value(), self.image.value()
        assert model is not None
        # What is being typed may not hold yet; the last settings that did are good enough to speak of.
        override = self._valid.rescale if self._valid is not None else "auto"  # type: ignore[attr-defined]
        if isinstance(value, list):
            return advise_each(model.inference, self._width if self._told else None, override=override)
        look = self._look_of_files
        try:
            voxel_size = look.voxel_size if look else self.image.snapshot(copy=False).voxel_size
        except Im2ImError:  # nothing is known yet: a question is open, or the file is being looked at
            return SizeAdvice("", self._width if self._told and isinstance(value, tuple) else None)
        advice = advise(model.inference, voxel_size, self._width, told=self._told, override=override)
        return replace(advice, text=f"{advice.text}{look.whose}") if look and advice.text else advice

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

        return to_options(self._settings(), channels=self.image.channels(), object_diameter=self._advice.diameter)

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
            " + ".join(layer.name for layer in layers or self._all_layers()) or "the image",
            axes,
            tuple(self._more_outputs()),
            self._region(model) if layers else None,
            self._input_files(model),
            self._look_of_files.scenes if self._look_of_files else (),
            self.scene_box.currentData(),
        )
        return as_texts(asked)

    def _files_and_axes(self) -> tuple[tuple[Path, ...], str]:
        """Files of what is chosen, none where it is not one file, and the axes that must be told."""
        value, layers = self.image.value(), self.image.layers()
        if isinstance(value, tuple):
            return value, ""
        if isinstance(value, list):
            files = tuple(Path(str(layer.source.path)) for layer in value if layer.source.path)
            return files if len(files) == len(value) else (), ""
        if len(layers) == 1 and layers[0].source.path:
            return (Path(str(layers[0].source.path)),), str(layers[0].metadata.get(AXES_KEY, ""))
        axes = layer_axes(layers[0]) or "" if layers else ""
        return (), f"C{axes}" if len(layers) > 1 else axes

    def _input_files(self, model: LocalModel) -> dict[str, str]:
        """File of each image where the model takes several; empty where a layer is not one file."""
        if not model.inputs:
            return {}
        layers = {model.inputs[0].name: next(iter(self.image.layers()), None), **self.more_images.value()}
        return {name: str(layer.source.path or "") if layer is not None else "" for name, layer in layers.items()}

    def _all_layers(self) -> list[Layer]:
        value = self.image.value()
        return value if isinstance(value, list) else []

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
        request = Request(model, self._options(), tuple(self._wanted_outputs()))
        self.later.forget("count")  # of the objects of an earlier result
        self._queue = None
        if isinstance(value, tuple):
            self._next(FileQueue(request, value, self.scene_box.currentData()))
        elif isinstance(value, list):
            self._next(LayerQueue.of(value, request))
        else:
            source = self.image.snapshot()
            region = self.image.region(source, model.inference.shapes.dimensions)
            others = self.more_images.snapshots()
            if others:
                sources = {model.inputs[0].name: source, **others}
                self._begin(source, region, request, lambda: sent_together(sources, region, request.options))
            else:
                self._start_layer(source, region, request)
        self._last = None
        self.teach_button.hide()
        self.status.hide()
        self.button.setText("Cancel")
        self.button.setToolTip("Stop; what is finished is kept")

    def _start_layer(self, source: Snapshot, region: Region | None, request: Request) -> None:
        model = request.model
        self._begin(source, region, request, lambda: sent(source, region, model, request.options))

    def _begin(
        self, source: Snapshot, region: Region | None, request: Request, what: Callable[[], dict[str, Any]]
    ) -> None:
        self.job.start(lambda: {**what(), **request.arguments})
        facts = {**request.facts, "region": [[s.start, s.stop] for s in region or ()]}
        self._source = source
        self._live = LiveResults(self._viewer, source, request.model.name, request.main, facts, self)
        self._wait()

    def _next(self, queue: FileQueue | LayerQueue) -> None:
        """Start with the next image of a row."""
        if isinstance(queue, FileQueue):
            self.job.start(queue.next)
            self._wait()
        else:
            self._next_layer(queue)
        self._queue = queue

    def _next_layer(self, queue: LayerQueue) -> None:
        """Start with the next layer that can be predicted; those that cannot are told and counted.

        Raises
        ------
        DataError
            The last one cannot be predicted either.
        """
        told = self._told
        while True:
            try:
                source = queue.next(self._viewer)
                break
            except DataError as error:
                queue.tally.failed.append(error)
                if not queue.todo:
                    raise
                self._on_error(error)
        request = queue.request
        self._begin(source, None, request, lambda: _sent_each(source, request, told=told))

    def _wait(self) -> None:
        model = self.models.value()
        self._used = None if model is None else model.path
        self.bar.setRange(0, 1)
        self.bar.setValue(0)
        self.bar.setFormat("Getting ready…")
        self.bar.show()

    def _on_progress(self, progress: Progress) -> None:
        self.bar.setRange(0, progress.total or 0)
        self.bar.setValue(progress.done)
        lead = f"{self._queue.tally.place}, " if self._queue else ""
        self.bar.setFormat(f"{lead}{progress_words(progress)}")

    def _on_message(self, message: Message) -> None:
        if message.level == "info":
            return
        text, mend = self._mend(message)
        self.messages.add(message.text, message.level, message.cure, text, mend)

    def _mend(self, message: Message) -> tuple[str | None, Callable[[], object] | None]:
        """Button that brings the cure of a warning about, where there is one."""
        if message.code != "unknown_size":
            return None, None
        if not self.unit_button.isHidden():
            return "The layer's scale is in µm", self._on_unit
        if self._asks_width():
            return "Give the width of the objects", lambda: self._bring(self.width_box)
        return "Set the magnification", self._bring_rescale

    def _bring_rescale(self) -> None:
        self.more.setChecked(True)
        assert self._form is not None
        self._bring(self._form)

    def _bring(self, widget: QWidget) -> None:
        self._area.ensureWidgetVisible(widget)
        widget.setFocus(Qt.FocusReason.OtherFocusReason)

    # ---- its end ----

    def _on_finished(self, result: Result) -> None:
        layers = self._live.finish(result) if self._live else {}
        if self._queue:
            self._queue.tally.done += 1
            if isinstance(self._queue, FileQueue):
                self._open_results(self._queue, result)
            self._after_one(self._queue)
            return
        self._at_rest()
        device = str(result.facts.get("device", ""))
        main = next(iter(layers.values()), None)
        self._say(closing_line("Done", result.seconds, device))
        if main is None or not is_labels(main):
            return
        source, self._source = self._source, None
        assert source is not None
        self._let_teach(source, main)
        pixels, times = main.data, source.shape[0] if "T" in main.metadata["axes"] else 1
        self.later.ask(
            "count",
            lambda: count_objects(pixels, times),
            lambda count: self._say(closing_line(objects_words(count), result.seconds, device)),
        )

    def _let_teach(self, source: Snapshot, layer: Layer) -> None:
        self._last = (source, layer)
        self.teach_button.show()
        self._on_memorable()

    def _open_results(self, files: FileQueue, result: Result) -> None:
        """Show what was written as layers, where that is wanted; files are read in a thread."""
        if not self.open_box.isChecked() or (files.tally.total > FEW and not self._told_open):
            return
        image, request, alone = files.image, files.request, files.tally.total == 1
        done = partial(self._on_opened, request=request, alone=alone)
        self.later.ask(f"open {image}", lambda: read_results(image, result), done, self._on_unopened)

    def _on_opened(self, opened: Opened, *, request: Request, alone: bool) -> None:
        source, layers = add_opened(self._viewer, opened, request.model.name, {**request.facts, "region": []})
        if alone and layers and is_labels(layers[0]) and not self.job.running:
            self._let_teach(source, layers[0])

    def _on_unopened(self, error: BaseException) -> None:
        shown = error if isinstance(error, Im2ImError) else Im2ImError(f"A result cannot be opened: {error}")
        self.messages.add(shown.message, "warning", shown.cure)

    def _on_failed(self, error: Im2ImError) -> None:
        self._show_failure(error)
        if self._live:
            self._live.stop()
        if self._queue:
            self._queue.tally.failed.append(error)
            self._after_one(self._queue)
        else:
            self._at_rest()

    def _after_one(self, queue: FileQueue | LayerQueue) -> None:
        """Go on with the next image, or say what became of all."""
        self._drop_live()
        if queue.todo:
            try:
                self._next(queue)
            except Im2ImError as error:  # the disk is full, or none of the others can be predicted
                self._on_error(error)
            else:
                return
        self._queue = None
        self._at_rest()
        if queue.tally.total:
            self._say(queue.tally.summary())
        if isinstance(queue, FileQueue) and queue.tally.done:
            url = QUrl.fromLocalFile(str(queue.folder))
            text = f"The results are in {queue.folder}"
            self.messages.add(text, button_text="Show the folder", action=lambda: QDesktopServices.openUrl(url))

    def _on_cancelled(self) -> None:
        kept = self._live.stop() if self._live else {}
        queue, self._queue = self._queue, None
        self._at_rest()
        if queue and queue.tally.total:
            self._say(f"Stopped: {queue.tally.summary()}.")
        else:
            self._say("Stopped; what was finished is kept." if kept else "Stopped.")

    def _at_rest(self) -> None:
        self._drop_live()
        self.bar.hide()
        self._on_ready()

    def _drop_live(self) -> None:
        if self._live:
            self._live.deleteLater()
        self._live = None

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
        model, value, layers = self.models.value(), self.image.value(), self.image.layers()
        source, result = self._last or (None, None)
        return {
            "viewer": os.getpid(),
            "model": str(model.path) if model else "",
            "image": layers[0].name if layers else "",
            "kind": "files" if isinstance(value, tuple) else "all" if isinstance(value, list) else "layer",
            "files": [str(path) for path in self.image.files()],
            **self.image.choices(),
            "more_images": self.more_images.names(),
            "scene": self._scene,
            "width": self._width if self._told else None,
            "open": self.open_box.isChecked() if self._told_open else None,
            "outputs": self._wanted_outputs(),
            "settings": self._valid.dump() if self._valid is not None else None,
            "result": result.name if result is not None else "",
            "taught": list(source_names(source)) if source is not None else [],
        }

    def _on_recalled(self, content: dict[str, Any]) -> None:
        """Show what was shown when the panel was last open in this project; what is gone is left out."""
        self._chosen = {str(name) for name in content.get("outputs") or ()}
        self._recall_settings(content.get("settings"))
        if content.get("model") and not self._told_model:
            self.models.prefer(str(content["model"]))
        if content.get("open") is not None:
            self._told_open = True
            self.open_box.setChecked(bool(content["open"]))
        if not self._told_image:
            self._recall_image(content)
            self.more_images.recall(content.get("more_images") or {})
        if not self.job.running and self._last is None:
            self._recall_result(content)

    def _recall_image(self, content: dict[str, Any]) -> None:
        """Choose image, part, channels and width as before; files, and all images, only while napari is the same."""
        same = content.get("viewer") == os.getpid()
        files = tuple(Path(str(name)) for name in content.get("files") or ())
        if files and same:
            self.image.offer_files(files)
        found = self._open_image(content.get("image"))
        if content.get("kind") == "files" and files and same:
            self.image.setValue(files)
            self._scene = content.get("scene")
        elif content.get("kind") == "all" and same:
            self.image.setValue([])
        elif found is not None:
            self.image.setValue(found)
            self.image.recall(content)
        else:
            return
        if content.get("width"):
            self._on_width(float(content["width"]))

    def _recall_result(self, content: dict[str, Any]) -> None:
        """Let the last result be taught again, where it and its image are still open."""
        result = next((y for y in self._viewer.layers if y.name == content.get("result") and is_result(y)), None)
        sources = [self._open_image(name) for name in content.get("taught") or ()]
        if result is None or not is_labels(result) or not sources or None in sources:
            return
        try:
            source = take_snapshot([layer for layer in sources if layer is not None], copy=False)
        except Im2ImError:  # another layer has the name now
            return
        self._let_teach(source, result)

    def _open_image(self, name: Any) -> Layer | None:
        named = (layer for layer in self._viewer.layers if layer.name == name)
        return next((layer for layer in named if is_image_layer(layer) and is_users(layer)), None)

    def _recall_settings(self, settings: Any) -> None:
        if settings is not None:
            self.later.ask("settings", lambda: _settings_of(settings), self._on_settings_recalled, _ignore)

    def _on_settings_recalled(self, settings: Config) -> None:
        if self._valid is not None:  # something else was entered meanwhile
            return
        self._valid = settings
        if self._form is not None:
            self._form.setValue(settings)
        self._advise()


def _settings_of(content: Any) -> Config:
    """Settings that were remembered; imports all settings there are, so it is not for the main thread."""
    from napari_im2im._predict_settings import settings_class

    return settings_class().load(content)


def _ignore(error: BaseException) -> None:
    """An estimate that cannot be made is simply not shown."""


def _sent_each(source: Snapshot, request: Request, *, told: bool) -> dict[str, Any]:
    """Arguments for one of several layers, which is scaled as if it was chosen alone; not for the main thread."""
    options = request.options
    if not told:
        options = options.replace(
            object_diameter=estimated_diameter(source.image(), request.model.inference, options.rescale)
        )
    return sent(source, None, request.model, options)


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
