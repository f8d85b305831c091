"""Centres, overlaps and clusters against closed forms and plain loops; unknown regions leave no trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from training_world import discs, sample, small_recipe

from im2im_core.engine.augment import Augmenter
from im2im_core.engine.frameworks.build import build_framework
from im2im_core.engine.frameworks.contract import TrainContext, TranslateContext
from im2im_core.engine.frameworks.embedseg import (
    EmbedSeg,
    centre_offsets,
    find_objects,
    lovasz_hinge,
    windows,
)
from im2im_core.engine.planning import make_plan
from im2im_core.engine.seed_clusters import REACH, cluster
from im2im_core.image import ArrayImage
from im2im_core.inference import Shapes
from im2im_core.metrics import average_precision, match
from im2im_core.microscope import fluorescence
from im2im_core.recipe.data import AugmentSettings
from im2im_core.recipe.framework import EmbedSegSettings
from im2im_core.recipe.network import BasicUNet, DynUNet
from im2im_core.samples import Sample, Split

SMALL = DynUNet(filters=(8, 8, 8))
CUBES = (1.0, 1.0, 1.0)


def embedseg(dimensions: Any = 2, network: Any = SMALL, **settings: Any) -> EmbedSeg:
    torch.manual_seed(0)
    framework = build_framework(EmbedSegSettings(**settings), network, Shapes(dimensions=dimensions, input_channels=1))
    assert isinstance(framework, EmbedSeg)
    return framework


# ---- centres of labels ----


def horseshoe() -> NDArray[np.uint32]:
    """A ring that is open to the right."""
    y, x = np.indices((31, 31)) - 15
    radius = np.hypot(y, x)
    return ((radius > 8) & (radius < 14) & (x < 6)).astype(np.uint32)[None]


def summed_distances(points: NDArray[Any], scale: tuple[float, ...] = CUBES) -> NDArray[Any]:
    """Sum of the distances of each point ``(N, 3)`` to all."""
    scaled = points * np.array(scale)
    return np.linalg.norm(scaled[:, None] - scaled[None], axis=2).sum(1)


@pytest.mark.parametrize("scale", [CUBES, (4.0, 1.0, 1.0)])
def test_the_medoid_is_the_pixel_nearest_to_all_others(scale: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((6, 20, 20), np.uint32)
    labels[1:5, 2:9, 3:8], labels[2:4, 11:19, 2:18] = 7, 3
    labels[rng.random(labels.shape) < 0.2] = 0
    _, offsets = centre_offsets(labels, scale, "medoid")
    for number in (3, 7):
        points = np.argwhere(labels == number)
        centres = points + offsets[:, labels == number].T
        np.testing.assert_allclose(centres, np.broadcast_to(centres[0], centres.shape), atol=1e-4)
        sums = summed_distances(points, scale)
        chosen = np.flatnonzero((points == np.round(centres[0])).all(1))
        assert len(chosen) == 1
        assert sums[chosen[0]] < 1.005 * sums.min()


def test_the_medoid_of_a_bent_object_lies_in_it_and_its_centroid_does_not() -> None:
    labels = horseshoe()
    inside = {}
    for centre in ("medoid", "centroid"):
        _, offsets = centre_offsets(labels, CUBES, centre)
        first = np.argwhere(labels)[0]
        place = np.round(first + offsets[(slice(None), *first)]).astype(int)
        inside[centre] = bool(labels[tuple(place)])
    assert inside == {"medoid": True, "centroid": False}


def test_the_centroid_is_the_mean_and_numbers_have_no_gaps() -> None:
    labels = np.zeros((1, 8, 9), np.uint32)
    labels[0, 1:4, 2:8], labels[0, 6, 0] = 40_000_000, 5
    numbers, offsets = centre_offsets(labels, CUBES, "centroid")
    assert np.unique(numbers).tolist() == [0, 1, 2]
    np.testing.assert_allclose(offsets[:, 0, 1, 2], [0, 1, 2.5])
    assert not offsets[:, labels == 0].any()
    assert not offsets[:, 0, 6, 0].any()


def test_an_image_without_objects_has_none() -> None:
    encoded = embedseg().encode({"target": np.zeros((1, 1, 8, 8), np.uint32)}, None)
    assert not encoded["objects"].any()
    assert not encoded["centre"].any()


# ---- unknown regions ----


@pytest.fixture
def partial() -> tuple[NDArray[Any], NDArray[Any]]:
    """Three objects; the left columns, which cut the second one, are unknown."""
    labels = np.zeros((1, 1, 32, 32), np.uint32)
    labels[0, 0, 2:10, 20:28], labels[0, 0, 12:20, 4:16], labels[0, 0, 22:30, 18:30] = 1, 2, 3
    weight = np.ones((1, 1, 32, 32), np.float32)
    weight[..., :10] = 0
    return labels, weight


def test_objects_that_are_cut_by_an_unknown_region_have_no_centre(
    partial: tuple[NDArray[Any], NDArray[Any]],
) -> None:
    labels, weight = partial
    numbers = embedseg().encode({"target": labels}, weight)["objects"]
    known = weight > 0
    assert (numbers[known & (labels == 2)] < 0).all()
    assert set(numbers[labels == 1]) | set(numbers[labels == 3]) == {1, 3}
    assert not numbers[~known].any()


def terms_of(framework: EmbedSeg, labels: NDArray[Any], weight: NDArray[Any]) -> tuple[Any, list[torch.Tensor]]:
    encoded = framework.encode({"target": labels}, weight)
    source = np.random.default_rng(1).normal(size=weight.shape).astype(np.float32)
    arrays = {"source": source, "weight": weight, **encoded}
    batch = {name: torch.from_numpy(array[:, 0][None].copy()) for name, array in arrays.items()}
    framework.zero_grad(set_to_none=True)
    terms = framework.losses(batch, "network", TrainContext(0, torch.Generator()))
    torch.stack(list(terms.values())).sum().backward()
    return {k: v.item() for k, v in terms.items()}, [p.grad.clone() for p in framework.parameters()]


def test_what_is_painted_in_unknown_regions_changes_neither_loss_nor_gradient(
    partial: tuple[NDArray[Any], NDArray[Any]],
) -> None:
    labels, weight = partial
    framework = embedseg().eval()
    expected, gradients = terms_of(framework, labels, weight)
    assert min(expected.values()) > 0
    spoiled = labels.copy()
    spoiled[..., :10] = np.random.default_rng(0).integers(0, 5, spoiled[..., :10].shape)
    found, changed = terms_of(framework, spoiled, weight)
    assert found == expected
    assert all(torch.equal(a, b) for a, b in zip(gradients, changed, strict=True))


def test_cut_objects_are_left_out_of_their_own_terms(partial: tuple[NDArray[Any], NDArray[Any]]) -> None:
    """Its pixels are those of no object, and nothing is asked of their seediness."""
    framework = embedseg()
    numbers = torch.tensor([[[[0, 1, -2, -2]]]])
    objects = find_objects(numbers, torch.zeros(1, 2, 1, 4), None, (1.0, 1.0))
    assert objects.map.tolist() == [-1, 0, -1, -1]
    seediness = torch.tensor([0.0, 0.5, 0.7, 0.9])
    loss = framework._seed_loss(seediness, torch.tensor([0.0, 1.0, 0.0, 0.0]), numbers.flatten(), torch.ones(4))
    assert loss.item() == pytest.approx(10 * 0.25 / 2)


def test_everything_unknown_costs_nothing() -> None:
    labels = np.ones((1, 1, 32, 32), np.uint32)
    terms, gradients = terms_of(embedseg(), labels, np.zeros((1, 1, 32, 32), np.float32))
    assert set(terms.values()) == {0.0}
    assert all(torch.isfinite(g).all() for g in gradients)


# ---- objects of a batch ----


@pytest.mark.parametrize(
    "changes",
    [
        {"flip": True, "rotate90": True},
        {"flip": True, "rotate90": True, "rotate": 180.0, "scale": (0.6, 1.6), "affine_probability": 1.0},
    ],
)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_centres_follow_the_patch(changes: dict[str, Any], dimensions: int) -> None:
    """The mean of an ellipsoid's pixels stays its centre however the patch is turned or magnified."""
    shape = (9, 48, 48)[-dimensions:]
    spacing = (3.0, 1.0, 1.0)[-dimensions:]
    framework = embedseg(dimensions, centre="centroid", anisotropy=spacing[0])
    place = np.indices((*(1,) * (3 - dimensions), *shape))[-dimensions:]
    middle, radius = (5, 22.0, 26.5)[-dimensions:], (3, 4.0, 8.0)[-dimensions:]
    inside = sum(((p - m) / r) ** 2 for p, m, r in zip(place, middle, radius, strict=True)) < 1
    encoded = framework.encode({"target": inside[None].astype(np.uint32)}, None)
    arrays = {"source": inside[None].astype(np.float32), "weight": np.ones_like(inside[None], np.float32), **encoded}
    arrays = {name: (a[:, 0] if dimensions == 2 else a) for name, a in arrays.items()}
    batch = {name: torch.from_numpy(np.stack([a] * 8)) for name, a in arrays.items()}
    augmenter = Augmenter(AugmentSettings(**changes), dimensions, framework.targets)
    changed = augmenter(batch, torch.Generator().manual_seed(0), (*shape[:-2], 40, 40))
    assert not torch.equal(changed["source"][0], changed["source"][1])
    objects = find_objects(changed["objects"], changed["centre"], changed["motion"], spacing)
    assert objects.total == 8
    for number, mask in enumerate(changed["objects"][:, 0] > 0):
        mean = mask.nonzero().float().mean(0) * torch.tensor(spacing)
        assert torch.allclose(objects.centre[:, number], mean, atol=0.5)


