"""Where nuclei lie: mostly apart, a set fraction touching a neighbour, some dividing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from im2im_core.microscope.nuclei import FLATNESS, Canvas, Nucleus, Point, anaphase, draw_nucleus, metaphase

if TYPE_CHECKING:
    from numpy.typing import NDArray

ATTEMPTS = 40
"""Places tried for a nucleus before it is left out, in a crowded image."""


class _Crowd:
    """Nuclei placed so far, with their centres and radii as arrays."""

    def __init__(self) -> None:
        self.nuclei: list[Nucleus] = []
        self._rows: list[tuple[float, ...]] = []

    def add(self, *nuclei: Nucleus, reach: float) -> None:
        """Put `nuclei`, which together keep others `reach` away from their common middle."""
        middle = np.mean([n.centre for n in nuclei], axis=0)
        self._rows.append((*middle, reach))
        self.nuclei.extend(nuclei)

    def room(self, centre: Point, reach: float, factor: float) -> bool:
        """Whether `centre` is further than `factor` times the sum of the radii from all others."""
        if not self._rows:
            return True
        rows: NDArray[np.float64] = np.asarray(self._rows)
        offset = rows[:, :3] - centre
        offset[:, 0] /= FLATNESS
        return bool((np.linalg.norm(offset, axis=1) > factor * (rows[:, 3] + reach)).all())


def place_nuclei(
    rng: np.random.Generator, canvas: Canvas, *, diameter: float, density: float, touching: float, dividing: float
) -> list[Nucleus]:
    """Nuclei that fill about `density` of the canvas.

    Parameters
    ----------
    density : float
        Fraction of the area or volume that nuclei cover.
    touching, dividing : float
        Fractions of the nuclei that lie against a neighbour and that are in mitosis.
    """
    crowd = _Crowd()
    for _ in range(_count(canvas, diameter, density)):
        kind = rng.random()
        if kind < dividing:
            _place_dividing(rng, crowd, canvas, diameter)
        elif kind < dividing + touching and crowd.nuclei:
            _place_touching(rng, crowd, canvas, diameter)
        else:
            _place_apart(rng, crowd, canvas, diameter)
    return crowd.nuclei


def _count(canvas: Canvas, diameter: float, density: float) -> int:
    depth, height, width = canvas.extent
    if depth == 0:
        return max(1, round(density * height * width / (np.pi / 4 * diameter**2)))
    return max(1, round(density * depth * height * width / (np.pi / 6 * FLATNESS * diameter**3)))


def _anywhere(rng: np.random.Generator, canvas: Canvas) -> Point:
    z, y, x = rng.uniform(0, 1, 3) * canvas.extent
    return float(z), float(y), float(x)


def _find_place(rng: np.random.Generator, crowd: _Crowd, canvas: Canvas, reach: float, factor: float) -> Point | None:
    places = (_anywhere(rng, canvas) for _ in range(ATTEMPTS))
    return next((p for p in places if crowd.room(p, reach, factor)), None)


def _place_apart(rng: np.random.Generator, crowd: _Crowd, canvas: Canvas, diameter: float) -> None:
    nucleus = draw_nucleus(rng, len(crowd.nuclei) + 1, (0.0, 0.0, 0.0), diameter)
    place = _find_place(rng, crowd, canvas, nucleus.reach, 1.3)
    if place is not None:
        crowd.add(_at(nucleus, place), reach=nucleus.reach)


def _place_touching(rng: np.random.Generator, crowd: _Crowd, canvas: Canvas, diameter: float) -> None:
    """Lay a nucleus against one that is there, if the others leave room."""
    nucleus = draw_nucleus(rng, len(crowd.nuclei) + 1, (0.0, 0.0, 0.0), diameter)
    for _ in range(ATTEMPTS):
        partner = crowd.nuclei[int(rng.integers(len(crowd.nuclei)))]
        direction = float(rng.uniform(0, 2 * np.pi))
        gap = 0.88 * (partner.radius_towards(direction) + nucleus.radius_towards(direction))
        z, y, x = partner.centre
        place = (z, y + gap * float(np.sin(direction)), x + gap * float(np.cos(direction)))
        inside = 0 <= place[1] < canvas.shape[1] and 0 <= place[2] < canvas.shape[2]
        if inside and not partner.dividing and crowd.room(place, nucleus.reach, 0.75):
            crowd.add(_at(nucleus, place), reach=nucleus.reach)
            return


def _place_dividing(rng: np.random.Generator, crowd: _Crowd, canvas: Canvas, diameter: float) -> None:
    """Put a metaphase plate or a pair of anaphase plates."""
    first = len(crowd.nuclei) + 1
    nucleus = draw_nucleus(rng, first, (0.0, 0.0, 0.0), diameter)
    place = _find_place(rng, crowd, canvas, nucleus.reach, 1.3)
    if place is None:
        return
    nucleus = _at(nucleus, place)
    plates = (metaphase(nucleus),) if rng.random() < 0.5 else anaphase(nucleus, (first, first + 1))
    crowd.add(*plates, reach=nucleus.reach)


def _at(nucleus: Nucleus, centre: Point) -> Nucleus:
    return replace(nucleus, centre=centre)
