"""The contract of all losses: no trace of what is unknown, weights that matter; closed forms of the simple ones."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss, FocalLoss
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from torch.nn import functional

from im2im_core.engine.losses import build_losses
from im2im_core.errors import ConfigError, TrustError
from im2im_core.recipe.fields import kind_of
from im2im_core.recipe.losses import (
    L1,
    L2,
    SSIM,
    Boundary,
    CenterlineDice,
    ClassesLoss,
    ClassLoss,
    Connectivity,
    CrossEntropy,
    Dice,
    Focal,
    FourierRing,
    GeneralizedDice,
    Hausdorff,
    Huber,
    LossSettings,
    Lovasz,
    MultiScaleSSIM,
    Perceptual,
    RegionLoss,
    Topology,
    Tversky,
)

REGRESSION = [
    L1(),
    L2(),
    Huber(delta=0.3),
    SSIM(window=5),
    MultiScaleSSIM(window=3, scales=3),
    FourierRing(),
    Perceptual(),
    ClassLoss(class_path="torch.nn.SmoothL1Loss"),
]
SHARED = [
    Dice(),
    Dice(background=True),
    GeneralizedDice(),
    CrossEntropy(),
    Focal(),
    Focal(gamma=0.5),
    Tversky(),
    Tversky(gamma=4 / 3),
    Lovasz(),
    Lovasz(errors="hinge", background=False),
    Boundary(),
    Boundary(thickness=2.5, background=True),
    Hausdorff(),
    CenterlineDice(iterations=2),
    Topology(),
    Topology(holes=False),
    Connectivity(),
]
CLASSES = [
    *SHARED,
    CrossEntropy(class_weights=(0.5, 2.0, 1.0)),
    ClassLoss(class_path="torch.nn.CrossEntropyLoss"),
]
BINARY = [
    *SHARED,
    CrossEntropy(class_weights=(0.5, 2.0)),
    ClassLoss(class_path="torch.nn.BCEWithLogitsLoss"),
]
SHAPES = {2: (12, 14), 3: (6, 9, 10)}


def make(settings: object):
    return build_losses([settings])[0].loss  # type: ignore[list-item]


def world(kind: str, dimensions: int) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction, target and weight, a third of which is unknown."""
    g = torch.Generator().manual_seed(1)
    shape = SHAPES[dimensions]
    channels = {"regression": 2, "classes": 3, "binary": 1}[kind]
    prediction = torch.randn(2, channels, *shape, generator=g)
    if kind == "regression":
        target = torch.rand(2, 2, *shape, generator=g)
    else:
        target = torch.randint(0, max(channels, 2), (2, 1, *shape), generator=g)
        if kind == "binary":
            target = target.float()
    weight = torch.rand(2, 1, *shape, generator=g)
    weight[weight < 1 / 3] = 0
    return prediction, target, weight


ALL = [("regression", s) for s in REGRESSION] + [("classes", s) for s in CLASSES] + [("binary", s) for s in BINARY]
IDS = [f"{kind}-{i}-{s.kind}" for i, (kind, s) in enumerate(ALL)]


