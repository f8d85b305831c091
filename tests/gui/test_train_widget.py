"""The Train widget on real viewers, with trainings that only write events."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QLineEdit

from im2im_core.api import list_presets, load_preset
from im2im_core.datasets import save_dataset
from im2im_core.events import Finished, Losses, Message, Previewed, Progress, Validated
from im2im_core.files import read_json, write_json
from im2im_core.image import ArrayImage
from im2im_core.jobs import start
from im2im_core.jobs.eventlog import EventLog, Stamped, read_events
from im2im_core.jobs.watch import Seen
from im2im_core.runs import Run
from im2im_core.samples import Sample
from napari_im2im import _closing, _start_panel, _train_widget
from napari_im2im._form_rows import FieldRow
from napari_im2im._layers import is_users
from napari_im2im._plan_summary import Planner, read_answer, summary
from napari_im2im._preset_cards import USUAL, PresetCards
from napari_im2im._run_panel import RunView
from napari_im2im._start_panel import preset_of
from napari_im2im._train_cures import cure_of
from napari_im2im._train_widget import MEMORY, NEW, RUNS, TrainWidget

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")

LONG = 120_000
FAKE = (sys.executable, str(Path(__file__).with_name("fake_training.py")))
PLAN = {
    "facts": {"training": 11, "validation": 1, "test": 0, "split": "1 of 12 groups are drawn for validation"},
    "runtime": {"device": "cpu"},
    "recipe": {"training": {"minutes": None}},
    "reasons": {"data.patch": "median image 256 x 256"},
    "messages": [{"code": "no_voxel_size", "text": "The images have no voxel size", "cure": "Set data.voxel_size"}],
    "estimate": {"seconds_per_step": 0.1, "memory_gigabytes": 1.12, "minutes": 4.8},
    "steps": 2880,
}
PLANNER = "import sys, time; print({text!r}); time.sleep({wait})"


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Trainings that write events, plans that are printed."""
    real = start.start_training
    monkeypatch.setattr(start, "start_training", partial(real, command=FAKE))
    monkeypatch.setattr(start, "resume_training", partial(start.resume_training, command=FAKE))
    script = tmp_path / "plan.py"
    script.write_text(PLANNER.format(text=json.dumps(PLAN), wait=0))
    monkeypatch.setattr(_train_widget, "Planner", partial(Planner, (sys.executable, str(script))))
    return script


@pytest.fixture
def data(project):
    folder = project.root / "images"
    folder.mkdir()
    return folder


@pytest.fixture
def open_widget(make_napari_viewer, project, data, fake, qtbot):
    """Opens the widget in a viewer; all trainings end with the test."""
    widgets = []

    def make(viewer=None, name="long", **changes):
        viewer = viewer or make_napari_viewer()
        viewer.window.resize(1366, 768)
        widget = TrainWidget(viewer, project)
        viewer.window.add_dock_widget(widget, name="Train")
        widget.ask_on_close = lambda names: "keep"
        if name:
            recipe = load_preset("instance_seg_2d").override({"name": name, "data.path": str(data), **changes})
            widget.start_panel.setValue(recipe, "instance_seg_2d")
        widgets.append(widget)
        return widget

    yield make
    for run in working(project):
        os.kill(run.status.pid, signal.SIGKILL)
    for widget in widgets:
        widget.watch.stop()
        widget.planner.cancel()
    qtbot.waitUntil(lambda: not working(project), timeout=LONG)


def working(project):
    """Runs that have a process."""
    return [r for r in project.runs() if r.status.attempt and r.state in ("queued", "running")]


def start_run(widget, qtbot):
    """Presses Start and waits until the run is shown."""
    before = widget.shown()
    widget.start_panel.start_button.click()
    qtbot.waitUntil(lambda: widget.shown() != before, timeout=LONG)
    return Run(widget.shown())


def view(widget):
    return widget._views.get(widget.shown())


def steps_seen(widget):
    found = view(widget)
    return found.progress.done if found and found.progress else 0


def texts(widget):
    return [m.text for m in widget.run_panel.messages.messages()]


def saved(project, name="corner", task="instance_segmentation", shape=(64, 64), part="strip", **options):
    """A data set of one image with two objects."""
    axes = "ZYX"[-len(shape) :]
    pixels = np.random.default_rng(1).random(shape, np.float32)
    labels = np.zeros(shape, np.uint16)
    labels[..., 8:24, 8:24], labels[..., 40:56, 4:20] = 1, 2
    target = labels if task == "instance_segmentation" else pixels * 0.5
    images = [ArrayImage(array, axes, name=f"{name}{end}") for array, end in ((pixels, ""), (target, " target"))]
    sample = Sample(name, name, images[0], {"target": images[1]})
    return save_dataset(project, name, [sample], {name: part}, task=task, **options)


def wait_state(widget, qtbot, *states):
    qtbot.waitUntil(lambda: view(widget) is not None and view(widget).state in states, timeout=LONG)


def view_of(state, *events):
    """What is known of a run in `state` that told `events`."""
    view = RunView()
    view.take(Seen(tuple(Stamped(n, 1, 0.0, e) for n, e in enumerate(events, 1)), state))
    return view


# ---- words ----


def test_a_run_that_begins_or_ends_says_so():
    reading = Progress("reading images", 1, 1, 2.0, 0.0)
    assert view_of("queued").words() == "is starting…"
    assert view_of("queued", Message("1 training is ahead", code="queued")).words() == "1 training is ahead"
    for begun in (view_of("running"), view_of("running", reading)):
        assert (begun.words(), begun.done) == ("is getting ready…", None)
    half = view_of("running", Progress("reading images", 1, 2, 2.0, 2.0))
    assert (half.words(), half.done) == ("reading images: 1 of 2, 2 s left", 0.5)
    learning = view_of("running", reading, Progress("training", 5, 10, 5.0, 5.0))
    assert learning.words() == "step 5 of 10, 5 s left"
    for last, words in (
        (Progress("training", 10, 10, 9.0, 0.0), "step 10 of 10"),
        (Progress("training", 7, None, 60.0, 0.0), "step 7"),
    ):
        assert view_of("running", last).words() == f"{words}, finishing…"


# ---- before a start ------------------------------------------------------------


def test_curves_are_imported_before_a_training_needs_them(open_widget, qtbot, monkeypatch):
    monkeypatch.delitem(sys.modules, "napari_im2im._curves", raising=False)
    open_widget()
    assert "napari_im2im._curves" not in sys.modules
    qtbot.waitUntil(lambda: "napari_im2im._curves" in sys.modules, timeout=30_000)


def test_empty_widget_says_what_to_do(open_widget, qtbot):
    widget = open_widget(name="")
    assert widget.tabs.currentIndex() == NEW
    assert "Choose a data set" in widget.start_panel.summary()
    widget.start_panel.start_button.click()
    (message,) = widget.start_panel.messages.messages()
    assert message.level == "error"
    assert message.cure == "Choose a data set or a folder"
    assert widget.start_panel.start_button.isEnabled()
    widget.tabs.setCurrentIndex(RUNS)
    assert not widget.run_panel.button("pause").isVisible()
    assert not widget.run_panel.use_button.isVisible()


def test_fits_a_small_screen_in_both_themes(open_widget, qtbot):
    widget = open_widget()
    for theme in ("light", "dark"):
        widget._viewer.theme = theme
        for tab in (NEW, RUNS):
            widget.tabs.setCurrentIndex(tab)
            qtbot.wait(20)
            window = widget.window()
            assert window.height() <= 768
            assert window.width() <= 1366
            assert widget.minimumSizeHint().width() <= 480


def test_fits_a_small_screen_with_messages_curves_and_the_log(open_widget, qtbot, make_napari_viewer):
    widget = open_widget(make_napari_viewer(show=True))
    panel = widget.run_panel
    widget.tabs.setCurrentIndex(RUNS)
    panel.setState("running")
    panel.curves.show()
    panel.slider.setSteps([10, 20])
    for number in range(6):
        panel.say(
            f"Message {number}: " + "something that a person should read about this training " * 3, "warning", "Cure"
        )
    qtbot.wait(50)
    assert 100 < panel.messages.height() <= 170  # the theme adds its padding
    assert panel.minimumSizeHint().height() <= 640
    assert widget.window().height() <= 768
    panel.messages.clear()
    assert not panel.messages.isVisible()
    panel.say("Validation stopped improving", "warning", "You can stop now and keep the best", "Stop now", print)
    qtbot.wait(50)
    (message,) = panel.messages.messages()
    assert message.visibleRegion().boundingRect().height() == message.height()  # nothing needs scrolling


def test_summary_is_planned_elsewhere_and_stale_plans_are_dropped(open_widget, qtbot, fake, data):
    widget = open_widget()
    sentence = "12 images, 1 kept for validation; about 5 min on this computer; memory 1.1 GB"
    qtbot.waitUntil(lambda: widget.start_panel.summary() == sentence, timeout=LONG)
    assert "voxel size" in widget.start_panel.messages.messages()[0].text
    fake.write_text(PLANNER.format(text="too late", wait=30))
    widget.start_panel.apply({"training.minutes": 3})
    qtbot.waitUntil(lambda: widget.planner._worker is not None, timeout=LONG)
    qtbot.wait(300)
    fake.write_text(PLANNER.format(text=json.dumps({**PLAN, "estimate": None, "steps": 7}), wait=0))
    widget.start_panel.apply({"training.steps": 7})
    expected = "12 images, 1 kept for validation; 7 steps on this computer"
    qtbot.waitUntil(lambda: widget.start_panel.summary() == expected, timeout=LONG)


