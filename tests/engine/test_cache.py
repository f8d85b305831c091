"""Where prepared images wait: nothing is read twice, nothing damaged is used."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_world import CountedImage, Training, small_recipe, split_of

from im2im_core.engine import cache, session
from im2im_core.engine.cache import DiskStore, MemoryStore, RollingStore, load_entry, save_entry
from im2im_core.engine.data import ActivePart, Maker, build_store, entry_key, target_statistics
from im2im_core.engine.planning import framework_of, make_plan
from im2im_core.engine.prepare import Entry, items_of
from im2im_core.errors import ResourceError
from im2im_core.normalize import Scaling
from im2im_core.recipe import Recipe
from im2im_core.samples import Split


def entry(number: int) -> Entry:
    source, maps = np.full((1, 2, 3, 4), number, np.uint16), np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4)
    return Entry(f"e{number}", {"source": source, "maps": maps}, Scaling((1.5,), (2.0,)))


def same(one: Entry | None, other: Entry) -> bool:
    return (
        one is not None
        and (one.name, one.scaling) == (other.name, other.scaling)
        and one.arrays.keys() == other.arrays.keys()
        and all(np.array_equal(one.arrays[k], v) and one.arrays[k].dtype == v.dtype for k, v in other.arrays.items())
    )


class Made:
    """Makes entries and counts how often each is made."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}

    def __call__(self, number: int) -> Entry:
        self.counts[number] = self.counts.get(number, 0) + 1
        return entry(number)


def ignore(done: int) -> None:
    pass


# ---- stores ----


def test_memory_makes_each_entry_once() -> None:
    made, told = Made(), []
    store = MemoryStore(3, made, told.append)
    assert told == [1, 2, 3]
    assert all(same(store.get(i), entry(i)) for i in (0, 1, 2, 1, 0))
    assert made.counts == {0: 1, 1: 1, 2: 1}


def test_disk_makes_each_entry_once_for_all_trainings(tmp_path: Path) -> None:
    made, told = Made(), []
    store = DiskStore(tmp_path, ["a", "b"], made, told.append)
    assert told == [1, 2]
    assert all(same(store.get(i), entry(i)) for i in (0, 1, 0))
    assert same(DiskStore(tmp_path, ["a", "b"], made, ignore).get(1), entry(1))
    assert made.counts == {0: 1, 1: 1}
    assert isinstance(store.get(0).arrays["source"], np.memmap)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_rolling_holds_no_more_than_its_capacity() -> None:
    made = Made()
    store = RollingStore(2, made)
    for number in (0, 1, 0, 1, 2, 1, 0):
        assert same(store.get(number), entry(number))
    assert made.counts == {0: 2, 1: 1, 2: 1}  # 2 took the place of 0, which was used least recently


def test_every_entry_has_its_turn_in_each_round() -> None:
    part = ActivePart(count=7, held=3, period=5, seed=0)
    for turn in range(3):
        steps = range(turn * 15, (turn + 1) * 15)
        seen = [tuple(part.at(s)) for s in steps]
        assert all(len(s) <= 3 for s in seen)
        assert len(set(seen)) == 3
        assert sorted(i for s in dict.fromkeys(seen) for i in s) == list(range(7))
    assert part.at(0).tolist() != part.at(15).tolist()  # another order in each round


# ---- entries on disk ----


@pytest.mark.parametrize("name", ["source.raw", "maps.raw", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "grow", "delete"])
def test_fault_10_damaged_entries_are_made_again(tmp_path: Path, name: str, damage: str) -> None:
    made = Made()
    DiskStore(tmp_path, ["a"], made, ignore)
    path = tmp_path / "a" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    changed = {"flip": content, "truncate": path.read_bytes()[:-1], "grow": path.read_bytes() + b"}"}
    path.write_bytes(changed[damage]) if damage in changed else path.unlink()
    assert load_entry(tmp_path / "a") is None
    assert same(DiskStore(tmp_path, ["a"], made, ignore).get(0), entry(0))
    assert made.counts == {0: 2}


