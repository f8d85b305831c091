"""Random changes of whole batches, right for labels and weights; the same for the same generator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from im2im_core.engine.transforms import NamedTransform, change_by_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from im2im_core.engine.frameworks.contract import TargetSpec
    from im2im_core.recipe.data import AugmentSettings

KNOWN = 0.999
"""Part of an interpolated value that must come from known pixels for it to be known."""


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
        tall = _extent(height, width, angle) / zoom
        wide = _extent(width, height, angle) / zoom
        return (*patch[:-2], _grown(height, tall), _grown(width, wide))

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

    def __call__(
        self, batch: Mapping[str, Tensor], generator: torch.Generator, patch: tuple[int, ...]
    ) -> dict[str, Tensor]:
        """Changed copy of a batch of `window` size, of `patch` size; entries that are no image pass through.

        Its ``motion`` ``(B, D, D)`` takes an offset in a changed patch, Z, Y, X, to that in the image it is from:
        targets that are directions or distances are turned by it.
        """
        draw = self.draw(len(batch["source"]), generator)
        windows = {name: _signed(batch[name]) for name in ("source", "weight", *self.names)}
        placed = self._place(windows, draw, patch)
        turns = _turns(draw, square=patch[-2] == patch[-1])
        images = {name: _turn(samples, turns) for name, samples in placed.items()}
        images["source"] = change_intensity(images["source"], draw, generator)
        images["source"] = change_by_path(images["source"], self.transforms, generator)
        images = {name: image.to(batch[name].dtype) for name, image in images.items()}
        motion = _motion(draw, turns, self.dimensions).to(images["source"].device)
        return {**batch, **images, "motion": motion}

    # ---- geometry ----

    @property
    def _moves(self) -> bool:
        return self.settings.rotate > 0 or self.settings.scale != (1.0, 1.0)

    def _place(self, images: dict[str, Tensor], draw: Draw, patch: tuple[int, ...]) -> dict[str, list[Tensor]]:
        """Samples of each image: centre crops, and rotated and magnified patches where they were drawn."""
        rows = draw.affine.nonzero()[:, 0]
        samples = {name: list(_centre(image, patch)) for name, image in images.items()}
        if len(rows) == 0:
            return samples
        chosen = rows.to(images["source"].device)
        moved = self._move({name: image[chosen] for name, image in images.items()}, draw, rows, patch)
        for name, found in moved.items():
            for row, sample in zip(rows.tolist(), found, strict=True):
                samples[name][row] = sample
        return samples

    def _move(self, images: dict[str, Tensor], draw: Draw, rows: Tensor, patch: tuple[int, ...]) -> dict[str, Tensor]:
        source, weight = images["source"], images["weight"]
        y, x = _positions(draw.angle[rows], draw.magnification[rows], source.shape[-2:], patch[-2:])
        y, x = y.to(source.device), x.to(source.device)
        nearest = _nearest(source.shape[-2:], y, x)
        linear = {name: images[name] for name in self.linear}
        whole = bool((weight == 1).all())  # fully labelled images
        unknown = weight <= 0
        partial = bool(linear) and not whole and bool(unknown.any())
        known = [~unknown] if partial else []
        parts = _sample_linear([source, *linear.values(), *known], unknown if partial else None, y, x)
        moved = {"source": parts[0]}
        if whole:
            moved["weight"] = weight[..., : patch[-2], : patch[-1]]
        elif not partial:
            moved["weight"] = _take(weight, nearest)
        elif bool((unknown | (weight == 1)).all()):  # what is known counts as much as all else: no second look-up
            moved["weight"] = (parts[-1] > KNOWN).to(weight.dtype)
        else:
            found = _take(weight, nearest)
            moved["weight"] = torch.where(parts[-1] > KNOWN, found, torch.zeros_like(found))
        moved |= {name: _like(part, linear[name]) for name, part in zip(linear, parts[1:], strict=False)}
        return moved | {name: _take(images[name], nearest) for name in self.nearest}


def _extent(along: int, across: int, angle: float) -> float:
    """Largest extent of a rectangle along one of its axes when turned by up to `angle`."""
    along, across = along - 1, across - 1
    worst = min(angle, math.atan2(across, along))
    return along * math.cos(worst) + across * math.sin(worst) + 1


def _grown(size: int, needed: float) -> int:
    return size + 2 * max(0, math.ceil((needed - size) / 2 - 1e-9))


def _centre(image: Tensor, patch: tuple[int, ...]) -> Tensor:
    for axis, size in zip(range(2, image.ndim), patch, strict=True):
        image = image.narrow(axis, (image.shape[axis] - size) // 2, size)
    return image


def _positions(
    angle: Tensor, magnification: Tensor, window: tuple[int, ...], patch: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Window coordinates Y and X ``(B, Y, X)`` that each patch pixel is taken from."""
    y = torch.arange(patch[0], dtype=torch.float32) - (patch[0] - 1) / 2
    x = torch.arange(patch[1], dtype=torch.float32) - (patch[1] - 1) / 2
    cos, sin = (torch.cos(angle) / magnification)[:, None, None], (torch.sin(angle) / magnification)[:, None, None]
    rows, columns = y[None, :, None], x[None, None, :]
    return (cos * rows - sin * columns + (window[0] - 1) / 2, sin * rows + cos * columns + (window[1] - 1) / 2)