def test_plan_that_is_refused_names_the_cure(open_widget, qtbot, fake):
    error = {"error": "DataError", "message": "Target is missing for 3 images", "cure": "Add them", "exit_code": 3}
    fake.write_text(PLANNER.format(text=json.dumps(error), wait=0))
    widget = open_widget()
    qtbot.waitUntil(lambda: bool(widget.start_panel.messages.messages()), timeout=LONG)
    (message,) = widget.start_panel.messages.messages()
    assert (message.text, message.cure) == ("Target is missing for 3 images", "Add them")


def test_words_of_plans():
    several = {**PLAN, "runtime": {"device": "cuda"}, "estimate": {"memory_gigabytes": 0.31, "minutes": 135.0}}
    several["facts"] = {**PLAN["facts"], "training": 1, "validation": 1, "split": "same-image validation: one block"}
    assert (
        summary(several)
        == "1 image; a part of each is kept for validation; about 2 h 15 min on cuda; GPU memory 310 MB"
    )
    none = {**PLAN, "facts": {**PLAN["facts"], "validation": 0, "test": 2}, "estimate": None, "steps": None}
    assert summary(none) == "13 images, none kept for validation, 2 for the final test"
    assert read_answer("", "im2im: boom\n").message == "The plan could not be made: im2im: boom"


def test_essentials_and_recipe_are_one(open_widget, qtbot, data):
    panel = open_widget(name="").start_panel
    panel._cards.setValue("labelfree_3d")
    assert panel.value().task == "label_free"
    panel._unit.setCurrentText("minutes")
    panel._on_unit()
    panel._amount.setValue(12.0)
    assert (panel.value().training.minutes, panel.value().training.epochs) == (12.0, None)
    panel._cards.setValue("instance_seg_2d")
    assert panel.value().training.minutes == 12.0
    panel._more.setChecked(True)
    panel._form.setValue(panel.value().override({"training.optimizer.lr": 0.5, "training.epochs": 7}))
    assert panel.value().training.optimizer.lr == 0.5
    assert (panel._unit.currentText(), panel._amount.value()) == ("epochs", 7.0)
    panel.apply({"training.steps": 3})
    assert panel._form.value().training.steps == 3


def test_summary_counts_regions_and_objects_of_a_saved_data_set(project):
    square = [[[0, 0], [0, 64], [64, 64], [64, 0]]]
    corner = saved(project, regions={"corner": square})
    assert summary(PLAN, corner).startswith(
        "1 image, 1 region (2 objects); a strip of it is kept for validation; about"
    )
    whole = saved(project, "whole", task="label_free", part="train")
    assert summary(PLAN, whole).startswith("1 image, 1 kept for validation; about 5 min")


@pytest.mark.parametrize("table", [False, True])
def test_prepare_fills_everything_in(table, open_widget, qtbot, project):
    saved(project)
    entry = saved(project, "embryos", "label_free", (16, 64, 64))
    widget = open_widget(name="")
    widget.tabs.setCurrentIndex(RUNS)
    widget.prepare(entry.table if table else entry.path, minutes=3)
    qtbot.waitUntil(lambda: not widget.start_panel.filling(), timeout=LONG)
    recipe = widget.start_panel.value()
    assert widget.tabs.currentIndex() == NEW
    assert (recipe.task, recipe.data.dimensions, recipe.name) == ("label_free", 3, "embryos")
    assert (recipe.data.path, recipe.training.minutes) == (project.relative(entry.path), 3.0)
    assert widget.start_panel._cards.value() == widget.start_panel.preset() == "labelfree_3d"
    assert widget.start_panel._data.currentText() == "embryos (1 image)"
    widget.prepare(entry.path, task="restoration", dimensions=2)
    qtbot.waitUntil(lambda: not widget.start_panel.filling(), timeout=LONG)
    assert widget.start_panel.preset() == "restoration_2d"
    assert widget.start_panel.value().training.minutes == 3.0


def test_prepare_with_a_model_takes_what_its_weights_need(open_widget, qtbot, project, data, monkeypatch):
    changes = {"data.path": str(data), "data.rescale.kind": "object_size", "data.rescale.diameter": 21.0}
    run = Run.create(project, load_preset("instance_seg_2d").override(changes))
    entry = saved(project)
    monkeypatch.setattr(_train_widget, "local_models", lambda: [("nuclei (trained here)", str(run.model))])
    widget = open_widget(name="")
    widget.start_panel._cards.setValue("labelfree_3d")
    widget._look_for_models()
    qtbot.waitUntil(lambda: bool(widget.start_panel.models()), timeout=LONG)
    widget.prepare(entry.path, start_from=run.model)
    qtbot.waitUntil(lambda: not widget.start_panel.filling(), timeout=LONG)
    recipe = widget.start_panel.value()
    assert (recipe.training.taught_on, recipe.training.minutes) == (project.relative(run.model), 5.0)
    assert (recipe.task, recipe.data.dimensions, recipe.data.rescale.diameter) == ("instance_segmentation", 2, 21.0)
    assert widget.start_panel.preset() == "instance_seg_2d"
    assert widget.start_panel._from.currentText() == "nuclei (trained here)"


def test_start_from_lists_all_models_and_keeps_them(open_widget, qtbot, monkeypatch):
    models = [("Nuclei 2D (comes with napari-im2im)", "/models/nuclei.zip")]
    monkeypatch.setattr(_train_widget, "local_models", lambda: models)
    widget = open_widget()
    widget._look_for_models()
    qtbot.waitUntil(lambda: widget.start_panel.models() == models, timeout=LONG)
    widget.start_panel.refresh()
    assert widget.start_panel._from.findText(models[0][0]) == 1


def test_local_models_have_titles_with_their_place(monkeypatch):
    from types import SimpleNamespace

    model = SimpleNamespace(name="Nuclei 2D", place="comes with napari-im2im", path=Path("/models/nuclei"))
    monkeypatch.setattr("im2im_core.models.list_models", lambda: (model,))
    assert _train_widget.local_models() == [("Nuclei 2D (comes with napari-im2im)", str(model.path))]


def test_a_data_set_brings_its_task_its_dimensions_and_its_name(open_widget, qtbot, project):
    panel = open_widget(name="").start_panel
    saved(project, "embryos", "label_free", (16, 64, 64))
    assert panel._data.count() == 1
    panel._data.opened.emit()
    qtbot.waitUntil(lambda: panel._data.itemText(0) == "embryos (1 image)", timeout=LONG)
    assert (panel.value().task, panel.value().data.dimensions, panel.value().name) == ("label_free", 3, "embryos")
    panel.apply({"name": "mine"})
    saved(project)
    panel.refresh()
    qtbot.waitUntil(lambda: panel._data.count() == 3, timeout=LONG)
    panel._on_data(panel._data.findText("corner (1 image)"))
    assert (panel.preset(), panel.value().name) == ("instance_seg_2d", "mine")


def test_volumes_in_a_folder_are_told_with_a_button(open_widget):
    widget = open_widget(name="")
    widget.start_panel.setPlan({**PLAN, "facts": {**PLAN["facts"], "shape": [16, 64, 64]}})
    message = widget.start_panel.messages.messages()[-1]
    assert message.text == "The images are volumes of 16 planes; this network sees each plane alone"
    message.button.click()
    assert widget.start_panel.preset() == "instance_seg_3d"
    widget.start_panel.setPlan({**PLAN, "facts": {**PLAN["facts"], "shape": [1, 64, 64]}})
    widget.start_panel.messages.messages()[-1].button.click()
    assert widget.start_panel.value().data.dimensions == 2


def test_reset_means_the_value_of_the_preset(open_widget):
    panel = open_widget(**{"training.optimizer.lr": 0.125}).start_panel
    panel._more.setChecked(True)
    rate = ("training", "optimizer", "lr")
    assert panel._form.draft.changed(rate)
    panel._form.draft.reset(rate)
    assert panel._form.draft.get(rate) == load_preset("instance_seg_2d").training.optimizer.lr
    panel._cards.setValue("labelfree_3d")
    assert panel._form.draft.default(("data", "dimensions")) == 3


def test_objects_of_another_size_than_the_model_knows_lead_to_rescaling(open_widget, qtbot):
    panel = open_widget(name="").start_panel
    told = {"code": "other_size", "text": "Objects are wider here", "cure": "Set data.rescale"}
    panel.setPlan({**PLAN, "messages": [told]})
    (message,) = panel.messages.messages()
    message.button.click()

    def shown() -> bool:
        return any(r.path[:2] == ("data", "rescale") and r.isVisibleTo(panel) for r in panel.findChildren(FieldRow))

    qtbot.waitUntil(shown, timeout=LONG)


