"""Writes docs/benchmarks.md from the figures in ``results``.

    python benchmarks/report.py [--results FOLDER] [--page FILE]

What was not measured is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from quality import add_results

DEFAULT = "instance_seg_2d"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
LATE = 605
"""Seconds of a training of ten minutes from which on it is said that it took longer."""
HEAD = """# Benchmarks

Every figure on this page was written by a script in `benchmarks/`; `python benchmarks/report.py`
makes the page from the JSON files in `benchmarks/results/`. Speeds are ratios of two things that
ran interleaved on the same machine; seconds are given for orientation.
"""


def load(results: Path, name: str) -> dict:
    path = results / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def machine(facts: dict) -> str:
    m = facts["machine"]
    return f"{m['processor']}, {m['cores']} cores, Python {m['python']}"


BASE = ("training.minutes", "training.threads")
"""Settings that every run of ``quality.py`` has."""


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))]


def is_ours(row: dict) -> bool:
    return "recipe_hash" in row


def changed(row: dict) -> str:
    """Settings that differ from the preset, in words."""
    return ", ".join(f"`{k} = {v}`" for k, v in row.get("settings", {}).items() if k not in BASE)


def by_method(rows: list[dict]) -> dict[str, list[dict]]:
    """Rows of each method, the best method first."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(row["method"], []).append(row)
    return dict(sorted(found.items(), key=lambda item: -mean_ap(item[1])))


def mean_ap(rows: list[dict], threshold: str = "0.5") -> float:
    return statistics.mean(r["ap"][threshold] for r in rows)


def precision(row: dict) -> str:
    """Number format that a training computed in; results that do not tell are from a processor without bf16."""
    return row.get("precision", "fp32")


def newest(rows: list[dict]) -> list[dict]:
    """Of each of our presets, precisions and seeds the last result; older ones are of an older recipe of that name."""
    found: dict[tuple, dict] = {}
    for row in sorted(rows, key=lambda r: r.get("made", 0)):
        known = row.get("percent_known", 100)
        found[row["method"], row["seed"], row["minutes"], known, precision(row), changed(row)] = row
    return list(found.values())


