"""Arrays given to a training are kept in the project, once per content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from im2im_core.errors import DataError
from im2im_core.image import ArrayImage
from im2im_core.layouts import load_samples
from im2im_core.project import Project
from im2im_core.recipe import Recipe
from im2im_core.recipe.data import DataSettings
from im2im_core.samples import TARGET, Sample
from im2im_core.snapshot import keep_samples


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "p")


def read_back(folder: Path) -> list[Sample]:
    return list(load_samples(DataSettings(path=str(folder)), Path())[0])


def test_pairs_of_arrays_come_back_equal(project: Project) -> None:
    images = np.random.default_rng(0).integers(0, 99, (2, 8, 9)).astype(np.uint16)
    weight = np.ones((8, 9), np.float32)
    weight[0] = 0
    folder = keep_samples([(images[0], images[1] > 9, weight), (images[1], images[0] > 9, weight)], project, Recipe())
    first, second = read_back(folder)
    np.testing.assert_array_equal(first.source.read()[0, 0, 0], images[0])
    np.testing.assert_array_equal(second.targets[TARGET].read()[0, 0, 0], images[0] > 9)
    assert first.weight is not None
    np.testing.assert_array_equal(first.weight.read()[0, 0, 0], weight)


def test_the_same_content_is_kept_once(project: Project) -> None:
    pair = (np.eye(8, dtype=np.uint8), np.eye(8, dtype=np.uint8))
    first = keep_samples([pair], project, Recipe())
    before = {p: p.stat().st_mtime_ns for p in first.rglob("*")}
    assert keep_samples([pair], project, Recipe()) == first
    assert {p: p.stat().st_mtime_ns for p in first.rglob("*")} == before
    assert keep_samples([pair, pair], project, Recipe()) != first


def test_voxel_size_and_axes_of_samples_are_kept(project: Project) -> None:
    image = ArrayImage(np.zeros((2, 4, 8, 8), np.uint8), "CZYX", voxel_size=(0.5, 0.1, 0.1), channels=("a", "b"))
    target = ArrayImage(np.zeros((4, 8, 8), np.uint8), "ZYX", voxel_size=(0.5, 0.1, 0.1))
    (sample,) = read_back(keep_samples([Sample("x y", "g", image, {TARGET: target})], project, Recipe()))
    info = sample.source.info
    assert (info.axes, info.voxel_size, info.channels) == ("CZYX", (0.5, 0.1, 0.1), ("a", "b"))


def test_what_is_no_sample_is_named(project: Project) -> None:
    with pytest.raises(DataError, match="empty"):
        keep_samples([], project, Recipe())
    with pytest.raises(DataError, match="Sample 0 is a int"):
        keep_samples([3], project, Recipe())
    with pytest.raises(DataError, match="can be several things"):
        keep_samples([(np.zeros((3, 8, 8)), np.zeros((3, 8, 8)))], project, Recipe())
