"""Fourier ring correlation: the finest detail that two images of one thing share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.errors import DataError
from im2im_core.metrics.images import known_pixels
from im2im_core.metrics.instances import check_shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    _Spectra = tuple[NDArray[np.complex128], NDArray[np.complex128]]

THRESHOLD = 1 / 7
"""Correlation below which a detail is not resolved (Nieuwenhuizen et al. 2013)."""
MARGIN = 0.125
"""Part of each side over which pixels fade out, so that opposite borders do not meet as edges."""


@dataclass(frozen=True)
class RingCorrelation:
    """Correlation of two images, ring by ring in Fourier space."""

    frequencies: NDArray[np.float64]
    """Of each ring, cycles per unit of length; without 0."""
    correlation: NDArray[np.float64]
    finest: float
    """Shortest period that the pixels can show."""
    coarsest: float
    """Longest period that the image can show."""

    def resolution(self, threshold: float = THRESHOLD) -> float:
        """Period at which the correlation, each ring with half of its neighbours, first falls below `threshold`."""
        if not self.frequencies.size:
            return self.finest
        padded = np.pad(self.correlation, 1, mode="edge")
        smooth = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
        below = np.flatnonzero(smooth < threshold)
        if not below.size:
            return self.finest
        i = int(below[0])
        if i == 0:
            return self.coarsest
        fraction = (smooth[i - 1] - threshold) / (smooth[i - 1] - smooth[i])
        step = self.frequencies[i] - self.frequencies[i - 1]
        return float(1 / (self.frequencies[i - 1] + fraction * step))


def fourier_ring_correlation(
    first: NDArray[Any],
    second: NDArray[Any],
    weight: NDArray[Any] | None = None,
    spacing: Sequence[float] = (1.0, 1.0),
) -> RingCorrelation:
    """Correlation of two images ``([Z], Y, X)`` by rings of spatial frequency along Y and X.

    Saxton & Baumeister, J. Microscopy 127 (1982) 127; Nieuwenhuizen et al., Nature Methods 10 (2013) 557. The rings
    of all planes of a stack are summed: its lateral resolution. Unknown pixels take the mean of the known ones, and
    borders fade out.

    Parameters
    ----------
    spacing : sequence of float
        Size of a pixel along Y and X.
    """
    check_shapes(first, second, weight)
    known = known_pixels(second, weight)
    planes = (np.asarray(a).reshape(-1, *known.shape[-2:]) for a in (first, second, known))
    return _by_rings((_spectra(*plane) for plane in zip(*planes, strict=True)), known.shape[-2:], spacing)


def frc_resolution(
    pred: NDArray[Any],
    truth: NDArray[Any],
    weight: NDArray[Any] | None = None,
    spacing: Sequence[float] = (1.0, 1.0),
) -> float:
    """Finest detail that prediction and truth share, in units of `spacing`; NaN where the prediction is not finite.

    At best twice the larger pixel side, at worst the smaller side of the image.
    """
    known = known_pixels(truth, weight)
    if not known.any():
        return 2 * max(spacing)
    if not np.isfinite(np.asarray(pred)[known]).all():
        return math.nan
    return fourier_ring_correlation(pred, truth, weight, spacing).resolution()


def single_image_resolution(image: NDArray[Any], spacing: Sequence[float] = (1.0, 1.0)) -> float:
    """Resolution of one image ``([Z], Y, X)`` from the correlation of its pixels on a checkerboard.

    Koho et al., Nature Communications 10 (2019) 3103: the four images of every second row and column are compared
    along the diagonals. The shift between them is undone in Fourier space instead of by a calibration. Details finer
    than four pixels cannot be told; noise must not be correlated between pixels, as it is after denoising.

    Raises
    ------
    DataError
        A side is below 4 pixels, or a pixel is not finite.
    """
    pixels = np.asarray(image)
    if min(pixels.shape[-2:]) < 4:
        raise DataError(f"An image of {pixels.shape} pixels is too small for its resolution", "Give 4 pixels or more")
    if not np.isfinite(pixels).all():
        raise DataError("A pixel of the image is not finite", "Replace NaN and infinite pixels")
    height, width = (n // 2 for n in pixels.shape[-2:])
    known = np.ones((height, width), bool)
    # First image, second image, and where the second begins, in pixels of the coarse grid.
    diagonals = (((0, 0), (1, 1), _shift(known.shape, 0.5)), ((0, 1), (1, 0), _shift(known.shape, -0.5)))

    def pairs() -> Iterator[_Spectra]:
        for plane in pixels.reshape(-1, *pixels.shape[-2:]):
            for one, other, shift in diagonals:
                parts = [plane[y : 2 * height : 2, x : 2 * width : 2] for y, x in (one, other)]
                first, second = _spectra(parts[0], parts[1], known)
                yield first, second * shift

    return _by_rings(pairs(), (height, width), [2 * s for s in spacing]).resolution()


def _window(known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Factor of each pixel ``(Y, X)`` that fades to 0 at the borders and towards unknown pixels."""
    from scipy.ndimage import distance_transform_edt

    fade = np.multiply.outer(*(_rise(n) for n in known.shape))
    if not known.all():
        far = max(MARGIN * min(known.shape), 1.0)
        fade *= np.sin(np.minimum(distance_transform_edt(known) / far, 1) * math.pi / 2) ** 2
    return np.asarray(fade, np.float64)


