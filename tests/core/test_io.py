"""Readers and writers of images: the contract, formats, faults of files and of disks."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from io_contract import (
    ODD_NAMES,
    check_image,
    check_pickle,
    check_regions,
    check_round_trip,
    digest,
    info_of,
    ramp,
)

from im2im_core.errors import DataError, Im2ImError, ResourceError
from im2im_core.files import remove
from im2im_core.io import READERS, as_labels, create_output, is_image, open_image, scenes, write_image
from im2im_core.io import space as space_module

DTYPES = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"]
FORMATS = [".ome.tif", ".ome.zarr"]
LIBRARIES = ["aicsimageio", "bioio"]
"""Those that read what our own readers do not."""
COMPRESSIONS = [None, "zlib", "lzw", "zstd"]
AXES_CASES = [("YX", (33, 47)), ("ZYX", (5, 33, 47)), ("CYX", (3, 33, 47)), ("TCZYX", (2, 3, 4, 20, 31))]


def tczyx(array: np.ndarray, axes: str) -> np.ndarray:
    sizes = dict(zip(axes, array.shape, strict=True))
    order = [axes.index(a) for a in "TCZYX" if a in axes]
    return array.transpose(order).reshape([sizes.get(a, 1) for a in "TCZYX"])


def crop(**spans: tuple[int, int]) -> Any:
    return tuple(slice(*spans.get(a, (0, 1))) for a in "tczyx")


# ---- writers ----


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("axes", "shape"), AXES_CASES)
def test_round_trip(tmp_path: Path, suffix: str, axes: str, shape: tuple[int, ...]) -> None:
    image = check_round_trip(tmp_path / f"a{suffix}", ramp(shape, "uint16"), axes)
    check_pickle(image)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("suffix", FORMATS)
def test_fault_19_every_type_round_trips(tmp_path: Path, suffix: str, dtype: str) -> None:
    check_round_trip(tmp_path / f"a{suffix}", ramp((4, 21, 19), dtype), "ZYX")


@pytest.mark.parametrize("dtype", ["uint64", "int64"])
def test_fault_19_types_that_tiff_lacks_are_refused_and_zarr_has_them(tmp_path: Path, dtype: str) -> None:
    check_round_trip(tmp_path / "a.ome.zarr", ramp((21, 19), dtype), "YX")
    with pytest.raises(DataError, match=r"a\.tif: pixels of type .*64 cannot be stored.*\.ome\.zarr"):
        write_image(tmp_path / "b" / "a.tif", ramp((21, 19), dtype), "YX")


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("suffix", FORMATS)
def test_fault_39_odd_names(tmp_path: Path, suffix: str, name: str) -> None:
    check_round_trip(tmp_path / name / (name + suffix), ramp((5, 20, 30), "uint8"), "CYX")


def test_zarr_version_0_5(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    check_round_trip(path, ramp((3, 40, 50), "float32"), "CYX", version="0.5", chunks=(1, 1, 1, 16, 16))
    assert json.loads((path / "zarr.json").read_text())["attributes"]["ome"]["version"] == "0.5"


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_zarr_metadata_is_valid_for_another_library(tmp_path: Path, version: Any) -> None:
    yaozarrs = pytest.importorskip("yaozarrs")
    path = tmp_path / "a.ome.zarr"
    check_round_trip(path, ramp((2, 3, 4, 20, 31), "uint16"), "TCZYX", version=version)
    yaozarrs.validate_zarr_store(str(path))


def test_zarr_is_read_by_zarr_python(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    array = ramp((3, 40, 50), "int16")
    write_image(tmp_path / "a.ome.zarr", array, "ZYX")
    np.testing.assert_array_equal(zarr.open(str(tmp_path / "a.ome.zarr"), mode="r")["0"][:], array)


def test_tiff_is_read_by_tifffile(tmp_path: Path) -> None:
    array = ramp((2, 3, 40, 50), "float32")
    write_image(tmp_path / "a.ome.tif", array, "CZYX", voxel_size=(1.0, 0.2, 0.2))
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        assert tif.is_bigtiff
        assert tif.series[0].axes == "ZCYX" or tif.series[0].axes == "CZYX"
        np.testing.assert_array_equal(tif.asarray(), array)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("suffix", FORMATS)
def test_pyramid_levels_are_means_or_ids(tmp_path: Path, suffix: str, labels: bool) -> None:
    array = np.random.default_rng(0).integers(0, 60000, (2, 1100, 700)).astype("uint16")
    info = info_of(array, "CYX", voxel_size=(None, 0.5, 0.5))
    path = tmp_path / f"a{suffix}"
    with create_output(path, info, pyramid=True, labels=labels) as writer:
        writer.write(crop(c=(0, 2), y=(0, 1100), x=(0, 700)), array[None, :, None])
    check_regions(open_image(path), array[None, :, None])
    levels = _levels(path)
    assert [level.shape[-2:] for level in levels] == [(1100, 700), (550, 350), (275, 175)]
    blocks = array.reshape(2, 550, 2, 350, 2)
    expected = blocks[:, :, 0, :, 0] if labels else np.rint(blocks.mean((2, 4)))
    np.testing.assert_array_equal(levels[1], expected)
    if labels:
        assert set(np.unique(levels[2])) <= set(np.unique(array))


def _levels(path: Path) -> list[np.ndarray]:
    if path.is_dir():
        return [open_image(path / str(i), axes="CYX").read()[0, :, 0] for i in range(3)]
    with tifffile.TiffFile(path) as tif:
        return [level.asarray() for level in tif.series[0].levels]


@pytest.mark.parametrize("suffix", FORMATS)
def test_regions_written_by_threads(tmp_path: Path, suffix: str) -> None:
    array = ramp((6, 90, 110), "int32")
    info = info_of(array, "ZYX")
    with create_output(tmp_path / f"a{suffix}", info, chunks=(1, 1, 2, 32, 32)) as writer:
        jobs = [crop(z=(z, z + 1), y=(y, y + 30), x=(0, 110)) for z in range(6) for y in (0, 30, 60)]
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda region: writer.write(region, array[None, None][region]), jobs))
    np.testing.assert_array_equal(open_image(tmp_path / f"a{suffix}").read()[0, 0], array)


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_error_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    array = ramp((20, 30), "uint8")

    def fail() -> None:
        with create_output(tmp_path / f"a{suffix}", info_of(array, "YX")) as writer:
            writer.write(crop(y=(0, 20), x=(0, 30)), array[None, None, None])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_writer_refuses_what_does_not_fit(tmp_path: Path, suffix: str) -> None:
    writer = create_output(tmp_path / f"a{suffix}", info_of(np.zeros((20, 30), "uint16"), "YX"))
    with pytest.raises(DataError, match="do not fill a region"):
        writer.write(crop(y=(0, 20), x=(0, 30)), np.zeros((1, 1, 1, 20, 29), "uint16"))
    with pytest.raises(DataError, match="float32 do not fit into uint16"):
        writer.write(crop(y=(0, 1), x=(0, 1)), np.zeros((1, 1, 1, 1, 1), "float32"))
    with pytest.raises(DataError, match="not inside the image"):
        writer.write(crop(y=(0, 21), x=(0, 1)), np.zeros((1, 1, 1, 21, 1), "uint16"))
    writer.abort()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_fault_08_output_exists(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    old, new = ramp((20, 30), "uint8"), ramp((25, 35), "float32")
    write_image(path, old, "YX")
    with pytest.raises(ResourceError, match="--overwrite"):
        write_image(path, new, "YX")
    with pytest.raises(KeyError), create_output(path, info_of(new, "YX"), overwrite=True):
        raise KeyError
    np.testing.assert_array_equal(open_image(path).read().squeeze(), old)
    write_image(path, new, "YX", overwrite=True)
    np.testing.assert_array_equal(open_image(path).read().squeeze(), new)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


_KILLED = """
import os, sys, numpy as np
from pathlib import Path
from im2im_core import files
from im2im_core.io import write_image

