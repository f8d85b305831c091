"""Predictions: tiled equals whole, any output, any size, small memory, stopped and resumed."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import BasicUNet
from skimage.measure import label
from torch import nn

from im2im_core.engine import predict as predict_module
from im2im_core.engine import predict_deliver, predict_plan
from im2im_core.engine.frameworks.contract import Framework, OutputSpec, TranslateContext
from im2im_core.engine.predict import Predictor
from im2im_core.errors import ConfigError, DataError, ResourceError, Stopped
from im2im_core.events import Message, OutputWritten, Progress, TileDone
from im2im_core.image import ArrayImage
from im2im_core.inference import Inference, InputDescription, Shapes, TargetScaling
from im2im_core.io import space
from im2im_core.normalize import NoNormalization, Percentile
from im2im_core.predict_options import PredictOptions
from im2im_core.recipe.data import NoRescale, ObjectRescale, VoxelRescale
from im2im_core.recipe.framework import FcnSettings
from im2im_core.recipe.network import BasicUNet as BasicUNetSettings

ONE = Fraction(1)
BOTH = ("labels", "foreground")


class Toy(Framework):
    """A framework that only predicts; subclasses say what."""

    outputs = (OutputSpec("prediction", "image", 1),)
    results = outputs

    def __init__(self, dimensions: int = 2, channels: int = 1) -> None:
        super().__init__()
        self.shapes = Shapes(dimensions=dimensions, input_channels=channels)
        self.anchor = nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, ...]] = []

    def encode(self, targets: Any, weight: Any) -> Any:
        return {}

    def players(self) -> Any:
        return ()

    def losses(self, batch: Any, player: Any, context: Any) -> Any:
        return {}

    def loss_weights(self) -> Any:
        return {}

    def translate(self, x: torch.Tensor, context: TranslateContext) -> dict[str, torch.Tensor]:
        self.seen.append(tuple(x.shape))
        return {"prediction": x[:, :1] * 2}

    def postprocess(self, maps: Mapping[str, np.ndarray], context: TranslateContext) -> dict[str, np.ndarray]:
        return dict(maps)


class UNetToy(Toy):
    """Two-level receptive field of at most 24 pixels, pooled by 16 as MONAI's BasicUNet is."""

    def __init__(self, dimensions: int = 2) -> None:
        super().__init__(dimensions)
        torch.manual_seed(0)
        self.net = BasicUNet(dimensions, 1, 1, (4, 4, 4, 4, 4, 4), norm=("batch", {}), act="relu").eval()

    def translate(self, x: torch.Tensor, context: TranslateContext) -> dict[str, torch.Tensor]:
        self.seen.append(tuple(x.shape))
        return {"prediction": self.net(x)}


class ConvToy(Toy):
    """A 7-pixel blur: receptive field known, halo 3."""

    def translate(self, x: torch.Tensor, context: TranslateContext) -> dict[str, torch.Tensor]:
        self.seen.append(tuple(x.shape))
        pool = nn.functional.avg_pool2d if x.ndim == 4 else nn.functional.avg_pool3d
        return {"prediction": pool(x, 7, 1, 3, count_include_pad=False)}


class DoubleToy(Toy):
    """Twice the pixels along Y and X, linear between them."""

    outputs = (OutputSpec("prediction", "image", 1, scale=(ONE, Fraction(2), Fraction(2))),)
    results = outputs

    def translate(self, x: torch.Tensor, context: TranslateContext) -> dict[str, torch.Tensor]:
        up = nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return {"prediction": up}


class HalfToy(Toy):
    outputs = (OutputSpec("prediction", "image", 1, scale=(ONE, Fraction(1, 2), Fraction(1, 2))),)
    results = outputs

    def translate(self, x: torch.Tensor, context: TranslateContext) -> dict[str, torch.Tensor]:
        return {"prediction": nn.functional.avg_pool2d(x, 2)}


class ProjectionToy(Toy):
    """The brightest plane of every pixel."""

    outputs = (OutputSpec("prediction", "image", 1, axes="CYX"),)
    results = outputs

    def translate(self, x: torch.Tensor, context: TranslateContext) -> dict[str, torch.Tensor]:
        self.seen.append(tuple(x.shape))
        return {"prediction": x.amax(2)}


class VectorToy(Toy):
    """Mean and mean square of the image, besides the image."""

    outputs = (OutputSpec("moments", "vector", 2, axes="C"),)
    results = outputs

    def translate(self, x: torch.Tensor, context: TranslateContext) -> dict[str, torch.Tensor]:
        flat = x.flatten(1)
        return {"moments": torch.stack([flat.mean(1), (flat**2).mean(1)], 1)}


