"""What goes wrong in trainings: kills, signals, full memory, dead workers, broken numbers, odd images."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from training_world import Training, discs, same_state, sample, small_recipe, split_of

from im2im_core.cli import main
from im2im_core.engine import callbacks, session
from im2im_core.engine.checkpoint import Checkpoint, CheckpointFolder
from im2im_core.engine.frameworks.instance import Instance
from im2im_core.engine.planning import make_plan
from im2im_core.engine.session import prepare_images
from im2im_core.engine.train import PatchLoader
from im2im_core.engine.validate import Validator
from im2im_core.errors import DataError, ResourceError, Stopped
from im2im_core.events import Checkpointed, Losses, Message, Paused
from im2im_core.jobs.child import run_attempt
from im2im_core.jobs.commands import send_command
from im2im_core.jobs.eventlog import read_events
from im2im_core.microscope import write_dataset
from im2im_core.project import Project
from im2im_core.recipe import Recipe
from im2im_core.runs import Run
from im2im_core.samples import Split

posix = pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")


@pytest.fixture(autouse=True)
def _no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session._Session, "_export", lambda *_: None)


@pytest.fixture
def make_run(tmp_path: Path) -> Any:
    """Runs on disk over the same three images."""
    write_dataset(tmp_path / "data", "instance_segmentation", count=3, shape=(48, 48), seed=0)
    project = Project.create(tmp_path / "project")

    def make(name: str, **changes: Any) -> Run:
        recipe = small_recipe(data__path=str(tmp_path / "data"), **{"training__validate_every": 2, **changes})
        return Run.create(project, recipe, name)

    return make


def newest(run: Run) -> Checkpoint:
    found = CheckpointFolder(run.checkpoints).newest()
    assert found is not None
    return found


# ---- kills ----


def start_child(run: Run) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "im2im_core.jobs.child", "train", str(run.folder)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_step(run: Run, process: subprocess.Popen[bytes], step: int) -> None:
    limit = time.monotonic() + 240
    while time.monotonic() < limit and process.poll() is None:
        found = CheckpointFolder(run.checkpoints).entries()
        if found and found[-1]["step"] >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached: {run.log.read_text()}")


def kill_until_finished(make_run: Any, kills: int, steps: int) -> None:
    changes = {"training__steps": steps, "training__checkpoint_minutes": 1e-6, "training__validate_every": 5}
    run, rng = make_run("killed", **changes), random.Random(0)
    for number in range(kills):
        process = start_child(run)
        wait_for_step(run, process, 1 + number * steps // (kills + 1))
        time.sleep(rng.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert run.state in ("interrupted", "finished")
    assert run_attempt(run) == 0
    once = make_run("once", **changes)
    assert run_attempt(once) == 0
    assert newest(run).step == steps
    assert same_state(newest(run), newest(once))
    assert not list(run.folder.rglob("*.part"))


@posix
def test_fault_01_a_killed_training_goes_on_exactly(make_run: Any) -> None:
    kill_until_finished(make_run, 1, 10)


# ---- signals ----


def at_call(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int, act: Any) -> None:
    """Let `act` happen inside the `number`-th call of a method."""
    real, calls = getattr(owner, name), [0]

    def wrapped(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            act()
        return real(*args, **options)

    monkeypatch.setattr(owner, name, wrapped)


MOMENTS = {
    "step": (Instance, "losses", 3),
    "validation": (Validator, "run", 1),
    "checkpoint": (CheckpointFolder, "save", 2),
    "preview": (callbacks.Preview, "write", 1),
}


@posix
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 143)])
@pytest.mark.parametrize("moment", MOMENTS)
def test_fault_40_41_a_signal_saves_at_the_step_boundary(
    make_run: Any, monkeypatch: pytest.MonkeyPatch, moment: str, name: str, code: int
) -> None:
    if name == "SIGUSR1" and moment != "step":
        pytest.skip("one moment is enough")
    run = make_run("signalled", training__steps=6, training__checkpoint_minutes=1e-6)
    with monkeypatch.context() as patch:
        at_call(patch, *MOMENTS[moment], lambda: os.kill(os.getpid(), getattr(signal, name)))
        assert run_attempt(run) == code
    assert run.state == "stopped"
    stopped = newest(run).step
    assert 1 <= stopped <= 3
    assert run_attempt(run) == 0
    once = make_run("once", training__steps=6, training__checkpoint_minutes=1e-6)
    assert run_attempt(once) == 0
    assert same_state(newest(run), newest(once))


@posix
def test_fault_40_the_second_interrupt_ends_at_once(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("impatient", training__steps=6, training__checkpoint_minutes=1e-6)

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        at_call(patch, Instance, "losses", 4, twice)
        assert run_attempt(run) == 130
    assert signal.getsignal(signal.SIGINT) == handler
    assert run.state == "stopped"
    assert newest(run).step >= 2
    assert run_attempt(run) == 0


@posix
def test_fault_41_a_signal_while_images_are_read(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("reading")
    with monkeypatch.context() as patch:
        at_call(patch, session, "target_statistics", 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert run_attempt(run) == 143
    assert run.state == "stopped"
    assert CheckpointFolder(run.checkpoints).newest() is None
    assert run_attempt(run) == 0


def test_a_pause_while_images_are_read_is_a_pause(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("reading")
    with monkeypatch.context() as patch:
        at_call(patch, session, "target_statistics", 1, lambda: send_command(run, "pause"))
        assert run_attempt(run) == 0
    assert run.state == "paused"
    assert read_events(run)[-1].event == Paused(0)
    assert run_attempt(run) == 0
    assert run.state == "finished"


@pytest.mark.parametrize("moment", ["step", "validation", "checkpoint", "reading"])
def test_fault_25_abort_is_heeded_wherever_it_comes(
    make_run: Any, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """No more than the step in which it comes is computed; what was learned before can be gone on with."""
    run = make_run("aborted", training__steps=500, training__checkpoint_minutes=1e-6)
    place = {**MOMENTS, "reading": (session, "target_statistics", 1)}[moment]
    with monkeypatch.context() as patch:
        patch.setattr(session, "POLL_SECONDS", 0)  # steps take a hundredth of a second here
        at_call(patch, *place, lambda: send_command(run, "abort"))
        assert run_attempt(run) == (130 if moment == "reading" else 0)
    assert run.state == "stopped"
    steps = [e.event.step for e in read_events(run) if isinstance(e.event, Losses)]
    assert len(steps) <= {"step": 3, "validation": 2, "checkpoint": 3, "reading": 0}[moment]
    assert (CheckpointFolder(run.checkpoints).newest() is None) == (moment == "reading")
    run.require_unfinished()


def test_a_stop_while_images_are_read_names_the_progress(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="after 1 of 3 images"):
        Training(tmp_path / "run", small_recipe()).run(lambda: "stop")


# ---- memory ----


def memory_for(patches: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets the framework learn from no more than `patches` at a time; gives the sizes that were tried."""
    real, tried = Instance.losses, []

    def losses(self: Any, batch: Any, player: str, context: Any) -> Any:
        tried.append(len(batch["source"]))
        if self.training and len(batch["source"]) > patches:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, batch, player, context)

    monkeypatch.setattr(Instance, "losses", losses)
    return tried


