"""Distances to the rim of the own object along rays, in patches of labels, on any device."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.engine.star_shapes import Rays

CHECK = 5
"""Steps after which the rays that have ended are dropped."""


@torch.no_grad()
def march(objects: Tensor, cells: Tensor, rays: Rays, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Distances ``(K, N)`` from the centres of cells to the rims, and which of them are complete.

    A ray is followed in steps that are one pixel along its main axis (as in the drawing of lines) to the
    first pixel of another object. Where that is unknown, or outside of the patch, the ray is not complete
    and its distance only the least one possible.

    Parameters
    ----------
    objects : Tensor (B, [Z], Y, X)
        Ids; 0 is background, negative unknown.
    cells : Tensor (K, 1 + D)
        Sample and cell along each axis.
    grid : tuple of int
        Pixels that a cell is wide along each axis.
    """
    padded = F.pad(objects.to(torch.int32), (1, 1) * len(grid), value=-1)
    strides = torch.tensor(padded.stride(), device=cells.device)
    sides = torch.tensor([1, *grid], device=cells.device)
    middle = torch.tensor([0, *(g // 2 + 1 for g in grid)], device=cells.device)
    start = ((cells * sides + middle) * strides).sum(1)
    offsets = torch.from_numpy(_offsets(rays, grid, max(objects.shape[1:]))).to(cells.device)
    offsets = (offsets * strides[1:]).sum(-1)
    # A ray that has ended is looked at until the next check: it must not leave the memory meanwhile.
    margin = int(offsets.abs().max())
    flat = F.pad(padded.flatten(), (margin, margin), value=-1)
    # One ray at a time keeps all it needs in the cache of a CPU; a GPU wants all at once.
    group = 1 if cells.device.type == "cpu" else offsets.shape[1]
    inside = torch.cat([_inside(flat, start + margin, part) for part in offsets.split(group, 1)]).T
    end = start[:, None] + margin + offsets.gather(0, inside)
    # The rim lies halfway between the last pixel inside and the first one outside.
    before = torch.from_numpy(0.5 - _phase(rays, grid)).float().to(cells.device)
    length = torch.from_numpy(1 / np.abs(rays.steps).max(1)).float().to(cells.device)
    return (inside + before) * length, flat[end] >= 0


def _inside(flat: Tensor, start: Tensor, offsets: Tensor) -> Tensor:
    """Number of steps ``(N, K)`` that stay in the object.

    Parameters
    ----------
    offsets : Tensor (T, N)
        From the start of each ray to its pixels.
    """
    total = torch.zeros((offsets.shape[1], len(start)), dtype=torch.int64, device=flat.device)
    columns = torch.arange(len(start), device=flat.device)
    count = torch.zeros_like(total, dtype=torch.int16)
    alive = torch.ones_like(total, dtype=torch.bool)
    place, own = start, flat[start]
    for step, offset in enumerate(offsets, start=1):
        seen = flat.index_select(0, (place + offset[:, None]).flatten())
        alive &= seen.view_as(alive) == own
        count += alive
        if step % CHECK and step < len(offsets):
            continue
        total[:, columns] = count.long()
        stays = alive.any(0).nonzero()[:, 0]
        if len(stays) == 0:
            break
        columns, place, own = columns[stays], place[stays], own[stays]
        count, alive = count[:, stays], alive[:, stays]
    return total


def _phase(rays: Rays, grid: tuple[int, ...]) -> NDArray[np.float64]:
    """Part of a step ``(N)`` by which each ray reaches its first pixel early: half, from a centre between pixels."""
    main = np.abs(rays.steps).argmax(1)
    return np.where(np.asarray(grid)[main] % 2 == 0, 0.5, 0.0)


@lru_cache(maxsize=16)
def _offsets(rays: Rays, grid: tuple[int, ...], longest: int) -> NDArray[np.int64]:
    """Pixels ``(T, N, D)`` along each ray from the middle pixel of a cell, one pixel per step along its main axis."""
    main = rays.steps / np.abs(rays.steps).max(1, keepdims=True)
    half = np.where(np.asarray(grid) % 2 == 0, 0.5, 0.0)
    times = np.arange(1, longest + 2)[:, None, None] - _phase(rays, grid)[:, None]
    return np.asarray(np.floor(times * main - half + 0.5), np.int64)
