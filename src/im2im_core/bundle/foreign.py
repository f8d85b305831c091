"""Packages of other tools: what their bioimage.io description says of axes, sizes and processing; no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from im2im_core.bundle.package import Bundle, spec_errors
from im2im_core.errors import ConfigError, nearest
from im2im_core.inference import InputDescription, OutputDescription, Shapes
from im2im_core.normalize import NoNormalization
from im2im_core.recipe.data import NoRescale

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class AxisSpec:
    """One axis of a tensor."""

    name: str
    kind: str
    """batch, channel, space, time or index"""
    size: int | None = None
    """The only size allowed."""
    minimum: int = 1
    step: int = 1
    reference: tuple[str, str] | None = None
    """Tensor and axis that decide the size."""
    offset: int = 0
    scale: float = 1.0
    halo: int = 0

    @classmethod
    def from_description(cls, content: Mapping[str, Any]) -> AxisSpec:
        """Axis from its entry in a description of format 0.5."""
        kind = content["type"]
        default = {"space": "x", "time": "time", "index": "index"}.get(kind, kind)
        size = len(content["channel_names"]) if kind == "channel" else content.get("size")
        common: dict[str, Any] = {
            "name": content.get("id", default),
            "kind": kind,
            "scale": content.get("scale", 1.0),
            "halo": content.get("halo", 0),
        }
        if isinstance(size, dict) and "tensor_id" in size:
            return cls(**common, reference=(size["tensor_id"], size["axis_id"]), offset=size.get("offset", 0))
        if isinstance(size, dict):
            return cls(**common, minimum=size.get("min", 1), step=size.get("step", 1))
        return cls(**common, size=size)

    @property
    def letter(self) -> str:
        """Our letter of the axis, empty where images have none like it; batches hold time points."""
        if self.kind == "space":
            return {"z": "Z", "y": "Y", "x": "X"}.get(self.name, "")
        return {"batch": "T", "channel": "C"}.get(self.kind, "")

    def fit(self, size: int) -> int:
        """Smallest allowed size that holds `size`; the only one where it is fixed."""
        if self.size is not None:
            return self.size
        return self.minimum + max(0, -(-(size - self.minimum) // self.step)) * self.step


DATA_TYPES = (
    *("float32", "float64", "uint8", "int8", "uint16", "int16"),
    *("uint32", "int32", "uint64", "int64", "bool"),
)
"""Types that a description of format 0.5 may name."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output."""

    name: str
    axes: tuple[AxisSpec, ...]
    steps: tuple[dict[str, Any], ...]
    """Processing, with the changes of type that the format implies."""
    test: dict[str, Any] | None
    """File of the test tensor."""
    dtype: str = "float32"
    """Type of the values outside of the processing."""

    @classmethod
    def from_description(cls, content: Mapping[str, Any], processing: str) -> TensorSpec:
        """Tensor from its entry in a description of format 0.5."""
        axes = tuple(AxisSpec.from_description(a) for a in content["axes"])
        dtype = _data_type(content)
        steps = _typed(list(content.get(processing) or ()), dtype, first=processing == "preprocessing")
        return cls(content["id"], axes, steps, content.get("test_tensor"), dtype)

    @property
    def casts_raw(self) -> bool:
        """Whether raw values are brought to the type of the tensor before anything else."""
        return bool(self.steps) and self.steps[0] == _ensure(self.dtype)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the axes."""
        return tuple(a.name for a in self.axes)

    @property
    def is_image(self) -> bool:
        """Whether it has Y and X, and no axis that an image does not have."""
        letters = [a.letter for a in self.axes]
        return all(letters) and {"Y", "X"} <= set(letters)

    @property
    def channels(self) -> int:
        """Size of the channel axis, 1 where there is none."""
        return next((a.size or 1 for a in self.axes if a.kind == "channel"), 1)


def _data_type(content: Mapping[str, Any]) -> str:
    """Type of the values of a tensor; where channels differ, that of the first."""
    data = content.get("data") or {}
    data = data[0] if isinstance(data, list) else data
    dtype = str(data.get("type", "uint8" if "values" in data else "float32"))
    if dtype not in DATA_TYPES:
        raise ConfigError(f"Tensor {content['id']!r} has values of type {dtype!r}", nearest(dtype, DATA_TYPES))
    return dtype


def _ensure(dtype: str) -> dict[str, Any]:
    return {"id": "ensure_dtype", "kwargs": {"dtype": dtype}}


def _typed(steps: list[dict[str, Any]], dtype: str, first: bool) -> tuple[dict[str, Any], ...]:
    """Steps that end with the type of the tensor, and begin with it where `first`, unless they say otherwise.

    The format implies these steps: a network that computes in float32 is not given the pixels of the file.
    """
    if first and (not steps or steps[0]["id"] != "ensure_dtype"):
        steps = [_ensure(dtype), *steps]
    if not steps or steps[-1]["id"] not in ("ensure_dtype", "binarize"):
        steps = [*steps, _ensure(dtype)]
    return tuple(steps)


def tensor_specs(bundle: Bundle) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a package of format 0.5.

    Raises
    ------
    ConfigError
        It is not a model description.
    """
    content = bundle.description
    try:
        return (
            tuple(TensorSpec.from_description(t, "preprocessing") for t in content["inputs"]),
            tuple(TensorSpec.from_description(t, "postprocessing") for t in content["outputs"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{bundle.source} is not a model description: {error!r} is missing or wrong",
            "Check it with: bioimageio validate-format",
        ) from error


# ---- what a person chooses by ----


@dataclass(frozen=True)
class ForeignFramework:
    """Stands where our models name their framework."""

    kind: str = "bioimage.io"


@dataclass(frozen=True)
class ForeignInput:
    """One of the images that a model takes at once."""

    name: str
    channels: int
    description: str = ""
    """What it shows, in the words of the package."""


@dataclass(frozen=True)
class ForeignDescription:
    """What is known of a model of another tool, under the names that an `Inference` has for it."""

    name: str
    shapes: Shapes
    input: InputDescription
    """Pixels are normalised as the package says and never rescaled."""
    outputs: tuple[OutputDescription, ...]
    """Those that are images."""
    inputs: tuple[ForeignInput, ...] = ()
    """The images that it takes at once; the first is the one that results lie on."""
    framework: ForeignFramework = field(default_factory=ForeignFramework)
    task: str = ""


def describe_foreign(bundle: Bundle) -> ForeignDescription:
    """What a package of another tool takes and makes.

    Raises
    ------
    ConfigError
        It takes or makes something else than images.
    """
    current = current_format(bundle)
    inputs, outputs = tensor_specs(current)
    for spec in inputs:
        if not spec.is_image:
            raise ConfigError(
                f"{bundle.name} takes an input {spec.name!r} with the axes {', '.join(spec.names)}",
                "Models of images with the axes batch, channel, z, y, x can be run here",
            )
    made = tuple(_output(spec) for spec in outputs if spec.is_image)
    if not made:
        raise ConfigError(f"{bundle.name} makes no image", "Models that make images can be run here")
    said = [str(t.get("description") or "") for t in current.description["inputs"]]
    return ForeignDescription(
        name=bundle.name,
        shapes=Shapes(
            dimensions=3 if any("z" in spec.names for spec in inputs) else 2, input_channels=inputs[0].channels
        ),
        input=InputDescription(normalization=NoNormalization(), rescale=NoRescale()),
        outputs=made,
        inputs=tuple(ForeignInput(s.name, s.channels, words) for s, words in zip(inputs, said, strict=True)),
    )


def _output(spec: TensorSpec) -> OutputDescription:
    letters = {a.letter for a in spec.axes}
    axes = "".join(letter for letter in "CZYX" if letter in letters)
    return OutputDescription(name=spec.name, kind="image", channels=spec.channels, axes=axes)


# ---- older formats ----


def current_format(bundle: Bundle) -> Bundle:
    """`bundle` with its description in format 0.5; hashes are compared before anything is converted.

    Raises
    ------
    TrustError
        A local weight file is not the one described.
    ConfigError
        The description is older than 0.5 and cannot be converted; the message says why.
    """
    version = str(bundle.description.get("format_version", ""))
    if version.startswith("0.5"):
        return bundle
    if not version.startswith(("0.3", "0.4")):
        raise ConfigError(f"{bundle.source} has format version {version or 'none'}", "Formats 0.3 to 0.5 can be run")
    weights = bundle.description.get("weights") or {}
    hashes = {_plain_name(e.get("source", "")): e.get("sha256") for e in weights.values()}
    for entry in weights.values():
        if bundle.has(entry.get("source", "")):
            bundle.read_checked(entry)
    from bioimageio.spec import InvalidDescr, ValidationContext, build_description

    context = ValidationContext(root=bundle.folder, file_name=bundle.source.name, perform_io_checks=False)
    content = _as_later_written(bundle.description) if version.startswith("0.3") else bundle.description
    found = build_description(content, context=context, format_version="0.5")
    if isinstance(found, InvalidDescr):
        raise ConfigError(
            f"{bundle.source} of format {version} cannot be converted: {spec_errors(found)}",
            "Ask its authors for a package of format 0.5",
        )
    content = found.model_dump(mode="json", exclude_none=True)
    for entry in content["weights"].values():  # the conversion drops hashes where it is not to touch files
        entry["sha256"] = hashes.get(_plain_name(entry["source"]))
    return Bundle(bundle.source, content)


def _as_later_written(content: Mapping[str, Any]) -> dict[str, Any]:
    """Description of format 0.3 in the spelling that converters take: the first packages, of 2021, have another.

    A DOI was written as an address, a parent of weights as an address too, and no attachments as ``{}``.
    """
    weights = {
        kind: {k: v for k, v in entry.items() if k != "parent" or "://" not in str(v)}
        for kind, entry in (content.get("weights") or {}).items()
    }
    cited = [
        {k: str(v).removeprefix("https://doi.org/") if k == "doi" else v for k, v in entry.items()}
        for entry in content.get("cite") or ()
    ]
    kept = {k: v for k, v in content.items() if k != "attachments" or v}
    return {**kept, "weights": weights, "cite": cited}


def _plain_name(source: str) -> str:
    return str(PurePosixPath(source))
