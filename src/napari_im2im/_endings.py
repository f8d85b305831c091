"""What must happen when a widget is destroyed, however that comes about."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtCore import QObject

_HELD: set[_Ending] = set()
"""Held until they ran: garbage collection would otherwise clear them before Qt destroys their widget, and Qt crash."""


class _Ending:
    """Calls `work` once."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work

    def __call__(self, *_: object) -> None:
        _HELD.discard(self)
        self._work()


def when_destroyed(owner: QObject, work: Callable[[], object]) -> None:
    """Call `work` when Qt destroys `owner`; by then nothing of it may be touched."""
    ending = _Ending(work)
    _HELD.add(ending)
    owner.destroyed.connect(ending)
