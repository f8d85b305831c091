"""What all layouts share: the files of a sample, pairing by name, and opening them as lazy samples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from im2im_core.errors import DataError, ResourceError
from im2im_core.layouts.scenes import SceneFiles, UnclearScene, by_scene, partner_scene
from im2im_core.samples import TARGET, Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.axes import Region
    from im2im_core.image import Image, ImageInfo, VoxelSize
    from im2im_core.layouts.scenes import Asked
    from im2im_core.recipe.data import DataSettings

Part = Literal["train", "validation", "test"]
Named = Sequence[tuple[str, Path]]
"""Files of one role, each with the name of the sample it belongs to."""

_DOUBLE_ENDINGS = (".ome.tiff", ".ome.tif", ".ome.tf8", ".ome.btf", ".ome.zarr", ".nii.gz")


@dataclass(frozen=True)
class SampleFiles:
    """The files of one sample, before any of them is opened."""

    name: str
    source: Path
    targets: Mapping[str, Path] = field(default_factory=dict)
    weight: Path | None = None
    group: str = ""
    """Samples of one group are never divided; empty = a group of its own."""
    part: Part | None = None
    """Where the sample must go, where its place or table says so."""
    more_channels: tuple[Path, ...] = ()
    """Files of the further channels, where each channel is a file of its own."""
    channel_names: tuple[str, ...] = ()
    """Names of the channels, where a file beside the images says them."""
    voxel_size: VoxelSize | None = None
    """Where a file beside the image says it."""
    ignored: int | None = None
    """Label of pixels of which nothing is known."""
    scene: int | str | None = None
    """Number or name of the scene that is meant where the file has several; None = those that the settings choose."""


@dataclass(frozen=True)
class FileProblem:
    """One thing that is wrong with the files of a sample."""

    name: str
    code: str
    """One of `im2im_core.review.CODES`."""
    text: str
    file: str = ""
    """File it is about; empty where it is none, or several."""
    value: Any = None
    """What was found, as plain content; None where the text says it all."""


class FilesError(DataError):
    """Everything that is wrong with a set of files, listed by name.

    Parameters
    ----------
    problems : tuple of FileProblem
        All problems, in the order of the samples.
    found : tuple of SampleFiles
        Samples whose source exists, whether or not their partners do.
    """

    def __init__(
        self,
        message: str,
        cure: str = "",
        problems: tuple[FileProblem, ...] = (),
        found: tuple[SampleFiles, ...] = (),
    ) -> None:
        super().__init__(message, cure)
        self.problems = problems
        self.found = found


class Layout(Protocol):
    """One way that images, targets and weights are told apart."""

    def find(self, root: Path) -> tuple[SampleFiles, ...]:
        """Samples below `root`, sorted by name.

        Raises
        ------
        DataError
            Lists everything that is missing, doubled or not understood.
        """
        ...


# ---- names and folders ----


def image_stem(path: Path) -> str:
    """File name without its ending; ``.ome.tiff`` and its like count as one ending."""
    lower = path.name.lower()
    ending = next((e for e in _DOUBLE_ENDINGS if lower.endswith(e)), path.suffix)
    return path.name[: len(path.name) - len(ending)]


def list_images(folder: Path) -> tuple[Path, ...]:
    """Images directly in `folder`, sorted by name; hidden and half-written files are left out."""
    from im2im_core.io import is_image

    return tuple(p for p in visible(folder) if is_image(p))


def list_folders(folder: Path) -> tuple[Path, ...]:
    """Folders directly in `folder` that are not images themselves (OME-Zarr), sorted by name."""
    from im2im_core.io import is_image

    return tuple(p for p in visible(folder) if p.is_dir() and not is_image(p))


def visible(folder: Path) -> tuple[Path, ...]:
    """Entries of `folder` that are neither hidden nor half written, sorted by name."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"Cannot read the folder {folder}: {error.strerror}", "Check its name and permissions"
        ) from error
    return tuple(p for p in entries if not p.name.startswith(".") and p.suffix != ".part")


