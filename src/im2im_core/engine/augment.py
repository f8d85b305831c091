"""Random changes of whole batches, right for labels and weights; the same for the same generator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from im2im_core.engine.augment_intensity import change_intensity
from im2im_core.engine.augment_place import extent, grown, motions, place, turns_of
from im2im_core.engine.augment_zoom import Move
from im2im_core.engine.transforms import NamedTransform, change_by_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from im2im_core.engine.frameworks.contract import TargetSpec
    from im2im_core.recipe.data import AugmentSettings


@dataclass(frozen=True)
class Draw:
    """What happens to each sample of a batch; every field has one value per sample."""

    flip_z: Tensor
    flip_y: Tensor
    flip_x: Tensor
    quarter_turns: Tensor
    affine: Tensor
    angle: Tensor
    """Radians."""
    magnification: Tensor
    blur: Tensor
    """Standard deviation, pixels; 0 = not applied, as for all that follow."""
    noise: Tensor
    brightness: Tensor
    contrast: Tensor
    gamma: Tensor


class Augmenter:
    """Flips, quarter turns, free rotation and magnification of all, intensity changes of the source.

    Transforms that the settings name by import path come last and change the source alone.

    Parameters
    ----------
    settings : AugmentSettings
    dimensions : 2 or 3
        Spatial dimensions; rotation and magnification act in the Y-X plane.
    targets : tuple of TargetSpec
        How each target of a batch follows a free rotation.
    """

    def __init__(self, settings: AugmentSettings, dimensions: int, targets: tuple[TargetSpec, ...]) -> None:
        self.settings = settings
        self.dimensions = dimensions
        self.names = tuple(spec.name for spec in targets)
        self.linear = tuple(spec.name for spec in targets if spec.interpolation == "linear")
        self.nearest = tuple(spec.name for spec in targets if spec.interpolation == "nearest")
        self.transforms = tuple(NamedTransform(named) for named in settings.transforms)

    # ---- public API ----

    def window(self, patch: tuple[int, ...]) -> tuple[int, ...]:
        """Size of the crop to deliver so that no rotation or magnification looks outside of it.

        It is `patch` plus an even number of pixels along Y and X.
        """
        if not self._moves:
            return patch
        height, width = patch[-2:]
        angle, zoom = math.radians(self.settings.rotate), min(self.settings.scale)
        tall = extent(height, width, angle) / zoom
        wide = extent(width, height, angle) / zoom
        return (*patch[:-2], max(height, grown(height, tall)), max(width, grown(width, wide)))

    def draw(self, size: int, generator: torch.Generator) -> Draw:
        """Parameters for a batch of `size`; always the same number of draws, whatever is switched on."""
        s = self.settings
        u = torch.rand(12, size, generator=generator, device=generator.device).cpu()
        flipped = u[:3] < 0.5 * s.flip
        small, large = (math.log(value) for value in s.scale)
        applied = torch.rand(5, size, generator=generator, device=generator.device).cpu() < s.intensity_probability
        return Draw(
            flip_z=flipped[0] & (self.dimensions == 3),
            flip_y=flipped[1],
            flip_x=flipped[2],
            quarter_turns=(u[3] * 4).long() * int(s.rotate90),
            affine=(u[4] < s.affine_probability) & self._moves,
            angle=(2 * u[5] - 1) * math.radians(s.rotate),
            magnification=torch.exp(small + (large - small) * u[6]),
            blur=u[7] * s.blur * applied[0],
            noise=u[8] * s.noise * applied[1],
            brightness=(2 * u[9] - 1) * s.brightness * applied[2],
            contrast=(2 * u[10] - 1) * s.contrast * applied[3],
            gamma=(2 * u[11] - 1) * s.gamma * applied[4],
        )

    @property
    def rotates(self) -> bool:
        """Whether patches are turned by other angles than quarters: then they are changed together, on the device."""
        return self.settings.rotate > 0

    def moves(self, size: int, generator: torch.Generator, patch: tuple[int, ...]) -> tuple[list[Move], Tensor]:
        """What is done to each patch of a batch of `size` as it is cut, and its ``motion``; without free rotation."""
        draw = self.draw(size, generator)
        turns = turns_of(draw, square=patch[-2] == patch[-1])
        zooms = torch.where(draw.affine, draw.magnification, 1.0).tolist()
        moves = [Move(zoom, turn) for zoom, turn in zip(zooms, turns, strict=True)]
        return moves, motions(draw, turns, self.dimensions)

    def __call__(
        self, batch: Mapping[str, Tensor], generator: torch.Generator, patch: tuple[int, ...]
    ) -> dict[str, Tensor]:
        """Changed copy of a batch, of `patch` size; entries that are no image pass through.

        Its ``motion`` ``(B, D, D)`` takes an offset in a changed patch, Z, Y, X, to that in the image it is from:
        targets that are directions or distances are turned by it. A batch that has one was moved when it was cut,
        with a generator of the same seed, and of it only the intensities are changed, in place; others have the size
        of `window`.
        """
        draw = self.draw(len(batch["source"]), generator)
        if "motion" in batch:
            source = change_intensity(batch["source"], draw, generator)
            return {**batch, "source": change_by_path(source, self.transforms, generator)}
        windows = {name: _signed(batch[name]) for name in ("source", "weight", *self.names)}
        turns = turns_of(draw, square=patch[-2] == patch[-1])
        motion = motions(draw, turns, self.dimensions)
        images = place(windows, motion, turns, draw.affine, patch, self.linear)
        change_intensity(images["source"], draw, generator)
        images["source"] = change_by_path(images["source"], self.transforms, generator)
        images = {name: image.to(batch[name].dtype) for name, image in images.items()}
        return {**batch, **images, "motion": motion.to(images["source"].device)}

    @property
    def _moves(self) -> bool:
        return self.settings.rotate > 0 or self.settings.scale != (1.0, 1.0)


def _signed(image: Tensor) -> Tensor:
    """`image` in a type that torch can index; it stores large unsigned integers but does little else with them."""
    wider = {torch.uint16: torch.int32, torch.uint32: torch.int64}.get(image.dtype)
    return image if wider is None else image.to(wider)
