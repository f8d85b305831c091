"""From a trained framework to a model package that was loaded again and compared before it gets its name."""

from __future__ import annotations

import copy
import json
import os
import platform
import shutil
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from pydantic_core import to_jsonable_python
from torch import Tensor, nn

from im2im_core import __version__
from im2im_core.bundle import description as standard
from im2im_core.bundle.metadata import readme
from im2im_core.bundle.package import DESCRIPTIONS, Bundle, open_bundle
from im2im_core.bundle.processing import Tensor as Named
from im2im_core.bundle.processing import process
from im2im_core.bundle.shared_names import stored_once
from im2im_core.engine.foreign import ForeignModel
from im2im_core.engine.frameworks.contract import TranslateContext
from im2im_core.errors import ConfigError, DataError, Im2ImError, ResourceError
from im2im_core.files import publish, sha256, sync, write_atomic
from im2im_core.inference import OutputDescription
from im2im_core.normalize import CentreZScore, fill_invalid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from im2im_core.bundle.metadata import BundleMetadata
    from im2im_core.engine.frameworks.contract import Framework
    from im2im_core.inference import Inference

TOLERANCE = 1e-4
OPSET = 18
LARGEST = {2: (512, 512), 3: (64, 256, 256)}
"""Test tensors are cut to this; larger ones make packages large and their test slow."""
STANDARD_TYPES = frozenset(
    {"float32", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"}
)


@dataclass(frozen=True)
class _TestPair:
    """Test tensors of the standard part."""

    raw: NDArray[Any]
    normalised: Tensor
    maps: dict[str, NDArray[np.float32]]
    """Outputs of the framework in original units, by output id."""


class _Maps(nn.Module):
    """The deterministic part of a framework: maps of a normalised input, in the order of its outputs."""

    def __init__(self, framework: Framework) -> None:
        super().__init__()
        self.framework = framework
        self.names = [output.name for output in framework.outputs]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = self.framework.translate(x, TranslateContext())
        return tuple(maps[name].float() for name in self.names)


def export_bundle(
    framework: Framework,
    inference: Inference,
    folder: Path,
    *,
    metadata: BundleMetadata,
    sample: NDArray[Any],
    torchscript: bool = True,
    onnx: bool = False,
    provenance: dict[str, Any] | None = None,
) -> Bundle:
    """Model package in `folder`, which appears there only after it was loaded again and compared.

    Parameters
    ----------
    sample : array ``(C, [Z], Y, X)``
        A raw image; a part of it becomes the test tensor.
    provenance : dict, optional
        Recipe, metrics and data hashes, recorded as they are.

    Raises
    ------
    ConfigError
        No standard weight format was asked for.
    DataError
        `sample` does not fit the model.
    ResourceError
        The folder cannot be written or a package for ONNX is missing.
    Im2ImError
        The package does not reproduce the framework.
    """
    if not (torchscript or onnx):
        raise ConfigError("A model package needs TorchScript or ONNX weights; both are off", "Set torchscript to true")
    folder = Path(folder)
    part = folder.with_name(f".{folder.name[:180]}.{os.getpid()}.part")
    module = _Maps(_alone(framework))
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _write(part, module, inference, metadata, sample, (torchscript, onnx), provenance or {})
        bundle = open_bundle(part)
        check_bundle(bundle, framework)
        for path in part.iterdir():
            sync(path)
        _refuse_other_files(folder)
        publish(part, folder)
    except OSError as error:
        raise ResourceError(
            f"Cannot write {folder}: {error.strerror or error}", "Check free space and permissions of the folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return open_bundle(folder)


def check_exportable(framework: Framework, size: tuple[int, ...], *, onnx: bool) -> None:
    """Write the maps of a framework for an input of `size` as an export does, and forget what was written.

    Raises
    ------
    Im2ImError
        They cannot be traced, or with `onnx` not be written as ONNX.
    """
    module = _Maps(_alone(framework))
    x = torch.zeros(1, framework.shapes.input_channels, *size)
    _trace(module, x)
    if onnx:
        with tempfile.TemporaryDirectory() as folder:
            _save_onnx(Path(folder) / "weights.onnx", module, x, dynamic={})


def _alone(framework: Framework) -> Framework:
    """Copy of `framework` to be written: on the CPU, in fp32, its kernels laid out as everybody reads them."""
    own = copy.deepcopy(framework).cpu().float().eval().requires_grad_(False)
    own.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return own


def _refuse_other_files(folder: Path) -> None:
    """Do nothing when `folder` is empty, an older package or not there."""
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / name).is_file() for name in DESCRIPTIONS):
        raise ResourceError(f"{folder} holds other files", "Choose a new folder for the model")


