"""``im2im train`` and ``im2im resume``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_core.commands import Command, Output, add_trust, find_recipe, simple
from im2im_core.commands.settings import override, settings_help, split_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from im2im_core.plans import Plan
    from im2im_core.project import Project
    from im2im_core.recipe import Recipe


def _configure_train(parser: argparse.ArgumentParser) -> None:
    parser.usage = "im2im train PRESET|RECIPE.yaml [--section.field value …] [options]"
    parser.epilog = "`im2im train PRESET --help` lists every setting of that preset."
    parser.add_argument("recipe", metavar="PRESET|RECIPE.yaml", nargs="?", help="see `im2im presets`")
    parser.add_argument("--plan", metavar="FILE", type=Path, help="plan whose recipe and choices are used again")
    add_run_options(parser)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that makes a run."""
    parser.add_argument("--project", metavar="FOLDER", help="where runs and models are kept; default: the nearest")
    parser.add_argument("--name", help="name of the run")
    parser.add_argument("--detach", action="store_true", help="train in the background; see `im2im runs`")
    add_trust(parser)


def _train(parser: argparse.ArgumentParser, arguments: list[str], output: Output) -> int:
    from im2im_core.plans import Plan
    from im2im_core.trust import trust_for_this_process

    own, settings = split_settings(arguments)
    if {"-h", "--help"} & set(own) and (recipe := _named_recipe(own)) is not None:
        output.text(f"{parser.format_help()}\nsettings of {recipe.name}, [default]:\n{settings_help(recipe)}")
        return 0
    args = parser.parse_args(own)
    if args.recipe is None and args.plan is None:
        parser.error("the preset or recipe is missing")
    trust_for_this_process(args.trust)
    plan = None if args.plan is None else Plan.from_file(args.plan)
    chosen = find_recipe(args.recipe) if plan is None else plan.recipe
    return begin(override(chosen, settings), plan, args, output)


def begin(recipe: Recipe, plan: Plan | None, args: argparse.Namespace, output: Output) -> int:
    """Exit code of a new run of `recipe`, in the background where `args` say so; classes it names are trusted."""
    from im2im_core.project import Project
    from im2im_core.trust import require_trusted_recipe

    require_trusted_recipe(recipe)
    project = Project.create(args.project) if args.project else Project.open()
    recipe = _relative(recipe, project)
    plan = plan and plan.adapt(recipe)
    if args.detach:
        return _start_detached(recipe, project, args.name, plan, output)

    from im2im_core import api
    from im2im_core.jobs.child import process_start

    return follow(
        output,
        recipe,
        lambda **watch: api.train(recipe, project=project, name=args.name, plan=plan, started=process_start(), **watch),
    )


def _named_recipe(own: list[str]) -> Recipe | None:
    """Recipe that the words name before ``--help``; None where there is none."""
    named = [word for word in own if not word.startswith("-")]
    return find_recipe(named[0]) if named else None


def _relative(recipe: Recipe, project: Project) -> Recipe:
    """Recipe whose paths are written relative to the project where they lie inside it."""
    paths = {"data.path": recipe.data.path, "training.start.model": recipe.training.taught_on}
    return recipe.override(
        {name: project.relative(path) for name, path in paths.items() if path is not None and Path(path).is_absolute()}
    )


def _start_detached(recipe: Recipe, project: Project, name: str | None, plan: Plan | None, output: Output) -> int:
    from im2im_core.jobs.start import start_training
    from im2im_core.runs import Run

    recipe = recipe.override({"name": name}) if name else recipe
    run = Run.create(project, recipe, name)
    if plan is not None:
        run.write_plan(plan.adapt(recipe).to_dict())
    start_training(run)
    output.result(
        {"run": run.name, "folder": str(run.folder)},
        f"Started {run.name} in the background. Follow it with: im2im runs --follow {run.name}",
    )
    return 0


def _configure_resume(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="name or folder of the run; see `im2im runs`")
    parser.add_argument("--project", metavar="FOLDER", help="default: the nearest")
    add_trust(parser)


def _resume(args: argparse.Namespace, output: Output) -> int:
    from im2im_core import api
    from im2im_core.commands.runs import find_run
    from im2im_core.trust import trust_for_this_process

    trust_for_this_process(args.trust)
    run = find_run(args.run, args.project)
    return follow(output, run.recipe, lambda **watch: api.resume(run, **watch))


def follow(output: Output, recipe: Recipe, work: Callable[..., Any]) -> int:
    """Exit code of a training of `recipe` that runs in this process, shown while it runs.

    The first Ctrl-C finishes the step and saves; the second ends at once.
    """
    from im2im_core.errors import Stopped
    from im2im_core.jobs.ranks import is_follower
    from im2im_core.jobs.signals import StopFlag
    from im2im_core.progress import reporter

    if is_follower(recipe):  # the first process speaks for all
        with StopFlag() as stop:
            work(on_event=None, should_stop=stop)
        return int(stop.exit_code)
    with StopFlag() as stop, reporter(output.json) as on_event:
        try:
            run = work(on_event=on_event, should_stop=stop)
        except Stopped as error:
            sys.stderr.write(f"{error}\n")
            return stop.exit_code or error.exit_code
    return _ended(run, stop, output)


def _ended(run: Any, stop: Any, output: Output) -> int:
    state = str(run.state)
    if state == "finished":
        text = f"Finished. Use it with: im2im predict {run.model} IMAGES… -o OUT"
    else:
        text = f"The run is {state}; everything up to its last step is saved. Go on with: im2im resume {run.name}"
    model = str(run.model) if state == "finished" else None
    output.result({"run": run.name, "folder": str(run.folder), "state": state, "model": model}, text)
    return int(stop.exit_code)


COMMANDS = {
    "train": Command("Train a model from a preset or a recipe.", _configure_train, _train),
    "resume": Command(
        "Go on with a paused, stopped or interrupted run, exactly where it stood.", _configure_resume, simple(_resume)
    ),
}
