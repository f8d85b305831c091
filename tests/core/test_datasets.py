"""Saved data sets: written once, never changed, read back by any front end as the same samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from im2im_core.datasets import (
    complete_regions,
    divide_strip,
    guess_task,
    learning_sample,
    list_datasets,
    load_dataset,
    prefer_file,
    read_about,
    save_dataset,
)
from im2im_core.errors import DataError, Stopped
from im2im_core.image import ArrayImage
from im2im_core.io import open_image
from im2im_core.project import Project
from im2im_core.recipe.data import DataSettings
from im2im_core.samples import TARGET, Sample

MICRON = (None, 0.2, 0.2)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "my project")


def pair(name: str, labels: Any, axes: str = "YX", **changes: Any) -> Sample:
    labels = np.asarray(labels)
    pixels = np.random.default_rng(len(name)).integers(1, 999, labels.shape).astype(np.uint16)
    source = ArrayImage(pixels, axes, name=name, voxel_size=MICRON)
    target = ArrayImage(labels, axes, name=f"{name} labels", voxel_size=MICRON)
    return replace(Sample(name, name, source, {TARGET: target}), **changes)


def squares(height: int = 64, width: int = 64) -> Any:
    """Squares of 4 pixels on a grid of 8, each with an id of its own."""
    labels = np.zeros((height, width), np.uint32)
    for i, (y, x) in enumerate(np.ndindex(height // 8, width // 8)):
        labels[8 * y : 8 * y + 4, 8 * x : 8 * x + 4] = i + 1
    return labels


def files(folder: Path, name: str) -> Sample:
    for role in ("IM", "GT"):
        (folder / role).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / role / f"{name}.tif", squares().astype(np.uint16), metadata={"axes": "YX"})
    source, target = (open_image(folder / role / f"{name}.tif") for role in ("IM", "GT"))
    return Sample(name, name, source, {TARGET: target})


def test_what_is_saved_is_what_a_training_reads(project: Project) -> None:
    samples = [pair("a", squares()), pair("b b", squares(), group="embryo"), pair("c", squares())]
    entry = save_dataset(project, "first", samples, {"a": "train", "b b": "validation"}, task="instance_segmentation")
    for place in (entry.path, entry.table):
        from im2im_core.layouts import load_samples

        loaded, parts = load_samples(DataSettings(path=project.relative(place)), project.root)
        assert [s.group for s in loaded] == ["a", "embryo", "c"]
        assert parts == {"a": "train", "b-b": "validation"}
        for old, new in zip(samples, loaded, strict=True):
            np.testing.assert_array_equal(new.source.read(), old.source.read())
            np.testing.assert_array_equal(new.targets[TARGET].read(), old.targets[TARGET].read())
            assert new.source.info.voxel_size == MICRON
            assert new.source.info.axes == "YX"
            assert new.weight is None
    assert (entry.name, entry.count, entry.task_hint, entry.labelling) == ("first", 3, "instance_segmentation", "dense")
    assert list_datasets(project) == (entry,)


def test_the_same_content_is_saved_once_and_a_correction_is_a_new_data_set(project: Project) -> None:
    first = save_dataset(project, "n", [pair("a", squares())], {})
    before = {p: p.stat().st_mtime_ns for p in first.path.rglob("*")}
    again = save_dataset(project, "n", [pair("a", squares())], {})
    assert again == first
    corrected = squares()
    corrected[0, 0] = 0
    second = save_dataset(project, "n", [pair("a", corrected)], {})
    assert second.path != first.path
    assert {p: p.stat().st_mtime_ns for p in first.path.rglob("*")} == before
    assert [e.path for e in list_datasets(project)] == [second.path, first.path]
    assert {p.name for p in project.folder("data").iterdir()} == {first.path.name, second.path.name}


def test_unchanged_files_are_referenced_and_corrected_ones_copied(project: Project, tmp_path: Path) -> None:
    inside, outside = files(project.root / "in", "a"), files(tmp_path / "out ü", "b")
    entry = save_dataset(project, "n", [inside, outside], {})
    assert not (entry.path / "images").exists()
    rows = entry.table.read_text(encoding="utf-8").splitlines()
    assert rows[1] == "../../in/IM/a.tif,../../in/GT/a.tif,,a,"
    assert rows[2].startswith(str(tmp_path / "out ü"))
    digest = read_about(entry.path)["samples"][0]["images"]["IM"]["sha256"]
    assert len(digest) == 64
    loaded, _ = load_dataset(entry.path)
    np.testing.assert_array_equal(loaded[1].source.read(), outside.source.read())
    corrected = ArrayImage(inside.source.read()[0, 0, 0], "YX", name="a", voxel_size=(None, 0.5, 0.5))
    entry = save_dataset(project, "n", [replace(inside, source=corrected)], {})
    loaded, _ = load_dataset(entry.path)
    assert loaded[0].source.info.voxel_size == (None, 0.5, 0.5)
    assert entry.table.read_text().splitlines()[1] == "images/IM/a.ome.zarr,../../in/GT/a.tif,,a,"


def test_fault_46_inputs_stay_as_they_are(project: Project, tmp_path: Path) -> None:
    sample = files(tmp_path / "in", "a")
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "in").rglob("*.tif")}
    save_dataset(project, "n", [sample], {"a": "strip"})
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before} == before


def test_prefer_file_only_where_every_pixel_is_the_same(tmp_path: Path) -> None:
    sample = files(tmp_path, "a")
    pixels = sample.source.read()[0, 0, 0]
    path = tmp_path / "IM" / "a.tif"
    assert prefer_file(ArrayImage(pixels, "YX"), path).info.identity == sample.source.info.identity
    changed = pixels.copy()
    changed[5, 5] += 1
    other = ArrayImage(changed, "YX")
    assert prefer_file(other, path) is other
    gone = ArrayImage(pixels, "YX")
    assert prefer_file(gone, tmp_path / "gone.tif") is gone


# ---- painted labels ------------------------------------------------------------


def test_sparse_labels_become_dense_with_weight_zero_where_unknown(project: Project) -> None:
    """0 unknown, 1 background, 2 the object; complete inside the left half.

    0 2 | 0 0
    1 0 | 0 2
    """
    painted = np.repeat(np.repeat([[0, 2, 0, 0], [1, 0, 0, 2]], 8, 0), 8, 1)
    rectangle = np.array([[0, 0], [0, 15], [15, 15], [15, 0]])
    entry = save_dataset(project, "n", [pair("a", painted)], {}, "sparse", regions={"a": [rectangle]})
    (sample,), _ = load_dataset(entry.path)
    assert sample.weight is not None
    np.testing.assert_array_equal(sample.targets[TARGET].read()[0, 0, 0, ::8, ::8], [[0, 1, 0, 0], [0, 0, 0, 1]])
    np.testing.assert_array_equal(sample.weight.read()[0, 0, 0, ::8, ::8], [[1, 1, 0, 0], [1, 1, 0, 1]])
    assert entry.labelling == "sparse"
    assert read_about(entry.path)["regions"] == {"a": [rectangle.astype(float).tolist()]}


def test_outside_the_regions_of_prefilled_labels_nothing_is_known(project: Project) -> None:
    from im2im_core.partial import from_prediction

    sample = pair("a", from_prediction(squares(64, 128)))
    rectangle = np.array([[0, 0], [0, 31], [31, 31], [31, 0]])
    with pytest.raises(DataError, match=r"which part of the prediction was corrected.*Draw a rectangle"):
        save_dataset(project, "n", [sample], {}, "sparse", prefilled=["a"])
    entry = save_dataset(
        project, "n", [sample], {}, "sparse", task="instance_segmentation", regions={"a": [rectangle]}, prefilled=["a"]
    )
    (saved,), _ = load_dataset(entry.path)
    assert saved.weight is not None
    known = saved.weight.read()[0, 0, 0]
    assert known[:32, :32].all()
    assert known.sum() == 32 * 32
    np.testing.assert_array_equal(saved.targets[TARGET].read()[0, 0, 0, :32, :32], squares(64, 128)[:32, :32])
    assert (entry.regions, entry.objects, entry.count) == (1, 16, 1)


def test_complete_regions_of_dense_labels_make_the_rest_unknown() -> None:
    labels = np.zeros((16, 16), np.uint8)
    labels[2, 2] = labels[12, 12] = 1
    sample = learning_sample(pair("a", labels), "dense", [np.array([[0, 0], [0, 7], [7, 7], [7, 0]])])
    assert sample.weight is not None
    known = sample.weight.read()[0, 0, 0]
    assert known.sum() == 64 + 1
    assert known[:8, :8].all()
    assert known[12, 12] == 1


def test_a_region_on_one_plane_is_complete_there_alone() -> None:
    square = [[0, 0], [0, 3], [3, 3], [3, 0]]
    on_plane = np.array([[2.0, y, x] for y, x in square])
    mask = complete_regions((1, 1, 4, 8, 8), "ZYX", [on_plane])
    assert mask[0, 0].any(axis=(1, 2)).tolist() == [False, False, True, False]
    at_time = np.array([[1.0, 0.0, y, x] for y, x in square])
    mask = complete_regions((3, 1, 1, 8, 8), "TZYX", [at_time])
    assert mask[:, 0, 0].any(axis=(1, 2)).tolist() == [False, True, False]
    assert complete_regions((3, 1, 4, 8, 8), "TZYX", [np.array(square)]).all(axis=(0, 1, 2)).sum() == 16


# ---- parts ---------------------------------------------------------------------


def test_a_strip_validates_without_sharing_pixels(project: Project) -> None:
    sample = pair("a", squares(64, 160))
    halves = divide_strip(sample)
    assert halves is not None
    train, held = (half.region for half in halves)
    assert train is not None
    assert held is not None
    assert (train[4], held[4]) == (slice(0, 112), slice(128, 160))
    entry = save_dataset(project, "n", [sample], {"a": "strip"})
    loaded, parts = load_dataset(entry.path)
    assert sorted(parts.values()) == ["train", "validation"]
    from im2im_core.split import split_samples

    split = split_samples(loaded, DataSettings().split, (128, 128), parts)
    assert [s.name for s in split.validation] == ["a-same-image-validation"]
    np.testing.assert_array_equal(split.validation[0].source.read(), sample.source.read()[..., 128:])
    assert (entry.count, entry.strips, entry.dimensions) == (1, 1, 2)


def test_an_entry_says_what_is_in_it(project: Project) -> None:
    stack = pair("a", np.stack([squares(), squares()]), "ZYX")
    films = pair("b", np.stack([squares(), squares()]), "TYX")
    for task, objects in (("instance_segmentation", 64 + 128), ("label_free", None)):
        entry = save_dataset(project, task, [stack, films], {"a": "train", "b": "validation"}, task=task)
        assert (entry.count, entry.strips, entry.regions, entry.dimensions) == (2, 0, 0, 3)
        assert entry.objects == objects
    told = save_dataset(project, "told", [films], {}, task="instance_segmentation", objects={"b": 7})
    assert (told.objects, told.dimensions) == (7, 2)


def test_the_strip_lies_where_something_is_known() -> None:
    painted = np.zeros((128, 512), np.uint8)
    painted[:64, :96] = 1
    sample = learning_sample(pair("a", painted), "sparse")
    halves = divide_strip(sample)
    assert halves is not None
    held = halves[1].weight
    assert held is not None
    assert held.read().all()
    assert divide_strip(pair("b", np.zeros((40, 40), np.uint8))) is None


@pytest.mark.parametrize(
    ("objects", "held"),
    [
        ([(0, 20), (90, 110)], (4, slice(0, 32))),
        ([(0, 20), (140, 160)], (4, slice(128, 160))),
        ([(150, 160)], (3, slice(48, 64))),
        ([(0, 0)], (4, slice(128, 160))),
    ],
)
def test_the_strip_is_cut_where_it_and_the_rest_hold_objects(
    objects: list[tuple[int, int]], held: tuple[int, slice]
) -> None:
    labels = np.zeros((64, 160), np.uint8)
    for number, (start, stop) in enumerate(objects, start=1):
        labels[10:60, start:stop] = number
    halves = divide_strip(pair("a", labels))
    assert halves is not None
    axis, span = held
    assert halves[1].region is not None
    assert halves[1].region[axis] == span
    trained = halves[0].region
    assert trained is not None
    assert trained[axis].stop <= span.start - 8 or trained[axis].start >= span.stop + 8


def test_an_image_too_small_for_a_strip_trains_whole(project: Project) -> None:
    entry = save_dataset(project, "n", [pair("a", squares(32, 32))], {"a": "strip"})
    assert load_dataset(entry.path)[1] == {"a": "train"}


# ---- what goes wrong -----------------------------------------------------------


def test_what_cannot_be_saved_is_named(project: Project) -> None:
    with pytest.raises(DataError, match="no image to save"):
        save_dataset(project, "n", [], {})
    with pytest.raises(DataError, match="b has no target"):
        save_dataset(project, "n", [replace(pair("b", squares()), targets={})], {})
    with pytest.raises(DataError, match="negative"):
        save_dataset(project, "n", [pair("a", -squares().astype(np.int32))], {}, "sparse")
    assert list_datasets(project) == ()
    assert list(project.folder("data").iterdir()) == []


def test_fault_25_a_cancelled_save_leaves_nothing(project: Project) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(Stopped, match="1 of 2"):
        save_dataset(project, "n", [pair("a", squares()), pair("b", squares())], {}, should_stop=stop)
    assert list(project.folder("data").iterdir()) == []


def test_a_note_that_cannot_be_read_hides_no_other_data_set(project: Project) -> None:
    entry = save_dataset(project, "n", [pair("a", squares())], {})
    for name, text in (("x", "{"), ("y", "[]"), ("z", '{"name": "n"}')):
        (project.folder("data") / name).mkdir()
        (project.folder("data") / name / "dataset.json").write_text(text)
    assert list_datasets(project) == (entry,)


def test_fault_39_names_that_file_systems_dislike(project: Project) -> None:
    names = ["image #1 %/ü", "CON", "con", "a\nb", "x" * 300, "..", "a.b"]
    samples = [pair(n, squares() + i) for i, n in enumerate(names)]
    entry = save_dataset(project, "n", samples, {})
    loaded, _ = load_dataset(entry.path)
    found = {s.group: int(s.targets[TARGET].read().min()) for s in loaded}
    assert found == {" ".join(name.split()): number for number, name in enumerate(names)}


# ---- guesses -------------------------------------------------------------------


def test_guess_task() -> None:
    noise = np.random.default_rng(0).integers(0, 9, (64, 64)).astype(np.uint16)
    assert guess_task(pair("a", squares())) == "instance_segmentation"
    assert guess_task(pair("a", (squares() > 0).astype(np.uint8))) == "semantic_segmentation"
    assert guess_task(pair("a", noise)) == "label_free"
    assert guess_task(pair("a", noise.astype(np.float32))) == "label_free"
    assert guess_task(pair("a", squares() * 0)) == "instance_segmentation"


def test_objects_are_counted_where_one_plane_of_weights_holds_for_the_stack(project: Project) -> None:
    known = np.zeros((1, 16, 64), np.float32)
    known[:, :8] = 1
    made = pair("a", np.stack([squares(16)] * 3), "ZYX", weight=ArrayImage(known, "ZYX"))
    entry = save_dataset(project, "n", [made], {}, task="instance_segmentation")
    assert entry.objects == 8


def test_only_one_target_can_be_painted_in_parts(project: Project) -> None:
    made = pair("a", squares())
    made = replace(made, targets={**made.targets, "edges": made.targets[TARGET]})
    save_dataset(project, "n", [made], {})
    with pytest.raises(DataError, match="only one can be painted in parts"):
        save_dataset(project, "n", [made], {}, "sparse")
