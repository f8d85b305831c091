"""Settings of instances by clustered embeddings."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Interval

from im2im_core._base import Config


class EmbedSegDecoding(Config):
    """How embedded pixels are gathered into objects."""

    foreground: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    """Pixels with a higher seediness belong to an object."""
    seed: Annotated[float, Interval(gt=0, lt=1)] = 0.6
    """An object starts at a pixel with at least this seediness; smaller finds more objects."""
    min_size: Annotated[int, Ge(0)] = 15
    """Smaller objects are dropped, pixels."""
    fill_holes: bool = True
    """Fill holes in objects."""


class EmbedSegSettings(Config):
    """Instances by clustering pixels that point at the centre of their object, learned from instance labels."""

    kind: Literal["embedseg"] = "embedseg"
    target: ClassVar[str] = "im2im_core.engine.frameworks.embedseg:EmbedSeg"
    learns_from: ClassVar[str] = "instance labels"
    tasks: ClassVar[tuple[str, ...]] = ("instance_segmentation",)
    scribbles: ClassVar[bool] = False
    centre: Literal["medoid", "centroid"] = "medoid"
    """Point of an object that its pixels point at: medoid lies in the object, centroid may lie in a bay of it."""
    sigmas: Literal["per_axis", "one"] = "per_axis"
    """Size of the margin around a centre: one for each axis, or one for all."""
    branched: bool = False
    """Two ways up the network, one for the seediness, as in the paper: more to learn with, and more work per step."""
    diameter: Annotated[float, Gt(0)] | Literal["auto"] = "auto"
    """Usual diameter of the objects, pixels: the unit of what the network predicts; auto: from the labels."""
    anisotropy: Annotated[float, Gt(0)] | Literal["auto"] = "auto"
    """Depth of a voxel relative to its width, in which distances are measured; auto: from the voxel size."""
    instance_weight: Annotated[float, Ge(0)] = 1.0
    """Factor of the overlap (Lovász hinge) between each object and the pixels that cluster at its centre."""
    variance_weight: Annotated[float, Ge(0)] = 10.0
    """Factor of the differences between the margins that the pixels of one object predict."""
    seed_weight: Annotated[float, Ge(0)] = 1.0
    """Factor of the difference between the seediness and how well a pixel clusters."""
    foreground_weight: Annotated[float, Ge(0)] = 10.0
    """How much more the seediness of a pixel of an object counts than that of a pixel of the background."""
    decoding: EmbedSegDecoding = EmbedSegDecoding()
    """How embedded pixels are gathered into objects."""
    calibrate: bool = True
    """After training, choose the decoding thresholds that are best on the validation images."""
