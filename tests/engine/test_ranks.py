"""Several processes learn as one: the same weights, one run, decisions of the first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_world import small_recipe

from im2im_core.engine.checkpoint import Checkpoint, CheckpointFolder
from im2im_core.microscope import write_dataset
from im2im_core.project import Project
from im2im_core.recipe import Recipe

STEPS = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    write_dataset(folder / "data", "instance_segmentation", count=3, shape=(48, 48), seed=0)
    return folder


def recipe_of(world: Path, **changes: object) -> Recipe:
    settings = {"training__steps": STEPS, "training__optimizer__kind": "sgd", **changes}
    return small_recipe(**settings).override({"data.path": str(world / "data")})


def train(world: Path, name: str, recipe: Recipe) -> Checkpoint:
    """Newest checkpoint of a training in processes of its own."""
    recipe.to_file(world / f"{name}.yaml")
    project = Project.create(world / "project")
    words = ["train", str(world / f"{name}.yaml"), "--project", str(project.root), "--name", name]
    done = subprocess.run(
        [sys.executable, "-m", "im2im_core.cli", *words],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = CheckpointFolder(project.root / "runs" / name / "checkpoints").newest()
    assert found is not None
    return found


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_two_processes_learn_what_one_learns_with_twice_the_accumulation(world: Path) -> None:
    one = train(world, "one", recipe_of(world, training__accumulate=2))
    two = train(world, "two", recipe_of(world, training__devices=2, training__strategy="ddp"))
    names = [name for name in one.weights if name.endswith(("weight", "bias"))]
    assert names
    for name in names:
        torch.testing.assert_close(one.weights[name], two.weights[name], rtol=1e-4, atol=1e-6)
    runs = Project.create(world / "project").runs()
    assert sorted((run.name, run.state) for run in runs) == [("one", "finished"), ("two", "finished")]
    assert all((run.model / "rdf.yaml").exists() or any(run.model.glob("*.yaml")) for run in runs)
    rows = [(run.folder / "metrics.csv").read_text().count("train,total") for run in runs]
    assert rows == [STEPS, STEPS]  # written by the first process alone


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_a_budget_in_time_ends_all_processes_together(world: Path) -> None:
    found = train(
        world,
        "timed",
        recipe_of(world, training__steps=None, training__minutes=0.1, training__devices=2, training__strategy="ddp"),
    )
    assert found.step > 0
