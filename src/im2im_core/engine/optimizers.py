"""Optimizers from their settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from im2im_core.engine.targets import import_target
from im2im_core.errors import ConfigError
from im2im_core.recipe.training import ClassOptimizer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def make_optimizer(
    settings: Any, parameters: Sequence[torch.nn.Parameter], rates: Mapping[torch.nn.Parameter, float] | None = None
) -> torch.optim.Optimizer:
    """Optimizer of `settings`; class paths go through the trust rules.

    Parameters
    ----------
    rates : mapping, optional
        Factor of the learning rate, 1 for parameters that it does not name.

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
        optimizer: torch.optim.Optimizer = made(_groups(parameters, settings.lr, rates or {}), **arguments)
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"training.optimizer {name} cannot be made with {arguments}: {error}", "Change training.optimizer"
        ) from error
    return optimizer


def _groups(
    parameters: Sequence[torch.nn.Parameter], lr: float, rates: Mapping[torch.nn.Parameter, float]
) -> list[Any]:
    """Parameters as an optimizer takes them: in groups of one learning rate where there are several."""
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(rates.get(parameter, 1.0), []).append(parameter)
    if set(groups) == {1.0}:
        return list(parameters)
    return [{"params": members, "lr": lr * rate} for rate, members in groups.items()]
