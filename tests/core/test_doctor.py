"""What is said about a training, from synthetic events whose trouble is known."""

from __future__ import annotations

import math

import pytest

from im2im_core.api import load_preset
from im2im_core.doctor import diagnose, diagnose_end
from im2im_core.events import Failed, Losses, Progress, Started, Validated
from im2im_core.recipe import Recipe

RECIPE = load_preset("instance_seg_2d")
PLAN = {"facts": {"validation": 2, "object_diameter": 17.0}, "runtime": {"cache": "memory"}}


def losses(values, every=10, speed=100.0):
    return [Losses(every * (i + 1), 0.1 * i, {"total": v}, 1e-3, speed) for i, v in enumerate(values)]


def falling(count=40):
    return losses([1 / (1 + 0.2 * i) for i in range(count)])


def validated(totals, best=(), every=40, **metrics):
    return [
        Validated(every * (i + 1), i, {"total": v, **{k: m[i] for k, m in metrics.items()}}, i in best)
        for i, v in enumerate(totals)
    ]


def codes(events, plan=PLAN, recipe=RECIPE):
    return [d.code for d in diagnose(events, plan, recipe)]


def only(events, plan=PLAN, recipe=RECIPE):
    (found,) = diagnose(events, plan, recipe)
    return found


def test_a_healthy_training_and_an_empty_one_are_left_in_peace():
    healthy = falling() + validated([1.0, 0.8, 0.6, 0.5, 0.45, 0.4], best=range(6), ap50=[0.1, 0.3, 0.5, 0.6, 0.7, 0.8])
    assert codes(healthy) == []
    assert codes([]) == []
    assert diagnose([], None, RECIPE) == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_no_number_comes_first_and_lowers_the_rate(value):
    events = falling(5) + losses([value] * 3)
    found = diagnose(events, {**PLAN, "facts": {"validation": 0}}, RECIPE)
    assert found[0].code == "nan_loss"
    assert found[0].level == "error"
    assert found[0].recipe_changes["training.optimizer.lr"] == pytest.approx(1e-3)
    assert "learning rate of 0.001" in found[0].cure


def test_loss_that_recovered_is_not_mentioned():
    assert codes(losses([math.nan]) + falling()) == []


def test_flat_loss_asks_for_the_targets_and_a_higher_rate():
    found = only(losses([0.7 + 0.001 * (i % 3) for i in range(30)]))
    assert found.code == "flat_loss"
    assert "300 steps" in found.text
    assert found.recipe_changes == {"training.optimizer.lr": pytest.approx(9e-3)}


def test_short_or_moving_loss_is_not_flat():
    assert codes(losses([0.7] * 10)) == []
    assert codes(losses([0.7 - 0.002 * i for i in range(30)])) == []


def test_no_object_in_the_targets():
    found = only(falling(), {"facts": {"validation": 2, "object_diameter": None}})
    assert (found.code, found.level) == ("no_foreground", "error")
    assert found.recipe_changes == {"data.foreground": 0.9}


def test_nothing_found_in_five_validations_but_not_in_four():
    zeros = [0.0] * 5
    totals = [1.0, 0.9, 0.8, 0.7, 0.6]
    assert codes(falling() + validated(totals, best=range(5), ap50=zeros)) == ["no_foreground"]
    assert codes(falling() + validated(totals[:4], best=range(4), ap50=zeros)) == []


def test_overfit_when_validation_rises_while_training_falls():
    rising = validated([1.0, 0.6, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], best=(0, 1, 2))
    found = {d.code: d for d in diagnose(falling(80) + rising, PLAN, RECIPE)}
    assert set(found) == {"overfit", "stopped_improving"}
    assert "since step 120" in found["overfit"].text
    changes = found["overfit"].recipe_changes
    assert changes["data.augmentation.rotate"] == 180.0
    assert "data.augmentation.contrast" not in changes  # the preset changes the contrast as much already
    RECIPE.override(changes)


