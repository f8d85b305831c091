"""The Python interface: load a recipe, train, predict, evaluate."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from im2im_core.errors import ConfigError, nearest
from im2im_core.recipe import Recipe
from im2im_core.yamlfile import parse_yaml

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from im2im_core.axes import Region
    from im2im_core.engine.predict import Predictor
    from im2im_core.evaluation import Report
    from im2im_core.events import Event
    from im2im_core.metrics import Kind
    from im2im_core.plans import Plan
    from im2im_core.project import Project
    from im2im_core.runs import Run
    from im2im_core.samples import Sample, Split

    KindOrAuto = Kind | Literal["auto"]
    OnEvent = Callable[[Event], None]
    ShouldStop = Callable[[], bool]
    PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class PresetInfo:
    """A ready task."""

    name: str
    task: str
    summary: str
    """One sentence, from the first comment of the preset."""


def list_presets() -> tuple[PresetInfo, ...]:
    """All ready tasks that ship with the package."""
    return tuple(_describe(p.name.removesuffix(".yaml"), p.read_text(encoding="utf-8")) for p in _preset_files())


def _preset_files() -> list[Any]:
    found = [p for p in files("im2im_core.presets").iterdir() if p.name.endswith(".yaml")]
    return sorted(found, key=lambda p: p.name)


def _describe(name: str, text: str) -> PresetInfo:
    summary = text.splitlines()[0].lstrip("# ").strip()
    return PresetInfo(name, str(parse_yaml(text, name)["task"]), summary)


def load_preset(name: str) -> Recipe:
    """Recipe of a ready task.

    Raises
    ------
    ConfigError
        There is no such preset; the message lists those that exist.
    """
    for path in _preset_files():
        if path.name == f"{name}.yaml":
            return Recipe.load(parse_yaml(path.read_text(encoding="utf-8"), name))
    known = [p.name.removesuffix(".yaml") for p in _preset_files()]
    raise ConfigError(f"There is no preset {name!r}", nearest(name, known))


def load_recipe(source: PathLike | Recipe) -> Recipe:
    """Recipe from a preset name, a YAML file or a recipe."""
    if isinstance(source, Recipe):
        return source
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        return Recipe.from_file(path)
    return load_preset(str(source))


# ---- training ----


def plan(recipe: PathLike | Recipe, *, data: Any = None, project: Any = None, probe: bool = False) -> Plan:
    """Plan of a run: every automatic value with its reason; with `probe` also minutes and memory."""
    from im2im_core.engine.planning import make_plan

    owner = _project(project)
    recipe, split = _with_data(load_recipe(recipe), data, owner)
    return make_plan(recipe, split or load_split(recipe, owner), probe=probe)


def train(
    recipe: PathLike | Recipe,
    *,
    data: Any = None,
    project: Any = None,
    name: str | None = None,
    plan: Plan | None = None,
    on_event: OnEvent | None = None,
    should_stop: ShouldStop | None = None,
    started: float | None = None,
) -> Run:
    """Finished run of `recipe`; trains in this process.

    Parameters
    ----------
    data : path, samples or pairs of arrays, optional
        Replaces ``data.path``. Arrays are kept in the project, so that the run can be resumed.
    name : str, optional
        Name of the run folder and of the model; the recipe's name with the time where not given.
    plan : Plan, optional
        A plan made earlier, which fixes every automatic value.
    started : float, optional
        Unix time from which a budget in minutes counts; now where not given.

    Raises
    ------
    Im2ImError
        What is wrong, and the cure. Errors of settings and data come before training starts.
    """
    from im2im_core.runs import Run

    owner = _project(project)
    recipe, split = _with_data(plan.recipe if plan else load_recipe(recipe), data, owner)
    recipe = recipe.override({"name": name}) if name else recipe
    split = split or load_split(recipe, owner)
    run = Run.create(owner, recipe, name)
    if plan is not None:
        run.write_plan(_plain_plan(plan))
    return _execute(run, split, on_event, should_stop, started)


def resume(
    run: PathLike | Run,
    *,
    on_event: OnEvent | None = None,
    should_stop: ShouldStop | None = None,
    project: Any = None,
) -> Run:
    """The run after it went on from its last checkpoint to the end of its budget; trains in this process."""
    from im2im_core.project import find_run
    from im2im_core.runs import Run

    found = run if isinstance(run, Run) else find_run(run, _project(project) if project else None)
    return _execute(found, None, on_event, should_stop, None)


def _execute(
    run: Run, split: Split | None, on_event: OnEvent | None, should_stop: ShouldStop | None, started: float | None
) -> Run:
    """Run one attempt in this process; an error is recorded in the run, then raised."""
    from im2im_core.engine.session import run_training
    from im2im_core.jobs.child import run_attempt

    raised: list[BaseException] = []
    begun = time.time()

    def work(run: Run, emit: OnEvent, signalled: ShouldStop) -> None:
        def tell(event: Event) -> None:
            emit(event)
            if on_event is not None:
                on_event(event)

        def asked() -> bool:
            return signalled() or bool(should_stop and should_stop())

        try:
            # Waiting for the device is not taken from the budget.
            start = None if started is None else started + time.time() - begun
            run_training(run, tell, asked, split=split, started=start)
        except BaseException as error:
            raised.append(error)
            raise

    run_attempt(run, train=work)
    if raised:
        raise raised[0]
    return run


def load_split(recipe: Recipe, project: Project) -> Split:
    """Samples of the recipe's data, divided into training, validation and test."""
    from im2im_core.layouts.base import load_samples
    from im2im_core.split import split_samples

    if recipe.data.path is None:
        raise ConfigError("data.path is not set", "Give the folder or table with the images: --data.path DIR")
    samples, parts = load_samples(recipe.data, project.root)
    patch = recipe.data.patch if recipe.data.patch != "auto" else (128,) * recipe.data.dimensions
    return split_samples(samples, recipe.data.split, patch, parts)


