"""Processes: detached trainings with fake engines, the queue, signals, and the attached worker."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from im2im_core.errors import ConfigError, DataError, ResourceError, Stopped
from im2im_core.events import CommandDone, Failed, Finished, Losses, Message, Paused, Progress
from im2im_core.jobs import _platform, attached, messages
from im2im_core.jobs.attached import AttachedJob
from im2im_core.jobs.child import run_attempt
from im2im_core.jobs.commands import send_command
from im2im_core.jobs.eventlog import merge_steps, read_events
from im2im_core.jobs.explain import error_of, explain
from im2im_core.jobs.queue import DeviceQueue, device_key
from im2im_core.jobs.signals import StopFlag
from im2im_core.jobs.start import environment, resume_training, start_training
from im2im_core.jobs.watch import Watcher
from im2im_core.project import Project
from im2im_core.recipe import Recipe
from im2im_core.runs import Run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")

CHILD = """
import os, sys, time
from im2im_core.errors import DataError
from im2im_core.events import CommandDone, Finished, Losses, Paused
from im2im_core.jobs.child import main
from im2im_core.jobs.commands import CommandInbox

def train(run, on_event, should_stop):
    mode, last = run.recipe.name, run.folder / "checkpoints" / "step.txt"
    step = int(last.read_text()) if last.exists() else 0
    inbox = CommandInbox(run, run.attempt)
    if mode == "quick": return on_event(Finished(1))
    if mode == "data": raise DataError("a.tif is torn", "Copy it again")
    if mode == "memory": raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
    if mode == "bug": raise ZeroDivisionError("oh")
    if mode == "exit": raise SystemExit(3)
    if mode == "hungry":
        import numpy, resource
        resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32))
        numpy.ones(1 << 30)
    while step < 2000:
        step += 1
        on_event(Losses(step, 0.0, {"total": 1 / step}, 1e-3))
        last.with_suffix(".part").write_text(str(step))
        last.with_suffix(".part").replace(last)
        time.sleep(0.02)
        for command in inbox.poll():
            on_event(CommandDone(command.number, command.verb))
            if command.verb == "pause": return on_event(Paused(step))
        if should_stop(): return
sys.exit(main(train=train))
"""
WORKER = """
import ctypes, os, sys, time
from im2im_core.errors import DataError, Stopped
from im2im_core.events import Progress
from im2im_core.jobs.verbs import ping
from im2im_core.jobs.worker import main

def double(arguments, on_event, should_stop):
    print("library chatter")
    on_event(Progress("doubling", 1, 1, float("nan")))
    return {"image": arguments["image"] * 2}
def slow(arguments, on_event, should_stop):
    on_event(Progress("working", 0, None, 0.0))
    while not should_stop(): time.sleep(0.01)
    raise Stopped("asked")
def stubborn(arguments, on_event, should_stop):
    on_event(Progress("working", 0, None, 0.0))
    time.sleep(60)
def data(arguments, on_event, should_stop): raise DataError("a.tif is torn", "Copy it again")
def segfault(arguments, on_event, should_stop): ctypes.string_at(0)
def killed(arguments, on_event, should_stop): os.kill(os.getpid(), 9)
sys.exit(main(verbs={f.__name__: f for f in (ping, double, slow, stubborn, data, segfault, killed)}))
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("IM2IM_HOME", str(tmp_path / "home"))
    return Project.create(tmp_path / "project")


@pytest.fixture
def child(tmp_path):
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    return (sys.executable, str(script))


@pytest.fixture
def worker(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    return (sys.executable, str(script))


@pytest.fixture
def make(project):
    made = []

    def make_run(mode="long", name=None):
        made.append(Run.create(project, Recipe(name=mode).override({"training.device": "cpu"}), name))
        return made[-1]

    yield make_run
    for run in made:
        if run.status.attempt and run.status.pid != os.getpid() and run.state in ("queued", "running"):
            os.kill(run.status.pid, signal.SIGKILL)


def until(condition, seconds=60.0):
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.02)
    return found