def value_and_gradient(loss, prediction: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    prediction = prediction.clone().requires_grad_()
    value = loss(prediction, target, weight)
    (gradient,) = torch.autograd.grad(value, prediction)
    return value.detach(), gradient


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize(("kind", "settings"), ALL, ids=IDS)
def test_what_is_unknown_leaves_no_trace(kind: str, settings, dimensions: int) -> None:
    prediction, target, weight = world(kind, dimensions)
    value, gradient = value_and_gradient(make(settings), prediction, target, weight)
    assert value.ndim == 0
    assert value.isfinite()
    assert gradient.abs().sum() > 0
    unknown = (weight == 0).expand_as(target)
    assert (gradient[unknown.expand_as(gradient)] == 0).all()
    for garbage in [torch.nan, torch.inf, 1e30] if target.is_floating_point() else [65535, -7]:
        painted = target.masked_fill(unknown, garbage)
        other, other_gradient = value_and_gradient(make(settings), prediction, painted, weight)
        assert torch.equal(value, other)
        assert torch.equal(gradient, other_gradient)


@pytest.mark.parametrize(("kind", "settings"), ALL, ids=IDS)
def test_nothing_known_costs_nothing(kind: str, settings) -> None:
    prediction, target, weight = world(kind, 2)
    value, gradient = value_and_gradient(make(settings), prediction, target, torch.zeros_like(weight))
    assert value == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize(("kind", "settings"), ALL, ids=IDS)
def test_only_relative_weight_counts(kind: str, settings) -> None:
    prediction, target, weight = world(kind, 2)
    loss = make(settings)
    torch.testing.assert_close(
        loss(prediction, target, weight), loss(prediction, target, 3 * weight), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("kind", "settings"), ALL, ids=IDS)
def test_a_cost_map_matters(kind: str, settings) -> None:
    prediction, target, weight = world(kind, 2)
    loss = make(settings)
    costly = weight * torch.linspace(0.1, 10, weight.shape[-1])
    value, gradient = value_and_gradient(loss, prediction, target, weight)
    other, changed = value_and_gradient(loss, prediction, target, costly)
    assert abs(value - other) > 1e-4 * abs(value)
    assert not torch.allclose(gradient, changed)


@pytest.mark.parametrize(("kind", "settings"), ALL, ids=IDS)
def test_an_image_without_any_weight_does_not_count(kind: str, settings) -> None:
    prediction, target, weight = world(kind, 2)
    weight[1] = 0
    loss = make(settings)
    torch.testing.assert_close(
        loss(prediction, target, weight), loss(prediction[:1], target[:1], weight[:1]), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("settings", [s for s in CLASSES if isinstance(s, ClassesLoss)], ids=lambda s: s.kind)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_class_weights_matter(settings: ClassesLoss, dimensions: int) -> None:
    prediction, target, weight = world("classes", dimensions)
    plain = make(settings.replace(class_weights=None))(prediction, target, weight)
    equal = make(settings.replace(class_weights=(2.0, 2.0, 2.0)))(prediction, target, weight)
    torch.testing.assert_close(plain, equal, rtol=1e-4, atol=1e-5)
    other = make(settings.replace(class_weights=(1.0, 3.0, 0.5)))(prediction, target, weight)
    assert abs(plain - other) > 1e-4 * abs(plain)
    with pytest.raises(ConfigError, match="Give one per class"):
        make(settings.replace(class_weights=(1.0, 2.0)))(prediction, target, weight)


@pytest.mark.parametrize("settings", [s for s in CLASSES if isinstance(s, RegionLoss)], ids=lambda s: s.kind)
def test_classes_without_weight_do_not_count(settings: RegionLoss) -> None:
    prediction, target, weight = world("classes", 2)
    without = make(settings.replace(background=False, class_weights=None))(prediction, target, weight)
    ignored = make(settings.replace(background=True, class_weights=(0.0, 1.0, 1.0)))(prediction, target, weight)
    torch.testing.assert_close(without, ignored, rtol=1e-4, atol=1e-5)


def test_every_loss_is_under_the_contract() -> None:
    shipped = {kind_of(cls) for cls in get_args(LossSettings) if cls.__module__.startswith("im2im_core.")}
    assert {settings.kind for _, settings in ALL} == shipped
    assert len(shipped) == 19


@pytest.mark.parametrize(("kind", "settings"), ALL, ids=IDS)
def test_half_precision_predictions_are_computed_in_full(kind: str, settings) -> None:
    prediction, target, weight = world(kind, 2)
    prediction = prediction.bfloat16()
    loss = make(settings)
    assert loss(prediction, target, weight) == loss(prediction.float(), target, weight)


@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        (L1(), nn.L1Loss()),
        (L2(), nn.MSELoss()),
        (Huber(delta=0.3), nn.HuberLoss(delta=0.3)),
    ],
)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_regression_equals_torch(settings, reference: nn.Module, dimensions: int) -> None:
    prediction, target, weight = world("regression", dimensions)
    torch.testing.assert_close(
        make(settings)(prediction, target, torch.ones_like(weight)), reference(prediction, target)
    )


def test_weighted_mean_has_a_closed_form() -> None:
    prediction, target = torch.tensor([[[[1.0, 2.0, 7.0]]]]), torch.zeros(1, 1, 1, 3)
    weight = torch.tensor([[[[1.0, 0.5, 0.0]]]])
    assert make(L1())(prediction, target, weight).item() == pytest.approx((1 * 1 + 0.5 * 2) / 1.5)
    assert make(L2())(prediction, target, weight).item() == pytest.approx((1 * 1 + 0.5 * 4) / 1.5)


def test_binary_entropy_equals_torch() -> None:
    prediction, target, weight = world("binary", 2)
    ours = make(CrossEntropy())(prediction, target, torch.ones_like(weight))
    torch.testing.assert_close(ours, functional.binary_cross_entropy_with_logits(prediction, target))


@pytest.mark.parametrize("class_weights", [None, (0.5, 2.0, 1.0)])
def test_entropy_equals_torch(class_weights: tuple[float, ...] | None) -> None:
    prediction, target, weight = world("classes", 3)
    ours = make(CrossEntropy(class_weights=class_weights))(prediction, target, torch.ones_like(weight))
    factors = None if class_weights is None else torch.tensor(class_weights)
    torch.testing.assert_close(ours, functional.cross_entropy(prediction, target[:, 0], factors))


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_dice_equals_monai(background: bool, dimensions: int) -> None:
    prediction, target, weight = world("classes", dimensions)
    reference = DiceLoss(include_background=background, softmax=True, to_onehot_y=True, batch=True)
    torch.testing.assert_close(
        make(Dice(background=background))(prediction, target, torch.ones_like(weight)), reference(prediction, target)
    )


def test_binary_dice_equals_monai() -> None:
    prediction, target, weight = world("binary", 2)
    torch.testing.assert_close(
        make(Dice())(prediction, target, torch.ones_like(weight)),
        DiceLoss(sigmoid=True, batch=True)(prediction, target),
    )


