"""Nuclei in mouse embryos (bbbc050), split by embryo: 3D presets, the 2D preset by plane, a classical method.

    python benchmarks/volumes.py run --preset embedseg_3d --data DIR [--minutes 20] [--seed 0]
    python benchmarks/volumes.py run --preset instance_seg_2d --data DIR       # planes, joined by their overlap
    python benchmarks/volumes.py classical --data DIR
    python benchmarks/volumes.py choose --data DIR [--steps 300]      # distance or boundary maps, on validation embryos

Three of nine embryos are held out; what is chosen (thresholds of the classical method, the overlap
that joins planes) is chosen on the others.
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
from quality import THRESHOLDS, add_results, command, machine, training_facts

HELD_OUT = ("Emb03", "Emb06", "Emb09")
OVERLAPS = (0.1, 0.25, 0.4)
VOXELS = (1.75, 0.8, 0.8)


def names(folder: Path, held: bool, limit: int | None = None) -> list[str]:
    """Volumes of the embryos held out, or of the others; not more than `limit`."""
    return sorted(p.name for p in (folder / "IM").iterdir() if (p.name[:5] in HELD_OUT) == held)[:limit]


def score(found: dict[str, np.ndarray], folder: Path) -> dict[str, float]:
    """Average precision per threshold, mean over the volumes; objects in 3D."""
    import tifffile

    from im2im_core.metrics import average_precision, match

    rows = []
    for name, labels in found.items():
        matching = match(labels, tifffile.imread(folder / "GT" / name))
        rows.append([average_precision(matching, t) for t in THRESHOLDS])
    return {str(t): round(statistics.mean(r[i] for r in rows), 4) for i, t in enumerate(THRESHOLDS)}


def read(folder: Path, which: list[str]) -> dict[str, np.ndarray]:
    import tifffile

    return {name: tifffile.imread(folder / name) for name in which}


def write_facts(path: Path, facts: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1))
    print(json.dumps(facts, indent=1))


# ---- presets -------------------------------------------------------------------


def run(args: argparse.Namespace) -> None:
    work = Path(args.work or tempfile.mkdtemp(prefix="im2im_volumes_"))
    start = time.time()
    train(args, args.preset, work, "run")
    planes = args.preset.endswith("2d")
    found = predict(work, args.data, names(args.data, True, args.limit))
    facts = {
        "method": f"{args.preset}, by plane" if planes else args.preset,
        "seed": args.seed,
        "minutes": args.minutes,
        "threads": args.threads,
        **training_facts(work / "runs/run", start),
        "machine": machine(),
        "command": f"python benchmarks/volumes.py run --preset {args.preset} --data DIR --minutes {args.minutes:g}"
        f" --seed {args.seed}",
    }
    if planes:
        others = predict(work, args.data, names(args.data, False, args.limit))
        scores = {o: score({n: join_planes(v, o) for n, v in others.items()}, args.data)["0.5"] for o in OVERLAPS}
        best = max(OVERLAPS, key=lambda o: scores[o])
        found = {n: join_planes(v, best) for n, v in found.items()}
        facts["overlap_to_join"] = best
    facts["ap"] = score(found, args.data)
    write_facts(args.results / "volumes" / f"{args.preset}_seed{args.seed}.json", facts)


def train(args: argparse.Namespace, preset: str, work: Path, name: str, *more: str) -> None:
    """Run `name` of a preset in the project `work`, on the embryos that are not held out."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "train.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["IM", "GT", "group"])
        writer.writerows([args.data / "IM" / n, args.data / "GT" / n, n[:5]] for n in names(args.data, held=False))
    settings = {"training.threads": args.threads, "training.seed": args.seed, "data.voxel_size": list(VOXELS)}
    settings |= {"training.steps": args.steps} if args.verb == "choose" else {"training.minutes": args.minutes}
    words = ["train", preset, "--project", work, "--name", name, "--data.path", work / "train.csv"]
    words += [w for k, v in settings.items() for w in (f"--{k}", json.dumps(v))]
    subprocess.run(command(*words, *more), check=True)


def choose(args: argparse.Namespace) -> None:
    """Figures of both maps on the embryos that the split keeps for validation; the held-out ones are not looked at.

    In as many steps, which take as long with either: what else the machine does meanwhile changes nothing.
    What a training itself tells is of a part of each image; here they are predicted whole.
    """
    work = Path(args.work or tempfile.mkdtemp(prefix="im2im_volumes_"))
    found = {}
    for maps in ("distance", "boundary"):
        if not (work / "runs" / maps / "model").exists():
            train(args, "instance_seg_3d", work, maps, "--framework.maps", maps)
        found[maps] = score(predict(work, args.data, validated(work, maps), maps), args.data)
    facts = {
        "volumes": validated(work, "distance"),
        "validation": found,
        "steps": args.steps,
        "seed": args.seed,
        "threads": args.threads,
        "machine": machine(),
        "command": f"python benchmarks/volumes.py choose --data DIR --steps {args.steps} --seed {args.seed}",
    }
    write_facts(args.results / "volumes_choice.json", facts)


