"""Files with weights that mean harm, at every door: nothing is executed, the refusal has its exit code."""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_world import Training, same_state, small_recipe

from im2im_core.engine.checkpoint import Checkpoint, CheckpointFolder
from im2im_core.engine.start_weights import read_start
from im2im_core.engine.weights_file import read_weights
from im2im_core.errors import Im2ImError, TrustError
from im2im_core.files import read_json, sha256, write_json
from im2im_core.jobs.messages import unpack


def text(word: str) -> bytes:
    """Opcode that pushes a word."""
    return b"X" + struct.pack("<I", len(word.encode())) + word.encode()


def proto(body: bytes) -> bytes:
    return b"\x80\x04" + body + b"."


def crafted(canary: Path) -> dict[str, bytes]:
    """Pickles that would touch `canary`, by what they are made of."""
    touch, shell = text(str(canary)), text(f"touch {canary}")
    opened = text(f"open({str(canary)!r}, 'w').close()")
    one = b"\x85"  # a tuple of what lies on top
    found = {
        "GLOBAL os.system": proto(b"cos\nsystem\n" + shell + one + b"R"),
        "GLOBAL posix.system": proto(b"cposix\nsystem\n" + shell + one + b"R"),
        "STACK_GLOBAL": proto(text("os") + text("system") + b"\x93" + shell + one + b"R"),
        "INST": b"(" + f"S'touch {canary}'\nios\nsystem\n.".encode(),
        "OBJ": b"(cos\nsystem\n" + f"S'touch {canary}'\no.".encode(),
        "NEWOBJ": proto(b"csubprocess\nPopen\n" + text("touch") + touch + b"\x86" + one + b"\x81"),
        "eval": proto(b"cbuiltins\neval\n" + opened + one + b"R"),
        "exec": proto(b"cbuiltins\nexec\n" + opened + one + b"R"),
        "open": proto(b"cio\nopen\n" + touch + text("w") + b"\x86R"),
        "getattr": proto(b"cbuiltins\ngetattr\ncos\nsystem\n" + text("__call__") + b"\x86R" + shell + one + b"R"),
        "runpy": proto(b"crunpy\n_run_code\n" + opened + b"}\x86R"),
        "ctypes": proto(b"cctypes\nCDLL\n" + touch + one + b"R"),
        "numpy loads": proto(b"cnumpy\nload\n" + touch + one + b"R"),
        "torch.load": proto(b"ctorch.serialization\nload\n" + touch + one + b"R"),
        "torch.hub": proto(b"ctorch.hub\nload\n" + touch + one + b"R"),
        "functools": proto(b"cfunctools\npartial\ncos\nsystem\n" + shell + b"\x86R)R"),
        "BUILD": proto(b"ccollections\nOrderedDict\n)R}" + text("__class__") + b"cos\nsystem\nsb"),
        "EXT1": proto(b"\x82\x01" + shell + one + b"R"),
        "dill": proto(b"cdill._dill\n_create_function\n" + opened + one + b"R"),
        "pathlib": proto(b"cpathlib\nPosixPath\n" + touch + one + b"R"),
        "in a dict": proto(b"}" + text("optimizer_states") + b"]cos\nsystem\n" + shell + one + b"Ras"),
        "nested pickle": proto(b"cpickle\nloads\nC" + bytes([3]) + b"N.N" + one + b"R"),
        "memo bomb": proto(
            b"]\x94" + b"".join(b"h\x00h\x00\x86\x94" for _ in range(3)) + b"cos\nsystem\n" + shell + one + b"R"
        ),
    }
    assert len(found) >= 20
    return found


KINDS = sorted(crafted(Path("canary")))


