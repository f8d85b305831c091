"""A part of an image that travels instead of the whole: the prediction is the same, pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from im2im_core.axes import Region
from im2im_core.engine.frameworks.build import build_framework
from im2im_core.engine.predict import Predictor
from im2im_core.engine.predict_plan import decide_tile, make_plan
from im2im_core.errors import DataError
from im2im_core.excerpt import Excerpt, reach, take_excerpt
from im2im_core.image import ArrayImage
from im2im_core.inference import Inference
from im2im_core.jobs import verbs
from im2im_core.predict_options import PredictOptions
from im2im_core.rescale import rescaling

INFERENCE: dict[str, Any] = {
    "shapes": {"dimensions": 2, "input_channels": 1},
    "input": {"normalization": {"kind": "percentile"}, "rescale": {"kind": "none"}, "object_diameter": 17.0},
    "framework": {"kind": "instance"},
    "network": {"kind": "basic_unet", "features": [4, 4, 8, 8, 8, 4]},
    "patch": [64, 64],
    "divisor": [16, 16],
    "halo": [20, 20],
    "outputs": [{"name": "labels", "kind": "labels", "channels": 1, "axes": "CZYX"}],
}


def inference(**changes: Any) -> Inference:
    return Inference.load({**INFERENCE, **changes})


def region_of(*spans: tuple[int, int]) -> Region:
    t, c, z, y, x = (slice(a, b) for a, b in spans)
    return t, c, z, y, x


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    described = inference()
    framework = build_framework(described.framework, described.network, described.shapes)
    return Predictor.from_framework(framework, described, device="cpu")


@pytest.mark.parametrize("factor", [1.0, 0.55, 1.7])
def test_the_excerpt_predicts_what_the_whole_image_does(predictor: Predictor, factor: float) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.normal(100, 20, (3, 2, 700, 650)).astype(np.float32)
    pixels[:, :, 600:] += 500  # the normalisation must be that of the whole image
    image = ArrayImage(pixels, "TCYX", name="film", voxel_size=(None, 0.5, 0.5))
    region = region_of((1, 2), (0, 2), (0, 1), (330, 371), (300, 350))
    options = PredictOptions(channels=(1,), rescale=factor)
    part, excerpt = take_excerpt(image, predictor.inference, region, options) or (None, None)
    assert part is not None
    assert part.shape[:2] == (1, 1)
    assert part.size < pixels.size / 6
    assert excerpt.info.shape == (3, 1, 1, 700, 650)
    size = [None, 0.5, 0.5]
    sent = {"image": part, "axes": "TCYX", "name": "film", "voxel_size": size, "excerpt": excerpt.told()}
    names = ["labels", "foreground"]
    whole = predictor.predict(image, region, outputs=names, options=options)
    told = options.replace(channels=None)
    parted = predictor.predict(verbs._image(sent), region, outputs=names, options=told)
    for name in names:
        np.testing.assert_array_equal(parted[name], whole[name])
    assert [layer.translate for layer in parted.layers] == [layer.translate for layer in whole.layers]
    with pytest.raises(DataError, match="Predict the whole image"):
        excerpt.read()


def test_what_is_filled_with_the_lowest_pixel_needs_the_whole_plane() -> None:
    described = inference(input={**INFERENCE["input"], "invalid_pixels": "fill"})
    info = ArrayImage(np.zeros((2, 400, 400), np.float32), "TYX").info
    region = region_of((1, 2), (0, 1), (0, 1), (10, 20), (10, 20))
    assert [s.stop - s.start for s in reach(described, info, region, PredictOptions())] == [1, 1, 1, 400, 400]


def test_most_of_an_image_travels_whole() -> None:
    image = ArrayImage(np.zeros((64, 64), np.float32), "YX")
    region = region_of((0, 1), (0, 1), (0, 1), (0, 60), (0, 60))
    assert take_excerpt(image, inference(), region, PredictOptions()) is None


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(16, 3000),
    place=st.floats(0, 1),
    length=st.integers(1, 400),
    halo=st.integers(0, 120),
    divisor=st.sampled_from([1, 4, 16, 32]),
    factor=st.floats(0.3, 3),
    budget=st.sampled_from([100_000, 10_000_000]),
    depth=st.sampled_from([0, 5]),
)
def test_nothing_outside_of_the_reach_is_read(
    size: int, place: float, length: int, halo: int, divisor: int, factor: float, budget: int, depth: int
) -> None:
    """What the tiles of every plan look at lies inside."""
    three = 1 if depth else 0
    described = inference(
        shapes={"dimensions": 2 + three, "input_channels": 1},
        patch=[64] * (2 + three), divisor=[1] * three + [divisor] * 2, halo=[0] * three + [halo] * 2,
    )  # fmt: skip
    framework = build_framework(described.framework, described.network, described.shapes)
    info = ArrayImage(np.broadcast_to(np.uint8(0), (depth or 1, size, 500)), "ZYX").info
    start = int(place * (size - 1))
    region = region_of((0, 1), (0, 1), (0, depth or 1), (start, min(size, start + length)), (100, 150))
    options = PredictOptions(rescale=factor)
    found = rescaling(described.input, info.voxel_size, 2 + three, override=factor)
    plan = make_plan(described, framework.outputs, info, region, found, options, False)
    plan = decide_tile(plan, framework.outputs, options, budget)
    allowed = reach(described, info, region, options)[2:]
    seen: list[tuple[slice, ...]] = []

    class Watched(Excerpt):
        def read(self, region: Any = None) -> Any:
            seen.append(region[2:])
            return np.zeros([s.stop - s.start for s in region], np.float32)

    from im2im_core.engine.predict_read import TileReader
    from im2im_core.normalize import Scaling

    image = Watched(ArrayImage(np.zeros((1, 1), np.float32), "YX"), (0,) * 5, info.shape, {0: Scaling((0.0,), (1.0,))})
    reader = TileReader(image, described.input, plan)
    for tile in (plan.tiles[0], plan.tiles[-1]):
        reader.read(0, plan.frames[0][1], tile)
    for part in seen:
        for read, may in zip(part[1:], allowed[1:], strict=True):
            assert may.start <= read.start
            assert read.stop <= may.stop
