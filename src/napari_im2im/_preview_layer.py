"""The live prediction of one region: one layer whose content is any step of the run, beside image and target."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QLabel, QSlider, QWidget

from im2im_core.events import Previewed
from napari_im2im._layers import OURS, is_image_layer, is_users

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from im2im_core.events import Event

GAP = 0.05
"""Space between layers, parts of their width."""
COMPANIONS = ("source", "target")
"""What may lie beside the previews as ``NAME_source.npy`` and ``NAME_target.npy``."""
FIRST = "preview"
"""Name of the region that every run shows: of the first image that validates."""
SHOWS = "im2im_preview"
"""Key in the metadata of our layers: run, region and role; who opens the panel again finds them by it."""
Key = tuple[Path, str]
"""Folder of a run and name of a region."""


class PreviewSlider(QWidget):
    """Slider over the steps at which a region was predicted; follows the newest until it is moved back."""

    chosen = Signal(int)
    """Position among the previews."""
    wanted = Signal(bool)
    """Whether the prediction shall be shown in the viewer."""
    regionChosen = Signal(str)
    """Name of the region to show."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._steps: list[int] = []
        self._box = QCheckBox("Live prediction")
        self._box.setToolTip(
            "Show what the network makes of a validation image, for every step looked at; "
            "it lies to the right of your images, and napari's house button brings it into view"
        )
        self._box.setChecked(True)
        self._slider = QSlider(Qt.Orientation.Horizontal)
        self._slider.setToolTip("Go back to earlier predictions; at the right end the newest is shown as it comes")
        self._slider.setAccessibleName("Step of the prediction that is shown")
        self._region = QComboBox()
        self._region.setToolTip("Which of the watched regions is shown")
        self._region.setAccessibleName("Watched region")
        self._region.hide()
        self._label = QLabel()
        self._label.setMinimumWidth(72)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget, stretch in ((self._box, 0), (self._region, 0), (self._slider, 1), (self._label, 0)):
            layout.addWidget(widget, stretch)
        self._slider.valueChanged.connect(self._on_value)
        self._box.toggled.connect(self.wanted)
        self._region.activated.connect(lambda index: self.regionChosen.emit(self._region.itemData(index)))
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

    def setRegions(self, names: list[str], chosen: str) -> None:
        """Regions to choose from; the choice is seen where there are several."""
        self._region.clear()
        for name in names:
            self._region.addItem("validation image" if name == FIRST else name.replace("-", " "), name)
        self._region.setCurrentIndex(self._region.findData(chosen))
        self._region.setVisible(len(names) > 1)

    def _on_value(self, position: int) -> None:
        if position < len(self._steps):
            self._label.setText(f"step {self._steps[position]}")
            self.chosen.emit(position)


