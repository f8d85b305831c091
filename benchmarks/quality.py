"""Instance segmentation of nuclei in ten CPU minutes: figures on the hold-out of dsb2018_fluo.

    python benchmarks/quality.py run --data DIR --seed 0 [--minutes 10] [--known 5] [--set section.field=value …]
    python benchmarks/quality.py score --data DIR --labels OUT/labels --facts OUT/facts.json
    python benchmarks/quality.py table

`run` calls the command line as shipped, in a process of its own; the clock starts with that
process. A run that was made before (same recipe, split and seed) is not made again. `score`
takes the label images of any other method. `table` prints what stands in ``results``. To try
the script itself, ``--limit`` scores fewer images and ``--results`` keeps the figures elsewhere.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
RECTANGLE = 128
"""Side of the complete rectangles of partly labelled images, pixels."""
THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.9)


def split_names(folder: Path) -> tuple[list[str], list[str]]:
    """Names to train on and names held out."""
    held = sorted((folder / "holdout.txt").read_text().split())
    names = sorted(p.name for p in (folder / "train" / "IM").iterdir())
    return [n for n in names if n not in set(held)], held


def split_hash(folder: Path) -> str:
    train, held = split_names(folder)
    return hashlib.sha256("\n".join([*train, "--", *held]).encode()).hexdigest()[:12]


def write_table(folder: Path, names: list[str], path: Path, known: float = 100) -> None:
    """CSV of image and target, as the table layout reads it, and of weights where a part of the pixels is known."""
    weights = complete_rectangles(folder, names, path.parent / "known", known) if known < 100 else {}
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["IM", "GT", *(["CM"] if weights else [])])
        for n in weights or names:
            row = [folder / "train/IM" / n, folder / "train/GT" / n]
            writer.writerow([*row, weights[n]] if weights else row)


def complete_rectangles(folder: Path, names: list[str], target: Path, percent: float) -> dict[str, Path]:
    """Weight images with one complete rectangle around a random object each, until `percent` of all pixels are known.

    Somebody who annotates opens images in any order, marks a region with objects and labels all in it;
    images that nobody came to are not used.
    """
    import numpy as np
    import tifffile

    rng = np.random.default_rng(0)
    shapes = {n: tifffile.TiffFile(folder / "train/GT" / n).pages[0].shape for n in names}
    left = percent / 100 * sum(h * w for h, w in shapes.values())
    target.mkdir(parents=True, exist_ok=True)
    found: dict[str, Path] = {}
    for name in rng.permutation(names):
        labels = tifffile.imread(folder / "train/GT" / name)
        if left <= 0 or not labels.any():
            continue
        side = [min(RECTANGLE, n) for n in labels.shape]
        middle = rng.choice(np.argwhere(labels > 0))
        begin = [int(np.clip(m - s // 2, 0, n - s)) for m, s, n in zip(middle, side, labels.shape, strict=True)]
        weight = np.zeros(labels.shape, np.uint8)
        weight[begin[0] : begin[0] + side[0], begin[1] : begin[1] + side[1]] = 1
        left -= weight.sum()
        found[str(name)] = target / name
        tifffile.imwrite(found[str(name)], weight, compression="zlib")
    return found


def score_labels(folder: Path, labels: Path, names: list[str]) -> dict[str, object]:
    """Average precision per threshold, mean over the named images."""
    import tifffile

    from im2im_core.metrics import average_precision, match

    rows = []
    for name in names:
        matching = match(tifffile.imread(labels / name), tifffile.imread(folder / "train/GT" / name))
        rows.append({str(t): average_precision(matching, t) for t in THRESHOLDS})
    return {"images": len(rows), "ap": {t: round(statistics.mean(r[t] for r in rows), 4) for t in rows[0]}}


def machine() -> dict[str, object]:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {"processor": model, "cores": os.cpu_count(), "python": platform.python_version()}


def add_results(parser: argparse.ArgumentParser) -> None:
    """The option that says where figures are written to."""
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of figures (benchmarks/results)")


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "im2im_core.cli", *map(str, words)]


def recipe_key(preset: str, settings: dict[str, object]) -> str:
    """Hash of all settings that decide a result; seed, place of the images and version of the schema aside."""
    from im2im_core.api import load_preset

    content = load_preset(preset).override(settings).dump()
    core = {k: v for k, v in content.items() if k not in ("name", "schema_version")}
    core["training"] = {k: v for k, v in core["training"].items() if k != "seed"}
    core["data"] = {k: v for k, v in core["data"].items() if k != "path"}
    return hashlib.sha256(json.dumps(used(core), sort_keys=True).encode()).hexdigest()[:12]


def used(content: object) -> object:
    """`content` without what is off or empty: a setting that came later and is off leaves results comparable."""
    if not isinstance(content, dict):
        return content
    return {k: kept for k, v in content.items() if (kept := used(v)) not in (None, False, 0, "", [], {}, ())}


def result_path(
    results: Path, data: Path, preset: str, settings: dict[str, object], known: float = 100, seed: int = 0
) -> Path:
    """File of the figures of one run."""
    part = "" if known == 100 else f"_known{known:g}"
    return results / "quality" / f"{preset}_{recipe_key(preset, settings)}_{split_hash(data)}{part}_seed{seed}.json"


def value_of(text: str) -> object:
    """What a setting on the command line means; words need no quotes."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def run(args: argparse.Namespace) -> Path:
    settings: dict[str, object] = {"training.minutes": args.minutes, "training.threads": args.threads}
    settings |= {name: value_of(text) for name, _, text in (s.partition("=") for s in args.set)}
    result = result_path(args.results, args.data, args.preset, settings, args.known, args.seed)
    if result.exists() and not args.again:
        print(f"{result.name} was made before; figures below are reused")
        return result
    work = Path(args.work or tempfile.mkdtemp(prefix="im2im_quality_"))
    train, held = split_names(args.data)
    work.mkdir(parents=True, exist_ok=True)
    write_table(args.data, train, work / "train.csv", args.known)
    words = ["train", args.preset, "--project", work, "--name", "run", "--data.path", work / "train.csv"]
    words += [w for k, v in settings.items() for w in (f"--{k}", v if isinstance(v, str) else json.dumps(v))]
    start = time.time()
    subprocess.run(command(*words, "--training.seed", args.seed), check=True)
    begin = time.time()
    held = held[: args.limit]
    images = [args.data / "train/IM" / name for name in held]
    (work / "labels").mkdir(exist_ok=True)  # a single image would be written to a file of that name
    subprocess.run(
        command("predict", work / "runs/run/model", *images, "-o", work / "labels", "--overwrite"), check=True
    )
    facts = {
        "method": args.preset,
        "settings": settings,
        "seed": args.seed,
        "made": int(start),
        "minutes": args.minutes,
        "percent_known": args.known,
        "recipe_hash": recipe_key(args.preset, settings),
        "split_hash": split_hash(args.data),
        "threads": args.threads,
        **training_facts(work / "runs/run", start),
        "seconds_to_predict": round(time.time() - begin, 1),
        "machine": machine(),
        "command": f"python benchmarks/quality.py run --data DIR --seed {args.seed} --minutes {args.minutes:g}"
        + ("" if args.preset == "instance_seg_2d" else f" --preset {args.preset}")
        + (f" --known {args.known:g}" if args.known < 100 else "")
        + "".join(f" --set {s}" for s in args.set),
        **score_labels(args.data, work / "labels", held),
    }
    result.parent.mkdir(parents=True, exist_ok=True)
    set_aside(result, facts["precision"])
    result.write_text(json.dumps(facts, indent=1))
    return result


