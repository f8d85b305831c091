"""Looks at a run from outside: what is new, and how it stands. Works for any run, started by whomever."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from im2im_core.jobs.eventlog import EventTail, Stamped
from im2im_core.runs import ACTIVE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from im2im_core.runs import Run, State


@dataclass(frozen=True)
class Seen:
    """New events of a run and its state after them."""

    events: tuple[Stamped, ...]
    state: State
    more: bool = False
    """Whether older news than the newest is still to come: only a part was asked for."""

    @property
    def active(self) -> bool:
        """Whether more may come."""
        return self.state in ACTIVE


class Watcher:
    """Follows one run; the first `poll` gives its whole history, so re-attaching is the same as attaching."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._tail = EventTail(run)

    def poll(self, most: int = -1) -> Seen:
        """What is new. The state is read first: when it is final, and no more is to come, all events are in.

        Parameters
        ----------
        most : int
            About how many bytes of the event log to read at once; all where negative.
        """
        state = self.run.state
        events = tuple(self._tail.poll(most))
        return Seen(events, state, self._tail.more)

    def follow(self, interval: float = 0.5) -> Iterator[Seen]:
        """Polls until the run is no longer active; the last one is final."""
        while (seen := self.poll()).active:
            yield seen
            time.sleep(interval)
        yield seen
