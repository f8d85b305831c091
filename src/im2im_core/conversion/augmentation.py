"""The augmentation of the file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from im2im_core.recipe.classpath import ClassPath
from im2im_core.recipe.data import AugmentSettings

if TYPE_CHECKING:
    from im2im_core.conversion.notes import Notes
    from im2im_core.conversion.source import Named

INTENSITY = (
    "RandAdjustContrast",
    "RandBiasField",
    "RandGaussianNoise",
    "RandGaussianSharpen",
    "RandGaussianSmooth",
    "RandGibbsNoise",
    "RandHistogramShift",
    "RandKSpaceSpikeNoise",
    "RandRicianNoise",
    "RandScaleIntensity",
    "RandShiftIntensity",
    "RandStdShiftIntensity",
)
"""Transforms of MONAI that change values and leave pixels in place: they are named by their import path."""
BENDING = ("RandAffine", "Rand2DElastic", "Rand3DElastic")
"""Transforms of which rotation and magnification have a counterpart."""


@dataclass
class _Changes:
    """Settings gathered so far."""

    settings: dict[str, Any] = field(default_factory=lambda: {"flip": False, "rotate90": False})
    named: list[ClassPath] = field(default_factory=list)


def convert_augmentation(steps: list[Named], notes: Notes) -> AugmentSettings:
    """Settings of all `steps`; the parts without a counterpart become notes."""
    found = _Changes()
    for step in steps:
        name = step.name.removesuffix("d") if step.module.startswith("monai.") else step.name
        if name in ("RandFlip", "RandAxisFlip"):
            _flip(found, step, notes)
        elif name == "RandRotate90":
            _quarter_turns(found, step, notes)
        elif name == "RandRotate":
            _in_plane_alone(step, [step.params.take(name) for name in ("range_x", "range_y", "range_z")], notes)
            _turn(found, step, step.params.take("range_x", 0.0))
            step.params.drop(*step.params.content)
        elif name == "RandZoom":
            _zoom(found, step)
        elif name in BENDING:
            _bend(found, step, notes)
        elif name in INTENSITY:
            _by_path(found, step, name, notes)
        else:
            step.params.drop(*step.params.content)
            notes.missing(step.title, "patches are not changed in this way")
    return AugmentSettings.load({**found.settings, "transforms": tuple(found.named)})


def _flip(found: _Changes, step: Named, notes: Notes) -> None:
    step.params.drop("keys", "prob", "spatial_axis")
    found.settings["flip"] = True
    notes.differs(f"data.augmentation {step.name}", "each axis is mirrored by itself, in half of the patches")


def _quarter_turns(found: _Changes, step: Named, notes: Notes) -> None:
    step.params.drop("keys", "prob", "max_k", "spatial_axes")
    found.settings["rotate90"] = True
    notes.differs(f"data.augmentation {step.name}", "every number of quarter turns in the Y-X plane is as frequent")


def _turn(found: _Changes, step: Named, largest: Any) -> None:
    """Remember a rotation in the Y-X plane by at most `largest` radians, a number or two ends."""
    numbers = [abs(n) for n in _numbers(largest)]
    if numbers and max(numbers) > 0:
        found.settings["rotate"] = min(math.degrees(max(numbers)), 180.0)
        _as_often(found, step)


def _in_plane_alone(step: Named, angles: list[Any], notes: Notes) -> None:
    """Say that of several angles, one for each axis that is turned about, the first is that of the Y-X plane."""
    if any(angle not in (None, 0, 0.0, [0, 0], [0.0, 0.0]) for angle in angles[1:]):
        notes.differs(step.title, "turns in the Y-X plane alone, by the first of its angles")


def _as_often(found: _Changes, step: Named) -> None:
    found.settings["affine_probability"] = min(max(step.params.number("prob", 0.1) or 0.0, 0.0), 1.0)


def _zoom(found: _Changes, step: Named) -> None:
    least, most = _numbers(step.params.take("min_zoom", 0.9)), _numbers(step.params.take("max_zoom", 1.1))
    found.settings["scale"] = (min(least, default=0.9), max(most, default=1.1))
    _as_often(found, step)
    step.params.drop(*step.params.content)


def _bend(found: _Changes, step: Named, notes: Notes) -> None:
    """Rotation and magnification of an affine or elastic change; all else of it has no counterpart."""
    turned = step.params.take("rotate_range")
    scaled = step.params.take("scale_range")
    if isinstance(turned, list):
        _in_plane_alone(step, turned, notes)
        turned = turned[0] if turned else None
    _turn(found, step, turned)
    numbers = [abs(n) for n in _numbers(scaled)]
    if numbers and max(numbers) > 0:
        most = min(max(numbers), 0.9)
        found.settings["scale"] = (1 - most, 1 + most)
        _as_often(found, step)
        notes.differs(step.title, "Y and X are magnified alike, by up to the larger of their ranges")
    lost = {"magnitude_range": "elastic bending", "translate_range": "shifts", "shear_range": "shearing"}
    gone = [words for name, words in lost.items() if step.params.take(name) is not None]
    if gone:
        notes.missing(step.title, f"no {' and no '.join(gone)}; patches are cut from everywhere in any case")
    step.params.drop(*step.params.content)


def _numbers(value: Any) -> list[float]:
    """All numbers in `value`: a number, or lists of them at any depth."""
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [float(value)] if isinstance(value, int | float) else []


def _by_path(found: _Changes, step: Named, name: str, notes: Notes) -> None:
    keys = step.params.take("keys", [])
    step.params.drop("allow_missing_keys")
    arguments = {key: step.params.take(key) for key in step.params.content if key not in ("keys", "allow_missing_keys")}
    if "GT" in keys:
        notes.differs(step.title, "changes the image alone, not the target")
    found.named.append(ClassPath(class_path=f"monai.transforms.{name}", init_args=arguments))
