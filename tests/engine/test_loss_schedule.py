"""Schedules of the weight of a loss: their factors, and trainings that follow them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_world import Training, same_state, small_recipe, split_of

from im2im_core.engine import session
from im2im_core.engine.frameworks.build import build_framework
from im2im_core.engine.frameworks.contract import TrainContext
from im2im_core.engine.schedule import Budget
from im2im_core.engine.train import StepModule
from im2im_core.errors import ConfigError
from im2im_core.events import Losses
from im2im_core.inference import Shapes
from im2im_core.methods import methods_paragraph
from im2im_core.recipe.framework import FcnSettings
from im2im_core.recipe.losses import AlwaysOn, CrossEntropy, Dice, Ramp, StartAt, factor_of
from im2im_core.recipe.network import DynUNet

RAMPED: list[dict[str, Any]] = [
    {"kind": "cross_entropy"},
    {"kind": "boundary", "weight": 0.5, "schedule": {"kind": "ramp", "start": 0.2, "end": 0.8}},
    {"kind": "dice", "schedule": {"kind": "start", "at": 0.5}},
]


@pytest.fixture(autouse=True)
def _no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle has tests of its own."""
    monkeypatch.setattr(session._Session, "_export", lambda *_: None)


def semantic(**changes: Any) -> Any:
    return small_recipe("semantic_seg_2d", framework__classes=2, **changes)


# ---- factors -------------------------------------------------------------------


def test_factors_are_functions_of_the_used_budget() -> None:
    parts = (0, 0.2, 0.35, 0.5, 0.75, 1)
    assert [AlwaysOn().factor(u) for u in parts] == [1] * 6
    assert [Ramp(start=0.2, end=0.5).factor(u) for u in parts] == pytest.approx([0, 0, 0.5, 1, 1, 1])
    assert [Ramp(first=3, last=1, end=0.5).factor(u) for u in (0, 0.25, 0.5, 1)] == [3, 2, 1, 1]
    assert [StartAt(at=0.5).factor(u) for u in parts] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"kind": "ramp", "start": 0.5, "end": 0.5}, "is not after start"),
        ({"kind": "ramp", "end": 1.5}, "end"),
        ({"kind": "ramp", "first": -1}, "first"),
        ({"kind": "start", "at": 2}, "at"),
        ({"kind": "sometimes"}, "constant"),
    ],
)
def test_impossible_schedules_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Dice.load({"schedule": settings})


def test_budgets_in_steps_and_in_minutes_are_the_same_progress() -> None:
    loss = Dice(schedule=Ramp(start=0.0, end=1.0))
    for budget, step, elapsed in ((Budget(steps=40), 10, 999.0), (Budget(seconds=600.0), 999, 150.0)):
        assert factor_of(loss, budget.used(step, elapsed)) == pytest.approx(0.25)


def test_a_loss_of_another_package_needs_no_schedule() -> None:
    class Plain:
        weight = 2.0

    assert factor_of(Plain(), 0.3) == 1.0  # type: ignore[arg-type]


def test_names_on_the_command_line_reach_a_schedule() -> None:
    recipe = semantic(framework__losses=RAMPED).override({"framework.losses.1.schedule.end": 0.9})
    assert recipe.framework.losses[1].schedule == Ramp(start=0.2, end=0.9)
    assert "between 20% and 90% of the training" in (text := methods_paragraph(recipe))
    assert "counted after 50% of the training" in text


# ---- trainings -----------------------------------------------------------------


def module_of(losses: tuple[Any, ...], budget: Budget) -> StepModule:
    torch.manual_seed(0)
    recipe = semantic(framework__losses=[loss.dump() for loss in losses])
    shapes = Shapes(dimensions=2, input_channels=1, classes=2)
    framework = build_framework(recipe.framework, DynUNet(filters=(4, 8, 8)), shapes)
    return StepModule(framework, recipe, None, budget, lambda event: None)


def test_terms_that_do_not_count_are_shown_but_not_learned_from() -> None:
    module = module_of((Dice(), CrossEntropy(schedule=StartAt(at=0.5))), Budget(steps=10))
    batch = {
        "source": torch.rand(2, 1, 16, 16),
        "target": torch.randint(0, 2, (2, 1, 16, 16)).byte(),
        "weight": torch.ones(2, 1, 16, 16),
    }
    context = TrainContext(0, torch.Generator(), 0.2)
    terms = module.framework.losses(batch, "network", context)
    assert terms["dice_loss"].requires_grad
    assert not terms["cross_entropy"].requires_grad
    assert terms["cross_entropy"] > 0
    outside = module.framework.losses(batch, "network", TrainContext(0, torch.Generator()))
    assert outside["cross_entropy"].requires_grad
    torch.testing.assert_close(outside["cross_entropy"], terms["cross_entropy"])