def test_what_a_plan_complains_of_has_a_button(open_widget, qtbot, project, monkeypatch):
    opened = []
    monkeypatch.setattr(_train_widget, "open_panel", lambda viewer, name: opened.append(name))
    widget = open_widget(name="")
    panel = widget.start_panel
    small = {"code": "smaller_than_patch", "text": "Some images are smaller than the patch (64, 64)", "cure": ""}
    empty = {"code": "nothing_labelled", "text": "Nothing is labelled in 3 of 9 targets", "cure": "Check them"}
    facts = {**PLAN["facts"], "validation": 0, "smallest": [1, 40, 99]}
    none = {"code": "not_validated", "text": "No image is left for validation", "cure": ""}
    recipe = {"training": {"minutes": None}, "data": {"patch": [64, 64]}}
    said = [*PLAN["messages"], small, empty]
    plan = {**PLAN, "facts": facts, "recipe": recipe, "messages": [none, *said]}
    panel.setPlan(plan)
    messages = {m.text: m for m in panel.messages.messages()}
    assert list(messages) == [*(m["text"] for m in said), "No image is kept for validation"]
    assert all(m.button is not None and m.cure for m in messages.values())
    messages[small["text"]].button.click()
    assert panel.value().data.patch == (32, 64)
    messages[empty["text"]].button.click()
    assert opened == ["Dataset"]
    messages[said[0]["text"]].button.click()
    path = ("data", "voxel_size")
    qtbot.waitUntil(
        lambda: any(r.path == path and r.isVisibleTo(panel) for r in panel.findChildren(FieldRow)), timeout=30_000
    )
    tiny = cure_of(small["code"], {**plan, "facts": {**facts, "smallest": [1, 9, 99]}})
    assert tiny.panel == "Dataset"


def test_nothing_is_measured_while_a_training_holds_the_device(open_widget, qtbot, fake):
    script = (
        "import json, sys; plan = {plan!r}; plan['estimate'] = plan['estimate'] if '--probe' in sys.argv else None\n"
    )
    fake.write_text(script.format(plan=PLAN) + "print(json.dumps(plan))")
    widget = open_widget(**{"training.device": "cpu"})
    widget._note_busy({"cpu"})
    widget.start_panel.apply({"training.steps": 7})
    qtbot.waitUntil(lambda: "not measured while a training runs" in widget.start_panel.summary(), timeout=LONG)
    assert "memory" not in widget.start_panel.summary()
    widget._note_busy(set())
    qtbot.waitUntil(lambda: "memory 1.1 GB" in widget.start_panel.summary(), timeout=LONG)
    assert "not measured" not in widget.start_panel.summary()


def test_everything_has_a_name_for_those_who_do_not_see_it(open_widget):
    widget = open_widget()
    panel, run_panel = widget.start_panel, widget.run_panel
    panel._more.setChecked(True)
    named = (panel._amount, panel._unit, panel._data, panel._from, panel._more, panel._cards._list, panel._form._search)
    for item in (*named, run_panel.slider._slider, run_panel.log_button, run_panel.table):
        assert item.accessibleName()
        assert item.toolTip()


def test_starting_from_a_run_takes_its_network_and_a_short_budget(open_widget, qtbot, project, data):
    recipe = load_preset("instance_seg_2d").override({"network.features": [8, 8, 8, 16, 16, 8]})
    run = Run.create(project, recipe)
    panel = open_widget().start_panel
    panel.refresh([("nuclei", str(run.folder))])
    panel._from.setCurrentIndex(1)
    panel._on_from(1)
    qtbot.waitUntil(lambda: not panel.filling(), timeout=LONG)
    assert panel.value().training.taught_on == project.relative(run.folder)
    assert panel.value().training.minutes == 5.0
    assert panel.value().network.features == (8, 8, 8, 16, 16, 8)


def test_data_sets_and_models_are_read_off_the_main_thread_and_start_waits_for_them(qtbot, project, monkeypatch):
    import threading

    from im2im_core import bundle, datasets
    from napari_im2im._start_panel import FILLING, NOTHING, StartPanel

    def noted(function):
        def look(*arguments):
            threads.append(threading.current_thread())
            goes_on.wait(20)
            return function(*arguments)

        return look

    threads, goes_on, started = [], threading.Event(), []
    entry = saved(project)
    monkeypatch.setattr(datasets, "list_datasets", noted(datasets.list_datasets))
    monkeypatch.setattr(bundle, "open_bundle", noted(bundle.open_bundle))
    panel = StartPanel(project)
    qtbot.addWidget(panel)
    panel.startRequested.connect(lambda: started.append(panel.value()))
    panel.prepare(entry.path, start_from=str(project.root / "nuclei.zip"))
    panel.apply({"training.minutes": 7})
    panel.start_button.click()
    assert panel.summary() == FILLING
    qtbot.wait(50)
    assert started == []
    goes_on.set()
    qtbot.waitUntil(lambda: bool(started), timeout=LONG)
    assert started[0].training.taught_on == "nuclei.zip"
    assert (started[0].name, started[0].training.minutes) == ("corner", 7.0)
    assert len(threads) >= 3
    assert threading.main_thread() not in threads
    panel.prepare(entry.path, start_from="/other.zip")
    panel._on_from(panel._from.findText(NOTHING))  # a newer wish
    assert not panel.filling()
    qtbot.wait(150)
    assert panel.value().training.taught_on is None


# ---- a training ----------------------------------------------------------------


def test_training_from_start_to_use(open_widget, qtbot, monkeypatch):
    widget = open_widget(name="quick")
    run = start_run(widget, qtbot)
    qtbot.waitUntil(lambda: widget.tabs.currentIndex() == RUNS, timeout=LONG)
    qtbot.waitUntil(lambda: steps_seen(widget) > 0, timeout=LONG)
    wait_state(widget, qtbot, "finished")
    assert widget.run_panel._done_words.text().startswith("Done. AP 0.91 on validation.")
    assert len(widget.run_panel.curves._series[run.name].columns["train", "total"][0]) == 40
    names = [layer.name for layer in widget._viewer.layers]
    assert names == [f"{what} of {run.name}" for what in ("source", "target", "preview")]
    assert [type(layer).__name__ for layer in widget._viewer.layers] == ["Image", "Labels", "Labels"]
    opened, used = [], []
    monkeypatch.setattr(widget, "_open_predict", opened.append)
    widget.model_ready.connect(used.append)
    widget.run_panel.use_button.click()
    assert opened == used == [str(run.model)]
    qtbot.waitUntil(lambda: [r.state for r in widget.run_panel.table.value()] == ["finished"], timeout=LONG)
    (row,) = widget.run_panel.table.value()
    assert (row.state, row.done, row.best) == ("finished", 1.0, "AP 0.91")


def test_previews_follow_the_newest_until_moved_back(open_widget, qtbot):
    widget = open_widget()
    run = start_run(widget, qtbot)
    qtbot.waitUntil(lambda: len(widget.preview.steps) >= 3, timeout=LONG)
    slider = widget.run_panel.slider
    qtbot.waitUntil(lambda: slider.value() == len(widget.preview.steps) - 1, timeout=LONG)
    slider.setValue(0)
    count = len(widget.preview.steps)
    qtbot.waitUntil(lambda: len(widget.preview.steps) > count, timeout=LONG)
    assert slider.value() == 0
    layer = widget._viewer.layers[f"preview of {run.name}"]
    np.testing.assert_array_equal(layer.data, np.load(run.previews / "preview_00000010.npy")[0])
    assert type(layer).__name__ == "Labels"


def test_fault_22_preview_layer_removed_by_the_user_stays_away_until_it_is_wanted(open_widget, qtbot):
    widget = open_widget()
    run = start_run(widget, qtbot)
    name = f"preview of {run.name}"
    qtbot.waitUntil(lambda: name in widget._viewer.layers, timeout=LONG)
    widget._viewer.layers.remove(name)
    assert not widget.run_panel.slider.isOn()
    assert widget._content()["live"]  # of the next run
    count = len(widget.preview.steps)
    qtbot.waitUntil(lambda: len(widget.preview.steps) > count, timeout=LONG)
    assert name not in widget._viewer.layers
    widget.run_panel.slider.setOn(True)
    assert sorted(layer.name for layer in widget._viewer.layers) == sorted(trio(run))


def trio(run):
    """Names of the layers that a run shows."""
    return [f"{what} of {run.name}" for what in ("source", "target", "preview")]


def previewed(project, data, name):
    """A run that has one preview."""
    run = Run.create(project, load_preset("instance_seg_2d").override({"name": name, "data.path": str(data)}))
    np.save(run.previews / "preview_00000010.npy", np.ones((1, 32, 32), np.uint16))
    np.save(run.previews / "preview_source.npy", np.ones((1, 32, 32), np.float32))
    run.write_plan({"facts": {"voxel_size": [1.0, 0.25, 0.25]}})
    with EventLog(run, 1) as log:
        log.append(Validated(10, 1.0, {"total": 1.0}, True))
        log.append(Previewed(10, "previews/preview_00000010.npy"))
    run.set_state("finished")
    return run


