"""Archives: what is refused, what is bounded, what comes back."""

from __future__ import annotations

import struct
import zipfile
from typing import TYPE_CHECKING

import pytest

from im2im_core.archive import Limits, pack, unpack
from im2im_core.errors import DataError, ResourceError, TrustError

if TYPE_CHECKING:
    from pathlib import Path


def _zip(path: Path, entries: list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def _files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_pack_unpack_round_trip(tmp_path: Path) -> None:
    source = tmp_path / "пробел ü 画像 #1"
    (source / "sub").mkdir(parents=True)
    (source / "a.txt").write_bytes(b"text" * 100)
    (source / "sub" / "b%20.png").write_bytes(bytes(range(256)))
    (source / "inner.zip").write_bytes(b"PK never opened")
    pack(source, tmp_path / "out.zip")
    unpack(tmp_path / "out.zip", tmp_path / "back")
    assert _files(tmp_path / "back") == _files(source)
    assert len(_files(source)) == 3


def test_pack_gives_the_same_bytes_whatever_the_times(tmp_path: Path) -> None:
    for name, order in (("one", "ab"), ("two", "ba")):
        (tmp_path / name).mkdir()
        for letter in order:
            (tmp_path / name / letter).write_text(letter)
    import os

    os.utime(tmp_path / "two" / "a", (1_000_000_000, 1_000_000_000))
    pack(tmp_path / "one", tmp_path / "one.zip")
    pack(tmp_path / "two", tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_fault_34_pack_refuses_links(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").write_text("key")
    (tmp_path / "folder" / "a").symlink_to(tmp_path / "secret")
    with pytest.raises(TrustError, match="is a link"):
        pack(tmp_path / "folder", tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


HOSTILE = [
    "../evil",
    "a/../../evil",
    "/evil",
    "C:/evil",
    "C:evil",
    "..\\evil",
    "\\\\host\\evil",
    "a//b",
    "a/./b",
    "con",
    "sub/NUL.txt",
    "a:stream",
    "evil.",
    "evil ",
    "line\nbreak",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_fault_34_hostile_names(tmp_path: Path, name: str) -> None:
    world = tmp_path / "deep" / "er"
    world.mkdir(parents=True)
    archive = _zip(world / "x.zip", [("rdf.yaml", b"ok"), (name, b"evil")])
    with pytest.raises(TrustError, match="plain path"):
        unpack(archive, world / "out")
    assert sorted(_files(tmp_path)) == ["deep/er/x.zip"]


@pytest.mark.parametrize(
    "names",
    [("rdf.yaml", "RDF.yaml"), ("rdf.yaml", "rdf.yaml"), ("A/x", "a/X"), ("caf\u00e9", "cafe\u0301"), ("a\\b", "a/b")],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_fault_34_duplicate_names(tmp_path: Path, names: tuple[str, str]) -> None:
    archive = _zip(tmp_path / "x.zip", [(names[0], b"1"), (names[1], b"2")])
    with pytest.raises(TrustError, match="one name"):
        unpack(archive, tmp_path / "out")
    assert sorted(_files(tmp_path)) == ["x.zip"]


def test_fault_34_file_that_is_also_a_folder(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "x.zip", [("a", b"1"), ("A/b", b"2")])
    with pytest.raises(TrustError, match="file and a folder"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("mode", [0o120777, 0o060600, 0o010600])
def test_fault_34_links_and_devices(tmp_path: Path, mode: int) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = mode << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(TrustError, match="link or device"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fault_35_bomb_stops_at_the_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("zeros", "w", force_zip64=True) as out,
    ):
        for _ in range(64):
            out.write(bytes(1 << 20))
    written = 0
    import im2im_core.archive as module

    stream = module._stream

    def watched(*args: object) -> int:
        nonlocal written
        try:
            return stream(*args)  # type: ignore[arg-type]
        finally:
            written = args[2].stat().st_size  # type: ignore[attr-defined]

    monkeypatch.setattr(module, "_stream", watched)
    size = (tmp_path / "x.zip").stat().st_size
    with pytest.raises(TrustError, match="zip bomb"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
    assert 0 < written <= 200 * size
    assert sorted(_files(tmp_path)) == ["x.zip"]


@pytest.mark.slow
@pytest.mark.faults
def test_fault_35_a_megabyte_that_unpacks_to_a_gigabyte(tmp_path: Path) -> None:
    """Also as a zip in a zip, which is never opened."""
    with (
        zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("zeros", "w", force_zip64=True) as out,
    ):
        for _ in range(1024):
            out.write(bytes(1 << 20))
    size = (tmp_path / "x.zip").stat().st_size
    assert size < 2 << 20
    with pytest.raises(TrustError, match="zip bomb"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
    assert sorted(_files(tmp_path)) == ["x.zip"]
    nested = _zip(tmp_path / "nested.zip", [("x.zip", (tmp_path / "x.zip").read_bytes())])
    unpack(nested, tmp_path / "nested")
    assert [p.stat().st_size for p in (tmp_path / "nested").iterdir()] == [size]


def test_fault_35_total_over_many_small_files(tmp_path: Path) -> None:
    import os

    archive = _zip(tmp_path / "x.zip", [(f"f{i}", os.urandom(1000)) for i in range(20)])
    unpack(archive, tmp_path / "fits", Limits(total_bytes=20_000))
    with pytest.raises(TrustError, match="unpacks to far more"):
        unpack(archive, tmp_path / "out", Limits(total_bytes=19_999))


def test_fault_35_count(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "x.zip", [(f"f{i}", b"") for i in range(11)])
    with pytest.raises(TrustError, match="11 entries"):
        unpack(archive, tmp_path / "out", Limits(files=10))


def test_fault_35_size_lie(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "x.zip", [("zeros", bytes(1 << 24))])
    raw = archive.read_bytes()
    archive.write_bytes(raw.replace(struct.pack("<L", 1 << 24), struct.pack("<L", 10)))
    with pytest.raises(DataError, match="not a complete zip"):
        unpack(archive, tmp_path / "out")
    assert sorted(_files(tmp_path)) == ["x.zip"]


@pytest.mark.parametrize("keep", [0, 10, 60])
def test_fault_09_truncated_archive_leaves_nothing(tmp_path: Path, keep: int) -> None:
    archive = _zip(tmp_path / "x.zip", [("a", b"1" * 1000), ("b", b"2")])
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(DataError, match="not a complete zip"):
        unpack(archive, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.zip"]


def test_fault_10_flipped_byte_is_noticed(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "x.zip", [("a", bytes(range(256)) * 40)])
    raw = bytearray(archive.read_bytes())
    raw[80] ^= 0x10
    archive.write_bytes(raw)
    with pytest.raises(DataError):
        unpack(archive, tmp_path / "out")


def test_existing_folder_is_kept(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "x.zip", [("a", b"new")])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_bytes(b"mine")
    with pytest.raises(ResourceError, match="exists already"):
        unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / "a").read_bytes() == b"mine"


def test_unsupported_compression_and_encryption(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", b"1" * 1000)
    with pytest.raises(TrustError, match="method 14"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
