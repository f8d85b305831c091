"""Export: the package is a valid bioimage.io model, reproduces the framework, and appears only when it does."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml

from im2im_core import archive
from im2im_core.bundle import Author, BundleMetadata, export_zip, open_bundle
from im2im_core.bundle import package as package_module
from im2im_core.engine import export
from im2im_core.engine.devices import lay_out
from im2im_core.engine.export import export_bundle
from im2im_core.engine.foreign import ForeignModel
from im2im_core.engine.frameworks.build import build_framework
from im2im_core.engine.frameworks.contract import Framework, OutputSpec
from im2im_core.errors import ConfigError, DataError, Im2ImError, ResourceError
from im2im_core.inference import Inference, Shapes
from im2im_core.recipe.framework import EmbedSegSettings
from im2im_core.recipe.network import DynUNet

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

METADATA = BundleMetadata(
    name="Toy nuclei #1 ü",
    description="A toy.",
    authors=(Author(name="Ada Lovelace"),),
    trained_on="four drawn discs",
    metrics={"dice": 0.91},
)


class Toy(Framework):
    """A small U-Net with two maps: two class probabilities and an image."""

    outputs = (OutputSpec("Probability", "probability", 2), OutputSpec("clean", "image", 1))

    def __init__(self, dims: int = 2, channels: int = 1) -> None:
        super().__init__()
        from monai.networks.nets import BasicUNet

        torch.manual_seed(3)
        self.network = BasicUNet(dims, channels, 3, features=(4, 4, 8, 8, 8, 4), norm=("batch", {"affine": True}))
        with torch.no_grad():  # running statistics as after a training
            for _ in range(3):
                self.network(torch.randn(2, channels, *(32,) * dims))
        self.shapes = _inference(dims, channels).shapes

    def translate(self, x: torch.Tensor, context: Any) -> dict[str, torch.Tensor]:
        y = self.network(x)
        return {"clean": y[:, 2:], "Probability": y[:, :2].softmax(1)}

    def encode(self, targets: Any, weight: Any) -> dict[str, Any]:
        return {}

    def players(self) -> tuple[Any, ...]:
        return ()

    def losses(self, batch: Any, player: str, context: Any) -> dict[str, torch.Tensor]:
        return {}

    def loss_weights(self) -> dict[str, float]:
        return {}

    def postprocess(self, maps: Mapping[str, Any], context: Any) -> dict[str, Any]:
        return {}


def _inference(
    dims: int = 2, channels: int = 1, normalization: dict[str, Any] | None = None, **changes: Any
) -> Inference:
    content = {
        "name": "toy",
        "task": "semantic_segmentation",
        "shapes": {"dimensions": dims, "input_channels": channels},
        "input": {
            "normalization": normalization or {"kind": "percentile"},
            "rescale": {"kind": "none"},
            "voxel_size": [None, 0.5, 0.5],
        },
        "framework": {"kind": "fcn", "output": "segmentation"},
        "network": {"kind": "basic_unet"},
        "patch": [32] * dims,
        "divisor": [16] * dims,
        "halo": [20] * dims,
        "outputs": [{"name": "labels", "kind": "labels", "channels": 1, "axes": "CZYX"}],
        "target_scaling": {"offset": [100.0], "scale": [40.0]},
    }
    return Inference.load({**content, **changes})


def _sample(dims: int = 2, channels: int = 1, size: int = 75) -> np.ndarray:
    """Discs on an uneven background, 16 bit."""
    rng = np.random.default_rng(5)
    shape = (channels, *(20,) * (dims - 2), size, size)
    image = rng.normal(300, 20, shape)
    image[..., 20:40, 20:50] += 900
    return image.astype(np.uint16)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "model"
    provenance = {"recipe": {"name": "toy", "training": {"steps": 7}}, "metrics": {"dice": np.float32(0.5)}}
    export_bundle(Toy(), _inference(), folder, metadata=METADATA, sample=_sample(), provenance=provenance)
    return folder


def test_package_is_valid_and_complete(package: Path) -> None:
    bundle = open_bundle(package)
    bundle.verify()
    bundle.validate()
    assert {p.name for p in package.iterdir()} == {
        "README.md",
        "bioimageio.yaml",
        "cover.png",
        "test_input.npy",
        "test_output.npy",
        "test_output_1.npy",
        "weights.pt",
        "weights.safetensors",
    }
    assert not list(package.parent.glob(".*"))
    assert bundle.inference == _inference()
    assert bundle.name == "Toy nuclei #1 ü"
    assert bundle.card["metrics"] == {"dice": 0.5}
    assert bundle.card["authors"] == ["Ada Lovelace"]
    assert bundle.card["cover"] == package / "cover.png"


def test_description_is_what_the_standard_says(package: Path) -> None:
    content = open_bundle(package).description
    source, probability, clean = content["inputs"][0], *content["outputs"]
    assert [a.get("id", a["type"]) for a in source["axes"]] == ["batch", "channel", "y", "x"]
    assert source["axes"][2]["size"] == {"min": 48, "step": 16}  # the first multiple of 16 above two halos of 20
    assert source["data"]["type"] == "uint16"
    assert source["preprocessing"][1] == {
        "id": "scale_range",
        "kwargs": {"axes": ["y", "x"], "min_percentile": 1.0, "max_percentile": 99.8},
    }
    assert probability["axes"][2]["halo"] == 20
    assert probability["data"]["range"] == [0.0, 1.0]
    assert clean["postprocessing"][1]["kwargs"] == {"axis": "channel", "gain": [40.0], "offset": [100.0]}


def test_standard_part_agrees_with_our_normalisation_and_weights(package: Path) -> None:
    """Another image than the test tensor: our own path and the standard one give the same maps."""
    from im2im_core.image import ArrayImage
    from im2im_core.normalize import measure

    bundle = open_bundle(package)
    image = _sample(size=96)[:, ::-1]
    settings = bundle.inference.input.normalization
    scaling = measure(ArrayImage(image, "CYX"), settings, 0)
    framework = Toy()
    for parameter in framework.parameters():
        torch.nn.init.zeros_(parameter)
    framework.load_state_dict(bundle.load_weights())
    x = torch.from_numpy(scaling.apply(image)[np.newaxis])
    with torch.no_grad():
        maps = framework.eval().translate(x, None)
    found = ForeignModel(bundle, apart=False).run({"raw": image[np.newaxis]})
    np.testing.assert_allclose(found["probability"], maps["Probability"], atol=1e-5)
    np.testing.assert_allclose(found["clean"], maps["clean"] * 40 + 100, rtol=1e-4)


def test_readme_says_what_people_ask(package: Path) -> None:
    text = (package / "README.md").read_text(encoding="utf-8")
    for words in ("four drawn discs", "## Validation", "| dice | 0.91 |", "Y 0.5 µm", "7 steps", "im2im predict"):
        assert words in text


def test_cover_shows_input_and_output(package: Path) -> None:
    from imageio.v3 import imread

    cover = imread(package / "cover.png")
    assert cover.shape == (256, 512)
    assert cover[:, :256].std() > 10
    assert cover[:, 256:].std() > 10


class Shallow(Toy):
    """Two convolutions, so that the many sizes which the test tries stay small in 3D."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        kind = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dims]
        self.network = torch.nn.Sequential(kind(channels, 4, 3, padding=1), torch.nn.ReLU(), kind(4, 3, 1))
        self.shapes = _inference(dims, channels).shapes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("dims", "channels"), [(2, 1), (3, 2)])
