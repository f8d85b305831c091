"""The data check: every code has a world that shows it, and a sound world shows none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from im2im_core.axes import Region
from im2im_core.errors import DataError, Stopped
from im2im_core.events import Event, Progress
from im2im_core.image import ArrayImage, content_hash
from im2im_core.review import Problem, examine, pixel_facts, review
from im2im_core.samples import TARGET, Sample

INSTANCE, SEMANTIC = "instance_segmentation", "semantic_segmentation"
MICRON = (None, 0.2, 0.2)


def squares(count: int = 64, size: int = 4, width: int = 64) -> NDArray[np.uint16]:
    """`count` squares of `size` pixels on a grid of 8, each with an id of its own.

    1 1 . . 2 2 . .
    1 1 . . 2 2 . .
    """
    labels = np.zeros((64, width), np.uint16)
    for i in range(count):
        y, x = 8 * (i // (width // 8)), 8 * (i % (width // 8))
        labels[y : y + size, x : x + size] = i + 1
    return labels


def world(name: str = "a", labels: Any = None, seed: int = 0, **info: Any) -> Sample:
    labels = squares() if labels is None else np.asarray(labels)
    pixels = np.random.default_rng(seed).integers(10, 1000, labels.shape).astype(np.uint16)
    axes = "TZYX"[-labels.ndim :]
    source = ArrayImage(pixels, axes, name=name, voxel_size=info.pop("voxel_size", MICRON), **info)
    return Sample(name, name, source, {TARGET: ArrayImage(labels, axes, name=f"{name} labels")})


def with_source(sample: Sample, pixels: NDArray[Any], axes: str = "YX", **info: Any) -> Sample:
    return replace(sample, source=ArrayImage(pixels, axes, name=sample.name, **{"voxel_size": MICRON, **info}))


def codes(problems: tuple[Problem, ...]) -> set[str]:
    return {p.code for p in problems}


def only(problems: tuple[Problem, ...], code: str) -> Problem:
    (found,) = [p for p in problems if p.code == code]
    return found


def test_a_sound_world_has_no_problems() -> None:
    assert review([world("a"), world("b", seed=1)], INSTANCE) == ()
    assert review([world("a", squares() > 0)], SEMANTIC) == ()


def test_facts_are_those_of_the_closed_form() -> None:
    sample = world("a", squares(size=4))
    (facts,) = examine([sample], INSTANCE).facts
    pixels = sample.source.read()
    assert (facts.shape, facts.axes, facts.dtype, facts.voxel_size) == ((1, 1, 1, 64, 64), "YX", "uint16", MICRON)
    assert (facts.pixels.minimum, facts.pixels.maximum) == (pixels.min(), pixels.max())
    assert facts.pixels.mean == pytest.approx(pixels.mean())
    assert facts.pixels.digest == content_hash(pixels)
    assert facts.labels is not None
    assert (facts.labels.objects, facts.labels.ids) == (64, 64)
    assert facts.labels.diameter == pytest.approx(np.sqrt(4 * 16 / np.pi))
    assert facts.labels.foreground == pytest.approx(25)
    assert facts.labels.labelled == 100
    assert facts.target_shapes == {TARGET: (1, 1, 1, 64, 64)}


def test_digest_of_many_planes_is_that_of_the_whole() -> None:
    pixels = np.random.default_rng(0).random((2, 3, 4, 5, 6), np.float32)
    assert pixel_facts(ArrayImage(pixels, "TCZYX")).digest == content_hash(pixels)


def test_objects_in_volumes_count_by_their_largest_plane_and_per_time_point() -> None:
    labels = np.zeros((2, 3, 32, 32), np.uint8)
    labels[:, 0, :2, :2] = 7
    labels[:, 1, :10, :10] = 7
    (facts,) = examine([world(labels=labels, voxel_size=(1, 0.2, 0.2))], INSTANCE).facts
    assert facts.labels is not None
    assert facts.labels.objects == 2
    assert facts.labels.diameter == pytest.approx(np.sqrt(4 * 100 / np.pi))


def test_labelled_part_of_sparse_labels_and_weights() -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[:16] = 1
    labels[16:32] = 2
    half = np.zeros((64, 64), np.float32)
    half[:, :32] = 1
    sparse = world(labels=labels)
    weighted = replace(sparse, weight=ArrayImage(half, "YX"))
    for sample, labelling, expected in [(sparse, "sparse", 50), (weighted, "sparse", 25), (weighted, "dense", 50)]:
        (facts,) = examine([sample], SEMANTIC, labelling=labelling).facts
        assert facts.labels is not None
        assert facts.labels.labelled == expected


def test_fault_11_nan_and_infinity() -> None:
    pixels = np.random.default_rng(0).random((64, 64))
    pixels[0, :3] = np.nan, np.inf, -np.inf
    sample = with_source(world(), pixels)
    found = only(review([sample], INSTANCE), "nan_inf")
    assert (found.sample, found.severity) == ("a", "error")
    assert "3 NaN or infinite" in found.text
    assert only(review([sample], INSTANCE, invalid_pixels="fill"), "nan_inf").severity == "warning"
    target = replace(world(), targets={TARGET: ArrayImage(pixels, "YX")})
    assert "target has 3" in only(review([target], "label_free"), "nan_inf").text


@pytest.mark.parametrize("value", [0, 7])
def test_fault_14_constant(value: int) -> None:
    found = only(review([with_source(world(), np.full((64, 64), value, np.uint8))], INSTANCE), "constant")
    assert f"is {value} everywhere" in found.text


def test_fault_11_nothing_but_nan_is_not_called_constant() -> None:
    assert codes(review([with_source(world(), np.full((64, 64), np.nan))], INSTANCE)) == {"nan_inf"}


def test_fault_12_missing_target() -> None:
    assert "missing_partner" in codes(review([replace(world(), targets={})], INSTANCE))


def test_fault_13_shape_mismatch() -> None:
    sample = with_source(world(), np.random.default_rng(0).random((64, 63)))
    found = only(review([sample], INSTANCE), "shape_mismatch")
    assert "Y 64 × X 63" in found.text
    assert "Y 64 × X 64" in found.text


def test_fault_16_empty_foreground() -> None:
    empty = world("empty", np.zeros((64, 64), np.uint8), seed=1)
    found = only(review([world(), empty], INSTANCE), "empty_foreground")
    assert (found.sample, found.severity) == ("empty", "warning")
    background = world("empty", np.ones((64, 64), np.uint8))
    assert "empty_foreground" in codes(review([background], SEMANTIC, labelling="sparse"))


@pytest.mark.parametrize("value", [-1, 0.5, np.nan])
def test_fault_17_negative_or_fractional_labels(value: float) -> None:
    labels = squares().astype(np.float32)
    labels[0, 0] = value
    found = only(review([world(labels=labels)], INSTANCE), "negative_or_fractional_labels")
    assert found.severity == "error"


def test_fault_17_large_ids_are_fine() -> None:
    labels = np.where(squares() > 0, squares().astype(np.int64) + 70000, 0)
    assert review([world(labels=labels)], INSTANCE) == ()


def test_fault_20_voxel_size_missing() -> None:
    found = only(review([world(voxel_size=(None, None, None)), world("b", seed=1)], INSTANCE), "voxel_size_missing")
    assert "1 of 2 images" in found.text
    assert found.sample == ""


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((None, 0.0352778, 0.0352778), "printer"),
        ((None, 352.778, 352.778), "printer"),
        ((None, 150.0, 150.0), "unusual"),
        ((None, 2e-7, 2e-7), "unusual"),
        ((None, 0.2, 0.4), "not square"),
    ],
)
def test_fault_20_voxel_size_suspicious(size: tuple[float | None, ...], words: str) -> None:
    assert words in only(review([world(voxel_size=size)], INSTANCE), "voxel_size_suspicious").text


def test_fault_20_distance_of_planes_unknown() -> None:
    labels = np.stack([squares()] * 2)
    found = only(review([world(labels=labels)], INSTANCE), "voxel_size_suspicious")
    assert "distance of the planes" in found.text
    assert review([world(labels=labels, voxel_size=(1.0, 0.2, 0.2))], INSTANCE) == ()


def test_fault_20_voxel_sizes_that_differ() -> None:
    pair = [world(), world("b", seed=1, voxel_size=(None, 0.5, 0.5))]
    assert "0.2 to 0.5" in only(review(pair, INSTANCE), "voxel_size_differs").text


def test_duplicates_are_named() -> None:
    found = only(review([world("a"), world("b", seed=1), world("c")], INSTANCE), "duplicate")
    assert found.text.startswith("a, c have")


def test_labels_given_to_the_wrong_task() -> None:
    assert "probably_classes" in codes(review([world(labels=(squares() > 0).astype(np.uint8))], INSTANCE))
    assert "probably_instances" in codes(review([world()], SEMANTIC))
    two_classes = np.where(squares() > 0, 1 + squares() % 2, 0)
    assert "probably_classes" in codes(review([world(labels=two_classes)], INSTANCE))
    assert codes(review([world(labels=two_classes)], SEMANTIC)) == set()


def test_touching_instances_are_not_taken_for_classes() -> None:
    assert "probably_classes" not in codes(review([world(labels=squares(size=8))], INSTANCE))


def test_label_gap() -> None:
    found = only(review([world(labels=np.where(squares() > 0, 255, 0))], SEMANTIC), "label_gap")
    assert "255" in found.text
    sparse = np.where(squares() > 0, 2, 1)
    assert "label_gap" not in codes(review([world(labels=sparse)], SEMANTIC, labelling="sparse"))


def test_few_objects() -> None:
    assert "12 labelled" in only(review([world(labels=squares(12))], INSTANCE), "few_objects").text


def test_fault_18_rgb_or_channels_is_a_question() -> None:
    rng = np.random.default_rng(0)
    rgb = with_source(world(), rng.integers(0, 200, (64, 64, 3), np.uint8), "YXS")
    assert only(review([rgb], INSTANCE), "rgb_or_channels_question").severity == "info"
    named = with_source(world(), rng.integers(0, 200, (3, 64, 64), np.uint8), "CYX", channels=("a", "b", "c"))
    assert review([named], INSTANCE) == ()
    planes = world(labels=np.stack([squares()] * 3), voxel_size=(1.0, 0.2, 0.2))
    assert "taken as Z" in only(review([planes], INSTANCE), "rgb_or_channels_question").text


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_fault_19_saturation(dtype: type[np.integer[Any]]) -> None:
    pixels = np.random.default_rng(0).integers(0, 100, (64, 64)).astype(dtype)
    pixels[:2] = np.iinfo(dtype).max
    assert "3.1 %" in only(review([with_source(world(), pixels)], INSTANCE), "saturated").text


@pytest.mark.parametrize("dtype", [bool, np.int16, np.uint32, np.float64, ">u2"])
def test_fault_19_every_type_is_measured(dtype: Any) -> None:
    pixels = np.random.default_rng(0).integers(-5 if dtype == np.int16 else 0, 2, (64, 64)).astype(dtype)
    facts = pixel_facts(ArrayImage(pixels, "YX"))
    assert (facts.minimum, facts.maximum) == (float(pixels.min()), float(pixels.max()))
    assert facts.mean == pytest.approx(pixels.mean())


def test_mixed_types() -> None:
    other = with_source(world("b"), np.random.default_rng(3).random((64, 64)))
    assert "uint16" in only(review([world(), other], INSTANCE), "mixed_types").text


def test_fault_44_an_unreadable_image_does_not_hide_the_others() -> None:
    class Broken(ArrayImage):
        def read(self, region: Region | None = None) -> NDArray[Any]:
            raise DataError("page 3 is missing")

    broken = replace(world("broken"), source=Broken(np.zeros((64, 64)), "YX"))
    found = examine([broken, with_source(world(), np.zeros((64, 64)))], INSTANCE)
    assert codes(found.problems) == {"unreadable", "constant"}
    assert [f.sample for f in found.facts] == ["a"]


def test_image_targets_are_measured_and_not_taken_for_labels() -> None:
    target = ArrayImage(np.random.default_rng(0).normal(size=(64, 64)), "YX")
    found = examine([replace(world(), targets={TARGET: target})], "label_free")
    assert found.problems == ()
    assert found.facts[0].labels is None
    assert found.facts[0].targets[TARGET].mean == pytest.approx(target.read().mean())


def test_it_tells_how_far_it_is_and_stops() -> None:
    events: list[Event] = []
    review([world(), world("b", seed=1)], INSTANCE, events.append)
    assert [e.done for e in events if isinstance(e, Progress)] == [0, 1, 2]
    done = [e.done for e in events if isinstance(e, Progress)]
    with pytest.raises(Stopped, match="after 1 of 2"):
        review([world(), world("b")], INSTANCE, lambda event: done.append(event.done), lambda: done[-1] == 1)