# ---- writing ----


def _write(
    part: Path,
    module: _Maps,
    inference: Inference,
    metadata: BundleMetadata,
    sample: NDArray[Any],
    formats: tuple[bool, bool],
    provenance: dict[str, Any],
) -> None:
    outputs = [_description(spec) for spec in module.framework.outputs]
    sample = _valid(sample, inference)
    shape = standard.geometry(inference, sample.shape[1:])
    pair = _test_pair(module, inference, outputs, shape, sample)
    shape, weights = _write_weights(part, module, shape, pair, formats)
    tensors = _write_tensors(part, inference, outputs, shape, pair)
    ours = {
        "inference": inference.dump(),
        "weights": _save_weights(part / "weights.safetensors", module.framework),
        "provenance": {**_plain(provenance), "versions": _versions()},
    }
    content = standard.describe(inference, metadata, tensors, weights, ours)
    _write_cover(part / "cover.png", pair)
    text = readme(metadata, inference, ours["provenance"], standard.notes(inference))
    write_atomic(part / "README.md", text.encode())
    write_atomic(part / DESCRIPTIONS[0], _yaml(content))


def _description(spec: Any) -> OutputDescription:
    return OutputDescription(
        name=spec.name, kind=spec.kind, channels=spec.channels, axes=spec.axes, scale=tuple(str(s) for s in spec.scale)
    )


def _test_pair(
    module: _Maps,
    inference: Inference,
    outputs: list[OutputDescription],
    shape: standard.Geometry,
    sample: NDArray[Any],
) -> _TestPair:
    """Test tensors cut from `sample`; the framework says what must come out."""
    axes = ("batch", "channel", *shape.axes)
    raw = _fit(sample, shape)[np.newaxis]
    steps = standard.preprocessing(inference.input.normalization, shape.axes)
    if steps is None:
        raw = _centre_zscore(raw, inference.input.normalization)
    normalised = torch.from_numpy(process(Named(raw, axes), steps or []).array.astype(np.float32))
    with torch.inference_mode():
        maps = dict(zip(outputs, module(normalised), strict=True))
    return _TestPair(
        raw, normalised, {standard.output_id(o): _finish(m.numpy(), o, inference, shape) for o, m in maps.items()}
    )


def _finish(
    values: NDArray[Any], output: OutputDescription, inference: Inference, shape: standard.Geometry
) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        raise Im2ImError(
            f"Output {output.name!r} has NaN or infinite values, the training diverged",
            "Export an earlier checkpoint or train with a smaller learning rate",
        )
    axes = tuple(
        a["type"] if a["type"] != "space" else a["id"] for a in standard.output_tensor(output, inference, shape)["axes"]
    )
    return process(Named(values, axes), standard.postprocessing(output, inference)).array.astype(np.float32)


def _valid(sample: NDArray[Any], inference: Inference) -> NDArray[Any]:
    """Sample in a dtype of the standard, after its channels and pixels were checked."""
    wanted = (inference.shapes.input_channels, inference.shapes.dimensions + 1)
    if sample.ndim != wanted[1] or len(sample) != wanted[0]:
        raise DataError(
            f"The sample has shape {sample.shape}, the model takes {wanted[0]} channel(s) and "
            f"{wanted[1] - 1} dimensions",
            "Give it as (C, [Z], Y, X)",
        )
    if sample.dtype.kind == "f" and not np.isfinite(sample).all():
        if inference.input.invalid_pixels == "error":
            raise DataError("The sample has NaN or infinite pixels", "Choose another image or set invalid_pixels: fill")
        sample = fill_invalid(sample)
    if sample.dtype.name in STANDARD_TYPES:
        return sample.astype(sample.dtype.newbyteorder("="), copy=False)
    return sample.astype(np.uint8 if sample.dtype == bool else np.float32)


