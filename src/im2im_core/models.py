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

Origin = Literal["shipped", "added", "library", "run", "project"]
SHIPPED = Path(__file__).parent / "models_shipped"
"""Folder with the models that come with the package."""
PACKAGES = (".zip",)
KEY_METRICS = ("ap50", "dice", "psnr", "ssim", "pearson")
"""Metrics in the order in which one of them stands for all."""


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
    made: float = 0.0
    """Unix time at which it was made; 0 where it is not known."""
    size: int = 0
    """Bytes of its files."""
    notes: str = ""
    """What this user wrote about it."""

    @property
    def key_metric(self) -> tuple[str, float] | None:
        """The figure that says most, with its name; None where there is none."""
        found = dict(self.metrics)
        name = next((n for n in KEY_METRICS if n in found), next(iter(found), None))
        return None if name is None else (name, found[name])

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
    told = notes_of(path)
    return LocalModel(
        path=Path(path),
        name=told.get("name") or str(card["name"]),
        origin=origin,
        place=place or f"from {Path(path).name}",
        inference=bundle.inference if bundle.is_ours else describe_foreign(bundle),
        sentence=_first_sentence(str(card["description"])),
        not_for=_limits(bundle),
        trained_on=str(card["trained_on"]),
        metrics=tuple((str(name), float(value)) for name, value in card["metrics"].items() if _is_number(value)),
        cover=card["cover"],
        licence=str(card["licence"]),
        made=_made(bundle),
        size=_size(Path(path) if Path(path).is_file() else bundle.folder),
        notes=told.get("notes", ""),
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


# ---- what the user calls them --------------------------------------------------


def notes_of(path: str | os.PathLike[str]) -> dict[str, str]:
    """The ``name`` that this user gave the model at `path`, and ``notes``; empty where there are none."""
    found = _all_notes().get(str(Path(path).resolve()))
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def write_notes(path: str | os.PathLike[str], *, name: str | None = None, notes: str | None = None) -> None:
    """Keep a name and notes for the model at `path`; the package itself stays as it is, so its hashes hold.

    Parameters
    ----------
    name, notes : str, optional
        What is not given stays as it was; an empty text takes it away.
    """
    from im2im_core.files import write_json

    told = {"name": name, "notes": notes}
    found = {**notes_of(path), **{k: " ".join(v.split()) for k, v in told.items() if v is not None}}
    kept = {k: v for k, v in found.items() if v}
    others = {k: v for k, v in _all_notes().items() if k != str(Path(path).resolve())}
    write_json(_notes_file(), {**others, **({str(Path(path).resolve()): kept} if kept else {})})


def _notes_file() -> Path:
    from im2im_core.project import user_home

    return user_home() / "model_notes.json"


def _all_notes() -> dict[str, Any]:
    from im2im_core.files import read_json

    try:
        content = read_json(_notes_file())
    except (OSError, ValueError):  # none yet, or not readable: models then have the names of their packages
        return {}
    return content if isinstance(content, dict) else {}


# ---- where models are ----------------------------------------------------------


def library_folder() -> Path:
    """Folder of this user for models that belong to no project."""
    from im2im_core.project import user_home

    return user_home() / "models"


def _candidates() -> Iterator[tuple[Path, Origin, str]]:
    from im2im_core.project import known_projects

    for path in _packages(SHIPPED):
        yield path, "shipped", "comes with napari-im2im"
    for path in _added():
        yield path, "added", f"from {path.parent}"
    for path in _packages(library_folder()):
        yield path, "library", "in your library"
    for project in known_projects():
        for run in reversed(project.runs()):
            if _is_package(run.model):
                yield run.model, "run", f"trained in project {project.root.name}"
        for path in _packages(project.root / "models"):
            yield path, "project", f"project {project.root.name}"


def _packages(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    there = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
    return [p for p in there if _is_package(p) or p.suffix.lower() in PACKAGES]


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


def _made(bundle: Any) -> float:
    """Unix time that the description tells, else that of its file."""
    from datetime import UTC, datetime

    told = bundle.description.get("timestamp")
    try:
        when = told if isinstance(told, datetime) else datetime.fromisoformat(str(told))
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except ValueError:  # none, or not a time
        return float(bundle.source.stat().st_mtime)


def _size(place: Path) -> int:
    files = [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files)


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
