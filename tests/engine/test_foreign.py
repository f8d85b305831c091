"""Models of other tools: their own test tensors come out, nothing else of theirs gets in."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from foreign_world import onnx_repeats

from im2im_core.bundle import open_bundle
from im2im_core.bundle.foreign import AxisSpec, TensorSpec
from im2im_core.cli import main
from im2im_core.engine.foreign import ForeignModel
from im2im_core.engine.predict import open_predictor
from im2im_core.engine.predict_foreign import from_tensor, to_tensor
from im2im_core.errors import ConfigError, DataError, Im2ImError, ResourceError, Stopped, TrustError
from im2im_core.events import TileDone
from im2im_core.image import ArrayImage
from im2im_core.io import open_image, write_image
from im2im_core.jobs import verbs
from im2im_core.models import add_model, list_models

ROOT = Path(os.environ.get("IM2IM_TEST_DATA", "")) / "bioimageio_models"
real = pytest.mark.skipif(not os.environ.get("IM2IM_TEST_DATA"), reason="IM2IM_TEST_DATA is not set")
pytestmark = pytest.mark.usefixtures("in_this_process")


class Blur(torch.nn.Module):
    """Mean of 3×3 pixels without padding trouble: a closed form that sees one pixel far."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (1, 1, 1, 1)), 3, 1)


def _entry(path: Path) -> dict[str, str]:
    return {"source": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _description(folder: Path, size: Any, weights: dict[str, Any]) -> Path:
    source, result = np.arange(256, dtype=np.float32).reshape(1, 1, 16, 16) / 64, None
    result = Blur()(torch.from_numpy(source)).numpy()
    np.save(folder / "in.npy", source)
    np.save(folder / "out.npy", result)
    space = [{"type": "space", "id": a, "size": size} for a in "yx"]
    content = {
        "format_version": "0.5.4",
        "type": "model",
        "name": "blur model",
        "inputs": [
            {
                "id": "raw",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["c"]}, *space],
                "test_tensor": _entry(folder / "in.npy"),
            }
        ],
        "outputs": [
            {
                "id": "mean",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": ["c"]},
                    *({"type": "space", "id": a, "halo": 2, "size": {"tensor_id": "raw", "axis_id": a}} for a in "yx"),
                ],
                "test_tensor": _entry(folder / "out.npy"),
            }
        ],
        "weights": weights,
    }
    (folder / "rdf.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.fixture
def blur(tmp_path: Path) -> Path:
    """A TorchScript package for images of 16 × 16 only."""
    torch.jit.script(Blur()).save(str(tmp_path / "w.pt"))
    return _description(tmp_path, 16, {"torchscript": {**_entry(tmp_path / "w.pt"), "pytorch_version": "2.0"}})


# ---- real packages ----


@real
@pytest.mark.parametrize(
    ("name", "weights"),
    [("unet2d_nuclei_broad", "torchscript"), ("unet2d_nuclei_broad", "onnx"), ("unet2d_multi_tensor", "torchscript")],
)
def test_real_package_reproduces_its_test_tensors(name: str, weights: str) -> None:
    if weights == "onnx":
        pytest.importorskip("onnxruntime")
    assert ForeignModel(open_bundle(ROOT / name), weights=weights).check(1e-4) <= 1e-4


@real
def test_real_package_with_two_inputs_runs_at_other_sizes() -> None:
    model = ForeignModel(open_bundle(ROOT / "unet2d_multi_tensor"))
    inputs = {
        k: np.pad(v, [(0, 0), (0, 0), (0, 7), (0, 21)], mode="symmetric") for k, v in model.test_tensors()[0].items()
    }
    found = model.predict(inputs)
    assert {k: v.shape for k, v in found.items()} == {f"output{i}": inputs["input0"].shape for i in (0, 1)}


@real
def test_real_package_with_wrong_hash_names_both() -> None:
    folder = ROOT / "legacy_2021_unet2d_nuclei_broad"
    with pytest.raises(TrustError) as error:
        ForeignModel(open_bundle(folder))
    found = hashlib.sha256((folder / "weights.onnx").read_bytes()).hexdigest()
    assert found in str(error.value)
    assert "5bf14c4e65e8601ab551db99409ba7981ff0e501719bc2b0ee625ca9a9375b32" in str(error.value)


@real
@pytest.mark.filterwarnings("ignore")
def test_legacy_description_that_cannot_be_converted_says_why(tmp_path: Path) -> None:
    folder = shutil.copytree(ROOT / "legacy_2021_unet2d_nuclei_broad", tmp_path / "m")
    path = folder / "UNet2DNucleiBroad.model.yaml"
    content = yaml.safe_load(path.read_text())
    content["weights"] = {"onnx": {**content["weights"]["onnx"], **_entry(folder / "weights.onnx")}}
    content["cite"][0]["doi"] = "somewhere"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"format 0\.3\.2 cannot be converted: .*doi"):
        ForeignModel(open_bundle(folder))


