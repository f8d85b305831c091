"""Longest stall of the viewer's main thread while slices are scrolled: idle, training, predicting.

    python tools/with_display.py python benchmarks/viewer.py [--runs 5] [--seconds 60]

A timer of one millisecond runs in the main thread of a real viewer; a stall is the time between two
of its ticks. The scenarios are interleaved, each run in a viewer of its own. ``thread`` trains in a
thread of the viewer's process and is there for the record: it is what the child process avoids.
The click on Start or Predict falls into the measured time, so that a stall at the start is seen.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from quality import add_results, machine

SCENARIOS = ("idle", "training", "predicting", "thread")
STACK = (48, 768, 768)
SCROLL_MILLISECONDS = 50
SETTLE_SECONDS = 8
"""The opened viewer draws its first frames and warms the prediction process before anything is measured."""
START_SECONDS = 5.0
"""A stall this soon after the click belongs to the start of the job."""
SMALLEST_LIMIT = 0.1
TIMES_IDLE = 5


def recipe(data: Path, **budget: Any) -> Any:
    from im2im_core.api import load_preset

    return load_preset("instance_seg_2d").override({"data.path": str(data), "name": "stall", **budget})


def prepare(folder: Path) -> None:
    """A data set and a model of a few steps, which all runs use."""
    from im2im_core import api
    from im2im_core.microscope import write_dataset
    from im2im_core.project import Project

    write_dataset(folder / "data", "instance_segmentation", count=12, shape=(256, 256), seed=1)
    run = api.train(recipe(folder / "data", **{"training.steps": 30}), project=Project.create(folder / "first"))
    run.model.rename(folder / "model")


class Ticks:
    """Gaps between the ticks of a timer in the main thread, from `begin` on."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.timer = QTimer()
        self.timer.setTimerType(Qt.TimerType.PreciseTimer)
        self.timer.timeout.connect(self._tick)
        self.last = self.started = 0.0
        self.gaps: list[tuple[float, float]] = []

    def begin(self) -> None:
        self.started = self.last = time.perf_counter()
        self.timer.start(1)

    def _tick(self) -> None:
        now = time.perf_counter()
        self.gaps.append((self.last - self.started, now - self.last))
        self.last = now

    def longest(self, first: float = 0.0, last: float = float("inf")) -> float:
        return max((gap for at, gap in self.gaps if first <= at < last), default=0.0)


def open_viewer() -> tuple[Any, Any]:
    """Viewer with a stack, and the timer that scrolls it."""
    import napari
    import numpy as np
    from qtpy.QtCore import QTimer

    viewer = napari.Viewer()
    viewer.window.resize(1366, 768)
    rng = np.random.default_rng(0)
    viewer.add_image(rng.integers(0, 4000, STACK, dtype=np.uint16), name="stack")
    scroll = QTimer()
    scroll.timeout.connect(lambda: viewer.dims.set_current_step(0, (viewer.dims.current_step[0] + 1) % STACK[0]))
    scroll.start(SCROLL_MILLISECONDS)
    return viewer, scroll


def panel(viewer: Any, name: str) -> Any:
    _, widget = viewer.window.add_plugin_dock_widget("napari-im2im", name)
    return widget


def start_idle(viewer: Any, folder: Path) -> Any:
    panel(viewer, "Train")
    return lambda: None


def start_training(viewer: Any, folder: Path) -> Any:
    widget = panel(viewer, "Train")
    widget.ask_on_close = lambda names: "stop"
    widget.start_panel.setValue(recipe(folder / "data", **{"training.minutes": 10}), "instance_seg_2d")
    return widget.start_panel.start_button.click


def start_predicting(viewer: Any, folder: Path) -> Any:
    from qtpy.QtCore import QTimer

    from im2im_core.models import add_model

    add_model(folder / "model")
    widget = panel(viewer, "Predict")
    widget.set_model(str(folder / "model"))
    widget.set_image(viewer.layers["stack"])
    again = QTimer(widget)  # the stack may be done before the time is over
    again.timeout.connect(lambda: None if widget.job.running else widget.button.click())

    def click() -> None:
        if not widget.button.isEnabled():
            raise SystemExit(f"Predict is not ready: {widget.button.toolTip()}")
        widget.button.click()
        again.start(500)

    return click


