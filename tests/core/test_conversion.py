"""Recipes from configurations of mmv_im2im: what is taken over, what is said, what is refused."""

from __future__ import annotations

import inspect
import json
import math
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from conversion_world import DENOISING, EMBEDSEG, SEGMENTATION, load, monai, named, training
from im2im_core import api
from im2im_core.cli import main
from im2im_core.conversion import Conversion, convert_content
from im2im_core.conversion.networks import DIVISORS, MONAI_NETS
from im2im_core.conversion.training import ASLEEP, VALIDATIONS
from im2im_core.errors import ConfigError, TrustError
from im2im_core.layouts import AutoLayout, PreSplitLayout, SubfolderLayout
from im2im_core.normalize import CentreZScore, MinMax, NoNormalization, Percentile, ZScore
from im2im_core.plans import validation_steps
from im2im_core.recipe import Recipe
from im2im_core.recipe import losses as loss
from im2im_core.recipe import network as net
from im2im_core.recipe import training as train

CONFIGS = "IM2IM_MMV_CONFIGS"
"""Variable with the folder of the real configurations; else they are looked for in the installed package."""


def converted(**changes: Any) -> Conversion:
    return convert_content(training(**changes), "config.yaml")


def recipe_of(**changes: Any) -> Recipe:
    return converted(**changes).recipe


def said(conversion: Conversion, place: str) -> str:
    """Everything that is said of a place, with its kind."""
    return " | ".join(f"{note.kind}: {note.text}" for note in conversion.notes if note.place.startswith(place))


# ---- whole files -----------------------------------------------------------------


def test_label_free_in_2d() -> None:
    recipe = recipe_of()
    assert (recipe.task, recipe.name, recipe.data.dimensions) == ("label_free", "config", 2)
    assert recipe.data.normalization == Percentile(low=0.5, high=99.5)
    assert recipe.data.target_normalization == ZScore()
    assert (recipe.data.input_channels, recipe.data.target_channels) == ((0,), (0,))
    assert recipe.data.patch == (32, 48)
    assert recipe.training.batch == 3 * 4
    assert recipe.data.split.validation == 0.25
    assert recipe.data.foreground == 0
    assert recipe.data.augmentation.flip
    assert not recipe.data.augmentation.rotate90
    assert recipe.framework.losses == (loss.L2(),)
    assert recipe.training.optimizer == train.AdamW(lr=0.002, weight_decay=0.0005)
    assert recipe.training.epochs == 6
    assert (recipe.training.precision, recipe.training.device, recipe.training.clip) == ("auto", "auto", None)


def test_segmentation_with_terms_for_shapes() -> None:
    conversion = converted(**SEGMENTATION)
    recipe = conversion.recipe
    assert recipe.task == "semantic_segmentation"
    assert recipe.framework.classes == 3
    assert recipe.data.input_channels == (1,)
    assert (recipe.data.patch, recipe.training.batch) == ("auto", "auto")
    assert recipe.framework.losses == (
        loss.GeneralizedDice(),
        loss.Focal(),
        loss.Connectivity(weight=0.5, schedule=loss.Ramp(end=3 / 6)),
    )
    assert recipe.network == net.ClassNetwork(
        class_path=f"{MONAI_NETS}.AttentionUnet",
        init_args={"channels": [8, 16, 16], "strides": [1, 2, 2], "dropout": 0.2},
        divisor=2,  # the last of its strides is not used: two steps, of 1 and of 2
    )
    assert "missing: no term for fractal dimension" in said(conversion, "model.criterion")


def test_instances() -> None:
    conversion = converted(**EMBEDSEG)
    recipe = conversion.recipe
    assert recipe.task == "instance_segmentation"
    assert recipe.framework.kind == "embedseg"
    assert (recipe.framework.centre, recipe.framework.foreground_weight) == ("centroid", 5)
    assert recipe.framework.sigmas == "per_axis"
    assert recipe.network == api.load_preset("instance_seg_2d").network
    assert "BranchedERFNet_2d is not used here" in said(conversion, "model.net")


