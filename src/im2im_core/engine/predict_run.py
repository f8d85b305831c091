"""The loop over all tiles: one thread reads ahead, the device computes, one thread writes behind."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from im2im_core.axes import Region
from im2im_core.engine.predict_deliver import Delivery
from im2im_core.engine.predict_forward import Translator, is_out_of_memory
from im2im_core.engine.predict_plan import Plan
from im2im_core.engine.predict_read import TileReader
from im2im_core.errors import Stopped
from im2im_core.events import Event, Progress

BEHIND = 2
"""Batches that may wait to be written."""
PERIOD = 0.1
"""Seconds between two reports of progress."""


class OutOfMemory(Exception):
    """The device could not hold a batch."""


class ProgressClock:
    """Progress with the time left, at most ten times a second."""

    def __init__(self, total: int, done: int, on_event: Callable[[Event], None]) -> None:
        self._total, self._first, self._on_event = total, done, on_event
        self._start = time.monotonic()
        self._last = 0.0

    def tick(self, done: int) -> None:
        """Report that `done` tiles are computed."""
        now = time.monotonic()
        if now - self._last < PERIOD and done < self._total:
            return
        self._last = now
        elapsed, fresh = now - self._start, done - self._first
        remaining = elapsed / fresh * (self._total - done) if fresh > 0 else None
        self._on_event(Progress("predicting tiles", done, self._total, elapsed, remaining))


def run_tiles(
    plan: Plan,
    reader: TileReader,
    translate: Translator,
    delivery: Delivery,
    start: tuple[int, int],
    on_event: Callable[[Event], None],
    should_stop: Callable[[], bool],
) -> None:
    """Predict all volumes of `plan` from tile `start` (volume, number) on.

    Raises
    ------
    OutOfMemory
        A batch does not fit the device; what is finished is kept.
    Stopped
        `should_stop` said so; what is finished is kept.
    """
    per_frame = len(plan.tiles)
    total = per_frame * len(plan.frames)
    first = _first_batch(plan, start)
    jobs = [range(k, min(k + plan.batch, total)) for k in range(first, total, plan.batch)]
    clock = ProgressClock(total, first, on_event)
    with ThreadPoolExecutor(1, "im2im-read") as read, ThreadPoolExecutor(1, "im2im-write") as write:
        behind: deque[Future[None]] = deque()
        ahead = read.submit(_read_batch, plan, reader, jobs[0]) if jobs else None
        try:
            for number, job in enumerate(jobs):
                if should_stop():
                    raise Stopped("The prediction was stopped", "What is finished is kept; resume goes on from there")
                tiles = ahead.result() if ahead else _read_batch(plan, reader, job)
                ahead = read.submit(_read_batch, plan, reader, jobs[number + 1]) if number + 1 < len(jobs) else None
                maps = _compute(plan, translate, tiles, job)
                behind.append(write.submit(_deliver, delivery, job, per_frame, maps))
                while len(behind) > BEHIND:
                    behind.popleft().result()
                clock.tick(job[-1] + 1)
        finally:
            _drain(behind)


def _first_batch(plan: Plan, start: tuple[int, int]) -> int:
    """First job to compute: early enough that every open block hears all its tiles, at a whole batch."""
    frame, done = start
    counts = [max(t.index[axis] for t in plan.tiles) + 1 for axis in range(3)]
    strides = (counts[1] * counts[2], counts[2], 1)
    back = sum(stride for count, stride in zip(counts, strides, strict=True) if count > 1)
    job = frame * len(plan.tiles) + max(0, done - back)
    return job // plan.batch * plan.batch


def _read_batch(plan: Plan, reader: TileReader, job: range) -> Tensor:
    arrays = []
    for k in job:
        frame, number = divmod(k, len(plan.tiles))
        arrays.append(reader.read(*plan.frames[frame], plan.tiles[number]))
    batch = arrays[0][None] if len(arrays) == 1 else np.stack(arrays)
    tensor = torch.from_numpy(np.ascontiguousarray(batch[:, :, 0] if plan.dimensions == 2 else batch))
    return tensor.pin_memory() if torch.cuda.is_available() else tensor


def _regions(plan: Plan, job: range, channels: int) -> list[Region]:
    regions = []
    for k in job:
        frame, number = divmod(k, len(plan.tiles))
        moment, plane = plan.frames[frame]
        z, y, x = plan.tiles[number].outer
        z = slice(z.start + plane, z.stop + plane)
        regions.append((slice(moment, moment + 1), slice(0, channels), z, y, x))
    return regions


def _compute(plan: Plan, translate: Translator, tiles: Tensor, job: range) -> dict[str, Tensor]:
    try:
        return translate(tiles, _regions(plan, job, tiles.shape[1]))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Outside of the handler, so that the traceback no longer holds the tensors of the failed batch.
    raise OutOfMemory


def _deliver(delivery: Delivery, job: range, per_frame: int, maps: dict[str, Tensor]) -> None:
    arrays: dict[str, NDArray[Any]] = {name: value.cpu().numpy() for name, value in maps.items()}
    for i, k in enumerate(job):
        frame, number = divmod(k, per_frame)
        delivery.add(frame, number, {name: values[i] for name, values in arrays.items()})


def _drain(behind: deque[Future[None]]) -> None:
    """Wait for everything that is being written; its error, if any, is the one to report."""
    while behind:
        behind.popleft().result()
