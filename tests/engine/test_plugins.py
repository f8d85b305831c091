"""A package of somebody else: its framework, network and loss are chosen by name, its faults stay its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from im2im_core.microscope import write_dataset

SETTINGS = '''
"""Settings of a package outside of this repository; no torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Gt
from im2im_core._base import Config


class MineSettings(Config):
    """Learns the image by absolute differences."""

    kind: Literal["mine"] = "mine"
    target: ClassVar[str] = "elsewhere.engine:Mine"
    learns_from: ClassVar[str] = "pairs"
    tasks: ClassVar[tuple[str, ...]] = ("label_free",)
    strength: Annotated[float, Gt(0)] = 1.0
    """Factor of the only term."""


class OneLayer(Config):
    """A single convolution."""

    kind: Literal["one_layer"] = "one_layer"
    target: ClassVar[str] = "elsewhere.engine:one_layer"
    stem: int = 1
    """Pixels folded into channels."""


class Charbonnier(Config):
    """A smooth absolute difference."""

    kind: Literal["charbonnier"] = "charbonnier"
    target: ClassVar[str] = "elsewhere.engine:Charbonnier"
    weight: float = 1.0
    """Factor of this term in the sum."""


class Doubled(MineSettings):
    """Calls itself as a shipped framework does."""

    kind: Literal["fcn"] = "fcn"


class Unfinished(Config):
    """Does not say what it learns."""

    kind: Literal["unfinished"] = "unfinished"
    target: ClassVar[str] = "elsewhere.engine:Mine"
'''
ENGINE = '''
"""What the settings name."""

import numpy as np
from torch import nn

from im2im_core.engine.frameworks.contract import Framework, OutputSpec, Player, TargetSpec
from im2im_core.engine.losses import known_only, weighted_mean


class Mine(Framework):
    """One network, one term."""

    def __init__(self, settings, make_network, shapes):
        super().__init__()
        self.settings, self.shapes = settings, shapes
        self.network = make_network(shapes.input_channels, shapes.target_channels)
        self.outputs = self.results = (OutputSpec("image", "image", shapes.target_channels),)
        self.targets = (TargetSpec("target", shapes.target_channels),)

    def encode(self, targets, weight):
        return {"target": np.asarray(targets["target"], np.float32)}

    def players(self):
        return (Player("network", list(self.parameters())),)

    def losses(self, batch, player, context):
        truth = known_only(batch["target"], batch["weight"])
        return {"mine": weighted_mean((self.network(batch["source"]) - truth).abs(), batch["weight"])}

    def loss_weights(self):
        return {"mine": self.settings.strength}

    def translate(self, x, context):
        return {"image": self.network(x)}

    def postprocess(self, maps, context):
        return dict(maps)


def one_layer(settings, dimensions, in_channels, out_channels, voxel_size):
    layer = (nn.Conv2d if dimensions == 2 else nn.Conv3d)(in_channels, out_channels, 3, padding=1)
    return layer, (1,) * dimensions


class Charbonnier:
    def __init__(self, settings):
        pass

    def __call__(self, prediction, target, weight):
        return weighted_mean(((prediction - known_only(target, weight)) ** 2 + 1e-6).sqrt(), weight)
'''
POINTS = """[im2im]
framework.mine = elsewhere.settings:MineSettings
framework.fcn = elsewhere.settings:Doubled
framework.gone = elsewhere.missing:Settings
framework.unfinished = elsewhere.settings:Unfinished
network.one_layer = elsewhere.settings:OneLayer
loss.charbonnier = elsewhere.settings:Charbonnier
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Folder that holds an installed package as pip leaves it."""
    site = tmp_path / "site"
    (site / "elsewhere").mkdir(parents=True)
    for name, text in (("__init__", ""), ("settings", SETTINGS), ("engine", ENGINE)):
        (site / "elsewhere" / f"{name}.py").write_text(text)
    facts = site / "elsewhere-1.2.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.2\n")
    (facts / "entry_points.txt").write_text(POINTS)
    return site


def im2im(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "im2im_core.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=site)


def test_framework_and_network_of_another_package_train_and_predict(elsewhere: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_dataset(data, "label_free", count=2, shape=(48, 48), seed=1)
    words = ["--data.path", str(data), "--training.steps", "1", "--training.batch", "1", "--data.patch", "[16, 16]"]
    kinds = ["--framework.kind", "mine", "--framework.strength", "2", "--network.kind", "one_layer"]
    fast = ["--training.device", "cpu", "--training.threads", "1", "--training.workers", "0"]
    done = im2im(elsewhere, "train", "labelfree_2d", *words, *kinds, *fast, "--project", str(tmp_path / "p"), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["state"] == "finished"
    image = sorted((data / "IM").iterdir())[0]
    out = tmp_path / "out.tif"
    done = im2im(elsewhere, "predict", result["model"], str(image), "-o", str(out), "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert out.exists()


CHECK = """
import sys
from im2im_core import api, share
from im2im_core.errors import ConfigError
from im2im_core.recipe import FcnSettings, Recipe
from im2im_core.recipe.fields import walk

recipe = api.load_preset("labelfree_2d").override({"framework.kind": "mine", "network.kind": "one_layer"})
assert Recipe.load(recipe.dump()) == recipe
assert {f.name: f.help for f in walk(recipe)}["framework.strength"] == "Factor of the only term."
assert "Learns the image by absolute differences" in share.methods_paragraph(recipe)
losses = api.load_preset("labelfree_2d").override({"framework.losses": [{"kind": "charbonnier", "weight": 3}]})
assert losses.framework.losses[0].weight == 3
assert type(api.load_preset("labelfree_2d").framework) is FcnSettings
assert "torch" not in sys.modules
for changes in (
    {"framework.kind": "gone"},
    {"framework.kind": "unfinished"},
    {"framework.kind": "mine", "task": "restoration"},
):
    try:
        api.load_preset("labelfree_2d").override(changes)
    except ConfigError as error:
        print(error.message.splitlines()[0])
"""


def test_settings_of_another_package_are_settings_like_ours(elsewhere: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(elsewhere)},
    )
    assert done.returncode == 0, done.stderr
    gone, unfinished, task = done.stdout.splitlines()
    assert gone.startswith(
        "The entry point framework.gone = elsewhere.missing:Settings of elsewhere 1.2 cannot be used"
    )
    assert "No module named 'elsewhere.missing'" in gone
    assert "has no learns_from, tasks" in unfinished
    assert "task restoration cannot be learned by framework mine, which learns label_free" in task


def test_a_package_that_cannot_be_loaded_is_named_where_its_kind_is_asked_for(elsewhere: Path) -> None:
    shown = im2im(elsewhere, "presets")
    assert shown.returncode == 0, shown.stderr
    asked = im2im(elsewhere, "train", "labelfree_2d", "--framework.kind", "gone")
    assert asked.returncode == 2
    assert "framework.gone = elsewhere.missing:Settings of elsewhere 1.2 cannot be used" in asked.stderr


def test_charbonnier_of_another_package_is_a_loss(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    import torch

    from im2im_core.engine.losses import build_losses

    monkeypatch.syspath_prepend(str(elsewhere))
    settings = importlib.import_module("elsewhere.settings").Charbonnier()
    (term,) = build_losses([settings])
    value = term.loss(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
    assert np.isclose(float(value), 1, atol=1e-3)
