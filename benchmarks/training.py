"""Steps per second of a real training against a plain torch loop with a constant batch, interleaved in one process.

    python benchmarks/training.py [--preset instance_seg_2d] [--steps 30] [--rounds 5]

Both use the preset's network, patch, batch, losses and optimizer on simulated images. The
ratio is the median over the rounds. Validation and checkpoints are switched off in both; their
share is measured in the runs of ``quality.py``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from quality import machine

from im2im_core import api
from im2im_core.engine import session
from im2im_core.engine.frameworks.contract import TrainContext
from im2im_core.engine.planning import framework_of, make_plan
from im2im_core.engine.train import make_optimizer
from im2im_core.microscope import write_dataset
from im2im_core.project import Project

RESULT = Path(__file__).parent / "results" / "training.json"


def real_loop(plan, split, folder: Path, steps: int) -> float:
    """Seconds per step of the shipped loop, from the end of the first step to the end of the last."""
    marks: list[float] = []
    original = session.StepModule.training_step

    def timed(self, batch, batch_idx):
        original(self, batch, batch_idx)
        marks.append(time.perf_counter())

    session.StepModule.training_step = timed
    export = session._Session._export
    session._Session._export = lambda self, framework, metrics: None
    try:
        folder.mkdir(parents=True)
        session.train_run(folder, split, plan, plan.recipe, on_event=lambda e: None, should_stop=lambda: "")
    finally:
        session.StepModule.training_step = original
        session._Session._export = export
    return (marks[-1] - marks[2]) / (len(marks) - 3)


def plain_loop(plan, prepared, steps: int) -> float:
    """Seconds per step of forward, losses, backward and optimizer on one batch that never changes."""
    framework = framework_of(plan.recipe, plan.facts).train()
    optimizer = make_optimizer(plan.recipe.training.optimizer, list(framework.parameters()))
    augmenter = session.Augmenter(plan.recipe.data.augmentation, plan.recipe.data.dimensions, framework.targets)
    batch = augmenter(prepared.stream[0][0], torch.Generator().manual_seed(0), tuple(plan.recipe.data.patch))
    weights = framework.loss_weights()
    marks = []
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        terms = framework.losses(batch, "network", TrainContext(step, torch.Generator().manual_seed(0)))
        sum(weights[n] * v for n, v in terms.items()).backward()
        torch.nn.utils.clip_grad_norm_(framework.parameters(), plan.recipe.training.clip or float("inf"))
        optimizer.step()
        marks.append(time.perf_counter())
    return (marks[-1] - marks[2]) / (len(marks) - 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="instance_seg_2d")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
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
                "training.steps": args.steps,
                "training.validate_every": 10**6,
                "training.checkpoint_minutes": 1e6,
                "training.threads": args.threads,
                "logging.preview": False,
            }
        )
        split = api.load_split(recipe, project)
        plan = make_plan(recipe, split)
        torch.set_num_threads(args.threads)
        prepared = session.prepare_images(plan, split, folder / "cache", lambda e: None, lambda: "")
        plain_loop(plan, prepared, 6)
        rows = []
        for number in range(args.rounds):
            plain = plain_loop(plan, prepared, args.steps)
            real = real_loop(plan, split, folder / f"run{number}", args.steps)
            rows.append({"plain": round(1 / plain, 3), "real": round(1 / real, 3), "ratio": round(plain / real, 4)})
            print(rows[-1], flush=True)
    facts = {
        "command": f"python benchmarks/training.py --preset {args.preset}",
        "preset": args.preset,
        "threads": args.threads,
        "seed": 3,
        "steps": args.steps,
        "machine": machine(),
        "rounds": rows,
        "ratio": statistics.median(r["ratio"] for r in rows),
        "steps_per_second": statistics.median(r["real"] for r in rows),
    }
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({**known, args.preset: facts}, indent=1))
    print(facts["ratio"])


if __name__ == "__main__":
    main()