def test_restoration_in_3d_of_images_that_are_normalised_already() -> None:
    conversion = converted(**DENOISING)
    recipe = conversion.recipe
    assert (recipe.task, recipe.data.dimensions) == ("restoration", 3)
    assert recipe.data.normalization == NoNormalization()
    assert recipe.data.target_normalization == NoNormalization()
    assert recipe.network == net.UNet(channels=(8, 8, 16), residual_units=1, norm="batch", anisotropy="auto")
    assert recipe.data.patch == (8, 20, 20)  # a multiple of 4 along each axis
    assert recipe.training.clip == 0.8
    assert "[6, 20, 20] became [8, 20, 20]" in said(conversion, "data.preprocess")


def test_self_configured_network() -> None:
    levels = {"kernel_size": [[3, 3]] * 3, "strides": [[1, 1], [2, 2], [2, 2]], "filters": [8, 8, 8]}
    body = named(MONAI_NETS, "DynUNet", spatial_dims=2, in_channels=2, out_channels=3, dropout=0.2, res_block=True)
    body["params"] |= levels
    recipe = recipe_of(
        **SEGMENTATION
        | {"model__framework": "nnUnet", "model__net": body, "data__extra": {"patch_size": [64, 64], "modality": "CT"}}
    )
    assert recipe.network == net.DynUNet(dropout=0.2, residual=True, norm="instance")
    assert recipe.data.patch == (64, 64)
    assert recipe.framework.classes == 3


def test_a_recipe_says_again_what_was_said(tmp_path: Path) -> None:
    conversion = converted(**SEGMENTATION)
    text = conversion.to_yaml()
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    assert api.load_recipe(path) == conversion.recipe
    comments = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    for note in conversion.notes:
        assert " ".join(note.text.split()) in comments
        assert note.place in comments


# ---- nothing is lost ---------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        "seed",
        "data.shuffle",
        "data.dataloader.cache",
        "data.preprocess.0.params.axes",
        "data.augmentation.0.params.always",
        "model.ema",
        "model.criterion.params.margin",
        "trainer.params.limit_train_batches",
        "trainer.notes",
    ],
)
def test_what_is_not_known_is_named(place: str) -> None:
    content: Any = training()
    inside = content
    for part in place.split(".")[:-1]:
        inside = inside[int(part) if part.isdigit() else part]
    inside[place.split(".")[-1]] = "something"
    conversion = convert_content(content, "config.yaml")
    assert "missing: is not known here and was left out" in said(conversion, place)
    assert conversion.recipe == recipe_of()


def test_what_the_files_usually_have_is_not_called_unknown() -> None:
    for changes in ({}, SEGMENTATION, EMBEDSEG, DENOISING):
        assert "is not known here" not in converted(**changes).words()


# ---- parts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (monai("NormalizeIntensityd", keys="IM"), ZScore()),
        (monai("ScaleIntensityd", keys=["IM"]), MinMax()),
        (monai("ScaleIntensityRangePercentilesd", keys=["IM"], lower=0, upper=100, b_min=0, b_max=1), MinMax()),
        (monai("ScaleIntensityRanged", keys=["IM"], a_min=0, a_max=255), MinMax()),
        (named("mmv_im2im.preprocessing.transforms", "norm_around_center", keys=["IM"], min_z=32), CentreZScore()),
        (named("mmv_im2im.preprocessing.transforms", "normalize_staining", keys=["IM"]), Percentile()),
        (monai("Resized", keys=["IM"], spatial_size=[8, 8]), NoNormalization()),
    ],
)
def test_normalisations(step: dict[str, Any], expected: Any) -> None:
    found = converted(data__preprocess=[load(["IM", "GT"], "YX"), step])
    assert found.recipe.data.normalization == expected
    assert found.recipe.data.target_normalization == NoNormalization()
    exact = step["func_name"] in ("NormalizeIntensityd", "ScaleIntensityd") or step["params"].get("b_max") == 1
    assert exact or step["func_name"] in found.words()


