"""The page of losses names every loss where it belongs, and nothing that does not exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from im2im_core.recipe import Recipe
from im2im_core.recipe.fields import kind_of, union_classes
from im2im_core.recipe.losses import ClassesLoss, Dice, LossBase, LossSettings, ScheduleSettings, kinds_for

PAGE = (Path(__file__).parents[2] / "docs" / "losses.md").read_text(encoding="utf-8")


def kinds_in(title: str) -> list[str]:
    """First column of the table below a title."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


@pytest.mark.parametrize(("title", "output"), [("For images", "image"), ("For classes", "segmentation")])
def test_every_loss_stands_where_it_fits(title: str, output: str) -> None:
    shipped = {str(kind_of(c)) for c in get_args(LossSettings) if c.__module__.startswith("im2im_core.")}
    expected = [k for k in kinds_for(output) if k in shipped and k != "class"]  # type: ignore[arg-type]
    assert sorted(kinds_in(title)) == sorted(expected)
    assert "kind: class" in PAGE


def test_every_schedule_stands_there() -> None:
    assert kinds_in("Schedules") == [kind_of(c) for c in union_classes(ScheduleSettings)]


def test_settings_in_the_text_exist() -> None:
    fields = {name for cls in get_args(LossSettings) for name in cls.model_fields}
    for name in ("class_weights", "weights", "thickness", "errors", "gamma", "delta", "iterations", "schedule"):
        assert f"`{name}" in PAGE or f"{name}:" in PAGE
        assert name in fields


def test_the_example_is_a_recipe() -> None:
    example = yaml.safe_load(PAGE.split("```yaml\n")[1].split("```")[0])
    recipe = Recipe.load({"task": "semantic_segmentation", **example})
    assert [loss.kind for loss in recipe.framework.losses] == ["dice", "cross_entropy", "boundary"]  # type: ignore[union-attr]


def test_losses_without_a_word_of_what_they_fit_are_asked_for_both() -> None:
    from im2im_core.recipe.losses import outputs_of

    assert outputs_of(Dice()) == ("segmentation",)
    assert outputs_of(object()) == ("image", "segmentation")  # type: ignore[arg-type]
    for cls in get_args(LossSettings):
        if issubclass(cls, LossBase):
            assert (outputs_of(cls) == ("segmentation",)) == issubclass(cls, ClassesLoss)
