"""From data to figures by the command line, in folders with odd names; the images stay as they were."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from training_world import small_recipe

from im2im_core.cli import main
from im2im_core.io import open_image
from im2im_core.microscope import write_dataset
from im2im_core.runs import Run

ODD = [
    "100% ü (b)&c;$(touch canary)",
    "new\nline",
    "x" * 200,
    "%20 #2?",
    "'quoted\" `touch canary`",
    " leading",
    "画像.tif",
]


def state_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and time of every file."""
    return {
        str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file()
    }


def whole_way(folder: Path) -> None:
    """Train, predict, evaluate, export, predict with what was exported."""
    data = folder / "data"
    write_dataset(data, "instance_segmentation", count=3, shape=(48, 48), seed=0)
    before = state_of(data)
    small_recipe(data__path=str(data), training__steps=2).to_file(folder / "rezept ü.yaml")
    assert main(["train", str(folder / "rezept ü.yaml"), "--project", str(folder / "p"), "--name", "Läufe 1"]) == 0
    run = Run(folder / "p" / "runs" / "Läufe 1")
    images, out = str(data / "IM"), folder / "out"
    assert main(["predict", str(run.folder), images, "-o", str(out)]) == 0
    assert main(["evaluate", str(out), str(data / "GT"), "--kind", "labels", "--csv", str(folder / "f.csv")]) == 0
    assert main(["export", str(run.folder), str(folder / "m #1.zip")]) == 0
    name = sorted((data / "IM").iterdir())[0].name
    assert main(["predict", str(folder / "m #1.zip"), str(data / "IM" / name), "-o", str(folder / "again.tif")]) == 0
    assert (open_image(folder / "again.tif").read() == open_image(out / name).read()).all()
    assert len(before) >= 6
    assert state_of(data) == before
    assert not list(Path.cwd().glob("canary"))


def test_fault_39_46_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "пробел ü 画像 #1"
    folder.mkdir()
    monkeypatch.chdir(folder)
    whole_way(folder)


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("name", ODD, ids=range(len(ODD)))
def test_fault_39_46_the_whole_way_in_odder_folders(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    whole_way(folder)
