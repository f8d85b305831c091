"""``im2im predict``: one model on one or many images; a bad file does not stop the others."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from im2im_core.commands import Command, Output, add_trust, simple
from im2im_core.commands.scenes import Scene, each_scene, named_scene
from im2im_core.errors import ConfigError, DataError, ResourceError, Stopped
from im2im_core.events import Progress

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from im2im_core.image import Image
    from im2im_core.jobs.signals import StopFlag
    from im2im_core.predict_options import PredictOptions

Source = Path | Scene | dict[str, Path]
"""An image, one of several in a file, or those that go in together by the names of their inputs."""
ENDINGS = (".ome.tif", ".ome.tiff", ".ome.zarr", ".tif", ".tiff", ".zarr")
"""Formats that results are written in; other images give a .tif of the same name."""
_OWN = ("overwrite", "resume")


def _configure(parser: argparse.ArgumentParser) -> None:
    from im2im_core.commands.settings import describe_type, walk_options
    from im2im_core.predict_options import PredictOptions

    parser.add_argument(
        "model", metavar="MODEL", help="model package (folder or zip), name of a model, or name or folder of a run"
    )
    parser.add_argument("images", metavar="IMAGE", nargs="*", help="images, or folders of images")
    parser.add_argument(
        "--input",
        metavar="NAME=FILE",
        dest="inputs",
        action="append",
        default=[],
        help="for a model that takes several images at once: each input with its file, or with a folder, whose images "
        "go together by their names; instead of IMAGE",
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", required=True, type=Path, help="file for one image, folder for several"
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    group.add_argument("--resume", action="store_true", help="keep outputs that are complete, make the others")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--axes", help="axes of the files where they do not say, for example ZYX or CYX")
    parser.add_argument(
        "--scene",
        metavar="NAME",
        help="name or number of a scene (field, position, series) of files that have several; default: each of them",
    )
    parser.add_argument(
        "--outputs",
        metavar="NAMES",
        help="what to write, for example labels,foreground: the first as OUT, others as OUT_NAME; default: the main",
    )
    add_trust(parser)
    defaults = PredictOptions()
    for field in walk_options(defaults):
        if field.name not in _OWN:
            parser.add_argument(
                f"--{field.name.replace('_', '-')}",
                dest=field.name,
                metavar="VALUE",
                help=f"{field.help} ({describe_type(defaults, field)})".replace("%", "%%"),
            )


def _predict(args: argparse.Namespace, output: Output) -> int:
    from im2im_core.jobs.signals import StopFlag
    from im2im_core.trust import trust_for_this_process

    trust_for_this_process(args.trust)
    args.model = find_model(args.model)
    options = _options(args)
    jobs = _jobs(args)
    skipped = [target for _, target in jobs if target.exists()]
    if skipped and not (args.overwrite or args.resume):
        raise ConfigError(
            f"{skipped[0]} exists" + (f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""),
            "Add --resume to keep complete outputs, or --overwrite to replace them",
        )
    # Outputs get their final name only when they are complete, so that one which exists is.
    todo = [(source, target) for source, target in jobs if not (args.resume and target.exists())]
    if len(todo) > 1:  # a model that is none is told once, not for every image
        from im2im_core.bundle import open_bundle

        open_bundle(args.model)
    with StopFlag() as stop:
        done, failed = _predict_all(args, todo, options, output, stop)
    _summarise(output, done, failed, stop, len(jobs) - len(todo))
    return stop.exit_code or (DataError.exit_code if failed else 0)


def _jobs(args: argparse.Namespace) -> list[tuple[Source, Path]]:
    """Each image, or images that go in together by the names of their inputs, with the file of its result."""
    more = (_names(args.outputs) or ())[1:]
    if bool(args.images) == bool(args.inputs):
        raise ConfigError(
            "Images are named in two ways" if args.images else "No image is named",
            "Give IMAGE …, or for a model that takes several at once --input NAME=FILE for each",
        )
    if args.inputs:
        return pair_inputs(args.inputs, args.output, more)
    jobs = each_scene(pair_outputs(args.images, args.output, more), args.scene, args.output)
    _require_apart([(source.path if isinstance(source, Scene) else source, target) for source, target in jobs], more)
    return list(jobs)


def find_model(name: str) -> Path:
    """Model package at a path, or that of a run or a model of the library with this name.

    Raises
    ------
    DataError
        The run has no model yet.
    ConfigError
        There is none of them, or several models have the name.
    """
    path = Path(name)
    if path.exists():
        return path
    from im2im_core.commands.runs import find_run

    try:
        run = find_run(name, None)
    except ConfigError as error:
        return _in_library(name, error)
    if not any(run.model.glob("*.yaml")):
        raise DataError(f"{run.name} has no model yet ({run.state})", "Wait for it, or `im2im stop` it")
    return run.model


def _in_library(name: str, no_run: ConfigError) -> Path:
    from im2im_core.library import find_local
    from im2im_core.models import list_models

    models = list_models()
    if not any(m.name.startswith(name) for m in models):
        raise ConfigError(f"There is no model package and no run {name!r}", no_run.cure) from no_run
    return find_local(name, models).path


def _options(args: argparse.Namespace) -> PredictOptions:
    from im2im_core.commands.settings import parse_value, walk_options
    from im2im_core.predict_options import PredictOptions

    given = {
        field.name: parse_value(field.name, text, field.annotation)
        for field in walk_options(PredictOptions())
        if field.name not in _OWN and (text := getattr(args, field.name)) is not None
    }
    return PredictOptions.load({**given, "overwrite": args.overwrite, "resume": args.resume})


def _predict_all(
    args: argparse.Namespace,
    jobs: Sequence[tuple[Source, Path]],
    options: PredictOptions,
    output: Output,
    stop: StopFlag,
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """What was written and what failed; ends early when `stop` says so."""
    from im2im_core import api
    from im2im_core.progress import reporter

    done: list[dict[str, str]] = []
    failed: list[dict[str, str]] = []
    start = time.monotonic()
    for folder in {target.parent for _, target in jobs}:
        _make(folder)
    with reporter(output.json) as on_event:
        for number, (source, target) in enumerate(jobs, start=1):
            try:
                api.predict(
                    args.model,
                    _all_opened(source, args.axes, args.scene),
                    outputs=_names(args.outputs),
                    to=target,
                    options=options,
                    device=args.device,
                    on_event=on_event,
                    should_stop=stop,
                )
                done.append({"image": _words(source), "output": str(target)})
            except DataError as error:
                failed.append({"image": _words(source), "message": error.message, "cure": error.cure})
            except Stopped:
                break
            if len(jobs) > 1:
                on_event(_progress(number, len(jobs), time.monotonic() - start))
            if stop():
                break
    return done, failed


def _words(source: Source) -> str:
    return " + ".join(map(str, source.values())) if isinstance(source, dict) else str(source)


def _all_opened(source: Source, axes: str | None, scene: str | None) -> Image | dict[str, Image]:
    if isinstance(source, dict):
        return {name: _opened(path, axes, scene) for name, path in source.items()}
    return _opened(source.path, axes, source.name) if isinstance(source, Scene) else _opened(source, axes, None)


def _opened(path: Path, axes: str | None, scene: str | None) -> Image:
    """Image of a file; that it may not be read is a fault of this file, unlike a disk that cannot be written to."""
    from im2im_core.io import open_image, scenes
    from im2im_core.io.scenes import require_one

    try:
        if scene is None:
            return require_one(open_image(path, axes=axes), "Name one of them with --scene")
        return open_image(path, axes=axes, scene=named_scene(path, scenes(path), scene))
    except ResourceError as error:
        raise DataError(error.message, error.cure) from error
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror or error}", "Check it and its disk") from error


def _names(text: str | None) -> tuple[str, ...] | None:
    return tuple(name for part in (text or "").split(",") if (name := part.strip())) or None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"Cannot make {folder}: {error.strerror}", "Check its name and permissions") from error


def _progress(done: int, total: int, elapsed: float) -> Progress:
    return Progress("predicting images", done, total, elapsed, elapsed / done * (total - done))


def _summarise(
    output: Output, done: list[dict[str, str]], failed: list[dict[str, str]], stop: StopFlag, skipped: int
) -> None:
    lines = [f"{len(done)} predicted, {skipped} already there, {len(failed)} failed"]
    lines += [f"  failed: {item['image']}: {item['message']}" for item in failed]
    if stop():
        lines.append("Stopped; go on with the same command and --resume")
    output.result({"done": done, "failed": failed, "skipped": skipped, "stopped": stop.reason}, "\n".join(lines))


def pair_outputs(images: Iterable[str], out: Path, more: Sequence[str] = ()) -> list[tuple[Path, Path]]:
    """Each image with the file that its result is written to.

    Parameters
    ----------
    more : sequence of str
        Further outputs, which are written beside the result.

    Raises
    ------
    DataError
        There is no image, or two images would write one file.
    ConfigError
        Several images are to be written to one file, or one would be replaced by a result.
    """
    sources, from_folder = _sources(images)
    as_folder = from_folder or len(sources) > 1 or (out.is_dir() and not out.name.endswith(".zarr"))
    if not as_folder:
        jobs = [(sources[0], out)]
    elif out.is_file() or out.name.lower().endswith(ENDINGS):
        raise ConfigError(f"{len(sources)} images cannot be written to {out}", "Name a folder after -o")
    else:
        jobs = [(source, out / _result_name(source)) for source in sources]
    _require_apart(jobs, more)
    return jobs


def pair_inputs(inputs: Iterable[str], out: Path, more: Sequence[str] = ()) -> list[tuple[Source, Path]]:
    """Images that go in together, by the names of their inputs, with the file that their result is written to.

    Parameters
    ----------
    inputs : iterable of str
        ``NAME=FILE`` for each input, or ``NAME=FOLDER``, whose images go together where their names are alike.

    Raises
    ------
    ConfigError
        One is not of this form or named twice, or a result would replace an image.
    DataError
        A folder has no image, or one has no partner; all of them are named.
    """
    places: dict[str, Path] = {}
    for text in inputs:
        name, sign, place = text.partition("=")
        if not (sign and name and place) or name in places:
            raise ConfigError(f"--input {text!r} is not NAME=FILE, each name once", "For example --input raw=a.tif")
        places[name] = Path(place)
    first, *others = places
    sources, from_folder = _sources([str(places[first])])
    partners = {name: _partners(places[name], sources, from_folder) for name in others}
    jobs = pair_outputs([str(places[first])], out, more)
    groups = [{first: main, **{name: partners[name][main] for name in others}} for main, _ in jobs]
    images = {path.resolve() for group in groups for path in group.values()}
    for _, main in jobs:
        _require_kept(images, main, more)
    return [(group, target) for group, (_, target) in zip(groups, jobs, strict=True)]


def _partners(place: Path, sources: Sequence[Path], from_folder: bool) -> dict[Path, Path]:
    """Image in `place` of each of `sources`: the file itself, or in a folder the one of the same name."""
    from im2im_core.layouts.base import image_stem

    found, is_folder = _sources([str(place)])
    if is_folder != from_folder:
        raise ConfigError(f"{place} is {'a folder' if is_folder else 'one file'}", "Give folders alone, or files alone")
    if not is_folder:
        return {sources[0]: found[0]}
    named = {image_stem(path): path for path in found}
    missing = [path.name for path in sources if image_stem(path) not in named]
    if missing:
        raise DataError(f"{place} has no image for {', '.join(missing)}", "Give each the name of its partner")
    return {path: named[image_stem(path)] for path in sources}


def _require_kept(images: Collection[Path], main: Path, more: Sequence[str]) -> list[Path]:
    """Files of a result and of further ones beside it; raises where one would take the place of an image."""
    from im2im_core.predict_options import output_path

    targets = [main, *(output_path(main, name, main=False) for name in more)]
    for target in targets:
        if target.resolve() in images:
            raise ConfigError(f"{target} would replace an image by a result", "Name another place after -o")
    return targets


def _require_apart(jobs: Sequence[tuple[Path, Path]], more: Sequence[str]) -> None:
    """Raise where a result would take the place of an image or of another result."""
    images = {source.resolve() for source, _ in jobs}
    seen: dict[Path, Path] = {}
    for source, main in jobs:
        for target in _require_kept(images, main, more):
            if target in seen:
                raise DataError(
                    f"{seen[target]} and {source} would both be written to {target}", "Predict them in two commands"
                )
            seen[target] = source


def _sources(images: Iterable[str]) -> tuple[list[Path], bool]:
    """Images named directly or found in folders, and whether there was a folder."""
    from im2im_core.io import is_image
    from im2im_core.layouts.base import list_images

    found: list[Path] = []
    from_folder = False
    for name in images:
        path = Path(name)
        if path.is_dir() and not is_image(path):
            inside = list_images(path)
            if not inside:
                raise DataError(f"There is no image in {path}", "Name a folder with images")
            found += inside
            from_folder = True
        else:
            found.append(path)
    return found, from_folder


def _result_name(source: Path) -> str:
    from im2im_core.layouts.base import image_stem

    return source.name if source.name.lower().endswith(ENDINGS) else f"{image_stem(source)}.tif"


COMMANDS = {
    "predict": Command(
        "Apply a model to images. A file that cannot be read does not stop the others.", _configure, simple(_predict)
    ),
}
