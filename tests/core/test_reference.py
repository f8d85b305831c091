"""The pages of settings, figures and the data check say what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from im2im_core.metrics import METRICS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("tool", ["make_reference", "make_metrics", "make_check"])
def test_the_page_is_made_from_the_code(tool: str) -> None:
    spec = importlib.util.spec_from_file_location(tool, ROOT / "tools" / f"{tool}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.render(), f"run: python tools/{tool}.py"


def test_every_figure_is_explained_in_one_sentence() -> None:
    titles = [(m.kind, m.title, m.unit) for m in METRICS.values()]
    assert len(set(titles)) == len(titles) > 30
    for metric in METRICS.values():
        assert not metric.summary.endswith(".")
        assert metric.explanation.startswith(metric.summary)
        assert f"{metric.direction} is better." in metric.explanation
        assert (f", in {metric.unit};" in metric.explanation) == bool(metric.unit)