def check_group_pattern(pattern: str | None) -> str | None:
    """`pattern` itself, after checking that it is a regular expression with a capture group."""
    if pattern is None:
        return None
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    if groups < 1:
        raise ValueError("has no capture group; put parentheses around the part that names the group")
    return pattern


# ---- pairing ----


def files_error(problems: Iterable[FileProblem], found: Iterable[SampleFiles] = ()) -> FilesError:
    """One error that lists all `problems`."""
    from im2im_core.review.codes import CODES

    problems = tuple(problems)
    texts = [p.text for p in problems]
    message = texts[0] if len(texts) == 1 else f"{len(texts)} problems with the images:\n- " + "\n- ".join(texts)
    codes = dict.fromkeys(p.code for p in problems)
    return FilesError(message, "; ".join(CODES[c].cure for c in codes), problems, tuple(found))


def pair(
    sources: Named, targets: Mapping[str, Named], weights: Named = (), group_pattern: str | None = None
) -> tuple[SampleFiles, ...]:
    """Samples of equal names, sorted.

    Raises
    ------
    FilesError
        A source lacks a target, a target or weight lacks its source, a name stands
        twice in one role, or a name does not fit `group_pattern`.
    """
    roles: dict[str, Named] = {"image": sources, **targets, "weight": weights}
    problems = [p for role, named in roles.items() for p in _doubled(role, named)]
    source, weight = dict(sources), dict(weights)
    by_target = {key: dict(named) for key, named in targets.items()}
    for name, path in sorted(source.items()):
        problems += [
            FileProblem(name, "missing_partner", f"{path.name} has no {_role(key)}", str(path))
            for key, files in by_target.items()
            if name not in files
        ]
    for role, files in ({**by_target, "weight": weight}).items():
        problems += [
            FileProblem(name, "missing_partner", f"{path.name} ({_role(role)}) has no image", str(path))
            for name, path in sorted(files.items())
            if name not in source
        ]
    found = []
    for name, path in sorted(source.items()):
        group, problem = group_of(name, group_pattern)
        problems += [problem] if problem else []
        own = {key: files[name] for key, files in by_target.items() if name in files}
        found.append(SampleFiles(name, path, own, weight.get(name), group))
    if problems:
        raise files_error(problems, found)
    return tuple(found)


def target_names(labels: Sequence[str]) -> tuple[str, ...]:
    """Names of targets: the first is the target, the others are named by their suffix or folder."""
    return tuple(label.strip("_-. ") if i else TARGET for i, label in enumerate(labels))


def _role(key: str) -> str:
    return key if key in (TARGET, "weight", "image") else f"target {key!r}"


def _doubled(role: str, named: Named) -> list[FileProblem]:
    counts = Counter(name for name, _ in named)
    return [
        FileProblem(
            name,
            "duplicate_stem",
            f"{name!r} stands {count} times as {_role(role)}: "
            + ", ".join(path.name for other, path in named if other == name),
            value=[str(path) for other, path in named if other == name],
        )
        for name, count in counts.items()
        if count > 1
    ]


def group_of(name: str, pattern: str | None) -> tuple[str, FileProblem | None]:
    """Group that the first parentheses of `pattern` find in `name`, empty without a pattern; or what is wrong."""
    if pattern is None:
        return "", None
    match = re.search(pattern, name)
    if match is None or not match[1]:
        return "", FileProblem(name, "group_pattern", f"{name!r} does not fit group_pattern {pattern!r}")
    return match[1], None


# ---- opening ----


def open_samples(
    files: Iterable[SampleFiles],
    *,
    axes: str | None = None,
    input_channels: tuple[int | str, ...] | None = None,
    target_channels: tuple[int | str, ...] | None = None,
    voxel_size: VoxelSize | None = None,
    scenes: Asked = None,
) -> tuple[Sample, ...]:
    """Samples whose images are open but not read; each scene of a file is one, and those of a file are a group.

    Parameters
    ----------
    scenes : tuple of int or str, optional
        Numbers or names of scenes; all of them where not given.

    Raises
    ------
    FilesError
        Lists every file that cannot be opened and every pair whose sizes do not fit.
    """
    files = tuple(files)
    found = survey_files(
        files,
        axes=axes,
        input_channels=input_channels,
        target_channels=target_channels,
        voxel_size=voxel_size,
        scenes=scenes,
    )
    if found.problems:
        raise files_error(found.problems, files)
    return found.samples


