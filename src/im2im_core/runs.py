"""A run: one folder that holds everything about one training and is the only interface to it."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from im2im_core.errors import ConfigError, DataError, ResourceError
from im2im_core.files import read_json, remove_stale_parts, write_json
from im2im_core.jobs import _platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from im2im_core.project import Project
    from im2im_core.recipe import Recipe

RUN_SCHEMA = 1
HEARTBEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""A run on another host whose heartbeat stands still for so long is interrupted."""
State = Literal["queued", "running", "paused", "stopped", "finished", "failed", "interrupted"]
ACTIVE: tuple[State, ...] = ("queued", "running")
FOLDERS = ("commands", "checkpoints", "previews", "model")


@dataclass(frozen=True)
class RunStatus:
    """Content of run.json; the heartbeat is the modification time of that file."""

    state: State
    host: str
    pid: int
    started: float
    """Birth of the process `pid`, as its system counts."""
    attempt: int = 0
    """Number of the process that trains, from 1; 0 before the first one."""
    created: float = 0.0
    """Unix time at which the run was made."""
    message: str = ""
    """Why it stopped or failed, in one sentence."""
    schema: int = RUN_SCHEMA


class Run:
    """One training, living in `folder`.

    Any number of readers may look at the folder; only the process that holds
    the claim writes to it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).resolve()
        self._beaten = 0.0
        self._seen: tuple[int, float] | None = None
        self._writing = threading.Lock()
        if not self._file.is_file():
            raise DataError(f"{self.folder} is not a run: it has no run.json", "Give the folder of a run")

    @classmethod
    def create(cls, project: Project, recipe: Recipe, name: str | None = None) -> Run:
        """New queued run of `recipe` in `project`, with all folders and the full recipe.

        Raises
        ------
        ConfigError
            `name` is no name of a folder.
        ResourceError
            The folder cannot be written to, the disk is full, or a run of this name exists.
        """
        if name is not None:
            check_name(name)
        folder = project.folder("runs") / (name if name is not None else project.new_run_name(recipe.name))
        try:
            folder.mkdir(parents=True, exist_ok=False)
            for part in FOLDERS:
                (folder / part).mkdir()
        except FileExistsError as error:
            raise ResourceError(f"Run {folder} exists", "Choose another name, or resume it") from error
        except OSError as error:
            raise ResourceError(
                f"Cannot write {folder}: {error.strerror}", "Check free space and permissions of the project"
            ) from error
        probe(folder)
        recipe.to_file(folder / "recipe.yaml")
        status = RunStatus("queued", *_identity(), created=time.time())
        write_json(folder / "run.json", asdict(status))
        return cls(folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def _file(self) -> Path:
        return self.folder / "run.json"

    # ---- what is in the folder ----

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def model(self) -> Path:
        """Folder of the trained model."""
        return self.folder / "model"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def previews(self) -> Path:
        """Folder of the predictions of the watched region."""
        return self.folder / "previews"

    @property
    def events(self) -> Path:
        """File with everything the run said."""
        return self.folder / "events.jsonl"

    @property
    def log(self) -> Path:
        """File with what its processes printed."""
        return self.folder / "log.txt"

    @property
    def recipe(self) -> Recipe:
        """Full recipe of the run."""
        from im2im_core.recipe import Recipe

        return Recipe.from_file(self.folder / "recipe.yaml")

    @property
    def plan(self) -> dict[str, Any]:
        """What was decided and why; empty before it was planned."""
        from im2im_core.yamlfile import read_yaml

        path = self.folder / "plan.yaml"
        return dict(read_yaml(path) or {}) if path.is_file() else {}

    def write_plan(self, plan: dict[str, Any]) -> None:
        """Keep what was decided and why."""
        import yaml

        from im2im_core.files import write_atomic
        from im2im_core.plans import plain

        content = yaml.safe_dump(plain(plan), sort_keys=False, allow_unicode=True)
        write_atomic(self.folder / "plan.yaml", content.encode())

    # ---- state ----

    @property
    def status(self) -> RunStatus:
        """What run.json says, without any judgement."""
        try:
            content = read_json(self._file)
            return RunStatus(**{k: v for k, v in content.items() if k in RunStatus.__dataclass_fields__})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise DataError(f"Cannot read {self._file}: {error}", "Its files are kept; restore run.json") from error

    @property
    def attempt(self) -> int:
        """Number of the process that trains or trained last; 0 before the first."""
        return self.status.attempt

    @property
    def state(self) -> State:
        """State as a reader must see it: an active run whose process is gone is ``interrupted``.

        For a run on another host, ask the same `Run` object again and again: it becomes
        interrupted when its heartbeat stood still for 60 s of this reader's clock.
        """
        status = self.status
        if status.state in ACTIVE and not self._owner_lives(status):
            return "interrupted"
        return status.state

    def _owner_lives(self, status: RunStatus) -> bool:
        if status.host == _platform.host_name():
            return _platform.is_alive(status.pid, status.started)
        beat, now = self._file.stat().st_mtime_ns, time.monotonic()
        if self._seen is None or self._seen[0] != beat:
            self._seen = (beat, now)
        return now - self._seen[1] < SILENT_SECONDS

    def set_state(self, state: State, message: str = "") -> None:
        """Write the state; only for the process that holds the claim."""
        text = message.encode(errors="replace").decode()  # file names may hold bytes that are no UTF-8
        self._write(replace(self.status, state=state, message=text))

    def require_unfinished(self) -> None:
        """Do nothing where the run can be resumed.

        Raises
        ------
        ConfigError
            It is finished.
        """
        if self.state == "finished":
            raise ConfigError(f"Run {self.name} is finished", "Teach its model on in a new run: im2im finetune")

    def beat(self) -> None:
        """Show readers that this process lives; costs nothing when called often."""
        now = time.monotonic()
        if now - self._beaten >= HEARTBEAT_SECONDS:
            self._beaten = now
            with suppress(OSError):  # a missed heartbeat must never end a training
                os.utime(self._file)

    def _write(self, status: RunStatus) -> None:
        with self._writing:
            write_json(self._file, asdict(status))

    # ---- ownership ----

    @contextmanager
    def claim(self, attempt: int | None = None) -> Iterator[int]:
        """Sole right to write the run while the block lasts; gives the number of the attempt.

        A lock that a dead process left does not count.

        Raises
        ------
        ResourceError
            Another process owns the run; the message names it. Or the folder cannot be written to.
        """
        lock = _platform.FileLock(self.folder / "owner.lock")
        if not lock.acquire():
            raise self._refusal()
        try:
            if self._runs_elsewhere():
                raise self._refusal()
            probe(self.folder)
            for folder in (self.folder, self.checkpoints, self.model, self.previews):
                remove_stale_parts(folder)
            status = self.status
            number = attempt or status.attempt + 1
            self._write(RunStatus("queued", *_identity(), attempt=number, created=status.created))
            yield number
        finally:
            lock.release()

    def _runs_elsewhere(self) -> bool:
        """Whether another living process of this host trains; the lock says nothing on file systems without locks."""
        status = self.status
        return (
            status.state == "running"
            and status.host == _platform.host_name()
            and status.pid != os.getpid()
            and _platform.is_alive(status.pid, status.started)
        )

    def _refusal(self) -> ResourceError:
        status = self.status
        return ResourceError(
            f"Run {self.name} is used by process {status.pid} on {status.host}", "Stop it first, or wait until it ends"
        )


def check_name(name: str) -> None:
    """Do nothing where `name` can be the name of a run on every operating system.

    Raises
    ------
    ConfigError
        It leads to another folder, or Windows keeps it for itself.
    """
    cure = "Use letters, digits, - and _, for example nuclei-2"
    wrong = sorted({c for c in name if c in "/\\:\0"})
    if wrong:
        raise ConfigError(f"A run cannot be called {name!r}: {wrong[0]!r} is not allowed", cure)
    if not name.strip(". "):
        raise ConfigError(f"A run cannot be called {name!r}", cure)
    if _platform.is_reserved(name):
        raise ConfigError(f"A run cannot be called {name!r}: Windows cannot make a folder of this name", cure)


def probe(folder: Path) -> None:
    """Write and remove one file in `folder`.

    Raises
    ------
    ResourceError
        The folder is read-only or its disk is full.
    """
    trial = folder / f".probe.{os.getpid()}.part"
    try:
        trial.write_bytes(bytes(65536))
        with trial.open("rb+") as handle:
            os.fsync(handle.fileno())
    except OSError as error:
        raise ResourceError(
            f"Cannot write to {folder}: {error.strerror}", "Check free space and permissions of the folder"
        ) from error
    finally:
        with suppress(OSError):
            trial.unlink(missing_ok=True)


def _identity() -> tuple[str, int, float]:
    pid = os.getpid()
    return _platform.host_name(), pid, _platform.birth(pid) or 0.0
