"""The split of the images that every rival gets; without any package, for any environment."""

from __future__ import annotations

import random
from pathlib import Path


def read_split(folder: Path, seed: int, limit: int | None = None):
    """Training, validation and hold-out file names, not more than `limit` each.

    Validation is 15 % of what is not held out.
    """
    held = set((folder / "holdout.txt").read_text().split())
    names = sorted(p.name for p in (folder / "train" / "IM").iterdir())
    rest = [n for n in names if n not in held]
    random.Random(seed).shuffle(rest)
    count = max(1, round(0.15 * len(rest)))
    return rest[count:][:limit], rest[:count][:limit], sorted(held)[:limit]
