"""Configurations like those of the paper of mmv_im2im, through the command line: recipe, notes and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import paper_world
from im2im_core import api
from im2im_core.cli import main
from im2im_core.layouts import PreSplitLayout
from im2im_core.normalize import CentreZScore, Percentile, ZScore
from im2im_core.recipe import losses as loss
from im2im_core.recipe import network as net
from paper_world import ADVERSARIAL, PREDICTIONS, TRAININGS

EXPECTED: dict[str, dict[str, Any]] = {
    "semantic_seg_2d_train": {
        "task": "semantic_segmentation",
        "data.normalization": ZScore(),
        "data.patch": (512, 512),
        "data.input_channels": None,
        "data.augmentation.scale": (0.75, 1.25),
        "data.augmentation.rotate": 0,
        "data.augmentation.flip": True,
        "framework.classes": 2,
        "framework.losses": (loss.GeneralizedDice(background=True), loss.Focal()),
        "network": net.AttentionUnet(channels=(32, 64, 128, 256, 512, 1024)),
        "training.batch": 8,
        "training.epochs": 5000,
        "training.early_stopping.enabled": True,
        "training.scheduler.kind": "plateau",
        "training.precision": "fp32",
    },
    "semantic_seg_3d_train": {
        "task": "semantic_segmentation",
        "data.dimensions": 3,
        "network.strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)),
        "network.kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
        "network.filters": (32, 64, 128, 256),
        "network.residual": True,
        "data.patch": (32, 128, 128),
        "training.batch": 16,
    },
    "denoising_3d_train": {
        "task": "restoration",
        "network": net.UNet(channels=(64, 128, 256, 512), residual_units=3, norm="instance"),
        "framework.losses": (loss.L2(),),
        "data.patch": "auto",
    },
    "labelfree_2d_fnet_train": {
        "task": "label_free",
        "network.filters": (32, 64, 128, 256, 512),
        "data.target_normalization": Percentile(low=0.5, high=99.5),
        "data.patch": (512, 512),
    },
    "labelfree_3d_fnet_train": {
        "data.path": "/mnt/eternus/a",
        "data.layout": PreSplitLayout(),
        "data.normalization": CentreZScore(planes=32),
        "training.devices": 4,
        "training.strategy": "ddp_find_unused_parameters_true",
    },
    "modality_transfer_3d_train": {
        "task": "restoration",
        "network.kind": "dynunet",
        "data.patch": (6, 512, 512),
        "training.devices": 2,
        "training.strategy": "ddp",
    },
    "instance_seg_2d_train": {
        "framework.kind": "embedseg",
        "framework.centre": "medoid",
        "framework.foreground_weight": 10,
        "data.patch": (1280, 1280),
        "training.batch": 4,
    },
    "instance_seg_3d_train_fluo_pretrain": {
        "framework.kind": "embedseg",
        "data.dimensions": 3,
        "data.patch": (32, 256, 256),
        "training.batch": 1,
        "training.devices": 8,
    },
}
SAID: dict[str, tuple[str, ...]] = {
    "semantic_seg_2d_train": (
        "stains are not separated",
        "NormalizeIntensityd: is the only normalisation of IM here",
        "no elastic bending and no shifts",
        "turns in the Y-X plane alone, by the first of its angles",
        "500 of 5000 epochs",
    ),
    "semantic_seg_3d_train": (),
    "denoising_3d_train": ("batch_size: 16 whole images; how many patches, preset or plan choose", "task restoration"),
    "labelfree_2d_fnet_train": ("a dynunet of the same depth and widths",),
    "labelfree_3d_fnet_train": ("norm_around_center",),
    "modality_transfer_3d_train": (
        "UNet3D is not used here",
        '--network.init_args \'{"in_channel": 1, "n_classes": 1, "down_ratio": 3}\' --trust aicsmlsegment',
    ),
    "instance_seg_2d_train": (
        '--network.init_args \'{"num_classes": [4, 1], "input_channels": 1}\' --trust mmv_im2im',
    ),
    "instance_seg_3d_train_fluo_pretrain": ("model.model_extra.pre-train: its checkpoints are not read",),
}
"""Words that must be said of each file."""


def written(tmp_path: Path, name: str, content: Any) -> Path:
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def value_at(thing: Any, place: str) -> Any:
    for part in place.split("."):
        thing = getattr(thing, part)
    return thing


def test_every_file_is_looked_at() -> None:
    assert set(EXPECTED) == set(SAID) == set(TRAININGS)


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_becomes_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    file, out = written(tmp_path, name, TRAININGS[name]()), tmp_path / "recipe.yaml"
    assert main(["convert", str(file), "-o", str(out)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    recipe = api.load_recipe(out)
    assert {place: value_at(recipe, place) for place in EXPECTED[name]} == EXPECTED[name]
    assert "is not known here" not in told
    above = " ".join(" ".join(line.lstrip("# ") for line in out.read_text().splitlines() if line[:1] == "#").split())
    for words in SAID[name]:
        assert words in told
        assert words in above


def test_the_levels_of_a_file_make_the_network_of_the_file() -> None:
    """The same number of weights as MONAI's class has with the arguments of the file, but for its activations."""
    from monai.networks.nets import AttentionUnet

    from im2im_core.conversion import convert_content
    from im2im_core.engine.networks import build_network

    content = TRAININGS["semantic_seg_2d_train"]()
    named = content["model"]["net"]["params"]
    theirs = sum(p.numel() for p in AttentionUnet(**named).parameters())
    network = convert_content(content, "glas.yaml").recipe.network
    ours = sum(p.numel() for p in build_network(network, 2, named["in_channels"], named["out_channels"]).parameters())
    assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_networks_that_learn_against_each_other_are_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["convert", str(written(tmp_path, name, ADVERSARIAL[name])), "-o", str(tmp_path / "out.yaml")]) == 2
    told = capsys.readouterr().err
    framework = ADVERSARIAL[name]["model"]["framework"]
    assert f"{name}.yaml is for the framework {framework}" in told
    assert {"pix2pix": "Presets labelfree_2d and labelfree_3d", "cyclegan": "no framework for them"}[framework] in told
    assert not (tmp_path / "out.yaml").exists()


@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_prediction_is_refused_with_the_command_that_predicts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["convert", str(written(tmp_path, name, PREDICTIONS[name]))]) == 2
    told = capsys.readouterr().err
    gone = PREDICTIONS[name]["model"]["framework"] == "pix2pix"
    assert ("im2im predict MODEL holdout/*_IM.tiff -o pred" in told) != gone
    assert ("without a discriminator" in told) == gone


def test_notes_stand_in_json_with_their_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, "worms", paper_world.worms_2d())
    assert main(["convert", str(file), "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert {note["kind"] for note in notes} == {"differs", "missing"}
    assert any(note["place"] == "model.net BranchedERFNet_2d" for note in notes)
