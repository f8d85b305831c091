"""A region of the user's image that a training predicts at every validation: from the viewer to the sample it is of."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_core.errors import DataError
from napari_im2im._layers import is_image_layer, is_shapes, is_users, take_snapshot
from napari_im2im._regions import shapes_region, visible_region

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari import Viewer
    from napari.layers import Layer

    from im2im_core.axes import Region
    from im2im_core.runs import Run
    from im2im_core.samples import Sample

    Box = tuple[slice, slice, slice]

BLOCK = " (validation block)"
"""Ends the name of the part of an image that validates when a training divides it."""


@dataclass(frozen=True)
class Wish:
    """A region of one layer, as it may be known to a run under another name."""

    layer: str
    path: Path | None
    shape: tuple[int, int, int, int, int]
    region: Region


@dataclass(frozen=True)
class Watched:
    """A region in the words of a run."""

    sample: str
    start: tuple[int, int, int]
    """First pixel along Z, Y, X of the sample."""
    stop: tuple[int, int, int]
    shape: tuple[int, int, int]
    """Size of the sample."""


@dataclass(frozen=True)
class _Origin:
    """Where the stored image of a saved data set was taken from."""

    name: str
    file: str
    start: tuple[int, ...]
    """Along T, C, Z, Y, X."""


# ---- in the viewer -------------------------------------------------------------


def chosen_regions(viewer: Viewer) -> list[Wish]:
    """What the selected rectangle encloses, else what is visible: of each image that can be meant, the chosen first.

    Raises
    ------
    DataError
        There is no image, or nothing of it lies in the region.
    """
    active = viewer.layers.selection.active
    images = [layer for layer in viewer.layers if is_image_layer(layer) and is_users(layer)]
    images.sort(key=lambda layer: layer not in viewer.layers.selection)
    if active in images:
        images = [active]
    if not images:
        raise DataError("There is no image in the viewer", "Open the image that the training learns from")
    found: list[Wish] = []
    problems: list[DataError] = []
    for layer in images:
        try:
            found.append(_wish(viewer, layer, _rectangles(viewer)))
        except DataError as error:
            problems.append(error)
    if not found:
        raise problems[0]
    return found


def _rectangles(viewer: Viewer) -> Any:
    """Shapes layer that is chosen, or in which a shape is; None where the view counts."""
    active = viewer.layers.selection.active
    if active is not None and is_shapes(active):
        return active
    return next((s for s in viewer.layers.selection if is_shapes(s) and s.selected_data), None)


def _wish(viewer: Viewer, layer: Layer, shapes: Any) -> Wish:
    snapshot = take_snapshot([layer], copy=False)
    if shapes is None:
        region = visible_region(viewer, layer, snapshot, 2)
    else:
        region = shapes_region(shapes, layer, snapshot)
        if snapshot.shape[0] > 1 or snapshot.shape[2] > 1:
            # A rectangle has no depth: what is meant is what is seen.
            seen = visible_region(viewer, layer, snapshot, 2)
            region = (seen[0], region[1], seen[2], *region[3:])
    path = Path(str(layer.source.path)) if layer.source.path else None
    return Wish(layer.name, path, snapshot.shape, region)


# ---- in the run ----------------------------------------------------------------


def find_watched(run: Run, wishes: Sequence[Wish]) -> Watched:
    """The region in the words of `run`; opens the images it learns from, so it is not for the main thread.

    Raises
    ------
    DataError
        The run does not learn from any of these images, or not from this part of it.
    """
    from im2im_core.api import load_split
    from im2im_core.project import Project

    project, recipe = Project(run.folder.parent.parent), run.recipe
    split = load_split(recipe, project)
    origins = _origins(project.resolve(recipe.data.path or ""))
    samples = (*split.train, *split.validation)
    for wish in wishes:
        known = [s for s in samples if _is_of(s, wish, origins.get(_base(s)))]
        placed = [(s, _overlap(s, wish, origins.get(_base(s)))) for s in known]
        inside = [(s, box) for s, box in placed if all(b.stop > b.start for b in box)]
        if inside:
            sample, box = max(inside, key=lambda found: _volume(found[1]))
            return _watched(sample, wish, box, recipe.data.dimensions)
        if known:
            raise DataError(
                f"“{wish.layer}” is learned from, but not this part of it",
                "Choose a region inside of what is labelled or kept for validation",
            )
    names = ", ".join(dict.fromkeys(s.name for s in samples[:3]))
    raise DataError(
        f"This training does not learn from “{wishes[0].layer}”; it learns from {names}",
        "Choose one of its images in the layer list",
    )


def watch_region(folder: str, wishes: Sequence[Wish]) -> int:
    """Number of the command that asks the run in `folder` to predict a region from its next validation on."""
    from im2im_core.jobs.commands import send_command
    from im2im_core.runs import Run

    run = Run(folder)
    found = find_watched(run, wishes)
    taken = asked_regions(run, range(1, run.attempt + 1))
    number = next(n for n in count(1) if f"region-{n}" not in taken)
    return send_command(
        run,
        "preview",
        sample=found.sample,
        start=list(found.start),
        stop=list(found.stop),
        shape=list(found.shape),
        name=f"region-{number}",
    )


def asked_regions(run: Run, attempts: Iterable[int]) -> dict[str, dict[str, Any]]:
    """Name of each region that was asked of `attempts` -> the newest arguments of its command."""
    from im2im_core.jobs.commands import CommandInbox

    commands = [c for attempt in attempts for c in CommandInbox(run, attempt).poll() if c.verb == "preview"]
    return {str(c.arguments["name"]): c.arguments for c in commands if "name" in c.arguments}


def _origins(path: Path) -> dict[str, _Origin]:
    """Name that a training gives to a stored image -> where it came from; empty for other folders."""
    from im2im_core.datasets import ABOUT, SAME_IMAGE, TABLE, read_about
    from im2im_core.layouts.base import image_stem

    folder = path.parent if path.name == TABLE else path
    if not (folder / ABOUT).is_file():
        return {}
    origins = {}
    for sample in read_about(folder)["samples"]:
        stored = sample["images"]["IM"]
        start = tuple(int(first) for first, _ in sample.get("region") or [(0, 0)] * 5)
        origin = _Origin(str(sample["name"]).removesuffix(SAME_IMAGE), str(stored.get("file", "")), start)
        scene = stored.get("scene")
        origins[image_stem(Path(stored["path"])) + (f":{scene}" if scene else "")] = origin
    return origins


def _base(sample: Sample) -> str:
    return sample.name.removesuffix(BLOCK)


def _is_of(sample: Sample, wish: Wish, origin: _Origin | None) -> bool:
    """Whether the sample is the layer's image or a part of it."""
    file = Path(sample.source.info.identity.partition("|")[0])
    if wish.path is not None and file == wish.path.resolve() and _is_scene(sample, wish.layer):
        return True
    names = {_base(sample), *([origin.name] if origin else [])}
    return wish.layer in names and _fits(sample, wish, origin)


