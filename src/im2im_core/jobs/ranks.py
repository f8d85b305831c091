"""One training in several processes: which of them this is, and the run that they share.

The first process owns the run and writes to it; the others read it and compute.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from im2im_core.errors import ConfigError, ResourceError
from im2im_core.runs import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from im2im_core.project import Project
    from im2im_core.recipe import Recipe

SHARED = "IM2IM_RUN"
"""Variable that tells the processes which the first one starts what run they work on."""
PATIENCE = 600.0
"""Seconds in which the first process must have made its run and plan."""
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


def rank() -> int:
    """Number of this process among those that were started together; 0 where it is the first or alone."""
    numbers = [os.environ.get(name, "0") for name in _RANKS]
    return max(int(number) if number.isdigit() else 0 for number in numbers)


def is_follower(recipe: Recipe) -> bool:
    """Whether several processes train `recipe` and this is not the first of them, which owns the run.

    Processes that a cluster starts together may also be trainings of their own: then each has one device.
    """
    return rank() > 0 and recipe.training.devices * recipe.training.nodes > 1


@contextmanager
def shared(run: Run) -> Iterator[None]:
    """While the block lasts, processes that are started know that they work on `run`."""
    before = os.environ.get(SHARED)
    os.environ[SHARED] = str(run.folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[SHARED]
        else:
            os.environ[SHARED] = before


def followed_run(project: Project, name: str | None, patience: float = PATIENCE) -> Run:
    """The run of the first process, once it has a plan.

    Raises
    ------
    ConfigError
        Processes were started side by side without a name that they agree on.
    ResourceError
        The first process made no plan in time.
    """
    given = os.environ.get(SHARED)
    if given is None and name is None:
        raise ConfigError("The processes of this training do not know their run", "Start all of them with one --name")
    folder = project.folder("runs") / str(name) if given is None else None
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if folder is None:
            return Run(str(given))
        if (folder / "plan.yaml").is_file():
            return Run(folder)
        time.sleep(0.5)
    raise ResourceError(f"{folder} has no plan after {patience:.0f} s", "See what the first process printed")
