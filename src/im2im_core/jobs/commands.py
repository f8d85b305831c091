"""commands/: what others want of the process that trains, one small file per wish."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from im2im_core.errors import ConfigError, ResourceError, nearest
from im2im_core.files import read_json, write_json
from im2im_core.runs import ACTIVE

if TYPE_CHECKING:
    from pathlib import Path

    from im2im_core.runs import Run

Verb = Literal["pause", "resume", "stop", "abort", "preview"]
VERBS: tuple[str, ...] = get_args(Verb)


@dataclass(frozen=True)
class Command:
    """One wish: pause (save exactly and end), stop (save and finish), abort (end now), preview (predict a region)."""

    number: int
    verb: str
    attempt: int
    arguments: dict[str, Any] = field(default_factory=dict)


def send_command(run: Run, verb: str, **arguments: Any) -> int:
    """Number of the command that was left for the process of `run`; it answers with `CommandDone`.

    Raises
    ------
    ConfigError
        The verb is unknown, or nobody works on the run.
    """
    if verb not in VERBS:
        raise ConfigError(f"Unknown command {verb!r}", nearest(verb, VERBS))
    state = run.state
    if state not in ACTIVE:
        raise ConfigError(f"Run {run.name} is {state}, so nothing can {verb} it", "Resume it first")
    folder = run.folder / "commands"
    number = _take_number(folder)
    content = {"number": number, "verb": verb, "attempt": max(1, run.attempt), "arguments": arguments}
    write_json(folder / f"{number:03d}-{verb}.json", content)
    return number


def _take_number(folder: Path) -> int:
    """Number that no other sender has: whoever creates the hidden file first owns it."""
    number = max((int(p.name.lstrip(".")[:-6]) for p in folder.glob(".*.taken")), default=0)
    while True:
        number += 1
        try:
            os.close(os.open(folder / f".{number:03d}.taken", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            continue
        except OSError as error:
            cure = "Check free space and permissions"
            raise ResourceError(f"Cannot write {folder}: {error.strerror}", cure) from error
        return number


class CommandInbox:
    """Commands for one attempt, each given once; those for earlier attempts are ignored."""

    def __init__(self, run: Run, attempt: int) -> None:
        self._folder, self._attempt = run.folder / "commands", attempt
        self._seen: set[str] = set()

    def poll(self) -> list[Command]:
        """New commands in the order of their numbers."""
        fresh = sorted(p for p in self._folder.glob("[0-9]*-*.json") if p.name not in self._seen)
        self._seen.update(p.name for p in fresh)
        commands = [c for p in fresh if (c := _read(p)) and c.attempt == self._attempt]
        return sorted(commands, key=lambda c: c.number)


def _read(path: Path) -> Command | None:
    """Command in a file; None for files that are none."""
    try:
        content = read_json(path)
        command = Command(content["number"], content["verb"], content["attempt"], dict(content["arguments"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return command if command.verb in VERBS else None
