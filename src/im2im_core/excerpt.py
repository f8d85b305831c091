"""The part of an image that the prediction of a region reads, so that the rest need not travel to another process."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.axes import from_tczyx
from im2im_core.errors import DataError
from im2im_core.image import ArrayImage, channels_named, select_channels
from im2im_core.normalize import Scaling, measure
from im2im_core.rescale import grid_shape, rescaling
from im2im_core.tiling import round_up

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.axes import Region
    from im2im_core.image import Image, ImageInfo
    from im2im_core.inference import Inference
    from im2im_core.predict_options import PredictOptions

OVERLAP = 16
"""Pixels over which neighbouring tiles are mixed at most."""
GRAIN = 16
"""Maps of a network are at most so many times coarser than its grid."""
WORTH = 0.7
"""An excerpt that is a larger share of the image is not worth the trouble."""


class Excerpt:
    """A part of an image that stands for all of it: shape and normalisation are those of the whole.

    Parameters
    ----------
    part : Image
        The pixels that there are.
    start : tuple of int
        Their place in the whole along T, C, Z, Y, X.
    shape : tuple of int
        Shape of the whole along T, C, Z, Y, X.
    scalings : dict of int to Scaling
        Normalisation of whole time points.
    """

    def __init__(
        self,
        part: Image,
        start: tuple[int, int, int, int, int],
        shape: tuple[int, int, int, int, int],
        scalings: dict[int, Scaling],
    ) -> None:
        self._part, self._start, self._scalings = part, start, scalings
        self._info = replace(part.info, shape=shape)

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, region: Region | None = None) -> NDArray[Any]:
        """Pixels of `region`, counted from the start of the whole.

        Raises
        ------
        DataError
            They are not a part of the excerpt.
        """
        if region is None:
            region = tuple(slice(0, n) for n in self._info.shape)  # type: ignore[assignment]
        assert region is not None
        t, c, z, y, x = (slice(r.start - o, r.stop - o) for r, o in zip(region, self._start, strict=True))
        if any(s.start < 0 or s.stop > n for s, n in zip((t, c, z, y, x), self._part.info.shape, strict=True)):
            raise DataError(
                f"{self._info.name}: pixels far outside of the chosen part are needed", "Predict the whole image"
            )
        return self._part.read((t, c, z, y, x))

    def known_scaling(self, time: int) -> Scaling | None:
        """Normalisation of a whole time point."""
        return self._scalings.get(time)

    def told(self) -> dict[str, Any]:
        """What `restored` needs besides the pixels, as plain content."""
        scalings = [[t, list(s.offset), list(s.scale)] for t, s in self._scalings.items()]
        return {"start": list(self._start), "shape": list(self._info.shape), "scalings": scalings}

    @classmethod
    def restored(cls, part: Image, told: dict[str, Any]) -> Excerpt:
        """Excerpt from its pixels and from what was `told` of it."""
        scalings = {int(t): Scaling(tuple(offset), tuple(scale)) for t, offset, scale in told["scalings"]}
        return cls(part, tuple(told["start"]), tuple(told["shape"]), scalings)


def take_excerpt(
    image: Image, inference: Inference, region: Region, options: PredictOptions
) -> tuple[NDArray[Any], Excerpt] | None:
    """Pixels with the axes of the image, and the excerpt over them, that predict `region` as the whole image does.

    Only the chosen channels are in it. None where it would hold most of the image.

    Raises
    ------
    DataError
        The image has NaN or infinite pixels and the model takes none, or its size is absurd.
    """
    by_name = channels_named(image.info, inference.input.channel_names)
    chosen = select_channels(image, options.channels or by_name)
    info = chosen.info
    part = reach(inference, info, region, options)
    if math.prod(s.stop - s.start for s in part) > WORTH * math.prod(image.info.shape):
        return None
    settings = inference.input
    times = range(part[0].start, part[0].stop)
    scalings = {t: measure(chosen, settings.normalization, t, settings.invalid_pixels) for t in times}
    pixels = from_tczyx(np.asarray(chosen.read(part)), info.axes)
    inside = ArrayImage(
        pixels,
        info.axes,
        name=info.name,
        voxel_size=info.voxel_size,
        channels=info.channels,
        time_step=info.time_step,
    )
    t, c, z, y, x = (s.start for s in part)
    return pixels, Excerpt(inside, (t, c, z, y, x), info.shape, scalings)


def reach(inference: Inference, info: ImageInfo, region: Region, options: PredictOptions) -> Region:
    """The largest part of an image that a prediction of `region` may read, however it is cut into tiles."""
    _, channels, depth, height, width = info.shape
    whole = (slice(0, channels), slice(0, depth), slice(0, height), slice(0, width))
    if inference.input.invalid_pixels == "fill" and info.dtype.kind == "f":  # filled with the lowest pixel of all
        return region[0], *whole
    told = options.object_diameter
    if told == "auto" or (told is None and inference.input.rescale.kind == "object_size"):  # the image is looked at
        return region[0], *whole
    flat = inference.shapes.dimensions == 2
    found = rescaling(
        inference.input,
        info.voxel_size,
        inference.shapes.dimensions,
        override=options.rescale,
        object_diameter=told,
    )
    source = (1 if flat else depth, height, width)
    network = grid_shape(source, found.factor)
    y, x = (
        _along(region[3 + i], source[1 + i], network[1 + i], _farthest(inference, options, i - 2)) for i in range(2)
    )
    return region[0], whole[0], region[2] if flat else whole[1], y, x


def _farthest(inference: Inference, options: PredictOptions, axis: int) -> tuple[int, int]:
    """Network pixels that a tile may have besides what it is made for, and the least that it has."""
    grain = math.lcm(inference.divisor[axis] if inference.divisor else 1, GRAIN)
    halo = inference.halo[axis] if inference.halo else 0
    more = 2 * round_up(halo + OVERLAP, grain) + round_up(OVERLAP, grain) + 2 * grain
    return more, 0 if options.tile == "auto" else options.tile[axis]


def _along(part: slice, source: int, network: int, farthest: tuple[int, int]) -> slice:
    factor = network / source
    first, last = math.floor((part.start + 0.5) * factor - 0.5), math.ceil((part.stop - 0.5) * factor - 0.5)
    more, least = farthest
    # A tile holds what it is made for, so it begins and ends within its own size of it.
    tile = max(last - first + 2 + more, least)
    # Resampling looks at neighbours; shrinking smooths over four standard deviations as well.
    beside = math.ceil(4 * max(0.0, (source / network - 1) / 2)) + 4
    start = math.floor((first - tile + 0.5) / factor - 0.5) - beside
    stop = math.ceil((last + tile + 1.5) / factor - 0.5) + beside
    return slice(max(0, start), min(source, stop))
