"""Pictures of the pages of the frameworks: what a network of each predicts, and what is decoded from it.

    python tools/make_framework_figures.py [--only flows] [--minutes 2] [--out FOLDER]

Each framework is trained on the simulated microscope for a few minutes and looks at an image that it was
not trained on: docs/images/framework_NAME.png, shown on the page docs/frameworks/NAME.md. The same image for all
that give instances. With --out, pictures go to another folder and the pages stay as they are.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from skimage.color import hsv2rgb
from skimage.segmentation import find_boundaries

if TYPE_CHECKING:
    from numpy.typing import NDArray

DOCS = Path(__file__).resolve().parents[1] / "docs"
FOLDER = DOCS / "images"
SIDE, GAP = 256, 6
COLOURS = 192
"""A palette makes the pictures half as large."""
PRESETS = {
    "fcn": "labelfree_2d",
    "instance": "watershed_2d",
    "embedseg": "instance_seg_2d",
    "stardist": "stardist_2d",
    "flows": "flows_2d",
}
OUTPUTS = {
    "fcn": ["image"],
    "instance": ["labels", "foreground", "distance"],
    "embedseg": ["labels", "seediness", "offset"],
    "stardist": ["labels", "probability", "foreground"],
    "flows": ["labels", "foreground", "flow"],
}

SHOWN = {
    "fcn": "what the network predicts of it",
    "instance": "the predicted foreground and distance map, the objects",
    "embedseg": "the predicted seediness and offsets (direction as hue), the objects",
    "stardist": "the predicted probabilities of centre and foreground, the objects",
    "flows": "the predicted foreground and flow (direction as hue), the objects",
}
"""What stands between the image and the truth."""
PLACE = "\n## When to use it\n"


# ---- panels (Y, X, 3) from 0 to 1 ----------------------------------------------


def grey(values: NDArray[Any]) -> NDArray[Any]:
    low, high = np.percentile(values, (0.5, 99.5))
    scaled = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    return np.repeat(scaled[..., None], 3, axis=2)


def outlined(image: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    """The image with the rim of every object in a colour of its own."""
    panel = grey(image)
    rim = find_boundaries(labels, mode="inner")
    hue = (labels * 0.618034) % 1
    colours = hsv2rgb(np.stack([hue, np.full(hue.shape, 0.85), np.ones(hue.shape)], -1))
    panel[rim] = colours[rim]
    return panel


def directions(vectors: NDArray[Any]) -> NDArray[Any]:
    """Direction as hue, length as brightness, of vectors (Y and X, Y, X)."""
    length = np.hypot(*vectors)
    hue = np.arctan2(vectors[0], vectors[1]) / (2 * np.pi) % 1
    value = np.clip(length / max(np.percentile(length, 99), 1e-6), 0, 1)
    return hsv2rgb(np.stack([hue, np.full(hue.shape, 0.9), value], -1))


def panels(name: str, image: NDArray[Any], truth: NDArray[Any], results: Any) -> list[NDArray[Any]]:
    if name == "fcn":
        return [grey(image), grey(results["image"]), grey(truth)]
    maps = [np.asarray(results[key], np.float32) for key in OUTPUTS[name][1:]]
    drawn = [directions(m) if m.ndim == 3 else np.repeat(np.clip(m, 0, 1)[..., None], 3, axis=2) for m in maps]
    return [grey(image), *drawn, outlined(image, results["labels"]), outlined(image, truth)]


# ---- runs ----------------------------------------------------------------------


def draw(name: str, minutes: float, folder: Path, out: Path) -> None:
    """Write the picture of one framework, from a run made now."""
    import tifffile

    from im2im_core import api
    from im2im_core.microscope import write_dataset

    recipe = api.load_preset(PRESETS[name])
    write_dataset(folder / "data", recipe.task, count=12, shape=(384, 384), seed=1, dimensions=2)
    write_dataset(folder / "new", recipe.task, count=1, shape=(SIDE, SIDE), seed=77, dimensions=2)
    recipe = recipe.override({"data.path": str(folder / "data"), "training.minutes": minutes})
    run = api.train(recipe, project=folder / "project")
    image, truth = (np.squeeze(tifffile.imread(next((folder / "new" / part).iterdir()))) for part in ("IM", "GT"))
    results = api.loaded_predictor(run.model).predict(image, axes="YX", outputs=OUTPUTS[name])
    drawn = panels(name, image, truth, results)
    strip = np.ones((SIDE, len(drawn) * (SIDE + GAP) - GAP, 3))
    for number, panel in enumerate(drawn):
        strip[:, number * (SIDE + GAP) : number * (SIDE + GAP) + SIDE] = panel
    pixels = (strip * 255).round().astype(np.uint8)
    Image.fromarray(pixels).quantize(COLOURS).save(out / f"framework_{name}.png", optimize=True)


def show(name: str, minutes: float, page: Path) -> None:
    """Put the picture and what is on it before the first section of the page, in place of an older one."""
    before, place, after = page.read_text(encoding="utf-8").partition(PLACE)
    caption = f"An image, {SHOWN[name]}, and the truth; {minutes:g} minutes of training on simulated images."
    before = before.partition("\n![")[0]
    picture = f"\n![{caption}](../images/framework_{name}.png)\n*{caption}*\n"
    page.write_text(before + picture + place + after, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PRESETS, action="append")
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only or PRESETS:
        with tempfile.TemporaryDirectory() as temporary:
            draw(name, args.minutes, Path(temporary), args.out)
        if args.out == FOLDER:
            show(name, args.minutes, DOCS / "frameworks" / f"{name}.md")


if __name__ == "__main__":
    main()
