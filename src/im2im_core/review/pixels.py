"""Numbers of all pixels of an image: range, mean, invalid and saturated pixels, what is constant, a digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.review.bands import UNWATCHED, Watch, bands

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.image import Image
    from im2im_core.review.bands import Band


@dataclass(frozen=True)
class PixelFacts:
    """Numbers of all pixels of one image; NaN and infinite ones are counted and left out."""

    minimum: float
    maximum: float
    mean: float
    invalid: int
    """NaN and infinite pixels."""
    saturated: float
    """Percent of pixels at the largest value that the type can hold."""
    digest: str
    """Equal for equal type, shape and pixels."""
    nan: int = 0
    """NaN pixels alone."""
    constant_channels: tuple[int, ...] = ()
    """Channels of several in which all pixels are equal."""
    constant_planes: tuple[tuple[int, int, int], ...] = ()
    """T, C, Z of planes in which all pixels are equal, in channels where not all are."""


@dataclass
class _Span:
    """Smallest and largest finite value."""

    low: float = np.inf
    high: float = -np.inf

    def add(self, low: float, high: float) -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)

    @property
    def constant(self) -> bool:
        return self.low == self.high


@dataclass
class _Sums:
    """What is summed up over the bands of an image."""

    top: int | None
    """Largest value of the type; None for floats and booleans."""
    total: float = 0.0
    count: int = 0
    nan: int = 0
    saturated: int = 0
    planes: dict[tuple[int, int, int], _Span] = field(default_factory=dict)

    def add(self, band: Band) -> None:
        """Take one band into account."""
        pixels = band.pixels
        values = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
        span = self.planes.setdefault((band.time_point, band.channel, band.plane), _Span())
        if pixels.dtype.kind == "f":
            self.nan += int(np.isnan(pixels).sum())
        if values.size:
            span.add(float(values.min()), float(values.max()))
            self.total += float(values.sum(dtype=np.float64))
            self.count += values.size
            self.saturated += 0 if self.top is None else int((values == self.top).sum())


def pixel_facts(image: Image, watch: Watch = UNWATCHED) -> PixelFacts:
    """Numbers of all pixels of `image`, read band by band."""
    info = image.info
    digest = PixelDigest(image)
    sums = _Sums(int(np.iinfo(info.dtype).max) if info.dtype.kind in "ui" else None)
    for band in bands(image, watch):
        digest.update(band.pixels)
        sums.add(band)
    whole = _merged(sums.planes.values())
    if sums.count == 0:
        whole = _Span(float("nan"), float("nan"))
    size = int(np.prod(info.shape, dtype=np.int64))
    channels = () if whole.constant else _constant_channels(sums, info.shape[1])
    return PixelFacts(
        whole.low,
        whole.high,
        sums.total / max(sums.count, 1),
        size - sums.count,
        100 * sums.saturated / max(sums.count, 1),
        digest.text(),
        nan=sums.nan,
        constant_channels=channels,
        constant_planes=() if whole.constant else _constant_planes(sums, channels),
    )


class PixelDigest:
    """The same as `content_hash` of the whole array, from its parts in their order."""

    def __init__(self, image: Image) -> None:
        self._digest = hashlib.sha256(f"{image.info.dtype.str}{image.info.shape}".encode())

    def update(self, pixels: NDArray[Any]) -> None:
        """Take the next rows into account."""
        self._digest.update(np.ascontiguousarray(pixels).data)

    def text(self) -> str:
        """Hex digest."""
        return self._digest.hexdigest()


def _merged(spans: Any) -> _Span:
    whole = _Span()
    for span in spans:
        whole.add(span.low, span.high)
    return whole


def _constant_channels(sums: _Sums, channels: int) -> tuple[int, ...]:
    spans = [_merged(span for (_, c, _), span in sums.planes.items() if c == channel) for channel in range(channels)]
    return tuple(channel for channel, span in enumerate(spans) if span.constant)


def _constant_planes(sums: _Sums, channels: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
    return tuple(place for place, span in sums.planes.items() if span.constant and place[1] not in channels)
