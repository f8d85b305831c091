"""Trainings of a few steps: exact to the bit, ending when they should, keeping what is best."""

from __future__ import annotations

import csv
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import toy_frameworks as toys
from training_world import Training, same_state, small_recipe, split_of, stop_at

from im2im_core import api
from im2im_core.engine import callbacks, planning, session
from im2im_core.engine import train as train_module
from im2im_core.engine.checkpoint import Checkpoint, CheckpointFolder
from im2im_core.engine.frameworks.build import build_framework
from im2im_core.engine.sampling import step_seed
from im2im_core.engine.train import PatchLoader, split_batch
from im2im_core.engine.validate import Validator
from im2im_core.errors import ConfigError, DataError, Im2ImError, ResourceError
from im2im_core.events import Checkpointed, CommandDone, Event, Finished, Losses, Message, Previewed, Validated
from im2im_core.jobs.child import run_attempt
from im2im_core.jobs.commands import send_command
from im2im_core.jobs.eventlog import read_events
from im2im_core.microscope import write_dataset
from im2im_core.plans import Plan
from im2im_core.project import Project
from im2im_core.runs import Run
from im2im_core.samples import Split
from im2im_core.split import outline

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulate, dropout, ema": {"training.accumulate": 2, "network.dropout": 0.3, "training.ema": 0.9},
    "equal weights at the end": {"training.ema": 0.9, "training.swa": 0.75},
    "bf16": {"training.precision": "bf16"},
    "plateau, sgd, early stop": {
        "training.scheduler": {"kind": "plateau", "patience": 0, "factor": 0.5},
        "training.optimizer.kind": "sgd",
        "training.validate_every": 1,
        "training.early_stopping": {"enabled": True, "patience": 9},
    },
    "polynomial, no ema, no clip": {
        "training.scheduler.kind": "polynomial",
        "training.ema": 0.0,
        "training.clip": None,
        "data.augmentation.rotate": 30.0,
        "data.augmentation.noise": 0.2,
    },
}


