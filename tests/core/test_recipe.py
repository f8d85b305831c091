"""The recipe: overrides, rules between sections, old versions, presets."""

from __future__ import annotations

from typing import Any

import pytest

from im2im_core import api
from im2im_core.errors import ConfigError
from im2im_core.recipe import SCHEMA_VERSION, FcnSettings, Recipe, migrations
from im2im_core.recipe.fields import walk
from im2im_core.recipe.start import TrainedModel


@pytest.mark.parametrize("preset", [p.name for p in api.list_presets()])
def test_presets_are_complete_recipes(preset: str) -> None:
    recipe = api.load_preset(preset)
    assert recipe.name == preset
    assert Recipe.load(recipe.dump()) == recipe
    assert str(recipe.data.dimensions) == preset[-2]
    info = next(p for p in api.list_presets() if p.name == preset)
    assert (info.task, info.framework) == (recipe.task, recipe.framework.kind)
    assert info.summary.endswith((".", ")."))


# ---- override ----


def test_override_by_dotted_name() -> None:
    recipe = Recipe().override({"training.minutes": 10, "data.augmentation.flip": False, "network.dropout": 0.2})
    assert recipe.training.minutes == 10
    assert recipe.data.augmentation.flip is False
    assert Recipe().data.augmentation.flip is True


def test_budgets_exclude_each_other() -> None:
    recipe = Recipe().override({"training.minutes": 10}).override({"training.steps": 5})
    assert (recipe.training.minutes, recipe.training.steps) == (None, 5)
    with pytest.raises(ConfigError, match="budget is given as steps and minutes"):
        Recipe.load({"training": {"steps": 3, "minutes": 2}})


def test_new_kind_resets_its_section() -> None:
    recipe = Recipe().override({"training.optimizer.lr": 0.5})
    assert recipe.override({"training.optimizer.kind": "adamw"}).training.optimizer.lr == 0.5
    assert recipe.override({"training.optimizer.kind": "sgd"}).training.optimizer.lr == 0.01


def test_kind_is_applied_before_its_settings_whatever_the_order() -> None:
    recipe = Recipe().override({"training.optimizer.momentum": 0.5, "training.optimizer.kind": "sgd"})
    assert recipe.training.optimizer.momentum == 0.5  # type: ignore[union-attr]


def test_settings_inside_lists_are_reached_by_number() -> None:
    recipe = Recipe().override({"framework.losses": [{"kind": "dice"}, {"kind": "focal"}]})
    changed = recipe.override({"framework.losses.1.gamma": 3.0})
    assert isinstance(changed.framework, FcnSettings)
    assert changed.framework.losses[1].gamma == 3.0  # type: ignore[union-attr]


def test_arguments_of_a_class_are_reached() -> None:
    changes = {"network.kind": "class", "network.class_path": "torch.nn.Conv2d", "network.init_args.bias": False}
    assert Recipe().override(changes).network.init_args == {"bias": False}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"trainng.minutes": 1}, "Did you mean 'training'"),
        ({"training.minuts": 1}, "Did you mean 'minutes'"),
        ({"training.minutes.deep": 1}, "training.minutes"),
        ({"training.optimizer.kind": "adamm"}, "adamm"),
        ({"training.optimizer.momentum": 1}, "momentum"),
        ({"training": 3}, "training"),
        ({"framework.losses.0.weight": 3}, "framework.losses"),
        ({"data.patch": [64]}, "has 1 sizes but data.dimensions is 2"),
        ({"task": "instance_segmentation"}, "cannot be learned by framework fcn"),
        ({"task": "restoration"}, "needs framework.output image"),
        ({"": 3}, "Unknown setting"),
    ],
)
def test_wrong_overrides_are_refused_in_words(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Recipe().override(changes)


@pytest.mark.parametrize("preset", [p.name for p in api.list_presets()])
def test_every_walked_setting_can_be_set_to_its_own_value(preset: str) -> None:
    recipe = api.load_preset(preset)
    content = recipe.dump()

    def at(name: str) -> Any:
        found: Any = content
        for part in name.split("."):
            found = found[part]
        return found

    names = [field.name for field in walk(recipe)]
    assert len(names) == len(set(names)) > 60
    for name in names:
        if at(name) is not None:
            assert recipe.override({name: at(name)}) == recipe, name


# ---- versions ----


def test_recipe_of_a_newer_program_is_refused() -> None:
    with pytest.raises(ConfigError, match="Update napari-im2im"):
        Recipe.load({"schema_version": SCHEMA_VERSION + 1})


@pytest.mark.parametrize("version", ["1", 0, -1, None, 1.5])
def test_version_must_be_a_number(version: Any) -> None:
    with pytest.raises(ConfigError, match="schema_version"):
        Recipe.load({"schema_version": version})


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, {"kind": "new"}), ("runs/nuclei", TrainedModel(model="runs/nuclei").dump())],
)
def test_a_path_to_start_from_became_a_choice(before: str | None, after: dict[str, Any]) -> None:
    old = {"schema_version": 1, "training": {"start_from": before, "seed": 3}}
    training = Recipe.load(old).training
    assert (training.start.dump(), training.seed, training.taught_on) == (after, 3, before)
    assert Recipe.load({"schema_version": 1, "training": {"seed": 3}}).training.taught_on is None
    assert old["training"] == {"start_from": before, "seed": 3}


