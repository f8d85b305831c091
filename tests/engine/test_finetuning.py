"""Trainings that start from a trained model: what fits, what is adapted, what stays, what is learned faster."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy_frameworks as toys
import yaml
from safetensors.torch import load_file, save_file
from torch import nn
from training_world import Training, discs, same_state, sample, small_recipe, split_of

from im2im_core import api
from im2im_core.bundle import export_zip, open_bundle
from im2im_core.cli import main
from im2im_core.engine import planning, session
from im2im_core.engine.foreign import ForeignModel
from im2im_core.engine.frameworks.build import build_framework
from im2im_core.engine.layers import distances, ends_of, fits
from im2im_core.engine.networks import Network
from im2im_core.engine.planning import framework_of, make_plan
from im2im_core.engine.schedule import Budget
from im2im_core.engine.start import begin_from, with_channels
from im2im_core.engine.start_weights import read_start
from im2im_core.engine.train import StepModule
from im2im_core.engine.weights_file import read_state_dict
from im2im_core.errors import ConfigError, DataError, TrustError
from im2im_core.events import Losses, Message, Validated
from im2im_core.finetuning import finetuning_recipe, settings_of
from im2im_core.image import ArrayImage
from im2im_core.methods import methods_paragraph
from im2im_core.project import Project
from im2im_core.recipe import Recipe
from im2im_core.samples import Split

FIRST = "network.body.conv_0.conv_0.conv.weight"
LAST = ("network.body.final_conv.bias", "network.body.final_conv.weight")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
STILL = 1e-12
"""Learning rate with which a step changes no weight."""


def taught(model: Path | str, preset: str = "watershed_2d", **changes: Any) -> Recipe:
    """Small recipe that starts from `model`; ``start__`` leads to the settings of the start."""
    named = {f"training__{k}" if k.startswith("start__") else k: v for k, v in changes.items()}
    start = {"kind": "model", "model": str(model)}
    return small_recipe(preset, **{"training__start": start, **named})


@pytest.fixture(autouse=True)
def _no_export(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles are written where they are looked at."""
    if "exported" not in request.fixturenames:
        monkeypatch.setattr(session._Session, "_export", lambda *_: None)


@pytest.fixture
def exported() -> None:
    """Let the bundle be written."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run that learned discs, with its package in ``model``."""
    training = Training(tmp_path_factory.mktemp("runs") / "discs", small_recipe(training__steps=60), split_of())
    training.run()
    training.recipe.to_file(training.folder / "recipe.yaml")
    return training.folder


@pytest.fixture(scope="module")
def weights(model: Path) -> dict[str, torch.Tensor]:
    return load_file(model / "model" / "weights.safetensors")


def fresh(recipe: Recipe, split: Split | None = None) -> tuple[Any, Any]:
    """Framework with random weights, and the facts of its images."""
    facts = make_plan(recipe.override({"training.start": {"kind": "new"}}), split or split_of()).facts
    return framework_of(recipe, facts), facts


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], names: Any = None) -> bool:
    return all(torch.equal(one[n], other[n]) for n in (names or one))


# ---- what it can start from ----