@pytest.fixture(autouse=True)
def _no_export(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle has tests of its own."""
    if "exported" not in request.fixturenames:
        monkeypatch.setattr(session._Session, "_export", lambda *_: None)


# ---- exactness ----


@pytest.mark.parametrize("variant", VARIANTS)
def test_fault_04_the_same_again_and_with_a_pause_are_equal_to_the_bit(tmp_path: Path, variant: str) -> None:
    recipe = small_recipe(training__steps=6).override(VARIANTS[variant])
    runs = {}
    for name in ("once", "again", "paused"):
        runs[name] = Training(tmp_path / name, recipe)
        if name == "paused":
            assert runs[name].pause_after(2).state == "paused"
            assert runs[name].checkpoint.step == 2
            assert runs[name].pause_after(1).step == 3
        assert runs[name].run().state == "finished"
    assert same_state(runs["once"].checkpoint, runs["again"].checkpoint)
    assert same_state(runs["once"].checkpoint, runs["paused"].checkpoint)
    if variant.startswith("plateau"):
        assert runs["once"].checkpoint.state["counters"]["plateau"] < 1
    resumed = [e.text for e in runs["paused"].of(Message) if e.code == "resumed"]
    assert resumed == ["Going on from step 2", "Going on from step 3"]


def test_in_half_precision_the_weights_stay_whole_and_learn_nearly_the_same(tmp_path: Path) -> None:
    ends = {}
    for precision in ("fp32", "bf16"):
        training = Training(tmp_path / precision, small_recipe(training__steps=20, training__precision=precision))
        assert training.run().state == "finished"
        weights = training.checkpoint.weights
        assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}
        ends[precision] = training.of(Losses)[-1].values["total"]
    assert ends["bf16"] != ends["fp32"]
    assert ends["bf16"] == pytest.approx(ends["fp32"], rel=0.05)


def test_another_seed_is_another_training(tmp_path: Path) -> None:
    found = []
    for seed in (0, 1):
        training = Training(tmp_path / str(seed), small_recipe(training__seed=seed))
        training.pause_after(1)
        found.append(training.checkpoint)
    assert not same_state(*found)
    assert step_seed(0, 1) != step_seed(1, 0)


def test_two_players_and_what_is_no_weight_are_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def toy(recipe: Any, facts: Any) -> Any:
        return build_framework(toys.Gan(), recipe.network, planning.shapes_of(recipe, facts))

    monkeypatch.setattr(planning, "framework_of", toy)
    monkeypatch.setattr(session, "framework_of", toy)
    monkeypatch.setattr(session._Session, "finish", lambda *_: {})
    recipe = small_recipe("restoration_2d", training__steps=7)
    split = split_of(2, 1, task="image")
    once, paused = (Training(tmp_path / name, recipe, split) for name in ("once", "paused"))
    once.run()
    paused.pause_after(3)
    paused.run()
    assert len(once.checkpoint.state["optimizers"]) == 2
    assert len(once.checkpoint.state["framework"]["pool"]) == 4
    assert same_state(once.checkpoint, paused.checkpoint)
    # The discriminator learns in every second step only.
    names = [set(e.values) - {"total"} for e in once.of(Losses)]
    assert names == [{"adversarial", "l1", "discriminator"} if s % 2 == 0 else {"adversarial", "l1"} for s in range(7)]


def test_accumulation_learns_as_one_large_batch(tmp_path: Path) -> None:
    """Without normalisation over the batch, four times one patch are one batch of four."""
    weights = []
    for batch, accumulate in ((4, 1), (1, 4)):
        recipe = small_recipe(
            training__batch=batch,
            training__accumulate=accumulate,
            training__optimizer__kind="sgd",
            data__augmentation={"flip": False, "rotate90": False},
        ).override({"network.norm": "instance"})
        training = Training(tmp_path / str(batch), recipe)
        training.pause_after(2)
        weights.append(training.checkpoint.weights)
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=1e-5)


def test_command_line_and_python_learn_the_same(tmp_path: Path) -> None:
    from im2im_core.cli import main

    write_dataset(tmp_path / "data", "instance_segmentation", count=3, shape=(48, 48), seed=0)
    recipe = small_recipe(training__steps=3).override({"data.path": str(tmp_path / "data")})
    recipe.to_file(tmp_path / "recipe.yaml")
    project = Project.create(tmp_path / "project")
    words = ["train", str(tmp_path / "recipe.yaml"), "--project", str(project.root), "--name", "shell"]
    assert main(words) == 0
    api.train(recipe, project=project, name="python")
    found = [CheckpointFolder(project.root / "runs" / n / "checkpoints").newest() for n in ("shell", "python")]
    assert found[0] is not None
    assert found[1] is not None
    assert same_state(found[0], found[1])


# ---- budgets ----


class FakeTime:
    """A clock that moves one second per step."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def step(self) -> str:
        self.now += 1
        return ""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(train_module, "time", SimpleNamespace(time=fake.time, monotonic=fake.time))
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=fake.time))
    return fake


def test_a_budget_in_minutes_ends_in_time_and_counts_earlier_attempts(tmp_path: Path, clock: FakeTime) -> None:
    training = Training(tmp_path / "run", small_recipe(training__minutes=1))

    def pause() -> str:
        clock.step()
        return "pause" if clock.now >= 1020 else ""

    assert training.run(pause).state == "paused"
    first = training.checkpoint
    assert first.state["counters"]["elapsed"] == pytest.approx(20, abs=1)
    clock.now += 5000  # a night later
    assert training.run(clock.step).reason == "budget"
    assert training.checkpoint.state["counters"]["elapsed"] == pytest.approx(60, abs=5)
    assert training.checkpoint.step > first.step + 25
    rates = [e.learning_rate for e in training.of(Losses)]
    assert rates[-1] < 0.05 * max(rates)  # the schedule went on over the pause and to its end


def test_a_budget_in_minutes_counts_from_the_start_of_the_process(tmp_path: Path, clock: FakeTime) -> None:
    training = Training(tmp_path / "run", small_recipe(training__minutes=1))
    training.run(clock.step, started=clock.now - 40)
    assert training.checkpoint.step <= 20


