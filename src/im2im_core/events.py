"""What a run says: frozen dataclasses with plain values, one class per fact, arrays by path."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """Base of all facts a job reports."""

    def to_dict(self) -> dict[str, Any]:
        """Plain content with the class name under ``event``."""
        return {"event": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class Started(Event):
    """A job began to work (data and device are known)."""

    steps: int | None = None
    """Steps in the budget; None for a budget in minutes."""
    minutes: float | None = None
    device: str = "cpu"
    parameters: int = 0
    """Number of weights that are learned."""
    message: str = ""


@dataclass(frozen=True)
class Progress(Event):
    """How far a long task is."""

    task: str
    """In words, for example "training", "reading images", "predicting tiles"."""
    done: int
    total: int | None
    elapsed: float
    """Seconds since the task began."""
    remaining: float | None = None
    """Seconds left; None while unknown."""


@dataclass(frozen=True)
class Losses(Event):
    """Loss terms at a training step, unweighted, and what drives them."""

    step: int
    epoch: float
    values: dict[str, float]
    """Name of the term -> value; ``total`` is the sum by the weights of the end of the training."""
    learning_rate: float
    samples_per_second: float = 0.0


@dataclass(frozen=True)
class Validated(Event):
    """Losses and metrics on images that are not trained on."""

    step: int
    epoch: float
    values: dict[str, float]
    best: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Previewed(Event):
    """A prediction of the region that the user watches was written."""

    step: int
    path: str
    """Relative to the run folder."""
    name: str = "preview"


@dataclass(frozen=True)
class Checkpointed(Event):
    """The state of the run is safe on disk up to `step`."""

    step: int
    path: str
    reason: str = "interval"
    seconds: float = 0.0
    """Time the training stood still for it."""


@dataclass(frozen=True)
class Message(Event):
    """Something a person should know, in words."""

    text: str
    level: str = "info"
    """info, warning or error"""
    cure: str = ""
    code: str = ""
    """Stable name for front ends that offer a button, for example "no_foreground"."""


@dataclass(frozen=True)
class OutputBegun(Event):
    """A result has its place on disk and fills tile by tile."""

    output: str
    path: str
    """.npy file with the whole result along T, C, Z, Y, X, zero where no tile is final yet."""
    facts: dict[str, Any] = field(default_factory=dict)
    """How it is to be shown: kind, axes, scale, translate."""


@dataclass(frozen=True)
class TileDone(Event):
    """A tile of the output is final and may be shown."""

    output: str
    start: tuple[int, ...]
    """First element along T, C, Z, Y, X in the output array."""
    stop: tuple[int, ...]


@dataclass(frozen=True)
class OutputWritten(Event):
    """A result is complete under its final name."""

    path: str
    output: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CommandDone(Event):
    """A command was carried out (or ignored, with the reason)."""

    number: int
    verb: str
    note: str = ""


@dataclass(frozen=True)
class Paused(Event):
    """The run wrote an exact checkpoint and gave its memory back."""

    step: int


@dataclass(frozen=True)
class Finished(Event):
    """The job is done; `model` is the folder of the bundle, relative to the run."""

    step: int = 0
    model: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = "budget used"


@dataclass(frozen=True)
class Failed(Event):
    """The job ended with an error; the message names thing, value and cure."""

    message: str
    cure: str = ""
    exit_code: int = 1
    traceback: str = ""


KINDS: dict[str, type[Event]] = {cls.__name__: cls for cls in Event.__subclasses__()}


def event_from_dict(content: dict[str, Any]) -> Event | None:
    """Event from its plain content; None for a kind this version does not know."""
    kind = KINDS.get(str(content.get("event")))
    if kind is None:
        return None
    known = {k: v for k, v in content.items() if k in kind.__dataclass_fields__}
    return kind(**known)
