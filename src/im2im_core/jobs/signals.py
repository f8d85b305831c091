"""Signals become a flag: work is saved at the next step boundary, never inside a signal handler."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any, Self

from im2im_core.jobs._platform import STOP_SIGNALS

if TYPE_CHECKING:
    from types import FrameType


class StopFlag:
    """True once the process was asked to end; a second Ctrl-C interrupts at once.

    Use it as ``should_stop``. Outside the main thread, where Python allows no
    handlers, it stays a flag that `set` raises.
    """

    def __init__(self) -> None:
        self.reason = ""
        """Name of the signal that came first; empty before."""
        self._previous: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether the process was asked to end."""
        return bool(self.reason)

    @property
    def exit_code(self) -> int:
        """Exit code by custom: 130 after Ctrl-C, 143 after a request of the system, 0 before any."""
        if not self.reason:
            return 0
        return 130 if self.reason == "SIGINT" else 143

    def set(self, reason: str) -> None:
        """Ask to stop; the first reason stays."""
        self.reason = self.reason or reason

    def install(self) -> None:
        """Listen to SIGINT, SIGTERM and SIGUSR1 until `restore`."""
        if threading.current_thread() is threading.main_thread():
            for name in STOP_SIGNALS:
                number = getattr(signal, name)
                self._previous[number] = signal.signal(number, self._on_signal)

    def restore(self) -> None:
        """Put the handlers back that were there before."""
        for number, handler in self._previous.items():
            # None: a handler that was not set from Python and cannot be put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if name == "SIGINT" and self.reason == "SIGINT":
            raise KeyboardInterrupt
        self.set(name)
        outer = getattr(self._previous.get(number), "__self__", None)
        if isinstance(outer, StopFlag):  # whoever called us listens too
            outer.set(name)

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()