def test_fault_29_out_of_memory_halves_the_batch_and_learns_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe(
        training__batch=4, training__steps=4, training__optimizer__kind="sgd", logging__preview=False
    ).override({"network.norm": "instance"})
    split = split_of(3, 0)
    enough = Training(tmp_path / "enough", recipe, split)
    enough.pause_after(3)
    tried = memory_for(1, monkeypatch)
    little = Training(tmp_path / "little", recipe, split)
    little.pause_after(3)
    assert tried == [4, 2, 1, 1, 1, 1, *[1] * 8]
    told = [m for m in little.of(Message) if m.code == "out_of_memory"]
    assert [m.level for m in told] == ["warning", "warning"]
    assert "2 at a time" in told[0].text
    assert "1 at a time" in told[1].text
    for name, value in enough.checkpoint.weights.items():
        # Sums of float32 in another order, through instance normalisation and a momentum of 0.99.
        torch.testing.assert_close(little.checkpoint.weights[name], value, rtol=1e-3, atol=1e-4)
    tried.clear()
    little.run()
    assert tried == [1] * 4  # remembered


def test_fault_29_out_of_memory_for_a_single_patch_names_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_for(0, monkeypatch)
    with pytest.raises(ResourceError, match=r"one patch of 32 x 32.*smaller data.patch"):
        Training(tmp_path / "run", small_recipe()).run()