def test_bioimageio_test_passes(tmp_path: Path, dims: int, channels: int) -> None:
    from bioimageio.core import test_model

    folder = tmp_path / "пробел ü 画像 #1" / "model"
    framework = Toy(dims, channels) if dims == 2 else Shallow(dims, channels)
    changes = {} if dims == 2 else {"divisor": [2, 4, 4], "halo": [2, 4, 4]}
    sample = _sample(dims, channels, size=75 if dims == 2 else 40)
    export_bundle(framework, _inference(dims, channels, **changes), folder, metadata=METADATA, sample=sample)
    summary = test_model(folder / "bioimageio.yaml")
    assert summary.status == "passed", summary.format()


@pytest.mark.parametrize("kind", ["zscore", "minmax", "none", "centre_zscore"])
def test_every_normalisation_exports(tmp_path: Path, kind: str) -> None:
    bundle = export_bundle(
        Toy(), _inference(normalization={"kind": kind}), tmp_path / "m", metadata=METADATA, sample=_sample()
    )
    steps = [s["id"] for s in bundle.description["inputs"][0]["preprocessing"]]
    assert ("normalise the input themselves" in (tmp_path / "m" / "README.md").read_text()) == (kind == "centre_zscore")
    expected = {"zscore": ["zero_mean_unit_variance"], "minmax": ["scale_range"]}.get(kind, [])
    assert [s for s in steps if s != "ensure_dtype"] == expected