real, calls = os.replace, []

def replace(source, target):
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    calls.append(target)
    real(source, target)

os.replace = replace
write_image(sys.argv[1], np.full((25, 35), 7, "uint8"), "YX", overwrite=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
@pytest.mark.parametrize(("suffix", "renames"), [(".ome.tif", 0), (".ome.zarr", 0), (".ome.zarr", 1)])
def test_fault_08_killed_while_it_overwrites(tmp_path: Path, suffix: str, renames: int) -> None:
    """A folder is moved aside before the new one gets its name; the next start puts it back."""
    path = tmp_path / f"画像 [1]{suffix}"
    old = ramp((20, 30), "uint8")
    write_image(path, old, "YX")
    before = digest(path)
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(path), str(renames)], check=False)
    assert killed.returncode == -9
    assert path.exists() == (renames == 0)
    with pytest.raises(ResourceError, match="exists"):
        write_image(path, old, "YX")
    assert digest(path) == before
    new = ramp((25, 35), "float32")
    write_image(path, new, "YX", overwrite=True)
    np.testing.assert_array_equal(open_image(path).read().squeeze(), new)
    assert not list(tmp_path.glob(".*.old"))


def test_fault_08_the_old_result_goes_when_the_new_one_stands(tmp_path: Path) -> None:
    path, dead = tmp_path / "a.ome.zarr", 999_999_999
    write_image(path, ramp((20, 30), "uint8"), "YX")
    gone, kept = tmp_path / f".a.ome.zarr.{dead}.old", tmp_path / f".a.ome.zarr.b.{dead}.old"
    living = tmp_path / f".a.ome.zarr.{os.getppid()}.old"
    for folder in (gone, kept, living):
        folder.mkdir()
        (folder / "0").write_bytes(b"chunk")
    write_image(path, ramp((25, 35), "uint8"), "YX", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([kept.name, living.name, path.name])


@pytest.mark.parametrize("suffix", FORMATS)
def test_fault_06_full_disk_is_found_before(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(space_module.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 20 * 2**20))
    with pytest.raises(ResourceError, match=r"needs 416 MB, 20 MB are free") as caught:
        create_output(tmp_path / f"a{suffix}", info_of(np.broadcast_to(np.float32(0), (10000, 10485, 1)), "YXZ"))
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_fault_06_tiff_space_is_reserved_not_mapped(tmp_path: Path) -> None:
    writer = create_output(tmp_path / "a.ome.tif", info_of(np.broadcast_to(np.uint8(0), (2000, 2000)), "YX"))
    (part,) = tmp_path.iterdir()
    assert part.stat().st_blocks * 512 >= 4_000_000
    writer.abort()


def test_unwritable_formats_and_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.ome\.tif"):
        write_image(tmp_path / "a.png", np.zeros((4, 4), "uint8"), "YX")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResourceError, match="Cannot write"):
        write_image(tmp_path / "file" / "a.tif", np.zeros((4, 4), "uint8"), "YX")


# ---- TIFF ----


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("tile", [None, (16, 32)])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_tiff_layouts(tmp_path: Path, byteorder: Any, tile: Any, compression: Any) -> None:
    array = ramp((3, 2, 50, 70), "int16")
    tifffile.imwrite(
        tmp_path / "a.tif",
        array,
        byteorder=byteorder,
        tile=tile,
        compression=compression,
        predictor=compression is not None,
        rowsperstrip=None if tile else 7,
        metadata={"axes": "ZCYX"},
    )
    image = open_image(tmp_path / "a.tif")
    check_image(image, tczyx(array, "ZCYX"), "CZYX")
    check_pickle(image)


