"""Results that fill while they are computed: layers over mapped files, redrawn at most ten times per second."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.compat import isalive
from qtpy.QtCore import QObject, QTimer

from napari_im2im._endings import when_destroyed
from napari_im2im._layers import ResultSpec, add_result, result_axes, squeeze_result

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer
    from numpy.typing import NDArray

    from im2im_core.events import OutputBegun, TileDone
    from napari_im2im._layers import Snapshot
    from napari_im2im._predict_job import Result

REDRAW_MILLISECONDS = 100
LONGEST_MILLISECONDS = 1000
SHARE = 5
"""The main thread spends at most about one part in so many on redrawing."""
UNFINISHED = " (unfinished)"


@dataclass
class _Output:
    """One result on its way."""

    spec: ResultSpec
    path: str
    array: NDArray[Any]
    main: bool
    layer: Layer | None = None
    limits: tuple[float, float] | None = None
    fresh: list[tuple[slice, ...]] = field(default_factory=list)
    """Tiles that are final and not drawn yet."""


class LiveResults(QObject):
    """The layers of one prediction.

    A layer appears with its first tile. Layers that the user deletes meanwhile stay deleted. When this
    object dies before `finish` or `stop`, its layers are settled as unfinished ones.

    Parameters
    ----------
    main : str
        Output whose layer needs no name of its own.
    facts : dict
        What was asked, kept with the layers.
    """

    def __init__(
        self,
        viewer: Viewer,
        source: Snapshot,
        model: str,
        main: str,
        facts: dict[str, Any],
        parent: QObject | None = None,
    ) -> None:
        from napari_im2im._journal_watch import main_window

        super().__init__(parent)
        drawing = self._drawing = _Drawing(viewer, source, model, main, facts)
        window = main_window(viewer)
        when_destroyed(self, lambda: drawing.abandon(window))
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REDRAW_MILLISECONDS)
        self._timer.timeout.connect(self.redraw)

    def begin(self, event: OutputBegun) -> None:
        """Map the file of a result."""
        self._drawing.begin(event)

    def take(self, event: TileDone) -> None:
        """Note a tile; it is drawn soon."""
        if self._drawing.take(event) and not self._timer.isActive():
            self._timer.start()

    def redraw(self) -> None:
        """Show the tiles that came since the last time."""
        spent = self._drawing.show_fresh()
        wanted = max(REDRAW_MILLISECONDS, round(SHARE * 1000 * spent))
        self._timer.setInterval(min(wanted, LONGEST_MILLISECONDS))

    def finish(self, result: Result) -> dict[str, Layer]:
        """Layers of the complete results by name; their pixels can be painted on from now on."""
        self._timer.stop()
        facts = {str(layer["name"]): dict(layer.get("facts") or {}) for layer in result.layers}
        return self._drawing.settle(facts, "")

    def stop(self) -> dict[str, Layer]:
        """Layers with what was final when the prediction ended early; none without a tile."""
        self._timer.stop()
        return self._drawing.settle({}, UNFINISHED)


class _Drawing:
    """Results and their layers; nothing of Qt, so that it can still put things right when the panel is gone."""

    def __init__(self, viewer: Viewer, source: Snapshot, model: str, main: str, facts: dict[str, Any]) -> None:
        self._viewer, self._source, self._model, self._main, self._facts = viewer, source, model, main, facts
        self._outputs: dict[str, _Output] = {}

    def begin(self, event: OutputBegun) -> None:
        """Map the file of a result."""
        array = np.load(event.path, mmap_mode="r", allow_pickle=False)
        spec = ResultSpec.from_facts(event.facts)
        self._outputs[event.output] = _Output(spec, event.path, array, event.output == self._main)

    def take(self, event: TileDone) -> bool:
        """Whether the tile belongs to a result; it is noted then."""
        output = self._outputs.get(event.output)
        if output is not None:
            output.fresh.append(tuple(slice(a, b) for a, b in zip(event.start, event.stop, strict=True)))
        return output is not None

    def show_fresh(self) -> float:
        """Seconds that drawing the new tiles took; making a layer happens only once and does not count."""
        spent = 0.0
        for output in self._outputs.values():
            if output.fresh:
                known, began = output.layer is not None, time.monotonic()
                self._show(output)
                spent += (time.monotonic() - began) * known
        return spent

    def settle(self, facts: dict[str, dict[str, Any]], suffix: str) -> dict[str, Layer]:
        """Layers as they stay: with pixels of their own that can be painted on, and whether they are complete."""
        found = {}
        for name, output in self._outputs.items():
            if output.fresh or (output.layer is None and not suffix):
                self._show(output)
            layer = output.layer
            if layer is None or layer not in self._viewer.layers:
                continue
            array = _own_pages(output)
            layer.data = squeeze_result(array, result_axes(output.spec, array.shape))
            layer.editable = True
            _apply_limits(output)
            told = {**layer.metadata["im2im"], **facts.get(name, {}), "finished": not suffix}
            layer.metadata = {**layer.metadata, "im2im": told}
            layer.name = f"{layer.name}{suffix}"
            layer.refresh()
            found[name] = layer
        self._outputs.clear()
        return found

    def abandon(self, window: QObject | None) -> None:
        """Settle what is still open as unfinished, unless the viewer ends with its `window`."""
        if window is not None and isalive(window):
            # A first tile that was never drawn makes no layer any more: nobody has seen it.
            self._outputs = {name: output for name, output in self._outputs.items() if output.layer is not None}
            self.settle({}, UNFINISHED)

    def _show(self, output: _Output) -> None:
        _widen_limits(output)
        if output.layer is None:
            facts = {**self._facts, "main": output.main, "kind": output.spec.kind, "finished": False}
            output.layer = add_result(self._viewer, output.array, output.spec, self._source, self._model, facts)
            output.layer.editable = False  # a stroke would meet the next tile, and what is mapped cannot be written to
            _apply_limits(output)
        elif output.layer in self._viewer.layers:
            _apply_limits(output)
            output.layer.refresh(extent=False, thumbnail=False, highlight=False)
        output.fresh.clear()


def _own_pages(output: _Output) -> NDArray[Any]:
    """The pixels in private pages: painting changes the layer alone, and an untouched file costs no memory."""
    try:
        pages: NDArray[Any] = np.load(output.path, mmap_mode="c", allow_pickle=False)
    except OSError:  # the file is deleted already; what is mapped can still be read
        pages = np.array(output.array)
    return pages


def _widen_limits(output: _Output) -> None:
    if output.spec.kind != "image":
        return
    low, high = output.limits or (np.inf, -np.inf)
    for tile in output.fresh:
        pixels = output.array[tile]
        low, high = min(low, float(np.nanmin(pixels))), max(high, float(np.nanmax(pixels)))
    if low < high:
        output.limits = (low, high)


def _apply_limits(output: _Output) -> None:
    if output.limits and output.layer is not None and tuple(output.layer.contrast_limits) != output.limits:
        output.layer.contrast_limits_range = output.limits
        output.layer.contrast_limits = output.limits
