"""The local library of models: found by name, deleted into a trash folder and brought back, imported and exported."""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from im2im_core.errors import ConfigError, DataError, Im2ImError, ResourceError, nearest
from im2im_core.models import LocalModel, forget_model, library_folder, list_models, read_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from im2im_core.project import Project

TRASH = "trash"
"""Folder inside a project, or of the user, that deleted models are moved to."""
RECORD = "deleted.json"
"""File beside a deleted model that tells where it was."""
_UNSAFE = re.compile(r"[^\w.-]+")


def find_local(name: str | os.PathLike[str], models: Sequence[LocalModel] | None = None) -> LocalModel:
    """Model by its path, or by its name or the name of its run; a unique beginning of a name suffices.

    Parameters
    ----------
    models : sequence of LocalModel, optional
        Those to look through; all of this user where not given.

    Raises
    ------
    ConfigError
        There is none, or several; the message lists them.
    Im2ImError
        The package at this path cannot be used.
    """
    known = list_models() if models is None else models
    text = str(name)
    if Path(name).exists():
        place = Path(name).resolve()
        listed = next((m for m in known if place in _places(m)), None)
        return listed or read_model(place)
    names = [(m, {m.name, m.path.parent.name if m.origin == "run" else m.path.stem}) for m in known]
    exact = [m for m, words in names if text in words]
    found = exact or [m for m, words in names if any(w.startswith(text) for w in words)]
    if len(found) == 1:
        return found[0]
    if found:
        places = ", ".join(str(m.path) for m in found)
        raise ConfigError(f"{len(found)} models are called {text!r}", f"Give the path: {places}")
    cure = nearest(text, [m.name for m in known]) if known else "There are no models yet"
    raise ConfigError(f"There is no model {text!r}", cure)


# ---- deleting and undoing ------------------------------------------------------


@dataclass(frozen=True)
class Deleted:
    """A model that was deleted and can be brought back."""

    name: str
    origin: str
    path: Path
    """Where it was."""
    trash: Path | None
    """Folder that holds it now; None where it was only taken off the list and its files stay."""
    when: float
    """Unix time."""


def delete_model(model: LocalModel) -> Deleted:
    """The model after it was moved into the trash of its project or of the user.

    A package that lies elsewhere is taken off the user's list; its files stay. What a process has loaded
    goes on: nothing is read from the package any more then.

    Raises
    ------
    ConfigError
        It comes with the program, or a training that is not over makes it or starts from it.
    ResourceError
        It cannot be moved.
    """
    _require_deletable(model)
    if model.origin == "added":
        forget_model(model.path)
        return Deleted(model.name, model.origin, model.path, None, time.time())
    folder = _new_folder(_home(model) / TRASH / "models", f"{time.strftime('%Y%m%d-%H%M%S')}_{model.name}")
    deleted = Deleted(model.name, model.origin, model.path, folder, time.time())
    _record(deleted, folder)
    try:
        os.rename(model.path, folder / model.path.name)
        if model.origin == "run":  # its folder is where a resumed training writes the next model
            model.path.mkdir()
    except OSError as error:
        with suppress(OSError):
            shutil.rmtree(folder)
        raise ResourceError(
            f"{model.path} cannot be moved to the trash: {error.strerror}", "Close what uses it, then try again"
        ) from error
    return deleted


def restore_model(deleted: Deleted) -> LocalModel:
    """The model after it was brought back to where it was.

    Raises
    ------
    ConfigError
        Something else stands there now.
    ResourceError
        It cannot be moved.
    """
    from im2im_core.models import add_model

    if deleted.trash is None:
        return add_model(deleted.path)
    try:
        if deleted.origin == "run" and deleted.path.is_dir() and not any(deleted.path.iterdir()):
            deleted.path.rmdir()
        if deleted.path.exists():
            raise ConfigError(f"{deleted.path} exists again", f"Move it away first; the old one is in {deleted.trash}")
        deleted.path.parent.mkdir(parents=True, exist_ok=True)
        os.rename(deleted.trash / deleted.path.name, deleted.path)
        shutil.rmtree(deleted.trash)
    except OSError as error:
        raise ResourceError(
            f"{deleted.name} cannot be brought back to {deleted.path}: {error.strerror}",
            f"Its files are in {deleted.trash}",
        ) from error
    return find_local(deleted.path)


def list_deleted() -> tuple[Deleted, ...]:
    """Models in the trash of this user and of all known projects, latest first."""
    from im2im_core.files import read_json
    from im2im_core.project import known_projects, user_home

    found = []
    for home in (user_home(), *(p.root for p in known_projects())):
        for record in (home / TRASH / "models").glob(f"*/{RECORD}"):
            try:
                told = read_json(record)
                found.append(
                    Deleted(told["name"], told["origin"], Path(told["path"]), record.parent, float(told["when"]))
                )
            except (OSError, ValueError, KeyError, TypeError):  # not ours: it must not hide the others
                continue
    return tuple(sorted(found, key=lambda d: -d.when))


