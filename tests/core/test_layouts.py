"""Layouts: every way of naming files finds the same samples, and everything that is wrong is listed at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import tifffile

from im2im_core._base import Config
from im2im_core.errors import ConfigError, DataError, ResourceError
from im2im_core.image import Image
from im2im_core.io import open_image, write_image
from im2im_core.layouts import (
    AutoLayout,
    LayoutSettings,
    NnunetLayout,
    PreSplitLayout,
    SubfolderLayout,
    SuffixLayout,
    TableLayout,
    load_samples,
    open_samples,
)
from im2im_core.layouts.base import FilesError, SampleFiles, image_stem, list_folders, list_images
from im2im_core.recipe.data import DataSettings, DataSource
from im2im_core.recipe.fields import documented_fields
from im2im_core.review import problems_of
from im2im_core.samples import TARGET


def write(path: Path, shape: tuple[int, ...] = (16, 16), axes: str | None = None, value: int = 1) -> Path:
    """Small image with known axes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full(shape, value, np.uint16)
    axes = axes or "TCZYX"[-len(shape) :]
    tifffile.imwrite(path, pixels, photometric="minisblack", ome=True, metadata={"axes": axes})
    return path


def by_suffix(root: Path) -> None:
    for name in "ab":
        write(root / f"{name}_IM.tiff")
        write(root / f"{name}_GT.ome.tif")
    write(root / "a_CM.tiff")


def by_folder(root: Path) -> None:
    for name in "ab":
        write(root / "IM" / f"{name}.tiff")
        write(root / "GT" / f"{name}.tif")
    write(root / "CM" / "a.tiff")


def by_table(root: Path) -> None:
    for name in "ab":
        write(root / "raw" / f"{name}.tiff")
        write(root / "truth" / f"{name}.tif")
    write(root / "w.tiff")
    (root / "list.csv").write_text("GT,IM,CM\ntruth/b.tif,raw/b.tiff,\ntruth/a.tif,raw/a.tiff,w.tiff\n")


def by_part(root: Path) -> None:
    for part, name in (("train", "a"), ("valid", "b")):
        write(root / part / f"{name}_IM.tiff")
        write(root / part / f"{name}_GT.tiff")
    write(root / "train" / "a_CM.tiff")


WORLDS: list[tuple[Callable[[Path], None], AutoLayout | SuffixLayout | SubfolderLayout | TableLayout | PreSplitLayout]]
WORLDS = [
    (by_suffix, SuffixLayout()),
    (by_folder, SubfolderLayout()),
    (by_table, TableLayout()),
    (by_part, PreSplitLayout()),
]


def texts(error: pytest.ExceptionInfo[FilesError]) -> list[str]:
    return [p.text for p in error.value.problems]


# ---- all layouts ----


def test_every_layout_is_tested() -> None:
    elsewhere = {NnunetLayout}  # test_nnunet.py: its weights are made from the labels
    assert {type(layout) for _, layout in WORLDS} | {AutoLayout} | elsewhere == set(get_args(LayoutSettings))


@pytest.mark.parametrize("found_by", ["itself", "auto"])
@pytest.mark.parametrize(("build", "layout"), WORLDS)
def test_every_layout_finds_the_same_samples(
    tmp_path: Path, build: Callable[[Path], None], layout: SuffixLayout, found_by: str
) -> None:
    build(tmp_path)
    chosen = layout if found_by == "itself" else AutoLayout()
    samples = open_samples(chosen.find(tmp_path))
    assert [(s.name, s.group, set(s.targets), s.weight is not None) for s in samples] == [
        ("a", "a", {TARGET}, True),
        ("b", "b", {TARGET}, False),
    ]
    assert samples[0].source.info.shape == (1, 1, 1, 16, 16)


