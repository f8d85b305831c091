"""Instances by following predicted flows to the centre of each object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from im2im_core.engine.follow_flows import follow_flows
from im2im_core.engine.frameworks.contract import Batch, OutputSpec, TargetSpec, TrainContext, TranslateContext
from im2im_core.engine.frameworks.instances import InstanceFramework, beside_unknown, mean_by, tidy
from im2im_core.engine.heat_flows import heat_flows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from im2im_core.inference import Shapes
    from im2im_core.recipe.framework import FlowsDecoding, FlowsSettings

FULL = 127
"""Encoded maps are stored as int8; this value is 1.0."""
LENGTH = 5.0
"""The network makes flows of this length, so that they weigh as much as the foreground (Stringer et al. 2021)."""


class Flows(InstanceFramework):
    """Foreground probability and, in each object, the direction to its centre; pixels that meet are an object.

    The directions are those in which heat from the centre would rise (Stringer et al. 2021): at the rim of an
    object they stand on it, so touching objects part, and there is no size or shape that they do not fit. They
    count in pixels along each axis, in 3D in voxels.

    Parameters
    ----------
    settings : FlowsSettings
    make_network : callable
        ``make_network(in_channels, out_channels)`` builds the network.
    shapes : Shapes
    """

    decode_halo = 64
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"foreground": (0.35, 0.5), "flow_error": (0.0, 0.4, 0.8)}

    def __init__(self, settings: FlowsSettings, make_network: Callable[[int, int], Any], shapes: Shapes) -> None:
        super().__init__()
        self.settings = settings
        self.shapes = shapes
        self.network = make_network(shapes.input_channels, 1 + shapes.dimensions)
        self.anisotropy = 1.0 if settings.anisotropy == "auto" else settings.anisotropy
        self.targets = (TargetSpec("maps", shapes.dimensions + 2, np.int8, "linear"),)
        self.outputs = (
            OutputSpec("foreground", "probability", 1),
            OutputSpec("flow", "vector", shapes.dimensions),
        )
        self.results = (OutputSpec("labels", "labels", 1), *self.outputs)

    # ---- learning ----

    def encode_labels(self, labels: NDArray[Any], unknown: NDArray[np.bool_] | None) -> dict[str, NDArray[Any]]:
        """Foreground, flow and where the flow is known, as int8 ``(D + 2, Z, Y, X)``."""
        dimensions = self.shapes.dimensions
        left_out = None if unknown is None else unknown | beside_unknown(labels, unknown)
        maps = np.empty((dimensions + 2, *labels.shape), np.int8)
        maps[0] = np.where(labels > 0, FULL, 0)
        maps[-1] = FULL if left_out is None else np.where(left_out, 0, FULL)
        shape = labels.shape[-dimensions:]
        whole = labels if left_out is None else np.where(left_out, np.zeros((), labels.dtype), labels)
        flows = heat_flows(whole.reshape(shape), self.anisotropy)
        maps[1:-1] = np.round(flows * FULL).reshape(-1, *labels.shape)
        return {"maps": maps}

    def loss_weights(self) -> dict[str, float]:
        return {"cross_entropy": self.settings.foreground_weight, "flow": self.settings.flow_weight}

    def losses(self, batch: Batch, player: str, context: TrainContext) -> dict[str, Tensor]:
        """Cross entropy of the foreground, mean squared error of the flows."""
        made = self.network(batch["source"]).float()
        maps, weight = batch["maps"], batch["weight"]
        # Where a pixel is unknown its target may be anything: it must not be looked at.
        maps = torch.where(weight > 0, maps, 0).float() / FULL
        flow = LENGTH * turned(maps[:, 1:-1], batch.get("motion"))
        entropy = F.binary_cross_entropy_with_logits(made[:, :1], maps[:, :1], reduction="none")
        error = (made[:, 1:] - flow).square().mean(1, keepdim=True)
        return {"cross_entropy": mean_by(entropy, weight), "flow": mean_by(error, weight * maps[:, -1:])}

    # ---- predicting ----

    def translate(self, x: Tensor, context: TranslateContext) -> dict[str, Tensor]:
        made = self.network(x).float()
        return {"foreground": torch.sigmoid(made[:, :1]), "flow": made[:, 1:] / LENGTH}

    def decode(self, maps: Mapping[str, NDArray[Any]], decoding: FlowsDecoding) -> NDArray[np.uint32]:
        flow = np.asarray(maps["flow"], np.float32)
        mask = np.asarray(maps["foreground"][0]) > decoding.foreground
        labels = follow_flows(flow, mask, decoding.steps, self.anisotropy)
        labels = tidy(labels, decoding.min_size, decoding.fill_holes)
        if decoding.flow_error == 0 or not labels.any():
            return labels
        error = flow_errors(labels, flow, self.anisotropy)
        wrong = (error > decoding.flow_error) & ~cut_objects(labels)
        return tidy(np.where(wrong[labels], np.uint32(0), labels), 1, fill_holes=False)


def turned(flow: Tensor, motion: Tensor | None) -> Tensor:
    """Flows ``(B, D, [Z], Y, X)`` of images as they are in patches that were flipped, turned or magnified.

    A flow is a way from pixel to pixel, so it moves as offsets do: where a patch is magnified along some axes
    only, following it leads to the magnified centre. (A slope moves by the transposed inverse, and does not.)
    Its length says how sure it is, and stays.

    Parameters
    ----------
    motion : Tensor, optional
        ``(B, D, D)``, takes an offset in a patch to that in the image; None where nothing was moved.
    """
    if motion is None:
        return flow
    moved = torch.einsum("bij,bj...->bi...", torch.linalg.inv(motion.to(flow)), flow)
    length, after = (torch.linalg.vector_norm(v, dim=1, keepdim=True) for v in (flow, moved))
    kept: Tensor = moved * (length / after.clamp(min=1e-6))
    return kept


# ---- are objects what their flows say; ([Z], Y, X) ----


def flow_errors(labels: NDArray[np.uint32], flow: NDArray[np.float32], anisotropy: float = 1.0) -> NDArray[np.float64]:
    """Mean squared difference, by id, between `flow` ``(D, [Z], Y, X)`` and the flows of objects of their shape."""
    own = labels.ravel()
    inside = np.flatnonzero(own)
    own = own[inside]
    total = np.zeros(len(inside), np.float64)
    for made, exact in zip(flow, heat_flows(labels, anisotropy), strict=True):
        total += (made.ravel()[inside] - exact.ravel()[inside]) ** 2
    sums = np.bincount(own, total, minlength=int(own.max(initial=0)) + 1)
    return np.asarray(sums / np.maximum(np.bincount(own, minlength=len(sums)), 1))


def cut_objects(labels: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """By id, whether an object reaches the border, so that its centre may lie outside of what is decoded."""
    cut = np.zeros(int(labels.max()) + 1, bool)
    for axis in (a for a, size in enumerate(labels.shape) if size > 1):
        for side in (0, -1):
            cut[np.unique(labels.take(side, axis))] = True
    return cut
