"""Numbers and lists as a person types them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from im2im_core.errors import Im2ImError
from napari_im2im._form_draft import NEEDED, Unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

NONE_WORD = "none"
BETWEEN = "×"
"""Stands between the numbers of one element, where elements are lists themselves."""
_CELL = re.compile(r'\s*(?:"((?:[^"]|"")*)"\s*|([^,]*))(?:,|$)')


@dataclass(frozen=True)
class Limits:
    """Range of a number; None = no limit."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    @classmethod
    def of(cls, metadata: Sequence[Any]) -> Limits:
        """Range that the annotations of a field give."""
        found = {
            name: getattr(item, name)
            for item in metadata
            for name in ("ge", "gt", "le", "lt")
            if getattr(item, name, None) is not None
        }
        return cls(**found)

    def allow(self, value: float) -> bool:
        """Whether `value` lies in the range."""
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def start(self) -> float:
        """A value to begin with where none was given."""
        upper = self.lt if self.le is None else self.le
        for value in (1.0, 0.5, self.ge, upper):
            if value is not None and self.allow(value) and (upper is None or value < upper):
                return value
        return self.ge or 0.0


def number_text(value: Any) -> str:
    """Shortest text that stands for exactly this number."""
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def parse_number(text: str, whole: bool) -> int | float | Unreadable:
    """Number that `text` stands for, decimal comma and ``1e-3`` included."""
    typed = text.strip().replace(",", ".")
    if not typed:
        return NEEDED
    try:
        value = int(typed) if whole else float(typed)
    except ValueError:
        return Unreadable(text, f"“{text}” is not a {'whole number' if whole else 'number'}")
    return value if math.isfinite(value) else Unreadable(text, f"“{text}” is not a finite number")


def stepped(value: float, steps: int, whole: bool) -> float:
    """Number `steps` presses of the arrow away: whole numbers by 1, others by one in their first digit."""
    if whole:
        return int(value) + steps
    up = steps > 0
    for _ in range(abs(steps)):
        size = abs(value)
        shrinking = up == (value < 0)
        exponent = math.floor(math.log10(size * (0.999 if shrinking else 1.001))) if size else -1
        value = round(value + (10.0**exponent if up else -(10.0**exponent)), -exponent + 3)
    return value


# ---- lists ---------------------------------------------------------------------


def items_of(annotation: Any) -> tuple[tuple[Any, ...], bool]:
    """Types of the elements of a tuple type, and whether their number is fixed."""
    arguments = get_args(annotation)
    fixed = Ellipsis not in arguments
    return (arguments if fixed else arguments[:1]), fixed


def list_text(values: Sequence[Any]) -> str:
    """Elements separated by commas."""
    return ", ".join(_element_text(v) for v in values)


def _element_text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return BETWEEN.join(_element_text(v) for v in value)
    if value is None:
        return NONE_WORD
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        quoted = not value or value != value.strip() or any(c in value for c in ',"\n') or _is_whole(value)
        return '"' + value.replace('"', '""') + '"' if quoted else value
    return number_text(value)


def _is_whole(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True


def parse_list(text: str, annotation: Any) -> tuple[Any, ...] | Unreadable:
    """Elements that `text` names, separated by commas."""
    kinds, fixed = items_of(annotation)
    cells = _cells(text)
    if fixed and len(cells) != len(kinds):
        return Unreadable(text, f"Needs {len(kinds)} values separated by commas, not {len(cells)}")
    values = []
    for index, (cell, quoted) in enumerate(cells):
        kind = kinds[index if fixed else 0]
        value = _inner_list(cell, kind) if get_origin(kind) is tuple else _element(cell, quoted, _members(kind))
        if isinstance(value, Unreadable):
            return Unreadable(text, value.reason)
        values.append(value)
    return tuple(values)


def _inner_list(cell: str, annotation: Any) -> tuple[Any, ...] | Unreadable:
    """Elements of a list within a list: ``1×2×2``, also with x, * or blanks between them."""
    return parse_list(",".join(re.split(rf"[x*{BETWEEN}\s]+", cell.strip())), annotation)


def _cells(text: str) -> list[tuple[str, bool]]:
    """Cells between commas, and whether each was quoted; a comma at the end is forgiven."""
    cells: list[tuple[str, bool]] = []
    place = 0
    while place < len(text.rstrip()):
        found = _CELL.match(text, place)
        assert found is not None  # the pattern matches anything
        quoted = found[1] is not None
        cells.append((found[1].replace('""', '"') if quoted else found[2], quoted))
        place = found.end()
    return cells


def _members(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    arguments = get_args(annotation)
    return tuple(m for a in arguments for m in _members(a)) if arguments else (annotation,)


def _element(cell: str, quoted: bool, members: tuple[Any, ...]) -> Any:
    word = cell.strip()
    if type(None) in members and word.lower() in (NONE_WORD, ""):
        return None
    if bool in members:
        found = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}.get(word.lower())
        return Unreadable(cell, f"“{word}” is neither yes nor no") if found is None else found
    if str in members and (quoted or int not in members or not _is_whole(word)):
        return cell if quoted else word
    whole = float not in members
    return parse_number(word, whole) if word else Unreadable(cell, "A value between two commas is missing")


# ---- mappings ------------------------------------------------------------------


def mapping_text(value: dict[str, Any]) -> str:
    """Mapping as YAML; empty where it is empty."""
    import yaml

    if not value:
        return ""
    text: str = yaml.safe_dump(_as_lists(value), sort_keys=False, allow_unicode=True)
    return text.strip()


def _as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _as_lists(v) for k, v in value.items()}
    return [_as_lists(v) for v in value] if isinstance(value, list | tuple) else value


def parse_mapping(text: str) -> dict[str, Any] | Unreadable:
    """Mapping that YAML `text` stands for."""
    from im2im_core.yamlfile import parse_yaml

    try:
        value = parse_yaml(text, "This") if text.strip() else {}
    except Im2ImError as error:
        return Unreadable(text, str(error))
    return value if isinstance(value, dict) else Unreadable(text, "Write one “name: value” per line")
