"""What a run says, shown in a terminal: a bar with the time left, plain lines elsewhere, or JSON lines."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from im2im_core.events import (
    Checkpointed,
    Event,
    Failed,
    Finished,
    Losses,
    Message,
    OutputWritten,
    Paused,
    Progress,
    Started,
    Validated,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress as Bars
    from rich.progress import TaskID

PLAIN_SECONDS = 10.0
"""Time between two plain lines about the same task."""


@contextmanager
def reporter(as_json: bool, stream: TextIO | None = None) -> Iterator[Callable[[Event], None]]:
    """Function that shows events while the block lasts.

    JSON lines go to stdout; bars go to `stream` (stderr) when it is a terminal, else plain lines.
    """
    stream = stream or sys.stderr
    if as_json:
        yield _json_line
    elif stream.isatty():
        with _Bars(stream) as bars:
            yield bars.show
    else:
        yield _Lines(stream).show


def describe(event: Event) -> str:
    """One line for a person; empty for events that have nothing to say in words."""
    match event:
        case Started(device=device, parameters=count):
            return f"Started on {device}" + (f", {count:,} weights" if count else "")
        case Validated(step=step, values=values, best=best):
            return f"step {step}: {numbers(values)}{' (best)' if best else ''}"
        case Message(text=text, level=level, cure=cure):
            lead = "" if level == "info" else f"{level}: "
            return f"{lead}{text}" + (f". {cure}" if cure else "")
        case OutputWritten(path=path):
            return f"written: {path}"
        case Paused(step=step):
            return f"Paused at step {step}; the state is saved"
        case Finished(step=step, metrics=metrics, seconds=seconds, reason=reason):
            return f"Finished after {step} steps, {duration(seconds)} ({reason}) {numbers(metrics)}".rstrip()
        case Failed(message=message, cure=cure):
            return f"Failed: {message}" + (f". {cure}" if cure else "")
        case Checkpointed(step=step, reason=reason) if reason != "interval":
            return f"Saved at step {step} ({reason})"
    return ""


def numbers(values: dict[str, float]) -> str:
    """Named values in a few digits."""
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


def duration(seconds: float | None) -> str:
    """Time as a person says it; empty where unknown."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _json_line(event: Event) -> None:
    from im2im_core.jobs.eventlog import encode_event

    sys.stdout.write(f"{json.dumps(encode_event(event), ensure_ascii=False, allow_nan=False)}\n")
    sys.stdout.flush()


def _count(event: Progress) -> str:
    return f"{event.done}" if event.total is None else f"{event.done}/{event.total}"


class _Lines:
    """Plain lines, rarely enough for a log file."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last: dict[str, float] = {}

    def show(self, event: Event) -> None:
        """Write `event` when it says something new."""
        text = self._progress(event) if isinstance(event, Progress) else describe(event)
        if text:
            self._stream.write(f"{text}\n")
            self._stream.flush()

    def _progress(self, event: Progress) -> str:
        now = time.monotonic()
        ended = event.total is not None and event.done >= event.total
        if not ended and now - self._last.get(event.task, -PLAIN_SECONDS) < PLAIN_SECONDS:
            return ""
        self._last[event.task] = now
        left = f", {duration(event.remaining)} left" if event.remaining else ""
        return f"{event.task}: {_count(event)}, {duration(event.elapsed)}{left}"


class _Bars:
    """One bar per task, with the time left and the latest loss; messages scroll above."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
        self._bars: Bars = Bars(*columns, console=Console(file=stream), refresh_per_second=4)
        self._tasks: dict[str, TaskID] = {}
        self._loss = ""

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, event: Event) -> None:
        """Move a bar, or write a line above the bars."""
        if isinstance(event, Progress):
            self._move(event)
        elif isinstance(event, Losses):
            self._loss = f"loss {event.values.get('total', sum(event.values.values())):.4g}"
        elif text := describe(event):
            self._bars.console.print(text, markup=False, highlight=False)

    def _move(self, event: Progress) -> None:
        if event.task not in self._tasks:
            self._tasks[event.task] = self._bars.add_task(event.task, total=event.total, note="")
        left = f"{duration(event.remaining)} left" if event.remaining is not None else ""
        loss = self._loss if event.task == "training" else ""
        note = "  ".join(part for part in (_count(event), left, loss) if part)
        self._bars.update(self._tasks[event.task], completed=event.done, total=event.total, note=note)
