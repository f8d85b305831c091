"""Settings of a prediction that stand in the folded form; what the panel itself asks is left out."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydantic import create_model

from im2im_core._base import Config
from im2im_core.predict_options import PredictOptions
from im2im_core.recipe.fields import documented_fields

ASKED = ("channels", "object_diameter", "overwrite", "resume")
"""Settings that the panel has widgets of its own for, or that only matter for files."""


@lru_cache(maxsize=1)
def settings_class() -> type[Config]:
    """Settings class with the fields of `PredictOptions` that are not `ASKED`, with their help, ranges and defaults."""
    known = documented_fields(PredictOptions).items()
    fields: dict[str, Any] = {name: (i.rebuild_annotation(), i) for name, i in known if name not in ASKED}
    return create_model("PredictSettings", __base__=Config, __doc__="Settings of a prediction.", **fields)


def to_options(settings: Config, **asked: Any) -> PredictOptions:
    """Full options of a prediction."""
    return PredictOptions.load({**settings.model_dump(), **asked})
