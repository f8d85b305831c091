"""Checkpoints that survive kills, damage and full disks."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from im2im_core import files
from im2im_core.engine import checkpoint as module
from im2im_core.engine.checkpoint import Checkpoint, CheckpointFolder
from im2im_core.errors import ResourceError, TrustError

WRITER = """
import sys, torch
from pathlib import Path
from im2im_core.engine.checkpoint import Checkpoint, CheckpointFolder

folder, size = CheckpointFolder(Path(sys.argv[1])), int(sys.argv[2])
newest = folder.newest()
step = newest.step if newest else 0
while True:
    step += 1
    weights = {"model.w": torch.full((size,), float(step)), "ema.w": torch.full((size,), float(step))}
    state = {"counters": {"step": step}, "optimizers": [], "scaler": {}, "framework": {"pool": [torch.ones(3) * step]}}
    folder.save(Checkpoint(step, weights, state), best=step % 5 == 0)
    print(step, flush=True)
"""


def state_of(step: int, size: int = 10) -> Checkpoint:
    weights = {"model.w": torch.full((size,), float(step)), "ema.w": torch.full((size,), float(step))}
    moments = {"exp_avg": torch.arange(3.0), "step": torch.tensor(float(step))}
    optimizer = {"state": {0: moments}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "params": [0]}]}
    state = {"counters": {"step": step, "best": None}, "optimizers": [optimizer], "scaler": {}, "framework": {}}
    return Checkpoint(step, weights, state)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints")


def test_round_trip(folder: CheckpointFolder) -> None:
    saved = state_of(3)
    assert folder.save(saved) >= 0
    found = folder.newest()
    assert found is not None
    assert found.step == 3
    assert torch.equal(found.weights["model.w"], saved.weights["model.w"])
    assert found.state["counters"] == saved.state["counters"]
    assert torch.equal(found.state["optimizers"][0]["state"][0]["exp_avg"], torch.arange(3.0))
    assert found.state["optimizers"][0]["param_groups"][0]["betas"] == (0.9, 0.99)


def test_an_empty_folder_has_none(folder: CheckpointFolder) -> None:
    assert folder.newest() is None
    assert folder.best() is None


def test_the_last_two_and_the_best_are_kept(folder: CheckpointFolder) -> None:
    for step in range(1, 8):
        folder.save(state_of(step))
        if step in (2, 4):
            folder.save(state_of(step), best=True)
    assert [(e["name"], e["best"]) for e in folder.entries()] == [
        ("best_00000004", True),
        ("step_00000006", False),
        ("step_00000007", False),
    ]
    kept = [
        f"{n}{end}"
        for n in ("best_00000004", "step_00000006", "step_00000007")
        for end in (".safetensors", ".state.pt")
    ]
    assert names(folder.folder) == sorted([*kept, "checkpoints.json"])
    best, newest = folder.best(), folder.newest()
    assert best is not None
    assert newest is not None
    assert (best.step, newest.step) == (4, 7)


def test_fault_10_the_best_serves_where_the_last_two_are_damaged(folder: CheckpointFolder) -> None:
    folder.save(state_of(2), best=True)
    for step in (3, 4):
        folder.save(state_of(step))
        (folder.folder / f"step_0000000{step}.safetensors").write_bytes(b"")
    found = folder.newest()
    assert found is not None
    assert found.step == 2


@pytest.mark.parametrize("ending", [".safetensors", ".state.pt"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_fault_10_damage_falls_back_to_the_one_before(
    folder: CheckpointFolder, ending: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder.save(state_of(1))
    folder.save(state_of(2))
    path = folder.folder / f"step_00000002{ending}"
    content = bytearray(path.read_bytes())
    if damage == "delete":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content if damage == "flip" else content[:-1])
    found = folder.newest()
    assert found is not None
    assert found.step == 1
    assert "step_00000002 is damaged" in caplog.text


def test_a_past_that_was_given_up_is_forgotten(folder: CheckpointFolder) -> None:
    """Step 20 is damaged; going on from step 10 must not keep it among the last two."""
    for step in (10, 20, 15, 18):
        folder.save(state_of(step))
    assert [e["step"] for e in folder.entries()] == [15, 18]


@pytest.mark.parametrize("content", ['[{"na', '{"steps": 3}', "\xff"])
def test_fault_10_a_damaged_list_costs_no_checkpoint(folder: CheckpointFolder, content: str) -> None:
    folder.save(state_of(1))
    kept = (folder.folder / "checkpoints.json").read_bytes()
    (folder.folder / "checkpoints.json").write_bytes(content.encode("latin-1"))
    before = names(folder.folder)
    with pytest.raises(ResourceError, match="cannot be read"):
        folder.newest()
    with pytest.raises(ResourceError, match="left alone"):
        folder.save(state_of(2))
    assert names(folder.folder) == before
    (folder.folder / "checkpoints.json").write_bytes(kept)
    assert folder.newest() is not None


def test_a_list_that_is_torn_while_saving_costs_no_checkpoint(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.save(state_of(1))

    def tear(path: Path, content: object) -> None:
        path.write_text('[{"na')
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module, "write_json", tear)
    with pytest.raises(ResourceError, match="Input/output error"):
        folder.save(state_of(2))
    assert {"step_00000001.safetensors", "step_00000001.state.pt"} <= set(names(folder.folder))


def test_fault_30_nothing_is_unpickled(
    folder: CheckpointFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (canary,)

    evil = state_of(1)
    evil.state["optimizers"] = [Evil()]
    folder.save(evil)  # hashes are right, as an attacker would have them
    with pytest.raises(TrustError, match="more than tensors"):
        folder.newest()
    assert not canary.exists()


# ---- kills ----


def run_and_kill(folder: Path, kills: int, size: int, environment: dict[str, str]) -> None:
    script = [sys.executable, "-c", WRITER, str(folder), str(size)]
    rng, reached = random.Random(0), 0
    for _ in range(kills):
        process = subprocess.Popen(script, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
        assert process.stdout is not None
        first = int(process.stdout.readline())
        assert first >= reached, "a listed checkpoint was lost"
        time.sleep(rng.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        told = max([first, *map(int, rest.split())])
        checkpoints = CheckpointFolder(folder)
        found, best = checkpoints.newest(), checkpoints.best()
        assert found is not None
        # Killed between the list and the message, one more than told is there.
        assert told <= found.step <= told + 1
        assert (found.weights["model.w"] == found.step).all()
        assert found.state["counters"]["step"] == found.step
        assert best is None or (best.weights["ema.w"] == best.step).all()
        reached = found.step
        assert not [n for n in names(folder) if n.endswith(".part")]


@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
def test_fault_02_killed_while_writing(tmp_path: Path) -> None:
    """The temporary folder of the system lies on another file system, where there is one."""
    elsewhere = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        run_and_kill(tmp_path / "checkpoints", 3, 50_000, {"TMPDIR": str(elsewhere)})
        assert names(elsewhere) == []
    finally:
        shutil.rmtree(elsewhere)


@pytest.mark.parametrize("moment", range(9))
def test_fault_02_dies_at_every_system_call(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """A process that ends before the n-th flush or rename leaves the old or the new checkpoint."""
    folder.save(state_of(1))
    calls = [0]

    class Dead(BaseException):
        pass

    def counted(real: Any) -> Any:
        def call(*args: Any) -> Any:
            if calls[0] == moment:
                raise Dead
            calls[0] += 1
            return real(*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(os, "replace", counted(os.replace))
        with pytest.raises(Dead):
            folder.save(state_of(2))
    found = CheckpointFolder(folder.folder).newest()
    assert found is not None
    assert found.step == (1 if moment < 8 else 2)
    assert (found.weights["model.w"] == found.step).all()


def test_fault_03_listed_only_after_both_files_are_flushed(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    real_sync, real_replace = files.sync, os.replace

    def sync(path: Path) -> None:
        told.append(f"sync {'folder' if path.is_dir() else path.name.split('.')[2]}")
        real_sync(path)

    def replace(source: Path, target: Path) -> None:
        told.append(f"rename {Path(target).name.split('.')[1]}")
        real_replace(source, target)

    monkeypatch.setattr(files, "sync", sync)
    monkeypatch.setattr(os, "replace", replace)
    folder.save(state_of(1))
    assert told == [
        "sync safetensors",
        "rename safetensors",
        "sync folder",
        "sync state",
        "rename state",
        "sync folder",
        "sync json",
        "rename json",
        "sync folder",
    ]


# ---- full disks ----

FULL = """
import os, sys, torch
from pathlib import Path
from im2im_core.engine.checkpoint import Checkpoint, CheckpointFolder
from im2im_core.errors import ResourceError, TrustError

