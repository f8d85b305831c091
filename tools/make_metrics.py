"""Writes docs/metrics.md from the registry of metrics: every figure with its unit, direction and meaning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from im2im_core.metrics import METRICS, THRESHOLDS, while_training
from im2im_core.resampling import FEWEST, RESAMPLES

if TYPE_CHECKING:
    from im2im_core.metrics import Kind, Metric

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
KINDS: dict[Kind, tuple[str, str]] = {
    "labels": (
        "Objects",
        f"Predicted and true objects are matched one to one by their IoU (intersection over union), at the thresholds "
        f"{', '.join(f'{t:g}' for t in THRESHOLDS)}. Figures with a threshold are named `name@0.5`.",
    ),
    "classes": ("Classes of pixels", "Figures of one class are named `name@1`; class 0 is background."),
    "image": (
        "Images",
        "The range is the largest minus the smallest known pixel of the truth. Every time point and channel is an "
        "image of its own.",
    ),
}
HEAD = f"""# Figures

Made from the registry of metrics by `python tools/make_metrics.py`.

`im2im evaluate`, the Evaluate panel and `evaluate` of `im2im_core` in Python give the same figures:

    im2im evaluate PREDICTIONS TRUTHS --csv figures.csv     # two images, or two folders with equal names
    im2im evaluate MODEL DATA --json                        # a model on a data set with truth
    im2im evaluate IMAGE                                    # no truth: the resolution of the image alone

A training measures those marked ● at every validation; `--training.figures "[f1, f1@0.75, seg]"` chooses others.
The two that cost most, MS-SSIM and Fourier rings, are left to the evaluation.

## What counts

* **Unknown pixels** (weight 0, or nothing painted where labels are sparse) count in no figure.
* **Objects mostly on unknown pixels** are neither missed nor invented. A predicted one that matches a true object is
  right all the same; a match of a true object that is mostly unknown is not counted (as void regions in Kirillov et
  al., CVPR 2019).
* **Nothing against nothing** is right: 1 where higher is better, 0 where lower is, infinite decibels, 2 pixels of
  resolution; r is 0 where an image is constant.
* A prediction that is not finite gives no number, so that it cannot hide.

## Several images

*mean* is the mean over images; *pooled* is the same formula over the objects or pixels of all images together (for
SSIM, MS-SSIM and resolutions the mean over known pixels, planes and images). Both come with a 95 % confidence interval
by image: whole images are drawn with replacement {RESAMPLES} times with a fixed seed, and percentiles 2.5 and 97.5 are
taken (Efron, Annals of Statistics 7 (1979) 1). Time points and channels of one file are drawn together. n is the
number of images; below {FEWEST} the intervals are too narrow.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(render(), encoding="utf-8")


def render() -> str:
    """Text of the page."""
    return "\n".join([HEAD, *(_section(kind, *words) for kind, words in KINDS.items())])


def _section(kind: Kind, title: str, words: str) -> str:
    rows = [_row(metric) for metric in METRICS.values() if metric.kind == kind]
    head = ["| figure | in words | unit | better | meaning |", "|---|---|---|---|---|"]
    return "\n".join([f"## {title}", "", words, "", *head, *rows, ""])


def _row(metric: Metric) -> str:
    mark = " ●" if metric.name in while_training(metric.kind) else ""
    also = f" Also found as {', '.join(f'`{name}`' for name in metric.also)}." if metric.also else ""
    paper = f" {metric.paper}." if metric.paper else ""
    detail = "@IoU" if metric.thresholded else ""
    cells = (f"`{metric.name}{detail}`{mark}", metric.title, metric.unit, metric.direction)
    meaning = f"{metric.summary}.{paper}{also}".replace("|", "\\|")
    return f"| {' | '.join(cells)} | {meaning} |"


if __name__ == "__main__":
    main()