def foreign_package(folder: Path, state: dict[str, Any], callable_: str = "BasicUNet") -> Path:
    """Package of another tool: a network of MONAI with its state dict."""
    folder.mkdir()
    torch.save(state, folder / "state.pt")
    kwargs = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "features": [8, 8, 8, 16, 16, 8], "norm": "batch"}
    space = [{"type": "space", "id": a, "size": {"min": 32, "step": 16}} for a in "yx"]
    out = [{"type": "space", "id": a, "size": {"tensor_id": "raw", "axis_id": a}} for a in "yx"]
    steps = [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["y", "x"]}}]
    content = {
        "format_version": "0.5.3",
        "type": "model",
        "name": "theirs",
        "inputs": [
            {
                "id": "raw",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["c"]}, *space],
                "preprocessing": steps,
            }
        ],
        "outputs": [{"id": "out", "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["a", "b"]}, *out]}],
        "weights": {
            "pytorch_state_dict": {
                "source": "state.pt",
                "sha256": hashlib.sha256((folder / "state.pt").read_bytes()).hexdigest(),
                "pytorch_version": "2.0",
                "architecture": {"import_from": "monai.networks.nets", "callable": callable_, "kwargs": kwargs},
            }
        },
    }
    (folder / "rdf.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.mark.parametrize("kind", ["run", "folder", "zip", "safetensors", "state dict", "checkpoint of a program"])
def test_all_kinds_of_models_give_their_weights(
    tmp_path: Path, model: Path, weights: dict[str, torch.Tensor], kind: str
) -> None:
    bare = {name.removeprefix("network.body."): value for name, value in weights.items()}
    if kind == "zip":
        export_zip(model / "model", tmp_path / "m.zip")
    save_file(weights, tmp_path / "w.safetensors")
    torch.save(bare, tmp_path / "bare.pt")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in bare.items()}}, tmp_path / "program.ckpt")
    files = {"zip": "m.zip", "safetensors": "w.safetensors", "state dict": "bare.pt"}
    inside = {"run": model, "folder": model / "model"}
    source = inside.get(kind, tmp_path / files.get(kind, "program.ckpt"))
    recipe = taught(source)
    framework, facts = fresh(recipe)
    begun = begin_from(framework, recipe, facts.voxel_size, None)
    assert equal(weights, framework.state_dict())
    hashed = {"run": model / "model/weights.safetensors", "folder": model / "model/weights.safetensors"}
    hashed["zip"] = hashed["run"]
    assert begun is not None
    assert begun.sha256 == hashlib.sha256(hashed.get(kind, source).read_bytes()).hexdigest()


def test_a_state_dict_of_another_tool_brings_its_network_and_normalisation(tmp_path: Path) -> None:
    from monai.networks.nets.basic_unet import BasicUNet

    theirs = BasicUNet(2, 1, 2, features=(8, 8, 8, 16, 16, 8), norm="batch")
    package = foreign_package(tmp_path / "theirs", theirs.state_dict())
    with pytest.raises(ConfigError, match="does not say what it is for"):
        finetuning_recipe(package)
    recipe = finetuning_recipe(package, base=small_recipe())
    assert recipe.data.normalization.kind == "zscore"
    assert (recipe.network.kind, recipe.network.divisor) == ("class", 16)  # type: ignore[union-attr]
    assert "in_channels" not in recipe.network.init_args  # type: ignore[union-attr]
    framework, facts = fresh(recipe)
    begin_from(framework, recipe, facts.voxel_size, None)
    assert equal(theirs.state_dict(), framework.network.body.state_dict())
    training = Training(tmp_path / "run", recipe.override({"training.steps": 2}))
    assert training.run().state == "finished"


def test_a_package_that_can_only_predict_is_refused(tmp_path: Path) -> None:
    package = foreign_package(tmp_path / "theirs", {})
    content = yaml.safe_load((package / "rdf.yaml").read_text())
    content["weights"] = {"torchscript": content["weights"]["pytorch_state_dict"]}
    (package / "rdf.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"no weights that can be trained on; it has torchscript.*can only predict"):
        read_start(package)


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (Path.touch, (self.canary,))


def test_fault_30_nothing_is_unpickled_and_nothing_grows(tmp_path: Path) -> None:
    torch.save({"weight": Evil(tmp_path / "canary")}, tmp_path / "evil.pt")
    with pytest.raises(TrustError, match="more than weights"):
        read_start(tmp_path / "evil.pt")
    assert not (tmp_path / "canary").exists()
    torch.save({"weight": torch.zeros(1).expand(1 << 40)}, tmp_path / "wide.pt")
    with pytest.raises(TrustError, match="not a plain array"):
        read_start(tmp_path / "wide.pt")
    torch.save({"weight": torch.zeros(1 << 16)}, tmp_path / "stored.pt")
    packed = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "stored.pt") as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(TrustError, match="unpacks to more than its size"):
        read_state_dict(packed.getvalue(), "bomb.pt")
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    with pytest.raises(TrustError, match="no state dict"):
        read_start(tmp_path / "list.pt")
    (tmp_path / "w.safetensors").write_bytes(b"no weights")
    with pytest.raises(TrustError, match="not a safetensors file"):
        read_start(tmp_path / "w.safetensors")


