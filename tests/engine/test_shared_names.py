"""Weights under several names: MONAI's DynUNet has its layers twice, files have them once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from im2im_core.bundle import BundleMetadata
from im2im_core.bundle.shared_names import read_header, stored_once, under_all_names
from im2im_core.engine.checkpoint import Checkpoint, CheckpointFolder
from im2im_core.engine.export import export_bundle
from im2im_core.engine.frameworks.build import build_framework
from im2im_core.engine.weights_file import read_weights
from im2im_core.inference import Inference

if TYPE_CHECKING:
    from im2im_core.engine.frameworks.contract import Framework

FRAME = 20_000
"""Bytes that the names of a small network may take in a file."""
PROGRAM = 200_000
"""Bytes that its program may take beside them."""


@pytest.fixture(scope="module")
def inference() -> Inference:
    return Inference.load(
        {
            "name": "twice",
            "task": "label_free",
            "shapes": {"dimensions": 2, "input_channels": 1},
            "input": {"normalization": {"kind": "percentile"}, "rescale": {"kind": "none"}},
            "framework": {"kind": "fcn"},
            "network": {"kind": "dynunet", "filters": [32, 64, 64]},
            "patch": [32, 32],
            "divisor": [4, 4],
            "halo": [8, 8],
            "outputs": [{"name": "prediction", "kind": "image", "channels": 1, "axes": "CZYX"}],
        }
    )


@pytest.fixture(scope="module")
def framework(inference: Inference) -> Framework:
    torch.manual_seed(0)
    return build_framework(inference.framework, inference.network, inference.shapes)


def held(framework: Framework) -> int:
    """Bytes of the weights, each counted once."""
    return sum(p.nbytes for p in (*framework.parameters(), *framework.buffers()))


def listed(framework: Framework) -> int:
    """Bytes of the weights, each counted under every name that it has."""
    return sum(v.nbytes for v in framework.state_dict().values())


def test_a_network_lists_its_layers_twice(framework: Framework) -> None:
    assert listed(framework) > 1.8 * held(framework) > held(framework) + 2 * PROGRAM


def test_a_package_holds_each_weight_once(framework: Framework, inference: Inference, tmp_path: Path) -> None:
    sample = np.random.default_rng(0).random((1, 48, 48), np.float32)
    bundle = export_bundle(
        framework, inference, tmp_path / "m", metadata=BundleMetadata(name="twice", description="Twice."), sample=sample
    )
    for path in (bundle.weights_path, bundle.file("weights.pt")):
        assert held(framework) <= path.stat().st_size < held(framework) + FRAME + PROGRAM, path.name
    loaded, state = bundle.load_weights(), framework.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    content = bundle.weights_path.read_bytes()
    assert read_weights(content, "weights.safetensors").keys() == state.keys()


def test_packages_that_hold_them_twice_are_read_as_before(
    framework: Framework, inference: Inference, tmp_path: Path
) -> None:
    state = {name: value.clone() for name, value in framework.state_dict().items()}
    assert read_weights(save(state), "older.safetensors").keys() == state.keys()


def test_a_checkpoint_holds_each_weight_once(framework: Framework, tmp_path: Path) -> None:
    weights = {f"model.{name}": value for name, value in framework.state_dict().items()}
    folder = CheckpointFolder(tmp_path)
    folder.save(Checkpoint(3, weights, {"step": 3}))
    (path,) = tmp_path.glob("*.safetensors")
    assert held(framework) <= path.stat().st_size < held(framework) + FRAME
    found = folder.newest()
    assert found is not None
    assert found.weights.keys() == weights.keys()
    assert all(torch.equal(found.weights[name], weights[name]) for name in weights)


def test_only_the_same_values_share_a_place() -> None:
    values = torch.arange(12.0)
    state = {
        "a": values,
        "same": values,
        "other shape": values.reshape(3, 4),
        "other type": values.view(torch.int32),
        "equal": values.clone(),
        "part": values[:6],
        "empty": torch.empty(0),
        "empty too": torch.empty(0),
    }
    kept, others = stored_once(state)
    assert others == {"same": "a"}
    assert kept.keys() | others.keys() == state.keys()


def test_metadata_of_other_programs_name_no_weight(tmp_path: Path) -> None:
    said = {"format": "pt", "title": "a", "b": "a", "a": "b", "c": "nothing"}
    weights = {"a": torch.ones(2), "b": torch.zeros(2)}
    save_file(weights, tmp_path / "w.safetensors", {k: v for k, v in said.items() if k != "title"})
    found = under_all_names(weights, read_header(tmp_path / "w.safetensors"))
    assert {k: v.tolist() for k, v in found.items()} == {"a": [1, 1], "b": [0, 0]}
    save_file(weights, tmp_path / "w.safetensors", said)
    assert under_all_names(weights, (tmp_path / "w.safetensors").read_bytes())["title"] is weights["a"]
