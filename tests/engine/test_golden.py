"""What older versions wrote can still be read: the recipe and the model package of every release."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from im2im_core import api
from im2im_core.bundle import open_bundle
from im2im_core.engine.foreign import ForeignModel
from im2im_core.recipe import Recipe
from im2im_core.recipe.network import UNet

DATA = Path(__file__).parents[1] / "data"
RELEASES = sorted(p.name.split("_")[1] for p in DATA.glob("golden_*_bundle.zip"))


def golden(release: str, rest: str) -> Path:
    return DATA / f"golden_{release}_{rest}"


def test_every_release_left_its_files() -> None:
    """`tools/make_golden.py` makes them."""
    assert "0.1.0" in RELEASES
    assert sum(p.stat().st_size for p in DATA.glob("golden_0.1.0_*")) < 100_000


@pytest.mark.parametrize("release", RELEASES)
def test_recipe_of_a_release_is_read_and_means_the_same(release: str) -> None:
    recipe = Recipe.from_file(golden(release, "recipe.yaml"))
    assert (recipe.name, recipe.task, recipe.framework.kind) == ("golden", "instance_segmentation", "instance")
    assert isinstance(recipe.network, UNet)
    assert recipe.network.channels == (4, 8)
    assert (recipe.patch_size, recipe.batch_size, recipe.training.steps) == ((32, 32), 4, 300)
    assert recipe.training.optimizer.lr == 0.01
    assert Recipe.load(recipe.dump()) == recipe


@pytest.mark.parametrize("release", RELEASES)
def test_model_of_a_release_predicts_what_it_did(release: str, tmp_path: Path) -> None:
    expected = np.load(golden(release, "prediction.npz"), allow_pickle=False)
    package = golden(release, "bundle.zip")
    found = api.predict(package, expected["image"], outputs=["labels", "foreground"], device="cpu")
    assert np.allclose(found["foreground"], expected["foreground"], atol=2e-3)
    assert ((found["labels"] > 0) != (expected["labels"] > 0)).mean() < 0.01
    assert found["labels"].max() == expected["labels"].max() > 2
    assert ForeignModel(open_bundle(package, tmp_path), apart=False).check() < 1e-3
