"""The Python interface: load a recipe, train, predict, evaluate."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from im2im_core.errors import ConfigError, Im2ImError
from im2im_core.imports import without_collection
from im2im_core.presets import list_presets as list_presets
from im2im_core.presets import load_preset as load_preset
from im2im_core.recipe import Recipe
from im2im_core.yamlfile import read_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from im2im_core.axes import Region
    from im2im_core.conversion import Conversion
    from im2im_core.engine.predict import Predictor
    from im2im_core.engine.predict_foreign import ForeignPredictor
    from im2im_core.evaluation import Report
    from im2im_core.events import Event
    from im2im_core.metrics import Kind
    from im2im_core.plans import Plan
    from im2im_core.project import Project
    from im2im_core.recipe.data import DataSettings
    from im2im_core.runs import Run
    from im2im_core.samples import Sample, Split

    KindOrAuto = Kind | Literal["auto"]
    OnEvent = Callable[[Event], None]
    ShouldStop = Callable[[], bool]
    PathLike = str | os.PathLike[str]
    Data = tuple[Sequence[Sample], Mapping[str, str]]
    """Samples, and the parts that their place or table gives, by name."""


def load_recipe(source: PathLike | Recipe) -> Recipe:
    """Recipe from a preset name, a YAML file or a recipe."""
    if isinstance(source, Recipe):
        return source
    path = Path(source)
    if path.suffix.lower() in (".yaml", ".yml") or path.is_file():
        from im2im_core.conversion import is_foreign

        content = read_yaml(path)
        if is_foreign(content):
            raise ConfigError(
                f"{path} is a configuration of mmv_im2im", f"Convert it: im2im convert {path} -o RECIPE.yaml"
            )
        return Recipe.load(content)
    return load_preset(str(source))


def convert(source: PathLike) -> Conversion:
    """Recipe for a training with mmv_im2im (Sonneck et al. 2024), and notes on what has no counterpart.

    Raises
    ------
    ConfigError
        The file is no training of mmv_im2im, or learns what nothing here learns.
    """
    from im2im_core.conversion import convert_file

    return convert_file(source)


# ---- training ----


def plan(recipe: PathLike | Recipe, *, data: Any = None, project: Any = None, probe: bool = False) -> Plan:
    """Plan of a run: every automatic value with its reason; with `probe` also minutes and memory."""
    from im2im_core.engine.session import plan_and_split

    owner = _project(project)
    recipe = _with_data(load_recipe(recipe), data, owner)
    samples, parts = load_data(recipe, owner)
    return plan_and_split(recipe, samples, parts, probe, owner.root / "cache", owner.root)[0]


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
        A plan made earlier, which fixes every automatic value; `recipe` is not looked at then.
    started : float, optional
        Unix time from which a budget in minutes counts; now where not given.

    Raises
    ------
    Im2ImError
        What is wrong, and the cure. Errors of settings and data come before training starts.
    """
    from im2im_core.jobs.ranks import followed_run, is_follower
    from im2im_core.runs import Run
    from im2im_core.split import split_data

    owner = _project(project)
    recipe = plan.recipe if plan else load_recipe(recipe)
    if is_follower(recipe):
        return _execute(followed_run(owner, name), None, None, should_stop, started)
    recipe = _with_data(recipe, data, owner)
    recipe = recipe.override({"name": name}) if name else recipe
    samples, parts = load_data(recipe, owner)
    split_data(recipe.data, samples, parts)  # what is wrong with it must be said before there is a run
    run = Run.create(owner, recipe, name)
    if plan is not None:
        run.write_plan(plan.adapt(recipe).to_dict())
    return _execute(run, (samples, parts), on_event, should_stop, started)


def finetune(
    model: PathLike,
    data: Any,
    *,
    settings: Mapping[str, Any] | None = None,
    preset: PathLike | Recipe | None = None,
    project: Any = None,
    name: str | None = None,
    on_event: OnEvent | None = None,
    should_stop: ShouldStop | None = None,
) -> Run:
    """Finished run that taught `model` on with `data`; trains in this process.

    Parameters
    ----------
    model : path
        Run, package (folder or zip) of ours or of another tool, or file with weights.
    settings : mapping, optional
        Dotted settings, which come before those of the model, for example ``{"training.start.freeze": ["*conv_0*"]}``.
    preset : str, path or Recipe, optional
        In place of the preset of the model's task.

    Raises
    ------
    Im2ImError
        As for `train`; where layers do not fit, the message lists them.
    """
    from im2im_core.finetuning import finetuning_recipe

    owner = _project(project)
    base = None if preset is None else load_recipe(preset)
    recipe = finetuning_recipe(Path(model).resolve(), settings, base)
    recipe = recipe.override({"training.start.model": owner.relative(model)})
    return train(recipe, data=data, project=owner, name=name, on_event=on_event, should_stop=should_stop)


def resume(
    run: PathLike | Run,
    *,
    on_event: OnEvent | None = None,
    should_stop: ShouldStop | None = None,
    project: Any = None,
) -> Run:
    """The run after it went on from its last checkpoint to the end of its budget; trains in this process.

    Raises
    ------
    ConfigError
        The run is finished.
    Im2ImError
        As for `train`.
    """
    from im2im_core.project import find_run
    from im2im_core.runs import Run

    found = run if isinstance(run, Run) else find_run(run, _project(project) if project else None)
    found.require_unfinished()
    return _execute(found, None, on_event, should_stop, None)


