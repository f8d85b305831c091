"""From samples to batches: padding, unknown regions, images of any size, the same data for every worker count."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from training_world import Training, discs, same_state, sample, small_recipe, split_of

from im2im_core.engine import data
from im2im_core.engine.augment import Augmenter
from im2im_core.engine.data import cut
from im2im_core.engine.frameworks.contract import TargetSpec, TrainContext
from im2im_core.engine.planning import make_plan
from im2im_core.engine.prepare import Entry, items_of, median_diameter, prepare
from im2im_core.engine.sampling import batch_generator, window_around
from im2im_core.engine.session import Prepared, prepare_images
from im2im_core.errors import DataError
from im2im_core.image import ArrayImage
from im2im_core.normalize import Scaling
from im2im_core.recipe import Recipe
from im2im_core.samples import Split


def prepared(recipe: Recipe, split: Split, folder: Path) -> Prepared:
    torch.manual_seed(0)
    return prepare_images(make_plan(recipe, split), split, folder, lambda event: None, lambda: "")


# ---- cutting ----


@pytest.fixture
def numbers() -> Entry:
    """Pixels numbered 0 to 34 along Y and X, raw; one plane of targets, ten times as much."""
    source = np.arange(35, dtype=np.uint16).reshape(1, 1, 5, 7)
    return Entry("numbers", {"source": source, "target": (source * 10).astype(np.float32)}, Scaling((5.0,), (2.0,)))


TARGETS = (TargetSpec("target", 1),)


def test_a_window_inside_is_the_normalised_part(numbers: Entry) -> None:
    found = cut(numbers, (slice(0, 1), slice(1, 4), slice(2, 6)), TARGETS, planes=True)
    part = numbers.arrays["source"][:, 0, 1:4, 2:6]
    assert (found["source"] == (part - 5.0) / 2).all()
    assert (found["target"] == part * 10).all()
    assert found["weight"].min() == 1
    assert {k: v.shape for k, v in found.items()} == dict.fromkeys(("source", "target", "weight"), (1, 3, 4))


@pytest.mark.parametrize(
    "margins", [(3, 2, 9, 5), (5, 5, 7, 7), (0, 5, 0, 7), (5, 0, 7, 0), (0, 3, 0, 0), (0, 1, 20, 0)]
)
def test_outside_the_image_pixels_are_mirrored_and_count_nothing(
    numbers: Entry, margins: tuple[int, int, int, int]
) -> None:
    top, bottom, left, right = margins
    found = cut(numbers, (slice(0, 1), slice(-top, 5 + bottom), slice(-left, 7 + right)), TARGETS, planes=True)
    around = ((top, bottom), (left, right))
    expected = np.pad(numbers.arrays["source"][0, 0], around, mode="symmetric")
    assert (found["source"][0] * 2 + 5 == expected).all()
    assert (found["target"][0] == expected * 10).all()
    assert (found["weight"][0] == np.pad(np.ones((5, 7)), around)).all()


def test_a_projection_target_serves_every_plane() -> None:
    entry = Entry(
        "stack",
        {"source": np.zeros((1, 3, 4, 4)), "target": np.arange(16.0).reshape(1, 1, 4, 4)},
        Scaling((0.0,), (1.0,)),
    )
    found = cut(entry, (slice(0, 3), slice(0, 4), slice(0, 4)), TARGETS, planes=False)
    assert (found["target"] == entry.arrays["target"]).all()
    assert found["target"].shape == (1, 3, 4, 4)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 40), (1, 40, 3), (1, 31, 32), (1, 33, 33)])
def test_fault_15_windows_of_images_smaller_than_the_patch(shape: tuple[int, int, int]) -> None:
    entry = Entry("s", {"source": np.ones((1, *shape)), "target": np.ones((1, *shape))}, Scaling((0.0,), (1.0,)))
    for centre in ((0, 0, 0), tuple(n - 1 for n in shape)):
        place = window_around(centre, (1, 48, 48), (1, 32, 32), shape)
        found = cut(entry, place, TARGETS, planes=True)
        assert found["source"].shape == (1, 48, 48)
        inner = found["weight"][0, 8:-8, 8:-8]
        assert inner.sum() == min(32, shape[1]) * min(32, shape[2])


# ---- preparing ----


def test_the_object_size_of_the_recipe_is_reached(tmp_path: Path) -> None:
    image, labels = discs(0, (64, 64), radius=6)
    diameter = median_diameter(labels[None])
    assert diameter is not None
    recipe = small_recipe(data__rescale={"kind": "object_size", "diameter": diameter / 2})
    found = prepared(recipe, Split((sample("a", image, labels),)), tmp_path).stream.store.get(0)
    assert found.shape == (1, 32, 32)
    assert (found.arrays["maps"][0] > 0).mean() == pytest.approx((labels > 0).mean(), abs=0.02)


def test_a_nan_in_a_target_does_not_spread_when_it_is_rescaled(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    target = image.copy()
    target[20, 20] = np.nan
    rescale = {"kind": "voxel_size", "voxel_size": [1, 0.5, 0.5]}
    recipe = small_recipe("restoration_2d", data__invalid_pixels="fill", data__rescale=rescale)

    def measured(image: Any) -> Any:
        return ArrayImage(image.read()[0, 0], "ZYX", name=image.info.name, voxel_size=(1.0, 1.0, 1.0))

    def learned(target: Any) -> Any:
        split = Split((sample("a", image, target, wrap=measured),))
        return prepared(recipe, split, tmp_path).stream.store.get(0).arrays["target"]

    spoiled, clean = learned(target), learned(np.nan_to_num(target, nan=float(np.nanmin(target))))
    assert spoiled.shape == (1, 1, 128, 128)
    np.testing.assert_allclose(spoiled, clean, atol=1e-3)  # the statistics differ by one pixel


def test_median_diameter_is_that_of_discs_of_the_same_area() -> None:
    labels = np.zeros((2, 20, 20), int)
    labels[0, 0:4, 0:4], labels[0, 10:12, 10:12], labels[1, 10:16, 10:16] = 1, 2, 2
    assert median_diameter(labels) == pytest.approx(np.median(np.sqrt(4 * np.array([16, 36]) / np.pi)))
    assert median_diameter(np.zeros((1, 4, 4), int)) is None


def test_time_points_are_items_of_their_own() -> None:
    from im2im_core.samples import Sample

    series, one = (
        ArrayImage(np.stack([np.full((16, 16), t) for t in range(3)]), "TYX"),
        ArrayImage(np.ones((16, 16)), "YX"),
    )
    items = items_of((Sample("film", "film", series, {"target": one}), Sample("still", "still", one, {"target": one})))
    assert [i.name for i in items] == ["film@0", "film@1", "film@2", "still"]
    recipe = small_recipe("restoration_2d", data__normalization__kind="none")
    framework: Any = type("F", (), {"encode": lambda self, targets, weight: {"target": targets["target"]}})()
    assert prepare(items[2], recipe, framework, None).arrays["source"].max() == 2


@pytest.mark.parametrize("part", ["source", "target"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_fault_11_nan_pixels_are_an_error_before_training(tmp_path: Path, part: str, bad: float) -> None:
    arrays = {"source": np.random.default_rng(0).random((32, 32)), "target": np.random.default_rng(1).random((32, 32))}
    arrays[part][3, 4] = bad
    split = Split((sample("cells", arrays["source"], arrays["target"]),))
    recipe = small_recipe("restoration_2d")
    with pytest.raises(DataError, match=r"cells (IM|GT) has 1 NaN or infinite pixels.*invalid_pixels"):
        prepared(recipe, split, tmp_path)
    filled = prepared(recipe.override({"data.invalid_pixels": "fill"}), split, tmp_path)
    assert all(torch.isfinite(t).all() for t in filled.stream[0][0].values())


@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_weights_that_are_none_are_refused(tmp_path: Path, value: float) -> None:
    image, labels = discs(0)
    weight = np.ones(image.shape, np.float32)
    weight[0, 0] = value
    with pytest.raises(DataError, match="negative, NaN or infinite"):
        prepared(small_recipe(), Split((sample("a", image, labels, weight),)), tmp_path)


# ---- streams ----


def test_a_step_is_the_same_in_any_order(tmp_path: Path) -> None:
    stream = prepared(small_recipe(training__accumulate=2), split_of(), tmp_path).stream
    assert len(stream[5]) == 2
    forward, backward = [stream[s] for s in range(4)], [stream[s] for s in reversed(range(4))][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert all(torch.equal(a[k], b[k]) for a, b in zip(one, other, strict=True) for k in a)
    assert not torch.equal(forward[0][0]["source"], forward[0][1]["source"])
    assert not torch.equal(forward[0][0]["source"], forward[1][0]["source"])


def test_ranks_share_a_step_without_overlap(tmp_path: Path) -> None:
    from dataclasses import replace

    stream = prepared(small_recipe(training__batch=4), split_of(), tmp_path).stream
    stream.augmenter = None  # which changes each batch by draws of its own
    whole = stream[3][0]["source"]
    settings = stream.settings
    parts = []
    for rank in range(2):
        stream.settings = replace(settings, batch=2, rank=rank, ranks=2)
        parts.append(stream[3][0]["source"])
    assert torch.equal(torch.cat(parts), whole)


def test_foreground_stands_in_the_patches(tmp_path: Path) -> None:
    image, labels = discs(0, (128, 128))
    labels[:, 16:], labels[16:] = 0, 0  # one object in the corner
    recipe = small_recipe(data__foreground=1.0, training__batch=8)
    stream = prepared(recipe, Split((sample("a", image, labels),)), tmp_path).stream
    assert (stream[0][0]["maps"][:, 0].flatten(1).amax(1) > 0).all()


# ---- moved as they are cut ----


MOVES = {"data__augmentation__scale": (0.6, 1.7), "data__augmentation__affine_probability": 0.7}


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    ("preset", "patch", "shape"),
    [
        ("instance_seg_2d", [32, 32], (48, 48)),
        ("watershed_2d", [32, 48], (40, 64)),
        ("instance_seg_3d", [16, 32, 32], (12, 48, 40)),
        ("labelfree_2d", [32, 32], (48, 48)),
    ],
)
def test_patches_moved_as_they_are_cut_are_those_moved_afterwards(
    tmp_path: Path,
    preset: str,
    patch: list[int],
    shape: tuple[int, ...],
    compiled: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From images hardly larger than a patch, so that windows reach beyond them."""
    if not compiled:
        monkeypatch.setattr(data, "compiled_mover", lambda: None)
    recipe = small_recipe(preset, training__batch=8, data__patch=patch, **MOVES)
    task = "image" if preset == "labelfree_2d" else "instance"
    ready = prepared(recipe, split_of(shape=shape, task=task), tmp_path)
    stream, recipe = ready.stream, ready.plan.recipe
    augmenter = Augmenter(recipe.data.augmentation, recipe.data.dimensions, ready.framework.targets)
    found, stream.augmenter = [stream[step][0] for step in range(4)], None
    for step, moved in enumerate(found):
        generator = batch_generator(recipe.training.seed, step, 0)
        expected = augmenter(stream[step][0], generator, recipe.patch_size)
        moved = augmenter(moved, batch_generator(recipe.training.seed, step, 0), recipe.patch_size)
        assert expected.keys() == moved.keys()
        torch.testing.assert_close(moved["motion"], expected["motion"])
        torch.testing.assert_close(moved["source"], expected["source"], atol=2e-3, rtol=0)
        agree = {name: (moved[name] == expected[name]).float().mean() for name in ("weight", *augmenter.nearest)}
        assert min(agree.values()) > 0.999, agree
        known = (moved["weight"] > 0) & (expected["weight"] > 0)
        for name in augmenter.linear:
            one, other = (batch[name].float() for batch in (moved, expected))
            assert ((one - other).abs() * known).max() <= (1.0 if moved[name].dtype == torch.uint8 else 2e-3)


