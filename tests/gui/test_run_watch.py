"""The watch: what is new in run folders reaches the main thread, and no error is lost."""

from __future__ import annotations

import threading
import time

import pytest
from qtpy.QtCore import QThread

from im2im_core.errors import DataError
from im2im_core.events import Failed, Finished, Losses, Progress, Validated
from im2im_core.jobs.eventlog import EventLog, EventTail, parse_line
from im2im_core.jobs.queue import device_key
from im2im_core.recipe import Recipe
from im2im_core.runs import Run
from napari_im2im._background import Background
from napari_im2im._run_watch import RunWatch, end_of_log
from napari_im2im._runs_table import RowCache, fraction, row_of, score_words

ERRORS = [RuntimeError("out of memory"), MemoryError("no room"), KeyboardInterrupt(), SystemExit(3), ValueError("odd")]


@pytest.fixture
def run(project):
    return Run.create(project, Recipe(name="nuclei"))


@pytest.fixture
def watch(qtbot):
    made = []

    def make(**kwargs):
        made.append(RunWatch(**kwargs))
        return made[-1]

    yield make
    for one in made:
        one.stop()
    qtbot.wait(50)


def write(run, *events):
    with EventLog(run, 1) as log:
        for event in events:
            log.append(event)


def loss(step):
    return Losses(step, 0.1, {"total": 1 / step}, 1e-3)


def test_history_comes_first_then_what_is_new(run, watch, qtbot):
    write(run, loss(10), loss(20))
    looking, got = watch(list_runs=list), []
    looking.seen.connect(lambda folder, seen: got.append((folder, [s.event.step for s in seen.events], seen.state)))
    looking.watch(str(run.folder))
    looking.start()
    qtbot.waitUntil(lambda: len(got) == 1, timeout=30_000)
    assert got[0] == (str(run.folder), [10, 20], "queued")
    write(run, loss(30))
    qtbot.waitUntil(lambda: len(got) == 2, timeout=30_000)
    assert got[1][1] == [30]


def test_signals_arrive_in_the_main_thread(run, watch, qtbot):
    write(run, loss(10))
    looking, threads = watch(), []
    looking.seen.connect(lambda *_: threads.append(QThread.currentThread()))
    looking.watch(str(run.folder))
    looking.start()
    qtbot.waitUntil(lambda: bool(threads), timeout=30_000)
    from qtpy.QtWidgets import QApplication

    assert threads[0] is QApplication.instance().thread()


def test_change_of_state_is_told_without_events(run, watch, qtbot):
    looking, states = watch(list_runs=list), []
    looking.seen.connect(lambda _, seen: states.append(seen.state))
    looking.watch(str(run.folder))
    looking.start()
    qtbot.waitUntil(lambda: states == ["queued"], timeout=30_000)
    run.set_state("finished")
    qtbot.waitUntil(lambda: states == ["queued", "finished"], timeout=30_000)


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_fault_24_errors_while_looking_are_told_and_it_goes_on(error, run, watch, qtbot, monkeypatch):
    calls, told, listed = [], [], []

    def list_runs():
        calls.append(1)
        if len(calls) == 1:
            raise error
        return [run]

    monkeypatch.setattr("napari_im2im._run_watch.AGAIN_MILLISECONDS", 20)
    looking = watch(list_runs=list_runs)
    looking.broken.connect(lambda text, cure: told.append(text))
    looking.listed.connect(listed.append)
    looking.start()
    qtbot.waitUntil(lambda: bool(told), timeout=30_000)
    qtbot.waitUntil(lambda: bool(listed), timeout=30_000)
    assert told[0].startswith("Looking at the runs failed")


@pytest.mark.parametrize(
    "error", [*ERRORS, DataError("a.tif is torn", "Copy it again")], ids=lambda e: type(e).__name__
)
def test_fault_24_errors_of_background_work_are_told(error, qtbot):
    background, told = Background(), []

    def work():
        raise error

    background.run("start", work, lambda _: told.append("done"), told.append)
    qtbot.waitUntil(lambda: bool(told), timeout=30_000)
    assert isinstance(told[0], type(error) if isinstance(error, Exception) else RuntimeError)


def test_a_run_that_cannot_be_read_does_not_hide_the_others(run, project, watch, qtbot):
    broken = Run.create(project, Recipe(name="broken"))
    looking, told, listed = watch(list_runs=lambda: [broken, run]), [], []
    (broken.folder / "run.json").write_text("{")
    looking.broken.connect(lambda text, cure: told.append(text))
    looking.listed.connect(listed.append)
    looking.start()
    qtbot.waitUntil(lambda: bool(listed), timeout=30_000)
    assert [row.name for row in listed[0]] == [run.name]
    assert "run.json" in told[0]
    looking.look()
    qtbot.wait(400)
    assert len(told) == 1  # a fault is told once


@pytest.mark.timing
def test_stop_ends_the_worker_within_a_second(run, watch, qtbot):
    looking = watch()
    looking.watch(str(run.folder))
    ended = threading.Event()
    looking.start()
    worker = looking._worker
    worker.finished.connect(ended.set)
    qtbot.wait(50)
    start = time.monotonic()
    looking.stop()
    qtbot.waitUntil(ended.is_set, timeout=30_000)
    assert time.monotonic() - start < 1.0
    assert not looking.running


