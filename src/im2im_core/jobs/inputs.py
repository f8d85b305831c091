"""What a run learns from: recorded by its first attempt, read back and compared by every later one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from im2im_core.events import Message
from im2im_core.split import from_outline, outline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from im2im_core.samples import Sample, Split

SHOWN = 5
"""Names that a warning lists."""


def describe_inputs(samples: Sequence[Sample], split: Split, root: Path) -> dict[str, Any]:
    """Which samples and blocks train, validate and test, and the identity of every file, as plain content.

    Parameters
    ----------
    root : path
        The project; what lies in it is named relative to it, so that a project can be moved.
    """
    return {"split": outline(split), "files": {s.name: identities(s, root) for s in samples}}


def identities(sample: Sample, root: Path) -> dict[str, str]:
    """Role -> text that changes when the file of this role may have changed."""
    images = {"image": sample.source, **sample.targets, "weight": sample.weight}
    return {role: image.info.identity.replace(str(root), "") for role, image in images.items() if image is not None}


def recorded_split(
    content: Mapping[str, Any], samples: Sequence[Sample], root: Path
) -> tuple[Split, Message | None] | None:
    """Split that `content` records and a warning about images that are not as they were; None where it records none.

    Raises
    ------
    DataError
        The images that are there cannot be split in this way.
    """
    if not {"split", "files"} <= content.keys():
        return None
    return from_outline(content["split"], samples), _differences(content["files"], samples, root)


def _differences(files: Mapping[str, Mapping[str, str]], samples: Sequence[Sample], root: Path) -> Message | None:
    now = {s.name: identities(s, root) for s in samples}
    changed = [
        f"{name} ({role})"
        for name in files.keys() & now.keys()
        for role in files[name].keys() | now[name].keys()
        if files[name].get(role) != now[name].get(role)
    ]
    new, gone = [n for n in now if n not in files], [n for n in files if n not in now]
    found = {"changed": changed, "new and not used": new, "gone": gone}
    texts = [f"{len(names)} {what}: {_list(names)}" for what, names in found.items() if names]
    if not texts:
        return None
    return Message(
        f"Images are not as they were when this run began; {'; '.join(texts)}",
        "warning",
        "Start a new run to learn from the images as they are now",
        "data_changed",
    )


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(sorted(names)[:SHOWN]) + more
