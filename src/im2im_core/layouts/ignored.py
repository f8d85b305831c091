"""Labels of which one number means "unknown": labels without it, and the weight that says where it was."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.axes import Region
    from im2im_core.image import Image, ImageInfo


def without_ignored(labels: Image, ignored: int) -> Image:
    """Labels in which `ignored` is background, which nobody sees where the weight is 0."""
    return _Recoded(labels, ignored, weight=False)


def known_pixels(labels: Image, ignored: int) -> Image:
    """Weight that is 0 where the label is `ignored`, else 1; of the first channel."""
    from im2im_core.image import select_channels

    return _Recoded(select_channels(labels, (0,)), ignored, weight=True)


class _Recoded:
    """Labels, or their weight, made anew whenever they are read."""

    def __init__(self, labels: Image, ignored: int, *, weight: bool) -> None:
        self._labels, self._ignored, self._weight = labels, ignored, weight
        info = labels.info
        ending = f"/known but {ignored}" if weight else f"/without {ignored}"
        dtype = np.dtype(np.float32) if weight else info.dtype
        self._info = replace(info, dtype=dtype, identity=f"{info.identity}{ending}")

    @property
    def info(self) -> ImageInfo:
        """What is known before a pixel is read."""
        return self._info

    def read(self, region: Region | None = None) -> NDArray[Any]:
        """Pixels of `region`."""
        labels = self._labels.read(region)
        unknown = labels == self._ignored
        return (~unknown).astype(np.float32) if self._weight else np.where(unknown, 0, labels).astype(labels.dtype)