@pytest.mark.parametrize("dtype", [*DTYPES, "uint64", "int64"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_fault_19_tiff_types(tmp_path: Path, byteorder: Any, dtype: str) -> None:
    array = ramp((2, 30, 40), dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, byteorder=byteorder, metadata={"axes": "TYX"})
    check_image(open_image(tmp_path / "a.tif"), tczyx(array, "TYX"), "TYX")


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_rgb_becomes_channels(tmp_path: Path, planar: Any, compression: Any) -> None:
    array = ramp((30, 40, 3), "uint8")
    stored = array if planar == "contig" else np.moveaxis(array, -1, 0)
    axes = "YXS" if planar == "contig" else "SYX"
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar, compression=compression,
                     metadata={"axes": axes})  # fmt: skip
    image = open_image(tmp_path / "a.tif")
    check_image(image, array.transpose(2, 0, 1)[None, :, None], "CYX")
    assert image.info.channels == ("red", "green", "blue")
    assert any("RGB" in note for note in image.info.notes)


AMBIGUOUS: list[tuple[tuple[int, ...], dict[str, Any], str]] = [
    ((3, 30, 40), {}, "ZYX, TYX, CYX"),
    ((3, 30, 40), {"photometric": "minisblack"}, "ZYX, TYX, CYX"),
    ((30, 40, 3), {"photometric": "minisblack"}, "YXC"),
    ((30, 40, 4), {"photometric": "minisblack", "metadata": None}, "YXC"),
    ((5, 30, 40), {"metadata": None, "compression": "zlib"}, "ZYX"),
    ((5, 1, 6, 30, 40), {"photometric": "minisblack"}, "TZYX"),
]


@pytest.mark.parametrize(("shape", "options", "choice"), AMBIGUOUS)
def test_fault_18_ambiguous_axes_are_asked_for(tmp_path: Path, shape: Any, options: Any, choice: str) -> None:
    array = ramp(shape, "uint8")
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    with pytest.raises(DataError, match=f"axes=.*{choice}"):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((3, 30, 40), "CYX"), ((30, 40, 3), "YXC"), ((30, 40, 3), "YXS"), ((30, 40, 4), "YXC")],
)
@pytest.mark.parametrize("options", [{"metadata": None}, {}])
def test_fault_18_told_axes_are_used(tmp_path: Path, shape: Any, axes: str, options: Any) -> None:
    array = ramp(shape, "uint8")
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", **options)
    named = axes.replace("S", "C")
    expected = tczyx(array, named)
    check_image(open_image(tmp_path / "a.tif", axes=axes), expected, "".join(a for a in "TCZYX" if a in named))


def test_fault_18_singleton_axis(tmp_path: Path) -> None:
    array = ramp((5, 1, 6, 30, 40), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", array)
    check_image(open_image(tmp_path / "a.tif", axes="TCZYX"), array, "TCZYX")
    check_image(open_image(tmp_path / "a.tif", axes="TZYX"), array, "TZYX")
    with pytest.raises(DataError, match=r"axes 'CYX' name 3 dimensions, the file has 4: \(5, 6, 30, 40\)"):
        open_image(tmp_path / "a.tif", axes="CYX")


def test_told_axes_rename_trusted_ones_but_never_reorder_them(tmp_path: Path) -> None:
    array = ramp((5, 2, 30, 40), "uint8")
    tifffile.imwrite(tmp_path / "a.ome.tif", array, metadata={"axes": "ZCYX"})
    check_image(open_image(tmp_path / "a.ome.tif", axes="TCYX"), tczyx(array, "TCYX"), "TCYX")
    with pytest.raises(DataError, match="the file itself says 'ZCYX'"):
        open_image(tmp_path / "a.ome.tif", axes="CZYX")


def test_ome_tiff_metadata_and_units(tmp_path: Path) -> None:
    array = ramp((2, 3, 2, 30, 40), "uint16")
    metadata = {
        "axes": "TZCYX", "PhysicalSizeX": 120.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.00012,
        "PhysicalSizeYUnit": "mm", "PhysicalSizeZ": 0.5, "PhysicalSizeZUnit": "µm", "TimeIncrement": 2.0,
        "TimeIncrementUnit": "min", "Channel": {"Name": ["DAPI", "ü"]},
    }  # fmt: skip
    tifffile.imwrite(tmp_path / "a.ome.tif", array, metadata=metadata)
    image = open_image(tmp_path / "a.ome.tif")
    check_image(image, tczyx(array, "TZCYX"), "TCZYX")
    np.testing.assert_allclose(image.info.voxel_size, (0.5, 0.12, 0.12))
    assert image.info.channels == ("DAPI", "ü")
    assert image.info.time_step == 120.0


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("axes", ["TZCYX", "ZYX", "YX"])
def test_imagej_hyperstack(tmp_path: Path, axes: str, compression: Any) -> None:
    shape = {"TZCYX": (2, 3, 2, 30, 40), "ZYX": (4, 30, 40), "YX": (30, 40)}[axes]
    array = ramp(shape, "uint16")
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, resolution=(5.0, 4.0), compression=compression,
                     metadata={"axes": axes, "spacing": 0.7, "unit": "um", "finterval": 3.5})  # fmt: skip
    image = open_image(tmp_path / "a.tif")
    check_image(image, tczyx(array, axes), "".join(a for a in "TCZYX" if a in axes))
    np.testing.assert_allclose(image.info.voxel_size, (0.7, 0.25, 0.2))
    assert image.info.time_step == 3.5


@pytest.mark.parametrize(
    ("resolution", "unit", "size"),
    [((50000.0, 50000.0), "CENTIMETER", 0.2), ((127000.0, 127000.0), "INCH", 0.2), ((300.0, 300.0), "INCH", None),
     ((72.0, 72.0), "INCH", None), ((5.0, 5.0), "NONE", None), ((1.0, 1.0), "CENTIMETER", None)],
)  # fmt: skip
def test_fault_20_resolution_tags_only_when_plausible(tmp_path: Path, resolution: Any, unit: str, size: Any) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp((30, 40), "uint8"), resolution=resolution, resolutionunit=unit)
    info = open_image(tmp_path / "a.tif").info
    assert info.voxel_size == (None, pytest.approx(size) if size else None, pytest.approx(size) if size else None)
    assert bool(info.notes) == (size is None and unit != "NONE")


@pytest.mark.parametrize("ome", [False, True])
def test_tiff_scenes(tmp_path: Path, ome: bool) -> None:
    arrays = [ramp((3, 30, 40), "uint8"), ramp((20, 25), "uint16")]
    path = tmp_path / ("a.ome.tif" if ome else "a.tif")
    with tifffile.TiffWriter(path, ome=ome) as tif:
        tif.write(arrays[0], metadata={"axes": "ZYX", "Name": "first", "PhysicalSizeX": 0.5}, photometric="minisblack")
        tif.write(arrays[1], metadata={"axes": "YX", "Name": "second", "PhysicalSizeX": 0.7})
    names = scenes(path)
    assert len(names) == 2
    check_image(open_image(path), tczyx(arrays[0], "ZYX"), "ZYX")
    check_image(open_image(path, scene=1), tczyx(arrays[1], "YX"), "YX")
    second = open_image(path, scene=names[1])
    check_image(second, tczyx(arrays[1], "YX"), "YX")
    assert second.info.identity != open_image(path).info.identity
    if ome:
        assert names == ("first", "second")
        assert second.info.voxel_size[2] == 0.7
    with pytest.raises(DataError, match="no scene 7"):
        open_image(path, scene=7)