@pytest.mark.parametrize(
    ("step", "patch", "patches", "foreground"),
    [
        (monai("RandSpatialCropd", roi_size=64), (64, 64), 1, 0),
        (monai("RandSpatialCropSamplesd", roi_size=[64, -1], num_samples=2), "auto", 1, 0),
        (monai("RandCropByPosNegLabeld", spatial_size=[32, 32], pos=3, neg=1, num_samples=5), (32, 32), 5, 0.75),
        (monai("CenterSpatialCropd", roi_size=[4, 32]), (16, 32), 1, 0),
    ],
)
def test_patches(step: dict[str, Any], patch: Any, patches: int, foreground: float) -> None:
    recipe = recipe_of(data__preprocess=[load(["IM", "GT"], "YX"), step])
    assert recipe.data.patch == patch
    assert recipe.training.batch == ("auto" if patch == "auto" else 3 * patches)
    assert recipe.data.foreground == foreground


def test_patches_by_weights_are_named() -> None:
    step = monai("RandWeightedCropd", keys=["IM", "GT"], w_key="CM", spatial_size=[32, 32], num_samples=2)
    conversion = converted(data__preprocess=[load(["IM", "GT"], "YX"), step])
    assert conversion.recipe.data.patch == (32, 32)
    assert "not by a weight for each pixel" in said(conversion, "data.preprocess")


def test_channels_and_time_points() -> None:
    conversion = converted(data__preprocess=[load(["IM"], "SYX", C=0, T=3), load(["GT"], "CYX", Z=0)])
    assert conversion.recipe.data.input_channels is None
    assert conversion.recipe.data.target_channels is None
    assert "missing: takes T 3 of each file" in said(conversion, "data.preprocess")
    assert "here all are learned from" in said(conversion, "data.preprocess")


def test_augmentation() -> None:
    conversion = converted(
        data__augmentation=[
            monai("RandRotate90d", keys=["IM", "GT"]),
            monai("RandRotated", keys=["IM", "GT"], range_x=math.pi / 12, prob=0.3),
            monai("RandZoomd", keys=["IM", "GT"], min_zoom=0.8, max_zoom=1.2, prob=0.4),
            monai("RandGaussianNoised", keys=["IM"], prob=0.2, std=0.05),
            monai("RandCoarseDropoutd", keys=["IM"], holes=3),
        ]
    )
    found = conversion.recipe.data.augmentation
    assert (found.flip, found.rotate90) == (False, True)
    assert found.rotate == pytest.approx(15)
    assert found.scale == (0.8, 1.2)
    assert found.affine_probability == 0.4
    (noise,) = found.transforms
    assert noise.class_path == "monai.transforms.RandGaussianNoise"
    assert noise.init_args == {"prob": 0.2, "std": 0.05}
    assert "missing: patches are not changed in this way" in said(conversion, "data.augmentation.4")


def test_an_elastic_change_keeps_its_rotation_and_magnification() -> None:
    elastic = monai(
        "Rand2DElasticd", keys=["IM"], prob=0.2, magnitude_range=[1, 5], rotate_range=0.5, scale_range=[0.1, 0.25]
    )
    conversion = converted(data__augmentation=[elastic])
    found = conversion.recipe.data.augmentation
    assert found.rotate == pytest.approx(math.degrees(0.5))
    assert found.scale == (0.75, 1.25)
    assert found.affine_probability == 0.2
    assert "missing: no elastic bending" in said(conversion, "data.augmentation")


