"""The package makes nothing older in an environment of newer packages; asked of pip itself by `tox run -e modern`."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import downgrades  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BASE: list[str] = PROJECT["dependencies"]
BIOIO: list[str] = PROJECT["optional-dependencies"]["bioio"]
NOW = {"napari": "0.9.2", "tifffile": "2026.3.3", "zarr": "3.1.6"}
"""An environment of somebody else."""


def pins(name: str) -> dict[str, str]:
    """Versions of a constraints file."""
    rows = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(name): version for name, version in (row.split("==") for row in rows if "==" in row)}


# ---- this package, compared with a modern environment that was installed and tested ----


def test_the_modern_set_is_modern() -> None:
    modern, aics = pins("constraints-modern.txt"), pins("constraints.txt")
    assert len(modern) > 100
    assert downgrades.not_current(modern) == []
    for name in ("tifffile", "zarr", "fsspec", "lxml", "numcodecs"):  # what aicsimageio caps
        assert Version(modern[name]) > Version(aics[name])
    assert "aicsimageio" not in modern


@pytest.mark.parametrize("requirements", [BASE, [*BASE, *BIOIO]], ids=["base", "bioio"])
def test_every_requirement_takes_what_a_modern_environment_holds(requirements: list[str]) -> None:
    assert downgrades.refused(requirements, pins("constraints-modern.txt")) == []


@pytest.mark.parametrize("capped", ["tifffile<2023.3.15", "zarr<2.16,>=2.6", "numpy~=1.26"])
def test_a_requirement_that_would_downgrade_is_found(capped: str) -> None:
    modern = pins("constraints-modern.txt")
    assert downgrades.refused([*BASE, capped], modern) == [f"{capped} ({modern[Requirement(capped).name]})"]


def test_what_does_not_apply_here_downgrades_nothing_and_what_is_new_has_to_be_tried() -> None:
    modern = pins("constraints-modern.txt")
    assert downgrades.refused(["tifffile<2023; python_version < '3'"], modern) == []
    assert downgrades.refused(["nobody-knows-it>=1"], modern) == ["nobody-knows-it>=1 (not known)"]


def test_no_requirement_of_the_base_has_an_upper_bound() -> None:
    bounded = [
        row for row in BASE if any(s.operator in ("<", "<=", "==", "~=", "===") for s in Requirement(row).specifier)
    ]
    assert bounded == []


# ---- the question to pip ----


def report(**versions: str) -> dict[str, Any]:
    return {"install": [{"metadata": {"name": name, "version": version}} for name, version in versions.items()]}


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ({}, []),
        ({"monai": "1.6.1", "zarr": "3.2.0"}, []),
        ({"Zarr": "2.15.0", "tifffile": "2023.2.28"}, ["tifffile 2026.3.3 -> 2023.2.28", "zarr 3.1.6 -> 2.15.0"]),
        ({"tifffile": "2026.3.10"}, []),  # newer, though smaller as text
    ],
)
def test_older_versions_are_found(versions: dict[str, str], expected: list[str]) -> None:
    assert downgrades.older(report(**versions), NOW) == expected


def wheel(folder: Path, name: str, version: str, *requires: str) -> None:
    """An empty package that pip can plan with."""
    info = f"{name}-{version}.dist-info"
    meta = "".join(f"Requires-Dist: {r}\n" for r in requires)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{meta}")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """Environment variables under which `NOW` is installed and only packages in a folder can be had."""
    pytest.importorskip("pip")
    site, wheels = tmp_path / "site", tmp_path / "wheels"
    wheels.mkdir()
    for name, version in NOW.items():
        info = site / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel(wheels, name, version)
    wheel(wheels, "zarr", "2.15.0")
    wheel(wheels, "caps", "1.0", "zarr<3")
    wheel(wheels, "fits", "1.0", "zarr>=2", "tifffile>=2023.2.28")
    wheel(wheels, "through", "1.0", "caps")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return {**kept, "PYTHONPATH": str(site), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["fits"], 0, "pip would install 1 packages, 0 of them older"),
        (["through"], 1, "zarr 3.1.6 -> 2.15.0\n"),  # by what it requires in turn
        (["through", "--accept", "zarr"], 0, "zarr 3.1.6 -> 2.15.0 (accepted)"),
        (["through", "--accept", "tifffile"], 1, "zarr 3.1.6 -> 2.15.0\n"),
        (["unheard-of"], 2, "pip cannot plan it"),
    ],
)
def test_pip_is_asked(elsewhere: dict[str, str], arguments: list[str], code: int, words: str) -> None:
    command = [sys.executable, str(ROOT / "tools" / "downgrades.py"), *arguments]
    done = subprocess.run(command, env=elsewhere, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, "")
    assert words in done.stdout


def test_an_old_environment_shows_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(downgrades, "installed", lambda: {"napari": "0.9.2", "zarr": "2.15.0"})
    assert downgrades.main("anything") == 2
    assert "tifffile>=2025 (here: none), zarr>=3 (here: 2.15.0)" in capsys.readouterr().out


def test_this_environment_is_known() -> None:
    assert {"pytest", "numpy", "tifffile"} <= set(downgrades.installed())