def as_zip(body: bytes) -> bytes:
    """As ``torch.save`` packs a pickle."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
    return packed.getvalue()


def at_checkpoint(content: bytes, folder: Path) -> None:
    """The hashes are right, as an attacker would have them."""
    checkpoints = CheckpointFolder(folder / "checkpoints")
    checkpoints.save(Checkpoint(1, {"model.w": torch.ones(3)}, {"optimizers": []}))
    path = checkpoints.folder / "step_00000001.state.pt"
    path.write_bytes(content)
    listed = read_json(checkpoints.folder / "checkpoints.json")
    listed[0]["files"][path.name] = sha256(path)
    write_json(checkpoints.folder / "checkpoints.json", listed)
    checkpoints.newest()


def at_start(content: bytes, folder: Path) -> None:
    (folder / "weights.ckpt").write_bytes(content)
    read_start(folder / "weights.ckpt")


def at_safetensors(content: bytes, folder: Path) -> None:
    read_weights(content, "weights.safetensors")


DOORS: dict[str, Callable[[bytes, Path], None]] = {
    "checkpoint": at_checkpoint,
    "start": at_start,
    "safetensors": at_safetensors,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", KINDS)
def test_fault_30_crafted_pickles(kind: str, door: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    body = crafted(canary)[kind]
    for content in (as_zip(body), body):
        with pytest.raises(TrustError) as caught:
            DOORS[door](content, tmp_path)
        assert caught.value.exit_code == 5
        assert not canary.exists()
        assert "dill" not in sys.modules


def test_the_crafted_pickles_would_do_harm(tmp_path: Path) -> None:
    """So that the test above shows something."""
    canary = tmp_path / "canary"
    bodies = crafted(canary)
    for kind in (
        "GLOBAL os.system",
        "STACK_GLOBAL",
        "INST",
        "OBJ",
        "eval",
        "open",
        "getattr",
        "functools",
        "in a dict",
    ):
        pickle.loads(bodies[kind])
        assert canary.exists(), kind
        canary.unlink()


TRICKS: dict[str, Any] = {
    "_instantiator": "pytorch_lightning.cli.instantiate_module",
    "_class_path": "antigravity.Net",
    "class_path": "antigravity.Net",
    "hyper_parameters": {"_instantiator": "os.system", "_class_path": "antigravity.Net", "init_args": {"a": "touch"}},
    "hparams_name": "kwargs",
    "hparams_type": "antigravity.Net",
    "datamodule_hyper_parameters": {"_instantiator": "antigravity.run"},
    "callbacks": {"antigravity.Callback": {"x": 1}},
    "loops": {"fit_loop": {"state_dict": {"_target_": "os.system"}}},
    "_target_": "os.system",
    "$import": "$__import__('os').system('touch canary')",
}


def test_fault_31_entries_that_name_code_are_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = {"layer.weight": torch.arange(4.0)}
    torch.save({**TRICKS, "state_dict": weights, "pytorch-lightning_version": "2.6.0", "epoch": 3}, "theirs.ckpt")
    found = read_start(Path("theirs.ckpt"))
    assert list(found.weights) == ["layer.weight"]
    checkpoints = CheckpointFolder(tmp_path / "checkpoints")
    checkpoints.save(Checkpoint(1, {"model.w": torch.ones(3)}, {"optimizers": [], **TRICKS}))
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.state["hyper_parameters"] == TRICKS["hyper_parameters"]  # data, no more
    assert "antigravity" not in sys.modules
    assert not (tmp_path / "canary").exists()


def test_fault_31_without_weights_such_a_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save(TRICKS, tmp_path / "theirs.ckpt")
    with pytest.raises(TrustError, match="no state dict"):
        read_start(tmp_path / "theirs.ckpt")


def test_fault_31_a_training_goes_on_from_such_a_checkpoint_as_if_they_were_not_there(tmp_path: Path) -> None:
    runs = [Training(tmp_path / name, small_recipe()) for name in ("plain", "tricked")]
    for training in runs:
        training.pause_after(2)
    folder = CheckpointFolder(runs[1].folder / "checkpoints")
    newest = folder.newest()
    assert newest is not None
    folder.save(Checkpoint(newest.step, newest.weights, {**newest.state, **TRICKS}))
    for training in runs:
        training.run()
    assert same_state(runs[0].checkpoint, runs[1].checkpoint)
    assert "antigravity" not in sys.modules


# ---- arrays and headers that lie ----


def test_fault_30_safetensors_that_lie(tmp_path: Path) -> None:
    """Offsets outside of the file, a header longer than it, shapes that need more than it has."""

    def made(header: Any, body: bytes = bytes(16), length: int | None = None) -> bytes:
        content = json.dumps(header).encode()
        return struct.pack("<Q", len(content) if length is None else length) + content + body

    lies = [
        made({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 16]}}),
        made({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1 << 50]}}),
        made({"w": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}),
        made({"w": {"dtype": "PICKLE", "shape": [4], "data_offsets": [0, 16]}}),
        made({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, length=1 << 60),
        made({"w": 7}),
        b"",
        bytes(7),
    ]
    for content in lies:
        with pytest.raises(TrustError, match="not a safetensors file"):
            read_weights(content, "w.safetensors")


@pytest.mark.parametrize("kind", ["GLOBAL os.system", "eval", "in a dict"])
def test_fault_30_arrays_in_messages_between_processes(kind: str, tmp_path: Path) -> None:
    """A scratch file that somebody exchanged for an array of objects."""
    canary = tmp_path / "canary"
    header = {"descr": "|O", "fortran_order": False, "shape": (1,)}
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, header)
    (tmp_path / "a.npy").write_bytes(content.getvalue() + crafted(canary)[kind])
    with pytest.raises((Im2ImError, ValueError)):
        unpack({"$array": "a.npy"}, tmp_path)
    assert not canary.exists()
