"""The standard part of a package: our inference description written as a bioimage.io model description."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any

from im2im_core.normalize import CentreZScore, MinMax, NoNormalization, NormalizeSettings, Percentile, ZScore

if TYPE_CHECKING:
    from im2im_core.bundle.metadata import BundleMetadata
    from im2im_core.inference import Inference, OutputDescription

FORMAT_VERSION = "0.5.3"
INPUT_ID = "raw"
LARGEST_HALO = {2: (64, 64), 3: (8, 32, 32)}
"""Pixels along each axis that other tools are asked to cut off around a block, at most."""
FLOAT: dict[str, Any] = {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}


@dataclass(frozen=True)
class Geometry:
    """Sizes that the network takes along each spatial axis."""

    axes: tuple[str, ...]
    """``("y", "x")`` or ``("z", "y", "x")``."""
    minimum: tuple[int, ...]
    step: tuple[int, ...]
    halo: tuple[int, ...]
    fixed: tuple[int, ...] | None = None
    """The only size it takes; None where any ``minimum + n * step`` will do."""


def geometry(inference: Inference, sample: tuple[int, ...]) -> Geometry:
    """Sizes for a description: more than two halos, multiples of the divisor.

    The receptive field is an upper bound of what matters, and a halo of hundreds of pixels
    would keep other tools from running small images at all; so the halo ends at
    `LARGEST_HALO`, and along Z where the stack ends.
    """
    axes = ("z", "y", "x")[-len(sample) :]
    halo = [min(h, most) for h, most in zip(inference.halo, LARGEST_HALO[len(axes)], strict=True)]
    if axes[0] == "z":
        step = inference.divisor[0]
        halo[0] = min(halo[0], max(0, sample[0] // step * step - 1) // 2)
    minimum = [d * max(2, 2 * h // d + 1) for h, d in zip(halo, inference.divisor, strict=True)]
    return Geometry(axes, tuple(minimum), inference.divisor, tuple(halo))


def preprocessing(settings: NormalizeSettings, axes: tuple[str, ...]) -> list[dict[str, Any]] | None:
    """Standard steps of a normalisation, per sample and channel; None where there are none."""
    if isinstance(settings, CentreZScore):
        return None
    step: dict[str, Any] | None = None
    match settings:
        case Percentile():
            step = {
                "id": "scale_range",
                "kwargs": {"axes": list(axes), "min_percentile": settings.low, "max_percentile": settings.high},
            }
        case MinMax():
            step = {"id": "scale_range", "kwargs": {"axes": list(axes), "min_percentile": 0.0, "max_percentile": 100.0}}
        case ZScore():
            step = {"id": "zero_mean_unit_variance", "kwargs": {"axes": list(axes)}}
        case NoNormalization():
            return [FLOAT]
    return [FLOAT, step, FLOAT]


def postprocessing(output: OutputDescription, inference: Inference) -> list[dict[str, Any]]:
    """Standard steps that give an image output its original unit."""
    scaling = inference.target_scaling
    if scaling is None or output.kind != "image" or output.channels != len(scaling.scale):
        return [FLOAT]
    if set(scaling.scale) == {1.0} and set(scaling.offset) == {0.0}:
        return [FLOAT]
    kwargs = {"axis": "channel", "gain": list(scaling.scale), "offset": list(scaling.offset)}
    return [FLOAT, {"id": "scale_linear", "kwargs": kwargs}, FLOAT]


def notes(inference: Inference) -> tuple[str, ...]:
    """What other tools must do by hand, because the standard has no word for it."""
    found = []
    if isinstance(inference.input.normalization, CentreZScore):
        found.append(
            "Other tools must normalise the input themselves: subtract the mean and divide by the standard deviation "
            f"of the {inference.input.normalization.planes} planes around the sharpest one, per channel."
        )
    if inference.input.rescale.kind != "none":
        found.append("Other tools must rescale the image to the voxel or object size of the training themselves.")
    if inference.framework.learns_from == "instance labels":
        found.append("Other tools get the maps; instances are cut out of them by napari-im2im.")
    return tuple(found)


def input_tensor(inference: Inference, shape: Geometry, dtype: str) -> dict[str, Any]:
    """Description of the raw image that goes in."""
    steps = preprocessing(inference.input.normalization, shape.axes)
    names = inference.input.channel_names or tuple(f"channel{i}" for i in range(inference.shapes.input_channels))
    sizes = [
        shape.fixed[i] if shape.fixed else {"min": shape.minimum[i], "step": shape.step[i]}
        for i in range(len(shape.axes))
    ]
    return {
        "id": INPUT_ID,
        "description": "raw image" if steps else "normalised image, see README",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": list(names)},
            *({"type": "space", "id": a, "size": s} for a, s in zip(shape.axes, sizes, strict=True)),
        ],
        "data": {"type": dtype if steps else "float32"},
        "preprocessing": steps or [FLOAT],
    }


def output_id(output: OutputDescription) -> str:
    """Name of an output as the standard allows it, never that of the input."""
    name = re.sub(r"\W", "_", output.name.lower())
    return f"out_{name}" if not name[:1].isalpha() or name == INPUT_ID else name


def output_tensor(output: OutputDescription, inference: Inference, shape: Geometry) -> dict[str, Any]:
    """Description of one map that comes out."""
    axes: list[dict[str, Any]] = [{"type": "batch"}]
    if "C" in output.axes:
        axes.append({"type": "channel", "channel_names": [f"{output_id(output)}{i}" for i in range(output.channels)]})
    for i, axis in enumerate(shape.axes):
        if axis.upper() in output.axes:
            scale = Fraction(output.scale["zyx".index(axis)])
            axes.append(_output_axis(axis, scale, shape.halo[i]))
    data: dict[str, Any] = {"type": "float32"}
    if output.kind == "probability":
        data["range"] = [0.0, 1.0]
    return {
        "id": output_id(output),
        "description": f"{output.kind} map",
        "axes": axes,
        "data": data,
        "postprocessing": postprocessing(output, inference),
    }


def _output_axis(axis: str, scale: Fraction, halo: int) -> dict[str, Any]:
    content: dict[str, Any] = {"type": "space", "id": axis, "size": {"tensor_id": INPUT_ID, "axis_id": axis}}
    if scale != 1:
        content["scale"] = float(1 / scale)
    if halo:
        content["halo"] = ceil(halo * scale)
    return content


def describe(
    inference: Inference,
    metadata: BundleMetadata,
    tensors: dict[str, Any],
    weights: dict[str, Any],
    ours: dict[str, Any],
) -> dict[str, Any]:
    """Whole description; `tensors` holds ``inputs`` and ``outputs``, `ours` becomes ``config.im2im``."""
    task = metadata.task or inference.task
    return {
        "format_version": FORMAT_VERSION,
        "type": "model",
        "name": metadata.standard_name,
        "description": metadata.description or f"{task.replace('_', ' ') or 'image to image'} model",
        "authors": [a.model_dump(exclude_none=True) for a in metadata.authors] or [{"name": "unknown"}],
        "cite": [c.model_dump(exclude_none=True) for c in metadata.cite]
        or [
            {
                "text": "MONAI: An open-source framework for deep learning in healthcare",
                "doi": "10.48550/arXiv.2211.02701",
            }
        ],
        "license": metadata.licence,
        "tags": sorted(
            {
                *metadata.tags,
                "napari-im2im",
                f"{inference.shapes.dimensions}d",
                *([task.replace("_", "-")] if task else []),
            }
        ),
        "documentation": "README.md",
        "covers": ["cover.png"],
        **tensors,
        "weights": weights,
        "config": {"im2im": {"name": metadata.name, "trained_on": metadata.trained_on, **ours}},
    }
