"""What an installation would make older in the environment this runs in; `tox run -e modern` asks it of this package.

``python tools/downgrades.py REQUIREMENT …`` asks pip without installing anything. Exit code 0: nothing would get older
but what is accepted; 1: something would; 2: this environment could not show it, or pip finds no versions that fit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

CURRENT = {"napari": "0.6", "tifffile": "2025", "zarr": "3"}
"""What has to be there, and from which version on, as older ones could not be made older by the usual caps."""


def installed() -> dict[str, str]:
    """Version of every package of this environment; of two the first on the path, which is the one imported."""
    found: dict[str, str] = {}
    for distribution in distributions():
        found.setdefault(canonicalize_name(distribution.metadata["Name"]), distribution.version)
    return found


def not_current(versions: dict[str, str]) -> list[str]:
    """What `CURRENT` asks for and is missing or too old in `versions`."""
    return [
        f"{name}>={lowest} (here: {versions.get(name, 'none')})"
        for name, lowest in CURRENT.items()
        if Version(versions.get(name, "0")) < Version(lowest)
    ]


def planned(requirements: list[str]) -> dict[str, Any]:
    """Report of pip on an installation of `requirements` that is not carried out.

    Raises
    ------
    RuntimeError
        pip finds no set of versions that fits, or cannot ask for them.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--report", str(report)]
        done = subprocess.run([*command, *requirements], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


def older(report: dict[str, Any], before: dict[str, str]) -> list[str]:
    """Packages of a report of pip that it would replace by an older version, each with both versions."""
    rows = []
    for item in report["install"]:
        name, version = canonicalize_name(item["metadata"]["name"]), item["metadata"]["version"]
        if name in before and Version(version) < Version(before[name]):
            rows.append(f"{name} {before[name]} -> {version}")
    return sorted(rows)


def refused(requirements: list[str], versions: dict[str, str]) -> list[str]:
    """Those of `requirements` that apply here and do not take what `versions` holds of them, with what that is."""
    rows = []
    for wanted in map(Requirement, requirements):
        version = versions.get(canonicalize_name(wanted.name))
        applies = wanted.marker is None or wanted.marker.evaluate()
        if applies and (version is None or not wanted.specifier.contains(version, prereleases=True)):
            rows.append(f"{wanted} ({version or 'not known'})")
    return rows


def main(*arguments: str) -> int:
    """Exit code; what would get older is printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requirements", nargs="+", metavar="REQUIREMENT", help="what pip is asked to install")
    parser.add_argument("--accept", action="append", default=[], metavar="PACKAGE", help="may get older")
    asked = parser.parse_args(arguments)
    before = installed()
    if lacking := not_current(before):
        sys.stdout.write(f"Nothing can be shown in this environment, it needs {', '.join(lacking)}\n")
        return 2
    try:
        report = planned(asked.requirements)
    except RuntimeError as error:
        sys.stdout.write(f"pip cannot plan it: {error}\n")
        return 2
    found = older(report, before)
    unaccepted = [row for row in found if row.partition(" ")[0] not in asked.accept]
    for row in found:
        sys.stdout.write(f"{row}{'' if row in unaccepted else ' (accepted)'}\n")
    here = ", ".join(f"{name} {before[name]}" for name in CURRENT)
    sys.stdout.write(
        f"{' '.join(asked.requirements)} beside {here}: pip would install {len(report['install'])} packages, "
        f"{len(found)} of them older than before\n"
    )
    return 1 if unaccepted else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
