"""Case 38: networks of other tools run in a process of their own, within limits, and may die without harm."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from foreign_world import onnx_repeats, package

from im2im_core.cli import main
from im2im_core.engine import foreign_process, foreign_weights
from im2im_core.engine.foreign_process import ForeignProcess
from im2im_core.engine.foreign_weights import ForeignWeights, load
from im2im_core.errors import DataError, ResourceError, TrustError
from im2im_core.io import open_image, write_image
from im2im_core.jobs import _platform, confined

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone keeps to all limits")
SMALL = 1 << 30
"""Bytes that the process may take where a test wants it to meet the limit; torch itself needs less."""


class Twice(torch.nn.Module):
    """Twice the image; very large ones are repeated until no memory holds them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.numel() > 100:
            x = x.repeat([4096, 4096])
        return 2 * x


class Endless(torch.nn.Module):
    """Computes without end where the first pixel is above 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while bool(x.max() > 0):
            x = x + 1
        return x


class Maps(torch.nn.Module):
    """Maps a file, which makes it where it is not there."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_file(self.path, True, 8) + x


def scripted(module: torch.nn.Module, folder: Path) -> ForeignWeights:
    path = folder / "w.pt"
    torch.jit.script(module).save(str(path))
    return ForeignWeights("torchscript", path.name, "theirs", path.read_bytes())


def python(code: str) -> ForeignWeights:
    """Code that the user allowed, with a network that has no weights."""
    state = io.BytesIO()
    torch.save({}, state)
    return ForeignWeights(
        "pytorch_state_dict", "w.pt", "theirs", state.getvalue(), code=code.encode(), module="net.py", callable="Net"
    )


def ones(size: int = 4) -> list[np.ndarray]:
    return [np.ones((size, size), np.float32)]


@pytest.fixture
def confine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with little memory."""
    monkeypatch.setattr(_platform, "free_memory", lambda: int(SMALL / confined.SHARE))


def test_fault_38_a_network_runs_apart_and_is_replaced_when_it_dies(tmp_path: Path) -> None:
    run = ForeignProcess(scripted(Twice(), tmp_path), "cpu", 1)
    process = run._process
    assert process is not None
    assert process.pid != os.getpid()
    assert run(ones())[0].tolist() == (2 * ones()[0]).tolist()
    with pytest.raises(RuntimeError, match=r"(?s)Twice.*expected|argument"):
        run([])
    threading.Timer(0.3, os.kill, [process.pid, signal.SIGKILL]).start()
    stopped = psutil.Process(process.pid)
    stopped.suspend()
    with pytest.raises(ResourceError, match=r"runs theirs was killed by signal 9.*new process"):
        run(ones())
    assert not process.alive
    assert run(ones())[0].max() == 2
    assert run._process is not None
    assert run._process.pid != process.pid


@linux
@pytest.mark.usefixtures("confine")
def test_fault_38_memory_is_limited(tmp_path: Path) -> None:
    run = ForeignProcess(scripted(Twice(), tmp_path), "cpu", 1)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        run(ones(16))
    assert run(ones())[0].max() == 2  # the process lives


@linux
def test_fault_38_no_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the system, even where nothing was seen in the program."""
    canary = tmp_path / "canary"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    weights = scripted(Maps(str(canary)), tmp_path)
    command = [sys.executable, "-P", "-c", UNSEEN]
    monkeypatch.setattr("im2im_core.engine.foreign_process.COMMAND", command)
    run = ForeignProcess(weights, "cpu", 1)
    with pytest.raises(RuntimeError, match=r"Too many open files|unable to open"):
        run([np.ones(8, np.float32)])
    assert not canary.exists()


UNSEEN = """
import sys
from im2im_core.engine import foreign_process, foreign_weights
foreign_weights._require_no_files = lambda weights: None
sys.exit(foreign_process.main())
"""


def test_fault_38_a_program_that_opens_files_is_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(TrustError, match=r"w.pt opens files: its program says from_file"):
        load(scripted(Maps(str(canary)), tmp_path), "cpu")
    assert not canary.exists()


def test_fault_38_a_network_without_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ForeignProcess(scripted(Endless(), tmp_path), "cpu", 1)
    assert run._process is not None
    monkeypatch.setattr(run._process, "_seconds", 0.5)
    assert run([np.zeros((2, 2), np.float32)])[0].max() == 0
    began = time.monotonic()
    with pytest.raises(ResourceError, match="runs theirs gave no answer in 0 minutes and was ended"):
        run(ones())
    assert time.monotonic() - began < 10


