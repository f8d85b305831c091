"""Packages of other tools that take several images at once, and such that are run in blocks."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from foreign_world import entry, package

from im2im_core import api
from im2im_core.bundle import open_bundle
from im2im_core.bundle.foreign import describe_foreign
from im2im_core.cli import main
from im2im_core.engine.blocks import Cut
from im2im_core.engine.foreign import ForeignModel
from im2im_core.engine.predict import open_predictor
from im2im_core.engine.reach import measured_reach
from im2im_core.errors import ConfigError, DataError, TrustError
from im2im_core.events import Message
from im2im_core.io import open_image, write_image
from im2im_core.jobs import verbs
from im2im_core.predict_options import PredictOptions

ROOT = Path(os.environ.get("IM2IM_TEST_DATA", "")) / "bioimageio_models"
real = pytest.mark.skipif(not os.environ.get("IM2IM_TEST_DATA"), reason="IM2IM_TEST_DATA is not set")
pytestmark = pytest.mark.usefixtures("in_this_process")
TILED = PredictOptions(tile=(224, 224))


class Sums(torch.nn.Module):
    """The sum of two images, and the first with pixels of half the size."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a + b, torch.nn.functional.interpolate(a, scale_factor=2.0, mode="nearest")


class Sevens(torch.nn.Module):
    """Mean of 7 × 7 pixels, zeros beyond the rim: sees three pixels far."""

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(a, 7, 1, padding=3)


class Whole(torch.nn.Module):
    """The image less its mean: sees all of it."""

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return a - a.mean()


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """Two inputs, and two outputs of which one has pixels of half the size."""
    return package(tmp_path / "sums", Sums(), ["left", "right"], {"sum": 1.0, "fine": 0.5})


@pytest.fixture
def images() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.random((40, 56), np.float32) for name in ("left", "right")}


# ---- real packages, whole and in blocks ----


