"""A model package on disk: opened without torch, checked against its own hashes, never unpickled."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from im2im_core.archive import pack, unpack
from im2im_core.bundle.shared_names import under_all_names
from im2im_core.errors import ConfigError, DataError, TrustError
from im2im_core.files import atomic_path, sha256
from im2im_core.inference import Inference
from im2im_core.yamlfile import read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

DESCRIPTIONS = ("bioimageio.yaml", "rdf.yaml", "model.yaml")


@dataclass(frozen=True)
class Bundle:
    """A model package that lies in a folder.

    Opening reads the description only. Every file is reached through `file`, which never
    leaves the folder and never downloads, and `read_checked`, which compares the hash of the
    very bytes it returns.
    """

    source: Path
    """Description file inside the folder."""
    description: dict[str, Any]
    """Plain content of the description."""

    @property
    def folder(self) -> Path:
        """Folder of the package."""
        return self.source.parent

    @property
    def name(self) -> str:
        """Name of the model."""
        return str(self._ours.get("name") or self.description.get("name") or self.folder.name)

    @property
    def is_ours(self) -> bool:
        """Whether it can be run from our own inference description."""
        return "inference" in self._ours

    @property
    def _ours(self) -> dict[str, Any]:
        config = self.description.get("config")
        part = config.get("im2im") if isinstance(config, dict) else None
        return part if isinstance(part, dict) else {}

    @cached_property
    def inference(self) -> Inference:
        """All that prediction needs.

        Raises
        ------
        ConfigError
            The package was made by another tool and has no such part.
        """
        if not self.is_ours:
            raise ConfigError(
                f"{self.source} was made by another tool: it has no config.im2im.inference",
                "It can predict (im2im predict), but not be scored, calibrated or trained further here",
            )
        return Inference.from_bundle_config(self._ours)

    @property
    def provenance(self) -> dict[str, Any]:
        """Recipe, metrics, data hashes and versions, as far as they were recorded."""
        return dict(self._ours.get("provenance") or {})

    @property
    def weights_path(self) -> Path:
        """Our own weights, a safetensors file."""
        return self.file(self._weights["source"])

    @property
    def _weights(self) -> dict[str, Any]:
        weights = self._ours.get("weights")
        if not isinstance(weights, dict) or not {"source", "sha256"} <= weights.keys():
            raise ConfigError(
                f"{self.source} names no weights with a sha256 under config.im2im.weights", "Export the model again"
            )
        return weights

    @cached_property
    def identity(self) -> str:
        """Hash of the description, which itself holds the hashes of weights and tensors."""
        return sha256(self.source)

    @property
    def card(self) -> dict[str, Any]:
        """What a person wants to see before using the model."""
        content = self.description
        covers = [c if isinstance(c, str) else c.get("source", "") for c in content.get("covers") or []]
        return {
            "name": self.name,
            "description": content.get("description", ""),
            "authors": [a.get("name", "") for a in content.get("authors") or [] if isinstance(a, dict)],
            "cover": next((self.file(c) for c in covers if self.has(c)), None),
            "tags": list(content.get("tags") or []),
            "licence": content.get("license", ""),
            "task": self.inference.task if self.is_ours else "",
            "metrics": dict(self.provenance.get("metrics") or {}),
            "trained_on": self._ours.get("trained_on", ""),
            "hash": self.identity,
        }

    # ---- files ----

    def file(self, name: str) -> Path:
        """File of the package; links that lead elsewhere are followed only to be refused.

        Raises
        ------
        TrustError
            `name` is a URL or leaves the folder.
        DataError
            The file does not exist.
        """
        relative = PurePosixPath(str(name))
        if "://" in str(name) or "\\" in str(name) or ":" in str(name):
            raise TrustError(
                f"{self.source} refers to {name!r}, which is not a file of the package",
                "Nothing is downloaded; use the complete package",
            )
        path = self.folder.joinpath(*relative.parts)
        if relative.is_absolute() or not path.resolve().is_relative_to(self.folder.resolve()):
            raise TrustError(
                f"{self.source} refers to {name!r} outside of its folder", "A package may only use its own files"
            )
        if not path.is_file():
            raise DataError(f"{self.source} refers to {name!r}, which is missing", "Use the complete package")
        return path

    def has(self, name: str) -> bool:
        """Whether `name` is a file of the package."""
        try:
            return self.file(name).is_file()
        except (TrustError, DataError):
            return False

    def read_checked(self, entry: dict[str, Any], required: bool = True) -> bytes:
        """Bytes of a described file (``source``, ``sha256``), hashed as they are returned.

        Parameters
        ----------
        required : bool
            Whether a description without a hash is refused; it may stay away only for what
            cannot harm, such as test tensors.

        Raises
        ------
        TrustError
            The hash is missing or differs; both are named.
        """
        path = self.file(entry["source"])
        content = path.read_bytes()
        if required or entry.get("sha256"):
            self._compare(path, entry.get("sha256"), hashlib.sha256(content).hexdigest())
        return content

    def verify(self) -> None:
        """Compare every file that the description gives a hash of.

        Raises
        ------
        TrustError
            A file was changed or is not the one described; both hashes are named.
        """
        for entry in _described_files(self.description):
            if "://" not in str(entry["source"]):  # a parent elsewhere is never used
                path = self.file(entry["source"])
                self._compare(path, entry["sha256"], sha256(path))

    def _compare(self, path: Path, expected: Any, found: str) -> None:
        if not expected:
            raise TrustError(
                f"{self.source} records no sha256 of {path.name}; the file has {found}",
                "Add it to the description if you trust the file",
            )
        if str(expected).lower() != found:
            raise TrustError(
                f"{path} has sha256 {found}, {self.source.name} says {expected}",
                "The file was damaged or exchanged; get the package again",
            )

    def load_weights(self) -> dict[str, Tensor]:
        """Our weights by name, on the CPU; read from safetensors, which cannot carry code.

        Raises
        ------
        TrustError
            The file is not the one described, or is no safetensors file.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        content = self.read_checked(self._weights)
        try:
            return under_all_names(load(content), content)
        except SafetensorError as error:
            raise TrustError(
                f"{self.weights_path} is not a safetensors file: {error}",
                "Weights of other kinds are never loaded here; export the model again",
            ) from error

    def validate(self) -> None:
        """Check the description against the bioimage.io specification, without network.

        Raises
        ------
        ConfigError
            It does not follow the specification; the message says where.
        """
        from bioimageio.spec import InvalidDescr, ValidationContext, build_description

        context = ValidationContext(root=self.folder, file_name=self.source.name, perform_io_checks=False)
        found = build_description(self.description, context=context)
        if isinstance(found, InvalidDescr):
            raise ConfigError(
                f"{self.source} is not a valid bioimage.io description: {spec_errors(found)}", "Correct the description"
            )