class NoiseToy(Toy):
    """Random numbers that depend on seed and place alone, as a sampler draws them."""

    def translate(self, x: torch.Tensor, context: TranslateContext) -> dict[str, torch.Tensor]:
        assert context.region is not None
        y, x_ = context.region[3], context.region[4]
        rows, columns = np.meshgrid(np.arange(y.start, y.stop), np.arange(x_.start, x_.stop), indexing="ij")
        values = np.sin(context.seed + 12.9898 * rows + 78.233 * columns) * 43758.5453
        noise = torch.from_numpy((values % 1).astype(np.float32))
        return {"prediction": noise.expand(len(x), 1, -1, -1)}


class LabelToy(Toy):
    """Bright pixels, labelled by connectivity: instances and the probability they come from."""

    outputs = (OutputSpec("foreground", "probability", 1),)
    results = (OutputSpec("labels", "labels", 1), OutputSpec("foreground", "probability", 1))
    stitch = "instances"
    decode_halo = 32

    def translate(self, x: torch.Tensor, context: TranslateContext) -> dict[str, torch.Tensor]:
        return {"foreground": x.clamp(0, 1)}

    def postprocess(self, maps: Mapping[str, np.ndarray], context: TranslateContext) -> dict[str, np.ndarray]:
        limit = context.options.get("foreground", 0.5)
        return {"labels": label(maps["foreground"][0] > limit)[None].astype(np.uint32), **maps}


class FieldToy(Toy):
    """A displacement that a mirror must turn: the gradient of the image, along Y and X."""

    outputs = (OutputSpec("prediction", "vector", 2),)
    results = outputs

    def translate(self, x: torch.Tensor, context: TranslateContext) -> dict[str, torch.Tensor]:
        return {"prediction": torch.cat(torch.gradient(x[:, :1], dim=(-2, -1)), 1)}


def inference(toy: Toy, halo: int = 0, divisor: int = 1, **changes: Any) -> Inference:
    d = toy.shapes.dimensions
    given = {"normalization": NoNormalization(), "rescale": NoRescale(), **changes.pop("input", {})}
    return Inference(
        shapes=toy.shapes,
        input=InputDescription(**given),
        framework=FcnSettings(),
        network=BasicUNetSettings(),
        patch=(64,) * d,
        divisor=(divisor,) * d,
        halo=(halo,) * d,
        outputs=(),
        **changes,
    )


def predictor(toy: Toy, halo: int = 0, divisor: int = 1, **changes: Any) -> Predictor:
    return Predictor.from_framework(toy, inference(toy, halo, divisor, **changes), "cpu")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class FileWriter:
    """The smallest region writer: an array that becomes a file when it is finished."""

    def __init__(self, path: Path, grid: Any, info: Any, overwrite: bool) -> None:
        if path.exists() and not overwrite:
            raise ResourceError(f"{path} exists", "overwrite")
        self._path, self._array = path, np.zeros(grid.shape, grid.dtype)

    def write(self, region: Any, pixels: np.ndarray) -> None:
        self._array[region] = pixels

    def finish(self) -> Path:
        with self._path.open("wb") as file:
            np.save(file, self._array)
        return self._path

    def abort(self) -> None:
        self._path.unlink(missing_ok=True)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_module, "file_sink", FileWriter)


# ---- tiled equals whole ----


@pytest.mark.parametrize("blending", ["gaussian", "linear", "none"])
@pytest.mark.parametrize("batch", [1, 3])
def test_tiled_equals_whole_with_a_full_halo(blending: str, batch: int) -> None:
    toy, image = UNetToy(), noise(340, 363)
    run = predictor(toy, halo=96, divisor=16)
    whole = run.predict(image, options=PredictOptions(tile=(352, 368)))["prediction"]
    toy.seen.clear()
    options = PredictOptions(tile=(272, 272), blending=blending, batch=batch)
    tiled = run.predict(image, options=options)["prediction"]
    assert len(toy.seen) > 1
    np.testing.assert_allclose(tiled, whole, atol=1e-5)
    assert whole.shape == image.shape
    with torch.inference_mode():
        padded = np.pad(image, ((0, 12), (0, 5)), mode="reflect")
        direct = toy.net(torch.from_numpy(padded)[None, None])[0, 0, :340, :363].numpy()
    np.testing.assert_allclose(whole, direct, atol=1e-5)


