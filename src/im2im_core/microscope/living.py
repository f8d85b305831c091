"""A simulated time-lapse: nuclei move, turn, grow and divide; every frame has exact labels and a lineage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from im2im_core.errors import DataError
from im2im_core.microscope.nuclei import Canvas, Nucleus, anaphase, chromatin, metaphase, paint_labels, paint_signal
from im2im_core.microscope.optics import blur, expose, illuminate
from im2im_core.microscope.placing import place_nuclei
from im2im_core.microscope.specimen import make_canvas, voxel_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from im2im_core.image import VoxelSize

METAPHASE_FRAMES = 2
TIME_STEP = 600.0
"""Seconds between frames."""


@dataclass(frozen=True)
class Timelapse:
    """Frames of living nuclei; all arrays have the dimensions `axes`."""

    image: NDArray[np.uint16]
    """Fluorescence as the camera sees it."""
    clean: NDArray[np.float32]
    """Expected photons per pixel."""
    labels: NDArray[np.uint32]
    """A nucleus keeps its number over all frames; daughters get new ones."""
    tracks: dict[int, int]
    """Daughter -> mother, for all daughters that are seen; founders are not in it."""
    voxel_size: VoxelSize
    axes: str
    time_step: float = TIME_STEP
    """Seconds between frames."""


@dataclass(frozen=True)
class _Cell:
    nucleus: Nucleus
    """As it would be in interphase."""
    velocity: tuple[float, float]
    phase: int
    """Frames since the last division."""


def timelapse(
    frames: int,
    shape: tuple[int, ...],
    seed: int,
    *,
    diameter: float = 17.0,
    density: float = 0.1,
    cycle: int = 24,
    photons: float = 80.0,
    anisotropy: float = 3.0,
) -> Timelapse:
    """Moving, growing and dividing nuclei with labels and lineage; equal arguments give equal pixels.

    Parameters
    ----------
    shape : tuple of int
        Of a frame, ``(Y, X)`` or ``(Z, Y, X)``.
    cycle : int
        Frames from one division to the next.
    """
    if frames < 1 or cycle < METAPHASE_FRAMES + 2:
        raise DataError(
            f"{frames} frames with a division every {cycle} frames cannot be simulated",
            f"Use 1 frame or more and a cycle of {METAPHASE_FRAMES + 2} or more",
        )
    canvas = make_canvas(shape, diameter, anisotropy)
    rng = np.random.default_rng(seed)
    texture = chromatin(rng)
    light, background = illuminate(rng, canvas)
    founders = place_nuclei(rng, canvas, diameter=0.9 * diameter, density=density, touching=0.1, dividing=0.0)
    clean, labels, tracks = [], [], {}
    for cells, births in _lives(rng, founders, canvas, cycle, frames):
        tracks.update(births)
        seen = [_appearance(c, cycle) for c in cells]
        labels.append(paint_labels(seen, canvas))
        signal, _ = paint_signal(seen, labels[-1], canvas, texture)
        clean.append(photons * light * (blur(signal, canvas, diameter) + background))
    whole = (frames, *shape)
    expected, truth = np.stack(clean).reshape(whole), np.stack(labels).reshape(whole)
    visible = set(np.unique(truth).tolist())
    return Timelapse(
        image=expose(expected, rng),
        clean=expected,
        labels=truth,
        tracks={child: mother for child, mother in tracks.items() if {child, mother} <= visible},
        voxel_size=voxel_size(canvas, diameter),
        axes="T" + "ZYX"[-len(shape) :],
    )


def _lives(
    rng: np.random.Generator, founders: list[Nucleus], canvas: Canvas, cycle: int, frames: int
) -> Iterator[tuple[list[_Cell], dict[int, int]]]:
    """Cells of each frame, and the daughters born in it with their mothers."""
    cells = [_Cell(n, (0.0, 0.0), int(rng.integers(1, cycle))) for n in founders]
    newest = max((n.identity for n in founders), default=0)
    births: dict[int, int] = {}
    for _ in range(frames):
        yield cells, births
        cells = _push_apart([_move(rng, c, cycle) for c in cells])
        births, following = {}, []
        for cell in cells:
            if cell.phase < cycle:
                following.append(cell)
                continue
            daughters = _divide(rng, cell, (newest + 1, newest + 2), cycle)
            newest += 2
            births.update({d.nucleus.identity: cell.nucleus.identity for d in daughters})
            following.extend(daughters)
        cells = [c for c in following if _inside(c.nucleus, canvas)]


def _move(rng: np.random.Generator, cell: _Cell, cycle: int) -> _Cell:
    """Cell one frame later: persistent random walk, slow turning, area doubles over a cycle."""
    nucleus, reach = cell.nucleus, cell.nucleus.reach
    kicks = rng.normal(0, 0.05 * reach, 2)
    vy, vx = (float(0.8 * v + k) for v, k in zip(cell.velocity, kicks, strict=True))
    z, y, x = nucleus.centre
    growth = 2 ** (0.5 / cycle)
    rz, ry, rx = nucleus.radii
    grown = replace(
        nucleus,
        centre=(z, y + vy, x + vx),
        angle=nucleus.angle + float(rng.normal(0, 0.04)),
        radii=(rz * growth, ry * growth, rx * growth),
    )
    return _Cell(grown, (vy, vx), cell.phase + 1)


def _push_apart(cells: list[_Cell]) -> list[_Cell]:
    """Cells with half of every overlap taken out, so that crowds spread."""
    if len(cells) < 2:
        return cells
    centres = np.array([c.nucleus.centre for c in cells])
    reach = np.array([c.nucleus.reach for c in cells])
    offset = centres[:, None] - centres[None]
    offset[..., 0] = np.where(np.abs(offset[..., 0]) > reach[:, None], np.inf, 0)
    distance = np.linalg.norm(offset, axis=-1) + np.where(np.eye(len(cells), dtype=bool), np.inf, 1e-6)
    overlap = np.clip(reach[:, None] + reach[None] - distance, 0, None)
    lateral = offset[..., 1:] / np.where(np.isfinite(distance), distance, 1.0)[..., None]
    shift = (0.25 * overlap[..., None] * lateral).sum(axis=1)
    return [
        replace(c, nucleus=replace(c.nucleus, centre=(float(p[0]), float(p[1] + s[0]), float(p[2] + s[1]))))
        for c, p, s in zip(cells, centres, shift, strict=True)
    ]


def _divide(rng: np.random.Generator, cell: _Cell, identities: tuple[int, int], cycle: int) -> list[_Cell]:
    """Two daughters of half the area, on either side of the plate."""
    mother = cell.nucleus
    rz, ry, rx = (r / 2**0.5 for r in mother.radii)
    daughters = []
    for identity, side in zip(identities, (0.75, -0.75), strict=True):
        nucleus = replace(
            mother,
            identity=identity,
            centre=mother.moved(side * mother.reach),
            radii=(rz, ry, rx),
            brightness=mother.brightness * float(rng.lognormal(0, 0.05)),
        )
        # Daughters of one mother drift into divisions at different times.
        daughters.append(_Cell(nucleus, (0.0, 0.0), int(rng.integers(0, max(cycle // 6, 1)))))
    return daughters


def _appearance(cell: _Cell, cycle: int) -> Nucleus:
    """Nucleus as it looks in this phase: condensed just before division."""
    if cell.phase >= cycle - METAPHASE_FRAMES:
        return metaphase(cell.nucleus)
    if cell.phase == 0:
        identity = cell.nucleus.identity
        return anaphase(replace(cell.nucleus, radii=_inflate(cell.nucleus)), (identity, identity), 0.0)[0]
    return cell.nucleus


def _inflate(nucleus: Nucleus) -> tuple[float, float, float]:
    """Radii of the mother, of which an anaphase plate is a part."""
    rz, ry, rx = nucleus.radii
    return rz * 2**0.5, ry * 2**0.5, rx * 2**0.5


def _inside(nucleus: Nucleus, canvas: Canvas) -> bool:
    """Whether any of it may be in the field of view; what leaves does not come back."""
    return all(
        -nucleus.reach < c < n + nucleus.reach for c, n in zip(nucleus.centre[1:], canvas.shape[1:], strict=True)
    )
