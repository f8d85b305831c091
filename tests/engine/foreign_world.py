"""Small packages of another tool, as bioimage.io describes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml


def entry(path: Path) -> dict[str, str]:
    """A file as a description names it."""
    return {"source": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def axes_of(size: Callable[[str], Any], **more: Any) -> list[dict[str, Any]]:
    """Batch, channel, y and x, with what is said of the last two."""
    space = [{"type": "space", "id": a, "size": size(a), **more} for a in "yx"]
    return [{"type": "batch"}, {"type": "channel", "channel_names": ["c"]}, *space]


def package(folder: Path, module: torch.nn.Module, inputs: list[str], outputs: dict[str, float]) -> Path:
    """A TorchScript package for images of 16, 24, 32 … pixels; `outputs` with the size of their pixels."""
    folder.mkdir()
    torch.jit.script(module).save(str(folder / "w.pt"))
    content = {
        "format_version": "0.5.4",
        "type": "model",
        "name": "toy model",
        "inputs": [{"id": name, "axes": axes_of(lambda a: {"min": 16, "step": 8})} for name in inputs],
        "outputs": [
            {"id": name, "axes": axes_of(lambda a: {"tensor_id": inputs[0], "axis_id": a}, scale=scale)}
            for name, scale in outputs.items()
        ],
        "weights": {"torchscript": {**entry(folder / "w.pt"), "pytorch_version": "2.0"}},
    }
    (folder / "rdf.yaml").write_text(yaml.safe_dump(content))
    return folder


# ---- ONNX, written by hand -----------------------------------------------------


def number(field: int, value: int) -> bytes:
    """Protobuf field with a small number."""
    return bytes([field << 3, value])


def part(field: int, content: bytes | str) -> bytes:
    """Protobuf field with text or a message of fewer than 128 bytes, or a longer one of fewer than 16384."""
    content = content.encode() if isinstance(content, str) else content
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return bytes([field << 3 | 2]) + length + content


def onnx_repeats(channels: int, size: int) -> bytes:
    """An ONNX model that repeats one channel of float32 images of `size` pixels."""
    shape = b"".join(part(1, number(1, n)) for n in (1, 1, size, size))
    source = part(1, "x") + part(2, part(1, number(1, 1) + part(2, shape)))
    result = part(1, "y") + part(2, part(1, number(1, 1)))
    copies = np.array([1, channels, 1, 1], np.int64).tobytes()
    repeats = number(1, 4) + number(2, 7) + part(8, "copies") + part(9, copies)
    node = part(1, "x") + part(1, "copies") + part(2, "y") + part(4, "Expand")
    graph = part(1, node) + part(2, "g") + part(5, repeats) + part(11, source) + part(12, result)
    return number(1, 8) + part(8, part(1, "") + number(2, 13)) + part(7, graph)
