"""Known weaknesses of the verified set of versions, by pip-audit; skipped with a reason where it cannot ask."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SERVICE = "https://pypi.org/pypi/pyyaml/5.3/json"
"""What pip-audit would ask of a version whose weakness is long known; who does not tell it knows none at all."""
ANSWER_SECONDS, AUDIT_SECONDS = 5, 50
ACCEPTED = {
    "aiohttp": "comes with aicsimageio's remote files, which are never opened",
    "fsspec": "capped by aicsimageio; only local files are opened",
    "lxml": "capped by aicsimageio; nothing but the metadata of an image is parsed",
    "requests": "nothing is fetched by this project",
    "urllib3": "capped by aicsimageio's remote files, which are never opened",
    "zarr": "capped by aicsimageio; OME-Zarr is read and written by tensorstore",
}
"""Package whose weaknesses are known and do not reach us -> why. All others must have none."""

Finding = tuple[str, str, tuple[str, ...]]
"""Package, its version, and the names of its weaknesses."""


def service_answers(url: str = SERVICE, opener: Callable[..., Any] = urllib.request.urlopen) -> str:
    """Empty where the service of weaknesses answers; else the reason why it cannot be asked."""
    try:
        with opener(url, timeout=ANSWER_SECONDS) as answer:
            told = json.load(answer)
    except (OSError, ValueError) as error:  # URLError is an OSError; ValueError: no JSON
        return f"{url} does not answer ({error})"
    known = isinstance(told, dict) and told.get("vulnerabilities")
    return "" if known else f"{url} tells nothing of weaknesses"


def findings(report: dict[str, Any]) -> list[Finding]:
    """Packages with weaknesses in a report of pip-audit."""
    rows = report.get("dependencies", [])
    return [(r["name"], r["version"], tuple(v["id"] for v in r["vulns"])) for r in rows if r.get("vulns")]


def unasked(report: dict[str, Any]) -> list[str]:
    """Packages in a report of pip-audit that nothing could be learned about."""
    return [row["name"] for row in report.get("dependencies", []) if "skip_reason" in row]


def unaccepted(found: list[Finding]) -> list[Finding]:
    """Those of `found` without a reason in `ACCEPTED`."""
    return [row for row in found if row[0].lower() not in ACCEPTED]


def audit(requirements: Path) -> dict[str, Any]:
    """Report of pip-audit on pinned `requirements`; nothing is installed or resolved.

    Raises
    ------
    RuntimeError
        pip-audit could not finish.
    """
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=AUDIT_SECONDS, check=False)
    if done.returncode not in (0, 1) or not done.stdout.strip():  # 1: there are weaknesses, or it never began
        raise RuntimeError(done.stderr.strip() or f"pip-audit ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(*arguments: str) -> int:
    """Exit code: 0 nothing unknown or skipped, 1 a weakness without a reason; with ``--can-ask``, 1 is: nobody can."""
    reason = service_answers()
    if reason:
        sys.stdout.write(f"audit skipped: {reason}\n")
        return int("--can-ask" in arguments)
    if "--can-ask" in arguments:
        return 0
    try:
        report = audit(ROOT / "constraints.txt")
    except (RuntimeError, subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        sys.stdout.write(f"audit skipped: {error}\n")
        return 0
    return tell(report)


def tell(report: dict[str, Any]) -> int:
    """Exit code of an audit whose `report` of pip-audit is printed in short."""
    found, silent, total = findings(report), unasked(report), len(report.get("dependencies", []))
    if len(silent) == total:
        sys.stdout.write(f"audit skipped: nothing could be learned about any of {total} packages\n")
        return 0
    if silent:
        sys.stdout.write(f"nothing could be learned about {', '.join(silent)}\n")
    for name, version, weaknesses in found:
        why = ACCEPTED.get(name.lower(), "NOT ACCEPTED: raise its version, or give a reason in tools/audit.py")
        sys.stdout.write(f"{name} {version}: {', '.join(weaknesses)}: {why}\n")
    asked, open_ones = total - len(silent), unaccepted(found)
    sys.stdout.write(f"{len(found)} of {asked} packages with known weaknesses, {len(open_ones)} without a reason\n")
    return 1 if open_ones else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