def test_multi_file_ome_with_a_missing_file(tmp_path: Path) -> None:
    array = ramp((2, 30, 40), "uint8")
    for i in range(2):
        tifffile.imwrite(tmp_path / f"f{i}.ome.tif", array[i], metadata=None)
    planes = "".join(
        f'<TiffData IFD="0" FirstZ="{i}" PlaneCount="1"><UUID FileName="f{i}.ome.tif">urn:uuid:{i}</UUID></TiffData>'
        for i in range(2)
    )
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="40" SizeY="30" '
        f'SizeZ="2" SizeC="1" SizeT="1"><Channel ID="Channel:0:0"/>{planes}</Pixels></Image></OME>'
    )
    tifffile.imwrite(tmp_path / "f0.ome.tif", array[0], description=xml, metadata=None)
    check_image(open_image(tmp_path / "f0.ome.tif"), tczyx(array, "ZYX"), "ZYX")
    (tmp_path / "f1.ome.tif").unlink()
    with pytest.raises(DataError, match="2 pages are expected, 1 are found"):
        open_image(tmp_path / "f0.ome.tif")


def _stacks() -> dict[str, dict[str, Any]]:
    return {
        "strip": {"metadata": {"axes": "ZYX"}},
        "strip-many": {"metadata": {"axes": "ZYX"}, "rowsperstrip": 8},
        "pages": {"metadata": None},
        "tile": {"metadata": {"axes": "ZYX"}, "tile": (32, 32)},
        "zlib": {"metadata": {"axes": "ZYX"}, "compression": "zlib"},
        "lzw-tile": {"metadata": {"axes": "ZYX"}, "compression": "lzw", "tile": (32, 32)},
        "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
        "imagej-zlib": {"imagej": True, "metadata": {"axes": "ZYX"}, "compression": "zlib"},
        "ome": {"ome": True, "metadata": {"axes": "ZYX"}},
        "ome-zlib": {"ome": True, "metadata": {"axes": "ZYX"}, "compression": "zlib"},
        "ome-tile-big": {"ome": True, "metadata": {"axes": "ZYX"}, "tile": (32, 32), "bigtiff": True},
        "big-endian": {"metadata": {"axes": "ZYX"}, "byteorder": ">", "bigtiff": True},
    }


@pytest.mark.parametrize("variant", list(_stacks()))
def test_fault_09_truncated_tiff(tmp_path: Path, variant: str) -> None:
    array = np.random.default_rng(0).integers(0, 4000, (12, 64, 64)).astype("uint16")
    whole = tmp_path / "whole.tif"
    tifffile.imwrite(whole, array, photometric="minisblack", **_stacks()[variant])
    content = whole.read_bytes()
    np.testing.assert_array_equal(open_image(whole, axes="ZYX").read()[0, 0], array)
    cuts = sorted({len(content) * p // 100 for p in range(10, 100)} | {0, 3, 8, 20, len(content) - 1, len(content) - 9})
    raised = 0
    for size in cuts:
        cut = tmp_path / "cut.tif"
        cut.write_bytes(content[:size])
        try:
            pixels = open_image(cut, axes="ZYX").read()[0, 0]
        except DataError:
            raised += 1
            continue
        np.testing.assert_array_equal(pixels, array)
    assert raised >= len(cuts) - 2  # the last bytes may be padding


def test_fault_09_error_names_expected_and_found(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 256, 256), "uint8"), imagej=True, metadata={"axes": "ZYX"})
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"cut short.*the file has {len(content) // 2} bytes") as caught:
        open_image(tmp_path / "a.tif")
    assert caught.value.exit_code == 3