def test_sample_smaller_than_two_halos_is_mirrored(tmp_path: Path) -> None:
    bundle = export_bundle(Toy(), _inference(), tmp_path / "m", metadata=METADATA, sample=_sample(size=60)[:, :30])
    assert np.load(tmp_path / "m" / "test_input.npy").shape == (1, 1, 48, 48)
    bundle.validate()


def test_wide_receptive_field_does_not_ask_for_huge_images(tmp_path: Path) -> None:
    bundle = export_bundle(Toy(), _inference(halo=[215, 215]), tmp_path / "m", metadata=METADATA, sample=_sample())
    assert bundle.description["inputs"][0]["axes"][2]["size"]["min"] == 144
    assert bundle.description["outputs"][0]["axes"][2]["halo"] == 64
    assert bundle.inference.halo == (215, 215)  # our own prediction uses all of it


def test_large_sample_is_cut(tmp_path: Path) -> None:
    export_bundle(Toy(), _inference(), tmp_path / "m", metadata=METADATA, sample=_sample(size=700))
    assert np.load(tmp_path / "m" / "test_input.npy").shape == (1, 1, 512, 512)


class FixedGrid(Toy):
    """A framework whose trace does not follow the size of the image."""

    def translate(self, x: torch.Tensor, context: Any) -> dict[str, torch.Tensor]:
        ramp = torch.from_numpy(np.arange(x.shape[-1], dtype=np.float32))
        return {"Probability": torch.cat([x, x], 1), "clean": x + ramp}


def test_trace_of_one_size_is_described_as_such(tmp_path: Path) -> None:
    bundle = export_bundle(FixedGrid(), _inference(), tmp_path / "m", metadata=METADATA, sample=_sample())
    assert [a["size"] for a in bundle.description["inputs"][0]["axes"][2:]] == [64, 64]
    bundle.validate()


class Doubled(Toy):
    """×2 super-resolution and a projection-like vector head."""

    outputs = (
        OutputSpec("big", "image", 1, scale=(Fraction(1), Fraction(2), Fraction(2))),
        OutputSpec("raw", "vector", 3, axes="C"),
    )

    def translate(self, x: torch.Tensor, context: Any) -> dict[str, torch.Tensor]:
        y = self.network(x)
        return {"big": torch.nn.functional.interpolate(y[:, :1], scale_factor=2), "raw": y.mean((2, 3))}


@pytest.mark.filterwarnings("ignore")
def test_scaled_and_dropped_axes(tmp_path: Path) -> None:
    from bioimageio.core import test_model

    bundle = export_bundle(Doubled(), _inference(), tmp_path / "m", metadata=METADATA, sample=_sample())
    assert bundle.description["outputs"][0]["axes"][2] == {
        "type": "space",
        "id": "y",
        "scale": 0.5,
        "halo": 40,
        "size": {"tensor_id": "raw", "axis_id": "y"},
    }
    assert bundle.description["outputs"][1]["id"] == "out_raw"
    summary = test_model(bundle.source)
    assert summary.status == "passed", summary.format()


class Restless(Toy):
    """Gives something else each time."""

    def translate(self, x: torch.Tensor, context: Any) -> dict[str, torch.Tensor]:
        return {n: m + torch.rand(1) for n, m in super().translate(x, context).items()}


def test_output_that_cannot_be_reproduced_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Im2ImError, match="differs by"):
        export_bundle(Restless(), _inference(), tmp_path / "m", metadata=METADATA, sample=_sample())
    assert list(tmp_path.iterdir()) == []


class Forgetful(Toy):
    """Keeps a part of what it learned outside of its state."""

    def __init__(self) -> None:
        super().__init__()
        self.network.final_conv.bias = None
        self.network.register_buffer("shift", torch.ones(1), persistent=False)

    def load_state_dict(self, state: Any, *args: Any, **kwargs: Any) -> Any:
        self.network.shift.zero_()
        return super().load_state_dict(state, *args, **kwargs)

    def translate(self, x: torch.Tensor, context: Any) -> dict[str, torch.Tensor]:
        return {n: m + self.network.shift for n, m in super().translate(x, context).items()}


def test_weights_outside_of_the_state_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(Im2ImError, match="does not reproduce the network"):
        export_bundle(Forgetful(), _inference(), tmp_path / "m", metadata=METADATA, sample=_sample())
    assert list(tmp_path.iterdir()) == []


