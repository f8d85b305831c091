"""Fault cases in their full form: real processes, killed, signalled, out of disk, out of memory."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kill_world import KILLS, SEED, Nursery, elsewhere, in_lanes, on_small_disk, until
from training_world import same_state, small_recipe

from im2im_core.engine.checkpoint import Checkpoint, CheckpointFolder
from im2im_core.events import Losses, Message
from im2im_core.files import read_json, sha256
from im2im_core.io import open_image, write_image
from im2im_core.jobs._platform import birth
from im2im_core.jobs.eventlog import merge_steps, read_events
from im2im_core.microscope import fluorescence, write_dataset
from im2im_core.project import Project
from im2im_core.runs import Run

pytestmark = [pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks and mounts as Linux does")]

GOLDEN = Path(__file__).parents[1] / "data" / "golden_0.1.0_bundle.zip"
TRAINING = """
import im2im_core.engine.session
import pytorch_lightning, monai.networks.nets, monai.losses
from im2im_core.jobs import child

def work(folder):
    return child.main(["train", folder])
"""
EVERY_STEP = {"training__checkpoint_minutes": 1e-6, "training__validate_every": 5}
"""So the interval between checkpoints is one step, and that is what may be lost."""


class Lane:
    """A project of its own with a process that trains its runs."""

    def __init__(self, folder: Path, temporary: Path, number: int, imports: str = TRAINING) -> None:
        self.folder, self.rng = folder / str(number), random.Random(1000 * SEED + number)
        (temporary / str(number)).mkdir()
        write_dataset(self.folder / "data", "instance_segmentation", count=3, shape=(48, 48), seed=0)
        self.project = Project.create(self.folder / "project")
        # A home of its own means a queue of its own: lanes do not wait for each other's device.
        home, temporary = self.folder / "home", temporary / str(number)
        self.environment = {"IM2IM_HOME": str(home), "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
        self.nursery = Nursery(imports, self.environment, self.folder / "log.txt")

    def run(self, name: str, steps: int, **changes: Any) -> Run:
        changes = {"data__path": str(self.folder / "data"), "training__steps": steps, **EVERY_STEP, **changes}
        return Run.create(self.project, small_recipe(**changes), name)

    def finish(self, run: Run) -> None:
        self.nursery.start(run.folder)
        assert self.nursery.wait() == 0, run.log.read_text()
        assert run.state == "finished"

    def require_as_uninterrupted(self, run: Run, steps: int) -> None:
        """The run is finished, and ends with the weights that it would have had without all that happened."""
        self.finish(run)
        once = self.run("once", steps)
        self.finish(once)
        assert same_state(newest(run), newest(once))
        assert [s.event.step for s in merge_steps(read_events(run)) if isinstance(s.event, Losses)] == [
            *range(1, steps + 1)
        ]
        assert not list(run.folder.rglob("*.part"))


def newest(run: Run) -> Checkpoint:
    found = CheckpointFolder(run.checkpoints).newest()
    assert found is not None
    return found


def saved_step(run: Run) -> int:
    """Step of the newest checkpoint that is listed."""
    return max((int(e["step"]) for e in CheckpointFolder(run.checkpoints).entries()), default=0)


def told_step(run: Run) -> int:
    """Last step that was reported."""
    return max((s.event.step for s in read_events(run) if isinstance(s.event, Losses)), default=0)


def check_checkpoints(run: Run, reached: int) -> None:
    """None is damaged, none was lost, and no more than one step of work is."""
    entries = CheckpointFolder(run.checkpoints).entries()
    for entry in entries:
        for name, digest in entry["files"].items():
            assert sha256(run.checkpoints / name) == digest, f"{name} is damaged"
    step = newest(run).step if entries else 0
    assert step == saved_step(run) >= reached
    assert told_step(run) - step <= 1


# ---- kills ----


def kill_training(lane: Lane, kills: int) -> None:
    steps = 6 * kills + 20
    run, killed = lane.run("killed", steps), 0
    while killed < kills and run.state != "finished":
        reached = saved_step(run)
        if killed % 10 == 9:  # a fresh process, at any moment from its very start
            words = [sys.executable, "-m", "im2im_core.jobs.child", "train", str(run.folder)]
            quiet = subprocess.DEVNULL
            process = subprocess.Popen(words, env=os.environ | lane.environment, stdout=quiet, stderr=quiet)
            time.sleep(8 * lane.rng.random())
            process.kill()
            process.wait()
        else:
            pid, goal = lane.nursery.start(run.folder), reached + lane.rng.randint(1, 3)
            until(lambda goal=goal: saved_step_while_written(run) >= goal, pid)
            time.sleep(0.3 * lane.rng.random())
            if birth(pid) is not None:
                os.kill(pid, signal.SIGKILL)
            assert lane.nursery.wait() in (-9, 0), run.log.read_text()
        assert run.state in ("queued", "interrupted", "finished")
        check_checkpoints(run, reached)
        killed += 1
    assert killed > kills // 2
    lane.require_as_uninterrupted(run, steps)


def saved_step_while_written(run: Run) -> int:
    """As `saved_step`, without tidying up behind a living process."""
    path = run.checkpoints / "checkpoints.json"
    return max((int(e["step"]) for e in read_json(path)), default=0) if path.is_file() else 0


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(10_000)
def test_fault_01_02_killed_two_hundred_times(tmp_path: Path) -> None:
    """No checkpoint is damaged, no more than one interval is lost, the result is that of a quiet training."""
    with elsewhere() as temporary:

        def work(number: int) -> None:
            lane = Lane(tmp_path, temporary, number)
            with lane.nursery:
                kill_training(lane, max(1, KILLS // 2))

        in_lanes(work)


WRITER = """
import torch
from pathlib import Path
from im2im_core.engine.checkpoint import Checkpoint, CheckpointFolder