@pytest.mark.parametrize(("build", "layout"), WORLDS)
def test_fault_12_missing_partners_are_all_listed_by_name(
    tmp_path: Path, build: Callable[[Path], None], layout: SuffixLayout
) -> None:
    build(tmp_path)
    gone = [p for p in sorted(tmp_path.rglob("*.tif*")) if p.parent.name in ("truth", "GT") or "_GT" in p.name]
    for path in gone:
        path.unlink()
    (tmp_path / "GT").mkdir(exist_ok=True)
    with pytest.raises(FilesError) as error:
        layout.find(tmp_path)
    assert [p.code for p in error.value.problems] == ["missing_partner"] * 2
    assert all(any(f"{name}" in text for text in texts(error)) for name in "ab")
    assert error.value.exit_code == 3
    assert {f.name for f in error.value.found} == {"a", "b"}


@pytest.mark.parametrize(("build", "layout"), WORLDS)
def test_settings_survive_yaml_and_name_their_fields(
    tmp_path: Path, build: Callable[[Path], None], layout: Config
) -> None:
    layout.to_file(tmp_path / "layout.yaml")
    assert type(layout).from_file(tmp_path / "layout.yaml") == layout
    assert all(f.description for name, f in documented_fields(type(layout)).items() if name != "kind")


@pytest.mark.parametrize(
    ("layout", "source", "target"),
    [
        (SuffixLayout, "{}_IM.tiff", "{}_GT.tiff"),
        (AutoLayout, "{}_IM.tiff", "{}_GT.tiff"),
        (SubfolderLayout, "IM/{}.tiff", "GT/{}.tiff"),
        (PreSplitLayout, "train/IM/{}.tiff", "train/GT/{}.tiff"),
    ],
)
def test_group_pattern_names_the_group(tmp_path: Path, layout: type[SuffixLayout], source: str, target: str) -> None:
    for name in ("mouse1_x", "mouse1_y", "mouse2_x"):
        write(tmp_path / source.format(name))
        write(tmp_path / target.format(name))
    found = layout(group_pattern=r"^(mouse\d)_").find(tmp_path)
    assert [f.group for f in found] == ["mouse1", "mouse1", "mouse2"]
    with pytest.raises(FilesError, match="'mouse2_x' does not fit group_pattern"):
        layout(group_pattern=r"(mouse1)").find(tmp_path)


@pytest.mark.parametrize("pattern", ["(", "mouse"])
def test_a_pattern_that_names_no_group_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="group_pattern"):
        AutoLayout.load({"group_pattern": pattern})


# ---- suffix ----


def test_hidden_and_half_written_files_are_left_alone(tmp_path: Path) -> None:
    by_suffix(tmp_path)
    write(tmp_path / "c_IM.tiff").rename(tmp_path / "c_IM.tiff.part")
    write(tmp_path / "._d_IM.tiff")
    (tmp_path / "notes.txt").write_text("a_IM")
    assert [f.name for f in SuffixLayout().find(tmp_path)] == ["a", "b"]


def test_several_targets_and_own_suffixes(tmp_path: Path) -> None:
    for suffix in ("", "_nuclei", "_membrane"):
        write(tmp_path / f"x{suffix}.tif")
    layout = SuffixLayout(source_suffix="", target_suffixes=("_nuclei", "_membrane"))
    (found,) = layout.find(tmp_path)
    assert found.name == "x"
    assert {k: p.name for k, p in found.targets.items()} == {TARGET: "x_nuclei.tif", "membrane": "x_membrane.tif"}
    (tmp_path / "x_membrane.tif").unlink()
    with pytest.raises(FilesError, match=r"x.tif has no target 'membrane'"):
        layout.find(tmp_path)


def test_fault_12_doubled_and_orphaned_files_are_listed_together(tmp_path: Path) -> None:
    by_suffix(tmp_path)
    write(tmp_path / "a_IM.ome.tiff")
    write(tmp_path / "lonely_GT.tif")
    write(tmp_path / "weight_CM.tif")
    with pytest.raises(FilesError) as error:
        SuffixLayout().find(tmp_path)
    assert [(p.name, p.code) for p in error.value.problems] == [
        ("a", "duplicate_stem"),
        ("lonely", "missing_partner"),
        ("weight", "missing_partner"),
    ]
    assert "a_IM.ome.tiff, a_IM.tiff" in texts(error)[0]
    assert str(error.value).startswith("3 problems with the images:\n- ")
    assert {(p.sample, p.severity) for p in problems_of(error.value)} == {
        ("a", "error"),
        ("lonely", "error"),
        ("weight", "error"),
    }


