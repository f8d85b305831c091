"""What can be done about what a plan complains of: in words, and by a button."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

PATCH_STEP = 16
"""Patches are multiples of this, as most networks need it."""


@dataclass(frozen=True)
class Cure:
    """A cure, and the one thing that its button does."""

    words: str
    button: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Dotted settings that mend it."""
    setting: str = ""
    """Words to find the field with which only a person can mend it."""
    panel: str = ""
    """Panel in which it can be mended."""


def cure_of(code: str, plan: Mapping[str, Any]) -> Cure | None:
    """Cure of the complaint `code` of `plan`; None where there is nothing to press."""
    if code == "no_voxel_size":
        return Cure("Enter it where you know it", "Enter it", setting="voxel size")
    if code == "nothing_labelled":
        return Cure("Label something, or leave these images out", "Open Dataset", panel="Dataset")
    if code == "other_size":
        return Cure("Rescale the images to what it knows, or let it learn the new size", "Rescale", setting="rescale")
    if code == "smaller_than_patch":
        return _smaller_patch(plan)
    return None


def _smaller_patch(plan: Mapping[str, Any]) -> Cure | None:
    """The largest patch that fits into the smallest image; leaving that image out where there is none."""
    patch = plan["recipe"].get("data", {}).get("patch")
    smallest = plan["facts"].get("smallest")
    if not isinstance(patch, list | tuple) or not smallest:
        return None
    pairs = zip(patch, smallest[-len(patch) :], strict=True)
    fitting = [p if n >= p else n // PATCH_STEP * PATCH_STEP for p, n in pairs]
    if 0 in fitting:
        return Cure("Leave the smallest images out", "Open Dataset", panel="Dataset")
    size = " × ".join(map(str, fitting))
    return Cure(f"Use a patch of {size} pixels", "Use a smaller patch", {"data.patch": fitting})