def test_validation_steps_of_the_user_hold_in_a_budget_of_minutes(tmp_path: Path, clock: FakeTime) -> None:
    training = Training(tmp_path / "run", small_recipe(training__minutes=0.5, training__validate_every=7))
    training.run(clock.step)
    steps = [e.step for e in training.of(Validated)]
    assert steps[:-1] == [7 * (i + 1) for i in range(len(steps) - 1)]
    assert len(steps) > 2


@pytest.mark.timing
@pytest.mark.slow
def test_a_real_budget_in_minutes_is_kept(tmp_path: Path) -> None:
    import time

    training = Training(tmp_path / "run", small_recipe(training__minutes=0.2))
    ended: list[float] = []
    start = time.monotonic()
    append = training.events.append
    training.events = SimpleNamespace(
        append=lambda e: (append(e), isinstance(e, Checkpointed) and ended.append(time.monotonic() - start))
    )  # type: ignore[assignment]
    training.run()
    assert 8 < ended[-1] < 12.5


@pytest.mark.parametrize("values", [[0.5], [0.2, 0.9, 0.5, 0.1], [0.2, 0.9, 0.5, 0.9], [0.2, 0.3, 0.4, 0.9]])
def test_a_training_that_only_lacks_its_bundle_exports_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[float]
) -> None:
    script(monkeypatch, values)
    expected = export_into(monkeypatch)
    training = Training(tmp_path / "run", small_recipe(training__validate_every=1))
    training.run()
    found = export_into(monkeypatch)
    script(monkeypatch, values[-1:])
    assert training.run().state == "finished"
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[k], v) for k, v in expected.items())


# ---- what validation decides ----


def script(monkeypatch: pytest.MonkeyPatch, values: list[float], totals: list[float] | None = None) -> None:
    """Validations that give `values` of ap50 and `totals`, one after the other; the last one again and again."""
    left = list(zip(values, totals or [1.0] * len(values), strict=True))

    def run(self: Validator, framework: Any) -> dict[str, float]:
        value, total = left.pop(0) if len(left) > 1 else left[0]
        return {"total": total, "ap50": value}

    monkeypatch.setattr(Validator, "run", run)


CONSTANT = {"training.scheduler.kind": "constant"}


@pytest.mark.parametrize(
    ("values", "schedule", "step"),
    [
        ([0.2, 0.9, 0.5, float("nan"), 0.8], CONSTANT, 2),
        ([0.2, 0.9, 0.5, 0.9, 0.1], CONSTANT, 4),  # of equals the later ones
        ([0.2, 0.9, 0.5, float("nan"), 0.88], {}, 5),  # a schedule that ends low has its best weights last
        ([0.2, 0.9, 0.5, float("nan"), 0.1], {}, 2),  # unless they are clearly worse
        ([0.2, 0.9, 0.5, 0.9, float("nan")], {}, 4),
    ],
)
def test_the_best_weights_are_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[float], schedule: dict[str, Any], step: int
) -> None:
    recipe = small_recipe(training__validate_every=1, training__steps=5, training__checkpoint_minutes=1e-6)
    recipe = recipe.override(schedule)
    kept = export_into(monkeypatch)
    script(monkeypatch, values)
    training = Training(tmp_path / "run", recipe)
    training.run()
    assert [e.step for e in training.of(Validated) if e.best] == [1, 2, *([4] if values[3] == 0.9 else [])]
    best = CheckpointFolder(training.folder / "checkpoints").best()
    assert best is not None
    assert best.step == (4 if values[3] == 0.9 else 2)
    assert exports(kept, best if step == best.step else training.checkpoint)
    until = Training(tmp_path / "until", recipe)
    script(monkeypatch, values)
    until.pause_after(best.step)
    assert all(torch.equal(best.weights[k], v) for k, v in until.checkpoint.weights.items())


@pytest.mark.parametrize(
    ("totals", "last"),
    [([3.0, 2.0, 1.0], True), ([3.0, 1.0, 2.0], False), ([3.0, 1.0, float("nan")], False)],
)
def test_a_figure_of_few_objects_does_not_bring_back_earlier_weights_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, totals: list[float], last: bool
) -> None:
    kept = export_into(monkeypatch)
    script(monkeypatch, [0.5, 1.0, 0.5], totals)
    training = Training(tmp_path / "run", small_recipe(training__validate_every=1, training__steps=3))
    training.run()
    best = CheckpointFolder(training.folder / "checkpoints").best()
    assert best is not None
    assert best.step == 2
    assert exports(kept, training.checkpoint if last else best)