def test_imagej_file_without_directories_after_the_first(tmp_path: Path) -> None:
    array = ramp((20, 64, 64), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        offset, field = tif.series[0].dataoffset, tif.pages[0].offset
        tags = len(tif.pages[0].tags)
    content = bytearray((tmp_path / "a.tif").read_bytes()[: offset + array.nbytes])
    content[field + 2 + 12 * tags : field + 6 + 12 * tags] = b"\0" * 4
    (tmp_path / "a.tif").write_bytes(content)
    check_image(open_image(tmp_path / "a.tif"), tczyx(array, "ZYX"), "ZYX")
    for keep in (0.2, 0.5, 0.99):
        (tmp_path / "a.tif").write_bytes(content[: int(len(content) * keep)])
        with pytest.raises(DataError, match="20 planes"):
            open_image(tmp_path / "a.tif")


def test_damaged_strip_is_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp((64, 64), "uint16"), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        offset = tif.pages[0].dataoffsets[0]
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[offset : offset + 8] = b"\xff" * 8
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(DataError, match="strip or tile 0 of page 1 cannot be decoded"):
        open_image(tmp_path / "a.tif").read()


@pytest.mark.parametrize("content", [b"", b"II", b"hello world, this is text", b"II*\0\xff\xff\xff\x7f" + b"\0" * 40])
def test_no_tiff_at_all(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tif"):
        open_image(tmp_path / "a.tif")


# ---- reading little ----


def test_crop_of_a_tiled_tiff_decodes_only_its_tiles(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (4, 1024, 1024)).astype("uint8")
    tifffile.imwrite(tmp_path / "a.tif", array, tile=(128, 128), compression="zlib", metadata={"axes": "ZYX"})
    image: Any = open_image(tmp_path / "a.tif")
    region = crop(t=(0, 1), z=(2, 3), y=(130, 250), x=(250, 260))
    np.testing.assert_array_equal(image.read(region)[0, 0], array[2:3, 130:250, 250:260])
    assert image._pixels.segments_decoded == 2
    image.read(region)
    assert image._pixels.segments_decoded == 2  # from the cache


@pytest.mark.parametrize("kind", ["tiled.tif", "plain.tif", "a.ome.zarr"])
def test_crop_reads_few_bytes(tmp_path: Path, kind: str) -> None:
    counter = Path("/proc/self/io")
    if not counter.exists():
        pytest.skip("the system does not count bytes")
    array = np.random.default_rng(0).integers(0, 2**16, (8, 1024, 1024)).astype("uint16")
    if kind == "tiled.tif":
        tifffile.imwrite(tmp_path / kind, array, tile=(128, 128), compression="zlib", metadata={"axes": "ZYX"})
    else:
        write_image(tmp_path / kind, array, "ZYX")
    image = open_image(tmp_path / kind)
    image.read(crop(z=(0, 1), y=(0, 1), x=(0, 1)))

    def characters() -> int:
        return int(counter.read_text().split("rchar: ")[1].split()[0])

    before = characters()
    part = image.read(crop(z=(3, 4), y=(500, 564), x=(500, 564)))
    assert characters() - before < array.nbytes / 3
    np.testing.assert_array_equal(part[0, 0], array[3:4, 500:564, 500:564])


@pytest.mark.timing
def test_opening_is_fast(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", ramp((2, 256, 256), "uint16"), metadata={"axes": "CYX"}, ome=True)

    def best(work: Any) -> float:
        times = []
        for _ in range(15):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times)

    plain = best(lambda: tifffile.imread(tmp_path / "a.ome.tif"))
    ours = best(lambda: open_image(tmp_path / "a.ome.tif").read())
    assert ours - plain < 0.005


def test_threads_read_the_same_image(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (8, 200, 200)).astype("uint8")
    tifffile.imwrite(tmp_path / "a.tif", array, tile=(64, 64), compression="lzw", metadata={"axes": "ZYX"})
    image = open_image(tmp_path / "a.tif")
    regions = [crop(z=(z, z + 1), y=(a, a + 90), x=(7, 199)) for z in range(8) for a in range(0, 110, 10)]
    with ThreadPoolExecutor(6) as pool:
        for region, part in zip(regions, pool.map(image.read, regions), strict=True):
            np.testing.assert_array_equal(part, array[None, None][region])


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    heavy = ("tifffile", "tensorstore", "dask", "aicsimageio")
    code = f"import sys, im2im_core.io; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_folder_into_which_a_late_write_falls_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, real, calls = tmp_path / "a", shutil.rmtree, []

    def busy(path: Path) -> None:
        calls.append(path)
        if len(calls) < 3:
            raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))
        real(path)

    folder.mkdir()
    monkeypatch.setattr(shutil, "rmtree", busy)
    with pytest.raises(OSError, match="not empty"):
        remove(folder)
    remove(folder, patience=5)
    assert not folder.exists()


_SMALL_DISK = """
import sys, numpy as np
sys.path.insert(0, {tests!r})
from io_contract import info_of
from im2im_core.errors import ResourceError
from im2im_core.io import create_output, space
from pathlib import Path
space.require_space = lambda *_: None
import im2im_core.io.ome_zarr_writer as z, im2im_core.io.tiff_writer as t
z.require_space = t.require_space = space.require_space
array = np.random.default_rng(0).random((16, 1024, 1024)).astype("float32")
try:
    with create_output(Path({folder!r}) / "a{suffix}", info_of(array, "ZYX")) as writer:
        writer.write(tuple(slice(0, n) for n in (1, 1, 16, 1024, 1024)), array[None, None])
except ResourceError as error:
    print("REFUSED", error, [p.name for p in Path({folder!r}).iterdir()])
"""


@pytest.mark.parametrize("suffix", FORMATS)
def test_fault_06_disk_that_fills_up_while_writing(tmp_path: Path, suffix: str) -> None:
    code = _SMALL_DISK.format(tests=str(Path(__file__).parent), folder=str(tmp_path), suffix=suffix)
    script = tmp_path.parent / f"small_disk{suffix}.py"
    script.write_text(code)
    mount = f"mount -t tmpfs -o size=8m none '{tmp_path}' || exit 99; exec '{sys.executable}' '{script}'"
    if shutil.which("unshare") is None:
        pytest.skip("the system has no unshare")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, text=True, check=False)
    if done.returncode in (1, 99) and "REFUSED" not in done.stdout and "Traceback" not in done.stderr:
        pytest.skip("small disks cannot be made here")
    assert done.returncode == 0, done.stderr
    assert "REFUSED" in done.stdout
    assert done.stdout.strip().endswith("[]")


# ---- OME-Zarr ----


