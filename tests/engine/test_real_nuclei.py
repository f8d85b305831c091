"""A short training on real nuclei, from a folder to figures on images it never saw."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import im2im_core as im2im
from im2im_core.events import Event, Validated
from im2im_core.io import open_image
from im2im_core.metrics import average_precision, match

STEPS = 60


def _table(folder: Path, names: list[str], path: Path) -> Path:
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["IM", "GT"])
        writer.writerows([folder / "IM" / n, folder / "GT" / n] for n in names)
    return path


def _plane(path: Path) -> np.ndarray:
    return open_image(path).read()[0, 0, 0]


def test_real_nuclei_are_learned_in_a_minute(test_data: Path, tmp_path: Path) -> None:
    folder = test_data / "dsb2018_fluo"
    if not folder.is_dir():
        pytest.skip("the test data has no dsb2018_fluo")
    held = set((folder / "holdout.txt").read_text().split())
    # Small images of one size only, so that the test is short; the hold-out is for benchmarks.
    small = [
        p.name
        for p in sorted((folder / "train" / "IM").iterdir())
        if p.name not in held and open_image(p).info.shape[3:] == (256, 256)
    ]
    train, new = small[:60], small[60:66]
    table = _table(folder / "train", train, tmp_path / "train.csv")
    events: list[Event] = []
    recipe = im2im.load_preset("instance_seg_2d").override(
        {"training.steps": STEPS, "training.batch": 8, "training.validate_every": STEPS // 2}
    )

    run = im2im.train(recipe, data=table, project=tmp_path / "project", on_event=events.append)

    assert run.state == "finished"
    assert [e.step for e in events if isinstance(e, Validated)][-1] == STEPS
    scores = []
    for name in new:
        labels = im2im.predict(run.model, folder / "train" / "IM" / name)
        scores.append(average_precision(match(labels, _plane(folder / "train" / "GT" / name)), 0.5))
    assert np.mean(scores) > 0.4, scores
