"""Augmentation: targets and weights follow the source, nothing is invented, draws are uniform and seeded."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor

from im2im_core.engine.augment import Augmenter, Draw
from im2im_core.engine.augment_intensity import change_intensity
from im2im_core.engine.frameworks.contract import TargetSpec
from im2im_core.errors import ConfigError
from im2im_core.recipe.data import AugmentSettings

OFF = AugmentSettings(flip=False, rotate90=False)
DIHEDRAL = AugmentSettings()
FREE = AugmentSettings(rotate=45, scale=(0.7, 1.4), affine_probability=1.0)
ALL = AugmentSettings(rotate=30, scale=(0.8, 1.25), brightness=0.2, contrast=0.3, gamma=0.3, noise=0.1, blur=1.0)
LINEAR = TargetSpec("target", 1)
NEAREST = TargetSpec("labels", 1, np.uint16, "nearest")
PATCH = {2: (24, 24), 3: (4, 24, 24)}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def world(window: tuple[int, ...], size: int = 12) -> dict[str, Tensor]:
    """Smooth source, target = 1 - source, sparse label ids, and an unknown corner."""
    random = np.random.default_rng(0)
    source = ndimage.gaussian_filter(random.random((size, 1, *window)), (0, 0, *(2.0,) * len(window)), mode="wrap")
    source = torch.from_numpy(((source - source.min()) / np.ptp(source)).astype(np.float32))
    labels = torch.where(source > 0.5, 60000, 7).to(torch.int32).to(torch.uint16)
    weight = torch.ones_like(source)
    weight[..., : window[-2] // 2, : window[-1] // 2] = 0
    return {"source": source, "target": 1 - source, "labels": labels, "weight": weight}


def augment(
    settings: AugmentSettings,
    dimensions: int = 2,
    patch: tuple[int, ...] | None = None,
    seed: int = 0,
    batch: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    patch = patch or PATCH[dimensions]
    augmenter = Augmenter(settings, dimensions, (LINEAR, NEAREST))
    return augmenter(batch or world(augmenter.window(patch)), rng(seed), patch)


# ---- right for targets, labels and weights ----


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("settings", [DIHEDRAL, FREE, FREE.replace(affine_probability=0.5)])
def test_target_and_labels_follow_their_source(settings: AugmentSettings, dimensions: int) -> None:
    made = augment(settings, dimensions)
    known = made["weight"] > 0
    torch.testing.assert_close((made["source"] + made["target"])[known], torch.ones(int(known.sum())))
    expected = torch.where(made["source"] > 0.5, 60000, 7)
    agree = (made["labels"].int() == expected)[(made["source"] - 0.5).abs() > 0.1]
    assert agree.float().mean() > 0.99
    assert all(made[name].shape == (12, 1, *PATCH[dimensions]) for name in world(PATCH[dimensions]))


@pytest.mark.parametrize("scale", [(0.5, 0.6), (1.6, 2.0)])
def test_what_is_known_everywhere_stays_so(scale: tuple[float, float]) -> None:
    settings = FREE.replace(scale=scale)
    batch = world(Augmenter(settings, 2, ()).window(PATCH[2]))
    made = augment(settings, batch=batch | {"weight": torch.ones_like(batch["weight"])})
    assert torch.equal(made["weight"], torch.ones(12, 1, *PATCH[2]))
    torch.testing.assert_close(made["source"] + made["target"], torch.ones_like(made["source"]))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_flips_and_quarter_turns_are_exact(dimensions: int) -> None:
    batch = world(PATCH[dimensions], size=64)
    made = augment(DIHEDRAL, dimensions, batch=batch)
    assert torch.equal(made["target"], 1 - made["source"])
    assert torch.equal(made["labels"].int(), torch.where(made["source"] > 0.5, 60000, 7).int())
    seen = set()
    for before, after, hole in zip(batch["source"], made["source"], made["weight"], strict=True):
        group = {
            (t, f, z): torch.rot90(before, t, (-2, -1)).flip([*([-1] if f else []), *([-3] if z else [])])
            for t in range(4)
            for f in (False, True)
            for z in ({False, dimensions == 3})
        }
        (found,) = [key for key, image in group.items() if torch.equal(image, after)]
        seen.add(found)
        corner = torch.ones_like(before)
        corner[..., :12, :12] = 0
        expected = torch.rot90(corner, found[0], (-2, -1)).flip([*([-1] if found[1] else [])])
        assert torch.equal(hole, expected)
    assert len(seen) >= (8 if dimensions == 2 else 14)


def test_oblong_patches_are_turned_by_halves_only() -> None:
    batch = world((16, 24), size=40)
    made = augment(AugmentSettings(flip=False), patch=(16, 24), batch=batch)
    same = [torch.equal(a, b) for a, b in zip(batch["source"], made["source"], strict=True)]
    half = [torch.equal(a.flip(-2, -1), b) for a, b in zip(batch["source"], made["source"], strict=True)]
    assert all(s or h for s, h in zip(same, half, strict=True))
    assert any(same)
    assert any(half)


@pytest.mark.parametrize("settings", [DIHEDRAL, FREE, ALL])
def test_labels_and_weights_are_never_made_up(settings: AugmentSettings) -> None:
    made = augment(settings)
    assert set(made["labels"].int().unique().tolist()) <= {7, 60000}
    assert made["labels"].dtype == torch.uint16
    assert set(made["weight"].unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("garbage", [torch.nan, 1e30])
def test_what_is_unknown_does_not_spread(garbage: float) -> None:
    augmenter = Augmenter(FREE, 2, (LINEAR, NEAREST))
    batch = world(augmenter.window(PATCH[2]))
    painted = {**batch, "target": torch.where(batch["weight"] > 0, batch["target"], garbage)}
    plain, other = (augmenter(b, rng(), PATCH[2]) for b in (batch, painted))
    known = plain["weight"] > 0
    assert torch.equal(plain["weight"], other["weight"])
    assert torch.equal(plain["target"][known], other["target"][known])


def test_stored_maps_of_bytes_are_interpolated_and_stay_bytes() -> None:
    augmenter = Augmenter(FREE, 2, (TargetSpec("maps", 1, np.uint8, "linear"),))
    batch = world(augmenter.window(PATCH[2]))
    batch = {
        "source": batch["source"],
        "weight": torch.ones_like(batch["weight"]),
        "maps": (batch["source"] * 255).round().to(torch.uint8),
    }
    made = augmenter(batch, rng(), PATCH[2])
    assert made["maps"].dtype == torch.uint8
    torch.testing.assert_close(made["maps"].float() / 255, made["source"], rtol=0, atol=1.01 / 255)


# ---- geometry ----


def test_rotation_and_magnification_equal_scipy() -> None:
    augmenter = Augmenter(FREE.replace(flip=False, rotate90=False), 2, (LINEAR, NEAREST))
    batch = world(augmenter.window((25, 24)))
    draw, made = augmenter.draw(12, rng()), augmenter(batch, rng(), (25, 24))
    for i in range(12):
        angle, zoom = float(draw.angle[i]), float(draw.magnification[i])
        matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) / zoom
        image = batch["source"][i, 0].numpy()
        offset = (np.array(image.shape) - 1) / 2 - matrix @ ((np.array([25, 24]) - 1) / 2)
        expected = ndimage.affine_transform(image, matrix, offset, (25, 24), order=1)
        np.testing.assert_allclose(made["source"][i, 0].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_turn_that_is_interpolated_is_the_exact_one(dimensions: int) -> None:
    """A motion of angle 0 and magnification 1 joins flips and quarter turns to the positions of pixels."""
    still = FREE.replace(rotate=1e-9, scale=(1.0, 1.0))
    batch = world(PATCH[dimensions], size=40)
    exact, moved = (
        Augmenter(settings, dimensions, (LINEAR, NEAREST))(batch, rng(), PATCH[dimensions])
        for settings in (still.replace(affine_probability=0.0), still)
    )
    known = exact["weight"] > 0
    assert torch.equal(moved["weight"], exact["weight"])
    assert torch.equal(moved["labels"].int(), exact["labels"].int())
    torch.testing.assert_close(moved["source"], exact["source"], atol=1e-4, rtol=0)
    torch.testing.assert_close(moved["target"][known], exact["target"][known], atol=1e-4, rtol=0)
    torch.testing.assert_close(moved["motion"], exact["motion"])


@pytest.mark.parametrize("patch", [(24, 24), (16, 40), (3, 24, 32)])
@pytest.mark.parametrize(("rotate", "scale"), [(0, (0.5, 2.0)), (10, (1.0, 1.0)), (45, (0.8, 1.25)), (180, (1.0, 1.5))])
def test_no_look_outside_of_the_window(patch: tuple[int, ...], rotate: float, scale: tuple[float, float]) -> None:
    """The corners of the worst rotation and magnification lie inside, and two pixels less would not do."""
    window = Augmenter(OFF.replace(rotate=rotate, scale=scale), len(patch), ()).window(patch)
    assert window[:-2] == patch[:-2]
    assert all((w - p) % 2 == 0 for w, p in zip(window, patch, strict=True))
    height, width = ((n - 1) / 2 for n in patch[-2:])
    angles = np.radians(np.linspace(0, rotate, 3601))
    for axis, (a, b) in enumerate([(height, width), (width, height)], -2):
        furthest = (np.abs(a * np.cos(angles)) + np.abs(b * np.sin(angles))).max() / min(scale)
        assert furthest <= (window[axis] - 1) / 2 + 1e-6
        assert window[axis] == patch[axis] or furthest > (window[axis] - 3) / 2 - 1


def test_without_free_movement_the_window_is_the_patch() -> None:
    assert Augmenter(DIHEDRAL, 2, ()).window((24, 32)) == (24, 32)
    assert Augmenter(OFF.replace(scale=(1.0, 1.3)), 2, ()).window((24, 32)) == (24, 32)


def test_samples_that_are_not_drawn_are_cropped_at_the_centre() -> None:
    settings = OFF.replace(rotate=20, affine_probability=0.5)
    augmenter = Augmenter(settings, 2, (LINEAR, NEAREST))
    window = augmenter.window(PATCH[2])
    batch = world(window, size=40)
    made = augmenter(batch, rng(), PATCH[2])
    margin = (window[0] - 24) // 2
    centre = batch["source"][..., margin:-margin, margin:-margin]
    kept = torch.tensor([torch.equal(a, b) for a, b in zip(centre, made["source"], strict=True)])
    assert torch.equal(kept, ~augmenter.draw(40, rng()).affine)
    assert 5 < int(kept.sum()) < 35


def test_nothing_switched_on_changes_nothing() -> None:
    batch = world(PATCH[2])
    made = augment(OFF, batch=batch)
    assert all(torch.equal(batch[name], made[name]) for name in batch)


# ---- seeds ----


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_same_seed_makes_the_same_batch(dimensions: int) -> None:
    first, again, other = (augment(ALL, dimensions, seed=seed) for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["source"], other["source"])


def test_the_batch_given_is_left_as_it_was() -> None:
    augmenter = Augmenter(ALL, 2, (LINEAR, NEAREST))
    batch = world(augmenter.window(PATCH[2]))
    before = {name: image.clone() for name, image in batch.items()}
    augmenter(batch, rng(), PATCH[2])
    assert all(torch.equal(before[name], batch[name]) for name in batch)


def test_switching_noise_on_moves_nothing() -> None:
    quiet, noisy = augment(FREE), augment(FREE.replace(noise=0.5))
    assert torch.equal(quiet["target"], noisy["target"])
    assert not torch.equal(quiet["source"], noisy["source"])


def test_entries_that_are_no_image_pass_through() -> None:
    batch = {**world(PATCH[2]), "index": torch.arange(12)}
    assert torch.equal(augment(DIHEDRAL, batch=batch)["index"], torch.arange(12))


# ---- statistics of the draws ----


def draws(settings: AugmentSettings, size: int = 4000) -> Draw:
    return Augmenter(settings, 3, ()).draw(size, rng(1))


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [
        ("angle", -math.radians(30), math.radians(30)),
        ("noise", 0, 0.1),
        ("brightness", -0.2, 0.2),
        ("contrast", -0.3, 0.3),
        ("gamma", -0.3, 0.3),
        ("blur", 0, 1.0),
    ],
)
def test_draws_are_uniform(field: str, low: float, high: float) -> None:
    values = getattr(draws(ALL.replace(intensity_probability=1.0)), field).numpy()
    assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 0.01


def test_magnification_is_uniform_in_its_logarithm() -> None:
    values = np.log(draws(ALL).magnification.numpy())
    assert stats.kstest(values, stats.uniform(math.log(0.8), math.log(1.25 / 0.8)).cdf).pvalue > 0.01


@pytest.mark.parametrize("field", ["blur", "noise", "brightness", "contrast", "gamma"])
def test_each_change_has_its_probability(field: str) -> None:
    applied = (getattr(draws(ALL.replace(intensity_probability=0.3)), field) != 0).float().mean()
    assert applied == pytest.approx(0.3, abs=0.03)


def test_flips_and_turns_are_even() -> None:
    draw = draws(ALL)
    for flip in (draw.flip_z, draw.flip_y, draw.flip_x):
        assert flip.float().mean() == pytest.approx(0.5, abs=0.03)
    assert (torch.bincount(draw.quarter_turns, minlength=4) / 4000).numpy() == pytest.approx([0.25] * 4, abs=0.03)
    assert draw.affine.float().mean() == pytest.approx(0.5, abs=0.03)


# ---- intensity against closed forms ----


def one(**changes: float) -> Draw:
    """A draw for one sample that does only what is named."""
    zero = torch.zeros(1)
    fields = dict.fromkeys(Draw.__dataclass_fields__, zero) | {key: torch.tensor([v]) for key, v in changes.items()}
    return Draw(**fields)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_blur_equals_scipy(dimensions: int) -> None:
    source = world(PATCH[dimensions], size=1)["source"]
    sigma = (0, 0, *(0,) * (dimensions - 2), 1.3, 1.3)
    expected = ndimage.gaussian_filter(source.numpy(), sigma, mode="mirror", radius=[4 if s else 0 for s in sigma])
    np.testing.assert_allclose(change_intensity(source, one(blur=1.3), rng()).numpy(), expected, atol=1e-5)


def test_brightness_contrast_and_gamma_have_closed_forms() -> None:
    source = world(PATCH[2], size=1)["source"] * 3 - 1
    torch.testing.assert_close(change_intensity(source.clone(), one(brightness=0.2), rng()), source + 0.2)
    stretched = change_intensity(source.clone(), one(contrast=0.5), rng())
    torch.testing.assert_close(stretched.mean(), source.mean())
    torch.testing.assert_close(stretched.std(), 1.5 * source.std())
    bent = change_intensity(source.clone(), one(gamma=0.5), rng())
    low, high = source.min(), source.max()
    torch.testing.assert_close(bent, ((source - low) / (high - low)) ** 1.5 * (high - low) + low)


def test_noise_has_the_deviation_drawn() -> None:
    source = torch.zeros(1, 1, 128, 128)
    noise = change_intensity(source, one(noise=0.3), rng())
    assert noise.std().item() == pytest.approx(0.3, rel=0.03)
    assert stats.kstest(noise.numpy().ravel(), stats.norm(0, 0.3).cdf).pvalue > 0.01


def test_a_constant_patch_stays_finite() -> None:
    source = torch.full((1, 1, 8, 8), 2.0)
    made = change_intensity(source, one(gamma=0.3, contrast=0.3, blur=5.0), rng())
    torch.testing.assert_close(made, torch.full((1, 1, 8, 8), 2.0))


# ---- by import path ----


GIBBS = {"class_path": "monai.transforms.RandGibbsNoise", "init_args": {"prob": 1.0, "alpha": [0.5, 0.9]}}
DROPOUT = {"class_path": "torch.nn.Dropout", "init_args": {"p": 0.5}}


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("named", [GIBBS, DROPOUT])
def test_named_transforms_change_the_source_alone_and_repeat(named: dict[str, object], dimensions: int) -> None:
    settings = AugmentSettings.model_validate({**OFF.model_dump(), "transforms": [named]})
    plain, made = augment(OFF, dimensions), augment(settings, dimensions)
    again, other = augment(settings, dimensions), augment(settings, dimensions, seed=1)
    assert type(made["source"]) is Tensor
    assert all(torch.equal(made[name], plain[name]) for name in ("target", "labels", "weight"))
    assert not torch.equal(made["source"], plain["source"])
    assert torch.equal(made["source"], again["source"])
    assert not torch.equal(made["source"], other["source"])
    changes = made["source"] - plain["source"]
    assert not torch.equal(changes[0], changes[1])  # each sample by a seed of its own


def test_torch_is_left_as_it_was_by_a_named_transform() -> None:
    settings = AugmentSettings.model_validate({"transforms": [DROPOUT]})
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    augment(settings)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("class_path", "init_args", "text"),
    [
        ("monai.transforms.RandRotate", {}, "moves pixels"),
        ("monai.transforms.RandSpatialCrop", {"roi_size": 4}, "moves pixels"),
        ("monai.transforms.RandGibbsNoised", {"keys": ["source"]}, "without the d"),
        ("monai.transforms.RandGibbsNoise", {"prop": 1.0}, "prob"),
        ("monai.transforms.RandGibbsNoise", {"alpha": [2.0, 0.1]}, "failed"),
    ],
)
def test_named_transforms_that_cannot_work_are_told_at_once(
    class_path: str, init_args: dict[str, object], text: str
) -> None:
    settings = AugmentSettings.model_validate({"transforms": [{"class_path": class_path, "init_args": init_args}]})
    with pytest.raises(ConfigError, match=text):
        Augmenter(settings, 2, ())


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("settings", [DIHEDRAL, FREE, FREE.replace(affine_probability=0.5)])
def test_motion_takes_offsets_in_a_patch_to_offsets_in_its_image(settings: AugmentSettings, dimensions: int) -> None:
    patch = PATCH[dimensions]
    augmenter = Augmenter(settings, dimensions, (TargetSpec("place", dimensions),))
    window = augmenter.window(patch)
    place = torch.stack(torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in window], indexing="ij"))
    batch = {"source": torch.zeros(12, 1, *window), "weight": torch.ones(12, 1, *window)}
    made = augmenter(batch | {"place": place.expand(12, *place.shape)}, rng(), patch)
    offsets = torch.stack(torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in patch], indexing="ij"))
    torch.testing.assert_close(
        torch.einsum("bij,j...->bi...", made["motion"], offsets), made["place"], atol=1e-3, rtol=0
    )
    assert len({tuple(m.flatten().tolist()) for m in made["motion"]}) > 3
