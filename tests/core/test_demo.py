"""The demonstration says what to type next, also where it was interrupted; its helpers say what is missing."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from im2im_core import api, demo, microscope
from im2im_core.errors import Stopped
from im2im_core.project import Project

TOOLS = Path(__file__).parents[2] / "tools"


@dataclass
class PausedRun:
    folder: Path
    state: str = "paused"


def test_commands_work_where_they_are_pasted() -> None:
    text = demo.command("im2im", "show", "no such preset")
    assert shlex.split(text)[-1] == "no such preset"
    done = subprocess.run([*shlex.split(text)[:-2], "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("im2im ")


def test_programs_without_a_script_are_modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = tmp_path / "my env" / "python"
    monkeypatch.setattr(sys, "executable", str(python))
    assert shlex.split(demo.command("im2im", "runs")) == [str(python), "-m", "im2im_core.cli", "runs"]
    assert shlex.split(demo.command("napari")) == [str(python), "-m", "napari"]
    for name in ("python", "im2im"):
        (python.parent / name).parent.mkdir(exist_ok=True)
        (python.parent / name).touch(0o755)
    assert shlex.split(demo.command("im2im", "runs")) == [str(python.parent / "im2im"), "runs"]


@pytest.mark.parametrize("early", [False, True])
def test_interrupted_demonstration_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, early: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my demo"

    def train(*args: Any, **options: Any) -> PausedRun:
        if early:
            raise Stopped("Stopped after 1 of 14 images were read")
        return PausedRun(folder / "run")

    monkeypatch.setattr(Project, "runs", lambda self: [PausedRun(folder / "run")])

    monkeypatch.setattr(microscope, "write_dataset", lambda *args, **options: None)
    monkeypatch.setattr(api, "train", train)
    assert demo.main(["--folder", str(folder)]) == 130
    text = capsys.readouterr().err
    assert "The training is paused" in text
    assert shlex.join(["resume", str((folder / "run").resolve())]) in text


@pytest.fixture
def libraries() -> ModuleType:
    """The tool that names libraries of the system."""
    spec = importlib.util.spec_from_file_location("system_libraries", TOOLS / "system_libraries.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("platform", "there", "said"), [("linux", False, True), ("linux", True, False), ("darwin", False, False)]
)
def test_libraries_are_named_where_there_is_no_apt(
    libraries: ModuleType,
    platform: str,
    there: bool,
    said: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(libraries.shutil, "which", lambda name: name if there and name in libraries.PROGRAMS else None)
    monkeypatch.setattr(libraries, "_loads", lambda name: there)
    assert libraries.main() == 0
    assert ("libxcb-cursor.so.0" in capsys.readouterr().err) == said