def quality(results: Path) -> str:
    every = newest(rows_of(results / "quality"))
    rows = [r for r in every if r["minutes"] == 10 and r.get("percent_known", 100) == 100 and not changed(r)]
    if not rows:
        return ""
    lines = [
        "## Nuclei in ten CPU minutes",
        "",
        "`dsb2018_fluo`: trained on the images that are not in `holdout.txt`, scored on those that are. "
        "AP = TP / (TP + FP + FN) per image with optimal matching (empty against empty = 1), mean over images. "
        "Ten minutes from process start to the final checkpoint, two threads. `instance_seg_2d` is the framework "
        "embedseg, `watershed_2d` is instance. "
        f"Machine: {machine(rows[0])}.",
        "",
        "| method | seed | AP50 | AP60 | AP70 | AP75 | AP80 | AP90 | precision | steps | patches/s "
        "| seconds to checkpoint |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in (r for group in by_method(rows).values() for r in sorted(group, key=lambda r: (precision(r), r["seed"]))):
        figures = " | ".join(f"{r['ap'][t]:.3f}" for t in ("0.5", "0.6", "0.7", "0.75", "0.8", "0.9"))
        lines.append(
            f"| {r['method']} | {r['seed']} | {figures} | {precision(r)} | {r['steps']} "
            f"| {r.get('samples_per_second', '')} | {r['seconds_to_checkpoint']} |"
        )
    commands = "\n".join(sorted({r["command"] for r in rows if is_ours(r)}))
    script = "python benchmarks/rivals/{}_dsb2018.py --data DIR --seed S --out OUT   # in its own environment"
    others = [script.format(tool) for tool in _rivals(rows)]
    others += ["python benchmarks/quality.py score --labels OUT/labels --facts OUT/facts.json"] if others else []
    lines += [*_mixed(rows), *_compared(rows), *_overhead(results), "", "```", commands, *others, "```", ""]
    return "\n".join(lines)


def _mixed(rows: list[dict]) -> list[str]:
    """What rows of several precisions mean."""
    if len({precision(r) for r in rows if is_ours(r)}) == 1:
        return []
    return [
        "",
        "Rows in bf16 are from a processor that has instructions for it, and is newer; presets compute in fp32 where "
        "there are none. Compare our methods with each other by rows of one precision.",
    ]


def _rivals(rows: list[dict]) -> list[str]:
    """Names of the other tools, as their scripts are called."""
    return sorted({r["method"].split()[0] for r in rows if not is_ours(r)})


def _compared(rows: list[dict]) -> list[str]:
    """The default against the others, in words."""
    ours = [r for r in rows if r["method"] == DEFAULT]
    rivals = by_method([r for r in rows if not is_ours(r)])
    if not ours or not rivals:
        return []
    worst = min(r["ap"]["0.5"] for r in ours)
    return [
        "",
        f"The worst of {len(ours)} trainings of `{DEFAULT}` has AP50 {worst:.3f}. Others, trained from scratch:",
        "",
        *(_rival(name, group) for name, group in rivals.items()),
        "",
        "The comparison says how far each gets in ten minutes on two slow cores, not which method is better: a "
        "network that computes on all pixels makes few steps there; given hours or a GPU it learns these nuclei "
        "well. Where a share is far below 100 %, other programs ran on the machine.",
    ]


def _rival(name: str, rows: list[dict]) -> str:
    steps = statistics.mean(r["steps"] for r in rows)
    seconds = max(r["seconds_to_checkpoint"] for r in rows)
    late = f"; it stopped after {seconds:.0f} s at most, at the end of its epoch" if seconds > LATE else ""
    mean = f"AP50 {mean_ap(rows):.3f} (mean of {len(rows)})"
    return f"* {name}: {mean}, about {steps:.0f} steps, {_cpu_share(rows)} of the two threads{late}"


def _overhead(results: Path) -> list[str]:
    every = [r for r in rows_of(results / "quality") if "overhead" in r and r["method"] == DEFAULT]
    ten = [r["overhead"] for r in newest(every) if r["minutes"] == 10]
    short = sorted((r for r in every if r["minutes"] < 10), key=lambda r: r["overhead"])
    if not ten:
        return []
    more = "".join(f", {r['overhead']:.1%} of the {r['minutes']:g} minutes of seed {r['seed']}" for r in short[-1:])
    return [
        "",
        f"Validation, previews and checkpoints together took {max(ten):.1%} of the wall time at most{more}.",
    ]


def partial(results: Path) -> str:
    """A small part of the labels against all of them."""
    rows = newest(rows_of(results / "quality"))
    full: dict[tuple[str, str], list[dict]] = {}
    for r in rows:
        if r["minutes"] == 10 and r.get("percent_known", 100) == 100 and not changed(r):
            full.setdefault((r["method"], precision(r)), []).append(r)
    few = [r for r in rows if r.get("percent_known", 100) < 100 and not changed(r)]
    few = [r for r in few if (r["method"], precision(r)) in full]
    if not few:
        return ""
    lines = [
        "## Few labels",
        "",
        "The same ten minutes, but only a part of the training pixels is labelled: complete rectangles of 128 x 128 "
        "pixels around a random object, one in each of as many random images as it takes; other images are not used. "
        "All methods refuse scribbles, which do not show whole objects.",
        "",
        "| method | seed | labelled | AP50 | AP50 with all labels | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for r in sorted(few, key=lambda r: -r["ap"]["0.5"]):
        all_labels = mean_ap(full[r["method"], precision(r)])
        lines.append(
            f"| {r['method']} | {r['seed']} | {r['percent_known']:g} % | {r['ap']['0.5']:.3f} | {all_labels:.3f} | "
            f"{r['ap']['0.5'] / all_labels:.3f} |"
        )
    return "\n".join([*lines, "", "```", *sorted({r["command"] for r in few}), "```", ""])


def volumes(results: Path) -> str:
    rows = rows_of(results / "volumes")
    if not rows:
        return ""
    lines = [
        "## Nuclei in 3D",
        "",
        "`bbbc050`, mouse embryos: six to train on, three held out (Emb03, Emb06, Emb09), three volumes of each. "
        "AP of objects in 3D, mean over the nine volumes held out. Trained on two CPU threads; thresholds of the "
        "classical method and the overlap that joins planes are chosen on the other embryos. "
        f"Machine: {machine(rows[0])}.",
        "",
        "| method | minutes | AP50 | AP60 | AP70 | AP75 | AP80 | AP90 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in sorted(rows, key=lambda r: -r["ap"]["0.5"]):
        figures = " | ".join(f"{r['ap'][t]:.3f}" for t in ("0.5", "0.6", "0.7", "0.75", "0.8", "0.9"))
        lines.append(f"| {r['method']} | {r.get('minutes', '')} | {figures} |")
    return "\n".join([*lines, "", "```", *(r["command"] for r in rows), "```", ""])


def membranes(results: Path) -> str:
    rows = rows_of(results / "membranes")
    if not rows:
        return ""
    lines = [
        "## Membranes",
        "",
        "`em_membrane_isbi2012`: the last six of 22 consecutive sections are held out, the one before them is left "
        "out. Cells by watershed on the membrane map, its settings chosen on sections that are not held out; adapted "
        f"Rand error, membrane pixels left out, mean over the sections. Machine: {machine(rows[0])}.",
        "",
        "| method | minutes | adapted Rand error |",
        "|---|---|---|",
    ]
    rows.sort(key=lambda r: r["adapted_rand_error"])
    lines += [f"| {r['method']} | {r.get('minutes', '')} | {r['adapted_rand_error']:.4f} |" for r in rows]
    return "\n".join([*lines, "", "```", *(r["command"] for r in rows), "```", ""])


def decoding(results: Path) -> str:
    rows = sorted(load(results, "decoding").values(), key=lambda r: -r["objects_per_second"])
    if not rows:
        return ""
    lines = [
        "## From maps to labels",
        "",
        "A mosaic of 2048 x 2048 pixels with about 2,000 nuclei of the training images. Ours decode what their network "
        "predicts after ten minutes of training on 5 % of the pixels; the own code of StarDist and Cellpose decodes "
        "exact maps, made of the true labels, which are the least work. "
        "Only what turns maps into labels is timed.",
        "",
        "| method | maps | objects | seconds | objects/s | rounds | threads |",
        "|---|---|---|---|---|---|---|",
    ]
    columns = ("method", "maps", "objects", "seconds", "objects_per_second", "rounds", "threads")
    lines += [f"| {' | '.join(str(r[c]) for c in columns)} |" for r in rows]
    return "\n".join([*lines, "", "```", *(r["command"] for r in rows), "```", ""])


def _cpu_share(rows: list[dict]) -> str:
    """CPU time of each run relative to its wall time on all its threads."""
    shares = [r["cpu_seconds"] / (r["threads"] * r["seconds_to_checkpoint"]) for r in rows]
    return ", ".join(f"{s:.0%}" for s in shares)


def choices(results: Path) -> str:
    """Variants compared on validation images, which are a part of the training images; never on the hold-out."""
    parts = [part for part in (_choices_in_2d(results), _choice_in_3d(results)) if part]
    lines = [line for part in parts for line in (*part, "")]
    return "\n".join(["## What was chosen, and what lost", "", *lines]) if parts else ""


def _choices_in_2d(results: Path) -> list[str]:
    rows = [r for r in rows_of(results / "quality") if is_ours(r) and (r["minutes"] < 10 or changed(r))]
    if not rows:
        return []
    lines = [
        "Trainings of presets and variants of them, compared on the images that the split kept for "
        "validation (the hold-out is not looked at for choices).",
        "",
        "| preset | changed settings | minutes | validation AP50 | validation AP75 | command |",
        "|---|---|---|---|---|---|",
    ]
    rows.sort(key=lambda r: (r["method"], r["minutes"], len(r["settings"])))
    for r in rows:
        v, words = r["validation"], changed(r) or "none"
        lines.append(
            f"| {r['method']} | {words} | {r['minutes']:g} | {v['ap50']:.3f} | {v['ap75']:.3f} | `{r['command']}` |"
        )
    return lines


def _choice_in_3d(results: Path) -> list[str]:
    found = load(results, "volumes_choice")
    if not found:
        return []
    rows = [
        f"| `framework.maps = {m}` | {ap['0.5']:.3f} | {ap['0.75']:.3f} | {statistics.mean(ap.values()):.3f} |"
        for m, ap in found["validation"].items()
    ]
    return [
        f"`instance_seg_3d` on `bbbc050`, {found['steps']} steps each, seed {found['seed']}, the "
        f"{len(found['volumes'])} volumes that the split kept for validation:",
        "",
        "| maps | AP50 | AP75 | mean AP |",
        "|---|---|---|---|",
        *rows,
        "",
        "```",
        found["command"],
        "```",
    ]


def training(results: Path) -> str:
    rows = load(results, "training")
    if not rows:
        return ""
    lines = [
        "## Training loop",
        "",
        "Steps per second of a real training (reading patches, augmentation, moving average, "
        "events) relative to a plain torch loop with the preset's network, patch, losses, optimizer and one constant "
        "batch. The real training stands still after every few steps while the plain loop makes as many.",
        "",
        "| preset | precision | ratio (median) | middle half | segments | steps/s | plain steps/s | threads | seed "
        "| machine |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for f in rows.values():
        low, high = f["middle_half_of_ratios"]
        segments = f"{f['segments']} of {f['steps_per_segment']} steps"
        lines.append(
            f"| {f['preset']} | {precision(f)} | {f['ratio']:.3f} | {low:.3f} to {high:.3f} | {segments} "
            f"| {f['steps_per_second']} | {f['plain_steps_per_second']} | {f['threads']} | {f['seed']} | {machine(f)} |"
        )
    return "\n".join([*lines, "", "```", *(f["command"] for f in rows.values()), "```", ""])


def prediction(results: Path) -> str:
    found = load(results, "prediction")
    if not found:
        return ""
    speed, memory = found["throughput"], found["memory"]
    rounds = [b / p for p, b in zip(speed["predict_seconds"], speed["bare_seconds"], strict=True)]
    whole, bare = (statistics.median(speed[f"{name}_seconds"]) for name in ("predict", "bare"))
    peaks = "; ".join(f"{size}²: {mb:.0f} MB" for size, mb in memory["peak_mb"].items())
    spread = f"single rounds {min(rounds):.2f} to {max(rounds):.2f}"
    lines = [
        "## Prediction",
        "",
        f"A {speed['size']}² image from and to OME-Zarr, image output, {speed['tiles']} tiles of "
        f"{speed['tile'][1]}² in batches of {speed['batch']}, against the bare batched forward pass of the same "
        f"network over as many tiles, interleaved, median of {len(speed['predict_seconds'])} rounds. "
        f"Machine: {machine(found)}, {found['threads']} threads, seed {found['seed']}.",
        "",
        f"* speed: {speed['ratio']:.3f} of the bare forward pass ({whole:.0f} s against {bare:.0f} s; {spread})",
        f"* peak memory of the process: {peaks}; it grows by {memory['growth_mb']:.0f} MB",
        "",
        "```",
        found["command"],
        "```",
        "",
    ]
    return "\n".join(lines)


def as_list(results: Path, title: str, name: str) -> str:
    facts = load(results, name)
    if not facts:
        return ""
    body = "\n".join(
        f"* {k.replace('_', ' ')}: {json.dumps(v) if isinstance(v, dict | list) else v}"
        for k, v in facts.items()
        if k != "command"
    )
    return f"## {title}\n\n{body}\n\n```\n{facts.get('command', '')}\n```\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, default=PAGE)
    add_results(parser)
    args = parser.parse_args()
    parts = [
        HEAD,
        quality(args.results),
        choices(args.results),
        partial(args.results),
        volumes(args.results),
        membranes(args.results),
        decoding(args.results),
        training(args.results),
        prediction(args.results),
        as_list(args.results, "Start", "startup"),
        as_list(args.results, "Viewer", "viewer"),
    ]
    args.page.write_text("\n".join(p for p in parts if p))


if __name__ == "__main__":
    main()
