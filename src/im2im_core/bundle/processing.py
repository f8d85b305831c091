"""The standard pre- and postprocessing steps of bioimage.io, in numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from im2im_core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Result: TypeAlias = Any
    """An array; its type follows the step."""


@dataclass(frozen=True)
class Tensor:
    """An array with the names of its axes, for example ``("batch", "channel", "y", "x")``."""

    array: NDArray[Any]
    axes: tuple[str, ...]

    def numbers(self, names: Sequence[str] | None) -> tuple[int, ...]:
        """Positions of the named axes; all where None."""
        return tuple(i for i, a in enumerate(self.axes) if names is None or a in names)

    def along(self, values: Any, axis: str | None) -> NDArray[np.float64]:
        """`values` shaped so that they vary along `axis` only."""
        array = np.asarray(values, np.float64)
        if axis is None:
            return array.reshape(())
        return array.reshape([-1 if a == axis else 1 for a in self.axes])


def process(tensor: Tensor, steps: Sequence[Mapping[str, Any]], raw: Mapping[str, Tensor] | None = None) -> Tensor:
    """`tensor` after all `steps` of a bioimage.io description.

    Parameters
    ----------
    raw : mapping of Tensor
        Unprocessed inputs by id, for steps that refer to one.

    Raises
    ------
    ConfigError
        A step is not one of the standard ones.
    """
    for step in steps:
        name = _known(step)
        tensor = Tensor(STEPS[name](tensor, dict(step.get("kwargs") or {}), raw or {}), tensor.axes)
    return tensor


def require_steps(steps: Sequence[Mapping[str, Any]], tensor: str) -> None:
    """Do nothing where all `steps` can be run; to be called before anything is computed.

    Raises
    ------
    ConfigError
        One cannot; the message names it, the `tensor` that has it, and what to do.
    """
    for step in steps:
        _known(step, f" of {tensor!r}")


def _known(step: Mapping[str, Any], whose: str = "") -> str:
    name = str(step.get("id"))
    if name in STEPS:
        return name
    raise ConfigError(f"Processing step {name!r}{whose} cannot be run", REFUSED.get(name) or nearest(name, STEPS))


def _ensure_dtype(tensor: Tensor, kwargs: dict[str, Any], raw: Mapping[str, Tensor]) -> Result:
    return tensor.array.astype(kwargs["dtype"], copy=False)


def _scale_linear(tensor: Tensor, kwargs: dict[str, Any], raw: Mapping[str, Tensor]) -> Result:
    axis = kwargs.get("axis")
    return tensor.array * tensor.along(kwargs.get("gain", 1.0), axis) + tensor.along(kwargs.get("offset", 0.0), axis)


def _scale_range(tensor: Tensor, kwargs: dict[str, Any], raw: Mapping[str, Tensor]) -> Result:
    reference = raw[kwargs["reference_tensor"]] if kwargs.get("reference_tensor") else tensor
    percentiles = (kwargs.get("min_percentile", 0.0), kwargs.get("max_percentile", 100.0))
    low, high = np.percentile(reference.array, percentiles, axis=reference.numbers(kwargs.get("axes")), keepdims=True)
    return (tensor.array - low) / (high - low + kwargs.get("eps", 1e-6))


def _moments(tensor: Tensor, kwargs: dict[str, Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    axes = tensor.numbers(kwargs.get("axes"))
    mean = tensor.array.mean(axis=axes, keepdims=True, dtype=np.float64)
    return mean, tensor.array.std(axis=axes, keepdims=True, dtype=np.float64) + kwargs.get("eps", 1e-6)


def _zero_mean_unit_variance(tensor: Tensor, kwargs: dict[str, Any], raw: Mapping[str, Tensor]) -> Result:
    mean, spread = _moments(tensor, kwargs)
    return (tensor.array - mean) / spread


def _fixed_zero_mean_unit_variance(tensor: Tensor, kwargs: dict[str, Any], raw: Mapping[str, Tensor]) -> Result:
    axis = kwargs.get("axis")
    return (tensor.array - tensor.along(kwargs["mean"], axis)) / tensor.along(kwargs["std"], axis)


def _scale_mean_variance(tensor: Tensor, kwargs: dict[str, Any], raw: Mapping[str, Tensor]) -> Result:
    mean, spread = _moments(tensor, kwargs)
    new_mean, new_spread = _moments(raw[kwargs["reference_tensor"]], kwargs)
    return (tensor.array - mean) / spread * new_spread + new_mean


def _binarize(tensor: Tensor, kwargs: dict[str, Any], raw: Mapping[str, Tensor]) -> Result:
    return tensor.array > tensor.along(kwargs["threshold"], kwargs.get("axis"))


def _clip(tensor: Tensor, kwargs: dict[str, Any], raw: Mapping[str, Tensor]) -> Result:
    limits = []
    for name in ("min", "max"):
        value = kwargs.get(name)
        if kwargs.get(f"{name}_percentile") is not None:
            value = np.percentile(
                tensor.array,
                kwargs[f"{name}_percentile"],
                axis=tensor.numbers(kwargs.get("axes")),
                keepdims=True,
                method="inverted_cdf",
            )
        limits.append(value)
    return np.clip(tensor.array, limits[0], limits[1])


def _sigmoid(tensor: Tensor, kwargs: dict[str, Any], raw: Mapping[str, Tensor]) -> Result:
    from scipy.special import expit

    return expit(tensor.array)


def _softmax(tensor: Tensor, kwargs: dict[str, Any], raw: Mapping[str, Tensor]) -> Result:
    from scipy.special import softmax

    return softmax(tensor.array, axis=tensor.axes.index(kwargs.get("axis", "channel")))


STEPS: dict[str, Callable[[Tensor, dict[str, Any], Mapping[str, Tensor]], Result]] = {
    "binarize": _binarize,
    "clip": _clip,
    "ensure_dtype": _ensure_dtype,
    "fixed_zero_mean_unit_variance": _fixed_zero_mean_unit_variance,
    "scale_linear": _scale_linear,
    "scale_mean_variance": _scale_mean_variance,
    "scale_range": _scale_range,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
    "zero_mean_unit_variance": _zero_mean_unit_variance,
}
"""Steps by the name they have in a description."""

REFUSED = {
    "stardist_postprocessing": "It turns star-shaped polygons into labels, for which it needs the package stardist: "
    "run this model there",
    "cellpose_flow_dynamics": "It follows flows to labels, for which it needs the package cellpose: "
    "run this model there",
    "custom": "It is Python code inside the package, not run here: ask its authors for standard steps",
}
"""Steps that the format knows and that are not run here, with what to do instead."""
