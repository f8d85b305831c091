"""Case 38 without torch: what a process with code of others may take, what it may answer, and how its death is told."""

from __future__ import annotations

import gc
import io
import json
import sys
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from im2im_core.errors import DataError, ResourceError, TrustError
from im2im_core.jobs import _platform
from im2im_core.jobs.confined import Confined
from im2im_core.jobs.frames import HEADER_BYTES, read_frame, write_frame

ANSWERS = """
import sys, time
import numpy as np
from im2im_core.jobs import _platform
from im2im_core.jobs.frames import read_frame, write_frame
output = open(_platform.take_stdout(), "wb")
while (frame := read_frame(sys.stdin.buffer, 1 << 40)) is not None:
    asked, arrays = frame
    what = asked["what"]
    print("chatter")
    if what == "echo": write_frame(output, {"done": True}, arrays)
    if what == "fails": write_frame(output, {"failed": asked["failed"]})
    if what == "nonsense": output.write(b"\\xff" * 64); output.flush()
    if what == "large": write_frame(output, {"done": True}, [np.zeros(asked["size"], np.uint8)])
    if what == "sleeps": time.sleep(600)
    if what == "eats": held = np.ones(1 << 26); time.sleep(600)
    if what == "dies": print("the last words", file=sys.stderr); sys.exit(3)
"""
"""A program that does what it is asked."""


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Iterator[Confined]:
    """That program, which may take so many bytes and seconds."""
    memory, seconds = getattr(request, "param", (None, 60.0))
    made = Confined((sys.executable, "-c", ANSWERS), "theirs", memory=memory, seconds=seconds)
    yield made
    made.close()


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_arrays_come_back_as_they_were(program: Confined) -> None:
    random = np.random.default_rng(0)
    sent = [
        random.random((3, 5)).astype(np.float32)[:, ::2],
        np.float64(2.5) * np.ones(()),
        np.empty((0, 4), np.int16),
        random.random(200_000) > 0.5,
        random.integers(0, 9, (2, 3, 4)).astype(">u4"),
        np.ones(3, np.float16),
    ]
    found = program.ask({"what": "echo"}, sent)
    for before, after in zip(sent, found, strict=True):
        assert after.dtype == before.dtype
        assert np.array_equal(after, before)
        assert after.shape == before.shape


def test_its_errors_are_those_of_this_side(program: Confined) -> None:
    told = {"message": "w.pt is not TorchScript", "cure": "Get it again", "exit_code": 5}
    with pytest.raises(TrustError, match=r"w\.pt is not TorchScript\. Get it again"):
        program.ask({"what": "fails", "failed": told})
    for odd in ({"message": "oh", "exit_code": 0}, {"message": "oh", "exit_code": "5"}):
        with pytest.raises(RuntimeError, match="oh"):
            program.ask({"what": "fails", "failed": odd})
    assert program.alive


@pytest.mark.parametrize("program", [(1 << 28, 60.0)], indirect=True)
@pytest.mark.parametrize("asked", [{"what": "nonsense"}, {"what": "large", "size": 1 << 29}])
def test_fault_38_an_answer_without_sense_ends_it(program: Confined, asked: dict[str, object]) -> None:
    with pytest.raises(DataError, match="process that runs theirs answers what makes no sense"):
        program.ask(asked)
    assert gone(program.pid)


def test_fault_27_38_its_death_is_told(program: Confined, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ResourceError, match=r"runs theirs ended with exit code 3.*starts a new process"):
        program.ask({"what": "dies"})
    assert "the last words" in caplog.text
    assert not program.alive


@pytest.mark.parametrize("program", [(None, 0.3)], indirect=True)
def test_fault_38_too_much_time_ends_it(program: Confined) -> None:
    with pytest.raises(ResourceError, match="gave no answer in 0 minutes and was ended"):
        program.ask({"what": "sleeps"})
    assert gone(program.pid)


@pytest.mark.parametrize("program", [(1 << 28, 60.0)], indirect=True)
def test_fault_38_too_much_memory_ends_it(program: Confined) -> None:
    """From this side, as on macOS and Windows: the program sets itself no limits."""
    began = time.monotonic()
    with pytest.raises(ResourceError, match=r"took more than 0\.3 GB of memory and was ended"):
        program.ask({"what": "eats"})
    assert time.monotonic() - began < 30


def test_fault_38_it_ends_with_the_object(program: Confined) -> None:
    made = Confined((sys.executable, "-c", ANSWERS), "theirs")
    pid = made.pid
    del made
    gc.collect()
    assert gone(pid)
    program.close()
    program.close()
    assert not program.alive


def test_fault_38_an_interruption_leaves_no_answer_behind(program: Confined, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(handle: object, most: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("im2im_core.jobs.confined.read_frame", interrupted)
    with pytest.raises(KeyboardInterrupt):
        program.ask({"what": "sleeps"})
    assert gone(program.pid)


def test_memory_is_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_platform, "free_memory", lambda: 1000)
    with Confined((sys.executable, "-c", ""), "theirs") as made:
        assert made.memory == 900


# ---- frames --------------------------------------------------------------------


def framed(header: object, tail: bytes = b"") -> io.BytesIO:
    text = json.dumps(header).encode()
    return io.BytesIO(len(text).to_bytes(8, "little") + text + tail)


@pytest.mark.parametrize(
    "header",
    [
        [1],
        {"arrays": [["<f4", [1 << 40]]]},
        {"arrays": [["<f4", [-1]]]},
        {"arrays": [["<f4", [-1, -1]]]},
        {"arrays": [["|O", [1]]]},
        {"arrays": [["<U9", [1]]]},
        {"arrays": [["f4,f4", [1]]]},
        {"arrays": [["no such", [1]]]},
        {"arrays": [[1]]},
        {"arrays": 3},
        {},
    ],
)
def test_fault_38_frames_of_somebody_who_means_harm(header: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_frame(framed(header, bytes(8)), 1 << 20)  # type: ignore[arg-type]


def test_fault_38_frames_that_end_or_are_too_long() -> None:
    whole = io.BytesIO()
    write_frame(whole, {"what": "a"}, [np.arange(5.0)])
    content = whole.getvalue()
    assert read_frame(io.BytesIO(content), 40) is not None
    for size in range(len(content)):
        assert read_frame(io.BytesIO(content[:size]), 40) is None
    with pytest.raises(ValueError, match="an array of float64"):
        read_frame(io.BytesIO(content), 39)
    with pytest.raises(ValueError, match="a header of"):
        read_frame(io.BytesIO((HEADER_BYTES + 1).to_bytes(8, "little") + bytes(9)), 40)