def _fit(sample: NDArray[Any], shape: standard.Geometry) -> NDArray[Any]:
    """Middle of `sample` in a size the network takes; mirrored outwards where it is too small."""
    limits = LARGEST[len(shape.axes)]
    for axis, (least, step, limit) in enumerate(zip(shape.minimum, shape.step, limits, strict=True), start=1):
        size = sample.shape[axis]
        wanted = least + max(0, min(size, limit) - least) // step * step
        start = max(0, size - wanted) // 2
        sample = sample.take(range(start, min(size, start + wanted)), axis)
        missing = wanted - sample.shape[axis]
        width = [(0, 0)] * sample.ndim
        width[axis] = (missing // 2, missing - missing // 2)
        sample = np.pad(sample, width, mode="symmetric")
    return np.ascontiguousarray(sample)


def _centre_zscore(raw: NDArray[Any], settings: Any) -> NDArray[np.float32]:
    """Normalised sample; the standard has no such step, so the test tensor is normalised already."""
    assert isinstance(settings, CentreZScore)
    pairs = [settings.limits(c if c.ndim == 3 else c[np.newaxis]) for c in raw[0]]
    return np.stack(
        [(c.astype(np.float32) - offset) / (scale or 1.0) for c, (offset, scale) in zip(raw[0], pairs, strict=True)]
    )[np.newaxis].astype(np.float32)


def _write_tensors(
    part: Path, inference: Inference, outputs: list[OutputDescription], shape: standard.Geometry, pair: _TestPair
) -> dict[str, Any]:
    """Test tensors as files, and the ``inputs`` and ``outputs`` of the description."""
    source = standard.input_tensor(inference, shape, pair.raw.dtype.name)
    source["test_tensor"] = _save_array(part / "test_input.npy", pair.raw)
    results = []
    for number, output in enumerate(outputs):
        content = standard.output_tensor(output, inference, shape)
        name = "test_output.npy" if number == 0 else f"test_output_{number}.npy"
        results.append({**content, "test_tensor": _save_array(part / name, pair.maps[content["id"]])})
    return {"inputs": [source], "outputs": results}


def _save_array(path: Path, array: NDArray[Any]) -> dict[str, str]:
    np.save(path, array, allow_pickle=False)
    return _entry(path)


def _save_weights(path: Path, framework: nn.Module) -> dict[str, str]:
    from safetensors.torch import save

    weights, names = stored_once(framework.state_dict())
    # What still shares memory, as views of one array do, safetensors refuses; copies load back the same. Its own
    # writer would make a file that nobody else may read.
    path.write_bytes(save({k: v.detach().clone().contiguous() for k, v in weights.items()}, names))
    return _entry(path)


def _entry(path: Path) -> dict[str, str]:
    return {"source": path.name, "sha256": sha256(path)}


def _write_weights(
    part: Path, module: _Maps, shape: standard.Geometry, pair: _TestPair, formats: tuple[bool, bool]
) -> tuple[standard.Geometry, dict[str, Any]]:
    """Standard weights, and the sizes they take: one fixed size where the traced graph does not follow the image."""
    torchscript, onnx = formats
    weights: dict[str, Any] = {}
    traced = _trace(module, pair.normalised)  # ONNX is made from the same kind of trace
    if not _follows_size(traced, module, shape, pair.normalised.shape[2:]):
        shape = replace(shape, fixed=tuple(pair.normalised.shape[2:]))
    if torchscript:
        traced.save(str(part / "weights.pt"))
        weights["torchscript"] = {**_entry(part / "weights.pt"), "pytorch_version": _torch_version()}
    if onnx:
        _save_onnx(part / "weights.onnx", module, pair.normalised, _dynamic_axes(shape))
        weights["onnx"] = {**_entry(part / "weights.onnx"), "opset_version": OPSET}
        if torchscript:
            weights["onnx"]["parent"] = "torchscript"
    return shape, weights


def _trace(module: _Maps, x: Tensor) -> Any:
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # Branches on the size are constants of the trace; `_follows_size` looks whether that matters.
            warnings.simplefilter("ignore")
            return torch.jit.trace(module, x, check_trace=False)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise Im2ImError(
            f"{type(module.framework).__name__} cannot be traced by torch: {error}",
            "Change the class so that torch.jit.trace takes it, or choose another network",
        ) from error


def _follows_size(traced: Any, module: _Maps, shape: standard.Geometry, made_at: Sequence[int]) -> bool:
    """Whether the trace gives the same as the framework at another size than the one it was made at."""
    size = [m + s * (m == n) for m, s, n in zip(shape.minimum, shape.step, made_at, strict=True)]
    channels = module.framework.shapes.input_channels
    x = torch.randn((2, channels, *size), generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            return all(a.shape == b.shape and _close(a, b) for a, b in zip(traced(x), module(x), strict=True))
    except RuntimeError:  # a size that the trace fixed does not fit
        return False


def _dynamic_axes(shape: standard.Geometry) -> dict[int, str]:
    """Axes of the input whose size may vary, by number."""
    return {0: "batch"} | ({} if shape.fixed else dict(enumerate(shape.axes, start=2)))


def _save_onnx(path: Path, module: _Maps, x: Tensor, dynamic: dict[int, str]) -> None:
    names = [f"output{i}" for i in range(len(module.names))]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (x,),
                str(path),
                input_names=[standard.INPUT_ID],
                output_names=names,
                opset_version=OPSET,
                dynamic_axes={standard.INPUT_ID: dynamic},
                dynamo=False,
            )
    except ImportError as error:
        raise ResourceError(
            f"ONNX export needs a package that is not installed: {error}", "Install napari-im2im[export]"
        ) from error
    except torch.onnx.OnnxExporterError as error:
        missing = isinstance(error.__cause__, ImportError) or "not installed" in str(error)
        kind = ResourceError if missing else Im2ImError
        raise kind(
            f"Cannot be written as ONNX: {error}",
            "Install napari-im2im[export]" if missing else "Set output.onnx to false",
        ) from error


def _write_cover(path: Path, pair: _TestPair) -> None:
    """Input beside the first output, squares of equal size."""
    from imageio.v3 import imwrite

    first = next(iter(pair.maps.values()))
    picture = np.concatenate([_thumbnail(pair.raw[0, 0]), _thumbnail(first[0, -1] if first.ndim > 3 else first[0])], 1)
    imwrite(path, picture)


def _thumbnail(image: NDArray[Any], side: int = 256) -> NDArray[np.uint8]:
    """Square 8-bit picture of the middle plane, contrast from the 1st to the 99.8th percentile."""
    while image.ndim > 2:
        image = image[len(image) // 2]
    image = np.atleast_2d(image)
    length = min(image.shape)
    y, x = ((n - length) // 2 for n in image.shape)
    index = np.arange(side) * length // side
    square = image[y : y + length, x : x + length][index][:, index].astype(np.float32)
    low, high = np.percentile(square, (1, 99.8))
    grey: NDArray[np.uint8] = (np.clip((square - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)
    return grey


class _PlainDumper(yaml.SafeDumper):
    """Dumper that repeats a value instead of referring to it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(content: dict[str, Any]) -> bytes:
    return yaml.dump(content, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True).encode()


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """Content with numpy numbers, paths and subclasses of text as what JSON knows."""

    def number(value: Any) -> Any:
        return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)

    result: dict[str, Any] = json.loads(json.dumps(to_jsonable_python(content, fallback=number)))
    return result


def _torch_version() -> str:
    return str(torch.__version__).split("+")[0]


def _versions() -> dict[str, str]:
    return {
        "napari-im2im": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


# ---- checking ----


def check_bundle(bundle: Bundle, framework: Framework) -> None:
    """Load both parts of a package again and compare them with `framework`.

    Raises
    ------
    Im2ImError
        A part does not reproduce the framework; the message says which and by how much.
    """
    bundle.verify()
    for kind in bundle.description["weights"]:
        ForeignModel(bundle, weights=kind, apart=False).check(TOLERANCE)
    original = copy.deepcopy(framework).cpu().float().eval()
    state = original.state_dict()
    loaded = bundle.load_weights()
    wrong = [
        k
        for k in state.keys() | loaded.keys()
        if k not in state or k not in loaded or not torch.equal(state[k], loaded[k])
    ]
    if wrong:
        raise Im2ImError(
            f"Weights {', '.join(sorted(wrong)[:3])} read back differ from those written",
            "The disk may be failing; export to another one",
        )
    _same_after_reload(bundle, original, loaded)


def _same_after_reload(bundle: Bundle, original: Framework, loaded: dict[str, Tensor]) -> None:
    """Run the framework with the loaded weights alone on the test tensor."""
    model = ForeignModel(bundle, apart=False)
    inputs, _ = model.test_tensors()
    x = torch.from_numpy(model.preprocess(inputs)[standard.INPUT_ID].astype(np.float32))
    module = _Maps(original)
    with torch.inference_mode():
        expected = module(x)
        for parameter in original.parameters():
            parameter.zero_()
        original.load_state_dict(loaded)
        found = module(x)
    _compare(expected, found, bundle)


def _compare(expected: Sequence[Tensor], found: Sequence[Tensor], bundle: Bundle) -> None:
    if not all(_close(a, b) for a, b in zip(expected, found, strict=True)):
        raise Im2ImError(
            f"{bundle.weights_path.name} does not reproduce the network",
            "Something outside of the weights decides its output; keep it in a buffer",
        )


def _close(a: Tensor, b: Tensor) -> bool:
    """Whether two maps agree within the tolerance, relative to their largest value."""
    return bool((a - b).abs().max() <= TOLERANCE * max(1.0, float(b.abs().max())))
