"""Complete regions: Shapes inside which everything is labelled; drawn, taken over, and followed as they change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.compat import isalive
from qtpy.QtCore import QObject, Signal

from napari_im2im._layer_pairs import (
    COMPLETE,
    LABELS_OF,
    adopt,
    adoptable_regions,
    is_guess,
    is_prefilled,
    kind_of,
    polygons_of,
    region_layers,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari
    from napari.layers import Layer
    from qtpy.QtWidgets import QCheckBox

    from napari_im2im._dataset_rows import PairRow
    from napari_im2im._dataset_said import Said
    from napari_im2im._dataset_table import TableRows
    from napari_im2im._layer_pairs import LayerPair


class Regions(QObject):
    """Regions of the labels in the table.

    Parameters
    ----------
    complete : check box
        Whether the regions count for labels that are no corrected prediction; for those they always do.
    """

    changed = Signal()
    """Another part of a corrected prediction counts."""

    def __init__(
        self, viewer: napari.Viewer, rows: TableRows, complete: QCheckBox, said: Said, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._viewer, self._rows, self._complete, self._said = viewer, rows, complete, said
        self._known: set[Any] = set()

    def follow(self) -> None:
        """Hear of every change of the regions, whoever drew them and whenever."""
        shapes = region_layers(self._viewer)
        for layer in shapes:
            layer.events.data.connect(self._on_change)  # the same listener is kept once
        known = {layer.unique_id for layer in shapes}
        if known != self._known:
            self._known = known
            self._on_change()

    def _on_change(self, event: Any = None) -> None:
        if isalive(self) and self._rows.guesses():  # the viewer does not know that this was deleted
            self.changed.emit()

    def polygons(self, pair: LayerPair) -> list[Any]:
        """Complete regions of a pair; those of prefilled labels count in any case, as nothing else does."""
        if kind_of(pair.target) != "labels" or not (self._complete.isChecked() or is_prefilled(pair.target)):
            return []
        return polygons_of(region_layers(self._viewer), pair.target)

    def complete(self, on: bool) -> None:
        """Take the shapes that are drawn for the regions; where there are none, let the user draw one."""
        if not on:
            return
        self._adopt()
        if not any(len(layer.data) for layer in region_layers(self._viewer)):
            self.draw()

    def all_drawn(self, rows: Sequence[PairRow]) -> bool:
        """Whether every used row that began as a prediction has a region; else the user is asked for one."""
        guesses = [(row.name, row.layers) for row in rows if row.used and row.layers and is_guess(row.layers)]
        lacking = [(name, pair) for name, pair in guesses if not self.polygons(pair)]
        if not lacking:
            return True
        text = f"{lacking[0][0]}: nothing says yet which part of the prediction is corrected"
        cure = "Only what lies inside a rectangle is learned from"
        drawn = adoptable_regions(self._viewer, [pair.target for _, pair in lacking])
        if drawn:
            self._said.say(text, "warning", cure, f"Take the shapes of “{drawn[0].name}”", self._take_shapes)
        else:
            self._said.say(text, "warning", cure, "Draw the rectangle", self.draw)
        return False

    def draw(self) -> None:
        """Let the user draw a rectangle in the Shapes layer of the selected or first painted pair."""
        chosen = self._chosen_labels()
        if chosen is None:
            return
        key = chosen.unique_id.hex
        shapes = next((s for s in region_layers(self._viewer) if s.metadata.get(LABELS_OF) == key), None)
        if shapes is None:
            shapes = self._viewer.add_shapes(
                ndim=chosen.ndim,
                name=f"complete regions of {chosen.name}",
                scale=chosen.scale,
                translate=chosen.translate,
                units=chosen.units,
                edge_color="yellow",
                face_color="transparent",
                edge_width=1,
                metadata={COMPLETE: True, LABELS_OF: key},
            )
            self.follow()
        self._complete.setChecked(True)
        self._viewer.layers.selection.active = shapes
        shapes.mode = "add_rectangle"

    def _chosen_labels(self) -> Layer | None:
        """Labels of the selected row, else of the first prediction that is corrected, else of any row."""
        rows = self._rows.all()
        chosen = [*(rows[i] for i in self._rows.table.chosen()), *self._rows.guesses(), *rows]
        return next((r.layers.target for r in chosen if r.layers and kind_of(r.layers.target) == "labels"), None)

    def _take_shapes(self) -> None:
        self._complete.setChecked(True)
        self._adopt()

    def _adopt(self) -> None:
        for shapes in adoptable_regions(self._viewer, self._rows.labels()):
            adopt(shapes)
            self._said.bar.add(f"Everything inside the shapes of “{shapes.name}” is taken for labelled", "info")
        self.follow()
