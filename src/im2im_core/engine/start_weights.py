"""Weights to start from: of a run, of a package of ours or of another tool, or of a file; nothing is unpickled."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from im2im_core.engine.weights_file import read_state_dict, read_weights
from im2im_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

FILES = (".safetensors", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class StartWeights:
    """Weights of a trained model as they stand in its file."""

    weights: dict[str, Tensor]
    sha256: str
    """Hash of that file."""


def read_start(source: Path) -> StartWeights:
    """Weights of a run, a package (folder or zip) of ours or of another tool, or of a file; nothing is unpickled.

    Raises
    ------
    DataError
        There is no such model.
    TrustError
        A file is not the one described, or holds more than weights.
    ConfigError
        It has no weights that can be trained on.
    """
    if not source.exists():
        raise DataError(
            f"The model to start from is not there: {source}",
            "Put it back, name another one in training.start.model, or set training.start.kind to new",
        )
    if source.is_file() and source.suffix.lower() in FILES:
        content = source.read_bytes()
        return StartWeights(read_weights(content, source.name), hashlib.sha256(content).hexdigest())
    return _from_package(source)


def _from_package(source: Path) -> StartWeights:
    from im2im_core.bundle import open_bundle
    from im2im_core.bundle.foreign import current_format
    from im2im_core.files import sha256

    bundle = open_bundle(source)
    if bundle.is_ours:
        return StartWeights(bundle.load_weights(), sha256(bundle.weights_path))
    bundle = current_format(bundle)
    entries = bundle.description.get("weights") or {}
    entry = entries.get("pytorch_state_dict")
    if not entry:
        named = ", ".join(name for name, found in entries.items() if found) or "none"
        raise ConfigError(
            f"{source} has no weights that can be trained on; it has {named}",
            "Its authors may give the weights as a PyTorch state dict; TorchScript and ONNX can only predict",
        )
    content = bundle.read_checked(entry)
    return StartWeights(read_state_dict(content, str(entry["source"])), hashlib.sha256(content).hexdigest())