def test_a_folder_without_the_suffix_says_what_it_looked_for(tmp_path: Path) -> None:
    write(tmp_path / "x.tif")
    with pytest.raises(DataError, match=r"1 images, none named \*_IM or \*_GT"):
        SuffixLayout().find(tmp_path)


@pytest.mark.parametrize("changes", [{"target_suffixes": ()}, {"weight_suffix": "_GT"}, {"target_suffixes": ("",)}])
def test_suffixes_must_tell_files_apart(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="must differ"):
        SuffixLayout.load(changes)


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a.b.tif", "a.b"), ("a.OME.TIFF", "a"), ("a.ome.zarr", "a"), ("a.nii.gz", "a"), ("ü #1.png", "ü #1")],
)
def test_stems(name: str, stem: str) -> None:
    assert image_stem(Path(name)) == stem


def test_fault_39_odd_names(tmp_path: Path) -> None:
    root = tmp_path / "пробел ü 画像 #1"
    for suffix in ("_IM", "_GT"):
        write(root / f"Zelle % 1{suffix}.tiff")
    (sample,) = open_samples(AutoLayout().find(root))
    assert sample.name == "Zelle % 1"


# ---- subfolders ----


@pytest.mark.parametrize(("images", "labels"), [("images", "masks"), ("images", "labels"), ("Images", "Masks")])
@pytest.mark.parametrize("ending", ["", "_masks", "_label"])
def test_usual_folder_names_and_endings_are_found(tmp_path: Path, images: str, labels: str, ending: str) -> None:
    write(tmp_path / images / "x.tif")
    write(tmp_path / labels / f"x{ending}.tiff")
    (found,) = AutoLayout().find(tmp_path)
    assert (found.name, found.targets[TARGET].name) == ("x", f"x{ending}.tiff")


def test_an_exact_name_goes_before_an_ending(tmp_path: Path) -> None:
    for name in ("x", "x_masks"):
        write(tmp_path / "IM" / f"{name}.tif")
        write(tmp_path / "GT" / f"{name}.tif")
    assert [(f.name, f.targets[TARGET].stem) for f in SubfolderLayout().find(tmp_path)] == [
        ("x", "x"),
        ("x_masks", "x_masks"),
    ]


def test_a_missing_folder_says_which_there_are(tmp_path: Path) -> None:
    write(tmp_path / "raw" / "x.tif")
    with pytest.raises(DataError, match=r"no folder 'IM'; there is: raw"):
        SubfolderLayout().find(tmp_path)
    (tmp_path / "IM").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        SubfolderLayout().find(tmp_path)


# ---- table ----


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_groups_and_parts(tmp_path: Path, delimiter: str) -> None:
    rows = [("Image", "TARGET", "weight", "Group", "part")]
    for i, part in enumerate(("train", "val", "Test")):
        write(tmp_path / f"i{i}.tif")
        write(tmp_path / f"t{i}.tif")
        rows.append((f"i{i}.tif", f"t{i}.tif", "", "embryo" if i == 0 else "", part))
    table = tmp_path / "t.csv"
    table.write_text("\n".join(delimiter.join(r) for r in rows), encoding="utf-8-sig")
    found = AutoLayout(group_pattern=r"i(\d)").find(table)
    assert [(f.name, f.group, f.part, f.weight) for f in found] == [
        ("i0", "embryo", "train", None),
        ("i1", "1", "validation", None),
        ("i2", "2", "test", None),
    ]


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("IM,mask\na.tif,b.tif\n")
    with pytest.raises(DataError, match=r"no column GT; its columns are: IM, mask.*GT \(or target\)"):
        TableLayout().find(tmp_path)
    (tmp_path / "t.csv").write_text("")
    with pytest.raises(DataError, match="no column IM and GT"):
        TableLayout().find(tmp_path)
    (tmp_path / "t.csv").write_text("IM,GT\n")
    with pytest.raises(DataError, match="has no rows"):
        TableLayout().find(tmp_path)