def set_aside(result: Path, precision: str) -> None:
    """Keep a result that was computed in another precision, on another processor, beside the one that is written."""
    before = json.loads(result.read_text()).get("precision", "fp32") if result.exists() else precision
    if before != precision:
        result.rename(result.with_name(result.name.replace("_seed", f"_{before}_seed")))


def training_facts(folder: Path, start: float) -> dict[str, object]:
    """Steps, speed and time of the run in `folder`, whose process began at the Unix time `start`."""
    import yaml  # other tools, whose environments lack it, import this file too

    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    saved = [e for e in events if e["event"] == "Checkpointed"][-1]
    seconds = saved["time"] - start
    speeds = [e["samples_per_second"] for e in events if e["event"] == "Losses"]
    beside = sum(e["seconds"] for e in events if e["event"] in ("Validated", "Checkpointed"))
    metrics = json.loads((folder / "metrics.json").read_text())
    return {
        "seconds_to_checkpoint": round(seconds, 1),
        "precision": yaml.safe_load((folder / "plan.yaml").read_text())["recipe"]["training"]["precision"],
        "steps": saved["step"],
        "samples_per_second": round(statistics.median(speeds or [0]), 2),
        "overhead": round(beside / seconds, 4),
        "validation": {name: round(value, 4) for name, value in metrics.items()},
    }


def score(args: argparse.Namespace) -> Path:
    facts = json.loads(args.facts.read_text())
    held = split_names(args.data)[1][: args.limit]
    facts |= {"split_hash": split_hash(args.data), "machine": machine(), **score_labels(args.data, args.labels, held)}
    name = "".join(c if c.isalnum() else "_" for c in facts["method"].split(",")[0])
    result = args.results / "quality" / f"{name}_{facts['split_hash']}_seed{facts['seed']}.json"
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps(facts, indent=1))
    return result


def table(results: Path) -> None:
    print(
        f"{'method':40} {'seed':>4} {'min':>4} {'steps':>6} "
        + " ".join(f"AP{t * 100:.0f}".rjust(6) for t in THRESHOLDS)
    )
    for path in sorted((results / "quality").glob("*.json")):
        f = json.loads(path.read_text())
        figures = " ".join(f"{f['ap'][str(t)]:6.3f}" for t in THRESHOLDS)
        print(f"{f['method'][:40]:40} {f['seed']:4} {f['minutes']:4g} {f['steps']:6} {figures}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("run", "score"):
        sub = verbs.add_parser(verb)
        sub.add_argument("--data", type=Path, default=os.environ.get("IM2IM_TEST_DATA", "") + "/dsb2018_fluo")
        sub.add_argument("--limit", type=int, help="images of the hold-out that are looked at; all where not given")
    verbs.choices["run"].add_argument("--preset", default="instance_seg_2d")
    verbs.choices["run"].add_argument("--seed", type=int, default=0)
    verbs.choices["run"].add_argument("--minutes", type=float, default=10)
    verbs.choices["run"].add_argument("--threads", type=int, default=2)
    verbs.choices["run"].add_argument(
        "--known", type=float, default=100, help="percent of the training pixels that are labelled, in rectangles"
    )
    verbs.choices["run"].add_argument("--set", action="append", default=[])
    verbs.choices["run"].add_argument("--work")
    verbs.choices["run"].add_argument("--again", action="store_true")
    verbs.choices["score"].add_argument("--labels", type=Path, required=True)
    verbs.choices["score"].add_argument("--facts", type=Path, required=True)
    verbs.add_parser("table")
    for sub in verbs.choices.values():
        add_results(sub)
    args = parser.parse_args()
    if args.verb == "table":
        table(args.results)
        return
    args.data = Path(args.data).resolve()
    print((run if args.verb == "run" else score)(args).read_text())


if __name__ == "__main__":
    main()
