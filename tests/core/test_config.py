"""Every settings class: defaults hold, YAML comes back the same, wrong values are refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from im2im_core import inference, layouts, predict_options
from im2im_core._base import Config
from im2im_core.errors import ConfigError, ResourceError
from im2im_core.recipe import Recipe
from im2im_core.recipe.fields import documented_fields, union_classes

NEEDED: dict[str, dict[str, Any]] = {
    "ClassPath": {"class_path": "monai.transforms.RandGibbsNoise"},
    "ClassNetwork": {"class_path": "monai.networks.nets.SegResNet"},
    "TrainedModel": {"model": "runs/nuclei"},
    "ClassLoss": {"class_path": "torch.nn.L1Loss"},
    "ClassOptimizer": {"class_path": "torch.optim.RMSprop"},
    "ClassScheduler": {"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR"},
    "VoxelRescale": {"voxel_size": (1.0, 0.5, 0.5)},
    "DataSource": {"path": "more"},
}
"""What classes without defaults need."""


def below(cls: type[Config]) -> set[type[Config]]:
    found = {cls}
    for info in cls.model_fields.values():
        for child in union_classes(info.annotation) or nested(info.annotation):
            if child not in found:
                found |= below(child)
    return found


def nested(annotation: Any) -> tuple[Any, ...]:
    from typing import get_args

    return tuple(c for a in get_args(annotation) for c in union_classes(a))


CLASSES = sorted(below(Recipe) | below(predict_options.PredictOptions), key=lambda c: c.__name__)


def make(cls: type[Config]) -> Config:
    return cls(**NEEDED.get(cls.__name__, {}))


def test_all_settings_classes_are_found() -> None:
    assert len(CLASSES) > 40
    assert {c.__name__ for c in CLASSES} >= {"Recipe", "Dice", "OneCycle", "SuffixLayout", "ZScore", "DynUNet"}
    assert layouts.AutoLayout in CLASSES
    assert inference.Inference not in CLASSES


@pytest.mark.parametrize("cls", CLASSES)
def test_yaml_round_trip_of_the_full_content(cls: type[Config], tmp_path: Path) -> None:
    settings = make(cls)
    settings.to_file(tmp_path / "settings.yaml")
    assert cls.from_file(tmp_path / "settings.yaml") == settings
    assert set(settings.dump()) == set(cls.model_fields)


@pytest.mark.parametrize("cls", CLASSES)
def test_unknown_key_is_refused_and_the_nearest_is_named(cls: type[Config]) -> None:
    name = next(iter(cls.model_fields))
    with pytest.raises(ConfigError, match=f"unknown setting.*{name}"):
        cls.load({**NEEDED.get(cls.__name__, {}), f"{name}x": 1})


@pytest.mark.parametrize("cls", CLASSES)
def test_every_setting_is_documented(cls: type[Config]) -> None:
    undocumented = [
        n for n, info in documented_fields(cls).items() if not info.description and n not in ("kind", "path")
    ]
    assert undocumented == []
    assert cls.__doc__


@pytest.mark.parametrize("cls", CLASSES)
def test_settings_are_frozen(cls: type[Config]) -> None:
    settings = make(cls)
    name = next(iter(cls.model_fields))
    with pytest.raises(ValidationError):
        setattr(settings, name, getattr(settings, name))


@pytest.mark.parametrize("cls", CLASSES)
def test_kind_names_one_class_of_its_union(cls: type[Config]) -> None:
    for name, info in cls.model_fields.items():
        members = union_classes(info.annotation)
        kinds = [c.model_fields["kind"].default for c in members if "kind" in c.model_fields]
        assert len(kinds) == len(set(kinds)), name
        assert len(members) <= 1 or len(kinds) == len(members), name


def test_replace_validates_again() -> None:
    training = Recipe().training
    assert training.replace(accumulate=4).accumulate == 4
    with pytest.raises(ConfigError, match="greater than or equal to 1"):
        training.replace(accumulate=0)


def test_not_finite_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="finite"):
        Recipe().training.replace(minutes=float("inf"))


def test_content_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(ConfigError):
        Recipe.load([1, 2])


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        Recipe.from_file(tmp_path / "nothing.yaml")


def test_fault_07_file_in_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="Cannot write"):
        Recipe().to_file(tmp_path / "file" / "recipe.yaml")


def test_fault_39_any_file_name_will_do(tmp_path: Path) -> None:
    folder = tmp_path / "пробел ü 画像 #1 %"
    path = folder / f"{'x' * 200}.yaml"
    Recipe(name="画像").to_file(path)
    assert Recipe.from_file(path).name == "画像"
    assert [p.name for p in folder.iterdir()] == [path.name]
