"""The data check in the Dataset panel: the same problems as on the command line, with their cures in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from dataset_world import folder_of, noise, squares, wait
from napari.components import ViewerModel

from im2im_core.io import write_image
from im2im_core.recipe.data import DataSettings
from im2im_core.review import CODES
from im2im_core.review.data import check_data
from napari_im2im import _pair_table
from napari_im2im._dataset_choices import choose
from napari_im2im._dataset_widget import DatasetWidget


@pytest.fixture
def panel(qtbot: Any, project: Any) -> Iterator[DatasetWidget]:
    """Empty panel over a viewer without a window."""
    widget = DatasetWidget(ViewerModel(), project)
    widget.show()
    wait(qtbot, widget)
    yield widget
    wait(qtbot, widget)
    widget.journal.stop()
    widget.hide()
    widget.deleteLater()


def opened(qtbot: Any, widget: DatasetWidget, folder: Path) -> None:
    widget.open_folder(str(folder))
    wait(qtbot, widget)


def broken(root: Path) -> Path:
    """Five pairs: a is sound, b has NaN pixels, c has no labels, d is cut short, e is constant."""
    folder_of(root, "abcde")
    pixels = noise(1).astype(np.float32)
    pixels[0, 0] = np.nan
    tifffile.imwrite(root / "IM" / "b.tif", pixels)
    tifffile.imwrite(root / "GT" / "c.tif", -squares().astype(np.int16))
    path = root / "IM" / "d.tif"
    path.write_bytes(path.read_bytes()[:3000])
    tifffile.imwrite(root / "IM" / "e.tif", np.full((96, 96), 7, np.uint16))
    return root


def test_rows_show_what_the_command_line_says_with_its_cure(panel: DatasetWidget, qtbot: Any, tmp_path: Path) -> None:
    folder = broken(tmp_path / "stacks")
    opened(qtbot, panel, folder)
    expected = check_data(DataSettings(path=str(folder)), "instance_segmentation").problems
    for number, row in enumerate(panel.rows()):
        wanted = [p for p in expected if p.sample == row.name]
        assert [(p.code, p.text, p.cure) for p in row.problems] == [(p.code, p.text, p.cure) for p in wanted]
        panel.table.rowChosen.emit(number)
        assert [p.cure in panel.detail.text() for p in wanted] == [True] * len(wanted)
        index = panel.table.pairs.index(number, _pair_table.PROBLEMS)
        assert index.data() == (CODES[wanted[0].code].short if wanted else "")
    assert [row.severity for row in panel.rows()] == ["", "error", "error", "error", "warning"]
    assert {p.text for p in expected if not p.sample} <= {m.text for m in panel.messages.messages()}


def test_files_that_no_pair_has_are_named(panel: DatasetWidget, qtbot: Any, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "stacks", "ab")
    (folder / "IM" / "c.npy").write_bytes(b"of no format that is read")
    opened(qtbot, panel, folder)
    words = [m.text for m in panel.messages.messages()]
    assert "stacks holds 1 file that no sample uses (IM/c.npy)" in words
    opened(qtbot, panel, folder_of(tmp_path / "others", "ab"))
    assert not any("c.npy" in m.text for m in panel.messages.messages())


def test_a_raw_data_set_of_nnunet_opens_and_its_classes_are_heeded(
    panel: DatasetWidget, qtbot: Any, tmp_path: Path
) -> None:
    for name in "ab":
        for folder, ending, pixels in (("imagesTr", "_0000", noise()), ("labelsTr", "", squares() % 3)):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_image(tmp_path / folder / f"{name}{ending}.tif", pixels.astype(np.uint16), "YX")
    about = {
        "channel_names": {"0": "DNA"},
        "labels": {"background": 0, "cell": 1},
        "numTraining": 3,
        "file_ending": ".tif",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    opened(qtbot, panel, tmp_path)
    assert "raw data set of nnU-Net" in panel.source.found.text()
    choose(panel.choices.task, "semantic_segmentation")
    wait(qtbot, panel)
    grave = [{p.code for p in row.problems if p.severity == "error"} for row in panel.rows()]
    assert grave == [{"undeclared_class"}] * 2
    assert any("says 3 training cases, there are 2" in m.text for m in panel.messages.messages())


def test_validation_without_objects_is_told_until_another_image_validates(
    panel: DatasetWidget, qtbot: Any, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "stacks", "ab")
    tifffile.imwrite(folder / "GT" / "b.tif", np.zeros((96, 96), np.uint16))
    opened(qtbot, panel, folder)
    words = "none has a labelled object"
    for held, other, expected in (("b", "a", True), ("a", "b", False)):
        names = [row.name for row in panel.rows()]
        panel.table_rows.set_part(names.index(held), "validation")
        panel.table_rows.set_part(names.index(other), "train")
        assert any(words in m.text for m in panel.messages.messages()) == expected


def test_the_time_left_is_shown(panel: DatasetWidget) -> None:
    panel.foot.show_progress("checking images", 3, 400, 130.0)
    assert panel.foot.progress.format() == "checking images: %v of %m, 2 min 10 s left"
    panel.foot.show_progress("checking images", 3, 400, None)
    assert panel.foot.progress.format() == "checking images: %v of %m"
