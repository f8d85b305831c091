"""Losses that know what is unknown: each is a mean over pixels by weight, and weight 0 leaves no trace."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from im2im_core.engine.targets import import_target
from im2im_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from im2im_core.recipe import losses as settings_of

SMOOTH = 1e-5
"""Added to overlap and size, so that a class that is absent and not predicted costs nothing."""


class Loss(Protocol):
    """A scalar of prediction ``(B, C, [Z], Y, X)``, target and weight ``(B, 1, [Z], Y, X)``.

    Predictions of classes are logits; one channel is binary, several exclude each other. Targets
    of classes are indices ``(B, 1, [Z], Y, X)``. Without any weight the loss is 0 with gradient 0.
    """

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the known pixels."""


class Term(NamedTuple):
    """One term of a sum of losses."""

    name: str
    weight: float
    loss: Loss


def build_losses(terms: Iterable[settings_of.LossSettings]) -> list[Term]:
    """Losses of the recipe with unique names; a repeated kind gets a number."""
    built: list[Term] = []
    for settings in terms:
        name = _name(settings)
        count = sum(re.fullmatch(rf"{name}(_\d+)?", term.name) is not None for term in built)
        built.append(
            Term(f"{name}_{count + 1}" if count else name, settings.weight, import_target(settings.target)(settings))
        )
    return built


def _name(settings: settings_of.LossSettings) -> str:
    """Name of a term: its kind, or the class name in snake case."""
    if settings.kind != "class":
        return settings.kind
    camel = settings.class_path.rpartition(".")[2]
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", camel).lower()


def known_only(values: Tensor, weight: Tensor) -> Tensor:
    """`values` with 0 wherever the weight is 0: what stands there, NaN included, is never looked at."""
    if values.dtype in (torch.uint16, torch.uint32):  # torch stores these but computes little with them
        values = values.long()
    return torch.where(weight > 0, values, torch.zeros((), dtype=values.dtype, device=values.device))


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of `values` ``(B, C, [Z], Y, X)`` by `weight` ``(B, 1, [Z], Y, X)``; 0 without any weight."""
    total = weight.sum() * values.shape[1]
    return (values * weight).sum() / torch.where(total > 0, total, torch.ones_like(total))


# ---- images --------------------------------------------------------------------


class L1:
    """Mean absolute difference."""

    def __init__(self, settings: settings_of.L1) -> None: ...

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the known pixels and channels."""
        return weighted_mean((prediction.float() - known_only(target, weight)).abs(), weight)


class L2:
    """Mean squared difference."""

    def __init__(self, settings: settings_of.L2) -> None: ...

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the known pixels and channels."""
        return weighted_mean((prediction.float() - known_only(target, weight)).square(), weight)


class Huber:
    """Squared difference up to delta, absolute beyond."""

    def __init__(self, settings: settings_of.Huber) -> None:
        self.delta = settings.delta

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the known pixels and channels."""
        known = known_only(target, weight).float()
        return weighted_mean(
            functional.huber_loss(prediction.float(), known, reduction="none", delta=self.delta), weight
        )


class SSIM:
    """One minus the mean structural similarity in uniform windows, for images of range 0 to 1.

    A window counts only the pixels that are known and inside the image, so nothing leaks over
    the rim of an unknown region.
    """

    def __init__(self, settings: settings_of.SSIM) -> None:
        if settings.window % 2 == 0:
            raise ConfigError(f"ssim window {settings.window} is even", f"Use {settings.window + 1}")
        self.window = settings.window

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the windows around known pixels."""
        known = (weight > 0).float()
        p, t = known_only(prediction.float(), weight), known_only(target, weight).float()
        local = self._pool(known)
        local = torch.where(local > 0, local, torch.ones_like(local))
        mean_p, mean_t = self._pool(p) / local, self._pool(t) / local
        var_p = (self._pool(p * p) / local - mean_p * mean_p).clamp_min(0)
        var_t = (self._pool(t * t) / local - mean_t * mean_t).clamp_min(0)
        covariance = self._pool(p * t) / local - mean_p * mean_t
        c1, c2 = 0.01**2, 0.03**2
        luminance = (2 * mean_p * mean_t + c1) / (mean_p**2 + mean_t**2 + c1)
        structure = (2 * covariance + c2) / (var_p + var_t + c2)
        return weighted_mean(1 - luminance * structure, weight)

    def _pool(self, x: Tensor) -> Tensor:
        pool = functional.avg_pool2d if x.ndim == 4 else functional.avg_pool3d
        # Padding apart from pooling: pooling alone refuses a volume that is thinner than the window.
        padded = functional.pad(x, [self.window // 2] * 2 * (x.ndim - 2))
        return pool(padded, self.window, stride=1)


# ---- classes -------------------------------------------------------------------


class Dice:
    """One minus the soft Dice overlap over the whole batch, mean over classes."""

    def __init__(self, settings: settings_of.Dice) -> None:
        self.background = settings.background

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the classes."""
        logits = prediction.float()
        probability, truth = _probabilities(logits), _one_hot(target, weight, logits.shape[1])
        if logits.shape[1] > 1 and not self.background:
            probability, truth = probability[:, 1:], truth[:, 1:]
        axes = [0, *range(2, logits.ndim)]
        overlap = (probability * truth * weight).sum(axes)
        size = (probability * weight).sum(axes) + (truth * weight).sum(axes)
        return (1 - (2 * overlap + SMOOTH) / (size + SMOOTH)).mean()