def _project(project: Any) -> Project:
    from im2im_core.project import Project

    if isinstance(project, Project):
        return project
    return Project.open() if project is None else Project.create(project)


def _with_data(recipe: Recipe, data: Any, project: Project) -> tuple[Recipe, Split | None]:
    """Recipe that names `data`; samples and arrays are first kept in the project."""
    if data is None:
        return recipe, None
    if isinstance(data, str | Path):
        return recipe.override({"data.path": str(Path(data).resolve())}), None
    from im2im_core.snapshot import keep_samples

    folder = keep_samples(data, project, recipe)
    return recipe.override({"data.path": project.relative(folder), "data.layout.kind": "subfolders"}), None


def _plain_plan(plan: Plan) -> dict[str, Any]:
    from im2im_core.plans import plain

    content: dict[str, Any] = plain(plan.to_dict())
    return content


# ---- prediction and evaluation ----


def predict(
    model: PathLike,
    image: Any,
    *,
    axes: str | None = None,
    region: Region | None = None,
    to: PathLike | None = None,
    options: Any = None,
    device: str = "auto",
    on_event: OnEvent | None = None,
    should_stop: ShouldStop | None = None,
) -> Any:
    """Main result of a model on an image, an array with the image's own axes; or a Prediction where `to` is given.

    Parameters
    ----------
    model : path
        Run folder, bundle folder or bundle zip.
    image : Image, path or array
    axes : str, optional
        Axes of an array, for example ``ZYX``.
    to : path, optional
        Stream the result into a TIFF or OME-Zarr instead of memory.
    """
    from im2im_core.image import as_image

    predictor = _predictor(str(Path(model).resolve()), device, _stamp(Path(model)))
    source = as_image(image, axes, dimensions=predictor.inference.shapes.dimensions)
    found = predictor.predict(source, region=region, to=to, options=options, on_event=on_event, should_stop=should_stop)
    return found if to is not None else found[predictor.inference.outputs[0].name]


@lru_cache(maxsize=1)
def _predictor(model: str, device: str, stamp: int) -> Predictor:
    """Model ready to predict; the last one stays loaded, so that many images need not wait for it again."""
    from im2im_core.engine.predict import Predictor

    return Predictor(model, device=device)


def _stamp(model: Path) -> int:
    """Changes when the model was written anew."""
    places = (model, model / "bioimageio.yaml", model / "model" / "bioimageio.yaml")
    return max((p.stat().st_mtime_ns for p in places if p.exists()), default=0)


def evaluate(prediction: Any, truth: Any, kind: KindOrAuto = "auto", on_event: OnEvent | None = None) -> Report:
    """Report on predictions against truth: arrays, files or folders with equal names."""
    from im2im_core import evaluation as module

    if hasattr(prediction, "shape"):
        chosen = module.guess_kind([(prediction, truth)])[0] if kind == "auto" else kind
        return module.evaluate_many([module.Pair("array", prediction, truth)], chosen, on_event)
    return module.evaluate_files(prediction, truth, kind, on_event=on_event)


def evaluate_model(
    model: PathLike,
    data: PathLike,
    *,
    on_event: OnEvent | None = None,
    should_stop: ShouldStop | None = None,
    samples: Sequence[Sample] | None = None,
) -> Report:
    """Report on a model over a data set with targets."""
    from im2im_core.engine.evaluate import evaluate_on

    return evaluate_on(model, data, on_event=on_event, should_stop=should_stop, samples=samples)
