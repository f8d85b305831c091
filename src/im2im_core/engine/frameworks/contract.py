"""The framework contract: what training, prediction and export may ask of any learning framework. Plain torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.axes import Region
    from im2im_core.inference import Shapes

Batch = Mapping[str, Tensor]
"""``source`` (B, C, [Z], Y, X), ``weight`` (B, 1, [Z], Y, X) and the encoded targets by name.

Where patches were flipped, turned or magnified, ``motion`` (B, D, D) takes an offset along [Z], Y, X in a patch
to that in the image; targets follow pixel by pixel, their directions and distances are turned by who knows them.
"""
OutputKind = Literal["image", "probability", "labels", "vector", "embedding"]


@dataclass(frozen=True)
class Player:
    """Parameters that one optimizer steps; one player, or generator and discriminator."""

    name: str
    parameters: Iterable[nn.Parameter]
    optimizer: Any = None
    """Optimizer settings of its own; None = those of the recipe."""
    every: int = 1
    """It takes part in every n-th step."""


@dataclass(frozen=True)
class OutputSpec:
    """A map that `translate` makes, or an array that `postprocess` makes."""

    name: str
    kind: OutputKind
    channels: int
    axes: str = "CZYX"
    """Axes it has; a Z projection has CYX, a vector has C."""
    scale: tuple[Fraction, Fraction, Fraction] = (Fraction(1), Fraction(1), Fraction(1))
    """Size relative to the network grid along Z, Y, X."""


@dataclass(frozen=True)
class TargetSpec:
    """An encoded target as it stands in the cache and in a batch."""

    name: str
    channels: int
    dtype: type[np.generic] = np.float32
    interpolation: Literal["linear", "nearest"] = "linear"
    """How it follows a free rotation or magnification."""


@dataclass
class TrainContext:
    """What a loss may know of the moment."""

    step: int
    rng: torch.Generator
    used: float | None = None
    """Part of the budget that is used, by which terms that do not count need no gradient; None = outside a training."""


@dataclass(frozen=True)
class TranslateContext:
    """What a prediction may know of the tile."""

    region: Region | None = None
    """Place of the tile in the whole image on the network grid; may reach beyond it (padding)."""
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


class Framework(nn.Module, ABC):
    """One way of learning from images; networks are submodules.

    Parameters
    ----------
    settings
        The framework's own settings class.
    network : nn.Module factory
        ``network(in_channels, out_channels)`` builds the recipe's network.
    shapes : Shapes
        Dimensions and channels that the images gave.
    """

    outputs: tuple[OutputSpec, ...]
    """Maps that `translate` makes, blendable on the network grid."""
    results: tuple[OutputSpec, ...]
    """Arrays that `postprocess` makes of them; the first is the main one."""
    targets: tuple[TargetSpec, ...]
    """Encoded targets that `losses` reads from a batch."""
    decode_halo: int = 0
    """Network pixels that `postprocess` must see beyond a block to decide the block."""
    stitch: Literal["none", "instances"] = "none"
    """How blocks of the main result are joined."""
    shapes: Shapes

    @abstractmethod
    def encode(self, targets: Mapping[str, NDArray[Any]], weight: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
        """Encoded targets ``(C, Z, Y, X)`` of one whole image, plus ``weight`` ``(1, Z, Y, X)`` where it changes.

        Runs once per image and time point, before any random change; the result is cached.
        """

    @abstractmethod
    def players(self) -> tuple[Player, ...]:
        """Who learns, in the order of their turns."""

    @abstractmethod
    def losses(self, batch: Batch, player: str, context: TrainContext) -> dict[str, Tensor]:
        """Unweighted scalar terms of one player's turn."""

    @abstractmethod
    def loss_weights(self) -> dict[str, float]:
        """Factor of each term, before any schedule."""

    def loss_factors(self, used: float) -> dict[str, float]:
        """What the weight of a term is multiplied by when the part `used` of the budget is spent; 1 where not named."""
        return {}

    def weights_at(self, used: float) -> dict[str, float]:
        """Weight of each term when the part `used` of the budget is spent."""
        factors = self.loss_factors(used)
        return {name: weight * factors.get(name, 1.0) for name, weight in self.loss_weights().items()}

    def rehearse(self) -> None:
        """Raise now what the first step would raise, such as a file of weights that is missing."""

    @abstractmethod
    def translate(self, x: Tensor, context: TranslateContext) -> dict[str, Tensor]:
        """Blendable maps ``(B, C, [Z], Y, X)`` of a normalised input ``(B, C, [Z], Y, X)``."""

    def turn_back(self, name: str, values: Tensor, mirrored: Sequence[int]) -> Tensor:
        """Map `name` of a mirrored tile, whose pixels are back in place, as that of the tile itself.

        For maps whose channels are directions; displacements of two or three channels are turned already.

        Parameters
        ----------
        mirrored : sequence of int
            Axes that were mirrored, counted from the last.
        """
        return values

    @abstractmethod
    def postprocess(self, maps: Mapping[str, NDArray[Any]], context: TranslateContext) -> dict[str, NDArray[Any]]:
        """Results ``(C, [Z], Y, X)`` of blended maps ``(C, [Z], Y, X)``."""

    def metrics(
        self, results: Mapping[str, NDArray[Any]], targets: Mapping[str, NDArray[Any]], weight: NDArray[Any] | None
    ) -> dict[str, float]:
        """Figures of one image; keys that end in a metric name of ``im2im_core.metrics``."""
        return {}

    monitor: str = "loss"
    """Metric that decides which checkpoint is best."""
    monitor_mode: Literal["min", "max"] = "min"

    def state(self) -> dict[str, Any]:
        """What is not a weight but belongs to the training (image pools, statistics)."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""

    def calibrate(self, samples: Iterable[tuple[Mapping[str, NDArray[Any]], Mapping[str, NDArray[Any]]]]) -> Any:
        """Settings with decoding thresholds that are best on (maps, original targets); None = nothing to choose."""
        return None
