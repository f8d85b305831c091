"""What the Evaluate panel says, and the same comparison as command, YAML, Python and methods paragraph."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from im2im_core.metrics import THRESHOLDS
from im2im_core.progress import duration
from im2im_core.resampling import RESAMPLES

if TYPE_CHECKING:
    from pathlib import Path

    from im2im_core.evaluation import Report
    from im2im_core.events import Progress
    from napari_im2im._evaluate_work import Comparison

DEFINITIONS = {
    "labels": (
        "Predicted objects were matched one to one with true objects at intersections over union (IoU) of at least "
        f"{THRESHOLDS[0]} to {THRESHOLDS[-1]}. With the numbers of objects found (TP), invented (FP) and missed (FN), "
        "average precision is TP / (TP + FP + FN), also given as the mean over these thresholds, F1 is "
        "2 TP / (2 TP + FP + FN), and panoptic quality is the summed IoU of matched objects over TP + FP/2 + FN/2 "
        "(Kirillov et al., CVPR 2019). SEG is the mean over true objects of the IoU with the prediction that covers "
        "more than half of it. The adapted Rand error is 1 minus the F-score of pairs of pixels over the foreground of "
        "the truth (Arganda-Carreras et al., Front. Neuroanat. 9, 142, 2015), the variation of information the entropy "
        "of either segmentation given the other, in bits (Meilă, J. Multivar. Anal. 98, 873, 2007)"
    ),
    "classes": (
        "Classes of pixels were compared by the Dice coefficient, 2 |A ∩ B| / (|A| + |B|), and the intersection over "
        "union, |A ∩ B| / |A ∪ B|, as means over the classes that occur, and by the part of all pixels that have the "
        "right class"
    ),
    "image": (
        "Images were compared by the peak signal-to-noise ratio, 10 log10(range² / mean squared error) with the range "
        "of the truth, also after the gain and offset that fit the truth best (Weigert et al., Nat. Methods 15, 1090, "
        "2018), by structural similarity (SSIM; Wang et al., IEEE TIP 13, 600, 2004), also over five scales (MS-SSIM; "
        "Wang et al., Asilomar 2003), by Pearson's correlation of the pixels, by the mean absolute error and the root "
        "mean squared error in units of the range, and by the resolution at which their Fourier ring correlation falls "
        "below 1/7 (Nieuwenhuizen et al., Nat. Methods 10, 557, 2013)"
    ),
}
"""How the figures of each kind are made, in sentences without the last full stop."""
IN_PARTS = "the truth is labelled in parts, and napari left out its unknown pixels"
PIXEL_MEANINGS = {
    "missed": "background in the prediction",
    "extra": "background in the truth",
    "confused": "another class than in the truth",
}


@dataclass(frozen=True)
class Side:
    """One of the two layers that are compared."""

    name: str
    path: Path | None = None
    """File that it was opened from, where it was not changed since."""


def progress_words(progress: Progress) -> str:
    """For example ``comparing, image 3 of 16, 4 s left``."""
    count = f"{progress.task}, image {progress.done} of {progress.total}" if progress.total else progress.task
    left = duration(progress.remaining)
    return f"{count}, {left} left" if left and progress.done != progress.total else count


def said_words(comparison: Comparison, *, guessed: bool) -> str:
    """Why it was compared so, and how much of the truth is known where that is not all; empty without need."""
    reason, known = comparison.reason, comparison.known
    words = [f"{reason[:1].upper()}{reason[1:]}."] if reason else []
    words += ["Choose “Compare as” if that is wrong."] if reason and guessed else []
    share = f"{100 * known:.2g} %" if known < 0.01 else f"{100 * known:.0f} %"
    words += [f"The truth is known for {share} of the pixels; only these count."] if known < 1 else []
    return " ".join(words)


def mistakes_words(comparison: Comparison) -> str:
    """What went wrong, in numbers, and how it is shown."""
    from napari_im2im._evaluate_work import ERROR_KINDS, PIXEL_KINDS

    if comparison.too_large:
        return "What went wrong is too large to be shown as a layer. Compare a part of it to see it."
    if comparison.report.kind == "image":
        shown = "prediction minus truth: green where it is too bright, pink where it is too dark"
        return f"The layer “difference” shows {shown}." if comparison.wrong is not None else "No pixel differs."
    if comparison.report.kind == "classes":
        counts = [
            f"{n:,} {kind} ({PIXEL_MEANINGS[kind]})"
            for kind, n in zip(PIXEL_KINDS, comparison.counts, strict=True)
            if n
        ]
        return f"Pixels that went wrong: {', '.join(counts)}." if counts else "No pixel went wrong."
    kinds = [mistake.kind for mistake in comparison.mistakes]
    counts = [f"{kinds.count(kind)} {kind}" for kind in ERROR_KINDS if kind in kinds]
    return f"Objects that went wrong: {', '.join(counts)}. Click one to see it." if counts else "No object went wrong."


def as_texts(prediction: Side, truth: Side, kind: str, report: Report | None, *, partly: bool) -> dict[str, str]:
    """The comparison under the keys command, yaml, python and methods of the copy menu.

    Parameters
    ----------
    kind : str
        How it was asked to compare; "auto" to find out.
    report : Report, optional
        What came of it; without it and with "auto" there is no methods paragraph yet.
    partly : bool
        Whether the truth of some pixels is unknown.
    """
    chosen = report.kind if report else kind
    texts = {
        "command": _command(prediction, truth, chosen, partly),
        "yaml": _yaml(prediction, truth, chosen, report, partly),
        "python": _python(prediction, truth, chosen, partly),
    }
    return texts if chosen == "auto" else {**texts, "methods": _methods(chosen, report, partly)}


def _command(prediction: Side, truth: Side, kind: str, partly: bool) -> str:
    sides = ((prediction, "PREDICTION.tif"), (truth, "TRUTH.tif"))
    words = ["im2im", "evaluate", *(str(side.path or stand_in) for side, stand_in in sides)]
    notes = [
        f"{_line(side.name)} is open in napari and not a file: save it, and name the file for {stand_in}"
        for side, stand_in in sides
        if side.path is None
    ]
    if partly:
        notes.append(f"{IN_PARTS}; this command compares every pixel, so its figures differ")
    words += ["--kind", kind] if kind != "auto" else []
    return "".join(f"# {note}\n" for note in notes) + shlex.join(words)


def _python(prediction: Side, truth: Side, kind: str, partly: bool) -> str:
    lines = ["import im2im_core as im2im", ""]
    for name, side in (("prediction", prediction), ("truth", truth)):
        value = repr(str(side.path)) if side.path else f"...  # the pixels of {_line(side.name)}, an array"
        lines.append(f"{name} = {value}")
    if partly:
        lines.append(f"# {IN_PARTS}; this compares every pixel, so its figures differ")
    given = f", kind={kind!r}" if kind != "auto" else ""
    return "\n".join([*lines, f"print(im2im.evaluate(prediction, truth{given}).table())", ""])


def _yaml(prediction: Side, truth: Side, kind: str, report: Report | None, partly: bool) -> str:
    """What was compared and how, and all figures of it once there are some."""
    import yaml

    from im2im_core import __version__

    asked = {
        "prediction": str(prediction.path or prediction.name),
        "truth": str(truth.path or truth.name),
        "kind": kind,
        "only_known_pixels": partly,
        "version": f"napari-im2im {__version__}",
    }
    found = {key: value for key, value in report.to_dict().items() if key not in ("kind", "notes")} if report else {}
    return yaml.safe_dump({"comparison": asked, **found}, sort_keys=False, allow_unicode=True)


def _methods(kind: str, report: Report | None, partly: bool) -> str:
    from im2im_core import __version__

    known = " Only pixels whose truth is known counted." if partly else ""
    means = ""
    if report is not None and report.interval:
        means = (
            f" Figures are means over {len(report.rows)} images with 95 % confidence intervals from {RESAMPLES} "
            f"resamplings of n = {report.images} whole images (percentiles 2.5 and 97.5)."
        )
    return f"{DEFINITIONS[kind]}.{known}{means} Figures were computed with napari-im2im {__version__}."


def _line(text: str) -> str:
    return f"“{' '.join(text.split())}”"
