"""Fixed networks whose features are compared: random filters, or a VGG network from a file."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from im2im_core.engine.losses.shrink import block_mean
from im2im_core.engine.weights_file import read_weights
from im2im_core.errors import DataError

STAGES = 4
"""Stages whose features are compared, each half the size of the one before (Johnson et al. 2016)."""
WIDTHS = (16, 32, 64, 64)
"""Filters of each stage of the random network."""
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Colours that VGG networks were trained with."""
Convolution = tuple[Tensor, Tensor]
"""Filters and offsets."""


@dataclass(frozen=True)
class FeatureNetwork:
    """Stages of convolutions; between two stages the largest value of each block of two pixels is kept."""

    stages: tuple[tuple[Convolution, ...], ...]
    colours: bool = False
    """Whether it sees three normalised colours instead of one channel."""

    def __call__(self, x: Tensor, weight: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Features ``(N, F, [Z], Y, X)`` of each stage and their weight.

        Parameters
        ----------
        x, weight : Tensor
            ``(N, 1, [Z], Y, X)``.
        """
        if self.colours:
            mean, spread = (x.new_tensor(v)[:, None, None] for v in (MEAN, SPREAD))
            # What is unknown is 0 for the network too, not a dark colour.
            x = torch.where(weight > 0, (x - mean) / spread, torch.zeros((), device=x.device))
        convolve = functional.conv2d if x.ndim == 4 else functional.conv3d
        found: list[tuple[Tensor, Tensor]] = []
        for stage in self.stages:
            if found:
                factors = tuple(2 if n > 1 else 1 for n in x.shape[2:])
                x, weight = _largest(x, factors), block_mean(weight, factors)
            for filters, offsets in stage:
                x = functional.relu(convolve(x, filters.to(x.device), offsets.to(x.device), padding=1))
            found.append((x, weight))
        return found


def random_network(dimensions: int) -> FeatureNetwork:
    """Fixed random filters of 3 pixels, the same ones on every machine, whose features keep the size of values."""
    generator = torch.Generator().manual_seed(0)
    stages, channels = [], 1
    for width in WIDTHS:
        shape = (width, channels, *(3,) * dimensions)
        filters = torch.randn(shape, generator=generator) * math.sqrt(2 / (channels * 3**dimensions))
        stages.append(((filters, torch.zeros(width)),))
        channels = width
    return FeatureNetwork(tuple(stages))


def vgg_network(path: Path) -> FeatureNetwork:
    """First stages of a VGG network (Simonyan & Zisserman 2015) from its weights, as torchvision names them.

    Raises
    ------
    DataError
        There is no such file, or it holds no convolutions ``features.N.weight`` of a VGG network.
    TrustError
        It holds more than tensors, or claims to hold more numbers than it has bytes.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path}", "Give the weights of a VGG network, or leave weights empty")
    weights = read_weights(path.read_bytes(), path.name)
    numbers = sorted(int(m[1]) for k in weights if (m := re.fullmatch(r"features\.(\d+)\.weight", k)))
    stages: list[list[Convolution]] = []
    before, channels = -3, 3
    for n in numbers:
        filters, offsets = weights[f"features.{n}.weight"], weights.get(f"features.{n}.bias")
        if offsets is None or tuple(filters.shape[1:]) != (channels, 3, 3) or n - before not in (2, 3):
            stages = []
            break
        # Names count a convolution and its rectifier; one more in between is the pooling.
        if n - before == 3:
            stages.append([])
        stages[-1].append((filters.float(), offsets.float()))
        before, channels = n, filters.shape[0]
    kept = [tuple(stage) for stage in stages[:STAGES]]
    if not kept:
        raise DataError(
            f"{path} holds no VGG network: {', '.join(list(weights)[:4]) or 'nothing'}",
            "Give the state dict of a VGG network without batch normalisation, as torchvision names its weights",
        )
    return FeatureNetwork(tuple(kept), colours=True)


def _largest(x: Tensor, factors: tuple[int, ...]) -> Tensor:
    return functional.max_pool2d(x, factors) if x.ndim == 4 else functional.max_pool3d(x, factors)