def _planes(model: ForeignModel) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Recorded inputs and outputs as planes."""
    given, made = model.test_tensors()
    return {k: v[0, 0] for k, v in given.items()}, {k: v[0, 0] for k, v in made.items()}


@real
@pytest.mark.parametrize("options", [PredictOptions(), TILED], ids=["whole", "tiled"])
def test_a_real_package_of_two_images_gives_its_test_tensors(options: PredictOptions) -> None:
    predictor = open_predictor(ROOT / "unet2d_multi_tensor", device="cpu")
    given, made = _planes(predictor.model)
    found = predictor.predict(given, axes="YX", outputs=list(made), options=options)
    for name, expected in made.items():
        assert np.abs(found[name] - expected).max() <= 1e-4


@real
def test_a_real_package_of_one_size_gives_its_test_tensor_and_takes_no_other_tile() -> None:
    predictor = open_predictor(ROOT / "unet2d_nuclei_broad", device="cpu")
    given, made = _planes(predictor.model)
    found = predictor.predict(given["raw"], axes="YX").main
    assert np.abs(found - made["probability"]).max() <= 1e-4
    with pytest.raises(ConfigError, match="tile is 224 along y; the model takes 512 pixels only"):
        predictor.predict(given["raw"], axes="YX", options=TILED)


@real
@pytest.mark.parametrize("tile", [[], ["--tile", "[224, 224]"]], ids=["whole", "tiled"])
def test_a_real_package_of_two_images_from_the_command_line(tmp_path: Path, tile: list[str]) -> None:
    folder = ROOT / "unet2d_multi_tensor"
    given, made = _planes(ForeignModel(open_bundle(folder)))
    for name, pixels in given.items():
        write_image(tmp_path / f"{name}.tif", pixels, "YX")
    named = [word for name in given for word in ("--input", f"{name}={tmp_path / name}.tif")]
    out = tmp_path / "out.tif"
    words = ["predict", str(folder), *named, "-o", str(out), "--device", "cpu", "--outputs", ",".join(made), *tile]
    assert main(words) == 0
    for path, expected in zip((out, tmp_path / "out_output1.tif"), made.values(), strict=True):
        assert np.abs(open_image(path).read()[0, 0, 0] - expected).max() <= 1e-4


@real
def test_an_attached_process_takes_several_images() -> None:
    folder = ROOT / "unet2d_multi_tensor"
    given, made = _planes(ForeignModel(open_bundle(folder)))
    told = {name: {"image": pixels, "axes": "YX", "name": name} for name, pixels in given.items()}
    arguments = {"model": str(folder), "images": told, "device": "cpu", "outputs": list(made)}
    found = verbs.predict(arguments, lambda event: None, lambda: False)
    for name, expected in made.items():
        assert np.abs(found["results"][name] - expected).max() <= 1e-4
    assert found["layers"][0]["facts"]["image"] == "input0 + input1"


@real
@pytest.mark.filterwarnings("ignore")
def test_the_package_of_2021_gives_its_test_tensor_once_its_hash_is_right(tmp_path: Path) -> None:
    folder = shutil.copytree(ROOT / "legacy_2021_unet2d_nuclei_broad", tmp_path / "m")
    path = folder / "UNet2DNucleiBroad.model.yaml"
    content = yaml.safe_load(path.read_text())
    content["weights"]["onnx"].update(entry(folder / "weights.onnx"))
    path.write_text(yaml.safe_dump(content))
    pytest.importorskip("onnxruntime")
    model = ForeignModel(open_bundle(folder))
    assert model.weights == "onnx"
    assert [step["id"] for step in model.inputs[0].steps] == ["ensure_dtype", "zero_mean_unit_variance", "ensure_dtype"]
    assert model.check(1e-4) <= 1e-4


# ---- several inputs ----


def test_what_a_package_takes_is_described(sums: Path) -> None:
    found = describe_foreign(open_bundle(sums))
    assert [(i.name, i.channels) for i in found.inputs] == [("left", 1), ("right", 1)]
    assert [o.name for o in found.outputs] == ["sum", "fine"]


def test_inputs_go_in_by_their_names(sums: Path, images: dict[str, np.ndarray]) -> None:
    found = api.predict(sums, images, outputs=["sum", "fine"], device="cpu")
    assert np.array_equal(found["sum"], images["left"] + images["right"])
    assert np.array_equal(found["fine"], images["left"].repeat(2, 0).repeat(2, 1))
    assert found.layers[1].scale == (0.5, 0.5)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"left": (40, 56)}, ConfigError, r"takes 2 images; right is missing.*--input left=FILE --input right=FILE"),
        ({"left": (40, 56), "rihgt": (40, 56)}, ConfigError, r"no input 'rihgt'.*right"),
        ({"left": (40, 56), "right": (40, 48)}, DataError, r"left has 1×1×40×56 pixels .* right has 1×1×40×48"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(sums: Path, given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        api.predict(sums, {name: np.zeros(shape, np.float32) for name, shape in given.items()}, device="cpu")


def test_one_image_does_not_do_for_two(sums: Path) -> None:
    with pytest.raises(ConfigError, match="right is missing"):
        api.predict(sums, np.zeros((16, 16), np.float32), device="cpu")


def test_channels_that_do_not_fit_name_the_input(sums: Path) -> None:
    images = {"left": np.zeros((16, 16), np.float32), "right": np.zeros((2, 16, 16), np.float32)}
    from im2im_core.image import ArrayImage

    named = {name: ArrayImage(a, "CYX"[-a.ndim :], name=name) for name, a in images.items()}
    with pytest.raises(DataError, match=r"right has 2 channel\(s\); the model 'toy model' as 'right' sees 1"):
        api.predict(sums, named, device="cpu")


def test_folders_go_together_by_name(sums: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, side in enumerate(("left", "right"), start=1):
        for name in "ab":
            write_image(tmp_path / side / f"{name}.tif", np.full((16, 16), number, np.float32), "YX")
    words = ["predict", str(sums), "--input", f"left={tmp_path / 'left'}", "--input", f"right={tmp_path / 'right'}"]
    assert main([*words, "-o", str(tmp_path / "out"), "--device", "cpu", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["done"]) == 2
    assert (open_image(tmp_path / "out" / "b.tif").read() == 3).all()
    (tmp_path / "right" / "b.tif").unlink()
    assert main([*words, "-o", str(tmp_path / "more"), "--device", "cpu"]) == 3
    assert "has no image for b.tif" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--input", "left"], "is not NAME=FILE"),
        (["--input", "left={a}", "--input", "left={a}"], "each name once"),
        (["{a}", "--input", "left={a}"], "named in two ways"),
        ([], "No image is named"),
        (["--input", "left={a}", "--input", "right={out}"], "would replace an image"),
    ],
)
def test_inputs_that_are_named_wrongly(
    sums: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "out"):
        write_image(tmp_path / f"{name}.tif", np.zeros((16, 16), np.float32), "YX")
    places = {name: str(tmp_path / f"{name}.tif") for name in ("a", "out")}
    given = [word.format(**places) for word in words]
    assert main(["predict", str(sums), *given, "-o", places["out"]]) == 2
    assert said in capsys.readouterr().err


def test_a_model_of_one_image_takes_no_names(tmp_path: Path) -> None:
    folder = package(tmp_path / "m", Sevens(), ["raw"], {"mean": 1.0})
    with pytest.raises(ConfigError, match="no input 'rwa'"):
        api.predict(folder, {"rwa": np.zeros((16, 16), np.float32)}, device="cpu")
    assert api.predict(folder, {"raw": np.ones((16, 16), np.float32)}, device="cpu")[8, 8] == pytest.approx(1)


# ---- blocks ----


@pytest.mark.parametrize("size", [70, 96, 101])
def test_blocks_equal_the_whole_to_the_rim(tmp_path: Path, size: int) -> None:
    folder = package(tmp_path / "m", Sevens(), ["raw"], {"mean": 1.0})
    image = np.random.default_rng(0).random((size, 48), np.float32)
    padded = np.pad(image, [(0, -size % 8), (0, 0)], mode="symmetric")
    expected = Sevens()(torch.from_numpy(padded)[None, None])[0, 0, :size].numpy()
    found = api.predict(folder, image, device="cpu", options=PredictOptions(tile=(32, 48)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_results_of_other_pixels_are_put_together(sums: Path, images: dict[str, np.ndarray]) -> None:
    options = PredictOptions(tile=(16, 24))
    found = api.predict(sums, images, outputs=["fine", "sum"], device="cpu", options=options)
    assert np.array_equal(found["fine"], images["left"].repeat(2, 0).repeat(2, 1))
    assert np.array_equal(found["sum"], images["left"] + images["right"])


def test_the_reach_of_a_network_is_measured(tmp_path: Path) -> None:
    ready = {"raw": np.random.default_rng(0).random((1, 1, 64, 64), np.float32)}
    found = {}
    for module in (Sevens(), Whole()):
        model = ForeignModel(open_bundle(package(tmp_path / type(module).__name__, module, ["raw"], {"o": 1.0})))
        found[type(module)] = measured_reach(model, ready, {"y": 64, "x": 64}, ["y", "x"])
    assert found == {Sevens: {"y": 3, "x": 3}, Whole: {"y": None, "x": None}}


def test_a_network_that_sees_the_whole_image_is_told_of(tmp_path: Path) -> None:
    folder = package(tmp_path / "m", Whole(), ["raw"], {"o": 1.0})
    said: list[Any] = []
    image = np.zeros((64, 16), np.float32)
    api.predict(folder, image, device="cpu", options=PredictOptions(tile=(32, 16)), on_event=said.append)
    assert [m.code for m in said if isinstance(m, Message)] == ["seams"]


@pytest.mark.parametrize(
    "cut", [Cut(100, 32, 5, 8), Cut(101, 32, 0, 8), Cut(20, 32), Cut(65, 33, 7, 2), Cut(33, 16, 7)]
)
def test_blocks_decide_every_pixel_once_and_read_their_halo(cut: Cut) -> None:
    decided = [n for span in cut.spans for n in range(span.decided.start, span.decided.stop)]
    assert decided == list(range(cut.size))
    for span in cut.spans:
        assert span.read.stop - span.read.start == cut.block
        assert 0 <= span.read.start <= span.read.stop <= cut.padded
        assert span.read.start % cut.step == 0
        assert span.read.start in (0, span.decided.start - cut.halo) or span.read.stop == cut.padded
        assert span.decided.start - span.read.start >= min(cut.halo, span.decided.start)
        assert span.read.stop - span.decided.stop >= min(cut.halo, cut.size - span.decided.stop)


# ---- what is not run ----


def test_steps_that_are_not_run_are_refused_before_anything_is_computed(sums: Path) -> None:
    content = yaml.safe_load((sums / "rdf.yaml").read_text())
    content["outputs"][0]["postprocessing"] = [{"id": "stardist_postprocessing", "kwargs": {"prob_threshold": 0.5}}]
    (sums / "rdf.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"'stardist_postprocessing' of 'sum' cannot be run.*package stardist"):
        open_predictor(sums, device="cpu")


def test_trusted_code_that_fails_is_no_fault_of_the_program(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("class Net:\n    pass\n")
    torch.save({}, tmp_path / "state.pt")
    architecture = {**entry(tmp_path / "net.py"), "callable": "Nett"}
    weights = {**entry(tmp_path / "state.pt"), "architecture": architecture, "pytorch_version": "2.0"}
    package(tmp_path / "m", Sevens(), ["raw"], {"mean": 1.0})
    content = yaml.safe_load((tmp_path / "m" / "rdf.yaml").read_text())
    (tmp_path / "rdf.yaml").write_text(yaml.safe_dump({**content, "weights": {"pytorch_state_dict": weights}}))
    with pytest.raises(TrustError, match="runs Python code"):
        ForeignModel(open_bundle(tmp_path))
    trusted = frozenset({architecture["sha256"]})
    with pytest.raises(DataError, match=r"Python code of toy model \(net.py\) fails: AttributeError"):
        ForeignModel(open_bundle(tmp_path), trusted=trusted)