def _sample_linear(images: list[Tensor], unknown: Tensor | None, y: Tensor, x: Tensor) -> list[Tensor]:
    """Each image ``(B, C, [Z], Y, X)`` at the positions, by one bilinear look-up for all.

    An `unknown` pixel of a target may hold anything; it must not be mixed into its neighbours.
    """
    height, width = images[0].shape[-2:]
    counts = [image.flatten(1, -3).shape[1] for image in images]
    planes = images[0].new_empty((len(images[0]), sum(counts), height, width))
    known = None if unknown is None else (~unknown).to(planes.dtype)
    for number, (place, image) in enumerate(zip(planes.split(counts, 1), images, strict=True)):
        values = place.unflatten(1, image.shape[1:-2])
        values.copy_(image)  # whole numbers become floats on the way
        if unknown is None or number == 0 or image.dtype == torch.bool:
            continue
        if image.is_floating_point():
            values.masked_fill_(unknown, 0)  # it may hold NaN
        else:
            values.mul_(known)
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    found = functional.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)
    parts = found.split(counts, 1)
    return [part.reshape(*image.shape[:-2], *y.shape[1:]) for part, image in zip(parts, images, strict=True)]


def _nearest(window: tuple[int, ...], y: Tensor, x: Tensor) -> Tensor:
    """Number ``(B, Y, X)`` of the pixel of the window that is nearest to each position, row by row."""
    height, width = window
    rows, columns = y.round().clamp_(0, height - 1), x.round().clamp_(0, width - 1)
    return rows.long().mul_(width).add_(columns.long())


def _take(image: Tensor, pixels: Tensor) -> Tensor:
    """Image ``(B, C, [Z], Y, X)`` of any type at numbered pixels of its planes; no value is made up."""
    planes = image.flatten(1, -3).flatten(2)
    found = planes.gather(2, pixels.flatten(1)[:, None].expand(-1, planes.shape[1], -1))
    return found.reshape(*image.shape[:-2], *pixels.shape[1:])


def _like(values: Tensor, image: Tensor) -> Tensor:
    """`values` in the type of `image`, rounded where that is whole numbers."""
    return values.to(image.dtype) if image.is_floating_point() else values.round().to(image.dtype)


class Turn(NamedTuple):
    """A transposition of Y and X, then flips."""

    transposed: bool
    flipped: tuple[int, ...]
    """Axes, counted from the last."""


def _turns(draw: Draw, square: bool) -> list[Turn]:
    """Flips and quarter turns of each sample; only by halves where Y and X differ."""
    found = []
    drawn = torch.stack([draw.flip_z, draw.flip_y, draw.flip_x], 1).tolist()
    for (z, y, x), quarters in zip(drawn, draw.quarter_turns.tolist(), strict=True):
        turns = quarters if square else quarters - quarters % 2
        # A turn is a transposition and flips, which join those that were drawn: one copy for all.
        axes = [-2] * (y ^ (turns in (1, 2))) + [-1] * (x ^ (turns in (2, 3))) + [-3] * z
        found.append(Turn(turns % 2 == 1, tuple(axes)))
    return found


