"""Bytes that were lost or flipped: whatever reads a file gives something, or an error that a person can read."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile
from io_contract import info_of, ramp

from im2im_core.archive import unpack
from im2im_core.bundle import open_bundle
from im2im_core.datasets import load_dataset, save_dataset
from im2im_core.errors import Im2ImError
from im2im_core.events import Losses
from im2im_core.image import ArrayImage
from im2im_core.io import create_output, open_image
from im2im_core.jobs.eventlog import EventLog, read_events
from im2im_core.project import Project
from im2im_core.recipe import Recipe
from im2im_core.runs import Run
from im2im_core.samples import TARGET, Sample

TIMES = 5 * int(os.environ.get("IM2IM_FAULT_KILLS", "200"))
SEED = int(os.environ.get("IM2IM_FAULT_SEED", "0"))
GOLDEN = Path(__file__).parents[1] / "data" / "golden_0.1.0_bundle.zip"


class Door(NamedTuple):
    """Something that is written, and how it is read."""

    write: Callable[[Path], Path]
    """Makes it in a folder; gives the file, or the folder of files, that is damaged."""
    read: Callable[[Path], Any]
    fast: int = 12
    """How often it is damaged in the fast form; less where reading takes long."""


def _tiff(**options: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        pixels = ramp((4, 24, 32), "uint16")
        tifffile.imwrite(folder / "a.tif", pixels, photometric="minisblack", metadata={"axes": "ZYX"}, **options)
        return folder / "a.tif"

    return write


def _zarr(version: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        pixels = ramp((4, 24, 32), "uint16")
        with create_output(folder / "a.zarr", info_of(pixels, "ZYX"), version=version) as writer:
            writer.write(tuple(slice(0, n) for n in (1, 1, 4, 24, 32)), pixels[None, None])  # type: ignore[arg-type]
        return folder / "a.zarr"

    return write


def _picture(folder: Path) -> Path:
    from PIL import Image

    Image.fromarray(ramp((24, 32), "uint8")).save(folder / "a.png")
    return folder / "a.png"


def _zip(folder: Path) -> Path:
    (folder / "a.zip").write_bytes(GOLDEN.read_bytes())
    return folder / "a.zip"


def _package(folder: Path) -> Path:
    unpack(GOLDEN, folder / "model")
    return folder / "model"


def _load_package(path: Path) -> None:
    bundle = open_bundle(path, cache=path.parent / "cache")
    bundle.verify()
    bundle.load_weights()
    assert bundle.inference
    assert bundle.card


def _recipe(folder: Path) -> Path:
    Recipe(name="画像").to_file(folder / "recipe.yaml")
    return folder / "recipe.yaml"


def _run(part: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        run = Run.create(Project.create(folder / "project"), Recipe(), "run")
        with EventLog(run, 1) as log:
            for step in range(20):
                log.append(Losses(step, 0.1, {"total": float("nan")}, 1e-3))
        return run.folder / part

    return write


def _read_run(path: Path) -> None:
    run = Run(path.parent)
    assert run.state
    assert run.recipe
    assert all(stamped.event for stamped in read_events(run))


def _dataset(folder: Path) -> Path:
    pixels = ramp((24, 32), "uint16")
    source, target = ArrayImage(pixels, "YX", name="a"), ArrayImage((pixels > 5).astype(np.uint8), "YX", name="b")
    samples = [Sample("a", "a", source, {TARGET: target})]
    return save_dataset(Project.create(folder / "project"), "mine", samples, {"a": "train"}).path


def _read_dataset(path: Path) -> None:
    samples, _ = load_dataset(path)
    for sample in samples:
        sample.source.read()
        sample.targets[TARGET].read()


DOORS = {
    "tiff": Door(_tiff(), lambda path: open_image(path, axes="ZYX").read()),
    "tiff zlib": Door(_tiff(compression="zlib"), lambda path: open_image(path, axes="ZYX").read()),
    "tiff lzw tiles": Door(_tiff(compression="lzw", tile=(16, 16)), lambda path: open_image(path, axes="ZYX").read()),
    "tiff big": Door(_tiff(bigtiff=True, byteorder=">"), lambda path: open_image(path, axes="ZYX").read()),
    "ome tiff": Door(_tiff(ome=True), lambda path: open_image(path).read()),
    "imagej tiff": Door(_tiff(imagej=True), lambda path: open_image(path).read()),
    "ome zarr 0.4": Door(_zarr("0.4"), lambda path: open_image(path).read()),
    "ome zarr 0.5": Door(_zarr("0.5"), lambda path: open_image(path).read()),
    "png": Door(_picture, lambda path: open_image(path).read(), 5),
    "zip of a model": Door(_zip, _load_package, 5),
    "package of a model": Door(_package, _load_package),
    "recipe": Door(_recipe, Recipe.from_file),
    "run.json": Door(_run("run.json"), _read_run),
    "recipe of a run": Door(_run("recipe.yaml"), _read_run),
    "events of a run": Door(_run("events.jsonl"), _read_run),
    "data set": Door(_dataset, _read_dataset),
}
"""What is read from outside, or after a crash."""


def files_of(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file() and p.stat().st_size) if path.is_dir() else [path]


def flip(content: bytes, rng: random.Random) -> bytes:
    """One bit is another."""
    changed = bytearray(content)
    # Half of them at the start, where most formats say what follows.
    last = len(content) if rng.random() < 0.5 else min(len(content), 512)
    changed[rng.randrange(last)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    """The end is missing."""
    return content[: rng.randrange(len(content))]


def damage(name: str, folder: Path, times: int, rng: random.Random) -> int:
    """How often an error was raised; anything but an error for a person fails."""
    door, refused = DOORS[name], 0
    path = door.write(folder)
    door.read(path)
    files = files_of(path)
    for number in range(times):
        file = rng.choice(files)
        content = file.read_bytes()
        harm = flip if number % 3 else cut
        file.write_bytes(harm(content, rng))
        try:
            door.read(path)
        except Im2ImError as error:
            refused += bool(error.message)
        except Exception as error:
            raise AssertionError(f"{harm.__name__} number {number} of {file.name}: {error!r}") from error
        file.write_bytes(content)
    door.read(path)
    return refused


@pytest.mark.parametrize("name", DOORS)
def test_fault_09_10_lost_or_flipped_bytes(name: str, tmp_path: Path) -> None:
    refused = damage(name, tmp_path, DOORS[name].fast, random.Random(0))
    assert refused > 0 or name == "events of a run"  # a torn line of them is left out


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", DOORS)
def test_fault_09_10_lost_or_flipped_bytes_a_thousand_times(name: str, tmp_path: Path) -> None:
    damage(name, tmp_path, TIMES, random.Random(SEED + 1))
