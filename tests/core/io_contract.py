"""What every reader and writer of images must do; a new one is tested by an entry in the lists of test_io.py."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from im2im_core.axes import AXES, full_region
from im2im_core.image import Image, ImageInfo
from im2im_core.io import create_output, open_image

ODD_NAMES = ("plain", "пробел ü 画像 #1", "50% of a+b", "a b%20c?d&e")


def ramp(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Every pixel different where the type allows it, negative values and large ones included."""
    dtype = np.dtype(dtype)
    values = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    if dtype.kind == "b":
        return values % 3 == 0
    if dtype.kind == "f":
        return (values / 7 - 50).astype(dtype)
    limits = np.iinfo(dtype)
    low = limits.min if limits.min < 0 else limits.max - 250
    return (values % 251).astype(dtype) + np.array(low, dtype)


def info_of(array: np.ndarray, axes: str, **facts: Any) -> ImageInfo:
    sizes = dict(zip(axes, array.shape, strict=True))
    shape = tuple(sizes.get(a, 1) for a in AXES)
    return ImageInfo("test", shape, array.dtype, "".join(a for a in AXES if a in axes), **facts)  # type: ignore[arg-type]


def check_image(image: Image, expected: np.ndarray, axes: str) -> None:
    """An image obeys the protocol and holds exactly `expected`, a TCZYX array."""
    info = image.info
    assert isinstance(image, Image)
    assert info.shape == expected.shape
    assert info.axes == axes
    assert info.dtype.isnative
    assert info.dtype == expected.dtype.newbyteorder("=")
    assert info.identity
    assert all(isinstance(note, str) for note in info.notes)
    whole = image.read()
    assert whole.dtype == info.dtype
    np.testing.assert_array_equal(whole, expected)
    check_regions(image, whole)


def check_regions(image: Image, whole: np.ndarray) -> None:
    random = np.random.default_rng(0)
    for _ in range(12):
        starts = [int(random.integers(0, n)) for n in whole.shape]
        region = tuple(slice(a, int(random.integers(a + 1, n + 1))) for a, n in zip(starts, whole.shape, strict=True))
        part = image.read(region)  # type: ignore[arg-type]
        np.testing.assert_array_equal(part, whole[region])
        assert part.flags.writeable  # a caller may normalise in place; the source must not change by it
    assert image.read(tuple(slice(0, 0) for _ in AXES)).size == 0  # type: ignore[arg-type]


def check_pickle(image: Image) -> None:
    """A copy in another process reads the same."""
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(image)).read(), image.read())


def check_round_trip(path: Path, array: np.ndarray, axes: str, *, reader: str = "auto", **options: Any) -> Image:
    """Pixels written in pieces, out of order, come back through `reader` with all that was said about them."""
    info = info_of(array, axes, voxel_size=(2.0, 0.5, 0.25), time_step=1.5 if "T" in axes else None)
    if "C" in axes:
        info = replace(info, channels=tuple(f"channel ü {i}" for i in range(info.shape[1])))
    whole = array.reshape(info.shape)
    with create_output(path, info, **options) as writer:
        for region in reversed(pieces(info.shape)):
            assert not path.exists()
            writer.write(region, whole[region])
    image = open_image(path, reader=reader)
    stored = whole.astype({"bool": np.uint8, "float16": np.float32}.get(array.dtype.name, array.dtype))
    large = "".join(a for a, n in zip(AXES, info.shape, strict=True) if n > 1 or a in "YX")
    check_image(image, stored, large)
    assert image.info.voxel_size[1:] == info.voxel_size[1:]
    assert image.info.voxel_size[0] == (2.0 if "Z" in axes else image.info.voxel_size[0])
    assert image.info.time_step == info.time_step
    assert image.info.channels == info.channels
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    return image


def pieces(shape: tuple[int, ...]) -> list[Any]:
    """Regions that cover `shape` once, not aligned to anything."""
    t, c, z, y, x = full_region(shape)  # type: ignore[arg-type]
    half_y, half_x = y.stop // 2 + 1, x.stop // 3 + 1
    rows = [slice(0, half_y), slice(half_y, y.stop)]
    columns = [slice(0, half_x), slice(half_x, x.stop)]
    return [(slice(i, i + 1), c, z, r, k) for i in range(t.stop) for r in rows for k in columns]


def digest(path: Path) -> dict[str, tuple[str, int]]:
    """Content hash and time of every file at `path`."""
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return {str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in files}
