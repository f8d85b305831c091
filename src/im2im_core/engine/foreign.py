"""Models of other tools: bioimage.io packages with TorchScript or ONNX weights, run as their description says.

TorchScript is code and ONNX runs in native code: a package of somebody else belongs into the
child process that jobs run in, never into the viewer.
"""

from __future__ import annotations

import hashlib
import importlib
import io
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from im2im_core.bundle.foreign import AxisSpec, TensorSpec, current_format, tensor_specs
from im2im_core.bundle.onnx_data import external_files
from im2im_core.bundle.package import Bundle
from im2im_core.bundle.processing import Tensor, process, require_steps
from im2im_core.engine.blocks import run_in_blocks
from im2im_core.engine.devices import choose_device
from im2im_core.engine.weights_file import read_state_dict
from im2im_core.errors import ConfigError, DataError, Im2ImError, ResourceError, TrustError
from im2im_core.trust import consented_modules

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from im2im_core.engine.blocks import OnBlock, OnNote

    Arrays = dict[str, NDArray[Any]]
    Forward = Callable[[list[NDArray[Any]]], list[NDArray[Any]]]

RUNNABLE = ("torchscript", "onnx", "pytorch_state_dict")


class ForeignModel:
    """A bioimage.io model, ready to run.

    Parameters
    ----------
    bundle : Bundle
        The package.
    weights : str, optional
        Weight format to use; the first that can be run by default.
    trusted : set of str
        Hashes of Python files (and names of installed modules) that the user agreed to run.
    device : str
        Where torch computes: auto, cpu, cuda, cuda:1 or mps.

    Raises
    ------
    TrustError
        A file is not the one described, or Python code is needed and not trusted.
    ConfigError
        The description is not valid or names no weights that can be run, or there is no device of that name.
    ResourceError
        This machine has no such device.
    """

    def __init__(
        self, bundle: Bundle, *, weights: str | None = None, trusted: frozenset[str] = frozenset(), device: str = "cpu"
    ) -> None:
        self._bundle = bundle = current_format(bundle)
        self._device = torch.device(choose_device(device))
        self.inputs, self.outputs = tensor_specs(bundle)
        for spec in (*self.inputs, *self.outputs):
            require_steps(spec.steps, spec.name)
        weights_of = bundle.description.get("weights")
        entries = {k: v for k, v in weights_of.items() if v} if isinstance(weights_of, dict) else {}
        self.weights = _choose(entries, weights, bundle)
        self._forward = self._load(entries[self.weights], trusted)

    # ---- running ----

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by id for inputs whose sizes the model takes, processed as described.

        Raises
        ------
        DataError
            An input is missing or has a size that the model does not take.
        """
        for spec in self.inputs:
            self._check_sizes(spec, inputs)
        return self.postprocess(self.forward(self.preprocess(inputs)), inputs)

    def predict(
        self,
        inputs: Arrays,
        on_block: OnBlock | None = None,
        *,
        tile: tuple[int, ...] | None = None,
        on_note: OnNote | None = None,
    ) -> Arrays:
        """Outputs by id for inputs of any size: normalised whole, run in blocks with halo, put together.

        Parameters
        ----------
        on_block : callable, optional
            Told before each block, and at the end, how many are done, of how many; what it raises ends the prediction.
        tile : tuple of int, optional
            Size of a block along the spatial axes; as large as is usual where not given.
        on_note : callable, optional
            Told in words where blocks cannot equal the whole.
        """
        ready = self.preprocess(inputs)
        return self.postprocess(run_in_blocks(self, ready, on_block, tile=tile, on_note=on_note), inputs)

    def preprocess(self, inputs: Arrays) -> Arrays:
        """Inputs as the network wants them; statistics are taken over the arrays given.

        Raises
        ------
        DataError
            An input is missing, or has values that its type does not hold.
        """
        raw = self._named(inputs)
        for spec in self.inputs:
            _require_type(spec, raw[spec.name].array)
        return {s.name: process(raw[s.name], s.steps, raw).array for s in self.inputs}

    def forward(self, ready: Arrays) -> Arrays:
        """What the network makes of preprocessed inputs."""
        results = self._forward([np.ascontiguousarray(ready[s.name]) for s in self.inputs])
        if len(results) != len(self.outputs):
            raise DataError(
                f"The network makes {len(results)} outputs, the description names {len(self.outputs)}",
                "The package is not consistent; get it again",
            )
        return {s.name: r for s, r in zip(self.outputs, results, strict=True)}

    def postprocess(self, outputs: Arrays, inputs: Arrays) -> Arrays:
        """Outputs in their final form; some steps look at the raw inputs."""
        raw = self._named(inputs)
        return {s.name: process(Tensor(outputs[s.name], s.names), s.steps, raw).array for s in self.outputs}

    def _named(self, inputs: Arrays) -> dict[str, Tensor]:
        for spec in self.inputs:
            if spec.name not in inputs:
                raise DataError(f"Input {spec.name!r} is missing", f"Give {', '.join(s.name for s in self.inputs)}")
            if inputs[spec.name].ndim != len(spec.axes):
                raise DataError(
                    f"Input {spec.name!r} has shape {inputs[spec.name].shape}", f"Its axes are {', '.join(spec.names)}"
                )
        return {s.name: Tensor(inputs[s.name], s.names) for s in self.inputs}

    def _check_sizes(self, spec: TensorSpec, inputs: Arrays) -> None:
        sizes = self._named(inputs)[spec.name].array.shape
        for axis, size in zip(spec.axes, sizes, strict=True):
            wanted = self._reference_size(axis, inputs) if axis.reference else axis.fit(size)
            if axis.kind != "batch" and wanted != size:
                raise DataError(
                    f"Input {spec.name!r} has size {size} along {axis.name}; {wanted} would do",
                    "Cut or pad it, or let it be run in blocks",
                )

    def _reference_size(self, axis: AxisSpec, inputs: Arrays) -> int:
        tensor, name = axis.reference or ("", "")
        spec = next(s for s in self.inputs if s.name == tensor)
        number = spec.names.index(name)
        return int(inputs[tensor].shape[number] * spec.axes[number].scale / axis.scale + axis.offset)

    # ---- test tensors ----

    def test_tensors(self) -> tuple[Arrays, Arrays]:
        """Recorded inputs and outputs by id.

        Raises
        ------
        TrustError
            A file is not the one described, or is a pickle.
        ConfigError
            The package has none.
        """
        return (
            {s.name: self._test_tensor(s) for s in self.inputs},
            {s.name: self._test_tensor(s) for s in self.outputs},
        )

    def _test_tensor(self, spec: TensorSpec) -> NDArray[Any]:
        if not spec.test:
            raise ConfigError(f"{self._bundle.source} has no test tensor for {spec.name!r}", "It cannot be tested")
        content = self._bundle.read_checked(spec.test, required=False)
        try:
            array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise TrustError(
                f"{spec.test['source']} is not a plain array: {error}", "Pickled files are never loaded"
            ) from error
        return array

    def check(self, tolerance: float = 1e-4) -> float:
        """Largest deviation from the recorded outputs, relative to their largest value (at least 1).

        Raises
        ------
        Im2ImError
            It is larger than `tolerance`.
        """
        inputs, expected = self.test_tensors()
        found = self.run(inputs)
        worst = 0.0
        for name, wanted in expected.items():
            if found[name].shape != wanted.shape:
                raise Im2ImError(
                    f"Output {name!r} has shape {found[name].shape}, recorded is {wanted.shape}",
                    "The package is not consistent; get it again",
                )
            deviation = np.abs(found[name].astype(np.float64) - wanted).max() / max(1.0, np.abs(wanted).max())
            if not deviation <= tolerance:
                raise Im2ImError(
                    f"Output {name!r} of {self.weights} differs by {deviation:.2g} from the recorded one",
                    "Do not use the model on this machine; look for a newer version of the package",
                )
            worst = max(worst, float(deviation))
        return worst

    # ---- loading ----

    def _load(self, entry: dict[str, Any], trusted: frozenset[str]) -> Forward:
        if self.weights == "onnx":
            return _load_onnx(self._bundle, entry, self._device)
        if self.weights == "torchscript":
            module = _load_torchscript(self._bundle, entry, self._device)
        else:
            module = _load_architecture(self._bundle, entry, trusted, self._device)
        return lambda arrays: _run_torch(module, arrays, self._device)


def _require_type(spec: TensorSpec, array: NDArray[Any]) -> None:
    """Refuse values that would come out as others in the type of the input: 300 is 44 in uint8."""
    wanted = np.dtype(spec.dtype)
    if not spec.casts_raw or wanted.kind == "f" or np.can_cast(array.dtype, wanted, "safe"):
        return
    with np.errstate(invalid="ignore"):
        kept = np.array_equal(array.astype(wanted), array)
    if not kept:
        raise DataError(
            f"Input {spec.name!r} takes {spec.dtype}; the image is {array.dtype}, from {array.min():g} "
            f"to {array.max():g}",
            f"Bring the image to {spec.dtype} first",
        )


def _choose(entries: dict[str, Any], wanted: str | None, bundle: Bundle) -> str:
    """Weight format to run: the wanted one, else the first whose file is there; Python source comes last."""
    named = [k for k in RUNNABLE if k in entries and wanted in (None, k)]
    found = [k for k in named if bundle.has(str(entries[k].get("source", "")))] or named
    if not found:
        raise ConfigError(
            f"{bundle.source} has weights {', '.join(entries)}; wanted is {wanted or 'any'}",
            f"Weights that can be run: {', '.join(RUNNABLE)}",
        )
    return found[0]


def _run_torch(module: Any, arrays: list[NDArray[Any]], device: torch.device) -> list[NDArray[Any]]:
    with torch.inference_mode():
        result = module(*(torch.from_numpy(a).to(device) for a in arrays))
    maps = result if isinstance(result, tuple | list) else [result]
    return [m.cpu().numpy() for m in maps]


def _load_torchscript(bundle: Bundle, entry: dict[str, Any], device: torch.device) -> Any:
    content = bundle.read_checked(entry)
    try:
        # Reads an archive of code for torch's own interpreter; a Python pickle is not executed.
        return torch.jit.load(io.BytesIO(content), map_location=device).eval()
    except RuntimeError as error:
        raise TrustError(
            f"{entry['source']} is not TorchScript: {str(error).splitlines()[0]}",
            "Other kinds of files are not loaded in its place",
        ) from error


def _load_onnx(bundle: Bundle, entry: dict[str, Any], device: torch.device) -> Forward:
    content = bundle.read_checked(entry)
    _check_external(bundle, entry, external_files(content))
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
    except ImportError as error:
        raise ResourceError(
            f"{bundle.name} has ONNX weights, onnxruntime is not installed", "Install napari-im2im[export]"
        ) from error
    providers = ["CUDAExecutionProvider"] * (device.type == "cuda") + ["CPUExecutionProvider"]
    options = onnxruntime.SessionOptions()
    # With weights in a file of their own, onnxruntime must know the folder.
    source: Any = str(bundle.file(entry["source"])) if entry.get("external_data") else content
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
        raise DataError(f"{entry['source']} cannot be loaded: {error}", "Get the package again") from error
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

    def run(arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            results: list[NDArray[Any]] = session.run(None, dict(zip(names, arrays, strict=True)))
        except failures as error:  # each derives from Exception alone
            raise RuntimeError(" ".join(str(error).split())) from error
        return results

    return run


def _check_external(bundle: Bundle, entry: dict[str, Any], names: set[str]) -> None:
    """Refuse an ONNX file that takes weights from a file other than the one described and hashed."""
    described = entry.get("external_data")
    for name in names:
        path = bundle.file(name)
        if not described or path != bundle.file(described["source"]):
            raise TrustError(
                f"{entry['source']} reads {name!r}, which the description does not name", "Get the package again"
            )
    if described:
        bundle.read_checked(described)


def _load_architecture(bundle: Bundle, entry: dict[str, Any], trusted: frozenset[str], device: torch.device) -> Any:
    """Network built by the Python code of the package, with its weights; only after consent."""
    architecture = entry["architecture"]
    source = architecture.get("source")
    code = bundle.read_checked(architecture, required=False) if source else b""
    key = hashlib.sha256(code).hexdigest() if source else str(architecture.get("import_from"))
    if key not in (*trusted, *consented_modules()):
        raise TrustError(
            f"{bundle.name} runs Python code: {source or 'module'} {key}",
            f"Read it; if you trust it, allow it with --trust {key}",
        )
    state = read_state_dict(bundle.read_checked(entry), str(entry["source"]), device)
    try:
        namespace = _run_source(code, source) if source else importlib.import_module(key)
        module = getattr(namespace, architecture["callable"])(**(architecture.get("kwargs") or {}))
        module.load_state_dict(state, strict=entry.get("strict", True))
    except (ImportError, SyntaxError, AttributeError, TypeError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(
            f"The Python code of {bundle.name} ({source or key}) fails: {type(error).__name__}: {error}",
            "Install what it needs, or ask its authors for TorchScript or ONNX weights",
        ) from error
    return module.to(device).eval()


def _run_source(code: bytes, name: str) -> Any:
    """Module made of the very bytes whose hash was trusted."""
    module = ModuleType("bundle_architecture")
    exec(compile(code, name, "exec"), module.__dict__)
    return module