def steps(run):
    return [s.event.step for s in merge_steps(read_events(run))]


def ended(run):
    return until(lambda: run.state if run.state not in ("queued", "running") else None)


# ---- one training ----


def test_training_runs_detached_and_finishes(make, child):
    run = make("quick")
    pid = start_training(run, command=child)
    assert pid != os.getpid()
    assert ended(run) == "finished"


def test_fault_01_kill_9_is_interrupted_and_attempt_2_goes_on(make, child):
    run = make()
    pid = start_training(run, command=child)
    assert os.getsid(pid) == pid
    until(lambda: len(steps(run)) > 3)
    with pytest.raises(ResourceError, match=str(pid)):
        start_training(run, command=child)
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: run.state != "running" and run.state) == "interrupted"
    before = steps(run)
    resume_training(run, command=child)
    until(lambda: steps(run)[-1] > before[-1] + 3)
    assert run.attempt == 2
    assert steps(run) == list(range(1, len(steps(run)) + 1))
    history = [s for seen in [Watcher(run).poll()] for s in seen.events]
    assert {s.attempt for s in history} == {1, 2}
    assert [s.seq for s in history] == list(range(1, len(history) + 1))


def test_fault_21_detached_training_survives_its_parent(make, child):
    run = make()
    code = (
        "import sys\nfrom im2im_core.runs import Run\nfrom im2im_core.jobs.start import start_training\n"
        "print(start_training(Run(sys.argv[1]), command=sys.argv[2:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run.folder), *child], capture_output=True, timeout=60, check=True
    )
    assert run.status.pid == int(done.stdout)
    count = len(steps(run))
    until(lambda: len(steps(run)) > count + 3)
    assert run.state == "running"


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 143)])
def test_fault_40_41_a_signal_ends_the_process_at_a_step_boundary(make, child, name, code):
    run = make()
    with subprocess.Popen([*child, "train", str(run.folder)]) as process:
        until(lambda: steps(run))
        process.send_signal(getattr(signal, name))
        assert process.wait(30) == code
    assert run.state == "stopped"
    assert steps(run)[-1] == int((run.checkpoints / "step.txt").read_text())


def test_pause_command_is_answered(make, child):
    run = make()
    start_training(run, command=child)
    until(lambda: steps(run))
    number = send_command(run, "pause")
    assert ended(run) == "paused"
    assert CommandDone(number, "pause") in [s.event for s in read_events(run)]


@pytest.mark.parametrize(
    ("mode", "code", "text"),
    [
        ("data", 3, "a.tif is torn"),
        ("memory", 4, "memory"),
        ("bug", 1, "ZeroDivisionError: oh"),
        ("exit", 1, "SystemExit"),
    ],
)
def test_fault_24_errors_become_an_event_a_state_and_an_exit_code(make, child, mode, code, text):
    run = make(mode)
    done = subprocess.run([*child, "train", str(run.folder)], capture_output=True, check=False, timeout=60)
    failed = read_events(run)[-1].event
    assert (done.returncode, run.state) == (code, "failed")
    assert isinstance(failed, Failed)
    assert text in failed.message
    assert failed.exit_code == code
    assert text in run.status.message
    assert "Traceback" in run.log.read_text()
    assert b"Traceback" not in done.stderr


def test_start_that_cannot_work_says_why(make, tmp_path):
    script = tmp_path / "broken.py"
    script.write_text("raise RuntimeError('no such luck')")
    with pytest.raises(ResourceError, match="no such luck"):
        start_training(make(), command=(sys.executable, str(script)))


def test_finished_runs_are_not_resumed(make):
    run = make()
    run.set_state("finished")
    with pytest.raises(ConfigError, match="is finished"):
        resume_training(run)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_fault_05_a_log_on_a_full_disk_does_not_change_how_a_run_ends(make, capsys):
    run = make()
    run.log.symlink_to("/dev/full")

    def train(run, on_event, should_stop):
        logging.getLogger("some.library").warning("x" * 100_000)
        raise ResourceError("The disk is full", "Make room")

    assert run_attempt(run, train=train) == 4
    assert run.state == "failed"
    assert "Traceback" not in capsys.readouterr().err


