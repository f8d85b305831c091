"""Figures of the validation by name, of the main result of any framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from im2im_core.errors import ConfigError
from im2im_core.metrics import Scene, Selection, select, while_training

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from im2im_core.engine.frameworks.contract import Framework
    from im2im_core.metrics import Kind


def kind_of(framework: Framework) -> Kind | None:
    """What the main result is scored as; None where it is no labels and no image."""
    main = framework.results[0].kind
    if main == "labels":
        return "labels" if framework.stitch == "instances" else "classes"
    return "image" if main == "image" else None


class Figures:
    """Chosen figures of the main result, mean over its channels.

    Parameters
    ----------
    names : sequence of str or "auto"
        For example ``("f1", "seg")``; auto: those of the registry that are meant for a training.

    Raises
    ------
    ConfigError
        A name is unknown or does not fit what the framework makes.
    """

    def __init__(self, names: Sequence[str] | Literal["auto"], framework: Framework) -> None:
        kind = kind_of(framework)
        self.asked = names != "auto"
        if kind is None:
            if self.asked and names:
                raise ConfigError(
                    f"training.figures: results of the kind {framework.results[0].kind} have no figures", "Leave it out"
                )
            self.selection = Selection("image", ())
            return
        try:
            self.selection = select(while_training(kind) if names == "auto" else names, kind)
        except ConfigError as error:
            raise ConfigError(f"training.figures: {error.message}", error.cure) from error

    def __call__(
        self,
        found: NDArray[Any],
        truth: NDArray[Any],
        weight: NDArray[Any] | None,
        there: Collection[str] = (),
    ) -> dict[str, float]:
        """Figures of one image, but for those that are `there` already.

        Parameters
        ----------
        found, truth : ndarray
            ``(C, [Z], Y, X)``.
        weight : ndarray, optional
            ``(1, [Z], Y, X)``.

        Raises
        ------
        ConfigError
            Figures were asked for that result and target, of different sizes, cannot have.
        """
        names = tuple(name for name in self.selection.figures if name not in there)
        if not names:
            return {}
        if found.size != truth.size:
            if not self.asked:
                return {}
            raise ConfigError(
                f"training.figures: the result {found.shape} and the target {truth.shape} differ in size",
                "Leave it out",
            )
        selection, known = Selection(self.selection.kind, names), _plane(weight, found.shape[1:])
        rows = [selection.measure(Scene(p, t, known)) for p, t in zip(found, truth.reshape(found.shape), strict=True)]
        return {n: float(np.mean([r[n] for r in rows if n in r])) for n in names if any(n in r for r in rows)}


def _plane(weight: NDArray[Any] | None, shape: tuple[int, ...]) -> NDArray[Any] | None:
    return None if weight is None else np.asarray(weight)[0].reshape(shape)