def test_fault_12_all_wrong_rows_are_listed(tmp_path: Path) -> None:
    write(tmp_path / "a.tif")
    (tmp_path / "t.csv").write_text("IM,GT,part\na.tif,gone.tif,train\na.tif,a.tif,holdout\n,a.tif,\na.tif,,\n")
    with pytest.raises(FilesError) as error:
        TableLayout().find(tmp_path)
    assert "t.csv, row 2: gone.tif does not exist" in texts(error)
    assert any("row 3: part 'holdout'" in t for t in texts(error))
    assert "t.csv, row 4: the row has no image" in texts(error)
    assert "t.csv, row 5: a.tif has no target" in texts(error)
    assert any("a.tif stands in 3 rows" in t for t in texts(error))


def test_equal_file_names_in_a_table_get_their_folder(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write(tmp_path / folder / "x.tif")
    (tmp_path / "t.csv").write_text("IM,GT\none/x.tif,one/x.tif\ntwo/x.tif,two/x.tif\n")
    assert [f.name for f in TableLayout(file="t.csv").find(tmp_path)] == ["one-x", "two-x"]


def test_several_tables_are_a_question(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("IM,GT\n")
    with pytest.raises(DataError, match=r"2 tables: a.csv, b.csv.*layout.file"):
        TableLayout().find(tmp_path)
    with pytest.raises(DataError, match="Cannot read the table"):
        TableLayout(file="c.csv").find(tmp_path)


# ---- presplit and auto ----


def test_parts_come_from_the_folders(tmp_path: Path) -> None:
    for part in ("train", "validation", "test"):
        write(tmp_path / part / "images" / "001.tif")
        write(tmp_path / part / "masks" / "001.tif")
    samples, parts = load_samples(DataSettings(path="."), tmp_path)
    assert parts == {
        "train-images-001": "train",
        "validation-images-001": "validation",
        "test-images-001": "test",
    }
    assert {s.name for s in samples} == set(parts)
    assert len({s.group for s in samples}) == 3


def test_own_layout_inside_the_parts_and_problems_of_all(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write(tmp_path / part / "x_raw.tif")
    with pytest.raises(FilesError) as error:
        PreSplitLayout(inside=SuffixLayout(source_suffix="_raw")).find(tmp_path)
    assert texts(error) == ["train: x_raw.tif has no target", "test: x_raw.tif has no target"]


def test_without_train_there_is_no_split(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="no folder 'train'; there is: test"):
        PreSplitLayout().find(tmp_path)


def test_masks_beside_images_are_found(tmp_path: Path) -> None:
    for name in ("x.tif", "x_masks.tif"):
        write(tmp_path / name)
    (found,) = AutoLayout().find(tmp_path)
    assert (found.name, found.targets[TARGET].name) == ("x", "x_masks.tif")


def test_auto_says_what_it_saw_and_what_it_takes(tmp_path: Path) -> None:
    write(tmp_path / "x.tif")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"1 images \(x.tif\), 1 folders \(other\), 0 tables.*IM.*masks.*train.*CSV"):
        AutoLayout().find(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        AutoLayout().find(tmp_path / "nowhere")
    with pytest.raises(DataError, match="not a folder or CSV table"):
        AutoLayout().find(tmp_path / "x.tif")


def test_ome_zarr_folders_are_images(tmp_path: Path) -> None:
    path = write_image(tmp_path / "x_IM.ome.zarr", np.zeros((16, 16), np.uint8), "YX")
    write(tmp_path / "x_GT.tif")
    assert path in list_images(tmp_path)
    assert path not in list_folders(tmp_path)
    (sample,) = open_samples(AutoLayout().find(tmp_path))
    assert sample.source.info.shape == (1, 1, 1, 16, 16)


# ---- opening ----


def pair_of(root: Path, source: tuple[int, ...], target: tuple[int, ...], **weight: tuple[int, ...]) -> SampleFiles:
    return SampleFiles(
        "p",
        write(root / "s.tif", source),
        {TARGET: write(root / "t.tif", target)},
        write(root / "w.tif", weight["weight"]) if weight else None,
    )


@pytest.mark.parametrize(
    ("source", "target"),
    [((16, 16), (16, 16)), ((4, 16, 16), (16, 16)), ((2, 4, 16, 16), (4, 16, 16)), ((4, 16, 16), (3, 4, 16, 16))],
)
def test_targets_may_be_flat_or_have_channels(tmp_path: Path, source: tuple[int, ...], target: tuple[int, ...]) -> None:
    (sample,) = open_samples([pair_of(tmp_path, source, target)])
    assert sample.targets[TARGET].info.shape[-len(target) :] == target


@pytest.mark.parametrize(
    ("source", "target"),
    [((16, 16), (16, 15)), ((16, 16), (15, 16)), ((4, 16, 16), (3, 16, 16)), ((16, 16), (4, 16, 16))],
)
def test_fault_13_shapes_that_do_not_fit(tmp_path: Path, source: tuple[int, ...], target: tuple[int, ...]) -> None:
    with pytest.raises(FilesError, match=r"p: image .* and target .* do not fit") as error:
        open_samples([pair_of(tmp_path, source, target)])
    assert f"Y {source[-2]} × X {source[-1]}" in str(error.value)
    assert f"Y {target[-2]} × X {target[-1]}" in str(error.value)


def test_fault_13_weights_must_fit_and_have_one_channel(tmp_path: Path) -> None:
    assert open_samples([pair_of(tmp_path, (4, 16, 16), (16, 16), weight=(16, 16))])[0].weight is not None
    for shape in ((15, 16), (2, 1, 16, 16)):
        with pytest.raises(FilesError, match=r"p: image .* and weight"):
            open_samples([pair_of(tmp_path, (4, 16, 16), (16, 16), weight=shape)])


def test_every_problem_of_every_source_is_in_one_error(tmp_path: Path) -> None:
    by_suffix(tmp_path / "one")
    (tmp_path / "one" / "b_GT.ome.tif").unlink()
    by_folder(tmp_path / "two")
    write(tmp_path / "two" / "GT" / "a.tif", (16, 15))
    (tmp_path / "two" / "IM" / "b.tiff").write_bytes(b"II*\0 this is no image")
    with pytest.raises(FilesError) as error:
        load_samples(DataSettings(path="one", more=(DataSource(path="two"),)), tmp_path)
    assert {p.code for p in error.value.problems} == {"missing_partner", "shape_mismatch", "unreadable"}
    assert len(error.value.problems) == 3
    assert any("b.tiff" in t for t in texts(error))


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), ResourceError("may not be read")])
def test_fault_44_a_file_without_permission_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(path: Path, **settings: object) -> Image:
        if Path(path).name == "a_IM.tiff":
            raise error
        return open_image(path, axes=None)

    by_suffix(tmp_path)
    monkeypatch.setattr("im2im_core.io.open_image", refuse)
    with pytest.raises(FilesError) as caught:
        open_samples(SuffixLayout().find(tmp_path))
    assert [(p.name, p.code) for p in caught.value.problems] == [("a", "unreadable")]
    assert "a_IM.tiff" in texts(caught)[0]


