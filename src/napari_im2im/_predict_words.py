"""What the Predict panel says: progress, the closing line, and the same prediction as command and Python."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.errors import DataError
from im2im_core.progress import duration

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from im2im_core.events import Progress
    from im2im_core.models import LocalModel
    from im2im_core.predict_options import PredictOptions

_DEVICES = {"cpu": "CPU", "mps": "Apple GPU"}


def progress_words(progress: Progress) -> str:
    """For example ``tile 3 of 16, 4 s left``."""
    count = f"tile {progress.done} of {progress.total}" if progress.total else f"tile {progress.done}"
    left = duration(progress.remaining)
    return f"{count}, {left} left" if left and progress.done != progress.total else count


def closing_line(what: str, seconds: float, device: str) -> str:
    """For example ``214 objects, 3.1 s, CPU``."""
    took = f"{seconds:.1f} s" if seconds < 60 else duration(seconds)
    return ", ".join(part for part in (what, took, device_words(device)) if part)


def device_words(device: str) -> str:
    """A device as a person calls it."""
    kind, _, number = device.partition(":")
    if kind == "cuda":
        return f"GPU {number}" if number else "GPU"
    return _DEVICES.get(kind, device)


def count_objects(labels: NDArray[Any], times: int) -> int:
    """Number of objects; those of each of `times` leading time points count on their own."""
    frames = labels.reshape(times, -1) if times > 1 else labels.reshape(1, -1)
    return sum(int(np.count_nonzero(np.unique(frame))) for frame in frames)


def objects_words(count: int) -> str:
    """For example ``214 objects``."""
    return f"{count} object{'s' * (count != 1)}" if count else "no objects found"


def as_texts(model: LocalModel, images: Sequence[Path], options: PredictOptions) -> dict[str, str]:
    """The prediction under the keys of the copy menu: command and python, and the settings as yaml.

    Raises
    ------
    DataError
        The image is not in a file.
    """
    if not images:
        raise DataError("The image is not in a file", "Save the layer, open the file, and copy again")
    defaults = type(options)().dump()
    changed = {k: v for k, v in options.dump().items() if v != defaults[k]}
    return {
        "command": _command(model, images, changed),
        "yaml": options.to_yaml(),
        "python": _python(model, images, changed),
        "methods": _methods(model, options),
    }


def _command(model: LocalModel, images: Sequence[Path], changed: dict[str, Any]) -> str:
    out = images[0].parent / "predictions"
    words = ["im2im", "predict", str(model.path), *(str(p) for p in images), "-o", str(out)]
    for name, value in changed.items():
        words += [f"--{name.replace('_', '-')}", _text(value)]
    return shlex.join(words)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)


def _python(model: LocalModel, images: Sequence[Path], changed: dict[str, Any]) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in changed.items())
    lines = ["import im2im_core as im2im"]
    if changed:
        lines += ["from im2im_core.predict_options import PredictOptions", "", f"options = PredictOptions({arguments})"]
    call = f"im2im.predict({str(model.path)!r}, image{', options=options' if changed else ''})"
    return "\n".join([*lines, "", f"for image in {[str(p) for p in images]!r}:", f"    result = {call}", ""])


def _methods(model: LocalModel, options: PredictOptions) -> str:
    from im2im_core import __version__

    size = ""
    if options.object_diameter:
        size = f" Images were scaled for objects {options.object_diameter:.3g} pixels wide."
    elif options.rescale != "auto":
        size = f" Images were scaled by {options.rescale:g}."
    mirrored = " Predictions of mirrored images were averaged." if options.test_time_augmentation else ""
    return (
        f"Images were processed with the model “{model.name}” ({model.inference.framework.kind}, "
        f"{model.inference.shapes.dimensions}D) in napari-im2im {__version__}, tile by tile with "
        f"{options.blending} blending.{size}{mirrored}"
    )
