"""Arrays given to a training are kept in the project, once per content, with all that is known of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from im2im_core.errors import DataError
from im2im_core.image import ArrayImage
from im2im_core.io import open_image
from im2im_core.layouts import load_samples
from im2im_core.project import Project
from im2im_core.recipe import Recipe
from im2im_core.samples import TARGET, Sample, Split
from im2im_core.snapshot import keep_samples
from im2im_core.split import split_samples


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "p")


def kept(data: Any, project: Project, recipe: Recipe | None = None) -> tuple[Recipe, list[Sample], dict[str, str]]:
    """Recipe that reads `data` from the project, and what it reads."""
    recipe = (recipe or Recipe()).override(keep_samples(data, project, recipe or Recipe()))
    samples, parts = load_samples(recipe.data, project.root)
    return recipe, list(samples), parts


def named(name: str, group: str = "", seed: int = 0, **changes: Any) -> Sample:
    pixels = np.random.default_rng(seed).integers(0, 99, (8, 9)).astype(np.uint16)
    source, target = ArrayImage(pixels, "YX"), ArrayImage((pixels > 40).astype(np.uint8), "YX")
    return replace(Sample(name, group or name, source, {TARGET: target}), **changes)


def test_pairs_of_arrays_come_back_equal(project: Project) -> None:
    images = np.random.default_rng(0).integers(0, 99, (2, 8, 9)).astype(np.uint16)
    weight = np.ones((8, 9), np.float32)
    weight[0] = 0
    _, (first, second), _ = kept([(images[0], images[1] > 9, weight), (images[1], images[0] > 9, weight)], project)
    np.testing.assert_array_equal(first.source.read()[0, 0, 0], images[0])
    np.testing.assert_array_equal(second.targets[TARGET].read()[0, 0, 0], images[0] > 9)
    assert first.weight is not None
    np.testing.assert_array_equal(first.weight.read()[0, 0, 0], weight)


def test_the_same_content_is_kept_once(project: Project) -> None:
    pair = (np.eye(8, dtype=np.uint8), np.eye(8, dtype=np.uint8))
    first = keep_samples([pair], project, Recipe())
    before = {p: p.stat().st_mtime_ns for p in project.folder("data").rglob("*") if p.is_file()}
    assert keep_samples([pair], project, Recipe()) == first
    assert {p: p.stat().st_mtime_ns for p in project.folder("data").rglob("*") if p.is_file()} == before
    assert keep_samples([pair, pair], project, Recipe()) != first


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "b"},
        {"group": "embryo"},
        {"source": ArrayImage(np.zeros((8, 9), np.uint8), "YX", voxel_size=(None, 0.5, 0.5))},
        {"source": ArrayImage(np.zeros((1, 8, 9), np.uint8), "CYX", channels=("GFP",))},
    ],
)
def test_what_is_said_of_an_image_is_a_part_of_its_content(project: Project, changes: dict[str, Any]) -> None:
    plain = named("a", source=ArrayImage(np.zeros((8, 9), np.uint8), "YX"))
    assert keep_samples([replace(plain, **changes)], project, Recipe()) != keep_samples([plain], project, Recipe())


def test_voxel_size_and_axes_of_samples_are_kept(project: Project) -> None:
    image = ArrayImage(np.zeros((2, 4, 8, 8), np.uint8), "CZYX", voxel_size=(0.5, 0.1, 0.1), channels=("a", "b"))
    target = ArrayImage(np.zeros((4, 8, 8), np.uint8), "ZYX", voxel_size=(0.5, 0.1, 0.1))
    _, (sample,), _ = kept([Sample("x y", "g", image, {TARGET: target})], project)
    info = sample.source.info
    assert (info.axes, info.voxel_size, info.channels) == ("CZYX", (0.5, 0.1, 0.1), ("a", "b"))


def test_told_axes_are_not_asked_of_what_is_kept(project: Project) -> None:
    colours = np.random.default_rng(0).integers(0, 99, (8, 9, 3)).astype(np.uint8)
    recipe, (sample,), _ = kept([(colours, colours[..., 0])], project, Recipe().override({"data.axes": "YXC"}))
    assert recipe.data.axes is None
    np.testing.assert_array_equal(sample.source.read()[0, :, 0], colours.transpose(2, 0, 1))


def test_groups_are_kept_and_never_divided(project: Project) -> None:
    data = [named(f"{group}{i}", group, seed=10 * i + ord(group)) for group in "ab" for i in range(4)]
    recipe, samples, parts = kept(data, project)
    assert sorted(s.group for s in samples) == ["a"] * 4 + ["b"] * 4
    split = split_samples(samples, recipe.data.split, (8, 8), parts)
    assert len(split.validation) == 4
    assert len({s.group for s in split.validation}) == 1


def test_parts_that_a_split_gives_are_kept(project: Project) -> None:
    a, b, c = (named(n, seed=i) for i, n in enumerate("abc"))
    _, _, parts = kept(Split((a,), (b,), (c,)), project)
    assert parts == {"a": "train", "b": "validation", "c": "test"}


def test_samples_named_by_the_recipe_keep_their_part_whatever_their_files_are_called(project: Project) -> None:
    recipe = Recipe().override({"data.split.validation_names": ["cells #1"]})
    after, samples, parts = kept([named("cells #1"), named("b", seed=1)], project, recipe)
    split = split_samples(samples, after.data.split, (8, 8), parts)
    np.testing.assert_array_equal(split.validation[0].source.read(), named("cells #1").source.read())
    with pytest.raises(DataError, match=r"validation_names: no sample is called 'cells #1'"):
        keep_samples([named("cells 1")], project, recipe)


def test_further_targets_are_kept(project: Project) -> None:
    edges = ArrayImage(np.eye(8, 9, dtype=np.uint8), "YX")
    made = named("a")
    made = replace(made, targets={**made.targets, "edge map": edges})
    _, (sample,), _ = kept([made], project)
    assert list(sample.targets) == [TARGET, "edge map"]
    np.testing.assert_array_equal(sample.targets["edge map"].read(), edges.read())


def test_sparse_labels_are_decoded_once(project: Project) -> None:
    painted = np.zeros((8, 9), np.uint8)
    painted[:, :3], painted[2:4, :2] = 1, 5
    made = named("a")
    made = replace(made, targets={TARGET: ArrayImage(painted, "YX")})
    recipe, (sample,), _ = kept([made], project, Recipe().override({"data.labelling": "sparse"}))
    assert recipe.data.labelling == "dense"
    assert sample.weight is not None
    np.testing.assert_array_equal(sample.weight.read()[0, 0, 0], painted > 0)
    np.testing.assert_array_equal(sample.targets[TARGET].read()[0, 0, 0], np.maximum(painted, 1) - 1)


def test_unchanged_files_are_not_copied(project: Project, tmp_path: Path) -> None:
    for role in ("IM", "GT"):
        tifffile.imwrite(tmp_path / f"{role}.tif", np.eye(8, dtype=np.uint8), metadata={"axes": "YX"})
    source, target = (open_image(tmp_path / f"{role}.tif") for role in ("IM", "GT"))
    _, (sample,), _ = kept([Sample("a", "a", source, {TARGET: target})], project)
    assert sample.source.info.identity == source.info.identity
    assert not list(project.folder("data").rglob("*.zarr"))


def test_what_is_no_sample_is_named(project: Project) -> None:
    with pytest.raises(DataError, match="empty"):
        keep_samples([], project, Recipe())
    with pytest.raises(DataError, match="Sample 0 is a int"):
        keep_samples([3], project, Recipe())
    with pytest.raises(DataError, match="can be several things"):
        keep_samples([(np.zeros((3, 8, 8)), np.zeros((3, 8, 8)))], project, Recipe())
    with pytest.raises(DataError, match="2 samples are called 'a'"):
        keep_samples([named("a"), named("a", seed=1)], project, Recipe())