def spec_errors(found: Any) -> str:
    """Places and reasons why a bioimage.io description is not valid."""
    errors = [e for detail in found.validation_summary.details for e in detail.errors]
    return "; ".join(f"{'.'.join(str(p) for p in e.loc)}: {e.msg}" for e in errors[:5])


def _described_files(content: Any) -> Iterator[dict[str, Any]]:
    """Every mapping with ``source`` and ``sha256`` anywhere in `content`, recorded recipes left out."""
    if isinstance(content, dict):
        if isinstance(content.get("source"), str) and content.get("sha256"):
            yield content
        for key, value in content.items():
            if key != "provenance":
                yield from _described_files(value)
    elif isinstance(content, list):
        for value in content:
            yield from _described_files(value)


def open_bundle(path: str | os.PathLike[str], cache: Path | None = None) -> Bundle:
    """Model package from a folder, a zip, a description file, or a run folder that holds ``model/``.

    Parameters
    ----------
    cache : Path, optional
        Where zips are unpacked, once per content; the user's cache folder by default.

    Raises
    ------
    DataError
        There is no model package at `path`.
    TrustError
        The zip or the description is hostile.
    """
    place = Path(path)
    if place.is_file() and place.suffix.lower() in (".yaml", ".yml"):
        return _open_description(place)
    folder = _unpacked(place, cache or user_cache()) if place.is_file() else place
    for candidate in (folder, folder / "model", *_only_folder(folder)):
        found = _description_in(candidate)
        if found:
            return _open_description(found)
    raise DataError(
        f"{place} holds no model package", f"Give a folder or zip with {DESCRIPTIONS[0]}, or a finished run"
    )


def export_zip(folder: str | os.PathLike[str], zip_path: str | os.PathLike[str]) -> None:
    """Write a package as one zip, which gets its name after it was opened again and every hash in it compared.

    Raises
    ------
    TrustError
        A file is not the one described.
    ResourceError
        The zip cannot be written.
    """
    bundle = open_bundle(folder)
    bundle.verify()
    with atomic_path(Path(zip_path)) as part, TemporaryDirectory(prefix="im2im-") as cache:
        pack(bundle.folder, part)
        again = open_bundle(part, Path(cache))
        again.verify()
        if again.identity != bundle.identity:
            raise TrustError(f"{bundle.source} changed while it was packed", "Export the model again")


def _open_description(path: Path) -> Bundle:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a model description", "It must hold keys and values")
    return Bundle(path, content)


def _description_in(folder: Path) -> Path | None:
    names = {p.name for p in folder.iterdir() if p.is_file()} if folder.is_dir() else set()
    standard = [n for n in DESCRIPTIONS if n in names]
    suffixed = sorted(n for n in names for d in DESCRIPTIONS if n.endswith(f".{d}"))
    if not standard and len(suffixed) > 1:
        raise DataError(f"{folder} holds several descriptions: {', '.join(suffixed)}", "Name the one you mean")
    return next((folder / n for n in (*standard, *suffixed)), None)


def _only_folder(folder: Path) -> list[Path]:
    """The single folder that some tools wrap a zip's content in."""
    inner = list(folder.iterdir()) if folder.is_dir() else []
    return inner if len(inner) == 1 and inner[0].is_dir() else []


def _unpacked(zip_path: Path, cache: Path) -> Path:
    """Folder with the content of a zip; named by the hash of the zip, so it is unpacked once."""
    folder = cache / sha256(zip_path)
    if not folder.is_dir():
        unpack(zip_path, folder)
    return folder


def user_cache() -> Path:
    """Folder of this user for packages that came as a zip; may be deleted at any time."""
    home = Path.home()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or home / ".cache"
    return Path(base) / "im2im" / "bundles"
