"""What a training would do, in words, planned by a child process, so that nothing heavy enters the viewer."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QThreadPool, QTimer, Signal
from superqt.utils import FunctionWorker

from im2im_core.jobs import _platform
from im2im_core.progress import duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from im2im_core.datasets import DatasetEntry
    from im2im_core.recipe import Recipe

COMMAND = (sys.executable, "-P", "-m", "im2im_core.cli")
QUIET_MILLISECONDS = 700
POLL_SECONDS = 0.1
SAME_IMAGE = "same-image"
"""Stands in what a plan says of its split when parts of the training images validate."""


@dataclass(frozen=True)
class Answer:
    """What the child said: a plan, or what is wrong."""

    plan: Mapping[str, Any] | None
    message: str = ""
    cure: str = ""


class Planner(QObject):
    """Plans the newest recipe it was given; older ones are dropped, their children ended."""

    planned = Signal(object)
    """Content of the plan."""
    refused = Signal(str, str)
    """What is wrong, and the cure."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        super().__init__()
        self._command = tuple(command)
        self._wanted: tuple[Recipe, Path, bool] | None = None
        self._worker: FunctionWorker[Answer | None] | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(QUIET_MILLISECONDS)
        self._timer.timeout.connect(self._begin)

    def request(self, recipe: Recipe, root: Path, probe: bool = True) -> None:
        """Plan `recipe` in the project at `root` once nothing changed for a moment.

        Parameters
        ----------
        probe : bool
            Also measure two steps; not while somebody trains on that device.
        """
        self.cancel()
        self._wanted = (recipe, root, probe)
        self._timer.start()

    def cancel(self) -> None:
        """Forget what was asked; a running child ends within a moment."""
        self._timer.stop()
        self._wanted = None
        if self._worker is not None:
            self._worker.quit()
            self._worker = None

    def _begin(self) -> None:
        if self._wanted is None:
            return
        recipe, root, probe = self._wanted
        worker: FunctionWorker[Answer | None] = FunctionWorker(lambda: self._plan(worker, recipe, root, probe))
        worker.returned.connect(lambda answer, w=worker: self._on_answer(w, answer))
        worker.errored.connect(lambda error, w=worker: self._on_answer(w, Answer(None, str(error))))
        self._worker = worker
        worker.start()

    def _plan(self, worker: FunctionWorker[Answer | None], recipe: Recipe, root: Path, probe: bool) -> Answer | None:
        """Answer of the child; None when nobody wants it any more."""
        pool = QThreadPool.globalInstance()
        pool.releaseThread()  # waiting must not hold up other workers of the viewer
        try:
            with tempfile.TemporaryDirectory(prefix="im2im-plan-") as folder:
                path = Path(folder) / "recipe.yaml"
                recipe.to_file(path)
                return self._ask(worker, path, root, probe)
        finally:
            pool.reserveThread()

    def _ask(self, worker: FunctionWorker[Answer | None], path: Path, root: Path, probe: bool) -> Answer | None:
        said, complaints = path.with_name("said.json"), path.with_name("complaints.txt")
        measured = ["--probe"] if probe else []
        arguments = [*self._command, "plan", str(path), "--project", str(root), *measured, "--json"]
        with said.open("wb") as output, complaints.open("wb") as errors:
            child = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
            _platform.lower_priority(child.pid)
            while not worker.abort_requested:
                try:
                    child.wait(POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
                return read_answer(said.read_text(encoding="utf-8"), complaints.read_text("utf-8", "replace"))
            child.kill()
            child.wait()
        return None

    def _on_answer(self, worker: FunctionWorker[Answer | None], answer: Answer | None) -> None:
        if worker is not self._worker or answer is None:
            return
        self._worker = None
        if answer.plan is None:
            self.refused.emit(answer.message, answer.cure)
        else:
            self.planned.emit(answer.plan)


def read_answer(output: str, complaints: str) -> Answer:
    """Answer in what a child printed."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    try:
        content = json.loads(lines[-1]) if lines else {}
    except ValueError:
        content = {}
    if "facts" in content:
        return Answer(content)
    if "message" in content:
        return Answer(None, str(content["message"]), str(content.get("cure", "")))
    last = complaints.strip().splitlines()[-1:] or ["it said nothing"]
    return Answer(None, f"The plan could not be made: {last[0]}", "`im2im doctor` reports the environment")


# ---- words ---------------------------------------------------------------------


def summary(plan: Mapping[str, Any], entry: DatasetEntry | None = None) -> str:
    """One sentence: images, validation, minutes, memory; of a saved data set also its regions and objects."""
    facts = plan["facts"]
    parts = [_images(facts) if entry is None else _saved(facts, entry), _time(plan)]
    estimate = plan.get("estimate")
    if estimate:
        place = "memory" if str(plan["runtime"]["device"]) == "cpu" else "GPU memory"
        parts.append(f"{place} {_bytes(estimate['memory_gigabytes'])}")
    return "; ".join(part for part in parts if part)


def _saved(facts: Mapping[str, Any], entry: DatasetEntry) -> str:
    """Images, regions and objects of a saved data set, and what validates."""
    words = _count(entry.count)
    if entry.regions:
        words += f", {_count(entry.regions, 'region')}"
    if entry.objects is not None:
        words += f" ({_count(entry.objects, 'object')})"
    if entry.strips:
        which = "it" if entry.count == 1 else "each" if entry.strips == entry.count else f"{entry.strips} of them"
        return f"{words}; a strip of {which} is kept for validation"
    return f"{words}{_kept(facts)}"


def _images(facts: Mapping[str, Any]) -> str:
    train, validation, test = (int(facts[k]) for k in ("training", "validation", "test"))
    number = train if SAME_IMAGE in str(facts["split"]) else train + validation + test
    return f"{_count(number)}{_kept(facts)}"


def _kept(facts: Mapping[str, Any]) -> str:
    """What validates and tests, as the end of a sentence."""
    if SAME_IMAGE in str(facts["split"]):
        return "; a part of each is kept for validation"
    validation, test = int(facts["validation"]), int(facts["test"])
    kept = f"{validation} kept for validation" if validation else "none kept for validation"
    return f", {kept}" + (f", {test} for the final test" if test else "")


def _count(number: int, what: str = "image") -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _time(plan: Mapping[str, Any]) -> str:
    device = str(plan["runtime"]["device"])
    where = "on this computer" if device == "cpu" else f"on {device}"
    minutes = (plan.get("estimate") or {}).get("minutes") or plan["recipe"]["training"]["minutes"]
    if minutes:
        return f"about {_minutes(float(minutes))} {where}"
    return f"{plan['steps']} steps {where}" if plan.get("steps") else ""


def _minutes(minutes: float) -> str:
    if minutes < 1:
        return duration(60 * minutes)
    return f"{minutes:.0f} min" if minutes < 60 else f"{minutes // 60:.0f} h {minutes % 60:.0f} min"


def _bytes(gigabytes: float) -> str:
    return f"{gigabytes:.1f} GB" if gigabytes >= 1 else f"{max(1000 * gigabytes, 1):.0f} MB"