def _group(path: Path, content: dict[str, Any]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    (path / ".zattrs").write_text(json.dumps(content))
    return path


def test_zarr_units_and_nested_scales(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_image(path, ramp((3, 20, 30), "uint8"), "ZYX")
    content = json.loads((path / ".zattrs").read_text())
    image = content["multiscales"][0]
    image["axes"] = [{"name": n, "type": "space", "unit": u} for n, u in
                     zip("zyx", ("nanometer", "micrometer", "millimeter"), strict=True)]  # fmt: skip
    image["datasets"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [250, 0.25, 0.0005]}]
    image["coordinateTransformations"] = [{"type": "scale", "scale": [2, 1, 1]}]
    _group(path, content)
    np.testing.assert_allclose(open_image(path).info.voxel_size, (0.5, 0.25, 0.5))
    for axis in image["axes"]:
        del axis["unit"]
    _group(path, content)
    info = open_image(path).info
    np.testing.assert_allclose(info.voxel_size, (500, 0.25, 0.0005))
    assert any("micrometres are assumed" in note for note in info.notes)


def test_fault_20_zarr_without_voxel_size_says_unknown(tmp_path: Path) -> None:
    write_image(tmp_path / "a.zarr", ramp((3, 20, 30), "uint8"), "ZYX")
    assert open_image(tmp_path / "a.zarr").info.voxel_size == (None, None, None)


def test_zarr_scenes_of_plate_and_collection(tmp_path: Path) -> None:
    array = ramp((20, 30), "uint8")
    fields = {"A/1/0": array, "A/1/1": array + 1, "B/2/0": array + 2}
    plate = _group(tmp_path / "p.zarr", {"plate": {"wells": [{"path": "A/1"}, {"path": "B/2"}]}})
    _group(plate / "A" / "1", {"well": {"images": [{"path": "0"}, {"path": "1"}]}})
    _group(plate / "B" / "2", {"well": {"images": [{"path": "0"}]}})
    for name, pixels in fields.items():
        write_image(tmp_path / "one.zarr", pixels, "YX", overwrite=True)
        shutil.move(tmp_path / "one.zarr", plate / name)
    assert scenes(plate) == tuple(fields)
    for name, pixels in fields.items():
        np.testing.assert_array_equal(open_image(plate, scene=name).read()[0, 0, 0], pixels)
    assert scenes(plate / "A" / "1") == ("0", "1")
    several = _group(tmp_path / "c.zarr", {"bioformats2raw.layout": 3})
    for name in ("10", "2"):
        shutil.copytree(plate / "A" / "1" / "1", several / name)
    assert scenes(several) == ("2", "10")
    np.testing.assert_array_equal(open_image(several, scene=1).read()[0, 0, 0], fields["A/1/1"])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_plain_zarr_array_needs_axes(tmp_path: Path, version: Any) -> None:
    array = ramp((3, 20, 30), "uint8")
    with create_output(tmp_path / "a.zarr", info_of(array, "ZYX"), version=version) as writer:
        writer.write(crop(z=(0, 3), y=(0, 20), x=(0, 30)), array[None, None])
    inner = tmp_path / "a.zarr" / "0"
    if version == "0.4":
        with pytest.raises(DataError, match="axes="):
            open_image(inner)
    else:
        check_image(open_image(inner), tczyx(array, "ZYX"), "ZYX")  # Zarr 3 names its dimensions
    check_image(open_image(inner, axes="TYX"), tczyx(array, "TYX"), "TYX")


def test_big_endian_zarr(tmp_path: Path) -> None:
    ts = pytest.importorskip("tensorstore")
    array = ramp((20, 30), "int16")
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{tmp_path}/a.zarr/"},
            "metadata": {"shape": [20, 30], "chunks": [8, 8], "dtype": ">i2"}}  # fmt: skip
    ts.open(spec, create=True).result()[:].write(array).result()
    check_image(open_image(tmp_path / "a.zarr"), tczyx(array, "YX"), "YX")


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_fault_10_corrupt_chunk_is_named(tmp_path: Path, damage: str) -> None:
    version: Any = "0.5" if damage == "flip" else "0.4"
    array = np.random.default_rng(0).random((64, 64)).astype("float32")
    path = tmp_path / "a.ome.zarr"
    with create_output(path, info_of(array, "YX"), chunks=(1, 1, 1, 32, 32), version=version) as writer:
        writer.write(crop(y=(0, 64), x=(0, 64)), array[None, None, None])
    chunk = path / "0" / ("c/1/1" if damage == "flip" else "1/1")
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    image = open_image(path)
    np.testing.assert_array_equal(image.read(crop(y=(0, 32), x=(0, 64)))[0, 0, 0], array[:32])
    with pytest.raises(DataError, match=r"Y 30:60, X 0:64.*1/1"):
        image.read(crop(y=(30, 60), x=(0, 64)))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("shape", [(3, 70, 50), (70, 50)])
def test_fault_10_lost_chunk_is_named(tmp_path: Path, version: Any, shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, "uint16")
    array[..., 40:, 20:40] = 7  # most chunks are zeros, which are never stored
    axes, path = "CYX"[-len(shape) :], tmp_path / "a.ome.zarr"
    info = info_of(array, axes)
    with create_output(path, info, chunks=(1, 1, 1, 16, 16), version=version) as writer:
        writer.write(tuple(slice(0, n) for n in info.shape), array.reshape(info.shape))  # type: ignore[arg-type]
    np.testing.assert_array_equal(open_image(path).read().reshape(shape), array)
    first = path / "0" / ("c" if version == "0.5" else "") / ("0/2/1" if len(shape) == 3 else "2/1")
    first.unlink()
    with pytest.raises(DataError, match=rf"a\.ome\.zarr.*1 chunk.*missing.*{'0/2/1' if len(shape) == 3 else '2/1'}"):
        open_image(path)


def test_chunks_that_another_program_left_out_are_its_fill_value(tmp_path: Path) -> None:
    write_image(tmp_path / "a.ome.zarr", np.ones((40, 40), "uint8"), "YX")
    attributes = json.loads((tmp_path / "a.ome.zarr" / ".zattrs").read_text())
    del attributes["im2im"]
    (tmp_path / "a.ome.zarr" / ".zattrs").write_text(json.dumps(attributes))
    (tmp_path / "a.ome.zarr" / "0" / "0" / "0").unlink()
    assert open_image(tmp_path / "a.ome.zarr").read().max() == 0


@pytest.mark.parametrize("content", ["{", '{"multiscales": [{"datasets": []}]}', '{"multiscales": [{}]}', "{}"])
def test_damaged_zarr_metadata(tmp_path: Path, content: str) -> None:
    write_image(tmp_path / "a.zarr", ramp((20, 30), "uint8"), "YX")
    (tmp_path / "a.zarr" / ".zattrs").write_text(content)
    with pytest.raises(DataError, match=r"a\.zarr"):
        open_image(tmp_path / "a.zarr")


# ---- other libraries under the same protocol ----


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    """A library that is installed here."""
    name = str(request.param)
    pytest.importorskip(name)
    return name


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("axes", "shape"), AXES_CASES)
def test_other_libraries_read_the_same(
    tmp_path: Path, library: str, suffix: str, axes: str, shape: tuple[int, ...]
) -> None:
    check_pickle(check_round_trip(tmp_path / f"a{suffix}", ramp(shape, "uint16"), axes, reader=library))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("suffix", FORMATS)
def test_fault_19_every_type_through_other_libraries(tmp_path: Path, library: str, suffix: str, dtype: str) -> None:
    check_round_trip(tmp_path / f"a{suffix}", ramp((4, 21, 19), dtype), "ZYX", reader=library)