def export_into(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """What will be exported."""
    kept: dict[str, torch.Tensor] = {}

    def export(self: Any, framework: Any, metrics: Any) -> None:
        kept.update({name: value.clone() for name, value in framework.state_dict().items()})

    monkeypatch.setattr(session._Session, "_export", export)
    return kept


def exports(kept: dict[str, torch.Tensor], checkpoint: Checkpoint) -> bool:
    average = {k.removeprefix("ema."): v for k, v in checkpoint.weights.items() if k.startswith("ema.")}
    return kept.keys() == average.keys() and all(torch.equal(kept[k], v) for k, v in average.items())


def test_it_ends_when_validation_stops_improving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, [0.5, 0.6, 0.6, 0.61])
    stopping = {"enabled": True, "patience": 3, "min_change": 0.05}
    recipe = small_recipe(training__steps=50, training__validate_every=2, training__early_stopping=stopping)
    training = Training(tmp_path / "run", recipe)
    outcome = training.run()
    assert (outcome.state, outcome.reason, outcome.step) == ("finished", "early", 10)
    assert [m.text for m in training.of(Message) if m.code == "early_stop"] == [
        "Validation stopped improving after step 4; the best is kept"
    ]
    assert training.of(Finished)[0].reason == "validation stopped improving"


def test_the_rate_falls_on_a_plateau_and_early_stop_still_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, [0.5, 0.4])
    recipe = small_recipe(training__steps=50, training__validate_every=1).override(
        {
            "training.scheduler": {"kind": "plateau", "patience": 1, "factor": 0.1},
            "training.early_stopping": {"enabled": True, "patience": 6},
        }
    )
    training = Training(tmp_path / "run", recipe)
    assert training.run().step == 7
    rates = np.array([e.learning_rate for e in training.of(Losses)])
    assert rates / rates[0] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_previews_are_kept_for_every_validation(tmp_path: Path) -> None:
    training = Training(tmp_path / "run", small_recipe(training__validate_every=2))
    training.run()
    assert [e.step for e in training.of(Previewed)] == [2, 4]
    for event in training.of(Previewed):
        picture = np.load(training.folder / event.path, allow_pickle=False)
        assert picture.shape == (1, 48, 48)
    off = Training(tmp_path / "off", small_recipe(logging__preview=False))
    off.run()
    assert off.of(Previewed) == []


