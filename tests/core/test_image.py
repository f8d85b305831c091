"""Images over arrays: lazy, cropped, by channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from im2im_core.axes import Region
from im2im_core.errors import DataError
from im2im_core.image import (
    ArrayImage,
    CroppedImage,
    Image,
    as_image,
    channels_named,
    content_hash,
    select_channels,
)


class Slices:
    """Array-like that notes which parts are asked for."""

    def __init__(self, array: np.ndarray[Any, Any], asked: list[Any]) -> None:
        self._array, self.asked = array, asked
        self.ndim, self.shape, self.dtype = array.ndim, array.shape, array.dtype

    def transpose(self, axes: Any) -> Slices:
        return Slices(self._array.transpose(axes), self.asked)

    def __getitem__(self, index: Any) -> Any:
        found = self._array[index]
        if found.ndim > self.ndim:
            return Slices(found, self.asked)
        self.asked.append(found.size)
        return found


def region(*spans: tuple[int, int]) -> Region:
    t, c, z, y, x = (slice(*s) for s in spans)
    return t, c, z, y, x


@pytest.fixture
def stack() -> np.ndarray[Any, Any]:
    """Channels 0, 1, 2 hold 0…, 1000…, 2000…, numbered along Z, Y, X."""
    return np.arange(2 * 4 * 5).reshape(2, 4, 5)[None] + 1000 * np.arange(3)[:, None, None, None]


def test_an_array_is_an_image(stack: np.ndarray[Any, Any]) -> None:
    image = ArrayImage(stack, "CZYX", name="stack", channels=("a", "b", "c"), voxel_size=(2, 1, 1))
    assert isinstance(image, Image)
    assert image.info.shape == (1, 3, 2, 4, 5)
    assert image.info.axes == "CZYX"
    assert (image.read()[0] == stack).all()


def test_only_the_region_is_read(stack: np.ndarray[Any, Any]) -> None:
    asked: list[int] = []
    image = ArrayImage(Slices(stack, asked), "CZYX")
    part = image.read(region((0, 1), (1, 2), (0, 1), (1, 3), (2, 5)))
    assert asked == [6]
    assert (part[0, 0, 0] == stack[1, 0, 1:3, 2:5]).all()


def test_fault_19_big_endian_pixels_come_in_native_order() -> None:
    image = ArrayImage(np.array([[1, 256]], ">u2"), "YX")
    assert image.info.dtype == np.dtype("u2")
    assert image.read().dtype.isnative
    assert image.read().ravel().tolist() == [1, 256]


def test_python_objects_are_refused() -> None:
    with pytest.raises(DataError, match="Python objects"):
        ArrayImage(np.array([[None, 1]]), "YX")


def test_a_crop_reads_its_part(stack: np.ndarray[Any, Any]) -> None:
    image = CroppedImage(
        ArrayImage(stack, "CZYX", channels=("a", "b", "c"), identity="s"),
        region((0, 1), (1, 3), (0, 2), (1, 4), (2, 5)),
    )
    assert image.info.shape == (1, 2, 2, 3, 3)
    assert image.info.channels == ("b", "c")
    assert (image.read()[0] == stack[1:3, :, 1:4, 2:5]).all()
    assert (image.read(region((0, 1), (1, 2), (1, 2), (1, 2), (0, 2)))[0, 0, 0, 0] == stack[2, 1, 2, 2:4]).all()


def test_parts_of_one_image_have_identities_of_their_own(stack: np.ndarray[Any, Any]) -> None:
    whole = ArrayImage(stack, "CZYX", identity="s")
    left = CroppedImage(whole, region((0, 1), (0, 3), (0, 2), (0, 4), (0, 2)))
    right = CroppedImage(whole, region((0, 1), (0, 3), (0, 2), (0, 4), (2, 5)))
    one = select_channels(whole, (1,))
    assert len({i.info.identity for i in (whole, left, right, one)}) == 4


def test_channels_by_name_and_number_in_the_order_asked(stack: np.ndarray[Any, Any]) -> None:
    image = ArrayImage(stack, "CZYX", channels=("dna", "actin", "dic"))
    chosen = select_channels(image, ("dic", 0))
    assert chosen.info.channels == ("dic", "dna")
    assert (chosen.read()[0] == stack[[2, 0]]).all()
    assert select_channels(image, None) is image


@pytest.mark.parametrize("wanted", ["gfp", 3, -1])
def test_missing_channels_are_named(stack: np.ndarray[Any, Any], wanted: Any) -> None:
    image = ArrayImage(stack, "CZYX", name="s", channels=("dna", "actin", "dic"))
    with pytest.raises(DataError, match=r"no channel .*0 'dna', 1 'actin'"):
        select_channels(image, (wanted,))


def test_fault_18_an_ambiguous_array_is_a_question() -> None:
    assert as_image(np.zeros((4, 5))).info.axes == "YX"
    assert as_image(np.zeros((3, 4, 5)), dimensions=3).info.axes == "ZYX"
    with pytest.raises(DataError, match="several things"):
        as_image(np.zeros((3, 4, 5)), dimensions=2)
    assert as_image(np.zeros((3, 4, 5)), axes="TYX").info.shape == (3, 1, 1, 4, 5)


def test_content_hash_knows_pixels_shape_and_type() -> None:
    a = np.arange(6, dtype=np.uint8)
    hashes = {content_hash(x) for x in (a, a.reshape(2, 3), a.astype(np.int8), a[::-1])}
    assert len(hashes) == 4
    assert content_hash(a) == content_hash(a.copy())


def test_channels_are_found_by_name_unless_they_are_in_their_place() -> None:
    info = ArrayImage(np.zeros((3, 4, 4)), "CYX", channels=("DAPI", "GFP", "BF")).info
    assert channels_named(info, ("BF", "DAPI")) == ("BF", "DAPI")
    assert channels_named(info, ("DAPI", "GFP", "BF")) is None
    assert channels_named(info, ("BF", "RFP")) is None
    assert channels_named(info, ()) is None
    double = ArrayImage(np.zeros((3, 4, 4)), "CYX", channels=("a", "a", "b")).info
    assert channels_named(double, ("a",)) is None
    assert channels_named(double, ("b",)) == ("b",)
