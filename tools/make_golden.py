"""Writes the golden recipe, model package and prediction of this version into tests/data, once per release."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from im2im_core import __version__, api
from im2im_core.bundle import export_zip
from im2im_core.io import open_image
from im2im_core.microscope import write_dataset
from im2im_core.project import Project

DATA = Path(__file__).parents[1] / "tests" / "data"
SMALL = {
    "name": "golden",
    "network.kind": "unet",
    "network.channels": [4, 8],
    "network.residual_units": 0,
    "network.stem": 1,
    "data.patch": [32, 32],
    "data.rescale.kind": "object_size",
    "training.batch": 4,
    "training.steps": 300,
    "training.optimizer.lr": 0.01,
    "training.device": "cpu",
    "training.threads": 1,
    "training.workers": 0,
}
"""A network of a few kilobytes that finds nuclei; sections as users choose them."""


def main() -> int:
    """0 after the files were written; 2 where those of this version exist."""
    start = DATA / f"golden_{__version__}"
    if list(DATA.glob(f"{start.name}_*")):
        sys.stderr.write(f"{start}_* exist: a golden file is never made again, or it proves nothing\n")
        return 2
    DATA.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        write_dataset(Path(folder, "data"), "instance_segmentation", count=4, shape=(64, 64), seed=1)
        recipe = api.load_preset("instance_seg_2d").override({**SMALL, "data.path": str(Path(folder, "data"))})
        run = api.train(recipe, project=Project.create(Path(folder, "project")), name="golden")
        export_zip(run.model, f"{start}_bundle.zip")
        shutil.copyfile(run.folder / "recipe.yaml", f"{start}_recipe.yaml")
        image = open_image(min(Path(folder, "data", "IM").iterdir())).read()[0, 0, 0]
        found = api.predict(run.model, image, outputs=["labels", "foreground"], device="cpu")
        results = {"labels": found["labels"].astype(np.uint16), "foreground": found["foreground"].astype(np.float16)}
        np.savez_compressed(f"{start}_prediction.npz", image=image, **results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
