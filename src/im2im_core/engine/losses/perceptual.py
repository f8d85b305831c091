"""Differences of features that a fixed network sees."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from im2im_core.engine.losses.base import known_only, weighted_mean
from im2im_core.engine.losses.features import FeatureNetwork, random_network, vgg_network

if TYPE_CHECKING:
    from im2im_core.recipe import losses as settings_of


class Perceptual:
    """Mean squared difference of features, mean over the stages of the network.

    Each channel is seen alone, repeated as three colours by a network that wants them. What is
    unknown is 0 on both sides. The network is made when it is first asked: a model that predicts
    needs no file of a loss.
    """

    def __init__(self, settings: settings_of.Perceptual) -> None:
        self.weights = settings.weights
        self._network: FeatureNetwork | None = None

    def read(self) -> None:
        """Read the file of weights now, where there is one.

        Raises
        ------
        DataError, TrustError
            It is missing, or it holds no weights of a VGG network.
        """
        if self.weights:
            self._network = vgg_network(Path(self.weights))

    def _made(self, dimensions: int) -> FeatureNetwork:
        self.read()
        self._network = self._network or random_network(dimensions)
        return self._network

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the known pixels, features, channels and stages."""
        network = self._network or self._made(prediction.ndim - 2)
        p, t = known_only(prediction.float(), weight), known_only(target, weight).float()
        if network.colours and p.ndim == 5:
            p, t, weight = _planes(p), _planes(t), _planes(weight)
        by = weight.repeat_interleave(p.shape[1], 0)
        with torch.no_grad():
            wanted = network(_alone(t), by)
        found = network(_alone(p), by)
        terms = [weighted_mean((a - b).square(), w) for (a, w), (b, _) in zip(found, wanted, strict=True)]
        return torch.stack(terms).mean()


def _planes(x: Tensor) -> Tensor:
    """``(B Z, C, Y, X)`` of ``(B, C, Z, Y, X)``."""
    return x.movedim(2, 1).flatten(0, 1)


def _alone(x: Tensor) -> Tensor:
    """``(B C, 1, [Z], Y, X)`` of ``(B, C, [Z], Y, X)``."""
    return x.flatten(0, 1)[:, None]
