"""Confidence intervals of figures: whole images are drawn with replacement, again and again."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from im2im_core.metrics import figures_of, pooled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.metrics import Key, Parts, Sums

RESAMPLES = 1000
FEWEST = 10
"""Images from which the resampling is to be trusted; with fewer it makes intervals too narrow."""


@dataclass(frozen=True)
class Resampling:
    """Whole images drawn with replacement, again and again (Efron, Annals of Statistics 7 (1979) 1)."""

    owner: NDArray[np.intp]
    """Image that each row belongs to."""
    times: NDArray[np.float64]
    """How often each image is drawn, one line per resampling."""

    @classmethod
    def of(cls, groups: list[str], seed: int) -> Resampling | None:
        """Draws from the images that `groups` name row by row; None where there is one image alone."""
        numbers = {name: i for i, name in enumerate(dict.fromkeys(groups))}
        if len(numbers) < 2:
            return None
        drawn = np.random.default_rng(seed).integers(0, len(numbers), (RESAMPLES, len(numbers)))
        times = np.stack([np.bincount(line, minlength=len(numbers)) for line in drawn]).astype(np.float64)
        return cls(np.array([numbers[name] for name in groups]), times)

    def totals(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum of `values` (rows first) over the rows of every draw."""
        gathered = np.zeros((self.times.shape[1], *values.shape[1:]))
        np.add.at(gathered, self.owner, values)
        return self.times @ gathered

    def of_means(self, rows: list[dict[str, float]], names: list[str]) -> dict[str, tuple[float, float]]:
        """Interval of the mean of each figure over the rows that have it; none where a figure is not finite."""
        result = {}
        for name in names:
            values = np.array([row.get(name, 0.0) for row in rows])
            if not np.isfinite(values).all():
                continue
            total, number = self.totals(values), self.totals(np.array([float(name in row) for row in rows]))
            result[name] = _percentiles(total[number > 0] / number[number > 0])
        return result

    def of_pooled(self, sums: list[Parts]) -> dict[str, tuple[float, float]]:
        """Interval of each pooled figure: the formulas over the sums of every draw."""
        totals = {key: self._totals_of(key, sums) for key in pooled(sums)}
        found: dict[str, list[float]] = {}
        for i in range(RESAMPLES):
            parts: Parts = {key: kind(*lines[i].tolist()) for key, (kind, lines, seen) in totals.items() if seen[i]}
            for name, value in figures_of(parts).items():
                found.setdefault(name, []).append(value)
        return {name: _percentiles(np.array(v)) for name, v in found.items() if np.isfinite(v).all()}

    def _totals_of(self, key: Key, sums: list[Parts]) -> tuple[type[Sums], NDArray[np.float64], NDArray[np.bool_]]:
        """Kind of the sums of one key, their fields in every draw, and whether a draw has the key at all."""
        kind = next(type(parts[key]) for parts in sums if key in parts)
        empty = (0.0,) * len(fields(kind))
        values = np.array([astuple(parts[key]) if key in parts else empty for parts in sums], np.float64)
        return kind, self.totals(values), self.totals(np.array([float(key in parts) for parts in sums])) > 0


def _percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
