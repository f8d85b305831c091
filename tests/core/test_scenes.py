"""Scenes of files: each is a sample of its own, all of a file are one group, and none is left out in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from im2im_core import api
from im2im_core.alone import evaluate_alone
from im2im_core.cli import main
from im2im_core.commands.predict import pair_inputs
from im2im_core.commands.scenes import each_scene
from im2im_core.datasets import load_dataset, save_dataset
from im2im_core.errors import DataError
from im2im_core.evaluation import evaluate_files
from im2im_core.image import as_image
from im2im_core.io import open_image
from im2im_core.jobs import verbs
from im2im_core.layouts import load_samples
from im2im_core.layouts.base import FilesError
from im2im_core.project import Project
from im2im_core.recipe import Recipe
from im2im_core.recipe.data import DataSettings
from im2im_core.review.data import check_data
from im2im_core.samples import TARGET, Sample
from im2im_core.split import split_data

SIDE = 32


def plane(number: int) -> NDArray[np.uint16]:
    """Squares of 4 pixels, of which the first has the value `number`."""
    y, x = np.mgrid[:SIDE, :SIDE]
    pixels = (((y % 8) < 4) & ((x % 8) < 4)) * (1 + x // 8 + 4 * (y // 8))
    pixels[:4, :4] = number
    return pixels.astype(np.uint16)


def write(path: Path, **scenes: int) -> Path:
    """OME-TIFF with one image for each name and number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path, ome=True) as file:
        for name, number in scenes.items():
            file.write(plane(number), metadata={"axes": "YX", "Name": name}, photometric="minisblack")
    return path


def world(root: Path) -> None:
    """File a with the scenes left and right, file b with one image, each with its target."""
    write(root / "IM" / "a.ome.tif", left=101, right=102)
    write(root / "GT" / "a.ome.tif", left=201, right=202)
    write(root / "IM" / "b.ome.tif", only=103)
    write(root / "GT" / "b.ome.tif", only=203)


def samples_of(root: Path, **data: Any) -> tuple[Sample, ...]:
    return load_samples(DataSettings.load({"path": ".", **data}), root)[0]


def numbers(sample: Sample) -> tuple[int, ...]:
    """First pixel of the image and of its target."""
    return tuple(int(image.read()[0, 0, 0, 0, 0]) for image in (sample.source, sample.targets[TARGET]))


# ---- training data -------------------------------------------------------------


def test_each_scene_is_a_sample_and_those_of_a_file_are_a_group(tmp_path: Path) -> None:
    world(tmp_path)
    samples = samples_of(tmp_path)
    assert [(s.name, s.group, numbers(s)) for s in samples] == [
        ("a:left", "a", (101, 201)),
        ("a:right", "a", (102, 202)),
        ("b", "b", (103, 203)),
    ]
    for seed in range(5):
        split = split_data(DataSettings.load({"split": {"seed": seed, "validation": 0.5}}), samples, {})
        assert {s.name for s in split.validation} in ({"b"}, {"a:left", "a:right"})


@pytest.mark.parametrize("asked", ["right", 1, "1"])
def test_a_scene_that_is_chosen_keeps_the_name_of_its_file(tmp_path: Path, asked: int | str) -> None:
    world(tmp_path)
    samples = samples_of(tmp_path, scenes=[asked])
    assert [(s.name, numbers(s)) for s in samples] == [("a", (102, 202)), ("b", (103, 203))]


def test_several_scenes_can_be_chosen(tmp_path: Path) -> None:
    world(tmp_path)
    assert [s.name for s in samples_of(tmp_path, scenes=[1, "left", 1])] == ["a:right", "a:left", "b"]
    settings = ["--data.scenes", "[left]"]
    assert main(["check", str(tmp_path), *settings, "--json"]) == 0


def test_a_scene_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    world(tmp_path)
    with pytest.raises(FilesError, match=r"a\.ome\.tif has no scene 'wrong'.*left.*right") as caught:
        samples_of(tmp_path, scenes=["wrong"])
    (problem,) = caught.value.problems
    assert (problem.name, problem.code) == ("a", "scenes")


def test_targets_belong_by_name_else_by_number(tmp_path: Path) -> None:
    write(tmp_path / "IM" / "a.ome.tif", left=101, right=102)
    write(tmp_path / "GT" / "a.ome.tif", right=202, left=201)
    assert [numbers(s) for s in samples_of(tmp_path)] == [(101, 201), (102, 202)]
    write(tmp_path / "GT" / "a.ome.tif", first=201, second=202)
    assert [numbers(s) for s in samples_of(tmp_path)] == [(101, 201), (102, 202)]