@pytest.mark.parametrize(
    ("step", "rotate", "scale", "said_of_angles"),
    [
        (monai("RandAffined", rotate_range=0.5, scale_range=0.2), 0.5, (0.8, 1.2), False),
        (monai("RandAffined", rotate_range=[[0, 0.5]], scale_range=[[0, 0.1], [0, 0.3]]), 0.5, (0.7, 1.3), False),
        (monai("RandAffined", rotate_range=[0.5, 0.1, 0], scale_range=[0, 0, 0]), 0.5, (1, 1), True),
        (monai("Rand3DElasticd", rotate_range=[0, 0, 0.3]), 0, (1, 1), True),
        (monai("RandRotated", range_x=0.5, range_z=0.2), 0.5, (1, 1), True),
        (monai("RandRotated", range_x=0.5, range_y=0.0), 0.5, (1, 1), False),
        (monai("RandZoomd", min_zoom=[0.8, 0.9], max_zoom=[1.1, 1.3]), 0, (0.8, 1.3), False),
    ],
)
def test_ranges_of_turns_and_scales(
    step: dict[str, Any], rotate: float, scale: tuple[float, float], said_of_angles: bool
) -> None:
    conversion = converted(data__augmentation=[step])
    found = conversion.recipe.data.augmentation
    assert found.rotate == pytest.approx(math.degrees(rotate))
    assert found.scale == pytest.approx(scale)
    assert ("Y-X plane alone" in said(conversion, "data.augmentation")) == said_of_angles


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        ("L1Loss", {}, (loss.L1(),)),
        ("HuberLoss", {"delta": 2}, (loss.Huber(delta=2),)),
        ("SmoothL1Loss", {"beta": 0.5}, (loss.Huber(delta=0.5, weight=2),)),
        ("SSIMLoss", {"win_size": 7}, (loss.SSIM(window=7),)),
        ("CrossEntropyLoss", {"weight": [1, 2]}, (loss.CrossEntropy(class_weights=(1, 2)),)),
        ("PixelWiseCrossEntropyLoss", {"class_weights": [1, 4]}, (loss.CrossEntropy(class_weights=(1, 4)),)),
        ("DiceLoss", {"include_background": False}, (loss.Dice(),)),
        ("DiceCELoss", {"lambda_ce": 0.5}, (loss.Dice(background=True), loss.CrossEntropy(weight=0.5))),
        ("DiceFocalLoss", {"gamma": 3}, (loss.Dice(background=True), loss.Focal(gamma=3))),
        ("GeneralizedDiceLoss", {}, (loss.GeneralizedDice(),)),
        (
            "GeneralizedDiceFocalLoss",
            {"focal_weight": [1, 1], "lambda_gdl": 2},
            (loss.GeneralizedDice(weight=2), loss.Focal(class_weights=(1, 1))),
        ),
        (
            "TverskyLoss",
            {"alpha": 0.3, "beta": 0.7},
            (loss.Tversky(false_positives=0.3, false_negatives=0.7, background=True),),
        ),
        ("FocalLoss", {"gamma": 1}, (loss.Focal(gamma=1),)),
        ("HausdorffDTLoss", {}, (loss.Hausdorff(background=True),)),
        (
            "SoftDiceclDiceLoss",
            {"alpha": 0.25},
            (loss.Dice(weight=0.75), loss.CenterlineDice(weight=0.25, iterations=3)),
        ),
    ],
)
def test_losses(name: str, params: dict[str, Any], expected: Any) -> None:
    recipe = recipe_of(model__criterion=named("somewhere", name, reduction="mean", **params))
    assert recipe.framework.losses == expected
    values = set(loss.outputs_of(expected[0])) == {"image"}
    assert recipe.task == ("label_free" if values else "semantic_segmentation")


def test_a_loss_without_counterpart() -> None:
    conversion = converted(model__criterion=named("mine", "Odd", sharpness=3))
    assert conversion.recipe.framework.losses == ()
    assert conversion.recipe.framework.output == "image"
    assert "missing: L1 and L2 are learned instead" in said(conversion, "model.criterion")
    labels = converted(**SEGMENTATION | {"model__criterion": named("mine", "Odd")})
    assert labels.recipe.framework.output == "segmentation"


