"""The Models panel: what it lists, shows and compares; what is deleted comes back; packages go in and out."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from looks import crowded, nameless

from im2im_core.archive import pack
from im2im_core.library import find_local
from im2im_core.models import list_models
from napari_im2im._models_table import COLUMNS, ModelsTable
from napari_im2im._models_widget import ModelsWidget

PATIENCE = 60_000
"""Milliseconds that a busy machine may need for what takes a moment."""
OPENS = 0.3
"""Seconds in which the panel stands."""
INFERENCE: dict[str, Any] = {
    "task": "instance_segmentation",
    "shapes": {"dimensions": 2, "input_channels": 1},
    "input": {"normalization": {"kind": "percentile"}, "rescale": {"kind": "none"}, "object_diameter": 17.0},
    "framework": {"kind": "instance"},
    "network": {"kind": "basic_unet"},
    "patch": [64, 64],
    "divisor": [16, 16],
    "halo": [20, 20],
    "outputs": [{"name": "labels", "kind": "labels", "channels": 1, "axes": "CZYX"}],
}


def package(folder: Path, name: str, ap: float, steps: int) -> Path:
    """Description of a model with a picture, a figure and a recipe; nothing that could predict."""
    from PIL import Image

    folder.mkdir(parents=True)
    Image.fromarray(np.full((32, 32, 3), 120, np.uint8)).save(folder / "cover.png")
    (folder / "README.md").write_text("# x\n\n## Limits\n\nNot for tissue sections.\n")
    recorded = {"metrics": {"ap50": ap, "loss": 1 - ap}, "recipe": {"training": {"steps": steps}, "task": "x"}}
    content = {
        "name": name,
        "description": "Finds nuclei in fluorescence images. More words.",
        "documentation": "README.md",
        "covers": ["cover.png"],
        "license": "MIT",
        "config": {"im2im": {"inference": INFERENCE, "provenance": recorded, "trained_on": "40 images of HeLa cells"}},
    }
    (folder / "bioimageio.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.fixture
def panel(make_napari_viewer: Any, qtbot: Any, project: Any) -> Any:
    """The panel with two models, on a viewer of its own."""
    for name, ap, steps in (("one", 0.91, 100), ("two", 0.84, 200)):
        package(project.root / "models" / name, f"{name} nuclei", ap, steps)
    viewer = make_napari_viewer(show=True)
    widget = ModelsWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Models")
    qtbot.waitUntil(lambda: len(widget.table.models()) == 2, timeout=PATIENCE)
    return widget


def texts(table: ModelsTable, row: int) -> dict[str, str]:
    return {name: table.item(row, i).text() for i, name in enumerate(COLUMNS)}


def shown(table: ModelsTable) -> list[str]:
    return [table.item(row, 0).text() for row in range(table.rowCount()) if not table.isRowHidden(row)]


def select(panel: ModelsWidget, *names: str) -> None:
    panel.table.select([m.path for m in panel.table.models() if m.name in names])


# ---- what is shown -------------------------------------------------------------


def test_each_model_has_a_row_and_the_first_a_card(panel: ModelsWidget) -> None:
    row = texts(panel.table, 0)
    assert (row["Model"], row["Task"], row["Figure"]) == (
        "one nuclei",
        "instance segmentation 2D",
        "AP 0.91",
    )
    assert (row["Trained on"], row["From"]) == ("40 images of HeLa cells", "project")
    assert row["Size"].endswith(("kB", "bytes"))
    assert row["Made"] == time.strftime("%Y-%m-%d")
    assert panel.below.currentWidget() is panel.view
    said = panel.view.texts()
    assert said["Limits"] == "Not for tissue sections."
    assert said["AP at IoU 0.5"] == "0.91"
    assert said["Object size"] == "17 px"


def test_words_find_models_and_columns_sort_by_value(panel: ModelsWidget) -> None:
    panel.search.setText("two nucl")
    assert shown(panel.table) == ["two nuclei"]
    panel.search.setText("")
    panel.table.sortItems(COLUMNS.index("Figure"))
    assert shown(panel.table) == ["two nuclei", "one nuclei"]
    assert [m.name for m in panel.table.value()] == ["one nuclei"]


def test_two_models_stand_side_by_side(panel: ModelsWidget, qtbot: Any) -> None:
    select(panel, "one nuclei", "two nuclei")
    qtbot.waitUntil(lambda: panel.below.currentWidget() is panel.comparison, timeout=PATIENCE)
    table = panel.comparison
    rows = {
        table.verticalHeaderItem(r).text(): [table.item(r, c).text() for c in (0, 1)] for r in range(table.rowCount())
    }
    assert rows["AP at IoU 0.5"] == ["0.91", "0.84"]
    assert rows["training.steps"] == ["100", "200"]
    bold = [[table.item(r, c).font().bold() for c in (0, 1)] for r in (0, 1)]
    assert bold == [[True, False], [True, False]]  # the higher AP, the lower loss
    assert not panel.predict.isEnabled()
    assert panel.delete.isEnabled()


def test_an_empty_library_says_what_to_do(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    viewer = make_napari_viewer(show=True)
    widget = ModelsWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Models")
    qtbot.waitUntil(lambda: "import a package" in widget.nothing.text(), timeout=PATIENCE)
    assert not widget.delete.isEnabled()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_nothing_lies_over_something_else(panel: ModelsWidget, theme: str, qtbot: Any) -> None:
    panel._viewer.theme = theme
    panel.messages.add("“one nuclei” is in the trash", button_text="Undo", action=lambda: None)
    for width in (panel.minimumWidth(), 620):
        panel.resize(width, 560)
        qtbot.wait(50)
        assert crowded(panel.below.parentWidget()) == []
        assert crowded(panel.table.parentWidget()) == []
        view = panel.table.viewport().width()
        assert sum(panel.table.columnWidth(i) for i in range(len(COLUMNS)) if not panel.table.isColumnHidden(i)) <= view
    assert nameless(panel) == []


# ---- what is done --------------------------------------------------------------


def test_what_is_deleted_comes_back(panel: ModelsWidget, qtbot: Any) -> None:
    select(panel, "one nuclei")
    panel.delete.click()
    qtbot.waitUntil(lambda: shown(panel.table) == ["two nuclei"], timeout=PATIENCE)
    (message,) = panel.messages.messages()
    assert message.text == "“one nuclei” is in the trash"
    message.button.click()
    qtbot.waitUntil(lambda: len(panel.table.models()) == 2, timeout=PATIENCE)
    assert [m.name for m in panel.table.value()] == ["one nuclei"]
    assert panel.messages.messages() == ()


def test_shipped_models_offer_no_delete(panel: ModelsWidget, qtbot: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr("im2im_core.models.SHIPPED", tmp_path / "shipped")
    package(tmp_path / "shipped" / "s", "shipped nuclei", 0.5, 1)
    panel.reload()
    qtbot.waitUntil(lambda: len(panel.table.models()) == 3, timeout=PATIENCE)
    select(panel, "shipped nuclei")
    assert not panel.delete.isEnabled()
    assert panel.delete.toolTip() == "shipped nuclei comes with the program and stays"


def test_a_zip_comes_in_and_a_broken_one_says_why(panel: ModelsWidget, qtbot: Any, tmp_path: Path) -> None:
    pack(package(tmp_path / "three", "three nuclei", 0.5, 1), tmp_path / "three.zip")
    panel.import_package(tmp_path / "three.zip")
    qtbot.waitUntil(lambda: [m.name for m in panel.table.value()] == ["three nuclei"], timeout=PATIENCE)
    assert find_local("three nuclei").origin == "project"
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    panel.import_package(tmp_path / "broken.zip")
    qtbot.waitUntil(lambda: bool(panel.messages.messages()), timeout=PATIENCE)
    assert "not a complete zip archive" in panel.messages.messages()[0].text


def test_a_model_goes_out_as_a_zip(panel: ModelsWidget, qtbot: Any, tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "out.zip"
    monkeypatch.setattr("qtpy.QtWidgets.QFileDialog.getSaveFileName", lambda *_: (str(path), ""))
    select(panel, "two nuclei")
    panel.export.click()
    qtbot.waitUntil(lambda: panel.status.text() == f"Written: {path}", timeout=PATIENCE)
    assert path.stat().st_size > 0


def test_names_and_notes_are_kept(panel: ModelsWidget, qtbot: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("qtpy.QtWidgets.QInputDialog.getText", lambda *_, **__: ("mine", True))
    select(panel, "two nuclei")
    panel._on_rename()
    qtbot.waitUntil(lambda: shown(panel.table) == ["one nuclei", "mine"], timeout=PATIENCE)
    panel.view._notes.setText("good for HeLa")
    panel.view._notes.editingFinished.emit()
    qtbot.waitUntil(lambda: panel.table.value()[0].notes == "good for HeLa", timeout=PATIENCE)
    assert [m.notes for m in list_models()] == ["", "good for HeLa"]
    select(panel, "one nuclei")
    assert panel.view._notes.text() == ""


def test_provenance_is_copied(panel: ModelsWidget, qtbot: Any) -> None:
    from qtpy.QtWidgets import QApplication

    panel._on_provenance()
    qtbot.waitUntil(lambda: panel.status.text().startswith("Copied"), timeout=PATIENCE)
    copied = yaml.safe_load(QApplication.clipboard().text())
    assert copied["recipe"]["training"] == {"steps": 100}


def test_predict_opens_with_the_model(panel: ModelsWidget, monkeypatch: Any) -> None:
    asked: list[Any] = []

    class Opened:
        def set_model(self, path: Path) -> None:
            asked.append(path)

    monkeypatch.setattr("napari_im2im._models_widget.open_panel", lambda viewer, name: asked.append(name) or Opened())
    select(panel, "two nuclei")
    panel.predict.click()
    assert asked == ["Predict", panel.table.value()[0].path]


# ---- what it costs -------------------------------------------------------------


def test_it_opens_at_once(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    for number in range(20):
        package(project.root / "models" / f"m{number}", f"model {number}", 0.5, number)
    viewer = make_napari_viewer(show=True)
    spent = []
    for _ in range(3):
        start = time.process_time()
        widget = ModelsWidget(viewer)
        dock = viewer.window.add_dock_widget(widget, name="Models")
        spent.append(time.process_time() - start)
        qtbot.waitUntil(lambda shown=widget: len(shown.table.models()) == 20, timeout=PATIENCE)
        viewer.window.remove_dock_widget(dock)
        widget.deleteLater()
    assert statistics.median(spent) <= OPENS


def test_it_imports_no_torch() -> None:
    program = "import sys\nfrom napari_im2im import _models_widget\nprint({'torch', 'monai'} & set(sys.modules))\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
