"""What the Predict panel says: progress, the closing line, and the same prediction as command and Python."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.axes import AXES
from im2im_core.progress import duration
from napari_im2im._predict_queue import result_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from im2im_core.axes import Region
    from im2im_core.errors import TrustError
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


# ---- trust ---------------------------------------------------------------------


def asked_for(error: TrustError) -> str | None:
    """Module or hash of code that the user may allow; None where the refusal is final."""
    found = re.search(r"--trust ([\w.]+)", error.cure)
    return found[1].rstrip(".") if found else None


def trust_words(error: TrustError, model: LocalModel) -> tuple[str, str]:
    """What would run, and what to think of before it is allowed."""
    cure = f"It could do anything that you can do on this computer. Read it in {model.path}, or ask who made the model"
    return f"{error.message}. Nothing of it ran", cure


# ---- the same prediction elsewhere ---------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A prediction as the panel asks for it."""

    model: LocalModel
    options: PredictOptions
    files: tuple[Path, ...] = ()
    """Files of the images; none where what is predicted is open and not one file."""
    name: str = ""
    """What is predicted, as the user calls it."""
    axes: str = ""
    """Axes that must be told; those of the pixels where there is no file."""
    outputs: tuple[str, ...] = ()
    """Results that are made; none for the main one."""
    region: Region | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    """File of each image of a model that takes several; empty where what is open is not one file."""
    scenes: tuple[str, ...] = ()
    """Names of the images in the files that are wanted, where they have several."""
    scene: str | None = None
    """The only one of them that is wanted."""

    @property
    def changed(self) -> dict[str, Any]:
        """Options that differ from the defaults."""
        defaults = type(self.options)().dump()
        return {k: v for k, v in self.options.dump().items() if v != defaults[k]}


def as_texts(asked: Asked) -> dict[str, str]:
    """The prediction under the keys of the copy menu: command and python, settings as yaml, and a methods paragraph."""
    return {
        "command": _command(asked),
        "yaml": asked.options.to_yaml(),
        "python": _python(asked),
        "methods": _methods(asked.model, asked.options),
    }


def _command(asked: Asked) -> str:
    files = [str(path) for path in asked.files] or ["IMAGE.tif"]
    if asked.inputs:
        files = [word for name, path in asked.inputs.items() for word in ("--input", f"{name}={path or 'IMAGE.tif'}")]
    words = ["im2im", "predict", str(asked.model.path), *files, "-o", _out(asked)]
    if asked.files and asked.axes:
        words += ["--axes", asked.axes]
    if asked.scene is not None:
        words += ["--scene", asked.scene]
    if asked.outputs:
        words += ["--outputs", ",".join(asked.outputs)]
    for name, value in asked.changed.items():
        words += [f"--{name.replace('_', '-')}", _text(value)]
    notes = []
    if not all(asked.inputs.values()) if asked.inputs else not asked.files:
        notes.append(
            f"{_line(asked.name)} is open in napari and not one file: save it, and name the file for IMAGE.tif"
        )
    if asked.region is not None:
        notes.append(f"napari predicts only a part ({_spans(asked.region)}); this command predicts whole images")
    return "".join(f"# {note}\n" for note in notes) + shlex.join(words)


def _out(asked: Asked) -> str:
    """A file for a single image, else a folder."""
    files = asked.files
    if not files:
        return "predictions/IMAGE.tif"
    folder = files[0].parent / "predictions"
    if asked.scenes and asked.scene is None:
        return str(folder)
    single = len(files) == 1 and (not files[0].is_dir() or files[0].suffix == ".zarr")
    return str(folder / result_name(files[0]) if single else folder)


def _spans(region: Region) -> str:
    return ", ".join(f"{a} {s.start} to {s.stop}" for a, s in zip(AXES, region, strict=True) if a != "C")


def _line(text: str) -> str:
    return f"“{' '.join(text.split())}”"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)


def _python(asked: Asked) -> str:
    lines = ["import im2im_core as im2im"]
    given = [f"axes={asked.axes!r}"] if asked.axes else []
    if asked.region is not None:
        given.append("region=region")
    if asked.outputs:
        given.append(f"outputs={list(asked.outputs)!r}")
    every = bool(asked.scenes) and asked.scene is None
    if asked.scenes:
        given.append("scene=scene" if every else f"scene={asked.scene!r}")
        lines += ["from im2im_core.io import scenes"] if every else []
    if asked.changed:
        arguments = ", ".join(f"{name}={value!r}" for name, value in asked.changed.items())
        lines += ["from im2im_core.predict_options import PredictOptions", "", f"options = PredictOptions({arguments})"]
        given.append("options=options")
    if asked.region is not None:
        slices = ", ".join(f"slice({s.start}, {s.stop})" for s in asked.region)
        lines += ["", f"region = ({slices})  # along T, C, Z, Y, X"]
    call = f"im2im.predict({', '.join([repr(str(asked.model.path)), 'image', *given])})"
    if asked.inputs:
        images = ", ".join(f"{name!r}: {path!r}" if path else f"{name!r}: ..." for name, path in asked.inputs.items())
        loop = [f"image = {{{images}}}  # files or arrays by the names of the inputs", f"result = {call}"]
    elif asked.files and every:
        head = f"for image in {[str(path) for path in asked.files]!r}:"
        loop = [head, "    for scene in scenes(image):", f"        result = {call}"]
    elif asked.files:
        loop = [f"for image in {[str(path) for path in asked.files]!r}:", f"    result = {call}"]
    else:
        loop = [f"image = ...  # the pixels of {_line(asked.name)}, an array", f"result = {call}"]
    return "\n".join([*lines, "", *loop, ""])


def _methods(model: LocalModel, options: PredictOptions) -> str:
    from im2im_core import __version__

    size = ""
    if options.object_diameter == "auto":
        size = " Images were scaled by the width of their objects."
    elif options.object_diameter:
        size = f" Images were scaled for objects {options.object_diameter:.3g} pixels wide."
    elif options.rescale != "auto":
        size = f" Images were scaled by {options.rescale:g}."
    mirrored = " Predictions of mirrored images were averaged." if options.test_time_augmentation else ""
    return (
        f"Images were processed with the model “{model.name}” ({model.inference.framework.kind}, "
        f"{model.inference.shapes.dimensions}D) in napari-im2im {__version__}, tile by tile with "
        f"{options.blending} blending.{size}{mirrored}"
    )
