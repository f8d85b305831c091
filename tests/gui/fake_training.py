"""A training that only writes events: what the widget shows can be tested in a second, without torch."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import time

import numpy as np

from im2im_core.errors import DataError
from im2im_core.events import CommandDone, Finished, Losses, Paused, Previewed, Progress, Started, Validated
from im2im_core.jobs.child import main
from im2im_core.jobs.commands import CommandInbox

STEPS = 40
PACE = float(os.environ.get("FAKE_PACE", "0.03"))


def preview(run, step, name="preview", start=(0, 0, 0), stop=(1, 64, 64)):
    y, x = np.mgrid[start[1] : stop[1], start[2] : stop[2]]
    labels = ((y // 16) * 4 + x // 16 + 1) * ((y % 16 < 4 + step // 10) & (x % 16 < 12))
    path = run.previews / f"{name}_{step:08d}.npy"
    np.save(path, labels[None].astype(np.uint16))
    if not (run.previews / f"{name}_source.npy").exists():
        np.save(run.previews / f"{name}_source.npy", (y + x)[None].astype(np.uint16))  # as cameras write
        np.save(run.previews / f"{name}_target.npy", labels[None].astype(np.uint16))
    return Previewed(step, f"previews/{path.name}", name)


def say(on_event, run, step, steps, regions):
    """What a training says of one step; every tenth is validated."""
    on_event(Losses(step, step / 10, {"total": 1 / step, "dice": 0.5 / step}, 1e-3, 100.0))
    on_event(Progress("training", step, steps, step * PACE, (steps - step) * PACE))
    if step % 10 == 0:
        values = {"total": 1 / step, "dice": 0.5 / step, "ap50": 1 - 1 / step}
        on_event(Validated(step, step / 10, values, True))
        on_event(preview(run, step))
        for region in regions:
            on_event(preview(run, step, region["name"], region["start"], region["stop"]))


def misbehave(mode, step):
    """End as no training should."""
    if mode == "data":
        raise DataError("a.tif is torn", "Copy it again")
    if step == 25 and mode == "killed":
        os.kill(os.getpid(), 9)
    if step == 25 and mode == "crash":
        ctypes.string_at(0)
    if step == 25 and mode == "memory":
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
    if step == 25 and mode == "runtime":
        raise RuntimeError("the wheels came off")


def train(run, on_event, should_stop):
    """Behave as the name of the recipe says."""
    mode, saved = run.recipe.name, run.checkpoints / "step.txt"
    misbehave(mode, 0)
    step = int(saved.read_text()) if saved.exists() else 0
    steps = STEPS if mode in ("quick", "killed", "crash", "memory", "runtime") else 4000
    on_event(Started(steps, None, "cpu", 1000))
    logging.getLogger(__name__).warning("the wheels turn")
    inbox, asked, regions = CommandInbox(run, run.attempt), "", []
    while step < steps and not asked:
        step += 1
        saved.write_text(str(step))
        say(on_event, run, step, steps, regions)
        misbehave(mode, step)
        time.sleep(PACE)
        for command in inbox.poll():
            if command.verb == "preview":
                regions.append(command.arguments)
                on_event(CommandDone(command.number, command.verb, "shown from the next validation on"))
                continue
            on_event(CommandDone(command.number, command.verb))
            asked = command.verb
        asked = "signal" if should_stop() else asked
    if asked == "pause":
        on_event(Paused(step))
    elif asked in ("", "stop"):
        (run.model / "rdf.yaml").write_text("name: fake\n")
        reason = "stopped by the user" if asked else "budget used"
        on_event(Finished(step, "model", {"total": 0.1, "ap50": 0.91}, 12.0, reason))


if __name__ == "__main__":
    sys.exit(main(train=train))