def _turn(samples: list[Tensor], turns: list[Turn]) -> Tensor:
    """Batch of the samples, each transposed and flipped."""
    turned = samples[0].new_empty((len(samples), *samples[0].shape))
    for i, (sample, turn) in enumerate(zip(samples, turns, strict=True)):
        moved = sample.transpose(-2, -1) if turn.transposed else sample
        turned[i] = moved.flip(turn.flipped) if turn.flipped else moved
    return turned


def _motion(draw: Draw, turns: list[Turn], dimensions: int) -> Tensor:
    """Linear maps ``(B, D, D)`` from offsets in the changed patches to offsets in the images they are from."""
    motion = torch.eye(dimensions).repeat(len(turns), 1, 1)
    cos = torch.cos(draw.angle) / draw.magnification
    sin = torch.sin(draw.angle) / draw.magnification
    moved = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    motion[draw.affine, -2:, -2:] = moved[draw.affine]
    for matrix, turn in zip(motion, turns, strict=True):
        if turn.transposed:
            matrix[:, -2:] = matrix[:, [-1, -2]]
        for axis in turn.flipped:
            matrix[:, axis] *= -1
    return motion


def _signed(image: Tensor) -> Tensor:
    """`image` in a type that torch can index; it stores large unsigned integers but does little else with them."""
    wider = {torch.uint16: torch.int32, torch.uint32: torch.int64}.get(image.dtype)
    return image if wider is None else image.to(wider)


# ---- intensity -----------------------------------------------------------------


def change_intensity(source: Tensor, draw: Draw, generator: torch.Generator) -> Tensor:
    """Blurred, noisy, shifted, stretched and bent source, each sample by its own draw."""
    source = _blur(source, draw.blur)
    source = _add_noise(source, draw.noise, generator)
    source = _bend(source, draw.gamma)
    if (draw.contrast != 0).any():
        mean = source.mean(tuple(range(2, source.ndim)), keepdim=True)
        source = torch.addcmul(source, source - mean, _column(draw.contrast, source))
    if (draw.brightness != 0).any():
        source = source + _column(draw.brightness, source)
    return source


def _column(values: Tensor, image: Tensor) -> Tensor:
    """One value per sample, shaped to be broadcast over `image`."""
    return values.to(image).reshape(-1, *(1,) * (image.ndim - 1))


def _blur(source: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur in the Y-X plane as a sum of shifted copies, Y then X."""
    rows = (sigma > 0).nonzero()[:, 0].to(source.device)
    if len(rows) == 0:
        return source
    reach = min(math.ceil(3 * float(sigma.max())), *(n - 1 for n in source.shape[-2:]))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernels = torch.exp(-0.5 * (offsets / sigma[sigma > 0][:, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).to(source)
    planes = source[rows].flatten(1, -3)
    for axis in (-2, -1):
        size = planes.shape[axis]
        padding = [0, 0, reach, reach] if axis == -2 else [reach, reach, 0, 0]
        padded = functional.pad(planes, padding, mode="reflect")
        planes = torch.zeros_like(planes)
        for k in range(2 * reach + 1):
            planes.addcmul_(padded.narrow(axis, k, size), kernels[:, k, None, None, None])
    return source.index_copy(0, rows, planes.reshape(len(rows), *source.shape[1:]))


def _add_noise(source: Tensor, deviation: Tensor, generator: torch.Generator) -> Tensor:
    rows = (deviation > 0).nonzero()[:, 0]
    if len(rows) == 0:
        return source
    noise = torch.randn(len(rows), *source.shape[1:], generator=generator, device=generator.device).to(source)
    return source.index_add(0, rows.to(source.device), noise * _column(deviation[rows], source))


def _bend(source: Tensor, change: Tensor) -> Tensor:
    """Source with exponent 1 + change between the least and the greatest value of each channel."""
    rows = (change != 0).nonzero()[:, 0]
    if len(rows) == 0:
        return source
    chosen = source[rows.to(source.device)]
    axes = tuple(range(2, source.ndim))
    low, high = chosen.amin(axes, keepdim=True), chosen.amax(axes, keepdim=True)
    spread = torch.where(high > low, high - low, torch.ones_like(high))
    bent = ((chosen - low) / spread) ** _column(1 + change[rows], source) * spread + low
    return source.index_copy(0, rows.to(source.device), bent)
