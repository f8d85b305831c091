"""Model packages: opened without torch, checked against their hashes, never unpickled."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from im2im_core import inference as inference_module
from im2im_core.archive import pack
from im2im_core.bundle import BundleMetadata, Citation, open_bundle
from im2im_core.bundle.onnx_data import external_files
from im2im_core.bundle.processing import REFUSED, Tensor, process, require_steps
from im2im_core.bundle.processing import STEPS as STANDARD
from im2im_core.errors import ConfigError, DataError, TrustError
from im2im_core.recipe.network import DynUNet


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


INFERENCE = {
    "shapes": {"dimensions": 2, "input_channels": 1},
    "input": {"normalization": {"kind": "percentile"}, "rescale": {"kind": "none"}},
    "framework": {"kind": "fcn"},
    "network": {"kind": "basic_unet"},
    "patch": [64, 64],
    "divisor": [16, 16],
    "halo": [20, 20],
    "outputs": [],
}


def _write(folder: Path, name: str, content: bytes) -> dict[str, str]:
    (folder / name).write_bytes(content)
    return {"source": name, "sha256": hashlib.sha256(content).hexdigest()}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A package with real safetensors weights and a test tensor."""
    from safetensors.numpy import save

    folder = tmp_path / "model"
    folder.mkdir()
    np.save(folder / "test_input.npy", np.ones((1, 1, 4, 4)))
    weights = _write(folder, "weights.safetensors", save({"w": np.arange(6, dtype=np.float32)}))
    tensor = _write(folder, "test_input.npy", (folder / "test_input.npy").read_bytes())
    content = {
        "name": "toy model",
        "description": "d",
        "authors": [{"name": "Ada"}],
        "covers": ["cover.png"],
        "inputs": [{"id": "raw", "test_tensor": tensor}],
        "config": {
            "im2im": {
                "inference": INFERENCE,
                "weights": weights,
                "trained_on": "discs",
                "provenance": {"metrics": {"dice": 0.5}, "recipe": {"source": "data/a", "sha256": "x"}},
            }
        },
    }
    (folder / "bioimageio.yaml").write_text(yaml.safe_dump(content))
    return folder


def _edit(folder: Path, change: Any) -> None:
    path = folder / "bioimageio.yaml"
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))


def test_opens_folder_run_file_zip_and_wrapped_zip(world: Path, tmp_path: Path) -> None:
    pack(world, tmp_path / "plain.zip")
    (tmp_path / "outer").mkdir()
    world.rename(tmp_path / "outer" / "model")
    pack(tmp_path / "outer", tmp_path / "wrapped.zip")
    places = [
        tmp_path / "outer" / "model",
        tmp_path / "outer",
        tmp_path / "outer" / "model" / "bioimageio.yaml",
        tmp_path / "plain.zip",
        tmp_path / "wrapped.zip",
    ]
    bundles = [open_bundle(p, cache=tmp_path / "cache") for p in places]
    assert len({b.identity for b in bundles}) == 1
    for bundle in bundles:
        bundle.verify()
        assert bundle.inference.halo == (20, 20)
        assert bundle.load_weights()["w"].tolist() == list(range(6))


def test_rdf_yaml_is_accepted_and_nothing_is_refused(world: Path, tmp_path: Path) -> None:
    (world / "bioimageio.yaml").rename(world / "rdf.yaml")
    assert open_bundle(world).name == "toy model"
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(DataError, match="no model package"):
            open_bundle(place)


def test_card(world: Path) -> None:
    card = open_bundle(world).card
    assert card["name"] == "toy model"
    assert card["metrics"] == {"dice": 0.5}
    assert card["trained_on"] == "discs"
    assert card["cover"] is None
    (world / "cover.png").write_bytes(b"png")
    assert open_bundle(world).card["cover"] == world / "cover.png"


