"""What the Dataset panel remembers, so that closing it loses no exclusion, part, group, pair or correction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from im2im_core.errors import Im2ImError
from napari_im2im._dataset_source import Corrections, CorrectionSet
from napari_im2im._layer_pairs import LayerPair

if TYPE_CHECKING:
    from napari.layers import Layer

    from im2im_core.project import Project
    from napari_im2im._dataset_rows import PairRow

MEMORY = Path(".im2im") / "dataset_widget.json"
"""Where a project remembers what this panel showed."""
SESSION = uuid4().hex
"""This run of napari: what was open last in it is opened again before anything else."""
LAST_LAYERS, LAST_FILES = "layers", "files"


@dataclass(frozen=True)
class Left:
    """Pairs of a folder or table, or of open layers, as they were left."""

    path: str = ""
    """Folder or table; empty for layers."""
    name: str = ""
    """Name of the data set where a person gave it one."""
    task: str = ""
    """Empty where nobody said or found out what is to be learned."""
    labelling: str = ""
    validation: str = ""
    complete: bool = False
    corrections: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Key of a row -> whether it is used, its part, its group where that is not its name, its image layers."""

    @classmethod
    def from_content(cls, content: Any) -> Left:
        """From what `asdict` gave.

        Raises
        ------
        TypeError
            It is something else.
        """
        left = cls(**content)
        if not isinstance(left.rows, dict) or not all(isinstance(note, dict) for note in left.rows.values()):
            raise TypeError("rows are no notes")
        return left

    def corrected(self) -> CorrectionSet:
        """Corrections of all pairs, and of single ones."""
        own = {key: _corrections(note["corrections"]) for key, note in self.rows.items() if "corrections" in note}
        return CorrectionSet(_corrections(self.corrections), own)

    def applied(self, rows: Iterable[PairRow]) -> list[PairRow]:
        """Rows used, divided and grouped as they were; new ones as they are."""
        return [_left(row, self.rows[key_of(row)]) if key_of(row) in self.rows else row for row in rows]

    def pairs(self, layers: Iterable[Layer]) -> list[LayerPair]:
        """Pairs of which all layers are among `layers`."""
        there = {layer.unique_id.hex: layer for layer in layers}
        found = []
        for target, note in self.rows.items():
            images = note.get("images") or ()
            if images and target in there and all(image in there for image in images):
                found.append(LayerPair(tuple(there[image] for image in images), there[target]))
        return found


@dataclass(frozen=True)
class Memory:
    """The folder or table, and the layers, as they were left."""

    files: Left = field(default_factory=Left)
    layers: Left = field(default_factory=Left)
    last: str = ""
    """Which of the two was seen last."""
    session: str = ""
    """Run of napari that wrote it."""

    @classmethod
    def read(cls, project: Project) -> Memory:
        """What `project` remembers; nothing where the note is missing, damaged or of another version."""
        from im2im_core.files import read_json

        try:
            content = read_json(project.root / MEMORY)
            files, layers = (Left.from_content(content[key]) for key in ("files", "layers"))
            return cls(files, layers, str(content["last"]), str(content["session"]))
        except (OSError, ValueError, TypeError, KeyError):
            return cls()

    def write(self, project: Project) -> None:
        """Note it; a project that cannot be written to remembers nothing."""
        from im2im_core.files import write_json

        with suppress(Im2ImError, OSError):
            write_json(project.root / MEMORY, asdict(self))

    def with_left(self, left: Left) -> Memory:
        """Memory in which `left` was seen last, in this session."""
        if left.path:
            return replace(self, files=left, last=LAST_FILES, session=SESSION)
        return replace(self, layers=left, last=LAST_LAYERS, session=SESSION)

    def was_last(self, kind: str) -> bool:
        """Whether layers, or files, were seen last in this session."""
        return self.session == SESSION and self.last == kind


def key_of(row: PairRow) -> str:
    """Under what a row is remembered: its target layer, or the name of its files."""
    return row.layers.target.unique_id.hex if row.layers else row.name


def remember_rows(
    rows: Sequence[PairRow], pending: Sequence[LayerPair], corrected: CorrectionSet
) -> dict[str, dict[str, Any]]:
    """What `Left.rows` keeps of `rows`, and of pairs that wait for an answer."""
    notes: dict[str, dict[str, Any]] = {pair.target.unique_id.hex: {"images": _images(pair)} for pair in pending}
    for row in rows:
        group = "" if row.group == row.name else row.group  # a group of its own follows the name of its layer
        notes[key_of(row)] = {"used": row.used, "part": row.part, "group": group}
        if row.layers:
            notes[key_of(row)]["images"] = _images(row.layers)
    for key in corrected.own.keys() & notes.keys():
        notes[key]["corrections"] = asdict(corrected.own[key])
    return notes


def _corrections(content: Mapping[str, Any]) -> Corrections:
    axes, channels, size = (content.get(key) for key in ("axes", "channels", "voxel_size"))
    return Corrections(axes, tuple(channels) if channels else None, tuple(size) if size else None)  # type: ignore[arg-type]


def _images(pair: LayerPair) -> list[str]:
    return [layer.unique_id.hex for layer in pair.images]


def _left(row: PairRow, note: Mapping[str, Any]) -> PairRow:
    if row.layers and note.get("images") != _images(row.layers):
        return row
    part, group = str(note.get("part", row.part)), str(note.get("group") or row.name)
    sample = row.sample and replace(row.sample, group=group if "group" in note else row.group)
    part = part if part in ("train", "validation", "test", "strip") else row.part
    return replace(row, used=bool(note.get("used", row.used)) and sample is not None, part=part, sample=sample)