def _rise(size: int) -> NDArray[np.float64]:
    """Raised cosine from both ends over the margin."""
    place = np.arange(size) + 0.5
    distance = np.minimum(place, size - place)
    return np.asarray(np.sin(np.minimum(distance / max(MARGIN * size, 1.0), 1) * math.pi / 2) ** 2)


def _spectra(first: NDArray[Any], second: NDArray[Any], known: NDArray[np.bool_]) -> _Spectra:
    """Half spectra of one plane of both images."""
    window = _window(known)
    return _transform(first, known, window), _transform(second, known, window)


def _transform(image: NDArray[Any], known: NDArray[np.bool_], window: NDArray[np.float64]) -> NDArray[np.complex128]:
    from scipy.fft import rfft2

    pixels = np.where(known, image, 0).astype(np.float64)
    largest = np.abs(pixels).max(initial=0.0)
    pixels -= pixels.sum() / max(int(known.sum()), 1)
    pixels *= known
    if np.abs(pixels).max(initial=0.0) <= 1e-12 * largest:  # rounding, not structure
        pixels[...] = 0
    return np.asarray(rfft2(pixels * window))


def _shift(shape: tuple[int, ...], x: float) -> NDArray[np.complex128]:
    """Factor that moves a half spectrum by half a pixel along Y and `x` pixels along X."""
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    return np.asarray(np.exp(-2j * math.pi * (0.5 * fy + x * fx)))


def _by_rings(pairs: Iterable[_Spectra], shape: Sequence[int], spacing: Sequence[float]) -> RingCorrelation:
    """Correlation of pairs of half spectra ``(Y, X // 2 + 1)``, rings as wide as the coarsest frequency."""
    extent = min(n * s for n, s in zip(shape, spacing, strict=True))
    finest = 2 * max(spacing)
    radius = np.hypot(np.fft.fftfreq(shape[0], spacing[0])[:, None], np.fft.rfftfreq(shape[1], spacing[1])[None])
    ring = np.rint(radius * extent).astype(np.intp)
    number = int(extent / finest + 1e-9)
    # A half spectrum holds its inner columns for their mirror images too.
    twice = np.full(shape[1] // 2 + 1, 2.0)
    twice[0] = 1
    if shape[1] % 2 == 0:
        twice[-1] = 1
    planes = np.zeros((3, *ring.shape))
    for first, second in pairs:
        planes += [(first * second.conj()).real, np.abs(first) ** 2, np.abs(second) ** 2]
    cross, one, other = (np.bincount(ring.ravel(), (p * twice).ravel(), number + 1)[1 : number + 1] for p in planes)
    power = np.sqrt(one * other)
    # Where neither has any structure, nothing differs.
    correlation = np.divide(cross, power, out=np.where((one == 0) & (other == 0), 1.0, 0.0), where=power > 0)
    return RingCorrelation(np.arange(1, len(correlation) + 1) / extent, correlation, finest, extent)
