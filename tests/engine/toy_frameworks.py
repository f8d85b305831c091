"""Toy frameworks of every shape that the contract promises: GAN, diffusion, twofold size, projection, vector."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from im2im_core._base import Config
from im2im_core.engine.frameworks.contract import (
    Batch,
    Framework,
    OutputSpec,
    Player,
    TargetSpec,
    TrainContext,
    TranslateContext,
)
from im2im_core.engine.losses import known_only, weighted_mean
from im2im_core.inference import Shapes


class Gan(Config):
    target: ClassVar[str] = "toy_frameworks:ToyGan"


class Diffusion(Config):
    target: ClassVar[str] = "toy_frameworks:ToyDiffusion"


class Upscale(Config):
    target: ClassVar[str] = "toy_frameworks:ToyUpscale"


class Projection(Config):
    target: ClassVar[str] = "toy_frameworks:ToyProjection"


class Vector(Config):
    target: ClassVar[str] = "toy_frameworks:ToyVector"


class _Toy(Framework):
    """One network, one L1 term, maps are results."""

    out_channels = 1
    in_channels_added = 0

    def __init__(self, settings: Config, make_network: Any, shapes: Shapes) -> None:
        super().__init__()
        self.shapes = shapes
        self.network = make_network(shapes.input_channels + self.in_channels_added, self.out_channels)
        self.outputs = self.results = (OutputSpec("image", "image", 1),)
        self.targets = (TargetSpec("target", 1),)

    def encode(self, targets: Mapping[str, NDArray[Any]], weight: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
        return {"target": np.asarray(targets["target"], np.float32)}

    def players(self) -> tuple[Player, ...]:
        return (Player("network", list(self.parameters())),)

    def losses(self, batch: Batch, player: str, context: TrainContext) -> dict[str, Tensor]:
        truth = known_only(batch["target"], batch["weight"])
        return {"l1": weighted_mean((self.network(batch["source"]) - truth).abs(), batch["weight"])}

    def loss_weights(self) -> dict[str, float]:
        return {"l1": 1.0}

    def translate(self, x: Tensor, context: TranslateContext) -> dict[str, Tensor]:
        return {"image": self.network(x)}

    def postprocess(self, maps: Mapping[str, NDArray[Any]], context: TranslateContext) -> dict[str, NDArray[Any]]:
        return dict(maps)


class ToyGan(_Toy):
    """Generator and discriminator, with a pool of old fakes that is state but no weight."""

    def __init__(self, settings: Config, make_network: Any, shapes: Shapes) -> None:
        super().__init__(settings, make_network, shapes)
        convolution = nn.Conv2d if shapes.dimensions == 2 else nn.Conv3d
        self.judge = nn.Sequential(convolution(2, 8, 3, padding=1), nn.LeakyReLU(0.2), convolution(8, 1, 3, padding=1))
        self.pool: list[Tensor] = []

    def players(self) -> tuple[Player, ...]:
        return (
            Player("generator", list(self.network.parameters())),
            Player("discriminator", list(self.judge.parameters()), every=2),
        )

    def losses(self, batch: Batch, player: str, context: TrainContext) -> dict[str, Tensor]:
        source, weight = batch["source"], batch["weight"]
        truth = known_only(batch["target"], weight)
        fake = self.network(source)
        seen = torch.where(weight > 0, fake, 0)
        if player == "generator":
            score = self.judge(torch.cat([source, seen], 1))
            return {
                "adversarial": weighted_mean((score - 1).square(), weight),
                "l1": weighted_mean((fake - truth).abs(), weight),
            }
        right = self.judge(torch.cat([source, truth], 1))
        wrong = self.judge(torch.cat([source, self._pooled(seen.detach(), context.rng)], 1))
        return {"discriminator": weighted_mean((right - 1).square() + wrong.square(), weight)}

    def _pooled(self, fake: Tensor, rng: torch.Generator) -> Tensor:
        self.pool = [*self.pool, fake][-4:]
        return self.pool[int(torch.randint(len(self.pool), (), generator=rng))]

    def loss_weights(self) -> dict[str, float]:
        return {"adversarial": 0.1, "l1": 1.0, "discriminator": 1.0}

    def state(self) -> dict[str, Any]:
        return {"pool": list(self.pool)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.pool = list(state["pool"])


class ToyDiffusion(_Toy):
    """Predicts the clean image from source and noisy target; samples in a few deterministic steps from seeded noise."""

    in_channels_added = 1
    levels = (0.99, 0.66, 0.33)

    def losses(self, batch: Batch, player: str, context: TrainContext) -> dict[str, Tensor]:
        truth = known_only(batch["target"], batch["weight"])
        level = torch.rand(len(truth), *(1,) * (truth.ndim - 1), generator=context.rng)
        noise = torch.randn(truth.shape, generator=context.rng)
        clean = self.network(torch.cat([batch["source"], (1 - level) * truth + level * noise], 1))
        return {"l1": weighted_mean((clean - truth).abs(), batch["weight"])}

    def translate(self, x: Tensor, context: TranslateContext) -> dict[str, Tensor]:
        rng = torch.Generator().manual_seed(context.seed)
        noise = torch.randn(len(x), 1, *x.shape[2:], generator=rng)
        current = noise
        for level, following in zip(self.levels, (*self.levels[1:], 0.0), strict=True):
            clean = self.network(torch.cat([x, current], 1))
            noise = (current - (1 - level) * clean) / level
            current = (1 - following) * clean + following * noise
        return {"image": current}


class ToyUpscale(_Toy):
    """Output of twice the size in Y and X; the target is folded onto the network grid."""

    out_channels = 4

    def __init__(self, settings: Config, make_network: Any, shapes: Shapes) -> None:
        super().__init__(settings, make_network, shapes)
        self.outputs = self.results = (OutputSpec("image", "image", 1, scale=(Fraction(1), Fraction(2), Fraction(2))),)
        self.targets = (TargetSpec("target", 4),)

    def encode(self, targets: Mapping[str, NDArray[Any]], weight: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
        image = torch.from_numpy(np.asarray(targets["target"], np.float32))
        return {"target": functional.pixel_unshuffle(image.transpose(0, 1), 2).transpose(0, 1).numpy()}

    def translate(self, x: Tensor, context: TranslateContext) -> dict[str, Tensor]:
        return {"image": functional.pixel_shuffle(self.network(x), 2)}


class ToyProjection(_Toy):
    """One plane from a stack: a softmax along Z chooses what is in focus."""

    def __init__(self, settings: Config, make_network: Any, shapes: Shapes) -> None:
        super().__init__(settings, make_network, shapes)
        self.outputs = self.results = (OutputSpec("image", "image", 1, axes="CYX"),)

    def encode(self, targets: Mapping[str, NDArray[Any]], weight: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
        return {"target": np.asarray(targets["target"], np.float32)}

    def _project(self, x: Tensor) -> Tensor:
        return (torch.softmax(self.network(x), 2) * x).sum(2)

    def losses(self, batch: Batch, player: str, context: TrainContext) -> dict[str, Tensor]:
        weight = batch["weight"][:, :, 0]
        truth = known_only(batch["target"][:, :, 0], weight)
        return {"l1": weighted_mean((self._project(batch["source"]) - truth).abs(), weight)}

    def translate(self, x: Tensor, context: TranslateContext) -> dict[str, Tensor]:
        return {"image": self._project(x)}


class ToyVector(_Toy):
    """Two numbers per image; the target is constant over the patch."""

    out_channels = 2

    def __init__(self, settings: Config, make_network: Any, shapes: Shapes) -> None:
        super().__init__(settings, make_network, shapes)
        self.outputs = self.results = (OutputSpec("vector", "vector", 2, axes="C"),)
        self.targets = (TargetSpec("target", 2),)

    def losses(self, batch: Batch, player: str, context: TrainContext) -> dict[str, Tensor]:
        truth = known_only(batch["target"], batch["weight"])
        predicted = self.network(batch["source"]).mean((-2, -1), keepdim=True)
        return {"l1": weighted_mean((predicted - truth).abs(), batch["weight"])}

    def translate(self, x: Tensor, context: TranslateContext) -> dict[str, Tensor]:
        return {"vector": self.network(x).mean((-2, -1))}