def test_fault_29_exit_code(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_for(0, monkeypatch)
    run = make_run("full")
    assert run_attempt(run) == 4
    assert run.state == "failed"


# ---- workers ----


def test_fault_43_fewer_workers_go_on_where_one_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch tells it when a batch is asked for; with no worker left, batches are made here."""
    recipe, split = small_recipe(data__cache__kind="disk"), split_of(2, 0)
    stream = prepare_images(make_plan(recipe, split), split, tmp_path, lambda e: None, lambda: "").stream
    told: list[Any] = []
    loader = PatchLoader(stream, 3, 2, told.append)
    ahead = loader._ahead

    def batches(start: int) -> Any:
        for number, batch in enumerate(ahead(start)):
            if number == 2 and loader.workers:
                raise RuntimeError("DataLoader worker (pid(s) 4711) exited unexpectedly")
            yield batch

    monkeypatch.setattr(loader, "_batches", batches)
    found = iter(loader)
    for step in range(3, 11):
        expected, batch = stream[step][0], next(found)[0]
        assert all(torch.equal(batch[k], expected[k]) for k in expected)
    assert loader.workers == 0
    assert [m.text.rpartition(" ")[2] for m in told] == ["1", "0"]
    found.close()  # type: ignore[attr-defined]


@posix
@pytest.mark.slow
@pytest.mark.faults
def test_fault_43_a_killed_worker_is_replaced_and_nothing_is_lost_or_seen_twice(tmp_path: Path) -> None:
    recipe, split = small_recipe(data__cache__kind="disk"), split_of(2, 0)
    stream = prepare_images(make_plan(recipe, split), split, tmp_path, lambda e: None, lambda: "").stream
    told: list[Any] = []
    loader = PatchLoader(stream, 3, 2, told.append)
    batches = iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    found = [next(batches) for _ in range(2)]
    assert signal.getsignal(signal.SIGCHLD) == before
    import psutil

    workers = [p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    time.sleep(0.2)  # the training is in the middle of a step: nothing may be raised here
    start = time.monotonic()
    found += [next(batches) for _ in range(8)]
    assert time.monotonic() - start < 60
    assert loader.workers == 1
    assert [m.code for m in told] == ["worker_died"]
    for step, batch in enumerate(found, start=3):
        expected = stream[step][0]
        assert all(torch.equal(batch[0][k], expected[k]) for k in expected)
    batches.close()  # type: ignore[attr-defined]


# ---- numbers ----


def nan_from(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Instance.losses

    def losses(self: Any, batch: Any, player: str, context: Any) -> Any:
        found = real(self, batch, player, context)
        if self.training and context.step >= step:
            found = {name: value * float("nan") for name, value in found.items()}
        return found

    monkeypatch.setattr(Instance, "losses", losses)


@pytest.mark.parametrize("saved", [True, False])
def test_fault_11_losses_that_stay_nan_end_the_training_with_the_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    """Whether or not a checkpoint was due before."""
    recipe = small_recipe(
        training__steps=30,
        training__non_finite_limit=4,
        training__validate_every=100,
        training__checkpoint_minutes=1e-6 if saved else 100,
    )
    good = Training(tmp_path / "good", recipe)
    good.pause_after(3)
    nan_from(3, monkeypatch)
    training = Training(tmp_path / "run", recipe)
    with pytest.raises(DataError, match="cross_entropy, dice_loss, distance"):
        training.run()
    kept = training.checkpoint
    assert kept.step == (3 if saved else 7)
    assert all(torch.equal(v, kept.weights[k]) for k, v in good.checkpoint.weights.items() if k.startswith("model."))
    assert all(torch.isfinite(v).all() for v in kept.weights.values())


def test_fault_11_one_bad_step_changes_nothing_but_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN activations must not enter the statistics of the normalisation layers either."""
    recipe = small_recipe(training__steps=6)
    training = Training(tmp_path / "run", recipe)
    real, calls = Instance.losses, [0]

    def losses(self: Any, batch: Any, player: str, context: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            batch = {**batch, "source": batch["source"] * float("nan")}
        return real(self, batch, player, context)

    monkeypatch.setattr(Instance, "losses", losses)
    training.pause_after(4)
    assert all(torch.isfinite(v).all() for v in training.checkpoint.weights.values())


def test_fault_11_exit_code_of_nan_losses(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nan_from(0, monkeypatch)
    run = make_run("nan", training__steps=30)
    assert run_attempt(run) == 3
    assert "NaN or infinite for 10 steps" in run.status.message


# ---- images ----


def learns(tmp_path: Path, recipe: Recipe, *samples: Any) -> Training:
    training = Training(
        tmp_path / "run", recipe, Split(samples[:-1] or samples, samples[-1:] if len(samples) > 1 else ())
    )
    training.pause_after(3)
    assert all(torch.isfinite(v).all() for v in training.checkpoint.weights.values())
    return training


@pytest.mark.parametrize("preset", ["watershed_2d", "restoration_2d", "labelfree_2d"])
@pytest.mark.parametrize("value", [0, 7])
def test_fault_14_constant_images(tmp_path: Path, preset: str, value: int) -> None:
    image = np.full((48, 48), value, np.uint16)
    learns(tmp_path, small_recipe(preset), sample("a", image, image), sample("b", image, image))


@pytest.mark.parametrize("shape", [(1, 1), (7, 48), (48, 5), (31, 31), (33, 20)])
def test_fault_15_images_smaller_than_the_patch(tmp_path: Path, shape: tuple[int, int]) -> None:
    made = [sample(n, *(a[: shape[0], : shape[1]] for a in discs(0))) for n in ("a", "b")]
    training = learns(tmp_path, small_recipe(training__validate_every=1), *made)
    assert any("smaller than the patch (32, 32)" in m.text for m in training.of(Message))


@pytest.mark.parametrize("shape", [(1, 32, 32), (5, 7, 40), (20, 9, 11)])
def test_fault_15_stacks_smaller_than_the_patch(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    made = [sample(n, *(a[: shape[0], : shape[1], : shape[2]] for a in discs(0, (24, 40, 40)))) for n in ("a", "b")]
    learns(tmp_path, small_recipe("instance_seg_3d", training__validate_every=1), *made)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("preset", ["watershed_2d", "semantic_seg_2d"])
def test_fault_16_no_foreground_anywhere(tmp_path: Path, preset: str) -> None:
    image, _ = discs(0)
    nothing = np.zeros(image.shape, np.uint8)
    recipe = small_recipe(preset, data__foreground=1.0, training__validate_every=1)
    learns(tmp_path, recipe, sample("a", image, nothing), sample("b", image, nothing))


@pytest.mark.timeout(60)
def test_fault_16_nothing_known_anywhere(tmp_path: Path) -> None:
    image, labels = discs(0)
    unknown = np.zeros(image.shape, np.float32)
    learns(tmp_path, small_recipe(data__foreground=1.0), sample("a", image, labels, unknown))


def test_fault_17_large_ids_are_told_apart(tmp_path: Path) -> None:
    image, labels = discs(0)
    large = np.where(labels > 0, labels.astype(np.uint32) + 65535, 0).astype(np.uint32)
    found = []
    for name, target in (("small", labels), ("large", large)):
        training = Training(tmp_path / name, small_recipe(), Split((sample("a", image, target),)))
        training.pause_after(1)
        found.append(training.checkpoint)
    assert same_state(*found)


# ---- surroundings ----


def test_fault_42_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_run: Any
) -> None:
    """A day back, then ten years ahead, while it learns; other masks of new files too."""
    once = make_run("once", training__steps=6)
    assert run_attempt(once) == 0
    real, shift = time.time, [0.0]
    run = make_run("jumping", training__steps=6)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + shift[0])
        for number, jump in ((2, -86400.0), (4, 3e8)):
            at_call(patch, Instance, "losses", number, partial(shift.__setitem__, 0, jump))
        before = os.umask(0o077)
        try:
            assert run_attempt(run) == 0
        finally:
            os.umask(before)
    assert run.state == "finished"
    assert same_state(newest(run), newest(once))


# ---- data sets, by the command line ----


@pytest.mark.parametrize("harm", ["missing", "shape"])
def test_fault_12_13_a_data_set_that_does_not_fit_ends_before_the_training(
    tmp_path: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(tmp_path / "data", "instance_segmentation", count=3, shape=(48, 48), seed=0)
    target = sorted((tmp_path / "data" / "GT").iterdir())[1]
    pixels = tifffile.imread(target)
    target.unlink()
    if harm == "shape":
        tifffile.imwrite(target, pixels[:-1])
    command = ["train", "instance_seg_2d", "--data.path", str(tmp_path / "data"), "--project", str(tmp_path / "p")]
    assert main(command) == 3
    said = capsys.readouterr().err
    assert target.name.partition(".")[0] in said
    assert harm == "missing" or ("48" in said and "47" in said)
    assert not list((tmp_path / "p").rglob("*.safetensors"))


# ---- disks ----


def test_fault_05_a_full_disk_ends_the_training_and_keeps_what_was_saved(
    make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("full", training__steps=6, training__checkpoint_minutes=1e-6)
    with monkeypatch.context() as patch:
        from im2im_core.engine import checkpoint

        def full() -> None:
            raise OSError(28, "No space left on device")

        at_call(patch, checkpoint, "_write_state", 3, full)
        assert run_attempt(run) == 4
    assert run.state == "failed"
    assert "No space left" in run.status.message
    assert newest(run).step >= 1
    assert run_attempt(run) == 0
    checkpointed = [e for e in read_events(run) if isinstance(e.event, Checkpointed)]
    assert len(checkpointed) >= 5