def test_fault_27_a_training_that_outgrows_its_memory_says_so(make, child):
    """The system refuses memory beyond 4 GB."""
    run = make("hungry")
    start_training(run, command=child)
    assert ended(run) == "failed"
    failed = read_events(run)[-1].event
    assert (failed.message, failed.exit_code) == ("The memory does not suffice", 4)
    assert "MemoryError" in run.log.read_text()


@pytest.mark.parametrize("name", ["пробел ü 画像 #1", "50% done; rm -rf", "new\nline", "x" * 200])
def test_fault_39_odd_folder_names(make, child, name):
    run = make("quick", name)
    start_training(run, command=child)
    assert ended(run) == "finished"


def test_threads_of_the_plan_reach_the_process(make):
    run = make()
    run.write_plan({"runtime": {"threads": 3, "device": "cpu"}})
    assert environment(run)["OMP_NUM_THREADS"] == "3"


def test_attempt_in_this_process_and_off_the_main_thread(make):
    run, codes = make(), []

    def train(run, on_event, should_stop):
        on_event(Losses(1, 0.0, {"total": 1.0}, 1e-3))
        raise KeyboardInterrupt

    thread = threading.Thread(target=lambda: codes.append(run_attempt(run, train=train)))
    thread.start()
    thread.join(20)
    assert (codes, run.state, steps(run)) == ([130], "stopped", [1])


def test_a_training_is_finished_only_when_it_said_so(make):
    said = {"finished": Finished(3, "model"), "paused": Paused(2), "stopped": CommandDone(1, "abort")}
    for state, event in said.items():
        run = make()
        assert run_attempt(run, train=lambda run, on_event, should_stop, event=event: on_event(event)) == 0
        assert run.state == state


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (OSError(28, "No space left on device", "a.tif"), 4, "The disk is full for a.tif"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 4, "memory"),
        (RuntimeError("CUDA out of memory"), 4, "memory"),
        (MemoryError(), 4, "memory"),
        (DataError("a.tif is torn"), 3, "a.tif is torn"),
        (ZeroDivisionError("oh"), 1, "ZeroDivisionError: oh"),
    ],
)
def test_every_exception_has_a_sentence_and_an_exit_code(error, code, text):
    failed = explain(error)
    again = error_of(failed)
    assert (failed.exit_code, again.exit_code) == (code, code)
    assert text in failed.message
    assert str(again).startswith(failed.message)
    assert (type(again) is DataError) == (code == 3)


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
@pytest.mark.parametrize(("devices", "attempts"), [(2, 0), (1, 1)])
def test_only_followers_of_one_training_leave_its_run_alone(project, monkeypatch, variable, devices, attempts):
    """Processes that a cluster starts together, of one device each, are trainings of their own."""
    recipe = Recipe(name="several").override({"training.device": "cpu", "training.devices": devices})
    run, calls = Run.create(project, recipe), []
    monkeypatch.setenv(variable, "1")
    assert run_attempt(run, train=lambda run, on_event, should_stop: calls.append(run)) == 0
    assert (calls, run.attempt) == ([run], attempts)


# ---- signals ----


def test_fault_40_second_ctrl_c_interrupts_at_once_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    with StopFlag() as outer, StopFlag() as stop:
        signal.raise_signal(signal.SIGINT)
        assert (stop(), stop.reason, stop.exit_code, outer.exit_code) == (True, "SIGINT", 130, 130)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


# ---- queue ----


