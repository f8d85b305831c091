"""Where patches are cut: balanced, and a pure function of (seed, step, index)."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from im2im_core.engine import sampling
from im2im_core.engine.sampling import Draw, ForegroundIndex, draw_patch, index_foreground, random_rows, window_around

SHAPES = [(1, 40, 40), (1, 20, 60)]
CHANCES = np.array([0.5, 1.0])
NOTHING = [ForegroundIndex((), None)] * 2


def draws(count: int, foregrounds: list[ForegroundIndex], foreground: float, seed: int = 0) -> list[Draw]:
    return [
        draw_patch(random_rows(seed, step, 0, 1)[0], SHAPES, CHANCES, foregrounds, foreground) for step in range(count)
    ]


@pytest.fixture
def labels() -> list[np.ndarray]:
    """A large class 1, a small class 2, a single pixel of class 3; the second image has nothing."""
    first = np.zeros(SHAPES[0], np.uint8)
    first[0, :20], first[0, 30:32, 30:32], first[0, 39, 39] = 1, 2, 3
    return [first, np.zeros(SHAPES[1], np.uint8)]


def test_a_draw_depends_on_seed_step_and_index_alone() -> None:
    def draw(seed: int, step: int, index: int) -> Draw:
        return draw_patch(random_rows(seed, step, index, 1)[0], SHAPES, CHANCES, NOTHING, 0.5)

    once = {key: draw(*key) for key in np.ndindex(2, 5, 3)}
    again = {key: draw(*key) for key in reversed(once)}  # the order of asking does not matter
    assert once == again
    assert len(set(once.values())) == len(once)


def test_patches_asked_for_together_are_those_asked_for_alone() -> None:
    together = random_rows(3, 7, 2, 5)
    assert together == [random_rows(3, 7, index, 1)[0] for index in range(2, 7)]
    assert np.unique(together).size == 5 * sampling.NUMBERS


def test_every_centre_is_labelled_where_all_patches_show_objects(labels: list[np.ndarray]) -> None:
    indices = [index_foreground(image, None, 0) for image in labels]
    found = draws(300, indices, 1.0)
    first = [d for d in found if d.entry == 0]
    assert len(first) > 100
    assert all(labels[0][d.centre] > 0 for d in first)
    assert len(found) - len(first) > 100  # an image without objects is still seen


def test_classes_are_drawn_evenly(labels: list[np.ndarray]) -> None:
    indices = [index_foreground(image, None, 0) for image in labels]
    counts = Counter(int(labels[0][d.centre]) for d in draws(3000, indices, 1.0) if d.entry == 0)
    total = sum(counts.values())
    assert {c: n / total for c, n in counts.items()} == pytest.approx({1: 1 / 3, 2: 1 / 3, 3: 1 / 3}, abs=0.05)


def test_part_of_the_patches_ignores_the_labels() -> None:
    image = np.zeros(SHAPES[0], np.uint8)
    image[0, 5, 5] = 1
    indices = [index_foreground(image, None, 0), ForegroundIndex((), None)]
    first = [d for d in draws(3000, indices, 0.4) if d.entry == 0]
    on_label = sum(d.centre == (0, 5, 5) for d in first) / len(first)
    assert on_label == pytest.approx(0.4, abs=0.05)


def test_images_are_drawn_by_their_chances() -> None:
    chances = np.array([0.25, 1.0])
    counts = Counter(draw_patch(random_rows(0, s, 0, 1)[0], SHAPES, chances, NOTHING, 0).entry for s in range(4000))
    assert counts[0] / 4000 == pytest.approx(0.25, abs=0.03)


def test_unknown_pixels_are_no_centres() -> None:
    image = np.ones(SHAPES[0], np.uint8)
    weight = np.zeros(SHAPES[0], np.float32)
    weight[0, :, 10:] = 1
    index = index_foreground(image, weight, 0)
    for foreground in (0.0, 1.0):
        found = draws(200, [index, ForegroundIndex((), None)], foreground)
        assert all(weight[0].ravel()[d.centre[1] * 40 + d.centre[2]] > 0 for d in found if d.entry == 0)


def test_many_ids_are_instances_and_form_one_class() -> None:
    image = np.arange(1600).reshape(SHAPES[0])
    assert len(index_foreground(image, None, 0).classes) == 1
    assert len(index_foreground(np.minimum(image, 64), None, 0).classes) == 64


def test_a_huge_class_is_remembered_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "INDEX_LIMIT", 50)
    (pixels,) = index_foreground(np.ones((1, 100, 100), bool), None, 0).classes
    assert len(pixels) == 50
    assert pixels.max() > 8000
    assert len(set(pixels.tolist())) == 50
    assert pixels.tolist() == index_foreground(np.ones((1, 100, 100), bool), None, 0).classes[0].tolist()


def test_fault_16_without_foreground_patches_are_random() -> None:
    index = index_foreground(np.zeros((1, 40, 40), np.uint8), None, 0)
    assert index.empty
    centres = {d.centre for d in draws(200, [index, index], 1.0)}
    assert len(centres) > 150


def test_fault_16_nothing_known_at_all() -> None:
    index = index_foreground(np.ones((1, 40, 40), np.uint8), np.zeros((1, 40, 40)), 0)
    assert index.empty
    assert len(draws(20, [index, index], 1.0)) == 20


# ---- windows ----


@given(st.data())
def test_windows(data: st.DataObject) -> None:
    extent = data.draw(st.integers(1, 50))
    patch = data.draw(st.integers(1, 60))
    window = patch + 2 * data.draw(st.integers(0, 10))
    centre = data.draw(st.integers(0, extent - 1))
    (found,) = window_around((centre,), (window,), (patch,), (extent,))
    inner = slice(found.start + (window - patch) // 2, found.stop - (window - patch) // 2)
    assert found.stop - found.start == window
    if extent > patch:
        assert 0 <= inner.start
        assert inner.stop <= extent
        assert inner.start <= centre < inner.stop
    else:
        assert inner.start <= 0
        assert inner.stop >= extent
        assert abs((inner.stop - extent) + inner.start) <= 1  # the image lies in the middle