def test_fault_22_each_run_keeps_its_layers_however_often_it_is_shown(open_widget, qtbot, project, data):
    runs = [previewed(project, data, name) for name in ("a", "b")]
    widget = open_widget()
    for run in (runs[0], runs[1], runs[0], runs[1]):
        widget.show_run(str(run.folder))
        qtbot.waitUntil(lambda run=run: f"preview of {run.name}" in widget._viewer.layers, timeout=LONG)
        qtbot.wait(400)
    names = [layer.name for layer in widget._viewer.layers]
    assert names == [f"{what} of {run.name}" for run in runs for what in ("source", "preview")]
    assert not any(is_users(layer) for layer in widget._viewer.layers)
    widget._viewer.layers.remove(names[1])  # of a run that is not shown
    assert widget.run_panel.slider.isOn()


@pytest.mark.parametrize(("state", "seen"), [("finished", False), ("finished", True), ("running", False)])
def test_a_training_that_ended_lays_nothing_into_a_new_viewer(open_widget, qtbot, project, data, state, seen):
    run = previewed(project, data, "a")
    run.set_state(state)
    write_json(project.root / MEMORY, {"shown": str(run.folder), "tab": RUNS, "live": True})
    first = open_widget(name="")
    if seen:  # another panel of this viewer showed it
        first.show_run(str(run.folder))
        first.run_panel.slider.setOn(True)
    qtbot.waitUntil(lambda: first.preview.steps == [10], timeout=LONG)
    there = seen or state == "running"
    qtbot.waitUntil(lambda: first.preview.is_shown(str(run.folder)) is there, timeout=LONG)
    assert first.run_panel.slider.isOn() is there
    assert first._content()["live"]  # of the next run
    second = open_widget(first._viewer, name="")
    qtbot.waitUntil(lambda: second.preview.steps == [10], timeout=LONG)
    assert second.run_panel.slider.isOn() is there
    second.run_panel.slider.setOn(True)
    qtbot.waitUntil(lambda: second.preview.is_shown(str(run.folder)), timeout=LONG)


def test_a_start_shows_no_layers_of_the_run_before(open_widget, qtbot, project, data):
    old = previewed(project, data, "old")
    write_json(project.root / MEMORY, {"shown": str(old.folder), "tab": RUNS, "live": True})
    widget = open_widget()
    qtbot.waitUntil(lambda: Path(str(old.folder)) in widget.preview._voxel_size, timeout=LONG)
    assert not widget.run_panel.slider.isOn()
    run = start_run(widget, qtbot)
    qtbot.waitUntil(lambda: f"preview of {run.name}" in widget._viewer.layers, timeout=LONG)
    assert not widget.preview.is_shown(str(old.folder))


def test_a_preview_that_cannot_be_read_is_told_and_can_be_left_out(open_widget, qtbot, project, data):
    run = previewed(project, data, "a")
    np.save(run.previews / "preview_00000020.npy", np.ones((1, 32, 32), np.uint16))
    with EventLog(run, 1) as log:
        log.append(Previewed(20, "previews/preview_00000020.npy"))
    widget = open_widget()
    widget.show_run(str(run.folder))
    qtbot.waitUntil(lambda: f"preview of {run.name}" in widget._viewer.layers, timeout=LONG)
    (run.previews / "preview_00000010.npy").write_bytes(b"torn")
    widget.run_panel.slider.setValue(0)
    (message,) = widget.run_panel.messages.messages()
    assert message.text.startswith("The preview preview_00000010.npy cannot be read")
    message.button.click()
    assert widget.preview.steps == [20]
    assert texts(widget) == []


@pytest.mark.parametrize(
    ("space", "scale", "unit"),
    [
        ({"scale": (0.5, 0.5), "units": "nm"}, 0.25, "micrometer"),
        ({"scale": (2.0, 2.0)}, 2.0, "pixel"),
        (None, 0.25, "micrometer"),
    ],
)
def test_previews_have_the_size_and_the_unit_of_the_image(space, scale, unit, make_napari_viewer, project, data):
    from napari_im2im._preview_layer import PreviewLayer

    viewer, run = make_napari_viewer(), previewed(project, data, "a")
    if space is not None:
        viewer.add_image(np.zeros((64, 64), np.float32), **space)
    preview = PreviewLayer(viewer)
    preview.setRun(str(run.folder))
    preview.setVoxelSize(str(run.folder), (1.0, 0.25, 0.25))
    preview.add([Previewed(10, "previews/preview_00000010.npy")])
    assert preview.show(0) == ""
    for layer in viewer.layers[-2:]:
        assert tuple(layer.scale) == (scale, scale)
        assert str(layer.units[0]) == unit
    assert viewer.layers.extent.units is not None
    source, shown = viewer.layers[-2:]
    assert shown.translate[1] >= source.translate[1] + 32 * scale


def test_a_rectangle_of_the_user_is_watched_and_kept_on_the_slider(open_widget, qtbot, project):
    entry = saved(project)
    widget = open_widget(**{"data.path": project.relative(entry.path)})
    viewer = widget._viewer
    viewer.add_image(np.zeros((64, 64), np.float32), name="corner")
    shapes = viewer.add_shapes([[[4, 6], [4, 25], [19, 25], [19, 6]]], shape_type="rectangle")
    viewer.layers.selection = {shapes}
    shapes.selected_data = {0}
    run = start_run(widget, qtbot)
    qtbot.waitUntil(lambda: widget.run_panel.watch_button.isVisibleTo(widget), timeout=LONG)
    qtbot.waitUntil(lambda: steps_seen(widget) > 0, timeout=LONG)
    widget.run_panel.watch_button.click()
    name = f"preview of region 1 of {run.name}"
    qtbot.waitUntil(lambda: name in viewer.layers, timeout=LONG)
    (path,) = (run.folder / "commands").glob("*-preview.json")
    asked = read_json(path)["arguments"]
    assert (asked["sample"], asked["start"], asked["stop"]) == ("corner", [0, 4, 6], [1, 20, 26])
    assert viewer.layers[name].data.shape == (16, 20)
    assert f"target of region 1 of {run.name}" in viewer.layers
    assert widget.run_panel.slider._region.currentText() == "region 1"
    assert any("shown from the next validation on" in text for text in texts(widget))
    widget.run_panel.slider.regionChosen.emit("preview")
    assert widget.preview.name == "preview"
    qtbot.waitUntil(lambda: len(widget.preview.steps) > 1, timeout=LONG)


def test_a_region_chosen_before_the_start_is_watched_and_again_after_a_pause(open_widget, qtbot, project):
    entry = saved(project)
    widget = open_widget(**{"data.path": project.relative(entry.path)})
    viewer, panel = widget._viewer, widget.start_panel
    panel.watch_button.click()
    assert not panel.watch_button.isChecked()
    assert panel.messages.messages()[-1].text == "There is no image in the viewer"
    viewer.add_image(np.zeros((64, 64), np.float32), name="corner")
    shapes = viewer.add_shapes([[[4, 6], [4, 25], [19, 25], [19, 6]]], shape_type="rectangle")
    viewer.layers.selection = {shapes}
    panel.watch_button.click()
    assert panel.watch_button.toolTip().startswith("20 × 16 pixels of “corner” are predicted")
    run = start_run(widget, qtbot)
    qtbot.waitUntil(lambda: "region-1" in widget.preview.names, timeout=LONG)
    widget.run_panel.button("pause").click()
    wait_state(widget, qtbot, "paused")
    count = len(widget.preview.steps)
    widget.run_panel.button("resume").click()
    qtbot.waitUntil(lambda: len(widget.preview.steps) > count + 1, timeout=LONG)
    commands = [read_json(path) for path in sorted((run.folder / "commands").glob("*-preview.json"))]
    assert [c["attempt"] for c in commands] == [1, 2]
    assert commands[0]["arguments"] == commands[1]["arguments"]
    assert widget.preview.names == ["preview", "region-1"]


def test_regions_of_a_run_are_watched_when_it_is_taught_on(project, data):
    from im2im_core.jobs.commands import send_command
    from napari_im2im._train_work import ask_regions
    from napari_im2im._watched_region import asked_regions

    recipe = load_preset("instance_seg_2d").override({"data.path": str(data)})
    first = Run.create(project, recipe)
    start = {"training.start": {"kind": "model", "model": project.relative(first.folder)}}
    others = Run.create(project, recipe.override({**start, "data.path": "other"}))
    second = Run.create(project, recipe.override(start))
    for run in (first, others, second):
        with run.claim():
            assert run.attempt == 1
    send_command(first, "preview", sample="corner", name="region-1")
    for run in (others, second, second):
        assert ask_regions(str(run.folder), 1, None) is None
    assert asked_regions(others, [1]) == {}
    assert asked_regions(second, [1]) == {"region-1": {"sample": "corner", "name": "region-1"}}
    assert len(list((second.folder / "commands").glob("*-preview.json"))) == 1


def test_a_region_of_an_unknown_image_is_refused_in_words(open_widget, qtbot, project):
    entry = saved(project)
    widget = open_widget(**{"data.path": project.relative(entry.path)})
    start_run(widget, qtbot)
    widget.run_panel.watch_button.click()
    assert texts(widget)[-1] == "There is no image in the viewer"
    image = widget._viewer.add_image(np.zeros((64, 64), np.float32), name="stranger")
    shapes = widget._viewer.add_shapes([[[4, 6], [4, 25], [19, 25], [19, 6]]], shape_type="rectangle")
    widget._viewer.layers.selection = {shapes}
    widget.run_panel.watch_button.click()
    expected = "This training does not learn from “stranger”; it learns from corner"
    qtbot.waitUntil(lambda: any(text.startswith(expected) for text in texts(widget)), timeout=LONG)
    image.name = "corner"
    shapes.data = [[[41, 4], [46, 4], [46, 30], [41, 30]]]  # between the parts that train and validate
    widget.run_panel.watch_button.click()
    outside = "“corner” is learned from, but not this part of it"
    qtbot.waitUntil(lambda: outside in texts(widget), timeout=LONG)
    assert widget._asked_previews == {}


