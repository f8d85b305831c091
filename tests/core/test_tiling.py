"""Tiles cover the image once, join without a trace and are not wasteful."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from im2im_core.engine.blend import Blender
from im2im_core.errors import ConfigError
from im2im_core.tiling import choose_tile, cost, pad_reflect, padded_shape, ramp, smallest_tile, split_tiles


@st.composite
def cuts(draw: st.DrawFn) -> dict:
    """Shape, tile, halo, divisor and overlap that fit each other, in 3D; 2D has Z = 1 and no halo there."""
    flat = draw(st.booleans())
    shape, tile, halo, divisor, overlap, chunk = [], [], [], [], [], []
    for axis in range(3):
        if axis == 0 and flat:
            for values, one in zip((shape, tile, halo, divisor, overlap, chunk), (1, 1, 0, 1, 0, 1), strict=True):
                values.append(one)
            continue
        d = draw(st.sampled_from([1, 2, 4, 8]))
        h, o = draw(st.integers(0, 9)), draw(st.integers(0, 6))
        near, far = -(-h // d) * d, -(-(h + o) // d) * d
        step = draw(st.integers(1, 3)) * d + -(-o // d) * d
        c = draw(st.sampled_from([1, 2, 3, 8]))
        grain = math.lcm(c, d)
        shape.append(draw(st.integers(1, 40)))
        tile.append(near + far + -(-step // grain) * grain)
        halo.append(h)
        divisor.append(d)
        overlap.append(o)
        chunk.append(c)
    return {
        "shape": shape,
        "tile": tile,
        "halo": halo,
        "divisor": divisor,
        "overlap": overlap,
        "chunk": chunk if draw(st.booleans()) else None,
    }


@settings(max_examples=80, deadline=None)
@given(cuts(), st.sampled_from(["gaussian", "linear"]))
def test_stitch_of_split_is_the_image(cut: dict, blending: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *cut["shape"])).astype(np.float32)
    padded = pad_reflect(image, padded_shape(cut["shape"], cut["divisor"]))
    tiles = split_tiles(**cut)
    blender = Blender(cut["overlap"], blending)
    result = np.full_like(image, np.nan)
    for tile in tiles:
        region, maps = blender.add(tile, {"image": padded[(slice(None), *tile.outer)]})
        part = result[(slice(None), *region)]
        assert np.isnan(part).all(), "a pixel was written twice"
        part[:] = maps["image"]
    np.testing.assert_allclose(result, image, atol=2e-6)


@settings(max_examples=60, deadline=None)
@given(cuts())
def test_tiles_keep_their_promises(cut: dict) -> None:
    padded = padded_shape(cut["shape"], cut["divisor"])
    tiles = split_tiles(**cut)
    assert len({tuple(s.stop - s.start for s in t.outer) for t in tiles}) == 1
    for tile in tiles:
        for a, (outer, written) in enumerate(zip(tile.outer, tile.written(cut["overlap"]), strict=True)):
            assert outer.start % cut["divisor"][a] == 0
            assert 0 <= outer.start < outer.stop <= padded[a]
            assert outer.start <= max(0, written.start - cut["halo"][a])
            assert outer.stop >= min(padded[a], written.stop + cut["halo"][a])
            if cut["chunk"] and tile.inner[a].stop < cut["shape"][a]:
                assert tile.inner[a].stop % cut["chunk"][a] == 0


@settings(max_examples=50, deadline=None)
@given(cuts(), st.data())
def test_region_is_covered_once(cut: dict, data: st.DataObject) -> None:
    region = []
    for n in cut["shape"]:
        start = data.draw(st.integers(0, n - 1))
        region.append(slice(start, data.draw(st.integers(start + 1, n))))
    seen = np.zeros(cut["shape"], int)
    for tile in split_tiles(**cut, region=tuple(region)):
        seen[tile.inner] += 1
    wanted = np.zeros(cut["shape"], int)
    wanted[tuple(region)] = 1
    assert (seen == wanted).all()


@pytest.mark.parametrize("blending", ["gaussian", "linear"])
@pytest.mark.parametrize("overlap", [1, 2, 7, 16])
def test_weights_of_neighbours_sum_to_one(blending: str, overlap: int) -> None:
    rise = ramp(overlap, blending)
    np.testing.assert_allclose(rise + rise[::-1], 1, atol=1e-6)
    assert (np.diff(rise) > 0).all()


@pytest.mark.parametrize(
    ("size", "chunk"), [(3000, None), (4096, None), (20000, None), (4079, (1, 256, 256)), (20000, (1, 256, 256))]
)
@pytest.mark.parametrize("halo", [16, 47, 64])
def test_large_planes_cost_little(size: int, halo: int, chunk: tuple[int, ...] | None) -> None:
    shape, halos, divisor, overlap = (1, size, size + 17), (0, halo, halo), (1, 16, 16), (0, 8, 8)
    tile = choose_tile(shape, halos, divisor, 2**20, overlap=overlap, chunk=chunk)
    tiles = split_tiles(shape, tile, halos, divisor, overlap=overlap, chunk=chunk)
    assert cost(shape, tiles) <= 1.35
    assert math.prod(tile) <= 4 * 2**20


def test_small_image_is_one_tile() -> None:
    assert choose_tile((1, 500, 700), (0, 64, 64), (1, 16, 16), 2**20) == (1, 512, 704)
    assert len(split_tiles((1, 500, 700), (1, 512, 704), (0, 64, 64), (1, 16, 16))) == 1


def test_anisotropic_stack_keeps_few_planes_whole() -> None:
    tile = choose_tile((12, 1000, 1000), (0, 16, 16), (1, 8, 8), 12 * 256 * 256)
    assert tile[0] == 12


def test_budget_below_the_smallest_tile_gives_the_smallest() -> None:
    shape, halo, divisor, overlap = (1, 900, 900), (0, 20, 20), (1, 16, 16), (0, 4, 4)
    assert choose_tile(shape, halo, divisor, 10, overlap=overlap) == smallest_tile(shape, halo, divisor, overlap)


def test_tile_of_halo_only_is_refused_with_a_size_that_works() -> None:
    with pytest.raises(ConfigError, match="at least 144"):
        split_tiles((1, 500, 500), (1, 64, 64), (0, 60, 60), (1, 16, 16))
    assert split_tiles((1, 500, 500), (1, 144, 144), (0, 60, 60), (1, 16, 16))


@pytest.mark.parametrize("shape", list(itertools.product((1, 2, 5), (1, 3, 16))))
def test_fault_15_padding_of_small_images(shape: tuple[int, int]) -> None:
    pixels = np.arange(math.prod(shape), dtype=np.float32).reshape(1, 1, *shape)
    padded = pad_reflect(pixels, padded_shape((1, *shape), (1, 16, 16)))
    assert padded.shape[2] % 16 == padded.shape[3] % 16 == 0
    assert (padded[:, :, : shape[0], : shape[1]] == pixels).all()
    assert set(np.unique(padded)) == set(np.unique(pixels))
