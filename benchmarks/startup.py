"""Start-up: ``im2im --help``, and ``im2im predict`` against importing torch and MONAI and running the network.

    python benchmarks/startup.py [--rounds 5]

A model of the preset instance_seg_2d that learned two steps predicts a simulated image of 256 x 256
pixels. The commands are interleaved, on two threads; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from quality import add_results, machine

THREADS = 2
SEED = 1
BARE = """
import sys, json, torch, tifffile, numpy as np
from monai.networks.nets import BasicUNet
features = json.loads(sys.argv[2])
net = BasicUNet(spatial_dims=2, in_channels=4, out_channels=8, features=features, norm="batch").eval()
image = tifffile.imread(sys.argv[1]).astype(np.float32)
x = torch.from_numpy(image)[None, None]
x = torch.nn.functional.pad(x, (0, -x.shape[-1] % 32, 0, -x.shape[-2] % 32))
with torch.inference_mode():
    torch.nn.functional.pixel_shuffle(net(torch.nn.functional.pixel_unshuffle(x, 2)), 2)
"""


def seconds(words: list[str]) -> float:
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
    start = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


def prepare(folder: Path) -> tuple[Path, Path, str]:
    """Model, image, and the widths of the network as JSON."""
    from im2im_core import api
    from im2im_core.microscope import write_dataset
    from im2im_core.project import Project

    write_dataset(folder / "data", "instance_segmentation", count=3, shape=(256, 256), seed=SEED)
    recipe = api.load_preset("instance_seg_2d").override({"data.path": str(folder / "data"), "training.steps": 2})
    run = api.train(recipe, project=Project.create(folder / "project"))
    features = json.dumps(list(run.recipe.network.features))
    return run.model, min((folder / "data" / "IM").iterdir()), features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    add_results(parser)
    args = parser.parse_args()
    cli = [sys.executable, "-m", "im2im_core.cli"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model, image, features = prepare(Path(folder))
        for number in range(args.rounds + 1):  # the first one warms the disk cache
            row = {
                "help": seconds([*cli, "--help"]),
                "bare": seconds([sys.executable, "-c", BARE, str(image), features]),
                "predict": seconds([*cli, "predict", str(model), str(image), "-o", f"{folder}/{number}.tif"]),
            }
            print({k: round(v, 2) for k, v in row.items()}, flush=True)
            rows.append(row)
    medians = {k: round(statistics.median(r[k] for r in rows[1:]), 3) for k in rows[0]}
    facts = {
        "command": "python benchmarks/startup.py",
        "rounds": args.rounds,
        "threads": THREADS,
        "seed": SEED,
        "machine": machine(),
        **{f"{name}_s": value for name, value in medians.items()},
        "predict_adds_s": round(medians["predict"] - medians["bare"], 3),
    }
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "startup.json").write_text(json.dumps(facts, indent=1))
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