def test_a_target_with_one_image_belongs_to_the_scene_that_is_chosen(tmp_path: Path) -> None:
    write(tmp_path / "IM" / "a.ome.tif", left=101, right=102)
    write(tmp_path / "GT" / "a.ome.tif", only=201)
    with pytest.raises(
        FilesError, match=r"a\.ome\.tif has 2 scenes \(left, right\).*one image.*data\.scenes"
    ) as caught:
        samples_of(tmp_path)
    assert {(p.name, p.code) for p in caught.value.problems} == {("a:left", "scenes"), ("a:right", "scenes")}
    assert [numbers(s) for s in samples_of(tmp_path, scenes=[1])] == [(102, 201)]


def test_a_target_with_several_images_needs_a_choice(tmp_path: Path) -> None:
    write(tmp_path / "IM" / "a.ome.tif", only=101)
    write(tmp_path / "GT" / "a.ome.tif", left=201, right=202)
    with pytest.raises(FilesError, match="not clear which belong together"):
        samples_of(tmp_path)
    assert [numbers(s) for s in samples_of(tmp_path, scenes=[1])] == [(101, 202)]
    with pytest.raises(FilesError, match="not clear which belong together"):
        samples_of(tmp_path, scenes=[2])


def test_channels_in_files_of_their_own_have_the_same_scene(tmp_path: Path) -> None:
    for channel in range(2):
        path = tmp_path / "imagesTr" / f"a_{channel:04}.tif"
        write(path, left=101 + 10 * channel, right=102 + 10 * channel)
    write(tmp_path / "labelsTr" / "a.tif", left=201, right=202)
    about = {"channel_names": {"0": "DNA", "1": "actin"}, "labels": {"background": 0}, "numTraining": 1}
    (tmp_path / "dataset.json").write_text(json.dumps({**about, "file_ending": ".tif"}))
    found = samples_of(tmp_path)
    assert [s.name for s in found] == ["a:left", "a:right"]
    assert [s.source.read()[0, :, 0, 0, 0].tolist() for s in found] == [[101, 111], [102, 112]]


def test_files_with_one_image_are_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from im2im_core import io

    opened: list[str] = []
    original = io.open_image

    def noting(path: Any, **told: Any) -> Any:
        opened.append(Path(path).parent.name)
        return original(path, **told)

    monkeypatch.setattr(io, "open_image", noting)
    write(tmp_path / "IM" / "b.ome.tif", only=103)
    write(tmp_path / "GT" / "b.ome.tif", only=203)
    samples_of(tmp_path)
    assert sorted(opened) == ["GT", "IM"]


def test_recipes_from_before_learn_from_the_first_scene() -> None:
    old = {"schema_version": 3, "data": {"path": "images"}}
    assert Recipe.load(old).data.scenes == (0,)
    assert Recipe.load({"schema_version": 3}).data.scenes is None
    assert Recipe.load({**old, "schema_version": 4}).data.scenes is None
    assert old["data"] == {"path": "images"}


# ---- tables and saved data sets ------------------------------------------------


def table(root: Path, *rows: str) -> str:
    (root / "list.csv").write_text("\n".join(["IM,GT,group,scene", *rows]))
    return "list.csv"


def test_rows_of_a_table_name_scenes(tmp_path: Path) -> None:
    world(tmp_path)
    files = "IM/a.ome.tif,GT/a.ome.tif"
    path = table(tmp_path, f"{files},,right", f"{files},,0", "IM/b.ome.tif,GT/b.ome.tif,,")
    found = samples_of(tmp_path, path=path)
    assert [(s.name, s.group, numbers(s)) for s in found] == [
        ("a:0", "a", (101, 201)),
        ("a:right", "a", (102, 202)),
        ("b", "b", (103, 203)),
    ]
    apart = table(tmp_path, f"{files},well 1,left", f"{files},well 2,right")
    assert [s.group for s in samples_of(tmp_path, path=apart)] == ["well 1", "well 2"]


@pytest.mark.parametrize("second", ["left", ""])
def test_a_scene_stands_in_one_row(tmp_path: Path, second: str) -> None:
    world(tmp_path)
    files = "IM/a.ome.tif,GT/a.ome.tif"
    with pytest.raises(FilesError, match=r"a\.ome\.tif stands in 2 rows"):
        samples_of(tmp_path, path=table(tmp_path, f"{files},,left", f"{files},,{second}"))


def test_a_row_names_a_scene_that_is_there(tmp_path: Path) -> None:
    world(tmp_path)
    with pytest.raises(FilesError, match="has no scene 'wrong'"):
        samples_of(tmp_path, path=table(tmp_path, "IM/b.ome.tif,GT/b.ome.tif,,wrong"))


