"""Blocks of labels become the labels of the whole image, up to numbering."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label

from im2im_core.stitch import LabelStitcher, split_blocks


def discs(shape: tuple[int, int], radius: int = 5, spacing: int = 13, seed: int = 0) -> np.ndarray:
    """Discs that never touch, on a jittered grid; many lie over block borders and corners."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    image = np.zeros(shape, bool)
    for cy in range(0, shape[0] + spacing, spacing):
        for cx in range(0, shape[1] + spacing, spacing):
            dy, dx = rng.integers(0, 2, 2)
            image |= (y - cy - dy) ** 2 + (x - cx - dx) ** 2 <= radius**2
    return image


def same_objects(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two label images differ only in numbering."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()], 1), axis=0)
    return len(pairs) == len(np.unique(a)) == len(np.unique(b)) and ((a > 0) == (b > 0)).all()


def stitched(image: np.ndarray, block: tuple[int, ...], halo: int) -> tuple[np.ndarray, int]:
    labels = np.zeros(image.shape, np.uint32)
    blocks = split_blocks(image.shape, block, [halo] * image.ndim)
    stitcher = LabelStitcher(labels, blocks)
    for one in blocks:
        stitcher.add(one, label(image[one.outer]))
    return labels, stitcher.finish()


@pytest.mark.parametrize("block", [(32, 32), (17, 40), (200, 13)])
@pytest.mark.parametrize("halo", [3, 12])
def test_blocks_equal_whole(block: tuple[int, int], halo: int) -> None:
    image = discs((121, 97))
    labels, count = stitched(image, block, halo)
    whole = label(image)
    assert same_objects(labels, whole)
    assert count == whole.max()
    assert sorted(np.unique(labels)) == list(range(count + 1))
    assert labels.dtype == np.uint32


def test_object_over_four_corners_is_one() -> None:
    image = np.zeros((40, 40), bool)
    image[14:26, 14:26] = True
    labels, count = stitched(image, (20, 20), 8)
    assert count == 1
    assert (labels == image).all()


def test_object_larger_than_the_halo_is_one() -> None:
    image = np.zeros((24, 200), bool)
    image[8:16, 5:195] = True
    labels, count = stitched(image, (24, 32), 4)
    assert count == 1
    assert (labels > 0).sum() == image.sum()


def test_touching_objects_stay_two_where_blocks_disagree_by_a_pixel() -> None:
    left, right = np.zeros((10, 40), np.uint32), np.zeros((10, 40), np.uint32)
    left[:, 5:20], left[:, 20:35] = 1, 2
    right[:, 5:19], right[:, 19:35] = 1, 2  # the second block draws the line one pixel further left
    blocks = split_blocks((10, 40), (10, 20), (0, 6))
    labels = np.zeros((10, 40), np.uint32)
    stitcher = LabelStitcher(labels, blocks)
    stitcher.add(blocks[0], left[blocks[0].outer])
    stitcher.add(blocks[1], right[blocks[1].outer])
    assert stitcher.finish() == 2
    assert len(np.unique(labels[:, 5:20])) == len(np.unique(labels[:, 20:35])) == 1


def test_volume() -> None:
    rng = np.random.default_rng(1)
    image = np.zeros((20, 48, 48), bool)
    z, y, x = np.indices(image.shape)
    for cz, cy, cx in rng.permutation(np.argwhere(np.ones((2, 4, 4))))[:20]:
        image |= (z - 4 - 10 * cz) ** 2 + (y - 6 - 12 * cy) ** 2 + (x - 6 - 12 * cx) ** 2 <= 16
    labels, count = stitched(image, (8, 18, 18), 9)
    assert count == 20
    assert same_objects(labels, label(image))


def test_ids_go_on_from_the_plane_before() -> None:
    image = discs((30, 30))
    blocks = split_blocks(image.shape, (30, 30), (0, 0))
    labels = np.zeros(image.shape, np.uint32)
    stitcher = LabelStitcher(labels, blocks)
    stitcher.add(blocks[0], label(image))
    count = stitcher.finish(first=11)
    assert labels[labels > 0].min() == 11
    assert labels.max() == 10 + count