def test_watching_does_not_hold_up_other_workers(watch, qtbot):
    from qtpy.QtCore import QThreadPool

    pool = QThreadPool.globalInstance()
    before = pool.activeThreadCount()
    looking = watch(list_runs=list)
    looking.start()
    qtbot.wait(100)
    assert pool.activeThreadCount() <= before
    looking.stop()
    qtbot.waitUntil(lambda: pool.activeThreadCount() == before, timeout=30_000)


def test_a_long_history_comes_in_parts_and_the_last_one_says_so(run, watch, qtbot, monkeypatch):
    monkeypatch.setattr("napari_im2im._run_watch.PART_BYTES", 2000)
    write(run, *(loss(step) for step in range(1, 101)))
    looking, got = watch(list_runs=list), []
    looking.seen.connect(lambda _, seen: got.append(([s.event.step for s in seen.events], seen.more)))
    looking.watch(str(run.folder))
    looking.start()
    qtbot.waitUntil(lambda: bool(got) and not got[-1][1], timeout=30_000)
    assert len(got) > 3
    assert [step for steps, _ in got for step in steps] == list(range(1, 101))
    assert all(more for _, more in got[:-1])


def test_a_line_longer_than_a_part_is_read_whole(run):
    write(run, loss(1), Failed("long", traceback="x" * 5000), loss(2))
    tail = EventTail(run)
    steps = []
    for _ in range(10):
        steps += tail.poll(300)
    assert [type(s.event).__name__ for s in steps] == ["Losses", "Failed", "Losses"]


def test_log_is_read_in_the_thread_when_it_is_wanted(run, watch, qtbot):
    run.log.write_text("begun\n")
    looking, got = watch(list_runs=list), []
    looking.logged.connect(lambda folder, text: got.append((folder, text)))
    looking.start()
    qtbot.wait(100)
    assert got == []
    looking.read_log(str(run.folder))
    qtbot.waitUntil(lambda: got == [(str(run.folder), "begun\n")], timeout=30_000)
    run.log.write_text("begun\ngoes on\n")
    qtbot.waitUntil(lambda: got[-1][1].endswith("goes on\n"), timeout=30_000)
    looking.read_log("")
    run.log.write_text("nobody reads this")
    qtbot.wait(500)
    assert len(got) == 2


# ---- rows ----------------------------------------------------------------------


def test_rows_are_read_again_only_where_files_changed(run, monkeypatch):
    calls = []
    monkeypatch.setattr("napari_im2im._runs_table.row_of", lambda run: calls.append(run) or row_of(run))
    write(run, loss(10))
    rows = RowCache()
    assert rows.row(run) == rows.row(Run(run.folder))
    assert len(calls) == 1
    write(run, Validated(20, 1, {"ap50": 0.25}, best=True))
    assert rows.row(run).best == "AP 0.25"
    run.set_state("finished")
    assert rows.row(run).state == "finished"
    assert [rows.row(run).state for _ in range(3)] == ["finished"] * 3
    assert len(calls) == 3


def test_a_run_whose_process_died_without_a_word_is_seen(run, monkeypatch):
    rows = RowCache()
    before = rows.row(run)
    assert (before.state, before.device) == ("queued", device_key("auto"))
    monkeypatch.setattr("im2im_core.runs._platform.is_alive", lambda *_: False)
    assert (rows.row(run).state, rows.row(run).device) == ("interrupted", "")


def test_a_log_is_read_backwards_until_all_is_known(run, monkeypatch):
    write(run, *(Progress("training", i, 300, 1.0) for i in range(1, 201)), *(loss(i) for i in range(1, 101)))
    write(run, Validated(200, 1, {"ap50": 0.5}, best=True), Progress("training", 201, 300, 1.0))
    parsed = []
    real = parse_line
    monkeypatch.setattr("napari_im2im._runs_table.parse_line", lambda line: parsed.append(line) or real(line))
    assert row_of(run).best == "AP 0.5"
    assert len(parsed) == 2


def test_row_tells_progress_and_best_from_the_end_of_the_log(run):
    assert row_of(run).done is None
    write(run, Validated(10, 1, {"total": 1.0, "ap50": 0.25}, best=True), Progress("training", 30, 120, 60.0, 180.0))
    write(run, Validated(20, 2, {"total": 2.0, "ap50": 0.2}, best=False), loss(30))
    row = row_of(run)
    assert (row.done, row.best, row.remaining, row.state) == (0.25, "AP 0.25", 180.0, "queued")
    write(run, Finished(120, "model", {"ap50": 0.913}, 240.0))
    run.set_state("finished")
    assert (row_of(run).done, row_of(run).best) == (1.0, "AP 0.913")


def test_part_done_of_a_budget_in_minutes_counts_time():
    assert fraction(Progress("training", 77, None, 90.0, 30.0)) == 0.75
    assert fraction(Progress("training", 77, None, 0.0)) is None


def test_scores_have_names_and_units():
    assert score_words({"total": 0.4, "dice": 0.87654}) == "Dice 0.877"
    assert score_words({"psnr": 31.27, "ssim": 0.9}) == "PSNR 31.3 dB"
    assert score_words({"total": 0.4}) == ""
    better = score_words({"ap50": 0.91}, {"ap50": 0.743}, "the kept strip")
    assert better == "AP 0.91 on the kept strip (was 0.743)"


def test_end_of_log_bears_anything(run):
    assert end_of_log(str(run.folder)) == ""
    run.log.write_bytes(b"x" * 10_000 + b"\xff\nFatal Python error: Segmentation fault\n")
    assert end_of_log(str(run.folder)).endswith("Segmentation fault\n")
    assert len(end_of_log(str(run.folder))) <= 4000