@pytest.mark.parametrize("dtype", ["int16", "uint32", "float32", "float64"])
def test_fault_19_big_endian_through_other_libraries(tmp_path: Path, library: str, dtype: str) -> None:
    array = ramp((4, 21, 19), dtype)
    tifffile.imwrite(tmp_path / "a.ome.tif", array, byteorder=">", compression="zlib", metadata={"axes": "ZYX"})
    check_image(open_image(tmp_path / "a.ome.tif", reader=library), tczyx(array, "ZYX"), "ZYX")


def test_units_through_other_libraries(tmp_path: Path, library: str) -> None:
    """Those libraries give the numbers of a file without their units."""
    array = ramp((3, 4, 21, 19), "uint8")
    sizes = {"PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.0005, "PhysicalSizeYUnit": "mm"}
    times = {"TimeIncrement": 2.0, "TimeIncrementUnit": "min"}
    tifffile.imwrite(tmp_path / "a.ome.tif", array, metadata={"axes": "TZYX", **sizes, **times})
    write_image(tmp_path / "a.ome.zarr", array, "TZYX", voxel_size=(1.0, 0.5, 0.25), time_step=2.0)
    text = (tmp_path / "a.ome.zarr" / ".zattrs").read_text()
    (tmp_path / "a.ome.zarr" / ".zattrs").write_text(text.replace("second", "minute").replace("micro", "nano"))
    told = [open_image(tmp_path / name, reader=library).info for name in ("a.ome.tif", "a.ome.zarr")]
    np.testing.assert_allclose(told[0].voxel_size[1:], (0.5, 0.25))
    np.testing.assert_allclose(told[1].voxel_size, (0.001, 0.0005, 0.00025))  # type: ignore[arg-type]
    assert [info.time_step for info in told] == [120.0, 120.0]


@pytest.mark.parametrize(
    ("interval", "seconds"),
    [(timedelta(milliseconds=1500), 1.5), (timedelta(0), None), (2.0, None), (None, None)],
)
def test_a_time_without_a_unit_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval: Any, seconds: float | None
) -> None:
    from im2im_core.io.stack import stack_image

    (tmp_path / "a.czi").write_bytes(b"x")
    stack = _FakeBioImage(tmp_path / "a.czi")
    monkeypatch.setattr(stack, "time_interval", interval, raising=False)
    assert stack_image(stack, tmp_path / "a.czi", 0, None).info.time_step == seconds


def test_scenes_through_other_libraries(tmp_path: Path, library: str) -> None:
    arrays = [ramp((3, 21, 19), "uint16"), ramp((5, 30, 22), "uint16")]
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        for array in arrays:
            tif.write(array, metadata={"axes": "ZYX"})
    names = scenes(tmp_path / "a.ome.tif", reader=library)
    assert len(names) == 2
    for scene in (0, 1):
        for asked in (scene, names[scene]):
            image = open_image(tmp_path / "a.ome.tif", scene=asked, reader=library)
            check_image(image, tczyx(arrays[scene], "ZYX"), "ZYX")
    with pytest.raises(DataError, match="has no scene 2"):
        open_image(tmp_path / "a.ome.tif", scene=2, reader=library)


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_fault_09_truncated_picture_is_a_data_error(tmp_path: Path, library: str, suffix: str, share: float) -> None:
    imageio = pytest.importorskip("imageio.v3")
    path = tmp_path / f"a{suffix}"
    imageio.imwrite(path, np.random.default_rng(0).integers(0, 255, (60, 70), np.uint8))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match=rf"a\{suffix}"):
        open_image(path, reader=library).read()


@pytest.mark.parametrize("error", [OSError("file is cut short"), SyntaxError("broken PNG"), KeyError(7), EOFError()])
def test_pixels_that_cannot_be_decoded_are_a_data_error(error: Exception) -> None:
    from im2im_core.io.stack import StackImage

    class Damaged(np.ndarray):  # decoded when it is sliced, as dask arrays are
        def __getitem__(self, index: Any) -> Any:
            raise error

    image = StackImage(np.zeros((4, 5)), "YX", name="a.czi")
    image._array = np.zeros((1, 1, 1, 4, 5)).view(Damaged)
    with pytest.raises(DataError, match=r"a\.czi: the pixels cannot be decoded"):
        image.read()


def test_png_through_other_libraries(tmp_path: Path, library: str) -> None:
    imageio = pytest.importorskip("imageio.v3")
    array = ramp((30, 40, 3), "uint8")
    imageio.imwrite(tmp_path / "a b #1.png", array)
    image = open_image(tmp_path / "a b #1.png", reader=library)
    check_image(image, tczyx(array, "YXC"), "CYX")
    assert image.info.channels == ("red", "green", "blue")


def test_fault_09_truncated_tiff_through_other_libraries(tmp_path: Path, library: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 64, 64), "uint8"), imagej=True, metadata={"axes": "ZYX"})
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="cut short"):
        open_image(tmp_path / "a.tif", reader=library)


@pytest.mark.parametrize("extra", ["czi", "lif", "nd2"])
@pytest.mark.parametrize("installed", [True, False])
def test_missing_part_is_named(
    tmp_path: Path, library: str, extra: str, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"a.{extra}").write_bytes(b"no such format" * 20)
    monkeypatch.setattr("im2im_core.io.stack._is_installed", lambda module: installed)
    package = f"bioio-{extra}" if library == "bioio" else rf"napari-im2im\[{extra}\]"
    with pytest.raises(DataError, match="The file is damaged" if installed else package):
        open_image(tmp_path / f"a.{extra}", reader=library)


def test_a_library_that_is_not_installed_is_named(
    tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / "a.czi").write_bytes(b"x")
    for ask in (open_image, scenes):
        with pytest.raises(DataError, match=rf"a\.czi: {library} is not installed.*pip install 'napari-im2im\["):
            ask(tmp_path / "a.czi", reader=library)


class _FakeBioImage:
    """What bioio 3 offers, over an array in memory."""

    def __init__(self, path: Path) -> None:
        import dask.array

        self._data = dask.array.from_array(ramp((2, 3, 4, 20, 30), "uint16"))
        self.scenes = ("one", "two")
        self.dims = type("Dims", (), {"order": "TCZYX"})
        self.physical_pixel_sizes = type("Sizes", (), {"Z": 1.0, "Y": 0.5, "X": None})
        self.channel_names = ["a", "b", "c"]
        self.scene = ""

    def set_scene(self, scene: str) -> None:
        self.scene = scene

    def get_image_dask_data(self, order: str) -> Any:
        return self._data + (self.scene == "two")


