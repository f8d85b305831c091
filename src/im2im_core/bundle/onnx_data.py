"""Which other files an ONNX file reads: found in its bytes before any ONNX library opens it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from im2im_core.errors import TrustError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Fields of the ONNX protocol buffers that lead to a tensor: message -> field number -> message.
LEADS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
MAX_DEPTH = 64


def external_files(content: bytes) -> set[str]:
    """Names of the files that an ONNX model takes weights from; empty where it holds them all.

    Raises
    ------
    TrustError
        The bytes are no ONNX model.
    """
    try:
        return set(_walk(memoryview(content), "Model", 0))
    except (IndexError, ValueError) as error:
        raise TrustError(f"The file is not an ONNX model: {error}", "Get the package again") from error


def _walk(data: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    for number, value in _fields(data):
        lead = LEADS.get(kind, {}).get(number)
        if lead == "Entry":
            pair = dict(_fields(value))
            if bytes(pair.get(1, b"")) == b"location":
                yield bytes(pair.get(2, b"")).decode()
        elif lead:
            yield from _walk(value, lead, depth + 1)


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Numbers and contents of the length-delimited fields of a message."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        wire = key & 7
        if wire == 2:
            length, position = _varint(data, position)
            if position + length > len(data):
                raise ValueError("a field is longer than the file")
            yield key >> 3, data[position : position + length]
            position += length
        elif wire == 0:
            _, position = _varint(data, position)
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        else:
            raise ValueError(f"unknown wire type {wire}")


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
