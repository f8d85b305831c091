"""CZI, LIF and ND2 through aicsimageio or bioio: pixels, scenes, voxel size, channels, damage."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from io_contract import check_image, check_pickle, digest, ramp
from vendor_files import CHANNELS, PERIOD, SQUARE, VOXEL, Stack, write_czi, write_lif, write_nd2

from im2im_core.errors import DataError
from im2im_core.io import open_image, scenes

SHAPE = (2, 2, 3, 24, 20)
"""T, C, Z, Y, X of each scene."""
PARTS = {"aicsimageio": {"czi": "aicspylibczi", "lif": "readlif", "nd2": "nd2"},
         "bioio": {"czi": "bioio_czi", "lif": "bioio_lif", "nd2": "bioio_nd2"}}  # fmt: skip
"""Library -> what it needs for each format."""


class Format(NamedTuple):
    """What a file of a format says."""

    write: Callable[[Path, dict[str, Stack]], None]
    voxel: tuple[float, float, float]
    channels: tuple[str, ...] | None
    """Names of its channels; None where the file has none."""
    names: tuple[str, ...] | None
    """Names of its scenes; None where the library makes them up."""
    count: int = 2
    """Scenes that the file holds; those of a CZI are listed in a part that its library does not write."""


FORMATS = {
    "czi": Format(write_czi, VOXEL, None, None, 1),
    "lif": Format(write_lif, VOXEL, ("Blue", "Green"), ("field one", "field two")),
    "nd2": Format(write_nd2, SQUARE, CHANNELS, ("field one", "field two")),
}


@pytest.fixture(params=list(PARTS))
def library(request: pytest.FixtureRequest) -> str:
    """A library that is installed here."""
    name = str(request.param)
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture(params=list(FORMATS))
def suffix(request: pytest.FixtureRequest, library: str) -> str:
    """A format that `library` can read here and that can be written here."""
    name = str(request.param)
    needed = [PARTS[library][name], *(["pylibCZIrw"] if name == "czi" else [])]
    missing = [part for part in needed if find_spec(part) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    return name


def stacks(suffix: str, dtype: str = "uint16") -> dict[str, Stack]:
    first = ramp(SHAPE, dtype)
    both = {"field one": first, "field two": first[..., ::-1, :].copy()}
    return dict(list(both.items())[: FORMATS[suffix].count])


@pytest.fixture
def file(tmp_path: Path, suffix: str) -> Path:
    path = tmp_path / f"пробел ü #1.{suffix}"
    FORMATS[suffix].write(path, stacks(suffix))
    return path


def test_scenes_and_pixels(file: Path, suffix: str, library: str) -> None:
    before = digest(file)
    names = scenes(file, reader=library)
    assert len(names) == FORMATS[suffix].count
    assert names == (FORMATS[suffix].names or names)
    for number, pixels in enumerate(stacks(suffix).values()):
        for asked in (number, names[number]):
            image = open_image(file, scene=asked, reader=library)
            check_image(image, pixels, "TCZYX")
    check_pickle(open_image(file, scene=names[-1], reader=library))
    assert digest(file) == before


def test_what_the_file_says(file: Path, suffix: str, library: str) -> None:
    info = open_image(file, scene=FORMATS[suffix].count - 1, reader=library).info
    np.testing.assert_allclose(info.voxel_size, FORMATS[suffix].voxel, rtol=1e-6)  # type: ignore[arg-type]
    assert info.channels == (FORMATS[suffix].channels or ())
    assert info.time_step == (PERIOD if (library, suffix) == ("bioio", "nd2") else None)  # others do not tell it
    assert file.name in info.name
    identities = {open_image(file, scene=n, reader=library).info.identity for n in range(FORMATS[suffix].count)}
    assert len(identities) == FORMATS[suffix].count


def test_it_is_the_reader_that_is_chosen(file: Path, suffix: str, library: str) -> None:
    first = next(name for name in PARTS if find_spec(name) is not None)
    if library == first:
        check_image(open_image(file), next(iter(stacks(suffix).values())), "TCZYX")


def test_eight_bits(tmp_path: Path, suffix: str, library: str) -> None:
    path = tmp_path / f"a.{suffix}"
    FORMATS[suffix].write(path, stacks(suffix, "uint8"))
    check_image(open_image(path, reader=library), next(iter(stacks(suffix, "uint8").values())), "TCZYX")


def test_a_scene_that_is_not_there(file: Path, suffix: str, library: str) -> None:
    with pytest.raises(DataError, match=f"scenes are 0 to {FORMATS[suffix].count - 1}"):
        open_image(file, scene=2, reader=library)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_fault_09_a_file_that_is_cut_short(file: Path, library: str, share: float) -> None:
    """An error; never fewer planes, never planes of zeros."""
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"#1\."):
        read_all(file, library)


def read_all(file: Path, library: str) -> list[Any]:
    return [open_image(file, scene=name, reader=library).read() for name in scenes(file, reader=library)]
