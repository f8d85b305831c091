"""Objects decoded per second: ours, StarDist's and Cellpose's own, on the maps of networks trained on the same images.

    python benchmarks/decoding.py image --data DIR --out MOSAIC.tif
    python benchmarks/decoding.py time --with ours --model RUN/model --name instance --image MOSAIC.tif
    python benchmarks/decoding.py time --with stardist --model OUT --name stardist-own --image MOSAIC.tif
    python benchmarks/decoding.py time --with cellpose --model OUT/models/model --name cellpose-own --image MOSAIC.tif

The mosaic has 2048 x 2048 pixels and about 2,000 nuclei, from images that are not held out. Each method's
network makes its own maps; only what turns maps into labels is timed: the median of five, after a first one.
The last two run in the environments of ``rivals``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import tifffile

RESULT = Path(__file__).parent / "results" / "decoding.json"
SIDE, TILE = 2048, 256
OBJECTS = 30
"""Objects of a tile, at least: 64 tiles give about 2,000."""


def mosaic(args: argparse.Namespace) -> None:
    """Crowded crops of the training images, side by side, each stretched to the same range."""
    held = set((args.data / "holdout.txt").read_text().split())
    names = sorted(p.name for p in (args.data / "train/IM").iterdir() if p.name not in held)
    image = np.zeros((SIDE, SIDE), np.uint8)
    places = iter([(y, x) for y in range(0, SIDE, TILE) for x in range(0, SIDE, TILE)])
    count = 0
    for number in np.random.default_rng(0).permutation(len(names)):
        pixels, labels = (tifffile.imread(args.data / "train" / part / names[number]) for part in ("IM", "GT"))
        if min(labels.shape) < TILE:
            continue
        objects = len(np.unique(labels[:TILE, :TILE])) - 1
        if objects < OBJECTS:
            continue
        place = next(places, None)
        if place is None:
            break
        low, high = np.percentile(pixels[:TILE, :TILE], (1, 99.8))
        tile = np.clip((pixels[:TILE, :TILE] - low) / max(high - low, 1e-6) * 255, 0, 255)
        image[place[0] : place[0] + TILE, place[1] : place[1] + TILE] = tile
        count += objects
    tifffile.imwrite(args.out, image, compression="zlib")
    print(f"{count} nuclei in {args.out}")


class Timed:
    """A function that notes how long each call takes."""

    def __init__(self, function) -> None:
        self.function, self.seconds = function, []

    def __call__(self, *args, **kwargs):
        begin = time.perf_counter()
        result = self.function(*args, **kwargs)
        self.seconds.append(time.perf_counter() - begin)
        return result


def ours(model: Path, image: np.ndarray, threads: int):
    """Seconds per run and the labels; decoding is what turns blended maps into labels."""
    import torch

    from im2im_core import api

    torch.set_num_threads(threads)
    predictor = api.loaded_predictor(model)
    timed = Timed(predictor.framework.postprocess)
    predictor.framework.postprocess = timed
    return timed, lambda: np.asarray(predictor.predict(image, axes="YX").main)


def stardist(model: Path, image: np.ndarray, threads: int):
    from csbdeep.utils import normalize
    from stardist.models import StarDist2D

    loaded = StarDist2D(None, name="model", basedir=str(model))
    timed = Timed(loaded._instances_from_prediction)
    loaded._instances_from_prediction = timed
    return timed, lambda: loaded.predict_instances(normalize(image, 1, 99.8))[0]


def cellpose(model: Path, image: np.ndarray, threads: int):
    import torch
    from cellpose import dynamics, models

    torch.set_num_threads(threads)
    loaded = models.CellposeModel(gpu=False, pretrained_model=str(model))
    timed = Timed(dynamics.resize_and_compute_masks)
    dynamics.resize_and_compute_masks = timed
    return timed, lambda: loaded.eval(image, channels=[0, 0])[0]


def measure(args: argparse.Namespace) -> None:
    image = tifffile.imread(args.image)
    timed, run = {"ours": ours, "stardist": stardist, "cellpose": cellpose}[args.by](args.model, image, args.threads)
    seconds = []
    for _ in range(args.rounds + 1):
        timed.seconds.clear()
        labels = run()
        seconds.append(sum(timed.seconds))
    found = len(np.unique(labels)) - 1
    middle = statistics.median(seconds[1:])
    facts = {
        "method": args.name,
        "objects": found,
        "seconds": round(middle, 3),
        "objects_per_second": round(found / middle),
        "rounds": args.rounds,
        "threads": args.threads,
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "command": "python benchmarks/decoding.py time"
        f" --with {args.by} --model MODEL --image MOSAIC --name {args.name}",
    }
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.write_text(json.dumps({**known, args.name: facts}, indent=1))
    print(json.dumps(facts, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    image, timing = verbs.add_parser("image"), verbs.add_parser("time")
    image.add_argument("--data", type=Path, required=True, help="dsb2018_fluo folder")
    image.add_argument("--out", type=Path, required=True)
    timing.add_argument("--with", dest="by", choices=("ours", "stardist", "cellpose"), required=True)
    timing.add_argument("--model", type=Path, required=True)
    timing.add_argument("--name", required=True)
    timing.add_argument("--image", type=Path, required=True)
    timing.add_argument("--threads", type=int, default=2)
    timing.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    (mosaic if args.verb == "image" else measure)(args)


if __name__ == "__main__":
    main()