class PreviewLayer(QObject):
    """Layers of the viewer that show the previews of runs; each run and region keeps its own.

    Files are read one at a time, when their step is looked at. Layers lie to the right
    of everything else, so that nothing of the user's is covered.

    Parameters
    ----------
    viewer : napari.Viewer
        Used in the main thread only.
    """

    removed = Signal()
    """The prediction that is shown was taken out of the viewer by somebody else."""

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = viewer
        self._folder = Path()
        self._files: dict[Key, dict[int, str]] = defaultdict(dict)
        self._layers: dict[tuple[Path, str, str], Any] = {}
        self._names: dict[Path, str] = {}
        self._voxel_size: dict[Path, Sequence[float | None]] = {}
        self._on = True
        viewer.layers.events.removed.connect(self._on_removed)

    # ---- what there is ----

    @property
    def name(self) -> str:
        """Region that is shown."""
        return self._names.get(self._folder, FIRST)

    @property
    def names(self) -> list[str]:
        """Regions of the run that have a preview, in the order in which they came."""
        return [name for folder, name in self._files if folder == self._folder]

    @property
    def steps(self) -> list[int]:
        """Steps at which there is a preview of the region."""
        return sorted(self._files.get((self._folder, self.name), ()))

    def setRun(self, folder: str) -> None:
        """Show another run; the layers of the one before stay as they are."""
        self._folder = Path(folder)

    def setRegion(self, name: str) -> None:
        """Show another region of the run."""
        self._names[self._folder] = name

    def setVoxelSize(self, folder: str, size: Sequence[float | None]) -> bool:
        """Take note of the voxel size Z, Y, X of the previews of a run, micrometres; whether it was not known yet."""
        fresh = Path(folder) not in self._voxel_size
        self._voxel_size[Path(folder)] = size
        return fresh

    def add(self, events: Sequence[Event]) -> bool:
        """Whether there are new previews among `events`; a region that is new is shown from now on."""
        fresh = [e for e in events if isinstance(e, Previewed) and self._is_own(e.path)]
        for event in fresh:
            if (self._folder, event.name) not in self._files:
                self._names[self._folder] = event.name
            self._files[self._folder, event.name][event.step] = event.path
        return bool(fresh)

    def _is_own(self, path: str) -> bool:
        """Whether a path stays inside the run folder: run folders travel, so events are not trusted."""
        return (self._folder / path).resolve().is_relative_to(self._folder.resolve())

    # ---- in the viewer ----

    def is_shown(self, folder: str) -> bool:
        """Whether the viewer has layers of the run in `folder`."""
        return any((layer.metadata.get(SHOWS) or {}).get("run") == folder for layer in self._viewer.layers)

    def setOn(self, on: bool) -> None:
        """Show previews in the viewer, or leave it alone."""
        self._on = on
        layer = self._layer("preview")
        if layer is not None:
            layer.visible = on

    def leave_out(self, step: int) -> None:
        """Forget the preview of a step of the region that is shown."""
        self._files[self._folder, self.name].pop(step, None)

    def show(self, position: int) -> str:
        """Put the preview at `position` into the viewer; what hinders it, in words, else an empty text.

        Before the voxel size of the run is known, nothing is shown: it would have the wrong size.
        """
        if not self._on or self._folder not in self._voxel_size or not 0 <= position < len(self.steps):
            return ""
        path = self._folder / self._files[self._folder, self.name][self.steps[position]]
        try:
            array = plane_of(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError) as error:
            return f"The preview {path.name} cannot be read: {error}"
        self._put(array)
        return ""

    def _layer(self, what: str) -> Any:
        """Layer of the region that is shown: preview, source or target; None where it is not in the viewer.

        Layers that a panel before this one left in the viewer are taken over.
        """
        key = (self._folder, self.name, what)
        if key not in self._layers:
            shows = self._shows(what)
            left = next((layer for layer in self._viewer.layers if layer.metadata.get(SHOWS) == shows), None)
            if left is None:
                return None
            self._layers[key] = left
        return self._layers[key]

    def _shows(self, what: str) -> dict[str, str]:
        """What a layer of the region that is shown carries in its metadata."""
        return {"run": str(self._folder), "region": self.name, "role": what}

    def _on_removed(self, event: Any) -> None:
        """Forget a layer that is gone; when it was the one that is shown, nobody wants it for now."""
        key = next((key for key, layer in self._layers.items() if layer is event.value), None)
        if key is None:
            return
        del self._layers[key]
        if key == (self._folder, self.name, "preview"):
            self.removed.emit()

    def _put(self, array: NDArray[Any]) -> None:
        layer = self._layer("preview")
        if layer is not None and layer.ndim == array.ndim and _is_labels(array) == _is_labels(layer.data):
            layer.data = array
            return
        offset = self._right_edge(array.ndim)
        for what in COMPANIONS:
            if self._layer(what) is None:
                offset = self._put_companion(what, array.ndim, offset)
        self._add(array, "preview", offset)

    def _put_companion(self, what: str, dimensions: int, offset: float) -> float:
        """Where the next layer begins after the image or the target was laid down, if there is one."""
        first = Path(self._files[self._folder, self.name][self.steps[0]])
        path = self._folder / first.parent / f"{first.name.rpartition('_')[0]}_{what}.npy"
        if not path.is_file():
            return offset
        try:
            array = plane_of(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError):
            return offset  # a companion is a comfort; the preview itself says when something is wrong
        if array.ndim != dimensions:
            return offset
        width = int(array.shape[-1]) * float(self._add(array, what, offset).scale[-1])
        return offset + width * (1 + GAP)

    def _add(self, array: NDArray[Any], what: str, offset: float) -> Any:
        title = what if self.name == FIRST else f"{what} of {self.name.replace('-', ' ')}"
        look: dict[str, Any] = {
            **self._space(array.ndim, offset),
            "name": f"{title} of {self._folder.name}",
            "metadata": {OURS: "preview", SHOWS: self._shows(what)},
        }
        key = (self._folder, self.name, what)
        if what != "source" and _is_labels(array):  # a source of whole numbers is an image all the same
            self._layers[key] = self._viewer.add_labels(array, **look)
        else:
            self._layers[key] = self._viewer.add_image(array, colormap="gray", **look)
        return self._layers[key]

    # ---- where ----

    def _space(self, dimensions: int, offset: float) -> dict[str, Any]:
        """Scale, translate and units of a layer that begins at `offset`: those of the user's image where there is one.

        A unit of length beside a pixel would leave napari without any common unit.
        """
        like = self._users_image()
        size = [float(s) for s in self._voxel_size.get(self._folder, ())[-dimensions:] if s]
        if like is None or (len(size) == dimensions and _has_length(like)):
            known = len(size) == dimensions
            scale = size if known else [1.0] * dimensions
            units = ["micrometer" if known else "pixel"] * dimensions
        else:
            scale = _last(like.scale, dimensions, 1.0)
            units = _last([str(u) for u in like.units], dimensions, str(like.units[-1]))
        start = [0.0] * (dimensions - 1) if like is None else _last(like.translate, dimensions, 0.0)[:-1]
        return {"scale": scale, "units": units, "translate": [*start, offset]}

    def _users_image(self) -> Any:
        """Image of the user beside which previews lie."""
        return next((layer for layer in self._viewer.layers if is_image_layer(layer) and is_users(layer)), None)

    def _right_edge(self, dimensions: int) -> float:
        """Where there is room to the right of all layers."""
        layers = self._viewer.layers
        if not len(layers):
            return 0.0
        low, high = layers.extent.world
        pixel = float(self._space(dimensions, 0.0)["scale"][-1])
        return float(high[-1] + GAP * max(high[-1] - low[-1], 20 * pixel))


def plane_of(array: NDArray[Any]) -> NDArray[Any]:
    """Result ``(C, [Z], Y, X)`` without an axis of a single channel."""
    return array[0] if array.ndim > 2 and array.shape[0] == 1 else array


def _is_labels(array: NDArray[Any]) -> bool:
    return array.dtype.kind in "iub"


def _has_length(layer: Any) -> bool:
    """Whether the layer has a unit of length along Y and X."""
    return all(str(unit) not in ("pixel", "dimensionless") for unit in layer.units[-2:])


def _last(values: Any, count: int, fill: Any) -> list[Any]:
    """The last `count` of `values`, `fill` in front where there are fewer."""
    found = list(values)[-count:]
    return [fill] * (count - len(found)) + found