@dataclass(frozen=True)
class Survey:
    """What the sources of a recipe hold: all that can be opened, and all that is wrong with the rest."""

    samples: tuple[Sample, ...]
    files: tuple[SampleFiles, ...]
    """Files of all samples; those of each scene where a file has several."""
    problems: tuple[FileProblem, ...]

    @property
    def parts(self) -> dict[str, str]:
        """Parts that their place or table gives, by the names of the samples."""
        return {f.name: f.part for f in self.files if f.part}


def load_samples(settings: DataSettings, root: Path) -> tuple[tuple[Sample, ...], dict[str, str]]:
    """Samples of all sources of `settings`, and the parts that their place or table gives, by name.

    Names that stand in several sources get their folder in front; everything that
    is wrong in any source is listed in one error.

    Raises
    ------
    DataError
        No path is set, or files are missing, doubled, unreadable or do not fit together.
    """
    found = survey_samples(settings, root)
    if found.problems:
        raise files_error(found.problems, found.files)
    return found.samples, found.parts


def survey_samples(settings: DataSettings, root: Path) -> Survey:
    """Everything in the sources of `settings`, with what is wrong with single files.

    Raises
    ------
    DataError
        No path is set, or a source as a whole is not understood.
    """
    files: list[SampleFiles] = []
    problems: list[FileProblem] = []
    for path, layout in sources_of(settings, root):
        try:
            files += layout.find(path)
        except FilesError as error:
            problems += error.problems
            files += error.found
    unique, doubled = _unique_names(files)
    found = survey_files(
        unique,
        axes=settings.axes,
        input_channels=settings.input_channels,
        target_channels=settings.target_channels,
        voxel_size=settings.voxel_size,
        scenes=settings.scenes,
    )
    return replace(found, problems=(*problems, *doubled, *found.problems))


def survey_files(
    files: Iterable[SampleFiles],
    *,
    axes: str | None = None,
    input_channels: tuple[int | str, ...] | None = None,
    target_channels: tuple[int | str, ...] | None = None,
    voxel_size: VoxelSize | None = None,
    scenes: Asked = None,
) -> Survey:
    """Everything in `files`, scene by scene, with what is wrong with single ones; arguments as for `open_samples`."""
    told = _Told(axes, input_channels, target_channels, voxel_size, scenes)
    samples: list[Sample] = []
    opened: list[SampleFiles] = []
    problems: list[FileProblem] = []
    for item in files:
        said = told._replace(voxel_size=told.voxel_size or item.voxel_size)
        scenes_of_item = list(_scenes(item, said, problems))
        opened += [scene.files for scene, _ in scenes_of_item] or [item]
        found = (_sample(scene, source, said, problems) for scene, source in scenes_of_item)
        samples += [sample for sample in found if sample is not None]
    problems += _unequal_channels(samples)
    return Survey(tuple(samples), tuple(opened), tuple(problems))


def sources_of(settings: DataSettings, root: Path) -> tuple[tuple[Path, Layout], ...]:
    """Folders or tables of `settings`, each with its layout.

    Raises
    ------
    DataError
        No path is set.
    """
    if settings.path is None:
        raise DataError("data.path is not set", "Name the folder or CSV table with the images")
    places: list[tuple[str, Layout]] = [(settings.path, settings.layout)]
    places += [(source.path, source.layout) for source in settings.more]
    return tuple((root / Path(path).expanduser(), layout) for path, layout in places)


def _unique_names(files: list[SampleFiles]) -> tuple[list[SampleFiles], list[FileProblem]]:
    """Files whose equal names are preceded by as many of their folders as it takes."""
    result, depth = list(files), 0
    while doubled := {n for n, count in Counter(f.name for f in result).items() if count > 1}:
        depth += 1
        clash = [i for i, f in enumerate(result) if f.name in doubled]
        if len({(result[i].source, result[i].scene) for i in clash}) < len(clash):
            texts = dict.fromkeys(f"{result[i].source} is given more than once" for i in clash)
            return result, [FileProblem("", "duplicate_stem", text) for text in texts]
        for i in clash:
            folders = result[i].source.absolute().parent.parts[-depth:]
            result[i] = replace(result[i], name="-".join((*folders, files[i].name)))
    return result, []


