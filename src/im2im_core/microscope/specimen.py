"""A simulated specimen under the microscope, with exact truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from im2im_core.errors import DataError
from im2im_core.microscope.nuclei import Canvas, Nucleus, chromatin, paint_labels, paint_signal
from im2im_core.microscope.optics import blur, expose, illuminate, transmit
from im2im_core.microscope.placing import place_nuclei

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.image import VoxelSize

NUCLEUS_WIDTH = 11.0
"""Micrometres that one nucleus diameter stands for."""


@dataclass(frozen=True)
class Specimen:
    """Images of one simulated specimen and what is true of it; all arrays have the dimensions `axes`."""

    image: NDArray[np.uint16]
    """Fluorescence as the camera sees it."""
    clean: NDArray[np.float32]
    """Expected photons per pixel: optics and background, no noise."""
    labels: NDArray[np.uint32]
    """0 background, then 1, 2 … one connected component per nucleus."""
    transmitted: NDArray[np.uint16]
    """Phase contrast of a plane, or a bright-field focus series of a stack."""
    voxel_size: VoxelSize
    """Along Z, Y, X in micrometres."""
    axes: str
    dividing: tuple[int, ...]
    """Labels of nuclei in mitosis."""
    photons: float
    """Expected photons per pixel in a typical nucleus."""

    @property
    def classes(self) -> NDArray[np.uint8]:
        """0 background, 1 nucleus, 2 nucleus in mitosis."""
        return (self.labels > 0).astype(np.uint8) + np.isin(self.labels, self.dividing).astype(np.uint8)


def fluorescence(
    shape: tuple[int, ...],
    *,
    seed: int,
    diameter: float = 17.0,
    density: float = 0.15,
    touching: float = 0.3,
    dividing: float = 0.05,
    photons: float = 80.0,
    anisotropy: float = 3.0,
) -> Specimen:
    """Nuclei in fluorescence and transmitted light with exact labels; equal arguments give equal pixels.

    Parameters
    ----------
    shape : tuple of int
        ``(Y, X)`` or ``(Z, Y, X)``.
    diameter : float
        Mean diameter of the nuclei in lateral pixels.
    density : float
        Fraction of the area or volume that nuclei cover.
    touching, dividing : float
        Fractions of the nuclei that lie against a neighbour and that are in mitosis.
    photons : float
        Expected photons per pixel in a typical nucleus: less is noisier.
    anisotropy : float
        Distance of planes in lateral pixels.
    """
    canvas = make_canvas(shape, diameter, anisotropy)
    rng = np.random.default_rng(seed)
    texture = chromatin(rng)
    nuclei = place_nuclei(rng, canvas, diameter=diameter, density=density, touching=touching, dividing=dividing)
    nuclei, labels = number_visible(nuclei, paint_labels(nuclei, canvas))
    signal, mass = paint_signal(nuclei, labels, canvas, texture)
    light, background = illuminate(rng, canvas)
    clean = photons * light * (blur(signal, canvas, diameter) + background)
    flat = (lambda array: array[0]) if len(shape) == 2 else (lambda array: array)
    return Specimen(
        image=flat(expose(clean, rng)),
        clean=flat(clean),
        labels=flat(labels),
        transmitted=flat(transmit(mass, canvas, diameter, rng)),
        voxel_size=voxel_size(canvas, diameter),
        axes="ZYX"[-len(shape) :],
        dividing=tuple(n.identity for n in nuclei if n.dividing),
        photons=photons,
    )


def low_light(specimen: Specimen, photons: float, seed: int) -> NDArray[np.uint16]:
    """Camera image of the same specimen with only `photons` expected per pixel in a typical nucleus.

    Together with ``specimen.clean`` it is a pair for restoration.
    """
    if photons <= 0:
        raise DataError(f"{photons} photons per pixel were asked for", "Use a number above 0")
    return expose(specimen.clean * (photons / specimen.photons), np.random.default_rng(seed))


def make_canvas(shape: tuple[int, ...], diameter: float, anisotropy: float) -> Canvas:
    """Canvas ``(Z, Y, X)`` for a plane or a stack.

    Raises
    ------
    DataError
        The shape is not that of a plane or stack, or nuclei would be smaller than the optics resolves.
    """
    if len(shape) not in (2, 3) or min(shape) < 1 or min(shape[-2:]) < 8:
        raise DataError(
            f"A specimen cannot have the shape {tuple(shape)}",
            "Give (Y, X) or (Z, Y, X), with Y and X of 8 pixels or more",
        )
    if diameter < 4 or anisotropy <= 0:
        raise DataError(
            f"Nuclei of {diameter} pixels with planes {anisotropy} pixels apart cannot be drawn",
            "Use a diameter of 4 or more and a distance above 0",
        )
    depth = shape[0] if len(shape) == 3 else 1
    return Canvas((depth, shape[-2], shape[-1]), float(anisotropy))


def number_visible(nuclei: list[Nucleus], labels: NDArray[np.uint32]) -> tuple[list[Nucleus], NDArray[np.uint32]]:
    """Nuclei that can be seen, numbered 1, 2 … without gaps, and labels to match."""
    visible = set(np.unique(labels).tolist())
    kept = [n for n in nuclei if n.identity in visible]
    table = np.zeros(max((n.identity for n in nuclei), default=0) + 1, np.uint32)
    for number, nucleus in enumerate(kept, start=1):
        table[nucleus.identity] = number
    return [replace(n, identity=int(table[n.identity])) for n in kept], table[labels]


def voxel_size(canvas: Canvas, diameter: float) -> VoxelSize:
    """Along Z, Y, X in micrometres; Z is None for a single plane."""
    lateral = NUCLEUS_WIDTH / diameter
    return (lateral * canvas.anisotropy if canvas.shape[0] > 1 else None), lateral, lateral
