"""A CSV table with one sample per row: columns IM, GT and, where wanted, further targets, CM, group, part."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Literal

from pydantic import field_validator

from im2im_core._base import Config
from im2im_core.errors import DataError
from im2im_core.layouts.base import (
    FileProblem,
    Part,
    SampleFiles,
    check_group_pattern,
    files_error,
    group_of,
    image_stem,
    visible,
)
from im2im_core.samples import TARGET

COLUMNS = {
    "source": ("im", "image", "source"),
    "target": ("gt", "target"),
    "weight": ("cm", "weight"),
    "group": ("group",),
    "part": ("part",),
    "scene": ("scene",),
}
"""Accepted headings of each column, lower case."""
FURTHER = "GT_"
"""How headings of further targets begin; the rest is their name."""
PARTS: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
TABLE_ENDINGS = (".csv", ".tsv")


class TableLayout(Config):
    """A CSV table; paths in it are relative to the table. Headings: IM, GT and, where wanted, CM, group, part, scene.

    Further targets stand in columns GT_NAME. A scene is named, or numbered from 0, where a file has several.
    """

    kind: Literal["table"] = "table"
    file: str | None = None
    """Name of the table in the folder; not needed where there is only one or the path is the table itself."""
    group_pattern: str | None = None
    """Regular expression; its first parentheses name the group in a sample name. For rows without a group."""

    _check_pattern = field_validator("group_pattern")(check_group_pattern)

    def find(self, root: Path) -> tuple[SampleFiles, ...]:
        """Samples of the table, sorted by name.

        Raises
        ------
        DataError
            The table or a column is missing; or lists all rows that are wrong.
        """
        table = self._table(root)
        rows = read_rows(table)
        files: list[SampleFiles] = []
        problems: list[FileProblem] = []
        for file, (line, row) in zip(_names(list(rows.values())), rows.items(), strict=True):
            name = f"{file}:{row['scene']}" if row["scene"] else file
            texts = _row_problems(table.parent, row)
            problems += [FileProblem(name, code, f"{table.name}, row {line}: {text}") for code, text in texts]
            group, problem = (row["group"], None) if row["group"] else group_of(file, self.group_pattern)
            problems += [problem] if problem else []
            group = group or (file if row["scene"] else "")  # scenes of one file may show one specimen
            files += [_sample(table.parent, name, group, row)]
        problems += _doubled(table.name, files)
        if problems:
            raise files_error(problems, (f for f in files if f.source.exists()))
        return tuple(sorted(files, key=lambda f: f.name))

    def _table(self, root: Path) -> Path:
        if root.is_file():
            return root
        if self.file is not None:
            return root / self.file
        tables = tables_in(root)
        if len(tables) != 1:
            seen = ", ".join(p.name for p in tables) or "none"
            raise DataError(f"{root} has {len(tables)} tables: {seen}", "Name one with layout.file")
        return tables[0]


def tables_in(folder: Path) -> tuple[Path, ...]:
    """CSV and TSV tables directly in `folder`, sorted by name."""
    return tuple(p for p in visible(folder) if p.suffix.lower() in TABLE_ENDINGS and p.is_file())


def read_rows(table: Path) -> dict[int, dict[str, str]]:
    """Rows of a table by their line: text by our own column names; columns that are absent are empty.

    Raises
    ------
    DataError
        The table cannot be read, has no rows, or lacks the column of images or targets.
    """
    try:
        lines = table.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"Cannot read the table {table}: {error.strerror}", "Check its name and permissions") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not UTF-8 text", "Save it as CSV UTF-8") from error
    header = next((line for line in lines if line.strip()), "")
    reader = csv.reader(lines, delimiter=max(",;\t", key=header.count))
    numbered = [(reader.line_num, [c.strip() for c in row]) for row in reader]
    filled = [(line, row) for line, row in numbered if any(row)]
    columns = _columns(table, filled[0][1] if filled else [])
    if len(filled) < 2:
        raise DataError(f"{table} has no rows", "Write one row per image below the headings")
    return {
        line: {key: row[i] if i is not None and i < len(row) else "" for key, i in columns.items()}
        for line, row in filled[1:]
    }


def _columns(table: Path, headings: list[str]) -> dict[str, int | None]:
    """Position of each of our columns among `headings`; None where absent."""
    lower = [h.lower() for h in headings]
    places = {key: next((lower.index(n) for n in names if n in lower), None) for key, names in COLUMNS.items()}
    missing = [COLUMNS[key][0].upper() for key in ("source", "target") if places[key] is None]
    if missing:
        raise DataError(
            f"{table} has no column {' and '.join(missing)}; its columns are: {', '.join(headings) or 'none'}",
            "Headings are IM (or image, source), GT (or target) and, where wanted, CM (or weight), group, part, scene",
        )
    further = {
        f"{TARGET} {heading.removeprefix(FURTHER)}": i
        for i, heading in enumerate(headings)
        if heading.startswith(FURTHER) and heading != FURTHER
    }
    return {**places, **further}


def _names(rows: list[dict[str, str]]) -> list[str]:
    """Name of the file of each row: its own, with its folder where several files share it."""
    paths = [Path(row["source"]) for row in rows]
    stems = Counter(map(image_stem, set(paths)))  # rows of one file are told apart by their scenes
    return [
        image_stem(p) if stems[image_stem(p)] == 1 else "-".join((*p.parent.parts, image_stem(p))).strip("-/\\")
        for p in paths
    ]


def _row_problems(folder: Path, row: dict[str, str]) -> list[tuple[str, str]]:
    """Code and sentence for everything that is wrong in one row."""
    problems = [
        ("missing_partner", f"{row['source'] or 'the row'} has no {role}")
        for key, role in (("source", "image"), *((k, k) for k in row if k.startswith(TARGET)))
        if not row[key]
    ]
    problems += [
        ("missing_partner", f"{row[key]} does not exist")
        for key in row
        if key not in ("group", "part", "scene") and row[key] and not (folder / row[key]).exists()
    ]
    if row["part"] and row["part"].lower() not in PARTS:
        problems.append(("table", f"part {row['part']!r} is not one of {', '.join(PARTS)}"))
    return problems


def _sample(folder: Path, name: str, group: str, row: dict[str, str]) -> SampleFiles:
    named = {key.removeprefix(TARGET).strip() or TARGET: path for key, path in row.items() if key.startswith(TARGET)}
    targets = {key: folder / path for key, path in named.items() if path}
    weight = folder / row["weight"] if row["weight"] else None
    part = PARTS.get(row["part"].lower())
    return SampleFiles(name, folder / row["source"], targets, weight, group, part, scene=row["scene"] or None)


def _doubled(table: str, files: list[SampleFiles]) -> list[FileProblem]:
    scenes: dict[Path, list[int | str | None]] = {}
    for item in files:
        scenes.setdefault(item.source, []).append(item.scene)
    return [
        FileProblem(image_stem(path), "duplicate_stem", f"{table}: {path.name} stands in {len(named)} rows")
        for path, named in scenes.items()
        if len(named) > 1 and (None in named or len(set(named)) < len(named))
    ]
