"""A recipe in other words says the same: command, YAML, Python; and the methods paragraph says what happened."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from im2im_core import api
from im2im_core.commands.settings import override, split_settings
from im2im_core.methods import _CITATION, REFERENCES
from im2im_core.plans import Facts, Plan, Runtime
from im2im_core.recipe import Recipe
from im2im_core.recipe.fields import union_classes
from im2im_core.share import as_command, as_python, as_yaml, differences, methods_paragraph
from im2im_core.yamlfile import parse_yaml

PRESETS = [p.name for p in api.list_presets()]
CHANGES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "budget": {"training.minutes": 5},
    "no budget": {"training.epochs": None},
    "steps": {"training.steps": 7},
    "kind": {"training.optimizer.kind": "sgd"},
    "kind with values": {"training.optimizer.kind": "sgd", "training.optimizer.lr": 1e-5},
    "kind with a needed value": {
        "network.kind": "class",
        "network.class_path": "monai.networks.nets.SegResNet",
        "network.init_args": {"init_filters": 8, "text": "a: b, 'c'"},
    },
    "odd folder": {"data.path": "пробел ü 画像 #1 $HOME 'q' \"d\""},
    "folder like an option": {"data.path": "--detach"},
    "folder like a number": {"data.path": "2024"},
    "channels": {"data.input_channels": [0, "DAPI", "1"]},
    "empty text": {"data.layout.kind": "suffix", "data.layout.source_suffix": ""},
    "within": {"data.layout.kind": "presplit", "data.layout.inside.kind": "suffix"},
    "within, changed": {
        "data.layout.kind": "presplit",
        "data.layout.inside.kind": "suffix",
        "data.layout.inside.source_suffix": "_x",
    },
    "more": {"data.more": [{"path": "second"}]},
    "off": {"training.clip": None, "output.torchscript": False, "output.onnx": True, "data.augmentation.flip": False},
    "size": {"data.rescale.kind": "voxel_size", "data.rescale.voxel_size": [1.0, 0.25, 0.25]},
    "automatic": {"training.batch": "auto", "data.patch": "auto"},
    "text": {"training.device": "cuda:1"},
}


def typed(command: str) -> list[str]:
    """Settings of a command as a shell would pass them on."""
    words = shlex.split(command)
    assert words[:2] == ["im2im", "train"]
    return split_settings(words[2:])[1]


# ---- round trips ---------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_command_means_the_same_recipe(preset: str, change: dict[str, Any]) -> None:
    base = api.load_preset(preset)
    recipe = base.override(change)
    assert base.override(differences(recipe, base)) == recipe
    command = as_command(recipe, preset)
    assert override(base, typed(command)) == recipe
    assert "\n" not in command


@pytest.mark.parametrize("goal", PRESETS)
def test_any_preset_can_be_reached_from_any_other(goal: str) -> None:
    recipe = api.load_preset(goal)
    for preset in PRESETS:
        base = api.load_preset(preset)
        reached = override(base, typed(as_command(recipe, preset)))
        assert reached.replace(name=goal) == recipe


def test_command_names_only_what_differs() -> None:
    recipe = api.load_preset("instance_seg_2d").override({"training.minutes": 5, "data.path": "my images"})
    assert as_command(recipe, "instance_seg_2d") == (
        "im2im train instance_seg_2d --data.path 'my images' --training.minutes 5.0"
    )
    named = as_command(recipe.replace(name="mine"), "instance_seg_2d", data="/data", project="/work")
    assert named.startswith("im2im train instance_seg_2d --project /work --name mine --data.path /data ")


def test_command_with_a_plan_names_what_differs_from_the_plan(tmp_path: Path) -> None:
    plan = make_plan()
    plan.to_file(tmp_path / "a plan.yaml")
    command = as_command(plan.recipe.override({"training.seed": 3}), "labelfree_3d", plan=tmp_path / "a plan.yaml")
    assert shlex.split(command) == ["im2im", "train", "--plan", str(tmp_path / "a plan.yaml"), "--training.seed", "3"]


@pytest.mark.parametrize("preset", PRESETS)
def test_yaml_means_the_same_recipe(preset: str) -> None:
    recipe = api.load_preset(preset)
    text = as_yaml(recipe)
    assert Recipe.load(parse_yaml(text)) == recipe
    assert "# Learning rate (its peak where a schedule changes it)." in text


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_python_means_the_same_recipe(change: dict[str, Any]) -> None:
    recipe = api.load_preset("semantic_seg_2d").override({**change}).replace(name="mine")
    code = as_python(recipe, "semantic_seg_2d").split("run = ")[0]
    names: dict[str, Any] = {}
    exec(compile(code, "copied", "exec"), names)
    assert names["recipe"] == recipe


# ---- methods -------------------------------------------------------------------


def make_plan() -> Plan:
    recipe = api.load_preset("instance_seg_2d").override({"data.path": "images"})
    facts = Facts(
        training=12,
        validation=3,
        test=1,
        split="drawn by group",
        shape=(1, 256, 256),
        pixels=12 * 256**2,
        input_channels=1,
        target_channels=1,
        voxel_size=(None, 0.65, 0.65),
        object_diameter=17.2,
    )
    return Plan(recipe=recipe, reasons={}, facts=facts, runtime=Runtime(), steps=2880)


def test_methods_paragraph_says_what_a_reader_must_know() -> None:
    plan = make_plan()
    text = methods_paragraph(
        plan.recipe,
        plan=plan,
        metrics={"f1": 0.91234},
        versions={"napari-im2im": "9.8", "torch": "2.10", "monai": "1.6"},
    )
    for fact in (
        "instance segmentation in 2D",
        "Falk et al. 2019",
        "32, 32, 64, 128, 256, 32 channels",
        "1 input channel",
        "12 images were used for training, 3 for validation and 1 for testing (drawn by group)",
        "Y 0.65, X 0.65 µm",
        "17.2 px",
        "patches of 128 × 128 px in batches of 16",
        "mirroring, quarter turns, magnification between 0.7 and 1.4",
        "Loshchilov & Hutter 2019",
        "learning rate of 0.003, weight decay 0.0005 for 60 epochs (2880 steps)",
        "one cycle",
        "seed 0",
        "f1 0.9123",
        "napari-im2im 9.8 with PyTorch 2.10 (Paszke et al. 2019) and MONAI 1.6",
        "doi:10.1038/s41592-018-0261-2",
    ):
        assert fact in text
    body = text.split("\n\nReferences\n")[0]
    assert "\n" not in body
    assert "  " not in body
    assert not re.search(r"\b(None|auto|{|})", body)


@pytest.mark.parametrize("preset", PRESETS)
def test_methods_paragraph_of_a_recipe_alone(preset: str) -> None:
    text = methods_paragraph(api.load_preset(preset))
    assert text.startswith("For ")
    assert "trained" in text
    assert "None" not in text


def test_methods_paragraph_of_a_run(tmp_path: Path) -> None:
    from im2im_core.events import Finished, Validated
    from im2im_core.jobs.eventlog import EventLog
    from im2im_core.project import Project
    from im2im_core.runs import Run

    plan = make_plan()
    run = Run.create(Project.create(tmp_path / "project"), plan.recipe)
    assert "For instance segmentation" in methods_paragraph(run)
    run.write_plan(json.loads(json.dumps(plan.to_dict())))
    (run.folder / "environment.json").write_text(json.dumps({"versions": {"torch": "2.11"}, "python": "3.12.1"}))
    with EventLog(run, 1) as log:
        log.append(Validated(10, 1.0, {"f1": 0.5}, best=True))
        log.append(Validated(20, 2.0, {"f1": 0.4}))
    text = methods_paragraph(run)
    assert "12 images" in text
    assert "reached f1 0.5." in text
    assert "PyTorch 2.11 (Paszke et al. 2019) and Python 3.12.1" in text
    with EventLog(run, 1) as log:
        log.append(Finished(20, "model", {"f1": 0.6}))
    assert "reached f1 0.6." in methods_paragraph(run)


def test_every_citation_of_a_settings_class_has_a_reference() -> None:
    seen: set[str] = set()
    todo: list[Any] = [Recipe]
    while todo:
        cls = todo.pop()
        cited = set(_CITATION.findall(cls.__doc__ or ""))
        assert cited <= set(REFERENCES), cls
        seen |= cited
        for info in cls.model_fields.values():
            todo += [c for c in union_classes(info.annotation) if "Config" in [b.__name__ for b in c.__mro__]]
    assert len(seen) > 6


def test_no_augmentation_is_said() -> None:
    recipe = api.load_preset("labelfree_2d").override(
        {"data.augmentation.flip": False, "data.augmentation.rotate90": False}
    )
    assert "No augmentation was used." in methods_paragraph(recipe)
    plan = replace(make_plan(), recipe=recipe.override({"training.steps": 5}))
    assert "for 5 steps;" in methods_paragraph(recipe, plan=plan)
