"""The plan on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from im2im_core.plans import Estimate, Facts, Plan, Runtime, plain
from im2im_core.recipe import Recipe

FACTS = Facts(3, 1, 0, "by group", (1, 64, 64), 12288, 1, 1, voxel_size=(None, 0.5, 0.5), object_diameter=12.5)


@pytest.mark.parametrize("estimate", [None, Estimate(0.5, 1.25, 3.0)])
def test_round_trip(tmp_path: Path, estimate: Estimate | None) -> None:
    recipe = Recipe().override({"data.patch": [32, 64], "training.steps": 20})
    plan = Plan(
        recipe, {"data.patch": "median image"}, FACTS, Runtime("cpu", 2, 1, "disk", 3), 20, 1.5, estimate, ("mind",)
    )
    plan.to_file(tmp_path / "plan.yaml")
    assert Plan.from_file(tmp_path / "plan.yaml") == plan


def test_the_file_is_plain_yaml(tmp_path: Path) -> None:
    Plan(Recipe(), {}, FACTS, Runtime()).to_file(tmp_path / "plan.yaml")
    text = (tmp_path / "plan.yaml").read_text()
    assert "!!" not in text
    assert "voxel_size" in text


def test_tuples_become_lists_all_the_way_down() -> None:
    assert plain({"a": (1, {"b": (2, (3,))})}) == {"a": [1, {"b": [2, [3]]}]}
