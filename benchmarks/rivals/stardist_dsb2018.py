"""Label images of the hold-out, predicted by StarDist 2D trained from scratch in ten minutes.

Runs in an environment of its own: ``pip install stardist==0.9.2 tensorflow-cpu``.
The clock starts with the process; threshold optimisation and prediction come after it.

    python benchmarks/rivals/stardist_dsb2018.py --data DIR --seed 0 --minutes 10 --out OUT

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


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="dsb2018_fluo folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=int, help="images of each part, to try the script; all where not given")
    return parser.parse_args()


def augment(x, y):
    """Flips, quarter turns and intensity changes of StarDist's own training notebook."""
    import numpy as np

    axes = tuple(range(y.ndim))
    perm = tuple(np.random.permutation(axes))
    x, y = x.transpose(perm), y.transpose(perm)
    for axis in axes:
        if np.random.rand() > 0.5:
            x, y = np.flip(x, axis), np.flip(y, axis)
    x = x * np.random.uniform(0.6, 2) + np.random.uniform(-0.2, 0.2)
    x = x + 0.02 * np.random.uniform(0, 1) * np.random.normal(0, 1, x.shape)
    return x, y


def seed_everything(seed: int, threads: int) -> None:
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    random.seed(seed)
    np.random.seed(seed)
    tf.random.set_seed(seed)


def read_image(path: Path):
    import tifffile
    from csbdeep.utils import normalize

    return normalize(tifffile.imread(path), 1, 99.8, axis=(0, 1))


def read_pairs(data: Path, names: list[str]):
    import tifffile
    from stardist import fill_label_holes

    images = [read_image(data / "train/IM" / name) for name in names]
    return images, [fill_label_holes(tifffile.imread(data / "train/GT" / name)) for name in names]


def train(args: argparse.Namespace, training, validation):
    """Model after `args.minutes` since the process began, with its best weights, and which those are."""
    import tensorflow as tf
    from stardist.models import Config2D, StarDist2D

    class Deadline(tf.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if time.monotonic() - START > args.minutes * 60 - 3:
                self.model.stop_training = True
                raise StopIteration

    model = StarDist2D(Config2D(train_tensorboard=False), name="model", basedir=str(args.out))
    model.prepare_for_training()
    model.callbacks.append(Deadline())
    try:
        model.train(*training, validation_data=validation, augmenter=augment, seed=args.seed)
    except StopIteration:
        model.keras_model.save_weights(str(args.out / "model" / "weights_last.h5"))
    return model, "best" if (args.out / "model" / "weights_best.h5").exists() else "last"


def predict(model, data: Path, names: list[str], target: Path) -> None:
    import tifffile

    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        found, _ = model.predict_instances(read_image(data / "train/IM" / name))
        tifffile.imwrite(target / name, found.astype("uint16"), compression="zlib")


def main() -> None:
    args = parse()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    seed_everything(args.seed, args.threads)
    names, val, held = read_split(args.data, args.seed, args.limit)
    validation = read_pairs(args.data, val)
    model, chosen = train(args, read_pairs(args.data, names), validation)
    seconds = time.monotonic() - START
    cpu = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    model.load_weights(f"weights_{chosen}.h5")
    model.optimize_thresholds(*validation)
    predict(model, args.data, held, args.out / "labels")
    facts = {
        "method": "stardist 0.9.2, Config2D defaults, from scratch",
        "seed": args.seed,
        "minutes": args.minutes,
        "threads": args.threads,
        "seconds_to_checkpoint": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "weights": chosen,
        "steps": int(model.keras_model.optimizer.iterations.numpy()),
        "thresholds": {"prob": float(model.thresholds.prob), "nms": float(model.thresholds.nms)},
    }
    (args.out / "facts.json").write_text(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
