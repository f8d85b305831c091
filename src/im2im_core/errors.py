"""What can go wrong: every error names the thing, the value received and the cure, and has an exit code."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel, ValidationError


LONGEST = 300
"""Letters of a received value that a message repeats."""


class Im2ImError(Exception):
    """Base of all errors that are meant for a person.

    Parameters
    ----------
    message : str
        What is wrong, with the file or field and the value received.
    cure : str
        What to do about it; shown after the message.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(message, cure)
        self.message = message
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.message}. {self.cure}" if self.cure else self.message


class ConfigError(Im2ImError):
    """A recipe, preset name or command-line value is wrong."""

    exit_code = 2


class DataError(Im2ImError):
    """Images are missing, unreadable, ambiguous or do not fit together."""

    exit_code = 3


class ResourceError(Im2ImError):
    """Disk, memory, device or permission does not suffice."""

    exit_code = 4


class TrustError(Im2ImError):
    """Something from outside asked to run code or to be unpacked unsafely and was refused."""

    exit_code = 5


class Stopped(Im2ImError):
    """The user or the system asked to stop; what was finished is kept."""

    exit_code = 130


def nearest(name: str, choices: Iterable[str]) -> str:
    """Hint "did you mean …; one of …" for a mistyped `name`."""
    options = sorted(choices)
    close = difflib.get_close_matches(name, options, n=1)
    lead = f"Did you mean {close[0]!r}? " if close else ""
    return f"{lead}Choose one of: {', '.join(options)}"


def explain_validation(error: ValidationError, model: type[BaseModel]) -> str:
    """Sentences for a pydantic error: key, value received and what is allowed."""
    reasons: dict[str, list[str]] = {}
    for item in error.errors():
        place, text = _explain_one(item, model)
        reasons.setdefault(place, []).append(text)
    return "; ".join(f"{place}: {' or '.join(dict.fromkeys(texts))}" for place, texts in reasons.items())


def _explain_one(item: Any, model: type[BaseModel]) -> tuple[str, str]:
    """Dotted name of the setting, and what is wrong with its value."""
    place = ".".join(_field_names(item["loc"], model)) or model.__name__
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, item["loc"][:-1])
        return place, (f"unknown setting. {nearest(str(item['loc'][-1]), known)}" if known else "unknown setting")
    text = item["msg"].removeprefix("Value error, ")
    if hasattr(item["input"], "model_dump") or isinstance(item["input"], dict):
        return place, text  # a rule between settings: the text names the values it is about
    return place, f"{text} (received {_shown(item['input'])})"


def _shown(value: Any) -> str:
    """Value as it was received, of a length that a person reads."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than some thousand digits
        return "a number of thousands of digits"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _field_names(location: tuple[Any, ...], model: type[BaseModel]) -> list[str]:
    """Parts of a validation path that a person wrote: fields and positions, not the tags of union members."""
    names = []
    for index, part in enumerate(location):
        known = _fields_at(model, location[:index])
        if isinstance(part, int) or part in known or index == len(location) - 1 == 0:
            names.append(str(part))
        elif index == len(location) - 1 and known and not _is_type_name(str(part)):
            names.append(str(part))
    return names


def _is_type_name(part: str) -> bool:
    """Whether pydantic put the name of a type into the path, as it does for unions of plain values."""
    return not part.isidentifier() or part in ("int", "float", "str", "bool", "dict", "list", "tuple", "none")


def _fields_at(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Names of the fields of the settings class reached by `path`, union tags skipped."""
    from im2im_core.recipe.fields import class_at

    found = class_at(model, path)
    return list(found.model_fields) if found else []
