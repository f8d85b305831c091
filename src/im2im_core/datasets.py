"""Saved data sets of a project: immutable folders with a table that any front end can train from."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from im2im_core.errors import DataError, Stopped
from im2im_core.events import Event, Progress
from im2im_core.image import ArrayImage, Image
from im2im_core.samples import TARGET, Sample, crop_sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.axes import Region
    from im2im_core.project import Project

SCHEMA = 1
TABLE = "dataset.csv"
ABOUT = "dataset.json"
STRIP = "strip"
"""Part of a sample that trains, but for a strip at its end that validates."""
STRIP_SHARE = 0.2
GUESS_SIDE = 2048
"""Height and width of what is looked at to guess a task."""
NARROWEST_STRIP = 16
WIDEST_GAP = 128
SAME_IMAGE = " (same-image validation)"
_ROLES = ("IM", "GT", "CM")
_RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}
_UNSAFE = re.compile(r"[^\w.+-]+")

Labelling = Literal["dense", "sparse"]
OnEvent = Callable[[Event], None]
ShouldStop = Callable[[], bool]
Polygons = Sequence[Any]
"""Corners ``(N, D)`` in pixels along the axes of the labels, as a Shapes layer holds them; Y and X come last."""


@dataclass(frozen=True)
class DatasetEntry:
    """One saved data set of a project."""

    name: str
    path: Path
    """Its folder; the folder and the table in it can both be given as ``data.path``."""
    task_hint: str
    count: int
    """Images that are used; one of which a strip validates counts once."""
    created: float
    """Unix time."""
    labelling: Labelling
    """How it was painted; what is saved is always dense with weights."""
    regions: int = 0
    """Regions in which everything is labelled; 0 where labels are dense everywhere."""
    objects: int | None = None
    """Labelled objects; None where the targets are no labels, or nobody counted."""
    dimensions: int = 2
    """3 where an image has several planes."""
    strips: int = 0
    """Images that validate with a strip of themselves, which is same-image validation."""

    @property
    def table(self) -> Path:
        """CSV table with one sample per row."""
        return self.path / TABLE


@dataclass
class _Row:
    """One line of the table, and what is known of its images."""

    sample: Sample
    part: str
    paths: dict[str, str] = field(default_factory=dict)
    """Role -> path as in the table."""
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Role -> origin and content."""
    scene: str = ""
    """Scene that its image is, where that is referenced and its file has several."""


# ---- public functions ----------------------------------------------------------


def save_dataset(
    project: Project,
    name: str,
    samples: Sequence[Sample],
    parts: Mapping[str, str],
    labelling: Labelling = "dense",
    *,
    task: str = "",
    regions: Mapping[str, Polygons] | None = None,
    prefilled: Collection[str] = (),
    objects: Mapping[str, int] | None = None,
    excluded: Sequence[str] = (),
    on_event: OnEvent | None = None,
    should_stop: ShouldStop | None = None,
) -> DatasetEntry:
    """Data set in the project's ``data`` folder, named by its content: the same content is never written twice.

    Unchanged files are referenced, everything else is stored as OME-Zarr. Painted labels become
    dense targets with a weight that is 0 where nothing is known, so that the table needs no settings.

    Parameters
    ----------
    parts : mapping of str to str
        Name of a sample -> train, validation, test, or strip (trains, but for a strip that validates).
        Samples that are not named are drawn when the training starts.
    regions : mapping of str to polygons
        Name of a sample -> where its labels are complete.
    prefilled : collection of str
        Names of samples whose labels were prefilled by a model: outside of their regions nothing is known.
    objects : mapping of str to int
        Name of a sample -> objects in it, where somebody counted; the others are counted here.
    excluded : sequence of str
        Names of samples that were looked at and left out; only noted.

    Raises
    ------
    DataError
        There is no sample, one has no target, labels are none, or prefilled ones have no region.
    Stopped
        `should_stop` said so; nothing is kept.
    """
    from im2im_core.files import remove
    from im2im_core.io.outputs import beside, publish

    learned = _learned(samples, labelling, regions or {}, prefilled)
    rows = _rows(learned, parts)
    folder = project.folder("data")
    part = beside(folder / "new", "part")
    remove(part)
    part.mkdir()
    try:
        _store(rows, part, project, on_event, should_stop)
        about = _describe(name, task, labelling, rows, regions or {}, excluded)
        final = folder / _key(about)
        if not (final / ABOUT).is_file():
            _note(part, rows, {**about, **_count(learned, task, objects or {}), "created": time.time()})
            publish(part, final)
    finally:
        remove(part)
    return read_entry(final)


