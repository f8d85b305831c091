"""How fine the details of images are, without any truth to compare them with."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_core import metrics
from im2im_core.errors import DataError
from im2im_core.evaluation import Report, Row, frames, images_in, progress, report_of, spacing_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from im2im_core.events import Event
    from im2im_core.metrics import Parts

NOTE = "Without a truth only the resolution can be told"
_Looked = tuple[str, str, "NDArray[Any]", tuple[float, float] | None]
"""Name, group, pixels ``([Z], Y, X)`` and size of a pixel."""


def evaluate_alone(source: Any, on_event: Callable[[Event], None] | None = None) -> Report:
    """Report on the resolution of an array, an image file or all images of a folder.

    Every time point and channel is looked at on its own.

    Raises
    ------
    DataError
        There is no image, or one is too small or not finite; the message names it.
    """
    begun = time.monotonic()
    looked: Iterable[_Looked] = [("array", "array", source, None)] if hasattr(source, "shape") else _read(Path(source))
    rows: list[Row] = []
    sums: list[Parts] = []
    for name, group, pixels, spacing in looked:
        try:
            sums.append(metrics.parts_alone(pixels, spacing))
        except DataError as error:
            raise DataError(f"{name}: {error.message}", error.cure) from error
        rows.append(Row(name, group, metrics.figures_of(sums[-1])))
        if on_event is not None:
            on_event(progress(len(rows), None, time.monotonic() - begun))
    return report_of("image", rows, sums, notes=(NOTE,))


def _read(path: Path) -> Iterator[_Looked]:
    from im2im_core.io import open_image, scenes

    for name, file in images_in(path).items():
        names = scenes(file)
        for number, scene in enumerate(names):
            image = open_image(file, scene=number)
            for place, (pixels,) in frames(f"{name}:{scene}" if len(names) > 1 else name, image):
                yield place, name, pixels, spacing_of(image)