def test_fault_09_cut_files_are_named(tmp_path: Path) -> None:
    by_suffix(tmp_path)
    whole = write(tmp_path / "a_IM.tiff", (4, 16, 16)).read_bytes()
    (tmp_path / "a_IM.tiff").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FilesError, match=r"a_IM\.tiff"):
        open_samples(SuffixLayout().find(tmp_path))


def test_equal_names_of_two_sources_get_their_folder_and_stay_apart(tmp_path: Path) -> None:
    by_suffix(tmp_path / "one")
    by_suffix(tmp_path / "two")
    samples, parts = load_samples(DataSettings(path="one", more=(DataSource(path="two"),)), tmp_path)
    assert [s.name for s in samples] == ["one-a", "one-b", "two-a", "two-b"]
    assert len({s.group for s in samples}) == 4
    assert parts == {}


def test_the_same_source_twice_is_refused(tmp_path: Path) -> None:
    by_suffix(tmp_path)
    with pytest.raises(FilesError, match="more than once"):
        load_samples(DataSettings(path=".", more=(DataSource(path="."),)), tmp_path)


def test_without_a_path_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.path is not set"):
        load_samples(DataSettings(), tmp_path)


def test_channels_and_voxel_size_are_applied(tmp_path: Path) -> None:
    write(tmp_path / "x_IM.tif", (3, 2, 16, 16), "CZYX")
    write(tmp_path / "x_GT.tif", (2, 2, 16, 16), "CZYX")
    settings = DataSettings(path=".", input_channels=(2, 0), target_channels=(1,), voxel_size=(1.0, 0.5, 0.25))
    (sample,), _ = load_samples(settings, tmp_path)
    assert sample.source.info.shape == (1, 2, 2, 16, 16)
    assert sample.targets[TARGET].info.shape == (1, 1, 2, 16, 16)
    assert sample.source.info.voxel_size == (1.0, 0.5, 0.25)
    assert sample.source.read().shape == sample.source.info.shape
    with pytest.raises(FilesError, match="no channel 5"):
        load_samples(settings.replace(input_channels=(5,)), tmp_path)


