"""Patches taken from their windows: rotated, magnified, turned and flipped; right for labels and weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from im2im_core.engine.augment import Draw

KNOWN = 0.999
"""Part of an interpolated value that must come from known pixels for it to be known."""
TOGETHER = 8
"""Samples that a processor changes at a time."""


class Turn(NamedTuple):
    """A transposition of Y and X, then flips."""

    transposed: bool
    flipped: tuple[int, ...]
    """Axes, counted from the last."""


def turns_of(draw: Draw, square: bool) -> list[Turn]:
    """Flips and quarter turns of each sample; only by halves where Y and X differ."""
    found = []
    drawn = torch.stack([draw.flip_z, draw.flip_y, draw.flip_x], 1).tolist()
    for (z, y, x), quarters in zip(drawn, draw.quarter_turns.tolist(), strict=True):
        turns = quarters if square else quarters - quarters % 2
        # A turn is a transposition and flips, which join those that were drawn: one copy for all.
        axes = [-2] * (y ^ (turns in (1, 2))) + [-1] * (x ^ (turns in (2, 3))) + [-3] * z
        found.append(Turn(turns % 2 == 1, tuple(axes)))
    return found


def motions(draw: Draw, turns: list[Turn], dimensions: int) -> Tensor:
    """Linear maps ``(B, D, D)`` from offsets in the changed patches to offsets in the images they are from."""
    found = []
    moves = zip(draw.affine.tolist(), draw.angle.tolist(), draw.magnification.tolist(), turns, strict=True)
    for affine, angle, magnification, turn in moves:
        cos, sin = (math.cos(angle) / magnification, math.sin(angle) / magnification) if affine else (1.0, 0.0)
        signs = [-1.0 if axis in turn.flipped else 1.0 for axis in (-3, -2, -1)]
        order = (1, 0) if turn.transposed else (0, 1)
        rows = [[row[k] * sign for k, sign in zip(order, signs[1:], strict=True)] for row in ((cos, -sin), (sin, cos))]
        found.append(rows if dimensions == 2 else [[signs[0], 0.0, 0.0], *([0.0, *row] for row in rows)])
    return torch.tensor(found)


def place(
    images: dict[str, Tensor],
    motion: Tensor,
    turns: list[Turn],
    affine: Tensor,
    patch: tuple[int, ...],
    linear: Collection[str],
) -> dict[str, Tensor]:
    """Patches ``(B, C, [Z], Y, X)`` of each image, new in memory.

    Parameters
    ----------
    images : dict
        Windows of ``source``, ``weight`` and targets.
    motion : tensor ``(B, D, D)``
    turns : list of Turn
    affine : bool tensor ``(B,)``
        Samples that are interpolated by their `motion`; the others are turned to the pixel.
    linear : collection of str
        Targets that are interpolated linearly; of all others no value is made up.
    """
    placed = {name: image.new_empty((*image.shape[:2], *patch)) for name, image in images.items()}
    still = (~affine).nonzero()[:, 0].tolist()
    for name, image in images.items():
        _turn_into(placed[name], _centre(image, patch), turns, still)
    for rows in chunks(affine.nonzero()[:, 0].tolist(), images["source"].device):
        moves = motion[rows, -2:, -2:]
        middle = _looked_at(moves, patch, images["source"].shape)
        parts = {name: _rows(_centre(image, middle), rows) for name, image in images.items()}
        for name, moved in _move(parts, moves, patch, linear).items():
            for sample, row in zip(moved, rows, strict=True):
                if -3 in turns[row].flipped:
                    sample.copy_(sample.flip(-3))
            placed[name].index_copy_(0, torch.tensor(rows, device=moved.device), moved)
    return placed


def chunks(rows: list[int], device: torch.device) -> Iterator[list[int]]:
    """Samples that are changed together: few on a processor, so that they stay in its cache, all on a GPU."""
    size = TOGETHER if device.type == "cpu" else len(rows)
    return (rows[start : start + size] for start in range(0, len(rows), max(size, 1)))


def extent(along: int, across: int, angle: float) -> float:
    """Largest extent of a rectangle along one of its axes when turned by up to `angle`."""
    along, across = along - 1, across - 1
    worst = min(angle, math.atan2(across, along))
    return along * math.cos(worst) + across * math.sin(worst) + 1


def grown(size: int, needed: float) -> int:
    """The least number that is `needed` and differs from `size` by an even one."""
    return size + 2 * math.ceil((needed - size) / 2 - 1e-9)


def _rows(image: Tensor, rows: list[int]) -> Tensor:
    return image[rows[0]][None] if len(rows) == 1 else torch.stack([image[row] for row in rows])


def _centre(image: Tensor, size: tuple[int, ...]) -> Tensor:
    """View of the middle of an image; its last axes have that `size`."""
    for axis, length in enumerate(size, -len(size)):
        image = image.narrow(axis, (image.shape[axis] - length) // 2, length)
    return image


def _turn_into(turned: Tensor, images: Tensor, turns: list[Turn], rows: list[int]) -> None:
    """Write the chosen samples, transposed and flipped."""
    if images.device.type == "cpu":  # NumPy flips without a copy
        to, source, axes = turned.numpy(), images.numpy(), range(2 - images.ndim, 0)
        for row in rows:
            moved = source[row].swapaxes(-2, -1) if turns[row].transposed else source[row]
            to[row] = moved[(..., *(slice(None, None, -1 if a in turns[row].flipped else 1) for a in axes))]
        return
    for row in rows:
        moved = images[row].transpose(-2, -1) if turns[row].transposed else images[row]
        turned[row] = moved.flip(turns[row].flipped)


# ---- interpolation -------------------------------------------------------------


def _move(
    images: dict[str, Tensor], motion: Tensor, patch: tuple[int, ...], linear: Collection[str]
) -> dict[str, Tensor]:
    """Images at the places that `motion` ``(B, 2, 2)`` takes the pixels of a patch to."""
    source, weight = images["source"], images["weight"]
    grid = _grid(motion, source.shape[-2:], patch[-2:]).to(source.device)
    pixels = _nearest(grid, source.shape[-2:])
    low, high = (float(value) for value in weight.aminmax())
    whole = low == high == 1  # every pixel is labelled
    unknown = weight <= 0 if linear and low <= 0 else None
    moved = {"source": _linear(source, grid)}
    for name in images.keys() - {"source", "weight"}:
        if name not in linear:
            moved[name] = _take(images[name], pixels)
        else:
            # An unknown pixel may hold anything, NaN too; it must not be mixed into its neighbours.
            moved[name] = _linear(images[name], grid, unknown)
    moved["weight"] = weight.new_ones((*weight.shape[:2], *patch)) if whole else _take(weight, pixels)
    if unknown is not None:
        moved["weight"] *= _linear((~unknown).to(source.dtype), grid) > KNOWN
    return moved


def _looked_at(motion: Tensor, patch: tuple[int, ...], window: tuple[int, ...]) -> tuple[int, int]:
    """Size along Y and X of the middle of the window that the motions stay in."""
    reach = motion.abs() @ (torch.tensor(patch[-2:], dtype=motion.dtype) - 1)
    needed = (reach.amax(0) + 1).tolist()
    height, width = (min(n, grown(n, length)) for n, length in zip(window[-2:], needed, strict=True))
    return height, width


def _grid(motion: Tensor, window: tuple[int, ...], patch: tuple[int, ...]) -> Tensor:
    """Places X, Y ``(B, Y, X, 2)`` in the window that each patch pixel is taken from, from -1 to 1 as torch counts."""
    moves = motion * (motion.new_tensor(patch) / motion.new_tensor(window)[:, None])
    steps = torch.complex(moves[:, 1], moves[:, 0])[..., None, None]
    y, x = ((2 * torch.arange(n) + 1) / n - 1 for n in patch)
    # Complex numbers X + iY: one sum makes both, six times as fast as functional.affine_grid.
    return torch.view_as_real(steps[:, 0] * y[:, None] + steps[:, 1] * x)


def _linear(image: Tensor, grid: Tensor, unknown: Tensor | None = None) -> Tensor:
    """Image ``(B, C, [Z], Y, X)`` at the places of the grid, bilinear; what is unknown counts as 0."""
    values = image if image.dtype == grid.dtype else image.to(grid.dtype)
    found = _sample(values if unknown is None else values.masked_fill(unknown, 0), grid)
    return found.to(image.dtype) if image.is_floating_point() else found.round_().to(image.dtype)


def _sample(values: Tensor, grid: Tensor) -> Tensor:
    planes = values.flatten(1, -3)
    if len(planes) == 1:  # torch has one thread per sample: many planes of one are shared out as samples
        shares = math.gcd(planes.shape[1], torch.get_num_threads())
        planes, grid = planes.unflatten(1, (shares, -1))[0], grid.expand(shares, *grid.shape[1:])
    found = functional.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found.reshape(*values.shape[:-2], *grid.shape[1:3])


def _nearest(grid: Tensor, window: tuple[int, ...]) -> Tensor:
    """Number ``(B, Y, X)`` of the pixel of the window that is nearest to each place, row by row."""
    x, y = grid.unbind(-1)
    columns, rows = (
        torch.round(place * (n / 2) + (n - 1) / 2).clamp_(0, n - 1).long()
        for place, n in ((x, window[1]), (y, window[0]))
    )
    return rows.mul_(window[1]).add_(columns)


def _take(image: Tensor, pixels: Tensor) -> Tensor:
    """Image ``(B, C, [Z], Y, X)`` of any type at numbered pixels of its planes; no value is made up."""
    planes = image.flatten(1, -3).flatten(2)
    found = planes.gather(2, pixels.flatten(1)[:, None].expand(-1, planes.shape[1], -1))
    return found.reshape(*image.shape[:-2], *pixels.shape[1:])