def test_the_log_is_folded_and_follows_the_run(open_widget, qtbot):
    widget = open_widget()
    run = start_run(widget, qtbot)
    qtbot.waitUntil(lambda: run.log.is_file() and "wheels" in run.log.read_text(), timeout=LONG)
    assert widget.run_panel.log() == ""
    widget.run_panel.log_button.click()
    qtbot.waitUntil(lambda: "the wheels turn" in widget.run_panel.log(), timeout=LONG)
    widget.run_panel.log_button.click()
    assert not widget.run_panel._log.isVisibleTo(widget)


def test_layers_that_are_edited_or_renamed_meanwhile_do_not_matter(open_widget, qtbot):
    widget = open_widget()
    labels = widget._viewer.add_labels(np.zeros((64, 64), np.uint16), name="painted")
    run = start_run(widget, qtbot)
    name = f"preview of {run.name}"
    qtbot.waitUntil(lambda: name in widget._viewer.layers, timeout=LONG)
    shown = widget._viewer.layers[name]
    labels.name, shown.name = "mine", "watched"
    labels.data_setitem((np.array([3]), np.array([3])), 1)
    count = len(widget.preview.steps)
    qtbot.waitUntil(lambda: len(widget.preview.steps) > count, timeout=LONG)
    assert [layer.name for layer in widget._viewer.layers] == ["mine", *trio(run)[:2], "watched"]
    newest = np.load(run.folder / widget.preview._files[run.folder, "preview"][widget.preview.steps[-1]])[0]
    qtbot.waitUntil(lambda: np.array_equal(shown.data, newest) or len(widget.preview.steps) > count + 1, timeout=LONG)
    assert texts(widget) == []


def test_fault_22_layers_that_are_learned_from_can_be_edited_and_deleted(open_widget, qtbot, project):
    entry = saved(project)
    widget = open_widget(**{"data.path": project.relative(entry.path)})
    image = widget._viewer.add_image(np.zeros((64, 64), np.float32), name="corner")
    labels = widget._viewer.add_labels(np.zeros((64, 64), np.uint16), name="painted")
    files = {path: path.read_bytes() for path in entry.path.rglob("*") if path.is_file()}
    run = start_run(widget, qtbot)
    qtbot.waitUntil(lambda: f"preview of {run.name}" in widget._viewer.layers, timeout=LONG)
    labels.data_setitem((np.array([3]), np.array([3])), 1)
    image.data = np.ones((32, 32), np.float32)
    count = len(widget.preview.steps)
    qtbot.waitUntil(lambda: len(widget.preview.steps) > count, timeout=LONG)
    widget._viewer.layers.remove(image)
    widget._viewer.layers.remove(labels)
    count = len(widget.preview.steps)
    qtbot.waitUntil(lambda: len(widget.preview.steps) > count, timeout=LONG)
    assert sorted(layer.name for layer in widget._viewer.layers) == sorted(trio(run))
    assert texts(widget) == []
    assert {path: path.read_bytes() for path in files} == files
    widget.run_panel.watch_button.click()
    assert texts(widget) == ["There is no image in the viewer"]
    assert run.state == "running"


@pytest.mark.timing
def test_fifty_open_layers_do_not_slow_the_preview_down(make_napari_viewer, project, data):
    import time

    from napari_im2im._preview_layer import PreviewLayer

    viewer, run = make_napari_viewer(), previewed(project, data, "a")
    for number in range(50):
        place = {"translate": (0, 70 * number), "visible": number == 0}
        viewer.add_image(np.zeros((64, 64), np.uint8), name=f"image {number}", **place)
    before = {layer.name: (tuple(layer.translate), layer.visible) for layer in viewer.layers}
    np.save(run.previews / "preview_00000020.npy", np.full((1, 32, 32), 2, np.uint16))
    preview = PreviewLayer(viewer)
    preview.setRun(str(run.folder))
    preview.setVoxelSize(str(run.folder), (1.0, 1.0, 1.0))
    preview.add([Previewed(step, f"previews/preview_000000{step}.npy") for step in (10, 20)])
    assert preview.show(0) == ""
    took = []
    for position in (1, 0, 1, 0, 1):
        begin = time.process_time()
        assert preview.show(position) == ""
        took.append(time.process_time() - begin)
    assert min(took) < 0.05
    assert len(viewer.layers) == 52
    assert {n: (tuple(viewer.layers[n].translate), viewer.layers[n].visible) for n in before} == before
    assert viewer.layers[f"preview of {run.name}"].translate[1] >= 49 * 70 + 64


def test_a_new_theme_reaches_open_forms_and_curves(open_widget, qtbot, project, data, make_napari_viewer):
    from napari.utils.theme import get_theme

    run = written_run(project, data, "a")
    widget = open_widget(make_napari_viewer(show=True))
    widget.start_panel._more.setChecked(True)
    widget.show_run(str(run.folder))
    curves = widget.run_panel.curves
    qtbot.waitUntil(lambda: bool(curves.shown_names()), timeout=LONG)
    brightness = {}
    for name in ("light", "dark", "light"):
        widget._viewer.theme = name
        theme = get_theme(name)
        assert curves._area.backgroundBrush().color().name() == theme.background.as_hex(format="long")
        assert curves._loss.getAxis("left").textPen().color().name() == theme.text.as_hex(format="long")
        labels = [label for _, label in curves._loss.legend.items]
        assert labels
        assert all(theme.text.as_hex(format="long")[1:] in label.item.toHtml() for label in labels)
        widget.tabs.setCurrentIndex(NEW)
        qtbot.wait(50)
        row = next(row for row in widget.start_panel._form.findChildren(QLineEdit) if row.isVisible())
        brightness[name] = row.grab().toImage().scaled(1, 1).pixelColor(0, 0).lightness()
        widget.tabs.setCurrentIndex(RUNS)
    assert brightness["dark"] < 128 < brightness["light"]


SCALED = """
import os, sys
from functools import partial
import napari
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QComboBox
from im2im_core.events import Losses, Progress, Validated
from im2im_core.jobs.eventlog import Stamped
from im2im_core.project import Project
from napari_im2im._train_widget import NEW, RUNS, TrainWidget

def clipped(parent):
    shown = [w for w in parent.findChildren(QAbstractButton) if w.isVisible() and w.text()]
    assert len(shown) > 3
    return [
        (w.text(), w.width(), w.sizeHint().width(), w.height(), w.minimumSizeHint().height())
        for w in shown
        if w.width() < w.sizeHint().width() or w.height() < w.minimumSizeHint().height() - 2  # a tab bar takes one
    ]

viewer = napari.Viewer(show=True)
assert viewer.window._qt_window.devicePixelRatioF() == 2.0
widget = TrainWidget(viewer, Project.create(sys.argv[1]))
viewer.window.add_dock_widget(widget, name="Train")
widget.watch.stop()
found = []
panel = widget.run_panel
events = [Stamped(1, 1, 0.0, Losses(1, 0.1, {"total": 1.0}, 1e-3)), Stamped(2, 1, 0.0, Validated(1, 0.1, {"total": 1}))]
panel.curves.add("20261121-195642_embryos", events)
panel.slider.setSteps([10, 20])
for tab, state in ((NEW, ""), (RUNS, "running"), (RUNS, "paused"), (RUNS, "finished")):
    widget.tabs.setCurrentIndex(tab)
    panel.setState(state)
    QTest.qWait(100)
    found += clipped(widget)
    assert widget.minimumSizeHint().width() <= 480, widget.minimumSizeHint()
for _, label in panel.curves._loss.legend.items:
    place, plot = label.sceneBoundingRect(), panel.curves._loss.vb.sceneBoundingRect()
    assert plot.left() <= place.left() and place.right() <= plot.right()
print(found, flush=True)
os._exit(0)
"""


