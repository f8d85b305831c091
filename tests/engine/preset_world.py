"""A preset made small and trained for two steps on simulated images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from im2im_core import api
from im2im_core.microscope import write_dataset
from im2im_core.project import Project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from im2im_core.events import Event
    from im2im_core.runs import Run

PRESETS = sorted(p.name for p in api.list_presets())
SHAPES = {2: (48, 64), 3: (12, 40, 36)}
"""Size of the images, by their dimensions."""
SMALLER: dict[str, dict[str, Any]] = {
    "basic_unet": {"network.features": [8, 8, 8, 16, 16, 8]},
    "dynunet": {"network.filters": [8, 8, 8]},
    "unet": {"network.channels": [8, 8, 8]},
}


def train_small(
    folder: Path, preset: str, on_event: Callable[[Event], None] | None = None, changes: dict[str, Any] | None = None
) -> Run:
    """Run of `preset` with `changes`, on images in ``folder/data``."""
    recipe = api.load_preset(preset)
    dimensions = recipe.data.dimensions
    write_dataset(folder / "data", recipe.task, count=3, shape=SHAPES[dimensions], seed=1, dimensions=dimensions)
    recipe = recipe.override(
        {
            **SMALLER[recipe.network.kind],
            "data.path": str(folder / "data"),
            "training.steps": 2,
            "training.batch": 2,
            "data.patch": [32, 32] if dimensions == 2 else [8, 32, 32],
            "training.device": "cpu",
            "logging.every": 1,
            **(changes or {}),
        }
    )
    return api.train(recipe, project=Project.create(folder / "project"), name="small", on_event=on_event)
