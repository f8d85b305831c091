"""The nucleus model that comes with the package: small, whole, found by its name, and good."""

from __future__ import annotations

import importlib.util
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import im2im_core
from im2im_core.bundle import open_bundle
from im2im_core.metrics import average_precision, match

NUCLEI = Path(im2im_core.__file__).parent / "models_shipped" / "nuclei_2d"


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real folder, which other tests do not see."""
    monkeypatch.setattr("im2im_core.models.SHIPPED", NUCLEI.parent)


def ap50(labels: Any, truth: Any) -> float:
    return average_precision(match(np.asarray(labels), np.asarray(truth)), 0.5)


def test_it_is_small_whole_and_everybody_may_read_it() -> None:
    files = list(NUCLEI.iterdir())
    assert sum(f.stat().st_size for f in files) < 5_000_000
    assert all(f.stat().st_mode & stat.S_IROTH for f in files)
    open_bundle(NUCLEI).verify()


def test_its_maps_are_those_of_its_test_tensors() -> None:
    from im2im_core.engine.foreign import ForeignModel

    ForeignModel(open_bundle(NUCLEI), apart=False).check(1e-4)


def test_its_card_says_how_good_it_is_and_what_it_is_not_for(shipped: None) -> None:
    from im2im_core.models import list_models

    (model,) = list_models()
    assert (model.name, model.origin) == ("nuclei_2d", "shipped")
    assert {name for name, _ in model.metrics} == {"ap50", "ap75"}
    assert model.not_for.startswith("Not for histology")
    rows = open_bundle(NUCLEI).provenance["metrics_by_image_size"]
    average = sum(r["ap50"] * r["images"] for r in rows) / sum(r["images"] for r in rows)
    assert dict(model.metrics)["ap50"] == pytest.approx(average, abs=1e-3)
    assert "/" not in str(open_bundle(NUCLEI).provenance["recipe"]["data"]["path"])


def test_it_predicts_by_its_name_in_a_shell(shipped: None, tmp_path: Path) -> None:
    from im2im_core.cli import main
    from im2im_core.microscope import write_dataset

    write_dataset(tmp_path / "data", "instance_segmentation", count=1, shape=(256, 256), seed=5)
    (image,), (truth,) = (list((tmp_path / "data" / part).glob("*.tif*")) for part in ("IM", "GT"))
    assert main(["predict", "nuclei_2d", str(image), "-o", str(tmp_path / "labels.tif")]) == 0
    assert ap50(tifffile.imread(tmp_path / "labels.tif"), tifffile.imread(truth)) > 0.6


def test_it_is_as_good_as_its_card_says_on_images_it_never_saw(test_data: Path) -> None:
    folder = test_data / "dsb2018_fluo"
    names = sorted((folder / "holdout.txt").read_text().split())[::9]
    scores = []
    for name in names:
        labels = im2im_core.predict(NUCLEI, folder / "train/IM" / name)
        scores.append(ap50(labels, tifffile.imread(folder / "train/GT" / name)))
    stated = open_bundle(NUCLEI).provenance["metrics"]["ap50"]
    assert np.mean(scores) > stated - 0.1


def test_its_builder_makes_a_package_that_is_small_enough_with_the_best_framework(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from im2im_core.api import load_preset
    from im2im_core.cli import main
    from im2im_core.microscope import write_dataset

    write_dataset(tmp_path / "data/train", "instance_segmentation", count=4, shape=(128, 128), seed=5)
    for path in (tmp_path / "data/train").rglob("*.ome.tif"):
        path.rename(path.with_name(path.name.replace(".ome", "")))  # results are called like that
    held = min(path.name for path in (tmp_path / "data/train/IM").iterdir())
    (tmp_path / "data/holdout.txt").write_text(held)
    tool = load(Path(__file__).parents[2] / "tools/make_shipped_model.py")
    monkeypatch.setattr(tool, "command", lambda *words: main([str(word) for word in words]))
    words = ["--data", tmp_path / "data", "--work", tmp_path / "work", "--out", tmp_path / "nuclei_2d"]
    words += ["--set", "training.steps=1", "--set", "training.batch=2"]
    monkeypatch.setattr(sys, "argv", ["make_shipped_model.py", *map(str, words)])
    tool.main()  # refuses a package that is too large
    bundle = open_bundle(tmp_path / "nuclei_2d")
    bundle.verify()
    assert bundle.inference.framework.kind == load_preset("instance_seg_2d").framework.kind
    assert [row["images"] for row in bundle.provenance["metrics_by_image_size"]] == [1]
    assert held not in (tmp_path / "work/train.csv").read_text()


def load(path: Path) -> Any:
    """Module of a script."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
