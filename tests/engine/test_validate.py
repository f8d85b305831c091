"""What is validated, and how much time it takes."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from training_world import Training, discs, sample, small_recipe, split_of

from im2im_core.engine import validate
from im2im_core.engine.data import cut
from im2im_core.engine.figures import Figures, kind_of
from im2im_core.engine.frameworks.contract import OutputSpec, TargetSpec
from im2im_core.engine.named_metrics import NamedMetric
from im2im_core.engine.planning import make_plan
from im2im_core.engine.prepare import Entry
from im2im_core.engine.previews import Previews
from im2im_core.engine.session import prepare_images
from im2im_core.engine.validate import Validator, View, view_of
from im2im_core.errors import ConfigError
from im2im_core.events import Checkpointed, Losses, Previewed, Validated
from im2im_core.normalize import Scaling
from im2im_core.recipe.classpath import ClassPath
from im2im_core.samples import Split


def entry(*shape: int) -> Entry:
    pixels = np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape)
    return Entry("e", {"source": pixels, "maps": pixels, "truth": pixels + 0.5}, Scaling((0.0,), (1.0,)))


def test_a_view_is_a_multiple_of_the_divisor_with_the_image_in_its_middle() -> None:
    view = view_of(entry(1, 33, 50), (16, 16), 2)
    assert [p.stop - p.start for p in view.place] == [1, 48, 64]
    inner = view.inner()
    assert [s.stop - s.start for s in inner] == [33, 50]
    assert view.truth().shape == (1, 33, 50)
    assert (view.truth() == view.entry.arrays["truth"][:, 0]).all()


def test_a_large_image_is_looked_at_in_part() -> None:
    view = view_of(entry(1, 100, 90), (16, 16), 2, largest=(1, 64, 40))
    assert [p.stop - p.start for p in view.place] == [1, 64, 32]
    assert (view.truth() == view.entry.arrays["truth"][:, 0, 18:82, 29:61]).all()


def test_a_view_around_a_place_stays_inside() -> None:
    view = view_of(entry(1, 64, 64), (16, 16), 2, centre=(0, 60, 2), largest=(1, 32, 32))
    assert view.place[1:] == (slice(32, 64), slice(0, 32))


def test_a_volume_keeps_its_planes() -> None:
    view = view_of(entry(5, 16, 16), (4, 8, 8), 3)
    assert [p.stop - p.start for p in view.place] == [8, 16, 16]
    assert view.truth().shape == (1, 5, 16, 16)


@pytest.mark.parametrize(
    ("shape", "largest", "planes"),
    [
        ((1, 100, 90), (1, 64, 40), True),
        ((1, 100, 30), (1, 64, 64), True),
        ((9, 20, 90), (1, 32, 32), True),
        ((9, 20, 90), (4, 32, 32), False),
        ((9, 20, 90), (1, 32, 32), False),
    ],
)
@pytest.mark.parametrize("projection", [False, True])
def test_a_view_is_the_same_without_the_rest_of_its_image(
    shape: tuple[int, ...], largest: tuple[int, ...], planes: bool, projection: bool
) -> None:
    pixels = np.random.default_rng(0).random((2, *shape))
    flat = pixels[:1, :1] if projection else pixels[:1]
    arrays = {"source": pixels, "target": flat, "truth": flat + 0.5, "weight": pixels[:1].astype(np.float32)}
    whole = view_of(
        Entry("e", arrays, Scaling((0.1, 0.2), (3.0, 7.0))), (1, 16, 16)[planes:], 3 - planes, (5, 3, 70), largest
    )
    alone = whole.alone()
    targets = (TargetSpec("target", 1),)
    one, other = (cut(v.entry, v.place, targets, planes) for v in (whole, alone))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)
    assert np.array_equal(whole.truth(), alone.truth())
    assert whole.inner() == alone.inner()
    held = sum((a if a.base is None else a.base).nbytes for a in alone.entry.arrays.values())
    assert held < sum(a.nbytes for a in arrays.values())


def ready(tmp_path: Path, split: Split, **changes: Any) -> Any:
    torch.manual_seed(0)
    recipe = small_recipe(**changes)
    return prepare_images(make_plan(recipe, split), split, tmp_path, lambda event: None, lambda: "")


def test_figures_are_means_over_the_views(tmp_path: Path) -> None:
    found = ready(tmp_path, split_of(1, 3), training__steps=20_000)
    device = torch.device("cpu")
    framework = found.framework.eval()
    assert len(found.views) == 3
    whole = Validator(found.views, device, 0).run(framework)
    single = [Validator([v], device, 0).run(framework) for v in found.views]
    assert whole == pytest.approx({k: np.mean([s[k] for s in single]) for k in whole})
    assert whole["total"] == pytest.approx(whole["cross_entropy"] + whole["dice_loss"] + whole["distance"])


def test_unknown_regions_and_padding_do_not_count(tmp_path: Path) -> None:
    image, labels = discs(0, (40, 40))
    weight = np.ones(image.shape, np.float32)
    weight[:, 20:] = 0
    noise = np.random.default_rng(0).integers(0, 9, labels.shape)
    figures = []
    for number, other in enumerate((labels, noise)):
        validated = sample("v", image, np.where(weight > 0, labels, other).astype(np.uint16), weight)
        split = Split(split_of(1, 0).train, (validated,))
        found = ready(tmp_path / str(number), split)
        figures.append(Validator(found.views, torch.device("cpu"), 0).run(found.framework.eval()))
    assert figures[0] == figures[1]


def test_metrics_by_import_path_stand_beside_those_of_the_framework(tmp_path: Path) -> None:
    named = [
        {"class_path": "monai.metrics.MAEMetric"},
        {"class_path": "torch.nn.MSELoss"},
        {"class_path": "monai.metrics.DiceMetric", "init_args": {"include_background": False, "num_classes": 2}},
    ]
    recipe = small_recipe("semantic_seg_2d", training__metrics=named)
    split = split_of(1, 1, task="classes")
    found = prepare_images(make_plan(recipe, split), split, tmp_path, lambda event: None, lambda: "")
    metrics = [NamedMetric(ClassPath.model_validate(n)) for n in named]
    figures = Validator(found.views, torch.device("cpu"), 0, metrics).run(found.framework.eval())
    assert figures["MAEMetric"] == pytest.approx(figures["MSELoss"])  # classes are 0 and 1
    assert 0 < figures["MAEMetric"] < 1
    assert figures["DiceMetric"] == pytest.approx(figures["class_1_dice"], abs=1e-4)


def trained_figures(tmp_path: Path, preset: str, task: str, figures: Any = "auto") -> tuple[dict[str, float], Any]:
    """Figures of one validation image, and the framework."""
    recipe = small_recipe(preset, training__figures=figures)
    split = split_of(1, 1, task=task)
    found = prepare_images(make_plan(recipe, split), split, tmp_path, lambda event: None, lambda: "")
    framework = found.framework.eval()
    chosen = Figures(recipe.training.figures, framework)
    return Validator(found.views, torch.device("cpu"), 0, (), chosen).run(framework), framework


def test_a_training_measures_the_cheap_figures_of_its_task(tmp_path: Path) -> None:
    figures, framework = trained_figures(tmp_path, "watershed_2d", "instance")
    assert kind_of(framework) == "labels"
    assert {"ap50", "ap75", "average_precision", "f1@0.5", "panoptic_quality@0.5", "seg"} <= set(figures)
    assert not {"variation_of_information", "missed"} & set(figures)
    figures, framework = trained_figures(tmp_path / "c", "semantic_seg_2d", "classes")
    assert kind_of(framework) == "classes"
    assert {"dice", "iou"} <= set(figures)
    figures, framework = trained_figures(tmp_path / "i", "restoration_2d", "image")
    assert kind_of(framework) == "image"
    assert {"psnr", "ssim", "pearson", "scale_invariant_psnr"} <= set(figures)
    assert not {"ms_ssim", "frc_resolution"} & set(figures)


def test_figures_of_the_validation_are_a_choice(tmp_path: Path) -> None:
    figures, _ = trained_figures(tmp_path, "restoration_2d", "image", ["ms_ssim", "frc", "nrmse"])
    assert {"ms_ssim", "frc_resolution", "nrmse"} <= set(figures)
    assert "scale_invariant_psnr" not in figures
    assert figures["psnr"] == pytest.approx(-20 * np.log10(figures["nrmse"]))


def test_figures_that_do_not_fit_are_told_before_the_training() -> None:
    with pytest.raises(ConfigError, match=r"training\.figures: seg cannot be measured here"):
        make_plan(small_recipe("restoration_2d", training__figures=["seg"]), split_of(2, 1, task="image"))
    with pytest.raises(ConfigError, match="Did you mean 'seg'"):
        small_recipe(training__figures=["sge"])


def test_what_is_unknown_does_not_count_in_figures_by_name() -> None:
    labels = SimpleNamespace(results=(OutputSpec("labels", "labels", 1),), stitch="instances")
    figures = Figures(("f1", "fp"), labels)
    truth, weight = np.zeros((1, 4, 6), np.uint16), np.ones((1, 4, 6), np.float32)
    found = truth.copy()
    found[0, 0, :2] = truth[0, 0, :2] = 1
    found[0, 3, 3:] = 2
    assert figures(found, truth, weight) == {"f1@0.5": pytest.approx(2 / 3), "fp@0.5": 1}
    weight[:, :, 4:] = 0  # most of the invented object
    assert figures(found, truth, weight) == {"f1@0.5": 1, "fp@0.5": 0}
    assert figures(found, truth, weight, there={"f1@0.5"}) == {"fp@0.5": 0}


def test_results_that_are_no_image_of_the_target_have_no_figures_unless_asked_for() -> None:
    twice = SimpleNamespace(results=(OutputSpec("image", "image", 1),), stitch="none")
    pair = np.zeros((1, 8, 8)), np.zeros((1, 4, 4))
    assert Figures("auto", twice)(*pair, None) == {}
    with pytest.raises(ConfigError, match=r"\(1, 8, 8\) and the target \(1, 4, 4\) differ in size"):
        Figures(("psnr",), twice)(*pair, None)
    vector = SimpleNamespace(results=(OutputSpec("age", "vector", 1),), stitch="none")
    assert kind_of(vector) is None
    assert Figures("auto", vector)(*pair, None) == {}
    with pytest.raises(ConfigError, match="kind vector have no figures"):
        Figures(("psnr",), vector)


def test_unknown_pixels_do_not_count_in_metrics_by_import_path() -> None:
    metric = NamedMetric(ClassPath(class_path="torch.nn.L1Loss"))
    truth, weight = np.zeros((1, 4, 4), np.uint16), np.ones((1, 4, 4), np.float32)
    found = truth + 1
    assert metric(found, truth, weight) == 1
    weight[:, 1:] = 0
    assert metric(found, truth, weight) == 0.25
    with pytest.raises(ConfigError, match=r"torch.nn.L1Loss cannot compare \(1, 4, 4\) with \(1, 3, 4\)"):
        metric(found, truth[:, :3], None)


def test_the_number_of_views_follows_the_time_there_is(tmp_path: Path) -> None:
    split = split_of(1, 12)
    few = ready(tmp_path, split, training__steps=20)
    many = ready(tmp_path, split, training__steps=20_000)
    assert len(few.views) == 1
    assert len(many.views) == 12
    some = ready(tmp_path, split, training__validate_every=20, training__steps=200)
    assert 1 < len(some.views) < 12
    names = [v.entry.name for v in some.views]
    assert names[0] == "discs_1"
    assert names[-1] == "discs_12"  # spread evenly, not the first few


def test_where_time_is_short_smaller_parts_of_three_images_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(validate.LARGEST, 2, ((1, 64, 64), (1, 32, 32)))
    split = split_of(1, 5, (64, 64))
    large, small, one = (
        ready(tmp_path / str(every), split, training__validate_every=every, training__steps=1000).views
        for every in (100, 10, 1)
    )
    assert [(v.entry.name, v.entry.shape) for v in large] == [(f"discs_{i}", (1, 64, 64)) for i in range(1, 6)]
    assert [(v.entry.name, v.entry.shape) for v in small] == [(f"discs_{i}", (1, 32, 32)) for i in (1, 3, 5)]
    assert [(v.entry.name, v.entry.shape) for v in one] == [("discs_3", (1, 32, 32))]


def test_of_validation_images_only_what_is_looked_at_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(validate.LARGEST, 2, ((1, 32, 32),))
    split = split_of(1, 3, (48, 80))
    found = ready(tmp_path / "a", split, training__steps=20_000)
    assert {v.entry.shape for v in found.views} == {(1, 32, 32)}
    assert {a.shape[1:] for v in found.views for a in v.entry.arrays.values()} == {(1, 32, 32)}
    monkeypatch.setattr(View, "alone", lambda view: view)
    whole = ready(tmp_path / "b", split, training__steps=20_000)
    assert {v.entry.shape for v in whole.views} == {(1, 48, 80)}
    one, other = (Validator(f.views, torch.device("cpu"), 0).run(f.framework.eval()) for f in (found, whole))
    assert one == other


def test_any_region_of_an_image_that_validates_can_be_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(validate.LARGEST, 2, ((1, 32, 32),))
    split = split_of(1, 2, (48, 80))
    found = ready(tmp_path, split, training__steps=20)
    assert [v.entry.name for v in found.views] == ["discs_1"]  # the last one is not validated: there is no time
    previews = Previews(tmp_path / "p", found.find, (16, 16), 2, Validator(found.views, torch.device("cpu"), 0))
    for number, image in enumerate((*split.train, *split.validation)):
        region = {"sample": image.name, "start": [0, 0, 48], "stop": [1, 32, 80], "name": f"p{number}"}
        assert previews.request(region) == "shown from the next validation on"
        source = np.load(tmp_path / f"p/p{number}_source.npy")
        assert np.array_equal(source[0], image.source.read()[0, 0, 0, 0:32, 48:80])
        target = np.load(tmp_path / f"p/p{number}_target.npy")
        assert np.array_equal(target[0], image.targets["target"].read()[0, 0, 0, 0:32, 48:80])
    assert "no image 'other'" in previews.request({"sample": "other"})


def test_an_image_that_cannot_be_read_any_more_ends_no_training(tmp_path: Path) -> None:
    def find(name: str) -> Entry | None:
        raise OSError(f"{name} is gone")

    previews = Previews(tmp_path, find, (16, 16), 2, Validator([], torch.device("cpu"), 0))
    assert previews.request({"sample": "a"}) == "the image cannot be read: a is gone"


def test_without_validation_images_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from im2im_core.engine import session

    monkeypatch.setattr(session._Session, "_export", lambda *_: None)
    training = Training(tmp_path / "run", small_recipe(training__validate_every=2), split_of(2, 0))
    assert training.run().state == "finished"
    assert training.of(Validated) == []
    assert any("No image is left for validation" in m.text for m in training.events if hasattr(m, "text"))


@pytest.mark.timing
@pytest.mark.slow
@pytest.mark.parametrize("budget", [{"training.minutes": 0.33}, {"training.steps": 400}])
def test_validation_previews_and_checkpoints_take_little_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: dict[str, Any]
) -> None:
    """At most a tenth is aimed at; more than 15 % is a fault."""
    from im2im_core.engine import callbacks, session

    spent = [0.0]

    def timed(real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            start = time.monotonic()
            try:
                return real(*args, **options)
            finally:
                spent[0] += time.monotonic() - start

        return call

    monkeypatch.setattr(session._Session, "_export", lambda *_: None)
    monkeypatch.setattr(session._Session, "finish", lambda *_: {})
    monkeypatch.setattr(callbacks.Validation, "run", timed(callbacks.Validation.run))
    monkeypatch.setattr(callbacks.Checkpointer, "save", timed(callbacks.Checkpointer.save))
    recipe = small_recipe(data__patch=[64, 64], training__batch=8).override(
        {"network.features": [16, 16, 32, 32, 32, 16], "training.checkpoint_minutes": 0.1, **budget}
    )
    training = Training(tmp_path / "run", recipe, split_of(8, 8, (128, 128)))
    start = time.monotonic()
    training.run()
    total = time.monotonic() - start
    assert len(training.of(Losses)) > 20
    assert len(training.of(Validated)) > 1
    assert training.of(Previewed)
    assert training.of(Checkpointed)
    assert spent[0] / total < 0.15
