"""Writes docs/benchmarks.md from the figures in ``results``.

python benchmarks/report.py
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Every figure on this page was written by a script in `benchmarks/`; `python benchmarks/report.py`
makes the page from the JSON files in `benchmarks/results/`. Speeds are ratios of two things that
ran interleaved on the same machine; seconds are given for orientation.
"""


def load(name: str) -> dict:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def machine(facts: dict) -> str:
    m = facts["machine"]
    return f"{m['processor']}, {m['cores']} cores, Python {m['python']}"


def quality() -> str:
    every = [json.loads(p.read_text()) for p in sorted((RESULTS / "quality").glob("*.json"))]
    rows = [r for r in every if r["minutes"] == 10]
    if not rows:
        return ""
    lines = [
        "## Nuclei in ten CPU minutes",
        "",
        "`dsb2018_fluo`: trained on the images that are not in `holdout.txt`, scored on those that are. "
        "AP = TP / (TP + FP + FN) per image with optimal matching (empty against empty = 1), mean over images. "
        "Ten minutes from process start to the final checkpoint, two threads. "
        f"Machine: {machine(rows[0])}.",
        "",
        "| method | seed | AP50 | AP60 | AP70 | AP75 | AP80 | AP90 | steps | patches/s | seconds to checkpoint |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        figures = " | ".join(f"{r['ap'][t]:.3f}" for t in ("0.5", "0.6", "0.7", "0.75", "0.8", "0.9"))
        lines.append(
            f"| {r['method']} | {r['seed']} | {figures} | {r['steps']} | {r.get('samples_per_second', '')} | "
            f"{r['seconds_to_checkpoint']} |"
        )
    ours = [r for r in rows if r["method"].startswith("instance_seg_2d") and not r.get("variant")]
    rival = [r for r in rows if r["method"].startswith("stardist")]
    if ours and rival:
        worst = min(r["ap"]["0.5"] for r in ours)
        mean = statistics.mean(r["ap"]["0.5"] for r in rival)
        lines += [
            "",
            f"Our worst of {len(ours)} seeds has AP50 {worst:.3f}; the mean of {len(rival)} StarDist "
            f"trainings is {mean:.3f}. StarDist's default configuration computes at full resolution with 256² "
            f"patches and makes only about {round(statistics.mean(r['steps'] for r in rival))} steps in ten "
            "minutes on this machine, which is far too few for it; given hours or a GPU it learns these nuclei "
            "well. The comparison says how far each gets in ten CPU minutes, not which method is better.",
            "",
            "Ours ran on a machine that did nothing else. Light jobs of other programs ran beside StarDist's, which "
            f"used {_cpu_share(rival)} of the two threads (its last epoch ends with its own validation, which is "
            "why it took longer than ten minutes).",
        ]
    overhead = [r["overhead"] for r in ours if "overhead" in r]
    short = sorted((r for r in every if "overhead" in r and r["minutes"] < 10), key=lambda r: r["overhead"])
    if overhead:
        lines += [
            "",
            f"Validation, previews and checkpoints together took {max(overhead):.1%} of the wall time at most"
            + "".join(f", {r['overhead']:.1%} of the {r['minutes']:g} minutes of seed {r['seed']}" for r in short[-1:])
            + ".",
        ]
    commands = "\n".join(sorted({r.get("command", r["method"]) for r in rows if "command" in r}))
    lines += [
        "",
        "```",
        commands,
        "python benchmarks/rivals/stardist_dsb2018.py --data DIR --seed S --out OUT   # in its own environment",
        "python benchmarks/quality.py score --labels OUT/labels --facts OUT/facts.json",
        "```",
        "",
    ]
    return "\n".join(lines)


def _cpu_share(rows: list[dict]) -> str:
    """CPU time of each run relative to its wall time on all its threads."""
    shares = [r["cpu_seconds"] / (r["threads"] * r["seconds_to_checkpoint"]) for r in rows]
    return ", ".join(f"{s:.0%}" for s in shares)


def choices() -> str:
    """Variants compared on validation images, which are a part of the training images; never on the hold-out."""
    rows = [json.loads(p.read_text()) for p in sorted((RESULTS / "quality").glob("*.json"))]
    rows = [r for r in rows if r["minutes"] < 10 and "validation" in r]
    if not rows:
        return ""
    lines = [
        "## What was chosen, and what lost",
        "",
        "Short trainings of `instance_seg_2d` and variants of it, compared on the images that the split kept for "
        "validation (the hold-out is not looked at for choices). The first line is what is shipped.",
        "",
        "| changed settings | minutes | validation AP50 | validation AP75 | command |",
        "|---|---|---|---|---|",
    ]
    base = ("training.minutes", "training.threads")
    rows.sort(key=lambda r: len(r["settings"]))
    for r in rows:
        changed = ", ".join(f"`{k} = {v}`" for k, v in r["settings"].items() if k not in base) or "none"
        v = r["validation"]
        lines.append(f"| {changed} | {r['minutes']:g} | {v['ap50']:.3f} | {v['ap75']:.3f} | `{r['command']}` |")
    return "\n".join([*lines, ""])


def training() -> str:
    rows = load("training")
    if not rows:
        return ""
    lines = [
        "## Training loop",
        "",
        "Steps per second of a real training (reading patches, augmentation, moving average, "
        "events) relative to a plain torch loop with the preset's network, patch, losses, optimizer and one constant "
        "batch. The real training stands still after every few steps while the plain loop makes as many.",
        "",
        "| preset | ratio (median) | middle half | segments | steps/s | plain steps/s | threads | seed | machine |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, f in rows.items():
        low, high = f["middle_half_of_ratios"]
        segments = f"{f['segments']} of {f['steps_per_segment']} steps"
        lines.append(
            f"| {name} | {f['ratio']:.3f} | {low:.3f} to {high:.3f} | {segments} "
            f"| {f['steps_per_second']} | {f['plain_steps_per_second']} | {f['threads']} | {f['seed']} | {machine(f)} |"
        )
    return "\n".join([*lines, "", "```", *(f["command"] for f in rows.values()), "```", ""])


def prediction() -> str:
    found = load("prediction")
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


def as_list(title: str, name: str) -> str:
    facts = load(name)
    if not facts:
        return ""
    body = "\n".join(
        f"* {k.replace('_', ' ')}: {json.dumps(v) if isinstance(v, dict | list) else v}"
        for k, v in facts.items()
        if k != "command"
    )
    return f"## {title}\n\n{body}\n\n```\n{facts.get('command', '')}\n```\n"


def main() -> None:
    parts = [
        HEAD,
        quality(),
        choices(),
        training(),
        prediction(),
        as_list("Start", "startup"),
        as_list("Viewer", "viewer"),
    ]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(p for p in parts if p))


if __name__ == "__main__":
    main()