def test_dice_of_a_perfect_prediction_and_of_an_absent_class_is_zero() -> None:
    target = torch.zeros(1, 1, 4, 4, dtype=torch.long)
    target[..., :2] = 1
    logits = 200.0 * functional.one_hot(target[:, 0], 3).movedim(-1, 1)
    assert make(Dice())(logits, target, torch.ones(1, 1, 4, 4)).item() == pytest.approx(0, abs=1e-6)


def test_focal_equals_monai() -> None:
    prediction, target, weight = world("classes", 2)
    reference = FocalLoss(gamma=2.0, use_softmax=True, to_onehot_y=True, reduction="none")(prediction, target)
    torch.testing.assert_close(make(Focal())(prediction, target, torch.ones_like(weight)), reference.sum(1).mean())
    prediction, target, weight = world("binary", 2)
    reference = FocalLoss(gamma=2.0, reduction="none")(prediction, target)
    torch.testing.assert_close(make(Focal())(prediction, target, torch.ones_like(weight)), reference.mean())


def test_focal_without_gamma_is_cross_entropy() -> None:
    world_ = world("classes", 2)
    torch.testing.assert_close(make(Focal(gamma=0))(*world_), make(CrossEntropy())(*world_))


def test_focal_is_steady_where_it_is_certain() -> None:
    prediction = torch.tensor([[[[80.0]], [[-80.0]]]])
    _, gradient = value_and_gradient(
        make(Focal(gamma=0.5)), prediction, torch.zeros(1, 1, 1, 1).long(), torch.ones(1, 1, 1, 1)
    )
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_ssim_equals_skimage_away_from_the_rim(dimensions: int) -> None:
    g = torch.Generator().manual_seed(2)
    shape = {2: (30, 32), 3: (12, 20, 20)}[dimensions]
    a = torch.rand(1, 1, *shape, generator=g)
    b = (a + 0.2 * torch.rand(1, 1, *shape, generator=g)).clamp(0, 1)
    _, full = structural_similarity(
        a[0, 0].double().numpy(),
        b[0, 0].double().numpy(),
        win_size=5,
        data_range=1.0,
        use_sample_covariance=False,
        full=True,
    )
    inner = (slice(2, -2),) * dimensions
    # The weight restricts the mean; all pixels stay known to the windows.
    weight = torch.full((1, 1, *shape), 1e-12)
    weight[(0, 0, *inner)] = 1.0
    assert make(SSIM(window=5))(b, a, weight).item() == pytest.approx(1 - full[inner].mean(), abs=1e-4)


def test_ssim_of_equal_images_is_zero_and_even_windows_are_refused() -> None:
    a = torch.rand(1, 2, 16, 16)
    assert make(SSIM())(a, a, torch.ones(1, 1, 16, 16)).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ConfigError, match="Use 9"):
        make(SSIM(window=8))


def test_ssim_sees_images_smaller_than_its_window() -> None:
    a = torch.rand(1, 1, 4, 16, 16)
    assert make(SSIM(window=7))(a, a.flip(3), torch.ones(1, 1, 4, 16, 16)).isfinite()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_labels_may_come_in_any_integer_type(dtype: type) -> None:
    prediction, target, weight = world("classes", 2)
    stored = torch.from_numpy(target.numpy().astype(dtype))
    for settings in CLASSES:
        assert torch.equal(make(settings)(prediction, stored, weight), make(settings)(prediction, target, weight))


def test_names_are_unique() -> None:
    terms = build_losses(
        [
            Dice(),
            CrossEntropy(weight=0.5),
            Dice(background=True),
            L1(),
            ClassLoss(class_path="torch.nn.SmoothL1Loss", weight=3),
        ]
    )
    assert [t.name for t in terms] == ["dice_loss", "cross_entropy", "dice_loss_2", "l1", "smooth_l1_loss"]
    assert [t.weight for t in terms] == [1.0, 0.5, 1.0, 1.0, 3.0]


def test_loss_by_class_path_equals_its_named_twin() -> None:
    prediction, target, weight = world("regression", 2)
    torch.testing.assert_close(
        make(ClassLoss(class_path="torch.nn.HuberLoss", init_args={"delta": 0.3}))(prediction, target, weight),
        make(Huber(delta=0.3))(prediction, target, weight),
    )
    prediction, target, weight = world("classes", 3)
    torch.testing.assert_close(
        make(ClassLoss(class_path="torch.nn.CrossEntropyLoss"))(prediction, target, weight),
        make(CrossEntropy())(prediction, target, weight),
    )


def test_loss_by_class_path_must_be_known_trusted_and_per_pixel() -> None:
    with pytest.raises(ConfigError, match="delta"):
        make(ClassLoss(class_path="torch.nn.HuberLoss", init_args={"delt": 0.3}))
    with pytest.raises(TrustError):
        make(ClassLoss(class_path="os.system"))
    with pytest.raises(ConfigError, match="one value per pixel"):
        make(ClassLoss(class_path="monai.losses.DiceLoss", init_args={"reduction": "mean"}))(*world("regression", 2))
