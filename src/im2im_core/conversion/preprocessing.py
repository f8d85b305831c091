"""The preprocessing of the file: axes, channels, normalisation and patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from im2im_core.normalize import CentreZScore, MinMax, NoNormalization, NormalizeSettings, Percentile, ZScore

if TYPE_CHECKING:
    from im2im_core.conversion.notes import Notes
    from im2im_core.conversion.source import Named

Role = Literal["IM", "GT"]
ROLES: tuple[Role, ...] = ("IM", "GT")
"""Names that the files give to images and targets."""
DONE_ANYWAY = (
    "AddChannel",
    "AsChannelFirst",
    "CastToType",
    "DivisiblePad",
    "EnsureChannelFirst",
    "EnsureType",
    "SelectItems",
    "SpatialPad",
    "SqueezeDim",
    "ToNumpy",
    "ToTensor",
    "pad_to_multiple",
    "pad_z",
)
"""Steps that reading, padding and batching make superfluous here."""


@dataclass(frozen=True)
class Prepared:
    """What the preprocessing says of the data."""

    dimensions: int | None = None
    channels: dict[Role, tuple[int, ...]] = field(default_factory=dict)
    normalization: dict[Role, NormalizeSettings] = field(default_factory=dict)
    patch: tuple[int, ...] | None = None
    patches: int = 1
    """Patches that are cut from an image each time."""
    labelled: float = 0.0
    """Part of the patches that are centred on a labelled object."""
    labels: bool = False
    """Whether targets are read as whole numbers."""


def convert_preprocessing(steps: list[Named], notes: Notes) -> Prepared:
    """What all `steps` together say; those without a counterpart become notes."""
    found = Prepared()
    for step in steps:
        name = step.name.removesuffix("d") if step.module.startswith("monai.") else step.name
        roles = _roles(step.params.take("keys"))
        if name in HANDLERS:
            found = HANDLERS[name](found, step, roles, notes)
        elif name in DONE_ANYWAY:
            kind = str(step.params.take("dtype", ""))
            step.params.drop(*step.params.content)
            found = replace(found, labels=found.labels or ("GT" in roles and _is_whole(kind)))
        else:
            step.params.drop(*step.params.content)
            notes.missing(step.title, "images are used without this step; do it beforehand if it matters")
    return found


def _roles(keys: Any) -> tuple[Role, ...]:
    """Images or targets, or both, that a step works on; both where it does not say."""
    named = ROLES if keys is None else [keys] if isinstance(keys, str) else keys
    return tuple(role for role in ROLES if role in named)


def _is_whole(kind: str) -> bool:
    return any(word in kind for word in ("int", "short", "long", "byte", "bool"))


# ---- reading ----


def _load(found: Prepared, step: Named, roles: tuple[Role, ...], notes: Notes) -> Prepared:
    order = str(step.params.take("dimension_order_out", ""))
    fixed = {axis: step.params.whole(axis) for axis in "TCZS"}
    labels = "GT" in roles and _is_whole(str(step.params.take("dtype", "")))
    step.params.drop("reader", "image_only", "ensure_channel_first")
    moved = {axis: n for axis, n in fixed.items() if n and axis in "TZS"}
    if moved:
        which = ", ".join(f"{axis} {n}" for axis, n in moved.items())
        notes.missing(step.title, f"takes {which} of each file; cut the files beforehand")
    elif order and roles and any(fixed[axis] == 0 for axis in "TZ"):
        notes.differs(
            "data.preprocess LoadImaged",
            "takes the first time point or plane of each file; here all are learned from, where a file has several",
        )
    if not order or not roles:
        return replace(found, labels=found.labels or labels)
    channel = fixed["C"]
    one = {} if channel is None or "C" in order or "S" in order else dict.fromkeys(roles, (channel,))
    dimensions = 3 if "Z" in order else 2
    return replace(found, dimensions=dimensions, channels=found.channels | one, labels=found.labels or labels)


# ---- normalisation ----


def _percentile(found: Prepared, step: Named, roles: tuple[Role, ...], notes: Notes) -> Prepared:
    low, high = step.params.number("lower", 0.0), step.params.number("upper", 100.0)
    ends = [step.params.number(name) for name in ("b_min", "b_max")]
    if ends != [0.0, 1.0]:
        notes.differs(
            f"data.preprocess {step.name}", "the two percentiles become 0 and 1, whatever b_min and b_max are"
        )
    if step.params.take("clip", False):
        notes.differs(step.title, "what lies outside the percentiles is not clipped")
    step.params.drop("relative", "channel_wise", "dtype")
    settings = MinMax() if (low, high) == (0.0, 100.0) else Percentile.load({"low": low, "high": high})
    return _normalized(found, step, roles, settings, notes)


def _zscore(found: Prepared, step: Named, roles: tuple[Role, ...], notes: Notes) -> Prepared:
    if step.params.take("subtrahend") is not None or step.params.take("divisor") is not None:
        notes.missing(step.title, "no fixed offset and scale: each image gets mean 0 and standard deviation 1")
    if step.params.take("nonzero", False):
        notes.differs(step.title, "pixels of value 0 count too")
    step.params.drop("channel_wise", "dtype")
    return _normalized(found, step, roles, ZScore(), notes)


def _centre(found: Prepared, step: Named, roles: tuple[Role, ...], notes: Notes) -> Prepared:
    notes.differs(
        f"data.preprocess {step.name}", "the planes that count lie around the sharpest plane, not around the middle one"
    )
    step.params.drop("z_center", "min_z")
    return _normalized(found, step, roles, CentreZScore(planes=CENTRE_PLANES), notes)


CENTRE_PLANES = 32
"""Planes that norm_around_center looks at, whatever its min_z."""


def _minmax(found: Prepared, step: Named, roles: tuple[Role, ...], notes: Notes) -> Prepared:
    step.params.drop("minv", "maxv", "factor", "channel_wise", "dtype")
    return _normalized(found, step, roles, MinMax(), notes)


def _fixed_range(found: Prepared, step: Named, roles: tuple[Role, ...], notes: Notes) -> Prepared:
    step.params.drop(*step.params.content)
    notes.missing(step.title, "no fixed range: the smallest pixel of each image becomes 0, the largest 1")
    return _normalized(found, step, roles, MinMax(), notes)


def _staining(found: Prepared, step: Named, roles: tuple[Role, ...], notes: Notes) -> Prepared:
    step.params.drop(*step.params.content)
    notes.missing(step.title, "stains are not separated; each channel is normalised by itself")
    return _normalized(found, step, roles, Percentile(), notes)


def _normalized(
    found: Prepared, step: Named, roles: tuple[Role, ...], settings: NormalizeSettings, notes: Notes
) -> Prepared:
    twice = [role for role in roles if role in found.normalization]
    if twice:
        notes.differs(step.title, f"is the only normalisation of {' and '.join(twice)} here, without those before it")
    return replace(found, normalization=found.normalization | dict.fromkeys(roles, settings))


def normalization_of(found: Prepared, role: Role, notes: Notes) -> NormalizeSettings:
    """Normalisation of images or targets; where the file has none, none, with a note."""
    if role not in found.normalization:
        what = "normalization" if role == "IM" else "target_normalization"
        notes.differs(
            "data.preprocess",
            f"has no normalisation of {role}, so pixels are used as they are; usually better: data.{what}",
        )
    return found.normalization.get(role, NoNormalization())


# ---- patches ----


def _crop(found: Prepared, step: Named, roles: tuple[Role, ...], notes: Notes) -> Prepared:
    size = step.params.sizes("roi_size", found.dimensions)
    count = step.params.whole("num_samples", 1) or 1
    step.params.drop("random_size", "random_center", "max_roi_size", "w_key")
    if step.name.startswith("CenterSpatial"):
        notes.differs(step.title, "patches come from everywhere, not from the middle")
    return _cut(found, step, size, count, notes)


def _crop_by_labels(found: Prepared, step: Named, roles: tuple[Role, ...], notes: Notes) -> Prepared:
    size = step.params.sizes("spatial_size", found.dimensions)
    count = step.params.whole("num_samples", 1) or 1
    on, off = step.params.number("pos", 1.0) or 0.0, step.params.number("neg", 1.0) or 0.0
    step.params.drop(*step.params.content)
    return replace(_cut(found, step, size, count, notes), labelled=on / (on + off) if on + off else 0.0)


def _crop_by_weights(found: Prepared, step: Named, roles: tuple[Role, ...], notes: Notes) -> Prepared:
    notes.differs(step.title, "patches are drawn by objects (data.foreground), not by a weight for each pixel")
    return _crop_by_labels(found, step, roles, notes)


def _cut(found: Prepared, step: Named, size: tuple[int, ...] | None, count: int, notes: Notes) -> Prepared:
    if size is None or min(size) < 1:
        notes.differs(step.title, "the plan chooses the size of the patches: data.patch")
        return replace(found, patches=count)
    return replace(found, patch=size, patches=count)


Handler = Callable[[Prepared, "Named", tuple[Role, ...], "Notes"], Prepared]
HANDLERS: dict[str, Handler] = {
    "LoadImage": _load,
    "ScaleIntensityRangePercentiles": _percentile,
    "NormalizeIntensity": _zscore,
    "norm_around_center": _centre,
    "ScaleIntensity": _minmax,
    "ScaleIntensityRange": _fixed_range,
    "normalize_staining": _staining,
    "RandSpatialCropSamples": _crop,
    "RandSpatialCrop": _crop,
    "RandWeightedCrop": _crop_by_weights,
    "CenterSpatialCrop": _crop,
    "RandCropByPosNegLabel": _crop_by_labels,
}
"""Name of a step, without the d of those that work on dictionaries -> what it says."""