@pytest.mark.parametrize(
    ("dimensions", "network", "expected"),
    [
        (
            3,
            {"filters": [8, 8, 8], "anisotropy": [True]},
            {
                "filters": (8, 8, 8),
                "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2)),
                "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)),
            },
        ),
        (
            2,
            {"filters": [8, 8, 8], "anisotropy": [False, False, False]},
            {"strides": ((1, 1), (2, 2), (2, 2)), "kernels": ((3, 3),) * 3},
        ),
        (3, {"filters": [8, 8, 8], "anisotropy": "auto"}, {"strides": "auto", "kernels": "auto"}),
        (3, {}, {"filters": (32, 64, 128, 256), "strides": "auto"}),
    ],
)
def test_flat_levels_of_the_first_version_become_kernels_and_strides(
    dimensions: int, network: dict[str, Any], expected: dict[str, Any]
) -> None:
    old = {
        "schema_version": 1,
        "data": {"dimensions": dimensions},
        "network": {"kind": "dynunet", **network},
    }
    found = Recipe.load(old)
    assert {name: getattr(found.network, name) for name in expected} == expected
    assert found.schema_version == SCHEMA_VERSION
    assert Recipe.load(found.dump()) == found
    assert old["network"] == {"kind": "dynunet", **network}


def test_other_networks_of_the_first_version_stay() -> None:
    old = {"schema_version": 1, "network": {"kind": "unet", "anisotropy": [True]}}
    assert Recipe.load(old).network.anisotropy == (True,)  # type: ignore[union-attr]
    assert Recipe.load({"schema_version": 1}).network == Recipe().network


def test_old_recipes_are_lifted_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(
        migrations,
        "MIGRATIONS",
        {
            1: lambda content: {**content, "b": content["a"] + 1},
            2: lambda content: {"c": content["b"] * 10},
        },
    )
    old = {"schema_version": 1, "a": 1}
    assert migrations.lift(old) == {"c": 20, "schema_version": 3}
    assert old == {"schema_version": 1, "a": 1}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"data.patch": [32, 4]}, "at least 8 pixels along Y and X"),
        ({"data.dimensions": 3, "data.patch": [1, 32, 7]}, "at least 8 pixels along Y and X"),
        ({"data.normalization.low": 99.9, "data.normalization.high": 1.0}, "low 99.9 is not below high 1"),
        ({"data.target_normalization.low": 50, "data.target_normalization.high": 50}, "low 50 is not below high 50"),
        ({"network.kind": "unet", "network.channels": [32]}, "network.channels.*at least 2"),
        ({"network.kind": "attention_unet", "network.channels": [32]}, "network.channels.*at least 2"),
    ],
)
def test_values_that_cannot_work_are_refused_by_the_settings(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Recipe().override(changes)


def test_a_patch_may_be_one_plane() -> None:
    assert Recipe().override({"data.dimensions": 3, "data.patch": [1, 8, 8]}).data.patch == (1, 8, 8)