def test_tiled_equals_whole_in_3d() -> None:
    toy, image = ConvToy(3), noise(23, 41, 37)
    run = predictor(toy, halo=3, divisor=2)
    whole = run.predict(image, options=PredictOptions(tile=(24, 42, 38)))["prediction"]
    tiled = run.predict(image, options=PredictOptions(tile=(16, 18, 20)))["prediction"]
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_without_halo_the_seams_show() -> None:
    # The opposite of the tests above: they could not fail if the halo did nothing.
    image = noise(100, 100)
    whole = predictor(ConvToy(), halo=3).predict(image)["prediction"]
    tiled = predictor(ConvToy(), halo=0).predict(image, options=PredictOptions(tile=(30, 30)))["prediction"]
    assert np.abs(tiled - whole).max() > 0.01


@pytest.mark.parametrize("rescale", ["auto", 1.7, 0.6])
def test_region_equals_the_same_part_of_the_whole(rescale: Any) -> None:
    image = noise(2, 120, 131)
    run = predictor(ConvToy(), halo=3, input={"normalization": Percentile()})
    options = PredictOptions(rescale=rescale, tile=(40, 40))
    whole = run.predict(image, axes="TYX", options=options)["prediction"]
    region = (slice(1, 2), slice(0, 1), slice(0, 1), slice(33, 90), slice(70, 131))
    part = run.predict(image, region, axes="TYX", options=options)
    np.testing.assert_allclose(part["prediction"][0], whole[1, 33:90, 70:131], atol=1e-5)
    assert part.layers[0].translate == (1.0, 33.0, 70.0)


def test_automatic_region_equals_the_same_part_of_the_whole() -> None:
    image = noise(150, 160)
    run = predictor(ConvToy(), halo=3, divisor=4)
    region = (slice(0, 1), slice(0, 1), slice(0, 1), slice(33, 90), slice(70, 131))
    part = run.predict(image, region)["prediction"]
    np.testing.assert_allclose(part, run.predict(image)["prediction"][33:90, 70:131], atol=1e-5)


# ---- any size, any content ----


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (5, 3), (16, 16), (17, 33)])
def test_fault_15_images_smaller_than_the_tile(shape: tuple[int, int]) -> None:
    found = predictor(UNetToy(), halo=32, divisor=16).predict(noise(*shape))
    assert found["prediction"].shape == shape
    assert np.isfinite(found["prediction"]).all()
    assert all(n % 16 == 0 for n in found.layers[0].facts["padded"][1:])


@pytest.mark.parametrize("value", [0, 7])
def test_fault_14_constant_image(value: int) -> None:
    image = np.full((40, 40), value, np.uint16)
    found = predictor(Toy(), input={"normalization": Percentile()}).predict(image)["prediction"]
    assert (found == 0).all()


def test_fault_11_nan_is_an_error_or_filled() -> None:
    image = noise(30, 30)
    image[4, 5] = np.nan
    with pytest.raises(DataError, match="NaN"):
        predictor(Toy()).predict(image)
    filled = predictor(Toy(), input={"invalid_pixels": "fill"}).predict(image, options=PredictOptions(tile=(8, 8)))[
        "prediction"
    ]
    assert filled[4, 5] == pytest.approx(2 * np.nanmin(image))
    assert np.isfinite(filled).all()


def test_normalisation_is_that_of_the_whole_image_per_time_and_channel() -> None:
    image = np.stack([noise(64, 64) * 3 + 5, noise(64, 64, seed=1) * 100])
    run = predictor(Toy(), input={"normalization": Percentile(low=0, high=100)})
    found = run.predict(image, axes="TYX", options=PredictOptions(tile=(16, 16)))["prediction"]
    low = image.min((1, 2), keepdims=True)
    np.testing.assert_allclose(found, 2 * (image - low) / (image.max((1, 2), keepdims=True) - low), atol=1e-5)


def test_planes_and_times_one_by_one_in_batches() -> None:
    image, toy = noise(2, 3, 20, 24), Toy()
    found = predictor(toy).predict(image, axes="TZYX", options=PredictOptions(batch=4))["prediction"]
    np.testing.assert_allclose(found, 2 * image, rtol=1e-6)
    assert [s[0] for s in toy.seen] == [4, 2]