def test_fault_26_two_trainings_queue_first_come_first_served(make, child):
    first, second, third = make(), make(), make()
    for run in (first, second, third):
        start_training(run, command=child)
        until(lambda run=run: read_events(run))
    assert [r.state for r in (first, second, third)] == ["running", "queued", "queued"]
    waiting = [s.event for s in read_events(third)]
    assert isinstance(waiting[0], Message)
    assert "2 trainings are before" in waiting[0].text
    number = send_command(second, "stop")
    assert ended(second) == "stopped"
    assert CommandDone(number, "stop", "before the training began") in [s.event for s in read_events(second)]
    os.kill(first.status.pid, signal.SIGKILL)  # the dead leave no lock and no ticket
    until(lambda: third.state == "running")
    assert not steps(second)


def test_fault_26_queue_ignores_dead_tickets_and_can_be_left(tmp_path):
    one, two = DeviceQueue("cpu", tmp_path), DeviceQueue("cpu", tmp_path)
    with one:
        folder = next((tmp_path / "queue").iterdir())
        (folder / "00000000000000000001-999999999-1.00.ticket").touch()
        assert one.wait(lambda: False, lambda place: None)
        places = []
        with two:
            assert two.ahead() == 1
            assert not two.wait(lambda: bool(places), places.append)
            assert places == [1]
    assert list(folder.glob("*.ticket")) == []