def test_saved_data_sets_keep_scenes(tmp_path: Path) -> None:
    world(tmp_path / "in")
    project = Project.create(tmp_path / "project")
    samples = samples_of(tmp_path / "in")
    entry = save_dataset(project, "n", samples, {"b": "validation"})
    assert not (entry.path / "images").exists()  # referenced, not copied
    loaded, parts = load_dataset(entry.path)
    assert [(s.group, numbers(s)) for s in loaded] == [(s.group, numbers(s)) for s in samples]
    assert parts == {"b": "validation"}
    only = save_dataset(project, "n", samples[2:], {})
    assert "scene" not in only.table.read_text().splitlines()[0]


def test_a_target_of_another_scene_is_copied(tmp_path: Path) -> None:
    world(tmp_path / "in")
    project = Project.create(tmp_path / "project")
    first, second, _ = samples_of(tmp_path / "in")
    mixed = Sample("mixed", "mixed", first.source, second.targets)
    entry = save_dataset(project, "n", [mixed], {})
    (loaded,), _ = load_dataset(entry.path)
    assert numbers(loaded) == (101, 202)


# ---- the data check ------------------------------------------------------------


def test_the_check_tells_of_scenes_that_are_not_used(tmp_path: Path) -> None:
    world(tmp_path)
    settings = DataSettings.load({"path": str(tmp_path)})
    assert not [p for p in check_data(settings).problems if p.code in ("scenes", "further_images")]
    found = [p for p in check_data(settings.replace(scenes=(0,))).problems if p.code == "further_images"]
    assert [(p.sample, Path(p.file).parent.name, p.value) for p in found] == [
        ("a", "IM", ["right"]),
        ("a", "GT", ["right"]),
    ]


# ---- prediction ----------------------------------------------------------------


def test_which_scene_is_meant_is_asked_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.ome.tif", left=101, right=102)
    with pytest.raises(DataError, match=r"2 scenes \(left, right\).*scene='right'"):
        as_image(path)
    for asked in ("right", 1, "1"):
        assert as_image(path, scene=asked).read()[0, 0, 0, 0, 0] == 102
    with pytest.raises(DataError, match="no scene 'up'"):
        as_image(path, scene="up")
    assert as_image(open_image(path)).read()[0, 0, 0, 0, 0] == 101  # an image was chosen already

    class Predictor:
        """Gives the image back."""

        class inference:
            class shapes:
                dimensions = 2

        def predict(self, source: Any, **_: Any) -> Any:
            class Found:
                main = source.read()

            return Found

    monkeypatch.setattr(api, "loaded_predictor", lambda *_: Predictor())
    assert api.predict("model", path, scene="right")[0, 0, 0, 0, 0] == 102
    with pytest.raises(DataError, match="2 scenes"):
        api.predict("model", path)


def test_the_attached_process_opens_the_scene_it_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ome.tif", left=101, right=102)
    image = verbs._image({"image": str(path), "scene": "right"})
    assert image.read()[0, 0, 0, 0, 0] == 102  # type: ignore[union-attr]
    assert verbs._image({"image": str(path), "scene": None}) == str(path)


def test_images_that_go_in_together_need_a_scene(tmp_path: Path) -> None:
    from im2im_core.commands.predict import _all_opened

    left, right = (write(tmp_path / f"{name}.ome.tif", one=1, two=2) for name in ("left", "right"))
    ((source, _),) = pair_inputs([f"a={left}", f"b={right}"], tmp_path / "out.tif")
    with pytest.raises(DataError, match="--scene"):
        _all_opened(source, None, None)
    images = _all_opened(source, None, "two")
    assert [int(image.read()[0, 0, 0, 0, 0]) for image in images.values()] == [2, 2]  # type: ignore[union-attr]


def test_names_that_no_file_system_can_tell_apart_get_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ome.tif", **{"p/1": 1, "p 1": 2})
    jobs = each_scene([(path, tmp_path / "out" / "a.tif")], None, tmp_path / "out")
    assert [target.name for _, target in jobs] == ["a_p-1.tif", "a_p-1-2.tif"]


# ---- evaluation ----------------------------------------------------------------


def test_scenes_are_evaluated_one_by_one(tmp_path: Path) -> None:
    truth = write(tmp_path / "a.ome.tif", left=101, right=102)
    same = write(tmp_path / "b.ome.tif", right=102, left=101)
    report = evaluate_files(same, truth, "labels")
    assert [(row.name, row.group) for row in report.rows] == [("a:left", "a"), ("a:right", "a")]
    assert report.pooled["recall@0.5"] == 1
    other = write(tmp_path / "c.ome.tif", left=101)
    with pytest.raises(DataError, match=r"1 scenes.*2"):
        evaluate_files(other, truth, "labels")


def test_the_resolution_of_each_scene_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ome.tif", left=101, right=102)
    assert [row.name for row in evaluate_alone(path).rows] == ["a:left", "a:right"]
