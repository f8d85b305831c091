"""What is installed with the package: floors that keep known weaknesses out, and the audit of the verified set."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tomllib
import urllib.error
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import audit  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WEAK = {
    "torch": ("2.5.1", "2.9.1"),
    "pytorch-lightning": ("2.4.0", "2.6.0", "2.6.2", "2.6.3", "2.6.5"),
    "monai": ("1.5.0", "1.5.1", "1.5.2"),
}
"""Versions of what every installation has, with known weaknesses; 2.6.2 and 2.6.3 of Lightning were malware."""


def requirement(name: str, listed: list[str]) -> Requirement:
    return next(r for r in map(Requirement, listed) if r.name == name)


@pytest.mark.parametrize("name", WEAK)
def test_versions_with_known_weaknesses_are_never_installed(name: str) -> None:
    wanted = requirement(name, PROJECT["dependencies"])
    assert wanted.marker is None
    assert [version for version in WEAK[name] if wanted.specifier.contains(version, prereleases=True)] == []


def test_zarr_writes_atomically_where_aicsimageio_does_not_cap_it() -> None:
    extras = PROJECT["optional-dependencies"]
    assert not requirement("zarr", extras["bioio"]).specifier.contains("3.1.2")
    modern = {**default_environment(), "python_version": "3.13"}
    chosen = [r for r in map(Requirement, extras["all"]) if r.marker is None or r.marker.evaluate(modern)]
    assert not next(r for r in chosen if r.name == "zarr").specifier.contains("3.1.2")
    assert "aicsimageio" not in {r.name for r in chosen}


def test_the_verified_set_obeys_the_floors() -> None:
    rows = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(row.split("==") for row in rows if "==" in row)
    assert len(pins) > 100
    listed = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["all"]]
    wanted = [r for r in map(Requirement, listed) if r.marker is None or r.marker.evaluate({"python_version": "3.11"})]
    named = [r for r in wanted if r.name.lower() in pins]
    assert len(named) > 20
    assert [str(r) for r in named if not r.specifier.contains(pins[r.name.lower()])] == []


# ---- the audit --------------------------------------------------------------------


def answering(content: bytes) -> Any:
    return lambda url, timeout: io.BytesIO(content)


def test_the_audit_asks_only_a_service_that_knows_weaknesses() -> None:
    assert audit.service_answers(opener=answering(b'{"vulnerabilities": [{"id": "PYSEC-1"}]}')) == ""
    assert "tells nothing" in audit.service_answers(opener=answering(b'{"vulnerabilities": []}'))
    assert "tells nothing" in audit.service_answers(opener=answering(b"[]"))
    assert "tells nothing" in audit.service_answers(opener=answering(b'{"info": {}}'))
    assert "does not answer" in audit.service_answers(opener=answering(b"<html>"))

    def unreachable(url: str, timeout: float) -> Any:
        raise urllib.error.URLError("no route")

    assert "no route" in audit.service_answers(opener=unreachable)


def report(*rows: tuple[str, list[str]]) -> dict[str, Any]:
    return {
        "dependencies": [
            {"name": name, "version": "1.0", "vulns": [{"id": identity} for identity in found]} for name, found in rows
        ]
    }


def test_a_weakness_without_a_reason_fails_the_audit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = next(iter(audit.ACCEPTED))
    monkeypatch.setattr(audit, "service_answers", lambda: "")
    monkeypatch.setattr(audit, "audit", lambda path: report((known, ["PYSEC-1"]), ("safe", [])))
    assert audit.main() == 0
    assert f"{known} 1.0: PYSEC-1: {audit.ACCEPTED[known]}" in capsys.readouterr().out
    monkeypatch.setattr(audit, "audit", lambda path: report((known, ["PYSEC-1"]), ("torch", ["PYSEC-2"])))
    assert audit.main() == 1
    assert "torch 1.0: PYSEC-2: NOT ACCEPTED" in capsys.readouterr().out


def test_an_audit_that_cannot_be_made_is_skipped_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "service_answers", lambda: "no network here")
    assert audit.main() == 0
    assert audit.main("--can-ask") == 1
    assert capsys.readouterr().out.count("audit skipped: no network here") == 2
    failed = subprocess.CompletedProcess([], 2, "", "service unavailable")
    monkeypatch.setattr(audit, "service_answers", lambda: "")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: failed)
    assert audit.main() == 0
    assert "audit skipped: service unavailable" in capsys.readouterr().out
    assert audit.main("--can-ask") == 0
    failed.returncode, failed.stdout = 0, json.dumps(report(("safe", [])))
    assert audit.main() == 0
    assert "0 of 1 packages with known weaknesses" in capsys.readouterr().out


def test_packages_that_nothing_is_known_of_are_no_pass(capsys: pytest.CaptureFixture[str]) -> None:
    silent = [{"name": name, "skip_reason": "not found"} for name in ("torch", "monai")]
    assert audit.tell({"dependencies": silent}) == 0
    assert "audit skipped: nothing could be learned about any of 2" in capsys.readouterr().out
    known = report(("safe", []))["dependencies"]
    assert audit.tell({"dependencies": [*silent, *known]}) == 0
    told = capsys.readouterr().out
    assert "nothing could be learned about torch, monai" in told
    assert "0 of 1 packages with known weaknesses" in told


def test_every_accepted_weakness_is_of_a_package_that_is_installed() -> None:
    rows = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert set(audit.ACCEPTED) <= {row.partition("==")[0] for row in rows}
