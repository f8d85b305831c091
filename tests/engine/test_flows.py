"""Flows from labels against closed forms, labels from flows, and what moves or hides a patch does to both."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from framework_contract import drive
from numpy.typing import NDArray

from im2im_core.engine.augment import Augmenter
from im2im_core.engine.follow_flows import follow_flows
from im2im_core.engine.frameworks.build import build_framework
from im2im_core.engine.frameworks.contract import TrainContext, TranslateContext
from im2im_core.engine.frameworks.flows import FULL, LENGTH, cut_objects, flow_errors, turned
from im2im_core.engine.heat_flows import heat_flows
from im2im_core.inference import Shapes
from im2im_core.metrics import average_precision, match
from im2im_core.microscope import fluorescence
from im2im_core.recipe.data import AugmentSettings
from im2im_core.recipe.framework import FlowsDecoding, FlowsSettings
from im2im_core.recipe.network import DynUNet
from im2im_core.stitch import LabelStitcher, split_blocks

FAR = 200
"""Steps that lead anywhere in these worlds."""


def framework(dimensions: int = 2, **settings: Any) -> Any:
    torch.manual_seed(0)
    shapes = Shapes(dimensions=dimensions, input_channels=1)
    return build_framework(FlowsSettings(**settings), DynUNet(filters=(8, 16, 32)), shapes)


def offsets(shape: tuple[int, ...], centre: tuple[float, ...]) -> NDArray[np.float64]:
    """Way from every pixel to `centre`, ``(D, [Z], Y, X)``."""
    return np.stack([c - p for c, p in zip(centre, np.indices(shape), strict=True)])


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radii: tuple[float, ...]) -> NDArray[np.bool_]:
    """Pixels of an ellipsoid."""
    way = offsets(shape, centre)
    return sum((w / r) ** 2 for w, r in zip(way, radii, strict=True)) < 1  # type: ignore[return-value]


def agreement(flow: NDArray[Any], way: NDArray[Any], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Cosine of the angle between two fields at the pixels of `inside`."""
    a, b = flow[:, inside], way[:, inside]
    lengths = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    return (a * b).sum(0) / np.maximum(lengths, 1e-9)


def precision(found: NDArray[Any], truth: NDArray[Any], iou: float = 0.9) -> float:
    return average_precision(match(found, truth), iou)


def crowded(seed: int, shape: tuple[int, ...] = (256, 256)) -> NDArray[np.uint32]:
    """Nuclei many of which touch."""
    return fluorescence(shape, seed=seed, density=0.3, touching=0.7, anisotropy=2.0).labels


# ---- flows from labels ----


@pytest.mark.parametrize(("dimensions", "middle", "radius"), [(2, 20, 15), (3, 12, 9)])
def test_flows_of_a_ball_point_at_its_centre(dimensions: int, middle: int, radius: int) -> None:
    shape, centre = (2 * middle + 1,) * dimensions, (middle,) * dimensions
    inside = ball(shape, centre, (radius,) * dimensions)
    flow = heat_flows(inside.astype(np.uint8))
    assert not flow[:, ~inside].any()
    assert not flow[(slice(None), *centre)].any()
    inside[centre] = False
    np.testing.assert_allclose(np.linalg.norm(flow[:, inside], axis=0), 1, atol=1e-5)
    cosines = agreement(flow, offsets(shape, centre), inside)
    assert cosines.min() > math.cos(math.radians(25))
    assert cosines.mean() > math.cos(math.radians(5))


def test_flows_of_touching_objects_part_at_their_border() -> None:
    labels = np.zeros((21, 44), np.uint32)
    labels[ball(labels.shape, (10, 12), (9, 10))] = 1
    labels[ball(labels.shape, (10, 31), (9, 10)) & (labels == 0)] = 2
    columns = np.flatnonzero((labels[10, :-1] == 1) & (labels[10, 1:] == 2))
    assert len(columns) == 1
    left, right = heat_flows(labels)[:, 10, [columns[0], columns[0] + 1]].T
    assert left[1] == pytest.approx(-1, abs=0.01)
    assert right[1] == pytest.approx(1, abs=0.01)