def test_a_killed_writer_leaves_nothing_under_the_final_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dead(BaseException):
        pass

    def die(*args: Any) -> None:
        raise Dead

    monkeypatch.setattr(cache.os, "replace", die)
    with pytest.raises(Dead):
        save_entry(entry(0), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_two_trainings_may_write_the_same_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, folder = os.replace, tmp_path / "a"

    def second(source: Any, target: Any) -> None:
        if Path(target) == folder and not folder.exists():
            monkeypatch.undo()
            save_entry(entry(0), folder)  # the other one was faster
        real(source, target)

    monkeypatch.setattr(os, "replace", second)
    save_entry(entry(0), folder)
    assert same(load_entry(folder), entry(0))
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_fault_05_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(ResourceError, match=r"No space left on device; 0 MB needed, \d+ MB free.*data.cache.kind"):
        DiskStore(tmp_path, ["a"], Made(), ignore)
    assert list(tmp_path.iterdir()) == []


# ---- keys ----


def test_keys_change_with_what_is_prepared() -> None:
    recipe, (one, two) = small_recipe(), items_of(split_of(2, 0).train)
    changes = [
        {},
        {"data.normalization.kind": "zscore"},
        {"data.normalization.high": 99.0},
        {"data.labelling": "sparse"},
        {"framework.maps": "boundary"},
        {"data.rescale": {"kind": "object_size", "diameter": 9}},
    ]
    keys = [entry_key(one, recipe.override(c), None) for c in changes]
    keys += [entry_key(two, recipe, None), entry_key(one, recipe, Scaling((0.0,), (2.0,)))]
    assert len(set(keys)) == len(keys)


def test_keys_do_not_change_with_what_is_not_prepared() -> None:
    recipe, (one,) = small_recipe(), items_of(split_of(1, 0).train)
    other = recipe.override({"training.batch": 5, "data.patch": [64, 64], "data.augmentation.noise": 0.3})
    assert entry_key(one, recipe, None) == entry_key(one, other, None)


def test_keys_change_with_voxel_size_and_weight() -> None:
    from im2im_core.image import ArrayImage
    from im2im_core.samples import Sample

    def item(size: float, weight: bool = False) -> Any:
        image = ArrayImage(np.zeros((8, 8)), "YX", identity="same", voxel_size=(None, size, size))
        return items_of((Sample("s", "s", image, {"target": image}, image if weight else None),))[0]

    keys = {entry_key(i, small_recipe(), None) for i in (item(1), item(2), item(1, weight=True))}
    assert len(keys) == 3


# ---- counted ----


def counted(count: int) -> tuple[Split, list[CountedImage]]:
    images: list[CountedImage] = []

    def wrap(image: Any) -> CountedImage:
        images.append(CountedImage(image))
        return images[-1]

    return split_of(count, 0, wrap=wrap), images


def reads_by_step(training: Training, images: list[CountedImage], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    reads: list[int] = []
    monkeypatch.setattr(session._Session, "_export", lambda *_: None)
    training.run(lambda: reads.append(sum(i.reads for i in images)) or "")
    return reads


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_no_image_is_read_after_the_first_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    split, images = counted(3)
    recipe = small_recipe(data__cache__kind=kind, training__steps=8)
    plan = make_plan(recipe, split)
    planned = sum(i.reads for i in images)
    reads = reads_by_step(Training(tmp_path / "run", recipe, split, plan), images, monkeypatch)
    # Each image and each target once, all before the first step.
    assert reads[3:] == [planned + 6] * 8


def test_a_second_training_reads_nothing_from_a_disk_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe(data__cache__kind="disk")
    for run in ("a", "b"):
        split, images = counted(3)
        plan = make_plan(recipe, split)
        before = sum(i.reads for i in images)
        monkeypatch.setattr(session._Session, "_export", lambda *_: None)
        Training(tmp_path / run, recipe, split, plan).run(cache_folder=tmp_path / "cache")
        read = sum(i.reads for i in images) - before
        assert read == (6 if run == "a" else 0)


def test_rolling_reads_only_its_active_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split, images = counted(6)
    recipe = small_recipe(data__cache__kind="rolling", training__steps=24)
    plan = make_plan(recipe, split)
    held = 2
    object.__setattr__(plan, "runtime", plan.runtime.__class__(device="cpu", cache="rolling", cache_held=held))
    object.__setattr__(plan, "steps_per_epoch", 12.0)
    drawn: list[set[int]] = []
    get, batch = RollingStore.get, session.PatchStream.__getitem__

    def watch_get(self: RollingStore, number: int) -> Entry:
        if drawn:
            drawn[-1].add(number)
        return get(self, number)

    def watch_batch(self: Any, step: int) -> Any:
        drawn.append(set())
        before = sum(i.reads for i in images)
        found = batch(self, step)
        # Two reads for each image that was not held, of which there are no more than held.
        assert sum(i.reads for i in images) - before <= 2 * held
        assert len(self.store._held) <= held
        return found

    monkeypatch.setattr(RollingStore, "get", watch_get)
    monkeypatch.setattr(session.PatchStream, "__getitem__", watch_batch)
    reads_by_step(Training(tmp_path / "run", recipe, split, plan), images, monkeypatch)
    rounds = [set().union(*drawn[0:12]), set().union(*drawn[12:24])]
    assert rounds == [set(range(6))] * 2  # every file in each round
    for turn in range(6):  # and within a turn of four steps no more than are held
        assert len(set().union(*drawn[4 * turn : 4 * turn + 4])) <= held


def test_a_rolling_cache_never_holds_all_images_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gc
    import weakref

    alive: list[Any] = []
    most = [0]
    real = session.index_of

    def watch(item: Any, recipe: Any, prepared: Entry, seed: int) -> Any:
        alive.append(weakref.ref(prepared))
        gc.collect()
        most[0] = max(most[0], sum(r() is not None for r in alive))
        return real(item, recipe, prepared, seed)

    monkeypatch.setattr(session, "index_of", watch)
    split = split_of(6, 0)
    recipe = small_recipe(data__cache__kind="rolling")
    plan = make_plan(recipe, split)
    object.__setattr__(plan, "runtime", plan.runtime.__class__(device="cpu", cache="rolling", cache_held=2))
    Training(tmp_path / "run", recipe, split, plan).pause_after(1)
    assert most[0] <= 3


# ---- workers ----


@pytest.mark.parametrize("kind", ["memory", "disk", "rolling"])
def test_stores_travel_to_worker_processes(tmp_path: Path, kind: str) -> None:
    split = split_of(2, 0)
    recipe: Recipe = make_plan(small_recipe(), split).recipe
    items, framework = items_of(split.train), framework_of(recipe, make_plan(recipe, split).facts)
    store = build_store(kind, items, recipe, framework, None, tmp_path, ignore, 1)
    copy = pickle.loads(pickle.dumps(store))
    assert same(copy.get(1), store.get(1))
    assert all(p.device.type == "cpu" for p in framework.parameters())


def test_no_weights_travel_to_worker_processes() -> None:
    split = split_of(1, 0)
    recipe = small_recipe()
    plan = make_plan(recipe, split)
    maker = Maker(items_of(split.train), plan.recipe, framework_of(plan.recipe, plan.facts), None)
    copy = pickle.loads(pickle.dumps(maker))
    assert {p.device for p in copy.framework.parameters()} == {torch.device("meta")}
    assert same(copy(0), maker(0))


def test_target_statistics_come_from_the_training_images() -> None:
    split = split_of(3, 0, task="image")
    recipe = small_recipe("restoration_2d", data__target_normalization__kind="minmax")
    found = target_statistics(items_of(split.train), recipe)
    assert found == Scaling((50.0,), (3.0,))
    assert target_statistics(items_of(split_of(1, 0).train), small_recipe()) is None
