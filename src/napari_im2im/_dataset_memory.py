"""What the Dataset panel remembers of a folder, so that closing it loses no exclusion, part or correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_core.errors import Im2ImError
from napari_im2im._dataset_source import Corrections

if TYPE_CHECKING:
    from im2im_core.project import Project
    from napari_im2im._dataset_rows import PairRow

MEMORY = Path(".im2im") / "dataset_widget.json"
"""Where a project remembers what this panel showed."""


@dataclass(frozen=True)
class Memory:
    """A folder or table as it was left."""

    path: str = ""
    name: str = ""
    task: str = ""
    labelling: str = ""
    validation: str = ""
    corrections: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name of a row -> whether it is used, its part and group."""

    @classmethod
    def read(cls, project: Project) -> Memory:
        """What `project` remembers; nothing where the note is missing, damaged or of a newer version."""
        from im2im_core.files import read_json

        try:
            content = read_json(project.root / MEMORY)
            return cls(**content) if isinstance(content, dict) else cls()
        except (OSError, ValueError, TypeError):
            return cls()

    def write(self, project: Project) -> None:
        """Note it; a project that cannot be written to remembers nothing."""
        from im2im_core.files import write_json

        with suppress(Im2ImError, OSError):
            write_json(project.root / MEMORY, asdict(self))

    def corrected(self) -> Corrections:
        """Corrections of the files."""
        axes, channels, size = (self.corrections.get(key) for key in ("axes", "channels", "voxel_size"))
        return Corrections(axes, tuple(channels) if channels else None, tuple(size) if size else None)  # type: ignore[arg-type]

    def applied(self, rows: Sequence[PairRow]) -> list[PairRow]:
        """Rows used, divided and grouped as they were; new ones as they are."""
        return [_left(row, self.rows[row.name]) if row.name in self.rows else row for row in rows]


def remember_rows(rows: Sequence[PairRow]) -> dict[str, dict[str, Any]]:
    """What `Memory.rows` keeps of `rows`."""
    return {row.name: {"used": row.used, "part": row.part, "group": row.group} for row in rows}


def _left(row: PairRow, note: Mapping[str, Any]) -> PairRow:
    part, group = str(note.get("part", row.part)), str(note.get("group", row.group))
    sample = row.sample and replace(row.sample, group=group)
    part = part if part in ("train", "validation", "test", "strip") else row.part
    return replace(row, used=bool(note.get("used", row.used)) and sample is not None, part=part, sample=sample)
