"""Checkpoints that survive a kill: written aside, synced, hashed, renamed, then listed; two and the best are kept."""

from __future__ import annotations

import logging
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from im2im_core.bundle.shared_names import read_header, stored_once, under_all_names
from im2im_core.errors import ResourceError, TrustError
from im2im_core.files import atomic_path, read_json, remove_stale_parts, sha256, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

LIST = "checkpoints.json"
KEEP = 2
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A state at a step boundary."""

    step: int
    weights: dict[str, Tensor]
    """``model.*`` are the weights that learn, ``ema.*`` those that predict."""
    state: dict[str, Any]
    """Optimizers, counters and the framework's own state; plain types and tensors only."""


class CheckpointFolder:
    """The ``checkpoints`` folder of a run: the last two and the best, any of which a training can go on from.

    Every checkpoint is two files: weights as safetensors, which cannot carry code, and the
    rest as a torch file that is only ever read with ``weights_only``. A checkpoint exists
    once its hashes stand in ``checkpoints.json``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale_parts(folder)

    def entries(self) -> list[dict[str, Any]]:
        """Listed checkpoints, oldest first.

        Raises
        ------
        ResourceError
            The list is there and cannot be read; nothing is deleted then.
        """
        path = self.folder / LIST
        try:
            content = read_json(path)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        if not isinstance(content, list):
            raise _unreadable(path, f"it holds {type(content).__name__} instead of a list")
        return content

    def save(self, checkpoint: Checkpoint, best: bool = False) -> float:
        """Write a checkpoint; returns the seconds it took.

        Raises
        ------
        ResourceError
            The disk is full or the folder cannot be written; earlier checkpoints are intact.
        """
        start = time.monotonic()
        before = self.entries()
        name = f"best_{checkpoint.step:08d}" if best else f"step_{checkpoint.step:08d}"
        files = {}
        try:
            for suffix, write in ((".safetensors", _write_weights), (".state.pt", _write_state)):
                path = self.folder / (name + suffix)
                with atomic_path(path) as part:
                    write(checkpoint, part)
                    files[path.name] = sha256(part)
            # A regular checkpoint ahead of this step belongs to a past that was given up.
            kept = [e for e in before if e["name"] != name and (e["best"] or best or e["step"] < checkpoint.step)]
            self._list([*kept, {"name": name, "step": checkpoint.step, "best": best, "files": files}])
        except (RuntimeError, OSError, SafetensorError, ResourceError) as error:
            # torch reports a full disk as a RuntimeError that does not say "disk".
            with suppress(ResourceError):  # what is not known to be superfluous stays
                self._sweep(self.entries())
            reason = error.message if isinstance(error, ResourceError) else str(error)
            need, free = _size(checkpoint) / 1e6, shutil.disk_usage(self.folder).free / 1e6
            raise ResourceError(
                f"Cannot write checkpoint {name} to {self.folder}: {reason}; {need:.0f} MB needed, {free:.0f} MB free",
                "Earlier checkpoints are intact. Free some space, then go on with: im2im resume",
            ) from error
        return time.monotonic() - start

    def _list(self, entries: list[dict[str, Any]]) -> None:
        regular = [e for e in entries if not e["best"]][-KEEP:]
        best = [e for e in entries if e["best"]][-1:]
        keep = sorted([*regular, *best], key=lambda e: int(e["step"]))
        write_json(self.folder / LIST, keep)
        self._sweep(keep)

    def _sweep(self, entries: list[dict[str, Any]]) -> None:
        """Delete files that no entry names."""
        names = {f for e in entries for f in e["files"]}
        for path in self.folder.iterdir():
            if path.suffix in (".safetensors", ".pt") and path.name not in names:
                path.unlink(missing_ok=True)

    def newest(self) -> Checkpoint | None:
        """Newest checkpoint whose hashes are right; a damaged one is skipped with a warning."""
        return self._first(list(reversed(self.entries())))

    def best(self) -> Checkpoint | None:
        """Best checkpoint by validation."""
        return self._first([e for e in self.entries() if e["best"]])

    def _first(self, entries: list[dict[str, Any]]) -> Checkpoint | None:
        for entry in entries:
            if all(_intact(self.folder / name, digest) for name, digest in entry["files"].items()):
                return self._load(entry)
            log.warning("checkpoint %s is damaged; using the one before it", entry["name"])
        return None

    def _load(self, entry: Mapping[str, Any]) -> Checkpoint:
        path = self.folder / f"{entry['name']}.safetensors"
        weights = under_all_names(load_file(path), read_header(path))
        path = self.folder / f"{entry['name']}.state.pt"
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            raise TrustError(
                f"{path} holds more than tensors and numbers, and was not opened", "Delete it if it is not yours"
            ) from error
        return Checkpoint(int(entry["step"]), weights, state)


def _unreadable(path: Path, reason: object) -> ResourceError:
    return ResourceError(
        f"The list of checkpoints {path} cannot be read: {reason}",
        "The checkpoints beside it were left alone. Put the list back from a backup; "
        "without it the training begins anew and replaces them",
    )


def _size(checkpoint: Checkpoint) -> int:
    """Bytes of the weights and of the state of the optimizers."""
    states = [s for o in checkpoint.state.get("optimizers", []) for s in o["state"].values()]
    weights, _ = stored_once(checkpoint.weights)
    tensors = [*weights.values(), *(v for s in states for v in s.values() if isinstance(v, torch.Tensor))]
    return sum(t.nbytes for t in tensors)


def _write_weights(checkpoint: Checkpoint, path: Path) -> None:
    weights, names = stored_once(checkpoint.weights)
    # Views of one array share memory, which safetensors refuses to write.
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in weights.items()}, path, names)


def _write_state(checkpoint: Checkpoint, path: Path) -> None:
    torch.save(checkpoint.state, path)


def _intact(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path) == digest
