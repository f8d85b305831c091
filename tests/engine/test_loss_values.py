"""Values of the losses: closed forms and other libraries."""

from __future__ import annotations

import itertools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.losses import BoundaryLoss, GeneralizedDiceLoss, HausdorffDTLoss, SoftclDiceLoss, TverskyLoss
from monai.losses.cldice import soft_skel
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy.ndimage import label, uniform_filter
from skimage.filters import threshold_otsu
from torch import Tensor
from torch.nn import functional

from im2im_core.engine.losses import build_losses
from im2im_core.engine.losses.centerline import soft_skeleton
from im2im_core.engine.losses.fourier_ring import taper
from im2im_core.engine.losses.lovasz import extension
from im2im_core.engine.losses.neighbours import neighbours
from im2im_core.engine.losses.persistence import components
from im2im_core.engine.losses.structural import SCALE_POWERS
from im2im_core.errors import ConfigError, DataError, TrustError
from im2im_core.recipe.losses import (
    SSIM,
    Boundary,
    CenterlineDice,
    Connectivity,
    CrossEntropy,
    Dice,
    Focal,
    FourierRing,
    GeneralizedDice,
    Hausdorff,
    LossBase,
    Lovasz,
    MultiScaleSSIM,
    Perceptual,
    Topology,
    Tversky,
)

SHAPES = {2: (16, 18), 3: (6, 12, 10)}


def make(settings: LossBase) -> Any:
    return build_losses([settings])[0].loss  # type: ignore[list-item]