def work(folder):
    checkpoints = CheckpointFolder(Path(folder))
    newest = checkpoints.newest()
    step = newest.step if newest else 0
    with open(folder + ".told", "ab", buffering=0) as told:
        while True:
            step += 1
            weights = {name: torch.full((5_000_000,), float(step)) for name in ("model.w", "ema.w")}
            state = {"counters": {"step": step}, "optimizers": [], "framework": {"pool": [torch.ones(3) * step]}}
            checkpoints.save(Checkpoint(step, weights, state), best=step % 5 == 0)
            told.write(b"%d\\n" % step)
"""


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(10_000)
def test_fault_02_writers_of_large_checkpoints_killed_two_hundred_times(tmp_path: Path) -> None:
    """40 MB each, so that most kills come while one is written."""

    def kill(number: int) -> None:
        folder, rng, reached = tmp_path / str(number), random.Random(1000 * SEED + number), 0
        environment = {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
        with Nursery(WRITER, environment, tmp_path / f"{number}.log") as nursery:
            for _ in range(max(1, KILLS // 2)):
                pid = nursery.start(folder)
                time.sleep(rng.random())
                os.kill(pid, signal.SIGKILL)
                assert nursery.wait() == -9
                reached = check_written(folder, reached)

    with elsewhere() as temporary:
        in_lanes(kill)


def check_written(folder: Path, reached: int) -> int:
    """Step of the newest checkpoint, after it and the best were read."""
    checkpoints, path = CheckpointFolder(folder), folder.with_name(f"{folder.name}.told")
    told = max(map(int, path.read_text().split()), default=0) if path.exists() else 0
    found, best = checkpoints.newest(), checkpoints.best()
    assert not list(folder.glob(".*.part"))
    if found is None:
        assert told == 0
        return 0
    # Killed between the list and the message, one more than told is there; again and again, one more each time.
    assert max(told, reached) <= found.step <= max(told, reached) + 1
    assert (found.weights["model.w"] == found.step).all()
    assert found.state["counters"]["step"] == found.step
    assert best is None or (best.weights["ema.w"] == best.step).all()
    return found.step


# ---- signals ----


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_fault_40_41_signals_at_any_moment(tmp_path: Path) -> None:
    """Once: all is saved. A second Ctrl-C may come at any moment after it."""
    count = max(2, KILLS // 10)
    with elsewhere() as temporary:
        lane = Lane(tmp_path, temporary, 0)
        with lane.nursery:
            steps = 8 * count + 20
            run = lane.run("signalled", steps)
            for number in range(count):
                name = ("SIGINT", "SIGTERM", "SIGUSR1", "twice")[number % 4]
                reached, pid = saved_step(run), lane.nursery.start(run.folder)
                until(lambda reached=reached: saved_step_while_written(run) > reached, pid)
                time.sleep(0.3 * lane.rng.random())
                os.kill(pid, signal.SIGINT if name == "twice" else getattr(signal, name))
                if name == "twice":
                    time.sleep(0.05 * lane.rng.random())
                    os.kill(pid, signal.SIGINT)
                code = lane.nursery.wait()
                if run.state == "finished":
                    break
                assert code in ({"SIGINT": (130,), "twice": (130, -2, 1)}.get(name, (143,))), run.log.read_text()
                assert run.state in ("stopped", "interrupted" if name == "twice" else "stopped")
                check_checkpoints(run, reached)
                assert name == "twice" or told_step(run) == saved_step(run)
            lane.require_as_uninterrupted(run, steps)


# ---- disks ----

FULL_DISK_TRAINING = """
import os, subprocess, sys, time
from pathlib import Path
from im2im_core.engine.checkpoint import CheckpointFolder
from im2im_core.project import Project
from im2im_core.recipe import Recipe
from im2im_core.runs import Run

