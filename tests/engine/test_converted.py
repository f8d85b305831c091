"""Converted configurations of mmv_im2im can be planned and trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conversion_world import DENOISING, EMBEDSEG, SEGMENTATION, monai, named, training
from im2im_core import api
from im2im_core.conversion import convert_content
from im2im_core.microscope import write_dataset
from im2im_core.project import Project
from paper_world import TRAININGS

LAYERS = [
    {"name": "conv_0", "n_features": 4, "kernel_size": 3},
    {"name": "res_1", "n_features": 4, "kernels": [3, 3], "repeat": 1},
    {"name": "conv_1", "n_features": 4, "kernel_size": 1},
    {"name": "conv_2", "kernel_size": 1},
]
HIGH_RES = {
    "model__net": named(
        "monai.networks.nets", "HighResNet", spatial_dims=2, in_channels=1, out_channels=1, layer_params=LAYERS
    )
}
FNET = {"model__net": named("mmv_im2im.models.nets.fnet_nn_2d", "Net", depth=2, mult_chan=4)}
SHIFT = {"data__augmentation": [monai("RandHistogramShiftd", keys=["IM"], prob=1.0, num_control_points=5)]}
ADAM = {"model__optimizer": named("torch.optim", "Adam", lr=0.001, weight_decay=0.0005)}
SMALL: dict[str, Any] = {
    "training.steps": 2,
    "training.batch": 2,
    "training.device": "cpu",
    "logging.every": 1,
}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "label-free, HighResNet": (HIGH_RES | ADAM, {}),
    "label-free, fnet": (FNET, {}),
    "segmentation": (SEGMENTATION | SHIFT, {"data.input_channels": None, "data.patch": [32, 32]}),
    "instances": (EMBEDSEG, {"network.features": [8, 8, 8, 8, 8, 8], "data.patch": [32, 32]}),
    "restoration in 3D": (DENOISING, {}),
}


PLANE: dict[str, Any] = {"data.patch": [32, 32]}
VOLUME: dict[str, Any] = {"data.patch": [8, 32, 32], "training.devices": 1, "training.strategy": "auto"}
PAPER: dict[str, dict[str, Any]] = {
    "semantic_seg_2d_train": PLANE | {"network.channels": [8, 8, 8]},
    "semantic_seg_3d_train": VOLUME | {"network.filters": [8, 8, 8, 8], "framework.classes": 3},
    "denoising_3d_train": VOLUME | {"network.channels": [8, 8, 8, 8]},
    "labelfree_2d_fnet_train": PLANE | {"network.filters": [8, 8, 8, 8, 8]},
    "labelfree_3d_fnet_train": VOLUME
    | {"network.filters": [8, 8, 8, 8, 8], "data.patch": [16, 32, 32], "data.layout": {"kind": "auto"}},
    "modality_transfer_3d_train": VOLUME | {"network.filters": [8, 8, 8]},
    "instance_seg_2d_train": PLANE | {"network.features": [8, 8, 8, 8, 8, 8]},
    "instance_seg_3d_train_fluo_pretrain": VOLUME | {"network.filters": [8, 8, 8]},
}
"""Files like those of the paper, with networks, patches and machines that a test has time for."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_a_converted_configuration_plans_trains_and_predicts(tmp_path: Path, case: str) -> None:
    changes, smaller = CASES[case]
    learn(tmp_path, training(**changes), smaller)


def test_every_file_of_the_paper_is_learned_from() -> None:
    assert set(PAPER) == set(TRAININGS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PAPER)
def test_a_configuration_of_the_paper_plans_trains_and_predicts(tmp_path: Path, name: str) -> None:
    learn(tmp_path, TRAININGS[name](), PAPER[name])


def learn(folder: Path, content: dict[str, Any], smaller: dict[str, Any]) -> None:
    """Convert `content`, make it `smaller`, train it for two steps on simulated images and predict one of them."""
    recipe = convert_content(content, "config.yaml").recipe
    dimensions = recipe.data.dimensions
    shape = (48, 64) if dimensions == 2 else (16, 40, 36)
    write_dataset(folder / "data", recipe.task, count=4, shape=shape, seed=1, dimensions=dimensions)
    recipe = recipe.override({**SMALL, **smaller, "data.path": str(folder / "data")})
    project = Project.create(folder / "project")
    planned = api.plan(recipe, project=project).recipe
    assert planned.data.patch == recipe.data.patch
    run = api.train(recipe, project=project, name="small")
    assert run.state == "finished"
    found = api.predict(run.model, sorted((folder / "data" / "IM").iterdir())[0])
    assert found.shape == shape
    assert np.isfinite(found).all()