def list_datasets(project: Project) -> tuple[DatasetEntry, ...]:
    """Saved data sets of `project`, newest first; folders that cannot be read are left out."""
    found = []
    for file in project.root.glob(f"data/*/{ABOUT}"):
        if file.parent.name.startswith("."):
            continue
        try:
            found.append(read_entry(file.parent))
        except DataError:
            continue
    return tuple(sorted(found, key=lambda e: -e.created))


def read_entry(folder: Path) -> DatasetEntry:
    """Entry of the data set in `folder`.

    Raises
    ------
    DataError
        The folder holds no data set that can be read.
    """
    about = read_about(folder)
    try:
        names = [str(sample["name"]) for sample in about["samples"]]
        depths = [int(sample["images"]["IM"]["shape"][2]) for sample in about["samples"]]
        counted = about.get("objects")
        return DatasetEntry(
            name=str(about["name"]),
            path=folder,
            task_hint=str(about["task"]),
            count=len({name.removesuffix(SAME_IMAGE) for name in names}),
            created=float(about["created"]),
            labelling="sparse" if about["labelling"] == "sparse" else "dense",
            regions=sum(len(found) for found in about["regions"].values()),
            objects=None if counted is None else int(counted),
            dimensions=3 if max(depths, default=1) > 1 else 2,
            strips=sum(name.endswith(SAME_IMAGE) for name in names),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{folder / ABOUT} lacks {error}", "Save the data set again") from error


def read_about(folder: Path) -> dict[str, Any]:
    """Everything that was noted when the data set in `folder` was saved.

    Raises
    ------
    DataError
        There is no such note, or it cannot be read.
    """
    from im2im_core.files import read_json

    try:
        content = read_json(folder / ABOUT)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} is not a saved data set: {error}", "Choose another, or save it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{folder / ABOUT} holds no data set", "Save the data set again")
    return content


def load_dataset(path: Path) -> tuple[tuple[Sample, ...], dict[str, str]]:
    """Samples of a saved data set and the parts they must go to, exactly as a training reads them.

    Raises
    ------
    DataError
        A file that is referenced has gone or does not fit any more.
    """
    from im2im_core.layouts.base import load_samples
    from im2im_core.recipe.data import DataSettings

    return load_samples(DataSettings(path=str(path / TABLE if path.is_dir() else path)), Path())


def guess_task(sample: Sample) -> str:
    """What the first target of `sample` looks like: instance or semantic segmentation, or label-free.

    Labels are whole numbers of which neighbours are mostly equal; instances have many ids.
    """
    from skimage.measure import label

    if TARGET not in sample.targets:
        return "instance_segmentation"
    image = sample.targets[TARGET]
    if image.info.dtype.kind not in "bui":
        return "label_free"
    plane = middle_plane(image, GUESS_SIDE)
    here, right = plane[:, :-1], plane[:, 1:]
    inside = (here > 0) | (right > 0)
    if inside.any() and (here == right)[inside].mean() < 0.5:
        return "label_free"
    ids = len(np.unique(plane[plane > 0]))
    pieces = int(label(plane > 0, connectivity=2).max()) if ids else 0
    return "semantic_segmentation" if ids == 1 or pieces >= 3 * ids > 0 else "instance_segmentation"


