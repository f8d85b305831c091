"""Settings of the start: a new network, or a trained one that is taught on."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from annotated_types import Gt, Interval
from pydantic import field_validator

from im2im_core._base import Config

REGEX = "re:"
"""What a pattern begins with that is a regular expression and no glob."""


class NewNetwork(Config):
    """A new network, which knows nothing yet."""

    kind: Literal["new"] = "new"


class TrainedModel(Config):
    """A trained network that is taught on (fine-tuning).

    Its weights must fit the network of the recipe, layer by layer; what may differ is said here. Parameters
    are named as in ``im2im finetune MODEL --parameters``: by a glob (``network.body.down_1.*``) or, after
    ``re:``, by a regular expression; either must fit the whole name.
    """

    kind: Literal["model"] = "model"
    model: str
    """Run, model package (folder or zip) or file with weights (safetensors or state dict), relative to the project."""
    sha256: str | None = None
    """Hash of its weights: others are refused. A start fills it in."""
    input_layer: Literal["keep", "average", "repeat"] = "keep"
    """Where images have another number of channels. average: each gets the mean of those before; repeat: their turn."""
    output_layer: Literal["keep", "new"] = "keep"
    """new: what makes the output learns anew, for other classes, channels or another task."""
    freeze: tuple[str, ...] = ()
    """Patterns of parameters that stay as they are, for example network.body.conv_0.* or re:.*\\.down_[12]\\..*"""
    statistics: Literal["follow", "keep_frozen", "keep"] = "keep_frozen"
    """Running statistics of normalisation layers: follow the new images, or are kept, in frozen layers or in all."""
    rates: dict[str, Annotated[float, Gt(0)]] = {}
    """Pattern of parameters -> factor of their learning rate; the first pattern that fits counts."""
    decay: Annotated[float, Interval(gt=0, le=1)] = 1.0
    """Factor of the learning rate from each layer to the one before it; the last learns at the full rate."""

    @field_validator("freeze", "rates")
    @classmethod
    def _patterns_can_be_read(cls, patterns: tuple[str, ...] | dict[str, float]) -> tuple[str, ...] | dict[str, float]:
        for pattern in patterns:
            if pattern.startswith(REGEX):
                try:
                    re.compile(pattern.removeprefix(REGEX))
                except re.error as error:
                    raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
        return patterns


StartSettings = NewNetwork | TrainedModel
