"""Losses that are named by their import path."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from im2im_core.engine.losses.base import known_only, weighted_mean
from im2im_core.errors import ConfigError

if TYPE_CHECKING:
    from im2im_core.recipe import losses as settings_of


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
