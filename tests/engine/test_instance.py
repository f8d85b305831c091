"""Maps from labels and labels from maps, against figures drawn by hand; unknown regions leave no trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import reconstruction

from im2im_core.engine.frameworks.build import build_framework
from im2im_core.engine.frameworks.contract import TrainContext, TranslateContext
from im2im_core.engine.frameworks.instance import (
    cut_instances,
    distance_map,
    inner_boundary,
    prominent_peaks,
    tidy,
    touching,
)
from im2im_core.errors import DataError
from im2im_core.inference import Shapes
from im2im_core.recipe.framework import InstanceDecoding, InstanceSettings
from im2im_core.recipe.network import DynUNet


def instance(**settings: Any) -> Any:
    torch.manual_seed(0)
    shapes = Shapes(dimensions=2, input_channels=1, target_channels=1, classes=2)
    return build_framework(InstanceSettings(**settings), DynUNet(filters=(8, 8, 8)), shapes)


def picture(text: str) -> NDArray[np.uint32]:
    return np.array([[int(c) for c in line] for line in text.split()], np.uint32)


# ---- maps from labels ----


def test_the_boundary_is_the_inner_rim() -> None:
    labels = picture("""
        000000
        011220
        011220
        011220
        000000""")
    assert (inner_boundary(labels) == (labels > 0)).all()
    alone = picture("""
        0000000
        0111110
        0111110
        0111110
        0000000""")
    expected = (alone > 0) & ~(
        picture("""
        0000000
        0000000
        0011100
        0000000
        0000000""")
        > 0
    )
    assert (inner_boundary(alone) == expected).all()
    assert (inner_boundary(alone, 2) == (alone > 0)).all()


def test_the_border_of_the_image_is_no_boundary() -> None:
    assert not inner_boundary(np.ones((4, 4), np.uint32)).any()


def test_distance_is_1_at_the_centre_of_every_object() -> None:
    labels = np.zeros((30, 40), np.uint32)
    y, x = np.indices(labels.shape)
    for number, (cy, cx, r) in enumerate([(10, 10, 8), (10, 30, 4)], start=1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = number
    distance = distance_map(labels)
    assert distance[10, 10] == distance[10, 30] == 1
    assert (distance[labels == 0] == 0).all()
    assert (distance[labels > 0] > 0).all()
    # Rim pixels have one step of the eight to the centre.
    assert distance[10, 3] == pytest.approx(1 / distance_steps(8), abs=0.02)


def distance_steps(radius: int) -> float:
    """Steps from outside to the centre of a disc: `radius` rows of pixels, the rim being the first."""
    return float(radius)


def test_touching_objects_are_apart_in_the_distance_map() -> None:
    labels = np.zeros((11, 22), np.uint32)
    labels[:, :11], labels[:, 11:] = 1, 2
    distance = distance_map(labels)
    assert distance[5, 10] < 0.3
    assert distance[5, 11] < 0.3
    assert distance[5, 0] == distance[5, 21] == 1  # the border of the image is no rim


def test_distance_without_objects_and_with_one_over_all() -> None:
    assert not distance_map(np.zeros((5, 5), np.uint32)).any()
    assert (distance_map(np.ones((5, 5), np.uint32)) == 1).all()


def test_distance_in_3d_of_a_single_plane_is_that_in_2d() -> None:
    labels = np.zeros((12, 12), np.uint32)
    labels[2:9, 3:10] = 5
    assert (distance_map(labels[None])[0] == distance_map(labels)).all()


@pytest.mark.parametrize("maps", ["distance", "boundary"])
@pytest.mark.parametrize("weighted", [False, True])
def test_planes_of_a_stack_are_encoded_each_on_its_own(maps: str, weighted: bool) -> None:
    """Objects that move from plane to plane have no rim above and below for a network that sees planes."""
    labels = np.zeros((1, 3, 24, 24), np.uint32)
    for z in range(3):
        labels[0, z, 2 + 4 * z : 12 + 4 * z, 5:15] = z + 1
    weight = np.ones((1, 3, 24, 24), np.float32)
    weight[:, 1, :4] = 0
    known = weight if weighted else None
    framework = instance(maps=maps)
    whole = framework.encode({"target": labels}, known)["maps"]
    for z in range(3):
        plane = None if known is None else known[:, z : z + 1]
        assert (whole[:, z : z + 1] == framework.encode({"target": labels[:, z : z + 1]}, plane)["maps"]).all()
    assert (whole[1] == 255).mean() < 0.2


def test_touching_is_a_line_between_two_objects() -> None:
    labels = np.zeros((40, 60), np.uint32)
    labels[10:30, 5:20], labels[10:30, 22:35] = 1, 2  # two pixels apart
    labels[10:30, 48:58] = 3  # far from both
    near = touching(labels, 4)
    assert (near[10:30, 20:22] > 0.9).all()
    assert (near[:, 36:] < 0.01).all()
    row = near[20]
    assert row[21] > row[24] > row[28]
    assert not touching(np.where(labels == 2, 0, labels), 4).any()


@pytest.mark.parametrize("maps", ["distance", "boundary"])
def test_pixels_between_touching_objects_count_more(maps: str) -> None:
    labels = np.zeros((1, 1, 32, 32), np.uint32)
    labels[..., 4:28, 4:16], labels[..., 4:28, 16:28] = 1, 2
    even, uneven = instance(maps=maps), instance(maps=maps, touch_weight=4.0)
    weight = np.ones(labels.shape, np.float32)
    encoded = {f: f.encode({"target": labels}, weight)["maps"] for f in (even, uneven)}
    assert set(encoded[even][2].ravel().tolist()) == {255}
    counts = encoded[uneven][2][0]
    assert counts[16, 16] == 255
    assert counts[0, 0] == round(255 / 5)

    def slope(framework: Any, x: int) -> Any:
        """Gradient of the entropy of the foreground between the objects, relative to one far away."""
        framework.network = torch.nn.Conv2d(1, 2, 1)
        made = torch.zeros(1, 2, 32, 32, requires_grad=True)
        framework.network.forward = lambda _: made
        maps_of = torch.from_numpy(encoded[framework][:, 0][None])
        batch = {"source": torch.zeros(1, 1, 32, 32), "maps": maps_of, "weight": torch.ones(1, 1, 32, 32)}
        framework.losses(batch, "network", TrainContext(0, torch.Generator()))["cross_entropy"].backward()
        return abs(float(made.grad[0, 0, 16, x] / made.grad[0, 0, 0, 0]))

    assert slope(even, 16) == pytest.approx(1)
    assert slope(uneven, 16) == pytest.approx(5, rel=0.02)


# ---- partial labels ----


@pytest.fixture
def partial() -> tuple[NDArray[Any], NDArray[Any]]:
    """Object 1 far from the unknown right part, object 2 beside it, object 3 cut by it."""
    labels = np.zeros((1, 1, 32, 32), np.uint32)
    labels[..., 2:10, 2:10], labels[..., 12:20, 12:20], labels[..., 22:30, 14:26] = 1, 2, 3
    weight = np.ones(labels.shape, np.float32)
    weight[..., 20:] = 0
    return labels, weight


def spoiled(labels: NDArray[Any], weight: NDArray[Any]) -> list[NDArray[Any]]:
    """The same known labels with garbage in the unknown part: noise, ids of known objects, one huge object."""
    garbage = [
        np.random.default_rng(0).integers(0, 9, labels.shape),
        np.full(labels.shape, 1),
        np.full(labels.shape, 3),
        np.full(labels.shape, 4_000_000),
    ]
    return [np.where(weight > 0, labels, g).astype(np.uint32) for g in garbage]


@pytest.mark.parametrize("maps", ["distance", "boundary"])
def test_garbage_in_unknown_regions_changes_no_map(maps: str, partial: tuple[NDArray[Any], NDArray[Any]]) -> None:
    labels, weight = partial
    framework = instance(maps=maps)
    expected = framework.encode({"target": labels}, weight)["maps"]
    for other in spoiled(*partial):
        found = framework.encode({"target": other}, weight)["maps"]
        known = weight > 0
        assert (np.where(known, found, 0) == np.where(known, expected, 0)).all()


def test_objects_beside_the_unknown_are_left_out_of_the_distance_loss(
    partial: tuple[NDArray[Any], NDArray[Any]],
) -> None:
    labels, weight = partial
    maps = instance().encode({"target": labels}, weight)["maps"]
    known = weight[0] > 0
    counted = {n: set(maps[2][known & (labels[0] == n)].tolist()) for n in (0, 1, 2, 3)}
    assert counted == {0: {255}, 1: {255}, 2: {0}, 3: {0}}
    # They still teach where objects are.
    assert (maps[0][known & (labels[0] > 0)] == 255).all()


def losses(framework: Any, maps: NDArray[Any], weight: NDArray[Any]) -> tuple[dict[str, float], list[torch.Tensor]]:
    source = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 1, 32, 32)).astype(np.float32))
    batch = {
        "source": source,
        "maps": torch.from_numpy(maps[:, 0][None]),
        "weight": torch.from_numpy(weight[:, 0][None]),
    }
    framework.zero_grad(set_to_none=True)
    terms = framework.losses(batch, "network", TrainContext(0, torch.Generator()))
    torch.stack(list(terms.values())).sum().backward()
    return {k: float(v) for k, v in terms.items()}, [p.grad.clone() for p in framework.parameters()]


def test_garbage_in_unknown_regions_changes_neither_loss_nor_gradient(
    partial: tuple[NDArray[Any], NDArray[Any]],
) -> None:
    labels, weight = partial
    framework = instance().eval()
    expected, gradients = losses(framework, framework.encode({"target": labels}, weight)["maps"], weight)
    for other in spoiled(*partial):
        found, changed = losses(framework, framework.encode({"target": other}, weight)["maps"], weight)
        assert found == expected
        assert all(torch.equal(a, b) for a, b in zip(gradients, changed, strict=True))


def test_everything_unknown_costs_nothing() -> None:
    framework = instance()
    found, gradients = losses(framework, np.full((3, 1, 32, 32), 255, np.uint8), np.zeros((1, 1, 32, 32), np.float32))
    assert found["cross_entropy"] == found["distance"] == 0
    assert all(torch.isfinite(g).all() for g in gradients)


def test_two_channels_of_labels_are_refused() -> None:
    with pytest.raises(DataError, match="2 channels"):
        instance().encode({"target": np.zeros((2, 1, 8, 8), np.uint32)}, None)


# ---- labels from maps ----


def test_maps_of_the_truth_give_the_truth_back() -> None:
    labels = np.zeros((40, 60), np.uint32)
    y, x = np.indices(labels.shape)
    for number, cx in enumerate((12, 26, 45), start=1):  # the first two touch
        labels[((y - 20) ** 2 + (x - cx) ** 2 < 64) & (labels == 0)] = number
    decoding = InstanceDecoding(foreground=0.5, seed=0.5, smooth=0.5, min_size=5)
    found = cut_instances((labels > 0).astype(np.float32), distance_map(labels), decoding)
    assert found.max() == 3
    for number in (1, 2, 3):
        own = labels == number
        winner = np.bincount(found[own]).argmax()
        assert (own & (found == winner)).sum() / (own | (found == winner)).sum() > 0.95


@pytest.mark.parametrize("shape", [(96, 80), (20, 32, 24)])
def test_tops_are_found_part_by_part(shape: tuple[int, ...]) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), 2.0)
    heights = np.clip(noise / noise.max(), 0, 1).astype(np.float32)
    heights[heights < 0.07] = 0
    tops = prominent_peaks(heights, 0.1)
    lowered = reconstruction(np.maximum(heights - np.float32(0.1), 0), heights)
    # By their definition: a plateau of the lowered map (and what is as high up to rounding), nothing higher beside it.
    expected = lowered - reconstruction(np.maximum(lowered - 1e-4, 0), lowered) > 5e-5
    assert expected[tops].all()
    assert ndimage.label(tops)[1] == ndimage.label(expected)[1] == len(np.unique(ndimage.label(expected)[0][tops]))
    parts, count = ndimage.label(heights > 0, np.ones((3,) * heights.ndim))
    of = [ndimage.label(tops & (parts == number))[1] for number in range(1, count + 1)]
    assert {0, 1, 2} <= {min(n, 2) for n in of}  # parts without a top, with one, with several


def test_an_object_that_fills_the_image_has_a_top() -> None:
    assert prominent_peaks(np.full((6, 8), 0.5, np.float32), 0.1).all()
    assert not prominent_peaks(np.full((6, 8), 0.05, np.float32), 0.1).any()


def test_fault_16_no_foreground_gives_no_objects() -> None:
    nothing = cut_instances(np.zeros((8, 8), np.float32), np.zeros((8, 8), np.float32), InstanceDecoding())
    assert nothing.shape == (8, 8)
    assert not nothing.any()


def test_small_objects_go_and_ids_have_no_gaps() -> None:
    labels = np.zeros((10, 10), np.uint32)
    labels[0, 0], labels[2:5, 2:5], labels[6:9, 6:9] = 1, 2, 3
    found = tidy(labels, 5, fill_holes=False)
    assert np.unique(found).tolist() == [0, 1, 2]
    assert (found > 0).sum() == 18


def test_holes_are_filled_but_not_other_objects() -> None:
    ring = np.zeros((9, 9), np.uint32)
    ring[1:8, 1:8], ring[3:6, 3:6], ring[4, 4] = 1, 0, 2
    found = tidy(ring, 0, fill_holes=True)
    assert found[4, 4] == 2
    assert (found[3:6, 3:6] > 0).all()
    assert (tidy(ring, 0, fill_holes=False)[3, 3:6] == 0).all()


# ---- thresholds ----


def test_calibration_takes_the_better_threshold_and_keeps_ties() -> None:
    labels = np.zeros((1, 40, 40), np.uint32)
    labels[0, 5:15, 5:15], labels[0, 20:32, 20:32] = 1, 2
    sure = {"foreground": (labels > 0).astype(np.float32), "distance": distance_map(labels)}
    framework = instance()
    kept = framework.calibrate([(sure, {"target": labels})])
    assert kept.decoding == framework.settings.decoding
    weak = {"foreground": np.where(labels > 0, 0.45, 0.0).astype(np.float32), "distance": distance_map(labels)}
    chosen = framework.calibrate([(weak, {"target": labels})])
    assert chosen.decoding.foreground < 0.45


def test_calibration_does_not_look_at_unknown_regions() -> None:
    labels = np.zeros((1, 40, 40), np.uint32)
    labels[0, 5:15, 5:15] = 1
    weight = np.ones((1, 40, 40), np.float32)
    weight[..., 20:] = 0
    found = np.where(labels > 0, 0.45, 0.0).astype(np.float32)
    found[..., 22:38, 22:38] = 0.42  # an object where nobody knows
    maps = {"foreground": found, "distance": np.where(found > 0, 1, 0).astype(np.float32)}
    framework = instance()
    score = framework._score([(maps, {"target": labels, "weight": weight})], InstanceDecoding(foreground=0.4, seed=0.4))
    assert score == pytest.approx(2)


def test_no_samples_leave_the_thresholds() -> None:
    assert instance().calibrate([]) is None
    assert instance(calibrate=False).calibrate([({}, {})]) is None


def test_options_at_prediction_win() -> None:
    maps = {"foreground": np.full((1, 8, 8), 0.3, np.float32), "distance": np.full((1, 8, 8), 0.9, np.float32)}
    framework = instance()
    assert not framework.postprocess(maps, TranslateContext())["labels"].any()
    lower = TranslateContext(options={"foreground": 0.2, "min_size": 0})
    assert framework.postprocess(maps, lower)["labels"].all()