def test_bioio_stands_in_for_aicsimageio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    import im2im_core.io as io

    error = type("UnsupportedFileFormatError", (Exception,), {})
    fakes = {"bioio": {"BioImage": _FakeBioImage}, "bioio_base": {}, "bioio_base.exceptions": {error.__name__: error}}
    for name, content in fakes.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(io, "_installed", lambda name: name == "bioio")
    (tmp_path / "a.czi").write_bytes(b"x")
    expected = ramp((2, 3, 4, 20, 30), "uint16")
    assert scenes(tmp_path / "a.czi") == ("one", "two")
    image = open_image(tmp_path / "a.czi", scene="two")
    check_image(image, expected + np.uint16(1), "TCZYX")
    assert image.info.voxel_size == (1.0, 0.5, None)
    assert image.info.channels == ("a", "b", "c")
    monkeypatch.setattr(io, "_installed", lambda name: False)
    with pytest.raises(DataError, match=r"no reader for '\.czi' is installed.*\[all\]"):
        open_image(tmp_path / "a.czi")


# ---- names, identity, labels ----


def test_is_image() -> None:
    yes = ["a.tif", "A.TIFF", "a.ome.tif", "x/a.ome.zarr", "a.zarr", "a.czi", "a.lif", "a.nd2", "a.png", "a.JPG"]
    no = ["a.txt", ".a.tif", "._a.tif", ".a.zarr.12.part", "a.csv", "zarr", "a"]
    assert [is_image(name) for name in yes] == [True] * len(yes)
    assert [is_image(name) for name in no] == [False] * len(no)


def test_missing_and_unknown(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_image(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no reader 'tiffile'\. Did you mean 'tifffile'"):
        open_image(tmp_path / "a.tif", reader="tiffile")


@pytest.mark.parametrize("suffix", FORMATS)
def test_identity_changes_with_the_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, ramp((20, 30), "uint8"), "YX")
    first = open_image(path).info.identity
    assert open_image(path).info.identity == first
    assert str(path.resolve()) in first
    write_image(path, ramp((20, 30), "uint8") + 1, "YX", overwrite=True)
    assert open_image(path).info.identity != first


@pytest.mark.parametrize("reader", ["auto", *LIBRARIES])
def test_identity_changes_with_any_chunk(tmp_path: Path, reader: str) -> None:
    import tensorstore as ts

    if reader in LIBRARIES:
        pytest.importorskip(reader)
    path = tmp_path / "a.ome.zarr"
    array = ramp((3, 80, 80), "uint8")
    with create_output(path, info_of(array, "ZYX"), chunks=(1, 1, 1, 32, 32)) as writer:
        writer.write(crop(z=(0, 3), y=(0, 80), x=(0, 80)), array[None, None])
    before = open_image(path, reader=reader).info.identity
    assert open_image(path, reader=reader).info.identity == before
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{path}/0/"}}
    ts.open(spec, open=True).result()[1, 40, 40].write(0).result()
    changed = open_image(path, reader=reader).info.identity
    assert changed != before
    assert changed.rsplit("|", 2)[0] == before.rsplit("|", 2)[0]  # the path is still the same part of it


@pytest.mark.parametrize("suffix", FORMATS)
def test_fault_46_inputs_are_not_modified(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, ramp((3, 40, 50), "uint16"), "CYX")
    before = digest(path)
    pixels = open_image(path).read()
    pixels[...] = 0
    scenes(path)
    assert digest(path) == before


@pytest.mark.parametrize("suffix", FORMATS)
def test_fault_17_labels_keep_their_ids(tmp_path: Path, suffix: str) -> None:
    ids = np.array([[0, 65535], [65536, 70000]], "uint32")
    write_image(tmp_path / f"a{suffix}", ids, "YX")
    labels = as_labels(open_image(tmp_path / f"a{suffix}").read(), "a")
    assert labels.dtype == np.uint32
    np.testing.assert_array_equal(labels[0, 0, 0], ids)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64", "uint64", "float32", "float64"])
def test_fault_17_whole_numbers_of_any_type(dtype: str) -> None:
    np.testing.assert_array_equal(as_labels(np.array([0, 1, 1], dtype), "a"), [0, 1, 1])


@pytest.mark.parametrize(
    ("pixels", "words"),
    [(np.array([0, -1]), "label -1 is negative"), (np.array([0.5]), "label 0.5 is not a whole"),
     (np.array([np.nan]), "nan is not a whole"), (np.array([2**32]), "4294967296 is larger"),
     (np.array([-2.0]), "negative"), (np.array([1j]), "not numbers")],
)  # fmt: skip
def test_fault_17_wrong_labels(pixels: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=f"cells: .*{words}"):
        as_labels(pixels, "cells")


def test_labels_of_no_pixels() -> None:
    assert as_labels(np.zeros((0, 3), "int32"), "a").shape == (0, 3)


def test_reading_after_the_file_is_gone(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp((20, 30), "uint8"))
    image = open_image(tmp_path / "a.tif")
    (tmp_path / "a.tif").unlink()
    with pytest.raises(DataError, match="moved, changed or deleted"):
        image.read()


class _Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


@pytest.mark.parametrize(
    "name", ["cells_seg.npy", "cells.npz", "cells.pkl", "cells.tif", "cells.zarr", "cells.czi", "cells.png"]
)
@pytest.mark.parametrize("reader", ["auto", *READERS])
def test_fault_30_arrays_of_objects_are_no_images(tmp_path: Path, name: str, reader: str) -> None:
    """What Cellpose saves beside an image is a pickle, too."""
    if reader in LIBRARIES:
        pytest.importorskip(reader)
    path, canary = tmp_path / name, tmp_path / "canary"
    with path.open("wb") as handle:
        save = np.savez if name.endswith(".npz") else np.save
        save(handle, np.array({"masks": _Evil(canary)}, object))
    with pytest.raises(Im2ImError) as caught:
        open_image(path, reader=reader).read()
    assert caught.value.exit_code in (3, 4)
    assert not canary.exists()
