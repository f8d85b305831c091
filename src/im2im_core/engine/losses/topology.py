"""As many components and holes as the truth has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy.ndimage import generate_binary_structure, label
from torch import Tensor

from im2im_core.engine.losses.base import ratio
from im2im_core.engine.losses.classes import Classes
from im2im_core.engine.losses.persistence import Features, components

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.recipe import losses as settings_of


class Topology:
    """Sum over components and holes of how far each is from being complete, or from not being there.

    Persistent homology gives the height at which a component of the probability begins and the one
    at which it joins an older one. As many of them as the truth has, those that last longest, are
    pulled to begin at 1 and to end at 0; all others are levelled (Hu et al. 2019, whose matching of
    persistence diagrams comes to this where the truth is certain). Holes in 2D and cavities in 3D
    are components of the opposite that do not reach the border or what is unknown. The foreground
    holds together over corners, the background over faces.
    """

    def __init__(self, settings: settings_of.Topology) -> None:
        self.classes = Classes(settings.class_weights, settings.background)
        self.holes = settings.holes

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Mean over the images with known pixels, then over the classes."""
        probability, truth = self.classes.maps(prediction, target, weight)
        regions = (truth > 0.5).cpu().numpy()
        known = (weight > 0).cpu().numpy()[:, 0]
        seen = probability.detach().cpu().numpy()
        # Relative to the mean over what is known, as in a weighted mean.
        relative = ratio(weight, weight.sum() / (weight > 0).sum().clamp_min(1))
        rows = [probability.new_zeros(probability.shape[1]) + 0 * probability.sum()]
        for b in np.flatnonzero(known.any(tuple(range(1, known.ndim)))):
            maps = zip(probability[b], seen[b], regions[b], strict=True)
            rows.append(torch.stack([self._cost(p, relative[b, 0], (s, r, known[b])) for p, s, r in maps]))
        return self.classes.mean(torch.stack(rows).sum(0) / max(len(rows) - 1, 1))

    def _cost(self, probability: Tensor, weight: Tensor, arrays: tuple[NDArray[Any], ...]) -> Tensor:
        """Cost of one class in one image ``([Z], Y, X)``; `arrays` are its probability, truth and what is known."""
        flat, w = probability.flatten(), weight.flatten()
        cost = _distance(flat, w, find_components(*arrays))
        return cost + _distance(1 - flat, w, find_holes(*arrays)) if self.holes else cost


class Found(NamedTuple):
    """Features of a predicted map, the most persistent first, and how many the truth has."""

    features: Features
    wanted: int


def find_components(seen: NDArray[np.float32], region: NDArray[np.bool_], known: NDArray[np.bool_]) -> Found:
    """Components of a probability map, and the number of those of the true region."""
    features = components(seen, known, diagonal=True)
    _, wanted = label(region & known, generate_binary_structure(seen.ndim, seen.ndim))
    return Found(_by_persistence(seen, features), int(wanted))


def find_holes(seen: NDArray[np.float32], region: NDArray[np.bool_], known: NDArray[np.bool_]) -> Found:
    """Holes of a probability map that are enclosed within the known, and the number of those of the true region.

    Indices are those of the map, although the search goes on a frame of one pixel around it.
    """
    inside = np.pad(known, 1)
    # Older than everything, so that whatever reaches the frame or the unknown ends there.
    opposite = np.where(inside, 1 - np.pad(seen, 1), np.float32(2))
    found = components(opposite, np.ones_like(inside), diagonal=False)
    enclosed = inside.ravel()[found.births]
    place = np.pad(np.arange(seen.size).reshape(seen.shape), 1, constant_values=-1).ravel()
    features = Features(place[found.births[enclosed]], place[found.deaths[enclosed]])
    holes, count = label(~np.pad(region, 1) | ~inside)
    open_ = np.unique(holes[~inside])
    return Found(_by_persistence(1 - seen, features), count - int((open_ > 0).sum()))


def _by_persistence(values: NDArray[np.float32], features: Features) -> Features:
    flat = values.ravel()
    lasts = flat[features.births] - np.where(features.deaths >= 0, flat[features.deaths], 0)
    order = np.argsort(-lasts, kind="stable")
    return Features(features.births[order], features.deaths[order])


def _distance(values: Tensor, weight: Tensor, found: Found) -> Tensor:
    """Squared distance of the persistence diagram from that of the truth; `values` and `weight` are flat."""
    births = torch.from_numpy(found.features.births).to(values.device)
    deaths = torch.from_numpy(found.features.deaths).to(values.device)
    dies = (deaths >= 0).float()
    deaths = deaths.clamp_min(0)
    begin, end = values[births], values[deaths] * dies
    w_begin, w_end = weight[births], weight[deaths] * dies
    complete = w_begin * (1 - begin).square() + w_end * end.square()
    # To the nearest point of the diagonal, where a feature ends as it begins.
    levelled = torch.where(dies > 0, (w_begin + w_end) / 2, w_begin) * (begin - end).square() / 2
    wanted = torch.arange(len(births), device=values.device) < found.wanted
    return torch.where(wanted, complete, levelled).sum()