def test_opening_imports_no_torch(world: Path) -> None:
    code = (
        f"import sys; from im2im_core.bundle import open_bundle; b = open_bundle({str(world)!r}); b.verify(); "
        "b.card; b.inference; print([m for m in ('torch', 'bioimageio.spec', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_foreign_package_has_no_inference(world: Path) -> None:
    _edit(world, lambda c: c.pop("config"))
    bundle = open_bundle(world)
    assert not bundle.is_ours
    with pytest.raises(ConfigError, match="no config"):
        bundle.inference  # noqa: B018
    assert bundle.card["name"] == "toy model"


@pytest.mark.parametrize("name", ["weights.safetensors", "test_input.npy"])
def test_fault_37_flipped_byte(world: Path, name: str) -> None:
    raw = bytearray((world / name).read_bytes())
    recorded = hashlib.sha256(raw).hexdigest()
    raw[-1] ^= 1
    (world / name).write_bytes(raw)
    with pytest.raises(TrustError) as error:
        open_bundle(world).verify()
    assert recorded in str(error.value)
    assert hashlib.sha256(raw).hexdigest() in str(error.value)
    if name.startswith("weights"):
        with pytest.raises(TrustError, match="sha256"):
            open_bundle(world).load_weights()


def test_fault_37_weights_without_hash(world: Path) -> None:
    _edit(world, lambda c: c["config"]["im2im"]["weights"].pop("sha256"))
    with pytest.raises(ConfigError, match="no weights with a sha256"):
        open_bundle(world).load_weights()


def test_fault_30_pickle_instead_of_safetensors(world: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    evil = pickle.dumps({"w": Evil(canary)})
    entry = _write(world, "weights.safetensors", evil)
    _edit(world, lambda c: c["config"]["im2im"]["weights"].update(entry))
    with pytest.raises(TrustError, match="not a safetensors file"):
        open_bundle(world).load_weights()
    assert not canary.exists()
    pickle.loads(evil)
    assert canary.exists(), "the payload itself must work, else the test shows nothing"


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "C:\\secret", "https://example.com/w", "link"])
def test_fault_34_files_outside_of_the_package(world: Path, name: str) -> None:
    (world.parent / "secret").write_bytes(b"secret")
    (world / "link").symlink_to(world.parent / "secret")
    entry = {"source": name, "sha256": hashlib.sha256(b"secret").hexdigest()}
    _edit(world, lambda c: c["config"]["im2im"].update(weights=entry))
    with pytest.raises(TrustError, match="refers to"):
        open_bundle(world).load_weights()


def test_fault_34_two_descriptions_in_one_zip(world: Path, tmp_path: Path) -> None:
    (world / "bioimageio.yaml").rename(world / "rdf.yaml")
    (world / "RDF.yaml").write_text("name: other")
    pack(world, tmp_path / "m.zip")
    with pytest.raises(TrustError, match="one name"):
        open_bundle(tmp_path / "m.zip", cache=tmp_path / "cache")


def test_missing_file_is_named(world: Path) -> None:
    (world / "test_input.npy").unlink()
    with pytest.raises(DataError, match=r"test_input\.npy"):
        open_bundle(world).verify()


def test_invalid_description_says_where(world: Path) -> None:
    _edit(world, lambda c: c.update(type="model", format_version="0.5.3"))
    with pytest.raises(ConfigError, match="outputs"):
        open_bundle(world).validate()


def test_metadata() -> None:
    assert BundleMetadata(name="核").standard_name == "_ model"
    assert BundleMetadata(name="Nuclei #1 (2D)").standard_name == "Nuclei _1 (2D)"
    with pytest.raises(ConfigError, match="doi or a url"):
        Citation.load({"text": "someone"})


# ---- processing, against bioimageio.core's operators or closed forms ----

