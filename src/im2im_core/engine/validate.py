"""Losses and metrics on images that are not trained on, within a set part of the time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from im2im_core.engine.blend import scaled
from im2im_core.engine.data import cut
from im2im_core.engine.frameworks.contract import TrainContext, TranslateContext
from im2im_core.engine.sampling import window_around

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from im2im_core.engine.figures import Figures
    from im2im_core.engine.frameworks.contract import Framework, OutputSpec
    from im2im_core.engine.named_metrics import NamedMetric
    from im2im_core.engine.prepare import Entry

LARGEST = {2: ((1, 512, 512), (1, 256, 256)), 3: ((48, 192, 192), (32, 96, 96))}
"""Largest parts of a validation image that are looked at, along Z, Y, X; the second where time is short."""

GRAIN = 4
"""Pixels of the image per pixel of the coarsest map."""


@dataclass(frozen=True)
class View:
    """A part of one prepared image, padded to what the network can take."""

    entry: Entry
    place: tuple[slice, ...]
    planes: bool

    def alone(self) -> View:
        """The same view of a copy of this part, so that the rest of a large image is not kept in memory."""
        shape = self.entry.shape
        spans = [slice(max(p.start, 0), min(p.stop, n)) for p, n in zip(self.place, shape, strict=True)]
        if [s.stop - s.start for s in spans] == list(shape):
            return self
        z, y, x = spans
        # Targets of a projection have one plane for all.
        arrays = {
            name: array[:, z if array.shape[1] == shape[0] else slice(0, 1), y, x].copy()
            for name, array in self.entry.arrays.items()
        }
        place = tuple(slice(p.start - s.start, p.stop - s.start) for p, s in zip(self.place, spans, strict=True))
        return View(replace(self.entry, arrays=arrays), place, self.planes)

    def inner(self) -> tuple[slice, ...]:
        """The part of the view that is image and not padding, along [Z], Y, X."""
        spans = [
            slice(max(-p.start, 0), min(p.stop, n) - p.start) for p, n in zip(self.place, self.entry.shape, strict=True)
        ]
        return tuple(spans[1:] if self.planes else spans)

    def source(self, framework: Framework) -> Tensor:
        """Normalised input ``(1, C, [Z], Y, X)``."""
        arrays = cut(self.entry, self.place, framework.targets, self.planes)
        return torch.from_numpy(np.ascontiguousarray(arrays["source"]))[None]

    def truth(self) -> NDArray[Any]:
        """Original targets ``(C, [Z], Y, X)`` of the inner part."""
        array = self.entry.arrays["truth"]
        z, y, x = (slice(max(p.start, 0), min(p.stop, n)) for p, n in zip(self.place, self.entry.shape, strict=True))
        z = z if array.shape[1] == self.entry.shape[0] else slice(0, 1)
        part = np.asarray(array[:, z, y, x])
        return part[:, 0] if self.planes else part


def view_of(
    entry: Entry,
    divisor: tuple[int, ...],
    dimensions: int,
    centre: tuple[int, ...] | None = None,
    largest: tuple[int, ...] | None = None,
) -> View:
    """View of the middle of an image (or around `centre`), as large as is sensible."""
    steps = (1, *divisor)[-3:]
    limit = largest or LARGEST[dimensions][0]
    size = tuple(min(-(-n // d) * d, max(m // d * d, d)) for n, d, m in zip(entry.shape, steps, limit, strict=True))
    if dimensions == 2:
        size = (1, *size[1:])
    middle = centre or tuple(n // 2 for n in entry.shape)
    place = window_around(middle, size, size, entry.shape)
    # Before the image there is padding of whole pixels of every map.
    shifts = [p.start % -GRAIN if p.start < 0 else 0 for p in place]
    place = tuple(slice(p.start - s, p.stop - s) for p, s in zip(place, shifts, strict=True))
    return View(entry, place, dimensions == 2)


class Validator:
    """Validation of a framework on fixed views.

    Parameters
    ----------
    views : list of View
        Parts of validation images; always the same ones, so that curves can be compared.
    metrics : sequence of NamedMetric
        Figures beside those of the framework; they compare its main result.
    figures : Figures, optional
        Further ones by name.
    """

    def __init__(
        self,
        views: list[View],
        device: torch.device,
        seed: int,
        metrics: Sequence[NamedMetric] = (),
        figures: Figures | None = None,
    ) -> None:
        self.views, self.device, self.seed, self.metrics, self.figures = views, device, seed, metrics, figures

    @torch.inference_mode()
    def run(self, framework: Framework) -> dict[str, float]:
        """Mean of every loss term, their weighted sum ``total`` and the framework's metrics."""
        rows = []
        for view in self.views:
            batch = self._batch(view, framework)
            losses = self._losses(framework, batch)
            maps = self._maps(framework, batch["source"], view)
            results = framework.postprocess(maps, TranslateContext())
            weight, truth, main = _known(batch, view), view.truth(), results[framework.results[0].name]
            own = framework.metrics(results, {"target": truth}, weight)
            further = self.figures(main, truth, weight, there=own) if self.figures else {}
            named = {m.name: m(main, truth, weight) for m in self.metrics}
            rows.append({**losses, **own, **further, **named})
        return {k: float(np.mean([r[k] for r in rows if k in r])) for k in dict.fromkeys(k for r in rows for k in r)}

    @torch.inference_mode()
    def predictions(self, framework: Framework) -> Iterator[tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]]:
        """Maps, and original targets with their ``weight``, of every view, for choosing thresholds."""
        for view in self.views:
            batch = self._batch(view, framework)
            yield self._maps(framework, batch["source"], view), {"target": view.truth(), "weight": _known(batch, view)}

    @torch.inference_mode()
    def maps_of(self, framework: Framework, view: View) -> dict[str, NDArray[Any]]:
        """Maps ``(C, [Z], Y, X)`` of one view, without its padding."""
        return self._maps(framework, self._batch(view, framework)["source"], view)

    def _batch(self, view: View, framework: Framework) -> dict[str, Tensor]:
        arrays = cut(view.entry, view.place, framework.targets, view.planes)
        return {n: torch.from_numpy(np.ascontiguousarray(a))[None].to(self.device) for n, a in arrays.items()}

    def _losses(self, framework: Framework, batch: dict[str, Tensor]) -> dict[str, float]:
        rng = torch.Generator(device="cpu").manual_seed(self.seed)
        found: dict[str, Tensor] = {}
        for player in framework.players():
            found |= framework.losses(batch, player.name, TrainContext(0, rng))
        # By the weights of the end: what a schedule changes meanwhile is no progress.
        weights = framework.weights_at(1.0)
        values = {name: float(value) for name, value in found.items()}
        return {**values, "total": sum(weights[n] * value for n, value in values.items() if weights[n])}

    def _maps(self, framework: Framework, source: Tensor, view: View) -> dict[str, NDArray[Any]]:
        maps = framework.translate(source, TranslateContext(seed=self.seed))
        return {s.name: maps[s.name][0].float().cpu().numpy()[_inner(s, view)] for s in framework.outputs}


def _inner(spec: OutputSpec, view: View) -> tuple[slice, ...]:
    """The part of a map that is image and not padding."""
    if spec.axes != "CZYX":
        return (slice(None),)
    inner = view.inner()
    return slice(None), *scaled(inner, spec.scale[-len(inner) :])


def _known(batch: dict[str, Tensor], view: View) -> NDArray[Any]:
    """Weight ``(1, [Z], Y, X)`` of the part of a view that is image."""
    return np.asarray(batch["weight"][0].cpu().numpy()[(slice(None), *view.inner())])
