"""What samples are meant for: it decides what counts as a problem."""

from __future__ import annotations

from dataclasses import dataclass

LABEL_TASKS = ("semantic_segmentation", "instance_segmentation")


@dataclass(frozen=True)
class Aim:
    """Task and settings that a look at samples depends on."""

    task: str
    labelling: str = "dense"
    """As in ``data.labelling``."""
    invalid_pixels: str = "error"
    """As in ``data.invalid_pixels``; decides how grave NaN pixels are."""
    classes: tuple[int, ...] | None = None
    """Classes that may occur, background 0 among them, as dense labels number them; None: any."""
    patch: tuple[int, ...] | None = None
    """Size of the training patches along Y, X or Z, Y, X; None: not known yet."""

    @property
    def learns_labels(self) -> bool:
        """Whether targets are labels."""
        return self.task in LABEL_TASKS

    @property
    def lowest_object(self) -> int:
        """Smallest id that is an object or class."""
        return 2 if self.labelling == "sparse" else 1

    @property
    def allowed(self) -> frozenset[int] | None:
        """Ids of objects or classes that may occur; None where any may."""
        if self.classes is None or self.task != "semantic_segmentation":
            return None
        shift = self.lowest_object - 1
        return frozenset(value + shift for value in self.classes if value > 0)
