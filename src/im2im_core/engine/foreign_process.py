"""The process in which networks of other tools run: their bytes and all arrays come by pipe, and nothing else does."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from im2im_core.engine.foreign_weights import ForeignWeights, load, prepare
from im2im_core.errors import DataError, Im2ImError
from im2im_core.jobs import _platform
from im2im_core.jobs.confined import Confined
from im2im_core.jobs.frames import KINDS, read_frame, write_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.engine.foreign_weights import Arrays, Forward

    Frame = tuple[dict[str, Any], Arrays]

COMMAND = (sys.executable, "-P", "-m", "im2im_core.engine.foreign_process")
GRACE_SECONDS = 3.0
"""Time that a computation has to end after the program that asked for it is gone."""
_ANY_SIZE = 1 << 62


# ---- the side that asks --------------------------------------------------------


class ForeignProcess:
    """Runs a network in a process of its own, which is started anew after it died.

    Parameters
    ----------
    weights : ForeignWeights
        The network.
    device : str
        Device of torch; there are limits of memory and files on the CPU alone, as drivers of others need both.
    threads : int
        Threads that torch computes with.

    Raises
    ------
    Im2ImError
        As for `im2im_core.engine.foreign_weights.load`.
    ResourceError
        The process died, or took more memory or time than it may.
    """

    def __init__(self, weights: ForeignWeights, device: str, threads: int) -> None:
        self._weights, self._device, self._threads = weights, device, threads
        self._process: Confined | None = None
        self._ready()

    def __call__(self, arrays: Arrays) -> Arrays:
        """What the network makes of `arrays`, in the order of its inputs."""
        return self._ready().ask({"do": "run"}, arrays)

    def _ready(self) -> Confined:
        if self._process is None or not self._process.alive:
            process = Confined(COMMAND, self._weights.model)
            told, arrays = self._weights.to_frame()
            try:
                process.ask({"do": "load", **self._settings(process.memory), "weights": told}, arrays)
            except RuntimeError as error:
                raise DataError(f"{self._weights.model} cannot be loaded: {error}", "Get the package again") from error
            self._process = process
        return self._process

    def _settings(self, memory: int) -> dict[str, Any]:
        return {"device": self._device, "threads": self._threads, "memory": memory}


# ---- the process ---------------------------------------------------------------


def main() -> int:
    """Exit code after standard input closed: it loads one network, within limits, and runs it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is for the program that asks
    frames: queue.Queue[Frame | None] = queue.Queue()
    with os.fdopen(_platform.take_stdout(), "wb") as output:
        threading.Thread(target=_listen, args=[sys.stdin.buffer, frames], daemon=True).start()
        forward: Forward | None = None
        while (frame := frames.get()) is not None:
            try:
                forward, results = _do(forward, *frame)
            except Exception as error:  # the boundary of the job: code of others raises what it likes
                write_frame(output, {"failed": _told(error)})
            else:
                write_frame(output, {"done": True}, results)
    return 0


def _listen(source: BinaryIO, frames: queue.Queue[Frame | None]) -> None:
    while (frame := read_frame(source, _ANY_SIZE)) is not None:
        frames.put(frame)
    timer = threading.Timer(GRACE_SECONDS, os._exit, [1])  # in the middle of whatever is computed
    timer.daemon = True
    timer.start()
    frames.put(None)


def _do(forward: Forward | None, asked: dict[str, Any], arrays: list[NDArray[Any]]) -> tuple[Forward, Arrays]:
    if asked["do"] == "load":
        weights = ForeignWeights.from_frame(asked["weights"], arrays)
        return _confined(weights, asked["device"], asked["threads"], asked["memory"]), []
    assert forward is not None
    results = [np.asarray(result) for result in forward(arrays)]
    if any(result.dtype.kind not in KINDS for result in results):
        raise RuntimeError("An output is no array of numbers")
    return forward, results


def _confined(weights: ForeignWeights, device: str, threads: int, memory: int) -> Forward:
    """The network, loaded after the limits hold that it can be loaded in."""
    prepare(weights, threads)
    on_cpu = device == "cpu"
    _platform.confine(memory if on_cpu else 0, files=weights.needs_files or not on_cpu)
    forward = load(weights, device)
    if weights.external and on_cpu:  # onnxruntime has read the file by now
        _platform.confine(0, files=False)
    return forward


def _told(error: Exception) -> dict[str, Any]:
    if isinstance(error, Im2ImError):
        return {"message": error.message, "cure": error.cure, "exit_code": error.exit_code}
    words = str(error) if isinstance(error, RuntimeError) and str(error) else f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError):
        words = "out of memory"
    return {"message": words[-4000:], "cure": "", "exit_code": 0}


if __name__ == "__main__":
    sys.exit(main())
