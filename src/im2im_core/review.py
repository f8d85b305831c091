"""What each sample is and what is odd about it, before anything is trained; read plane by plane."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from im2im_core.errors import DataError, ResourceError, Stopped
from im2im_core.events import Event, Progress
from im2im_core.samples import TARGET

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.axes import Region
    from im2im_core.image import Image, VoxelSize
    from im2im_core.layouts.base import FilesError
    from im2im_core.samples import Sample, Split

Severity = Literal["error", "warning", "info"]
LABEL_TASKS = ("semantic_segmentation", "instance_segmentation")
FEW_OBJECTS = 50
MANY_IDS = 256
DPI_SIZES = (0.0353, 352.8, 0.02646, 264.6, 0.00847, 84.67)
"""Voxel sizes that 72, 96 and 300 dots per inch give, in micrometres or with centimetres taken for them."""


@dataclass(frozen=True)
class Problem:
    """One thing a person should know about a sample, or about all of them."""

    sample: str
    """Name of the sample; empty where it concerns the whole set."""
    code: str
    severity: Severity
    text: str
    cure: str = ""


@dataclass(frozen=True)
class PixelFacts:
    """Numbers of all pixels of one image; NaN and infinite ones are counted and left out."""

    minimum: float
    maximum: float
    mean: float
    invalid: int
    """NaN and infinite pixels."""
    saturated: float
    """Percent of pixels at the largest value that the type can hold."""
    digest: str
    """Equal for equal type, shape and pixels."""


@dataclass(frozen=True)
class LabelFacts:
    """Numbers of one label image."""

    ids: int
    """Distinct ids, background left out."""
    values: tuple[int, ...]
    """The ids; empty where there are more than 256."""
    objects: int | None
    """Instances, or connected pieces of a class mask; None for class masks in 3D."""
    diameter: float | None
    """Median diameter in Y and X, pixels, as of discs of the same area; the largest plane of an object counts."""
    foreground: float
    """Percent of pixels that belong to an object or class."""
    labelled: float
    """Percent of pixels of which something is known."""
    pieces: int
    """Connected pieces on the fullest plane."""
    pieces_ids: int
    """Distinct ids on that plane."""
    flaw: str = ""
    """Why the pixels are no labels; empty where they are."""


@dataclass(frozen=True)
class SampleFacts:
    """What one sample is."""

    sample: str
    shape: tuple[int, int, int, int, int]
    """Along T, C, Z, Y, X."""
    axes: str
    dtype: str
    voxel_size: VoxelSize
    channels: tuple[str, ...]
    pixels: PixelFacts
    target_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    targets: Mapping[str, PixelFacts] = field(default_factory=dict)
    """Pixels of image targets."""
    labels: LabelFacts | None = None
    """The target of a segmentation."""


@dataclass(frozen=True)
class Review:
    """All that a look at the samples gave."""

    facts: tuple[SampleFacts, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Aim:
    """What the samples are meant for; decides what counts as a problem."""

    task: str
    labelling: str = "dense"
    invalid_pixels: str = "error"

    @property
    def lowest_object(self) -> int:
        """Smallest id that is an object or class."""
        return 2 if self.labelling == "sparse" else 1


# ---- public functions ----


def review(
    samples: Sequence[Sample],
    task: str,
    on_event: Callable[[Event], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    *,
    labelling: str = "dense",
    invalid_pixels: str = "error",
) -> tuple[Problem, ...]:
    """Problems of all samples and of the set; see `examine`."""
    return examine(samples, task, on_event, should_stop, labelling=labelling, invalid_pixels=invalid_pixels).problems


def examine(
    samples: Sequence[Sample],
    task: str,
    on_event: Callable[[Event], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    *,
    labelling: str = "dense",
    invalid_pixels: str = "error",
) -> Review:
    """Facts and problems of all samples; every pixel is read once, one plane at a time.

    Parameters
    ----------
    task : str
        Task of the recipe; decides whether targets are labels.
    labelling : "dense" or "sparse"
        How labels are to be understood, as in ``data.labelling``.
    invalid_pixels : "error" or "fill"
        As in ``data.invalid_pixels``; decides how grave NaN pixels are.

    Raises
    ------
    Stopped
        `should_stop` said so.
    """
    aim = Aim(task, labelling, invalid_pixels)
    facts: list[SampleFacts] = []
    problems: list[Problem] = []
    begin = time.monotonic()
    for done, sample in enumerate(samples):
        if should_stop and should_stop():
            raise Stopped(f"The check was stopped after {done} of {len(samples)} samples")
        if on_event:
            on_event(Progress("checking images", done, len(samples), time.monotonic() - begin))
        try:
            found = facts_of(sample, aim)
        except (DataError, ResourceError, OSError) as error:
            problems.append(Problem(sample.name, "unreadable", "error", str(error), "Replace or remove the file"))
            continue
        facts.append(found)
        problems += [p for check in SAMPLE_CHECKS for p in check(sample, found, aim)]
    problems += [p for check in SET_CHECKS for p in check(facts, aim)]
    if on_event:
        on_event(Progress("checking images", len(samples), len(samples), time.monotonic() - begin))
    return Review(tuple(facts), tuple(problems))


def problems_of(error: FilesError) -> tuple[Problem, ...]:
    """Problems that kept samples from being opened, in the form of a review."""
    return tuple(Problem(p.name, p.code, "error", p.text, error.cure) for p in error.problems)


def overlap_train_validation(split: Split, facts: Sequence[SampleFacts] = ()) -> tuple[Problem, ...]:
    """Pixels or contents that training shares with validation or test.

    Parameters
    ----------
    facts : sequence of SampleFacts
        Facts of the samples; with them, copies under other names are found too.
    """
    digests = {f.sample: f.pixels.digest for f in facts}
    return tuple(
        Problem(
            train.name,
            "overlap_train_validation",
            "error",
            f"{train.name} is used for training and {other.name}, which {reason}, for {part}",
            "Put both into one group, or keep one of them",
        )
        for part, held in (("validation", split.validation), ("test", split.test))
        for other in held
        for train in split.train
        if (reason := _shared(train, other, digests))
    )


def facts_of(sample: Sample, aim: Aim) -> SampleFacts:
    """Facts of one sample.

    Raises
    ------
    DataError
        An image cannot be read.
    """
    info = sample.source.info
    is_labels = aim.task in LABEL_TASKS
    return SampleFacts(
        sample=sample.name,
        shape=info.shape,
        axes=info.axes,
        dtype=str(info.dtype),
        voxel_size=info.voxel_size,
        channels=info.channels,
        pixels=pixel_facts(sample.source),
        target_shapes={key: image.info.shape for key, image in sample.targets.items()},
        targets={} if is_labels else {key: pixel_facts(image) for key, image in sample.targets.items()},
        labels=label_facts(sample, aim) if is_labels and TARGET in sample.targets else None,
    )


# ---- reading ----


def planes(image: Image) -> Iterator[NDArray[Any]]:
    """Planes ``(Y, X)`` in the order of T, C, Z."""
    times, channels, depth, height, width = image.info.shape
    for t, c, z in np.ndindex(times, channels, depth):
        region: Region = (slice(t, t + 1), slice(c, c + 1), slice(z, z + 1), slice(0, height), slice(0, width))
        yield image.read(region)[0, 0, 0]


def pixel_facts(image: Image) -> PixelFacts:
    """Numbers of all pixels of `image`."""
    info = image.info
    # The same as content_hash of the whole array.
    digest = hashlib.sha256(f"{info.dtype.str}{info.shape}".encode())
    top = np.iinfo(info.dtype).max if info.dtype.kind in "ui" else None
    low, high, total, count, saturated = np.inf, -np.inf, 0.0, 0, 0
    for plane in planes(image):
        digest.update(np.ascontiguousarray(plane).data)
        values = plane[np.isfinite(plane)] if plane.dtype.kind == "f" else plane
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            total += float(values.sum(dtype=np.float64))
            count += values.size
            saturated += 0 if top is None else int((values == top).sum())
    size = int(np.prod(info.shape, dtype=np.int64))
    if count == 0:
        low = high = float("nan")
    return PixelFacts(
        low, high, total / max(count, 1), size - count, 100 * saturated / max(count, 1), digest.hexdigest()
    )


@dataclass
class _LabelSums:
    """What is summed up over the planes of a label image."""

    lowest: int
    areas: dict[tuple[int, int], int] = field(default_factory=dict)
    """Time point and id -> pixels on its largest plane."""
    foreground: int = 0
    labelled: int = 0
    size: int = 0
    fullest: NDArray[np.uint32] | None = None
    most: int = 0

    def add(self, time_point: int, labels: NDArray[np.uint32], known: NDArray[np.bool_]) -> None:
        """Take one plane into account."""
        ids, areas = np.unique(labels, return_counts=True)
        kept = ids >= self.lowest
        for key, area in zip(ids[kept].tolist(), areas[kept].tolist(), strict=True):
            place = (time_point, key)
            self.areas[place] = max(self.areas.get(place, 0), area)
        here = int(areas[kept].sum())
        self.foreground += here
        self.labelled += int(known.sum())
        self.size += labels.size
        if here > self.most:
            self.fullest, self.most = labels, here


def label_facts(sample: Sample, aim: Aim) -> LabelFacts:
    """Numbers of the labels of `sample`; with `flaw` set where its pixels are no labels."""
    from im2im_core.image import select_channels
    from im2im_core.io.labels import as_labels

    image = select_channels(sample.targets[TARGET], (0,))
    times, _, depth, _, _ = image.info.shape
    sums = _LabelSums(aim.lowest_object)
    weights = _weight_planes(sample, times, depth)
    for index, (plane, weight) in enumerate(zip(planes(image), weights, strict=True)):
        try:
            labels = as_labels(plane, sample.name)
        except DataError as error:
            return LabelFacts(0, (), None, None, 0.0, 0.0, 0, 0, flaw=error.message)
        known = labels > 0 if aim.labelling == "sparse" else np.ones(labels.shape, bool)
        sums.add(index // depth, labels, known if weight is None else known & (weight > 0))
    return _summary(sums, aim, single_plane=times * depth == 1)


def _weight_planes(sample: Sample, times: int, depth: int) -> Iterator[NDArray[Any] | None]:
    """Weight of each plane of the labels; None where there is no weight image."""
    if sample.weight is None:
        yield from [None] * (times * depth)
        return
    weight_times, _, weight_depth, height, width = sample.weight.info.shape
    for t, z in np.ndindex(times, depth):
        t, z = min(t, weight_times - 1), min(z, weight_depth - 1)
        region: Region = (slice(t, t + 1), slice(0, 1), slice(z, z + 1), slice(0, height), slice(0, width))
        yield sample.weight.read(region)[0, 0, 0]


def _summary(sums: _LabelSums, aim: Aim, *, single_plane: bool) -> LabelFacts:
    values = sorted({key for _, key in sums.areas})
    pieces = _pieces(sums.fullest, aim.lowest_object)
    instances = aim.task == "instance_segmentation"
    areas = np.array(list(sums.areas.values())) if instances else pieces
    by_pieces = len(pieces) if single_plane else None
    on_plane = 0 if sums.fullest is None else len(np.unique(sums.fullest[sums.fullest >= aim.lowest_object]))
    return LabelFacts(
        ids=len(values),
        values=tuple(values) if len(values) <= MANY_IDS else (),
        objects=len(sums.areas) if instances else by_pieces,
        diameter=float(np.median(np.sqrt(4 * areas / np.pi))) if len(areas) else None,
        foreground=100 * sums.foreground / sums.size,
        labelled=100 * sums.labelled / sums.size,
        pieces=len(pieces),
        pieces_ids=on_plane,
    )


def _pieces(plane: NDArray[np.uint32] | None, lowest: int) -> NDArray[np.int64]:
    """Areas of the connected pieces of equal id on a plane."""
    if plane is None:
        return np.zeros(0, np.int64)
    from skimage.measure import label

    pieces = label(np.where(plane >= lowest, plane, 0), background=0, connectivity=2)
    return np.bincount(pieces.ravel())[1:]


# ---- checks of one sample ----

Found = Iterator[Problem]


def _check_shapes(sample: Sample, facts: SampleFacts, aim: Aim) -> Found:
    from im2im_core.layouts.base import shape_mismatches

    if not sample.targets:
        yield Problem(sample.name, "missing_partner", "error", f"{sample.name} has no target", "Add its target")
    for text in shape_mismatches(sample):
        yield Problem(sample.name, "shape_mismatch", "error", text, "Give image, target and weight the same size")


def _check_pixels(sample: Sample, facts: SampleFacts, aim: Aim) -> Found:
    for role, pixels in {"image": facts.pixels, **facts.targets}.items():
        if pixels.invalid:
            yield Problem(
                sample.name,
                "nan_inf",
                "error" if aim.invalid_pixels == "error" else "warning",
                f"{sample.name}: {role} has {pixels.invalid} NaN or infinite pixels",
                "Mend the image or set data.invalid_pixels to fill",
            )
        if pixels.minimum == pixels.maximum:
            text = f"{sample.name}: {role} is {pixels.minimum:g} everywhere"
            yield Problem(sample.name, "constant", "warning", text, "Remove it, or look whether the export went wrong")


def _check_range(sample: Sample, facts: SampleFacts, aim: Aim) -> Found:
    if facts.pixels.saturated > 1:
        yield Problem(
            sample.name,
            "dtype_range",
            "warning",
            f"{sample.name}: {facts.pixels.saturated:.1f} % of the pixels are saturated at {facts.pixels.maximum:g}",
            "Record with less light or gain; what is saturated cannot be learned from",
        )


def _check_channels(sample: Sample, facts: SampleFacts, aim: Aim) -> Found:
    sizes = dict(zip("TCZYX", facts.shape, strict=True))
    if sizes["C"] in (3, 4) and facts.dtype == "uint8" and not facts.channels:
        yield Problem(
            sample.name,
            "rgb_or_channels_question",
            "info",
            f"{sample.name}: {sizes['C']} channels of 8 bit are taken as channels; they may be one RGB picture",
            "Choose channels with data.input_channels, or convert the picture to grey",
        )
    for axis in "TZ":
        if sizes[axis] in (3, 4) and axis in facts.axes and "C" not in facts.axes:
            yield Problem(
                sample.name,
                "rgb_or_channels_question",
                "info",
                f"{sample.name}: {sizes[axis]} planes are taken as {axis}; they may be channels",
                "Set data.axes if they are, for example to CYX",
            )


def _check_labels(sample: Sample, facts: SampleFacts, aim: Aim) -> Found:
    labels = facts.labels
    if labels is None:
        return
    if labels.flaw:
        cure = "Labels are whole numbers, 0 is background"
        yield Problem(sample.name, "negative_or_fractional_labels", "error", labels.flaw, cure)
    elif labels.ids == 0:
        text = f"{sample.name}: nothing is labelled"
        yield Problem(
            sample.name, "empty_foreground", "warning", text, "Right if there is nothing to see; else label it"
        )


SampleCheck = Callable[["Sample", SampleFacts, Aim], Found]
SAMPLE_CHECKS: tuple[SampleCheck, ...] = (_check_shapes, _check_pixels, _check_range, _check_channels, _check_labels)


# ---- checks of the set ----


def _check_duplicates(facts: Sequence[SampleFacts], aim: Aim) -> Found:
    by_digest: dict[str, list[str]] = {}
    for item in facts:
        by_digest.setdefault(item.pixels.digest, []).append(item.sample)
    for names in by_digest.values():
        if len(names) > 1:
            text = f"{', '.join(names)} have the same pixels"
            yield Problem(names[0], "duplicate", "warning", text, "Keep one, or put them into one group")


def _check_kind(facts: Sequence[SampleFacts], aim: Aim) -> Found:
    labels = [f.labels for f in facts if f.labels is not None and f.labels.ids]
    if aim.labelling == "sparse" or not labels:
        return
    classes = sum(item.pieces_ids <= 10 and item.pieces >= 3 * item.pieces_ids for item in labels)
    instances = sum(item.pieces_ids >= 10 and item.pieces < 1.5 * item.pieces_ids for item in labels)
    if aim.task == "instance_segmentation" and 2 * classes > len(labels):
        text = f"In {classes} of {len(labels)} label images many separate objects have the same id"
        cure = "They look like classes: choose the task semantic_segmentation, or number the objects"
        yield Problem("", "probably_classes", "warning", text, cure)
    if aim.task == "semantic_segmentation" and 2 * instances > len(labels):
        text = f"In {instances} of {len(labels)} label images every object has an id of its own"
        cure = "They look like instances: choose the task instance_segmentation"
        yield Problem("", "probably_instances", "warning", text, cure)


def _check_gaps(facts: Sequence[SampleFacts], aim: Aim) -> Found:
    values = sorted({v for f in facts if f.labels for v in f.labels.values})
    first = aim.lowest_object
    if aim.task != "semantic_segmentation" or not values or values == list(range(first, first + len(values))):
        return
    if len(values) <= MANY_IDS:
        shown = ", ".join(map(str, values[:10])) + (", …" if len(values) > 10 else "")
        text = f"Classes are {shown}; those between do not occur but are counted as classes"
        yield Problem("", "label_gap", "info", text, f"Number the classes from {first} without gaps")


def _check_objects(facts: Sequence[SampleFacts], aim: Aim) -> Found:
    counts = [f.labels.objects for f in facts if f.labels and f.labels.objects is not None and not f.labels.flaw]
    total = sum(counts)
    if aim.task == "instance_segmentation" and counts and total < FEW_OBJECTS:
        text = f"There are {total} labelled objects in all"
        yield Problem("", "few_objects", "warning", text, f"Label more; {FEW_OBJECTS} or more usually suffice to begin")


def _check_voxel_size(facts: Sequence[SampleFacts], aim: Aim) -> Found:
    missing = [f.sample for f in facts if None in f.voxel_size[1:]]
    if missing:
        text = f"{len(missing)} of {len(facts)} images have no voxel size ({_some(missing)})"
        cure = "Set data.voxel_size, so that predictions can be made at the same scale"
        yield Problem("", "voxel_size_missing", "warning", text, cure)
    reasons: dict[str, list[str]] = {}
    for item in facts:
        for reason in _voxel_doubts(item):
            reasons.setdefault(reason, []).append(item.sample)
    for reason, names in reasons.items():
        text = f"{len(names)} of {len(facts)} images: {reason} ({_some(names)})"
        yield Problem(
            "", "voxel_size_suspicious", "warning", text, "Look it up at the microscope and set data.voxel_size"
        )
    widths = [f.voxel_size[2] for f in facts if f.voxel_size[2]]
    if widths and max(widths) > 2 * min(widths):
        text = f"Voxel sizes in X differ from {min(widths):g} to {max(widths):g} µm"
        yield Problem("", "voxel_size_suspicious", "warning", text, "Set data.rescale.kind to voxel_size")


def _voxel_doubts(facts: SampleFacts) -> list[str]:
    z, y, x = facts.voxel_size
    doubts = []
    known = [size for size in (z, y, x) if size is not None]
    dots = [size for size in known if any(abs(size / d - 1) < 0.005 for d in DPI_SIZES)]
    if dots:
        doubts.append(f"voxel size {dots[0]:g} µm is a printer's resolution, not a microscope's")
    elif known and (max(known) > 100 or min(known) < 0.001):
        odd = max(known) if max(known) > 100 else min(known)
        doubts.append(f"voxel size {odd:g} µm is unusual for a microscope")
    if y and x and abs(y / x - 1) > 0.05:
        doubts.append(f"voxels of {y:g} × {x:g} µm are not square in Y and X")
    if facts.shape[2] > 1 and z is None and x is not None:
        doubts.append("the distance of the planes is not known")
    return doubts


def _check_dtypes(facts: Sequence[SampleFacts], aim: Aim) -> Found:
    types = Counter(f.dtype for f in facts)
    if len(types) > 1:
        counts = ", ".join(f"{n} × {t}" for t, n in types.most_common())
        text = f"Images have different types: {counts}"
        yield Problem("", "dtype_range", "warning", text, "Right only if normalisation makes them alike; look at both")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


SetCheck = Callable[[Sequence[SampleFacts], Aim], Found]
SET_CHECKS: tuple[SetCheck, ...] = (
    _check_duplicates,
    _check_kind,
    _check_gaps,
    _check_objects,
    _check_voxel_size,
    _check_dtypes,
)


# ---- overlap ----


def _shared(train: Sample, other: Sample, digests: Mapping[str, str]) -> str:
    """Why two samples are not independent; empty where they are."""
    if _uncropped(train) == _uncropped(other):
        return "shows pixels of the same image" if _regions_meet(train.region, other.region) else ""
    same = digests.get(train.name) is not None and digests.get(train.name) == digests.get(other.name)
    return "has the same pixels" if same else ""


def _uncropped(sample: Sample) -> str:
    """Identity of the image that the sample, perhaps a block, was cut from."""
    identity = sample.source.info.identity
    return identity if sample.region is None else identity.rpartition("[")[0]


def _regions_meet(one: Region | None, other: Region | None) -> bool:
    if one is None or other is None:
        return True
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))
