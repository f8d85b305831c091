"""Shows one pair in the viewer: its own layers and no other pair's, or the images of its files in two layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_im2im._dataset_layers import pixels_of, world_of
from napari_im2im._dataset_work import Work
from napari_im2im._layers import OURS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari
    from napari.layers import Layer

    from napari_im2im._dataset_rows import PairRow
    from napari_im2im._layer_pairs import LayerPair

PREVIEW = "preview"
"""What our own layers are."""


class Preview(QObject):
    """One pair at a time; files are read in a thread, and the same two layers are used for all of them."""

    def __init__(self, viewer: napari.Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layers: list[Layer] = []
        self.work = Work(self)
        self.work.done.connect(self._on_read)

    def show(self, row: PairRow, rows: Sequence[PairRow], *, labels: bool) -> None:
        """Show `row` of `rows`; `labels` says whether targets are labels."""
        if row.layers:
            self._show_layers(row.layers, rows)
        elif row.sample:
            sample = row.sample
            self.work.start("show", lambda tell, stop: (sample, labels, *pixels_of(sample)))

    def _show_layers(self, pair: LayerPair, rows: Sequence[PairRow]) -> None:
        """Hide the layers of all other pairs."""
        own = {*pair.images, pair.target}
        for row in rows:
            for layer in (*row.layers.images, row.layers.target) if row.layers else ():
                layer.visible = layer in own
        for preview in self._layers:
            preview.visible = False
        self._viewer.layers.selection.active = pair.target

    def _on_read(self, name: str, result: Any) -> None:
        sample, is_labels, axes, source, target, limits = result
        for layer in [layer for layer in self._layers if layer in self._viewer.layers]:
            self._viewer.layers.remove(layer)
        look = {**world_of(sample.source.info, axes[0]), "metadata": {OURS: PREVIEW}}
        image = self._viewer.add_image(source, name=f"{sample.name} (image)", contrast_limits=limits, **look)
        self._layers = [image]
        if target is not None:
            look = {**world_of(sample.source.info, axes[1]), "metadata": {OURS: PREVIEW}}
            shown = f"{sample.name} (target)"
            is_whole = target.dtype.kind in "bui"
            add = self._viewer.add_labels if is_labels and is_whole else self._viewer.add_image
            self._layers.append(add(target, name=shown, opacity=0.5, **look))
        self._viewer.reset_view()
