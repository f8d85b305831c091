"""From a specimen to a camera image: point-spread function, illumination, photons, noise; and transmitted light."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.microscope.nuclei import Canvas

if TYPE_CHECKING:
    from numpy.typing import NDArray

GAIN = 8.0
"""Counts per photon."""
OFFSET = 100.0
"""Counts of a camera that sees nothing."""
READ_NOISE = 1.6
"""Standard deviation of the read noise in photons."""
FOCUS = 0.055
"""Standard deviation of the lateral point-spread function in nucleus diameters."""
ELONGATION = 2.5
"""How much longer the point-spread function is along the optical axis."""
HAZE = 0.12
"""Part of the light that arrives from out of focus."""
BRIGHT_FIELD = 12_000.0
"""Counts of transmitted light where there is no cell."""


def blur(signal: NDArray[np.float32], canvas: Canvas, diameter: float) -> NDArray[np.float32]:
    """Signal through a Gaussian point-spread function with a wide, weak skirt.

    The Gaussian is the approximation of Zhang, Zerubia and Olivo-Marin,
    Applied Optics 46 (2007) 1819; the skirt stands for light from other planes.
    """
    from scipy.ndimage import gaussian_filter

    core: NDArray[np.float32] = gaussian_filter(signal, _spread(canvas, FOCUS * diameter, ELONGATION))
    return (1 - HAZE) * core + HAZE * _wide(signal, canvas, 0.9 * diameter)


def illuminate(rng: np.random.Generator, canvas: Canvas) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Uneven illumination (about 1) and background (about 0.07 of a nucleus), each ``(Y, X)``."""
    _, height, width = canvas.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    cy, cx = rng.uniform(-0.4, 0.4, 2)
    vignette = 1.05 - 0.16 * ((y - cy) ** 2 + (x - cx) ** 2)
    level = 0.07 * rng.lognormal(0, 0.3)
    background = level * (1 + 0.35 * _clouds(rng, (height, width)))
    return vignette.astype(np.float32), np.clip(background, 0.2 * level, None).astype(np.float32)


def expose(expected: NDArray[Any], rng: np.random.Generator) -> NDArray[np.uint16]:
    """Camera image of the `expected` photons per pixel: shot noise, read noise, gain, offset, clipped to 16 bits."""
    electrons = rng.poisson(expected) + rng.normal(0, READ_NOISE, expected.shape)
    return _digitise(electrons * GAIN + OFFSET)


def transmit(
    density: NDArray[np.float32], canvas: Canvas, diameter: float, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """Transmitted-light image of the same specimen.

    One plane is seen in phase contrast: optical thickness through a band-pass,
    with its halo. A stack is a bright-field focus series: contrast follows the
    transport-of-intensity equation (Teague, JOSA 73 (1983) 1434), so that it
    vanishes in focus and changes sign through it.
    """
    from scipy.ndimage import gaussian_filter

    cell = density + _cytoplasm(density, canvas, diameter, rng)
    sharp = gaussian_filter(cell, _spread(canvas, FOCUS * diameter, 1.0))
    contrast = 0.28 * (sharp - 1.1 * _wide(cell, canvas, 0.55 * diameter))
    if canvas.shape[0] > 1:
        contrast = 0.25 * contrast + _defocus(cell, canvas, diameter)
    light = 1 + 0.04 * _clouds(rng, canvas.shape[1:])
    counts = BRIGHT_FIELD * light * np.clip(1 + contrast, 0.05, None)
    return _digitise(counts + rng.normal(0, 1, counts.shape) * np.sqrt(counts * GAIN))


def _digitise(counts: NDArray[Any]) -> NDArray[np.uint16]:
    """Whole counts, clipped to 16 bits."""
    limit = np.iinfo(np.uint16).max
    return np.asarray(np.clip(np.rint(counts), 0, limit), np.uint16)


def _cytoplasm(
    density: NDArray[np.float32], canvas: Canvas, diameter: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Granular surroundings of the nuclei."""
    from scipy.ndimage import gaussian_filter

    near = np.clip(2.5 * _wide((density > 0).astype(np.float32), canvas, 0.8 * diameter), 0, 1)
    grains = gaussian_filter(rng.standard_normal(canvas.shape).astype(np.float32), _spread(canvas, 0.06 * diameter, 1))
    return np.asarray(near * (0.35 + 0.12 * grains / grains.std()), np.float32)


def _defocus(cell: NDArray[np.float32], canvas: Canvas, diameter: float) -> NDArray[np.float32]:
    """Change of intensity with focus: minus the lateral Laplacian, odd along Z."""
    from scipy.ndimage import gaussian_filter, gaussian_filter1d, laplace

    lateral = 0.09 * diameter
    smooth = gaussian_filter(cell, (0, lateral, lateral))
    curvature = np.stack([laplace(plane) for plane in smooth]) * lateral**2
    reach = max(0.35 * diameter / canvas.anisotropy, 0.7)
    return np.asarray(gaussian_filter1d(curvature, reach, axis=0, order=1) * reach * 1.2, np.float32)


def _spread(canvas: Canvas, lateral: float, elongation: float) -> tuple[float, float, float]:
    axial = lateral * elongation / canvas.anisotropy if canvas.shape[0] > 1 else 0.0
    return axial, lateral, lateral


def _wide(image: NDArray[np.float32], canvas: Canvas, sigma: float) -> NDArray[np.float32]:
    """Gaussian of large `sigma`, as three running means whose cost does not grow with it."""
    from scipy.ndimage import uniform_filter1d

    for axis, spread in enumerate(_spread(canvas, sigma, 1.0)):
        width = round(np.sqrt(4 * spread**2 + 1))
        for _ in range(3 if width > 1 else 0):
            image = uniform_filter1d(image, width, axis=axis)
    return image


def _clouds(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Smooth noise ``(Y, X)`` between about -1 and 1 that varies over a quarter of the image."""
    from scipy.ndimage import map_coordinates

    grid = rng.uniform(-1, 1, (6, 6)).astype(np.float32)
    y, x = (np.linspace(1, 4, n, dtype=np.float32) for n in shape)
    places = np.stack(np.meshgrid(y, x, indexing="ij"))
    return np.asarray(map_coordinates(grid, places, order=3, mode="nearest"), np.float32)