def test_a_model_that_vanished_or_was_exchanged_is_named(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    source = tmp_path / "w.safetensors"
    with pytest.raises(DataError, match=r"is not there: .*w\.safetensors.*Put it back.*training\.start\.kind to new"):
        Training(tmp_path / "run", taught(source)).run()
    save_file(weights, source)
    plan = make_plan(taught(source), split_of())
    assert plan.recipe.training.start.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()  # type: ignore[union-attr]
    assert plan.recipe.training.start.sha256[:12] in plan.reasons["training.start"]  # type: ignore[union-attr]
    save_file({name: value + 1 for name, value in weights.items()}, source)
    with pytest.raises(DataError, match=r"have sha256 .*, the recipe says .*set training\.start\.sha256 to null"):
        Training(tmp_path / "other", plan.recipe, plan=plan).run()


# ---- what fits ----


def test_layers_that_do_not_fit_are_listed_with_both_shapes(tmp_path: Path, model: Path) -> None:
    with pytest.raises(DataError) as error:
        make_plan(taught(model, network__features=[8, 8, 8, 16, 24, 8]), split_of())
    down = "network.body.down_4.convs.conv_0.conv.weight"
    assert f"{down} is 16 x 16 x 3 x 3 in the model, 24 x 16 x 3 x 3 here" in error.value.message
    assert f"im2im finetune {model} DATA" in error.value.cure
    save_file({"network.body.unknown": torch.zeros(3), FIRST: torch.zeros(8, 1, 3, 3)}, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=r"final_conv\.bias.* 2 is missing in the model|and \d+ more"):
        make_plan(taught(tmp_path / "w.safetensors"), split_of())


def test_what_is_missing_or_unknown_is_listed(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    changed = {name: value for name, value in weights.items() if name != LAST[0]}
    save_file({**changed, "network.body.more": torch.zeros(2, 3)}, tmp_path / "w.safetensors")
    with pytest.raises(DataError) as error:
        make_plan(taught(tmp_path / "w.safetensors"), split_of())
    assert error.value.message.startswith("2 layers of")
    assert f"{LAST[0]} 2 is missing in the model" in error.value.message
    assert "network.body.more 2 x 3 is not known here" in error.value.message


def two_channels() -> Split:
    """Discs in two channels."""
    parts = []
    for seed in range(4):
        image, labels = discs(seed)
        both = ArrayImage(np.stack([image, image]), "CYX", name=f"{seed}", identity=f"{seed}")
        parts.append(replace(sample(f"discs_{seed}", image, labels), source=both))
    return Split(tuple(parts[:3]), tuple(parts[3:]), reason="named")


def test_images_with_more_channels_need_a_word(tmp_path: Path, model: Path, weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(DataError, match=r"is 8 x 1 x 3 x 3 in the model, 8 x 2 x 3 x 3 here.*Set training.start.input"):
        make_plan(taught(model), two_channels())
    recipe = taught(model, start__input_layer="average", training__optimizer__lr=STILL)
    training = Training(tmp_path / "run", recipe, two_channels())
    training.pause_after(1)
    said = next(m.text for m in training.of(Message) if m.code == "taught_on")
    assert f"{FIRST} averaged from 1 to 2 channels" in said
    learned = training.checkpoint.weights[f"model.{FIRST}"]
    torch.testing.assert_close(learned, weights[FIRST].expand(-1, 2, -1, -1) / 2)


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize(("before", "after", "folded"), [(1, 3, 1), (3, 1, 1), (2, 3, 4), (3, 2, 4)])
def test_equal_channels_give_what_they_gave(average: bool, before: int, after: int, folded: int) -> None:
    """Where all weights of a channel are alike; and always where channels are averaged or only added."""
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(5, before * folded, 3, 3, generator=rng)
    if not average and after < before:
        weight = weight[:, :folded].repeat(1, before, 1, 1)
    adapted = with_channels(weight, after * folded, folded, average)
    pixels = torch.randn(1, folded, 8, 8, generator=rng)
    expected = nn.functional.conv2d(pixels.repeat(1, before, 1, 1), weight)
    found = nn.functional.conv2d(pixels.repeat(1, after, 1, 1), adapted)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    if not average and after > before:
        times = -(-after // before)  # the first channel comes again most often
        torch.testing.assert_close(adapted[:, :folded] * times, weight[:, :folded])


def three_classes(seed: int = 0) -> Split:
    made = []
    for number in range(seed, seed + 4):
        image, labels = discs(number)
        made.append(sample(f"three_{number}", image, np.where(labels > 0, 1 + labels % 2, 0).astype(np.uint8)))
    return Split(tuple(made[:3]), tuple(made[3:]), reason="named")


@pytest.mark.parametrize("stem", [1, 2])
def test_new_classes_get_new_last_layers(tmp_path: Path, stem: int) -> None:
    preset = "semantic_seg_2d"
    first = Training(tmp_path / "first", small_recipe(preset, network__stem=stem), split_of(task="classes"))
    first.pause_after(2)
    known = {k.removeprefix("model."): v for k, v in first.checkpoint.weights.items() if k.startswith("model.")}
    source = tmp_path / "w.safetensors"
    save_file(known, source)
    with pytest.raises(DataError, match=r"2 in the model, .*3 here|Set training\.start\.output_layer to new"):
        make_plan(taught(source, preset, network__stem=stem), three_classes())
    with pytest.raises(DataError, match="3 classes, the model that is taught on makes 2"):
        make_plan(taught(source, preset, network__stem=stem, framework__classes=2), three_classes())
    recipe = taught(source, preset, network__stem=stem, start__output_layer="new", training__optimizer__lr=STILL)
    second = Training(tmp_path / "second", recipe, three_classes())
    second.pause_after(1)
    learned = {k.removeprefix("model."): v for k, v in second.checkpoint.weights.items() if k.startswith("model.")}
    new = {name for name in known if known[name].shape != learned[name].shape}
    assert {name.rsplit(".", 2)[-2] for name in new} == {"final_conv"}
    same = [name for name in known if name not in new and not name.endswith(STATISTICS)]
    assert all(torch.allclose(known[name], learned[name], atol=1e-8) for name in same)
    said = next(m.text for m in second.of(Message) if m.code == "taught_on")
    assert f"new for {3 * stem**2} outputs" in said


def test_another_framework_starts_from_the_same_network(tmp_path: Path, model: Path) -> None:
    recipe = taught(model, "labelfree_2d", start__output_layer="new")
    training = Training(tmp_path / "run", recipe, split_of(task="image"))
    assert training.run().state == "finished"
    channels = {"data.target_channels": None, "framework.output_channels": 3}
    with pytest.raises(DataError, match=r"1 target channels, .* makes 3.*framework\.output_channels to 1"):
        make_plan(recipe.override(channels), split_of(task="image"))


@pytest.mark.parametrize("kind", ["unet", "dynunet", "attention_unet"])
def test_ends_are_found_in_every_network(kind: str) -> None:
    sizes = {"dynunet": {"network.filters": [4, 8, 8]}}.get(kind, {"network.channels": [4, 8]})
    recipe = small_recipe().override({"network.kind": kind, **sizes})
    framework, facts = fresh(recipe)
    ends = ends_of(framework, recipe.network, 2, facts.voxel_size)
    own = framework.state_dict()
    assert ends.inputs
    assert ends.outputs
    assert all(own[name].shape[1] == 1 and own[name].ndim == 4 for name in ends.inputs)
    assert all(2 in own[name].shape[:2] for name in ends.outputs if own[name].ndim)
    assert not ends.inputs & ends.outputs


def test_a_branched_network_has_an_end_for_each_branch() -> None:
    recipe = small_recipe("instance_seg_2d", framework__branched=True)
    framework, facts = fresh(recipe)
    ends = ends_of(framework, recipe.network, 2, facts.voxel_size)
    own = framework.state_dict()
    assert [own[name].shape[1] for name in ends.inputs] == [1]
    assert sorted(own[name].shape[0] for name in ends.outputs if own[name].ndim > 1) == [1, 4]


# ---- what learns, and how fast ----


def test_frozen_parameters_stay_to_the_bit(tmp_path: Path, model: Path, weights: dict[str, torch.Tensor]) -> None:
    training = Training(tmp_path / "run", taught(model, start__freeze=["*.conv_0.conv_*", "re:.*down_[12]\\..*"]))
    training.run()
    found = training.checkpoint.weights
    places = tuple(f"network.body.{name}." for name in ("conv_0", "down_1", "down_2"))
    frozen = [name for name in weights if name.startswith(places)]
    assert len(frozen) > 20
    for copy in ("model.", "ema."):
        assert all(torch.equal(found[copy + name], weights[name]) for name in frozen)
    moving = [n for n in weights if n not in frozen and not n.endswith(STATISTICS)]
    assert not any(torch.equal(found[f"model.{n}"], weights[n]) for n in moving)
    held = sum(len(g["params"]) for o in training.checkpoint.state["optimizers"] for g in o["param_groups"])
    assert held == len(moving)
    said = next(m.text for m in training.of(Message) if m.code == "taught_on")
    total = len([n for n in weights if not n.endswith(STATISTICS)])
    assert f"{total - held} of {total} parameters frozen" in said


@pytest.mark.parametrize(("statistics", "first", "others"), [("follow", False, False), ("keep", True, True)])
def test_statistics_follow_or_are_kept(
    tmp_path: Path, model: Path, weights: dict[str, torch.Tensor], statistics: str, first: bool, others: bool
) -> None:
    recipe = taught(model, start__freeze=["network.body.conv_0.*"], start__statistics=statistics)
    training = Training(tmp_path / "run", recipe)
    training.pause_after(2)
    for name in (n for n in weights if n.endswith("running_mean")):
        kept = torch.equal(training.checkpoint.weights[f"model.{name}"], weights[name])
        assert kept == (first if name.startswith("network.body.conv_0.") else others), name


def test_patterns_that_mean_nothing_or_everything_are_refused(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"no parameter is called 'network.body.conv_9.\*'.*Did you mean"):
        make_plan(taught(model, start__freeze=["network.body.conv_9.*"]), split_of())
    with pytest.raises(ConfigError, match=r"training.start.rates: no parameter is called 'nothing'"):
        make_plan(taught(model, start__rates={"nothing": 0.1}), split_of())
    with pytest.raises(ConfigError, match="leaves nothing of network that could learn"):
        make_plan(taught(model, start__freeze=["*"]), split_of())
    with pytest.raises(ConfigError, match="is not a regular expression"):
        taught(model, start__freeze=["re:("])


def test_patterns_fit_whole_names() -> None:
    assert fits("a.*", "a.b.c")
    assert not fits("a", "a.b")
    assert fits("re:a\\.[bc]", "a.c")
    assert not fits("re:a", "a.c")


class Chain(nn.Module):
    """Two branches into a norm and a last layer; made in another order than it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(2, 1, 1)
        self.norm = nn.BatchNorm2d(2)
        self.second = nn.Conv2d(2, 2, 3, padding=1)
        self.first = nn.Conv2d(1, 2, 3, padding=1)
        self.unused = nn.Conv2d(1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(self.norm(self.second(self.first(x))))
        return y


def test_depth_is_the_order_of_a_prediction() -> None:
    owner = nn.Module()
    owner.network = Network(Chain(), 2, 1, (1,), (1, 1))
    owner.elsewhere = nn.Linear(2, 2)
    found = distances(owner, 2)
    depth = {"last": 0, "norm": 1, "second": 1, "first": 2, "unused": 0}
    expected = {f"network.body.{n}.{p}": d for n, d in depth.items() for p in ("weight", "bias")}
    assert found == {**expected, "elsewhere.weight": 0, "elsewhere.bias": 0}


def test_learning_rates_stand_in_the_groups_of_the_optimizer(tmp_path: Path, model: Path) -> None:
    lr, decay, rate = 0.01, 0.9, 0.5
    recipe = taught(
        model,
        start__decay=decay,
        start__rates={"*.conv_0.conv_0.conv.*": rate, "*": 1.0},
        training__optimizer__lr=lr,
        training__scheduler__kind="constant",
    )
    training = Training(tmp_path / "run", recipe)
    training.pause_after(2)
    framework, _ = fresh(recipe)
    module = StepModule(framework, recipe, None, Budget(1, None), lambda _: None)
    (optimizer,) = module.configure_optimizers()
    by_name = dict(framework.named_parameters())
    found = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    away = distances(framework, 2)
    assert max(away.values()) > 10
    for name, parameter in by_name.items():
        own = rate if fits("*.conv_0.conv_0.conv.*", name) else 1.0
        assert found[id(parameter)] == pytest.approx(lr * decay ** away[name] * own)
    assert found[id(by_name[LAST[1]])] == lr
    groups = training.checkpoint.state["optimizers"][0]["param_groups"]
    assert sorted(g["initial_lr"] for g in groups) == pytest.approx(sorted(g["lr"] for g in optimizer.param_groups))
    assert {e.learning_rate for e in training.of(Losses)} == {lr}


def test_no_player_wakes_the_frozen_parameters_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gan(recipe: Recipe, facts: Any) -> Any:
        return build_framework(toys.Gan(), recipe.network, planning.shapes_of(recipe, facts))

    for module in (planning, session):
        monkeypatch.setattr(module, "framework_of", gan)
    split = split_of(task="image")
    first = Training(tmp_path / "first", small_recipe("labelfree_2d"), split)
    first.pause_after(1)
    known = {k.removeprefix("model."): v for k, v in first.checkpoint.weights.items() if k.startswith("model.")}
    save_file(known, tmp_path / "w.safetensors")
    recipe = taught(tmp_path / "w.safetensors", "labelfree_2d", start__freeze=["judge.0.*"])
    training = Training(tmp_path / "run", recipe, split)
    training.run()
    found = training.checkpoint.weights
    assert torch.equal(found["model.judge.0.weight"], known["judge.0.weight"])
    assert not torch.equal(found["model.judge.2.weight"], known["judge.2.weight"])


# ---- a whole fine-tuning ----


def test_a_pause_changes_nothing_and_the_model_is_not_needed_any_more(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    source = tmp_path / "w.safetensors"
    save_file(weights, source)
    changes = {"start__freeze": ["*.conv_0.conv_0.*"], "start__decay": 0.8, "start__output_layer": "new"}
    recipe = taught(source, training__steps=6, **changes)
    once = Training(tmp_path / "once", recipe)
    once.run()
    plan = make_plan(recipe, split_of())
    paused = Training(tmp_path / "paused", plan.recipe, plan=plan)
    paused.pause_after(2)
    source.unlink()
    assert paused.run().state == "finished"
    assert same_state(once.checkpoint, paused.checkpoint)
    assert len([m for m in paused.of(Message) if m.code == "taught_on"]) == 1


def test_it_learns_faster_than_a_new_network(tmp_path: Path, model: Path) -> None:
    """Smaller discs on darker images: each network taught for three steps beats each new one taught for twelve."""

    def world(seed: int) -> Split:
        made = []
        for number in range(seed, seed + 4):
            image, labels = discs(number, radius=5)
            made.append(sample(f"dark_{number}", image * 0.5, labels))
        return Split(tuple(made[:3]), tuple(made[3:]), reason="named")

    def loss(name: str, recipe: Recipe, seed: int) -> float:
        training = Training(tmp_path / name, recipe.override({"training.seed": seed}), world(10 * seed))
        training.run()
        return float(training.of(Validated)[-1].values["total"])

    new = [loss(f"new_{n}", small_recipe(training__steps=12, training__validate_every=12), n) for n in range(2)]
    old = [loss(f"old_{n}", taught(model, training__steps=3, training__validate_every=3), n) for n in range(2)]
    assert max(old) < min(new)


def test_its_package_is_valid_and_says_what_it_came_from(tmp_path: Path, model: Path, exported: None) -> None:
    recipe = taught(model, start__freeze=["*.conv_0.conv_0.*"], start__decay=0.9)
    training = Training(tmp_path / "run", recipe)
    training.run()
    bundle = open_bundle(training.folder / "model")
    bundle.validate()
    assert ForeignModel(bundle, apart=False).check() < 1e-4
    digest = hashlib.sha256((model / "model/weights.safetensors").read_bytes()).hexdigest()
    sentence = f"Training started from the weights of the model “discs” (sha256 {digest})."
    card = (bundle.folder / "README.md").read_text()
    for words in (sentence, "`*.conv_0.conv_0.*` were frozen", "multiplied by 0.9"):
        assert words in card
    paragraph = methods_paragraph(make_plan(recipe, training.split).recipe)
    assert sentence in paragraph
    assert "Howard & Ruder. ACL" in paragraph


# ---- what follows from the model ----


def test_settings_follow_from_a_run_and_from_a_package(tmp_path: Path, model: Path) -> None:
    recipe = small_recipe(training__steps=60)
    for source in (model, model / "model"):
        found = finetuning_recipe(source)
        assert (found.task, found.network, found.framework.kind) == (recipe.task, recipe.network, "instance")
        assert (found.data.normalization, found.data.rescale) == (recipe.data.normalization, recipe.data.rescale)
        assert (found.data.patch, found.training.minutes) == ((32, 32), 5.0)
        assert found.training.taught_on == str(source)
        assert found.name == "discs-taught"
    own = {"data.normalization.kind": "zscore", "training.steps": 3, "network.dropout": 0.1}
    given = finetuning_recipe(model, own)
    assert (given.data.normalization.kind, given.training.steps, given.training.minutes) == ("zscore", 3, None)
    assert given.network == recipe.network.replace(dropout=0.1)
    (tmp_path / "w.safetensors").touch()
    assert settings_of(tmp_path / "w.safetensors") == {}


def test_the_parameters_of_a_model_are_listed(
    model: Path, weights: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["finetune", str(model), "--parameters"]) == 0
    assert f"{FIRST}  8 x 1 x 3 x 3\n" in capsys.readouterr().out
    assert main(["finetune", str(model), "--parameters", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {name: list(value.shape) for name, value in weights.items()}


def test_a_preset_of_another_task_keeps_its_framework(model: Path) -> None:
    found = finetuning_recipe(model, {"training.start.output_layer": "new"}, api.load_preset("labelfree_2d"))
    assert (found.task, found.framework.kind) == ("label_free", "fcn")
    assert found.network == small_recipe().network


def test_new_last_layers_let_the_images_decide_the_classes(tmp_path: Path) -> None:
    recipe = small_recipe("semantic_seg_2d", framework__classes=2)
    folder = tmp_path / "run"
    folder.mkdir()
    recipe.to_file(folder / "recipe.yaml")
    assert finetuning_recipe(folder).framework.classes == 2  # type: ignore[union-attr]
    new = finetuning_recipe(folder, {"training.start.output_layer": "new"})
    assert new.framework.classes == "auto"  # type: ignore[union-attr]


def test_objects_of_another_size_are_told(tmp_path: Path, model: Path, exported: None) -> None:
    made = []
    for seed in range(4):
        image, labels = discs(seed)
        made.append(sample(f"large_{seed}", image.repeat(2, 0).repeat(2, 1), labels.repeat(2, 0).repeat(2, 1)))
    split = Split(tuple(made[:3]), tuple(made[3:]), reason="named")
    plan = make_plan(taught(model, data__rescale={"kind": "none"}), split)
    (told,) = [m for m in plan.messages if m.code == "other_size"]
    assert "object_size" in told.cure
    rescaled = taught(model, data__rescale={"kind": "object_size", "diameter": 12.0})
    assert not [m for m in make_plan(rescaled, split).messages if m.code == "other_size"]


def test_a_run_records_what_it_started_from(tmp_path: Path, model: Path) -> None:
    project = Project.create(tmp_path / "project")
    shutil.copytree(model / "model", project.folder("models") / "discs")
    pairs = [discs(seed) for seed in range(4)]
    settings = {"training.steps": 2, "training.batch": 2, "training.threads": 1, "data.cache.kind": "memory"}
    run = api.finetune(project.root / "models" / "discs", pairs, settings=settings, project=project, name="again")
    start = run.recipe.training.start
    digest = hashlib.sha256((model / "model/weights.safetensors").read_bytes()).hexdigest()
    assert (run.state, start.kind, start.model, start.sha256) == ("finished", "model", "models/discs", digest)  # type: ignore[union-attr]
    again = api.train(run.recipe.override({"training.start.sha256": None}), project=project, plan=None, name="third")
    assert again.recipe.training.start == start


@pytest.mark.parametrize(("before", "now", "said"), [(0, 2, "4 .* new"), (2, 0, "4 .* dropped"), (1, 2, "2 .* new")])
def test_heads_of_deep_supervision_come_and_go(tmp_path: Path, before: int, now: int, said: str) -> None:
    network = {"network.kind": "dynunet", "network.filters": [4, 8, 8, 8]}
    file = tmp_path / "before.safetensors"
    first, facts = fresh(small_recipe("semantic_seg_2d", framework__deep_supervision=before).override(network))
    save_file({name: value.clone() for name, value in first.state_dict().items()}, file)
    recipe = taught(file, "semantic_seg_2d", framework__deep_supervision=now).override(network)
    second, _ = fresh(recipe)
    begun = begin_from(second, recipe, facts.voxel_size, None)
    assert begun is not None
    assert re.search(said, begun.text)
    shared = first.state_dict().keys() & second.state_dict().keys()
    assert len(shared) > 10
    assert equal(first.state_dict(), second.state_dict(), shared)


def test_layers_of_a_network_that_are_called_heads_must_fit(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    file = tmp_path / "theirs.safetensors"
    save_file({**weights, "network.body.heads.layers.0.weight": torch.zeros(1)}, file)
    recipe = taught(file)
    framework, facts = fresh(recipe)
    with pytest.raises(DataError, match=r"network\.body\.heads\.layers\.0\.weight"):
        begin_from(framework, recipe, facts.voxel_size, None)
