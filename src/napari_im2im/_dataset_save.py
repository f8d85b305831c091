"""Saving the pairs of the table: what is needed of them is taken at once, the pixels are read in a thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from napari_im2im._dataset_layers import held, same_pixels
from napari_im2im._dataset_rows import as_saved
from napari_im2im._layer_pairs import file_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from im2im_core.datasets import DatasetEntry
    from im2im_core.project import Project
    from napari_im2im._dataset_rows import PairRow


@dataclass(frozen=True)
class Saving:
    """What is to be saved."""

    rows: Sequence[PairRow]
    name: str
    """Named after the images where empty."""
    task: str
    labelling: Literal["dense", "sparse"]
    regions: Mapping[str, list[Any]] = field(default_factory=dict)
    """Name of a row -> where its labels are complete."""
    prefilled: frozenset[str] = frozenset()
    """Names of rows whose labels began as a prediction."""

    def save(self, project: Project, tell: Any, stop: Any) -> tuple[DatasetEntry, list[str]]:
        """Saved data set, and names of the rows whose layers still hold what was saved; not for the main thread."""
        from im2im_core.datasets import save_dataset
        from im2im_core.samples import TARGET

        rows = self.rows
        content = as_saved(rows)
        files = {r.name: (file_of(r.layers.images[0]), file_of(r.layers.target)) for r in rows if r.layers}
        samples = [held(s, *files[s.name]) if s.name in files else s for s in content["samples"]]
        entry = save_dataset(
            project,
            self.name.strip() or (rows[0].name if len(rows) == 1 else f"{len(rows)} pairs"),
            samples,
            content["parts"],
            self.labelling,
            task=self.task,
            regions={name: found for name, found in self.regions.items() if found},
            prefilled=self.prefilled,
            objects=content["objects"],
            excluded=content["excluded"],
            on_event=tell,
            should_stop=stop,
        )
        # What was painted meanwhile is not in it and stays in the journal.
        live = {sample.name: sample.targets[TARGET] for sample in content["samples"] if sample.name in files}
        same = [s.name for s in samples if s.name in live and same_pixels(s.targets[TARGET], live[s.name])]
        return entry, same