def test_both_rising_is_not_overfit():
    events = losses([1 + 0.02 * i for i in range(60)]) + validated([0.5, 0.6, 0.7, 0.8, 0.9, 1.0], best=(0,))
    assert "overfit" not in codes(events)


def test_stopped_improving_tells_the_time_left():
    events = [
        *falling(),
        *validated([1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], best=(0, 1)),
        Progress("training", 280, None, 180.0, 120.0),
    ]
    found = only(events)
    assert found.code == "stopped_improving"
    assert found.level == "info"
    assert "step 80" in found.text
    assert "2 min 0 s left" in found.text
    assert found.cure == "You can stop now and keep the best"


def test_no_validation_offers_a_part_of_each_image():
    found = only(falling(), {"facts": {"validation": 0, "object_diameter": 17.0}})
    assert found.recipe_changes == {"data.split.by": "block"}
    none_kept = RECIPE.override({"data.split.validation": 0.0})
    assert only(falling(), {"facts": {"validation": 0, "object_diameter": 1.0}}, none_kept).recipe_changes == {
        "data.split.by": "block",
        "data.split.validation": 0.15,
    }


def test_speed_that_fell_to_less_than_half():
    slow = losses([1 / (i + 1) for i in range(20)]) + losses([1 / (i + 21) for i in range(6)], speed=30.0)
    found = only(slow, {**PLAN, "runtime": {"cache": "disk"}})
    assert found.code == "idle"
    assert "30 patches per second, it was 100" in found.text
    assert found.recipe_changes == {"data.cache.kind": "memory"}
    assert only(slow).recipe_changes == {}
    assert codes(losses([1 / (i + 1) for i in range(20)]) + losses([0.01] * 6, speed=60.0)) == []


def test_fault_27_kill_and_crash_are_told_apart():
    killed = diagnose_end([], "interrupted", "Started on cpu\n", RECIPE)
    assert killed is not None
    assert "killed by signal 9, probably out of memory" in killed.text
    assert killed.recipe_changes == {"training.batch": 8, "training.accumulate": 2}
    assert killed.cure.startswith("Resume goes on from the last checkpoint")
    log = "x\nFatal Python error: Segmentation fault\n\nThread 0x1 (most recent call first):\n"
    crashed = diagnose_end([], "interrupted", log, RECIPE)
    assert crashed is not None
    assert "Segmentation fault" in crashed.text
    assert crashed.cure.startswith("Resume goes on from the last checkpoint")


def test_who_is_killed_again_is_told_to_take_smaller_batches_first():
    again = diagnose_end([Started(), Started()], "interrupted", "", RECIPE)
    assert again is not None
    assert again.code == "killed_again"
    assert again.cure.startswith("Start anew with smaller batches")
    assert again.recipe_changes == {"training.batch": 8, "training.accumulate": 2}


def test_failure_keeps_message_and_cure():
    data = diagnose_end([Failed("a.tif is torn", "Copy it again", 3)], "failed", "", RECIPE)
    assert data is not None
    assert (data.text, data.cure, data.recipe_changes) == ("a.tif is torn", "Copy it again", {})
    memory = Failed("The memory does not suffice", "Choose a smaller patch, batch or network", 4)
    one = RECIPE.override({"training.batch": 1})
    assert diagnose_end([memory], "failed", "", RECIPE).recipe_changes["training.batch"] == 8
    assert diagnose_end([memory], "failed", "", one).recipe_changes == {}
    assert diagnose_end([], "failed", "", RECIPE).code == "failed"
    assert diagnose_end([], "finished", "", RECIPE) is None


def test_every_change_is_a_valid_recipe():
    plan = {"facts": {"validation": 0, "object_diameter": None}, "runtime": {"cache": "disk"}}
    events = losses([0.7] * 30) + losses([math.nan] * 3, speed=1.0)
    for preset in ("instance_seg_2d", "labelfree_3d", "semantic_seg_2d"):
        recipe = load_preset(preset)
        for found in diagnose(events, plan, recipe):
            assert isinstance(recipe.override(found.recipe_changes), Recipe)
