"""The run folder: states, ownership, events, commands."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from im2im_core import runs as runs_module
from im2im_core.errors import ConfigError, DataError, ResourceError
from im2im_core.events import KINDS, Failed, Losses, Message, Started, TileDone, Validated
from im2im_core.image import ArrayImage
from im2im_core.jobs import _platform
from im2im_core.jobs.commands import CommandInbox, send_command
from im2im_core.jobs.environment import read_data, write_environment
from im2im_core.jobs.eventlog import EventLog, EventTail, Stamped, decode_event, encode_event, merge_steps, read_events
from im2im_core.jobs.inputs import describe_inputs, recorded_split
from im2im_core.jobs.watch import Watcher
from im2im_core.project import Project
from im2im_core.recipe import Recipe
from im2im_core.runs import Run
from im2im_core.samples import TARGET, Sample, Split

ROOT = Path("/home/her/project")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("IM2IM_HOME", str(tmp_path / "home"))
    return Project.create(tmp_path / "project")


@pytest.fixture
def run(project):
    return Run.create(project, Recipe(), "run")


def losses(step: int, value: float = 1.0) -> Losses:
    return Losses(step, step / 100, {"total": value}, 1e-3)


# ---- folder and state ----


def test_new_run_is_queued_complete_and_reads_back(project):
    recipe = Recipe(name="nuclei")
    run = Run.create(project, recipe)
    assert run.state == "queued"
    assert Run(run.folder).recipe == recipe
    assert {p.name for p in run.folder.iterdir()} >= {"recipe.yaml", "run.json", "commands", "checkpoints", "model"}
    assert run.attempt == 0
    assert run.plan == {}
    run.write_plan({"runtime": {"threads": 2}})
    assert run.plan == {"runtime": {"threads": 2}}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../x", "'/' is not allowed"),
        ("a/b", "'/' is not allowed"),
        ("a\\b", "is not allowed"),
        ("/tmp/x", "'/' is not allowed"),
        ("C:x", "':' is not allowed"),
        ("a\0b", "is not allowed"),
        ("..", "cannot be called"),
        ("", "cannot be called"),
        ("CON", "Windows"),
        ("nul.txt", "Windows"),
        ("lpt1", "Windows"),
        ("nuclei.", "Windows"),
        ("nuclei ", "Windows"),
    ],
)
def test_fault_39_a_name_that_leads_elsewhere_is_refused_with_a_cure(project, name, why):
    with pytest.raises(ConfigError, match=rf"{why}.*Use letters"):
        Run.create(project, Recipe(), name)
    assert project.runs() == []
    assert list(project.root.glob("*")) == [project.root / "im2im.yaml"]


@pytest.mark.parametrize("name", ["пробел ü 画像 #1", "50% done", "console", "com10", ".hidden", "a.b"])
def test_fault_39_odd_names_are_names(project, name):
    Run.create(project, Recipe(), name)
    assert [r.name for r in project.runs()] == [name]


def test_only_a_finished_run_cannot_be_resumed(run):
    run.require_unfinished()
    run.set_state("finished")
    with pytest.raises(ConfigError, match="Run run is finished"):
        run.require_unfinished()


def test_folder_without_run_json_is_no_run(tmp_path):
    with pytest.raises(DataError, match=r"no run\.json"):
        Run(tmp_path)


def test_broken_run_json_is_named(run):
    (run.folder / "run.json").write_text("{")
    with pytest.raises(DataError, match=r"Cannot read .*run\.json"):
        _ = run.state


def test_state_of_a_dead_owner_is_interrupted_but_final_states_stay(run):
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    content = json.loads((run.folder / "run.json").read_text())
    content |= {"state": "running", "pid": int(child.stdout)}
    (run.folder / "run.json").write_text(json.dumps(content))
    assert run.state == "interrupted"
    (run.folder / "run.json").write_text(json.dumps(content | {"state": "paused"}))
    assert run.state == "paused"


def test_recycled_process_number_is_not_the_owner(run):
    content = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps(content | {"started": content["started"] - 50}))
    assert run.state == "interrupted"


def test_other_host_is_judged_by_its_heartbeat_and_our_clock(run, monkeypatch):
    content = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps(content | {"state": "running", "host": "elsewhere", "pid": 1}))
    now = [1000.0]
    monkeypatch.setattr(runs_module.time, "monotonic", lambda: now[0])
    assert run.state == "running"
    now[0] += 59
    assert run.state == "running"
    os.utime(run.folder / "run.json", ns=(1, 1))  # their clock may be anything: only the change counts
    assert run.state == "running"
    now[0] += 59
    assert run.state == "running"
    now[0] += 2
    assert run.state == "interrupted"


def test_beat_touches_run_json_at_most_every_five_seconds(run, monkeypatch):
    now, file = [1000.0], run.folder / "run.json"
    monkeypatch.setattr(runs_module.time, "monotonic", lambda: now[0])
    beats = []
    for step in (0, 1, 3, 2, 4):
        now[0] += step
        os.utime(file, ns=(1, 1))
        run.beat()
        beats.append(file.stat().st_mtime_ns != 1)
    assert beats == [True, False, False, True, False]


def test_fault_07_read_only_folder_is_refused_before_the_start(project, monkeypatch):
    real = runs_module.os.fsync

    def refuse(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs_module.os, "fsync", refuse)
    with pytest.raises(ResourceError, match="No space left") as caught:
        Run.create(project, Recipe(), "full")
    assert caught.value.exit_code == 4
    monkeypatch.setattr(runs_module.os, "fsync", real)
    assert not (project.root / "runs" / "full" / "run.json").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to drop rights")
def test_fault_07_read_only_folder_real_permissions(run):
    run.folder.chmod(0o555)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom im2im_core.runs import probe\n"
        "from im2im_core.errors import ResourceError\nos.chdir(sys.argv[1])\nos.setuid(65534)\n"
        "try: probe(Path())\nexcept ResourceError as error: sys.exit(error.exit_code)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run.folder)], capture_output=True, check=False)
    run.folder.chmod(0o755)
    assert done.returncode == 4, done.stderr


# ---- ownership ----


def test_claim_counts_attempts_and_refuses_a_second_owner(run):
    with run.claim() as first, pytest.raises(ResourceError, match=f"process {os.getpid()}"), Run(run.folder).claim():
        pass
    with run.claim() as second:
        assert (first, second, run.attempt) == (1, 2, 2)


def test_fault_26_other_process_is_refused_and_a_stale_lock_recovered(run):
    code = (
        "import sys, time\nfrom im2im_core.runs import Run\n"
        "with Run(sys.argv[1]).claim(): print('mine', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(run.folder)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"mine"
        with pytest.raises(ResourceError, match=f"process {other.pid} on"), run.claim():
            pass
        other.kill()
    assert run.state == "interrupted"
    with run.claim() as attempt:
        assert attempt == 2
        assert run.status.pid == os.getpid()


def test_fault_02_claim_removes_half_written_files_of_the_dead(run):
    parts = [folder / ".state.ckpt.999999999.part" for folder in (run.folder, run.checkpoints, run.previews)]
    for part in parts:
        part.write_bytes(b"half")
    with run.claim():
        assert not any(part.exists() for part in parts)


def test_file_lock_is_free_after_release(tmp_path):
    one, two = _platform.FileLock(tmp_path / "l"), _platform.FileLock(tmp_path / "l")
    assert (one.acquire(), two.acquire()) == (True, False)
    two.release()
    assert not two.acquire()
    one.release()
    assert two.acquire()
    two.release()


# ---- events ----


def test_events_keep_order_numbers_tuples_and_odd_floats(run):
    sent = [
        Started(10, None, "cpu", 5),
        losses(1, math.nan),
        Validated(2, 0.1, {"dice": math.inf, "iou": -math.inf}),
        TileDone("labels", (0, 0, 0, 1, 2), (1, 1, 1, 3, 4)),
        Message("nan", cure="画像\n"),
    ]
    with EventLog(run, 1) as log:
        for event in sent:
            log.append(event)
    found = read_events(run)
    assert [s.seq for s in found] == [1, 2, 3, 4, 5]
    assert math.isnan(found[1].event.values["total"])
    assert [s.event for s in found if s.seq != 2] == [sent[0], *sent[2:]]
    assert [s.seq for s in read_events(run, after=3)] == [4, 5]
    for line in run.events.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_every_kind_of_event_survives_the_round_trip():
    samples = {
        "int": 3,
        "float": 0.5,
        "str": "a",
        "bool": True,
        "dict[str, float]": {"a": 1.5},
        "tuple[int, ...]": (1, 2),
        "dict[str, Any]": {"a": [1]},
    }
    assert len(KINDS) > 10
    for kind in KINDS.values():
        event = kind(**{n: samples[str(f.type).split(" |")[0]] for n, f in kind.__dataclass_fields__.items()})
        assert decode_event(json.loads(json.dumps(encode_event(event)))) == event


def test_torn_line_is_ignored_and_the_next_attempt_starts_a_new_one(run):
    with EventLog(run, 1) as log:
        log.append(losses(1))
        log.append(losses(2))
    whole = run.events.read_bytes()
    for cut in range(1, len(whole.splitlines()[1]) + 1):
        run.events.write_bytes(whole[:-cut])
        assert [s.seq for s in read_events(run)] == [1]
        with EventLog(run, 2) as log:
            log.append(losses(9))
        assert [s.event.step for s in read_events(run)][-1] == 9
        assert read_events(run)[0].event.step == 1


def test_tail_gives_each_event_once_and_waits_for_the_end_of_a_line(run):
    tail = EventTail(run)
    assert tail.poll() == []
    with EventLog(run, 1) as log:
        log.append(losses(1))
        assert [s.event.step for s in tail.poll()] == [1]
        assert tail.poll() == []
        log.append(losses(2))
    whole = run.events.read_bytes()
    run.events.write_bytes(whole[:-3])
    assert tail.poll() == []
    run.events.write_bytes(whole)
    assert [s.event.step for s in tail.poll()] == [2]


def test_unknown_and_broken_lines_are_left_out(run):
    run.events.write_text(
        '{"event": "FromTheFuture", "seq": 1, "attempt": 1, "time": 0}\n[]\nnull\n{"event": "Losses"}\n'
    )
    with EventLog(run, 1) as log:
        log.append(losses(5))
    assert [s.event.step for s in read_events(run)] == [5]


def test_later_attempt_hides_what_it_did_again():
    def stamped(seq, attempt, step):
        return Stamped(seq, attempt, 0.0, losses(step, attempt))

    one = [stamped(i, 1, s) for i, s in enumerate((10, 20, 30, 40))]
    two = [stamped(10 + i, 2, s) for i, s in enumerate((30, 40, 50))]
    three = [stamped(20 + i, 3, s) for i, s in enumerate((20, 30))]
    steps = [(s.attempt, s.event.step) for s in merge_steps([*one, *two, *three])]
    assert steps == [(1, 10), (3, 20), (3, 30)]
    assert [(s.attempt, s.event.step) for s in merge_steps([*one, *two])] == [
        (1, 10),
        (1, 20),
        (2, 30),
        (2, 40),
        (2, 50),
    ]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_fault_05_full_disk_is_an_error_with_a_cure(run):
    with EventLog(run, 1) as log, open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), log._handle)
        with pytest.raises(ResourceError, match="No space left"):
            log.append(losses(1))


def test_environment_names_versions_without_importing_them(run):
    write_environment(run, "cpu", {"training": 3}, {"a.tif": "ab"})
    content = json.loads((run.folder / "environment.json").read_text())
    assert content["versions"]["numpy"]
    assert content["versions"]["torch"]
    assert (content["seeds"], content["data"], content["device"]) == ({"training": 3}, {"a.tif": "ab"}, "cpu")


# ---- what it learns from ----


def inputs_of(*samples):
    split = Split(samples[:1], samples[1:])
    return json.loads(json.dumps(describe_inputs(samples, split, ROOT)))


def input_of(name, state="1", weight=True):
    def image(role):
        return ArrayImage(np.zeros((4, 4)), "YX", identity=f"{ROOT}/data/{name}-{role}|{state}")

    return Sample(name, name, image("IM"), {TARGET: image("GT")}, image("CM") if weight else None)


def test_images_that_are_as_they_were_need_no_warning(run):
    data = inputs_of(input_of("a"), input_of("b"))
    write_environment(run, data=data)
    split, warning = recorded_split(read_data(run), (input_of("a"), input_of("b")), ROOT)
    assert warning is None
    assert ([s.name for s in split.train], [s.name for s in split.validation]) == (["a"], ["b"])
    assert str(ROOT) not in json.dumps(data)  # a project that was moved is the same project


@pytest.mark.parametrize(
    ("now", "text"),
    [
        ((input_of("a", "2"), input_of("b")), r"3 changed: a \(image\), a \(target\), a \(weight\)"),
        ((input_of("a"), input_of("b", weight=False)), r"1 changed: b \(weight\)"),
        ((input_of("a"), input_of("b"), input_of("c")), "1 new and not used: c"),
        ((input_of("a"),), "1 gone: b"),
        (
            (input_of("a"), *(input_of(f"{n}") for n in range(7))),
            "7 new and not used: 0, 1, 2, 3, 4 and 2 more",
        ),
    ],
)
def test_a_warning_names_what_changed_is_new_or_gone(now, text):
    split, warning = recorded_split(inputs_of(input_of("a"), input_of("b")), now, ROOT)
    assert {s.name for s in (*split.train, *split.validation)} <= {"a", "b"}
    assert (warning.level, warning.code) == ("warning", "data_changed")
    assert re.search(text, warning.text)


def test_without_a_record_there_is_no_split(run):
    assert read_data(run) == {}
    write_environment(run, data={"train/a": "identity"})  # as it was written once
    assert recorded_split(read_data(run), (input_of("a"),), ROOT) is None
    (run.folder / "environment.json").write_text("{")
    assert read_data(run) == {}


# ---- commands ----


def test_commands_arrive_once_in_order_and_only_at_their_attempt(run):
    with run.claim() as attempt:
        inbox = CommandInbox(run, attempt)
        numbers = [send_command(run, "preview", region=[1, 2]), send_command(run, "pause")]
        assert numbers == [1, 2]
        found = inbox.poll()
        assert [(c.number, c.verb, c.arguments) for c in found] == [
            (1, "preview", {"region": [1, 2]}),
            (2, "pause", {}),
        ]
        assert inbox.poll() == []
        assert CommandInbox(run, attempt + 1).poll() == []


def test_command_before_the_first_process_reaches_it(run):
    send_command(run, "stop")
    assert [c.verb for c in CommandInbox(run, 1).poll()] == ["stop"]


def test_commands_that_cannot_work_are_refused(run):
    with pytest.raises(ConfigError, match="Did you mean 'pause'"):
        send_command(run, "pauze")
    run.set_state("finished")
    with pytest.raises(ConfigError, match="is finished"):
        send_command(run, "stop")


def test_broken_command_files_are_ignored(run):
    (run.folder / "commands" / "007-stop.json").write_text("{")
    (run.folder / "commands" / "008-dance.json").write_text(
        json.dumps({"number": 8, "verb": "dance", "attempt": 1, "arguments": {}})
    )
    assert CommandInbox(run, 1).poll() == []


def test_watcher_gives_history_first_and_ends_with_the_run(run):
    with run.claim() as attempt, EventLog(run, attempt) as log:
        log.append(losses(1))
        watcher = Watcher(run)
        first = watcher.poll()
        assert ([s.event.step for s in first.events], first.active) == ([1], True)
        log.append(Failed("no"))
        run.set_state("failed", "no \udcff")
    last = list(watcher.follow(0.01))
    assert [type(s.event) for s in last[-1].events] == [Failed]
    assert last[-1].state == "failed"


def test_importing_runs_and_jobs_is_torch_free_and_light():
    code = (
        "import sys, im2im_core.jobs.child, im2im_core.jobs.start, im2im_core.jobs.attached, im2im_core.jobs.watch\n"
        "import im2im_core.jobs.worker\n"
        "bad = {'torch', 'monai', 'pytorch_lightning', 'pydantic', 'skimage', 'scipy', 'tifffile'} & set(sys.modules)\n"
        "sys.exit(str(bad) if bad - {'pydantic'} else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
