"""The losses of a recipe, each with a name of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from im2im_core.engine.targets import import_target
from im2im_core.metrics.registry import is_figure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from im2im_core.engine.losses.base import Loss
    from im2im_core.recipe.losses import LossSettings


class Term(NamedTuple):
    """One term of a sum of losses."""

    name: str
    weight: float
    loss: Loss
    settings: LossSettings


def build_losses(terms: Iterable[LossSettings]) -> list[Term]:
    """Losses of the recipe with unique names; a repeated kind gets a number."""
    built: list[Term] = []
    for settings in terms:
        name = _name(settings)
        count = sum(re.fullmatch(rf"{name}(_\d+)?", term.name) is not None for term in built)
        loss: Loss = import_target(settings.target)(settings)
        built.append(Term(f"{name}_{count + 1}" if count else name, settings.weight, loss, settings))
    return built


def _name(settings: LossSettings) -> str:
    """Name of a term: its kind, or the class name in snake case; never that of a figure of validation."""
    if settings.kind != "class":
        return f"{settings.kind}_loss" if is_figure(settings.kind) else settings.kind
    camel = settings.class_path.rpartition(".")[2]
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", camel).lower()