STEPS = [
    {"id": "scale_range", "kwargs": {"axes": ["y", "x"], "min_percentile": 3.0, "max_percentile": 97.5}},
    {"id": "scale_range", "kwargs": {"axes": ["channel", "y", "x"]}},
    {"id": "zero_mean_unit_variance", "kwargs": {"axes": ["channel", "x"]}},
    {"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": 3.0, "std": 2.0}},
    {"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": [3.0, 5.0], "std": [2.0, 7.0], "axis": "channel"}},
    {"id": "scale_linear", "kwargs": {"gain": [2.0, 3.0], "offset": [1.0, -1.0], "axis": "channel"}},
    {"id": "scale_linear", "kwargs": {"gain": 2.5, "offset": 1.0}},
    {"id": "binarize", "kwargs": {"threshold": 4.0}},
    {"id": "clip", "kwargs": {"min": 2.0, "max": 6.0}},
    {"id": "clip", "kwargs": {"min_percentile": 10.0, "max_percentile": 90.0, "axes": ["y", "x"]}},
    {"id": "sigmoid"},
    {"id": "softmax", "kwargs": {"axis": "channel"}},
    {"id": "ensure_dtype", "kwargs": {"dtype": "uint8"}},
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", STEPS, ids=lambda s: s["id"])
def test_processing_agrees_with_bioimageio_core(step: dict[str, Any]) -> None:
    core = pytest.importorskip("bioimageio.core")
    from bioimageio.core.proc_ops import get_proc
    from bioimageio.core.stat_calculators import compute_measures
    from bioimageio.spec.model import v0_5
    from pydantic import TypeAdapter

    array = np.random.default_rng(1).gamma(2, 3, (1, 2, 9, 11)).astype(np.float32)
    axes = ("batch", "channel", "y", "x")
    described = TypeAdapter(v0_5.PreprocessingDescr).validate_python(step)
    tensor = v0_5.InputTensorDescr(
        id=v0_5.TensorId("raw"),
        axes=[
            v0_5.BatchAxis(),
            v0_5.ChannelAxis(channel_names=["a", "b"]),
            *(v0_5.SpaceInputAxis(id=v0_5.AxisId(a), size=n) for a, n in (("y", 9), ("x", 11))),
        ],
    )
    operator = get_proc(described, tensor)
    sample = core.Sample(members={"raw": core.Tensor(array, dims=axes)}, stat={}, id="s")
    sample.stat = compute_measures(operator.required_measures, [sample])
    operator(sample)
    found = process(Tensor(array, axes), [step]).array
    np.testing.assert_allclose(found, sample.members["raw"].data.to_numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_mean_and_spread_of_another_tensor_agree_with_bioimageio_core() -> None:
    core = pytest.importorskip("bioimageio.core")
    from bioimageio.core.proc_ops import ScaleMeanVariance
    from bioimageio.core.stat_calculators import compute_measures

    random = np.random.default_rng(1)
    axes = ("batch", "channel", "y", "x")
    array, other = (random.gamma(2, k, (1, 2, 9, 11)).astype(np.float32) for k in (3, 5))
    operator = ScaleMeanVariance(input="made", output="made", axes=("y", "x"), reference_tensor="raw")
    members = {name: core.Tensor(a, dims=axes) for name, a in (("made", array), ("raw", other))}
    sample = core.Sample(members=members, stat={}, id="s")
    sample.stat = compute_measures(operator.required_measures, [sample])
    operator(sample)
    step = {"id": "scale_mean_variance", "kwargs": {"axes": ["y", "x"], "reference_tensor": "raw"}}
    found = process(Tensor(array, axes), [step], {"raw": Tensor(other, axes)}).array
    np.testing.assert_allclose(found, sample.members["made"].data.to_numpy(), rtol=1e-5, atol=1e-5)


def test_every_standard_step_is_run_or_refused_with_words() -> None:
    from bioimageio.spec.model import v0_5

    known = {c.implemented_id for c in vars(v0_5).values() if isinstance(getattr(c, "implemented_id", None), str)}
    assert known == set(STANDARD) | set(REFUSED)
    for name in REFUSED:
        with pytest.raises(ConfigError, match=rf"{name}' of 'labels' cannot be run.*here"):
            require_steps([{"id": name}], "labels")


def test_unknown_step_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="scale_range"):
        process(Tensor(np.zeros((1, 1)), ("y", "x")), [{"id": "scale_rang"}])


# ---- external data of ONNX ----


def _message(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + bytes([len(content)]) + content


def onnx_with_external(location: str) -> bytes:
    """ONNX model whose only weight lies in another file."""
    entry = _message(1, b"location") + _message(2, location.encode())
    tensor = bytes([8, 1, 16, 1]) + _message(13, entry)
    return bytes([8, 8]) + _message(7, _message(5, tensor))


def test_fault_38_external_data_is_found_in_the_bytes() -> None:
    assert external_files(onnx_with_external("../../x")) == {"../../x"}
    assert external_files(bytes([8, 8])) == set()
    with pytest.raises(TrustError, match="not an ONNX model"):
        external_files(b"\xff" * 50)


# ---- older descriptions ----


def test_older_inference_descriptions_are_lifted(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(content: dict[str, Any]) -> dict[str, Any]:
        return {"halo" if name == "reach" else name: value for name, value in content.items()}

    def old(content: dict[str, Any]) -> None:
        described = content["config"]["im2im"]["inference"]
        described["reach"] = described.pop("halo")
        described["schema_version"] = 1

    _edit(world, old)
    with pytest.raises(ConfigError, match="reach"):
        _ = open_bundle(world).inference
    monkeypatch.setattr(inference_module, "INFERENCE_VERSION", 2)
    monkeypatch.setattr(inference_module, "INFERENCE_MIGRATIONS", {1: rename})
    found = open_bundle(world).inference
    assert (found.halo, found.schema_version) == ((20, 20), 2)


def test_flat_levels_of_older_descriptions_become_kernels_and_strides(world: Path) -> None:
    def old(content: dict[str, Any]) -> None:
        described = content["config"]["im2im"]["inference"]
        described["schema_version"] = 1
        described["network"] = {"kind": "dynunet", "filters": [4, 4, 4], "anisotropy": [False, False, False]}

    _edit(world, old)
    network = open_bundle(world).inference.network
    assert isinstance(network, DynUNet)
    dimensions = open_bundle(world).inference.shapes.dimensions
    assert network.strides == ((1,) * dimensions, (2,) * dimensions, (2,) * dimensions)
    assert network.kernels == ((3,) * dimensions,) * 3


def test_inference_description_of_a_newer_version_is_refused(world: Path) -> None:
    _edit(world, lambda content: content["config"]["im2im"]["inference"].update(schema_version=99))
    with pytest.raises(
        ConfigError, match=rf"99, this program knows up to {inference_module.INFERENCE_VERSION}.*Update"
    ):
        _ = open_bundle(world).inference
