"""Splits: groups stay whole, the draw is stable, blocks lie a patch apart and share no pixel."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from im2im_core.errors import ConfigError, DataError
from im2im_core.image import ArrayImage
from im2im_core.recipe.data import DataSettings, SplitSettings
from im2im_core.review import overlap_train_validation
from im2im_core.samples import TARGET, Sample, Split
from im2im_core.split import SAME_IMAGE, from_outline, outline, split_data, split_samples


def sample(name: str, group: str | None = None, shape: tuple[int, ...] = (8, 8), identity: str = "") -> Sample:
    pixels = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    axes = "ZYX"[-len(shape) :]
    source = ArrayImage(pixels, axes, name=name, identity=identity or f"id-{name}")
    target = ArrayImage(pixels[-1] if len(shape) == 3 else pixels, "YX", identity=f"target-{name}")
    return Sample(name, group or name, source, {TARGET: target})


def names(samples: tuple[Sample, ...]) -> set[str]:
    return {s.name for s in samples}


def parts_of(split: Split) -> list[set[str]]:
    return [names(split.train), names(split.validation), names(split.test)]


TWENTY = [sample(f"s{i:02d}") for i in range(20)]


def test_fractions_are_of_groups_and_nothing_is_lost_or_doubled() -> None:
    split = split_samples(TWENTY, SplitSettings(validation=0.15, test=0.2), (4, 4), {})
    train, validation, test = parts_of(split)
    # test is drawn first, validation from the 16 that remain
    assert [len(train), len(validation), len(test)] == [14, 2, 4]
    assert train | validation | test == names(tuple(TWENTY))
    assert split.reason == "4 of 20 groups are drawn for test; 2 of 16 groups are drawn for validation"


def test_order_of_the_samples_does_not_matter_but_the_seed_does() -> None:
    settings = SplitSettings(validation=0.3)
    first = split_samples(TWENTY, settings, (4, 4), {})
    assert parts_of(split_samples(TWENTY[::-1], settings, (4, 4), {})) == parts_of(first)
    assert parts_of(split_samples(TWENTY, settings.replace(seed=1), (4, 4), {})) != parts_of(first)


def test_a_new_image_leaves_the_others_where_they_are() -> None:
    settings = SplitSettings(validation=0.25)
    before = names(split_samples(TWENTY, settings, (4, 4), {}).validation)
    after = names(split_samples([*TWENTY, sample("new")], settings, (4, 4), {}).validation)
    assert len(before - after) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_never_divided(seed: int) -> None:
    samples = [sample(f"e{e}-{i}", f"embryo {e}") for e in range(4) for i in range(3)]
    split = split_samples(samples, SplitSettings(validation=0.25, test=0.25, seed=seed), (4, 4), {})
    groups = [{s.group for s in part} for part in (split.train, split.validation, split.test)]
    assert [len(g) for g in groups] == [2, 1, 1]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]


@pytest.mark.parametrize("seed", range(8))
def test_the_same_image_under_two_names_is_one_group(seed: int) -> None:
    samples = [sample("a", identity="one"), sample("b", identity="one"), sample("c"), sample("d")]
    split = split_samples(samples, SplitSettings(validation=0.34, seed=seed), (4, 4), {})
    assert any({"a", "b"} <= part for part in parts_of(split))
    assert split.validation


def test_groups_chained_by_equal_images_are_one() -> None:
    chain = [sample("a", "g1", identity="x"), sample("b", "g2", identity="x"), sample("c", "g2"), sample("d", "g3")]
    split = split_samples(chain, SplitSettings(validation=0.5), (4, 4), {})
    assert {"a", "b", "c"} in parts_of(split)


def test_two_groups_give_one_for_validation_even_with_a_small_fraction() -> None:
    split = split_samples(TWENTY[:2], SplitSettings(validation=0.01), (4, 4), {})
    assert len(split.validation) == 1
    assert len(split_samples(TWENTY[:2], SplitSettings(validation=1.0), (4, 4), {}).train) == 1


def test_no_validation_is_not_called_validation() -> None:
    split = split_samples(TWENTY, SplitSettings(validation=0), (4, 4), {})
    assert split.validation == ()
    assert split.reason == "no validation: data.split.validation is 0"


def test_parts_from_the_folders_win() -> None:
    parts = {"s00": "train", "s01": "validation", "s02": "test"}
    split = split_samples(TWENTY[:4], SplitSettings(validation=0.9, test=0.9), (4, 4), parts)
    assert parts_of(split) == [{"s00", "s03"}, {"s01"}, {"s02"}]


def test_without_a_validation_folder_it_is_drawn_from_training() -> None:
    parts = {s.name: "train" for s in TWENTY[:10]} | {s.name: "test" for s in TWENTY[10:]}
    split = split_samples(TWENTY, SplitSettings(validation=0.2), (4, 4), parts)
    assert names(split.test) == names(tuple(TWENTY[10:]))
    assert len(split.validation) == 2


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("settings", [{"validation": 0.3}, {"validation": 0.3, "test": 0.3}, {"by": "block"}])
def test_what_is_given_for_training_stays_there_where_others_can_be_drawn(seed: int, settings: dict[str, Any]) -> None:
    samples = [sample(f"s{i}", shape=(40, 100)) for i in range(6)]
    parts = {f"s{i}": "train" for i in range(4)}
    split = split_samples(samples, SplitSettings(seed=seed, **settings), (16, 16), parts)
    assert split.validation
    assert {s.name for s in split.train if s.region is None} >= set(parts)


def test_the_only_image_that_is_not_given_for_training_validates() -> None:
    parts = {s.name: "train" for s in TWENTY[1:4]}
    split = split_samples(TWENTY[:4], SplitSettings(), (4, 4), parts)
    assert parts_of(split) == [{"s01", "s02", "s03"}, {"s00"}, set()]


def test_named_samples_win_over_folders_and_take_their_group_along() -> None:
    samples = [sample("a1", "a"), sample("a2", "a"), sample("b"), sample("c")]
    settings = SplitSettings(validation_names=("a1",), test_names=("b",))
    split = split_samples(samples, settings, (4, 4), {"b": "train"})
    assert parts_of(split) == [{"c"}, {"a1", "a2"}, {"b"}]


def test_a_group_that_would_be_divided_is_named() -> None:
    samples = [sample("a1", "a"), sample("a2", "a"), sample("b")]
    with pytest.raises(DataError, match=r"'a'.*'a2' for test.*'a1' for train"):
        split_samples(samples, SplitSettings(), (4, 4), {"a1": "train", "a2": "test"})


def test_unknown_and_doubly_used_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'s99'.*Did you mean"):
        split_samples(TWENTY, SplitSettings(validation_names=("s99",)), (4, 4), {})
    with pytest.raises(ConfigError, match="for validation and for test"):
        split_samples(TWENTY, SplitSettings(validation_names=("s01",), test_names=("s01",)), (4, 4), {})


def test_something_must_be_left_for_training() -> None:
    with pytest.raises(DataError, match="No sample is left"):
        split_samples(TWENTY[:1], SplitSettings(validation_names=("s00",)), (4, 4), {})


# ---- spatial blocks ----


@pytest.mark.parametrize("shape", [(40, 100), (100, 40), (3, 40, 100), (100, 100)])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_blocks_of_a_single_image_lie_a_patch_apart(shape: tuple[int, ...], seed: int) -> None:
    one = sample("one", shape=shape)
    split = split_samples([one], SplitSettings(validation=0.2, seed=seed), (16, 16), {})
    (train,), (validation,) = split.train, split.validation
    assert SAME_IMAGE in split.reason
    assert names(split.validation) == {"one (validation block)"}
    assert train.region is not None
    assert validation.region is not None
    axis = 4 if shape[-1] > shape[-2] else 3
    first, second = sorted((train.region[axis], validation.region[axis]), key=lambda s: s.start)
    assert (first.start, second.stop) == (0, 100)
    assert second.start - first.stop == 16
    assert validation.region[axis].stop - validation.region[axis].start == 20
    # pixels are those of the region, and none is shared
    for part in (train, validation):
        assert part.region is not None
        np.testing.assert_array_equal(part.source.read(), one.source.read(part.region))
        yx = (slice(0, 1), slice(0, 1), slice(0, 1), *part.region[3:])
        np.testing.assert_array_equal(part.targets[TARGET].read(), one.targets[TARGET].read(yx))
    assert not set(train.source.read().ravel()) & set(validation.source.read().ravel())
    assert overlap_train_validation(split) == ()


def test_both_ends_are_used() -> None:
    splits = [split_samples([sample("one", shape=(40, 100))], SplitSettings(seed=s), (16, 16), {}) for s in range(10)]
    assert {s.validation[0].region[4].start == 0 for s in splits if s.validation[0].region} == {True, False}


def test_weights_are_cropped_along() -> None:
    one = sample("one", shape=(40, 100))
    split = split_samples([replace(one, weight=one.source)], SplitSettings(), (16, 16), {})
    assert split.validation[0].weight is not None
    assert split.validation[0].weight.info.shape == split.validation[0].source.info.shape


def test_images_of_a_single_group_are_divided_on_the_same_side() -> None:
    samples = [sample(f"t{i}", "movie", (40, 100)) for i in range(5)]
    split = split_samples(samples, SplitSettings(), (16, 16), {})
    assert len(split.train) == len(split.validation) == 5
    assert len({s.region[4].start for s in split.validation if s.region}) == 1


def test_blocks_can_be_asked_for_and_test_groups_stay_whole() -> None:
    samples = [sample(f"s{i}", shape=(40, 100)) for i in range(3)]
    split = split_samples(samples, SplitSettings(by="block", test_names=("s1",)), (16, 16), {})
    assert names(split.test) == {"s1"}
    assert names(split.train) == {"s0", "s2"}
    assert len(split.validation) == 2


@pytest.mark.parametrize(("length", "divided"), [(47, False), (48, True)])
def test_an_image_too_small_for_blocks_trains_whole_and_says_so(length: int, divided: bool) -> None:
    split = split_samples([sample("one", shape=(20, length))], SplitSettings(), (16, 16), {})
    assert bool(split.validation) == divided
    if divided:
        assert split.train[0].source.info.shape[4] == 16
    else:
        assert split.train[0].region is None
        assert "no validation: a block, a gap and training need 48 pixels" in split.reason


# ---- on disk ----


@pytest.mark.parametrize("by", ["group", "block"])
def test_a_split_is_read_back_as_it_was_written_whatever_came_since(by: str) -> None:
    samples = [sample(f"s{i}", shape=(40, 100)) for i in range(5)]
    split = split_samples(samples, SplitSettings(by=by, test_names=("s1",), validation=0.4), (16, 16), {})
    content = json.loads(json.dumps(outline(split)))
    again = from_outline(content, [sample("a new one", shape=(40, 100)), *samples])
    assert parts_of(again) == parts_of(split)
    assert again.reason == split.reason
    for one, other in zip((*split.train, *split.validation), (*again.train, *again.validation), strict=True):
        assert one.region == other.region
        assert one.source.info == other.source.info
        np.testing.assert_array_equal(one.targets[TARGET].read(), other.targets[TARGET].read())
    fewer = from_outline(content, [s for s in samples if s.name != split.validation[0].name.split()[0]])
    assert names(fewer.validation) == names(split.validation[1:])
    with pytest.raises(DataError, match="None of the images"):
        from_outline(content, [])


@pytest.mark.parametrize("shape", [(40, 90), (100, 40), (40, 20)])
def test_blocks_of_an_image_of_another_size_are_refused(shape: tuple[int, int]) -> None:
    split = split_samples([sample("one", shape=(40, 100))], SplitSettings(), (16, 16), {})
    if shape == (40, 90):
        split = replace(split, validation=())  # the block that trains fits, but is not what it was
    with pytest.raises(DataError, match="one has another size"):
        from_outline(outline(split), [sample("one", shape=shape)])


def test_the_patch_matters_only_where_images_are_divided() -> None:
    auto, small = DataSettings(), DataSettings(patch=(16, 16))
    assert split_data(auto, TWENTY, {}) == split_data(small, TWENTY, {})
    one = [sample("one", shape=(40, 100))]
    assert not split_data(auto, one, {}).validation
    assert split_data(small, one, {}).validation


def test_overlap_names_shared_images_and_copies() -> None:
    from im2im_core.review import examine

    a, b, c = sample("a", identity="one"), sample("b", identity="one"), sample("c")
    problems = overlap_train_validation(Split((a,), (b,)))
    assert [(p.sample, p.code, p.severity) for p in problems] == [("a", "overlap_train_validation", "error")]
    assert overlap_train_validation(Split((a,), (c,))) == ()
    facts = examine((a, c), "label_free").facts
    assert len(overlap_train_validation(Split((a,), (), (c,)), facts)) == 1