def test_a_training_leaves_torch_as_it_was(tmp_path: Path) -> None:
    """Threads and random numbers are the caller's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    try:
        Training(tmp_path / "run", small_recipe(training__threads=2)).run()
        assert torch.get_num_threads() == 1
        assert torch.equal(torch.rand(3), expected)
    finally:
        torch.set_num_threads(threads)


def test_a_device_that_is_not_there_is_refused_before_images_are_read(tmp_path: Path) -> None:
    from dataclasses import replace

    training = Training(tmp_path / "run", small_recipe())
    plan = planning.make_plan(training.recipe, training.split)
    for device, error in (("gpu", ConfigError), ("cuda:99", ResourceError)):
        training.plan = replace(plan, runtime=replace(plan.runtime, device=device))
        with pytest.raises(error, match=f"{device}.*[Uu]se "):
            training.run()
    assert training.events == []


# ---- runs on disk ----


@pytest.fixture
def make_run(tmp_path: Path) -> Any:
    """Runs over the same three small images."""
    write_dataset(tmp_path / "data", "instance_segmentation", count=3, shape=(48, 48), seed=0)
    project = Project.create(tmp_path / "project")

    def make(name: str = "run", **changes: Any) -> Run:
        return Run.create(project, small_recipe(data__path=str(tmp_path / "data"), **changes), name)

    return make


@pytest.mark.parametrize(("verb", "state"), [("abort", "stopped"), ("pause", "paused"), ("stop", "finished")])
def test_a_run_ends_as_it_was_told(make_run: Any, verb: str, state: str) -> None:
    """An aborted one has no model, so it is not finished and can be gone on with."""
    run = make_run(training__steps=5000, training__validate_every=5000)

    def train(run: Run, on_event: Any, should_stop: Any) -> None:
        def tell(event: Event) -> None:
            on_event(event)
            if isinstance(event, Losses) and event.step == 1:
                send_command(run, verb)

        session.run_training(run, tell, should_stop)

    assert run_attempt(run, train=train) == 0
    assert run.state == state
    said = [s.event for s in read_events(run)]
    assert CommandDone(1, verb) in said
    assert any(isinstance(e, Finished) for e in said) == (state == "finished")
    if state != "finished":
        run.require_unfinished()
        found = CheckpointFolder(run.checkpoints).newest()
        assert found is not None
        assert 1 <= found.step < 5000


def test_a_training_that_python_stops_can_be_resumed_but_a_finished_one_not(make_run: Any, tmp_path: Path) -> None:
    recipe, seen = make_run().recipe, []

    def on_event(event: Event) -> None:
        seen.extend([event.step] if isinstance(event, Losses) else [])

    run = api.train(
        recipe, project=tmp_path / "project", name="stopped", on_event=on_event, should_stop=lambda: len(seen) > 1
    )
    assert run.state == "stopped"
    assert seen == [1, 2]
    assert not (run.folder / "metrics.json").exists()
    assert api.resume(run, on_event=on_event).state == "finished"
    assert seen == [1, 2, 3, 4]
    with pytest.raises(ConfigError, match="stopped is finished"):
        api.resume(run)


def test_every_command_is_answered_and_the_first_decides(make_run: Any) -> None:
    run, said = make_run(), []
    for verb in ("preview", "abort", "pause", "resume"):
        send_command(run, verb)
    with run.claim():
        asked = session._Asked(run, said.append, lambda: False)
        assert asked() == "abort"
    assert [(e.verb, bool(e.note)) for e in said] == [
        ("preview", True),
        ("abort", False),
        ("pause", True),
        ("resume", True),
    ]


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (OSError(28, "No space left on device"), ResourceError, 4),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ResourceError, 4),
        (ZeroDivisionError("oh"), Im2ImError, 1),
        (DataError("a.tif is torn"), DataError, 3),
    ],
)
def test_fault_24_python_gets_the_error_that_the_run_records(
    make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Im2ImError], code: int
) -> None:
    recipe = make_run().recipe

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(session, "train_run", fail)
    with pytest.raises(kind) as caught:
        api.train(recipe, project=tmp_path / "project", name="failed")
    assert (type(caught.value), caught.value.exit_code) == (kind, code)
    assert caught.value is error or caught.value.__cause__ is error
    run = Run(tmp_path / "project" / "runs" / "failed")
    assert (run.state, run.status.message) == ("failed", caught.value.message)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Split, Plan]]:
    """Split and plan of every attempt; nothing is trained."""
    found: list[tuple[Split, Plan]] = []

    def train_run(folder: Path, split: Split, plan: Plan, recipe: Any, **_: Any) -> session.Outcome:
        found.append((split, plan))
        return session.Outcome("stopped", 0, "abort", {})

    monkeypatch.setattr(session, "train_run", train_run)
    return found


@pytest.mark.parametrize(("length", "gap"), [(800, 256), (400, None)])
def test_a_single_image_is_divided_alike_at_start_and_at_every_resume(
    tmp_path: Path, attempts: list[tuple[Split, Plan]], length: int, gap: int | None
) -> None:
    """Its objects ask for a larger patch than is supposed before there is a plan."""
    import tifffile

    labels = np.zeros((64, length), np.uint8)
    for number, start in enumerate(range(4, length - 52, 56), start=1):
        labels[8:56, start : start + 48] = number
    (tmp_path / "data").mkdir()
    tifffile.imwrite(tmp_path / "data" / "a_IM.tif", labels.astype(np.float32))
    tifffile.imwrite(tmp_path / "data" / "a_GT.tif", labels)
    recipe = small_recipe(data__path=str(tmp_path / "data"), data__patch="auto")
    run = Run.create(Project.create(tmp_path / "project"), recipe, "r")
    run_attempt(run)
    (run.folder / "environment.json").unlink()  # the rule alone gives the same split
    for _ in range(2):
        run_attempt(run)
    (first, plan), *later = attempts
    assert [outline(split) for split, _ in later] == [outline(first)] * 2
    assert [p for _, p in later] == [plan] * 2
    assert plan.facts.split == first.reason
    assert "median image" in plan.reasons["data.patch"]
    assert bool(first.validation) == (gap is not None)
    if gap is not None:
        assert plan.recipe.patch_size[1] <= gap
        spans = sorted((s.region[4] for s in (*first.train, *first.validation) if s.region), key=lambda s: s.start)
        assert spans[1].start - spans[0].stop == gap
    planned = api.plan(recipe, project=tmp_path / "project")
    assert planned == plan
    api.train(recipe, project=tmp_path / "project", plan=planned, name="planned")
    assert outline(attempts[-1][0]) == outline(first)


def test_a_resume_names_images_that_changed_and_takes_in_none(
    make_run: Any, tmp_path: Path, attempts: list[tuple[Split, Plan]]
) -> None:
    run = make_run()
    run_attempt(run)
    run_attempt(run)
    assert [s.event for s in read_events(run)] == []  # nothing changed, nothing is said
    target = min((tmp_path / "data" / "GT").iterdir())
    for path in sorted((tmp_path / "data").glob("*/nuclei*")):
        path.with_name(f"new_{path.name}").write_bytes(path.read_bytes())
    target.touch()
    run_attempt(run)
    (warning,) = [s.event for s in read_events(run)]
    assert isinstance(warning, Message)
    assert warning.code == "data_changed"
    assert "1 changed" in warning.text
    assert "(target)" in warning.text
    assert "3 new and not used" in warning.text
    assert len({str(outline(split)) for split, _ in attempts}) == 1


def test_a_plan_for_other_data_and_under_another_name_is_kept_as_it_is_used(
    make_run: Any, tmp_path: Path, attempts: list[tuple[Split, Plan]]
) -> None:
    plan = api.plan(make_run().recipe, project=tmp_path / "project")
    write_dataset(tmp_path / "others", "instance_segmentation", count=4, shape=(48, 48), seed=1)
    run = api.train("", data=tmp_path / "others", project=tmp_path / "project", plan=plan, name="other")
    api.resume(run)
    assert (run.recipe.name, run.recipe.data.path) == ("other", str(tmp_path / "others"))
    assert [len((*s.train, *s.validation)) for s, _ in attempts] == [4, 4]
    assert [p.recipe for _, p in attempts] == [run.recipe] * 2


# ---- what is written ----


def rows(training: Training) -> list[dict[str, str]]:
    with (training.folder / "metrics.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_metrics_have_every_step_once_after_crash_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(tmp_path / "run", small_recipe(training__steps=8, training__validate_every=3))
    training.pause_after(4)

    class Crash(BaseException):
        pass

    reached = stop_at(7)  # reading the images asks three times, then some steps are done but not saved

    def crash() -> str:
        if reached():
            raise Crash
        return ""

    with pytest.raises(Crash):
        training.run(crash)
    with (training.folder / "metrics.csv").open("a") as handle:
        handle.write("7,train,tot")  # torn
    training.run()
    found = rows(training)
    steps = [int(r["step"]) for r in found if (r["part"], r["name"]) == ("train", "total")]
    assert steps == list(range(1, 9))
    validated = [int(r["step"]) for r in found if (r["part"], r["name"]) == ("validation", "ap50")]
    assert validated == [3, 6, 8]
    assert {r["name"] for r in found if r["part"] == "train"} == {
        "cross_entropy",
        "dice_loss",
        "distance",
        "total",
        "learning_rate",
        "samples_per_second",
    }


def test_tensorboard_has_the_curves(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    training = Training(tmp_path / "run", small_recipe(logging__tensorboard=True, training__validate_every=2))
    training.run()
    found = accumulator.EventAccumulator(str(training.folder / "tensorboard"))
    found.Reload()
    assert [e.step for e in found.Scalars("train/total")] == [1, 2, 3, 4]
    assert [e.step for e in found.Scalars("validation/ap50")] == [2, 4]
    assert found.Scalars("train/total")[0].value == pytest.approx(training.of(Losses)[0].values["total"])


def test_events_tell_the_course(tmp_path: Path) -> None:
    training = Training(tmp_path / "run", small_recipe())
    training.run()
    losses = training.of(Losses)
    assert [e.step for e in losses] == [1, 2, 3, 4]
    for event in losses:
        assert event.values["total"] == pytest.approx(sum(v for k, v in event.values.items() if k != "total"), rel=1e-5)
        assert event.epoch == pytest.approx(event.step * 2 * 32 * 32 / (3 * 48 * 48))
        assert event.samples_per_second > 0
    assert training.of(Finished)[0].step == 4


# ---- parts ----


def test_batches_are_split_evenly() -> None:
    batch = {"source": torch.arange(5), "weight": torch.arange(5) * 2}
    parts = split_batch(batch, 2)
    assert [p["source"].tolist() for p in parts] == [[0, 1, 2], [3, 4]]
    assert [p["weight"].tolist() for p in parts] == [[0, 2, 4], [6, 8]]
    assert split_batch(batch, 1) == [batch]


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="'tpu'"):
        train_module.split_device("tpu")
    assert train_module.split_device("cuda:1") == ("gpu", 1)


def test_a_loader_goes_on_where_it_stood() -> None:
    stream: Any = SimpleNamespace(__getitem__=None)

    class Numbers(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __getitem__(self, step: int) -> list[int]:
            return [step]

    loader = iter(PatchLoader(Numbers(), 5, 0, lambda event: None))  # type: ignore[arg-type]
    assert [int(next(loader)[0]) for _ in range(3)] == [5, 6, 7]  # type: ignore[call-overload]
    del stream


class Told(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Tells which steps were read."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.read = seconds, list[int]()

    def __getitem__(self, step: int) -> list[int]:
        time.sleep(self.seconds)
        self.read.append(step)
        return [step]

    def has_read(self, steps: list[int]) -> bool:
        """Whether these steps are read before long."""
        until = time.monotonic() + 10
        while self.read != steps and time.monotonic() < until:
            time.sleep(0.01)
        return self.read == steps


def waiting(stream: Told) -> PatchLoader:
    loader = PatchLoader(stream, 0, 0, lambda event: None)  # type: ignore[arg-type]
    loader.waits = True
    return loader


def test_patches_are_read_ahead_once_the_step_has_changed_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "PATIENCE", 60)
    loader = waiting(stream := Told())
    batches = iter(loader)
    assert next(batches) == [0]
    time.sleep(0.2)
    assert stream.read == [0]
    loader.may_read.set()
    assert stream.has_read([0, 1])
    assert next(batches) == [1]
    assert next(batches) == [2]  # what is waited for is read at once
    batches.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("patches")]


def test_patches_that_take_long_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "PATIENCE", 60)
    batches = iter(waiting(stream := Told(2 * train_module.SHORT)))
    assert next(batches) == [0]
    assert stream.has_read([0, 1])
    batches.close()  # type: ignore[attr-defined]


def test_a_step_that_fails_keeps_no_thread_waiting() -> None:
    """At its end Python joins the threads of pools, also of loaders that nobody closed."""
    batches = iter(waiting(stream := Told()))
    assert next(batches) == [0]
    assert stream.has_read([0, 1])
    batches.close()  # type: ignore[attr-defined]


def test_a_run_on_disk_is_planned_once(tmp_path: Path) -> None:
    """The plan stands in the run folder, and resuming follows it."""
    write_dataset(tmp_path / "data", "instance_segmentation", count=3, shape=(48, 48), seed=0)
    recipe = small_recipe(data__path=str(tmp_path / "data"), data__patch="auto")
    run = Run.create(Project.create(tmp_path / "project"), recipe, "r")
    assert run_attempt(run) == 0
    assert run.plan["recipe"]["data"]["patch"] == list(run.recipe.data.patch)
    assert run.recipe.data.patch != "auto"
