"""StarDist: targets, rays, proposals and painting against closed forms; a small training that finds its objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from im2im_core.engine.frameworks.build import build_framework
from im2im_core.engine.frameworks.contract import TrainContext, TranslateContext
from im2im_core.engine.frameworks.instance import distance_map
from im2im_core.engine.frameworks.stardist import CELLS, cell_means, refined
from im2im_core.engine.predict_forward import Translator
from im2im_core.engine.ray_march import march
from im2im_core.engine.star_shapes import Painter, Proposals, Rays, make_rays, paint, propose
from im2im_core.errors import ConfigError
from im2im_core.inference import Shapes
from im2im_core.metrics import average_precision, match
from im2im_core.predict_options import PredictOptions
from im2im_core.recipe.framework import StarDistDecoding, StarDistSettings
from im2im_core.recipe.network import BasicUNet, DynUNet

RADIUS = 12.0
WORLDS = {
    "disc, grid 1": ((48, 48), (1, 1), 1.0),
    "disc, grid 2": ((49, 47), (2, 2), 1.0),
    "disc, grid 4": ((48, 48), (4, 4), 1.0),
    "ball": ((40, 40, 40), (1, 2, 2), 1.0),
    "flat voxels": ((17, 40, 40), (1, 2, 2), 3.0),
}


def framework(dimensions: int = 2, network: Any = None, **settings: Any) -> Any:
    torch.manual_seed(0)
    shapes = Shapes(dimensions=dimensions, input_channels=1)
    return build_framework(StarDistSettings(**settings), network or DynUNet(filters=(8, 8, 8)), shapes)


def ball(shape: tuple[int, ...], centre: Any, radius: float, spacing: Any) -> NDArray[np.bool_]:
    """Pixels within `radius` of a centre in an image of pixels of size `spacing`."""
    places = np.indices(shape).astype(float)
    return sum(((p - c) * s) ** 2 for p, c, s in zip(places, centre, spacing, strict=True)) <= radius**2


@pytest.fixture(params=WORLDS, ids=list(WORLDS))
def world(request: pytest.FixtureRequest) -> tuple[NDArray[np.bool_], tuple[int, ...], tuple[int, ...], Rays]:
    """A ball around the centre of a cell in the middle: its mask, the cell, the grid and rays."""
    shape, grid, anisotropy = WORLDS[request.param]
    rays = make_rays(len(shape), 32 if len(shape) == 2 else 96, anisotropy)
    cell = tuple(n // 2 // g for n, g in zip(shape, grid, strict=True))
    centre = [c * g + (g - 1) / 2 for c, g in zip(cell, grid, strict=True)]
    return ball(shape, centre, RADIUS, rays.spacing), cell, grid, rays


# ---- rays ----


@pytest.mark.parametrize(("dimensions", "count"), [(2, 32), (3, 64), (3, 96)])
def test_rays_point_in_all_directions_alike(dimensions: int, count: int) -> None:
    rays = make_rays(dimensions, count, 2.5)
    np.testing.assert_allclose(np.linalg.norm(rays.directions, axis=1), 1)
    np.testing.assert_allclose(rays.directions.mean(0), 0, atol=0.01)
    np.testing.assert_allclose(rays.directions.T @ rays.directions / count, np.eye(dimensions) / dimensions, atol=0.01)
    assert len(rays.facets) == (count if dimensions == 2 else 2 * count - 4)  # Euler's formula for triangles
    nearest = np.sort(rays.directions @ rays.directions.T, axis=1)[:, -2]
    assert np.ptp(np.arccos(nearest)) < 0.5 * np.arccos(nearest).mean()


@pytest.mark.parametrize(("dimensions", "anisotropy"), [(2, 1.0), (3, 1.0), (3, 4.0)])
def test_every_point_is_a_sum_along_the_rays_around_it(dimensions: int, anisotropy: float) -> None:
    rays = make_rays(dimensions, 48, anisotropy)
    points = np.random.default_rng(0).normal(size=(200, dimensions))
    matrix = rays.coordinates(points)
    np.testing.assert_allclose(matrix @ rays.steps, points, atol=1e-9)
    assert matrix.min() > -1e-9
    assert ((matrix != 0).sum(1) <= dimensions).all()


# ---- targets ----


def test_distances_of_a_ball_are_those_to_its_sphere(world: Any) -> None:
    mask, cell, grid, rays = world
    objects = torch.from_numpy(mask.astype(np.int32) * 7)[None]
    for shift in (0, 1):
        place = torch.tensor([[0, *cell[:-1], cell[-1] + shift]])
        found, complete = march(objects, place, rays, grid)
        # From a point d beside the centre, the sphere is at t with |d + t u| = r.
        beside = shift * grid[-1]
        along = beside * rays.directions[:, -1]
        true = np.sqrt(along**2 - beside**2 + RADIUS**2) - along
        step = 1 / np.abs(rays.steps).max(1)
        assert complete.all()
        assert (np.abs(found[0].numpy() - true) < 0.75 * step + 0.35).all()


def test_a_ray_to_the_unknown_is_only_a_lower_bound() -> None:
    objects = torch.zeros(1, 9, 20, dtype=torch.int32)
    objects[:, :, 2:] = 1
    objects[:, :, 12:15] = -1
    rays = make_rays(2, 8)
    found, complete = march(objects, torch.tensor([[0, 4, 7]]), rays, (1, 1))
    right, down, left = 0, 2, 4
    assert found[0, [right, down, left]].tolist() == pytest.approx([4.5, 4.5, 5.5])
    assert complete[0, [right, down, left]].tolist() == [False, False, True]


def test_labels_become_ids_and_a_distance_map() -> None:
    labels = np.zeros((1, 40, 40), np.uint32)
    labels[0, 5:26, 5:26] = 900_000
    labels[0, 30:36, 30:36] = 4_000_000_000
    encoded = framework().encode_labels(labels, None)
    assert encoded["objects"].dtype == np.int32
    assert np.unique(encoded["objects"]).tolist() == [0, 1, 2]
    assert ((encoded["objects"] > 0) == (labels > 0)).all()
    rim, known = encoded["rim"]
    assert rim[0, 15, 15] == 255
    assert rim[0, 15, 5] == pytest.approx(255 / 11, abs=1)  # the rim pixel is one of eleven from rim to centre
    assert rim[0, 15, 10] == pytest.approx(255 * 6 / 11, abs=1)
    assert (rim[labels == 0] == 0).all()
    assert (known == 255).all()


def test_the_centre_of_a_flat_volume_is_measured_in_space() -> None:
    labels = np.zeros((9, 31, 31), np.uint16)
    labels[ball(labels.shape, (4, 15, 15), 12, (3, 1, 1))] = 1
    found = distance_map(labels, np.array([3.0, 1, 1]))
    assert np.unravel_index(found.argmax(), found.shape) == (4, 15, 15)
    assert found[4, 15, 3] == pytest.approx(found[4, 3, 15])
    assert found[4, 15, 9] > 1.5 * found[4, 15, 4]


def test_an_image_that_is_one_object_is_all_centre() -> None:
    assert (distance_map(np.ones((1, 4, 4), int), np.ones(3)) == 1).all()
    assert (distance_map(np.zeros((1, 4, 4), int), np.ones(3)) == 0).all()


def test_centres_of_objects_cut_by_the_unknown_are_not_known() -> None:
    labels = np.zeros((1, 16, 32), np.uint16)
    labels[0, 4:12, 2:10], labels[0, 4:12, 20:28] = 1, 2
    unknown = np.zeros(labels.shape, bool)
    unknown[..., 28:] = True
    known = framework().encode_labels(labels, unknown)["rim"][1]
    assert (known[labels == 1] == 255).all()
    assert (known[labels == 2] == 0).all()
    assert (known[labels == 0] == 255).all()


# ---- losses ----


def batch_of(labels: NDArray[Any], model: Any, weight: NDArray[np.float32] | None = None) -> dict[str, torch.Tensor]:
    """One sample of labels (Y, X), its source the foreground."""
    encoded = model.encode({"target": labels[None, None]}, None if weight is None else weight[None, None])
    arrays = {n: torch.from_numpy(a[:, 0])[None] for n, a in encoded.items()}
    known = np.ones(labels.shape, np.float32) if weight is None else weight
    return {
        **arrays,
        "source": torch.from_numpy((labels > 0).astype(np.float32))[None, None],
        "weight": torch.from_numpy(known)[None, None],
    }


class Fixed(torch.nn.Module):
    """A network that always makes the same."""

    def __init__(self, made: torch.Tensor) -> None:
        super().__init__()
        self.made = made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.made


@pytest.mark.parametrize("scale", [1.0, 0.5, 1.5])
def test_the_distance_term_is_the_mean_error_in_pixels(scale: float) -> None:
    labels = ball((48, 48), (23.5, 23.5), RADIUS, (1, 1)).astype(np.int32)
    model = framework(diameter=2.0, rays=8)  # in units of one pixel
    cells = (torch.from_numpy(labels)[1::2, 1::2] > 0).nonzero()
    cells = torch.cat([torch.zeros(len(cells), 1, dtype=torch.long), cells], 1)
    true, _ = march(torch.from_numpy(labels)[None], cells, model.rays, (2, 2))
    maps = torch.zeros(1, 8, 24, 24)
    maps[0][:, cells[:, 1], cells[:, 2]] = true.T * scale - 1
    model.network = Fixed(torch.cat([torch.zeros(1, 2, 48, 48), torch.nn.functional.pixel_shuffle(maps, 2)], 1))
    batch = batch_of(labels, model)
    terms = model.losses(batch, "network", TrainContext(0, torch.Generator()))
    centre = batch["rim"][0, 0, 1::2, 1::2][cells[:, 1], cells[:, 2]].float()
    expected = ((true.mean(1) * abs(1 - scale)) * centre).sum() / centre.sum()
    assert terms["distance"].item() == pytest.approx(expected.item(), abs=1e-4)
    assert terms["background"].item() == pytest.approx(1)


def test_a_distance_beyond_the_patch_may_be_any_greater_one() -> None:
    """An object that fills the patch: all rays end at its border, so nothing is wrong with longer ones."""
    labels = np.ones((32, 32), np.uint16)
    for diameter, right in ((100.0, True), (2.0, False)):
        model = framework(diameter=diameter, rays=8)
        model.network = Fixed(torch.zeros(1, 4, 32, 32))
        term = model.losses(batch_of(labels, model), "network", TrainContext(0, torch.Generator()))["distance"]
        assert (term.item() == 0) == right


def test_of_many_cells_a_part_is_drawn_by_the_seed() -> None:
    model = framework(rays=8, grid=1)
    labels = np.zeros((160, 160), np.uint16)
    labels[:150, :150] = np.arange(150) // 10 + 1  # stripes: distances differ between cells
    batch = batch_of(labels, model)
    assert (labels > 0).sum() > CELLS
    terms = [
        model.losses(batch, "network", TrainContext(0, torch.Generator().manual_seed(s)))["distance"].item()
        for s in (0, 0, 1)
    ]
    assert terms[0] == terms[1] != terms[2]
    assert terms[0] == pytest.approx(terms[2], rel=0.1)


# ---- decoding ----


def test_a_painted_ball_is_the_ball(world: Any) -> None:
    mask, cell, grid, rays = world
    shape = Proposals(np.array([cell]), np.full((1, len(rays.directions)), RADIUS, np.float32), np.ones(1, np.float32))
    found = paint(shape, Painter(rays, grid, RADIUS), mask.shape, 0.4) > 0
    assert (found & mask).sum() / (found | mask).sum() > 0.97


def discs_of(*centres: tuple[int, int], radius: float = 10.0) -> tuple[Rays, Proposals]:
    """Discs of one radius, the first the most probable."""
    rays = make_rays(2, 32)
    scores = np.linspace(0.9, 0.6, len(centres), dtype=np.float32)
    return rays, Proposals(np.array(centres), np.full((len(centres), 32), radius, np.float32), scores)


def lens(distance: float, radius: float) -> float:
    """Part of a disc that another one of the same radius covers at a distance."""
    half = distance / 2 / radius
    return 2 / np.pi * (np.arccos(half) - half * np.sqrt(1 - half**2))


@pytest.mark.parametrize("distance", [8, 12, 16])
def test_of_two_shapes_the_better_suppresses_by_overlap(distance: int) -> None:
    rays, shapes = discs_of((30, 20), (30, 20 + distance))
    shared = lens(distance, 10.0)
    for overlap, count in ((shared - 0.04, 1), (shared + 0.04, 2)):
        assert paint(shapes, Painter(rays, (1, 1), 10), (60, 60), overlap).max() == count


def test_a_shape_centred_deep_in_a_better_one_is_another_view_of_it() -> None:
    rays, shapes = discs_of((30, 20), (30, 25))
    assert paint(shapes, Painter(rays, (1, 1), 10), (60, 60), 0.99).max() == 1


def test_the_more_probable_shape_lies_on_top() -> None:
    rays, shapes = discs_of((30, 20), (30, 34))
    labels = paint(shapes, Painter(rays, (1, 1), 10), (60, 60), 0.4)
    assert labels[30, 20] == 1
    assert labels[30, 34] == 2
    assert labels[30, 28] == 1


def test_a_dropped_shape_suppresses_nothing() -> None:
    rays, shapes = discs_of((30, 20), (30, 28), (30, 37))
    labels = paint(shapes, Painter(rays, (1, 1), 10), (60, 60), 0.4)
    assert np.unique(labels).tolist() == [0, 1, 2]
    assert labels[30, 37] == 2


def test_shapes_end_at_the_image() -> None:
    rays, shapes = discs_of((0, 0), (19, 39))
    labels = paint(shapes, Painter(rays, (1, 1), 10), (20, 40), 0.4)
    assert labels[0, 0] == 1
    assert labels[19, 39] == 2


def test_views_of_one_object_are_one_proposal_and_neighbours_stay_apart() -> None:
    """Two discs that touch: every pixel proposes its own disc, and each is proposed a few times at most."""
    rays = make_rays(2, 32)
    labels = np.zeros((32, 48), np.int32)
    labels[ball(labels.shape, (16, 14), 9, (1, 1))] = 1
    labels[ball(labels.shape, (16, 33), 9, (1, 1))] = 2
    cells = torch.from_numpy(labels > 0).nonzero()
    found, _ = march(torch.from_numpy(labels)[None], torch.nn.functional.pad(cells, (1, 0)), rays, (1, 1))
    distances = np.zeros((32, *labels.shape), np.float32)
    distances[:, *cells.numpy().T] = found.T
    probability = distance_map(labels[None], np.ones(3))[0]
    shapes = propose(probability, distances, rays, 0.3, (1, 1))
    assert 2 <= len(shapes.cells) <= 6
    assert {int(labels[tuple(c)]) for c in shapes.cells} == {1, 2}
    assert (np.diff(shapes.probabilities) <= 0).all()
    painted = paint(shapes, Painter(rays, (1, 1), 20), labels.shape, 0.4)
    assert average_precision(match(painted, labels), 0.8) == 1


def test_nothing_proposed_is_an_empty_image() -> None:
    model = framework()
    blank = np.zeros((1, 20, 30), np.float32)
    maps = {"probability": blank, "foreground": blank, "distances": np.zeros((32, 10, 15), np.float32)}
    assert not model.decode(maps, StarDistDecoding()).any()


@pytest.mark.parametrize(("dimensions", "shape"), [(2, (41, 63)), (3, (17, 33, 31))])
def test_perfect_maps_give_the_labels_back_at_any_size(dimensions: int, shape: tuple[int, ...]) -> None:
    """Also where the last cells reach beyond the image."""
    model = framework(dimensions, diameter=14)
    labels = np.zeros(shape, np.int32)
    spacing = np.ones(dimensions)
    for number, x in enumerate((9, 24), start=1):
        labels[ball(shape, [n // 2 for n in shape[:-1]] + [x], 7, spacing)] = number
    maps = perfect_maps(model, labels)
    for refine in (True, False):
        found = model.decode(maps, StarDistDecoding(refine=refine))
        assert found.shape == shape
        matching = match(found, labels)
        assert average_precision(matching, 0.75) == 1


def test_options_of_a_prediction_replace_those_of_the_model() -> None:
    model = framework(diameter=14)
    labels = np.zeros((40, 40), np.int32)
    labels[ball(labels.shape, (20, 20), 7, (1, 1))] = 1
    maps = perfect_maps(model, labels)
    for options, count in (
        (PredictOptions(), 1),
        (PredictOptions(probability=0.7, overlap=0.2), 1),
        (PredictOptions(min_size=1000), 0),
        (PredictOptions(probability=0.999), 0),
    ):
        faint = {**maps, "probability": maps["probability"] * 0.9}
        found = model.postprocess(faint, TranslateContext(options=options.decoding()))["labels"]
        assert found.max() == count


def perfect_maps(model: Any, labels: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
    """Maps that a network without fault would make."""
    grid = model.cell
    padded = np.pad(labels, [(0, -n % g) for n, g in zip(labels.shape, grid, strict=True)])
    pick = tuple(slice(g // 2, None, g) for g in grid)
    own = torch.from_numpy(np.ascontiguousarray(padded[pick]))
    cells = (own > 0).nonzero()
    found, _ = march(torch.from_numpy(padded)[None], torch.nn.functional.pad(cells, (1, 0)), model.rays, grid)
    distances = np.zeros((len(model.rays.directions), *own.shape), np.float32)
    distances[:, *cells.numpy().T] = found.T
    stack = labels.reshape(-1, *labels.shape[-2:])
    probability = distance_map(stack, np.ones(3)).reshape(1, *labels.shape)
    return {"probability": probability, "foreground": (labels > 0)[None].astype(np.float32), "distances": distances}


def test_rims_are_refined_by_the_foreground() -> None:
    true = np.zeros((30, 60), np.uint32)
    true[5:25, 5:25], true[5:25, 25:45], true[5:15, 50:55] = 1, 2, 3
    rough = np.zeros_like(true)
    rough[7:25, 5:24], rough[5:27, 26:45] = 1, 2
    found = refined(rough, true > 0)
    assert (found[true == 1] == 1).mean() > 0.95
    assert (found[true == 2] == 2).mean() > 0.95
    assert (found[true == 0] == 0).all()
    assert (found[true == 3] == 0).all()  # what nobody proposed is not taken in by a neighbour


def test_means_of_cells_include_what_is_left_at_the_end() -> None:
    pixels = np.arange(15, dtype=np.float32).reshape(3, 5)
    np.testing.assert_allclose(cell_means(pixels, 2), [[3, 5, 6.5], [10.5, 12.5, 14]])


# ---- mirrored tiles ----


@pytest.mark.parametrize("dimensions", [2, 3])
def test_distances_of_a_mirrored_tile_are_turned_back(dimensions: int) -> None:
    model = framework(dimensions, rays=32 if dimensions == 2 else 96)
    shape = (24,) * dimensions
    objects = torch.from_numpy(ball(shape, (11, 12, 12)[-dimensions:], 9, np.ones(dimensions)).astype(np.int32))
    objects[..., 15:] = objects[..., 17:, :] = 0  # nothing is symmetric any more

    middle = (..., *[slice(g // 2, None, g) for g in model.cell])

    def distances(image: torch.Tensor) -> torch.Tensor:
        cells = torch.ones_like(image[middle]).nonzero()
        found, _ = march(image[None], torch.nn.functional.pad(cells, (1, 0)), model.rays, model.cell)
        return found.T.reshape(1, -1, *image[middle].shape)

    straight = distances(objects)
    inside = (objects[middle] > 0) & (straight.amin(1)[0] > 1)
    assert inside.sum() > 5
    for axes in ([-1], [-2], [-2, -1]):
        mirrored = distances(objects.flip(axes)).flip(axes)
        error = (model.turn_back("distances", mirrored, axes) - straight).abs()[:, :, inside].mean()
        assert error < 0.6
        assert error < 0.5 * (mirrored - straight).abs()[:, :, inside].mean()
    other = torch.rand(1, 1, *shape)
    assert model.turn_back("probability", other, [-1]) is other


def test_mirroring_of_a_tile_asks_the_framework_to_turn_its_channels() -> None:
    model = framework(rays=8).eval()
    x = torch.rand(1, 1, 16, 16)
    region = (slice(0, 1), slice(0, 1), slice(0, 1), slice(0, 16), slice(0, 16))
    found = Translator(model, torch.device("cpu"), "fp32", True, 0, {})(x, [region])["distances"]
    with torch.no_grad():
        parts = []
        for axes in ([], [-2], [-1], [-2, -1]):
            made = model.translate(x.flip(axes) if axes else x, TranslateContext())["distances"]
            made = made.flip(axes) if axes else made
            order = {(): range(8), (-2,): [0, 7, 6, 5, 4, 3, 2, 1], (-1,): [4, 3, 2, 1, 0, 7, 6, 5]}
            parts.append(made[:, list(order.get(tuple(axes), [4, 5, 6, 7, 0, 1, 2, 3]))])
    torch.testing.assert_close(found, torch.stack(parts).mean(0), rtol=1e-3, atol=1e-3)


# ---- settings ----


def test_rays_must_fill_the_grid() -> None:
    with pytest.raises(ConfigError, match="rays 30 is not a multiple of grid² = 4; use 28 or 32"):
        StarDistSettings.load({"rays": 30, "grid": 2})


def test_blocks_see_whole_objects_beyond_their_border() -> None:
    assert framework(diameter=30).decode_halo == 60


# ---- learning ----


def crowd(seed: int, shape: tuple[int, ...], radius: float) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Balls of about one radius on a loose lattice, some of which touch, on noise."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    pitch = int(2.1 * radius)
    starts = [range(int(radius), n - int(radius) + 1, pitch) for n in shape]
    for number, place in enumerate(np.stack(np.meshgrid(*starts), -1).reshape(-1, len(shape)), start=1):
        middle = place + rng.uniform(-1, 1, len(shape))
        labels[ball(shape, middle, radius * rng.uniform(0.8, 1.05), np.ones(len(shape)))] = number
    return ((labels > 0) + rng.normal(0, 0.1, shape)).astype(np.float32), labels


def overfitted(model: Any, pairs: list[Any], steps: int, lr: float = 5e-3) -> float:
    """AP at IoU 0.5 over the pairs after so many steps on all of them."""
    rows = []
    for source, labels in pairs:
        volume = labels if labels.ndim == 3 else labels[None]
        encoded = model.encode({"target": volume[None]}, None)
        rows.append({n: a if labels.ndim == 3 else a[:, 0] for n, a in encoded.items()} | {"source": source[None]})
    batch = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
    batch["weight"] = torch.ones_like(batch["source"])
    optimizer = torch.optim.Adam(model.parameters(), lr)
    weights = model.loss_weights()
    for step in range(steps):
        terms = model.losses(batch, "network", TrainContext(step, torch.Generator().manual_seed(step)))
        optimizer.zero_grad()
        sum(weights[n] * v for n, v in terms.items()).backward()
        optimizer.step()
    with torch.no_grad():
        maps = {n: m.numpy() for n, m in model.translate(batch["source"], TranslateContext()).items()}
    scores = []
    for i, (_, labels) in enumerate(pairs):
        found = model.postprocess({n: m[i] for n, m in maps.items()}, TranslateContext())["labels"][0]
        scores.append(average_precision(match(found, labels), 0.5))
    return float(np.mean(scores))


def test_two_images_are_learned_by_heart() -> None:
    model = framework(network=DynUNet(filters=(16, 32, 32)), diameter=14)
    assert overfitted(model, [crowd(seed, (48, 48), 7) for seed in range(2)], 60) > 0.8


@pytest.mark.slow
def test_eight_images_are_learned_by_heart() -> None:
    model = framework(network=BasicUNet(features=(16, 16, 32, 32, 32, 16), stem=2), diameter=14)
    assert overfitted(model, [crowd(seed, (96, 96), 7) for seed in range(8)], 120) > 0.8
