"""Settings classes of other packages: entry points of the group ``im2im``, named ``SECTION.KIND``.

An entry point names a settings class that imports no torch; the class carries the ``target`` of what it
sets up. One that cannot be loaded takes nothing away: its error is told where its kind is asked for.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Union

from im2im_core._base import Config
from im2im_core.errors import ConfigError
from im2im_core.recipe.fields import kind_of

GROUP = "im2im"
NEEDED = {
    "framework": ("target", "learns_from", "tasks"),
    "network": ("target", "stem"),
    "loss": ("target", "weight"),
}
"""What a settings class of each section must have, besides ``kind``."""
FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What the code of somebody else may raise while it is imported."""
_broken: dict[tuple[str, str], str] = {}


def with_plugins(section: str, *shipped: type[Config]) -> Any:
    """Union of the shipped settings classes of a section and those that installed packages register."""
    classes = {str(kind_of(cls)): cls for cls in shipped}
    for point in _points():
        named, _, kind = point.name.partition(".")
        if named != section:
            continue
        try:
            if kind in classes:
                raise ValueError(f"{classes[kind].__module__} has a {section} of this kind already")
            classes[kind] = _loaded(point, section, kind)
        except FAULTS as error:
            _broken[section, kind] = f"{_words(point)} cannot be used: {type(error).__name__}: {error}"
    return Union[tuple(classes.values())]  # noqa: UP007  # the members are known only now


@cache
def _points() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))


def _loaded(point: EntryPoint, section: str, kind: str) -> type[Config]:
    found = point.load()
    if not (isinstance(found, type) and issubclass(found, Config)):
        raise TypeError(f"{point.value} is not a settings class (a subclass of {Config.__module__}.Config)")
    if kind_of(found) != kind:
        raise ValueError(f"{point.value} has the kind {kind_of(found)!r}, the entry point is named {point.name}")
    missing = [n for n in NEEDED[section] if n not in found.model_fields and not hasattr(found, n)]
    if missing:
        raise ValueError(f"{point.value} has no {', '.join(missing)}")
    return found


def _words(point: EntryPoint) -> str:
    package = f" of {point.dist.name} {point.dist.version}" if point.dist else ""
    return f"The entry point {point.name} = {point.value}{package}"


def require_usable(content: Any) -> None:
    """Do nothing unless `content` names a kind that an installed package registers and cannot provide.

    Raises
    ------
    ConfigError
        Names the entry point, its package and the error.
    """
    for section, kind in _named_kinds(content):
        if (section, kind) in _broken:
            raise ConfigError(_broken[section, kind], "Mend or uninstall that package")


def _named_kinds(content: Any) -> list[tuple[str, str]]:
    """Sections and kinds that plain content of a recipe or an inference description names."""
    if not isinstance(content, dict):
        return []
    found = [(section, content.get(section)) for section in ("framework", "network")]
    framework = content.get("framework")
    losses = framework.get("losses") if isinstance(framework, dict) else None
    found += [("loss", loss) for loss in losses or () if isinstance(losses, (list, tuple))]
    return [(section, str(part.get("kind"))) for section, part in found if isinstance(part, dict)]
