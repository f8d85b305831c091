"""Files with weights, safetensors or a state dict: tensors alone, no more than the file holds; nothing is unpickled."""

from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any

import torch
from torch import Tensor

from im2im_core.bundle.shared_names import under_all_names
from im2im_core.errors import TrustError

NESTED = ("state_dict", "model_state_dict")
"""Keys below which training programs put the weights."""


def read_weights(content: bytes, name: str) -> dict[str, Tensor]:
    """Weights by name in the bytes of a safetensors file, or of a state dict; the ending of `name` says which.

    Raises
    ------
    TrustError
        It is neither, holds more than tensors, or claims to hold more numbers than it has bytes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not name.lower().endswith(".safetensors"):
        return read_state_dict(content, name)
    try:
        return under_all_names(load(content), content)
    except SafetensorError as error:
        raise TrustError(f"{name} is not a safetensors file: {error}", "Choose the file with the weights") from error


def read_state_dict(content: bytes, name: str, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Weights by name in the bytes of a file `name` that ``torch.save`` wrote.

    Raises
    ------
    TrustError
        It holds more than tensors, or claims to hold more numbers than it has bytes.
    """
    cure = "Files that run code when opened are never loaded"
    _require_stored(content, name)
    try:
        state: Any = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise TrustError(f"{name} holds more than weights: {str(error).splitlines()[0]}", cure) from error
    if isinstance(state, dict):
        state = next((state[key] for key in NESTED if isinstance(state.get(key), dict)), state)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise TrustError(f"{name} is no state dict: names with tensors are expected", "Save model.state_dict()")
    for key, tensor in state.items():
        _require_whole(tensor, f"{key} in {name}")
    return {str(key): tensor for key, tensor in state.items()}


def _require_stored(content: bytes, name: str) -> None:
    """Refuse an archive that unpacks to more than its size; ``torch.save`` compresses nothing."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile:  # the older format, or none: the loader says so
        return
    if sum(entry.file_size for entry in entries) > len(content):
        raise TrustError(f"{name} unpacks to more than its size", "Get the file from a source that you trust")


def _require_whole(tensor: Tensor, name: str) -> None:
    """Refuse a tensor that shows the same bytes many times, or has none."""
    if tensor.layout != torch.strided or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise TrustError(f"{name} is not a plain array of numbers", "Save model.state_dict() anew")
