"""Every preset, small: simulate, train two steps, pass the test of bioimage.io, predict."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from bioimageio import core
from preset_world import PRESETS, SHAPES, train_small

from im2im_core import api
from im2im_core.bundle import open_bundle
from im2im_core.errors import ConfigError
from im2im_core.events import Event, Finished, Losses
from im2im_core.io import open_image
from im2im_core.predict_options import PredictOptions

if TYPE_CHECKING:
    from pathlib import Path


def test_all_presets_are_known() -> None:
    tasks = ("flows", "instance_seg", "labelfree", "restoration", "semantic_seg", "stardist")
    assert sorted([*(f"{task}_{d}d" for task in tasks for d in (2, 3)), "embedseg_3d", "watershed_2d"]) == PRESETS


def test_every_framework_of_instances_has_a_preset_in_2d_and_3d() -> None:
    infos = [p for p in api.list_presets() if p.task == "instance_segmentation"]
    found = sorted((p.framework, p.name[-2:]) for p in infos)
    assert found == sorted((kind, d) for kind in ("instance", "embedseg", "stardist", "flows") for d in ("2d", "3d"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_trains_and_predicts(tmp_path: Path, preset: str) -> None:
    recipe = api.load_preset(preset)
    shape = SHAPES[recipe.data.dimensions]
    events: list[Event] = []
    run = train_small(tmp_path, preset, events.append)
    assert run.state == "finished"
    assert [e.step for e in events if isinstance(e, Losses)] == [1, 2]
    assert isinstance(events[-1], Finished)
    figures = open_bundle(run.model).card["metrics"]
    assert set(figures) & {"ap50", "psnr", "iou"}  # what the result is worth, not the terms of the loss
    assert not set(figures) & {"total", "distance", "flow", "cross_entropy", "l1"}
    summary = core.test_model(run.model / "bioimageio.yaml")
    assert summary.status == "passed", summary.format()
    path = sorted((tmp_path / "data" / "IM").iterdir())[0]
    with pytest.raises(ConfigError, match="would replace the image"):
        api.predict(run.model, path, to=path, options=PredictOptions(overwrite=True))
    found = api.predict(run.model, path)
    assert found.shape == shape
    assert np.isfinite(found).all()
    if recipe.task in ("label_free", "restoration"):
        truth = open_image(tmp_path / "data" / "GT" / path.name).read()
        low, high = truth.min() - np.ptp(truth) * 5, truth.max() + np.ptp(truth) * 5
        assert low < np.median(found) < high  # on the scale of the targets, not the normalised one
    else:
        assert np.issubdtype(found.dtype, np.unsignedinteger)
