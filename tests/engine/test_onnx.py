"""ONNX weights of every preset and network: the same as torch's, at any size, here and for others."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml
from preset_world import PRESETS, train_small
from test_export import METADATA, Doubled, FixedGrid, Toy, _inference, _sample
from toy_frameworks import Upscale, _Toy
from training_world import small_recipe

from im2im_core.bundle import open_bundle
from im2im_core.cli import main
from im2im_core.engine.export import export_bundle
from im2im_core.engine.foreign import ForeignModel
from im2im_core.engine.frameworks.build import build_framework
from im2im_core.engine.frameworks.contract import TranslateContext
from im2im_core.engine.rehearsal import rehearse
from im2im_core.errors import ConfigError, Im2ImError
from im2im_core.inference import Shapes
from im2im_core.io import open_image, write_image
from im2im_core.recipe.frameworks.fcn import FcnSettings
from im2im_core.recipe.network import AttentionUnet, BasicUNet, ClassNetwork, DynUNet, UNet

if TYPE_CHECKING:
    from pathlib import Path

    from im2im_core.bundle import Bundle

pytest.importorskip("onnx", reason="the extra 'export' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("in_this_process")]
CLOSE = 1e-4


def sizes_it_takes(bundle: Bundle) -> list[tuple[int, ...]]:
    """Smallest size along the spatial axes, and two larger ones, another along each axis."""
    axes = [axis["size"] for axis in bundle.description["inputs"][0]["axes"][2:]]
    assert all(isinstance(size, dict) for size in axes)
    return [tuple(a["min"] + steps * (n + 1) * a["step"] for n, a in enumerate(axes)) for steps in range(3)]


def require_equal(bundle: Bundle) -> None:
    """Compare ONNX with TorchScript, two images at a time, at every size of `sizes_it_takes`."""
    models = [ForeignModel(bundle, weights=kind) for kind in ("onnx", "torchscript")]
    name = bundle.description["inputs"][0]["id"]
    test, _ = models[0].test_tensors()
    rng = np.random.default_rng(0)
    for size in sizes_it_takes(bundle):
        image = rng.integers(0, 4000, (2, test[name].shape[1], *size)).astype(test[name].dtype)
        found, expected = (model.run({name: image}) for model in models)
        assert found.keys() == expected.keys()
        for key, wanted in expected.items():
            assert found[key].shape == wanted.shape
            assert np.abs(found[key] - wanted).max() <= CLOSE * max(1, np.abs(wanted).max())


def of_others(bundle: Bundle, folder: Path, kind: str) -> Path:
    """The package with weights of one kind alone, and without what only we read."""
    shutil.copytree(bundle.folder, folder)
    path = folder / "bioimageio.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    weights = content["weights"][kind]
    weights.pop("parent", None)
    content["weights"] = {kind: weights}
    del content["config"]["im2im"]
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_onnx_of_a_preset(tmp_path: Path, preset: str) -> None:
    from bioimageio import core

    run = train_small(tmp_path, preset, changes={"output.onnx": True})
    bundle = open_bundle(run.model)
    assert list(bundle.description["weights"]) == ["torchscript", "onnx"]
    assert ForeignModel(bundle, weights="onnx").check() <= CLOSE
    require_equal(bundle)
    summary = core.test_model(bundle.source, weight_format="onnx")
    assert summary.status == "passed", summary.format()
    predict_as_others(bundle, tmp_path)


def predict_as_others(bundle: Bundle, folder: Path) -> None:
    """Predict with ``im2im predict``, with either kind of weights alone, an image larger than all that it knows."""
    size = sizes_it_takes(bundle)[-1]
    image = np.random.default_rng(1).integers(0, 4000, tuple(n + 5 for n in size)).astype(np.uint16)
    axes = "ZYX"[-len(size) :]
    write_image(folder / "image.tif", image, axes)
    results = []
    for kind in ("torchscript", "onnx"):
        model = of_others(bundle, folder / kind, kind)
        out = folder / f"{kind}.tif"
        assert main(["predict", str(model), str(folder / "image.tif"), "-o", str(out)]) == 0
        results.append(open_image(out).read())
    assert results[0].shape[-len(size) :] == image.shape
    assert np.abs(results[0] - results[1]).max() <= CLOSE * max(1, np.abs(results[0]).max())


SMALL = {
    "attention_unet": AttentionUnet(channels=(4, 8, 8)),
    "basic_unet": BasicUNet(features=(4, 4, 4, 8, 8, 4)),
    "dynunet": DynUNet(filters=(4, 4, 8), strides=((1, 1), (2, 2), (2, 2)), kernels=((3, 3), (3, 3), (3, 3))),
    "unet": UNet(channels=(4, 8, 8)),
    "class": ClassNetwork(
        class_path="monai.networks.nets.SegResNet",
        init_args={"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
        divisor=4,
    ),
}
FOLDED = DynUNet(
    stem=2, filters=(4, 4, 8), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), kernels=((3, 3, 3), (3, 3, 3), (3, 3, 3))
)


@pytest.mark.parametrize("kind", [*SMALL, "folded, in 3D"])
def test_onnx_of_a_network(tmp_path: Path, kind: str) -> None:
    settings = FcnSettings(output="segmentation", classes=2)
    dims = 3 if kind not in SMALL else 2
    network = SMALL.get(kind, FOLDED)
    inference = _inference(
        dims,
        divisor=[16, 16] if dims == 2 else [2, 8, 8],
        halo=[20, 20] if dims == 2 else [2, 8, 8],
        outputs=[{"name": "labels", "kind": "labels", "channels": 1, "axes": "CZYX"}],
        network=network.dump(),
        framework=settings.dump(),
    )
    shapes = inference.shapes.replace(classes=2)
    framework = build_framework(settings, network, shapes).eval()
    bundle = export_bundle(
        framework, inference.replace(shapes=shapes), tmp_path / "m", metadata=METADATA, sample=_sample(dims), onnx=True
    )
    require_equal(bundle)


@pytest.mark.parametrize("kind", ["percentile", "zscore", "minmax", "none", "centre_zscore"])
def test_onnx_alone(tmp_path: Path, kind: str) -> None:
    inference = _inference(normalization={"kind": kind})
    bundle = export_bundle(
        Toy(), inference, tmp_path / "m", metadata=METADATA, sample=_sample(), torchscript=False, onnx=True
    )
    bundle.validate()
    assert list(bundle.description["weights"]) == ["onnx"]
    assert "parent" not in bundle.description["weights"]["onnx"]
    assert not (bundle.folder / "weights.pt").exists()


def test_onnx_of_scaled_and_dropped_axes(tmp_path: Path) -> None:
    require_equal(
        export_bundle(Doubled(), _inference(), tmp_path / "m", metadata=METADATA, sample=_sample(), onnx=True)
    )


def test_onnx_of_one_size(tmp_path: Path) -> None:
    bundle = export_bundle(FixedGrid(), _inference(), tmp_path / "m", metadata=METADATA, sample=_sample(), onnx=True)
    assert all(isinstance(axis["size"], int) for axis in bundle.description["inputs"][0]["axes"][2:])
    assert ForeignModel(bundle, weights="onnx").check() <= CLOSE


class Spectral(Toy):
    """Uses an operation that ONNX does not have."""

    def translate(self, x: torch.Tensor, context: Any) -> dict[str, torch.Tensor]:
        maps = super().translate(x, context)
        return maps | {"clean": torch.linalg.svdvals(maps["clean"]).unsqueeze(-1) + maps["clean"]}


def test_what_onnx_does_not_have_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Im2ImError, match=r"Cannot be written as ONNX.*svd.*output\.onnx to false"):
        export_bundle(Spectral(), _inference(), tmp_path / "m", metadata=METADATA, sample=_sample(), onnx=True)
    assert list(tmp_path.iterdir()) == []


class Early(_Toy):
    """The same, ready for a training."""

    def translate(self, x: torch.Tensor, context: TranslateContext) -> dict[str, torch.Tensor]:  # type: ignore[override]
        y = self.network(x)
        return {"image": torch.linalg.svdvals(y).unsqueeze(-1) + y}


def test_what_onnx_does_not_have_is_told_before_the_training() -> None:
    def network(in_channels: int, out_channels: int) -> Any:
        return torch.nn.Conv2d(in_channels, out_channels, 3, padding=1)

    plain, early = (kind(Upscale(), network, Shapes(dimensions=2, input_channels=1)) for kind in (_Toy, Early))
    rehearse(small_recipe(), early)
    with pytest.raises(ConfigError, match=r"Early cannot be exported.*svd.*output\.onnx to false"):
        rehearse(small_recipe(output__onnx=True), early)
    rehearse(small_recipe(output__onnx=True), plain)
