"""What is known of a model: its card, where it comes from, and how it differs from others."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from im2im_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from im2im_core.models import LocalModel

UNTOLD = ("schema_version", "name", "data.path")
"""Settings that do not say how models differ."""


def card(model: LocalModel) -> dict[str, Any]:
    """All that a person wants to know before using a model, under words to show; what is not known is left out."""
    inference = model.inference
    known = {
        "name": model.name,
        "what it does": model.sentence,
        "notes": model.notes,
        "task": task_words(model),
        "takes": _takes(model),
        "makes": ", ".join(f"{o.name} ({o.kind})" for o in inference.outputs),
        "trained on": model.trained_on,
        "figures": dict(model.metrics),
        "limits": model.not_for,
        "voxel size": _voxel_words(inference.input.voxel_size),
        "object size": f"{inference.input.object_diameter:.3g} px" if inference.input.object_diameter else "",
        "framework": inference.framework.kind,
        "network": getattr(getattr(inference, "network", None), "kind", ""),
        "made": when_words(model.made),
        "licence": model.licence,
        "from": model.place,
        "size": size_words(model.size),
        "path": str(model.path),
    }
    return {name: value for name, value in known.items() if value}


def provenance(model: LocalModel) -> dict[str, Any]:
    """Where a model comes from: its run, recipe, figures, data, versions, and the hash of every file.

    Raises
    ------
    Im2ImError
        The package cannot be read.
    """
    from im2im_core.bundle import open_bundle
    from im2im_core.files import sha256

    bundle = open_bundle(model.path)
    recorded = bundle.provenance
    files = sorted(p for p in bundle.folder.rglob("*") if p.is_file())
    known = {
        "name": model.name,
        "path": str(model.path),
        "hash": bundle.identity,
        "made": when_words(model.made),
        "made by": _made_by(bundle.description, bundle.is_ours),
        "run": model.path.parent.name if model.origin == "run" else "",
        "environment": _environment(model),
        **recorded,
        "files": {p.relative_to(bundle.folder).as_posix(): sha256(p) for p in files},
    }
    return {name: value for name, value in known.items() if value}


@dataclass(frozen=True)
class Comparison:
    """Models side by side."""

    names: tuple[str, ...]
    metrics: dict[str, tuple[float | None, ...]]
    """Figures by name, one per model; None where a model has none."""
    settings: dict[str, tuple[Any, ...]]
    """Settings in which the models differ, by dotted name; None where a model has no such setting."""
    facts: dict[str, tuple[str, ...]]
    """Task, training data, size and the like, in words."""


def compare(models: Sequence[LocalModel]) -> Comparison:
    """Figures of `models` side by side, and the settings in which they differ.

    Raises
    ------
    ConfigError
        There are fewer than two.
    """
    if len(models) < 2:
        raise ConfigError(f"{len(models)} model(s) cannot be compared", "Name two or more")
    figures = [dict(m.metrics) for m in models]
    names = dict.fromkeys(name for each in figures for name in each)
    told = [_settings(m) for m in models]
    keys = [k for k in dict.fromkeys(key for each in told for key in each) if k not in UNTOLD]
    rows = {key: tuple(each.get(key) for each in told) for key in keys}
    cards = [card(m) for m in models]
    words = ("task", "takes", "makes", "trained on", "voxel size", "object size", "made", "size", "from")
    facts = {word: tuple(str(c.get(word, "")) for c in cards) for word in words}
    return Comparison(
        names=tuple(m.name for m in models),
        metrics={name: tuple(each.get(name) for each in figures) for name in names},
        settings={key: row for key, row in rows.items() if len({json.dumps(v, default=str) for v in row}) > 1},
        facts={word: row for word, row in facts.items() if any(row)},
    )


def _settings(model: LocalModel) -> dict[str, Any]:
    """Settings of the recipe that made a model, by dotted names; what prediction needs where there is no recipe."""
    from im2im_core.bundle import open_bundle

    bundle = open_bundle(model.path)
    recipe = bundle.provenance.get("recipe")
    if isinstance(recipe, dict):
        return flat(recipe)
    if bundle.is_ours:
        content = bundle.inference.model_dump(mode="json")
        return flat({k: content[k] for k in ("task", "framework", "network")})
    return {"framework.kind": model.inference.framework.kind}


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names; lists stay whole."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


# ---- words ---------------------------------------------------------------------


def task_words(model: LocalModel) -> str:
    """For example ``instance segmentation 2D``."""
    task = model.inference.task.replace("_", " ") or "image to image"
    return f"{task} {model.inference.shapes.dimensions}D"


def size_words(size: int) -> str:
    """For example ``4.2 MB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes" if size else ""


def when_words(made: float) -> str:
    """For example ``2026-11-21``; empty where it is not known."""
    return time.strftime("%Y-%m-%d", time.localtime(made)) if made else ""


def _takes(model: LocalModel) -> str:
    if model.inputs:
        return " and ".join(f"{i.name} ({_channels(i.channels)})" for i in model.inputs)
    return f"an image with {_channels(model.inference.shapes.input_channels)}"


def _channels(count: int) -> str:
    return f"{count} channel{'s' * (count != 1)}"


def _voxel_words(voxel_size: Sequence[float | None]) -> str:
    return ", ".join(f"{a} {s:.4g} µm" for a, s in zip("ZYX", voxel_size, strict=True) if s)


def _made_by(description: dict[str, Any], ours: bool) -> str:
    names = [str(a.get("name", "")) for a in description.get("authors") or [] if isinstance(a, dict)]
    made = "napari-im2im" if ours else "another tool"
    return ", ".join([*filter(None, names), made])


def _environment(model: LocalModel) -> dict[str, Any]:
    """What the run recorded of its versions, devices and data; empty for models without their run."""
    from im2im_core.files import read_json

    if model.origin != "run":
        return {}
    try:
        content = read_json(model.path.parent / "environment.json")
    except (OSError, ValueError):  # none was written, or it was cut off
        return {}
    return content if isinstance(content, dict) else {}
