"""Every framework under the contract suite, and what is particular to one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import toy_frameworks as toys
from framework_contract import NETWORK, Case, FrameworkContract
from numpy.typing import NDArray

from im2im_core.engine.frameworks.build import build_framework, geometry
from im2im_core.engine.frameworks.contract import TranslateContext
from im2im_core.errors import ConfigError, DataError
from im2im_core.inference import Shapes
from im2im_core.recipe.fields import kind_of
from im2im_core.recipe.framework import (
    EmbedSegSettings,
    FcnSettings,
    FlowsSettings,
    FrameworkSettings,
    InstanceSettings,
    StarDistSettings,
)
from im2im_core.recipe.losses import L1, SSIM, CrossEntropy, Dice, Focal
from im2im_core.recipe.network import AttentionUnet, BasicUNet, DynUNet, UNet

Pair = tuple[NDArray[Any], NDArray[Any]]
GOLDEN = Path(__file__).parent / "state_dict_keys.json"
PLANE, VOLUME = (1, 16, 16), (4, 16, 16)


# ---- worlds: (source, target), (C, Z, Y, X) ----


def tartan(rng: np.random.Generator, shape: tuple[int, ...] = PLANE, channels: int = 1) -> Pair:
    """Separable stripes; the target is 1 - source."""
    stripes = [rng.random((channels, *(n if i == k else 1 for i, n in enumerate(shape)))) for k in range(3)]
    source = (sum(stripes) / 3).astype(np.float32)
    return source, 1 - source


def tartan_volume(rng: np.random.Generator) -> Pair:
    return tartan(rng, VOLUME)


def two_to_three(rng: np.random.Generator) -> Pair:
    """Two channels in, three out: both inverted, and their mean."""
    source, target = tartan(rng, channels=2)
    return source, np.concatenate([target, source.mean(0, keepdims=True)])


def terraces(rng: np.random.Generator, shape: tuple[int, ...] = PLANE) -> Pair:
    """Classes 0, 1, 2 by brightness."""
    source, _ = tartan(rng, shape)
    return source, np.digitize(source, (0.4, 0.6)).astype(np.int64)


def terraces_volume(rng: np.random.Generator) -> Pair:
    return terraces(rng, VOLUME)


def discs(rng: np.random.Generator, shape: tuple[int, ...] = PLANE) -> Pair:
    """Two bright balls that may touch, numbered 1 and 2, on noise."""
    place = np.indices(shape)
    labels = np.zeros(shape, np.uint16)
    for number, side in enumerate((0.3, 0.7), 1):
        middle = [n * side + rng.uniform(-1, 1) if i == 2 else n / 2 for i, n in enumerate(shape)]
        labels[sum((p - m) ** 2 for p, m in zip(place, middle, strict=True)) < 9] = number
    source = ((labels > 0) + rng.normal(0, 0.05, shape)).astype(np.float32)
    return source[None], labels[None]


def discs_volume(rng: np.random.Generator) -> Pair:
    return discs(rng, VOLUME)


def coarse_and_fine(rng: np.random.Generator) -> Pair:
    source, _ = tartan(rng)
    return source, np.kron(source, np.ones((1, 1, 2, 2))).astype(np.float32)


def stack_and_sharpest(rng: np.random.Generator) -> Pair:
    """The brightest plane of a stack, repeated along Z."""
    source, _ = tartan(rng, VOLUME)
    return source, np.broadcast_to(source.max(1, keepdims=True), source.shape).copy()


def image_and_numbers(rng: np.random.Generator) -> Pair:
    """Mean brightness and its complement, constant over the patch."""
    source = (tartan(rng)[0] * rng.random()).astype(np.float32)
    value = source.mean()
    return source, np.broadcast_to(np.float32([value, 1 - value])[:, None, None, None], (2, *PLANE)).copy()


FLAT, DEEP = Shapes(dimensions=2, input_channels=1), Shapes(dimensions=3, input_channels=1)
SEGMENTATION = FcnSettings(output="segmentation")
CASES = [
    Case("fcn_image", FcnSettings(), FLAT, tartan, "l1"),
    Case("fcn_image_3d", FcnSettings(), DEEP, tartan_volume, "l1"),
    Case(
        "fcn_image_channels",
        FcnSettings(losses=(L1(), SSIM(window=3))),
        Shapes(dimensions=2, input_channels=2, target_channels=3),
        two_to_three,
        "l1",
    ),
    Case("fcn_classes", SEGMENTATION, FLAT.replace(classes=3), terraces, "cross_entropy"),
    Case(
        "fcn_classes_3d",
        SEGMENTATION.replace(losses=[Dice().dump(), Focal().dump()]),
        DEEP.replace(classes=3),
        terraces_volume,
        "focal",
    ),
    Case(
        "fcn_classes_deep",
        SEGMENTATION.replace(deep_supervision=1),
        FLAT.replace(classes=3),
        terraces,
        "cross_entropy",
        factor=0.6,
    ),
    Case("instance_distance", InstanceSettings(), FLAT, discs, "cross_entropy"),
    Case("instance_boundary_3d", InstanceSettings(maps="boundary"), DEEP, discs_volume, "cross_entropy"),
    Case("flows", FlowsSettings(), FLAT, discs, "flow", steps=60),
    Case("flows_3d", FlowsSettings(anisotropy=2.0), DEEP, discs_volume, "flow", steps=60),
    Case("embedseg", EmbedSegSettings(diameter=6), FLAT, discs, "instance", factor=0.6),
    Case("embedseg_3d", EmbedSegSettings(diameter=6, sigmas="one"), DEEP, discs_volume, "instance", factor=0.6),
    Case("embedseg_branched", EmbedSegSettings(diameter=6, branched=True), FLAT, discs, "instance", factor=0.6),
    Case("stardist", StarDistSettings(diameter=6), FLAT, discs, "foreground", steps=90),
    Case("stardist_3d", StarDistSettings(grid=1, anisotropy=2.0, diameter=6), DEEP, discs_volume, "foreground"),
    Case("toy_gan", toys.Gan(), FLAT, tartan, "l1"),
    Case("toy_gan_3d", toys.Gan(), DEEP, tartan_volume, "l1"),
    Case("toy_diffusion", toys.Diffusion(), FLAT, tartan, "l1"),
    Case("toy_upscale", toys.Upscale(), FLAT, coarse_and_fine, "l1"),
    Case("toy_projection", toys.Projection(), DEEP, stack_and_sharpest, "l1", factor=0.6),
    Case("toy_vector", toys.Vector(), FLAT, image_and_numbers, "l1"),
]


def plugin_cases() -> list[Case]:
    """The contract for every framework that an installed package registers, in the world of its first task."""
    worlds = {"instance_segmentation": discs, "semantic_segmentation": terraces}
    found = [cls for cls in get_args(FrameworkSettings) if not cls.__module__.startswith("im2im_core.")]
    return [Case(kind_of(cls) or "", cls(), FLAT, worlds.get(cls.tasks[0], tartan), watch="") for cls in found]


CASES += plugin_cases()


class TestContract(FrameworkContract):
    @pytest.fixture(params=CASES, ids=lambda case: case.name)
    def case(self, request: pytest.FixtureRequest) -> Case:
        return request.param


def test_every_framework_of_the_recipe_is_under_the_contract() -> None:
    covered = {type(case.settings) for case in CASES}
    assert {EmbedSegSettings, FcnSettings, InstanceSettings} <= set(get_args(FrameworkSettings))
    assert set(get_args(FrameworkSettings)) <= covered


# ---- what checkpoints and bundles rely on ----

NETWORKS = {
    "basic_unet": BasicUNet(features=(4, 4, 4, 4, 4, 4)),
    "unet": UNet(channels=(4, 4, 4)),
    "dynunet": DynUNet(filters=(4, 4, 4)),
    "attention_unet": AttentionUnet(channels=(4, 4, 4)),
    "basic_unet_stem": BasicUNet(features=(4, 4, 4, 4, 4, 4), stem=2),
}


def state_dict_keys() -> dict[str, list[str]]:
    """Keys of every shipped framework and network."""
    built = {f"fcn/{name}": build_framework(SEGMENTATION, network, FLAT) for name, network in NETWORKS.items()}
    built["instance/basic_unet"] = build_framework(InstanceSettings(), NETWORKS["basic_unet"], FLAT)
    built["flows/basic_unet"] = build_framework(FlowsSettings(), NETWORKS["basic_unet"], FLAT)
    built["embedseg/basic_unet"] = build_framework(EmbedSegSettings(), NETWORKS["basic_unet"], FLAT)
    branched = EmbedSegSettings(branched=True)
    built["embedseg_branched/basic_unet"] = build_framework(branched, NETWORKS["basic_unet"], FLAT)
    built["stardist/basic_unet"] = build_framework(StarDistSettings(), NETWORKS["basic_unet"], FLAT)
    return {name: list(framework.state_dict()) for name, framework in built.items()}


def test_state_dict_keys_are_those_of_old_checkpoints() -> None:
    """To accept a change knowingly, write `state_dict_keys` into the file and migrate old checkpoints."""
    assert state_dict_keys() == json.loads(GOLDEN.read_text())


# ---- fcn ----


def fcn(settings: FcnSettings = SEGMENTATION, **shapes: int):
    return build_framework(settings, NETWORK, Shapes(dimensions=2, input_channels=1, **shapes))


def test_instances_are_not_taken_for_classes() -> None:
    target = np.array([[[[0, 1, 2, 7]]]])
    with pytest.raises(DataError, match=r"ids 0, 1, 2, 7, but there are 3 classes.*choose framework instance"):
        fcn(classes=3).encode({"target": target}, None)
    with pytest.raises(DataError, match="-1"):
        fcn(classes=3).encode({"target": target - 1}, None)
    with pytest.raises(DataError, match="fractions"):
        fcn(classes=3).encode({"target": target / 4}, None)


def test_ids_of_unknown_pixels_do_not_matter() -> None:
    target, weight = np.array([[[[0, 1, 2, 7]]]], np.int64), np.array([[[[1, 1, 1, 0]]]], np.float32)
    encoded = fcn(classes=3).encode({"target": target}, weight)
    np.testing.assert_array_equal(encoded["target"], [[[[0, 1, 2, 0]]]])


@pytest.mark.parametrize(("classes", "dtype"), [(2, np.uint8), (256, np.uint8), (257, np.uint16)])
def test_class_ids_take_the_smallest_type(classes: int, dtype: type) -> None:
    framework = fcn(classes=classes)
    encoded = framework.encode({"target": np.full((1, 1, 2, 2), classes - 1)}, None)["target"]
    assert encoded.dtype == dtype
    assert (encoded == classes - 1).all()


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.float32])
def test_class_ids_may_come_in_any_type(dtype: type) -> None:
    encoded = fcn().encode({"target": np.eye(4, dtype=dtype)[None, None]}, None)["target"]
    np.testing.assert_array_equal(encoded[0, 0], np.eye(4))


def test_settings_win_over_shapes() -> None:
    assert fcn(SEGMENTATION.replace(classes=5)).channels == 5
    assert fcn(SEGMENTATION, classes=4).channels == 4
    assert fcn(FcnSettings(output_channels=3)).outputs[0].channels == 3
    with pytest.raises(DataError, match="has 1 channels, the network makes 3"):
        fcn(FcnSettings(output_channels=3)).encode({"target": np.zeros((1, 1, 4, 4))}, None)


def test_two_targets_are_refused() -> None:
    with pytest.raises(DataError, match="learns one target, the data has 2: a, b"):
        fcn().encode({"a": np.zeros((1, 1, 4, 4)), "b": np.zeros((1, 1, 4, 4))}, None)


def test_losses_must_fit_the_output() -> None:
    with pytest.raises(ConfigError, match=r"loss l1 cannot learn framework\.output segmentation"):
        fcn(SEGMENTATION.replace(losses=[L1().dump()]))
    with pytest.raises(ConfigError, match="Choose from: l1, l2, huber, ssim, ms_ssim, fourier_ring, perceptual, class"):
        fcn(FcnSettings(losses=(Dice(),)))


def test_loss_weights_are_those_of_the_recipe() -> None:
    framework = fcn(SEGMENTATION.replace(losses=[Dice(weight=2).dump(), CrossEntropy(weight=0.5).dump()]))
    assert framework.loss_weights() == {"dice_loss": 2.0, "cross_entropy": 0.5}


def test_probabilities_sum_to_one_and_labels_are_their_argmax() -> None:
    framework = fcn(classes=3).eval()
    with torch.no_grad():
        maps = framework.translate(torch.rand(1, 1, 16, 16), TranslateContext())
    torch.testing.assert_close(maps["probability"].sum(1), torch.ones(1, 16, 16))
    results = framework.postprocess({"probability": maps["probability"][0].numpy()}, TranslateContext())
    np.testing.assert_array_equal(results["labels"][0], maps["probability"][0].argmax(0).numpy())


def test_class_metrics_have_closed_forms() -> None:
    truth = np.array([[[0, 0, 1, 1], [2, 2, 2, 2]]])
    labels = np.array([[[0, 1, 1, 1], [2, 2, 2, 0]]], np.uint8)
    figures = fcn(classes=3).metrics({"labels": labels}, {"target": truth}, None)
    assert figures["class_1_dice"] == pytest.approx(4 / 5)
    assert figures["class_2_iou"] == pytest.approx(3 / 4)
    assert figures["dice"] == pytest.approx((4 / 5 + 6 / 7) / 2)
    weight = np.ones((1, 2, 4), np.float32)
    weight[0, 0, 1] = weight[0, 1, 3] = 0
    assert fcn(classes=3).metrics({"labels": labels}, {"target": truth}, weight)["dice"] == 1


def test_image_metrics_see_a_perfect_image() -> None:
    image = np.random.default_rng(0).random((1, 16, 16), np.float32)
    figures = fcn(FcnSettings()).metrics({"image": image + 0.01}, {"target": image}, None)
    assert figures["pearson"] == pytest.approx(1)
    assert figures["psnr"] == pytest.approx(20 * np.log10(np.ptp(image) / 0.01), abs=0.01)
    assert 0.9 < figures["ssim"] <= 1


def test_geometry_takes_the_largest_of_all_networks() -> None:
    framework = fcn()
    assert geometry(framework) == (framework.network.divisor, framework.network.receptive_field)
    assert framework.network.divisor == (4, 4)
