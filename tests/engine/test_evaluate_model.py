"""A model scored on a data set: what is unknown does not count, sparse labels are decoded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from training_world import discs, sample

from im2im_core.engine import evaluate
from im2im_core.engine.evaluate import evaluate_on
from im2im_core.engine.frameworks.contract import OutputSpec
from im2im_core.errors import ConfigError, DataError
from im2im_core.image import ArrayImage
from im2im_core.recipe import DataSettings
from im2im_core.samples import TARGET, Sample

LABELS = discs(0)[1]


@pytest.fixture(autouse=True)
def _oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose result is the image it is shown."""

    class Oracle:
        def __init__(self, model: Any, device: str = "auto") -> None:
            spec = OutputSpec("labels", "labels", 1)
            self.framework = SimpleNamespace(results=(spec,), stitch="instances")
            self.inference = SimpleNamespace(outputs=(spec,), task="instance_segmentation")

        def predict(self, image: Any, **options: Any) -> dict[str, Any]:
            return {"labels": np.squeeze(image.read()).astype(np.uint32)}

    monkeypatch.setattr(evaluate, "Predictor", Oracle)


def half_known() -> tuple[Any, Any]:
    """Truth that is garbage on the right, and the weight that says so."""
    weight = np.ones(LABELS.shape, np.float32)
    weight[:, 24:] = 0
    return np.where(weight > 0, LABELS, 999), weight


def test_what_is_unknown_does_not_count() -> None:
    truth, weight = half_known()
    known = evaluate_on("model", ".", samples=[sample("a", LABELS, truth, weight)])
    assert known.mean["average_precision@0.5"] == 1
    blind = evaluate_on("model", ".", samples=[sample("a", LABELS, truth)])
    assert blind.mean["average_precision@0.5"] < 1


def test_garbage_that_is_no_label_may_stand_in_unknown_regions() -> None:
    truth, weight = half_known()
    truth = np.where(weight > 0, truth, np.nan)
    assert evaluate_on("model", ".", samples=[sample("a", LABELS, truth, weight)]).mean["average_precision@0.5"] == 1
    with pytest.raises(DataError, match="not a whole number"):
        evaluate_on("model", ".", samples=[sample("a", LABELS, truth)])


def test_one_plane_of_weights_holds_for_the_stack() -> None:
    stack, truth = (np.stack([a] * 3) for a in (LABELS, half_known()[0]))
    made = sample("a", stack, truth, half_known()[1][None])
    assert evaluate_on("model", ".", samples=[made]).mean["average_precision@0.5"] == 1


def test_sparse_labels_are_decoded(tmp_path: Path) -> None:
    painted = np.zeros_like(LABELS)
    painted[:, :24] = LABELS[:, :24] + 1  # background 1, objects from 2
    for suffix, array in (("IM", LABELS), ("GT", painted)):
        tifffile.imwrite(tmp_path / f"a_{suffix}.tif", array, metadata={"axes": "YX"})
    sparse = DataSettings(path=str(tmp_path), labelling="sparse")
    assert evaluate_on("model", sparse).mean["average_precision@0.5"] == 1
    assert evaluate_on("model", tmp_path).mean["average_precision@0.5"] < 1


def test_axes_and_channels_are_told(tmp_path: Path) -> None:
    both = np.stack([np.zeros_like(LABELS), LABELS])
    tifffile.imwrite(tmp_path / "a_IM.tif", both)
    tifffile.imwrite(tmp_path / "a_GT.tif", LABELS)
    with pytest.raises(DataError, match="axes"):
        evaluate_on("model", tmp_path)
    told = DataSettings(path=str(tmp_path), axes="CYX", input_channels=(1,))
    assert evaluate_on("model", told).mean["average_precision@0.5"] == 1


def test_a_sample_without_target_is_named() -> None:
    with pytest.raises(DataError, match="a has no target"):
        evaluate_on("model", ".", samples=[Sample("a", "a", ArrayImage(LABELS, "YX"))])


def test_the_command_line_tells_what_files_do_not_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from im2im_core import api
    from im2im_core.cli import main

    asked: list[Any] = []
    report = SimpleNamespace(table=lambda: "", to_dict=dict)
    monkeypatch.setattr(api, "evaluate_model", lambda model, data, **_: asked.append(data) or report)
    (tmp_path / "rdf.yaml").write_text("type: model")
    words = ["evaluate", str(tmp_path), "data", "--labelling", "sparse", "--axes", "CYX", "--input-channels", "[1]"]
    assert main(words) == 0
    assert main(words[:3]) == 0
    told = DataSettings(path=str(Path("data").resolve()), labelling="sparse", axes="CYX", input_channels=(1,))
    assert asked == [told, "data"]
    assert main([*words[:3], "--labelling", "painted"]) == ConfigError.exit_code


def test_two_folders_of_images_take_no_settings_of_the_data(tmp_path: Path) -> None:
    from im2im_core.cli import main

    tifffile.imwrite(tmp_path / "a.tif", LABELS)
    one = str(tmp_path / "a.tif")
    assert main(["evaluate", one, one, "--axes", "YX"]) == ConfigError.exit_code


def test_targets_hold_for_all_time_points() -> None:
    film = ArrayImage(np.stack([LABELS] * 2), "TYX")
    made = Sample("film", "film", film, {TARGET: ArrayImage(LABELS, "YX")})
    report = evaluate_on("model", ".", samples=[made])
    assert [r.name for r in report.rows] == ["film@0", "film@1"]
    assert report.mean["average_precision@0.5"] == 1
