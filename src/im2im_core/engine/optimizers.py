"""Optimizers from their settings."""

from __future__ import annotations

from typing import Any

import torch

from im2im_core.engine.targets import import_target
from im2im_core.errors import ConfigError
from im2im_core.recipe.training import ClassOptimizer


def make_optimizer(settings: Any, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Optimizer of `settings`; class paths go through the trust rules.

    Raises
    ------
    ConfigError
        It refuses a value, or has no such argument.
    """
    if isinstance(settings, ClassOptimizer):
        from im2im_core.trust import check_arguments, resolve_class

        made, name = resolve_class(settings.class_path, base=torch.optim.Optimizer), settings.class_path
        arguments = {"lr": settings.lr, **settings.init_args}
        check_arguments(made, arguments, supplied=("params",))
    else:
        made, name = import_target(settings.target), settings.kind
        arguments = {k: v for k, v in settings.model_dump().items() if k != "kind"}
        if settings.kind == "sgd":
            arguments["nesterov"] = settings.momentum > 0
    try:
        optimizer: torch.optim.Optimizer = made(parameters, **arguments)
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"training.optimizer {name} cannot be made with {arguments}: {error}", "Change training.optimizer"
        ) from error
    return optimizer
