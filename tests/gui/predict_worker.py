"""A small attached process for tests: it behaves as the name of the model says."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from im2im_core.axes import to_tczyx
from im2im_core.errors import DataError, Stopped, TrustError
from im2im_core.events import Message, OutputBegun, Progress, TileDone
from im2im_core.io import open_image, write_image
from im2im_core.jobs import worker
from im2im_core.jobs.messages import create_array
from im2im_core.trust import consented_modules

TILE = 32
NO_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB"


class OutOfMemoryError(RuntimeError):
    """What torch raises: a RuntimeError by another name."""


def predict(arguments: dict[str, Any], on_event: Any, should_stop: Any) -> dict[str, Any]:
    """Labels ``1 + image > 0`` tile by tile, along rows."""
    how = Path(arguments["model"]).name
    arguments = as_one(arguments)
    if how.startswith("raises_"):
        raise {
            "runtime": RuntimeError,
            "memory": MemoryError,
            "oom": OutOfMemoryError,
            "keyboard": KeyboardInterrupt,
            "exit": SystemExit,
            "data": DataError,
        }[how.split("_")[1]](
            "CUDA out of memory. Tried to allocate 2.00 GiB" if how == "raises_oom" else "it went wrong"
        )
    if how == "untrusted" and not consented_modules():
        key = "a" * 64
        raise TrustError(
            f"toy runs Python code: model.py {key}", f"Read it; if you trust it, allow it with --trust {key}"
        )
    if how in ("killed", "segfaults"):
        on_event(Progress("predicting tiles", 0, 4, 0.0))
        os.kill(os.getpid(), signal.SIGKILL if how == "killed" else signal.SIGSEGV)
    if "unsure" in how:
        on_event(Message("The image is used at its own size", "warning", "Give the width", "unknown_size"))
    if arguments.get("to"):
        return to_file(arguments)
    axes = arguments["axes"]
    pixels = to_tczyx(np.asarray(arguments["image"]), axes)
    kept = axes.replace("C", "")
    t, _, z, y, x = pixels.shape
    shape = (t, 1, z, y, x)
    facts = {
        "name": "labels",
        "kind": "labels",
        "axes": kept,
        "scale": [],
        "translate": [0.0] * len(kept),
        "facts": {"device": "cpu", "diameter": arguments["options"].get("object_diameter")},
    }
    size = arguments.get("voxel_size") or [None] * 3
    sizes = {"T": arguments.get("time_step"), **dict(zip("ZYX", size, strict=True))}
    facts["scale"] = [sizes[a] or 1.0 for a in kept]
    path = Path(arguments["live"]) / "0-labels.npy"
    array = create_array(path, shape, np.uint32)
    on_event(OutputBegun("labels", str(path), facts))
    tiles = range(0, y, TILE)
    for number, start in enumerate(tiles, start=1):
        if should_stop():
            raise Stopped("asked")
        stop = min(start + TILE, y)
        array[:, :, :, start:stop] = number * (pixels[:, :1, :, start:stop] > 0)
        on_event(TileDone("labels", (0, 0, 0, start, 0), (t, 1, z, stop, x)))
        on_event(Progress("predicting tiles", number, len(tiles), 0.1 * number, 0.1 * (len(tiles) - number)))
        time.sleep(0.4 if how == "slow" else 0.0)
        if how == "killed_later" and number == 3:
            time.sleep(0.5)  # the viewer draws what came
            os.kill(os.getpid(), signal.SIGKILL)
        while how == "waits" and not (Path(arguments["model"]) / "go").exists():
            time.sleep(0.01)
    on_event(Message("a word", "warning", "a cure"))
    return {"results": {"labels": str(path)}, "layers": [facts]}


def as_one(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments for the sum of the images that go in together."""
    told = list((arguments.get("images") or {}).values())
    return {**arguments, **told[0], "image": sum(np.asarray(t["image"]) for t in told)} if told else arguments


def to_file(arguments: dict[str, Any]) -> dict[str, Any]:
    """Labels of a file, or of a scene of it, written to another one."""
    image = open_image(arguments["image"], scene=arguments.get("scene") or 0)
    labels = (image.read()[0, :1, 0] > 0).astype(np.uint32)
    info = image.info
    write_image(arguments["to"], labels[0], axes="YX", voxel_size=info.voxel_size)
    _, y, x = info.voxel_size
    facts = {
        "name": "labels",
        "kind": "labels",
        "axes": "YX",
        "scale": [y or 1.0, x or 1.0],
        "translate": [0.0, 0.0],
        "facts": {"device": "cpu", "diameter": arguments["options"]["object_diameter"]},
    }
    return {"results": {"labels": arguments["to"]}, "layers": [facts]}


def ping(arguments: dict[str, Any], on_event: Any, should_stop: Any) -> dict[str, Any]:
    """The arguments."""
    return arguments


if __name__ == "__main__":
    worker.warm = lambda: None
    sys.exit(worker.main(verbs={"predict": predict, "ping": ping}))
