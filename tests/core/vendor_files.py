"""Small files of Zeiss, Leica and Nikon, written for these tests; each holds scenes of one shape.

CZI is written by Zeiss' own library. LIF and ND2 have no writer: here are as many of their blocks as a reader needs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

Stack = NDArray[Any]
"""Pixels of one scene, T, C, Z, Y, X."""
VOXEL = (2.0, 0.5, 0.25)
"""Micrometres along Z, Y, X."""
SQUARE = (2.0, 0.25, 0.25)
"""The same for formats with one size for the plane."""
PERIOD = 1.5
"""Seconds between time points."""
CHANNELS = ("DAPI", "GFP")


# ---- Zeiss -------------------------------------------------------------------------


def write_czi(path: Path, scenes: dict[str, Stack]) -> None:
    """CZI with the voxel size `VOXEL`; it names neither its scenes nor its channels."""
    from pylibCZIrw import czi

    with czi.create_czi(str(path)) as document:
        for number, pixels in enumerate(scenes.values()):
            shift = number * 2 * pixels.shape[-1]  # scenes that overlap would be one image
            for t, c, z in np.ndindex(pixels.shape[:3]):
                plane = np.ascontiguousarray(pixels[t, c, z][..., None])
                document.write(plane, plane={"T": t, "C": c, "Z": z}, scene=number, location=(shift, 0))
        depth, height, width = (size * 1e-6 for size in VOXEL)
        document.write_metadata("made", scale_x=width, scale_y=height, scale_z=depth)


# ---- Leica -------------------------------------------------------------------------

LIF_BLOCK, LIF_PART = 0x70, b"\x2a"


def write_lif(path: Path, scenes: dict[str, Stack]) -> None:
    """LIF with the voxel size `VOXEL` and channels named by their colours."""
    images = "".join(_lif_element(name, pixels, f"block{n}") for n, (name, pixels) in enumerate(scenes.items()))
    text = f'<LMSDataContainerHeader Version="2"><Element Name="made"><Children>{images}</Children></Element>'
    header = f"{text}</LMSDataContainerHeader>".encode("utf-16-le")
    blocks = [_lif_block(struct.pack("<I", len(header) // 2), header)]
    for number, pixels in enumerate(scenes.values()):
        data = pixels.transpose(0, 2, 1, 3, 4).tobytes()  # T, Z, C, Y, X
        name = f"block{number}".encode("utf-16-le")
        blocks.append(
            _lif_block(struct.pack("<Q", len(data)) + LIF_PART + struct.pack("<I", len(name) // 2), name, data)
        )
    path.write_bytes(b"".join(blocks))


def _lif_block(head: bytes, *parts: bytes) -> bytes:
    size = 1 + len(head) + len(parts[0])
    return struct.pack("<II", LIF_BLOCK, size) + LIF_PART + head + b"".join(parts)


def _lif_element(name: str, pixels: Stack, block: str) -> str:
    times, channels, depth, height, width = pixels.shape
    item = pixels.itemsize
    plane = width * height * item
    lengths = {3: VOXEL[0] * 1e-6, 2: VOXEL[1] * 1e-6, 1: VOXEL[2] * 1e-6, 4: PERIOD}
    sizes = {
        1: (width, item),
        2: (height, width * item),
        3: (depth, plane * channels),
        4: (times, plane * channels * depth),
    }
    dimensions = "".join(
        f'<DimensionDescription DimID="{d}" NumberOfElements="{n}" Length="{lengths[d] * (n - 1)!r}" '
        f'Origin="0" Unit="{"s" if d == 4 else "m"}" BytesInc="{step}" BitInc="0"/>'
        for d, (n, step) in sizes.items()
    )
    colours = ("Blue", "Green", "Red")
    described = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="{item * 8}" NameOfMeasuredQuantity="" Min="0" '
        f'Max="255" Unit="" LUTName="{colours[c]}" IsLUTInverted="0" BytesInc="{c * plane}" BitInc="0"/>'
        for c in range(channels)
    )
    return (
        f"<Element Name={quoteattr(name)}><Data><Image><ImageDescription><Channels>{described}</Channels>"
        f"<Dimensions>{dimensions}</Dimensions></ImageDescription></Image></Data>"
        f'<Memory Size="{pixels.nbytes}" MemoryBlockID="{block}"/></Element>'
    )


# ---- Nikon -------------------------------------------------------------------------

ND2_CHUNK, ND2_NAME, ND2_FRAME_NAME = 0x0ABECEDA, 4096 - 16, 4096 - 16 - 8
ND2_START, ND2_MAP, ND2_END = (
    b"ND2 FILE SIGNATURE CHUNK NAME01!",
    b"ND2 FILEMAP SIGNATURE NAME 0001!",
    b"ND2 CHUNK MAP SIGNATURE 0000001!",
)


def write_nd2(path: Path, scenes: dict[str, Stack]) -> None:
    """ND2 with positions as scenes, the voxel size `SQUARE` and channels named `CHANNELS`."""
    content = struct.pack("<IIQ", ND2_CHUNK, 32, 64) + ND2_START + b"Ver3.0".ljust(64, b"\0")
    places: list[tuple[bytes, int, int]] = []
    for name, data in _nd2_chunks(list(scenes), list(scenes.values())):
        length = ND2_FRAME_NAME if name.startswith(b"ImageDataSeq") else ND2_NAME
        places.append((name, len(content), len(data)))
        content += struct.pack("<IIQ", ND2_CHUNK, length, len(data)) + name.ljust(length, b"\0") + data
    table = b"".join(name + struct.pack("<QQ", offset, size) for name, offset, size in places)
    table += ND2_END + struct.pack("<Q", len(content))
    path.write_bytes(content + struct.pack("<IIQ", ND2_CHUNK, 32, len(table)) + ND2_MAP + table)


def _nd2_chunks(names: list[str], stacks: list[Stack]) -> Iterator[tuple[bytes, bytes]]:
    times, channels, depth, height, width = stacks[0].shape
    item = stacks[0].itemsize
    frames = times * len(stacks) * depth
    attributes = {"uiWidth": width, "uiHeight": height, "uiComp": channels, "uiBpcInMemory": item * 8}
    attributes |= {"uiBpcSignificant": item * 8, "uiSequenceCount": frames, "eCompression": 2}
    yield b"ImageAttributesLV!", _xml(attributes | {"uiWidthBytes": width * channels * item})
    planes = {
        f"a{c}": {"sDescription": CHANNELS[c], "uiCompCount": 1, "pFluorescentProbe": {"m_uiColor": 0}}
        for c in range(channels)
    }
    calibrated = {"bCalibrated": True, "dCalibration": SQUARE[2]}
    yield b"ImageMetadataSeqLV|0!", _xml(calibrated | {"sPicturePlanes": {"uiCount": channels, "sPlaneNew": planes}})
    deep = {"eType": 4, "uLoopPars": {"uiCount": depth, "dZStep": SQUARE[0], "iType": 0}}
    points = {f"i{n:010}": {"dPosX": 10.0 * n, "pPosName": name} for n, name in enumerate(names)}
    wide = {"eType": 2, "uLoopPars": {"Points": points, "bUseZ": False}, "ppNextLevelEx": {f"i{0:010}": deep}}
    period = {"uiCount": times, "dStart": 0.0, "dPeriod": 1000 * PERIOD, "dDuration": 1000 * PERIOD * times}
    yield b"ImageMetadataLV!", _xml({"eType": 1, "uLoopPars": period, "ppNextLevelEx": {f"i{0:010}": wide}})
    yield b"CustomData|AcqTimesCache!", np.arange(frames, dtype=np.float64).tobytes()
    for number, (t, s, z) in enumerate(np.ndindex(times, len(stacks), depth)):
        frame = np.ascontiguousarray(stacks[s][t, :, z].transpose(1, 2, 0))  # Y, X, C
        yield f"ImageDataSeq|{number}!".encode(), struct.pack("<d", number) + frame.tobytes()


def _xml(content: dict[str, Any]) -> bytes:
    inside = "".join(_node(name, value) for name, value in content.items())
    return f'<variant version="1.0"><no_name runtype="CLxListVariant">{inside}</no_name></variant>'.encode()


def _node(name: str, value: Any) -> str:
    if isinstance(value, dict):
        inside = "".join(_node(key, item) for key, item in value.items())
        return f'<{name} runtype="CLxListVariant">{inside}</{name}>'
    kinds = {bool: "bool", int: "lx_uint32", float: "double", str: "CLxStringW"}
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f'<{name} runtype="{kinds[type(value)]}" value={quoteattr(text)}/>'