def test_nothing_is_clipped_on_a_fine_screen(tmp_path):
    environment = {**os.environ, "QT_SCALE_FACTOR": "2", "IM2IM_HOME": str(tmp_path / "home")}
    program = [sys.executable, "-c", SCALED, str(tmp_path / "p")]
    done = subprocess.run(program, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_pause_and_resume(open_widget, qtbot):
    widget = open_widget()
    run = start_run(widget, qtbot)
    qtbot.waitUntil(lambda: steps_seen(widget) > 2, timeout=LONG)
    widget.run_panel.button("pause").click()
    assert widget.run_panel._words.text() == "saving and pausing…"
    wait_state(widget, qtbot, "paused")
    paused = steps_seen(widget)
    assert widget.run_panel.button("resume").isEnabled()
    widget.run_panel.button("resume").click()
    qtbot.waitUntil(lambda: run.attempt == 2, timeout=LONG)
    qtbot.waitUntil(lambda: steps_seen(widget) > paused, timeout=LONG)
    wait_state(widget, qtbot, "running")


def test_stop_keeps_the_best(open_widget, qtbot):
    widget = open_widget()
    start_run(widget, qtbot)
    qtbot.waitUntil(lambda: steps_seen(widget) > 2, timeout=LONG)
    widget.run_panel.button("stop").click()
    wait_state(widget, qtbot, "finished")
    assert widget.run_panel._done.isVisibleTo(widget.run_panel)


def test_fault_25_abort_ends_soon(open_widget, qtbot):
    widget = open_widget()
    run = start_run(widget, qtbot)
    qtbot.waitUntil(lambda: steps_seen(widget) > 2, timeout=LONG)
    widget.run_panel.abort_action.trigger()
    qtbot.waitUntil(lambda: run.state not in ("queued", "running"), timeout=LONG)
    wait_state(widget, qtbot, "finished", "stopped")


def test_failure_is_told_with_its_cure(open_widget, qtbot):
    widget = open_widget(name="data")
    start_run(widget, qtbot)
    wait_state(widget, qtbot, "failed")
    qtbot.waitUntil(lambda: "a.tif is torn" in texts(widget), timeout=LONG)
    (message,) = widget.run_panel.messages.messages()
    assert (message.cure, message.level) == ("Copy it again", "error")


@pytest.mark.parametrize(
    ("name", "words"), [("killed", "killed by signal 9, probably out of memory"), ("crash", "crashed inside a library")]
)
def test_fault_27_the_widget_survives_a_killed_training(name, words, open_widget, qtbot):
    widget = open_widget(name=name)
    start_run(widget, qtbot)
    wait_state(widget, qtbot, "interrupted")
    qtbot.waitUntil(lambda: any(words in text for text in texts(widget)), timeout=LONG)
    assert widget.run_panel.button("resume").isVisibleTo(widget)
    message = next(m for m in widget.run_panel.messages.messages() if words in m.text)
    assert message.button.text() == "Resume"
    message.button.click()
    qtbot.waitUntil(lambda: Run(widget.shown()).attempt == 2, timeout=LONG)


@pytest.mark.parametrize(
    ("name", "words", "cure"),
    [
        ("memory", "The memory does not suffice", "Choose a smaller patch"),
        ("runtime", "RuntimeError: the wheels came off", "This is an error of the program; see log.txt"),
    ],
)
def test_fault_24_an_error_inside_a_training_is_told_in_words(name, words, cure, open_widget, qtbot):
    widget = open_widget(name=name, **{"training.batch": 8})
    start_run(widget, qtbot)
    wait_state(widget, qtbot, "failed")
    qtbot.waitUntil(lambda: words in texts(widget), timeout=LONG)
    message = next(m for m in widget.run_panel.messages.messages() if m.text == words)
    assert message.cure.startswith(cure)
    assert message.level == "error"
    if name == "memory":
        message.button.click()
        assert widget.start_panel.value().training.batch == 4


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), MemoryError("no"), KeyboardInterrupt("no"), SystemExit("no"), OSError("no")]
)
def test_fault_24_error_while_starting_is_shown_and_start_works_again(error, open_widget, qtbot, monkeypatch):
    def launch(*_):
        raise error

    widget = open_widget()
    monkeypatch.setattr(_train_widget, "launch", launch)
    widget.start_panel.messages.clear()
    widget.start_panel.start_button.click()
    assert not widget.start_panel.start_button.isEnabled()
    button = widget.start_panel.start_button
    qtbot.waitUntil(lambda: button.isEnabled() and button.text() == "Start", timeout=LONG)
    assert [m.level for m in widget.start_panel.messages.messages()][-1] == "error"


def test_training_that_cannot_begin_is_marked_failed(open_widget, qtbot, monkeypatch, project):
    broken = (sys.executable, "-c", "raise SystemExit('no torch here')")
    monkeypatch.setattr(start, "start_training", partial(start.start_training.func, command=broken))
    widget = open_widget()
    widget.start_panel.start_button.click()
    qtbot.waitUntil(
        lambda: any("no torch here" in m.text for m in widget.start_panel.messages.messages()), timeout=LONG
    )
    assert [run.state for run in project.runs()] == ["failed"]


def test_fault_26_two_trainings_queue(open_widget, qtbot):
    widget = open_widget(**{"training.device": "cpu"})
    first = start_run(widget, qtbot)
    qtbot.waitUntil(lambda: steps_seen(widget) > 2, timeout=LONG)
    second = start_run(widget, qtbot)
    qtbot.waitUntil(lambda: "1 training is before this one" in widget.run_panel._words.text(), timeout=LONG)
    assert (first.state, second.state) == ("running", "queued")
    qtbot.waitUntil(lambda: widget.run_panel.table.rowCount() == 2, timeout=LONG)
    widget.show_run(str(first.folder))
    qtbot.waitUntil(lambda: steps_seen(widget) > 2, timeout=LONG)
    widget.run_panel.button("stop").click()
    qtbot.waitUntil(lambda: second.state == "running", timeout=LONG)


# ---- runs ----------------------------------------------------------------------


def written_run(project, data, name, rising=False):
    """A finished run whose curves are known."""
    run = Run.create(project, load_preset("instance_seg_2d").override({"name": name, "data.path": str(data)}))
    with EventLog(run, 1) as log:
        for step in range(1, 61):
            log.append(Losses(step, 1.0, {"total": 1 / step}, 1e-3, 50.0))
            log.append(Progress("training", step, 60, 1.0))
            if step % 6 == 0:
                log.append(Validated(step, 1.0, {"total": step / 10 if rising else 1 / step, "ap50": 0.5}, step == 6))
    run.set_state("finished")
    return run


def test_ticked_runs_are_compared(open_widget, qtbot, project, data):
    runs = [written_run(project, data, name) for name in ("a", "b")]
    widget = open_widget()
    qtbot.waitUntil(lambda: widget.run_panel.table.rowCount() == 2, timeout=LONG)
    widget.show_run(str(runs[0].folder))
    widget.run_panel.table.tick(str(runs[1].folder))
    qtbot.waitUntil(lambda: set(widget.run_panel.curves.names()) == {r.name for r in runs}, timeout=LONG)
    assert widget.run_panel.curves.colour(runs[0].name) != widget.run_panel.curves.colour(runs[1].name)
    widget.run_panel.table.tick(str(runs[1].folder), False)
    qtbot.waitUntil(lambda: widget.run_panel.curves.names() == [runs[0].name], timeout=LONG)


def test_cure_prepares_a_new_training(open_widget, qtbot, project, data):
    run = written_run(project, data, "a", rising=True)
    run.set_state("paused")
    widget = open_widget()
    widget.show_run(str(run.folder))
    qtbot.waitUntil(lambda: "overfit" in widget.run_panel.codes(), timeout=LONG)
    message = next(m for m in widget.run_panel.messages.messages() if "by heart" in m.text)
    message.button.click()
    assert widget.tabs.currentIndex() == NEW
    assert widget.start_panel.value().data.augmentation.rotate == 180.0
    assert widget.start_panel.value().name == "a"


def test_dismissed_message_stays_away(open_widget, qtbot, project, data):
    run = written_run(project, data, "a", rising=True)
    run.set_state("paused")
    widget = open_widget()
    widget.show_run(str(run.folder))
    qtbot.waitUntil(lambda: "overfit" in widget.run_panel.codes(), timeout=LONG)
    next(m for m in widget.run_panel.messages.messages() if "by heart" in m.text).dismissed.emit()
    widget._examine(view(widget))
    qtbot.waitUntil(lambda: not widget._examining, timeout=LONG)
    assert "overfit" not in widget.run_panel.codes()


def test_runs_are_examined_off_the_main_thread_and_without_progress(open_widget, qtbot, project, data, monkeypatch):
    import threading

    threads, kinds = [], set()

    def examine(folder, events, progress, state):
        threads.append(threading.current_thread())
        kinds.update(type(s.event) for s in events)
        return real(folder, events, progress, state)

    real = _train_widget.examine
    monkeypatch.setattr(_train_widget, "examine", examine)
    run = written_run(project, data, "a", rising=True)
    run.set_state("paused")
    widget = open_widget()
    widget.show_run(str(run.folder))
    qtbot.waitUntil(lambda: "overfit" in widget.run_panel.codes(), timeout=LONG)
    assert threading.main_thread() not in threads
    assert kinds == {Losses, Validated}
    assert view(widget).progress.done == 60


def test_a_failed_examination_places_no_preview_of_another_run(open_widget, qtbot, project, data, monkeypatch):
    import threading

    runs = [previewed(project, data, name) for name in ("a", "b")]
    goes_on = threading.Event()

    def examine(folder, *rest):
        if folder == str(runs[0].folder):
            goes_on.wait(LONG / 1000)
            raise OSError("the disk is away")
        return real(folder, *rest)

    real = _train_widget.examine
    monkeypatch.setattr(_train_widget, "examine", examine)
    widget = open_widget()
    widget.show_run(str(runs[0].folder))
    qtbot.waitUntil(lambda: widget._examining, timeout=LONG)
    widget.show_run(str(runs[1].folder))
    qtbot.waitUntil(lambda: view(widget) is not None and view(widget).due, timeout=LONG)
    goes_on.set()
    qtbot.waitUntil(lambda: f"preview of {runs[1].name}" in widget._viewer.layers, timeout=LONG)
    assert tuple(widget._viewer.layers[f"preview of {runs[1].name}"].scale) == (0.25, 0.25)
    assert texts(widget) == []