def test_images_with_other_channels_are_named(tmp_path: Path) -> None:
    for name, channels in (("a", 2), ("b", 2), ("c", 1)):
        write(tmp_path / f"{name}_IM.tif", (channels, 1, 16, 16))
        write(tmp_path / f"{name}_GT.tif")
    with pytest.raises(FilesError, match="c has 1 channels, most images have 2"):
        open_samples(SuffixLayout().find(tmp_path))


def test_fault_18_axes_are_told_where_files_do_not_say(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x_IM.tif", np.zeros((5, 16, 16), np.uint8), photometric="minisblack", metadata=None)
    tifffile.imwrite(tmp_path / "x_GT.tif", np.zeros((16, 16), np.uint8), photometric="minisblack", metadata=None)
    (sample,), _ = load_samples(DataSettings(path=".", axes="CYX"), tmp_path)
    assert sample.source.info.shape == (1, 5, 1, 16, 16)
    assert sample.targets[TARGET].info.shape == (1, 1, 1, 16, 16)


def test_fault_46_nothing_is_changed(tmp_path: Path) -> None:
    by_suffix(tmp_path)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()}
    load_samples(DataSettings(path="."), tmp_path)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()} == before


def test_blank_lines_do_not_shift_the_numbers_of_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.tif")
    (tmp_path / "t.csv").write_text("\nIM,GT\n\n,,\na.tif,a.tif\n\ngone.tif,a.tif\n")
    with pytest.raises(FilesError) as error:
        TableLayout().find(tmp_path)
    assert texts(error) == ["t.csv, row 7: gone.tif does not exist"]


def test_further_targets_of_a_table(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.tif")
    (tmp_path / "t.csv").write_text("IM,GT,GT_edge map,CM\na.tif,b.tif,c.tif,\n")
    (found,) = TableLayout().find(tmp_path)
    assert {key: path.name for key, path in found.targets.items()} == {TARGET: "b.tif", "edge map": "c.tif"}
    (tmp_path / "t.csv").write_text("IM,GT,GT_edges\na.tif,b.tif,gone.tif\n")
    with pytest.raises(FilesError, match=r"gone\.tif does not exist"):
        TableLayout().find(tmp_path)
    (tmp_path / "t.csv").write_text("IM,GT,GT_edges\na.tif,b.tif,\n")
    with pytest.raises(FilesError, match=r"a\.tif has no target edges"):
        TableLayout().find(tmp_path)
