"""Figures of the validation by classes that are named by import path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from im2im_core.errors import ConfigError
from im2im_core.trust import check_arguments, resolve_class

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.recipe.classpath import ClassPath


class NamedMetric:
    """One figure of a prediction beside its target, by a class of MONAI, of torch or of a trusted package.

    It is called with prediction and target ``(1, C, [Z], Y, X)`` as float32; the mean of what it gives counts.

    Raises
    ------
    ConfigError
        The class is no metric, or refuses its arguments.
    """

    def __init__(self, settings: ClassPath) -> None:
        from monai.metrics.metric import Metric

        found = resolve_class(settings.class_path)
        if not issubclass(found, (Metric, torch.nn.Module)):
            raise ConfigError(
                f"training.metrics: {settings.class_path} is no metric of MONAI and no torch module",
                "Name one that is, or derive yours from torch.nn.Module",
            )
        check_arguments(found, settings.init_args)
        self.class_path = settings.class_path
        self.name = settings.class_path.rpartition(".")[2]
        try:
            self.metric: Any = found(**settings.init_args)
        except (TypeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"training.metrics: {settings.class_path}({settings.init_args}) failed: {error}",
                "Change its init_args",
            ) from error

    def __call__(self, found: NDArray[Any], truth: NDArray[Any], weight: NDArray[Any] | None) -> float:
        """Mean figure; where `weight` is 0, the truth stands in for both.

        Parameters
        ----------
        found, truth : ndarray
            ``(C, [Z], Y, X)``.
        weight : ndarray, optional
            ``(1, [Z], Y, X)``.

        Raises
        ------
        ConfigError
            The class cannot compare the two.
        """
        truth = truth.reshape(found.shape) if truth.size == found.size else truth
        known = found if weight is None else np.where(weight > 0, found, truth)
        pair = (torch.from_numpy(np.ascontiguousarray(a, np.float32))[None] for a in (known, truth))
        try:
            value = self.metric(*pair)
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"training.metrics: {self.class_path} cannot compare {found.shape} with {truth.shape}: {error}",
                "Change its init_args, or leave it out",
            ) from error
        if hasattr(self.metric, "reset"):  # MONAI's gather what they are given
            self.metric.reset()
        values = value if isinstance(value, Tensor) else torch.as_tensor(value)
        return float(values.float().nanmean())