def test_the_end_tells_how_good_it_is_and_was(open_widget, qtbot, project):
    entry = saved(project)
    start = {"kind": "model", "model": "/models/nuclei"}
    changes = {"data.path": project.relative(entry.path), "training.start": start}
    run = Run.create(project, load_preset("instance_seg_2d").override(changes))
    run.write_plan({"facts": {"validation": 1, "split": "1 of 2 groups are given for validation"}})
    with EventLog(run, 1) as log:
        for step, score in ((10, 0.74), (20, 0.91)):
            log.append(Validated(step, 1.0, {"total": 1 / step, "ap50": score}, True))
        log.append(Finished(20, "model", {"ap50": 0.91}, 61.0))
    run.set_state("finished")
    widget = open_widget()
    widget.show_run(str(run.folder))
    words = "Done. AP 0.91 on the kept strip (was 0.74). 20 steps, "
    qtbot.waitUntil(lambda: widget.run_panel._done_words.text().startswith(words), timeout=LONG)


def test_context_menu_exports_and_copies(open_widget, qtbot, project, data, monkeypatch, tmp_path):
    from qtpy.QtWidgets import QApplication, QFileDialog

    run = written_run(project, data, "a")
    (run.model / "rdf.yaml").write_text("name: a\n")
    widget = open_widget()
    qtbot.waitUntil(lambda: widget.run_panel.table.rowCount() == 1, timeout=LONG)
    folder = str(run.folder)
    enabled = {a.text(): a.isEnabled() for a in widget.run_panel.table.menu(folder).actions() if a.text()}
    assert enabled["Export model as zip…"]
    assert not enabled["Go on from where it ended"]
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "m"), ""))
    widget.run_panel.table.asked.emit("export", folder)
    qtbot.waitUntil(lambda: (tmp_path / "m.zip").is_file(), timeout=LONG)
    for kind, words in (("command", "im2im train instance_seg_2d"), ("yaml", "epochs: 60"), ("python", "load_preset")):
        widget.run_panel.table.asked.emit(kind, folder)
        assert words in QApplication.clipboard().text()
    widget.run_panel.table.asked.emit("command", folder)
    assert f"--project {project.root}" in QApplication.clipboard().text()
    widget.run_panel.table.asked.emit("continue", folder)
    assert widget.start_panel.value().training.taught_on == project.relative(folder)


# ---- closing and coming back ---------------------------------------------------