def _execute(
    run: Run, data: Data | None, on_event: OnEvent | None, should_stop: ShouldStop | None, started: float | None
) -> Run:
    """Run one attempt in this process; an error is recorded in the run, then raised with the same exit code."""
    from im2im_core.engine.session import run_training
    from im2im_core.jobs.child import run_attempt
    from im2im_core.jobs.explain import error_of, explain

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
            run_training(run, tell, asked, data=data, started=start)
        except BaseException as error:
            raised.append(error)
            raise

    run_attempt(run, train=work)
    for error in raised:
        if isinstance(error, Im2ImError) or not isinstance(error, Exception):
            raise error
        failed = explain(error)
        cure = failed.cure if failed.exit_code > 1 else f"Please report it with {run.log}"
        raise error_of(replace(failed, cure=cure)) from error
    return run


def load_data(recipe: Recipe, project: Project) -> Data:
    """Samples of the recipe's data, and the parts that their place or table gives, by name."""
    from im2im_core.layouts.base import load_samples

    if recipe.data.path is None:
        raise ConfigError("data.path is not set", "Give the folder or table with the images: --data.path DIR")
    return load_samples(recipe.data, project.root)


def load_split(recipe: Recipe, project: Project) -> Split:
    """Samples of the recipe's data, divided into training, validation and test."""
    from im2im_core.split import split_data

    return split_data(recipe.data, *load_data(recipe, project))


def _project(project: Any) -> Project:
    from im2im_core.project import Project

    if isinstance(project, Project):
        return project
    return Project.open() if project is None else Project.create(project)


def _with_data(recipe: Recipe, data: Any, project: Project) -> Recipe:
    """Recipe that names `data`; samples and arrays are first kept in the project."""
    if data is None:
        return recipe
    if isinstance(data, str | Path):
        return recipe.override({"data.path": str(Path(data).resolve())})
    from im2im_core.snapshot import keep_samples

    return recipe.override(keep_samples(data, project, recipe))


# ---- prediction and evaluation ----


def predict(
    model: PathLike,
    image: Any,
    *,
    axes: str | None = None,
    region: Region | None = None,
    outputs: Sequence[str] | None = None,
    to: PathLike | None = None,
    options: Any = None,
    device: str = "auto",
    scene: int | str | None = None,
    on_event: OnEvent | None = None,
    should_stop: ShouldStop | None = None,
) -> Any:
    """Main result of a model on an image, an array with the image's own axes.

    Where `outputs` or `to` is given, a Prediction: arrays or paths by name.

    Parameters
    ----------
    model : path
        Run folder, bundle folder or bundle zip; bioimage.io packages of other tools are run as they describe.
    image : Image, path or array
        Or, for models that take several images at once, a mapping of them by the names of the inputs.
    axes : str, optional
        Axes of an array, for example ``ZYX``.
    outputs : sequence of str, optional
        Names of the results that are wanted; the main one where not given.
    to : path, optional
        Stream the result into a TIFF or OME-Zarr instead of memory.
    scene : int or str, optional
        Number from 0, or name, of the image in a file that has several (fields, positions, series);
        `im2im_core.io.scenes` names them.

    Raises
    ------
    DataError
        An image cannot be read, or a file has several scenes and none is named.
    """
    from im2im_core.image import as_image

    predictor = loaded_predictor(model, device)
    dimensions = predictor.inference.shapes.dimensions
    for each in image.values() if isinstance(image, Mapping) else [image]:
        if to is not None and isinstance(each, str | os.PathLike) and Path(each).resolve() == Path(to).resolve():
            raise ConfigError(f"{to} would replace the image by the result", "Name another file in to=")
    source: Any
    if isinstance(image, Mapping):
        source = {name: as_image(each, axes, str(name), dimensions, scene) for name, each in image.items()}
    else:
        source = as_image(image, axes, dimensions=dimensions, scene=scene)
    found = predictor.predict(
        source, region=region, outputs=outputs, to=to, options=options, on_event=on_event, should_stop=should_stop
    )
    return found.main if to is None and outputs is None else found


def loaded_predictor(model: PathLike, device: str = "auto") -> Predictor | ForeignPredictor:
    """Model ready to predict; the last one stays loaded, so that many images need not wait for it again."""
    path = Path(model).resolve()
    return _predictor(str(path), device, _stamp(path))


@lru_cache(maxsize=1)
def _predictor(model: str, device: str, stamp: int) -> Predictor | ForeignPredictor:
    with without_collection():
        from im2im_core.engine.predict import open_predictor

        return open_predictor(model, device=device)


def _stamp(model: Path) -> int:
    """Changes when the model was written anew."""
    places = (model, model / "bioimageio.yaml", model / "model" / "bioimageio.yaml")
    return max((p.stat().st_mtime_ns for p in places if p.exists()), default=0)


def evaluate(prediction: Any, truth: Any = None, kind: KindOrAuto = "auto", on_event: OnEvent | None = None) -> Report:
    """Report on predictions against truth: arrays, files or folders with equal names.

    Without a truth, the resolution of the images alone.
    """
    from im2im_core import evaluation as module

    if truth is None:
        from im2im_core.alone import evaluate_alone

        return evaluate_alone(prediction, on_event)
    if hasattr(prediction, "shape"):
        chosen = module.guess_kind([(prediction, truth)])[0] if kind == "auto" else kind
        return module.evaluate_many([module.Pair("array", prediction, truth)], chosen, on_event)
    return module.evaluate_files(prediction, truth, kind, on_event=on_event)


def evaluate_model(
    model: PathLike,
    data: PathLike | DataSettings,
    *,
    on_event: OnEvent | None = None,
    should_stop: ShouldStop | None = None,
    samples: Sequence[Sample] | None = None,
) -> Report:
    """Report on a model over a data set with targets; settings say what its files do not (axes, sparse labels)."""
    from im2im_core.engine.evaluate import evaluate_on

    return evaluate_on(model, data, on_event=on_event, should_stop=should_stop, samples=samples)