def test_without_numba_patches_are_cut_by_numpy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stream = prepared(small_recipe(**MOVES), split_of(), tmp_path).stream
    expected = stream[0][0]
    monkeypatch.setitem(sys.modules, "im2im_core.engine.augment_direct", None)
    data.compiled_mover.cache_clear()
    try:
        found = stream[0][0]
        assert "without compiled code" in caplog.text
    finally:
        data.compiled_mover.cache_clear()
    torch.testing.assert_close(found["source"], expected["source"], atol=1e-4, rtol=0)


def test_damaged_compiled_code_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Files that Numba keeps on disk and that lost their content raise whatever unpickling them does."""
    stream = prepared(small_recipe(**MOVES), split_of(), tmp_path).stream
    expected = stream[0][0]
    calls = []

    def damaged(out: dict[str, NDArray[Any]], *how: Any) -> None:
        calls.append(how)
        out["source"].fill(np.nan)
        raise EOFError("Ran out of input")

    monkeypatch.setattr(data, "compiled_mover", lambda: damaged)
    found = stream[0][0]
    assert len(calls) == 1
    assert "Ran out of input" in caplog.text
    for name in ("source", "weight"):
        torch.testing.assert_close(found[name], expected[name], atol=1e-4, rtol=0)


def test_without_a_place_for_compiled_code_it_is_compiled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from im2im_core.engine import augment_direct

    def njit(cache: bool = False, **options: bool) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(augment_direct, "njit", njit)
    assert augment_direct.compiled(len) is len


# ---- unknown regions ----


def known_left(shape: tuple[int, int]) -> NDArray[np.float32]:
    weight = np.ones(shape, np.float32)
    weight[:, shape[1] // 2 :] = 0
    return weight


def chain(recipe: Recipe, split: Split, folder: Path) -> tuple[list[dict[str, float]], list[torch.Tensor]]:
    """Losses of three steps and the gradient of the last: prepare, cut, augment, lose."""
    ready = prepared(recipe, split, folder)
    recipe, framework = ready.plan.recipe, ready.framework
    augmenter = Augmenter(recipe.data.augmentation, recipe.data.dimensions, framework.targets)
    rows = []
    for step in range(3):
        batch = augmenter(ready.stream[step][0], torch.Generator().manual_seed(step), tuple(recipe.data.patch))
        framework.zero_grad()
        terms = framework.losses(batch, "network", TrainContext(step, torch.Generator().manual_seed(0)))
        torch.stack(list(terms.values())).sum().backward()
        rows.append({k: float(v.detach()) for k, v in terms.items()})
    return rows, [p.grad.clone() for p in framework.parameters() if p.grad is not None]


MOVED = {
    "data__augmentation__rotate": 45.0,
    "data__augmentation__scale": [0.7, 1.4],
    "data__augmentation__affine_probability": 1.0,
}


@pytest.mark.parametrize(
    "case", ["instance", "instance rescaled", "boundary", "classes", "classes rescaled", "image", "image rescaled"]
)
def test_garbage_in_unknown_regions_changes_neither_loss_nor_gradient(tmp_path: Path, case: str) -> None:
    kind, rescaled = case.split()[0], "rescaled" in case
    preset = {"classes": "semantic_seg_2d", "image": "restoration_2d"}.get(kind, "watershed_2d")
    changes: dict[str, Any] = dict(MOVED)
    if kind == "boundary":
        changes["framework__maps"] = "boundary"
    if rescaled:
        labels_rescale = {"kind": "object_size", "diameter": 8}
        changes["data__rescale"] = (
            labels_rescale if kind != "image" else {"kind": "voxel_size", "voxel_size": [1, 1.5, 1.5]}
        )
    recipe = small_recipe(preset, **changes).override({"data.voxel_size": [1, 1, 1]})
    image, labels = discs(0)
    weight = known_left((48, 48))
    clean = {"classes": (labels > 0) * 2, "image": 50 + 3.0 * (labels > 0)}.get(kind, labels)
    noise = np.random.default_rng(0)
    garbage = (
        [noise.integers(0, 300, labels.shape)]
        if kind != "image"
        else [np.full(labels.shape, np.nan), noise.normal(0, 1e6, labels.shape)]
    )
    results = []
    for number, other in enumerate([clean, *garbage]):
        target = np.where(weight > 0, clean, other).astype(np.float64 if kind == "image" else np.uint16)
        made = sample("a", image, target, weight)
        object.__setattr__(made.source.info, "voxel_size", (1.0, 1.0, 1.0))
        results.append(chain(recipe, Split((made,)), tmp_path / str(number)))
    (losses, gradients), *others = results
    assert all(np.isfinite(v) for row in losses for v in row.values())
    for changed, moved in others:
        assert changed == losses
        assert all(torch.equal(a, b) for a, b in zip(gradients, moved, strict=True))


@pytest.mark.parametrize("preset", ["instance_seg_3d", "semantic_seg_3d", "restoration_3d"])
@pytest.mark.parametrize("rescaled", [False, True])
def test_one_plane_of_weights_holds_for_the_stack(tmp_path: Path, preset: str, rescaled: bool) -> None:
    changes: dict[str, Any] = {"data__foreground": 1.0, "data__voxel_size": [1, 1, 1]}
    if rescaled:
        changes["data__rescale"] = {"kind": "voxel_size", "voxel_size": [1, 1.5, 1.5]}
    recipe = small_recipe(preset, **changes)
    image, labels = discs(0, (6, 48, 48))
    weight = known_left((48, 48))[None]
    assert weight.shape == (1, 48, 48)
    images = preset.startswith("restoration")
    clean = {"instance_seg_3d": labels, "semantic_seg_3d": labels > 0}.get(preset, 50 + 3.0 * (labels > 0))
    garbage = np.full(labels.shape, np.nan) if images else np.random.default_rng(0).integers(0, 300, labels.shape)
    results = []
    for number, other in enumerate((clean, garbage)):
        target = np.where(weight > 0, clean, other).astype(np.float64 if images else np.uint16)
        made = sample("a", image, target, weight)
        for part in (made.source, made.targets["target"]):
            object.__setattr__(part.info, "voxel_size", (1.0, 1.0, 1.0))
        split = Split((made,))
        results.append(chain(recipe, split, tmp_path / str(number)))
        entry = prepared(recipe, split, tmp_path / "again").stream.store.get(0)
        assert entry.arrays["weight"].shape == (1, *entry.shape)
    (losses, gradients), (changed, moved) = results
    assert all(np.isfinite(v) for row in losses for v in row.values())
    assert changed == losses
    assert all(torch.equal(a, b) for a, b in zip(gradients, moved, strict=True))


def test_patches_are_centred_on_known_objects_of_all_planes(tmp_path: Path) -> None:
    image, labels = discs(0, (6, 48, 48))
    labels[:] = labels.max(axis=0)
    split = Split((sample("a", image, labels, known_left((48, 48))[None]),))
    index = prepared(small_recipe("instance_seg_3d"), split, tmp_path).stream.foregrounds[0]
    z, _, x = np.unravel_index(index.classes[0], labels.shape)
    assert set(z.tolist()) == set(range(6))
    assert x.max() < 24


def test_a_projection_target_is_known_where_any_plane_is(tmp_path: Path) -> None:
    image, _ = discs(0, (6, 48, 48))
    _, labels = discs(0)
    weight = np.zeros((6, 48, 48), np.float32)
    weight[:, :, :18] = 1  # some objects are known as a whole
    weight[2, :, :24] = 1
    garbage = np.where(np.arange(48) < 24, labels, 250).astype(np.uint16)
    found = [
        chain(small_recipe("instance_seg_3d"), Split((sample("a", image, target[None], weight),)), tmp_path / name)
        for name, target in (("clean", labels), ("garbage", garbage))
    ]
    assert found[0][0] == found[1][0]


def test_a_thin_stack_trains_with_an_automatic_patch(tmp_path: Path) -> None:
    flat = {"network.kind": "dynunet", "network.filters": [8, 8, 8], "data.patch": "auto"}
    recipe = small_recipe("instance_seg_3d").override(flat)
    made = sample("a", *discs(0, (6, 48, 48)))
    for part in (made.source, made.targets["target"]):
        object.__setattr__(part.info, "voxel_size", (5.0, 1.0, 1.0))
    assert make_plan(recipe, Split((made,))).recipe.data.patch == (6, 48, 48)
    losses, gradients = chain(recipe, Split((made,)), tmp_path)
    assert all(np.isfinite(v) for row in losses for v in row.values())
    assert any(g.abs().max() > 0 for g in gradients)


def test_sparse_labels_teach_only_where_something_is_painted(tmp_path: Path) -> None:
    image, labels = discs(0)
    painted = np.zeros_like(labels)
    painted[:, :24] = labels[:, :24] + 1  # background 1, objects from 2
    recipe = small_recipe(data__labelling="sparse", data__foreground=0.0)
    entry = prepared(recipe, Split((sample("a", image, painted),)), tmp_path).stream.store.get(0)
    assert (entry.arrays["weight"][0, 0] == (painted > 0)).all()
    assert ((entry.arrays["maps"][0, 0] > 0) == (painted > 1)).all()


# ---- workers ----


@pytest.mark.parametrize(
    "others",
    [
        [(0, "rolling"), (1, "disk")],
        pytest.param([(2, "memory"), (2, "disk"), (1, "rolling")], marks=pytest.mark.slow),
    ],
)
def test_fault_04_workers_do_not_change_what_is_learned(tmp_path: Path, others: list[tuple[int, str]]) -> None:
    states = []
    for workers, kind in ((0, "memory"), *others):
        recipe = small_recipe(training__workers=workers, data__cache__kind=kind, training__steps=3)
        training = Training(tmp_path / f"{workers}{kind}", recipe)
        training.pause_after(2)
        states.append(training.checkpoint)
    assert all(same_state(states[0], s) for s in states[1:])


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_reading_gives_way_to_computing() -> None:
    from im2im_core.engine.train import BACK, step_back

    def own() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = own()
    with ThreadPoolExecutor(1, initializer=step_back) as pool:
        assert pool.submit(own).result() == min(before + BACK, 19)
    assert own() == before