def test_fault_21_closing_asks_and_keeps_running(open_widget, qtbot, make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    widget = open_widget(viewer)
    run = start_run(widget, qtbot)
    asked = []
    widget.ask_on_close = lambda names: asked.append(names) or "keep"
    viewer.close()
    assert asked == [[run.name]]
    steps = len(read_events(run))
    qtbot.waitUntil(lambda: len(read_events(run)) > steps, timeout=LONG)
    assert run.state == "running"


def test_fault_21_closing_can_stop_the_training(open_widget, qtbot, make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    widget = open_widget(viewer)
    run = start_run(widget, qtbot)
    qtbot.waitUntil(lambda: steps_seen(widget) > 2, timeout=LONG)  # a run that has not begun has nothing to finish
    widget.ask_on_close = lambda names: "stop"
    viewer.close()
    qtbot.waitUntil(lambda: run.state == "finished", timeout=LONG)


def test_fault_21_closing_can_be_taken_back(open_widget, qtbot, make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    widget = open_widget(viewer)
    start_run(widget, qtbot)
    widget.show()
    window = widget._window_asked()
    widget.ask_on_close = lambda names: "cancel"
    assert not window.close()
    widget.ask_on_close = lambda names: "keep"


@pytest.fixture
def click_on_close(monkeypatch):
    """Closes a window as a click on its frame does; gives what napari asked meanwhile, all of it refused."""
    from napari._qt import qt_main_window
    from napari.settings import get_settings
    from qtpy.QtGui import QCloseEvent
    from qtpy.QtWidgets import QDialog

    asked = []

    class Refused:
        def __init__(self, *_, **how):
            asked.append(how)

        def exec_(self):
            return QDialog.Rejected

    monkeypatch.setattr(qt_main_window, "ConfirmCloseDialog", Refused)
    monkeypatch.setattr(get_settings().application, "confirm_close_window", True)
    monkeypatch.setattr(QCloseEvent, "spontaneous", lambda event: type(event) is _Click)

    class _Click(QCloseEvent):
        pass

    def click(window):
        from qtpy.QtWidgets import QApplication

        event = _Click()
        QApplication.sendEvent(window, event)
        return event.isAccepted(), asked

    return click


def test_fault_21_closing_asks_once_and_only_then_stops(open_widget, qtbot, make_napari_viewer, click_on_close):
    viewer = make_napari_viewer(show=True)
    widget = open_widget(viewer)
    viewer.add_image(np.zeros((8, 8)))
    run = start_run(widget, qtbot)
    qtbot.waitUntil(lambda: steps_seen(widget) > 2, timeout=LONG)
    widget.show()
    window = widget._window_asked()
    answers = []
    widget.ask_on_close = lambda names: answers.append("stop") or "stop"
    keeper = Keeper(window)  # some other plugin, which has unsaved work
    assert click_on_close(window) == (False, [])
    assert answers == ["stop"]
    assert not list((run.folder / "commands").glob("*-stop.json"))
    window.removeEventFilter(keeper)
    assert click_on_close(window) == (True, [])
    assert list((run.folder / "commands").glob("*-stop.json"))
    qtbot.waitUntil(lambda: run.state == "finished", timeout=LONG)


def test_the_question_names_what_else_would_end(make_napari_viewer, monkeypatch):
    from napari.utils.task_status import Status
    from qtpy.QtWidgets import QMessageBox

    window = make_napari_viewer().window._qt_window
    window._window._register_task_status("other plugin", Status.BUSY, "denoises")
    said = []
    monkeypatch.setattr(QMessageBox, "exec", lambda box: said.append(box.informativeText()))
    assert _closing.ask(["a"], window) == "cancel"
    assert said[0].endswith("Closing ends: other plugin: denoises")


class Keeper(QObject):
    """Keeps a window open, but only when the question about trainings was answered."""

    def __init__(self, window):
        super().__init__(window)
        window.installEventFilter(self)

    def eventFilter(self, watched, event):
        if event.type() == QEvent.Type.Close and not event.spontaneous():
            event.ignore()
            return True
        return False


def test_fault_21_closing_asks_although_the_dock_is_closed(open_widget, qtbot, make_napari_viewer, monkeypatch):
    viewer = make_napari_viewer(show=True)
    widget = open_widget(viewer)
    run = start_run(widget, qtbot)
    widget.show()
    window = widget._window_asked()
    viewer.window.remove_dock_widget(widget)
    widget.close()
    widget.deleteLater()
    qtbot.wait(100)
    asked = []
    monkeypatch.setattr(_closing, "ask", lambda names, parent: asked.append(names) or "cancel")
    monkeypatch.setattr(_train_widget, "ask", lambda names, parent: asked.append(names) or "cancel")
    assert not window.close()
    assert asked == [[run.name]]
    monkeypatch.setattr(_train_widget, "ask", lambda names, parent: "keep")


def test_fault_23_dock_closed_while_running_and_opened_again(open_widget, qtbot, make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    widget = open_widget(viewer)
    run = start_run(widget, qtbot)
    qtbot.waitUntil(lambda: f"preview of {run.name}" in viewer.layers, timeout=LONG)
    places = {layer.name: tuple(layer.translate) for layer in viewer.layers}
    with qtbot.captureExceptions() as exceptions:
        viewer.window.remove_dock_widget(widget)
        widget.close()
        widget.deleteLater()
        qtbot.wait(900)
    assert exceptions == []
    again = open_widget(viewer, name="")
    assert again.tabs.currentIndex() == RUNS
    assert again.shown() == str(run.folder)
    assert again.start_panel.value().name == "long"
    qtbot.waitUntil(lambda: steps_seen(again) > 2, timeout=LONG)
    assert again.run_panel.curves._series[run.name].columns["train", "total"][0][0] == 1  # from its beginning
    qtbot.waitUntil(lambda: bool(again.preview._layers), timeout=LONG)
    shown = viewer.layers[f"preview of {run.name}"]
    before = shown.data
    qtbot.waitUntil(lambda: shown.data is not before, timeout=LONG)
    assert {layer.name: tuple(layer.translate) for layer in viewer.layers} == places


def test_fault_21_a_second_viewer_follows_the_training_of_a_closed_one(open_widget, qtbot, make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    widget = open_widget(viewer)
    run = start_run(widget, qtbot)
    qtbot.waitUntil(lambda: steps_seen(widget) > 2, timeout=LONG)
    widget.watch.stop()
    viewer.close()
    again = open_widget(make_napari_viewer(), name="")
    assert again.tabs.currentIndex() == RUNS
    follows(again, run, qtbot)


def follows(widget, run, qtbot):
    """The widget shows the run, and its curves, its progress and its prediction go on."""
    qtbot.waitUntil(lambda: widget.shown() == str(run.folder) and steps_seen(widget) > 0, timeout=LONG)
    steps, previews = steps_seen(widget), len(widget.preview.steps)
    qtbot.waitUntil(lambda: steps_seen(widget) > steps + 2 and len(widget.preview.steps) > previews, timeout=LONG)
    assert widget.run_panel.curves._series[run.name].columns["train", "total"][0][0] == 1  # from the beginning
    assert widget.run_panel.curves._series[run.name].columns["train", "total"][0][-1] > steps
    assert widget.run_panel._bar.value() == round(1000 * view(widget).done)
    qtbot.waitUntil(lambda: {layer.name for layer in widget._viewer.layers} == set(trio(run)), timeout=LONG)
    assert len(widget._viewer.layers) == 3
    assert (run.state, run.attempt) == ("running", 1)


NAPARI = """
import sys
from functools import partial
import napari
from qtpy.QtTest import QTest
from im2im_core.api import load_preset
from im2im_core.jobs import start
from im2im_core.project import Project
from napari_im2im._train_widget import TrainWidget
start.start_training = partial(start.start_training, command=(sys.executable, sys.argv[2]))
viewer = napari.Viewer(show=False)
widget = TrainWidget(viewer, Project(sys.argv[1]))
viewer.window.add_dock_widget(widget, name="Train")
widget.start_panel.setValue(load_preset("instance_seg_2d").override({"name": "long", "data.path": sys.argv[3]}))
widget.start_panel.start_button.click()
while not widget.preview.steps:
    QTest.qWait(50)
print(widget.shown(), flush=True)
while True:
    QTest.qWait(1000)
"""


def test_a_training_outlives_a_killed_napari_and_is_followed_by_a_new_one(open_widget, qtbot, project, data):
    program = [sys.executable, "-c", NAPARI, str(project.root), FAKE[1], str(data)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as napari:
        folder = napari.stdout.readline().strip()
        napari.send_signal(signal.SIGKILL)
    assert napari.returncode == -signal.SIGKILL
    widget = open_widget(name="")
    follows(widget, Run(folder), qtbot)
    widget.run_panel.button("stop").click()
    wait_state(widget, qtbot, "finished")


@pytest.fixture
def settings_come_late(monkeypatch):
    """As in a napari that has imported no settings."""
    for module in (_start_panel, _train_widget):
        monkeypatch.setattr(module, "SETTINGS", "not.imported.yet")


def test_settings_come_after_the_panel_was_drawn(
    settings_come_late, open_widget, make_napari_viewer, project, qtbot, monkeypatch
):
    write_json(project.root / MEMORY, {"recipe": load_preset("labelfree_2d").replace(name="before").dump()})
    looks = []
    monkeypatch.setattr(_train_widget.TrainWidget, "_look_around", lambda panel: looks.append(panel))
    widget = open_widget(make_napari_viewer(show=True), name="")
    assert not widget.start_panel.begun()
    assert looks == []  # threads would keep it from being drawn
    assert not widget.start_panel.isEnabled()  # a click now would be lost when they come
    widget._write_memory()  # as it does when the viewer is closed: what was shown last is not forgotten
    qtbot.waitUntil(widget.start_panel.begun, timeout=30_000)
    assert looks == [widget]
    assert widget.start_panel.value().name == "before"
    assert widget.start_panel.isEnabled()


def test_who_cannot_wait_for_the_settings_gets_them(settings_come_late, open_widget, data, qtbot):
    widget = open_widget(name="")
    widget.prepare(data, minutes=3)
    assert widget.start_panel.begun()
    widget._begin()  # those in the thread come too late
    qtbot.waitUntil(lambda: not widget.start_panel.filling(), timeout=LONG)
    assert widget.start_panel.value().training.minutes == 3


def test_memory_that_does_not_fit_is_left_out(open_widget, project):
    write_json(project.root / MEMORY, {"recipe": {"no": 1}, "shown": "/nowhere", "tab": RUNS})
    widget = open_widget(name="")
    assert widget.tabs.currentIndex() == NEW
    assert widget.start_panel.value().name == "instance_seg_2d"
    widget.start_panel.apply({"name": "mine"})
    widget._write_memory()
    assert read_json(project.root / MEMORY)["recipe"]["name"] == "mine"


# ---- cost ----------------------------------------------------------------------


TINY = {
    "data.path": "nuclei",
    "training.batch": 2,
    "training.device": "cpu",
    "data.patch": [32, 32],
    "network.features": [8, 8, 8, 16, 16, 8],
    "logging.every": 1,
}


@pytest.fixture
def true_widget(make_napari_viewer, project, qtbot):
    """The widget with nuclei to learn from; its trainings are real."""
    from im2im_core.microscope import write_dataset

    write_dataset(project.root / "nuclei", "instance_segmentation", count=3, shape=(64, 64), seed=1)
    viewer = make_napari_viewer()
    widget = TrainWidget(viewer, project)
    viewer.window.add_dock_widget(widget, name="Train")
    widget.ask_on_close = lambda names: "keep"
    yield widget
    for run in working(project):
        os.kill(run.status.pid, signal.SIGKILL)
    widget.planner.cancel()
    widget.watch.stop()
    pids = [run.status.pid for run in project.runs()]
    qtbot.waitUntil(lambda: not any(is_running(pid) for pid in pids), timeout=LONG)


def is_running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def finish(widget, qtbot):
    """Waits for the end of a real training."""
    qtbot.waitUntil(lambda: view(widget) is not None and view(widget).state in ("finished", "failed"), timeout=300_000)
    assert view(widget).state == "finished", (texts(widget), Run(widget.shown()).log.read_text())


@pytest.mark.slow
def test_a_run_started_in_napari_and_the_copied_command_give_identical_weights(true_widget, project, qtbot):
    import shlex

    from im2im_core.bundle import open_bundle

    widget = true_widget
    widget.start_panel.setValue(load_preset("instance_seg_2d").override({**TINY, "name": "tiny", "training.steps": 3}))
    qtbot.waitUntil(lambda: widget._planned is not None, timeout=300_000)
    copied = _train_widget.copies(widget.start_panel.value(), None, project, widget._planned)["command"]
    run = start_run(widget, qtbot)
    finish(widget, qtbot)
    assert widget.run_panel.curves._series[run.name].columns["train", "total"][0] == [1, 2, 3]
    of_run = shlex.split(_train_widget.copies(run.recipe, run, project)["command"])
    assert of_run == ["im2im", "train", "--plan", str(run.folder / "plan.yaml"), "--project", str(project.root)]
    words = shlex.split(copied)
    assert words[:3] == ["im2im", "train", "--plan"]
    program = [sys.executable, "-m", "im2im_core.cli", *words[1:]]
    done = subprocess.run(program, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    again = project.runs()[-1]
    assert again.name != run.name
    one, other = (open_bundle(r.model).load_weights() for r in (run, again))
    assert one.keys() == other.keys()
    assert all(np.array_equal(values.numpy(), other[name].numpy()) for name, values in one.items())


@pytest.mark.slow
def test_a_true_training_watches_a_region_of_the_user(true_widget, project, qtbot):
    from im2im_core.api import load_split
    from im2im_core.io import open_image

    widget = true_widget
    changes = {**TINY, "name": "tiny", "training.steps": 4000, "training.validate_every": 5}
    recipe = load_preset("instance_seg_2d").override({**changes, "data.rescale.kind": "object_size"})
    sample = load_split(recipe, project).train[0]
    path = Path(sample.source.info.identity.partition("|")[0])
    pixels = open_image(path).read()[0, 0, 0]
    widget._viewer.add_image(pixels, name=sample.name)
    shapes = widget._viewer.add_shapes([[[8, 8], [8, 55], [55, 55], [55, 8]]], shape_type="rectangle")
    widget._viewer.layers.selection = {shapes}
    widget.start_panel.setValue(recipe)
    run = start_run(widget, qtbot)
    qtbot.waitUntil(lambda: steps_seen(widget) > 0, timeout=300_000)
    widget.run_panel.watch_button.click()
    name = f"preview of region 1 of {run.name}"
    qtbot.waitUntil(lambda: name in widget._viewer.layers or bool(texts(widget)[1:]), timeout=300_000)
    assert name in widget._viewer.layers, (texts(widget), run.log.read_text())
    assert f"target of region 1 of {run.name}" in widget._viewer.layers
    assert widget._viewer.layers[f"target of region 1 of {run.name}"].data.any()
    widget.run_panel.button("stop").click()
    finish(widget, qtbot)


def test_usual_presets_have_the_first_cards_and_every_card_its_own_title(qtbot):
    cards = PresetCards(list_presets())
    qtbot.addWidget(cards)
    items = [cards._list.item(row) for row in range(cards._list.count())]
    names = [item.data(Qt.ItemDataRole.UserRole) for item in items]
    assert names[: 2 * len(USUAL)] == [f"{name}_{d}d" for d in (2, 3) for name in USUAL.values()]
    titles = [item.text() for item in items]
    assert len(set(titles)) == len(titles) == len(list_presets())
    assert titles[names.index("instance_seg_2d")] == "Objects 2D"
    assert titles[names.index("flows_3d")] == "flows 3D"
    assert [preset_of(load_preset(name)) for name in names] == names
