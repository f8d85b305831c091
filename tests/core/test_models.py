"""The list of models: what is found, what its card says, what is left out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from im2im_core import models
from im2im_core.archive import pack
from im2im_core.errors import ConfigError, DataError
from im2im_core.models import add_model, forget_model, list_models, read_model
from im2im_core.project import Project

INFERENCE: dict[str, Any] = {
    "task": "instance_segmentation",
    "shapes": {"dimensions": 2, "input_channels": 1},
    "input": {"normalization": {"kind": "percentile"}, "rescale": {"kind": "none"}},
    "framework": {"kind": "instance"},
    "network": {"kind": "basic_unet"},
    "patch": [64, 64],
    "divisor": [16, 16],
    "halo": [20, 20],
    "outputs": [{"name": "labels", "kind": "labels", "channels": 1, "axes": "CZYX"}],
}
README = "# Toy\n\n## Limits\n\nNot for tissue.\nNot for stacks.\n\n## More\n\nother\n"


def package(folder: Path, name: str, **ours: Any) -> Path:
    """A package without weights; listing reads the description only."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cover.png").write_bytes(b"x")
    (folder / "README.md").write_text(README)
    content = {
        "name": name,
        "description": "Finds nuclei. And more.",
        "documentation": "README.md",
        "covers": ["cover.png"],
        "license": "CC0-1.0",
        "config": {"im2im": {"inference": INFERENCE, "trained_on": "discs", **ours}},
    }
    (folder / "bioimageio.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_card_says_what_it_is_for_and_what_not(tmp_path: Path) -> None:
    folder = package(tmp_path / "m", "nuclei", provenance={"metrics": {"ap50": 0.9, "note": "good"}})
    model = read_model(folder)
    assert model.sentence == "Finds nuclei."
    assert model.not_for == "Not for tissue. Not for stacks."
    assert model.metrics == (("ap50", 0.9),)
    assert model.cover == folder / "cover.png"
    assert model.inference.shapes.dimensions == 2
    assert (model.trained_on, model.licence) == ("discs", "CC0-1.0")


def test_every_place_is_looked_at_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "SHIPPED", tmp_path / "shipped")
    package(tmp_path / "shipped" / "a", "from shipped")
    project = Project.create(tmp_path / "project")
    package(project.root / "models" / "b", "from project")
    for number in (1, 2):
        run = project.root / "runs" / f"2026-{number}"
        package(run / "model", f"from run {number}")
        (run / "run.json").write_text("{}")
    (project.root / "runs" / "empty").mkdir()
    (project.root / "runs" / "empty" / "run.json").write_text("{}")
    pack(package(tmp_path / "else" / "c", "from zip"), tmp_path / "c.zip")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    add_model(tmp_path / "c.zip")
    assert [(m.name, m.origin) for m in list_models()] == [
        ("from shipped", "shipped"),
        ("from zip", "added"),
        ("from run 2", "run"),
        ("from run 1", "run"),
        ("from project", "project"),
    ]
    assert read_model(project.root / "runs" / "2026-1").name == "from run 1"


def test_broken_and_foreign_packages_do_not_hide_the_others(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "project")
    package(project.root / "models" / "good", "good")
    (package(project.root / "models" / "torn", "torn") / "bioimageio.yaml").write_text("name: [")
    foreign = package(project.root / "models" / "foreign", "foreign")
    (foreign / "bioimageio.yaml").write_text("name: foreign\n")
    (project.root / "models" / "broken.zip").write_bytes(b"no zip")
    assert [m.name for m in list_models()] == ["good"]
    with pytest.raises(ConfigError, match="format version none"):
        add_model(foreign)
    with pytest.raises(DataError, match="no model package"):
        add_model(tmp_path)


def test_added_models_stay_until_they_are_forgotten(tmp_path: Path) -> None:
    folder = package(tmp_path / "mine", "mine")
    add_model(folder)
    add_model(folder)
    assert [m.name for m in list_models()] == ["mine"]
    forget_model(folder)
    assert list_models() == ()
    assert (folder / "bioimageio.yaml").exists()


def test_listing_needs_no_torch() -> None:
    code = "import sys; from im2im_core.models import list_models; list_models(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