def prefer_file(image: Image, path: Path) -> Image:
    """The file at `path` where it still holds exactly `image`, else `image`; so that it need not be copied."""
    from im2im_core.errors import ResourceError
    from im2im_core.io import open_image

    try:
        stored = open_image(path)
    except (DataError, ResourceError):  # gone, or a question that the viewer answered already
        return image
    one, other = stored.info, image.info
    described = (one.shape, one.dtype, one.axes, one.voxel_size) == (
        other.shape,
        other.dtype,
        other.axes,
        other.voxel_size,
    )
    same = described and all(np.array_equal(stored.read(r), image.read(r)) for r in _slabs(one.shape, 1))
    return stored if same else image


def learning_sample(
    sample: Sample, labelling: Labelling, polygons: Polygons = (), *, prefilled: bool = False
) -> Sample:
    """Sample whose labels are dense and whose weight is 0 where nothing is known.

    Where dense labels have complete regions, 0 outside them is unknown and not background.

    Parameters
    ----------
    prefilled : bool
        The labels began as a prediction: only what lies inside the regions was corrected and is known.

    Raises
    ------
    DataError
        Labels are negative or fractional, a region is none, or prefilled labels have no region.
    """
    from im2im_core.partial import only_inside, to_learning

    if prefilled and not len(polygons):
        raise DataError(
            f"{sample.name}: nothing says which part of the prediction was corrected",
            "Draw a rectangle around the part that is right; only what lies inside is learned from",
        )
    if labelling == "dense" and not len(polygons):
        return sample
    if len(sample.targets) > 1:
        raise DataError(
            f"{sample.name} has the targets {', '.join(sample.targets)}; only one can be painted in parts",
            "Save it with dense labels and a weight image, or with one target",
        )
    image = sample.targets[TARGET]
    mask = complete_regions(image.info.shape, image.info.axes, polygons)
    given = None if sample.weight is None else sample.weight.read()
    painted = only_inside(image.read(), mask) if prefilled else image.read()
    labels, weight = to_learning(painted, labelling, mask, given)
    if prefilled:
        weight = weight * mask
    elif labelling == "dense":
        weight = weight * ((labels > 0) | mask)
    info = image.info
    # Where the labels are given once for all channels, so is the weight.
    known = np.ascontiguousarray(weight.max(axis=1, keepdims=True))
    return replace(
        sample,
        targets={**sample.targets, TARGET: _array(labels, info.name, image)},
        weight=_array(known, f"{info.name} weight", image),
    )


def complete_regions(shape: tuple[int, ...], axes: str, polygons: Polygons) -> NDArray[np.bool_]:
    """Mask ``(T, 1, Z, Y, X)`` of what lies inside any of `polygons`.

    A region that was drawn on one plane or time point holds there alone: columns before
    Y and X are numbers of planes and time points.

    Parameters
    ----------
    axes : str
        Axes of the labels; the last ones belong to the columns of the corners.

    Raises
    ------
    DataError
        A polygon has fewer than three corners or is no list of points.
    """
    from im2im_core.partial import complete_mask

    times, _, depth, height, width = shape
    mask = np.zeros((times, 1, depth, height, width), bool)
    for corners in polygons:
        points = np.asarray(corners, float)
        inside = complete_mask((height, width), [points])
        letters = axes[-points.shape[1] :]
        place = dict(zip(letters, points[0], strict=True))
        mask[_one_or_all(place.get("T"), times), 0, _one_or_all(place.get("Z"), depth)] |= inside
    return mask


def divide_strip(sample: Sample) -> tuple[Sample, Sample] | None:
    """Training part and a strip that validates, with a gap between them; None where there is no room.

    The strip is cut from what is known, so that a painted corner is divided and not the empty rest,
    and from that side of it where both parts hold an object: a strip without any would call a
    network perfect that finds nothing.
    """
    top, left, bottom, right = _known_box(sample)
    spans = {4: (left, right), 3: (top, bottom)}
    longer = 4 if right - left >= bottom - top else 3
    found = [
        halves
        for axis in (longer, 7 - longer)
        for at_end in (True, False)
        if (halves := _strip(sample, axis, spans, at_end)) is not None
    ]
    return next((h for h in found if all(map(_holds_object, h))), found[0] if found else None)


