"""What a form holds while it is edited: content that need not be valid yet, its defaults, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import ValidationError

from im2im_core.errors import ConfigError
from im2im_core.recipe.fields import documented_fields, kind_of, union_classes
from napari_im2im._form_words import problem_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from im2im_core._base import Config

    Path = tuple[str | int, ...]

HIDDEN = ("kind", "schema_version")
"""Fields that are no choice of a person; a kind is chosen for its whole section."""


@dataclass(frozen=True)
class Unreadable:
    """Something typed that is no value (yet)."""

    text: str
    reason: str


NEEDED = Unreadable("", "Needs a value")


def item_classes(annotation: Any) -> tuple[type[BaseModel], ...]:
    """Settings classes of the items of a tuple type; empty for other types."""
    if get_origin(annotation) is not tuple:
        return ()
    return tuple(dict.fromkeys(c for a in get_args(annotation) for c in union_classes(a)))


def chosen(classes: tuple[type[BaseModel], ...], content: Any) -> type[BaseModel] | None:
    """Class among `classes` that `content` is of."""
    if not isinstance(content, dict):
        return None
    if len(classes) == 1:
        return classes[0]
    return next((c for c in classes if kind_of(c) == content.get("kind")), None)


def default_content(cls: type[BaseModel]) -> dict[str, Any]:
    """Content of a new `cls`; settings without a default need a value."""
    return {
        name: NEEDED if info.is_required() else _plain(info.get_default(call_default_factory=True))
        for name, info in cls.model_fields.items()
    }


def _plain(value: Any) -> Any:
    """Settings as mappings, sequences as tuples, all the way down."""
    if hasattr(value, "model_dump"):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    return tuple(_plain(v) for v in value) if isinstance(value, list | tuple) else value


class Draft:
    """Content of settings under change, reached by paths such as ``("training", "optimizer", "lr")``.

    A switch of kind keeps what the old kind held, so that switching back brings it back.
    """

    def __init__(self, model: Config) -> None:
        self.cls = type(model)
        self._baseline = _plain(model)
        self._content = self._baseline
        self._shelf: dict[tuple[Path, Any], Any] = {}

    def load(self, model: Config) -> None:
        """Hold `model` instead."""
        self._content = _plain(model)
        self._shelf.clear()

    def load_defaults(self, model: Config) -> None:
        """Take `model` for what settings are reset to."""
        self._baseline = _plain(model)

    # ---- places ----

    def info(self, path: Path) -> FieldInfo | None:
        """Field at `path`, which ends with a name; None where the chosen kinds have no such field."""
        owner = self.class_at(path[:-1])
        return documented_fields(owner).get(str(path[-1])) if owner else None

    def class_at(self, path: Path) -> type[BaseModel] | None:
        """Settings class of the content at `path`; None for a plain value."""
        cls: type[BaseModel] | None = self.cls
        classes: tuple[type[BaseModel], ...] = (self.cls,)
        for depth, part in enumerate(path, start=1):
            if isinstance(part, str):
                info = cls.model_fields.get(part) if cls else None
                classes = (union_classes(info.annotation) or item_classes(info.annotation)) if info else ()
            cls = chosen(classes, self.get(path[:depth]))
        return cls

    def places(self, path: Path = ()) -> Iterator[Path]:
        """Every field below `path` under the kinds that are chosen, sections before their fields."""
        cls = self.class_at(path)
        for name in cls.model_fields if cls else ():
            here = (*path, name)
            if name in HIDDEN:
                continue
            yield here
            if self.class_at(here):
                yield from self.places(here)
            elif item_classes(self.info(here).annotation):  # type: ignore[union-attr]  # the field is there
                for index in range(len(self.get(here) or ())):
                    yield from self.places((*here, index))

    # ---- values ----

    def get(self, path: Path) -> Any:
        """Content at `path`; None where there is nothing."""
        return _look(self._content, path)

    def default(self, path: Path) -> Any:
        """What the setting at `path` is reset to: the baseline's value, or that of its class under another kind."""
        return self._default_of(path, self._baseline)

    def _default_of(self, path: Path, base: Any) -> Any:
        for depth, part in enumerate(path):
            here = self.class_at(path[:depth])
            if depth and here and not _same_kind(base, self.get(path[:depth])) and part != "kind":
                base = default_content(here)
            base = _look(base, (part,))
        return base

    def changed(self, path: Path) -> bool:
        """Whether anything at `path` or below differs from its default."""
        return bool(self.get(path) != self.default(path))

    def reset(self, path: Path) -> None:
        """Return to the default."""
        self.set(path, self.default(path))

    def set(self, path: Path, value: Any) -> None:
        """Put `value` at `path`; a new kind takes its section with it, a budget clears the other budgets."""
        if path[-1] == "kind":
            self._switch(path[:-1], value)
            return
        owner = self.class_at(path[:-1])
        for group in getattr(owner, "exclusive", ()):
            if path[-1] in group and value is not None:
                for other in group:
                    self._put((*path[:-1], other), None)
        self._put(path, value)

    def _put(self, path: Path, value: Any) -> None:
        self._content = _replaced(self._content, path, value)

    def _switch(self, path: Path, kind: Any) -> None:
        old = self.get(path)
        old_kind = old.get("kind") if isinstance(old, dict) else None
        if kind == old_kind:
            return
        self._shelf[path, old_kind] = old
        if (path, kind) in self._shelf:
            self._put(path, self._shelf[path, kind])
            return
        base = self.default(path)
        same = isinstance(base, dict) and base.get("kind") == kind
        self._put(path, base if same else self._new(path, kind))

    def _new(self, path: Path, kind: Any) -> Any:
        info = self.info(path if isinstance(path[-1], str) else path[:-1])
        assert info is not None
        classes = union_classes(info.annotation) or item_classes(info.annotation)
        return next((default_content(c) for c in classes if kind_of(c) == kind), None)

    # ---- judgement ----

    def check(self) -> tuple[Config | None, dict[Path, str]]:
        """The settings, or None and what is wrong at which path, in words."""
        unreadable = dict(_unreadable(self._content, ()))
        if unreadable:
            return None, unreadable
        try:
            return self.cls.load(self._content), {}
        except ConfigError as error:
            cause = error.__cause__
            if isinstance(cause, ValidationError):
                return None, {self._path_of(e["loc"]): problem_words(e["msg"]) for e in reversed(cause.errors())}
            return None, {(): str(error)}

    def _path_of(self, loc: tuple[Any, ...]) -> Path:
        """Path of a place that pydantic names; tags of unions are left out, parts of plain values too."""
        path: Path = ()
        for part in loc:
            cls = self.class_at(path)
            if cls and part in cls.model_fields:
                path = (*path, part)
            elif isinstance(part, int) and self.class_at((*path, part)):
                path = (*path, part)
        return path


def _same_kind(one: Any, other: Any) -> bool:
    return isinstance(one, dict) and isinstance(other, dict) and one.get("kind") == other.get("kind")


def _look(content: Any, path: Path) -> Any:
    for part in path:
        if isinstance(content, dict):
            content = content.get(part)
        elif isinstance(content, tuple) and isinstance(part, int) and part < len(content):
            content = content[part]
        else:
            return None
    return content


def _replaced(content: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(content, tuple):
        return tuple(_replaced(v, rest, value) if i == head else v for i, v in enumerate(content))
    return {**content, head: _replaced(content[head], rest, value)}


def _unreadable(content: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(content, Unreadable):
        yield path, content.reason
    elif isinstance(content, dict):
        for name, value in content.items():
            yield from _unreadable(value, (*path, name))
    elif isinstance(content, tuple):
        for index, value in enumerate(content):
            yield from _unreadable(value, (*path, index))
