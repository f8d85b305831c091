"""Zip archives from anywhere: unpacked within bounds that are counted while streaming, packed the same every time."""

from __future__ import annotations

import os
import re
import shutil
import stat
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from im2im_core.errors import DataError, ResourceError, TrustError
from im2im_core.files import atomic_path

if TYPE_CHECKING:
    from pathlib import Path

CHUNK = 1 << 20
EPOCH = (1980, 1, 1, 0, 0, 0)
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
STORED = frozenset({".png", ".jpg", ".jpeg", ".zip"})


@dataclass(frozen=True)
class Limits:
    """How much an archive may unpack to."""

    total_bytes: int = 8 << 30
    ratio: int = 200
    """Unpacked bytes per byte of the archive."""
    files: int = 10_000
    always: int = 1 << 20
    """Bytes that even the smallest archive may unpack to, whatever the ratio."""

    def allowed(self, archive_bytes: int) -> int:
        """Bytes that an archive of this size may unpack to."""
        return min(self.total_bytes, max(self.always, self.ratio * archive_bytes))


def unpack(zip_path: Path, folder: Path, limits: Limits | None = None) -> None:
    """Content of a zip under `folder`, which appears only when everything in it was accepted.

    Sizes are counted while streaming and never taken from the header; an archive inside
    the archive stays a file.

    Raises
    ------
    TrustError
        An entry would leave the folder, is a link, collides with another name, or the archive
        unpacks to more than `limits`.
    DataError
        The file is not a zip or is damaged.
    ResourceError
        `folder` exists already or cannot be written.
    """
    if folder.exists():
        raise ResourceError(f"{folder} exists already", "Unpack into a new folder")
    part = folder.with_name(f".{folder.name[:180]}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        with zipfile.ZipFile(zip_path) as archive:
            _extract(archive, part, zip_path, limits or Limits())
        part.rename(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"{zip_path} is not a complete zip archive: {error}", "Copy or download it again") from error
    except OSError as error:
        raise ResourceError(
            f"Cannot unpack {zip_path}: {error.strerror or error}",
            "Check that it can be read and that there is free space",
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _extract(archive: zipfile.ZipFile, part: Path, zip_path: Path, limits: Limits) -> None:
    left = limits.allowed(zip_path.stat().st_size)
    for entry, path in _checked_entries(archive, limits):
        target = part.joinpath(*path)
        if entry.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        left = _stream(archive, entry, target, left)


def _stream(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, left: int) -> int:
    """Bytes still allowed after `entry` was written to `target`."""
    with archive.open(entry) as source, target.open("xb") as out:
        while chunk := source.read(CHUNK):
            left -= len(chunk)
            if left < 0:
                raise TrustError(
                    f"{archive.filename} unpacks to far more than its size ({entry.filename!r})",
                    "It looks like a zip bomb; unpack it by hand if you trust it",
                )
            out.write(chunk)
    return left


def _checked_entries(archive: zipfile.ZipFile, limits: Limits) -> list[tuple[zipfile.ZipInfo, tuple[str, ...]]]:
    """Entries with their path inside the folder, after all names were accepted together."""
    entries = archive.infolist()
    if len(entries) > limits.files:
        raise TrustError(f"{archive.filename} has {len(entries)} entries", f"A package has at most {limits.files}")
    checked = []
    files: dict[tuple[str, ...], str] = {}
    folders: dict[tuple[str, ...], str] = {}
    for entry in entries:
        path = _safe_path(entry)
        key = tuple(unicodedata.normalize("NFC", p).casefold() for p in path)
        if not entry.is_dir():
            _claim(files, key, entry.filename)
        for depth in range(1, len(key) + entry.is_dir()):
            folders.setdefault(key[:depth], entry.filename)
        checked.append((entry, path))
    for key in files.keys() & folders.keys():
        raise TrustError(f"{files[key]!r} is a file and a folder ({folders[key]!r})", "Pack it again")
    return checked


def _claim(seen: dict[tuple[str, ...], str], key: tuple[str, ...], name: str) -> None:
    if key in seen:
        raise TrustError(
            f"{name!r} and {seen[key]!r} are one name on some systems",
            "A package names each file once, whatever the case of its letters",
        )
    seen[key] = name


def _safe_path(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    """Parts of the entry's path, all of them plain names below the folder."""
    name = entry.orig_filename
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise TrustError(f"{name!r} is a link or device", "A package holds files and folders only")
    if entry.flag_bits & 1:
        raise TrustError(f"{name!r} is encrypted", "Pack it without a password")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise TrustError(f"{name!r} is compressed with method {entry.compress_type}", "Pack it with deflate")
    parts = tuple(name.replace("\\", "/").removesuffix("/").split("/"))
    if not all(_plain(part) for part in parts):
        raise TrustError(
            f"{name!r} is not a plain path inside the archive",
            "Names may not be absolute, contain '..', ':' or control characters",
        )
    return parts


def _plain(part: str) -> bool:
    """Whether `part` is a file name on every system."""
    return not (
        part in ("", ".", "..")
        or ":" in part
        or part != part.rstrip(". ")
        or RESERVED.match(part)
        or any(ord(c) < 32 for c in part)
    )


def pack(folder: Path, zip_path: Path) -> None:
    """Write the files of `folder` as a zip: the same bytes for the same content, never half of it.

    Raises
    ------
    TrustError
        The folder holds a link, which would carry something else than it shows.
    ResourceError
        The zip cannot be written.
    """
    files = sorted(
        (p for p in folder.rglob("*") if not p.is_dir() or p.is_symlink()),
        key=lambda p: p.relative_to(folder).as_posix(),
    )
    for path in files:
        if path.is_symlink():
            raise TrustError(f"{path} is a link", "Replace it by the file itself")
    with atomic_path(zip_path) as part, zipfile.ZipFile(part, "w") as archive:
        for path in files:
            if path not in (zip_path, part):
                _add(archive, path, path.relative_to(folder).as_posix())


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> None:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.create_system = 3
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    entry.compress_type = zipfile.ZIP_STORED if path.suffix.lower() in STORED else zipfile.ZIP_DEFLATED
    entry.file_size = path.stat().st_size  # tells zipfile whether it needs the 64-bit header
    with path.open("rb") as source, archive.open(entry, "w") as out:
        shutil.copyfileobj(source, out, CHUNK)