TWOS = {"strides": [2, 2], "channels": [8, 16, 32]}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            named(
                MONAI_NETS, "BasicUNet", spatial_dims=2, features=[8, 8, 8, 8, 8, 8], norm=["batch", {"affine": True}]
            ),
            net.BasicUNet(features=(8,) * 6, norm="batch"),
        ),
        (named(MONAI_NETS, "UNet", **TWOS), net.UNet(channels=(8, 16, 32), residual_units=0, norm="instance")),
        (
            named(MONAI_NETS, "AttentionUnet", dropout=0.1, **TWOS),
            net.AttentionUnet(channels=(8, 16, 32), dropout=0.1),
        ),
        (
            named(MONAI_NETS, "UNet", kernel_size=5, **TWOS),
            net.ClassNetwork(class_path=f"{MONAI_NETS}.UNet", init_args={"kernel_size": 5, **TWOS}, divisor=4),
        ),
        (
            named(MONAI_NETS, "HighResNet", spatial_dims=2, in_channels=1, out_channels=1),
            net.ClassNetwork(class_path=f"{MONAI_NETS}.HighResNet", divisor=DIVISORS["HighResNet"]),
        ),
        (
            named(
                MONAI_NETS,
                "DynUnet",
                strides=[1, [2, 2], [1, 2]],
                kernel_size=[3, 3, [1, 3]],
                upsample_kernel_size=[[2, 2], [1, 2]],
                filters=[8, 8, 16],
            ),
            net.DynUNet(
                strides=((1, 1), (2, 2), (1, 2)), kernels=((3, 3), (3, 3), (1, 3)), filters=(8, 8, 16), norm="instance"
            ),
        ),
        (
            named("mmv_im2im.models.nets.fnet_nn_2d", "Net", depth=2, mult_chan=8),
            net.DynUNet(filters=(8, 16, 32), strides=((1, 1), (2, 2), (2, 2)), kernels=((3, 3),) * 3, norm="batch"),
        ),
        (named("mmv_im2im.models.nets.SA_2d", "Model", in_channels=3), api.load_preset("labelfree_2d").network),
        (
            named(MONAI_NETS, "SwinUNETR", img_size=[32, 128, 128], feature_size=48),
            net.ClassNetwork(
                class_path=f"{MONAI_NETS}.SwinUNETR", init_args={"feature_size": 48}, divisor=DIVISORS["SwinUNETR"]
            ),
        ),
        (named(MONAI_NETS, "Transchex"), None),
    ],
)
def test_networks(body: dict[str, Any], expected: Any) -> None:
    assert recipe_of(model__net=body).network == expected or expected is None


def test_arguments_that_a_network_no_longer_has_are_left_out_without_a_word() -> None:
    from monai.networks.nets import SwinUNETR

    assert "img_size" not in inspect.signature(SwinUNETR).parameters
    assert "img_size" not in converted(model__net=named(MONAI_NETS, "SwinUNETR", img_size=[32, 32])).words()


def test_a_network_that_may_not_be_named_is_replaced() -> None:
    conversion = converted(model__net=named("monai.networks.nets.transchex", "Transchex", secret=1))
    assert conversion.recipe.network == api.load_preset("labelfree_2d").network
    assert "--network.class_path monai.networks.nets.transchex.Transchex" in said(conversion, "model.net")


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        ("AdamW", {"lr": 0.01}, train.AdamW(lr=0.01, weight_decay=0.01)),
        ("Adam", {"lr": 0.01, "betas": [0.5, 0.9]}, train.Adam(lr=0.01, betas=(0.5, 0.9))),
        (
            "Adam",
            {"lr": "1e-3", "weight_decay": 0.1},
            train.ClassOptimizer(class_path="torch.optim.Adam", lr=0.001, init_args={"weight_decay": 0.1}),
        ),
        (
            "SGD",
            {"lr": 0.1, "momentum": 0.9, "nesterov": True},
            train.SGD(lr=0.1, momentum=0.9, weight_decay=0),
        ),
        ("SGD", {"lr": 0.1}, train.ClassOptimizer(class_path="torch.optim.SGD", lr=0.1)),
    ],
)
def test_optimizers(name: str, params: dict[str, Any], expected: Any) -> None:
    assert recipe_of(model__optimizer=named("torch.optim", name, **params)).training.optimizer == expected


