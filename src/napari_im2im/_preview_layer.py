"""The live prediction of one region: one layer whose content is any step of the run, beside image and target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QSlider, QWidget

from im2im_core.events import Previewed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from im2im_core.events import Event

GAP = 0.05
"""Space between layers, parts of their width."""
COMPANIONS = ("source", "target")
"""What may lie beside the previews as ``NAME_source.npy`` and ``NAME_target.npy``."""


class PreviewSlider(QWidget):
    """Slider over the steps at which a region was predicted; follows the newest until it is moved back."""

    chosen = Signal(int)
    """Position among the previews."""
    wanted = Signal(bool)
    """Whether the prediction shall be shown in the viewer."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._steps: list[int] = []
        self._box = QCheckBox("Live prediction")
        self._box.setToolTip("Show what the network makes of a validation image, for every step looked at")
        self._box.setChecked(True)
        self._slider = QSlider(Qt.Orientation.Horizontal)
        self._slider.setToolTip("Go back to earlier predictions; at the right end the newest is shown as it comes")
        self._label = QLabel()
        self._label.setMinimumWidth(72)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget, stretch in ((self._box, 0), (self._slider, 1), (self._label, 0)):
            layout.addWidget(widget, stretch)
        self._slider.valueChanged.connect(self._on_value)
        self._box.toggled.connect(self.wanted)
        self.setSteps([])

    def isOn(self) -> bool:
        """Whether the prediction shall be shown."""
        return bool(self._box.isChecked())

    def setOn(self, on: bool) -> None:
        """Switch the prediction on or off."""
        self._box.setChecked(on)

    def value(self) -> int:
        """Position among the previews."""
        return int(self._slider.value())

    def setValue(self, position: int) -> None:
        """Choose a preview."""
        self._slider.setValue(position)

    def setSteps(self, steps: list[int]) -> None:
        """Steps at which there are previews; the newest is chosen where it was before."""
        follows = self.value() >= len(self._steps) - 1
        self._steps = list(steps)
        self._slider.blockSignals(True)
        self._slider.setRange(0, max(0, len(steps) - 1))
        self._slider.setEnabled(len(steps) > 1)
        if follows:
            self._slider.setValue(len(steps) - 1)
        self._slider.blockSignals(False)
        self.setVisible(bool(steps))
        self._label.setText(f"step {steps[self.value()]}" if steps else "")

    def _on_value(self, position: int) -> None:
        if position < len(self._steps):
            self._label.setText(f"step {self._steps[position]}")
            self.chosen.emit(position)


class PreviewLayer:
    """Layers of the viewer that show the previews of one run.

    Files are read one at a time, when their step is looked at. Layers lie to the right
    of everything else, so that nothing of the user's is covered.

    Parameters
    ----------
    viewer : napari.Viewer
        Used in the main thread only.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._folder = Path()
        self._files: dict[int, str] = {}
        self._layer: Any = None
        self._on = True

    @property
    def steps(self) -> list[int]:
        """Steps at which there is a preview."""
        return sorted(self._files)

    def setRun(self, folder: str) -> None:
        """Show another run; the layers of the one before stay as they are."""
        if Path(folder) != self._folder:
            self._folder, self._files, self._layer = Path(folder), {}, None

    def add(self, events: Sequence[Event]) -> bool:
        """Whether there are new previews among `events`; the first region of a run is followed."""
        fresh = {e.step: e.path for e in events if isinstance(e, Previewed) and self._is_own(e.path)}
        self._files.update(fresh)
        return bool(fresh)

    def _is_own(self, path: str) -> bool:
        """Whether a path stays inside the run folder: run folders travel, so events are not trusted."""
        return (self._folder / path).resolve().is_relative_to(self._folder.resolve())

    def setOn(self, on: bool) -> None:
        """Show previews in the viewer, or leave it alone."""
        self._on = on
        if self._layer is not None and self._layer in self._viewer.layers:
            self._layer.visible = on

    def show(self, position: int) -> str:
        """Put the preview at `position` into the viewer; what hinders it, in words, else an empty text."""
        if not self._on or not 0 <= position < len(self._files):
            return ""
        path = self._folder / self._files[self.steps[position]]
        try:
            array = plane_of(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError) as error:
            return f"The preview {path.name} cannot be read: {error}"
        self._put(array)
        return ""

    def _put(self, array: NDArray[Any]) -> None:
        known = self._layer is not None and self._layer in self._viewer.layers
        if known and self._layer.ndim == array.ndim and _is_labels(array) == _is_labels(self._layer.data):
            self._layer.data = array
            return
        offset = self._right_edge()
        for name in COMPANIONS:
            offset = self._put_companion(name, array.ndim, offset)
        self._layer = self._add(array, f"preview of {self._folder.name}", offset)

    def _put_companion(self, name: str, dimensions: int, offset: float) -> float:
        """Where the next layer begins after the image or the target was laid down, if there is one."""
        first = Path(self._files[self.steps[0]])
        path = self._folder / first.parent / f"{first.name.rpartition('_')[0]}_{name}.npy"
        if not path.is_file():
            return offset
        try:
            array = plane_of(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError):
            return offset  # a companion is a comfort; the preview itself says when something is wrong
        if array.ndim != dimensions:
            return offset
        self._add(array, f"{name} of {self._folder.name}", offset)
        return offset + int(array.shape[-1]) * (1 + GAP)

    def _add(self, array: NDArray[Any], name: str, offset: float) -> Any:
        translate = (0.0,) * (array.ndim - 1) + (offset,)
        if _is_labels(array):
            return self._viewer.add_labels(array, name=name, translate=translate)
        return self._viewer.add_image(array, name=name, translate=translate, colormap="gray")

    def _right_edge(self) -> float:
        """Where there is room to the right of all layers."""
        layers = self._viewer.layers
        if not len(layers):
            return 0.0
        low, high = layers.extent.world
        return float(high[-1] + GAP * max(high[-1] - low[-1], 20))


def plane_of(array: NDArray[Any]) -> NDArray[Any]:
    """Result ``(C, [Z], Y, X)`` without an axis of a single channel."""
    return array[0] if array.ndim > 2 and array.shape[0] == 1 else array


def _is_labels(array: NDArray[Any]) -> bool:
    return array.dtype.kind in "iub"
