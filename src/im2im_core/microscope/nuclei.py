"""Nuclei as shapes: an ellipsoid with an irregular outline, chromatin texture and nucleoli, painted without overlap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

Point = tuple[float, float, float]
"""Along Z, Y, X, in lateral pixels."""
Box = tuple[slice, slice, slice]

FLATNESS = 0.75
"""Height of a nucleus in culture relative to its width."""
OUTLINE_REACH = 1.45
"""No outline reaches further than this many radii."""
SMALLEST = 6
"""Pixels below which the visible part of a nucleus is left out."""
TEXTURE_SIZE = 48


@dataclass(frozen=True)
class Canvas:
    """Where nuclei are painted: planes, rows, columns, and how many lateral pixels one plane is high."""

    shape: tuple[int, int, int]
    anisotropy: float

    @property
    def extent(self) -> Point:
        """Size along Z, Y, X in lateral pixels; a single plane has no height."""
        depth, height, width = self.shape
        return (depth * self.anisotropy if depth > 1 else 0.0), float(height), float(width)


@dataclass(frozen=True)
class Nucleus:
    """One nucleus; lengths in lateral pixels."""

    identity: int
    centre: Point
    radii: Point
    """Half height, half minor and half major axis."""
    angle: float
    """Of the major axis in the plane, radians."""
    outline: tuple[tuple[float, float], ...]
    """Amplitude and phase of the 2nd, 3rd … harmonic of the outline."""
    brightness: float
    nucleoli: tuple[Point, ...]
    """Places in units of the radii, along the axes of the body."""
    texture: Point
    """Where in the chromatin texture this nucleus lies."""
    dividing: bool = False

    @property
    def reach(self) -> float:
        """Mean lateral radius."""
        return float(np.sqrt(self.radii[1] * self.radii[2]))

    def radius_towards(self, direction: float) -> float:
        """Lateral radius of the ellipse towards an angle in the plane."""
        turn = direction - self.angle
        return float(1 / np.hypot(np.cos(turn) / self.radii[2], np.sin(turn) / self.radii[1]))

    def moved(self, along_minor: float) -> Point:
        """Centre after a shift along the minor axis."""
        z, y, x = self.centre
        return z, y + along_minor * float(np.cos(self.angle)), x - along_minor * float(np.sin(self.angle))


def draw_nucleus(rng: np.random.Generator, identity: int, centre: Point, diameter: float) -> Nucleus:
    """Random interphase nucleus of about `diameter`."""
    radius = diameter / 2 * rng.lognormal(0.0, 0.14)
    stretch = np.sqrt(1 + rng.beta(2, 4) * 0.9)
    amplitudes = rng.normal(0, 0.05, 4) / np.array([1.0, 1.2, 1.8, 2.5])
    phases = rng.uniform(0, 2 * np.pi, 4)
    count = int(rng.integers(0, 4))
    return Nucleus(
        identity=identity,
        centre=centre,
        radii=(radius * FLATNESS, radius / stretch, radius * stretch),
        angle=float(rng.uniform(0, np.pi)),
        outline=tuple(zip(amplitudes.clip(-0.1, 0.1).tolist(), phases.tolist(), strict=True)),
        brightness=float(rng.lognormal(0.0, 0.3)),
        nucleoli=tuple(_point(rng.uniform(-0.5, 0.5, 3) * (0.6, 1, 1)) for _ in range(count)),
        texture=_point(rng.uniform(0, TEXTURE_SIZE, 3)),
    )


def metaphase(nucleus: Nucleus) -> Nucleus:
    """The same nucleus as a condensed, bright plate."""
    return _condense(nucleus, (1.0, 0.42, 0.95), 2.0)


def anaphase(nucleus: Nucleus, identities: tuple[int, int], separation: float = 0.62) -> tuple[Nucleus, Nucleus]:
    """Two parallel bright plates, `separation` mean radii to either side of the centre."""
    plate = _condense(nucleus, (0.8, 0.36, 0.78), 1.8)
    shift = separation * nucleus.reach
    first = replace(plate, identity=identities[0], centre=nucleus.moved(shift))
    return first, replace(plate, identity=identities[1], centre=nucleus.moved(-shift))


def _condense(nucleus: Nucleus, factors: Point, gain: float) -> Nucleus:
    reach = nucleus.reach
    radii = (reach * FLATNESS * factors[0], reach * factors[1], reach * factors[2])
    brightness = gain * max(nucleus.brightness, 0.7)
    return replace(nucleus, radii=radii, brightness=brightness, nucleoli=(), dividing=True)


def chromatin(rng: np.random.Generator) -> NDArray[np.float32]:
    """Seamless cube of texture with mean 0 and standard deviation 1."""
    from scipy.ndimage import gaussian_filter

    noise = rng.standard_normal((TEXTURE_SIZE,) * 3).astype(np.float32)
    fine, coarse = (gaussian_filter(noise, sigma, mode="wrap") for sigma in (1.0, 3.0))
    cube: NDArray[np.float32] = fine / fine.std() + coarse / coarse.std()
    cube /= cube.std()
    return cube


# ---- painting ----


def paint_labels(nuclei: Iterable[Nucleus], canvas: Canvas) -> NDArray[np.uint32]:
    """Identity per pixel, 0 outside; where nuclei overlap, the one whose centre is relatively nearer wins.

    Every label is one face-connected component; nuclei of which less than
    `SMALLEST` pixels are visible are left out.
    """
    labels = np.zeros(canvas.shape, np.uint32)
    nearest = np.ones(canvas.shape, np.float32)
    for nucleus in nuclei:
        box = _box(nucleus, canvas)
        level = _level(nucleus, _body(nucleus, box, canvas))
        wins = level < nearest[box]
        labels[box][wins] = nucleus.identity
        nearest[box][wins] = level[wins]
    _keep_largest_pieces(labels)
    return labels


def paint_signal(
    nuclei: Iterable[Nucleus], labels: NDArray[np.uint32], canvas: Canvas, texture: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fluorescence and optical density of the labelled pixels, before any optics.

    A single plane is seen as through the whole height of the nucleus; a plane of a stack is not.
    """
    signal, density = np.zeros(canvas.shape, np.float32), np.zeros(canvas.shape, np.float32)
    for nucleus in nuclei:
        box = _box(nucleus, canvas)
        mine = labels[box] == nucleus.identity
        body = _body(nucleus, box, canvas)
        height = np.sqrt(np.clip(1 - _level(nucleus, body) ** 2, 0, 1)) if canvas.shape[0] == 1 else np.float32(1)
        granules = _sample_texture(nucleus, body, texture)
        holes = _nucleoli(nucleus, body)
        glow = nucleus.brightness * (0.45 + 0.55 * height) * np.exp(0.2 * granules) * (1 - 0.55 * holes)
        mass = (1.8 if nucleus.dividing else 0.8 + 0.2 * nucleus.brightness) * height * (1 + 0.5 * holes)
        signal[box][mine] = glow[mine]
        density[box][mine] = mass[mine]
    return signal, density


