"""OME-Zarr plates: wells and fields are scenes, pyramids give their largest level, in both versions of the format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from io_contract import check_image, check_pickle, digest, info_of, ramp

from im2im_core import api
from im2im_core.cli import main
from im2im_core.errors import DataError
from im2im_core.io import create_output, open_image, scenes

Version = Literal["0.4", "0.5"]
VERSIONS: tuple[Version, ...] = ("0.4", "0.5")
SHAPE = (2, 3, 40, 56)
"""C, Z, Y, X of each field."""


def write_group(folder: Path, content: dict[str, Any], version: Version) -> Path:
    """Zarr group with OME metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    if version == "0.4":
        (folder / ".zgroup").write_text('{"zarr_format": 2}')
        (folder / ".zattrs").write_text(json.dumps(content))
    else:
        attributes = {"ome": {"version": version, **content}}
        meta = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        (folder / "zarr.json").write_text(json.dumps(meta))
    return folder


def field_pixels(number: int) -> np.ndarray[Any, Any]:
    return ramp(SHAPE, "uint16") + np.uint16(number)


def write_field(folder: Path, number: int, version: Version) -> None:
    """One field with its voxel size and the names of its channels."""
    array = field_pixels(number)
    info = info_of(array, "CZYX", voxel_size=(2.0, 0.5, 0.25), channels=("DAPI", "GFP"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = folder.with_name("made.ome.zarr")
    with create_output(made, info, version=version, chunks=(1, 1, 1, 16, 16)) as writer:
        writer.write(tuple(slice(0, n) for n in info.shape), array[None])  # type: ignore[arg-type]
    made.rename(folder)


@pytest.fixture(params=VERSIONS)
def plate(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Wells A/1 with two fields and B/12 with one; C/3 is listed but was never imaged."""
    version: Version = request.param
    wells = [{"path": "A/1", "rowIndex": 0, "columnIndex": 0}, {"path": "B/12", "rowIndex": 1, "columnIndex": 11}]
    wells.append({"path": "C/3", "rowIndex": 2, "columnIndex": 2})
    content = {"plate": {"name": "p", "wells": wells, "rows": [], "columns": []}}
    folder = write_group(tmp_path / "plate.ome.zarr", content, version)
    for well, fields in (("A/1", 2), ("B/12", 1)):
        images = [{"path": str(n), "acquisition": 0} for n in range(fields)]
        write_group(folder / well, {"well": {"images": images}}, version)
        for number in range(fields):
            write_field(folder / well / str(number), number if well == "A/1" else 7, version)
    return folder


def test_fields_of_wells_are_scenes(plate: Path) -> None:
    before = digest(plate)
    assert scenes(plate) == ("A/1/0", "A/1/1", "B/12/0")
    for scene, number in (("A/1/0", 0), ("A/1/1", 1), ("B/12/0", 7), (2, 7)):
        image = open_image(plate, scene=scene)
        check_image(image, field_pixels(number)[None], "CZYX")
        assert image.info.voxel_size == (2.0, 0.5, 0.25)
        assert image.info.channels == ("DAPI", "GFP")
    check_pickle(open_image(plate, scene="B/12/0"))
    assert len({open_image(plate, scene=scene).info.identity for scene in range(3)}) == 3
    assert "A/1/1" in open_image(plate, scene=1).info.name
    assert digest(plate) == before


def test_a_well_and_a_field_can_be_named_themselves(plate: Path) -> None:
    assert scenes(plate / "A" / "1") == ("0", "1")
    check_image(open_image(plate / "A" / "1", scene="1"), field_pixels(1)[None], "CZYX")
    check_image(open_image(plate / "B" / "12" / "0"), field_pixels(7)[None], "CZYX")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_pyramid_gives_its_largest_level(tmp_path: Path, version: Version) -> None:
    array = ramp((20, 1100), "uint16")
    with create_output(tmp_path / "a.ome.zarr", info_of(array, "YX"), pyramid=True, version=version) as writer:
        writer.write((slice(0, 1), slice(0, 1), slice(0, 1), slice(0, 20), slice(0, 1100)), array[None, None, None])
    assert len([path for path in (tmp_path / "a.ome.zarr").iterdir() if path.is_dir()]) > 1
    check_image(open_image(tmp_path / "a.ome.zarr"), array[None, None, None], "YX")


def test_a_scene_that_is_not_there_is_named_with_those_that_are(plate: Path) -> None:
    with pytest.raises(DataError, match=r"has no scene 'A/1/2'.*A/1/1.*B/12/0"):
        open_image(plate, scene="A/1/2")
    with pytest.raises(DataError, match="scenes are 0 to 2"):
        open_image(plate, scene=3)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "content",
    [{"plate": {"wells": [{}]}}, {"plate": {"wells": [7]}}, {"plate": []}, {"well": {"images": [{"name": "x"}]}}],
)
def test_damaged_plates_are_data_errors(tmp_path: Path, version: Version, content: dict[str, Any]) -> None:
    folder = write_group(tmp_path / "plate.zarr", content, version)
    for ask in (scenes, open_image):
        with pytest.raises(DataError, match=r"plate\.zarr"):
            ask(folder)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", ["../outside", "A/../../outside", "/outside"])
def test_a_plate_does_not_lead_out_of_its_folder(tmp_path: Path, version: Version, path: str) -> None:
    write_group(tmp_path / "outside", {"well": {"images": [{"path": "0"}]}}, version)
    write_field(tmp_path / "outside" / "0", 1, version)
    path = str(tmp_path / "outside") if path.startswith("/") else path
    folder = write_group(tmp_path / "plate.zarr", {"plate": {"wells": [{"path": path}]}}, version)
    with pytest.raises(DataError, match="leads out of"):
        scenes(folder)


# ---- prediction of every scene -------------------------------------------------------


@pytest.fixture
def predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Name of each result that a prediction wrote -> first pixel of the image that it was given."""
    found: dict[str, float] = {}

    def predict(model: Path, image: Any, *, to: Path, **options: Any) -> None:
        found[to.name] = float(image.read()[0, 0, 0, 0, 0])
        to.write_bytes(b"result")

    monkeypatch.setattr(api, "predict", predict)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "bioimageio.yaml").write_text("type: model")
    return found


def first_pixel(number: int) -> float:
    return float(field_pixels(number)[0, 0, 0, 0])


def test_every_field_is_predicted_into_a_folder(plate: Path, predicted: dict[str, float]) -> None:
    folder = plate.parent
    (folder / "out").mkdir()
    assert main(["predict", str(folder / "model"), str(plate), "-o", str(folder / "out")]) == 0
    assert predicted == {
        "plate_A-1-0.ome.zarr": first_pixel(0),
        "plate_A-1-1.ome.zarr": first_pixel(1),
        "plate_B-12-0.ome.zarr": first_pixel(7),
    }


@pytest.mark.parametrize("scene", ["B/12/0", "2"])
def test_one_scene_can_be_chosen(plate: Path, predicted: dict[str, float], scene: str) -> None:
    folder = plate.parent
    words = ["predict", str(folder / "model"), str(plate), "--scene", scene, "-o", str(folder / "one.ome.tif")]
    assert main(words) == 0
    assert predicted == {"one.ome.tif": first_pixel(7)}


def test_several_scenes_do_not_fit_into_one_file(
    plate: Path, predicted: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = plate.parent
    assert main(["predict", str(folder / "model"), str(plate), "-o", str(folder / "one.tif")]) == 2
    said = capsys.readouterr().err
    assert "3 scenes (A/1/0, A/1/1, B/12/0)" in said
    assert "--scene" in said
    assert predicted == {}


def test_a_scene_that_is_not_there_ends_the_command(plate: Path, predicted: dict[str, float]) -> None:
    folder = plate.parent
    words = ["predict", str(folder / "model"), str(plate), "--scene", "Z/9/9", "-o", str(folder / "one.tif")]
    assert main(words) == 3
    assert predicted == {}