def test_the_budget_ends_when_nothing_is_learned_any_more() -> None:
    conversion = converted(trainer__params__max_epochs=10000, model__scheduler__params={"gamma": 0.98})
    epochs = conversion.recipe.training.epochs
    assert epochs is not None
    assert 0.98**epochs <= ASLEEP < 0.98 ** (epochs - 1)
    assert conversion.recipe.training.scheduler == train.ClassScheduler(
        class_path="torch.optim.lr_scheduler.ExponentialLR", init_args={"gamma": 0.98}, total=int(epochs)
    )
    assert "epochs of 10000" in said(conversion, "trainer.params.max_epochs")


def test_patience_is_counted_in_validations() -> None:
    stop = named("lightning.pytorch.callbacks.early_stopping", "EarlyStopping", monitor="val_loss", patience=50)
    plateau = named("torch.optim.lr_scheduler", "ReduceLROnPlateau", factor=0.2, patience=25) | {"monitor": "val_loss"}
    conversion = converted(
        trainer__callbacks=[stop, named("mine", "Sound", volume=11)],
        trainer__params__max_epochs=100,
        model__scheduler=plateau,
    )
    found = conversion.recipe.training
    assert validation_steps(100) == 100 // VALIDATIONS
    assert found.early_stopping == train.EarlyStopping(enabled=True, patience=VALIDATIONS // 2)
    assert found.scheduler == train.Plateau(factor=0.2, patience=VALIDATIONS // 4)
    assert "missing: no such callback" in said(conversion, "trainer.callbacks.1")


@pytest.mark.parametrize(
    ("params", "count", "words"),
    [
        ({"devices": 4}, 4, ""),
        ({"devices": "2"}, 2, ""),
        ({"devices": [0, 1, 2]}, 3, ""),
        ({"devices": "0,1"}, 2, ""),
        ({"devices": [3]}, 1, "CUDA_VISIBLE_DEVICES=3"),
        ({"gpus": "1, 3"}, 2, "CUDA_VISIBLE_DEVICES=1, 3"),
        ({"devices": -1}, 1, "-1 became 1"),
        ({"devices": "auto"}, 1, "--training.devices"),
    ],
)
def test_devices(params: dict[str, Any], count: int, words: str) -> None:
    conversion = converted(trainer__params=params)
    assert conversion.recipe.training.devices == count
    told = said(conversion, f"trainer.params.{next(iter(params))}")
    assert words in told
    assert bool(told) == bool(words)


def test_devices_beside_the_parameters_of_the_trainer_count_more() -> None:
    assert recipe_of(trainer__gpus=3).training.devices == 3  # as there: they override devices: 1
    conversion = converted(trainer__strategy={"module_name": "mine", "func_name": "Strategy"})
    assert "only strategies with a name" in said(conversion, "trainer.strategy")
    assert conversion.recipe.training.strategy == "auto"


def test_what_is_computed_in_another_precision_is_said() -> None:
    conversion = converted(trainer__params__precision="64-true")
    assert conversion.recipe.training.precision == "fp32"
    assert "32 bits" in said(conversion, "trainer.params.precision")


def test_of_several_normalisations_the_last_counts() -> None:
    steps = [
        load(["IM", "GT"], "YX"),
        monai("ScaleIntensityd", keys=["IM", "GT"]),
        monai("NormalizeIntensityd", keys=["IM"]),
    ]
    conversion = converted(data__preprocess=steps)
    assert (conversion.recipe.data.normalization, conversion.recipe.data.target_normalization) == (ZScore(), MinMax())
    assert "only normalisation of IM here" in said(conversion, "data.preprocess.2 NormalizeIntensityd")
    assert "only normalisation" not in said(conversion, "data.preprocess.1")


def test_batches_of_whole_images_are_not_taken_over_in_silence() -> None:
    conversion = converted(data__preprocess=[load(["IM", "GT"], "YX")])
    assert conversion.recipe.training.batch == api.load_preset("labelfree_2d").training.batch
    assert "differs: 3 whole images" in said(conversion, "data.dataloader.train.dataloader_params.batch_size")


def test_labels_in_another_channel() -> None:
    steps = [load(["IM"], "YX", C=0), load(["GT"], "YX", C=2)]
    recipe = recipe_of(**SEGMENTATION | {"data__preprocess": steps})
    assert (recipe.data.input_channels, recipe.data.target_channels) == ((0,), (2,))


def test_classes_that_may_overlap_are_named() -> None:
    dice = named("monai.losses", "DiceLoss", sigmoid=True)
    assert "one class alone" in said(converted(model__criterion=dice), "model.criterion.params.sigmoid")


def test_devices_and_budgets_in_steps() -> None:
    found = recipe_of(trainer__params={"max_steps": 70, "precision": 32, "gpus": [0, 2], "strategy": "ddp"}).training
    assert (found.steps, found.epochs, found.precision) == (70, None, "fp32")
    assert (found.devices, found.strategy) == (2, "ddp")
    assert recipe_of(trainer__params={"accelerator": "cpu"}).training.device == "cpu"
    assert recipe_of(model__scheduler=None).training.scheduler == train.Constant()


@pytest.mark.parametrize(
    ("path", "expected", "layout"),
    [
        ("there", "there", AutoLayout()),
        ({"train": "a/train", "val": "a/val"}, "a", PreSplitLayout()),
        (
            {"IM": "a/raw", "GT": "a/seg", "CM": "a/known"},
            "a",
            SubfolderLayout(source_folder="raw", target_folders=("seg",), weight_folder="known"),
        ),
        ({"train": "a", "val": "b/c"}, "a", AutoLayout()),
    ],
)
def test_places(path: Any, expected: str, layout: Any) -> None:
    conversion = converted(data__data_path=path)
    assert conversion.recipe.data.path == expected
    assert conversion.recipe.data.layout == layout
    assert ("missing" in said(conversion, "data.data_path")) == (expected == "a" and layout == AutoLayout())


def test_a_folder_that_exists_is_meant_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    assert recipe_of().data.path == str(tmp_path / "images")


# ---- what is refused ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__framework": "pix2pix"}, "generator against a discriminator"),
        ({"model__framework": "cyclegan"}, "without pairs"),
        ({"model__framework": "ProbUnet"}, "several answers"),
        ({"model__framework": "mystery"}, "is not known"),
        ({"model__net__params__task": "regression"}, "one vector"),
        ({"data__category": "unpair"}, "unpair"),
        ({"mode": "inference", "data__inference_input": {"dir": "raw"}}, "im2im predict MODEL raw -o FOLDER"),
        ({"mode": "uncertainty_map"}, "uncertainty_map"),
        ({"model": "FCN"}, "model is 'FCN'"),
        ({"data__preprocess": "none"}, "data.preprocess is 'none'. Expected is a list"),
        ({"data__preprocess": [{"func_name": "X"}]}, "data.preprocess.0 has no module_name"),
        ({"data__dataloader__train__dataloader_params__batch_size": "two"}, "batch_size is 'two'"),
        ({"model__optimizer__params__lr": -1}, "lr"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        converted(**changes)


@pytest.mark.parametrize("content", [None, [], "text", {}, {"mode": "train"}, {"task": "label_free"}])
def test_other_files_are_told_apart(content: Any) -> None:
    with pytest.raises(ConfigError):
        convert_content(content, "config.yaml")


def test_nothing_that_a_file_names_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "canary_of_conversion.py").write_text(f"open({str(tmp_path / 'sung')!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    evil = named("canary_of_conversion", "Sing", volume=11)
    converted(
        model__net=evil,
        model__criterion=evil,
        model__optimizer=evil,
        model__scheduler=evil,
        data__preprocess=[evil],
        data__augmentation=[evil],
        trainer__callbacks=[evil],
    )
    assert "canary_of_conversion" not in sys.modules
    assert not (tmp_path / "sung").exists()


def test_tags_of_python_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("mode: train\nmodel: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(TrustError):
        api.convert(path)


# ---- command line --------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "segment.yaml"
    path.write_text(yaml.safe_dump(training(**SEGMENTATION)))
    return path


def test_the_command_writes_a_recipe(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = file.parent / "recipe.yaml"
    assert main(["convert", str(file), "--training.minutes", "3", "-o", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "Has no counterpart here" in shown
    assert f"im2im plan {out}" in shown
    recipe = api.load_recipe(out)
    assert recipe.training.minutes == 3
    assert recipe.training.epochs is None
    assert "fractal dimension" in out.read_text()
    assert main(["convert", str(file), "-o", str(out)]) == 2
    assert "exists" in capsys.readouterr().err


def test_the_command_prints_a_recipe_and_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(file)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# Converted from segment.yaml")
    assert Recipe.load(yaml.safe_load(text)) == api.convert(file).recipe
    assert main(["convert", str(file), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert Recipe.load(content["recipe"]) == api.convert(file).recipe
    assert any("fractal" in note["text"] and note["kind"] == "missing" for note in content["notes"])


def test_a_task_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(training()))
    assert main(["convert", str(path), "--task", "restoration", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["task"] == "restoration"


def test_a_training_with_such_a_file_is_sent_to_the_command(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(file)]) == 2
    assert f"im2im convert {file}" in capsys.readouterr().err


# ---- the real configurations -----------------------------------------------------------


def real_configurations() -> list[Path]:
    """Presets of mmv_im2im where they can be found; the package is not imported."""
    folder = os.environ.get(CONFIGS)
    if folder is None:
        spec = find_spec("mmv_im2im")
        if spec is None or spec.origin is None:
            pytest.skip(f"mmv_im2im is not installed and {CONFIGS} does not name the folder of its configurations")
        folder = str(Path(spec.origin).parent / "configs")
    return sorted(Path(folder).glob("*.yaml"))


def converted_or_refused(path: Path) -> Conversion | ConfigError:
    try:
        return api.convert(path)
    except ConfigError as error:
        return error


def test_the_presets_of_mmv_im2im() -> None:
    """Those of version 0.8: all are converted without a setting that is not known, or refused in words."""
    found = {path.stem.removeprefix("preset_train_"): converted_or_refused(path) for path in real_configurations()}
    taken = {name: result for name, result in found.items() if isinstance(result, Conversion)}
    refused = {name: result for name, result in found.items() if isinstance(result, ConfigError)}
    for name, result in taken.items():
        assert "is not known here" not in result.words(), name
        assert Recipe.load(yaml.safe_load(result.to_yaml())) == result.recipe
    both = ("labelfree", "semanticseg", "embedseg")
    assert {f"{name}_{dimensions}d" for name in both for dimensions in (2, 3)} <= set(taken)
    gone = ("pix2pix", "cyclegan", "Prob", "inference", "Regression")
    assert all(any(word in name for word in gone) and error.cure for name, error in refused.items())
