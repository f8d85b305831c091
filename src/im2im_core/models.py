"""Models of this user: shipped with the package, trained, kept in projects, or added by hand."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from im2im_core.errors import Im2ImError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from im2im_core.bundle.foreign import ForeignDescription, ForeignInput
    from im2im_core.inference import Inference

Origin = Literal["shipped", "added", "run", "project"]
SHIPPED = Path(__file__).parent / "models_shipped"
"""Folder with the models that come with the package."""
PACKAGES = (".zip",)


@dataclass(frozen=True)
class LocalModel:
    """A model that can predict, and what a person wants to see before choosing it."""

    path: Path
    """Folder or zip, as prediction takes it."""
    name: str
    origin: Origin
    place: str
    """Where it comes from, in words, for example "project nuclei"."""
    inference: Inference | ForeignDescription
    """How it is run; of a package of another tool, what its description tells."""
    sentence: str = ""
    """What it does."""
    not_for: str = ""
    """When it should not be used."""
    trained_on: str = ""
    metrics: tuple[tuple[str, float], ...] = ()
    """Figures on images it was not trained on."""
    cover: Path | None = None
    """Picture of what it does."""
    licence: str = ""

    @property
    def inputs(self) -> tuple[ForeignInput, ...]:
        """The images that it takes at once by the names of its inputs; none where it takes one alone."""
        found: tuple[ForeignInput, ...] = getattr(self.inference, "inputs", ())
        return found if len(found) > 1 else ()


def list_models() -> tuple[LocalModel, ...]:
    """Every model that can be used here: shipped ones first, then added ones, then trained ones, latest first.

    Packages that cannot be read, or of other tools those that do not make an image of one, are left out.
    """
    found: dict[Path, LocalModel] = {}
    for path, origin, place in _candidates():
        where = path.resolve()
        if where in found:
            continue
        try:
            found[where] = read_model(path, origin, place)
        except (Im2ImError, OSError):  # one broken package must not hide the others
            continue
    return tuple(found.values())


def read_model(path: str | os.PathLike[str], origin: Origin = "added", place: str = "") -> LocalModel:
    """Model of a package or run, with what its card says; reads the description only.

    Raises
    ------
    Im2ImError
        There is no package, or it was made by another tool and does not make an image of one.
    """
    from im2im_core.bundle import open_bundle
    from im2im_core.bundle.foreign import describe_foreign

    bundle = open_bundle(path)
    card = bundle.card
    return LocalModel(
        path=Path(path),
        name=str(card["name"]),
        origin=origin,
        place=place or f"from {Path(path).name}",
        inference=bundle.inference if bundle.is_ours else describe_foreign(bundle),
        sentence=_first_sentence(str(card["description"])),
        not_for=_limits(bundle),
        trained_on=str(card["trained_on"]),
        metrics=tuple((str(name), float(value)) for name, value in card["metrics"].items() if _is_number(value)),
        cover=card["cover"],
        licence=str(card["licence"]),
    )


def add_model(path: str | os.PathLike[str]) -> LocalModel:
    """Model of a package that stays on the user's list; the package stays where it is.

    Raises
    ------
    Im2ImError
        It cannot be used.
    """
    model = read_model(Path(path).resolve())
    _write_added([model.path, *(p for p in _added() if p != model.path)])
    return model


def forget_model(path: str | os.PathLike[str]) -> None:
    """Take a package off the user's list; its files stay."""
    _write_added([p for p in _added() if p != Path(path).resolve()])


# ---- where models are ----------------------------------------------------------


def _candidates() -> Iterator[tuple[Path, Origin, str]]:
    from im2im_core.project import known_projects

    for path in _packages(SHIPPED):
        yield path, "shipped", "comes with napari-im2im"
    for path in _added():
        yield path, "added", f"from {path.parent}"
    for project in known_projects():
        for run in reversed(project.runs()):
            if _is_package(run.model):
                yield run.model, "run", f"trained in project {project.root.name}"
        for path in _packages(project.root / "models"):
            yield path, "project", f"project {project.root.name}"


def _packages(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [p for p in sorted(folder.iterdir()) if _is_package(p) or p.suffix.lower() in PACKAGES]


def _is_package(path: Path) -> bool:
    return path.is_dir() and any(path.glob("*.y*ml"))


def _list_file() -> Path:
    from im2im_core.project import user_home

    return user_home() / "models.json"


def _added() -> list[Path]:
    from im2im_core.files import read_json

    try:
        content = read_json(_list_file())
    except (OSError, ValueError):  # no list yet, or one that cannot be read: packages can be added again
        return []
    return [Path(str(item)) for item in content] if isinstance(content, list) else []


def _write_added(paths: list[Path]) -> None:
    from im2im_core.files import write_json

    write_json(_list_file(), [str(p) for p in paths])


# ---- what a card says ----------------------------------------------------------


def _first_sentence(text: str) -> str:
    head, dot, _ = " ".join(text.split()).partition(". ")
    return f"{head}." if dot else head


def _limits(bundle: Any) -> str:
    """The part of the package's README that says when not to use it."""
    name = bundle.description.get("documentation")
    if not isinstance(name, str) or not bundle.has(name):
        return ""
    lines = bundle.file(name).read_text(encoding="utf-8", errors="replace")[:100_000].splitlines()
    if "## Limits" not in lines:
        return ""
    rest = lines[lines.index("## Limits") + 1 :]
    end = next((i for i, line in enumerate(rest) if line.startswith("#")), len(rest))
    return " ".join(" ".join(rest[:end]).split())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