def _require_deletable(model: LocalModel) -> None:
    if model.origin == "shipped":
        raise ConfigError(
            f"{model.name} comes with the program and is not deleted", "It takes no room in your projects"
        )
    for run, uses in _users(model):
        raise ConfigError(
            f"{model.name} is not deleted: the training {run} {uses}", f"Wait for it, or `im2im stop {run}`"
        )


def _users(model: LocalModel) -> list[tuple[str, str]]:
    """Trainings that are not over and need the model, with what they do with it."""
    from im2im_core.project import known_projects
    from im2im_core.runs import ACTIVE

    found = []
    for project in known_projects():
        for run in project.runs():
            try:
                # Paused runs go on from a checkpoint that holds all weights, but write their model anew.
                if run.state not in (*ACTIVE, "paused"):
                    continue
                start = run.recipe.training.taught_on
            except (Im2ImError, OSError):  # a run that cannot be read uses nothing
                continue
            if model.path.resolve() == run.model.resolve():
                found.append((run.name, f"is {run.state}"))
            elif start and project.resolve(start).resolve() in _places(model):
                found.append((run.name, "starts from it"))
    return found


def _places(model: LocalModel) -> tuple[Path, ...]:
    """Paths that mean the model: its own, and of a trained one the folder of its run."""
    place = model.path.resolve()
    return (place, place.parent) if model.origin == "run" else (place,)


def _home(model: LocalModel) -> Path:
    """Project that holds the model, or the folder of the user."""
    from im2im_core.project import user_home

    up = {"run": 3, "project": 2, "library": 2}[model.origin]
    place = model.path.resolve()
    return place.parents[up - 1] if model.origin != "library" else user_home()


def _record(deleted: Deleted, folder: Path) -> None:
    from im2im_core.files import write_json

    write_json(folder / RECORD, {k: v if isinstance(v, float) else str(v) for k, v in asdict(deleted).items()})


def _new_folder(parent: Path, name: str) -> Path:
    """New folder in `parent` that is called like `name`, with a number where that is taken.

    Raises
    ------
    ResourceError
        It cannot be made.
    """
    safe = _UNSAFE.sub("-", name).strip("-.")[:80] or "model"
    for number in range(1, 10_000):
        folder = parent / (safe if number == 1 else f"{safe}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ResourceError(f"Cannot make {folder}: {error.strerror}", "Check its permissions") from error
        return folder
    raise ResourceError(f"{parent} has thousands of models called {name}", "Tidy it up")


# ---- in and out ----------------------------------------------------------------


def import_model(source: str | os.PathLike[str], project: Project | None = None) -> LocalModel:
    """Model after a copy of a package came into the models of `project`, or into the user's library.

    A zip is unpacked within bounds; every hash in the description is compared; nothing of it is run.

    Raises
    ------
    DataError
        There is no package at `source`.
    TrustError
        It is hostile, or a file is not the one described.
    Im2ImError
        It cannot be used here; the message says why. Nothing stays behind.
    """
    from im2im_core.archive import unpack
    from im2im_core.bundle import open_bundle

    place = Path(source)
    parent = project.folder("models") if project else library_folder()
    folder = _new_folder(parent, _stem(place))
    part = folder / ".import"
    try:
        if place.is_file() and place.suffix.lower() == ".zip":
            unpack(place, part)
        else:
            _copy(open_bundle(place).folder, part)
        bundle = open_bundle(part)
        bundle.verify()
        read_model(part)
        os.rename(bundle.folder, final := folder.with_name(f".{folder.name}.ready"))
        shutil.rmtree(folder)
        os.rename(final, folder)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ResourceError(f"Cannot import {place}: {error.strerror}", "Check free space and permissions") from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return find_local(folder)


def _stem(place: Path) -> str:
    return place.stem if place.is_file() else place.resolve().name


def _copy(folder: Path, part: Path) -> None:
    """Copy the files of a package; links are refused, as they would bring something else than they show."""
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise DataError(f"{path} is a link", "Replace it by the file itself")
    shutil.copytree(folder, part)


def export_model(model: LocalModel, target: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Zip of the model's package, with every hash compared.

    Raises
    ------
    ConfigError
        `target` exists.
    """
    from im2im_core.bundle import export_zip, open_bundle

    path = Path(target)
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists", "Name another file, or replace it with --overwrite")
    export_zip(open_bundle(model.path).folder, path)
    return path
