"""The input of the network for a tile: read, resampled, normalised, padded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from im2im_core.engine.predict_plan import Plan
from im2im_core.errors import DataError
from im2im_core.image import Image
from im2im_core.inference import InputDescription
from im2im_core.normalize import Scaling, measure
from im2im_core.rescale import read_resampled
from im2im_core.stitch import intersect
from im2im_core.tiling import Slices, Tile, pad_reflect

BAND = 4_000_000
"""Pixels read at once while looking for the lowest."""


class TileReader:
    """Tiles of one image; the normalisation is that of the whole image, per time point and channel."""

    def __init__(self, image: Image, described: InputDescription, plan: Plan) -> None:
        self._image, self._described = image, described
        self.plan = plan
        self._scalings: dict[int, tuple[Scaling, float]] = {}

    def read(self, time: int, plane: int, tile: Tile) -> NDArray[np.float32]:
        """Network input ``(C, Z, Y, X)`` of a tile of the volume at `time` that starts at `plane`."""
        scaling, lowest = self._scaling(time)
        whole = tuple(slice(0, n) for n in self.plan.network)
        inside = intersect(tile.outer, whole) or whole
        channels = self._image.info.shape[1]

        def pixels(region: Slices) -> NDArray:
            z, y, x = region
            part = (slice(time, time + 1), slice(0, channels), slice(z.start + plane, z.stop + plane), y, x)
            return self._valid(self._image.read(part)[0], lowest)

        read = read_resampled(pixels, self.plan.source, self.plan.network, inside)
        return pad_reflect(scaling.apply(read), [s.stop - s.start for s in tile.outer])

    def _scaling(self, time: int) -> tuple[Scaling, float]:
        if time not in self._scalings:
            self._scalings.clear()  # time points follow each other
            invalid = self._described.invalid_pixels
            found = measure(self._image, self._described.normalization, time, invalid)
            fill = invalid == "fill" and self._image.info.dtype.kind == "f"
            self._scalings[time] = found, self._lowest(time) if fill else 0.0
        return self._scalings[time]

    def _lowest(self, time: int) -> float:
        """Smallest finite pixel of a time point."""
        _, channels, depth, height, width = self._image.info.shape
        rows = max(1, BAND // (width * channels))
        lowest = np.inf
        for z in range(depth):
            for y in range(0, height, rows):
                band = self._image.read(
                    (
                        slice(time, time + 1),
                        slice(0, channels),
                        slice(z, z + 1),
                        slice(y, min(y + rows, height)),
                        slice(0, width),
                    )
                )
                finite = band[np.isfinite(band)]
                lowest = min(lowest, float(finite.min()) if finite.size else np.inf)
        return lowest if np.isfinite(lowest) else 0.0

    def _valid(self, pixels: NDArray, lowest: float) -> NDArray:
        if pixels.dtype.kind != "f" or (finite := np.isfinite(pixels)).all():
            return pixels
        if self._described.invalid_pixels == "error":
            raise DataError(
                f"{self._image.info.name} has {int((~finite).sum())} NaN or infinite pixels in one tile",
                "Mend the image, or let such pixels be filled: data.invalid_pixels = fill",
            )
        return np.where(finite, pixels, lowest).astype(pixels.dtype)
