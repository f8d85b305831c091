"""Headless core: from images to a trained image-to-image model to predictions.

Nothing here imports torch until training or prediction starts::

    import im2im_core as im2im

    recipe = im2im.load_preset("instance_seg_2d").override({"training.minutes": 10})
    run = im2im.train(recipe, data="images/")
    labels = im2im.predict(run.model, image)
    print(im2im.evaluate(labels, truth))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from im2im_core.api import (
        convert,
        evaluate,
        finetune,
        list_presets,
        load_preset,
        load_recipe,
        plan,
        predict,
        resume,
        train,
    )

__version__ = "0.1.0"
__all__ = [
    "convert",
    "evaluate",
    "finetune",
    "list_presets",
    "load_preset",
    "load_recipe",
    "plan",
    "predict",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("im2im_core.api"), name)
    raise AttributeError(f"module 'im2im_core' has no attribute {name!r}")
