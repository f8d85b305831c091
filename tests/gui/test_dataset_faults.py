"""What goes wrong around the Dataset panel: errors in threads, edits and closing meanwhile; and how it looks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_world import folder_of, noise, settled, squares, wait
from looks import crowded, cut, nameless
from napari.components import ViewerModel
from napari.layers import Image, Labels

from im2im_core import datasets
from im2im_core.datasets import list_datasets, load_dataset
from im2im_core.samples import TARGET
from napari_im2im import _dataset_collect, _dataset_preview, _dataset_widget
from napari_im2im._dataset_choices import choose
from napari_im2im._dataset_widget import DatasetWidget

TASKS = ("load", "review", "show")


@pytest.fixture
def panel(qtbot: Any, project: Any, tmp_path: Path) -> Iterator[DatasetWidget]:
    """Panel with an open folder over a viewer without a window."""
    widget = DatasetWidget(ViewerModel(), project)
    widget.show()
    wait(qtbot, widget)
    widget.open_folder(str(folder_of(tmp_path / "stacks", "ab")))
    wait(qtbot, widget)
    yield widget
    wait(qtbot, widget)
    widget.journal.stop()
    widget.hide()
    widget.deleteLater()


@pytest.fixture
def slow_save(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Saving that says when it began, and goes on when it is told to."""
    began, go = threading.Event(), threading.Event()
    real = datasets.save_dataset

    def slow(*arguments: Any, **more: Any) -> Any:
        began.set()
        go.wait(10)
        return real(*arguments, **more)

    monkeypatch.setattr(datasets, "save_dataset", slow)
    return began, go


def begin(widget: DatasetWidget, task: str) -> None:
    """What a person does to begin it."""
    actions: dict[str, Callable[[], object]] = {
        "load": lambda: widget.open_folder(str(widget.collecting.path)),
        "review": widget.foot.check.click,
        "show": lambda: widget._on_row(1),
    }
    actions[task]()


FUNCTIONS = {
    "load": (_dataset_collect, "load_rows"),
    "review": (_dataset_widget, "review_rows"),
    "show": (_dataset_preview, "pixels_of"),
}
"""What does it in the thread."""


# ---- errors --------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_fault_24_an_error_in_the_thread_is_said_and_everything_goes_on(
    panel: DatasetWidget, qtbot: Any, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    for error in (RuntimeError("a mistake of ours"), MemoryError("no memory is left")):

        def fails(*_: Any, error: BaseException = error, **__: Any) -> None:
            raise error

        with monkeypatch.context() as patch, qtbot.captureExceptions() as caught:
            patch.setattr(*FUNCTIONS[task], fails)
            begin(panel, task)
            qtbot.waitUntil(lambda: settled(panel) and not panel.preview.work.name, timeout=30_000)
        said = [m.text for m in panel.messages.messages() if m.level == "error"]
        ours = isinstance(error, RuntimeError)
        assert [str(e) for _, e, _ in caught] == (["a mistake of ours"] if ours else [])
        assert ("no memory is left" in said) != ours
        assert not panel.foot.progress.isVisible()
        assert not panel.foot.cancel.isVisible()
        assert panel.source.isEnabled()
    begin(panel, "load")
    wait(qtbot, panel)
    assert [r.name for r in panel.rows()] == ["a", "b"]
    assert panel.save.isEnabled()


# ---- changes meanwhile ---------------------------------------------------------


@pytest.mark.parametrize("change", ["edited", "deleted"])
def test_fault_22_what_happens_to_a_layer_while_it_is_saved_is_not_in_it(
    qtbot: Any, project: Any, slow_save: tuple[threading.Event, threading.Event], change: str
) -> None:
    began, go = slow_save
    viewer = ViewerModel()
    image, labels = Image(noise(), name="a"), Labels(squares(), name="a labels")
    viewer.add_layer(image)
    viewer.add_layer(labels)
    widget = DatasetWidget(viewer, project)
    widget.show()
    wait(qtbot, widget)
    settled_layers: list[Any] = []
    widget.journal.settle = settled_layers.append
    choose(widget.choices.validation, "none")
    widget.table_rows.divide()
    widget.save.click()
    qtbot.waitUntil(began.is_set, timeout=30_000)
    if change == "edited":
        labels.data[:] = 77
    else:
        viewer.layers.remove(labels)
    with qtbot.waitSignal(widget.dataset_saved, timeout=30_000):
        go.set()
    qtbot.waitUntil(lambda: settled(widget), timeout=30_000)
    (entry,) = list_datasets(project)
    (saved,), _ = load_dataset(entry.path)
    np.testing.assert_array_equal(saved.targets[TARGET].read()[0, 0, 0], squares())
    assert (settled_layers == []) == (change == "edited")
    assert [r.name for r in widget.rows()] == (["a"] if change == "edited" else [])
    widget.journal.stop()
    widget.hide()
    widget.deleteLater()


@pytest.mark.timing
@pytest.mark.parametrize("task", ["load", "review", "save"])
def test_fault_21_the_viewer_may_be_closed_while_it_works(
    make_napari_viewer: Any, qtbot: Any, project: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: str
) -> None:
    ended: list[str] = []

    def endless(*given: Any, **named: Any) -> Any:
        stop = named.get("should_stop") or given[-1]
        while not stop():
            time.sleep(0.01)
        ended.append(task)
        raise _dataset_widget.Stopped("Stopped")

    viewer = make_napari_viewer()
    viewer.add_layer(Image(noise(), name="a"))
    viewer.add_layer(Labels(squares(), name="a labels"))
    widget = DatasetWidget(viewer, project)
    viewer.window.add_dock_widget(widget, name="Dataset")
    wait(qtbot, widget)
    monkeypatch.setattr(_dataset_collect, "load_rows", endless)
    monkeypatch.setattr(_dataset_widget, "review_rows", endless)
    monkeypatch.setattr(datasets, "save_dataset", endless)
    with qtbot.captureExceptions() as caught:
        if task == "load":
            widget.open_folder(str(folder_of(tmp_path / "stacks", "a")))
        else:
            (widget.review if task == "review" else widget.save.click)()
        assert widget.work.name == task
        begin = time.monotonic()
        viewer.close()
        assert time.monotonic() - begin < 3
        qtbot.waitUntil(lambda: ended == [task], timeout=30_000)
        qtbot.wait(100)
    assert caught == []
    assert list_datasets(project) == ()


# ---- looks ---------------------------------------------------------------------


def test_a_theme_that_changes_while_the_panel_is_open_reaches_it(
    make_napari_viewer: Any, qtbot: Any, project: Any
) -> None:
    viewer = make_napari_viewer(show=True)
    viewer.add_layer(Image(noise(), name="a"))
    viewer.add_layer(Labels(squares(), name="a labels"))
    widget = DatasetWidget(viewer, project)
    viewer.window.add_dock_widget(widget, name="Dataset")
    wait(qtbot, widget)
    widget.choices.correct.setChecked(True)
    window = viewer.window._qt_window
    window.resize(1366, 768)
    seen: dict[str, float] = {}
    for theme in ("dark", "light", "dark"):
        viewer.theme = theme
        qtbot.wait(50)
        shown = widget.grab().toImage()
        back = shown.pixelColor(2, shown.height() - 3).lightness()
        assert seen.setdefault(theme, back) == back
        for part in (widget, widget.choices, widget.foot):
            assert not crowded(part)
        for box in (widget.choices.task, widget.choices.validation):
            assert not cut(box)
        assert not nameless(widget)
    assert seen["light"] > seen["dark"] + 60
    assert window.height() <= 768
