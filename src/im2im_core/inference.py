"""The inference description: all that prediction needs, without the recipe; part of a bundle."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt
from pydantic import Field

from im2im_core._base import Config
from im2im_core.errors import ConfigError
from im2im_core.normalize import NormalizeSettings, Scaling
from im2im_core.recipe.data import RescaleSettings
from im2im_core.recipe.framework import FrameworkSettings
from im2im_core.recipe.migrations import Migration, levels_by_axis, lift_by
from im2im_core.recipe.network import NetworkSettings
from im2im_core.recipe.plugins import require_usable

INFERENCE_VERSION = 2


def _inference_1(content: dict[str, Any]) -> dict[str, Any]:
    shapes = content.get("shapes")
    dimensions = shapes.get("dimensions", 2) if isinstance(shapes, dict) else 2
    return {**content, "network": levels_by_axis(content["network"], dimensions)} if "network" in content else content


INFERENCE_MIGRATIONS: dict[int, Migration] = {1: _inference_1}
"""Version -> function that lifts that version of the description to the next one."""


class Shapes(Config):
    """Numbers that the images gave and the network was built with."""

    dimensions: Literal[2, 3]
    """Spatial dimensions of the network."""
    input_channels: int
    """Channels of the input."""
    target_channels: int = 1
    """Channels of the target images."""
    classes: int = 2
    """Classes with the background, for segmentation."""


class InputDescription(Config):
    """What the network expects to see."""

    channel_names: tuple[str, ...] = ()
    """Names of the channels it was trained on."""
    normalization: Annotated[NormalizeSettings, Field(discriminator="kind")]
    """Normalisation over each whole image, time point and channel."""
    invalid_pixels: Literal["error", "fill"] = "error"
    """What happens to NaN and infinite pixels."""
    rescale: Annotated[RescaleSettings, Field(discriminator="kind")]
    """Common voxel or object size of the training."""
    voxel_size: tuple[float | None, float | None, float | None] = (None, None, None)
    """Median voxel size of the training images, Z, Y, X in micrometres, after rescaling."""
    object_diameter: float | None = None
    """Median object diameter of the training images, pixels, after rescaling."""


class OutputDescription(Config):
    """One thing the model makes."""

    name: str
    """Name of the output."""
    kind: Literal["image", "probability", "labels", "vector", "embedding"]
    """What its values are."""
    channels: int
    """Number of channels."""
    axes: str
    """Axes it has, a part of CZYX; others are dropped."""
    scale: tuple[str, str, str] = ("1", "1", "1")
    """Size relative to the network grid along Z, Y, X, as fractions, for example 2 or 1/2."""


class TargetScaling(Config):
    """How predicted values become pixels of the original unit: ``pixel = value * scale + offset``."""

    offset: tuple[float, ...]
    """One value per channel."""
    scale: tuple[float, ...]
    """One value per channel."""

    def scaling(self) -> Scaling:
        """The same as an object that can be applied."""
        return Scaling(self.offset, self.scale)


class Inference(Config):
    """All that prediction needs."""

    schema_version: int = INFERENCE_VERSION
    """Version of this description."""
    name: str = "model"
    """Short name of the model."""
    task: str = ""
    """What the model is for."""
    shapes: Shapes
    """Numbers the network was built with."""
    input: InputDescription
    """What the network expects to see."""
    framework: Annotated[FrameworkSettings, Field(discriminator="kind")]
    """How it was trained and how its maps are decoded."""
    network: Annotated[NetworkSettings, Field(discriminator="kind")]
    """The network."""
    patch: tuple[Annotated[int, Gt(0)], ...]
    """Training patch, along Y, X or Z, Y, X."""
    divisor: tuple[Annotated[int, Gt(0)], ...]
    """Tiles must be a multiple of this along each spatial axis."""
    halo: tuple[Annotated[int, Ge(0)], ...]
    """Half of the effective receptive field along each spatial axis, pixels."""
    outputs: tuple[OutputDescription, ...]
    """What the model makes."""
    target_scaling: TargetScaling | None = None
    """Inverts the normalisation of predicted images; None for segmentation."""

    @classmethod
    def load(cls, content: Any) -> Self:
        """Description from plain content of this or any older version."""
        content = lift_by(content, INFERENCE_MIGRATIONS, INFERENCE_VERSION)
        try:
            return super().load(content)
        except ConfigError:
            require_usable(content)  # says more than that the kind is not known
            raise

    @classmethod
    def from_bundle_config(cls, content: dict[str, Any]) -> Inference:
        """Description from the ``config.im2im`` part of a bundle."""
        return cls.load(content["inference"])