def test_diverged_network_is_refused(tmp_path: Path) -> None:
    framework = Toy()
    torch.nn.init.constant_(framework.network.final_conv.bias, float("nan"))
    with pytest.raises(Im2ImError, match="diverged"):
        export_bundle(framework, _inference(), tmp_path / "m", metadata=METADATA, sample=_sample())


def test_framework_is_left_as_it_was(tmp_path: Path) -> None:
    framework = Toy().train()
    before = {k: v.clone() for k, v in framework.state_dict().items()}
    export_bundle(framework, _inference(), tmp_path / "m", metadata=METADATA, sample=_sample())
    assert framework.training
    assert all(p.requires_grad for p in framework.parameters())
    assert all(torch.equal(before[k], v) for k, v in framework.state_dict().items())


def test_older_package_is_replaced_other_files_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    for name in ("first", "second"):
        export_bundle(Toy(), _inference(), folder, metadata=METADATA.replace(name=name), sample=_sample())
    assert open_bundle(folder).name == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep")
    with pytest.raises(ResourceError, match="other files"):
        export_bundle(Toy(), _inference(), mine, metadata=METADATA, sample=_sample())
    assert (mine / "notes.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (np.zeros((2, 64, 64), np.uint8), "1 channel"),
        (np.zeros((64, 64), np.uint8), "2 dimensions"),
        (np.zeros((1, 8, 64, 64), np.uint8), "2 dimensions"),
        (np.full((1, 64, 64), np.nan, np.float32), "NaN"),
    ],
)
def test_wrong_sample_is_refused(tmp_path: Path, sample: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        export_bundle(Toy(), _inference(), tmp_path / "m", metadata=METADATA, sample=sample)


def test_no_standard_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="both are off"):
        export_bundle(Toy(), _inference(), tmp_path / "m", metadata=METADATA, sample=_sample(), torchscript=False)


def test_onnx_reproduces_or_names_the_missing_package(tmp_path: Path) -> None:
    import importlib.util

    if importlib.util.find_spec("onnx") is None:
        with pytest.raises(ResourceError, match="export"):
            export_bundle(Toy(), _inference(), tmp_path / "m", metadata=METADATA, sample=_sample(), onnx=True)
        assert list(tmp_path.iterdir()) == []
    else:
        bundle = export_bundle(Toy(), _inference(), tmp_path / "m", metadata=METADATA, sample=_sample(), onnx=True)
        assert ForeignModel(bundle, weights="onnx", apart=False).check() < 1e-4


def test_zip_opens_as_the_same_bundle(package: Path, tmp_path: Path) -> None:
    export_zip(package, tmp_path / "toy.zip")
    bundle = open_bundle(tmp_path / "toy.zip", cache=tmp_path / "cache")
    assert bundle.identity == open_bundle(package).identity
    assert ForeignModel(bundle, apart=False).check() < 1e-4
    again = open_bundle(tmp_path / "toy.zip", cache=tmp_path / "cache")
    assert again.folder == bundle.folder


def test_zip_is_opened_again_before_it_has_its_name(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shorten(folder: Path, zip_path: Path) -> None:
        archive.pack(folder, zip_path)
        zip_path.write_bytes(zip_path.read_bytes()[:-2000])

    monkeypatch.setattr(package_module, "pack", shorten)
    with pytest.raises(Im2ImError):
        export_zip(package, tmp_path / "toy.zip")
    assert not list(tmp_path.glob("*toy.zip*"))
    monkeypatch.undo()
    weights = package / "weights.pt"
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(Im2ImError, match="sha256"):
        export_zip(package, tmp_path / "toy.zip")
    assert not list(tmp_path.glob("*toy.zip*"))


def test_description_has_no_aliases_and_plain_numbers(package: Path) -> None:
    text = (package / "bioimageio.yaml").read_text(encoding="utf-8")
    assert not any(isinstance(e, yaml.AliasEvent) for e in yaml.parse(text, Loader=yaml.SafeLoader))
    assert open_bundle(package).provenance["metrics"] == {"dice": 0.5}


def test_kernels_are_written_as_everybody_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: True)
    framework = build_framework(EmbedSegSettings(), DynUNet(filters=(4, 8, 8)), Shapes(dimensions=2, input_channels=2))
    lay_out(framework, "cpu")
    written = export._alone(framework)
    assert not all(p.is_contiguous() for p in framework.parameters())
    assert all(p.is_contiguous() for p in written.parameters())
    assert all(torch.equal(value, framework.state_dict()[name]) for name, value in written.state_dict().items())