disk, recipe = Path(sys.argv[1]), Recipe.from_file(sys.argv[2])
run = Run.create(Project.create(disk / "project"), recipe, "full")
command = [sys.executable, "-m", "im2im_core.jobs.child", "train", str(run.folder)]
process = subprocess.Popen(command)
while process.poll() is None and not (run.checkpoints / "checkpoints.json").exists():
    time.sleep(0.02)
filler = disk / "filler"
with filler.open("wb", buffering=0) as handle:
    try:
        for size in (1 << 20, 1 << 12, 1):
            while True:
                try:
                    if handle.write(bytes(size)) < size:
                        break
                except OSError:
                    break
    finally:
        print("filled", flush=True)
print("code", process.wait(), run.state)
newest = CheckpointFolder(run.checkpoints).newest()
print("kept", newest.step > 0)
filler.unlink()
print("again", subprocess.run(command).returncode, Run(run.folder).state)
"""


@pytest.mark.slow
@pytest.mark.faults
def test_fault_05_a_disk_that_fills_up_while_it_trains(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", "instance_segmentation", count=3, shape=(48, 48), seed=0)
    recipe = small_recipe(data__path=str(tmp_path / "data"), training__steps=60, **EVERY_STEP)
    recipe.to_file(tmp_path / "recipe.yaml")
    (tmp_path / "disk").mkdir()
    (tmp_path / "script.py").write_text(FULL_DISK_TRAINING)
    done = on_small_disk(tmp_path / "disk", 64, tmp_path / "script.py", tmp_path / "disk", tmp_path / "recipe.yaml")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.split(" ")[0] in ("code", "kept", "again")]
    assert said[0] in ("code 4 failed", "code 4 interrupted"), done.stderr  # where not even the state could be written
    assert said[1:] == ["kept True", "again 0 finished"], done.stderr


FULL_DISK_PREDICTION = """
import os, subprocess, sys, time
from pathlib import Path

disk, model, image, suffix = Path(sys.argv[1]), *sys.argv[2:5]
out = disk / ("out" + suffix)
command = [sys.executable, "-m", "im2im_core.cli", "predict", model, image, "-o", str(out)]
process = subprocess.Popen(command)
def begun():
    return any(p.is_file() and p.stat().st_size > 100_000 for p in disk.rglob("*"))
while process.poll() is None and not begun():
    time.sleep(0.005)
filler = disk / "filler"
with filler.open("wb", buffering=0) as handle:
    for size in (1 << 20, 1 << 12, 1):
        while True:
            try:
                if handle.write(bytes(size)) < size:
                    break
            except OSError:
                break
