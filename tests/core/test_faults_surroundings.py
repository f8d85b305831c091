"""Other clock, locale, time zone, umask: the same files."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

WRITER = """
import os, sys, time
from pathlib import Path

folder, umask, shift = Path(sys.argv[1]), int(sys.argv[2], 8), float(sys.argv[3])
os.umask(umask)
real = time.time
time.time = lambda: real() + shift
time.time_ns = lambda: int(time.time() * 1e9)

import numpy as np
from im2im_core.archive import pack
from im2im_core.commands.settings import annotated_yaml
from im2im_core.cli import main
from im2im_core.io import open_image, write_image
from im2im_core.recipe import Recipe

folder.mkdir()
os.chdir(folder)
recipe = Recipe(name="画像 ü").override({"training.optimizer.lr": 1.5e-4, "data.voxel_size": [1.25, 0.5, 0.5]})
recipe.to_file(folder / "recipe.yaml")
assert Recipe.from_file(folder / "recipe.yaml") == recipe
(folder / "annotated.yaml").write_text(annotated_yaml(recipe), encoding="utf-8")
labels = np.kron(np.arange(4, dtype=np.uint16).reshape(2, 2), np.ones((9, 9), np.uint16))
for name in ("пробел ü 画像 #1.ome.zarr", "пробел ü 画像 #1.tif"):
    write_image(folder / name, labels, "YX", voxel_size=(None, 0.125, 0.125))
    assert (open_image(folder / name).read()[0, 0, 0] == labels).all()
    assert open_image(folder / name).info.voxel_size == (None, 0.125, 0.125)
tif = str(folder / "пробел ü 画像 #1.tif")
assert main(["evaluate", tif, tif, "--kind", "labels", "--csv", str(folder / "figures.csv")]) == 0
pack(folder, folder.with_suffix(".zip"))
"""
PLACES = {
    "C": ({"LC_ALL": "C"}, "022", 0.0),
    "ascii": ({"LC_ALL": "POSIX", "PYTHONUTF8": "1", "TZ": "Pacific/Kiritimati"}, "077", 86400.0),
    "german": ({"LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8", "LANGUAGE": "de", "TZ": "UTC+12"}, "000", -1e9),
}


def _hashes(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".tif"]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.skipif(os.name == "nt", reason="locales by environment")
def test_fault_42_files_are_the_same_everywhere(tmp_path: Path) -> None:
    """Settings, figures and pixels; an OME-TIFF carries a random identity and is compared by its pixels."""
    running = {}
    for name, (changes, umask, shift) in PLACES.items():
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "TZ"))}
        words = [sys.executable, "-c", WRITER, str(tmp_path / name), umask, str(shift)]
        running[name] = subprocess.Popen(
            words, env=kept | changes, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, encoding="utf-8"
        )
    for name, process in running.items():
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, f"{name}: {said}"
    found = {name: _hashes(tmp_path / name) for name in PLACES}
    assert len(found["C"]) > 5
    for name, files in found.items():
        assert files == found["C"], name
    assert "lr: 0.00015" in (tmp_path / "german" / "recipe.yaml").read_text(encoding="utf-8")