def _strip(
    sample: Sample, axis: int, spans: Mapping[int, tuple[int, int]], at_end: bool
) -> tuple[Sample, Sample] | None:
    """Both parts with the strip on one side of the known span along `axis`."""
    start, stop = spans[axis]
    strip = max(round(STRIP_SHARE * (stop - start)), NARROWEST_STRIP)
    gap = min(strip // 2, WIDEST_GAP)
    if stop - start < 3 * strip:
        return None
    validation = slice(stop - strip, stop) if at_end else slice(start, start + strip)
    rest = slice(0, validation.start - gap) if at_end else slice(validation.stop + gap, sample.source.info.shape[axis])
    strip_sample = crop_sample(sample, {axis: validation, 7 - axis: slice(*spans[7 - axis])}, SAME_IMAGE)
    return crop_sample(sample, {axis: rest}), replace(strip_sample, group=sample.group + SAME_IMAGE)


def _holds_object(sample: Sample) -> bool:
    """Whether any pixel of the target is not 0."""
    image = sample.targets[TARGET]
    return any((image.read(region) != 0).any() for region in _slabs(image.info.shape, 1))


# ---- rows ----------------------------------------------------------------------


def _learned(
    samples: Sequence[Sample], labelling: Labelling, regions: Mapping[str, Polygons], prefilled: Collection[str]
) -> list[Sample]:
    if not samples:
        raise DataError("There is no image to save", "Use at least one image with its target")
    for sample in samples:
        _check_targets(sample)
    return [learning_sample(s, labelling, regions.get(s.name, ()), prefilled=s.name in prefilled) for s in samples]


def _rows(learned: Sequence[Sample], parts: Mapping[str, str]) -> list[_Row]:
    rows: list[_Row] = []
    for sample in learned:
        part = parts.get(sample.name, "")
        halves = divide_strip(sample) if part == STRIP else None
        if halves:
            rows += [_Row(halves[0], "train"), _Row(halves[1], "validation")]
        else:
            rows.append(_Row(sample, "train" if part == STRIP else part))
    return rows


def _count(learned: Sequence[Sample], task: str, objects: Mapping[str, int]) -> dict[str, int]:
    """Objects of all samples as noted; nothing where they are not numbered."""
    if task != "instance_segmentation":
        return {}
    return {"objects": sum(objects[s.name] if s.name in objects else count_objects(s) for s in learned)}


def count_objects(sample: Sample) -> int:
    """Objects of which at least a part is known; one that is there at several time points counts at each."""
    image, found = sample.targets[TARGET], set()
    for t, c, z, y, x in _slabs(image.info.shape, 1):
        labels = image.read((t, c, z, y, x))
        if sample.weight is not None:
            times, _, depth, _, _ = sample.weight.info.shape  # a single one holds for all
            place = (t if times > 1 else slice(0, 1), slice(0, 1), z if depth > 1 else slice(0, 1), y, x)
            labels = labels[np.broadcast_to(sample.weight.read(place) > 0, labels.shape)]
        found |= {(t.start, int(number)) for number in np.unique(labels) if number > 0}
    return len(found)


def _check_targets(sample: Sample) -> None:
    if TARGET not in sample.targets:
        raise DataError(f"{sample.name} has no target", "Add its target or exclude it")


def _images(sample: Sample) -> dict[str, Image]:
    """Images by the heading of their column."""
    found = {"IM": sample.source, "GT": sample.targets[TARGET]}
    found |= {f"GT_{' '.join(name.split())}": image for name, image in sample.targets.items() if name != TARGET}
    return {**found, "CM": sample.weight} if sample.weight is not None else found


def _array(pixels: NDArray[Any], name: str, like: Image) -> ArrayImage:
    """Image of ``(T, C, Z, Y, X)`` pixels with the axes and voxel size of `like`."""
    from im2im_core.axes import from_tczyx

    axes = "".join(a for a in like.info.axes if a != "C" or pixels.shape[1] > 1)
    return ArrayImage(
        from_tczyx(pixels, axes), axes, name=name, voxel_size=like.info.voxel_size, time_step=like.info.time_step
    )


def _one_or_all(place: float | None, size: int) -> slice:
    if place is None:
        return slice(0, size)
    index = min(max(round(place), 0), size - 1)
    return slice(index, index + 1)


def _known_box(sample: Sample) -> tuple[int, int, int, int]:
    """First and last row and column (top, left, bottom, right) of what is known."""
    _, _, _, height, width = sample.source.info.shape
    if sample.weight is None:
        return 0, 0, height, width
    rows, columns = np.zeros(height, bool), np.zeros(width, bool)
    for region in _slabs(sample.weight.info.shape, 1):
        known = sample.weight.read(region)[0, 0, 0] > 0
        rows |= known.any(axis=1)
        columns |= known.any(axis=0)
    if not rows.any():
        return 0, 0, height, width
    y, x = np.flatnonzero(rows), np.flatnonzero(columns)
    return int(y[0]), int(x[0]), int(y[-1]) + 1, int(x[-1]) + 1


# ---- storing -------------------------------------------------------------------


def _store(
    rows: list[_Row], folder: Path, project: Project, on_event: OnEvent | None, should_stop: ShouldStop | None
) -> None:
    """Write or reference the images of all rows; fills in their paths."""
    from im2im_core.io.identity import scene_of

    names = _file_names(rows)
    taken: set[tuple[Path, str]] = set()
    begin = time.monotonic()
    for done, (row, name) in enumerate(zip(rows, names, strict=True)):
        if on_event:
            on_event(Progress("saving images", done, len(rows), time.monotonic() - begin))
        for role, image in _images(row.sample).items():
            if should_stop and should_stop():
                raise Stopped(f"Saving was stopped after {done} of {len(rows)} images", "Nothing was saved")
            scene = scene_of(image)
            path = _file_of(image, scene) if role == "IM" or scene in ("", row.scene) else None
            if path is not None and not (role == "IM" and (path, scene) in taken):
                taken.add((path, scene))
                row.scene = scene if role == "IM" else row.scene
                row.paths[role], row.about[role] = _reference(path, image, project)
                row.about[role] |= {"scene": scene} if scene else {}
            else:
                row.paths[role] = f"images/{_UNSAFE.sub('-', role)}/{name}.ome.zarr"
                labels = role.startswith("GT")
                row.about[role] = {**_facts(image), "pixels": _copy(image, folder / row.paths[role], labels)}
    if on_event:
        on_event(Progress("saving images", len(rows), len(rows), time.monotonic() - begin))


def _file_names(rows: list[_Row]) -> list[str]:
    """One name per row that every file system takes, in which no two are equal."""
    names: list[str] = []
    for row in rows:
        name = _UNSAFE.sub("-", row.sample.name).strip("-. ")[:80] or "image"
        name = f"{name}_" if name.split(".")[0].lower() in _RESERVED else name
        unique, number = name, 1
        while unique.lower() in {n.lower() for n in names}:
            number += 1
            unique = f"{name}-{number}"
        names.append(unique)
    return names


def _file_of(image: Image, scene: str) -> Path | None:
    """File whose only image, or whose `scene`, read without any other setting, is exactly `image`; None without one."""
    from im2im_core.errors import ResourceError
    from im2im_core.io import open_image

    text = image.info.identity.rsplit("|", 4)[0]
    # A table has one row per line and strips blanks.
    if "|" not in image.info.identity or any(word != " ".join(word.splitlines()).strip() for word in (text, scene)):
        return None
    try:
        stored = open_image(Path(text), scene=scene or 0)
    except (DataError, ResourceError, OSError, ValueError):
        return None
    return Path(text) if stored.info == image.info and bool(scene) == bool(stored.info.scenes) else None


def _reference(path: Path, image: Image, project: Project) -> tuple[str, dict[str, Any]]:
    """Path as the table names it, and what pins its content."""
    from im2im_core.files import sha256

    full = path.resolve()
    inside = full.is_relative_to(project.root)
    named = f"../../{full.relative_to(project.root).as_posix()}" if inside else str(full)
    content = {"sha256": sha256(full)} if full.is_file() else {}
    return named, {**_facts(image), "file": project.relative(full), "identity": image.info.identity, **content}


def _facts(image: Image) -> dict[str, Any]:
    info = image.info
    return {
        "shape": list(info.shape),
        "axes": info.axes,
        "dtype": str(info.dtype),
        "voxel_size": list(info.voxel_size),
        "channels": list(info.channels),
        "time_step": info.time_step,
    }


def _copy(image: Image, path: Path, labels: bool) -> str:
    """Hex digest of the pixels of `image`, written to `path` slab by slab."""
    from im2im_core.io import create_output

    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(f"{image.info.dtype.str}{image.info.shape}".encode())
    with create_output(path, image.info, labels=labels) as writer:
        for region in _slabs(image.info.shape, writer.chunks[2]):
            pixels = image.read(region)
            digest.update(np.ascontiguousarray(pixels).data)
            writer.write(region, pixels)
    return digest.hexdigest()


def _slabs(shape: tuple[int, ...], depth: int) -> Iterator[Region]:
    """Regions of one time point, one channel and `depth` planes that together make `shape`."""
    times, channels, planes, height, width = shape
    for t, c, z in np.ndindex(times, channels, -(-planes // depth)):
        span = slice(z * depth, min((z + 1) * depth, planes))
        yield slice(t, t + 1), slice(c, c + 1), span, slice(0, height), slice(0, width)


def middle_plane(image: Image, side: int | None = None) -> NDArray[Any]:
    """The plane ``(Y, X)`` of the first channel in the middle of time and depth; of a larger one its middle.

    Parameters
    ----------
    side : int, optional
        Largest height and width.
    """
    times, _, depth, height, width = image.info.shape
    t, z = times // 2, depth // 2
    rows, columns = (_middle(n, side or n) for n in (height, width))
    region: Region = (slice(t, t + 1), slice(0, 1), slice(z, z + 1), rows, columns)
    plane: NDArray[Any] = image.read(region)[0, 0, 0]
    return plane


def _middle(length: int, side: int) -> slice:
    start = max(length - side, 0) // 2
    return slice(start, min(start + side, length))


# ---- what is written -----------------------------------------------------------


def _note(folder: Path, rows: list[_Row], about: dict[str, Any]) -> None:
    from im2im_core.io.outputs import sync_tree

    _write_text(folder / TABLE, _table(rows))
    _write_text(folder / ABOUT, json.dumps(about, indent=1, ensure_ascii=False))
    sync_tree(folder)


def _table(rows: list[_Row]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    roles = list(dict.fromkeys((*_ROLES, *(role for row in rows for role in row.paths))))
    more = ["scene"] if any(row.scene for row in rows) else []
    writer.writerow([*roles, "group", "part", *more])
    for row in rows:
        group = " ".join(row.sample.group.split())  # a table has one row per line
        writer.writerow([*(row.paths.get(role, "") for role in roles), group, row.part, *([row.scene] if more else [])])
    return stream.getvalue()


def _describe(
    name: str,
    task: str,
    labelling: str,
    rows: list[_Row],
    regions: Mapping[str, Polygons],
    excluded: Sequence[str],
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "name": name,
        "task": task,
        "labelling": labelling,
        "samples": [
            {
                "name": row.sample.name,
                "group": row.sample.group,
                "part": row.part,
                "region": None if row.sample.region is None else [[s.start, s.stop] for s in row.sample.region],
                "images": {role: {"path": row.paths[role], **row.about[role]} for role in row.paths},
            }
            for row in rows
        ],
        "regions": {key: [np.asarray(p, float).tolist() for p in found] for key, found in regions.items()},
        "excluded": list(excluded),
    }


def _key(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
