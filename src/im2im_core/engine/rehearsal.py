"""What would fail late, tried before a training starts: optional packages, the optimizer, tracing the network."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import torch

from im2im_core.engine.figures import Figures
from im2im_core.engine.frameworks.build import divisor_of
from im2im_core.engine.named_metrics import NamedMetric
from im2im_core.engine.optimizers import make_optimizer
from im2im_core.engine.transforms import NamedTransform, change_by_path
from im2im_core.errors import ConfigError, Im2ImError
from im2im_core.recipe.network import ClassNetwork

if TYPE_CHECKING:
    from im2im_core.engine.frameworks.contract import Framework
    from im2im_core.recipe import Recipe

ONNX = ("onnx", "onnxruntime")
"""Packages that write and compare ONNX weights."""
TENSORBOARD = ("tensorboard", "tensorboardX")
"""Packages of which Lightning takes any."""


def rehearse(recipe: Recipe, framework: Framework) -> None:
    """Raise now what the first step, the logger or the export would raise.

    Raises
    ------
    ConfigError
        A package is missing, the optimizer refuses its arguments, or the network cannot be exported.
    DataError, TrustError
        A file that a loss needs is missing, or is not what it should be.
    """
    if recipe.output.onnx and not all(_installed(name) for name in ONNX):
        raise ConfigError(
            "output.onnx is on, but a package for ONNX is not installed",
            "pip install 'napari-im2im[export]', or set output.onnx to false",
        )
    if recipe.logging.tensorboard and not any(_installed(name) for name in TENSORBOARD):
        raise ConfigError(
            "logging.tensorboard is on, but TensorBoard is not installed",
            "pip install 'napari-im2im[loggers]', or set logging.tensorboard to false",
        )
    _try_transforms(recipe, framework)
    for named in recipe.training.metrics:
        NamedMetric(named)
    Figures(recipe.training.figures, framework)
    framework.rehearse()
    for player in framework.players():
        make_optimizer(player.optimizer or recipe.training.optimizer, list(player.parameters))
    shipped = all(type(part).__module__.startswith("im2im_core.") for part in (framework, recipe.network))
    if not shipped or isinstance(recipe.network, ClassNetwork):
        _try_export(recipe, framework)


def _try_transforms(recipe: Recipe, framework: Framework) -> None:
    """Change one patch, as every step will."""
    transforms = tuple(NamedTransform(named) for named in recipe.data.augmentation.transforms)
    divisor = divisor_of(framework)
    patch = torch.rand(1, framework.shapes.input_channels, *(2 * d for d in divisor))
    change_by_path(patch, transforms, torch.Generator().manual_seed(0))


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _try_export(recipe: Recipe, framework: Framework) -> None:
    """Write the network as the export will; the networks that are shipped are known to work."""
    from im2im_core.engine.export import check_exportable

    divisor = divisor_of(framework)
    try:
        # Two pixels are left in the deepest level: normalisation layers refuse a single one.
        check_exportable(framework, tuple(2 * d for d in divisor), onnx=recipe.output.onnx)
    except Im2ImError as error:
        name = getattr(recipe.network, "class_path", type(framework).__name__)
        raise ConfigError(f"{name} cannot be exported as a model: {error.message}", error.cure) from error