def _point(values: NDArray[Any]) -> Point:
    z, y, x = (float(v) for v in values)
    return z, y, x


def _box(nucleus: Nucleus, canvas: Canvas) -> Box:
    lateral = OUTLINE_REACH * max(nucleus.radii[1:])
    reach = (OUTLINE_REACH * nucleus.radii[0] / canvas.anisotropy, lateral, lateral)
    middle = (nucleus.centre[0] / canvas.anisotropy, nucleus.centre[1], nucleus.centre[2])
    z, y, x = (
        slice(min(max(int(m - r), 0), n), min(max(int(m + r) + 2, 0), n))
        for m, r, n in zip(middle, reach, canvas.shape, strict=True)
    )
    return z, y, x


def _body(nucleus: Nucleus, box: Box, canvas: Canvas) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Coordinates of the pixels of `box` along height, minor and major axis, in units of the radii."""
    z, y, x = (np.arange(s.start, s.stop, dtype=np.float32) for s in box)
    dz = (z * canvas.anisotropy - nucleus.centre[0])[:, None, None]
    dy = (y - nucleus.centre[1])[None, :, None]
    dx = (x - nucleus.centre[2])[None, None, :]
    sin, cos = np.float32(np.sin(nucleus.angle)), np.float32(np.cos(nucleus.angle))
    minor, major = dy * cos - dx * sin, dx * cos + dy * sin
    return dz / nucleus.radii[0], minor / nucleus.radii[1], major / nucleus.radii[2]


def _level(nucleus: Nucleus, body: tuple[NDArray[Any], ...]) -> NDArray[np.float32]:
    """Distance from the centre relative to the outline: below 1 is inside."""
    height, minor, major = body
    lateral = minor * minor + major * major
    radius = np.sqrt(lateral + height * height)
    direction = np.arctan2(minor, major)
    bumps = sum(a * np.cos(k * direction + p) for k, (a, p) in enumerate(nucleus.outline, start=2))
    # Fading the bumps towards the poles keeps the surface smooth there.
    fade = np.sqrt(lateral) / np.maximum(radius, 1e-6)
    return np.asarray(radius / (1 + bumps * fade), np.float32)


def _sample_texture(
    nucleus: Nucleus, body: tuple[NDArray[Any], ...], texture: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Texture at each pixel; it is fixed to the body, so that it moves and turns with the nucleus."""
    from scipy.ndimage import map_coordinates

    # A nucleus spans half the cube whatever its size in pixels.
    scale = TEXTURE_SIZE / 4
    shape = np.broadcast_shapes(*(b.shape for b in body))
    places = [np.broadcast_to(b * scale + o, shape) for b, o in zip(body, nucleus.texture, strict=True)]
    values: NDArray[np.float32] = map_coordinates(texture, np.stack(places), order=1, mode="grid-wrap")
    # Condensed chromosomes look smooth.
    return values * np.float32(0.4) if nucleus.dividing else values


def _nucleoli(nucleus: Nucleus, body: tuple[NDArray[Any], ...]) -> NDArray[np.float32]:
    """1 in the middle of a nucleolus, 0 far from all."""
    total = np.zeros(np.broadcast_shapes(*(b.shape for b in body)), np.float32)
    for place in nucleus.nucleoli:
        squared = sum((b - p) ** 2 for b, p in zip(body, place, strict=True))
        total = np.maximum(total, np.exp(-squared / (2 * 0.17**2)))
    return total


def _keep_largest_pieces(labels: NDArray[np.uint32]) -> None:
    from scipy.ndimage import find_objects, label

    for identity, box in enumerate(find_objects(labels.view(np.int32)), start=1):
        if box is None:
            continue
        mine = labels[box] == identity
        pieces, count = label(mine)
        sizes = np.bincount(pieces.ravel())[1:]
        if count > 1:
            labels[box][mine & (pieces != sizes.argmax() + 1)] = 0
        if sizes.max() < SMALLEST:
            labels[box][mine] = 0
