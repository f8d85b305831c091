"""What a person must know of a conversion: what is done in another way here, and what has no counterpart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Note:
    """One thing of the file that is not, or not in the same way, in the recipe."""

    kind: Literal["differs", "missing"]
    """differs: done in another way here. missing: has no counterpart."""
    place: str
    """Setting of the file, by its dotted name."""
    text: str
    """What happens instead, and how it is chosen otherwise."""


@dataclass
class Notes:
    """Notes in the order in which the file is read, each once."""

    found: dict[Note, None] = field(default_factory=dict)

    def differs(self, place: str, text: str) -> None:
        """Remember that what stands at `place` is done in another way here."""
        self.found[Note("differs", place, text)] = None

    def missing(self, place: str, text: str) -> None:
        """Remember that what stands at `place` has no counterpart."""
        self.found[Note("missing", place, text)] = None
