"""Every automatic value is decided from the images, with a reason."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation
from training_world import CountedImage, discs, sample, small_recipe, split_of

from im2im_core import api
from im2im_core.engine import planning
from im2im_core.engine.devices import choose_device, lay_out
from im2im_core.engine.frameworks.build import divisor_of
from im2im_core.engine.networks import build_network
from im2im_core.engine.planning import fingerprint, labels, make_plan, runtime
from im2im_core.engine.session import plan_and_split, prepare_images
from im2im_core.errors import ConfigError, DataError, ResourceError
from im2im_core.image import ArrayImage
from im2im_core.plans import Plan
from im2im_core.project import Project
from im2im_core.recipe.network import DynUNet
from im2im_core.samples import Sample, Split


def volumes(voxel_size: tuple[Any, Any, Any], shape: tuple[int, ...] = (32, 48, 48)) -> Split:
    image, labels = discs(0, shape)
    source, target = (ArrayImage(a, "ZYX", voxel_size=voxel_size, identity=str(a.dtype)) for a in (image, labels))
    return Split((Sample("a", "a", source, {"target": target}),))


def test_facts() -> None:
    facts = fingerprint(small_recipe(), split_of(3, 1))
    assert (facts.training, facts.validation, facts.shape, facts.pixels) == (3, 1, (1, 48, 48), 3 * 48 * 48)
    assert (facts.input_channels, facts.target_channels, facts.smallest) == (1, 1, (1, 48, 48))
    assert facts.object_diameter == pytest.approx(2 * 6, abs=1.5)


def test_labels_in_unknown_regions_are_no_facts() -> None:
    image, labels = discs(0)
    weight = np.ones(image.shape, np.float32)
    weight[:, 30:] = 0
    spoiled = np.where(weight > 0, labels, 77).astype(np.uint16)
    recipe = small_recipe("semantic_seg_2d")
    classes = (labels > 0).astype(np.uint16)
    facts = fingerprint(recipe, Split((sample("a", image, np.where(weight > 0, classes, 77), weight),)))
    assert facts.classes == 2
    one, other = (fingerprint(small_recipe(), Split((sample("a", image, x, weight),))) for x in (labels, spoiled))
    assert one == other


def test_patch_and_batch_are_chosen_by_image_and_network() -> None:
    plan = make_plan(small_recipe(data__patch="auto", training__batch="auto"), split_of(2, 1, (100, 300)))
    assert plan.recipe.data.patch == (112, 128)
    assert plan.recipe.training.batch == 16
    assert "multiple of 16 x 16" in plan.reasons["data.patch"]
    assert "pixels per batch" in plan.reasons["training.batch"]


def test_a_patch_that_does_not_fit_the_network_is_refused_with_the_nearest_that_do() -> None:
    with pytest.raises(ConfigError, match=r"data.patch \(40, 32\) is not divisible by \(16, 16\).*Use 32 or 48 x 32"):
        make_plan(small_recipe(data__patch=[40, 32]), split_of())


@pytest.mark.parametrize(
    ("voxel", "stem", "flat"),
    [
        ((1.0, 1.0, 1.0), 1, [False] * 3),
        ((2.0, 1.0, 1.0), 1, [True, False, False]),
        ((5.0, 1.0, 1.0), 1, [True, True, False]),
        ((None,) * 3, 1, [False] * 3),
        ((2.0, 1.0, 1.0), 2, [False] * 3),  # behind a stem Y and X are twice as wide
        ((5.0, 1.0, 1.0), 2, [True, False, False]),
    ],
)
def test_flat_levels_follow_the_voxels(voxel: tuple[Any, Any, Any], stem: int, flat: list[bool]) -> None:
    changes = {"network.filters": [8, 8, 8], "network.stem": stem, "training.device": "cpu"}
    plan = make_plan(api.load_preset("instance_seg_3d").override(changes), volumes(voxel))
    network = plan.recipe.network
    assert isinstance(network, DynUNet)
    assert network.kernels == tuple((1, 3, 3) if level else (3, 3, 3) for level in flat)
    assert network.strides == ((1, 1, 1), *((1, 2, 2) if level else (2, 2, 2) for level in flat[:-1]))
    known = "times as deep as wide" if voxel[0] else "not known"
    assert known in plan.reasons["network.strides"] == plan.reasons["network.kernels"]


@pytest.mark.parametrize(("voxel", "depth"), [((2.5, 0.5, 0.5), 5), ((None, 1.0, 1.0), 1)])
def test_distances_within_objects_follow_the_voxels(voxel: tuple[Any, Any, Any], depth: float) -> None:
    recipe = api.load_preset("flows_3d").override({"network.filters": [8, 8, 8], "training.device": "cpu"})
    plan = make_plan(recipe, volumes(voxel))
    assert plan.recipe.framework.anisotropy == depth  # type: ignore[union-attr]
    assert ("times as deep" in plan.reasons["framework.anisotropy"]) == (None not in voxel)


def test_planes_have_no_depth() -> None:
    plan = make_plan(small_recipe("flows_2d"), split_of())
    assert plan.recipe.framework.anisotropy == 1  # type: ignore[union-attr]
    assert plan.reasons["framework.anisotropy"] == "planes are seen one by one"


def test_classes_come_from_the_labels() -> None:
    image, labels = discs(0)
    split = Split((sample("a", image, np.minimum(labels, 4)),))
    plan = make_plan(small_recipe("semantic_seg_2d"), split)
    assert plan.recipe.framework.classes == 5  # type: ignore[union-attr]
    assert plan.reasons["framework.classes"] == "labels go from 0 to 4"


def classes_in(*pictures: np.ndarray, name: str = "s") -> tuple[Sample, ...]:
    """Small images with these classes."""
    return tuple(sample(f"{name}{n}", np.zeros((16, 16), np.float32), p) for n, p in enumerate(pictures))


def painted(number: int) -> np.ndarray:
    """One pixel of a class on background."""
    picture = np.zeros((16, 16), np.uint8)
    picture[2, 3] = number
    return picture


@pytest.mark.parametrize("rare", ["training", "validation", "time"])
def test_a_rare_class_is_counted_wherever_it_is(rare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "LOOK_AT", 2)
    train = [painted(1) for _ in range(5)]
    validation = [painted(0)]
    if rare == "training":
        train[3] = painted(4)
    if rare == "validation":
        validation[0] = painted(4)
    split = Split(classes_in(*train), classes_in(*validation, name="v"))
    if rare == "time":
        times = np.stack([painted(0), painted(4)])
        source, target = (ArrayImage(a, "TYX", identity=str(a.dtype)) for a in (times.astype(np.float32), times))
        split = Split((Sample("a", "a", source, {"target": target}),))
    plan = make_plan(small_recipe("semantic_seg_2d"), split)
    assert plan.facts.classes == 5
    prepared = prepare_images(plan, split, tmp_path, lambda event: None, lambda: "")
    assert prepared.framework.shapes.classes == 5


def test_classes_of_test_images_and_of_unknown_regions_do_not_count() -> None:
    weight = np.ones((16, 16), np.float32)
    weight[:, :8] = 0
    hidden = sample("v", np.zeros((16, 16), np.float32), painted(9), weight)
    split = Split(classes_in(painted(1)), (hidden,), classes_in(painted(7), name="t"))
    assert fingerprint(small_recipe("semantic_seg_2d"), split).classes == 2
    sparse = small_recipe("semantic_seg_2d", data__labelling="sparse")
    assert fingerprint(sparse, Split(classes_in(painted(2)), classes_in(painted(4), name="v"))).classes == 4


def test_labels_are_not_all_read_where_their_number_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "LOOK_AT", 2)
    for preset, changes in (("semantic_seg_2d", {"framework__classes": 3}), ("watershed_2d", {})):
        split = split_of(6, 1, task="classes", wrap=CountedImage)
        fingerprint(small_recipe(preset, **changes), split)
        assert sum(s.targets["target"].reads for s in split.train) == 2
        assert split.validation[0].targets["target"].reads == 1  # is anything labelled in it?


def test_output_channels_come_from_the_targets() -> None:
    image, _ = discs(0)
    target = ArrayImage(np.stack([image] * 3), "CYX", identity="t")
    split = Split((Sample("a", "a", ArrayImage(image, "YX", identity="s"), {"target": target}),))
    assert make_plan(small_recipe("labelfree_2d"), split).recipe.framework.output_channels == 3  # type: ignore[union-attr]


def test_budgets() -> None:
    split = split_of(4, 1)  # 9216 pixels, 2048 per step
    per_epoch = 4 * 48 * 48 / (2 * 32 * 32)
    assert make_plan(small_recipe(training__epochs=10), split).steps == round(10 * per_epoch)
    assert make_plan(small_recipe(training__epochs=10, training__accumulate=2), split).steps == round(5 * per_epoch)
    assert make_plan(small_recipe(training__steps=17), split).steps == 17
    timed = make_plan(small_recipe(training__minutes=3), split)
    assert timed.steps is None
    assert timed.recipe.training.validate_every == "auto"
    auto = make_plan(small_recipe(training__steps=200), split)
    assert auto.recipe.training.validate_every == 10
    assert auto.steps_per_epoch == per_epoch


def test_without_a_budget_a_hundred_epochs() -> None:
    plan = make_plan(small_recipe(training__steps=None, training__epochs=None), split_of())
    assert plan.recipe.training.epochs == 100
    assert plan.reasons["training.epochs"] == "no budget was given"


def test_a_plan_is_resolved_whole_and_planning_it_again_changes_nothing() -> None:
    recipe = small_recipe(data__patch="auto", training__batch="auto", training__precision="auto")
    plan = make_plan(recipe, split_of())
    assert "auto" not in {str(plan.recipe.data.patch), str(plan.recipe.training.batch), plan.recipe.training.precision}
    again = make_plan(plan.recipe, split_of())
    assert again.recipe == plan.recipe
    assert Plan.from_dict(plan.to_dict()) == plan


@pytest.mark.parametrize(
    ("device", "has", "precision"),
    [
        ("cpu", set(), "fp32"),
        ("cpu", {"avx512"}, "fp32"),
        ("cpu", {"avx512", "avx512_bf16"}, "bf16"),
        ("cpu", {"amx_tile"}, "bf16"),
        ("cuda", set(), "fp32"),
        ("cuda", {"cuda"}, "bf16"),
        ("mps", {"avx512_bf16"}, "fp32"),
    ],
)
def test_half_precision_is_chosen_where_the_device_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, device: str, has: set[str], precision: str
) -> None:
    for feature in ("avx512", "avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{feature}_supported", lambda feature=feature: feature in has)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: "cuda" in has)
    monkeypatch.setattr(planning, "choose_device", lambda wanted: device)
    plan = make_plan(small_recipe(training__precision="auto"), split_of())
    assert plan.recipe.training.precision == precision
    assert device in plan.reasons["training.precision"]
    assert make_plan(small_recipe(training__precision="bf16"), split_of()).recipe.training.precision == "bf16"


@pytest.mark.parametrize("dimensions", [2, 3])
def test_kernels_are_laid_out_for_the_processor_and_mean_the_same(
    monkeypatch: pytest.MonkeyPatch, dimensions: int
) -> None:
    network = build_network(DynUNet(filters=(4, 8, 8)), dimensions, 2, 3).eval()
    x = torch.rand(1, 2, *network.divisor)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    expected = network(x)
    layout = torch.channels_last if dimensions == 2 else torch.channels_last_3d
    kernels = [p for p in network.parameters() if p.ndim == dimensions + 2 and min(p.shape[:2]) > 1 and p.shape[2] > 1]
    assert kernels
    for has, device, changed in ((False, "cpu", False), (True, "cuda", False), (True, "cpu", True)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda has=has: has)
        lay_out(network, device)
        assert all(p.is_contiguous(memory_format=layout) == changed for p in kernels)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize(
    ("memory", "disk", "workers", "kind"),
    [(4, 200, 0, "memory"), (4, 200, 2, "disk"), (1e-6, 200, 0, "disk"), (1e-6, 1e-6, 0, "rolling")],
)
def test_the_cache_is_chosen_by_size(memory: float, disk: float, workers: int, kind: str) -> None:
    recipe = small_recipe(
        data__cache__kind="auto",
        data__cache__memory_limit=memory,
        data__cache__disk_limit=disk,
        training__workers=workers,
    )
    runtime = make_plan(recipe, split_of(8)).runtime
    assert runtime.cache == kind
    assert (runtime.cache_held < 8) == (memory < 1)


@pytest.mark.parametrize("preset", ["watershed_2d", "restoration_2d"])
def test_a_cache_larger_than_the_free_disk_rolls(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe(preset, data__cache__kind="auto", data__cache__memory_limit=1e-6)
    task = "image" if preset == "restoration_2d" else "instance"
    split = split_of(4, task=task)
    folder = tmp_path / "cache"
    free = 10**9
    monkeypatch.setattr(runtime, "free_bytes", lambda path: free)
    plan = make_plan(recipe, split, cache_folder=folder)
    assert plan.runtime.cache == "disk"
    assert "data.cache.kind" not in plan.reasons
    free = 50_000
    rolling = make_plan(recipe, split, cache_folder=folder)
    assert rolling.runtime.cache == "rolling"
    assert re.search(r"take \S+ GB, 5e-05 GB are free in .*cache: a part", rolling.reasons["data.cache.kind"])
    prepare_images(plan, split, folder, lambda event: None, lambda: "")
    assert make_plan(recipe, split, cache_folder=folder).runtime.cache == "disk"  # it is there already
    more = Split((*split.train, *split_of(9, task=task).train[5:]))
    assert make_plan(recipe, more, cache_folder=folder).runtime.cache == "rolling"


def test_a_limit_of_the_cache_is_named_as_the_reason() -> None:
    recipe = small_recipe(data__cache__kind="auto", data__cache__memory_limit=1e-6, data__cache__disk_limit=1e-6)
    assert "more than the 1e-06 GB of data.cache.disk_limit" in make_plan(recipe, split_of()).reasons["data.cache.kind"]


def test_free_space_is_that_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(runtime, "free_bytes", lambda path: asked.append(path) or 1)
    recipe = small_recipe(data__cache__kind="auto", data__cache__memory_limit=1e-6)
    image, labels = discs(0)
    data = [(image, labels)] * 2
    project = Project.create(tmp_path)
    assert api.plan(recipe, data=data, project=project).runtime.cache == "rolling"
    assert set(asked) == {project.folder("cache")}


@pytest.mark.parametrize("name", ["gpu", "tpu", "cuda:x", "cuda:", "cpu:0", "", "CPU"])
def test_a_name_that_is_no_device_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no device .*Use auto, cpu"):
        choose_device(name)
    monkeypatch.setattr(planning, "fingerprint", lambda *_: pytest.fail("images were read"))
    with pytest.raises(ConfigError, match="no device"):
        make_plan(small_recipe(training__device=name), split_of())


@pytest.mark.parametrize(
    ("name", "count", "cure"),
    [
        ("cuda", 0, r"finds no CUDA device\. Use another device, or auto"),
        ("cuda:1", 1, r"finds only cuda:0\. Use another device, or auto"),
        ("cuda:7", 2, r"finds only cuda:0, cuda:1\. Use another device, or auto"),
        ("mps", 0, r"no Apple GPU\. Use another device, or auto"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, count: int, cure: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ResourceError, match=cure) as caught:
        choose_device(name)
    assert caught.value.exit_code == 4


def test_a_device_that_is_there_is_taken_as_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [choose_device(name) for name in ("cpu", "cuda", "cuda:1", "auto")] == ["cpu", "cuda", "cuda:1", "cuda"]


def test_prediction_checks_its_device_too() -> None:
    from im2im_core.engine import predict

    with pytest.raises(ConfigError, match="'gpu'"):
        predict.ready_device("gpu", None)
    assert predict.ready_device("cpu", None) == torch.device("cpu")


def test_warnings_before_the_start() -> None:
    messages = {m.code: m for m in make_plan(small_recipe(data__patch=[64, 64]), split_of(2, 0)).messages}
    assert set(messages) == {"not_validated", "no_voxel_size", "smaller_than_patch"}
    assert "smaller than the patch (64, 64)" in messages["smaller_than_patch"].text
    assert all(m.cure for m in messages.values())


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(DataError, match="no training images"):
        make_plan(small_recipe(), Split(()))
    image = ArrayImage(np.zeros((32, 32)), "YX")
    with pytest.raises(DataError, match="None of the 1 images has a target"):
        make_plan(small_recipe(), Split((Sample("a", "a", image),)))


def test_differing_channels_are_named() -> None:
    one, two = ArrayImage(np.zeros((32, 32)), "YX", name="one"), ArrayImage(np.zeros((2, 32, 32)), "CYX", name="two")
    samples = tuple(Sample(i.info.name, i.info.name, i, {"target": one}) for i in (one, two))
    with pytest.raises(DataError, match=r"one has 1, two has 2.*data.input_channels"):
        make_plan(small_recipe(), Split(samples))


def test_the_probe_measures_time_and_memory() -> None:
    plan = make_plan(small_recipe(training__steps=60), split_of(), probe=True)
    assert plan.estimate is not None
    assert plan.estimate.seconds_per_step > 0
    assert plan.estimate.minutes == pytest.approx(plan.estimate.seconds_per_step, abs=0.06)
    ticks = iter([0, 9, 10, 12, 20, 23])
    framework = planning.framework_of(plan.recipe, plan.facts)
    measured = planning.measure_steps(plan, framework, clock=lambda: float(next(ticks)))
    assert measured.seconds_per_step == 2  # the best of two, after one to warm up
    assert all(p.grad is None for p in framework.parameters())


def test_a_model_package_without_weights_is_refused_by_the_recipe() -> None:
    with pytest.raises(ConfigError, match=r"output.*TorchScript or ONNX"):
        small_recipe().override({"output.torchscript": False, "output.onnx": False})


def scaled_split(voxel: float, shape: tuple[int, int] = (48, 64)) -> Split:
    image, labels = discs(0, shape)
    size = (None, voxel, voxel)
    source, target = (ArrayImage(a, "YX", voxel_size=size, identity=str(a.dtype)) for a in (image, labels))
    return Split((Sample("a", "a", source, {"target": target}),))


def test_sizes_are_those_after_rescaling_to_a_voxel_size() -> None:
    recipe = small_recipe(data__rescale={"kind": "voxel_size", "voxel_size": [1, 1, 1]})
    plain, halved = (fingerprint(r, scaled_split(0.5)) for r in (small_recipe(), recipe))
    assert (halved.shape, halved.smallest, halved.pixels) == ((1, 24, 32), (1, 24, 32), 24 * 32)
    assert halved.voxel_size == (None, 1.0, 1.0)
    assert plain.object_diameter is not None
    assert halved.object_diameter == pytest.approx(plain.object_diameter / 2)
    with pytest.raises(DataError, match="has no voxel size"):
        fingerprint(recipe, split_of())


def test_sizes_are_those_after_rescaling_to_an_object_size() -> None:
    plain = fingerprint(small_recipe(), scaled_split(0.5))
    assert plain.object_diameter is not None
    wanted = 2 * plain.object_diameter
    recipe = small_recipe(data__rescale={"kind": "object_size", "diameter": wanted})
    facts = fingerprint(recipe, scaled_split(0.5))
    assert facts.object_diameter == pytest.approx(wanted)
    assert facts.voxel_size == (None, pytest.approx(0.25), pytest.approx(0.25))
    assert facts.shape == (1, 96, 128)
    with pytest.raises(ConfigError, match="restoration has no labels to measure"):
        fingerprint(small_recipe("restoration_2d", data__rescale={"kind": "object_size"}), split_of(task="image"))


def test_a_told_diameter_is_compared_with_that_of_the_training_after_rescaling(tmp_path: Path) -> None:
    from im2im_core.engine.session import describe, prepare_images
    from im2im_core.rescale import rescaling

    recipe = small_recipe(data__rescale={"kind": "voxel_size", "voxel_size": [1, 1, 1]})
    split = scaled_split(0.5)
    plan = make_plan(recipe, split)
    prepared = prepare_images(plan, split, tmp_path, lambda event: None, lambda: "")
    trained = describe(prepared, prepared.framework).input
    told = fingerprint(small_recipe(), split).object_diameter
    by_size = rescaling(trained, (None, 0.5, 0.5), 2)
    by_object = rescaling(trained, (None, None, None), 2, object_diameter=told)
    assert by_size.factor == (1.0, 0.5, 0.5)
    assert by_object.factor == pytest.approx(by_size.factor)


def test_the_cache_is_chosen_by_the_size_after_rescaling() -> None:
    def kind(voxel: float) -> str:
        rescale = {"kind": "voxel_size", "voxel_size": [1, voxel, voxel]}
        recipe = small_recipe(data__cache__kind="auto", data__cache__memory_limit=1e-4, data__rescale=rescale)
        return make_plan(recipe, scaled_split(1.0)).runtime.cache

    assert (kind(1.0), kind(0.25)) == ("memory", "disk")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 0.5, -1.0])
@pytest.mark.parametrize("preset", ["watershed_2d", "semantic_seg_2d"])
def test_fault_11_labels_that_are_none_are_a_data_error(preset: str, bad: float) -> None:
    image, labels = discs(0)
    wrong = labels.astype(np.float64)
    wrong[3, 4] = bad
    with pytest.raises(DataError, match=r"a GT: label .* (whole|negative)"):
        make_plan(small_recipe(preset), Split((sample("a", image, wrong),)))
    known = np.ones(image.shape, np.float32)
    known[3, 4] = 0
    make_plan(small_recipe(preset), Split((sample("a", image, np.minimum(wrong, 2), known),)))


def test_empty_targets_are_told() -> None:
    image, labels = discs(0)
    full, empty = (sample(n, image, a) for n, a in (("full", labels), ("empty", np.zeros_like(labels))))
    assert not [m for m in make_plan(small_recipe(), Split((full,))).messages if "labelled" in m.text]
    some = make_plan(small_recipe(), Split((full, empty, empty))).messages
    assert any("Nothing is labelled in 2 of 3 targets" in m.text for m in some)
    every = make_plan(small_recipe(), Split((empty,))).messages
    assert any("Nothing is labelled in any of the targets" in m.text for m in every)
    background = sample("a", image, np.ones_like(labels))
    sparse = make_plan(small_recipe(data__labelling="sparse"), Split((background,))).messages
    assert any("Nothing is labelled in any" in m.text for m in sparse)


INSTANCE_PRESETS = [p.name for p in api.list_presets() if p.task == "instance_segmentation"]


@pytest.mark.parametrize("preset", INSTANCE_PRESETS)
def test_scribbles_are_refused_with_the_cure_by_frameworks_that_need_whole_objects(preset: str) -> None:
    image, labels = discs(0, (48, 48) if preset.endswith("2d") else (32, 48, 48))
    recipe = small_recipe(preset, data__labelling="sparse")
    ring = binary_dilation(labels > 0, iterations=3) & (labels == 0)
    scribbles = np.where(labels > 0, labels + 1, 0).astype(np.uint16)
    whole = np.where(ring, 1, scribbles).astype(np.uint16)
    with pytest.raises(DataError, match=r"does not learn from scribbles\. Paint every object inside of a rectangle"):
        fingerprint(recipe, Split((sample("a", image, scribbles),)))
    assert fingerprint(recipe, Split((sample("a", image, scribbles), sample("b", image, whole)))).training == 2


def test_scribbles_teach_classes() -> None:
    image, labels = discs(0)
    scribbles = np.where(labels > 0, 2, 0).astype(np.uint16)
    scribbles[:2] = 1
    recipe = small_recipe("semantic_seg_2d", data__labelling="sparse")
    assert fingerprint(recipe, Split((sample("a", image, scribbles),))).classes == 2


def test_objects_cut_by_the_unknown_in_every_image_are_refused() -> None:
    image, labels = discs(0)
    weight = (labels > 0).astype(np.float32)
    with pytest.raises(DataError, match="unknown pixels touch all of them"):
        fingerprint(small_recipe(), Split((sample("a", image, labels, weight),)))


@pytest.mark.parametrize("preset", ["watershed_2d", "semantic_seg_2d"])
def test_validation_without_labels_is_told(preset: str) -> None:
    image, labels = discs(0)
    labels = np.minimum(labels, 1)
    full, empty = (sample(n, image, a) for n, a in (("full", labels), ("empty", np.zeros_like(labels))))

    def told(*validation: Sample) -> bool:
        plan = make_plan(small_recipe(preset), Split((full,), validation))
        assert plan.facts.validation_labelled == ("validation_not_labelled" not in {m.code for m in plan.messages})
        return not plan.facts.validation_labelled

    assert [told(empty), told(empty, full), told(full), told()] == [True, False, False, False]


def test_stacks_without_plane_distance_are_told() -> None:
    recipe = small_recipe("instance_seg_3d")
    assert any("how far apart their planes" in m.text for m in make_plan(recipe, volumes((None, 0.5, 0.5))).messages)
    assert not any("how far apart" in m.text for m in make_plan(recipe, volumes((1.0, 0.5, 0.5))).messages)
    assert any("no voxel size" in m.text for m in make_plan(recipe, volumes((None,) * 3)).messages)


def test_channel_names_come_from_the_images_and_reach_the_model() -> None:
    def named(*names: tuple[str, ...]) -> Split:
        labels = ArrayImage(discs(0)[1], "YX")
        images = [ArrayImage(np.random.rand(len(n) or 2, 48, 48), "CYX", channels=n, identity=str(n)) for n in names]
        return Split(tuple(Sample(str(i), str(i), image, {"target": labels}) for i, image in enumerate(images)))

    assert fingerprint(small_recipe(), named(("DAPI", "GFP"))).channels == ("DAPI", "GFP")
    assert fingerprint(small_recipe(), named(("DAPI", "GFP"), ("GFP", "DAPI"))).channels == ()
    assert fingerprint(small_recipe(), named(())).channels == ()


@pytest.mark.parametrize("stem", [1, 2])
@pytest.mark.parametrize("ratio", [1.0, 1.7, 2.0, 4.0, 9.0])
def test_a_plan_and_a_network_leave_z_alone_at_the_same_levels(ratio: float, stem: int) -> None:
    from im2im_core.engine.networks import build_network

    flat = {"network.kind": "dynunet", "network.filters": [8, 8, 8], "network.stem": stem}
    recipe = small_recipe("instance_seg_3d").override(flat)
    auto = build_network(recipe.network, 3, 1, 1, (ratio, 1.0, 1.0))
    planned = make_plan(recipe.override({"data.patch": "auto"}), volumes((ratio, 1.0, 1.0))).recipe.network
    assert build_network(planned, 3, 1, 1).divisor == auto.divisor


# ---- the self-configuring network ----

PAIRWISE = [f"{task}_{d}d" for task in ("labelfree", "restoration", "semantic_seg") for d in (2, 3)]


def blank(shape: tuple[int, ...], voxel: tuple[Any, Any, Any] = (None, None, None), count: int = 3) -> Split:
    """Samples of one size; nothing but their headers and a class matters."""
    axes = "ZYX"[-len(shape) :]
    target = np.zeros(shape, np.uint8)
    target[..., :2, :2] = 1
    return Split(
        tuple(
            Sample(
                f"s{n}",
                f"s{n}",
                ArrayImage(np.zeros(shape, np.float32), axes, voxel_size=voxel, identity=f"image {n}"),
                {"target": ArrayImage(target, axes, voxel_size=voxel, identity=f"target {n}")},
            )
            for n in range(count)
        )
    )


def planned(preset: str, split: Split, **changes: Any) -> tuple[Plan, DynUNet]:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    plan = make_plan(api.load_preset(preset).override({"training.device": "cpu", **named}), split)
    assert isinstance(plan.recipe.network, DynUNet)
    return plan, plan.recipe.network


@pytest.mark.parametrize("preset", PAIRWISE)
def test_pairwise_presets_plan_their_network_in_numbers_with_reasons(preset: str) -> None:
    shape = (64, 64) if preset.endswith("2d") else (16, 48, 48)
    plan, network = planned(preset, blank(shape, (1.0, 1.0, 1.0)))
    assert "auto" not in (network.filters, network.strides, network.kernels, plan.recipe.data.patch)
    assert len(network.filters) == len(network.strides) == len(network.kernels)
    names = {"network.filters", "network.strides", "network.kernels", "data.patch", "training.batch"}
    assert names <= set(plan.reasons)
    again = make_plan(plan.recipe, blank(shape, (1.0, 1.0, 1.0)))
    assert again.recipe == plan.recipe
    assert not names & set(again.reasons)


@pytest.mark.parametrize(
    ("preset", "shape", "voxel", "patch", "divisor"),
    [
        ("semantic_seg_2d", (512, 512), (None, 0.3, 0.3), (160, 160), (32, 32)),
        ("semantic_seg_2d", (40, 40), (None, None, None), (40, 40), (8, 8)),
        ("semantic_seg_2d", (9, 12), (None, None, None), (32, 32), (8, 8)),
        ("labelfree_3d", (80, 80, 80), (1.0, 1.0, 1.0), (64, 64, 64), (16, 16, 16)),
        ("labelfree_3d", (20, 512, 512), (2.0, 0.3, 0.3), (16, 112, 112), (4, 16, 16)),
        ("labelfree_3d", (1, 64, 64), (None, 0.3, 0.3), (1, 64, 64), (1, 16, 16)),
        ("labelfree_3d", (5, 6, 7), (None, None, None), (5, 16, 16), (1, 4, 4)),
        ("labelfree_3d", (40, 20, 20), (0.2, 1.0, 1.0), (40, 20, 20), (8, 4, 4)),
    ],
)
def test_any_images_give_a_valid_plan(
    preset: str, shape: tuple[int, ...], voxel: tuple[Any, Any, Any], patch: tuple[int, ...], divisor: tuple[int, ...]
) -> None:
    plan, _ = planned(preset, blank(shape, voxel))
    assert plan.recipe.patch_size == patch
    assert divisor_of(planning.framework_of(plan.recipe, plan.facts)) == divisor
    smaller = any(n < p for n, p in zip(shape, patch, strict=True))
    assert any(m.code == "smaller_than_patch" for m in plan.messages) == smaller


def test_reasons_of_a_stack_with_deep_voxels() -> None:
    plan, _ = planned("labelfree_3d", blank((20, 256, 256), (2.0, 0.3, 0.3)))
    said = plan.reasons
    assert (
        "Z twice, Y and X 4 times; voxels are 6.7 times as deep as wide, so Z waits until level 4"
        in (said["network.strides"])
    )
    assert "in levels 1 to 2" in said["network.kernels"]
    assert "20 x 256 x 256, the largest part with equal sides in micrometres" in said["data.patch"]
    assert said["network.filters"].startswith("5 levels, the lowest of 4 x 7 x 7 pixels")
    assert "odd" not in said["network.strides"]


@pytest.mark.parametrize(
    ("shape", "count", "batch", "reason"),
    [
        ((128, 128), 200, 8, "network.budget has room for 8 patches of 5"),
        ((128, 128), 80, 4, "5% of the pixels of the training images; network.budget has room for 8"),
        ((128, 128), 2, 2, "the fewest"),
    ],
)
def test_a_batch_is_as_large_as_budget_and_data_allow(
    shape: tuple[int, ...], count: int, batch: int, reason: str
) -> None:
    plan, _ = planned("labelfree_2d", blank(shape, count=count), network__budget=44)
    assert plan.recipe.patch_size == (128, 128)
    assert plan.recipe.batch_size == batch
    assert plan.reasons["training.batch"].startswith(reason)


def test_a_larger_budget_takes_larger_patches() -> None:
    patches = [
        planned("labelfree_2d", blank((700, 700)), network__budget=b)[0].recipe.patch_size[0] for b in (4, 64, 1000)
    ]
    assert patches == sorted(set(patches))


def test_what_is_given_is_kept() -> None:
    split = blank((100, 100))
    plan, network = planned("labelfree_2d", split, data__patch=[100, 40], training__batch=3)
    assert (plan.recipe.patch_size, plan.recipe.batch_size) == ((100, 40), 3)
    assert divisor_of(planning.framework_of(plan.recipe, plan.facts)) == (4, 8)
    assert "odd number" in plan.reasons["network.strides"]
    steps = [[1, 1], [2, 2], [2, 1]]
    plan, network = planned("labelfree_2d", split, network__strides=steps, network__first_filters=8)
    assert (network.strides, network.filters) == (((1, 1), (2, 2), (2, 1)), (8, 16, 32))
    assert plan.recipe.patch_size == (100, 100)
    assert "network.strides" not in plan.reasons
    _, network = planned("labelfree_2d", split, network__kernels=[[5, 5], [3, 3], [3, 3]])
    assert network.kernels == ((5, 5), (3, 3), (3, 3))
    assert network.strides == ((1, 1), (2, 2), (2, 2))


def test_a_stem_counts_in_patch_and_depth() -> None:
    plan, network = planned("labelfree_3d", blank((16, 128, 128), (2.0, 1.0, 1.0)), network__stem=2)
    assert network.strides[1] == (2, 2, 2)  # behind the stem voxels are cubes
    divisor = divisor_of(planning.framework_of(plan.recipe, plan.facts))
    assert all(p % d == 0 for p, d in zip(plan.recipe.patch_size, divisor, strict=True))
    assert plan.recipe.patch_size[1] > 96


def test_a_patch_too_odd_for_three_levels_is_refused_with_the_nearest_that_fit() -> None:
    with pytest.raises(ConfigError, match=r"data.patch \(33, 32\) is not divisible by \(4, 4\).*Use 32 or 36 x 32"):
        planned("labelfree_2d", blank((64, 64)), data__patch=[33, 32])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network.filters": [8, 8, 8], "network.strides": [[1, 1]] * 4}, "filters has 3 levels, strides has 4 levels"),
        ({"network.strides": [[1, 1, 1]] * 3}, r"network.strides has a level \(1, 1, 1\) but data.dimensions is 2"),
        ({"network.strides": [[2, 2]] * 3}, "the first level must be 1"),
        ({"network.kernels": [[3, 2]] * 3}, "size 2; use odd numbers"),
    ],
)
def test_levels_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        api.load_preset("labelfree_2d").override(changes)


@pytest.mark.parametrize("preset", ["labelfree_2d", "semantic_seg_3d"])
def test_the_device_changes_nothing_that_the_network_is_made_of(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    split = blank((64, 64) if preset.endswith("2d") else (16, 32, 32))
    cpu, _ = planned(preset, split, training__precision="fp32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    cuda, _ = planned(preset, split, training__precision="fp32", training__device="cuda")
    assert (cpu.runtime.device, cuda.runtime.device) == ("cpu", "cuda")
    assert cuda.recipe.replace(training=cpu.recipe.training) == cpu.recipe
    assert cuda.recipe.training.replace(device="cpu") == cpu.recipe.training
    assert cuda.reasons == cpu.reasons


# ---- planned once ----


@pytest.mark.parametrize("preset", ["semantic_seg_2d", "watershed_2d"])
def test_labels_of_divided_images_are_read_once(preset: str) -> None:
    image, labels_ = discs(0, (512, 96))
    target = (labels_ > 0).astype(np.uint8) if preset.startswith("semantic") else labels_
    whole = sample("a", image, target, wrap=CountedImage)
    recipe = api.load_preset(preset).override({"data.patch": "auto", "data.split.by": "block", "training.steps": 1})
    plan, split = plan_and_split(recipe, [whole], {})
    assert split.validation
    assert split.train[0].region is not None
    assert whole.targets["target"].reads == 1
    assert plan.recipe.patch_size[0] * 3 <= 512
    assert "data.patch" in plan.reasons


def test_a_class_between_two_blocks_is_counted() -> None:
    picture = np.zeros((512, 64), np.uint8)
    picture[::16] = 1
    for row in range(0, 512, 64):
        found = picture.copy()
        found[row, 3] = 4
        split = [sample("a", np.zeros(picture.shape, np.float32), found)]
        recipe = api.load_preset("semantic_seg_2d").override({"data.split.by": "block", "training.steps": 1})
        assert plan_and_split(recipe, split, {})[0].recipe.framework.classes == 5  # type: ignore[union-attr]


def test_blocks_lie_as_far_apart_as_the_patch_that_was_planned() -> None:
    recipe = api.load_preset("labelfree_2d").override({"data.split.by": "block", "training.steps": 1})
    plan, split = plan_and_split(recipe, list(blank((700, 64)).train), {})
    assert "a third of the image at most" in plan.reasons["data.patch"]
    spans = [s.region[3] for s in (split.train[0], split.validation[0]) if s.region is not None]
    first, second = sorted(spans, key=lambda s: s.start)
    assert second.start - first.stop == plan.recipe.patch_size[0] != 128


def test_an_image_too_small_to_be_divided_is_used_whole() -> None:
    plan, split = plan_and_split(api.load_preset("labelfree_2d"), list(blank((40, 40), count=1).train), {})
    assert not split.validation
    assert plan.recipe.patch_size == (40, 40)
    assert "third" not in plan.reasons["data.patch"]


@pytest.mark.skipif(sys.platform != "linux", reason="only the C library of Linux can be told")
def test_memory_that_a_training_frees_stays_with_it() -> None:
    """Arrays of a batch, made and freed again and again, need new pages only once."""
    program = """
import resource, sys
import numpy as np
from im2im_core.engine.devices import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def batch():
    return [np.ones(2**19, np.float32) for _ in range(8)]
batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {
        how: int(subprocess.run([sys.executable, "-c", program, how], capture_output=True, check=True).stdout)
        for how in ("kept", "freed")
    }
    assert faults["kept"] < faults["freed"] / 4
