"""Which image of a training a layer shows, where its file has several scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from im2im_core.datasets import save_dataset
from im2im_core.image import ArrayImage
from im2im_core.io import open_image
from im2im_core.samples import TARGET, Sample
from napari_im2im._watched_region import Wish, _is_of, _origins

SIDE = 32


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """The scenes left and right of one file."""
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for name in ("left", "right"):
            pixels = np.ones((SIDE, SIDE), np.uint16)
            file.write(pixels, metadata={"axes": "YX", "Name": name}, photometric="minisblack")
    target = ArrayImage(np.ones((SIDE, SIDE), np.uint16), "YX")
    return [Sample(f"a:{n}", "a", open_image(path, scene=n), {TARGET: target}) for n in ("left", "right")]


@pytest.mark.parametrize(
    ("layer", "shown"), [("a", [True, False]), ("a.ome.tif :: right", [False, True]), ("a left", [True, False])]
)
def test_a_layer_shows_the_scene_it_names_else_the_first(
    samples: list[Sample], tmp_path: Path, layer: str, shown: list[bool]
) -> None:
    region: Any = (slice(0, 1), slice(0, 1), slice(0, 1), slice(0, SIDE), slice(0, SIDE))
    wish = Wish(layer, tmp_path / "a.ome.tif", (1, 1, 1, SIDE, SIDE), region)
    assert [_is_of(sample, wish, None) for sample in samples] == shown


def test_stored_scenes_know_where_they_came_from(samples: list[Sample], project: Any) -> None:
    entry = save_dataset(project, "n", samples, {})
    found = _origins(entry.path)
    assert {name: origin.name for name, origin in found.items()} == {"a:left": "a:left", "a:right": "a:right"}