class _Told(NamedTuple):
    """What is said of the files of a data set that they may not say themselves."""

    axes: str | None
    input_channels: tuple[int | str, ...] | None
    target_channels: tuple[int | str, ...] | None
    voxel_size: VoxelSize | None
    scenes: Asked


def _scenes(item: SampleFiles, told: _Told, problems: list[FileProblem]) -> Iterator[tuple[SceneFiles, Image | None]]:
    """The scenes of an image that are learned from, with their images; None where one cannot be opened."""
    if item.scene is None and told.scenes is None and not item.more_channels:
        # Most files hold one image, which is opened once and says so itself.
        whole = SceneFiles(item)
        source = _open_source(whole, told, problems)
        if source is None or not source.info.scenes:
            yield whole, source
            return
        names = source.info.scenes
    else:
        names = _names_in(item.source)
    try:
        scenes = by_scene(item, names, told.scenes)
    except DataError as error:
        problems.append(FileProblem(item.name, "scenes", str(error), str(item.source), list(names)))
        return
    for scene in scenes:
        yield scene, _open_source(scene, told, problems)


def _names_in(path: Path) -> tuple[str, ...]:
    """Names of all scenes of a file; none where it holds one image, or cannot be looked at, which opening it says."""
    from im2im_core.io import scenes

    try:
        names = scenes(path)
    except (DataError, ResourceError, OSError):
        return ()
    return names if len(names) > 1 else ()


def _sample(scene: SceneFiles, source: Image | None, told: _Told, problems: list[FileProblem]) -> Sample | None:
    """Sample of a scene; None where `source` is, or where a partner cannot be opened: `problems` says why."""
    item, errors = scene.files, list[FileProblem]()
    targets = {
        key: _open_partner(scene, path, told, told.target_channels, errors) for key, path in item.targets.items()
    }
    weight = _open_partner(scene, item.weight, told, None, errors) if item.weight else None
    problems += errors
    if source is None or errors:
        return None
    opened = {key: image for key, image in targets.items() if image is not None}
    sample = _with_unknown(Sample(item.name, item.group or item.name, source, opened, weight), item.ignored)
    problems += [FileProblem(item.name, "shape_mismatch", text, str(item.source)) for text in shape_mismatches(sample)]
    return sample


def _with_unknown(sample: Sample, ignored: int | None) -> Sample:
    """Sample in which nothing is known of the pixels labelled `ignored`."""
    from im2im_core.layouts.ignored import known_pixels, without_ignored

    if ignored is None or TARGET not in sample.targets:
        return sample
    labels = sample.targets[TARGET]
    targets = {**sample.targets, TARGET: without_ignored(labels, ignored)}
    return replace(sample, targets=targets, weight=sample.weight or known_pixels(labels, ignored))


def _open_source(scene: SceneFiles, told: _Told, errors: list[FileProblem]) -> Image | None:
    """Image of a sample, put together where its channels are files of their own, with the channels it must have."""
    from im2im_core.image import join_channels, select_channels

    item, wanted = scene.files, len(scene.files.channel_names)
    if not item.more_channels and not wanted:
        return _open(scene, item.source, told, told.axes, told.input_channels, errors)
    paths = (item.source, *item.more_channels)
    opened = [_open(scene, path, told, told.axes, None, errors) for path in paths]
    images = [image for image in opened if image is not None]
    if len(images) < len(opened):
        return None
    found = sum(image.info.shape[1] for image in images)
    if wanted and found != wanted:
        text = f"{item.name} has {found} channels, {wanted} are described: {', '.join(item.channel_names)}"
        errors.append(FileProblem(item.name, "channel_count", text, str(item.source), found))
        return None
    name = item.name if item.more_channels else images[0].info.name
    try:
        return select_channels(join_channels(images, name, item.channel_names), told.input_channels)
    except DataError as error:
        errors.append(FileProblem(item.name, "shape_mismatch", str(error), str(item.source)))
        return None


