"""The file that is converted: a mapping that remembers what was read of it, so that nothing is lost without a word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from im2im_core.errors import ConfigError


class Section:
    """Settings of the file below one name.

    Parameters
    ----------
    content : mapping or None
        Plain content, as YAML gives it; None is empty.
    name : str
        Dotted name of the section; empty for the whole file.

    Raises
    ------
    ConfigError
        The content is no mapping.
    """

    def __init__(self, content: Any, name: str = "") -> None:
        if content is not None and not isinstance(content, dict):
            raise ConfigError(f"{name or 'the file'} is {content!r}", "Settings with names are expected there")
        self.content: dict[Any, Any] = content or {}
        self.name = name
        self._read: set[Any] = set()
        self._inside: dict[Any, list[Section]] = {}

    def place(self, key: Any) -> str:
        """Dotted name of the setting `key`."""
        return f"{self.name}.{key}" if self.name else str(key)

    def take(self, key: str, default: Any = None) -> Any:
        """Value of `key`, with all that stands below it; `default` where it is not given."""
        self._read.add(key)
        value = self.content.get(key)
        return default if value is None else value

    def number(self, key: str, default: float | None = None) -> float | None:
        """Number at `key`; texts that are numbers count, as ``1e-3`` is a text in YAML.

        Raises
        ------
        ConfigError
            Something else stands there.
        """
        value = self.take(key)
        if value is None:
            return default
        try:
            return float(value)
        except (TypeError, ValueError):
            _refuse(self.place(key), value, "a number")

    def whole(self, key: str, default: int | None = None) -> int | None:
        """Whole number at `key`.

        Raises
        ------
        ConfigError
            Something else stands there.
        """
        value = self.number(key, default)
        if value is not None and value != int(value):
            _refuse(self.place(key), value, "a whole number")
        return None if value is None else int(value)

    def sizes(self, key: str, count: int | None = None) -> tuple[int, ...] | None:
        """Whole numbers at `key`, one along each axis; a single one counts for `count` axes.

        Raises
        ------
        ConfigError
            Something else stands there.
        """
        value = self.take(key)
        if value is None:
            return None
        several = value if isinstance(value, list) else [value] * (count or 1)
        if not several or any(isinstance(n, bool) or not isinstance(n, int) for n in several):
            _refuse(self.place(key), value, "whole numbers")
        return tuple(several)

    def section(self, key: str) -> Section:
        """Settings below `key`; empty where there are none."""
        if key not in self._inside:
            self._inside[key] = [Section(self.content.get(key), self.place(key))]
        return self._inside[key][0]

    def named(self, key: str) -> Named | None:
        """Class or function at `key`; None where there is none."""
        return _named(self.section(key)) if self.content.get(key) is not None else None

    def several(self, key: str) -> list[Named]:
        """Classes or functions listed at `key`.

        Raises
        ------
        ConfigError
            Something else than a list stands there, or one has no name.
        """
        listed = self.content.get(key) or []
        if not isinstance(listed, list):
            _refuse(self.place(key), listed, "a list")
        inside = [Section(item, f"{self.place(key)}.{index}") for index, item in enumerate(listed)]
        self._inside[key] = inside
        return [_named(section) for section in inside]

    def drop(self, *keys: str) -> None:
        """Count `keys` as read: they say nothing about what is learned."""
        self._read.update(keys)

    def left(self) -> list[str]:
        """Dotted names of everything that was never read."""
        names: list[str] = []
        for key in self.content:
            if key in self._inside:
                names += [name for section in self._inside[key] for name in section.left()]
            elif key not in self._read:
                names.append(self.place(key))
        return names


@dataclass(frozen=True)
class Named:
    """A class or function that the file names; it is never imported."""

    place: str
    module: str
    name: str
    params: Section
    section: Section
    """What stands beside its parameters."""

    @property
    def path(self) -> str:
        """Import path."""
        return f"{self.module}.{self.name}"

    @property
    def title(self) -> str:
        """Where it stands, and its name."""
        return f"{self.place} {self.name}"


def _named(section: Section) -> Named:
    module, name = section.take("module_name"), section.take("func_name")
    if not isinstance(module, str) or not isinstance(name, str):
        raise ConfigError(f"{section.name} has no module_name and func_name", "Each class of the file has both")
    return Named(section.name, module, name, section.section("params"), section)


def _refuse(place: str, value: Any, wanted: str) -> NoReturn:
    raise ConfigError(f"{place} is {value!r}", f"Expected is {wanted}")


def is_foreign(content: Any) -> bool:
    """Whether plain content looks like a configuration of mmv_im2im and not like a recipe."""
    return isinstance(content, dict) and isinstance(content.get("model"), dict) and "mode" in content