folder = CheckpointFolder(Path(sys.argv[1]) / "checkpoints")
def save(step, size):
    folder.save(Checkpoint(step, {"model.w": torch.ones(size)}, {"optimizers": [], "framework": torch.ones(size)}))
save(1, 100_000)
for size in (3_000_000, 1_200_000):  # too large for the weights; for the state
    try:
        save(2, size)
    except ResourceError as error:
        print(error.exit_code, error)
    assert folder.newest().step == 1
    kept = ["checkpoints.json", "step_00000001.safetensors", "step_00000001.state.pt"]
    assert sorted(os.listdir(folder.folder)) == kept
save(3, 100_000)
assert folder.newest().step == 3
"""


def test_fault_05_full_disk(tmp_path: Path) -> None:
    """A file system of 8 MB."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    script = tmp_path / "full.py"
    script.write_text(FULL)
    small = tmp_path / "small"
    small.mkdir()
    command = 'mount -t tmpfs -o size=8m none "$1" && exec "$2" "$3" "$1"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, "sh", small, sys.executable, script],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"cannot mount: {done.stderr}")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    for line, need in ((first, "12 MB needed"), (second, "5 MB needed")):
        assert line.startswith("4 Cannot write checkpoint step_00000002")
        assert need in line
        assert "MB free" in line


@pytest.mark.parametrize("writer", ["_write_weights", "_write_state"])
def test_fault_05_what_torch_says_of_a_full_disk(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    folder.save(state_of(1))

    def fail(saved: Checkpoint, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("unexpected pos 576 vs 534")

    monkeypatch.setattr(module, writer, fail)
    with pytest.raises(ResourceError, match=r"MB needed, .* MB free.*Earlier checkpoints are intact"):
        folder.save(state_of(2))
    monkeypatch.undo()
    found = folder.newest()
    assert found is not None
    assert found.step == 1
    assert names(folder.folder) == ["checkpoints.json", "step_00000001.safetensors", "step_00000001.state.pt"]
