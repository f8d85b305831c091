"""Writes docs/check.md from the codes of the data check: every problem with its severity, meaning and cure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from im2im_core.review.bands import BAND_PIXELS
from im2im_core.review.codes import CODES, Topic

if TYPE_CHECKING:
    from im2im_core.review.codes import Code

PAGE = Path(__file__).parents[1] / "docs" / "check.md"
TITLES: dict[Topic, str] = {
    "files": "Files",
    "sizes": "Sizes and axes",
    "pixels": "Pixels",
    "labels": "Labels",
    "voxels": "Voxel sizes",
    "set": "The set",
}
HEAD = f"""# Data check

Made from the codes of the check by `python tools/make_check.py`.

    im2im check images/                                          # one line per sample and problem, each with its cure
    im2im check images/ --task instance_segmentation             # what the targets are; guessed where not told
    im2im check images/ --json                                   # for machines
    im2im check images/ --headers-only                           # names and sizes, no pixels
    im2im check images/ --task semantic_segmentation --framework.classes 3   # other classes are errors

Any setting of the data can be given as for a training: `--data.axes ZYX`, `--data.labelling sparse`,
`--data.split.validation_names "[a, b]"` … The panel Dataset shows the same problems with the same cures, beside each
pair and above the table; it checks in the background whenever pairs change.

Every pixel of every image, target and weight is read once, in bands of rows of at most {BAND_PIXELS // 2**20} million
pixels, so that any size of image fits into memory and no damaged page, tile or chunk is missed. Progress with the time
left goes to stderr. Ctrl-C ends the check with exit code 130; nothing is written or changed at any time.

## Exit codes and JSON

Exit code 3 where there is an *error*, 0 where there are only warnings or none, 2 for a wrong command line.

`--json` writes one object to stdout: `schema` (1), `samples` (name, group, file, axes, shape, dtype, voxel size, range,
objects …), `problems`, and the numbers of `errors`, `warnings` and `infos`. A problem has `code` (below; codes do not
change between versions), `severity`, `sample` (empty where it concerns the set), `text`, `cure`, `file` (empty where it
is none or several) and `value` (what was found: a number, sizes, names).

From Python:

    from im2im_core.recipe import DataSettings
    from im2im_core.review.data import check_data

    found = check_data(DataSettings(path="images/"), "instance_segmentation")
    print([(p.code, p.sample, p.text) for p in found.problems])

## What is not checked

Position and direction of a volume in space (NIfTI affines), which no reader here reports; whether labels are right;
images that are nearly but not exactly the same: give those one group.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(render(), encoding="utf-8")


def render() -> str:
    """Text of the page."""
    return "\n".join([HEAD, *(_section(topic) for topic in get_args(Topic))])


def _section(topic: Topic) -> str:
    rows = [_row(name, code) for name, code in CODES.items() if code.topic == topic]
    return "\n".join([f"## {TITLES[topic]}", "", "| code | severity | when | cure |", "|---|---|---|---|", *rows, ""])


def _row(name: str, code: Code) -> str:
    cells = (f"`{name}`", code.severity, code.meaning, code.cure)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    main()
