"""Objects decoded per second: ours, StarDist's and Cellpose's own, on the same nuclei.

    python benchmarks/decoding.py image --data DIR --out MOSAIC.tif
    python benchmarks/decoding.py time --with ours --model RUN/model --name instance_seg_2d --image MOSAIC.tif
    python benchmarks/decoding.py time --with stardist --name stardist-own --image MOSAIC.tif
    python benchmarks/decoding.py time --with cellpose --name cellpose-own --image MOSAIC.tif

The mosaic has 2048 x 2048 pixels and about 2,000 nuclei, from images that are not held out. Ours decode what a
trained network predicts. The others, which run in the environments of ``rivals``, decode exact maps, made of the
true labels, which are the least work. Only what turns maps into labels is timed: the median of five, after a first
one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import tifffile
from quality import add_results, machine

SIDE, TILE = 2048, 256
FEWEST, MOST = 20, 45
"""Objects of a tile: 64 tiles give 2,000."""


def mosaic(args: argparse.Namespace) -> None:
    """Crowded crops of the training images, side by side, each stretched to the same range."""
    held = set((args.data / "holdout.txt").read_text().split())
    names = sorted(p.name for p in (args.data / "train/IM").iterdir() if p.name not in held)
    image, truth = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint16)
    places = iter([(y, x) for y in range(0, SIDE, TILE) for x in range(0, SIDE, TILE)])
    count = 0
    for number in np.random.default_rng(0).permutation(len(names)):
        pixels, labels = (tifffile.imread(args.data / "train" / part / names[number]) for part in ("IM", "GT"))
        if min(labels.shape) < TILE:
            continue
        numbers, labels = np.unique(labels[:TILE, :TILE], return_inverse=True)
        objects = len(numbers) - 1
        if not FEWEST <= objects <= MOST:
            continue
        place = next(places, None)
        if place is None:
            break
        low, high = np.percentile(pixels[:TILE, :TILE], (1, 99.8))
        tile = np.clip((pixels[:TILE, :TILE] - low) / max(high - low, 1e-6) * 255, 0, 255)
        here = slice(place[0], place[0] + TILE), slice(place[1], place[1] + TILE)
        labels = labels.reshape(TILE, TILE)
        image[here], truth[here] = tile, np.where(labels > 0, labels + count, 0)
        count += objects
    tifffile.imwrite(args.out, image, compression="zlib")
    tifffile.imwrite(labels_of(args.out), truth, compression="zlib")
    print(f"{count} nuclei in {args.out}")


def labels_of(mosaic: Path) -> Path:
    return mosaic.with_name(f"{mosaic.stem}_labels.tif")


class Timed:
    """A function that notes how long each call takes."""

    def __init__(self, function) -> None:
        self.function, self.seconds = function, []

    def __call__(self, *args, **kwargs):
        begin = time.perf_counter()
        result = self.function(*args, **kwargs)
        self.seconds.append(time.perf_counter() - begin)
        return result


def ours(args: argparse.Namespace):
    """What is timed, and what makes the labels; decoding ends with labels on the grid of the image."""
    import torch

    from im2im_core import api
    from im2im_core.engine.predict_deliver import _Volume

    torch.set_num_threads(args.threads)
    image = tifffile.imread(args.image)
    predictor = api.loaded_predictor(args.model)
    timed = Timed(_Volume.decode)
    _Volume.decode = lambda *args: timed(*args)
    return timed, lambda: np.asarray(predictor.predict(image, axes="YX").main)


def stardist(args: argparse.Namespace):
    """Non-maximum suppression and drawing, of exact distances and probabilities."""
    from stardist import edt_prob, star_dist
    from stardist.models import Config2D, StarDist2D

    truth = tifffile.imread(labels_of(args.image)).astype(np.int32)
    model = StarDist2D(Config2D(train_tensorboard=False), name=None, basedir=None)
    prob = edt_prob(truth)
    points = np.argwhere(prob > model.thresholds.prob)
    inside = prob[tuple(points.T)], star_dist(truth, model.config.n_rays)[tuple(points.T)]
    timed = Timed(model._instances_from_prediction)
    return timed, lambda: timed(truth.shape, *inside, points=points)[0]


def cellpose(args: argparse.Namespace):
    """Dynamics, of exact flows and probabilities as its network gives them."""
    import torch
    from cellpose import dynamics

    torch.set_num_threads(args.threads)
    truth = tifffile.imread(labels_of(args.image)).astype(np.int32)
    _, inside, *flows = dynamics.labels_to_flows([truth], device=torch.device("cpu"))[0]
    timed = Timed(dynamics.resize_and_compute_masks)
    return timed, lambda: timed(5 * np.stack(flows), 10 * (inside - 0.5), flow_threshold=0.4)


def measure(args: argparse.Namespace) -> None:
    timed, run = {"ours": ours, "stardist": stardist, "cellpose": cellpose}[args.by](args)
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
        "machine": machine(),
        "maps": "predicted" if args.by == "ours" else "exact",
        "command": f"python benchmarks/decoding.py time --with {args.by} --name {args.name}"
        + (" --model MODEL" if args.model else "")
        + " --image MOSAIC",
    }
    result = args.results / "decoding.json"
    known = json.loads(result.read_text()) if result.exists() else {}
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps({**known, args.name: facts}, indent=1))
    print(json.dumps(facts, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    image, timing = verbs.add_parser("image"), verbs.add_parser("time")
    image.add_argument("--data", type=Path, required=True, help="dsb2018_fluo folder")
    image.add_argument("--out", type=Path, required=True)
    timing.add_argument("--with", dest="by", choices=("ours", "stardist", "cellpose"), required=True)
    timing.add_argument("--model", type=Path, help="ours only")
    timing.add_argument("--name", required=True)
    timing.add_argument("--image", type=Path, required=True)
    timing.add_argument("--threads", type=int, default=2)
    timing.add_argument("--rounds", type=int, default=5)
    add_results(timing)
    args = parser.parse_args()
    (mosaic if args.verb == "image" else measure)(args)


if __name__ == "__main__":
    main()
