"""Networks of other tools from the bytes of their files: TorchScript, ONNX, and Python code that the user allowed.

All three are programs. `foreign_process` runs them in a process of their own.
"""

from __future__ import annotations

import importlib
import io
import re
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.errors import DataError, ResourceError, TrustError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = list[NDArray[Any]]
    Forward = Callable[[Arrays], Arrays]

_OPENS_FILES = re.compile(rb"\b(save|from_file)\b")
"""Operators of torch that write and map files, in the text of a TorchScript program."""
MOST_CODE = 50_000_000
"""Bytes of the text of a TorchScript program; that of a large network has a hundredth."""


@dataclass(frozen=True)
class ForeignWeights:
    """All that is needed to run a network, checked against the hashes of its package."""

    kind: str
    """torchscript, onnx or pytorch_state_dict"""
    name: str
    """File that holds the weights, for messages."""
    model: str
    """Name of the model, for messages."""
    content: bytes = b""
    """The weights."""
    external: str = ""
    """Path of an ONNX model that has its weights in a file beside it; empty for all others."""
    code: bytes = b""
    """Python source that makes the network, of a state dict."""
    module: str = ""
    """Name of that source, or of the installed module that takes its place."""
    callable: str = ""
    kwargs: dict[str, Any] = field(default_factory=dict)
    strict: bool = True

    @property
    def needs_files(self) -> bool:
        """Whether it opens files while it is loaded or run: Python imports, and ONNX that names another file."""
        return self.kind == "pytorch_state_dict" or bool(self.external)

    def to_frame(self) -> tuple[dict[str, Any], Arrays]:
        """Plain content and arrays that `from_frame` makes the same weights of."""
        told = asdict(replace(self, content=b"", code=b""))
        del told["content"], told["code"]
        return told, [np.array(bytearray(part), np.uint8) for part in (self.content, self.code)]

    @classmethod
    def from_frame(cls, told: dict[str, Any], arrays: Arrays) -> ForeignWeights:
        """Weights that `to_frame` gave."""
        content, code = (part.tobytes() for part in arrays)
        return cls(**told, content=content, code=code)


def load(weights: ForeignWeights, device: str) -> Forward:
    """Function that runs the network in this process, on arrays in the order of its inputs.

    Raises
    ------
    TrustError
        The file is not of the kind that it is said to be, or opens files.
    DataError
        It cannot be loaded.
    ResourceError
        A package that it needs is not installed.
    """
    if weights.kind == "onnx":
        return _load_onnx(weights, device)
    module = _load_torchscript(weights, device) if weights.kind == "torchscript" else _load_code(weights, device)
    return lambda arrays: _run_torch(module, arrays, device)


def prepare(weights: ForeignWeights, threads: int) -> None:
    """Import what `load` needs and let it open what it opens at first use."""
    if weights.kind == "onnx":
        with suppress(ImportError):  # that it is not installed is told by `load`
            importlib.import_module("onnxruntime")
        return
    import torch

    torch.set_num_threads(threads)
    with torch.inference_mode():
        torch.nn.functional.conv2d(torch.ones(1, 8, 64, 64), torch.ones(8, 8, 3, 3))


# ---- torch ---------------------------------------------------------------------


def _run_torch(module: Any, arrays: Arrays, device: str) -> Arrays:
    import torch

    with torch.inference_mode():
        result = module(*(torch.from_numpy(a).to(device) for a in arrays))
    maps = result if isinstance(result, tuple | list) else [result]
    return [m.cpu().numpy() for m in maps]


def _load_torchscript(weights: ForeignWeights, device: str) -> Any:
    import torch

    _require_no_files(weights)
    try:
        # Reads an archive of code for torch's own interpreter; a Python pickle is not executed.
        return torch.jit.load(io.BytesIO(weights.content), map_location=device).eval()
    except RuntimeError as error:
        raise _no_torchscript(weights, error) from error


def _require_no_files(weights: ForeignWeights) -> None:
    """Refuse a program that has words for opening files: where the system does not forbid it, nothing else would."""
    try:
        with zipfile.ZipFile(io.BytesIO(weights.content)) as archive:
            sources = [entry for entry in archive.infolist() if entry.filename.endswith(".py")]
            if sum(entry.file_size for entry in sources) > MOST_CODE:
                raise ValueError(f"its program unpacks to more than {MOST_CODE / 1e6:.0f} MB")
            words = {word.decode() for entry in sources for word in _OPENS_FILES.findall(archive.read(entry))}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, OSError, zlib.error) as error:
        raise _no_torchscript(weights, error) from error
    if words:
        raise TrustError(
            f"{weights.name} opens files: its program says {', '.join(sorted(words))}", "Do not use the model"
        )


def _no_torchscript(weights: ForeignWeights, error: Exception) -> TrustError:
    return TrustError(
        f"{weights.name} is not TorchScript: {(str(error).splitlines() or [''])[0]}",
        "Other kinds of files are not loaded in its place",
    )


def _load_code(weights: ForeignWeights, device: str) -> Any:
    """Network built by the Python code that the user allowed, with its weights."""
    from im2im_core.engine.weights_file import read_state_dict

    state = read_state_dict(weights.content, weights.name, device)
    try:
        found = _run_source(weights.code, weights.module) if weights.code else importlib.import_module(weights.module)
        module = getattr(found, weights.callable)(**weights.kwargs)
        module.load_state_dict(state, strict=weights.strict)
    except (ImportError, SyntaxError, AttributeError, TypeError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(
            f"The Python code of {weights.model} ({weights.module}) fails: {type(error).__name__}: {error}",
            "Install what it needs, or ask its authors for TorchScript or ONNX weights",
        ) from error
    return module.to(device).eval()


def _run_source(code: bytes, name: str) -> Any:
    """Module made of the very bytes whose hash was trusted."""
    module = ModuleType("bundle_architecture")
    exec(compile(code, name, "exec"), module.__dict__)
    return module


# ---- ONNX ----------------------------------------------------------------------


def _load_onnx(weights: ForeignWeights, device: str) -> Forward:
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
    except ImportError as error:
        raise ResourceError(
            f"{weights.model} has ONNX weights, onnxruntime is not installed", "Install napari-im2im[export]"
        ) from error
    providers = ["CUDAExecutionProvider"] * device.startswith("cuda") + ["CPUExecutionProvider"]
    options = onnxruntime.SessionOptions()
    # With weights in a file of their own, onnxruntime must know the folder.
    source: Any = weights.external or weights.content
    try:
        session = onnxruntime.InferenceSession(source, options, providers=providers)
    except (
        ort_errors.Fail,
        ort_errors.InvalidArgument,
        ort_errors.InvalidGraph,
        ort_errors.InvalidProtobuf,
        ort_errors.NotImplemented,
        ort_errors.RuntimeException,
    ) as error:
        raise DataError(f"{weights.name} cannot be loaded: {error}", "Get the package again") from error
    return _onnx_forward(session)


def _onnx_forward(session: Any) -> Forward:
    """Calls `session`; what fails is a RuntimeError, as with torch."""
    from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

    failures = (
        ort_errors.EPFail,
        ort_errors.Fail,
        ort_errors.InvalidArgument,
        ort_errors.NotImplemented,
        ort_errors.RuntimeException,
    )
    names = [i.name for i in session.get_inputs()]

    def run(arrays: Arrays) -> Arrays:
        try:
            results: Arrays = session.run(None, dict(zip(names, arrays, strict=True)))
        except failures as error:  # each derives from Exception alone
            raise RuntimeError(" ".join(str(error).split())) from error
        return results

    return run