def start_thread(viewer: Any, folder: Path) -> Any:
    from napari.qt.threading import thread_worker

    panel(viewer, "Train")

    @thread_worker
    def work() -> None:
        from im2im_core import api

        api.train(recipe(folder / "data", **{"training.minutes": 10}), project=str(folder / "thread"))

    return lambda: work().start()


def measure(scenario: str, folder: Path, seconds: float) -> dict[str, float]:
    """Longest stalls of one run, in seconds; ends the process, because a thread that trains cannot be ended."""
    from qtpy.QtTest import QTest

    viewer, scroll = open_viewer()
    click = globals()[f"start_{scenario}"](viewer, folder)
    QTest.qWait(SETTLE_SECONDS * 1000)
    ticks = Ticks()
    ticks.begin()
    click()
    QTest.qWait(int(seconds * 1000))
    ticks.timer.stop()
    scroll.stop()
    return {
        "longest": ticks.longest(),
        "at_start": ticks.longest(last=START_SECONDS),
        "over_100_ms": sum(gap > SMALLEST_LIMIT for _, gap in ticks.gaps),
    }


def one(arguments: argparse.Namespace) -> None:
    found = measure(arguments.scenario, arguments.folder, arguments.seconds)
    sys.stdout.write(f"RESULT {json.dumps(found)}\n")
    sys.stdout.flush()
    stop_trainings()
    os._exit(0)


def stop_trainings() -> None:
    from im2im_core.jobs.commands import send_command
    from im2im_core.project import Project
    from im2im_core.runs import ACTIVE

    for run in Project.open().runs():
        if run.state in ACTIVE:
            send_command(run, "abort")
    until = time.monotonic() + 60
    while any(run.state in ACTIVE for run in Project.open().runs()) and time.monotonic() < until:
        time.sleep(0.2)


def run_apart(scenario: str, folder: Path, seconds: float) -> dict[str, float]:
    """Result of one run in a process and a project of its own."""
    with tempfile.TemporaryDirectory() as home:
        words = ["--scenario", scenario, "--folder", str(folder), "--seconds", str(seconds)]
        done = subprocess.run(
            [sys.executable, __file__, *words],
            env={**os.environ, "IM2IM_HOME": home},
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"{scenario} failed:\n{done.stdout}\n{done.stderr}")
    found: dict[str, float] = json.loads(lines[0].removeprefix("RESULT "))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--scenario", choices=SCENARIOS)
    parser.add_argument("--folder", type=Path)
    add_results(parser)
    arguments = parser.parse_args()
    if arguments.scenario:
        one(arguments)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in SCENARIOS}
    with tempfile.TemporaryDirectory() as place:
        prepare(Path(place))
        for _ in range(arguments.runs):
            for name in SCENARIOS:
                rows[name].append(run_apart(name, Path(place), arguments.seconds))
                sys.stdout.write(f"{name} {rows[name][-1]}\n")
                sys.stdout.flush()
    found = json.dumps(report(rows, arguments), indent=1)
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "viewer.json").write_text(found)
    sys.stdout.write(f"{found}\n")


def report(rows: dict[str, list[dict[str, float]]], arguments: argparse.Namespace) -> dict[str, Any]:
    def median(name: str, key: str) -> float:
        return round(statistics.median(row[key] for row in rows[name]), 3)

    found: dict[str, Any] = {
        "command": "python tools/with_display.py python benchmarks/viewer.py",
        "runs": arguments.runs,
        "seconds": arguments.seconds,
        "machine": machine(),
        "limit_s": max(SMALLEST_LIMIT, TIMES_IDLE * median("idle", "longest")),
    }
    for name in SCENARIOS:
        found[f"{name}_longest_stall_s"] = median(name, "longest")
        found[f"{name}_longest_stall_at_start_s"] = median(name, "at_start")
        found[f"{name}_worst_of_all_runs_s"] = round(max(row["longest"] for row in rows[name]), 3)
    return found


if __name__ == "__main__":
    main()
