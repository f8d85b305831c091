"""What the Train panel does off the main thread: starting, commands, examining a run, copies."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_core.errors import Im2ImError
from im2im_core.imports import without_collection
from im2im_core.jobs.eventlog import merge_steps
from im2im_core.runs import Run
from napari_im2im._closing import STARTED
from napari_im2im._plan_summary import SAME_IMAGE
from napari_im2im._run_watch import end_of_log
from napari_im2im._start_panel import SETTINGS, preset_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from im2im_core.doctor import Diagnosis
    from im2im_core.events import Progress
    from im2im_core.jobs.eventlog import Stamped
    from im2im_core.project import Project
    from im2im_core.recipe import Recipe
    from napari_im2im._watched_region import Wish

PLANS = Path(".im2im") / "plans"
"""Where a project keeps plans that copied commands name."""


# ---- starting and commands -----------------------------------------------------


def launch(project: Project, recipe: Recipe) -> str:
    """Folder of a new run whose process has begun; one that could not begin is marked failed."""
    from im2im_core.jobs.start import start_training

    run = Run.create(project, recipe)
    STARTED.add(str(run.folder))  # here: the panel may be gone before it hears of it
    try:
        start_training(run)
    except Im2ImError as error:
        with suppress(Im2ImError), run.claim():
            run.set_state("failed", error.message)
        raise
    return str(run.folder)


def resume(folder: str) -> str:
    """Folder of a run whose next process has begun."""
    from im2im_core.jobs.start import resume_training

    STARTED.add(folder)
    resume_training(Run(folder))
    return folder


def import_settings() -> None:
    """Make the classes of the settings."""
    with without_collection():  # which all stay
        import_module(SETTINGS)


def command(folder: str, verb: str) -> None:
    """Leave a command for the process of a run."""
    from im2im_core.jobs.commands import send_command

    send_command(Run(folder), verb)


def ask_regions(folder: str, attempt: int, wishes: Sequence[Wish] | None) -> int | None:
    """Ask a run that has begun to learn for the regions that are to be watched.

    These are the ones that were asked of its earlier attempts and, where it teaches the network of another run
    on with the same images, of that run; then the one that `wishes` mean, whose command's number is returned.
    """
    from im2im_core.jobs.commands import send_command
    from napari_im2im._watched_region import asked_regions, watch_region

    run = Run(folder)
    if run.attempt != attempt:  # it has ended meanwhile, or begins again
        return None
    asked = asked_regions(run, [attempt])
    before = {**_regions_of_parent(run), **asked_regions(run, range(1, attempt))}
    for name, arguments in before.items():
        if name not in asked:
            send_command(run, "preview", **arguments)
    return watch_region(folder, wishes) if wishes else None


def _regions_of_parent(run: Run) -> dict[str, dict[str, Any]]:
    """Regions that were watched in the run which this one teaches on; none where that learned from other images."""
    from im2im_core.project import Project
    from napari_im2im._watched_region import asked_regions

    path = Project(run.folder.parent.parent).resolve(run.recipe.training.taught_on or "")
    folder = next((p for p in (path, path.parent) if (p / "run.json").is_file()), None)
    if folder is None:
        return {}
    with suppress(Im2ImError):  # it is the network that is needed of it, nothing else
        parent = Run(folder)
        if parent.recipe.data.path == run.recipe.data.path and folder.parent == run.folder.parent:
            return asked_regions(parent, range(1, parent.attempt + 1))
    return {}


def export(folder: str, path: str) -> str:
    """Path of the zip that holds the model of a run."""
    from im2im_core.bundle import export_zip

    target = Path(path if path.endswith(".zip") else f"{path}.zip")
    export_zip(Run(folder).model, target)
    return str(target)


def local_models() -> list[tuple[str, str]]:
    """Title and path of every model of this user that a training can start from."""
    from im2im_core.models import list_models

    return [(f"{model.name} ({model.place})", str(model.path)) for model in list_models()]


# ---- examining a run -----------------------------------------------------------


@dataclass(frozen=True)
class Examined:
    """What is worth saying about a run."""

    found: list[Diagnosis]
    taught: bool
    """Whether it began with a trained network."""
    kept: str
    """Which images validate, in words; empty while unknown."""
    voxel_size: tuple[float | None, ...]
    """Along Z, Y, X, micrometres, of what the network sees."""


def examine(folder: str, events: Sequence[Stamped], progress: Progress | None, state: str) -> Examined:
    """Everything that is worth saying about the run in `folder`, the end first."""
    from im2im_core.doctor import diagnose, diagnose_end

    run = Run(folder)
    recipe, plan = run.recipe, run.plan
    end = diagnose_end([s.event for s in events], state, end_of_log(folder), recipe)
    curve = [s.event for s in merge_steps(events)] + ([progress] if progress else [])
    found = diagnose(curve, plan, recipe) if state != "finished" else []
    facts = plan.get("facts") or {}
    size = tuple(facts.get("voxel_size") or (None, None, None))
    kept = _kept_words(run, recipe, facts)
    return Examined([*([end] if end else []), *found], recipe.training.taught_on is not None, kept, size)


def _kept_words(run: Run, recipe: Recipe, facts: Mapping[str, Any]) -> str:
    """Which images validate, in words."""
    from im2im_core.datasets import TABLE, read_entry
    from im2im_core.project import Project

    if not facts.get("validation"):
        return ""
    path = Project(run.folder.parent.parent).resolve(recipe.data.path or "")
    strips = 0
    with suppress(Im2ImError):  # a plain folder, or a data set that has gone
        strips = read_entry(path.parent if path.name == TABLE else path).strips
    if strips:
        return "the kept strip" if strips == 1 else "the kept strips"
    return "the kept parts" if SAME_IMAGE in str(facts.get("split")) else "the kept images"


# ---- copies --------------------------------------------------------------------


def copies(recipe: Recipe, run: Run | None, project: Project, plan: Mapping[str, Any] | None = None) -> dict[str, str]:
    """A recipe, or a run with what came of it, as command, YAML, Python and a paragraph for the paper.

    Parameters
    ----------
    plan : mapping, optional
        What was planned for `recipe`; the command names it, so that it decides nothing anew.
    """
    from im2im_core import share

    preset = preset_of(recipe)
    data = None if recipe.data.path is None else project.resolve(recipe.data.path)
    return {
        "command": _command(recipe, run, project, plan),
        "yaml": share.as_yaml(recipe),
        "python": share.as_python(recipe, preset, data=data),
        "methods": share.methods_paragraph(recipe if run is None else run),
    }


def _command(recipe: Recipe, run: Run | None, project: Project, plan: Mapping[str, Any] | None) -> str:
    from im2im_core import share
    from im2im_core.plans import Plan

    path = None if run is None else run.folder / "plan.yaml"
    if run is None and plan is not None:
        path = keep_plan(project, plan)
    if path is None or not path.is_file():
        data = None if recipe.data.path is None else project.resolve(recipe.data.path)
        return share.as_command(recipe, preset_of(recipe), data=data, project=project.root)
    planned = Plan.from_file(path).recipe
    return share.as_command(planned, preset_of(planned), plan=path, project=project.root)


def keep_plan(project: Project, plan: Mapping[str, Any]) -> Path:
    """File of the project that holds `plan`; the same plan is kept once."""
    from im2im_core.plans import Plan

    content = json.dumps(plan, sort_keys=True, default=str).encode()
    path = project.root / PLANS / f"{hashlib.sha256(content).hexdigest()[:12]}.yaml"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        Plan.from_dict(dict(plan)).to_file(path)
    return path
