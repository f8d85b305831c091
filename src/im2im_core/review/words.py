"""Numbers and lists of names as a person says them."""

from __future__ import annotations

from collections.abc import Sequence, Sized

SHOWN = 3


def some(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def counted(things: Sized, word: str) -> str:
    """Number of `things` with its word, for example ``1 image`` or ``2 images``."""
    return f"{len(things)} {word}" if len(things) == 1 else f"{len(things)} {word}s"