def ring(n: int = 49) -> NDArray[np.bool_]:
    middle = (n // 2, n // 2)
    return ball((n, n), middle, (n / 2 - 2,) * 2) & ~ball((n, n), middle, (n / 2 - 9,) * 2)


def bay(n: int = 49) -> NDArray[np.bool_]:
    shape = ring(n)
    shape[: n // 2, n // 2 - 3 : n // 2 + 3] = False
    return shape


def spiral() -> NDArray[np.bool_]:
    """A band four pixels wide that is far longer than its box."""
    shape = np.zeros((48, 48), bool)
    shape[2:6, 2:46] = shape[2:46, 42:46] = shape[42:46, 10:46] = shape[10:46, 10:14] = True
    shape[10:14, 10:36] = shape[10:36, 32:36] = shape[32:36, 18:36] = True
    return shape


def dumbbell() -> NDArray[np.bool_]:
    shape = ball((30, 70), (15, 14), (11, 11)) | ball((30, 70), (15, 55), (11, 11))
    shape[13:17, 14:55] = True
    return shape


@pytest.mark.parametrize("make", [ring, bay, spiral, dumbbell])
def test_objects_of_any_shape_keep_one_sink(make: Any) -> None:
    inside = make()
    flow = heat_flows(inside.astype(np.uint8))
    assert (np.linalg.norm(flow[:, inside], axis=0) > 0).sum() == inside.sum() - 1
    found = follow_flows(flow, inside, FAR)
    assert np.bincount(found[inside]).max() == inside.sum()


def test_an_object_does_not_feel_the_others() -> None:
    labels = crowded(0)
    whole = heat_flows(labels)
    for number in (1, labels.max() // 2, labels.max()):
        own = labels == number
        np.testing.assert_array_equal(whole[:, own], heat_flows(own.astype(np.uint8))[:, own])


def test_pieces_that_do_not_touch_have_a_centre_each() -> None:
    labels = np.zeros((20, 50), np.uint32)
    labels[ball(labels.shape, (10, 10), (8, 8)) | ball(labels.shape, (10, 38), (8, 8))] = 7
    flow = heat_flows(labels)
    assert follow_flows(flow, labels > 0, FAR).max() == 2
    assert not heat_flows(np.zeros((4, 4), np.uint8)).any()


def test_the_far_end_of_a_very_long_line_is_left_cold() -> None:
    """Heat there is less than a number can hold; everything ends, and what is near has its flow."""
    line = np.zeros((5, 3000), np.uint8)
    line[2] = 1
    flow = heat_flows(line)
    assert np.isfinite(flow).all()
    np.testing.assert_array_equal(flow[1, 2, 1400:1499], 1)


def test_flows_of_deep_voxels_lead_straight_to_the_centre() -> None:
    shape, centre = (9, 41, 41), (4, 20, 20)
    inside = ball(shape, centre, (16 / 4, 16, 16))  # a ball where planes are four pixels apart
    way = offsets(shape, centre)
    deep, cubes = (agreement(heat_flows(inside.astype(np.uint8), a), way, inside) for a in (4.0, 1.0))
    assert deep.mean() > cubes.mean()
    assert deep.mean() > math.cos(math.radians(10))


def test_the_centre_is_the_pixel_nearest_to_the_median() -> None:
    """A few pixels far off do not move it; where it lies in a bay, the nearest pixel of the object is taken."""
    labels = np.zeros((15, 40), np.uint8)
    labels[2:13, 2:13] = 1
    labels[7, 13:30] = 1
    flow = heat_flows(labels)
    still = np.argwhere((labels > 0) & ~flow.any(0))
    rows, columns = np.nonzero(labels)
    assert still.tolist() == [[np.median(rows), np.median(columns)]]
    bent = bay()
    still = np.argwhere(bent & ~heat_flows(bent.astype(np.uint8)).any(0))
    median = np.median(np.argwhere(bent), axis=0)
    distances = np.linalg.norm(np.argwhere(bent) - median, axis=1)
    assert len(still) == 1
    assert np.linalg.norm(still[0] - median) == pytest.approx(distances.min(), abs=0.75)


# ---- labels from flows ----


@pytest.mark.parametrize(("shape", "anisotropy"), [((256, 256), 1.0), ((16, 96, 96), 2.0)])
def test_exact_flows_give_the_labels_back(shape: tuple[int, ...], anisotropy: float) -> None:
    labels = crowded(3, shape)
    maps = {"foreground": (labels > 0)[None].astype(np.float32), "flow": heat_flows(labels, anisotropy)}
    decoding = FlowsDecoding(min_size=1)
    made = framework(len(shape), anisotropy=anisotropy)
    found = made.decode(maps, decoding)
    assert labels.max() > 20
    assert precision(found, labels) == 1
    np.testing.assert_array_equal(found, made.decode(maps, decoding))


def test_rounded_flows_give_the_labels_back() -> None:
    """Targets are stored as whole numbers."""
    labels = crowded(4)
    made = framework()
    maps = made.encode({"target": labels[None, None]}, None)["maps"][:, 0].astype(np.float32) / FULL
    assert precision(made.decode({"foreground": maps[:1], "flow": maps[1:-1]}, FlowsDecoding(min_size=1)), labels) == 1


def test_nothing_gives_no_objects() -> None:
    empty = {"foreground": np.zeros((1, 8, 8), np.float32), "flow": np.zeros((2, 8, 8), np.float32)}
    assert not framework().decode(empty, FlowsDecoding()).any()


@pytest.fixture
def swept() -> tuple[dict[str, NDArray[Any]], NDArray[np.uint32]]:
    """Two discs: the flows of the first are exact, those of the second sweep it all to one side."""
    labels = np.zeros((40, 80), np.uint32)
    labels[ball(labels.shape, (20, 20), (12, 12))], labels[ball(labels.shape, (20, 55), (12, 12))] = 1, 2
    flow = heat_flows(labels)
    flow[:, labels == 2] = np.float32([[0], [1]])
    return {"foreground": (labels > 0)[None].astype(np.float32), "flow": flow}, labels


def test_objects_are_dropped_whose_flows_are_not_those_of_their_shape(swept: Any) -> None:
    maps, labels = swept
    # Unit vectors at a right angle on average: the mean of |a - b|² = 2 - 2 cos.
    errors = flow_errors(labels, maps["flow"])
    assert errors[1] == pytest.approx(0, abs=1e-9)
    assert errors[2] == pytest.approx(2, abs=0.3)
    made = framework()
    strict, lax = (made.decode(maps, FlowsDecoding(flow_error=e)) for e in (0.4, 0.0))
    assert np.unique(strict).tolist() == [0, 1]
    np.testing.assert_array_equal(strict > 0, labels == 1)
    assert (lax[labels == 2] > 0).mean() > 0.9


def test_objects_at_the_border_are_not_judged(swept: Any) -> None:
    """Their centre may lie in what is decoded with the next block."""
    maps, labels = ({k: v[..., :55] for k, v in swept[0].items()}, swept[1][:, :55])
    assert cut_objects(labels).tolist() == [True, False, True]
    found = framework().decode(maps, FlowsDecoding(flow_error=0.4))
    assert (found[labels == 2] > 0).mean() > 0.9


def test_blocks_that_are_stitched_equal_the_whole() -> None:
    labels = crowded(5, (420, 400))
    rng = np.random.default_rng(0)
    flow = (0.8 * heat_flows(labels) + rng.normal(0, 0.2, (2, *labels.shape))).astype(np.float32)
    maps = {"foreground": (labels > 0)[None].astype(np.float32), "flow": flow}
    made = framework()
    whole = made.decode(maps, made.settings.decoding)
    halo = (made.decode_halo,) * 2
    stitched = np.zeros(labels.shape, np.uint32)
    blocks = split_blocks(labels.shape, (140, 140), halo)
    stitcher = LabelStitcher(stitched, blocks)
    for block in blocks:
        stitcher.add(block, made.decode({k: v[(slice(None), *block.outer)] for k, v in maps.items()}, FlowsDecoding()))
    assert stitcher.finish() == whole.max()
    assert len(blocks) == 9
    pairs = np.unique(np.stack([whole.ravel(), stitched.ravel()]), axis=1)
    assert pairs.shape[1] == whole.max() + 1  # each object has one partner: nothing else differs
    assert precision(whole, labels, 0.75) > 0.9


def test_options_at_prediction_win(swept: Any) -> None:
    maps, labels = swept
    maps["foreground"] *= 0.3
    made = framework()
    assert not made.postprocess(maps, TranslateContext())["labels"].any()
    lower = TranslateContext(options={"foreground": 0.2, "flow_error": 0})
    np.testing.assert_array_equal(made.postprocess(maps, lower)["labels"][0] > 0, labels > 0)
    large = TranslateContext(options={"foreground": 0.2, "min_size": labels.size})
    assert not made.postprocess(maps, large)["labels"].any()


def test_holes_are_filled_where_that_is_wished() -> None:
    labels = np.zeros((40, 40), np.uint32)
    labels[ball(labels.shape, (20, 20), (15, 15))] = 1
    maps = {"foreground": (labels > 0)[None].astype(np.float32), "flow": heat_flows(labels)}
    maps["foreground"][0, 20:23, 25:27] = 0
    made = framework()
    assert (made.decode(maps, FlowsDecoding())[20:23, 25:27] > 0).all()
    assert not made.decode(maps, FlowsDecoding(fill_holes=False))[20:23, 25:27].any()


def test_flows_lead_on_where_the_foreground_has_gaps() -> None:
    """What lies behind a gap, seen from the centre, still comes to it; what lies in the gap has no label."""
    disc = ball((40, 40), (20, 20), (15, 15))
    mask = disc.copy()
    mask[18:23, 24:28] = False
    found = follow_flows(heat_flows(disc.astype(np.uint8)), mask, FAR)
    np.testing.assert_array_equal(found, mask)


def test_more_steps_lead_further() -> None:
    band = np.zeros((7, 300), np.uint8)
    band[2:5] = 1
    flow = heat_flows(band)
    assert follow_flows(flow, band > 0, 10).max() > 1
    assert follow_flows(flow, band > 0, 200).max() == 1


def test_calibration_takes_the_better_foreground() -> None:
    labels = crowded(6, (96, 96))[None]
    maps = {"foreground": np.where(labels > 0, 0.45, 0.0).astype(np.float32), "flow": heat_flows(labels[0])}
    chosen = framework().calibrate([(maps, {"target": labels})])
    assert chosen.decoding.foreground < 0.45


# ---- patches that were moved ----


@pytest.mark.parametrize(
    "settings",
    [
        AugmentSettings(rotate=0, scale=(1, 1), affine_probability=0),
        AugmentSettings(rotate=180, scale=(0.8, 1.3), affine_probability=1),
    ],
)
def test_flows_of_a_moved_patch_are_those_of_its_labels(settings: AugmentSettings) -> None:
    """Encoded first or moved first, the same comes out."""
    made = framework()
    patch, count = (64, 64), 8
    augmenter = Augmenter(settings, 2, made.targets)
    window = augmenter.window(patch)
    labels = np.zeros(window, np.uint32)
    middle = tuple((n - 1) / 2 for n in window)
    labels[ball(window, middle, (20, 12))] = 1
    maps = torch.from_numpy(made.encode({"target": labels[None, None]}, None)["maps"][:, 0])
    batch = {
        "source": torch.zeros(count, 1, *window),
        "weight": torch.ones(count, 1, *window),
        "maps": maps.expand(count, *maps.shape),
    }
    moved = augmenter(batch, torch.Generator().manual_seed(0), patch)
    found = turned(moved["maps"][:, 1:-1].float() / FULL, moved["motion"]).numpy()
    for flow, shape in zip(found, (moved["maps"][:, 0] > FULL / 2).numpy(), strict=True):
        expected = heat_flows(shape.astype(np.uint8))
        assert np.median(agreement(flow, expected, shape)) > math.cos(math.radians(8))
        left = np.linalg.norm(flow[:, ~shape], axis=0)
        assert left.mean() < 0.05  # no length is made up in the background


def test_flows_magnified_in_the_plane_still_lead_to_the_centre() -> None:
    """A way between pixels moves as offsets do; a slope would not point at the centre any more."""
    motion = torch.diag(torch.tensor([1.0, 0.5, 0.5]))  # the plane is magnified by two
    patch = offsets((9, 17, 17), (4, 8, 8))
    # Each offset of the patch, taken to the image by `motion`, has the direction of the flow there.
    there = np.einsum("ij,j...->i...", motion.numpy(), patch)
    unit = torch.from_numpy(there / np.maximum(np.linalg.norm(there, axis=0), 1e-9)).float()
    flow = turned(unit[None], motion[None])[0].numpy()
    inside = np.linalg.norm(patch, axis=0) > 0
    np.testing.assert_allclose(agreement(flow, patch, inside), 1, atol=1e-5)
    slope = np.einsum("ji,j...->i...", motion.numpy(), unit.numpy())
    assert agreement(slope, patch, inside).min() < 0.9


def test_where_nothing_moved_flows_stay() -> None:
    flow = torch.randn(2, 3, 4, 5, 6)
    assert turned(flow, None) is flow
    torch.testing.assert_close(turned(flow, torch.eye(3).expand(2, 3, 3)), flow)


# ---- learning ----


def test_objects_cut_by_the_unknown_teach_foreground_alone() -> None:
    labels = np.zeros((1, 1, 32, 32), np.uint32)
    labels[..., 2:10, 2:10], labels[..., 12:20, 12:20], labels[..., 22:30, 14:26] = 1, 2, 3
    weight = np.ones(labels.shape, np.float32)
    weight[..., 20:] = 0
    maps = framework().encode({"target": labels}, weight)["maps"]
    known = weight[0] > 0
    counted = {n: set(maps[-1][known & (labels[0] == n)].tolist()) for n in (0, 1, 2, 3)}
    assert counted == {0: {FULL}, 1: {FULL}, 2: {0}, 3: {0}}
    assert (maps[0][known & (labels[0] > 0)] == FULL).all()
    for garbage in (1, 3, 9):
        other = np.where(weight > 0, labels, garbage).astype(np.uint32)
        again = framework().encode({"target": other}, weight)["maps"]
        np.testing.assert_array_equal(np.where(known, again, 0), np.where(known, maps, 0))


def test_losses_have_closed_forms() -> None:
    made = framework(flow_weight=0.25, foreground_weight=3.0)
    made.network = torch.nn.Conv2d(1, 3, 1)
    torch.nn.init.zeros_(made.network.weight)
    torch.nn.init.zeros_(made.network.bias)
    maps = torch.zeros(1, 4, 4, 4, dtype=torch.int8)
    maps[:, 0], maps[:, 2], maps[:, 3, :, :2] = FULL, FULL, FULL
    batch = {"source": torch.zeros(1, 1, 4, 4), "weight": torch.ones(1, 1, 4, 4), "maps": maps}
    terms = made.losses(batch, "network", TrainContext(0, torch.Generator()))
    assert terms["cross_entropy"].item() == pytest.approx(math.log(2))
    assert terms["flow"].item() == pytest.approx(LENGTH**2 / 2)  # one of two components is wrong by all of it
    assert made.loss_weights() == {"cross_entropy": 3.0, "flow": 0.25}


def test_planes_of_a_stack_are_encoded_each_on_its_own() -> None:
    labels = np.zeros((1, 3, 24, 24), np.uint32)
    for z in range(3):
        labels[0, z, 2 + 4 * z : 12 + 4 * z, 5:15] = z + 1
    made = framework()
    whole = made.encode({"target": labels}, None)["maps"]
    assert whole.shape == (4, 3, 24, 24)
    for z in range(3):
        alone = made.encode({"target": labels[:, z : z + 1]}, None)["maps"]
        np.testing.assert_array_equal(whole[:, z : z + 1], alone)


def overfitted(dimensions: int, shape: tuple[int, ...], count: int, steps: int) -> float:
    """AP at IoU 0.5 of `count` simulated images that were learned by heart."""
    made = framework(dimensions, anisotropy=2.0 if dimensions == 3 else "auto")
    specimens = [
        fluorescence(shape, seed=seed, density=0.25, touching=0.5, diameter=12.0, anisotropy=2.0)
        for seed in range(count)
    ]
    sources = np.stack([s.image for s in specimens]).astype(np.float32)[:, None]
    sources = (sources - sources.mean()) / sources.std()
    encoded = [made.encode({"target": s.labels.reshape(1, -1, *shape[-2:])}, None)["maps"] for s in specimens]
    maps = np.stack([e.reshape(len(e), *shape) for e in encoded])
    batch = {"source": torch.from_numpy(sources), "weight": torch.ones(sources.shape), "maps": torch.from_numpy(maps)}
    drive(made, batch, steps)
    made.eval()
    with torch.no_grad():
        predicted = made.translate(batch["source"], TranslateContext())
    found = [
        made.postprocess({k: v[i].numpy() for k, v in predicted.items()}, TranslateContext())["labels"][0]
        for i in range(count)
    ]
    return float(np.mean([precision(f, s.labels, 0.5) for f, s in zip(found, specimens, strict=True)]))


def test_learns_two_small_images_by_heart() -> None:
    assert overfitted(2, (48, 48), 2, 80) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(("dimensions", "shape", "steps"), [(2, (64, 64), 200), (3, (12, 32, 32), 150)])
def test_learns_eight_images_by_heart(dimensions: int, shape: tuple[int, ...], steps: int) -> None:
    assert overfitted(dimensions, shape, 8, steps) > 0.8
