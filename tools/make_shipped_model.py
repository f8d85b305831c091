"""Trains, scores and packs the nucleus model that comes with the package.

    python tools/make_shipped_model.py --data DIR [--work DIR] [--set section.field=value …]
    python tools/make_shipped_model.py --data DIR --set training.minutes=1 --limit 4 --out DIR   # to try the script

DIR is a folder like dsb2018_fluo: ``train/IM``, ``train/GT`` and ``holdout.txt``, whose images are
neither trained nor chosen on. Its images are in the public domain (CC0). The training is
``im2im train tools/shipped/nuclei_2d.yaml``; one in the work folder is gone on with, or used again.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).parent / "shipped" / "nuclei_2d.yaml"
TARGET = Path(__file__).parents[1] / "src" / "im2im_core" / "models_shipped" / "nuclei_2d"
LARGEST = 5_000_000
"""Bytes of the whole package."""
SAMPLE = 96
"""Side of the test tensors, pixels."""
DESCRIPTION = (
    "Finds every nucleus in 2D fluorescence images and gives each its own number. "
    "Bright nuclei on dark ground, one channel, of about 8 to 80 pixels in diameter."
)
LIMITS = (
    "Not for histology, brightfield or phase contrast, not for whole cells, and not for 3D stacks beyond plane by "
    "plane. Nuclei that overlap in projection are cut apart, not stacked. For other sizes give the diameter of the "
    "objects (object_diameter). Look at a few results before you rely on it, and train on from your own "
    "corrections where it fails."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--limit", type=int, help="images of the hold-out that are scored; all where not given")
    parser.add_argument("--out", type=Path, default=TARGET, help="folder of the package")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="im2im_shipped_"))
    work.mkdir(parents=True, exist_ok=True)
    held = sorted((arguments.data / "holdout.txt").read_text().split())
    run = train(arguments.data, held, work, arguments.set)
    scored = held[: arguments.limit]
    metrics, rows = score(run, arguments.data, scored, work)
    target = arguments.out
    pack(run, target, arguments.data, scored, metrics, rows)
    size = sum(path.stat().st_size for path in target.iterdir())
    if size > LARGEST:
        raise SystemExit(f"{target} has {size} bytes, at most {LARGEST} may come with the package")
    sys.stdout.write(f"{target}: {size} bytes\n{table(rows)}\n")


def command(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "im2im_core.cli", *map(str, words)], check=True)


def train(data: Path, held: list[str], work: Path, changes: list[str]) -> Path:
    """Finished run on all images that are not held out."""
    run = work / "runs" / "nuclei_2d"
    if (run / "model" / "bioimageio.yaml").is_file():
        return run
    names = sorted(p.name for p in (data / "train/IM").iterdir() if p.name not in set(held))
    with (work / "train.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["IM", "GT"])
        writer.writerows([data / "train/IM" / name, data / "train/GT" / name] for name in names)
    words = [word for change in changes for word in (f"--{change.split('=', 1)[0]}", change.split("=", 1)[1])]
    if run.is_dir():
        command("resume", "nuclei_2d", "--project", work)
    else:
        command("train", RECIPE, "--project", work, "--name", "nuclei_2d", "--data.path", work / "train.csv", *words)
    if not (run / "model" / "bioimageio.yaml").is_file():
        raise SystemExit(f"{run} was paused; the same command goes on with it")
    return run


def score(run: Path, data: Path, held: list[str], work: Path) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Average precision on the hold-out, over all images and for each image size."""
    import tifffile

    from im2im_core.metrics import average_precision, match

    images = [data / "train/IM" / name for name in held]
    (work / "labels").mkdir(exist_ok=True)  # a single image would be written to a file of that name
    command("predict", run / "model", *images, "-o", work / "labels", "--overwrite")
    groups: dict[tuple[int, ...], list[tuple[float, float]]] = defaultdict(list)
    for name in held:
        truth = tifffile.imread(data / "train/GT" / name)
        matching = match(tifffile.imread(work / "labels" / name), truth)
        groups[truth.shape].append((average_precision(matching, 0.5), average_precision(matching, 0.75)))
    every = [pair for pairs in groups.values() for pair in pairs]
    rows = [
        {"size": " × ".join(map(str, shape)), "images": len(pairs), **_means(pairs)}
        for shape, pairs in sorted(groups.items())
    ]
    return _means(every), rows


def _means(pairs: list[tuple[float, float]]) -> dict[str, float]:
    first, second = (round(statistics.mean(column), 4) for column in zip(*pairs, strict=True))
    return {"ap50": first, "ap75": second}


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"| {r['size']} | {r['images']} | {r['ap50']:.3f} | {r['ap75']:.3f} |" for r in rows]
    head = ["| image size (pixels) | images | AP at IoU 0.5 | AP at IoU 0.75 |", "|---|---|---|---|"]
    return "\n".join([*head, *lines])


def pack(
    run: Path, target: Path, data: Path, held: list[str], metrics: dict[str, float], rows: list[dict[str, Any]]
) -> None:
    """Write the package with its card beside the code."""
    import tifffile
    import torch

    from im2im_core.bundle import BundleMetadata, open_bundle
    from im2im_core.bundle.metadata import Author, Citation
    from im2im_core.engine.export import export_bundle
    from im2im_core.engine.predict import load_framework

    bundle = open_bundle(run / "model")
    recipe = dict(bundle.provenance["recipe"])
    recipe["data"] = {**recipe["data"], "path": "train.csv"}
    trained = bundle.provenance.get("trained_on") or bundle.card["trained_on"]
    metadata = BundleMetadata(
        name="nuclei_2d",
        description=DESCRIPTION,
        task="instance_segmentation",
        authors=(Author(name="napari-im2im developers"),),
        licence="MIT",
        cite=(
            Citation(text="Caicedo et al. 2019, Nature Methods 16, 1247: the images", doi="10.1038/s41592-019-0612-7"),
        ),
        tags=("nuclei", "fluorescence", "instance segmentation", "2d"),
        documentation=f"Average precision on the {len(held)} images of the hold-out, by image size:\n\n{table(rows)}",
        trained_on=f"Data Science Bowl 2018 (BBBC038, CC0), greyscale fluorescence: {trained}",
        limits=LIMITS,
        metrics=metrics,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    export_bundle(
        load_framework(bundle, torch.device("cpu")),
        bundle.inference.replace(name="nuclei_2d"),
        target,
        metadata=metadata,
        sample=tifffile.imread(data / "train/IM" / held[0])[None, :SAMPLE, :SAMPLE],
        provenance={"recipe": recipe, "metrics": metrics, "metrics_by_image_size": rows},
    )


if __name__ == "__main__":
    main()
