"""The data check on files: every code has a small world that shows it, and sound and real images show none."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from im2im_core.cli import main
from im2im_core.commands import plain
from im2im_core.datasets import GUESS_SIDE, guess_task
from im2im_core.errors import Stopped
from im2im_core.events import Event, Progress
from im2im_core.image import ArrayImage, Image
from im2im_core.io import open_image, write_image
from im2im_core.recipe.data import DataSettings
from im2im_core.review import CODES, Problem, bands, examine, pixel_facts
from im2im_core.review.data import DataReview, check_data
from im2im_core.samples import TARGET, Sample

INSTANCE, SEMANTIC = "instance_segmentation", "semantic_segmentation"
SIDE = 64
MICRON = (None, 0.2, 0.2)
DATA = os.environ.get("IM2IM_TEST_DATA")


def squares(count: int = 64) -> NDArray[np.uint16]:
    """`count` squares of 4 pixels on a grid of 8, each with an id of its own."""
    labels = np.zeros((SIDE, SIDE), np.uint16)
    for i, (y, x) in enumerate(np.ndindex(8, 8)):
        if i < count:
            labels[8 * y : 8 * y + 4, 8 * x : 8 * x + 4] = i + 1
    return labels


def noise(seed: int, *lead: int) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(10, 1000, (*lead, SIDE, SIDE)).astype(np.uint16)


def put(path: Path, pixels: NDArray[Any], axes: str = "", size: Any = MICRON) -> Path:
    """Write an OME-TIFF in the place of what is there."""
    path.parent.mkdir(exist_ok=True)
    return write_image(path, pixels, axes or "TCZYX"[-pixels.ndim :], voxel_size=size, overwrite=True)


def image(root: Path, name: int | str, pixels: NDArray[Any], axes: str = "", size: Any = MICRON) -> None:
    put(root / "IM" / f"{name}.ome.tif", pixels, axes, size)


def target(root: Path, name: int | str, pixels: NDArray[Any], size: Any = MICRON) -> None:
    put(root / "GT" / f"{name}.ome.tif", pixels, size=size)


def sound(root: Path) -> None:
    """Three images of noise with 64 labelled squares each."""
    for name in range(3):
        image(root, name, noise(name))
        target(root, name, squares())


def look(root: Path, task: str = INSTANCE, classes: Any = None, path: str = "", **data: Any) -> DataReview:
    return check_data(DataSettings.load({"path": str(root / path), **data}), task, classes=classes)


def codes(found: DataReview) -> set[str]:
    return {p.code for p in found.problems}


def only(found: DataReview, code: str) -> Problem:
    (problem,) = [p for p in found.problems if p.code == code]
    return problem


# ---- worlds: how a sound set comes to show each code; what they return is told to the check ----

Options = dict[str, Any]


def missing_partner(root: Path) -> None:
    (root / "GT" / "1.ome.tif").unlink()


def duplicate_stem(root: Path) -> None:
    shutil.copy(root / "IM" / "0.ome.tif", root / "IM" / "0.tif")


def unreadable(root: Path) -> None:
    path = root / "IM" / "1.ome.tif"
    path.write_bytes(path.read_bytes()[: SIDE * SIDE])


def group_pattern(root: Path) -> Options:
    return {"layout": {"kind": "subfolders", "group_pattern": r"embryo(\d)"}}


def table(root: Path) -> Options:
    rows = [f"IM/{i}.ome.tif,GT/{i}.ome.tif,{part}" for i, part in enumerate(("train", "maybe", "val"))]
    (root / "list.csv").write_text("\n".join(["IM,GT,part", *rows]))
    return {"path": "list.csv"}


def nnunet(root: Path, count: int = 3, **labels: Any) -> None:
    """The same images as a raw data set of nnU-Net of one channel."""
    (root / "imagesTr").mkdir()
    (root / "labelsTr").mkdir()
    for name in range(3):
        (root / "IM" / f"{name}.ome.tif").rename(root / "imagesTr" / f"{name}_0000.tif")
        (root / "GT" / f"{name}.ome.tif").rename(root / "labelsTr" / f"{name}.tif")
    classes = labels or {"background": 0, **{f"class {i}": i for i in range(1, 65)}}
    about = {"channel_names": {"0": "DNA"}, "labels": classes, "numTraining": count, "file_ending": ".tif"}
    (root / "dataset.json").write_text(json.dumps(about))


def dataset_json(root: Path) -> None:
    nnunet(root, count=4)


def no_images(root: Path) -> None:
    nnunet(root, count=0)
    for path in (*(root / "imagesTr").iterdir(), *(root / "labelsTr").iterdir()):
        path.unlink()


def not_understood(root: Path) -> None:
    (root / "GT").rename(root / "truth")


def left_out(root: Path) -> None:
    (root / "IM" / "3.npy").write_bytes(b"pixels in a format that nobody reads")


def scenes(root: Path) -> None:
    with tifffile.TiffWriter(root / "IM" / "0.ome.tif", ome=True) as file:
        for pixels in (noise(0), noise(7)[:8]):
            file.write(pixels, metadata={"axes": "YX"}, photometric="minisblack")


def further_images(root: Path) -> Options:
    scenes(root)
    return {"scenes": [0]}


def shape_mismatch(root: Path) -> None:
    target(root, 0, squares()[:-1])


def channel_count(root: Path) -> None:
    image(root, 0, noise(0, 2), "CYX")


def spacing_mismatch(root: Path) -> None:
    target(root, 0, squares(), (None, 0.2, 0.25))


def smaller_than_patch(root: Path) -> Options:
    return {"patch": (SIDE, 2 * SIDE)}


def rgb_or_channels_question(root: Path) -> None:
    for name in range(3):
        image(root, name, (noise(name, 3) // 8).astype(np.uint8), "CYX")


def assumed(root: Path) -> None:
    (root / "IM" / "0.ome.tif").unlink()
    tifffile.imwrite(root / "IM" / "0.tif", noise(0), photometric="miniswhite")


def nan_inf(root: Path) -> None:
    pixels = noise(0).astype(np.float32)
    pixels[0, :3] = np.nan, np.inf, -np.inf
    image(root, 0, pixels)


def constant(root: Path) -> None:
    image(root, 0, np.full((SIDE, SIDE), 7, np.uint16))


def constant_channel(root: Path) -> None:
    for name in range(3):
        image(root, name, noise(name, 2), "CYX")
    pixels = noise(0, 2)
    pixels[1] = 3
    image(root, 0, pixels, "CYX")


def constant_plane(root: Path) -> None:
    pixels = noise(0, 5)
    pixels[2] = 0
    image(root, 0, pixels, "ZYX", (1.0, 0.2, 0.2))


def saturated(root: Path) -> None:
    pixels = noise(0)
    pixels[:2] = np.iinfo(np.uint16).max
    image(root, 0, pixels)


def dtype_range(root: Path) -> None:
    image(root, 0, (squares() > 0).astype(np.uint16))


def target_is_image(root: Path) -> None:
    shutil.copy(root / "IM" / "0.ome.tif", root / "GT" / "0.ome.tif")


def weight_invalid(root: Path) -> None:
    weight = np.ones((SIDE, SIDE), np.float32)
    weight[0, 0] = -1
    put(root / "CM" / "0.ome.tif", weight)


def nothing_known(root: Path) -> None:
    put(root / "CM" / "0.ome.tif", np.zeros((SIDE, SIDE), np.float32))


def negative_or_fractional_labels(root: Path) -> None:
    labels = squares().astype(np.int16)
    labels[0, 0] = -1
    target(root, 0, labels)


def classes_of(root: Path, *values: int) -> None:
    """Squares of a few classes in all images."""
    labels = np.where(squares() > 0, np.take(values, squares() % len(values)), 0).astype(np.uint16)
    for name in range(3):
        target(root, name, labels)


def undeclared_class(root: Path) -> Options:
    classes_of(root, 1, 2)
    return {"task": SEMANTIC, "classes": (0, 1)}


def empty_foreground(root: Path) -> None:
    target(root, 0, 0 * squares())


def validation_without_labels(root: Path) -> Options:
    empty_foreground(root)
    return {"split": {"validation_names": ["0"]}}


def label_gap(root: Path) -> Options:
    classes_of(root, 255)
    return {"task": SEMANTIC}


def probably_classes(root: Path) -> None:
    classes_of(root, 1)


def probably_instances(root: Path) -> Options:
    return {"task": SEMANTIC}


def few_objects(root: Path) -> None:
    for name in range(3):
        target(root, name, squares(12))


def voxel_size_missing(root: Path) -> None:
    image(root, 0, noise(0), size=(None, None, None))


def voxel_size_impossible(root: Path) -> None:
    sizes = {"axes": "YX", "PhysicalSizeX": 0.0, "PhysicalSizeY": 0.2}
    tifffile.imwrite(root / "IM" / "0.ome.tif", noise(0), ome=True, metadata=sizes, photometric="minisblack")


def voxel_size_suspicious(root: Path) -> None:
    image(root, 0, noise(0), size=(None, 0.352778, 0.35))
    image(root, 1, noise(1), size=(None, 0.2, 0.35))


def voxel_size_units(root: Path) -> None:
    image(root, 0, noise(0), size=(None, 200.0, 200.0))


def voxel_size_differs(root: Path) -> None:
    image(root, 0, noise(0), size=(None, 0.5, 0.5))


def anisotropy_inverted(root: Path) -> None:
    image(root, 0, noise(0, 5), "ZYX", (0.2, 1.0, 1.0))


def duplicate(root: Path) -> None:
    shutil.copy(root / "IM" / "0.ome.tif", root / "IM" / "1.ome.tif")


def overlap_train_validation(root: Path) -> Options:
    duplicate(root)
    return {"split": {"validation_names": ["1"]}}


def mixed_types(root: Path) -> None:
    image(root, 0, (noise(0) // 8).astype(np.uint8))


def split(root: Path) -> Options:
    return {"split": {"validation_names": ["0", "1", "2"]}}


WORLDS: dict[str, Callable[[Path], Options | None]] = {
    world.__name__: world
    for world in (
        no_images, not_understood, missing_partner, duplicate_stem, unreadable, group_pattern, table, dataset_json,
        left_out, scenes, further_images, shape_mismatch, channel_count, spacing_mismatch, smaller_than_patch,
        rgb_or_channels_question, assumed, nan_inf, constant, constant_channel, constant_plane, saturated,
        dtype_range, target_is_image, weight_invalid, nothing_known, negative_or_fractional_labels,
        undeclared_class, empty_foreground, validation_without_labels, label_gap, probably_classes,
        probably_instances, few_objects, voxel_size_missing, voxel_size_impossible, voxel_size_suspicious,
        voxel_size_units, voxel_size_differs, anisotropy_inverted, duplicate, overlap_train_validation, mixed_types,
        split,
    )
}  # fmt: skip


def test_every_code_has_a_world() -> None:
    assert WORLDS.keys() == CODES.keys()


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_found_where_it_is_and_says_all_that_a_machine_needs(code: str, tmp_path: Path) -> None:
    sound(tmp_path)
    options = WORLDS[code](tmp_path) or {}
    found = [p for p in look(tmp_path, **options).problems if p.code == code]
    assert found
    for problem in found:
        assert problem.severity == CODES[code].severity
        assert problem.text
        assert problem.cure
        assert not problem.text.endswith(".")
        assert not problem.cure.endswith(".")
        assert not problem.file or Path(problem.file).exists()
        assert problem.file or not problem.sample or code in ("duplicate", "duplicate_stem", "group_pattern", "table")
        assert json.loads(json.dumps(plain(problem)))["code"] == code


@pytest.mark.parametrize("task", [INSTANCE, "label_free"])
def test_a_sound_set_has_no_problems(task: str, tmp_path: Path) -> None:
    sound(tmp_path)
    (tmp_path / "IM" / "notes.txt").write_text("from the microscope")
    assert look(tmp_path, task).problems == ()
    classes_of(tmp_path, 1, 2)
    assert look(tmp_path, SEMANTIC, (0, 1, 2)).problems == ()


def test_sound_volumes_have_no_problems(tmp_path: Path) -> None:
    for name in range(3):
        image(tmp_path, name, noise(name, 5), "ZYX", (1.0, 0.2, 0.2))
        put(tmp_path / "GT" / f"{name}.ome.tif", np.stack([squares()] * 5), "ZYX", (1.0, 0.2, 0.2))
    assert look(tmp_path, dimensions=3, patch=(5, 32, 32)).problems == ()


def test_what_is_wrong_with_one_file_hides_nothing_of_the_others(tmp_path: Path) -> None:
    sound(tmp_path)
    missing_partner(tmp_path)
    nan_inf(tmp_path)
    (tmp_path / "IM" / "2.ome.tif").write_bytes(b"no image")
    found = look(tmp_path)
    assert {(p.sample, p.code) for p in found.problems if p.severity == "error"} == {
        ("0", "nan_inf"),
        ("1", "missing_partner"),
        ("2", "unreadable"),
    }
    assert found.failed


def test_every_page_is_read_and_the_damaged_one_is_named(tmp_path: Path) -> None:
    sound(tmp_path)
    path = tmp_path / "IM" / "0.ome.tif"
    metadata = {"axes": "ZYX"}
    tifffile.imwrite(path, noise(0, 6), ome=True, metadata=metadata, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        place = tif.pages[4].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[place : place + 40] = b"x" * 40
    path.write_bytes(content)
    found = only(look(tmp_path), "unreadable")
    assert "page 5" in found.text
    assert found.file == str(path)
    assert only(look(tmp_path, "label_free"), "unreadable").sample == "0"


def test_values_are_what_was_found(tmp_path: Path) -> None:
    sound(tmp_path)
    nan_inf(tmp_path)
    assert only(look(tmp_path), "nan_inf").value == {"nan": 1, "infinite": 2}
    negative_or_fractional_labels(tmp_path)
    assert only(look(tmp_path), "negative_or_fractional_labels").value == -1
    constant_plane(tmp_path)
    assert only(look(tmp_path), "constant_plane").value == ["Z 2"]


def test_whole_numbers_that_lose_digits_are_told(tmp_path: Path) -> None:
    sound(tmp_path)
    pixels = noise(0).astype(np.uint32)
    pixels[0, 0] = 2**24 + 1
    sample = Sample("a", "a", ArrayImage(pixels, "YX"), {TARGET: ArrayImage(noise(1), "YX")})
    assert [p.value for p in examine([sample], "label_free").problems if p.code == "dtype_range"] == [[10, 2**24 + 1]]
    pixels[0, 0] = 2**24
    sample = Sample("a", "a", ArrayImage(pixels, "YX"), {TARGET: ArrayImage(noise(1), "YX")})
    assert [p for p in examine([sample], "label_free").problems if p.code == "dtype_range"] == []


@pytest.mark.parametrize(
    ("size", "unit"),
    [(65.0, "nanometres"), (200.0, "nanometres"), (0.0002, "millimetres"), (2e-7, "metres"), (0.2, ""), (0.004, "")],
)
def test_a_size_in_another_unit_is_recognised(tmp_path: Path, size: float, unit: str) -> None:
    for name in range(2):
        image(tmp_path, name, noise(name), size=(None, size, size))
        target(tmp_path, name, squares(), (None, size, size))
    found = [p.text for p in look(tmp_path).problems if p.code == "voxel_size_units"]
    assert [unit in text for text in found] == ([True] if unit else [])


def test_sizes_in_the_order_x_y_z_are_recognised(tmp_path: Path) -> None:
    for name in range(2):
        image(tmp_path, name, noise(name, 5), "ZYX", (0.2, 0.2, 1.0))
        target(tmp_path, name, squares())
    assert "order X, Y, Z" in only(look(tmp_path), "anisotropy_inverted").text


@pytest.mark.parametrize("value", [0.0, -0.5, float("nan")])
def test_impossible_sizes_of_layers_are_told(value: float) -> None:
    source = ArrayImage(noise(0), "YX", voxel_size=(None, 0.2, value))
    found = examine([Sample("a", "a", source, {TARGET: ArrayImage(squares(), "YX")})], INSTANCE).problems
    assert "voxel_size_impossible" in {p.code for p in found}


def test_a_distance_of_planes_matters_only_where_there_are_planes(tmp_path: Path) -> None:
    sound(tmp_path)
    sizes = {"axes": "YX", "PhysicalSizeX": 0.2, "PhysicalSizeY": 0.2, "PhysicalSizeZ": 0.0}
    tifffile.imwrite(tmp_path / "IM" / "0.ome.tif", noise(0), ome=True, metadata=sizes, photometric="minisblack")
    assert open_image(tmp_path / "IM" / "0.ome.tif").info.refused == (("Z", 0.0),)
    assert look(tmp_path).problems == ()


def test_impossible_scales_of_ome_zarr_are_told(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.ome.zarr", noise(0), "YX", voxel_size=(None, 0.2, 0.2))
    for file in (path / ".zattrs", path / "zarr.json"):
        if file.is_file():
            file.write_text(file.read_text().replace("0.2", "-0.2"))
    info = open_image(path).info
    assert info.voxel_size == (None, None, None)
    assert info.refused == (("Y", -0.2), ("X", -0.2))


def test_files_that_a_problem_names_are_not_named_again(tmp_path: Path) -> None:
    sound(tmp_path)
    (tmp_path / "IM" / "1.ome.tif").unlink()
    assert codes(look(tmp_path)) == {"missing_partner"}


# ---- memory, progress, stopping ----


class Huge:
    """Image of which only the bands that are asked for ever exist; remembers the largest."""

    def __init__(self, height: int, width: int) -> None:
        self._info = ArrayImage(np.zeros((1, 1), np.uint8), "YX", name="huge").info
        self._info = type(self._info)("huge", (1, 1, 1, height, width), np.dtype(np.uint8), "YX")
        self.largest = 0

    @property
    def info(self) -> Any:
        return self._info

    def read(self, region: Any = None) -> NDArray[Any]:
        shape = tuple(s.stop - s.start for s in region)
        self.largest = max(self.largest, int(np.prod(shape)))
        rows = (np.arange(region[3].start, region[3].stop) % 256).astype(np.uint8)
        return np.broadcast_to(rows.reshape(1, 1, 1, -1, 1), shape)


def test_images_are_read_in_bands_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "BAND_PIXELS", 4096)
    huge: Image = Huge(1000, 100)
    facts = pixel_facts(huge)
    whole = np.arange(1000) % 256
    assert huge.largest <= 4096  # type: ignore[attr-defined]
    assert (facts.minimum, facts.maximum) == (0, 255)
    assert facts.mean == pytest.approx(whole.mean())
    monkeypatch.setattr(bands, "BAND_PIXELS", 2**30)
    assert pixel_facts(huge).digest == facts.digest


def test_guessing_the_task_reads_a_part_of_bounded_size() -> None:
    huge = Huge(20_000, 30_000)
    guess_task(Sample("huge", "huge", huge, {TARGET: huge}))
    assert 0 < huge.largest <= GUESS_SIDE**2


def test_objects_are_counted_across_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Sample("a", "a", ArrayImage(noise(0), "YX"), {TARGET: ArrayImage(squares(), "YX")})
    whole = examine([sample], INSTANCE).facts[0].labels
    monkeypatch.setattr(bands, "BAND_PIXELS", 2 * SIDE)  # bands of two rows: every square is cut
    (facts,) = examine([sample], INSTANCE).facts
    assert whole is not None
    assert facts.labels is not None
    assert (facts.labels.objects, facts.labels.diameter, facts.labels.foreground) == (
        whole.objects,
        whole.diameter,
        whole.foreground,
    )


def test_a_check_tells_the_time_left_and_stops_within_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "BAND_PIXELS", 4096)
    monkeypatch.setattr(bands, "TELL_SECONDS", 0.0)
    events: list[Event] = []
    sample = Sample("huge", "huge", Huge(1000, 100), {})
    examine([sample], "label_free", events.append)
    told = [e for e in events if isinstance(e, Progress)]
    left = [e.remaining for e in told if e.remaining is not None]
    assert len(told) > 20
    assert left[-1] == 0
    assert left[0] > 0
    with pytest.raises(Stopped, match="after 0 of 1"):
        examine([sample], "label_free", None, iter([False] * 5 + [True]).__next__)


# ---- command line ----


def test_json_has_everything_and_progress_goes_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound(tmp_path)
    nan_inf(tmp_path)
    assert main(["check", str(tmp_path), "--task", INSTANCE, "--json"]) == 3
    out, err = capsys.readouterr()
    found = json.loads(out)
    (problem,) = [p for p in found["problems"] if p["severity"] == "error"]
    assert problem.keys() == {"sample", "code", "severity", "text", "cure", "file", "value"}
    assert Path(problem["file"]) == tmp_path / "IM" / "0.ome.tif"
    assert (found["schema"], found["errors"]) == (1, 1)
    assert [row["objects"] for row in found["samples"]] == [64, 64, 64]
    assert "checking images: 3/3" in err


def test_a_declared_number_of_classes_is_heeded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound(tmp_path)
    classes_of(tmp_path, 1, 2)
    words = ["check", str(tmp_path), "--task", SEMANTIC, "--framework.classes"]
    assert main([*words, "3"]) == 0
    assert main([*words, "2"]) == 3
    assert "[undeclared_class]" in capsys.readouterr().out


def test_fault_40_ctrl_c_ends_a_check_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import signal

    sound(tmp_path)
    monkeypatch.setattr(bands, "BAND_PIXELS", SIDE)
    told = bands.Watch.read

    def interrupted(watch: bands.Watch, pixels: int) -> None:
        signal.raise_signal(signal.SIGINT)
        told(watch, pixels)

    monkeypatch.setattr(bands.Watch, "read", interrupted)
    assert main(["check", str(tmp_path)]) == 130
    assert "stopped after 0 of 3" in capsys.readouterr().err


# ---- nnU-Net ----


def test_a_raw_data_set_of_nnunet_is_checked_against_its_description(tmp_path: Path) -> None:
    sound(tmp_path)
    nnunet(tmp_path)
    assert look(tmp_path).problems == ()
    about = json.loads((tmp_path / "dataset.json").read_text())
    about["labels"] = {"background": 0, "nucleus": 1, "dead": 3}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    found = look(tmp_path, SEMANTIC)
    assert "gaps" in only(found, "dataset_json").text
    assert [p.sample for p in found.problems if p.code == "undeclared_class"] == ["0", "1", "2"]


# ---- real images ----

KNOWN = {"voxel_size_missing", "assumed"}
"""What is so in many real sets: public copies without voxel size, RGB samples read as channels."""


@pytest.mark.skipif(not DATA, reason="IM2IM_TEST_DATA is not set")
@pytest.mark.parametrize(
    ("folder", "count", "known"),
    [
        ("em_membrane_isbi2012", 22, set()),
        ("nuclei3d/bbbc050", 4, set()),
        ("nuclei3d/plantseg_ovule", 1, set()),
        ("denoise/gigadb_hagen2021", 6, {"saturated"}),
        ("unpaired/A_brightfield", 16, {"saturated"}),
        ("unpaired/A_histology", 40, set()),
        ("dsb2018_fluo/train", 40, set()),
    ],
)
def test_real_images_raise_no_false_alarm(folder: str, count: int, known: set[str], tmp_path: Path) -> None:
    for role in ("IM", "GT"):
        (tmp_path / role).mkdir()
        for path in sorted((Path(DATA or "") / folder / role).iterdir())[:count]:
            (tmp_path / role / path.name).symlink_to(path)
    found = check_data(DataSettings(path=str(tmp_path)))
    assert len(found.facts) == count
    assert codes(found) <= KNOWN | known
    assert not found.failed
