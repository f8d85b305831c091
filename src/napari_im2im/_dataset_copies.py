"""What a collection of pairs is in other words: as command, YAML, Python and a sentence for the paper."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_im2im._dataset_rows import PairRow
    from napari_im2im._dataset_source import Corrections

PRESETS = {
    "instance_segmentation": "instance_seg",
    "semantic_segmentation": "semantic_seg",
    "label_free": "labelfree",
    "restoration": "restoration",
}
"""Task of the recipe -> how names of its presets begin."""


def copies(path: Path, task: str, rows: Sequence[PairRow], corrections: Corrections) -> dict[str, str]:
    """Texts for `CopyMenu`: check and train on the folder, table or saved data set at `path`."""
    from im2im_core import api, share

    depths = [row.sample.source.info.shape[2] for row in rows if row.sample]
    preset = f"{PRESETS[task]}_{3 if max(depths, default=1) > 1 else 2}d"
    settings: dict[str, Any] = {
        "data.axes": corrections.axes,
        "data.input_channels": list(corrections.channels) if corrections.channels else None,
        "data.voxel_size": list(corrections.voxel_size) if corrections.voxel_size else None,
    }
    known = {key: value for key, value in settings.items() if value is not None}
    recipe = api.load_preset(preset).override({"data.path": str(path), **known})
    train = share.as_command(recipe, preset)
    check = shlex.join(["im2im", "check", str(path), "--task", task])
    return {
        "command": f"{check}\n{train}",
        "yaml": share.as_yaml(recipe),
        "python": share.as_python(recipe, preset),
        "methods": methods(task, rows),
    }


def methods(task: str, rows: Sequence[PairRow]) -> str:
    """What was learned from and what was held back, as a sentence."""
    used = [row for row in rows if row.used and row.sample]
    counts = {part: sum(row.part == part for row in used) for part in ("train", "validation", "test", "strip")}
    objects = sum(row.facts.labels.objects or 0 for row in used if row.facts and row.facts.labels)
    kind = "images with labels" if task.endswith("segmentation") else "pairs of images"
    counted = f" ({objects} labelled objects)" if objects else ""
    groups = len({row.group for row in used})
    parts = [
        f"{counts['train'] + counts['strip']} for training",
        f"{counts['validation']} for validation" if counts["validation"] else "",
        f"{counts['test']} for testing" if counts["test"] else "",
    ]
    strip = f" Of {counts['strip']} of them a strip was held back for validation." if counts["strip"] else ""
    together = f" Images of the same specimen ({groups} specimens) were kept together." if groups < len(used) else ""
    return f"{len(used)} {kind}{counted} were used: {', '.join(p for p in parts if p)}.{strip}{together}"
