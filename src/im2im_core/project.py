"""A project: the folder a user works in, with data, journal, runs, models and cache."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from im2im_core.errors import ConfigError, ResourceError, nearest
from im2im_core.jobs import _platform

if TYPE_CHECKING:
    from im2im_core.runs import Run

MARKER = "im2im.yaml"
PROJECT_SCHEMA = 1
FolderName = Literal["data", "journal", "runs", "models", "cache"]
_UNSAFE = re.compile(r"[^\w.-]+")


def user_home() -> Path:
    """Folder with the user's registry, default project and queues; the variable IM2IM_HOME moves it."""
    given = os.environ.get("IM2IM_HOME")
    return Path(given) if given else _platform.user_data_folder() / "im2im"


class Project:
    """The folder `root`; folders inside are made when first asked for."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).resolve()

    def __repr__(self) -> str:
        return f"Project({str(self.root)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Project) and self.root == other.root

    def __hash__(self) -> int:
        return hash(self.root)

    # ---- which project ----

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None = None) -> Project:
        """Project at `path`, else the one chosen in this process, of the nearest parent folder, or the user's default.

        Raises
        ------
        ConfigError
            `path` is not a project.
        """
        if path is not None:
            project = cls(path)
            if not project.exists:
                raise ConfigError(f"{project.root} is not a project: it has no {MARKER}", "Create it first")
        elif _chosen:
            project = _chosen[-1]
        else:
            here = Path.cwd()
            found = next((p for p in (here, *here.parents) if (p / MARKER).is_file()), None)
            project = cls(found) if found else cls._default()
        register(project)
        return project

    @classmethod
    def create(cls, root: str | os.PathLike[str], name: str | None = None) -> Project:
        """Project in the new or existing folder `root`; one that is there already is only opened."""
        import yaml

        from im2im_core.files import write_atomic

        project = cls(root)
        if not project.exists:
            content = {"schema_version": PROJECT_SCHEMA, "name": name or project.root.name}
            write_atomic(project.root / MARKER, yaml.safe_dump(content, allow_unicode=True).encode())
        register(project)
        return project

    @classmethod
    def _default(cls) -> Project:
        return cls.create(user_home() / "default", "default")

    @property
    def exists(self) -> bool:
        """Whether the folder is marked as a project."""
        return (self.root / MARKER).is_file()

    @property
    def name(self) -> str:
        """Name the user gave."""
        from im2im_core.yamlfile import read_yaml

        content = read_yaml(self.root / MARKER)
        return str(content.get("name", self.root.name)) if isinstance(content, dict) else self.root.name

    # ---- paths ----

    def folder(self, name: FolderName) -> Path:
        """Folder of the project, made if it is missing."""
        path = self.root / name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(f"Cannot make {path}: {error.strerror}", "Check the permissions") from error
        return path

    def relative(self, path: str | os.PathLike[str]) -> str:
        """Path as it is written into recipes: relative to the project with ``/`` where inside it, else absolute."""
        full = Path(path).resolve()
        return full.relative_to(self.root).as_posix() if full.is_relative_to(self.root) else str(full)

    def resolve(self, path: str | os.PathLike[str]) -> Path:
        """Full path of what a recipe writes; inverse of `relative`."""
        return self.root / Path(path).expanduser()

    # ---- runs ----

    def runs(self) -> list[Run]:
        """Runs of the project, oldest first."""
        from im2im_core.runs import Run

        return [Run(file.parent) for file in sorted(self.root.glob("runs/*/run.json"))]

    def new_run_name(self, name: str) -> str:
        """Free name that sorts by time, for example ``20261121-124233_nuclei``."""
        safe = _UNSAFE.sub("-", name).strip("-.")[:60] or "run"
        base = f"{time.strftime('%Y%m%d-%H%M%S')}_{safe}"
        taken = (f"{base}-{i}" for i in range(2, 10_000))
        candidates = [base] if not (self.root / "runs" / base).exists() else taken
        return next(c for c in candidates if not (self.root / "runs" / c).exists())


_chosen: list[Project] = []
"""The project chosen in this process, if any."""


def choose_project(project: Project | None) -> None:
    """Let `Project.open` give `project` for the rest of this process; with None it looks around again."""
    _chosen[:] = [] if project is None else [project]
    if project is not None:
        register(project)


# ---- registry of the user ----


def known_projects() -> list[Project]:
    """Projects of this user that still exist, latest first."""
    return [p for p in map(Project, _registered()) if p.exists]


def register(project: Project) -> None:
    """Put `project` first on the user's list; projects that are gone leave it."""
    from im2im_core.files import write_json

    before = _registered()
    others = [path for path in before if path != str(project.root) and Project(path).exists]
    wanted = [str(project.root), *others]
    if wanted != before:
        write_json(user_home() / "projects.json", wanted)


def _registered() -> list[str]:
    from im2im_core.files import read_json

    try:
        content = read_json(user_home() / "projects.json")
    except (OSError, ValueError):  # no list yet, or one that cannot be read: it is only a convenience
        return []
    return [str(item) for item in content] if isinstance(content, list) else []


def find_run(name: str | os.PathLike[str], project: Project | None = None) -> Run:
    """Run by path, or by name in `project` and then in every known project; a unique beginning or ending suffices.

    Raises
    ------
    ConfigError
        There is none, or several; the message lists them.
    """
    from im2im_core.runs import Run

    if (Path(name) / "run.json").is_file():
        return Run(name)
    places = dict.fromkeys([*([project] if project else []), *known_projects()])
    runs = [run for place in places for run in place.runs()]
    text = str(name)
    exact = [r for r in runs if r.name == text]
    found = exact[:1] or [r for r in runs if r.name.startswith(text) or r.name.endswith(f"_{text}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"Several runs are called {text!r}", nearest(text, [r.name for r in found]))
    cure = nearest(text, [r.name for r in runs]) if runs else "There are no runs yet"
    raise ConfigError(f"There is no run {text!r}", cure)
