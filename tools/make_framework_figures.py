"""Figures of the framework pages, from a short real training on simulated nuclei.

    python tools/make_framework_figures.py embedseg_2d [--minutes 2] [--seed 7]

A figure shows an image that was not trained on, the maps that the network makes of it, and the objects found.
Displacements are shown by their direction as hue and their length as brightness.
"""

from __future__ import annotations

import argparse
import colorsys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from im2im_core import api
from im2im_core.bundle import open_bundle
from im2im_core.microscope import fluorescence, write_dataset
from im2im_core.project import Project

DOCS = Path(__file__).parents[1] / "docs" / "images"
SIDE = 128
"""Pixels of the image along Y and X."""
ZOOM, GAP = 2, 16


def main() -> None:
    """Train, predict, and write ``docs/images/PRESET.png``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        recipe = api.load_preset(args.preset).override({"training.epochs": None, "training.minutes": args.minutes})
        write_dataset(folder / "data", recipe.task, count=16, shape=(2 * SIDE, 2 * SIDE), seed=args.seed)
        run = api.train(recipe, data=folder / "data", project=Project.create(folder / "project"))
        names = [output.name for output in open_bundle(run.model).inference.outputs]
        image = fluorescence((SIDE, SIDE), seed=args.seed + 1).image
        results = dict(api.predict(run.model, image, axes="YX", outputs=["labels", *names]))
    panels = {"image": grey(image), **{name: drawn(np.asarray(results[name])) for name in names}}
    join({**panels, "labels": coloured(np.asarray(results["labels"]))}).save(DOCS / f"{args.preset}.png", optimize=True)


def drawn(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Picture ``(Y, X, 3)`` of a map ``([C], Y, X)``: a displacement by its hue, other channels by their mean."""
    planes = values.reshape(-1, *values.shape[-2:]).astype(np.float32)
    if len(planes) != 2 or planes.min() >= 0:
        return grey(planes.mean(0))
    length = np.hypot(*planes)
    hue = (np.arctan2(*planes) / (2 * np.pi)) % 1
    return hued(hue, np.clip(length / np.percentile(length, 99), 0, 1))


def grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = np.percentile(values, (1, 99))
    bright = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    return np.repeat(np.round(255 * bright).astype(np.uint8)[..., None], 3, axis=-1)


def hued(hue: NDArray[Any], value: NDArray[Any]) -> NDArray[np.uint8]:
    wheel = np.array([colorsys.hsv_to_rgb(step / 256, 0.9, 1) for step in range(256)])
    return np.round(255 * wheel[(hue * 255).astype(int)] * value[..., None]).astype(np.uint8)


def coloured(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """Neighbouring numbers in colours that are far apart."""
    return hued((labels * 0.618034) % 1, (labels > 0).astype(np.float32))


def join(panels: dict[str, NDArray[np.uint8]]) -> Image.Image:
    """The panels side by side under their names."""
    width = SIDE * ZOOM
    canvas = Image.new("RGB", (len(panels) * (width + GAP) - GAP, width + GAP), "white")
    pen = ImageDraw.Draw(canvas)
    for number, (name, pixels) in enumerate(panels.items()):
        left = number * (width + GAP)
        pen.text((left, 2), name, fill="black")
        canvas.paste(Image.fromarray(pixels).resize((width, width), Image.Resampling.NEAREST), (left, GAP))
    return canvas


if __name__ == "__main__":
    main()