def test_devices_are_known_by_what_they_are(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device_key("cuda") == device_key("cuda:0") == "cuda-0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert (device_key("cuda:1"), device_key("cpu")) == ("cuda-3", "cpu")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert device_key("cpu") == "slurm-7-cpu"


# ---- attached ----


def test_attached_job_doubles_an_array_and_reports(worker):
    events = []
    with AttachedJob(events.append, command=worker) as job:
        image = np.arange(12, dtype=">u2").reshape(3, 4)
        result = job.submit("double", {"image": image}).result(60)
        assert np.array_equal(result["image"], image * 2)
        scratch = job._worker.scratch
        empty = job.submit("ping", {"a": np.zeros((0, 3)), "b": [1, {"c": None}]}).result(60)
        assert empty["a"].shape == (0, 3)
        assert empty["b"] == [1, {"c": None}]
    assert isinstance(events[0], Progress)
    assert np.isnan(events[0].elapsed)
    assert not scratch.exists()
    with pytest.raises(Stopped):
        job.submit("ping", {})


@pytest.mark.timing
def test_fault_25_cancel_is_answered_within_a_second(worker):
    events = []
    with AttachedJob(events.append, command=worker) as job:
        future = job.submit("slow", {})
        until(lambda: events)
        begin = time.monotonic()
        job.cancel()
        with pytest.raises(Stopped):
            future.result(5)
        assert time.monotonic() - begin < attached.CANCEL_SECONDS / 2
        assert any(isinstance(e, CommandDone) for e in events)
        pid = job.pid
        assert job.submit("ping", {"a": 1}).result(60) == {"a": 1}
        assert job.pid == pid


@pytest.mark.timing
def test_fault_25_cancel_does_not_wait_for_pixels_that_are_handed_over(worker, monkeypatch):
    monkeypatch.setattr(messages, "COPIED_BYTES", 2**20)
    large = np.broadcast_to(np.uint8(7), (64, 1024, 1024))
    begun, go = threading.Event(), threading.Event()
    moveaxis = np.moveaxis

    def slow(*given):
        begun.set()
        assert go.wait(60)
        return moveaxis(*given)

    monkeypatch.setattr(messages.np, "moveaxis", slow)
    with AttachedJob(lambda event: None, command=worker) as job:
        found = []
        handing = threading.Thread(target=lambda: found.append(job.submit("ping", {"image": large})))
        handing.start()
        assert begun.wait(60)
        begin = time.monotonic()
        job.cancel()
        assert time.monotonic() - begin < 0.1
        go.set()
        handing.join(60)
        with pytest.raises(Stopped):
            found[0].result(5)
        assert not list(job._worker.scratch.glob("*.npy"))
        assert job.submit("ping", {"a": 1}).result(60) == {"a": 1}


@pytest.mark.timing
def test_fault_25_cancel_does_not_wait_for_a_process_that_starts(worker, monkeypatch):
    begun, go = threading.Event(), threading.Event()
    start = attached._platform.start_attached

    def slow(*given):
        begun.set()
        assert go.wait(60)
        return start(*given)

    monkeypatch.setattr(attached._platform, "start_attached", slow)
    with AttachedJob(lambda event: None, command=worker) as job:
        found = []
        handing = threading.Thread(target=lambda: found.append(job.submit("ping", {})))
        handing.start()
        assert begun.wait(60)
        begin = time.monotonic()
        job.cancel()
        assert job.pid is None
        assert time.monotonic() - begin < 0.1
        go.set()
        handing.join(60)
        with pytest.raises(Stopped):
            found[0].result(5)


def test_fault_25_a_job_that_does_not_listen_is_killed(worker, monkeypatch):
    monkeypatch.setattr(attached, "CANCEL_SECONDS", 1.0)
    events = []
    with AttachedJob(events.append, command=worker) as job:
        future, queued = job.submit("stubborn", {}), job.submit("ping", {})
        until(lambda: events)
        job.cancel()
        for waiting in (future, queued):
            with pytest.raises(Stopped):
                waiting.result(5)
        assert sum(isinstance(e, CommandDone) for e in events) == 2
        assert job.submit("ping", {"b": 2}).result(60) == {"b": 2}


@pytest.mark.parametrize(("verb", "number"), [("killed", 9), ("segfault", 11)])
def test_fault_27_a_killed_process_is_an_error_and_the_next_job_works(worker, verb, number):
    events = []
    with AttachedJob(events.append, command=worker) as job:
        with pytest.raises(ResourceError, match=f"killed by signal {number}, probably out of memory"):
            job.submit(verb, {}).result(60)
        assert [type(e) for e in events] == [Failed]
        assert job.submit("ping", {"a": 1}).result(60) == {"a": 1}


def test_errors_of_a_job_keep_their_kind(worker):
    events = []
    with AttachedJob(events.append, command=worker) as job:
        with pytest.raises(DataError, match=r"a\.tif is torn\. Copy it again"):
            job.submit("data", {}).result(60)
        with pytest.raises(ConfigError, match="Did you mean 'ping'"):
            job.submit("pingg", {}).result(60)
    assert [e.exit_code for e in events] == [3, 2]


def test_fault_21_attached_process_ends_with_its_parent(worker, tmp_path):
    code = (
        "import os, sys, time\nfrom im2im_core.jobs.attached import AttachedJob\n"
        "ready = []\njob = AttachedJob(ready.append, command=sys.argv[1:])\njob.submit('stubborn', {})\n"
        "while not ready: time.sleep(0.01)\nprint(job.pid, job._worker.scratch, flush=True)\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, *worker], capture_output=True, check=False, timeout=60)
    pid, scratch = done.stdout.decode().split(maxsplit=1)
    until(lambda: not os.path.exists(scratch.strip()) and _platform.birth(int(pid)) is None)


@pytest.mark.timing
def test_fault_21_close_while_busy_ends_everything(worker):
    events = []
    job = AttachedJob(events.append, command=worker)
    future = job.submit("slow", {})
    until(lambda: events)
    begin = time.monotonic()
    job.close()
    assert time.monotonic() - begin < 5
    with pytest.raises(Stopped):
        future.result(1)


def test_fault_06_scratch_arrays_are_reserved_before_they_are_mapped(tmp_path, monkeypatch):
    array = messages.create_array(tmp_path / "a.npy", (3, 1000), "f4")
    assert os.stat(tmp_path / "a.npy").st_blocks * 512 >= array.nbytes
    array[...] = 7
    del array
    assert np.load(tmp_path / "a.npy", allow_pickle=False).sum() == 21000

    def full(handle, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(messages, "reserve", full)
    with pytest.raises(ResourceError, match=r"No space left.*It needs 4 MB"):
        messages.create_array(tmp_path / "b.npy", (1000, 1000), "f4")
    assert not (tmp_path / "b.npy").exists()


def test_fault_30_objects_are_never_pickled(tmp_path):
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        messages.pack(np.array([object()]), tmp_path)