def blobs(dimensions: int, classes: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Smooth logits, classes that hang together, and a weight of 1."""
    g = torch.Generator().manual_seed(4)
    shape = SHAPES[dimensions]
    fields = torch.randn(2, classes, *shape, generator=g)
    pool = functional.avg_pool2d if dimensions == 2 else functional.avg_pool3d
    fields = 4 * pool(fields, 3, 1, 1)
    other = fields + 0.8 * torch.randn(fields.shape, generator=g)
    return other, fields.argmax(1, keepdim=True), torch.ones(2, 1, *shape)


def logits(probability: list[Any]) -> Tensor:
    """One output channel ``(1, 1, Y, X)`` with these probabilities."""
    return torch.logit(torch.tensor(probability, dtype=torch.float32))[None, None]


def truth(values: list[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[None, None]


# ---- overlaps ------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("background", [False, True])
def test_generalised_dice_equals_monai(dimensions: int, background: bool) -> None:
    prediction, target, weight = blobs(dimensions)
    reference = GeneralizedDiceLoss(
        include_background=background, softmax=True, to_onehot_y=True, batch=True, smooth_nr=0, smooth_dr=0
    )
    torch.testing.assert_close(
        make(GeneralizedDice(background=background))(prediction, target, weight), reference(prediction, target)
    )


def test_generalised_dice_has_a_closed_form() -> None:
    # Foreground is one pixel of four, so it counts nine times the background; each class is half right where it is.
    value = make(GeneralizedDice())(logits([[0.5, 0.0, 0.0, 0.0]]), truth([[1, 0, 0, 0]]), torch.ones(1, 1, 1, 4))
    overlap, size = 9 * 0.5 + 1 * 3, 9 * (0.5 + 1) + 1 * (3.5 + 3)
    assert value.item() == pytest.approx(1 - 2 * overlap / size, abs=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_tversky_equals_monai(dimensions: int) -> None:
    prediction, target, weight = blobs(dimensions)
    reference = TverskyLoss(include_background=False, softmax=True, to_onehot_y=True, alpha=0.3, beta=0.7, batch=True)
    torch.testing.assert_close(make(Tversky())(prediction, target, weight), reference(prediction, target))


def test_tversky_of_equal_prices_is_dice_and_its_focal_form_a_power_of_it() -> None:
    prediction, target, weight = blobs(2, classes=2)
    plain = make(Tversky(false_positives=0.5, false_negatives=0.5))(prediction, target, weight)
    torch.testing.assert_close(plain, make(Dice())(prediction, target, weight))
    focal = make(Tversky(false_positives=0.5, false_negatives=0.5, gamma=4 / 3))(prediction, target, weight)
    torch.testing.assert_close(focal, plain**0.75)


def test_focal_tversky_is_steady_where_all_is_right() -> None:
    prediction = logits([[1 - 1e-7, 1e-7]]).requires_grad_()
    value = make(Tversky(gamma=3))(prediction, truth([[1, 0]]), torch.ones(1, 1, 1, 2))
    (gradient,) = torch.autograd.grad(value, prediction)
    assert value.item() == pytest.approx(0, abs=1e-2)
    assert gradient.isfinite().all()


def test_classes_of_focal_by_weight() -> None:
    prediction, target, weight = blobs(2)
    factors = (0.5, 2.0, 1.0)
    torch.testing.assert_close(
        make(Focal(gamma=0, class_weights=factors))(prediction, target, weight),
        make(CrossEntropy(class_weights=factors))(prediction, target, weight),
    )


def test_dice_of_classes_by_weight_has_a_closed_form() -> None:
    prediction, target, weight = blobs(2)
    alone = [
        make(Dice(background=True, class_weights=tuple(float(i == k) for i in range(3))))(prediction, target, weight)
        for k in range(3)
    ]
    both = make(Dice(background=True, class_weights=(1.0, 2.0, 5.0)))(prediction, target, weight)
    torch.testing.assert_close(both, (alone[0] + 2 * alone[1] + 5 * alone[2]) / 8)


# ---- Lovász --------------------------------------------------------------------


def jaccard_loss(wrong: NDArray[np.bool_], region: NDArray[np.bool_], weight: NDArray[Any]) -> float:
    """One minus IoU by weight where the pixels `wrong` are predicted wrong."""
    predicted = region ^ wrong
    return 1 - weight[predicted & region].sum() / weight[predicted | region].sum()


def test_lovasz_is_one_minus_iou_where_errors_are_all_or_nothing() -> None:
    region, weight = np.array([1, 1, 1, 0, 0], bool), np.array([1.0, 2.0, 0.5, 1.5, 3.0])
    for pattern in itertools.product([False, True], repeat=5):
        wrong = np.array(pattern)
        value = extension(*(torch.tensor(x, dtype=torch.float32) for x in (wrong, region, weight)))
        assert value.item() == pytest.approx(jaccard_loss(wrong, region, weight), abs=1e-6)


def test_lovasz_between_is_the_integral_over_thresholds() -> None:
    region, weight = np.array([1, 1, 0, 0, 0], bool), np.array([1.0, 2.0, 1.0, 0.5, 3.0])
    errors = np.array([0.9, 0.2, 0.6, 0.35, 0.1])
    steps = np.sort(np.append(errors, 0.0))
    integral = sum(
        (high - low) * jaccard_loss(errors >= high, region, weight) for low, high in itertools.pairwise(steps)
    )
    value = extension(*(torch.tensor(x, dtype=torch.float32) for x in (errors, region, weight)))
    assert value.item() == pytest.approx(integral, abs=1e-6)


def test_lovasz_softmax_is_the_mean_over_classes_that_occur() -> None:
    prediction, _, weight = blobs(2)
    target = torch.zeros_like(prediction[:, :1]).long()
    target[..., :5] = 2
    probability = torch.softmax(prediction, 1)
    terms = [
        extension(
            ((target == k).float() - probability[:, k : k + 1]).abs().flatten(),
            (target == k).float().flatten(),
            weight.flatten(),
        )
        for k in (0, 2)
    ]
    torch.testing.assert_close(make(Lovasz())(prediction, target, weight), torch.stack(terms).mean())


def test_lovasz_hinge_of_one_pixel_is_its_hinge() -> None:
    loss = make(Lovasz(errors="hinge", background=False))
    for margin in (-40.0, -1.0, 0.5, 3.0):
        hinge = max(0.0, 1 - margin)
        one = torch.ones(1, 1, 1, 1)
        assert loss(torch.full((1, 1, 1, 1), margin), one, one).item() == pytest.approx(hinge)
        both = torch.tensor([-margin / 2, margin / 2])[None, :, None, None].requires_grad_()
        value = loss(both, one.long(), one)
        assert value.item() == pytest.approx(hinge)
        (slope,) = torch.autograd.grad(value, both)
        assert slope.flatten().tolist() == pytest.approx([1.0, -1.0] if hinge else [0.0, 0.0])


# ---- distances -----------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [2, 3])
def test_boundary_equals_monai(dimensions: int) -> None:
    prediction, target, weight = blobs(dimensions)
    reference = BoundaryLoss(include_background=False, softmax=True, to_onehot_y=True)
    torch.testing.assert_close(make(Boundary())(prediction, target, weight), reference(prediction, target))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_hausdorff_equals_monai(dimensions: int) -> None:
    prediction, target, weight = blobs(dimensions)
    reference = HausdorffDTLoss(include_background=False, softmax=True, to_onehot_y=True)
    torch.testing.assert_close(make(Hausdorff())(prediction, target, weight), reference(prediction, target))


def test_boundary_has_a_closed_form_beside_the_unknown() -> None:
    # Row: inside, inside, unknown, outside, outside. The nearest known pixel of the other side is what counts.
    row, known = [[1, 1, 0, 0, 0]], torch.tensor([[[[1.0, 1.0, 0.0, 1.0, 1.0]]]])
    signed = [-(3 - 1), -(2 - 1), 2, 3]
    probability = [0.9, 0.6, 0.5, 0.2, 0.4]
    value = make(Boundary())(logits([probability]), truth(row), known)
    expected = np.dot(np.array(probability)[[0, 1, 3, 4]], signed) / 4
    assert value.item() == pytest.approx(expected, abs=1e-5)


def test_thick_voxels_are_farther_along_z() -> None:
    probability = torch.full((1, 1, 3, 1, 1), 0.0)
    region = torch.tensor([1.0, 0.0, 0.0])[None, None, :, None, None]
    weight = torch.ones(1, 1, 3, 1, 1)
    plain, thick = (make(Boundary(thickness=t))(probability, region, weight).item() for t in (1.0, 4.0))
    assert plain == pytest.approx(0.5 * (0 + 1 + 2) / 3)
    assert thick == pytest.approx(0.5 * (-3 + 4 + 8) / 3)  # the inner pixel is four away from the outside, less one


def test_hausdorff_has_a_closed_form() -> None:
    # Truth is the first pixel, the prediction calls the first two: one error, one pixel from either rim.
    value = make(Hausdorff())(logits([[1 - 1e-7, 1 - 1e-7, 1e-7]]), truth([[1, 0, 0]]), torch.ones(1, 1, 1, 3))
    assert value.item() == pytest.approx((1**2 + 1**2) / 3, abs=1e-4)


# ---- what hangs together ---------------------------------------------------------


@pytest.mark.parametrize("dimensions", [2, 3])
def test_soft_skeleton_equals_monai(dimensions: int) -> None:
    probability = torch.softmax(blobs(dimensions)[0], 1)
    torch.testing.assert_close(soft_skeleton(probability, 4), soft_skel(probability, 4))


def test_cldice_equals_monai() -> None:
    prediction, target, weight = (x[:1] for x in blobs(2, classes=2))
    reference = SoftclDiceLoss(
        iter_=5, smooth_nr=1e-5, smooth_dr=1e-5, smooth=1e-12, include_background=False, softmax=True, to_onehot_y=True
    )
    torch.testing.assert_close(make(CenterlineDice())(prediction, target, weight), reference(prediction, target))


def test_cldice_of_a_broken_line_counts_the_gap() -> None:
    line = torch.zeros(1, 1, 7, 12)
    line[..., 3, :] = 1
    broken = line.clone()
    broken[..., 3, 5:8] = 0
    value = make(CenterlineDice())(400 * (broken - 0.5), line, torch.ones_like(line))
    assert value.item() == pytest.approx(1 - 2 * 1.0 * (9 / 12) / (1.0 + 9 / 12), abs=1e-4)


def test_connectivity_has_a_closed_form() -> None:
    a, b, c = 0.9, 0.6, 0.2  # the first two pixels belong together, the last two do not
    value = make(Connectivity())(logits([[a, b, c]]), truth([[1, 1, 0]]), torch.tensor([[[[1.0, 1.0, 0.5]]]]))
    expected = (1 * -np.log(a * b) + 0.5 * -np.log(1 - b * c)) / 1.5
    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("dimensions", "pairs"), [(2, 4), (3, 13)])
def test_connectivity_looks_at_every_pair_once(dimensions: int, pairs: int) -> None:
    shape = (3,) * dimensions
    value = make(Connectivity())(torch.zeros(1, 1, *shape), torch.ones(1, 1, *shape), torch.ones(1, 1, *shape))
    assert value.item() == pytest.approx(-np.log(0.5 * 0.5), rel=1e-5)
    found = list(neighbours(dimensions))
    assert len(found) == pairs
    place = np.arange(3**dimensions).reshape(shape)
    together = [frozenset(p) for one, other in found for p in zip(place[one].flat, place[other].flat, strict=True)]
    where = np.indices(shape).reshape(dimensions, -1).T
    near = {
        frozenset((i, j))
        for i, j in itertools.combinations(range(place.size), 2)
        if np.abs(where[i] - where[j]).max() == 1
    }
    assert len(together) == len(near)
    assert set(together) == near


# ---- topology ------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9, 11), (4, 6, 5)])
@pytest.mark.parametrize("diagonal", [False, True])
def test_components_are_those_of_every_threshold(shape: tuple[int, ...], diagonal: bool) -> None:
    rng = np.random.default_rng(3)
    values = rng.random(shape, np.float32)
    known = rng.random(shape) > 0.2
    found = components(values, known, diagonal)
    births = values.ravel()[found.births]
    deaths = np.where(found.deaths >= 0, values.ravel()[found.deaths], -1)
    structure = np.ones((3,) * len(shape)) if diagonal else None
    for threshold in np.linspace(0.05, 0.95, 19):
        _, expected = label((values >= threshold) & known, structure)
        assert ((births >= threshold) & (deaths < threshold)).sum() == expected


def test_topology_has_a_closed_form() -> None:
    # Two hills of 0.9 and 0.7 with a pass of 0.4 between them, the truth is one component.
    row = [[0.1, 0.9, 0.4, 0.7, 0.1]]
    value = make(Topology(holes=False))(logits(row), truth([[0, 1, 1, 1, 0]]), torch.ones(1, 1, 1, 5))
    assert value.item() == pytest.approx((1 - 0.9) ** 2 + (0.7 - 0.4) ** 2 / 2, rel=1e-4)
    # Where the truth has two, the lower one has to rise and the pass to sink.
    value = make(Topology(holes=False))(logits(row), truth([[0, 1, 0, 1, 0]]), torch.ones(1, 1, 1, 5))
    assert value.item() == pytest.approx((1 - 0.9) ** 2 + (1 - 0.7) ** 2 + 0.4**2, rel=1e-4)


def ring(inside: float, rim: float, gap: float) -> list[list[float]]:
    low = 0.01
    return [
        [low, low, low, low, low],
        [low, rim, rim, rim, low],
        [low, rim, inside, gap, low],
        [low, rim, rim, rim, low],
        [low, low, low, low, low],
    ]


def test_a_ring_that_leaks_is_closed_where_it_leaks() -> None:
    prediction = logits(ring(inside=0.2, rim=0.9, gap=0.4)).requires_grad_()
    value = make(Topology())(prediction, truth(ring(0, 1, 1)).round(), torch.ones(1, 1, 5, 5))
    # One component from 0.9 to 0, one hole that begins at 0.2 and runs out through the gap at 0.4.
    assert value.item() == pytest.approx((1 - 0.9) ** 2 + 0.2**2 + (1 - 0.4) ** 2, rel=1e-4)
    (slope,) = torch.autograd.grad(value, prediction)
    assert slope[0, 0, 2, 3] < 0  # the gap rises
    assert slope[0, 0, 2, 2] > 0  # the inside sinks
    assert (slope != 0).sum() == 3


def test_a_hole_that_touches_the_unknown_is_none() -> None:
    weight = torch.ones(1, 1, 5, 5)
    weight[0, 0, 2, 2] = 0
    ring_, region = logits(ring(0.2, 0.9, 0.4)), truth(ring(0, 1, 1)).round()
    value = make(Topology())(ring_, region, weight)
    assert value.item() == pytest.approx((1 - 0.9) ** 2, rel=1e-3)


def test_cavities_of_volumes_count() -> None:
    probability = torch.full((1, 1, 5, 5, 5), 0.01)
    probability[..., 1:4, 1:4, 1:4] = 0.95
    probability[..., 2, 2, 2] = 0.3
    region = (probability > 0.5).float()
    loss = make(Topology())
    with_cavity = loss(torch.logit(probability), region, torch.ones_like(region))
    assert with_cavity.item() == pytest.approx(0.05**2 + 0.3**2 + 0.05**2, rel=1e-3)
    region[..., 2, 2, 2] = 1  # there should be none: it is levelled
    without = loss(torch.logit(probability), region, torch.ones_like(region))
    assert without.item() == pytest.approx(0.05**2 + (0.95 - 0.3) ** 2 / 2, rel=1e-3)


def test_topology_of_noise_is_learned() -> None:
    g = torch.Generator().manual_seed(0)
    region = torch.zeros(1, 1, 16, 16)
    region[..., 3:13, 3:13] = 1
    region[..., 6:10, 6:10] = 0
    parameter = (2 * (2 * region - 1) + torch.randn(region.shape, generator=g)).requires_grad_()
    optimizer = torch.optim.Adam([parameter], 0.1)
    loss, weight = make(Topology()), torch.ones_like(region)
    first = loss(parameter, region, weight).item()
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(parameter, region, weight)
        value.backward()
        optimizer.step()
    assert value.item() < 0.3 * first


# ---- images --------------------------------------------------------------------


def images(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(2)
    pool = functional.avg_pool2d if len(shape) == 2 else functional.avg_pool3d
    target = pool(torch.rand(1, 1, *shape, generator=g), 3, 1, 1)
    return (target + 0.1 * torch.rand(1, 1, *shape, generator=g)).clamp(0, 1), target


def plain_similarity(p: NDArray[Any], t: NDArray[Any], window: int) -> tuple[float, float]:
    """Mean of contrast and structure, and of the whole similarity; windows reach to the rim of the image only."""
    inside = uniform_filter(np.ones(p.shape), window, mode="constant")

    def mean(x: NDArray[Any]) -> NDArray[Any]:
        return uniform_filter(x, window, mode="constant") / inside

    cross = mean(p * t) - mean(p) * mean(t)
    contrast = (2 * cross + 0.03**2) / (mean(p * p) - mean(p) ** 2 + mean(t * t) - mean(t) ** 2 + 0.03**2)
    luminance = (2 * mean(p) * mean(t) + 0.01**2) / (mean(p) ** 2 + mean(t) ** 2 + 0.01**2)
    return contrast.mean(), (contrast * luminance).mean()


@pytest.mark.parametrize("shape", [(32, 40), (24, 24, 28)])
def test_ms_ssim_has_a_closed_form(shape: tuple[int, ...]) -> None:
    prediction, target = images(shape)
    value = make(MultiScaleSSIM(window=5, scales=3))(prediction, target, torch.ones_like(target))
    p, t = (x[0, 0].double().numpy() for x in (prediction, target))
    powers = np.array(SCALE_POWERS[:3]) / sum(SCALE_POWERS[:3])
    expected = 1.0
    for scale, power in enumerate(powers):
        contrast, whole = plain_similarity(p, t, 5)
        expected *= (whole if scale == 2 else contrast) ** power
        if scale < 2:
            blocks = [n for size in p.shape for n in (size // 2, 2)]
            p, t = (x.reshape(blocks).mean(tuple(range(1, len(blocks), 2))) for x in (p, t))
    assert value.item() == pytest.approx(1 - expected, abs=1e-4)


def test_ms_ssim_of_one_scale_is_ssim_and_thin_volumes_keep_their_planes() -> None:
    prediction, target = images((4, 16, 16))
    weight = torch.ones_like(target)
    torch.testing.assert_close(
        make(MultiScaleSSIM(scales=1))(prediction, target, weight), make(SSIM())(prediction, target, weight)
    )
    assert make(MultiScaleSSIM())(prediction, target, weight).isfinite()
    with pytest.raises(ConfigError, match="ms_ssim window 8 is even"):
        make(MultiScaleSSIM(window=8))


def test_ms_ssim_of_what_has_nothing_in_common_still_has_a_slope() -> None:
    _, target = images((32, 32))
    prediction = target.flip(2).requires_grad_()
    value = make(MultiScaleSSIM(window=5))(prediction, target, torch.ones_like(target))
    (slope,) = torch.autograd.grad(value, prediction)
    assert slope.abs().sum() > 1e-3


@pytest.mark.parametrize("shape", [(24, 24), (20, 27), (8, 12, 12)])
def test_fourier_ring_equals_a_plain_sum(shape: tuple[int, ...]) -> None:
    prediction, target = images(shape)
    value = make(FourierRing())(prediction, target, torch.ones_like(target))
    window = taper(shape, torch.device("cpu")).double().numpy()
    f, g = (
        np.fft.fftn((x - (x * window).sum() / window.sum()) * window)
        for x in (prediction[0, 0].double().numpy(), target[0, 0].double().numpy())
    )
    radius = np.sqrt(sum(np.square(k) for k in np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij")))
    number = np.floor(radius * max(shape) + 0.5 + 1e-6).astype(int)
    rings = [number == r for r in range(1, max(shape) // 2 + 1)]
    correlations = [
        (f[r] * g[r].conj()).real.sum() / np.sqrt((np.abs(f[r]) ** 2).sum() * (np.abs(g[r]) ** 2).sum()) for r in rings
    ]
    assert value.item() == pytest.approx(1 - np.mean(correlations), abs=1e-4)


def test_fourier_ring_is_blind_to_brightness_and_contrast_alone() -> None:
    prediction, target = images((24, 24))
    loss, weight = make(FourierRing()), torch.ones_like(target)
    assert loss(3 * target + 2, target, weight).item() == pytest.approx(0, abs=1e-4)
    assert loss(-target, target, weight).item() == pytest.approx(2, abs=1e-4)
    assert loss(prediction, target, weight) > 0.01
    flat = torch.zeros_like(target).requires_grad_()
    (slope,) = torch.autograd.grad(loss(flat, target, weight), flat)
    assert slope.isfinite().all()


# ---- perceptual ------------------------------------------------------------------


def delta_filters(inputs: int, factor: float) -> Tensor:
    """One filter that adds up the middle pixels of all inputs."""
    filters = torch.zeros(1, inputs, 3, 3)
    filters[..., 1, 1] = factor
    return filters


def small_vgg() -> dict[str, Tensor]:
    """Two stages of one filter each: the sum of the colours, then twice the largest of a block."""
    return {
        "features.0.weight": delta_filters(3, 1.0),
        "features.0.bias": torch.full((1,), 10.0),
        "features.3.weight": delta_filters(1, 2.0),
        "features.3.bias": torch.zeros(1),
        "classifier.0.weight": torch.zeros(4, 4),
    }


@pytest.fixture(params=["safetensors", "pth"])
def vgg_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"vgg.{request.param}"
    if request.param == "safetensors":
        save_file(small_vgg(), path)
    else:
        torch.save(small_vgg(), path)
    return path


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8)])
def test_perceptual_of_a_file_has_a_closed_form(vgg_file: Path, shape: tuple[int, ...]) -> None:
    prediction, target = images(shape)
    value = make(Perceptual(weights=str(vgg_file)))(prediction, target, torch.ones_like(target))
    # The sum of three colours, each divided by its spread; the mean of the colours falls out of the difference.
    slope = sum(1 / s for s in (0.229, 0.224, 0.225))
    first = (slope * (prediction - target)).square().mean()
    p, t = (x.reshape(-1, 1, *shape[-2:]) for x in (prediction, target))
    second = (2 * slope * (functional.max_pool2d(p, 2) - functional.max_pool2d(t, 2))).square().mean()
    torch.testing.assert_close(value, (first + second) / 2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8)])
def test_perceptual_of_a_file_never_sees_the_unknown(vgg_file: Path, shape: tuple[int, ...]) -> None:
    prediction, target = images(shape)
    weight = torch.ones_like(target)
    weight[..., 2:5] = 0
    prediction.requires_grad_()
    loss = make(Perceptual(weights=str(vgg_file)))
    value = loss(prediction, target, weight)
    (slope,) = torch.autograd.grad(value, prediction)
    assert (slope[weight == 0] == 0).all()
    assert (slope[weight > 0] != 0).any()
    assert torch.equal(value, loss(prediction, target.masked_fill(weight == 0, torch.nan), weight))


def test_perceptual_of_random_filters_is_the_same_everywhere_and_counts_channels_alike() -> None:
    prediction, target = images((16, 16))
    weight = torch.ones_like(target)
    once = make(Perceptual())(prediction, target, weight)
    torch.manual_seed(5)
    assert torch.equal(once, make(Perceptual())(prediction, target, weight))
    twice = make(Perceptual())(prediction.repeat(1, 2, 1, 1), target.repeat(1, 2, 1, 1), weight)
    torch.testing.assert_close(once, twice)
    assert make(Perceptual())(target, target, weight) == 0


@pytest.mark.parametrize("change", ["missing", "batch_norm", "no_bias", "other_names"])
def test_what_is_no_vgg_is_refused(tmp_path: Path, change: str) -> None:
    weights = small_vgg()
    if change == "batch_norm":
        weights |= {"features.1.weight": torch.ones(1), "features.1.bias": torch.ones(1)}
    if change == "no_bias":
        del weights["features.0.bias"]
    if change == "other_names":
        weights = {f"x.{k}": v for k, v in weights.items()}
    path = tmp_path / "vgg.safetensors"
    if change != "missing":
        save_file(weights, path)
    loss = make(Perceptual(weights=str(path)))  # nothing is read until it is used: a model that predicts needs none
    with pytest.raises(DataError, match="no file" if change == "missing" else "no VGG"):
        loss(*images((8, 8)), torch.ones(1, 1, 8, 8))


def test_weights_that_hold_more_than_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "vgg.pt"
    torch.save({"features.0.weight": threshold_otsu}, path)
    with pytest.raises(TrustError, match="more than weights"):
        make(Perceptual(weights=str(path)))(*images((8, 8)), torch.ones(1, 1, 8, 8))


def test_weights_that_unpack_to_more_than_their_file_are_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(100_000)}, tmp_path / "stored.pt")
    path = tmp_path / "vgg.pt"
    with zipfile.ZipFile(tmp_path / "stored.pt") as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(TrustError, match="unpacks to more than its size"):
        make(Perceptual(weights=str(path)))(*images((8, 8)), torch.ones(1, 1, 8, 8))
