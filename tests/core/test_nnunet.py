"""Raw data sets of nnU-Net: channels of several files, unknown pixels, the test part, and all that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from im2im_core.errors import DataError
from im2im_core.image import ArrayImage, join_channels
from im2im_core.io import write_image
from im2im_core.layouts import AutoLayout, NnunetLayout, load_samples, open_samples
from im2im_core.layouts.base import FilesError
from im2im_core.recipe.data import DataSettings
from im2im_core.samples import TARGET


def put(path: Path, value: int, *, last: int | None = None) -> Path:
    """Image of 8 by 8 equal pixels; the last row may differ."""
    path.parent.mkdir(exist_ok=True)
    pixels = np.full((8, 8), value, np.uint8)
    pixels[-1] = value if last is None else last
    return write_image(path, pixels, "YX")


def describe(root: Path, count: int = 2, **more: Any) -> None:
    about = {
        "channel_names": {"0": "DNA", "1": "actin"},
        "labels": {"background": 0, "cell": 1},
        "numTraining": count,
        "file_ending": ".tif",
    }
    (root / "dataset.json").write_text(json.dumps({**about, **more}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Cases a and b of two channels; channel c of case n is 10 n + c everywhere."""
    for n, name in enumerate("ab", start=1):
        for c in range(2):
            put(tmp_path / "imagesTr" / f"{name}_000{c}.tif", 10 * n + c)
        put(tmp_path / "labelsTr" / f"{name}.tif", 1, last=2)
    describe(tmp_path)
    return tmp_path


def load(root: Path, **data: Any) -> tuple[Any, dict[str, str]]:
    return load_samples(DataSettings.load({"path": str(root), **data}), Path())


def test_channels_of_several_files_are_one_image(root: Path) -> None:
    samples, parts = load(root)
    assert [s.name for s in samples] == ["a", "b"]
    assert parts == {}
    info = samples[1].source.info
    assert (info.shape, info.axes, info.channels) == ((1, 2, 1, 8, 8), "CYX", ("DNA", "actin"))
    assert samples[1].source.read()[0, :, 0, 0, 0].tolist() == [20, 21]
    assert samples[0].targets[TARGET].read().max() == 2
    assert samples[0].weight is None


def test_channels_can_be_chosen_by_the_names_of_the_description(root: Path) -> None:
    samples, _ = load(root, input_channels=("actin",))
    assert samples[0].source.read().max() == 11


def test_one_file_may_hold_all_channels(root: Path) -> None:
    for name in "ab":
        (root / "imagesTr" / f"{name}_0001.tif").unlink()
        pixels = np.stack([np.full((8, 8), c, np.uint8) for c in (5, 6)])
        write_image(root / "imagesTr" / f"{name}_0000.tif", pixels, "CYX", overwrite=True)
    samples, _ = load(root)
    assert samples[0].source.info.channels == ("DNA", "actin")
    assert samples[0].source.read()[0, :, 0, 0, 0].tolist() == [5, 6]
    describe(root, channel_names={"0": "DNA"})
    with pytest.raises(FilesError, match="a has 2 channels, 1 are described: DNA") as error:
        load(root)
    assert [p.code for p in error.value.problems] == ["channel_count"] * 2


def test_a_single_channel_keeps_its_axes(root: Path) -> None:
    for name in "ab":
        (root / "imagesTr" / f"{name}_0001.tif").unlink()
    describe(root, channel_names={"0": "DNA"})
    info = load(root)[0][0].source.info
    assert (info.axes, info.channels, info.name) == ("YX", ("DNA",), "a_0000.tif")


def test_it_is_found_by_itself(root: Path) -> None:
    assert isinstance(AutoLayout().detect(root), NnunetLayout)
    assert AutoLayout(group_pattern="(.)").find(root)[0].group == "a"


def test_nothing_is_known_where_the_label_is_to_be_ignored(root: Path) -> None:
    describe(root, labels={"background": 0, "cell": 1, "ignore": 2})
    sample = load(root)[0][0]
    assert sample.weight is not None
    weight, labels = sample.weight.read()[0, 0, 0], sample.targets[TARGET].read()[0, 0, 0]
    assert (weight[-1].max(), weight[:-1].min()) == (0, 1)
    assert (labels[-1].max(), labels[:-1].min()) == (0, 1)


def test_labelled_test_images_are_the_test_part(root: Path) -> None:
    for c in range(2):
        put(root / "imagesTs" / f"c_000{c}.tif", 30 + c)
    assert [f.name for f in NnunetLayout().find(root)] == ["a", "b"]
    put(root / "labelsTs" / "c.tif", 1)
    assert load(root)[1] == {"c": "test"}
    assert NnunetLayout().doubts(root, NnunetLayout().find(root)) == ()


