"""Which classes a loss counts and how much; probabilities and truth of each of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from im2im_core.engine.losses.base import known_only, ratio
from im2im_core.errors import ConfigError


@dataclass(frozen=True)
class Classes:
    """Which classes count, and how much.

    One output channel stands for two classes, background and foreground; its truth may be soft.

    Parameters
    ----------
    weights : tuple of float, optional
        Factor of each class, background first.
    background : bool
        Whether the first class counts.
    """

    weights: tuple[float, ...] | None
    background: bool = True

    def check(self, channels: int) -> None:
        """Raise where the weights are not those of the classes that `channels` of a prediction stand for.

        Raises
        ------
        ConfigError
            There are more or fewer of them.
        """
        classes = max(channels, 2)
        if self.weights is not None and len(self.weights) != classes:
            raise ConfigError(
                f"class_weights {self.weights} are {len(self.weights)}, the classes {classes}",
                "Give one per class, background first",
            )

    def of_pixels(self, target: Tensor, weight: Tensor) -> Tensor:
        """Weight of each pixel times that of its class."""
        if self.weights is None:
            return weight
        table = weight.new_tensor(self.weights)
        return weight * table[known_only(target, weight).round().long()]

    def maps(self, prediction: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Probability and truth of each class that counts, ``(B, K, [Z], Y, X)``; 0 where unknown."""
        self.check(prediction.shape[1])
        probability = self.logarithms(prediction).exp()
        return known_only(probability, weight), self.truth(target, weight, prediction.shape[1])

    def truth(self, target: Tensor, weight: Tensor, channels: int) -> Tensor:
        """1 where a pixel is of a class that counts, ``(B, K, [Z], Y, X)``; 0 where unknown."""
        known = known_only(target, weight)
        if channels == 1:
            every = torch.cat([1 - known.float(), known.float()], 1)
        else:
            every = functional.one_hot(known[:, 0].long(), channels).movedim(-1, 1).float()
        return known_only(self._counted(every), weight)

    def logarithms(self, prediction: Tensor) -> Tensor:
        """Logarithm of the probability of each class that counts, ``(B, K, [Z], Y, X)``."""
        logits = prediction.float()
        if logits.shape[1] == 1:
            return self._counted(functional.logsigmoid(torch.cat([-logits, logits], 1)))
        return self._counted(torch.log_softmax(logits, 1))

    def mean(self, values: Tensor, present: Tensor | None = None) -> Tensor:
        """Mean of one value per class that counts ``(K,)`` by the weights of the classes.

        Parameters
        ----------
        present : Tensor, optional
            1 for classes that take part, 0 for others.
        """
        factors = self.factors(values)
        if present is not None:
            factors = factors * present
        return ratio((values * factors).sum(), factors.sum())

    def factors(self, like: Tensor) -> Tensor:
        """Weight of each class that counts, ``(K,)``, on the device of `like`."""
        if self.weights is None:
            return torch.ones(like.shape[0], device=like.device)
        return torch.tensor(self.weights[0 if self.background else 1 :], device=like.device)

    def _counted(self, maps: Tensor) -> Tensor:
        return maps if self.background else maps[:, 1:]
