"""Settings of the data: where it is, how it is read, normalised, split, sampled and augmented."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval
from pydantic import Field, field_validator

from im2im_core._base import Config
from im2im_core.layouts import AutoLayout, LayoutSettings
from im2im_core.normalize import NormalizeSettings, Percentile
from im2im_core.recipe.classpath import ClassPath

Fraction = Annotated[float, Interval(ge=0, le=1)]
SMALLEST_PATCH = 8
"""Pixels of a patch along Y and X, at least; a stack may be thinner."""


class DataSource(Config):
    """One more folder or table of images, joined to the first."""

    path: str
    """Folder or CSV table, relative to the project."""
    layout: Annotated[LayoutSettings, Field(discriminator="kind")] = AutoLayout()
    """How images, targets and weights are told apart."""


class SplitSettings(Config):
    """Which images validate and test; a group is never divided."""

    validation: Fraction = 0.15
    """Part of the groups kept for validation."""
    test: Fraction = 0.0
    """Part of the groups kept for the final test; never seen while training."""
    by: Literal["group", "block"] = "group"
    """group: whole images or groups. block: one spatial block of each image, a patch apart (same-image validation)."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the draw."""
    validation_names: tuple[str, ...] = ()
    """Names of samples that must validate; replaces the draw where given."""
    test_names: tuple[str, ...] = ()
    """Names of samples that must test; replaces the draw where given."""


class NoRescale(Config):
    """Images are used as they are."""

    kind: Literal["none"] = "none"


class VoxelRescale(Config):
    """Images are rescaled to one voxel size."""

    kind: Literal["voxel_size"] = "voxel_size"
    voxel_size: tuple[float, float, float]
    """Voxel size to train at, Z, Y, X in micrometres."""


class ObjectRescale(Config):
    """Each image is rescaled so that its objects have one size (from its labels, or as told at prediction)."""

    kind: Literal["object_size"] = "object_size"
    diameter: Annotated[float, Gt(0)] = 17.0
    """Median object diameter to train at, pixels in Y and X."""


RescaleSettings = NoRescale | VoxelRescale | ObjectRescale


class AugmentSettings(Config):
    """Random changes of the training patches; right for labels and weights."""

    flip: bool = True
    """Mirror along Y and X (and Z in 3D)."""
    rotate90: bool = True
    """Quarter turns in the Y-X plane."""
    rotate: Annotated[float, Interval(ge=0, le=180)] = 0.0
    """Largest free rotation in the Y-X plane, degrees; 0 = off."""
    scale: tuple[Annotated[float, Gt(0)], Annotated[float, Gt(0)]] = (1.0, 1.0)
    """Smallest and largest random magnification in Y and X."""
    affine_probability: Fraction = 0.5
    """How often a patch is freely rotated and rescaled."""
    brightness: Annotated[float, Ge(0)] = 0.0
    """Largest shift of the normalised input."""
    contrast: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Largest relative change of the contrast, 0.3 = 0.7 to 1.3 times."""
    gamma: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Largest change of the exponent on inputs scaled to 0..1 within the patch."""
    noise: Annotated[float, Ge(0)] = 0.0
    """Largest standard deviation of added Gaussian noise, in units of the normalised input."""
    blur: Annotated[float, Ge(0)] = 0.0
    """Largest standard deviation of a Gaussian blur, pixels."""
    intensity_probability: Fraction = 0.5
    """How often each of the intensity changes is applied to a patch."""
    transforms: tuple[ClassPath, ...] = ()
    """Further transforms of the input by import path, which keep pixels in place: monai.transforms.RandGibbsNoise."""


class CacheSettings(Config):
    """Where images wait once they are read and normalised."""

    kind: Literal["auto", "memory", "disk", "rolling"] = "auto"
    """auto: memory when it fits, else disk, else a rolling part."""
    memory_limit: Annotated[float, Gt(0)] = 4.0
    """Largest part of the cache held in memory, GB."""
    disk_limit: Annotated[float, Gt(0)] = 200.0
    """Largest size of the cache on disk, GB; above it only a rolling part is held."""


class DataSettings(Config):
    """The images, and how they become patches."""

    path: str | None = None
    """Folder or CSV table with the images, relative to the project."""
    layout: Annotated[LayoutSettings, Field(discriminator="kind")] = AutoLayout()
    """How images, targets and weights are told apart."""
    more: tuple[DataSource, ...] = ()
    """Further folders, joined to the first."""
    dimensions: Literal[2, 3] = 2
    """Spatial dimensions the network sees: 2 = planes, 3 = volumes."""
    axes: str | None = None
    """Axes of the files where they do not say, for example ZYX or CYX."""
    input_channels: tuple[int | str, ...] | None = None
    """Channels of the images that the network sees, by number or name; all where not given."""
    target_channels: tuple[int | str, ...] | None = None
    """Channels of the targets, by number or name; all where not given."""
    scenes: tuple[int | str, ...] | None = None
    """Scenes (fields, positions, series) of files that have several, by number from 0 or name; all where not given."""
    voxel_size: tuple[float, float, float] | None = None
    """Voxel size Z, Y, X in micrometres; overrides what the files say."""
    labelling: Literal["dense", "sparse"] = "dense"
    """dense: 0 is background. sparse: 0 unknown, 1 background, 2 and more are objects or classes."""
    normalization: Annotated[NormalizeSettings, Field(discriminator="kind")] = Percentile()
    """Normalisation of the inputs, over each whole image, time point and channel."""
    target_normalization: Annotated[NormalizeSettings, Field(discriminator="kind")] = Percentile()
    """Normalisation of image targets, from the training set; kept to invert predictions."""
    invalid_pixels: Literal["error", "fill"] = "error"
    """What happens to NaN and infinite pixels: an error, or the image minimum as fill."""
    rescale: Annotated[RescaleSettings, Field(discriminator="kind")] = NoRescale()
    """Common voxel or object size that images are rescaled to."""
    split: SplitSettings = SplitSettings()
    """Training, validation and test part."""
    patch: tuple[Annotated[int, Ge(1)], ...] | Literal["auto"] = "auto"
    """Size of the training patches along Y, X or Z, Y, X; auto: from network and images."""
    foreground: Fraction = 0.5
    """Part of the patches centred on a labelled object."""
    augmentation: AugmentSettings = AugmentSettings()
    """Random changes of the training patches."""
    cache: CacheSettings = CacheSettings()
    """Where images wait once they are read and normalised."""

    @field_validator("patch")
    @classmethod
    def _patch_shows_something(cls, patch: tuple[int, ...] | str) -> tuple[int, ...] | str:
        if not isinstance(patch, str) and any(size < SMALLEST_PATCH for size in patch[-2:]):
            raise ValueError(f"a patch has at least {SMALLEST_PATCH} pixels along Y and X; along Z one is enough")
        return patch
