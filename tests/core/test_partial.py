"""Partial labels: dense and sparse painting, complete regions, weights, and the way back from a prediction."""

from __future__ import annotations

import numpy as np
import pytest

from im2im_core.errors import DataError
from im2im_core.partial import complete_mask, from_prediction, only_inside, to_learning

PAINTED = np.array([[0, 1, 2], [5, 0, 1]], np.uint16)


def test_dense_keeps_ids_and_knows_everything() -> None:
    targets, weight = to_learning(PAINTED, "dense")
    assert targets.dtype == np.uint32
    np.testing.assert_array_equal(targets, PAINTED)
    np.testing.assert_array_equal(weight, np.ones((2, 3)))


def test_sparse_zero_is_unknown_and_one_is_background() -> None:
    targets, weight = to_learning(PAINTED, "sparse")
    np.testing.assert_array_equal(targets, [[0, 0, 1], [4, 0, 0]])
    np.testing.assert_array_equal(weight, [[0, 1, 1], [1, 0, 1]])
    assert weight.dtype == np.float32


def test_inside_complete_regions_zero_is_background() -> None:
    mask = np.array([[True, True, False], [False, False, False]])
    targets, weight = to_learning(PAINTED, "sparse", complete_mask=mask)
    np.testing.assert_array_equal(weight, [[1, 1, 1], [1, 0, 1]])
    assert targets[0, 0] == 0


def test_mask_of_a_plane_holds_for_all_planes() -> None:
    mask = np.array([[True, False]])
    _, weight = to_learning(np.zeros((3, 1, 2), np.uint8), "sparse", mask)
    np.testing.assert_array_equal(weight, [[[1, 0]]] * 3)


def test_weight_image_is_multiplied_in() -> None:
    importance = np.array([[1, 0.5, 2], [0, 3, 1]])
    _, weight = to_learning(PAINTED, "sparse", weight=importance)
    np.testing.assert_array_equal(weight, [[0, 0.5, 2], [0, 0, 1]])


def test_prediction_and_back_is_the_same_and_all_known() -> None:
    predicted = np.array([[0, 3], [70000, 1]], np.uint32)
    targets, weight = to_learning(from_prediction(predicted), "sparse")
    np.testing.assert_array_equal(targets, predicted)
    assert weight.min() == 1


def test_of_a_prefilled_layer_only_what_was_corrected_stays() -> None:
    prefilled = np.array([[1, 2, 2, 1, 3], [1, 1, 4, 1, 3]], np.uint32)
    mask = np.array([[True, True, False, False, False]] * 2)
    kept = only_inside(prefilled, mask)
    np.testing.assert_array_equal(kept, [[1, 2, 2, 0, 0], [1, 1, 0, 0, 0]])
    assert kept.dtype == prefilled.dtype
    assert not only_inside(prefilled, np.zeros_like(mask)).any()


def test_fault_17_ids_never_wrap() -> None:
    labels = np.array([0, 65535, 65536, 70000, 2**32 - 1], np.int64)
    np.testing.assert_array_equal(to_learning(labels, "dense")[0], labels)
    with pytest.raises(DataError, match="4294967295"):
        from_prediction(labels)


@pytest.mark.parametrize("labels", [np.array([-1, 2]), np.array([0.5, 2.0]), np.array([np.nan]), np.array([2.0**32])])
def test_fault_17_labels_that_are_none_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(DataError, match="label"):
        to_learning(labels, "sparse")


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_weights_that_are_none_are_refused(weight: float) -> None:
    with pytest.raises(DataError, match="Weights"):
        to_learning(PAINTED, "dense", weight=np.full((2, 3), weight))


def test_rectangles_and_polygons_become_a_mask() -> None:
    rectangle = np.array([[1, 1], [1, 3], [2, 3], [2, 1]])
    triangle = np.array([[4, 4], [4, 7], [7, 4]])
    expected = np.zeros((8, 8), bool)
    expected[1:3, 1:4] = True
    expected[4:8, 4:8] = np.add.outer(np.arange(4), np.arange(4)) <= 3
    np.testing.assert_array_equal(complete_mask((8, 8), [rectangle, triangle]), expected)


def test_only_the_last_two_columns_count_and_the_rest_is_cut_off() -> None:
    corners = np.array([[9, -5, -5], [9, -5, 50], [9, 50, 50], [9, 50, -5]])
    assert complete_mask((3, 4), [corners]).all()
    assert not complete_mask((3, 4), []).any()


def test_a_line_is_no_region() -> None:
    with pytest.raises(DataError, match=r"\(2, 2\)"):
        complete_mask((8, 8), [np.array([[0, 0], [5, 5]])])