def test_image_outputs_get_their_unit_back() -> None:
    run = predictor(Toy(), target_scaling=TargetScaling(offset=(100.0,), scale=(10.0,)))
    image = noise(20, 20)
    np.testing.assert_allclose(run.predict(image)["prediction"], image * 20 + 100, rtol=1e-5)


# ---- any output ----


def test_twice_the_pixels() -> None:
    image = ArrayImage(noise(45, 50), "YX", voxel_size=(None, 0.4, 0.4))
    run = predictor(DoubleToy(), halo=2)
    found = run.predict(image, options=PredictOptions(tile=(20, 20)))
    pixels = torch.from_numpy(image.read()[0, 0, 0])[None, None]
    expected = nn.functional.interpolate(pixels, scale_factor=2, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(found["prediction"], expected[0, 0].numpy(), atol=1e-5)
    assert found.layers[0].scale == pytest.approx((0.2, 0.2))
    assert found.layers[0].translate == pytest.approx((-0.1, -0.1))


def test_half_the_pixels() -> None:
    image = noise(44, 51)
    found = predictor(HalfToy(), halo=2).predict(image, options=PredictOptions(tile=(20, 20)))["prediction"]
    assert found.shape == (22, 26)
    np.testing.assert_allclose(found[:, :25], image[:, :50].reshape(22, 2, 25, 2).mean((1, 3)), atol=1e-5)


def test_projection_sees_all_planes() -> None:
    image, toy = noise(9, 50, 60), ProjectionToy(3)
    found = predictor(toy, halo=2, divisor=2).predict(image, options=PredictOptions(tile=(8, 16, 16)))
    np.testing.assert_allclose(found["prediction"], image.max(0), rtol=1e-6)
    assert {s[2] for s in toy.seen} == {10}
    assert found.layers[0].axes == "YX"


def test_vector_is_the_average_of_the_tiles() -> None:
    image = noise(60, 40)
    found = predictor(VectorToy()).predict(image, options=PredictOptions(tile=(20, 20)))["moments"]
    np.testing.assert_allclose(found, [image.mean(), (image**2).mean()], atol=1e-6)


def test_sampler_that_asks_for_its_place_leaves_no_seam() -> None:
    image, run = noise(70, 70), predictor(NoiseToy(), halo=2)
    whole = run.predict(image, options=PredictOptions(seed=3))["prediction"]
    tiled = run.predict(image, options=PredictOptions(seed=3, tile=(20, 20), batch=4))["prediction"]
    np.testing.assert_allclose(tiled, whole, atol=1e-5)
    other = run.predict(image, options=PredictOptions(seed=4))["prediction"]
    assert np.abs(other - whole).mean() > 0.1


def test_mirrored_copies_are_turned_back() -> None:
    image = noise(40, 44)
    plain = predictor(FieldToy(), halo=2).predict(image)["prediction"]
    options = PredictOptions(test_time_augmentation=True)
    averaged = predictor(FieldToy(), halo=2).predict(image, options=options)["prediction"]
    np.testing.assert_allclose(averaged, plain, atol=1e-5)
    toy = UNetToy()
    predictor(toy, divisor=16).predict(image, options=options)
    assert len(toy.seen) == 4


# ---- instances ----


def blobs(height: int, width: int) -> np.ndarray:
    y, x = np.indices((height, width))
    return (((y % 19 - 9) ** 2 + (x % 19 - 9) ** 2) <= 49).astype(np.float32)


def same_objects(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = np.unique(np.stack([a.ravel(), b.ravel()], 1), axis=0)
    return len(pairs) == len(np.unique(a)) == len(np.unique(b)) and ((a > 0) == (b > 0)).all()


@pytest.mark.parametrize("large", [False, True])
def test_instances_are_stitched(large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if large:
        monkeypatch.setattr(predict_deliver, "MEMORY_LIMIT", 1000)
        monkeypatch.setattr(predict_deliver, "DECODE_PIXELS", 4096)
    image = blobs(150, 170)
    found = predictor(LabelToy(), halo=4).predict(image, outputs=BOTH, options=PredictOptions(tile=(50, 50)))
    truth = label(image)
    assert found["labels"].dtype == np.uint32
    assert same_objects(found["labels"], truth)
    assert sorted(np.unique(found["labels"])) == list(range(truth.max() + 1))
    np.testing.assert_allclose(found["foreground"], image)
    assert [layer.name for layer in found.layers] == ["labels", "foreground"]


def test_ids_are_unique_within_a_time_point() -> None:
    image = np.stack([blobs(40, 40)] * 4).reshape(2, 2, 40, 40)
    found = predictor(LabelToy()).predict(image, axes="TZYX", outputs=["labels"])
    assert list(found) == ["labels"]
    for moment in found["labels"]:
        assert not set(np.unique(moment[0])) & set(np.unique(moment[1])) - {0}
        assert moment.max() == 2 * label(image[0, 0]).max()


def test_thresholds_can_be_replaced() -> None:
    image = blobs(40, 40) * 0.4
    run = predictor(LabelToy())
    assert run.predict(image)["labels"].max() == 0
    assert run.predict(image, options=PredictOptions(foreground=0.3))["labels"].max() > 0


# ---- size of the pixels ----


@pytest.mark.parametrize("tile", ["auto", (60, 60)])
def test_voxel_size_brings_the_image_to_the_network_and_back(tile: Any) -> None:
    y, x = np.indices((120, 140))
    smooth = (np.sin(y / 20) + np.cos(x / 25)).astype(np.float32)
    image = ArrayImage(smooth, "YX", voxel_size=(None, 0.5, 0.25))
    events: list[Any] = []
    run = predictor(ConvToy(), halo=3, input={"rescale": VoxelRescale(voxel_size=(1, 0.4, 0.4))})
    found = run.predict(image, options=PredictOptions(tile=tile, blending="linear"), on_event=events.append)
    assert found["prediction"].shape == image.info.shape[3:]
    assert np.abs(found["prediction"] - smooth)[8:-8, 8:-8].max() < 0.05
    assert found.layers[0].facts["factor"] == [1.0, 1.25, 0.625]
    assert any(isinstance(e, Message) and e.code == "rescaled" for e in events)


def test_rescaled_tiles_equal_the_rescaled_whole() -> None:
    image = noise(90, 80)
    for factor in (0.45, 1.6):
        for toy in (ConvToy(), LabelToy()):
            run = predictor(toy, halo=3)
            whole = run.predict(image, options=PredictOptions(rescale=factor)).main
            tiled = run.predict(image, options=PredictOptions(rescale=factor, tile=(24, 24))).main
            np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_object_diameter_sets_the_factor() -> None:
    run = predictor(Toy(), input={"rescale": ObjectRescale(diameter=20)})
    events: list[Any] = []
    run.predict(noise(30, 30), on_event=events.append)
    assert any(isinstance(e, Message) and e.code == "unknown_size" for e in events)
    found = run.predict(noise(30, 30), options=PredictOptions(object_diameter=40))
    assert found.layers[0].facts["factor"] == [1.0, 0.5, 0.5]


def test_the_object_diameter_is_looked_for_where_it_is_wished_or_nothing_else_is_known() -> None:
    image = noise(128, 128)
    rows, columns = np.indices(image.shape) % 32 - 16
    image[rows**2 + columns**2 < 10**2] += 50
    by_object = predictor(Toy(), input={"rescale": ObjectRescale(diameter=40)})
    by_voxel = predictor(Toy(), input={"object_diameter": 40.0})
    for run, options in (
        (by_object, {}),
        (by_object, {"object_diameter": "auto"}),
        (by_voxel, {"object_diameter": "auto"}),
    ):
        factor = run.predict(image, options=PredictOptions(**options)).layers[0].facts["factor"]
        assert factor[1] == factor[2] == pytest.approx(2, rel=0.1)
    assert by_voxel.predict(image).layers[0].facts["factor"] == [1.0, 1.0, 1.0]
    told = by_object.predict(image, options=PredictOptions(object_diameter=10))
    assert told.layers[0].facts["factor"] == [1.0, 4.0, 4.0]


def test_an_object_size_leaves_the_planes_of_a_stack_as_in_training() -> None:
    run = predictor(Toy(3), input={"rescale": ObjectRescale(diameter=20)})
    found = run.predict(noise(6, 30, 30), options=PredictOptions(object_diameter=40))
    assert found.layers[0].facts["factor"] == [1.0, 0.5, 0.5]


def test_channels_are_chosen_by_the_names_of_the_training() -> None:
    run = predictor(Toy(), input={"channel_names": ("GFP",)})
    pixels = np.stack([noise(30, 30), noise(30, 30) + 5])
    named = ArrayImage(pixels, "CYX", channels=("DAPI", "GFP"))
    np.testing.assert_allclose(np.squeeze(run.predict(named).main), pixels[1] * 2, rtol=1e-5)
    told = run.predict(named, options=PredictOptions(channels=(0,))).main
    np.testing.assert_allclose(np.squeeze(told), pixels[0] * 2, rtol=1e-5)
    with pytest.raises(DataError, match=r"has 2 channels; the model .* sees 1 \(GFP\)"):
        run.predict(ArrayImage(pixels, "CYX", channels=("DAPI", "RFP")))


def test_absurd_voxel_size_is_refused() -> None:
    image = ArrayImage(noise(30, 30), "YX", voxel_size=(None, 500.0, 500.0))
    with pytest.raises(DataError, match="voxel size"):
        predictor(Toy(), input={"rescale": VoxelRescale(voxel_size=(1, 0.5, 0.5))}).predict(image)


def test_displacements_are_those_of_the_source() -> None:
    y, x = np.indices((60, 60))
    ramp = (3 * y + x).astype(np.float32)
    plain = predictor(FieldToy(), halo=2).predict(ramp)["prediction"]
    # On a grid twice as fine the gradient halves as a value, so it is asked for per network pixel.
    finer = predictor(FieldToy(), halo=2).predict(ramp, options=PredictOptions(rescale=2.0))["prediction"]
    np.testing.assert_allclose(finer[:, 5:-5, 5:-5] * 4, plain[:, 5:-5, 5:-5], rtol=1e-4)


# ---- what does not fit ----


def test_wrong_channels_and_their_cure() -> None:
    image = ArrayImage(noise(3, 20, 20), "CYX", channels=("DAPI", "GFP", "RFP"))
    with pytest.raises(DataError, match=r"sees 2.*channels="):
        predictor(Toy(channels=2)).predict(image)
    found = predictor(Toy(channels=2)).predict(image, options=PredictOptions(channels=("GFP", 0)))["prediction"]
    np.testing.assert_allclose(found, 2 * image.read()[0, 1, 0])


def test_plane_for_a_volume_model_is_refused() -> None:
    with pytest.raises(DataError, match="works on volumes"):
        predictor(Toy(3)).predict(noise(20, 20))


def test_unknown_output_is_refused() -> None:
    with pytest.raises(ConfigError, match="prediction"):
        predictor(Toy()).predict(noise(8, 8), outputs=["predicton"])


def test_mode_of_the_framework_is_restored() -> None:
    toy = UNetToy()
    toy.train()
    toy.net.eval()
    predictor(toy, divisor=16).predict(noise(32, 32))
    assert toy.training
    assert not toy.net.training


# ---- memory ----


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_fault_28_out_of_memory_halves_the_tile(error: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> None:
    toy, image = ConvToy(), noise(200, 210)
    run = predictor(toy, halo=3, divisor=8)
    whole = run.predict(image)["prediction"]
    forward = toy.translate

    def hungry(x: torch.Tensor, context: TranslateContext) -> dict[str, torch.Tensor]:
        if x.numel() > 80 * 80:
            raise error
        return forward(x, context)

    monkeypatch.setattr(toy, "translate", hungry)
    events: list[Any] = []
    found = run.predict(image, on_event=events.append, options=PredictOptions(batch=2))
    np.testing.assert_allclose(found["prediction"], whole, atol=1e-5)
    assert np.prod(found.layers[0].facts["tile"]) <= 80 * 80
    assert all(t % 8 == 0 for t in found.layers[0].facts["tile"][1:])
    assert any(isinstance(e, Message) and e.code == "smaller_tiles" for e in events)


def test_fault_28_no_tile_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = ConvToy()
    monkeypatch.setattr(toy, "translate", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("out of memory")))
    with pytest.raises(ResourceError, match="smallest tile"):
        predictor(toy, halo=3, divisor=8).predict(noise(60, 60))


def test_fault_28_then_the_cpu() -> None:
    """What a run on a device does when its smallest tile does not fit; the device itself is not needed for that."""
    told: list[Any] = []
    maker = predictor(ConvToy(), halo=3, divisor=8)
    run = predict_module._Task(maker, noise(40, 40), "YX", None, None, None, told.append, PredictOptions(), None)
    run.device, plan = torch.device("cuda"), run._plan()
    while run.device.type == "cuda":
        plan, before = run._shrink(plan), plan
    assert [m.code for m in told][-1] == "to_cpu"
    assert {m.code for m in told[:-1]} <= {"smaller_tiles"}
    assert np.prod(plan.tile) > np.prod(before.tile)  # the CPU has its own memory
    with pytest.raises(ResourceError, match="smallest tile"):
        functools.reduce(lambda plan, _: run._shrink(plan), range(99), plan)


def test_other_errors_of_torch_are_not_taken_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = ConvToy()
    monkeypatch.setattr(toy, "translate", lambda *_: (_ for _ in ()).throw(RuntimeError("size mismatch")))
    with pytest.raises(RuntimeError, match="size mismatch"):
        predictor(toy).predict(noise(20, 20))


# ---- files, events, stop and resume ----


@pytest.mark.usefixtures("files")
def test_files_and_events(tmp_path: Path) -> None:
    image, events = blobs(100, 120), []
    found = predictor(LabelToy(), halo=4).predict(
        image, outputs=BOTH, to=tmp_path / "cells.npy", on_event=events.append, options=PredictOptions(tile=(40, 40))
    )
    assert found["labels"] == tmp_path / "cells.npy"
    assert found["foreground"] == tmp_path / "cells_foreground.npy"
    assert np.load(found["labels"]).shape == (1, 1, 1, 100, 120)
    assert {e.output for e in events if isinstance(e, OutputWritten)} == {"labels", "foreground"}
    assert [e for e in events if isinstance(e, Progress)][-1].done > 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells.npy", "cells_foreground.npy"]
    with pytest.raises(ResourceError, match="exists"):
        predictor(LabelToy()).predict(image, to=tmp_path / "cells.npy")


def test_finished_tiles_cover_the_output_once() -> None:
    seen = np.zeros((1, 1, 1, 90, 70), int)

    def on_event(event: Any) -> None:
        if isinstance(event, TileDone):
            seen[tuple(slice(a, b) for a, b in zip(event.start, event.stop, strict=True))] += 1

    predictor(ConvToy(), halo=3).predict(noise(90, 70), on_event=on_event, options=PredictOptions(tile=(40, 40)))
    assert (seen == 1).all()


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("stop_after", [1, 5, 14, 29])
@pytest.mark.parametrize("make", [UNetToy, LabelToy])
def test_fault_45_stopped_prediction_goes_on_bit_identical(make: type[Toy], stop_after: int, tmp_path: Path) -> None:
    image = blobs(2 * 200, 210).reshape(2, 200, 210) + 0.1 * noise(2, 200, 210)
    options = PredictOptions(tile=(80, 80), batch=2, blending="gaussian")
    run = predictor(make(), halo=16, divisor=16)
    once = run.predict(ArrayImage(image, "TYX", identity="a"), to=tmp_path / "once.npy", options=options)
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > stop_after

    target = tmp_path / "twice.npy"
    with pytest.raises(Stopped):
        run.predict(ArrayImage(image, "TYX", identity="a"), to=target, options=options, should_stop=should_stop)
    assert not target.exists()
    computed = len(run.framework.seen)
    again = run.predict(ArrayImage(image, "TYX", identity="a"), to=target, options=options.replace(resume=True))
    for name in once:
        assert np.array_equal(np.load(once[name]), np.load(again[name])), name
    if make is UNetToy and stop_after == 29:
        assert len(run.framework.seen) - computed < computed / 3
    assert not list(tmp_path.glob(".*"))


@pytest.mark.usefixtures("files")
def test_fault_45_going_on_cuts_the_image_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Free memory decides how an image is cut; tiles that are done count in the cut of the first attempt."""
    image, target = ArrayImage(noise(600, 610), "YX", identity="a"), tmp_path / "out.npy"
    run, calls = predictor(ConvToy(), halo=3), iter([False] * 4)
    cuts = iter([(256, 256), None])

    def choose(plan: Any, *_: Any) -> Any:
        cut = next(cuts)
        return replace(plan, chunk=None if cut is None else (1, *cut)), [1, 272, 272]

    monkeypatch.setattr(predict_plan, "_choose", choose)
    options = PredictOptions(batch=1)
    with pytest.raises(Stopped):
        run.predict(image, to=target, options=options, should_stop=lambda: next(calls, True))
    again = run.predict(image, to=target, options=options.replace(resume=True))
    monkeypatch.undo()
    expected = run.predict(image, options=options)["prediction"]
    np.testing.assert_allclose(np.load(again["prediction"])[0, 0, 0], expected, atol=1e-5)


@pytest.mark.usefixtures("files")
def test_fault_45_torn_journal_and_other_image(tmp_path: Path) -> None:
    image, target = noise(200, 210), tmp_path / "out.npy"
    run, calls = predictor(ConvToy(), halo=3), iter([False] * 6)
    options = PredictOptions(tile=(60, 60), batch=1)
    with pytest.raises(Stopped):
        run.predict(
            ArrayImage(image, "YX", identity="a"), to=target, options=options, should_stop=lambda: next(calls, True)
        )
    journal = next(tmp_path.glob(".*"))
    content = journal.read_bytes()
    journal.write_bytes(content[:-1000])
    with pytest.raises(DataError, match="another image"):
        run.predict(ArrayImage(image, "YX", identity="b"), to=target, options=options.replace(resume=True))
    found = run.predict(ArrayImage(image, "YX", identity="a"), to=target, options=options.replace(resume=True))
    expected = run.predict(image, options=options)["prediction"]
    assert np.array_equal(np.load(found["prediction"])[0, 0, 0], expected)


@pytest.mark.usefixtures("files")
def test_fault_45_journal_of_other_weights_is_refused(tmp_path: Path) -> None:
    """A model that was trained anew has the same name, and must not fill the rest of an output."""
    image, target = ArrayImage(noise(100, 110), "YX", identity="a"), tmp_path / "out.npy"
    options = PredictOptions(tile=(64, 64), batch=1)
    first, second = UNetToy(), UNetToy()
    nn.init.constant_(next(second.parameters()), 0.5)
    calls = iter([False] * 3)
    with pytest.raises(Stopped):
        predictor(first, halo=3, divisor=16).predict(
            image, to=target, options=options, should_stop=lambda: next(calls, True)
        )
    with pytest.raises(DataError, match="another image, model"):
        predictor(second, halo=3, divisor=16).predict(image, to=target, options=options.replace(resume=True))
    predictor(first, halo=3, divisor=16).predict(image, to=target, options=options.replace(resume=True))
    assert target.exists()


def test_identity_is_that_of_the_weights() -> None:
    first, second = UNetToy(), UNetToy()
    assert predictor(first).identity == predictor(second).identity
    nn.init.constant_(next(second.parameters()), 0.5)
    assert predictor(first).identity != predictor(second).identity


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("free", "fits"), [(2.5, True), (1.5, False)])
def test_fault_06_the_journal_needs_room_too(
    free: float, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An output of 40 MB and a journal of 40 MB."""
    size, reserve = 100 * 100 * 1000 * 4, 16 * 2**20

    def usage(folder: Any) -> Any:
        return SimpleNamespace(free=int(free * size) + reserve)

    monkeypatch.setattr(space.shutil, "disk_usage", usage)
    image = ArrayImage(np.broadcast_to(np.float32(1), (1000, 100, 100)), "TYX", identity="a")
    with pytest.raises(Stopped if fits else ResourceError, match="stopped" if fits else "with its journal needs"):
        predictor(ConvToy(), halo=3).predict(image, to=tmp_path / "out.npy", should_stop=lambda: True)


@pytest.mark.usefixtures("files")
def test_fault_45_what_killed_predictions_left_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine = predict_deliver.SCRATCH
    gone = [f".out.npy.{dead.pid}.part", f"{mine}{dead.pid}-abc.scratch"]
    kept = [
        f".out.npy.{os.getppid()}.part",
        f".other.npy.{dead.pid}.part",
        f"{mine}{os.getpid()}-abc.scratch",
        f".im2im-00000000-{dead.pid}-abc.scratch",  # of another computer
        "out.npy.part",
    ]
    (tmp_path / gone[0]).mkdir()
    (tmp_path / gone[0] / "0").write_bytes(b"chunk")
    for name in (*gone[1:], *kept):
        (tmp_path / name).write_bytes(b"pixels")
    predictor(ConvToy(), halo=3).predict(noise(40, 40), to=tmp_path / "out.npy")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*kept, "out.npy"])


def test_scratch_files_say_whose_they_are(tmp_path: Path) -> None:
    scratch = predict_deliver._Scratch(tmp_path)
    scratch.make((4, 4), np.float16, on_disk=True)
    (path,) = tmp_path.iterdir()
    assert path.name.startswith(f"{predict_deliver.SCRATCH}{os.getpid()}-")
    scratch.close()


def test_fault_06_error_while_writing_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Full(FileWriter):
        def write(self, region: Any, pixels: np.ndarray) -> None:
            raise ResourceError("disk full", "free space")

    monkeypatch.setattr(predict_module, "file_sink", Full)
    with pytest.raises(ResourceError, match="disk full"):
        predictor(ConvToy()).predict(noise(80, 80), to=tmp_path / "a.npy", options=PredictOptions(tile=(20, 20)))