@pytest.mark.filterwarnings("ignore")
def test_format_0_4_is_converted(blur: Path) -> None:
    shape = {"min": [1, 1, 16, 16], "step": [0, 0, 8, 8]}
    content = {
        "format_version": "0.4.9",
        "type": "model",
        "name": "blur model",
        "description": "d",
        "license": "MIT",
        "authors": [{"name": "Ada"}],
        "cite": [{"text": "t", "url": "https://example.com"}],
        "tags": [],
        "covers": [],
        "timestamp": "2022-01-01T00:00:00",
        "documentation": "README.md",
        "inputs": [
            {
                "name": "raw",
                "axes": "bcyx",
                "data_type": "float32",
                "shape": shape,
                "preprocessing": [{"name": "scale_linear", "kwargs": {"gain": 1.0, "offset": 0.5}}],
            }
        ],
        "outputs": [
            {
                "name": "mean",
                "axes": "bcyx",
                "data_type": "float32",
                "halo": [0, 0, 2, 2],
                "shape": {"reference_tensor": "raw", "scale": [1, 1, 1, 1], "offset": [0, 0, 0, 0]},
            }
        ],
        "test_inputs": ["in.npy"],
        "test_outputs": ["out.npy"],
        "weights": {"torchscript": _entry(blur / "w.pt")},
    }
    (blur / "README.md").write_text("# Validation")
    (blur / "rdf.yaml").write_text(yaml.safe_dump(content))
    model = ForeignModel(open_bundle(blur))
    found = model.run({"raw": np.ones((1, 1, 16, 24), np.float32)})["mean"]
    assert found.shape == (1, 1, 16, 24)
    assert found[0, 0, 8, 8] == pytest.approx(1.5)
    assert model.outputs[0].axes[2].halo == 2
    with pytest.raises(Im2ImError, match="differs by"):  # the recorded output lacks the 0.5
        model.check()


# ---- sizes, blocks ----


