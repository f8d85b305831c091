"""Membranes in electron micrographs (ISBI 2012): the semantic preset against threshold + watershed.

    python benchmarks/membranes.py run --data DIR [--minutes 10] [--seed 0]
    python benchmarks/membranes.py classical --data DIR

Sections are consecutive, so the last six are held out as one block, with one section before them left
out. Both methods give the probability that a pixel is membrane; cells are what a watershed makes of it,
with settings chosen on sections that are not held out; those of the network on the ones kept for
validation, since it knows the others. Adapted Rand error of each section, membrane pixels of the
truth left out, mean over the sections (Arganda-Carreras et al. 2015).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from quality import add_results, command, machine, training_facts

HELD_OUT = 6
VALIDATED = 3
"""The last sections of the training block: neighbours look alike."""


def parts(folder: Path) -> tuple[list[str], list[str]]:
    """Sections to train on and sections held out."""
    every = sorted(p.name for p in (folder / "IM").iterdir())
    return every[: -HELD_OUT - 1], every[-HELD_OUT:]


def read(folder: Path, names: list[str]) -> dict[str, np.ndarray]:
    import tifffile

    return {n: np.squeeze(tifffile.imread(folder / n)) for n in names}


def cells(membrane: np.ndarray, smooth: float, depth: float) -> np.ndarray:
    """Cells by watershed on the smoothed membrane map, from its basins that are at least `depth` deep."""
    from scipy import ndimage
    from skimage.morphology import h_minima
    from skimage.segmentation import watershed

    heights = ndimage.gaussian_filter(membrane.astype(np.float32), smooth)
    seeds, _ = ndimage.label(h_minima(heights, depth))
    return watershed(heights, seeds)


def error(found: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> float:
    from scipy import ndimage

    from im2im_core.metrics import adapted_rand_error

    values = []
    for name, labels in found.items():
        objects, _ = ndimage.label(truth[name] == 0)
        values.append(adapted_rand_error(labels, objects))
    return statistics.mean(values)


def best_cells(maps: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> tuple[float, float]:
    """Smoothing and depth with the smallest error."""
    grid = [(s, d) for s in (1.0, 2.0, 3.0) for d in (0.02, 0.05, 0.1, 0.2, 0.3)]
    return min(grid, key=lambda g: error({n: cells(m, *g) for n, m in maps.items()}, truth))


def report(path: Path, maps: dict[str, dict[str, np.ndarray]], folder: Path, facts: dict[str, object]) -> None:
    """Choose on sections that are not held out, score on those that are, write."""
    truths = read(folder / "GT", [*maps["chosen"], *maps["held"]])
    smooth, depth = best_cells(maps["chosen"], truths)
    found = {n: cells(m, smooth, depth) for n, m in maps["held"].items()}
    facts |= {"smooth": smooth, "depth": depth, "adapted_rand_error": round(error(found, truths), 4)}
    facts["machine"] = machine()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1))
    print(json.dumps(facts, indent=1))


def classical(args: argparse.Namespace) -> None:
    """Dark is membrane: brightness between the 1st and 99th percentile, upside down."""

    def darkness(image: np.ndarray) -> np.ndarray:
        low, high = np.percentile(image, (1, 99))
        return 1 - np.clip((image - low) / (high - low), 0, 1)

    train, held = parts(args.data)
    maps = {
        part: {n: darkness(i) for n, i in read(args.data / "IM", which[: args.limit]).items()}
        for part, which in (("chosen", train), ("held", held))
    }
    facts = {"method": "threshold + watershed", "command": "python benchmarks/membranes.py classical --data DIR"}
    report(args.results / "membranes" / "classical.json", maps, args.data, facts)


def run(args: argparse.Namespace) -> None:
    work = Path(args.work or tempfile.mkdtemp(prefix="im2im_membranes_"))
    work.mkdir(parents=True, exist_ok=True)
    train, held = parts(args.data)
    with (work / "train.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["IM", "GT", "part"])
        validated = train[-VALIDATED:]
        writer.writerows(
            [args.data / "IM" / n, args.data / "GT" / n, "val" if n in validated else "train"] for n in train
        )
    settings = {"training.minutes": args.minutes, "training.threads": args.threads, "training.seed": args.seed}
    words = ["train", args.preset, "--project", work, "--name", "run", "--data.path", work / "train.csv"]
    words += [w for k, v in settings.items() for w in (f"--{k}", json.dumps(v))]
    start = time.time()
    subprocess.run(command(*words), check=True)
    model, out = work / "runs/run/model", work / "maps"
    chosen, held = validated[: args.limit], held[: args.limit]
    images = [args.data / "IM" / n for n in (*chosen, *held)]
    words = ["predict", model, *images, "-o", out, "--overwrite", "--outputs", "probability"]
    subprocess.run(command(*words), check=True)
    maps = {part: membranes(out, which) for part, which in (("chosen", chosen), ("held", held))}
    facts = {
        "method": args.preset,
        "seed": args.seed,
        "minutes": args.minutes,
        "threads": args.threads,
        **training_facts(work / "runs/run", start),
        "command": f"python benchmarks/membranes.py run --preset {args.preset} --data DIR --minutes {args.minutes:g}"
        f" --seed {args.seed}",
    }
    report(args.results / "membranes" / f"{args.preset}_seed{args.seed}.json", maps, args.data, facts)


def membranes(folder: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Probability of the class membrane, the last channel of each file."""
    found = {}
    for name, array in read(folder, names).items():
        found[name] = array[-1] if array.ndim == 3 else array
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("run", "classical"):
        sub = verbs.add_parser(verb)
        sub.add_argument("--data", type=Path, default=os.environ.get("IM2IM_TEST_DATA", "") + "/em_membrane_isbi2012")
        sub.add_argument("--limit", type=int, help="sections of each part that are scored; all where not given")
        add_results(sub)
    verbs.choices["run"].add_argument("--preset", default="semantic_seg_2d")
    verbs.choices["run"].add_argument("--seed", type=int, default=0)
    verbs.choices["run"].add_argument("--minutes", type=float, default=10)
    verbs.choices["run"].add_argument("--threads", type=int, default=2)
    verbs.choices["run"].add_argument("--work")
    args = parser.parse_args()
    args.data = Path(args.data).resolve()
    (run if args.verb == "run" else classical)(args)


if __name__ == "__main__":
    main()
