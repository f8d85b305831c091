"""Fast tests: most of them side by side, then those that measure time, one after the other on a machine at rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SIDE_BY_SIDE = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadgroup")
NOTHING_COLLECTED = 5


def main(folder: Path, arguments: list[str]) -> int:
    """Exit code of pytest; the results are written to `junit.xml` and `timing.xml` in `folder`."""
    codes = []
    for name, marks, how in (("junit", "not timing", SIDE_BY_SIDE), ("timing", "timing", ())):
        marks = f"{marks} and not slow and not faults"
        results = f"--junitxml={folder / name}.xml"
        command = [sys.executable, "-m", "pytest", *how, "-m", marks, results, *arguments]
        codes.append(subprocess.run(command).returncode)
        if codes[-1] not in (0, 1, NOTHING_COLLECTED):  # interrupted, or pytest itself failed
            break
    # Some of the arguments name tests of one kind alone.
    found = [code for code in codes if code != NOTHING_COLLECTED]
    return max(found, default=NOTHING_COLLECTED)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