def _is_scene(sample: Sample, layer: str) -> bool:
    """Whether a layer with this name shows the scene of the sample: the one that it names, else the first."""
    from im2im_core.io.identity import scene_of

    scenes, scene = sample.source.info.scenes, scene_of(sample.source)
    named = [name for name in scenes if name in layer]
    return not scenes or (scene in named if named else scene == scenes[0])


def _fits(sample: Sample, wish: Wish, origin: _Origin | None) -> bool:
    """Whether the sample lies inside of an image of the layer's size."""
    ends = (o + n for o, n in zip(_offset(sample, origin), sample.source.info.shape[2:], strict=True))
    return all(end <= size for end, size in zip(ends, wish.shape[2:], strict=True))


def _offset(sample: Sample, origin: _Origin | None) -> tuple[int, ...]:
    """First pixel of the sample in the image of the user, along Z, Y, X."""
    stored = origin.start[2:] if origin else (0, 0, 0)
    cut = sample.region[2:] if sample.region else (slice(0, 0),) * 3
    return tuple(a + b.start for a, b in zip(stored, cut, strict=True))


def _overlap(sample: Sample, wish: Wish, origin: _Origin | None) -> Box:
    """What of the region lies in the sample, in its pixels along Z, Y, X."""
    shape = sample.source.info.shape[2:]
    spans = zip(wish.region[2:], _offset(sample, origin), shape, strict=True)
    z, y, x = (slice(max(s.start - o, 0), min(s.stop - o, n)) for s, o, n in spans)
    return z, y, x


def _volume(box: Iterable[slice]) -> int:
    size = 1
    for span in box:
        size *= span.stop - span.start
    return size


def _watched(sample: Sample, wish: Wish, box: Box, dimensions: int) -> Watched:
    times, _, depth, height, width = sample.source.info.shape
    name = f"{sample.name}@{min(wish.region[0].start, times - 1)}" if times > 1 else sample.name
    z, y, x = (slice(0, depth), *box[1:]) if dimensions == 3 else box
    start, stop = (z.start, y.start, x.start), (z.stop, y.stop, x.stop)
    return Watched(name, start, stop, (depth, height, width))