def _open(
    scene: SceneFiles,
    path: Path,
    told: _Told,
    axes: str | None,
    channels: tuple[int | str, ...] | None,
    errors: list[FileProblem],
) -> Image | None:
    """Open image, or None with the reason added to `errors`."""
    from im2im_core.image import select_channels

    name = scene.files.name
    try:
        image = select_channels(_open_scene(scene, path, told, axes), channels)
    except UnclearScene as error:
        errors.append(FileProblem(name, "scenes", error.message, str(path)))
        return None
    except (DataError, ResourceError) as error:
        text = str(error) if path.name in str(error) else f"{path}: {error}"
        errors.append(FileProblem(name, "unreadable", text, str(path)))
        return None
    except OSError as error:
        errors.append(FileProblem(name, "unreadable", f"Cannot read {path}: {error.strerror or error}", str(path)))
        return None
    return image if told.voxel_size is None else _DescribedImage(image, told.voxel_size)


def _open_scene(scene: SceneFiles, path: Path, told: _Told, axes: str | None) -> Image:
    """Image of the scene, or what belongs to it in another file."""
    from im2im_core.io import open_image

    number = scene.number if path == scene.files.source else 0
    image = open_image(path, axes=axes, scene=number)
    if path == scene.files.source:
        return image
    number = partner_scene(path, image.info.scenes, scene, told.scenes)
    return open_image(path, axes=axes, scene=number) if number else image


def _open_partner(
    scene: SceneFiles,
    path: Path,
    told: _Told,
    channels: tuple[int | str, ...] | None,
    errors: list[FileProblem],
) -> Image | None:
    """Open target or weight; it may lack axes that the recipe gives to the files."""
    reasons: list[FileProblem] = []
    for candidate in (told.axes, told.axes.upper().replace("C", ""), None) if told.axes else (None,):
        image = _open(scene, path, told, candidate, channels, reasons)
        if image is not None:
            return image
    errors += reasons[:1]
    return None


def shape_mismatches(sample: Sample) -> list[str]:
    """Sentences for all targets and the weight whose size does not fit the source.

    Y and X must be equal; T and Z must be equal or 1. Targets may have other channels,
    a weight has one.
    """
    partners = dict(sample.targets) | ({"weight": sample.weight} if sample.weight else {})
    return [
        f"{sample.name}: image {_shape_text(sample.source.info)} and {_role(key)} {_shape_text(image.info)} do not fit"
        for key, image in partners.items()
        if not _fits(sample.source.info.shape, image.info.shape, one_channel=key == "weight")
    ]


def _fits(source: tuple[int, ...], partner: tuple[int, ...], *, one_channel: bool) -> bool:
    times_and_planes = all(partner[i] in (1, source[i]) for i in (0, 2))
    return times_and_planes and partner[3:] == source[3:] and not (one_channel and partner[1] != 1)


def _shape_text(info: ImageInfo) -> str:
    sizes = dict(zip("TCZYX", info.shape, strict=True))
    return " × ".join(f"{a} {n}" for a, n in sizes.items() if n > 1 or a in info.axes)


def _unequal_channels(samples: Sequence[Sample]) -> list[FileProblem]:
    from im2im_core.io.identity import file_of

    counts = Counter(s.source.info.shape[1] for s in samples)
    if len(counts) < 2:
        return []
    usual = counts.most_common(1)[0][0]
    return [
        FileProblem(
            s.name,
            "channel_count",
            f"{s.name} has {s.source.info.shape[1]} channels, most images have {usual}",
            file_of(s.source),
            s.source.info.shape[1],
        )
        for s in samples
        if s.source.info.shape[1] != usual
    ]


class _DescribedImage:
    """Another image with the voxel size that the user gave."""

    def __init__(self, image: Image, voxel_size: VoxelSize) -> None:
        self._image = image
        self._info = replace(image.info, voxel_size=voxel_size, refused=())

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, region: Region | None = None) -> NDArray[Any]:
        return self._image.read(region)
