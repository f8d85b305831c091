"""Label images of the hold-out, predicted by Cellpose 3 trained from scratch in ten minutes.

Runs in an environment of its own: ``pip install "cellpose<4"``. The clock starts with the process;
Cellpose's flows of the training labels are made within it. Its learning rate rises over ten epochs,
which on all images would take longer than the time that there is, so an epoch is one batch. Up to a hundred
epochs the learning rates do not depend on how many there are, and the clock ends the training; whether there
will be more is found by two steps that are not counted. Whether an
image is magnified by the size of the training objects or by that of the objects first found in it
(the second half of Cellpose's own size model) is decided on images of the validation part, after the clock.

    python benchmarks/rivals/cellpose_dsb2018.py --data DIR --seed 0 --minutes 10 --out OUT

``benchmarks/quality.py score --labels OUT/labels --facts OUT/facts.json`` turns the label images
into figures, so that every contestant is scored by the same code.
"""

from __future__ import annotations

import time

START = time.monotonic()

import argparse
import json
import os
import random
import resource
from pathlib import Path

from split import read_split

BATCH = 8
VALIDATION = 25
"""Images on which one of two ways to predict is chosen; on two slow cores each takes seconds."""
DIAMETER = 17.0  # of Cellpose's own model of nuclei
CHANNELS = [0, 0]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="dsb2018_fluo folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=int, help="images of each part, to try the script; all where not given")
    return parser.parse_args()


def read_pairs(data: Path, names: list[str]):
    import tifffile

    return tuple([tifffile.imread(data / "train" / part / n) for n in names] for part in ("IM", "GT"))


class Deadline(Exception):
    """The time is over."""


def train(args: argparse.Namespace, names: list[str]):
    """Facts of a training until `args.minutes` after the process began, which leaves a model in `args.out`."""
    import torch
    from cellpose import models, train

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    images, labels = read_pairs(args.data, names)
    model = models.CellposeModel(gpu=False, pretrained_model=False, diam_mean=DIAMETER)
    model.net.diam_mean.data = torch.tensor([DIAMETER])
    begin, cpu_begin = time.monotonic(), cpu_seconds()
    seconds = seconds_per_step(model)
    uncounted, cpu_uncounted = time.monotonic() - begin, cpu_seconds() - cpu_begin
    steps = [0]

    def watch(module, inputs, output):
        if module.training:
            if time.monotonic() - START - uncounted > args.minutes * 60 - 1.2 * seconds:
                raise Deadline
            steps[0] += 1

    # Flows of all labels come before the first step; about a fifth of a second for each image.
    left = args.minutes * 60 - (begin - START) - 0.2 * len(names)
    epochs = max(int(left / seconds), 100)
    handle = model.net.register_forward_hook(watch)
    try:
        train.train_seg(
            model.net,
            train_data=images,
            train_labels=labels,
            channels=CHANNELS,
            n_epochs=epochs,
            nimg_per_epoch=BATCH,
            batch_size=BATCH,
            save_path=args.out,
            model_name="model",
        )
    except Deadline:
        pass
    handle.remove()
    (args.out / "models").mkdir(exist_ok=True)
    model.net.save_model(str(args.out / "models" / "model"))
    return {
        "seconds_to_checkpoint": round(time.monotonic() - START - uncounted, 1),
        "seconds_uncounted": round(uncounted, 1),
        "cpu_seconds": round(cpu_seconds() - cpu_uncounted, 1),
        "steps": steps[0],
        "epochs": epochs,
    }


def cpu_seconds() -> float:
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


def seconds_per_step(model) -> float:
    """Seconds that a step takes here, the second of two."""
    import copy

    import torch

    net, times = copy.deepcopy(model.net).train(), []
    for _ in range(2):
        begin = time.monotonic()
        net(torch.rand(BATCH, 2, 224, 224))[0].square().mean().backward()
        times.append(time.monotonic() - begin)
    return times[-1]


def segment(model, image, measured: bool):
    """Labels of one image; `measured`: magnified by the size of the objects found at first."""
    from cellpose import utils

    found = model.eval(image, channels=CHANNELS, diameter=None)[0]
    if measured and found.max() > 0 and (diameter := utils.diameters(found)[0]) > 0:
        found = model.eval(image, channels=CHANNELS, diameter=diameter)[0]
    return found


def score(model, pairs, measured: bool) -> float:
    """Cellpose's own average precision at IoU 0.5 and 0.75 of the validation part."""
    import numpy as np
    from cellpose import metrics

    images, labels = pairs
    found = [segment(model, image, measured) for image in images]
    return float(np.nanmean(metrics.average_precision(labels, found, [0.5, 0.75])[0]))


def main() -> None:
    args = parse()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    random.seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    names, val, held = read_split(args.data, args.seed, args.limit)
    trained = train(args, names)

    import tifffile
    from cellpose import models

    model = models.CellposeModel(gpu=False, pretrained_model=str(args.out / "models" / "model"))
    pairs = read_pairs(args.data, val[:VALIDATION])
    scores = {measured: score(model, pairs, measured) for measured in (False, True)}
    measured = scores[True] > scores[False]
    target = args.out / "labels"
    target.mkdir(parents=True, exist_ok=True)
    for name in held:
        found = segment(model, tifffile.imread(args.data / "train/IM" / name), measured)
        tifffile.imwrite(target / name, found.astype("uint16"), compression="zlib")
    facts = {
        "method": "cellpose 3, defaults of its nucleus model, from scratch",
        "seed": args.seed,
        "minutes": args.minutes,
        "threads": args.threads,
        **trained,
        "measured_size": measured,
        "validation": {str(k): round(v, 4) for k, v in scores.items()},
    }
    (args.out / "facts.json").write_text(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
