"""events.jsonl: written one line at a time by the process that trains, followed by everybody else."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from im2im_core.errors import ResourceError
from im2im_core.events import (
    KINDS,
    Checkpointed,
    Event,
    Failed,
    Finished,
    Losses,
    Paused,
    Previewed,
    Validated,
    event_from_dict,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from im2im_core.runs import Run

_DURABLE = (Checkpointed, Paused, Finished, Failed)  # must survive a power loss, so they are flushed to disk
_TAIL = 1 << 16


@dataclass(frozen=True)
class Stamped:
    """An event with its place in the log."""

    seq: int
    """Grows by one per event over all attempts."""
    attempt: int
    time: float
    """Unix time."""
    event: Event


class EventLog:
    """Appends events of one attempt; each line is one write, so that readers never see two lines mixed.

    Parameters
    ----------
    run : Run
        The run; its claim must be held.
    attempt : int
        Number that the claim gave.
    """

    def __init__(self, run: Run, attempt: int) -> None:
        self._path, self._attempt = run.events, attempt
        self._lock = threading.Lock()
        try:
            self._handle = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise self._full(error) from error
        last = _last_bytes(self._path)
        self._torn = bool(last) and not last.endswith(b"\n")
        self._seq = max((s.seq for line in last.split(b"\n") if (s := parse_line(line))), default=0)

    def append(self, event: Event) -> Stamped:
        """Write one event; thread-safe.

        Raises
        ------
        ResourceError
            The disk is full; a half-written line is ignored by readers.
        """
        with self._lock:
            stamped = Stamped(self._seq + 1, self._attempt, time.time(), event)
            line = b"\n" * self._torn + format_line(stamped)
            try:
                written = os.write(self._handle, line)
                self._torn = written < len(line)
                if self._torn:
                    raise OSError(28, "No space left on device")
                if isinstance(event, _DURABLE):
                    os.fsync(self._handle)
            except OSError as error:
                raise self._full(error) from error
            self._seq += 1
            return stamped

    def _full(self, error: OSError) -> ResourceError:
        return ResourceError(f"Cannot write {self._path}: {error.strerror}", "Check free space and permissions")

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EventTail:
    """Follows the events of a run; remembers how far it has read."""

    def __init__(self, run: Run) -> None:
        self._path = run.events
        self._offset = 0
        self.more = False
        """Whether the last call left complete events for the next one."""

    def poll(self, most: int = -1) -> list[Stamped]:
        """Events that were completed since the last call; a torn last line waits.

        Parameters
        ----------
        most : int
            About how many bytes to read; all where negative.
        """
        try:
            with self._path.open("rb") as handle:
                handle.seek(self._offset)
                content = handle.read(most)
                if most >= 0 and b"\n" not in content:
                    content += handle.readline()
                self.more = 0 <= most <= len(content)
        except FileNotFoundError:
            return []
        complete = content[: content.rfind(b"\n") + 1]
        self._offset += len(complete)
        return [stamped for line in complete.split(b"\n") if (stamped := parse_line(line))]


def read_events(run: Run, after: int = 0) -> list[Stamped]:
    """Events with a number above `after`; torn lines and kinds of newer versions are left out."""
    return [stamped for stamped in EventTail(run).poll() if stamped.seq > after]


def merge_steps(events: Sequence[Stamped]) -> list[Stamped]:
    """Losses, validations and previews of one curve: what a later attempt did again is shown once, as done last."""
    curve = [s for s in events if isinstance(s.event, Losses | Validated | Previewed)]
    first: dict[int, int] = {}
    for stamped in curve:
        step = _step(stamped)
        first[stamped.attempt] = min(step, first.get(stamped.attempt, step))
    limits = {a: min((f for b, f in first.items() if b > a), default=None) for a in first}
    return [s for s in curve if (limit := limits[s.attempt]) is None or _step(s) < limit]


def _step(stamped: Stamped) -> int:
    return int(getattr(stamped.event, "step", 0))


# ---- one line ----


def format_line(stamped: Stamped) -> bytes:
    """JSON line of an event; values that are not finite are written as "nan", "inf" and "-inf"."""
    content = {"seq": stamped.seq, "attempt": stamped.attempt, "time": round(stamped.time, 3)}
    content |= encode_event(stamped.event)
    return json.dumps(content, allow_nan=False).encode("ascii") + b"\n"


def parse_line(line: bytes) -> Stamped | None:
    """Event of a line; None for a torn line and for a kind this version does not know."""
    try:
        content = json.loads(line)
        event = decode_event(content)
        return Stamped(content["seq"], content["attempt"], content["time"], event) if event else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def encode_event(event: Event) -> dict[str, Any]:
    """Plain content of an event that any JSON reader accepts."""
    return {key: _encode(value) for key, value in event.to_dict().items()}


def decode_event(content: dict[str, Any]) -> Event | None:
    """Event of its JSON content, with numbers and tuples as they were; None for an unknown kind."""
    kind = KINDS.get(str(content.get("event")))
    if kind is None:
        return None
    types = {name: str(f.type) for name, f in kind.__dataclass_fields__.items()}
    return event_from_dict({k: _decode(v, types.get(k, "")) for k, v in content.items()})


def _encode(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _encode(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(v) for v in value]
    if hasattr(value, "item"):  # a number of numpy
        value = value.item()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _decode(value: Any, kind: str) -> Any:
    if isinstance(value, dict):
        return {k: _decode(v, "float") for k, v in value.items()} if "float" in kind else value
    if isinstance(value, list) and kind.startswith("tuple"):
        return tuple(value)
    return float(value) if "float" in kind and value in ("nan", "inf", "-inf") else value


def _last_bytes(path: Path) -> bytes:
    with path.open("rb") as handle:
        size = handle.seek(0, os.SEEK_END)
        handle.seek(max(0, size - _TAIL))
        return handle.read()
