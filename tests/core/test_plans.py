"""The plan on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from im2im_core.errors import ConfigError
from im2im_core.plans import Advice, Estimate, Facts, Plan, Runtime, plain
from im2im_core.recipe import Recipe

FACTS = Facts(3, 1, 0, "by group", (1, 64, 64), 12288, 1, 1, voxel_size=(None, 0.5, 0.5), object_diameter=12.5)


@pytest.mark.parametrize("estimate", [None, Estimate(0.5, 1.25, 3.0)])
def test_round_trip(tmp_path: Path, estimate: Estimate | None) -> None:
    recipe = Recipe().override({"data.patch": [32, 64], "training.steps": 20})
    runtime, advice = Runtime("cpu", 2, 1, "disk", 3), Advice("no_voxel_size", "There is none", "Enter it")
    plan = Plan(recipe, {"data.patch": "median image"}, FACTS, runtime, 20, 1.5, estimate, (advice,))
    plan.to_file(tmp_path / "plan.yaml")
    assert Plan.from_file(tmp_path / "plan.yaml") == plan


def test_the_file_is_plain_yaml(tmp_path: Path) -> None:
    Plan(Recipe(), {}, FACTS, Runtime()).to_file(tmp_path / "plan.yaml")
    text = (tmp_path / "plan.yaml").read_text()
    assert "!!" not in text
    assert "voxel_size" in text


def test_tuples_become_lists_all_the_way_down() -> None:
    assert plain({"a": (1, {"b": (2, (3,))})}) == {"a": [1, {"b": [2, [3]]}]}


@pytest.mark.parametrize(
    "content", ["[1, 2]", "just words", "recipe: {}", "{recipe: {}, facts: 3}", "", "{recipe: {}, facts: {age: 3}}"]
)
def test_a_file_that_is_no_plan_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"notes\.yaml is not a plan.*im2im plan"):
        Plan.from_file(path)


def test_a_recipe_is_no_plan_and_a_newer_plan_is_refused(tmp_path: Path) -> None:
    Recipe().to_file(tmp_path / "recipe.yaml")
    with pytest.raises(ConfigError, match="is not a plan"):
        Plan.from_file(tmp_path / "recipe.yaml")
    content = plain(PLAN.to_dict())
    assert next(iter(content)) == "schema_version"
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(content | {"schema_version": 99}))
    with pytest.raises(ConfigError, match="version 99"):
        Plan.from_file(tmp_path / "plan.yaml")
    del content["schema_version"]  # as the first plans were written
    assert Plan.from_dict(content) == PLAN


# ---- changed by hand ----

REASONS = {"data.patch": "median image", "training.validate_every": "twenty times in the budget"}
PLAN = Plan(
    Recipe().override(
        {"data.patch": [32, 32], "training.batch": 2, "training.steps": 200, "training.validate_every": 10}
    ),
    REASONS,
    FACTS,
    Runtime("cuda:1", 8, 3, "disk", 3),
    200,
    6.0,
    Estimate(0.5, 1.25, 3.0),
)


def changed(changes: dict[str, Any]) -> Plan:
    return PLAN.adapt(PLAN.recipe.override(changes))


@pytest.mark.parametrize(
    ("changes", "steps", "every"),
    [
        ({"training.steps": 40}, 40, 5),
        ({"training.epochs": 20}, 120, 6),
        ({"training.epochs": 20, "training.batch": 4}, 60, 5),
        ({"training.epochs": 20, "training.validate_every": 7}, 120, 7),
        ({"training.minutes": 3}, None, "auto"),
        ({"training.minutes": 3, "training.validate_every": 7}, None, 7),
        ({"training.seed": 3}, 200, 10),
    ],
)
def test_a_changed_budget_is_the_budget(changes: dict[str, Any], steps: int | None, every: Any) -> None:
    plan = changed(changes)
    assert (plan.steps, plan.recipe.training.validate_every) == (steps, every)
    assert plan.runtime == PLAN.runtime
    assert plan.estimate is None
    assert "data.patch" in plan.reasons


def test_a_budget_in_minutes_becomes_one_in_steps() -> None:
    plan = changed({"training.minutes": 3}).adapt(PLAN.recipe.override({"training.steps": 400}))
    assert (plan.steps, plan.recipe.training.minutes) == (400, None)


@pytest.mark.parametrize(
    ("name", "value", "attribute"),
    [
        ("training.device", "cpu", "device"),
        ("training.threads", 2, "threads"),
        ("training.workers", 0, "workers"),
        ("data.cache.kind", "memory", "cache"),
    ],
)
def test_device_threads_workers_and_cache_follow(name: str, value: Any, attribute: str) -> None:
    plan = changed({name: value})
    assert plan.runtime == replace(PLAN.runtime, **{attribute: value})
    assert changed({"training.seed": 3}).runtime == PLAN.runtime


def test_reasons_of_changed_settings_go_and_an_unchanged_recipe_changes_nothing() -> None:
    assert "data.patch" not in changed({"data.patch": [16, 16]}).reasons
    assert PLAN.adapt(PLAN.recipe) == PLAN
    with pytest.raises(ConfigError, match="no budget"):
        changed({"training.steps": None})
