"""What a prediction will do, decided before it starts: grids, frames, tiles, batches, outputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from im2im_core.axes import AXES, Region, full_region
from im2im_core.engine.blend import Scale, scaled
from im2im_core.engine.frameworks.contract import OutputSpec
from im2im_core.errors import ConfigError, DataError
from im2im_core.image import ImageInfo
from im2im_core.inference import Inference
from im2im_core.predict_options import PredictOptions
from im2im_core.rescale import Rescaling, grid_shape
from im2im_core.tiling import Slices, Tile, choose_tile, cost, padded_shape, round_up, smallest_tile, split_tiles

OVERLAP = 16
"""Pixels over which neighbouring tiles are mixed where the halo permits."""
CHUNK = 256
"""Outputs are written in chunks of this along Y and X, and tiles end there."""
Shape3 = tuple[int, int, int]


@dataclass(frozen=True)
class Plan:
    """One volume after the other is cut into the same tiles; for a planar network a volume is one plane."""

    dimensions: int
    source: Shape3
    """Source volume that the network sees at once, Z, Y, X."""
    network: Shape3
    """The same on the network grid."""
    wanted: Slices
    """Part of the source volume that is predicted."""
    frames: tuple[tuple[int, int], ...]
    """Time point and first plane of every volume."""
    halo: Shape3
    divisor: Shape3
    overlap: Shape3
    margin: Shape3
    chunk: Shape3 | None
    rescaling: Rescaling
    tile: Shape3 = (1, 1, 1)
    batch: int = 1
    tiles: tuple[Tile, ...] = field(default=(), repr=False)

    @property
    def smallest(self) -> tuple[int, ...]:
        """Tile that cannot be made smaller."""
        return smallest_tile(self.network, self.halo, self.divisor, self.overlap)

    def with_tile(self, tile: Sequence[int], batch: int) -> Plan:
        """The same plan cut into tiles of another size."""
        z, y, x = tile
        tiles = split_tiles(
            self.network, tile, self.halo, self.divisor, overlap=self.overlap, chunk=self.chunk, region=self.needed()
        )
        return replace(self, tile=(z, y, x), batch=batch, tiles=tiles)

    def needed(self) -> Slices:
        """Part of the network grid that the wanted part of the source lies on."""
        parts = []
        for part, source, network in zip(self.wanted, self.source, self.network, strict=True):
            factor = network / source
            start = math.floor((part.start + 0.5) * factor - 0.5)
            stop = math.floor((part.stop - 0.5) * factor - 0.5) + (1 if source == network else 2)
            parts.append(slice(max(start, 0), min(stop, network)))
        return tuple(parts)


def spatial(values: Iterable[int], fill: int) -> Shape3:
    """Numbers along Z, Y, X from numbers along Y, X or Z, Y, X."""
    z, y, x = [fill] * 3 if not (given := list(values)) else [*[fill] * (3 - len(given)), *given]
    return z, y, x


def spec_scale(spec: OutputSpec) -> Scale:
    """Scale of an output along Z, Y, X; 0 along a dropped axis."""
    z, y, x = (s if a in spec.axes else Fraction(0) for a, s in zip("ZYX", spec.scale, strict=True))
    return z, y, x


def is_vector(spec: OutputSpec) -> bool:
    """Whether an output has no place in the image."""
    return "Y" not in spec.axes


def make_plan(
    inference: Inference,
    specs: Sequence[OutputSpec],
    info: ImageInfo,
    region: Region,
    rescaling: Rescaling,
    options: PredictOptions,
    to_file: bool,
) -> Plan:
    """Plan without tiles; `with_tile` cuts it.

    Raises
    ------
    DataError
        The model does not fit the image.
    """
    dimensions = inference.shapes.dimensions
    check_image(inference, info)
    planes = range(region[2].start, region[2].stop) if dimensions == 2 else [0]
    frames = tuple((t, z) for t in range(region[0].start, region[0].stop) for z in planes)
    depth = 1 if dimensions == 2 else info.shape[2]
    source = (depth, info.shape[3], info.shape[4])
    network = grid_shape(source, rescaling.factor)
    lcm = _grain(specs)
    flat = dimensions == 2
    divisor = tuple(
        math.lcm(d, n) for d, n in zip(spatial(inference.divisor, 1), (1 if flat else lcm, lcm, lcm), strict=True)
    )
    margin = tuple(lcm if a != b else 0 for a, b in zip(source, network, strict=True))
    halo = spatial(inference.halo, 0)
    overlap = tuple(
        0 if options.blending == "none" else _overlap(h, d, m, lcm)
        for h, d, m in zip(halo, divisor, margin, strict=True)
    )
    chunk = (1, CHUNK, CHUNK) if to_file and source == network else None
    return Plan(
        dimensions=dimensions,
        source=source,
        network=network,
        wanted=(slice(0, 1) if flat else region[2], region[3], region[4]),
        frames=frames,
        halo=halo,
        divisor=spatial(divisor, 1),
        overlap=spatial(overlap, 0),
        margin=spatial(margin, 0),
        chunk=chunk,
        rescaling=rescaling,
    )


def check_image(inference: Inference, info: ImageInfo) -> None:
    """Refuse an image that the model cannot see."""
    wanted, found = inference.shapes.input_channels, info.shape[1]
    if wanted != found:
        names = ", ".join(inference.input.channel_names)
        raise DataError(
            f"{info.name} has {found} channel{'s' * (found > 1)}; the model {inference.name!r} sees {wanted}"
            + (f" ({names})" if names else ""),
            f"Choose {wanted} of them with channels="
            if found > wanted
            else "Use a model for fewer channels, or an image that has them all",
        )
    if inference.shapes.dimensions == 3 and "Z" not in info.axes:
        raise DataError(
            f"{info.name} is a plane (axes {info.axes}); the model {inference.name!r} works on volumes",
            "Give a Z-stack, or name its axes if it has one (for example 'ZYX'), or use a 2D model",
        )
    if min(info.shape) < 1:
        raise DataError(f"{info.name} has no pixels (shape {info.shape})", "Give an image with at least one pixel")


def _grain(specs: Sequence[OutputSpec]) -> int:
    """Network pixels that are a whole number of pixels of every map."""
    return math.lcm(1, *(s.denominator for spec in specs for s in spec_scale(spec) if s))


def _overlap(halo: int, divisor: int, margin: int, grain: int) -> int:
    overlap = min(halo, OVERLAP) // grain * grain
    # The smallest tile must leave room for the strip and the margin that its neighbour needs.
    while overlap > 0 and round_up(max(overlap, 1), divisor) < overlap + margin:
        overlap -= grain
    return max(overlap, 0)


def decide_tile(plan: Plan, specs: Sequence[OutputSpec], options: PredictOptions, budget: int) -> Plan:
    """`plan` with the tiles that the user asked for, or the best ones for a budget of pixels.

    Raises
    ------
    ConfigError
        The size asked for has the wrong number of axes or no room for the halo.
    """
    size = [s.stop - s.start for s in plan.needed()]
    if options.tile == "auto":
        plan, tile = _choose(plan, size, budget, options.max_cost)
    else:
        if len(options.tile) != plan.dimensions:
            raise ConfigError(
                f"tile {options.tile} has {len(options.tile)} numbers",
                f"Give {plan.dimensions}, along {'ZYX'[3 - plan.dimensions :]}",
            )
        tile = list(spatial(options.tile, 1))
        plan = replace(plan, chunk=None)
    limits = padded_shape(plan.network, plan.divisor)
    fits = padded_shape(size, plan.divisor)
    # A part of the image needs a halo of real pixels around it where the image goes on.
    if options.tile == "auto":
        tile = [
            min(limit, t if t < fit else smallest + fit)
            for t, fit, limit, smallest in zip(tile, fits, limits, plan.smallest, strict=True)
        ]
    if any("Z" not in spec.axes for spec in specs):
        tile[0] = limits[0]  # a projection sees all planes
    batch = options.batch if options.batch != "auto" else max(1, min(16, budget // max(1, math.prod(tile))))
    return plan.with_tile(tile, batch)


def _choose(plan: Plan, size: Sequence[int], budget: int, max_cost: float) -> tuple[Plan, list[int]]:
    """Tiles that end with the chunks of the output, unless that makes them too costly."""
    for chunk in (plan.chunk, None):
        tile = choose_tile(size, plan.halo, plan.divisor, budget, max_cost, overlap=plan.overlap, chunk=chunk)
        tiles = split_tiles(size, tile, plan.halo, plan.divisor, overlap=plan.overlap, chunk=chunk)
        if cost(size, tiles) <= max_cost:
            break
    return replace(plan, chunk=chunk), list(tile)


def smaller(plan: Plan, keep_depth: bool) -> Plan | None:
    """`plan` with half the work at once; None where nothing can be made smaller."""
    if plan.batch > 1:
        return plan.with_tile(plan.tile, 1)
    plan = replace(plan, chunk=None)
    tile = [
        t if keep_depth and axis == 0 else max(s, round_up(t // 2, d))
        for axis, (t, s, d) in enumerate(zip(plan.tile, plan.smallest, plan.divisor, strict=True))
    ]
    tile = [min(t, old) for t, old in zip(tile, plan.tile, strict=True)]
    return None if tuple(tile) == plan.tile else plan.with_tile(tile, 1)


# ---- outputs ----


@dataclass(frozen=True)
class OutGrid:
    """Where a result lies: its whole size on the source grid and the part that is wanted."""

    spec: OutputSpec
    scale: Scale
    whole: Shape3
    """Size over the whole source volume, Z, Y, X."""
    part: Slices
    """What is made of it."""
    shape: tuple[int, int, int, int, int]
    """Size of the output array, T, C, Z, Y, X."""
    dtype: np.dtype[Any]
    axes: str
    """Axes that the output keeps."""
    frames: int = 1
    """Volumes that fill it, over time and, for planar networks, planes."""


def out_grid(spec: OutputSpec, plan: Plan, info: ImageInfo, stitched: bool) -> OutGrid:
    """Grid of a result over the source."""
    scale = spec_scale(spec)
    z, y, x = (s.stop for s in scaled(tuple(slice(0, n) for n in plan.source), scale))
    part = scaled(plan.wanted, scale)
    times = len({t for t, _ in plan.frames})
    planes = len(plan.frames) // times
    depth = planes if plan.dimensions == 2 else part[0].stop - part[0].start
    shape = (times, spec.channels, depth, part[1].stop - part[1].start, part[2].stop - part[2].start)
    dropped = {a for a, s in zip("ZYX", scale, strict=True) if not s}
    if plan.dimensions == 2:
        dropped.discard("Z")
    axes = "".join(
        a for a in AXES if (a == "C" and spec.channels > 1) or (a in info.axes and a != "C" and a not in dropped)
    )
    kinds = {"labels": np.uint32 if stitched else np.uint16}
    dtype = np.dtype(kinds.get(spec.kind, np.float32))
    return OutGrid(spec, scale, (z, y, x), part, shape, dtype, axes, len(plan.frames))


def clip_region(region: Region | None, info: ImageInfo) -> Region:
    """`region` checked against the image; all of it when None.

    Raises
    ------
    DataError
        It is empty or reaches outside.
    """
    if region is None:
        return full_region(info.shape)
    for axis, part, size in zip(AXES, region, info.shape, strict=True):
        if not 0 <= part.start < part.stop <= size:
            raise DataError(
                f"The region {part.start}:{part.stop} along {axis} is not inside {info.name}",
                f"Choose a part of 0:{size}",
            )
    return region