def test_an_object_that_is_cut_by_the_patch_keeps_its_true_centre() -> None:
    labels = np.zeros((1, 1, 16, 16), np.uint32)
    labels[0, 0, 3:12, 5:14] = 1
    encoded = embedseg().encode({"target": labels}, None)
    cut = {name: torch.from_numpy(array[None, :, 0, :, :8].copy()) for name, array in encoded.items()}
    objects = find_objects(cut["objects"], cut["centre"], None, (1.0, 1.0))
    assert objects.centre[:, 0].tolist() == [7, 9]  # beyond the last column, which is 7


def test_windows_are_the_boxes_with_their_margins_inside_the_image() -> None:
    numbers = torch.zeros(2, 1, 5, 12, 14, dtype=torch.int32)
    numbers[0, 0, 1:3, 0:4, 2:10], numbers[1, 0, 4, 6, 13], numbers[1, 0, 0, 2:6, 3:5] = 9, 9, 4
    objects = find_objects(numbers, torch.zeros(2, 3, 5, 12, 14), None, CUBES)
    owner, place = windows(objects, (5, 12, 14))
    boxes = {0: (0, (0, 0, 0), (5, 6, 12)), 1: (1, (0, 0, 1), (3, 8, 7)), 2: (1, (2, 4, 11), (5, 9, 14))}
    assert objects.sample.tolist() == [0, 1, 1]
    for number, (batch, low, high) in boxes.items():
        mask = torch.zeros(2, 5, 12, 14, dtype=torch.bool)
        mask[batch][tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
        assert place[owner == number].tolist() == mask.flatten().nonzero()[:, 0].tolist()


def sorted_hinge(near: NDArray[Any], own: NDArray[Any]) -> float:
    """Lovász hinge of one object by sorting, as it is written down: the sum of error times loss of overlap."""
    error = np.where(own, 2 - 2 * near, 2 * near)
    order = np.argsort(-error)
    total, before = 0.0, 0.0
    for k in range(1, len(order) + 1):
        wrong = np.zeros(len(own), bool)
        wrong[order[:k]] = True
        predicted = own ^ wrong
        jaccard = 1 - (own & predicted).sum() / (own | predicted).sum()
        total += error[order[k - 1]] * (jaccard - before)
        before = jaccard
    return total


def test_the_lovasz_hinge_in_bins_is_that_by_sorting() -> None:
    rng = np.random.default_rng(0)
    near, own, owner = rng.random(600), rng.random(600) < 0.4, np.repeat(np.arange(3), [100, 200, 300])
    expected = np.mean([sorted_hinge(near[owner == k], own[owner == k]) for k in range(3)])
    tensors = [torch.from_numpy(a) for a in (near, own, np.ones(600), owner)]
    assert lovasz_hinge(*tensors, 3).item() == pytest.approx(expected, rel=0.01)
    assert lovasz_hinge(tensors[1].double(), *tensors[1:], 3).item() == 0


def test_pixels_without_weight_do_not_count_for_the_overlap() -> None:
    rng = np.random.default_rng(0)
    near, own, weight = rng.random(80), rng.random(80) < 0.4, (rng.random(80) < 0.5).astype(float)
    counted = weight > 0
    whole = lovasz_hinge(*(torch.from_numpy(a) for a in (near, own, weight)), torch.zeros(80, dtype=torch.long), 1)
    part = [torch.from_numpy(a[counted]) for a in (near, own, weight)]
    assert whole.item() == pytest.approx(lovasz_hinge(*part, torch.zeros(len(part[0]), dtype=torch.long), 1).item())


def test_margins_that_differ_within_an_object_cost_their_variance() -> None:
    numbers = torch.tensor([[[[1, 1, 2, 2]]]])
    objects = find_objects(numbers, torch.zeros(1, 2, 1, 4), None, (1.0, 1.0))
    mean, variance = objects.mean_and_variance(torch.tensor([[10.0, 30.0, 5.0, 5.0]]), torch.ones(4))
    assert mean.tolist() == [[20, 5]]
    assert variance.item() == pytest.approx(((10 / 10) ** 2 + 0) / 2)


# ---- clusters ----


def true_maps(labels: NDArray[Any], spacing: tuple[float, ...], sigma: float = 4.0) -> tuple[NDArray[Any], ...]:
    """Seediness, offsets and margins as a perfect network makes them."""
    d = labels.ndim
    deep = labels.reshape((1,) * (3 - d) + labels.shape)
    _, offsets = centre_offsets(deep, (*(1.0,) * (3 - d), *spacing), "medoid")
    offset = offsets[-d:].reshape(d, *labels.shape)
    return (labels > 0).astype(np.float32), offset, np.full((1, *labels.shape), sigma, np.float32)


def touching(shape: tuple[int, ...], spacing: tuple[float, ...]) -> NDArray[np.uint32]:
    """Two balls that touch along X and a third one apart."""
    place = np.indices(shape)
    labels = np.zeros(shape, np.uint32)
    for number, x in enumerate((10, 22, 40), start=1):
        middle = [n // 2 for n in shape[:-1]] + [x]
        away = sum(((p - m) * s) ** 2 for p, m, s in zip(place, middle, spacing, strict=True))
        labels[(away < 49) & (labels == 0)] = number
    return labels


@pytest.mark.parametrize(("shape", "spacing"), [((30, 50), (1.0, 1.0)), ((8, 30, 50), (3.0, 1.0, 1.0))])
def test_maps_of_the_truth_give_the_truth_back(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    labels = touching(shape, spacing)
    found = cluster(*true_maps(labels, spacing), spacing, 0.5, 0.5)
    assert found.max() == 3
    pairs = np.unique(np.stack([labels.ravel(), found.ravel()]), axis=1)
    assert pairs.shape[1] == 4  # background and three objects, none of which is shared


def test_a_bent_object_and_one_in_its_bay_are_told_apart() -> None:
    labels = horseshoe()[0]
    labels[13:18, 13:18] = 2
    found = cluster(*true_maps(labels, (1.0, 1.0), sigma=1.5), (1.0, 1.0), 0.5, 0.5)
    assert average_precision(match(found, labels), 0.9) == 1


def test_a_cluster_is_what_lies_within_its_margin() -> None:
    seediness = np.full((1, 41), 0.6, np.float32)
    seediness[0, 20] = 0.9
    offset, sigma = np.zeros((2, 1, 41), np.float32), np.full((1, 1, 41), 5, np.float32)
    found = cluster(seediness, offset, sigma, (1.0, 1.0), 0.5, 0.8)
    assert found[0].nonzero()[0].tolist() == [x for x in range(41) if abs(x - 20) <= 5 * REACH]


def test_thresholds_and_sizes() -> None:
    labels = touching((30, 50), (1.0, 1.0))
    seediness, offset, sigma = true_maps(labels, (1.0, 1.0))
    seediness[labels == 1] = 0.45
    seediness[labels == 2] = 0.7

    def count(foreground: float, seed: float, min_size: int = 1) -> int:
        return int(cluster(seediness, offset, sigma, (1.0, 1.0), foreground, seed, min_size).max())

    assert (count(0.3, 0.4), count(0.5, 0.4), count(0.3, 0.5), count(0.3, 0.8)) == (3, 2, 2, 1)
    smallest = min(int((labels == k).sum()) for k in (1, 2, 3))
    assert (count(0.3, 0.4, smallest), count(0.3, 0.4, 1000)) == (3, 0)


def test_nothing_gives_no_objects_and_noise_ends() -> None:
    empty = np.zeros((16, 16), np.float32)
    assert not cluster(empty, np.zeros((2, 16, 16), np.float32), empty[None], (1.0, 1.0), 0.4, 0.6).any()
    rng = np.random.default_rng(0)
    noise = [rng.random((1, 64, 64)).astype(np.float32)[0], rng.normal(0, 500, (2, 64, 64)).astype(np.float32)]
    tiny = np.full((2, 64, 64), 1e-6, np.float32)
    found = cluster(*noise, tiny, (1.0, 1.0), 0.4, 0.6, min_size=5)
    np.testing.assert_array_equal(found, cluster(*noise, tiny, (1.0, 1.0), 0.4, 0.6, min_size=5))


def test_options_at_prediction_win() -> None:
    labels = touching((30, 50), (1.0, 1.0))
    seediness, offset, sigma = true_maps(labels, (1.0, 1.0))
    maps = {"seediness": 0.3 * seediness[None], "offset": offset, "sigma": sigma}
    framework = embedseg()
    assert not framework.postprocess(maps, TranslateContext())["labels"].any()
    lower = TranslateContext(options={"foreground": 0.2, "seed": 0.25})
    assert framework.postprocess(maps, lower)["labels"].max() == 3


def test_calibration_takes_the_better_thresholds() -> None:
    labels = touching((30, 50), (1.0, 1.0))
    seediness, offset, sigma = true_maps(labels, (1.0, 1.0))
    framework = embedseg()
    good = {"seediness": seediness[None], "offset": offset, "sigma": sigma}
    assert framework.calibrate([(good, {"target": labels[None]})]).decoding == framework.settings.decoding
    weak = {**good, "seediness": 0.55 * seediness[None]}
    assert framework.calibrate([(weak, {"target": labels[None]})]).decoding.seed < 0.55


# ---- the network's maps ----


def test_offsets_are_pixels_and_margins_isotropic_pixels() -> None:
    """A network that says the same everywhere: its offset along Z counts planes, that along X pixels."""
    framework = embedseg(3, anisotropy=4.0, diameter=16.0)

    def says(x: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(x), 7, *x.shape[2:])

    framework.network.forward = says
    maps = framework.translate(torch.zeros(1, 1, 4, 8, 8), TranslateContext())
    z, y, x = maps["offset"][0, :, 0, 0, 0].tolist()
    assert y == x == pytest.approx(2, rel=0.01)
    assert z == pytest.approx(x / 4)
    assert maps["sigma"].shape == (1, 3, 4, 8, 8)
    assert 0 < maps["sigma"].min() < 16


def test_one_margin_for_all_axes() -> None:
    maps = embedseg(sigmas="one").translate(torch.zeros(1, 1, 16, 16), TranslateContext())
    assert maps["sigma"].shape == (1, 1, 16, 16)


# ---- automatic values ----


@pytest.mark.parametrize(
    ("preset", "shape", "voxel_size", "expected"),
    [
        ("instance_seg_2d", (48, 48), (None, 0.5, 0.5), 1.0),
        ("embedseg_3d", (16, 48, 48), (2.0, 0.5, 0.5), 4.0),
        ("embedseg_3d", (16, 48, 48), (None, None, None), 1.0),
    ],
)
def test_units_come_from_the_images(preset: str, shape: tuple[int, ...], voxel_size: Any, expected: float) -> None:
    image, labels = discs(0, shape)
    axes = "ZYX"[-len(shape) :]
    source, target = (ArrayImage(a, axes, voxel_size=voxel_size, identity=str(a.dtype)) for a in (image, labels))
    plan = make_plan(small_recipe(preset), Split((Sample("a", "a", source, {"target": target}),)))
    settings = plan.recipe.framework
    assert isinstance(settings, EmbedSegSettings)
    assert settings.anisotropy == expected
    assert settings.diameter == pytest.approx(plan.facts.object_diameter, abs=0.1)
    assert {"framework.anisotropy", "framework.diameter"} <= set(plan.reasons)
    framework = build_framework(settings, plan.recipe.network, Shapes(dimensions=len(shape), input_channels=1))  # type: ignore[arg-type]
    assert (framework.spacing, framework.diameter) == ((expected, 1.0, 1.0)[-len(shape) :], settings.diameter)  # type: ignore[attr-defined]


def test_without_labels_to_measure_the_usual_units_are_taken() -> None:
    empty = np.zeros((48, 48), np.float32)
    plan = make_plan(small_recipe("instance_seg_2d"), Split((sample("a", empty, empty.astype(np.uint16)),)))
    assert plan.recipe.framework.diameter == "auto"  # type: ignore[union-attr]
    assert embedseg().diameter > 0


# ---- learning ----


def overfit(framework: EmbedSeg, shape: tuple[int, ...], count: int, steps: int, batch: int) -> float:
    """AP at IoU 0.5 on the images that it was trained on."""
    spacing = framework.spacing[0]
    worlds = [fluorescence(shape, seed=k, diameter=framework.diameter, anisotropy=spacing) for k in range(count)]
    flat = framework.shapes.dimensions == 2
    rows = []
    for world in worlds:
        image = world.image.astype(np.float32)
        low, high = np.percentile(image, (1, 99)).astype(np.float32)
        labels = world.labels[None, None] if flat else world.labels[None]
        encoded = framework.encode({"target": labels}, None)
        encoded = {name: array[:, 0] if flat else array for name, array in encoded.items()}
        rows.append({"source": ((image - low) / (high - low))[None], "weight": np.ones((1, *shape), "f4"), **encoded})
    arrays = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
    optimizer = torch.optim.Adam(framework.parameters(), 0.01)
    weights = framework.loss_weights()
    for step in range(steps):
        chosen = torch.randperm(count, generator=torch.Generator().manual_seed(step))[:batch]
        terms = framework.losses(
            {k: v[chosen] for k, v in arrays.items()}, "network", TrainContext(0, torch.Generator())
        )
        optimizer.zero_grad()
        sum(weights[name] * value for name, value in terms.items()).backward()  # type: ignore[union-attr]
        optimizer.step()
    framework.eval()
    with torch.no_grad():
        maps = framework.translate(arrays["source"], TranslateContext())
    scores = []
    for k, world in enumerate(worlds):
        found = framework.postprocess({name: m[k].numpy() for name, m in maps.items()}, TranslateContext())
        scores.append(average_precision(match(found["labels"][0], world.labels), 0.5))
    return float(np.mean(scores))


def test_a_few_nuclei_are_learned_by_heart() -> None:
    framework = embedseg(network=BasicUNet(features=(8, 8, 8, 16, 16, 8)), diameter=12.0)
    assert overfit(framework, (48, 48), count=2, steps=40, batch=2) > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", [2, 3])
def test_eight_small_images_are_learned_by_heart(dimensions: int) -> None:
    if dimensions == 2:
        framework = embedseg(network=BasicUNet(features=(8, 8, 16, 16, 16, 8)), diameter=14.0)
        score = overfit(framework, (64, 64), count=8, steps=120, batch=8)
    else:
        network = DynUNet(
            filters=(8, 16, 16), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2))
        )
        framework = embedseg(3, network=network, diameter=14.0, anisotropy=2.0)
        score = overfit(framework, (12, 48, 48), count=8, steps=80, batch=3)
    assert score > 0.8