def test_fault_36_allowed_code_runs_apart_too() -> None:
    weights = python(
        "import os, torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        if x.max() > 1:\n            raise KeyError('no such thing')\n"
        "        if x.max() < 0:\n            os._exit(7)\n"
        "        print('words on standard output')\n"
        "        return x * 0 + os.getpid()\n"
    )
    run = ForeignProcess(weights, "cpu", 1)
    assert run._process is not None
    assert run(ones(1))[0].tolist() == [[run._process.pid]]
    with pytest.raises(RuntimeError, match="KeyError: 'no such thing'"):
        run([2 * ones(1)[0]])
    with pytest.raises(ResourceError, match="runs theirs ended with exit code 7"):
        run([-ones(1)[0]])


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "weights in a file beside it"])
def test_fault_38_onnx_runs_apart(tmp_path: Path, beside: bool) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "w.onnx"
    path.write_bytes(onnx_repeats(3, 4))
    known = {"external": str(path)} if beside else {"content": path.read_bytes()}
    run = ForeignProcess(ForeignWeights("onnx", path.name, "theirs", **known), "cpu", 1)
    image = np.random.default_rng(0).random((1, 1, 4, 4), np.float32)
    (found,) = run([image])
    assert np.array_equal(found, image.repeat(3, axis=1))
    with pytest.raises(RuntimeError, match="Expected: 4"):
        run([image[..., :3]])


@pytest.mark.parametrize(
    ("kind", "external", "device", "expected"),
    [
        ("torchscript", "", "cpu", [(9, False)]),
        ("onnx", "", "cpu", [(9, False)]),
        ("onnx", "w.onnx", "cpu", [(9, True), (0, False)]),
        ("pytorch_state_dict", "", "cpu", [(9, True)]),
        ("torchscript", "", "cuda:0", [(0, True)]),
        ("onnx", "w.onnx", "mps", [(0, True)]),
    ],
)
def test_fault_38_limits_by_kind_and_device(
    monkeypatch: pytest.MonkeyPatch, kind: str, external: str, device: str, expected: list[tuple[int, bool]]
) -> None:
    said: list[object] = []
    monkeypatch.setattr(foreign_process, "prepare", lambda weights, threads: said.append("ready"))
    monkeypatch.setattr(foreign_process, "load", lambda weights, device: said.append("loaded"))
    monkeypatch.setattr(_platform, "confine", lambda memory, files: said.append((memory, files)))
    foreign_process._confined(ForeignWeights(kind, "w", "theirs", external=external), device, threads=1, memory=9)
    assert said == ["ready", expected[0], "loaded", *expected[1:]]


def test_fault_38_it_ends_with_the_program_that_asked(tmp_path: Path) -> None:
    run = ForeignProcess(scripted(Twice(), tmp_path), "cpu", 1)
    assert run._process is not None
    process = psutil.Process(run._process.pid)
    del run
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_fault_38_what_cannot_be_loaded_is_told_as_here(tmp_path: Path) -> None:
    for content, error in ((b"nothing", TrustError), (b"", TrustError)):
        with pytest.raises(error, match=r"w.pt is not TorchScript"):
            ForeignProcess(ForeignWeights("torchscript", "w.pt", "theirs", content), "cpu", 1)
    squeezed = io.BytesIO()
    with zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/code/a.py", "#" * (foreign_weights.MOST_CODE + 1))
    with pytest.raises(TrustError, match=r"w.pt is not TorchScript: its program unpacks to more than 50 MB"):
        load(ForeignWeights("torchscript", "w.pt", "theirs", squeezed.getvalue()), "cpu")
    with pytest.raises(DataError, match="theirs cannot be loaded: ZeroDivisionError"):
        ForeignProcess(python("1 / 0"), "cpu", 1)
    with pytest.raises(DataError, match=r"Python code of theirs \(net.py\) fails: SyntaxError"):
        ForeignProcess(python("class"), "cpu", 1)


def test_fault_38_the_command_line_runs_it_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = package(tmp_path / "m", Endless(), ["raw"], {"result": 1.0})
    write_image(tmp_path / "a.tif", np.zeros((16, 16), np.float32), "YX")
    assert main(["predict", str(folder), str(tmp_path / "a.tif"), "-o", str(tmp_path / "b.tif")]) == 0
    assert open_image(tmp_path / "b.tif").read().max() == 0
