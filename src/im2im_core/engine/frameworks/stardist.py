"""Instances as star-convex shapes: centre probability and distances to the rim along rays."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from im2im_core.engine.frameworks.contract import Batch, OutputSpec, TargetSpec, TrainContext, TranslateContext
from im2im_core.engine.frameworks.instance import distance_map
from im2im_core.engine.frameworks.instances import InstanceFramework, beside_unknown, mean_by, tidy
from im2im_core.engine.networks.stem import fold
from im2im_core.engine.ray_march import march
from im2im_core.engine.star_shapes import Painter, make_rays, paint, propose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from im2im_core.inference import Shapes
    from im2im_core.recipe.framework import StarDistDecoding, StarDistSettings

FULL = 255
"""Encoded maps are stored as uint8; this value is 1.0."""
DIAMETER = 16.0
"""Assumed where nobody measured the objects, pixels."""
FARTHEST = 2.0
"""Distances end at this many diameters."""
CELLS = 2**13
"""Cells of a batch whose rays are followed; of more, that many are drawn."""
GROWTH = 2
"""Pixels by which a shape grows over the foreground where it is refined."""


class StarDist(InstanceFramework):
    """Every pixel proposes the shape of its object; the most probable shapes that do not overlap are the objects.

    The network predicts the centre probability (distance to the rim, 1 at the centre of each object) and
    the distances to the rim along rays (Schmidt et al. 2018; in 3D with rays that are evenly spread in
    space, Weigert et al. 2020). Here it also predicts the foreground, by which the rims are refined.

    The labels themselves are cached. The rays are followed in each patch after its random changes, so
    that they are exact whatever the change, and 32 or more maps need not be kept per image. A ray that
    meets the end of what is known before the rim teaches only that the rim is not nearer.

    Distances are predicted per cell of `grid` × `grid` pixels: the network's pixels of a cell are folded
    into its channels, which costs nothing behind a stem of the same size.

    Parameters
    ----------
    settings : StarDistSettings
    make_network : callable
        ``make_network(in_channels, out_channels)`` builds the network.
    shapes : Shapes
    """

    targets = (TargetSpec("objects", 1, np.int32, "nearest"), TargetSpec("rim", 2, np.uint8, "linear"))
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"probability": (0.35, 0.5, 0.65), "refine": (True, False)}

    def __init__(self, settings: StarDistSettings, make_network: Callable[[int, int], Any], shapes: Shapes) -> None:
        super().__init__()
        self.settings, self.shapes = settings, shapes
        self.side = settings.grid
        self.cell = (1,) * (shapes.dimensions - 2) + (self.side, self.side)
        anisotropy = 1.0 if settings.anisotropy == "auto" else settings.anisotropy
        self.rays = make_rays(shapes.dimensions, settings.ray_count(shapes.dimensions), anisotropy)
        count = len(self.rays.directions)
        self.diameter = DIAMETER if settings.diameter == "auto" else settings.diameter
        self.decode_halo = int(np.ceil(FARTHEST * self.diameter))
        self.network = make_network(shapes.input_channels, 2 + count // self.side**2)
        scale = (Fraction(1), Fraction(1, self.side), Fraction(1, self.side))
        self.outputs = (
            OutputSpec("probability", "probability", 1),
            OutputSpec("foreground", "probability", 1),
            OutputSpec("distances", "embedding", count, scale=scale),
        )
        self.results = (OutputSpec("labels", "labels", 1), *self.outputs)

    # ---- learning ----

    def encode_labels(self, labels: NDArray[Any], unknown: NDArray[np.bool_] | None) -> dict[str, NDArray[Any]]:
        """Ids 1…n as int32 ``(1, Z, Y, X)``; centre probability, and where it is known, as uint8 ``(2, Z, Y, X)``."""
        _, ids = np.unique(np.append(labels.ravel(), 0), return_inverse=True)
        spacing = self.rays.spacing.tolist() if self.shapes.dimensions == 3 else None
        rim = np.empty((2, *labels.shape), np.uint8)
        rim[0] = (distance_map(labels, spacing) * FULL).round()
        rim[1] = FULL if unknown is None else np.where(beside_unknown(labels, unknown), 0, FULL)
        return {"objects": ids[:-1].reshape(1, *labels.shape).astype(np.int32), "rim": rim}

    def loss_weights(self) -> dict[str, float]:
        s = self.settings
        return {
            "probability": s.probability_weight,
            "foreground": s.foreground_weight,
            "distance": s.distance_weight,
            "background": s.background_weight,
        }

    def losses(self, batch: Batch, player: str, context: TrainContext) -> dict[str, Tensor]:
        """Cross entropy of centre probability and foreground, mean error of distances, their mean in the background."""
        raw = self.network(batch["source"]).float()
        weight = batch["weight"]
        # Where a pixel is unknown its target may be anything: it must not be looked at.
        rim = torch.where(weight > 0, batch["rim"], 0).float() / FULL
        objects = torch.where(weight > 0, batch["objects"], -1)
        centre = F.binary_cross_entropy_with_logits(raw[:, :1], rim[:, :1], reduction="none")
        inside = F.binary_cross_entropy_with_logits(raw[:, 1:2], (objects > 0).float(), reduction="none")
        importance = weight * rim[:, :1]
        distance, background = self._distance_terms(self._distances(raw), objects[:, 0], importance[:, 0], context)
        return {
            "probability": mean_by(centre, weight * rim[:, 1:2]),
            "foreground": mean_by(inside, weight),
            "distance": distance,
            "background": background,
        }

    def _distances(self, raw: Tensor) -> Tensor:
        """Distances ``(B, N, [Z], Y, X)`` per cell, pixels; a network that makes 0 says that objects are as usual."""
        return (1 + fold(raw[:, 2:], self.side)) * (self.diameter / 2)

    def _distance_terms(
        self, distances: Tensor, objects: Tensor, importance: Tensor, context: TrainContext
    ) -> tuple[Tensor, Tensor]:
        """Mean error along the rays, centres counting most, and mean distance in the background."""
        middle = slice(self.side // 2, None, self.side)
        own, importance = objects[..., middle, middle], importance[..., middle, middle]
        distances = distances.movedim(1, -1)
        background = mean_by(distances.abs().mean(-1), (own == 0).float())
        cells = (own > 0).nonzero()
        if len(cells) > CELLS:
            order = torch.randperm(len(cells), generator=context.rng, device=context.rng.device)
            cells = cells[order[:CELLS].to(cells.device)]
        at = tuple(cells.T)
        found, complete = march(objects, cells, self.rays, self.cell)
        short = found - distances[at]
        error = torch.where(complete, short.abs(), short.clamp(min=0))
        return mean_by(error.mean(-1), importance[at]), background

    # ---- predicting ----

    def translate(self, x: Tensor, context: TranslateContext) -> dict[str, Tensor]:
        raw = self.network(x).float()
        maps = torch.sigmoid(raw[:, :2])
        return {"probability": maps[:, :1], "foreground": maps[:, 1:], "distances": self._distances(raw)}

    def turn_back(self, name: str, values: Tensor, mirrored: Sequence[int]) -> Tensor:
        if name != "distances":
            return values
        steps = self.rays.steps.copy()
        steps[:, list(mirrored)] *= -1
        # The inverse of the distance is linear between the rays of a facet.
        turn = torch.from_numpy(self.rays.coordinates(steps)).to(values)
        return 1 / torch.einsum("kn,bn...->bk...", turn, 1 / values.clamp(min=1e-3))

    def decode(self, maps: Mapping[str, NDArray[Any]], decoding: StarDistDecoding) -> NDArray[np.uint32]:
        probability = np.asarray(maps["probability"][0], np.float32)
        farthest = FARTHEST * self.diameter
        distances = np.minimum(np.asarray(maps["distances"], np.float32), farthest)
        proposals = propose(cell_means(probability, self.side), distances, self.rays, decoding.probability, self.cell)
        reach = float(proposals.distances.max(initial=1))
        labels = paint(proposals, Painter(self.rays, self.cell, reach), probability.shape, decoding.overlap)
        if decoding.refine:
            labels = refined(labels, maps["foreground"][0] > decoding.foreground)
        return tidy(labels, decoding.min_size, fill_holes=decoding.refine)


# ---- maps from labels, labels from maps; (Z, Y, X) or (Y, X) ----


def cell_means(pixels: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Mean of each cell of side × side pixels of a plane; the last ones may be smaller."""
    y, x = (-(-n // side) * side - n for n in pixels.shape[-2:])
    padded = np.pad(pixels, [(0, 0)] * (pixels.ndim - 2) + [(0, y), (0, x)], mode="edge")
    rows, columns = padded.shape[-2] // side, padded.shape[-1] // side
    means: NDArray[np.float32] = padded.reshape(*pixels.shape[:-2], rows, side, columns, side).mean((-3, -1))
    return means


def refined(labels: NDArray[np.uint32], foreground: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Labels that end where the foreground ends, and reach it where it is near."""
    from scipy.ndimage import maximum_filter

    labels = np.where(foreground, labels, 0)
    for _ in range(GROWTH):
        labels = np.where(foreground & (labels == 0), maximum_filter(labels, 3), labels)
    return labels
