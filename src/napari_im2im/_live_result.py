"""Results that fill while they are computed: layers over mapped files, redrawn at most ten times per second."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer

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

    A layer appears with its first tile. Layers that the user deletes meanwhile stay deleted.

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
        super().__init__(parent)
        self._viewer, self._source, self._model, self._main, self._facts = viewer, source, model, main, facts
        self._outputs: dict[str, _Output] = {}
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REDRAW_MILLISECONDS)
        self._timer.timeout.connect(self.redraw)

    def begin(self, event: OutputBegun) -> None:
        """Map the file of a result."""
        array = np.load(event.path, mmap_mode="r", allow_pickle=False)
        spec = ResultSpec.from_facts(event.facts)
        self._outputs[event.output] = _Output(spec, event.path, array, event.output == self._main)

    def take(self, event: TileDone) -> None:
        """Note a tile; it is drawn soon."""
        output = self._outputs.get(event.output)
        if output is not None:
            output.fresh.append(tuple(slice(a, b) for a, b in zip(event.start, event.stop, strict=True)))
            if not self._timer.isActive():
                self._timer.start()

    def redraw(self) -> None:
        """Show the tiles that came since the last time."""
        spent = 0.0
        for output in self._outputs.values():
            if output.fresh:
                known, began = output.layer is not None, time.monotonic()
                self._show(output)
                spent += (time.monotonic() - began) * known  # making a layer happens only once
        wanted = max(REDRAW_MILLISECONDS, round(SHARE * 1000 * spent))
        self._timer.setInterval(min(wanted, LONGEST_MILLISECONDS))

    def finish(self, result: Result) -> dict[str, Layer]:
        """Layers of the complete results by name; their pixels can be painted on from now on."""
        facts = {str(layer["name"]): dict(layer.get("facts") or {}) for layer in result.layers}
        return self._settle(facts, "")

    def stop(self) -> dict[str, Layer]:
        """Layers with what was final when the prediction ended early; none without a tile."""
        return self._settle({}, UNFINISHED)

    # ---- drawing ----

    def _show(self, output: _Output) -> None:
        self._widen_limits(output)
        if output.layer is None:
            facts = {**self._facts, "main": output.main, "kind": output.spec.kind}
            output.layer = add_result(self._viewer, output.array, output.spec, self._source, self._model, facts)
            self._apply_limits(output)
        elif output.layer in self._viewer.layers:
            self._apply_limits(output)
            output.layer.refresh(extent=False, thumbnail=False, highlight=False)
        output.fresh.clear()

    def _widen_limits(self, output: _Output) -> None:
        if output.spec.kind != "image":
            return
        low, high = output.limits or (np.inf, -np.inf)
        for tile in output.fresh:
            pixels = output.array[tile]
            low, high = min(low, float(np.nanmin(pixels))), max(high, float(np.nanmax(pixels)))
        if low < high:
            output.limits = (low, high)

    @staticmethod
    def _apply_limits(output: _Output) -> None:
        if output.limits and output.layer is not None and tuple(output.layer.contrast_limits) != output.limits:
            output.layer.contrast_limits_range = output.limits
            output.layer.contrast_limits = output.limits

    def _settle(self, facts: dict[str, dict[str, Any]], suffix: str) -> dict[str, Layer]:
        self._timer.stop()
        found = {}
        for name, output in self._outputs.items():
            if output.fresh or (output.layer is None and not suffix):
                self._show(output)
            layer = output.layer
            if layer is None or layer not in self._viewer.layers:
                continue
            # Private pages: painting changes the layer alone, and an untouched file costs no memory.
            array = np.load(output.path, mmap_mode="c", allow_pickle=False)
            layer.data = squeeze_result(array, result_axes(output.spec, array.shape))
            self._apply_limits(output)
            told = {**layer.metadata["im2im"], **facts.get(name, {}), "finished": not suffix}
            layer.metadata = {**layer.metadata, "im2im": told}
            layer.name = f"{layer.name}{suffix}"
            layer.refresh()
            found[name] = layer
        self._outputs.clear()
        return found
