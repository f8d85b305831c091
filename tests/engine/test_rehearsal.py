"""What would fail after hours fails in the plan: optional packages, optimizers, class weights, tracing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_frameworks import Upscale, _Toy
from training_world import small_recipe, split_of

from im2im_core.engine import rehearsal
from im2im_core.engine.frameworks.contract import TranslateContext
from im2im_core.engine.planning import make_plan
from im2im_core.engine.rehearsal import rehearse
from im2im_core.errors import ConfigError, Im2ImError, TrustError
from im2im_core.inference import Shapes


@pytest.mark.parametrize(
    ("setting", "package", "cure"),
    [
        ("output__onnx", "onnx", r"output\.onnx is on.*napari-im2im\[export\]"),
        ("output__onnx", "onnxruntime", r"output\.onnx is on.*napari-im2im\[export\]"),
        ("logging__tensorboard", "tensorboard", r"logging\.tensorboard is on.*napari-im2im\[loggers\]"),
    ],
)
def test_a_missing_package_is_told_before_the_training(
    monkeypatch: pytest.MonkeyPatch, setting: str, package: str, cure: str
) -> None:
    gone = {package, "tensorboardX"}
    monkeypatch.setattr(rehearsal, "_installed", lambda name: name not in gone)
    make_plan(small_recipe(), split_of())
    with pytest.raises(ConfigError, match=cure):
        make_plan(small_recipe(**{setting: True}), split_of())
    gone.clear()
    make_plan(small_recipe(**{setting: True}), split_of())


@pytest.mark.parametrize(
    ("optimizer", "text"),
    [
        ({"kind": "adamw", "betas": [1.5, 0.9]}, "training.optimizer adamw cannot be made.*beta"),
        ({"kind": "class", "class_path": "torch.optim.SGD", "init_args": {"momentun": 0.9}}, "momentun.*momentum"),
        ({"kind": "class", "class_path": "torch.optim.SGD", "init_args": {"momentum": -1.0}}, "torch.optim.SGD cannot"),
        ({"kind": "class", "class_path": "torch.optim.Adam", "init_args": {"betas": "no"}}, "torch.optim.Adam cannot"),
    ],
)
def test_arguments_that_an_optimizer_refuses_are_told_before_the_training(optimizer: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make_plan(small_recipe(training__optimizer=optimizer), split_of())


@pytest.mark.parametrize(
    ("setting", "named", "text"),
    [
        ("data__augmentation__transforms", {"class_path": "torch.nn.Flatten"}, r"Flatten made .* of \(1, "),
        ("data__augmentation__transforms", {"class_path": "monai.losses.DiceLoss"}, "DiceLoss cannot change an input"),
        ("data__augmentation__transforms", {"class_path": "os.popen"}, "os.popen is not in a trusted package"),
        ("training__metrics", {"class_path": "monai.metrics.MAEMetrik"}, "MAEMetric"),
        ("training__metrics", {"class_path": "torch.nn.MSELoss", "init_args": {"reductio": "sum"}}, "reduction"),
        ("data__augmentation__transforms", {"class_path": "im2im_core.project.Project"}, "Project is no transform"),
        ("training__metrics", {"class_path": "im2im_core.project.Project"}, "Project is no metric"),
        ("training__metrics", {"class_path": "mine.Metric"}, "mine.Metric is not in a trusted package"),
    ],
)
def test_transforms_and_metrics_by_path_are_tried_before_the_training(
    setting: str, named: dict[str, Any], text: str
) -> None:
    with pytest.raises((ConfigError, TrustError), match=text):
        make_plan(small_recipe(**{setting: [named]}), split_of())


def test_class_weights_must_be_one_per_class() -> None:
    weighted = {"kind": "cross_entropy", "class_weights": [1.0, 2.0, 3.0]}
    recipe = small_recipe("semantic_seg_2d", framework__losses=[weighted])
    with pytest.raises(ConfigError, match=r"class_weights .* are 3, the classes 2"):
        make_plan(recipe, split_of(task="classes"))
    fitting = small_recipe("semantic_seg_2d", framework__losses=[{**weighted, "class_weights": [1.0, 2.0]}])
    make_plan(fitting, split_of(task="classes"))


class Branching(_Toy):
    """Refuses to be traced, as code does that looks at the values it computes."""

    def translate(self, x: torch.Tensor, context: TranslateContext) -> Mapping[str, torch.Tensor]:  # type: ignore[override]
        if torch.jit.is_tracing():
            raise RuntimeError("branches on values")
        return {"image": self.network(x)}


def network(in_channels: int, out_channels: int) -> Any:
    return torch.nn.Conv2d(in_channels, out_channels, 3, padding=1)


@pytest.mark.parametrize("toy", [_Toy, Branching])
def test_a_framework_that_cannot_be_traced_is_told_before_the_training(toy: type[_Toy]) -> None:
    framework = toy(Upscale(), network, Shapes(dimensions=2, input_channels=1))
    framework.train()
    if toy is _Toy:
        rehearse(small_recipe(), framework)
    else:
        with pytest.raises(ConfigError, match=r"Branching cannot be exported.*branches on values.*torch\.jit\.trace"):
            rehearse(small_recipe(), framework)
    assert framework.training
    assert all(p.requires_grad and p.grad is None for p in framework.parameters())


def test_a_network_class_that_cannot_compute_is_told_before_the_training() -> None:
    halved = {"kind": "class", "class_path": "torch.nn.PixelUnshuffle", "init_args": {"downscale_factor": 2}}
    with pytest.raises(ConfigError):
        make_plan(small_recipe(network=halved), split_of())


def test_a_missing_file_of_a_loss_is_told_before_the_training(tmp_path: Path) -> None:
    losses = [{"kind": "perceptual", "weights": str(tmp_path / "vgg.pt")}]
    recipe = small_recipe("restoration_2d", data__patch=[32, 32], framework__losses=losses)
    with pytest.raises(Im2ImError, match=r"vgg\.pt"):
        make_plan(recipe, split_of())