print("code", process.wait(), out.exists())
filler.unlink()
again = subprocess.run([*command, "--resume"]).returncode
print("again", again, out.exists())
subprocess.run(["cp", "-r", str(out), sys.argv[5]], check=True)
"""


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """Images one after the other in time, so that predicting takes some seconds."""
    plane = fluorescence((256, 256), seed=3).image
    return write_image(tmp_path / "stack.tif", np.stack([np.roll(plane, 5 * t, 0) for t in range(12)]), "TYX")


def predict(*words: object, environment: dict[str, str] | None = None) -> int:
    command = [sys.executable, "-m", "im2im_core.cli", "predict", *map(str, words)]
    return subprocess.run(command, check=False, env=os.environ | (environment or {})).returncode


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr"])
def test_fault_06_a_disk_that_fills_up_while_it_predicts(tmp_path: Path, stack: Path, suffix: str) -> None:
    disk, copy = tmp_path / "disk", tmp_path / f"copy{suffix}"
    disk.mkdir()
    (tmp_path / "script.py").write_text(FULL_DISK_PREDICTION)
    done = on_small_disk(disk, 128, tmp_path / "script.py", disk, GOLDEN, stack, suffix, copy)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.split(" ")[0] in ("code", "again")]
    # An OME-TIFF is reserved as a whole before, and may be complete on a disk that is full.
    assert lines[0] in ("code 4 False", "code 0 True"), done.stderr
    assert lines[1] == "again 0 True", done.stderr
    assert predict(GOLDEN, stack, "-o", tmp_path / f"once{suffix}") == 0
    np.testing.assert_array_equal(open_image(copy).read(), open_image(tmp_path / f"once{suffix}").read())


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_fault_45_a_prediction_that_is_killed_again_and_again(tmp_path: Path, stack: Path) -> None:
    out, rng = tmp_path / "out" / "a.ome.zarr", random.Random(SEED)
    out.parent.mkdir()
    command = [sys.executable, "-m", "im2im_core.cli", "predict", str(GOLDEN), str(stack), "-o", str(out), "--resume"]
    for _ in range(max(2, KILLS // 20)):
        process = subprocess.Popen(command)
        until(lambda: any(out.parent.iterdir()), process.pid)
        time.sleep(0.3 * rng.random())
        process.kill()
        process.wait()
        if out.exists():
            break
        assert not [p for p in out.parent.iterdir() if not p.name.startswith(".")]
    assert predict(GOLDEN, stack, "-o", out, "--resume") == 0
    assert predict(GOLDEN, stack, "-o", tmp_path / "once.ome.zarr") == 0
    np.testing.assert_array_equal(open_image(out).read(), open_image(tmp_path / "once.ome.zarr").read())
    assert [p.name for p in out.parent.iterdir()] == [out.name]


# ---- memory ----

LITTLE_MEMORY = """
import resource
import im2im_core.engine.session
import pytorch_lightning, monai.networks.nets, monai.losses
from im2im_core.jobs import child

def work(folder):
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + (600 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return child.main(["train", folder])
"""


@pytest.mark.slow
@pytest.mark.faults
def test_fault_27_29_a_training_with_too_little_memory(tmp_path: Path) -> None:
    """The system refuses what is beyond 600 MB: smaller parts of the batch, or the end with exit code 4."""
    with elsewhere() as temporary:
        lane = Lane(tmp_path, temporary, 0, LITTLE_MEMORY)
        large = {"training__batch": 64, "data__patch": [256, 256], "network__features": [32, 32, 64, 64, 64, 32]}
        run = lane.run("large", 2, **large)
        with lane.nursery:
            lane.nursery.start(run.folder)
            code = lane.nursery.wait()
        assert code in (0, 4), run.log.read_text()
        assert run.state == {0: "finished", 4: "failed"}[code]
        told = [s.event.code for s in read_events(run) if isinstance(s.event, Message)]
        assert code == 4 or "out_of_memory" in told
        assert code == 0 or "memory" in run.status.message