def validated(work: Path, run: str) -> list[str]:
    """Volumes that a run kept for validation."""
    from im2im_core.api import load_split
    from im2im_core.project import Project
    from im2im_core.recipe import Recipe

    split = load_split(Recipe.from_file(work / "runs" / run / "recipe.yaml"), Project.open(work))
    return sorted(f"{sample.name}.tif" for sample in split.validation)


def predict(work: Path, folder: Path, which: list[str], run: str = "run") -> dict[str, np.ndarray]:
    images = [folder / "IM" / name for name in which]
    model, out = work / "runs" / run / "model", work / f"labels_{run}"
    out.mkdir(exist_ok=True)  # a single image would be written to a file of that name
    subprocess.run(command("predict", model, *images, "-o", out, "--overwrite"), check=True)
    return read(out, which)


def join_planes(labels: np.ndarray, overlap: float) -> np.ndarray:
    """Objects in 3D of labels by plane: those of neighbouring planes with an IoU of at least `overlap` are one."""
    result = np.zeros(labels.shape, np.uint32)
    count = 0
    for z, plane in enumerate(labels):
        below = result[z - 1] if z else np.zeros_like(result[0])
        for number in np.unique(plane[plane > 0]):
            own = plane == number
            ids, shared = np.unique(below[own], return_counts=True)
            ids, shared = ids[ids > 0], shared[ids > 0]
            unions = [own.sum() + (below == i).sum() - s for i, s in zip(ids, shared, strict=True)]
            ratios = [s / u for s, u in zip(shared, unions, strict=True)]
            if ratios and max(ratios) >= overlap:
                result[z][own] = ids[int(np.argmax(ratios))]
            else:
                count += 1
                result[z][own] = count
    return result


# ---- classical -----------------------------------------------------------------


def classical(args: argparse.Namespace) -> None:
    grid = [(s, f) for s in (2.0, 3.0, 4.0, 5.0, 6.0) for f in (0.6, 0.8, 1.0, 1.2)]
    others = read(args.data / "IM", names(args.data, False, args.limit))
    scores = {g: score({n: blobs(v, *g) for n, v in others.items()}, args.data)["0.5"] for g in grid}
    sigma, factor = max(grid, key=lambda g: scores[g])
    held = read(args.data / "IM", names(args.data, True, args.limit))
    facts = {
        "method": "LoG + watershed",
        "sigma_micrometres": sigma,
        "threshold_factor": factor,
        "machine": machine(),
        "command": "python benchmarks/volumes.py classical --data DIR",
        "ap": score({n: blobs(v, sigma, factor) for n, v in held.items()}, args.data),
    }
    write_facts(args.results / "volumes" / "classical.json", facts)


def blobs(image: np.ndarray, sigma: float, factor: float) -> np.ndarray:
    """Objects at the peaks of the Laplacian of Gaussian, grown by watershed over what is brighter than Otsu's value.

    Parameters
    ----------
    sigma : float
        Width of the Gaussian, micrometres.
    factor : float
        Multiplies the threshold.
    """
    from scipy import ndimage
    from skimage.feature import peak_local_max
    from skimage.filters import threshold_otsu
    from skimage.segmentation import watershed

    widths = [sigma / v for v in VOXELS]
    smooth = ndimage.gaussian_filter(image.astype(np.float32), [0.8 / v for v in VOXELS])
    mask = smooth > factor * threshold_otsu(smooth)
    response = -ndimage.gaussian_laplace(image.astype(np.float32), widths)
    peaks = peak_local_max(response, footprint=np.ones([2 * round(w) + 1 for w in widths]), labels=mask.astype(int))
    seeds = np.zeros(image.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-response, seeds, mask=mask)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("run", "classical", "choose"):
        sub = verbs.add_parser(verb)
        sub.add_argument("--data", type=Path, default=os.environ.get("IM2IM_TEST_DATA", "") + "/nuclei3d/bbbc050")
        add_results(sub)
    for verb in ("run", "classical"):
        verbs.choices[verb].add_argument("--limit", type=int, help="volumes of each part; all where not given")
    verbs.choices["run"].add_argument("--preset", default="embedseg_3d")
    verbs.choices["run"].add_argument("--minutes", type=float, default=20)
    verbs.choices["choose"].add_argument("--steps", type=int, default=300)
    for verb in ("run", "choose"):
        verbs.choices[verb].add_argument("--seed", type=int, default=0)
        verbs.choices[verb].add_argument("--threads", type=int, default=2)
        verbs.choices[verb].add_argument("--work")
    args = parser.parse_args()
    args.data = Path(args.data).resolve()
    {"run": run, "classical": classical, "choose": choose}[args.verb](args)


if __name__ == "__main__":
    main()
