"""Weights that a network holds under several names: written once, read back under all of them; no torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

_LENGTH = 8
"""Bytes at the start of a safetensors file that say how long its header is."""


def stored_once(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights of `state` without repetitions, and for each further name the one that its values stand under.

    MONAI's DynUNet registers its layers twice. The second part goes into the metadata of a safetensors
    file, as `safetensors.torch.save_model` does it, so that other programs read the file too.
    """
    kept: dict[str, Tensor] = {}
    others: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tensor.device, tensor.dtype, tuple(tensor.shape), tensor.stride())
        known = first.setdefault(place, name) if tensor.numel() else name
        if known == name:
            kept[name] = tensor
        else:
            others[name] = known
    return kept, others


def under_all_names(weights: Mapping[str, Tensor], header: bytes) -> dict[str, Tensor]:
    """`weights` of a safetensors file, under every name that its `header` gives them.

    Whatever else stands in the metadata, which programs fill with titles and the like, names no weight.

    Parameters
    ----------
    header : bytes
        The start of the file, or all of it, after safetensors found it to be sound.
    """
    size = int.from_bytes(header[:_LENGTH], "little")
    said: dict[str, str] = json.loads(header[_LENGTH : _LENGTH + size]).get("__metadata__") or {}
    others = {name: weights[known] for name, known in said.items() if known in weights and name not in weights}
    return {**weights, **others}


def read_header(path: Path) -> bytes:
    """Bytes of a safetensors file up to its first weight."""
    with path.open("rb") as handle:
        length = handle.read(_LENGTH)
        return length + handle.read(int.from_bytes(length, "little"))