def test_what_does_not_count_cannot_break_a_step() -> None:
    module = module_of((Dice(), CrossEntropy(schedule=StartAt(at=0.5))), Budget(steps=10))
    terms = {"dice_loss": torch.tensor(2.0), "cross_entropy": torch.tensor(torch.inf)}
    module._weights = module.framework.weights_at(0.2)
    assert module._total(terms) == 2
    module._weights = module.framework.weights_at(0.5)
    assert module._total(terms) == torch.inf
    module._weights = {"dice_loss": 0.0, "cross_entropy": 0.0}
    assert module._total(terms) == 0


def test_a_training_follows_its_schedule(tmp_path: Path) -> None:
    """Two ways of saying the same: a factor that switches on at 0, and none; one that never comes, and no term."""
    once: list[dict[str, Any]] = [{"kind": "cross_entropy"}]
    states = {}
    for name, losses in {
        "always": [*once, {"kind": "dice"}],
        "at_once": [*once, {"kind": "dice", "schedule": {"kind": "start", "at": 0.0}}],
        "alone": [*once, {"kind": "dice", "weight": 0.0}],
        "too_late": [*once, {"kind": "dice", "schedule": {"kind": "start", "at": 1.0}}],
    }.items():
        recipe = semantic(framework__losses=losses, training__steps=2)
        training = Training(tmp_path / name, recipe, split_of(task="classes"))
        assert training.run().state == "finished"
        states[name] = training
    assert same_state(states["always"].checkpoint, states["at_once"].checkpoint)
    # The sum that validations are compared by is that of the end, where the late term counts; all else is alike.
    alone, late = (states[name].checkpoint for name in ("alone", "too_late"))
    assert late.state["counters"].pop("best_total") > alone.state["counters"].pop("best_total")
    assert same_state(alone, late)
    assert not same_state(states["always"].checkpoint, states["alone"].checkpoint)


def test_pause_and_resume_go_on_alike(tmp_path: Path) -> None:
    recipe = semantic(framework__losses=RAMPED)
    whole, parts = (Training(tmp_path / n, recipe, split_of(task="classes")) for n in ("whole", "parts"))
    whole.run()
    assert parts.pause_after(2).step == 2
    assert parts.run().state == "finished"
    assert same_state(whole.checkpoint, parts.checkpoint)


def test_curves_show_unweighted_terms_and_the_sum_of_the_end(tmp_path: Path) -> None:
    recipe = semantic(framework__losses=RAMPED)
    training = Training(tmp_path / "run", recipe, split_of(task="classes"))
    training.run()
    shown = [e.values for e in training.of(Losses)]
    assert len(shown) == 4
    for values in shown:
        assert min(values["cross_entropy"], values["dice_loss"]) > 0  # from the first step on
        total = values["cross_entropy"] + 0.5 * values["boundary"] + values["dice_loss"]
        assert values["total"] == pytest.approx(total, rel=1e-5)


def test_a_training_of_which_nothing_counts_for_a_while_goes_on(tmp_path: Path) -> None:
    late = [{"kind": "dice", "schedule": {"kind": "start", "at": 0.5}}]
    training = Training(tmp_path / "run", semantic(framework__losses=late), split_of(task="classes"))
    assert training.run().state == "finished"
    assert all(e.values["dice_loss"] > 0 for e in training.of(Losses))


def test_weights_at_a_moment_are_those_of_the_recipe_times_the_schedule() -> None:
    settings = FcnSettings(output="segmentation", losses=(Dice(weight=2.0, schedule=Ramp()), CrossEntropy(weight=0.5)))
    framework = build_framework(settings, DynUNet(filters=(4, 8, 8)), Shapes(dimensions=2, input_channels=1, classes=2))
    assert framework.loss_weights() == {"dice_loss": 2.0, "cross_entropy": 0.5}
    assert framework.weights_at(0.25) == {"dice_loss": 0.5, "cross_entropy": 0.5}
    assert framework.weights_at(1.0) == framework.loss_weights()
