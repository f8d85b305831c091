"""Every measurement in order, each in a process of its own; what has a result is not measured again.

    python benchmarks/all.py --data DIR --cellpose PYTHON --stardist PYTHON [--work DIR] [--only 'nuclei-*']
    python benchmarks/all.py --data DIR --list      # what is there, what is missing, minutes expected
    python benchmarks/all.py --data DIR --tiny …    # that every script runs: smallest budgets, figures into WORK

Figures are made on a machine that does nothing else; minutes are those of two slow cores. DIR holds
``dsb2018_fluo``, ``nuclei3d`` and ``em_membrane_isbi2012``. The rivals run in environments of their own
(``rivals``), of which PYTHON is the interpreter; without it their measurements are left out. The same line
goes on where it was stopped. Each measurement has a log in WORK/logs; one that fails does not stop the others.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from quality import RESULTS, result_path, split_hash

HERE = Path(__file__).resolve().parent
THREADS = 2
SEEDS = (0, 1, 2)
PRESETS = ("instance_seg_2d", "flows_2d", "stardist_2d", "watershed_2d")
LABELLED = 5
"""Percent of the pixels where labels are few."""
RIVALS = {"stardist": "stardist_0_9_2", "cellpose": "cellpose_3"}
"""What results of each rival are called."""


@dataclass(frozen=True)
class Places:
    """Where everything is, and how long it may take."""

    data: Path
    work: Path
    results: Path
    pythons: dict[str, str]
    tiny: bool

    @property
    def nuclei(self) -> Path:
        return self.data / "dsb2018_fluo"

    @property
    def embryos(self) -> Path:
        return self.data / "nuclei3d" / "bbbc050"

    def minutes(self, usual: float) -> float:
        """Budget of a training."""
        return 0.3 if self.tiny else usual

    def few(self, *words: object) -> tuple[object, ...]:
        """Words that make a command short, where it only has to run."""
        return words if self.tiny else ()


@dataclass(frozen=True)
class Step:
    """One command with its log."""

    name: str
    words: tuple[object, ...]
    minutes: float
    """Expected on two slow cores."""
    done: Callable[[], bool]
    """Whether there is what it makes."""
    python: str = "own"
    """Whose environment it runs in."""
    folder: Path | None = field(default=None)
    """Where it works: emptied before, as half a training cannot be gone on with when its time is measured."""


def has(path: Path, key: str) -> Callable[[], bool]:
    """Whether the JSON file holds that key."""
    return lambda: path.exists() and key in json.loads(path.read_text())


def either(*conditions: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: any(condition() for condition in conditions)


# ---- what there is to measure ---------------------------------------------------


def nuclei(p: Places, preset: str, seed: int = 0, known: float = 100) -> Step:
    """Ten minutes of a preset."""
    minutes = p.minutes(10)
    name = f"nuclei-{preset}-{seed}" if known == 100 else f"few-labels-{preset}"
    words = (HERE / "quality.py", "run", "--data", p.nuclei, "--preset", preset, "--seed", seed, "--threads", THREADS)
    words += ("--minutes", minutes, "--known", known, "--work", p.work / name, "--results", p.results)
    settings = {"training.minutes": minutes, "training.threads": THREADS}
    result = result_path(p.results, p.nuclei, preset, settings, known, seed)
    return Step(name, (*words, *p.few("--limit", 2)), 11, result.exists, folder=p.work / name)


def rival(p: Places, name: str, seed: int) -> Iterator[Step]:
    """Ten minutes of another tool, and its score by our code."""
    folder = p.work / f"{name}-{seed}"
    result = p.results / "quality" / f"{RIVALS[name]}_{split_hash(p.nuclei)}_seed{seed}.json"
    words = (HERE / "rivals" / f"{name}_dsb2018.py", "--data", p.nuclei, "--seed", seed, "--threads", THREADS)
    words += ("--minutes", p.minutes(10), "--out", folder, *p.few("--limit", 6))
    done = either(result.exists, (folder / "facts.json").exists)
    yield Step(f"{name}-{seed}", words, 35 if name == "cellpose" else 15, done, name, folder)
    words = (HERE / "quality.py", "score", "--data", p.nuclei, "--labels", folder / "labels")
    words += ("--facts", folder / "facts.json", "--results", p.results, *p.few("--limit", 2))
    yield Step(f"{name}-{seed}-score", words, 1, result.exists)


def volumes(p: Places) -> Iterator[Step]:
    """Nuclei in 3D."""
    common = ("--data", p.embryos, "--results", p.results)
    script, folder = HERE / "volumes.py", p.results / "volumes"
    few = p.few("--limit", 1)
    words = (script, "classical", *common, *few)
    yield Step("volumes-classical", words, 3, (folder / "classical.json").exists)
    for preset in ("embedseg_3d", "instance_seg_3d", "instance_seg_2d"):
        name = f"volumes-{preset}"
        words = (script, "run", "--preset", preset, *common, "--minutes", p.minutes(20), "--work", p.work / name, *few)
        yield Step(name, words, 25, (folder / f"{preset}_seed0.json").exists, folder=p.work / name)
    words = (script, "choose", *common, "--work", p.work / "volumes-choose", *p.few("--steps", 2))
    done = (p.results / "volumes_choice.json").exists
    yield Step("volumes-choose", words, 40, done, folder=p.work / "volumes-choose")


def membranes(p: Places) -> Iterator[Step]:
    common = ("--data", p.data / "em_membrane_isbi2012", "--results", p.results, *p.few("--limit", 1))
    script, folder = HERE / "membranes.py", p.results / "membranes"
    yield Step("membranes-classical", (script, "classical", *common), 2, (folder / "classical.json").exists)
    work = p.work / "membranes-run"
    words = (script, "run", *common, "--minutes", p.minutes(10), "--work", work)
    yield Step("membranes-run", words, 17, (folder / "semantic_seg_2d_seed0.json").exists, folder=work)


def decoding(p: Places) -> Iterator[Step]:
    """From maps to labels, by the networks of few labels, which find nearly as much as those of all.

    One whose training is not in the work folder any more is trained once more.
    """
    script, mosaic = HERE / "decoding.py", p.work / "mosaic.tif"
    yield Step("mosaic", (script, "image", "--data", p.nuclei, "--out", mosaic), 1, mosaic.exists)

    def measured(name: str, python: str, *words: object) -> Step:
        words = (script, "time", "--name", name, "--image", mosaic, *words, *p.few("--rounds", 1))
        words += ("--threads", THREADS, "--results", p.results)
        return Step(f"decoding-{name}", words, 3, has(p.results / "decoding.json", name), python)

    for preset in PRESETS:
        again = nuclei(p, preset, known=LABELLED)
        model = again.folder / "runs" / "run" / "model"
        step = measured(preset, "own", "--with", "ours", "--model", model)
        words = (*again.words, "--again", "--results", p.work / "models")
        yield Step(f"model-{preset}", words, 12, either(model.exists, step.done), folder=again.folder)
        yield step
    for name in RIVALS:
        yield measured(f"{name}-own", name, "--with", name)


def speed(p: Places) -> Iterator[Step]:
    """Loop, prediction, start and viewer."""
    to = ("--results", p.results)
    for preset in (*PRESETS, "instance_seg_3d", "embedseg_3d"):
        words = (HERE / "training.py", "--preset", preset, *to, *p.few("--segments", 2, "--length", 1))
        done = either(*(has(p.results / "training.json", name) for name in (preset, f"{preset}_bf16")))
        yield Step(f"loop-{preset}", words, 6, done)
    words = (HERE / "prediction.py", *to, *p.few("--size", 512, "--large", 1024, "--rounds", 1))
    yield Step("prediction", words, 30, (p.results / "prediction.json").exists)
    words = (HERE / "startup.py", *to, *p.few("--rounds", 1))
    yield Step("startup", words, 3, (p.results / "startup.json").exists)
    words = (HERE.parent / "tools" / "with_display.py", sys.executable, HERE / "viewer.py", *to)
    words += p.few("--runs", 1, "--seconds", 6)
    yield Step("viewer", words, 25, (p.results / "viewer.json").exists)


def every_step(p: Places) -> list[Step]:
    """What there is to measure, what says most first."""
    own = [nuclei(p, preset, seed) for preset in PRESETS for seed in (SEEDS if preset == PRESETS[0] else (0,))]
    others = [step for name in RIVALS for seed in SEEDS for step in rival(p, name, seed)]
    few = [nuclei(p, preset, known=LABELLED) for preset in PRESETS]
    page = p.work / "benchmarks.md" if p.tiny else HERE.parent / "docs" / "benchmarks.md"
    report = Step("report", (HERE / "report.py", "--results", p.results, "--page", page), 0, lambda: False)
    return [*own, *others, *few, *volumes(p), *membranes(p), *decoding(p), *speed(p), report]


# ---- measuring ------------------------------------------------------------------


def run(step: Step, p: Places) -> str:
    """What became of it, in words."""
    if step.folder and step.folder.is_dir():
        shutil.rmtree(step.folder)
    log = p.work / "logs" / f"{step.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [p.pythons[step.python], *map(str, step.words)]
    source = os.pathsep.join(filter(None, [str(HERE.parent / "src"), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": str(THREADS), "PYTHONUNBUFFERED": "1"}
    begin = time.monotonic()
    with log.open("w") as handle:
        print(*words, file=handle, flush=True)
        code = subprocess.run(words, stdout=handle, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    took = f"{(time.monotonic() - begin) / 60:.1f} min"
    return f"measured in {took}" if code == 0 else f"FAILED with {code} after {took}, see {log}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("IM2IM_TEST_DATA"), help="or IM2IM_TEST_DATA")
    parser.add_argument("--work", type=Path, default=Path.home() / "im2im-benchmarks", help="trainings and logs")
    parser.add_argument("--cellpose", help="Python of an environment with Cellpose 3")
    parser.add_argument("--stardist", help="Python of an environment with StarDist")
    parser.add_argument("--only", nargs="+", default=["*"], help="names or patterns of names")
    parser.add_argument("--list", action="store_true", help="only say what there is to do")
    parser.add_argument("--tiny", action="store_true", help="smallest budgets, figures into WORK/results")
    args = parser.parse_args()
    if args.data is None:
        parser.error("--data is needed, or IM2IM_TEST_DATA")
    return args


def main() -> int:
    """Number of measurements that failed."""
    args = parse()
    work = args.work.resolve()
    found = {"own": sys.executable, "cellpose": args.cellpose, "stardist": args.stardist}
    pythons = {name: path for name, path in found.items() if path}
    results = work / "results" if args.tiny else RESULTS
    places = Places(Path(args.data).resolve(), work, results, pythons, args.tiny)
    steps = [s for s in every_step(places) if any(fnmatch(s.name, pattern) for pattern in args.only)]
    failed = left = 0
    for step in steps:
        if step.done():
            state = "is there"
        elif step.python not in pythons:
            state = f"left out: --{step.python} is not given"
        elif args.list:
            state, left = f"to do, {step.minutes:g} min", left + step.minutes
        else:
            state = run(step, places)
            failed += state.startswith("FAILED")
        print(f"{time.strftime('%H:%M:%S')} {step.name:32} {state}", flush=True)
    if args.list:
        print(f"{left:g} minutes expected")
    return failed


if __name__ == "__main__":
    sys.exit(main())
