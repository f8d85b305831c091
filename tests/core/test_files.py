"""Files that are never half written."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from im2im_core.errors import ResourceError
from im2im_core.files import atomic_path, publish, read_json, remove_stale_parts, sha256, write_atomic, write_json


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_content_stands_under_its_name_and_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b.txt", b"one")
    write_atomic(tmp_path / "a" / "b.txt", b"two")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"two"
    assert names(tmp_path / "a") == ["b.txt"]


def test_an_error_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, b"old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as part:
        part.write_bytes(b"new" * (1 // 0))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.txt"]


def test_fault_03_flushed_before_the_rename_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    opened: dict[int, Path] = {}
    real_open, real_fsync, real_replace = os.open, os.fsync, os.replace

    def spy_open(path: str, *args: int) -> int:
        handle = real_open(path, *args)
        opened[handle] = Path(path)
        return handle

    def spy_fsync(handle: int) -> None:
        told.append("fsync folder" if opened[handle].is_dir() else "fsync file")
        real_fsync(handle)

    def spy_replace(source: Path, target: Path) -> None:
        told.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "open", spy_open)
    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    write_atomic(tmp_path / "a.txt", b"content")
    assert told == ["fsync file", "rename", "fsync folder"]


def test_the_temporary_file_lies_beside_its_target(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.txt") as part:
        part.write_bytes(b"")
        assert part.parent == tmp_path
        assert part.name.startswith(".")


def test_fault_07_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ResourceError, match=r"Cannot write .*file/a\.txt.*free space and permissions"):
        write_atomic(tmp_path / "file" / "a.txt", b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")
def test_fault_05_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, b"old")
    monkeypatch.setattr(
        Path, "write_bytes", lambda self, content: Path("/dev/full").open("wb", buffering=0).write(content)
    )
    with pytest.raises(ResourceError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.txt"]


def test_long_and_strange_names(tmp_path: Path) -> None:
    for name in ("пробел ü 画像 #1 %.json", "a" * 240):
        write_json(tmp_path / name, {"é": 1})
        assert read_json(tmp_path / name) == {"é": 1}


def test_parts_of_dead_processes_are_removed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    dead, alive = int(done.stdout), os.getppid()
    for pid in (dead, alive, os.getpid()):
        (tmp_path / f".a.txt.{pid}.part").write_text("half")
    (tmp_path / ".half.part").write_text("nobody's")
    (tmp_path / "kept.part").write_text("not ours")
    remove_stale_parts(tmp_path)
    assert names(tmp_path) == sorted([f".a.txt.{alive}.part", "kept.part"])


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_stood_there_goes_only_when_the_new_one_stands(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, path = tmp_path / ".new.part", tmp_path / "result"
    for place, text in ((path, "old"), (part, "new")):
        if kind == "folder":
            place.mkdir()
        (place / "a" if kind == "folder" else place).write_text(text)
    found = path / "a" if kind == "folder" else path
    replace = os.replace

    def fail(source: Path, target: Path) -> None:
        if source == part:
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output"):
        publish(part, path)
    assert found.read_text() == "old"
    monkeypatch.undo()
    publish(part, path)
    assert found.read_text() == "new"
    assert names(tmp_path) == ["result"]


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_two_threads_may_write_one_file_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with atomic_path(path) as part:
        part.write_bytes(b"main")
        other = threading.Thread(target=write_atomic, args=(path, b"other"))
        other.start()
        other.join()
        assert path.read_bytes() == b"other"
        assert part.read_bytes() == b"main"
    assert path.read_bytes() == b"main"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_what_a_dead_thread_left_is_removed(tmp_path: Path) -> None:
    gone, kept = tmp_path / ".a.json.12.999999999.part", tmp_path / f".a.json.12.{os.getppid()}.part"
    for part in (gone, kept):
        part.write_bytes(b"half")
    remove_stale_parts(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [kept.name]
