"""``im2im runs``, ``pause``, ``stop`` and ``export``: what happens to runs that exist."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_core.commands import Command, Output, simple
from im2im_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from im2im_core.project import Project
    from im2im_core.runs import Run


def _configure_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="name or folder of the run; see `im2im runs`")
    _configure_project(parser)


def _configure_project(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--project", metavar="FOLDER", help="default: the nearest")


def find_run(name: str, project: str | None) -> Run:
    """Run by folder or by name, looked for in `project` first."""
    from im2im_core.project import Project
    from im2im_core.project import find_run as find

    return find(name, Project.open(project) if project else None)


# ---- runs ----------------------------------------------------------------------


def _configure_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--follow", metavar="RUN", help="show what a run says until it ends; Ctrl-C leaves it running")
    _configure_project(parser)


def _runs(args: argparse.Namespace, output: Output) -> int:
    if args.follow:
        return _follow(find_run(args.follow, args.project), output)
    rows = [_row(run, project) for project in _projects(args.project) for run in project.runs()]
    width = max((len(row["run"]) for row in rows), default=0)
    text = "\n".join(f"{row['run']:<{width}}  {row['state']:<12}{row['project']}" for row in rows)
    output.result({"runs": rows}, text or "There are no runs yet.")
    return 0


def _projects(path: str | None) -> list[Project]:
    from im2im_core.project import Project, known_projects

    return [Project.open(path)] if path else known_projects()


def _row(run: Run, project: Project) -> dict[str, Any]:
    return {
        "run": run.name,
        "state": str(run.state),
        "project": str(project.root),
        "folder": str(run.folder),
        "message": run.status.message,
    }


def _follow(run: Run, output: Output) -> int:
    """Show the events of a run until it ends; the exit code is that of the run."""
    from im2im_core.events import Failed
    from im2im_core.jobs.watch import Watcher
    from im2im_core.progress import reporter

    code = Failed("").exit_code
    with reporter(output.json) as on_event:
        for seen in Watcher(run).follow():
            for stamped in seen.events:
                on_event(stamped.event)
                code = stamped.event.exit_code if isinstance(stamped.event, Failed) else code
    state = str(run.state)
    output.result({"run": run.name, "state": state}, f"{run.name} is {state}")
    return code if state in ("failed", "interrupted") else 0


# ---- commands to a run ---------------------------------------------------------


def _command(verb: str) -> Any:
    def run(args: argparse.Namespace, output: Output) -> int:
        from im2im_core.jobs.commands import send_command

        found = find_run(args.run, args.project)
        send_command(found, verb)
        done = {"pause": "pauses", "stop": "stops"}[verb]
        output.result({"run": found.name, "command": verb}, f"{found.name} {done} after its current step")
        return 0

    return run


# ---- export --------------------------------------------------------------------


def _configure_export(parser: argparse.ArgumentParser) -> None:
    _configure_run(parser)
    parser.add_argument("output", metavar="OUT.zip", type=Path, help="package to write")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.zip if it exists")


def _export(args: argparse.Namespace, output: Output) -> int:
    from im2im_core.bundle import export_zip

    run = find_run(args.run, args.project)
    if not any(run.model.glob("*.yaml")):
        raise DataError(f"{run.name} has no model yet ({run.state})", "Wait for it, or `im2im stop` it")
    if args.output.exists() and not args.overwrite:
        raise ConfigError(f"{args.output} exists", "Add --overwrite to replace it")
    export_zip(run.model, args.output)
    size = args.output.stat().st_size
    output.result({"run": run.name, "output": str(args.output), "bytes": size}, f"{args.output} ({size / 1e6:.1f} MB)")
    return 0


COMMANDS = {
    "runs": Command("List the runs of all known projects, or follow one.", _configure_runs, simple(_runs)),
    "pause": Command(
        "Save a run exactly and give its memory back; resume goes on.", _configure_run, simple(_command("pause"))
    ),
    "stop": Command("Finish a run now and keep its best model.", _configure_run, simple(_command("stop"))),
    "export": Command("Write the model of a run as a bioimage.io package.", _configure_export, simple(_export)),
}