def test_the_file_beside_a_stack_says_the_voxel_size(root: Path) -> None:
    (root / "imagesTr" / "a.json").write_text('{"spacing": [2.0, 0.5, 0.4]}')
    samples, _ = load(root)
    assert samples[0].source.info.voxel_size == (2.0, 0.5, 0.4)
    assert samples[1].source.info.voxel_size == (None, None, None)
    assert load(root, voxel_size=(1, 1, 1))[0][0].source.info.voxel_size == (1, 1, 1)
    (root / "imagesTr" / "a.json").write_text('{"spacing": [2.0, 0.5]}')
    with pytest.raises(DataError, match=r"a\.json holds no spacing"):
        load(root)


def test_cases_can_be_listed_one_by_one(root: Path) -> None:
    listed = {"x": {"images": ["imagesTr/a_0001.tif", "imagesTr/a_0000.tif"], "label": "labelsTr/b.tif"}}
    describe(root, 1, dataset=listed)
    (sample,) = open_samples(NnunetLayout().find(root))
    assert sample.name == "x"
    assert sample.source.read()[0, :, 0, 0, 0].tolist() == [11, 10]
    listed["y"] = {"images": ["imagesTr/gone_0000.tif"], "label": "labelsTr/a.tif"}
    describe(root, 2, dataset=listed)
    with pytest.raises(FilesError, match=r"gone_0000\.tif does not exist"):
        NnunetLayout().find(root)
    describe(root, 1, dataset={"x": {"images": []}})
    with pytest.raises(DataError, match="no images and label of the case 'x'"):
        NnunetLayout().find(root)


def test_everything_that_is_missing_is_listed(root: Path) -> None:
    (root / "imagesTr" / "a_0001.tif").unlink()
    (root / "labelsTr" / "b.tif").unlink()
    put(root / "imagesTr" / "plain.tif", 1)
    with pytest.raises(FilesError) as error:
        NnunetLayout().find(root)
    assert sorted(p.text for p in error.value.problems) == [
        "a_0000.tif has no channel 0001",
        "b_0000.tif has no target",
        "plain.tif has no channel number",
    ]
    assert {p.code for p in error.value.problems} == {"missing_partner"}


def test_channels_of_different_sizes_are_told(root: Path) -> None:
    write_image(root / "imagesTr" / "a_0001.tif", np.zeros((8, 9), np.uint8), "YX", overwrite=True)
    with pytest.raises(FilesError, match="channels differ in size") as error:
        load(root)
    assert [p.code for p in error.value.problems] == ["shape_mismatch"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"labels": None}, "not as nnU-Net"),
        ({"numTraining": "many"}, "not as nnU-Net"),
        ({"file_ending": ".nii.gz"}, r"no reader for \.nii\.gz"),
    ],
)
def test_a_description_that_is_not_understood_is_refused(root: Path, change: dict[str, Any], match: str) -> None:
    describe(root, **change)
    with pytest.raises(DataError, match=match):
        AutoLayout().find(root)


def test_a_set_without_description_is_refused(root: Path) -> None:
    (root / "dataset.json").unlink()
    with pytest.raises(DataError, match=r"dataset\.json"):
        AutoLayout().find(root)


def test_doubts_name_what_is_told_and_what_is_there(root: Path) -> None:
    describe(root, 5, labels={"background": 0, "cell": [1, 3], "nucleus": 3})
    texts = [p.text for p in NnunetLayout().doubts(root, NnunetLayout().find(root))]
    wanted = ("5 training cases, there are 2", "with gaps", "the regions cell")
    assert [words in text for words, text in zip(wanted, texts, strict=True)] == [True] * 3


def test_joined_channels_read_any_region() -> None:
    one = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    two = np.arange(12, dtype=np.float32).reshape(3, 4)
    images = [ArrayImage(one, "CYX", name="one"), ArrayImage(two, "YX", name="two")]
    joined = join_channels(images, "joined", ("a", "b", "c"))
    whole = np.concatenate([one, two[None]]).astype(np.float32)
    assert joined.info.dtype == np.float32
    assert np.array_equal(joined.read()[0, :, 0], whole)
    part = joined.read((slice(0, 1), slice(1, 3), slice(0, 1), slice(1, 3), slice(2, 4)))
    assert np.array_equal(part[0, :, 0], whole[1:3, 1:3, 2:4])
    assert joined.info.channels == ("a", "b", "c")
