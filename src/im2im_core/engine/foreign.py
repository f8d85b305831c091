"""Models of other tools: bioimage.io packages with TorchScript or ONNX weights, run as their description says.

TorchScript is code and ONNX runs in native code: `foreign_process` runs them, within limits.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from im2im_core.bundle.foreign import AxisSpec, TensorSpec, current_format, tensor_specs
from im2im_core.bundle.onnx_data import external_files
from im2im_core.bundle.package import Bundle
from im2im_core.bundle.processing import Tensor, process, require_steps
from im2im_core.engine.blocks import run_in_blocks
from im2im_core.engine.devices import choose_device
from im2im_core.engine.foreign_process import ForeignProcess
from im2im_core.engine.foreign_weights import ForeignWeights, load
from im2im_core.errors import ConfigError, DataError, Im2ImError, TrustError
from im2im_core.trust import consented_modules

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.engine.blocks import OnBlock, OnNote
    from im2im_core.engine.foreign_weights import Forward

    Arrays = dict[str, NDArray[Any]]

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
    apart : bool
        Whether its network runs in a process of its own, within limits; not needed for one that was made here.

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
        self,
        bundle: Bundle,
        *,
        weights: str | None = None,
        trusted: frozenset[str] = frozenset(),
        device: str = "cpu",
        apart: bool = True,
    ) -> None:
        self._bundle = bundle = current_format(bundle)
        self._device = torch.device(choose_device(device))
        self.inputs, self.outputs = tensor_specs(bundle)
        for spec in (*self.inputs, *self.outputs):
            require_steps(spec.steps, spec.name)
        weights_of = bundle.description.get("weights")
        entries = {k: v for k, v in weights_of.items() if v} if isinstance(weights_of, dict) else {}
        self.weights = _choose(entries, weights, bundle)
        network = _gathered(bundle, self.weights, entries[self.weights], trusted)
        where = str(self._device)
        self._forward: Forward = (
            ForeignProcess(network, where, torch.get_num_threads()) if apart else load(network, where)
        )

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


def _gathered(bundle: Bundle, kind: str, entry: dict[str, Any], trusted: frozenset[str]) -> ForeignWeights:
    """What is needed to run the network, every file of it compared with its hash."""
    known: dict[str, Any] = {"kind": kind, "name": str(entry.get("source")), "model": bundle.name}
    if kind == "pytorch_state_dict":
        return _allowed(bundle, entry, known, trusted)
    content = bundle.read_checked(entry)
    if kind == "onnx":
        _check_external(bundle, entry, external_files(content))
        if entry.get("external_data"):
            return ForeignWeights(**known, external=str(bundle.file(entry["source"])))
    return ForeignWeights(**known, content=content)


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


def _allowed(bundle: Bundle, entry: dict[str, Any], known: dict[str, Any], trusted: frozenset[str]) -> ForeignWeights:
    """Weights with the Python code of the package that makes their network; only after consent."""
    architecture = entry["architecture"]
    source = architecture.get("source")
    code = bundle.read_checked(architecture, required=False) if source else b""
    key = hashlib.sha256(code).hexdigest() if source else str(architecture.get("import_from"))
    if key not in (*trusted, *consented_modules()):
        raise TrustError(
            f"{bundle.name} runs Python code: {source or 'module'} {key}",
            f"Read it; if you trust it, allow it with --trust {key}",
        )
    return ForeignWeights(
        **known,
        content=bundle.read_checked(entry),
        code=code,
        module=str(source or key),
        callable=str(architecture["callable"]),
        kwargs=dict(architecture.get("kwargs") or {}),
        strict=bool(entry.get("strict", True)),
    )