class CrossEntropy:
    """Mean cross entropy, by the weight of the pixel times that of its class."""

    def __init__(self, settings: settings_of.CrossEntropy) -> None:
        self.class_weights = settings.class_weights

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the known pixels."""
        self.check_classes(prediction.shape[1])
        entropy = _entropy(prediction.float(), target, weight)
        return weighted_mean(entropy, self._by_class(target, weight))

    def check_classes(self, channels: int) -> None:
        """Raise where the weights are not those of the classes that `channels` of a prediction stand for.

        Raises
        ------
        ConfigError
            There are more or fewer of them.
        """
        classes = max(channels, 2)
        if self.class_weights is not None and len(self.class_weights) != classes:
            raise ConfigError(
                f"class_weights {self.class_weights} are {len(self.class_weights)}, the classes {classes}",
                "Give one per class, background first",
            )

    def _by_class(self, target: Tensor, weight: Tensor) -> Tensor:
        if self.class_weights is None:
            return weight
        table = weight.new_tensor(self.class_weights)
        return weight * table[known_only(target, weight).round().long()]


class Focal:
    """Cross entropy times (1 - probability of the truth) to the power gamma."""

    def __init__(self, settings: settings_of.Focal) -> None:
        self.gamma = settings.gamma

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the known pixels."""
        entropy = _entropy(prediction.float(), target, weight)
        # The clamp keeps the slope of the power finite where the truth is certain.
        doubt = (1 - torch.exp(-entropy)).clamp_min(1e-6)
        return weighted_mean(doubt**self.gamma * entropy, weight)


def _probabilities(logits: Tensor) -> Tensor:
    return torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, 1)


def _one_hot(target: Tensor, weight: Tensor, channels: int) -> Tensor:
    """Truth ``(B, C, [Z], Y, X)`` as float; a binary one may be soft."""
    known = known_only(target, weight)
    if channels == 1:
        return known.float()
    return functional.one_hot(known[:, 0].long(), channels).movedim(-1, 1).float()


def _entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy of each pixel ``(B, 1, [Z], Y, X)``."""
    known = known_only(target, weight)
    if logits.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(logits, known.float(), reduction="none")
    return functional.cross_entropy(logits, known[:, 0].long(), reduction="none")[:, None]


# ---- by import path ------------------------------------------------------------


class FromClassPath:
    """Any trusted loss class that keeps one value per pixel.

    Classes of torch.nn get class indices without the channel axis, as they expect them.
    """

    def __init__(self, settings: settings_of.ClassLoss) -> None:
        from im2im_core.trust import check_arguments, resolve_class

        found = resolve_class(settings.class_path, torch.nn.Module)
        check_arguments(found, settings.init_args)
        keeps = {"reduction": "none"} if "reduction" in inspect.signature(found).parameters else {}
        self.class_path = settings.class_path
        self.module: torch.nn.Module = found(**keeps | settings.init_args)
        self.squeezed = found.__module__.startswith("torch.nn")

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the known pixels and what channels the class keeps."""
        known = known_only(target, weight)
        if self.squeezed and not known.is_floating_point() and prediction.shape[1] > 1:
            known = known[:, 0].long()
        values = self.module.to(prediction.device)(prediction.float(), known)
        if values.ndim == prediction.ndim - 1:
            values = values[:, None]
        if values.shape[2:] != prediction.shape[2:]:
            raise ConfigError(
                f"loss {self.class_path} gave {tuple(values.shape)} for a prediction {tuple(prediction.shape)}",
                "Choose a loss that keeps one value per pixel (reduction='none'): unknown pixels are left out",
            )
        return weighted_mean(values, weight)
