"""The queue of a device: one training at a time, first come first served, without a server and without torch."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Self

from im2im_core.errors import ResourceError
from im2im_core.jobs import _platform
from im2im_core.project import user_home

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POLL_SECONDS = 0.2
_TICKET = re.compile(r"(\d+)-(\d+)-([\d.]+)\.ticket")


class DeviceQueue:
    """Place in the line for `device` on this host.

    Who comes takes a ticket: a file whose name holds time, process and birth of the process, so
    that tickets of the dead are known and thrown away. Whose ticket is first takes the lock of the device.

    Parameters
    ----------
    device : str
        For example "cpu", "cuda:1" or "auto".
    home : Path, optional
        Folder that holds the queues of the user.
    """

    def __init__(self, device: str, home: Path | None = None) -> None:
        name = re.sub(r"[^\w.-]+", "-", f"{_platform.host_name()}_{device_key(device)}")
        self._folder = (home or user_home()) / "queue" / name
        pid = os.getpid()
        self._ticket = self._folder / f"{time.time_ns():020d}-{pid}-{_platform.birth(pid) or 0:.2f}.ticket"
        self._lock = _platform.FileLock(self._folder / "device.lock")

    def enter(self) -> None:
        """Take a ticket."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._ticket.touch()
        except OSError as error:
            raise ResourceError(
                f"Cannot write {self._folder}: {error.strerror}", "Set IM2IM_HOME to a folder that can be written to"
            ) from error

    def ahead(self) -> int:
        """Number of living processes that came before."""
        count = 0
        for ticket in sorted(self._folder.glob("*.ticket")):
            if ticket == self._ticket:
                break
            if _holder_lives(ticket):
                count += 1
            else:
                ticket.unlink(missing_ok=True)
        return count

    def wait(self, should_stop: Callable[[], bool], on_place: Callable[[int], None]) -> bool:
        """Whether the device is ours; False when `should_stop` said so while waiting.

        `on_place` is told how many are ahead, each time this changes and is not zero.
        """
        told = 0
        while not should_stop():
            ahead = self.ahead()
            if ahead == 0 and self._lock.acquire():
                return True
            if ahead not in (0, told):
                told = ahead
                on_place(ahead)
            time.sleep(POLL_SECONDS)
        return False

    def leave(self) -> None:
        """Give device and ticket back."""
        self._lock.release()
        self._ticket.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


def device_key(device: str) -> str:
    """Name under which all processes of this host know a device.

    Inside a SLURM job the scheduler has shared out the devices already, so each job has a queue of its own;
    CUDA_VISIBLE_DEVICES renumbers devices, which is undone.
    """
    if device == "auto":
        device = _platform.likely_device()
    kind, _, index = device.partition(":")
    number = index or "0"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if kind == "cuda" and number.isdigit() and int(number) < len(visible) and visible[int(number)].strip():
        number = visible[int(number)].strip()
    key = kind if kind in ("cpu", "mps") else f"{kind}-{number}"
    job = os.environ.get("SLURM_JOB_ID")
    return f"slurm-{job}-{key}" if job else key


def _holder_lives(ticket: Path) -> bool:
    parts = _TICKET.fullmatch(ticket.name)
    return parts is not None and _platform.is_alive(int(parts[2]), float(parts[3]))
