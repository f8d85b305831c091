"""Steps per second of a real training against a plain torch loop with a constant batch, interleaved in one process.

    python benchmarks/training.py [--preset instance_seg_2d] [--segments 21] [--length 8]

Both use the preset's network, precision, patch, batch, losses and optimizer on simulated images. The real
training stands still after every few steps while the plain loop makes as many, so that a change
of the machine's speed meets both; the ratio is the median over these segments. Validation and
checkpoints are switched off; their share is measured in the runs of ``quality.py``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from quality import add_results, machine

from im2im_core import api
from im2im_core.engine import session
from im2im_core.engine.devices import autocast, keep_freed_memory, lay_out
from im2im_core.engine.frameworks.contract import TrainContext
from im2im_core.engine.optimizers import make_optimizer
from im2im_core.engine.planning import framework_of, make_plan
from im2im_core.microscope import write_dataset
from im2im_core.project import Project

PAUSE = 0.1
"""Seconds in which the batch ahead is read, so that it does not take time from the plain loop."""


class PlainLoop:
    """Forward, losses, backward and optimizer on one batch that never changes."""

    def __init__(self, plan, prepared) -> None:
        self.framework = framework_of(plan.recipe, plan.facts).train()
        lay_out(self.framework, plan.runtime.device)
        self.cast = autocast(torch.device(plan.runtime.device), plan.recipe.training.precision)
        self.optimizer = make_optimizer(plan.recipe.training.optimizer, list(self.framework.parameters()))
        augmenter = session.Augmenter(
            plan.recipe.data.augmentation, plan.recipe.data.dimensions, self.framework.targets
        )
        generator = torch.Generator().manual_seed(0)
        self.batch = augmenter(prepared.stream[0][0], generator, tuple(plan.recipe.data.patch))
        self.clip = plan.recipe.training.clip or float("inf")

    def step(self) -> None:
        weights = self.framework.loss_weights()
        self.optimizer.zero_grad(set_to_none=True)
        with self.cast:
            terms = self.framework.losses(self.batch, "network", TrainContext(0, torch.Generator().manual_seed(0)))
            total = sum(weights[n] * v for n, v in terms.items())
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.framework.parameters(), self.clip)
        self.optimizer.step()


def seconds_of(work, times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        work()
    return time.perf_counter() - start


def measure(plan, split, plain: PlainLoop, folder: Path, length: int) -> list[dict[str, float]]:
    """Steps per second of both loops, segment by segment; the first segment warms up."""
    rows: list[dict[str, float]] = []
    steps, began = 0, time.perf_counter()
    original, export = session.StepModule.training_step, session._Session._export

    def timed(self, batch, batch_idx):
        nonlocal steps, began
        original(self, batch, batch_idx)
        steps += 1
        if steps % length == 0:
            real = time.perf_counter() - began
            time.sleep(PAUSE)
            bare = seconds_of(plain.step, length)
            rows.append({"plain": length / bare, "real": length / real, "ratio": bare / real})
            print({k: round(v, 3) for k, v in rows[-1].items()}, flush=True)
            began = time.perf_counter()

    session.StepModule.training_step = timed
    session._Session._export = lambda self, framework, metrics: None
    try:
        folder.mkdir(parents=True)
        session.train_run(folder, split, plan, plan.recipe, on_event=lambda e: None, should_stop=lambda: "")
    finally:
        session.StepModule.training_step, session._Session._export = original, export
    return rows[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="instance_seg_2d")
    parser.add_argument("--segments", type=int, default=21)
    parser.add_argument("--length", type=int, default=8, help="steps of a segment")
    parser.add_argument("--threads", type=int, default=2)
    add_results(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        preset = api.load_preset(args.preset)
        shape = (256, 256) if preset.data.dimensions == 2 else (32, 128, 128)
        write_dataset(folder / "data", preset.task, count=12, shape=shape, seed=3, dimensions=preset.data.dimensions)
        project = Project.create(folder / "project")
        recipe = preset.override(
            {
                "data.path": str(folder / "data"),
                "training.steps": (args.segments + 1) * args.length,
                "training.validate_every": 10**6,
                "training.checkpoint_minutes": 1e6,
                "training.threads": args.threads,
                "logging.preview": False,
            }
        )
        split = api.load_split(recipe, project)
        plan = make_plan(recipe, split)
        torch.set_num_threads(args.threads)
        keep_freed_memory()  # as the process of a run does
        prepared = session.prepare_images(plan, split, folder / "cache", lambda e: None, lambda: "")
        rows = measure(plan, split, PlainLoop(plan, prepared), folder / "run", args.length)
    ratios = sorted(r["ratio"] for r in rows)
    usual = (args.segments, args.length) == (parser.get_default("segments"), parser.get_default("length"))
    facts = {
        "command": f"python benchmarks/training.py --preset {args.preset}"
        + ("" if usual else f" --segments {args.segments} --length {args.length}"),
        "preset": args.preset,
        "precision": plan.recipe.training.precision,
        "threads": args.threads,
        "seed": 3,
        "segments": len(rows),
        "steps_per_segment": args.length,
        "machine": machine(),
        "ratio": round(statistics.median(ratios), 3),
        "middle_half_of_ratios": [round(q, 3) for q in statistics.quantiles(ratios, n=4)[::2]],
        "steps_per_second": round(statistics.median(r["real"] for r in rows), 2),
        "plain_steps_per_second": round(statistics.median(r["plain"] for r in rows), 2),
    }
    result = args.results / "training.json"
    known = json.loads(result.read_text()) if result.exists() else {}
    result.parent.mkdir(parents=True, exist_ok=True)
    # A processor with bf16 and one without are two measurements.
    name = args.preset if facts["precision"] == "fp32" else f"{args.preset}_{facts['precision']}"
    result.write_text(json.dumps({**known, name: facts}, indent=1))
    print(facts["ratio"])


if __name__ == "__main__":
    main()
