"""The page about planning says what the rules do."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from im2im_core.engine.planning import unet

ROOT = Path(__file__).parents[2]


def test_examples_are_made_by_the_rules() -> None:
    spec = importlib.util.spec_from_file_location("make_planning", ROOT / "tools" / "make_planning.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.PAGE.read_text(encoding="utf-8")
    assert page == module.render(page), "run: python tools/make_planning.py"
    assert page.count("| labelfree_3d |") == 2


def test_numbers_of_the_page_are_those_of_the_rules() -> None:
    page = " ".join((ROOT / "docs" / "planning.md").read_text(encoding="utf-8").split())
    for said in (
        f"while at least {unet.SMALLEST_EDGE} pixels are left",
        f"whose pixels are {unet.COARSE:g} times as large",
        f"A network has {unet.FEWEST_LEVELS} to {unet.MOST_LEVELS} levels",
        f"by default {unet.MOST_FILTERS[2]} in 2D and {unet.MOST_FILTERS[3]} in 3D",
        f"(channels of the level) × {unet.ENCODED + unet.DECODED}, in the lowest level × {unet.ENCODED}",
        f"has room for {unet.PATCHES[2]} in 2D or {unet.PATCHES[3]} in 3D",
        f"at least {unet.SMALLEST_PLANE} pixels along Y and X",
        f"at most {unet.DATA_PART:.0%}".replace("%", " %"),
    ):
        assert said in page, said
