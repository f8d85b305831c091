"""Layers to images and back: axes, voxel size, snapshots, results in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Image, Labels

from im2im_core.errors import DataError
from im2im_core.image import ArrayImage
from im2im_core.io import as_labels, open_image, write_image
from napari_im2im._layers import (
    ResultSpec,
    add_result,
    axes_choices,
    is_result,
    is_users,
    kept,
    layer_axes,
    layer_voxel_size,
    result_axes,
    set_axes,
    set_micrometres,
    squeeze_result,
    take_snapshot,
    unitless,
)


@pytest.mark.parametrize(
    ("shape", "look", "axes"),
    [
        ((8, 9), {}, "YX"),
        ((8, 9, 3), {"rgb": True}, "YXS"),
        ((4, 8, 9), {}, None),
        ((4, 8, 9), {"axis_labels": ("z", "y", "x")}, "ZYX"),
        ((4, 8, 9), {"axis_labels": ("time", "Y", "X")}, "TYX"),
        ((4, 8, 9), {"axis_labels": ("what", "y", "x")}, None),
        ((4, 8, 9), {"metadata": {"axes": "cyx"}, "axis_labels": ("z", "y", "x")}, "CYX"),
        ((4, 8, 9), {"metadata": {"axes": "YX"}}, None),
        ((4, 8, 9, 3), {"rgb": True, "axis_labels": ("z", "y", "x")}, "ZYXS"),
        ((2, 3, 4, 8, 9), {"axis_labels": tuple("tczyx")}, "TCZYX"),
    ],
)
def test_axes_are_known_by_name_or_not_at_all(shape: tuple[int, ...], look: dict[str, Any], axes: str | None) -> None:
    assert layer_axes(Image(np.zeros(shape, np.uint8), **look)) == axes


def test_ambiguous_dimensions_are_a_question_asked_once() -> None:
    layer = Image(np.zeros((4, 8, 9)), name="what")
    with pytest.raises(DataError, match=r"can be several things.*ZYX, TYX, CYX"):
        take_snapshot([layer])
    assert axes_choices(layer) == ("ZYX", "TYX", "CYX")
    assert len(axes_choices(Image(np.zeros((2, 2, 8, 9))))) == 6
    set_axes(layer, "TYX")
    assert take_snapshot([layer]).shape == (4, 1, 1, 8, 9)


def test_voxel_size_is_in_micrometres_where_there_is_a_unit() -> None:
    layer = Image(np.zeros((4, 8, 9)), scale=(2, 300, 0.3), units=("um", "nm", "um"), axis_labels=tuple("zyx"))
    assert layer_voxel_size(layer, "ZYX") == pytest.approx((2, 0.3, 0.3))
    plain = Image(np.zeros((8, 9)), scale=(0.3, 0.3))
    assert layer_voxel_size(plain, "YX") == (None, None, None)
    assert unitless(plain)
    assert not unitless(Image(np.zeros((8, 9))))
    set_micrometres(plain)
    assert layer_voxel_size(plain, "YX") == pytest.approx((None, 0.3, 0.3))


def test_snapshot_holds_the_pixels_of_that_moment() -> None:
    layer = Image(np.arange(12.0).reshape(3, 4), name="a")
    snapshot = take_snapshot([layer])
    layer.data[:] = -1
    layer.name = "b"
    assert snapshot.name == "a"
    np.testing.assert_array_equal(snapshot.image().read()[0, 0, 0], np.arange(12.0).reshape(3, 4))


def test_layers_become_channels_by_name() -> None:
    layers = [Image(np.full((3, 4), i, np.uint8), name=n) for i, n in enumerate(("dna", "actin"))]
    snapshot = take_snapshot(layers)
    image = snapshot.image()
    assert snapshot.shape == image.info.shape == (1, 2, 1, 3, 4)
    assert image.info.channels == ("dna", "actin")
    assert image.read()[0, :, 0, 0, 0].tolist() == [0, 1]
    layers[1].data[:] = 7
    assert image.read()[0, :, 0, 0, 0].tolist() == [0, 1]
    glance = take_snapshot(layers, copy=False).image()
    held = kept(glance)
    layers[1].data[:] = 8
    assert glance.read()[0, :, 0, 0, 0].tolist() == [0, 8]
    assert held.read()[0, :, 0, 0, 0].tolist() == [0, 7]
    assert glance.info.axes == held.info.axes == "CYX"
    with pytest.raises(DataError, match=r"the size \(5, 4\)"):
        take_snapshot([layers[0], Image(np.zeros((5, 4)))])


def test_rgb_is_three_channels() -> None:
    pixels = np.zeros((3, 4, 3), np.uint8)
    pixels[..., 1] = 5
    arguments = take_snapshot([Image(pixels, rgb=True)]).arguments()
    assert arguments["axes"] == "CYX"
    assert arguments["channels"] == ["red", "green", "blue"]
    assert arguments["image"][:, 0, 0].tolist() == [0, 5, 0]


def test_multiscale_gives_the_finest_level_and_dask_is_read_late() -> None:
    dask = pytest.importorskip("dask.array")
    read: list[int] = []

    def block(block_id: Any = None) -> np.ndarray:
        read.append(1)
        return np.ones((8, 8), np.float32)

    lazy = dask.map_blocks(block, chunks=((8, 8), (8, 8)), dtype=np.float32, meta=np.empty((0, 0), np.float32))
    layer = Image([lazy, lazy[::2, ::2]], multiscale=True, contrast_limits=(0, 1))
    read.clear()
    snapshot = take_snapshot([layer])
    assert snapshot.shape == (1, 1, 1, 16, 16)
    assert not read
    assert snapshot.arguments()["image"].sum() == 256


def test_unchanged_lazy_files_are_passed_by_path(tmp_path: Path) -> None:
    dask = pytest.importorskip("dask.array")
    from napari.layers._source import Source

    from im2im_core.io import write_image

    pixels = np.arange(20, dtype=np.uint16).reshape(4, 5)
    path = write_image(tmp_path / "a.ome.tif", pixels, "YX", voxel_size=(None, 0.5, 0.5))
    space = {"scale": (0.5, 0.5), "units": ("um", "um")}
    lazy = Image(dask.from_array(pixels), **space)
    loaded = Image(pixels, **space)
    for layer in (lazy, loaded):
        layer._source = Source(path=str(path))
    assert take_snapshot([lazy]).arguments() == {"image": str(path), "axes": None}
    assert isinstance(take_snapshot([loaded]).arguments()["image"], np.ndarray)
    lazy.scale = (0.25, 0.25)  # the user corrected the voxel size: the file no longer tells it
    assert take_snapshot([lazy]).path is None


def test_a_snapshot_touches_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dask = pytest.importorskip("dask.array")
    from napari.layers._source import Source

    layer = Image(dask.zeros((4, 5)))
    layer._source = Source(path=str(tmp_path / "on a slow disk.tif"))
    touched: list[Path] = []
    monkeypatch.setattr(Path, "exists", lambda path: touched.append(path))
    snapshot = take_snapshot([layer], copy=False)
    assert snapshot.shape == (1, 1, 1, 4, 5)
    assert not touched
    assert snapshot.path is None  # only now
    assert touched


def test_result_lies_on_its_image(make_napari_viewer: Any) -> None:
    viewer = make_napari_viewer()
    layer = Image(
        np.zeros((2, 8, 8)), scale=(5, 300, 300), translate=(0, 1000, -50), units=("s", "nm", "nm"),
        axis_labels=tuple("tyx"), name="film",
    )  # fmt: skip
    source = take_snapshot([layer])
    assert source.voxel_size == pytest.approx((None, 0.3, 0.3))
    assert source.time_step == 5
    # The engine's words for a region that starts at t=1, y=4, x=2, in micrometres and seconds.
    spec = ResultSpec("labels", "labels", "TYX", (5.0, 0.3, 0.3), (5.0, 1.2, 0.6))
    shown = add_result(viewer, np.ones((1, 1, 1, 4, 4), np.uint32), spec, source, "nuclei", {"main": True})
    assert isinstance(shown, Labels)
    assert shown.name == "film · nuclei"
    np.testing.assert_allclose(shown.scale, (5, 300, 300))
    np.testing.assert_allclose(shown.translate, (5, 1000 + 4 * 300, -50 + 2 * 300))
    assert [str(u) for u in shown.units] == ["second", "nanometer", "nanometer"]
    assert layer_axes(shown) == "TYX"
    assert shown.metadata["im2im"]["image"] == "film"
    assert is_result(shown)
    assert not is_users(shown)
    assert is_users(layer)


def test_kinds_of_results_look_different(make_napari_viewer: Any) -> None:
    viewer = make_napari_viewer()
    source = take_snapshot([Image(np.zeros((8, 8)), name="a")])
    pixels = np.random.default_rng(0).random((1, 2, 1, 8, 8)).astype(np.float32)
    maps = ResultSpec("foreground", "probability", "CYX", (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    shown = add_result(viewer, pixels, maps, source, "m", {"main": False})
    assert shown.data.shape == (2, 8, 8)
    assert tuple(shown.contrast_limits) == (0, 1)
    assert shown.name == "a · m · foreground"
    assert result_axes(maps, (1, 1, 1, 8, 8)) == "YX"
    assert squeeze_result(pixels[:, :1], "YX").shape == (8, 8)


def test_images_survive_the_way_through_a_layer() -> None:
    pixels = np.random.default_rng(1).integers(0, 99, (2, 3, 8, 9)).astype(np.uint16)
    layer = Image(pixels, axis_labels=("c", "z", "y", "x"), metadata={"channels": ["a", "b"]})
    image = take_snapshot([layer]).image()
    np.testing.assert_array_equal(image.read(), ArrayImage(pixels, "CZYX").read())
    assert image.info.channels == ("a", "b")


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
def test_fault_17_large_ids_survive_the_way_through_layer_and_file(dtype: Any, tmp_path: Path) -> None:
    ids = np.array([[0, 65535, 65536], [70000, 2**31 - 1, 7]], dtype)
    layer = Labels(ids, name="cells")
    for name in ("a.tif", "a.zarr"):
        write_image(tmp_path / name, as_labels(take_snapshot([layer]).image().read(), "cells")[0, 0, 0], "YX")
        back = Labels(as_labels(open_image(tmp_path / name).read(), name)[0, 0, 0])
        np.testing.assert_array_equal(back.data, ids)
