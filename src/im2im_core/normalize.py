"""Normalisation: an offset and a scale per image, time point and channel, so it can be inverted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
from annotated_types import Interval
from pydantic import model_validator

from im2im_core._base import Config
from im2im_core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from im2im_core.image import Image

SAMPLE_LIMIT = 4_000_000
"""Pixels of one channel that percentiles are taken from; larger images are strided evenly."""
BAND = 8_000_000
"""Pixels that are read at once."""


@dataclass(frozen=True)
class Scaling:
    """``normalised = (pixel - offset) / scale``, one pair per channel."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def apply(self, pixels: NDArray[Any], axis: int = 0, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Normalised pixels as float32, written to `out` where it is given; `axis` is the channel axis."""
        offset, scale = self._along(axis, pixels.ndim)
        result = np.empty(pixels.shape, np.float32) if out is None else out
        # float32 has steps of 256 around four billion: wide types come near zero before they are shortened.
        wide = pixels.dtype.itemsize >= 4 and pixels.dtype != np.float32
        result[...] = pixels - offset if wide else pixels
        if not wide:
            result -= offset.astype(np.float32)
        result /= scale.astype(np.float32)
        return result

    def invert(self, values: NDArray[Any], axis: int = 0) -> NDArray[np.float32]:
        """Pixels in the original units."""
        offset, scale = self._along(axis, values.ndim)
        return values.astype(np.float32) * scale.astype(np.float32) + offset.astype(np.float32)

    def _along(self, axis: int, ndim: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        shape = [1] * ndim
        shape[axis] = -1
        return (np.asarray(self.offset, np.float64).reshape(shape), np.asarray(self.scale, np.float64).reshape(shape))


@runtime_checkable
class Measured(Protocol):
    """An image that may know how whole time points of it are normalised."""

    def known_scaling(self, time: int) -> Scaling | None:
        """Scaling of a time point; None where it has to be measured."""
        ...


class Percentile(Config):
    """A low and a high percentile become 0 and 1."""

    kind: Literal["percentile"] = "percentile"
    low: Annotated[float, Interval(ge=0, le=100)] = 1.0
    """Percentile that becomes 0."""
    high: Annotated[float, Interval(ge=0, le=100)] = 99.8
    """Percentile that becomes 1."""

    @model_validator(mode="after")
    def _low_below_high(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}; give for example 1 and 99.8")
        return self

    def limits(self, channel: NDArray[Any]) -> tuple[float, float]:
        """Offset and scale of one channel ``(Z, Y, X)``.

        Where nearly all pixels have one value, as in images of few spots, the smallest and the largest count.
        """
        known = channel.compressed() if isinstance(channel, np.ma.MaskedArray) else channel
        low, high = np.percentile(known, (self.low, self.high))
        if low == high:
            low, high = float(known.min()), float(known.max())
        return float(low), float(high) - float(low)


class ZScore(Config):
    """Mean 0, standard deviation 1."""

    kind: Literal["zscore"] = "zscore"

    def limits(self, channel: NDArray[Any]) -> tuple[float, float]:
        """Offset and scale of one channel ``(Z, Y, X)``."""
        return float(channel.mean(dtype=np.float64)), float(channel.std(dtype=np.float64))


class CentreZScore(Config):
    """Mean 0, standard deviation 1 of the planes around the sharpest one (Ounkomol et al. 2018)."""

    kind: Literal["centre_zscore"] = "centre_zscore"
    planes: Annotated[int, Interval(ge=1)] = 32
    """Number of planes in the middle chunk."""

    def limits(self, channel: NDArray[Any]) -> tuple[float, float]:
        """Offset and scale of one channel ``(Z, Y, X)``."""
        spread = channel.reshape(len(channel), -1).std(axis=1, dtype=np.float64)
        start = min(max(int(spread.argmax()) - self.planes // 2, 0), max(len(channel) - self.planes, 0))
        return ZScore().limits(channel[start : start + self.planes])


class MinMax(Config):
    """The smallest pixel becomes 0, the largest 1."""

    kind: Literal["minmax"] = "minmax"

    def limits(self, channel: NDArray[Any]) -> tuple[float, float]:
        """Offset and scale of one channel ``(Z, Y, X)``."""
        low, high = float(channel.min()), float(channel.max())
        return low, high - low


class NoNormalization(Config):
    """Pixels are used as they are."""

    kind: Literal["none"] = "none"

    def limits(self, channel: NDArray[Any]) -> tuple[float, float]:
        """Offset and scale of one channel ``(Z, Y, X)``."""
        return 0.0, 1.0


NormalizeSettings = Percentile | ZScore | CentreZScore | MinMax | NoNormalization


def measure(
    image: Image, settings: NormalizeSettings, time: int, invalid: str = "error", weight: Image | None = None
) -> Scaling:
    """Scaling of one time point of `image`, streamed channel by channel over the whole image.

    Parameters
    ----------
    time : int
        Index along T.
    invalid : "error" or "fill"
        What to do with NaN and infinite pixels; with "fill" they are left out of the statistics.
    weight : Image, optional
        Pixels where it is 0 are unknown: they are not looked at. Same Y, X as `image`; a single
        plane of either stands for all of the other.

    Raises
    ------
    DataError
        The image has NaN or infinite pixels and `invalid` is "error".
    """
    if isinstance(image, Measured) and (found := image.known_scaling(time)) is not None:
        return found
    if isinstance(settings, NoNormalization) and image.info.dtype.kind != "f":
        channels = image.info.shape[1]
        return Scaling((0.0,) * channels, (1.0,) * channels)
    limits = _extremes if isinstance(settings, MinMax) else _limits_of_sample
    pairs = [limits(image, time, c, settings, invalid, weight) for c in range(image.info.shape[1])]
    return Scaling(tuple(p[0] for p in pairs), tuple(p[1] for p in pairs))


def _limits_of_sample(
    image: Image, time: int, channel: int, settings: NormalizeSettings, invalid: str, weight: Image | None
) -> tuple[float, float]:
    """Offset and scale from pixels that lie evenly over the image."""
    step = max(1, int(np.ceil(np.sqrt(np.prod(image.info.shape[2:], dtype=float) / SAMPLE_LIMIT))))
    known = None if weight is None else _known(weight, time, step, image.info.shape[2])
    usable = _usable(_sample(image, time, channel, step), known, image.info.name, invalid)
    return (0.0, 1.0) if usable is None else _with_spread(*settings.limits(usable))


def _extremes(
    image: Image, time: int, channel: int, settings: NormalizeSettings, invalid: str, weight: Image | None
) -> tuple[float, float]:
    """Offset and scale from the smallest and the largest of all pixels."""
    low, high = np.inf, -np.inf
    for z, rows in _bands(image):
        known = None if weight is None else _known_band(weight, time, z, rows, image.info.shape[2])
        usable = _usable(_read_band(image, time, channel, z, rows), known, image.info.name, invalid)
        if usable is not None:
            low, high = min(low, float(usable.min())), max(high, float(usable.max()))
    return _with_spread(low, high - low) if low <= high else (0.0, 1.0)


def _with_spread(offset: float, scale: float) -> tuple[float, float]:
    """The pair itself; a constant image has no spread and becomes zero instead of NaN."""
    return offset, scale if scale > 1e-12 * max(1.0, abs(offset)) else 1.0


def _known(weight: Image, time: int, step: int, depth: int) -> NDArray[np.bool_]:
    """Which of the sampled pixels ``(Z, Y, X)`` of an image with `depth` planes are known."""
    known = _sample(weight, min(time, weight.info.shape[0] - 1), 0, step) > 0
    return known if len(known) in (1, depth) else np.asarray(known.any(axis=0, keepdims=True))


def _known_band(weight: Image, time: int, z: int, rows: slice, depth: int) -> NDArray[np.bool_]:
    """Which pixels ``(Y, X)`` of a band of plane `z`, of an image with `depth` planes, are known."""
    planes, time = weight.info.shape[2], min(time, weight.info.shape[0] - 1)
    looked_at = [z] if planes == depth else range(planes)
    known = [_read_band(weight, time, 0, plane, rows) > 0 for plane in looked_at]
    return np.asarray(np.any(known, axis=0))


def _bands(image: Image) -> Iterator[tuple[int, slice]]:
    """Number of the plane and rows of every part that is read at once."""
    _, _, depth, height, width = image.info.shape
    # Whole rows of chunks, as few as hold BAND pixels: each chunk is decoded once and little is held.
    rows = max(1, BAND // max(width, 1) // 512) * 512
    for z in range(depth):
        for y in range(0, height, rows):
            yield z, slice(y, min(y + rows, height))


def _read_band(image: Image, time: int, channel: int, z: int, rows: slice) -> NDArray[Any]:
    region = (slice(time, time + 1), slice(channel, channel + 1), slice(z, z + 1), rows, slice(0, image.info.shape[4]))
    return np.asarray(image.read(region)[0, 0, 0])


def _sample(image: Image, time: int, channel: int, step: int) -> NDArray[Any]:
    """Every `step`-th pixel ``(Z, Y, X)`` of one channel, read plane by plane."""
    planes: list[list[NDArray[Any]]] = [[] for _ in range(image.info.shape[2])]
    for z, rows in _bands(image):
        band = _read_band(image, time, channel, z, rows)
        planes[z].append(band[(-rows.start) % step :: step, ::step].copy())  # a view would hold the whole band
    return np.stack([np.concatenate(bands) for bands in planes])


def _usable(pixels: NDArray[Any], known: NDArray[np.bool_] | None, name: str, invalid: str) -> NDArray[Any] | None:
    """Pixels that are known and finite, the others masked; None where there are none."""
    known = None if known is None else np.broadcast_to(known, pixels.shape)
    finite = _finite(pixels, known, name, invalid)
    if finite is not None:
        known = finite if known is None else known & finite
    whole = known is None or bool(known.all())
    if known is not None and not known.any():
        return None
    numbers = pixels.astype(np.uint8) if pixels.dtype == bool else pixels
    return numbers if whole else np.ma.masked_array(numbers, ~np.asarray(known))


def _finite(
    channel: NDArray[Any], known: NDArray[np.bool_] | None, name: str, invalid: str
) -> NDArray[np.bool_] | None:
    """Which pixels are finite; None where all of them are."""
    if channel.dtype.kind != "f" or (finite := np.isfinite(channel)).all():
        return None
    wrong = ~finite if known is None else known & ~finite
    if invalid == "error" and (count := int(wrong.sum())):
        raise DataError(
            f"{name} has {count} NaN or infinite pixels (of {channel.size} looked at)",
            "Mend the image, or let such pixels be filled: data.invalid_pixels = fill",
        )
    return np.asarray(finite)


def fill_invalid(pixels: NDArray[Any]) -> NDArray[Any]:
    """Pixels with NaN and infinities replaced by the smallest finite value."""
    if pixels.dtype.kind != "f":
        return pixels
    finite = np.isfinite(pixels)
    if finite.all():
        return pixels
    return np.where(finite, pixels, pixels[finite].min() if finite.any() else 0).astype(pixels.dtype)