def test_blocks_with_halo_equal_the_whole(blur: Path) -> None:
    model = ForeignModel(open_bundle(blur))
    image = np.random.default_rng(0).random((1, 1, 37, 50), np.float32)
    found = model.predict({"raw": image})["mean"]
    whole = Blur()(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(found[..., 1:-1, 1:-1], whole[..., 1:-1, 1:-1], atol=1e-6)
    assert found.shape == whole.shape


def test_run_refuses_a_size_with_the_one_that_would_do(blur: Path) -> None:
    model = ForeignModel(open_bundle(blur))
    with pytest.raises(DataError, match="size 12 along y; 16 would do"):
        model.run({"raw": np.zeros((1, 1, 12, 16), np.float32)})
    with pytest.raises(DataError, match="'raw' is missing"):
        model.run({})


def test_parametrised_sizes(blur: Path) -> None:
    _description(blur, {"min": 16, "step": 8}, yaml.safe_load((blur / "rdf.yaml").read_text())["weights"])
    model = ForeignModel(open_bundle(blur))
    assert model.run({"raw": np.ones((3, 1, 24, 16), np.float32)})["mean"].shape == (3, 1, 24, 16)
    with pytest.raises(DataError, match="24 would do"):
        model.run({"raw": np.ones((1, 1, 16, 18), np.float32)})
    assert model.predict({"raw": np.ones((1, 1, 5, 900), np.float32)})["mean"].shape == (1, 1, 5, 900)


def test_wrong_test_output_is_noticed(blur: Path) -> None:
    np.save(blur / "out.npy", np.load(blur / "out.npy") + 0.01)
    content = yaml.safe_load((blur / "rdf.yaml").read_text())
    content["outputs"][0]["test_tensor"] = _entry(blur / "out.npy")
    (blur / "rdf.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(Im2ImError, match="differs by"):
        ForeignModel(open_bundle(blur)).check()


# ---- trust ----


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def _torch_zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def _plain_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("write", [_torch_zip, _plain_pickle])
def test_fault_30_pickle_as_torchscript(blur: Path, write: Any) -> None:
    canary = blur / "canary"
    write({"state": Evil(canary)}, blur / "w.pt")
    _description(blur, 16, {"torchscript": {**_entry(blur / "w.pt"), "pytorch_version": "2.0"}})
    with pytest.raises(TrustError, match="not TorchScript"):
        ForeignModel(open_bundle(blur))
    assert not canary.exists()


def test_fault_30_pickled_test_tensor(blur: Path) -> None:
    canary = blur / "canary"
    np.save(blur / "in.npy", np.array([Evil(canary)], object), allow_pickle=True)
    content = yaml.safe_load((blur / "rdf.yaml").read_text())
    content["inputs"][0]["test_tensor"] = _entry(blur / "in.npy")
    (blur / "rdf.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(TrustError, match="not a plain array"):
        ForeignModel(open_bundle(blur)).test_tensors()
    assert not canary.exists()


def _python_package(folder: Path, state: Any) -> tuple[Path, str]:
    (folder / "net.py").write_text(
        f"import pathlib\npathlib.Path({str(folder / 'canary')!r}).touch()\n"
        "import torch\nclass Net(torch.nn.Conv2d):\n    pass\n"
    )
    torch.save(state, folder / "state.pt")
    architecture = {
        **_entry(folder / "net.py"),
        "callable": "Net",
        "kwargs": {"in_channels": 1, "out_channels": 1, "kernel_size": 1},
    }
    weights = {**_entry(folder / "state.pt"), "architecture": architecture, "pytorch_version": "2.0"}
    return _description(folder, 16, {"pytorch_state_dict": weights}), architecture["sha256"]


def test_fault_36_python_is_refused_until_its_hash_is_trusted(tmp_path: Path) -> None:
    state = torch.nn.Conv2d(1, 1, 1).state_dict()
    folder, key = _python_package(tmp_path, state)
    with pytest.raises(TrustError, match=key):
        ForeignModel(open_bundle(folder))
    assert not (tmp_path / "canary").exists()
    model = ForeignModel(open_bundle(folder), trusted=frozenset({key}))
    assert (tmp_path / "canary").exists()
    ones = np.ones((1, 1, 16, 16), np.float32)
    np.testing.assert_allclose(model.run({"raw": ones})["mean"], float(state["weight"] + state["bias"]), rtol=1e-6)


def test_fault_36_changed_source_is_not_the_trusted_one(tmp_path: Path) -> None:
    folder, key = _python_package(tmp_path, {})
    with (tmp_path / "net.py").open("a") as handle:
        handle.write("# changed\n")
    with pytest.raises(TrustError):
        ForeignModel(open_bundle(folder), trusted=frozenset({key}))
    assert not (tmp_path / "canary").exists()


def test_fault_30_pickled_state_of_a_trusted_architecture(tmp_path: Path) -> None:
    canary = tmp_path / "evil"
    folder, key = _python_package(tmp_path, {"weight": Evil(canary)})
    with pytest.raises(TrustError, match="more than weights"):
        ForeignModel(open_bundle(folder), trusted=frozenset({key}))
    assert not canary.exists()


def test_fault_36_installed_module_needs_consent_too(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "state.pt")
    weights = {
        **_entry(tmp_path / "state.pt"),
        "pytorch_version": "2.0",
        "architecture": {"import_from": "os", "callable": "system", "kwargs": {"command": "true"}},
    }
    _description(tmp_path, 16, {"pytorch_state_dict": weights})
    with pytest.raises(TrustError, match="module os"):
        ForeignModel(open_bundle(tmp_path))


@pytest.mark.parametrize("name", ["w.pt", "in.npy", "out.npy"])
def test_fault_37_flipped_byte(blur: Path, name: str) -> None:
    raw = bytearray((blur / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (blur / name).write_bytes(raw)
    with pytest.raises(TrustError, match="sha256"):
        ForeignModel(open_bundle(blur)).check()


@pytest.mark.parametrize("location", ["../../x", "/etc/passwd", "in.npy"])
def test_fault_38_onnx_reads_only_what_is_described(tmp_path: Path, location: str) -> None:
    entry = b"\x0a\x08location" + b"\x12" + bytes([len(location)]) + location.encode()
    tensor = b"\x08\x01\x10\x01\x6a" + bytes([len(entry)]) + entry
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    (tmp_path / "w.onnx").write_bytes(b"\x08\x08\x3a" + bytes([len(graph)]) + graph)
    _description(tmp_path, 16, {"onnx": {**_entry(tmp_path / "w.onnx"), "opset_version": 18}})
    with pytest.raises(TrustError, match=r"reads|refers"):
        ForeignModel(open_bundle(tmp_path))


# ---- ONNX ----


def _onnx_package(folder: Path, channels: int, size: int) -> Path:
    """An ONNX package that repeats one channel; its network takes float32 images of one size."""
    (folder / "w.onnx").write_bytes(onnx_repeats(channels, size))
    return _description(folder, 16, {"onnx": {**_entry(folder / "w.onnx"), "opset_version": 13}})


def test_onnx_weights_predict(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    image = np.random.default_rng(0).random((16, 16), np.float32)
    found = open_predictor(_onnx_package(tmp_path, 1, 16), device="cpu").predict(image, axes="YX")
    assert np.array_equal(found.main.squeeze(), image)


@pytest.mark.parametrize(
    ("channels", "size", "error", "words"),
    [
        (1, 8, DataError, "blur model failed on .*Got: 16 Expected: 8"),
        (2**40, 16, ResourceError, "Memory of cpu does not suffice for blur model"),
    ],
)
def test_what_onnxruntime_refuses_is_no_fault_of_the_program(
    tmp_path: Path, channels: int, size: int, error: type[Im2ImError], words: str
) -> None:
    pytest.importorskip("onnxruntime")
    predictor = open_predictor(_onnx_package(tmp_path, channels, size), device="cpu")
    with pytest.raises(error) as caught:
        predictor.predict(np.zeros((16, 16), np.float32), axes="YX")
    assert re.search(words, str(caught.value), re.DOTALL)


# ---- types ----


class Half(torch.nn.Module):
    """Half of the image, in the type of the image; whole numbers and switches have no half."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.is_floating_point()
        return torch.nn.functional.avg_pool2d(x, 1, 1) / 2


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """A package of another tool whose network takes float images alone."""
    folder = tmp_path / "half"
    folder.mkdir()
    torch.jit.script(Half()).save(str(folder / "w.pt"))
    weights = {"torchscript": {**_entry(folder / "w.pt"), "pytorch_version": "2.0"}}
    return _description(folder, {"min": 8, "step": 8}, weights)


def _described(folder: Path, **changes: Any) -> Path:
    """The package with other entries for its input and output."""
    content = yaml.safe_load((folder / "rdf.yaml").read_text())
    for name, value in changes.items():
        content[name][0].update(value)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(content))
    return folder


STEPS: list[list[dict[str, Any]]] = [
    [],
    [{"id": "scale_linear", "kwargs": {"gain": 2.0, "offset": 0.0}}],
    [{"id": "clip", "kwargs": {"min": 0, "max": 60000}}],
]


@pytest.mark.parametrize(("steps", "gain"), list(zip(STEPS, (1, 2, 1), strict=True)))
@pytest.mark.parametrize("kind", ["uint8", "uint16", "int32", "float64", "float32"])
def test_the_network_gets_the_type_that_is_described(
    half: Path, kind: str, steps: list[dict[str, Any]], gain: int
) -> None:
    image = (200 * np.random.default_rng(0).random((8, 16))).astype(kind)
    _described(half, inputs={"preprocessing": steps, "data": {"type": "float32"}})
    found = open_predictor(half, device="cpu").predict(image, axes="YX").main.squeeze()
    assert found.dtype == np.float32
    assert np.array_equal(found, gain * image.astype(np.float32) / 2)


def test_a_type_that_is_not_described_is_float32(half: Path) -> None:
    model = ForeignModel(open_bundle(half))
    assert model.preprocess({"raw": np.ones((1, 1, 8, 8), np.uint16)})["raw"].dtype == np.float32


def test_described_types_are_those_of_the_reference_implementation(half: Path) -> None:
    from bioimageio.spec.model.v0_5 import InputTensorDescr, OutputTensorDescr

    binary = {"id": "binarize", "kwargs": {"threshold": 0.5}}
    double = {"id": "ensure_dtype", "kwargs": {"dtype": "float64"}}
    nominal = [{"values": ["a", "b"]}]
    for steps in (*STEPS, [binary], [double], [double, binary], [binary, *STEPS[1]]):
        for data in (None, {"type": "float64"}, {"type": "uint8"}, nominal):
            changes = {} if data is None else {"data": data}
            _described(half, inputs={"preprocessing": steps} | changes, outputs={"postprocessing": steps} | changes)
            content = yaml.safe_load((half / "rdf.yaml").read_text())
            made = [{**content[n][0], "test_tensor": None} for n in ("inputs", "outputs")]
            model = ForeignModel(open_bundle(half))
            before = InputTensorDescr.model_validate(made[0]).preprocessing
            after = OutputTensorDescr.model_validate(made[1]).postprocessing
            assert _words(model.inputs[0].steps) == [(s.id, getattr(s.kwargs, "dtype", None)) for s in before]
            assert _words(model.outputs[0].steps) == [(s.id, getattr(s.kwargs, "dtype", None)) for s in after]


def _words(steps: tuple[dict[str, Any], ...]) -> list[tuple[str, str | None]]:
    return [(s["id"], s["kwargs"].get("dtype")) for s in steps]


def test_the_result_has_the_type_that_is_described(half: Path) -> None:
    _described(half, outputs={"data": {"type": "uint8"}})
    found = open_predictor(half, device="cpu").predict(np.full((8, 8), 60, np.uint16), axes="YX").main
    assert found.dtype == np.uint8
    assert (found == 30).all()


def test_pixels_that_the_described_type_does_not_hold_are_refused(half: Path) -> None:
    _described(half, inputs={"data": {"type": "uint8"}, "preprocessing": [*STEPS[2], _FLOAT]})
    predictor = open_predictor(half, device="cpu")
    image = np.full((8, 8), 200, np.uint16)
    assert (predictor.predict(image, axes="YX").main == 100).all()
    with pytest.raises(DataError, match=r"'raw' takes uint8; the image is uint16, from 200 to 300.*to uint8 first"):
        predictor.predict(image + 100 * np.eye(8, dtype=np.uint16), axes="YX")
    with pytest.raises(DataError, match="takes uint8; the image is float32"):
        predictor.predict(np.full((8, 8), 0.5, np.float32), axes="YX")


_FLOAT = {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}


def test_an_unknown_type_is_named(half: Path) -> None:
    _described(half, inputs={"data": {"type": "floot32"}})
    with pytest.raises(ConfigError, match=r"'raw' has values of type 'floot32'.*float32"):
        ForeignModel(open_bundle(half))


def test_weights_without_hash_and_unknown_weights(blur: Path) -> None:
    _description(blur, 16, {"torchscript": {"source": "w.pt", "pytorch_version": "2.0"}})
    with pytest.raises(TrustError, match="records no sha256"):
        ForeignModel(open_bundle(blur))
    _description(blur, 16, {"keras_hdf5": {"source": "w.pt"}})
    with pytest.raises(ConfigError, match="keras_hdf5"):
        ForeignModel(open_bundle(blur))


# ---- predicting like a model of ours ----


class BlurAndDouble(torch.nn.Module):
    """Two outputs: the mean of 3 × 3 pixels and twice the image."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
        return torch.nn.functional.avg_pool2d(padded, 3, 1), 2 * x


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A package of another tool for images of 16 or more pixels, with two outputs."""
    folder = tmp_path / "other tool"
    folder.mkdir()
    torch.jit.script(BlurAndDouble()).save(str(folder / "w.pt"))
    size = {"min": 16, "step": 1}
    _description(folder, size, {"torchscript": {**_entry(folder / "w.pt"), "pytorch_version": "2.0"}})
    content = yaml.safe_load((folder / "rdf.yaml").read_text())
    double = {**content["outputs"][0], "id": "double"}
    del double["test_tensor"]
    content["outputs"].append(double)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(content))
    return folder


def blurred(image: np.ndarray) -> np.ndarray:
    found: np.ndarray = Blur()(torch.from_numpy(image)[None, None])[0, 0].numpy()
    return found


def test_package_of_another_tool_predicts_from_the_command_line(pair: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((40, 600), np.float32)
    write_image(tmp_path / "a.tif", image, "YX")
    words = ["predict", str(pair), str(tmp_path / "a.tif"), "--device", "cpu", "-o"]
    assert main([*words, str(tmp_path / "out.tif")]) == 0
    inner = (slice(2, -2), slice(2, -2))  # two blocks, mirrored at the rim
    assert np.allclose(open_image(tmp_path / "out.tif").read()[0, 0, 0][inner], blurred(image)[inner], atol=1e-6)
    assert main([*words, str(tmp_path / "both.tif"), "--outputs", "double,mean"]) == 0
    assert np.allclose(open_image(tmp_path / "both.tif").read()[0, 0, 0][inner], blurred(image)[inner], atol=1e-6)
    assert np.array_equal(open_image(tmp_path / "both_double.tif").read()[0, 0, 0], 2 * image)
    assert not list(tmp_path.glob(".*"))


def test_what_does_not_apply_to_other_tools_is_refused(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "a.tif", np.zeros((20, 20), np.float32), "YX")
    words = ["predict", str(pair), str(tmp_path / "a.tif"), "-o", str(tmp_path / "out.tif")]
    assert main([*words, "--rescale", "2"]) == 2
    assert "rescale: blur model was made by another tool" in capsys.readouterr().err
    assert main([*words, "--outputs", "duoble"]) == 2
    assert "double" in capsys.readouterr().err
    write_image(tmp_path / "a.tif", np.zeros((2, 20, 20), np.float32), "CYX", overwrite=True)
    assert main(words) == 3
    assert "2 channel(s)" in capsys.readouterr().out


def test_planes_times_and_regions_of_another_tool(pair: Path) -> None:
    stack = np.random.default_rng(0).random((2, 3, 20, 30), np.float32)
    run = open_predictor(pair, device="cpu")
    expected = np.stack([[blurred(plane) for plane in planes] for planes in stack])
    found = run.predict(stack, axes="TZYX", outputs=["mean", "double"])
    assert list(found) == ["mean", "double"]
    assert found["mean"].shape == stack.shape
    assert np.allclose(found["mean"], expected, atol=1e-6)
    assert np.array_equal(found["double"], 2 * stack)
    region = (slice(1, 2), slice(0, 1), slice(1, 3), slice(5, 12), slice(0, 30))
    part = run.predict(ArrayImage(stack, "TZYX", voxel_size=(2.0, 0.5, 0.5)), region)
    assert np.allclose(part.main, expected[1:, 1:3, 5:12], atol=1e-6)
    assert part.layers[0].scale == (1.0, 2.0, 0.5, 0.5)
    assert part.layers[0].translate == (1.0, 2.0, 2.5, 0.0)


def test_stopped_prediction_of_another_tool_leaves_nothing(pair: Path, tmp_path: Path) -> None:
    calls = iter([False])
    with pytest.raises(Stopped):
        open_predictor(pair, device="cpu").predict(
            np.zeros((3, 20, 20), np.float32),
            axes="TYX",
            to=tmp_path / "out.ome.zarr",
            should_stop=lambda: next(calls, True),
        )
    assert [p.name for p in tmp_path.iterdir()] == [pair.name]


def test_attached_process_runs_other_tools_too(pair: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((20, 20), np.float32)
    live, events = tmp_path / "live", []
    live.mkdir()
    arguments = {"model": str(pair), "image": image, "axes": "YX", "device": "cpu", "live": str(live)}
    answer = verbs.predict(arguments, events.append, lambda: False)
    assert np.allclose(np.load(answer["results"]["mean"])[0, 0, 0], blurred(image), atol=1e-6)
    assert [e.output for e in events if isinstance(e, TileDone)] == ["mean"]


def test_package_of_another_tool_is_listed(pair: Path) -> None:
    model = add_model(pair)
    assert [m.name for m in list_models() if m.origin == "added"] == ["blur model"]
    assert model.inference.framework.kind == "bioimage.io"
    assert (model.inference.shapes.dimensions, model.inference.shapes.input_channels) == (2, 1)
    assert [(o.name, o.axes) for o in model.inference.outputs] == [("mean", "CYX"), ("double", "CYX")]


def test_axes_are_those_of_the_package() -> None:
    axes = tuple(AxisSpec(name, kind) for name, kind in (("x", "space"), ("y", "space"), ("c", "channel")))
    spec = TensorSpec("raw", axes, (), None)
    pixels = np.arange(2 * 3 * 4).reshape(1, 2, 1, 3, 4)
    tensor = to_tensor(pixels, spec)
    assert tensor.shape == (4, 3, 2)
    assert tensor[3, 1, 0] == pixels[0, 0, 0, 1, 3]
    assert np.array_equal(from_tensor(tensor, spec), pixels[0])
    assert from_tensor(tensor.astype(bool), spec).dtype == np.uint8
    with pytest.raises(DataError, match="more than files hold"):
        from_tensor(tensor + 2**40, spec)


@pytest.mark.parametrize(("device", "error"), [("gpu", ConfigError), ("cuda:77", ResourceError)])
def test_a_device_that_is_not_there_is_named(tmp_path: Path, device: str, error: type[Exception]) -> None:
    _description(tmp_path, 16, {})
    with pytest.raises(error, match=device):
        ForeignModel(open_bundle(tmp_path), device=device)
