"""What happens to the maps of a tile: blended, decoded, brought to the source grid, written.

Pointwise decoding streams: a block is written as soon as its last tile is there. Where decoding must
see more (instances, vectors), the maps of one volume are kept first, in memory or in a scratch file.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from im2im_core.engine.blend import Blender, scaled
from im2im_core.engine.frameworks.contract import Framework, OutputSpec, TranslateContext
from im2im_core.engine.predict_output import Outputs
from im2im_core.engine.predict_place import place_block, rescale_vectors
from im2im_core.engine.predict_plan import OutGrid, Plan, is_vector, spec_scale
from im2im_core.errors import ResourceError
from im2im_core.files import remove
from im2im_core.inference import Inference
from im2im_core.rescale import read_resampled
from im2im_core.stitch import Block, LabelStitcher, intersect, shifted, split_blocks
from im2im_core.tiling import Blending, Slices, Tile

MEMORY_LIMIT = 2**29
"""Bytes of float32 maps of one volume that are held in memory; larger ones go to a float16 scratch file."""
DECODE_PIXELS = 2**24
"""Pixels of a volume that are decoded at once; larger ones block by block."""
USUAL_VALUES = 4
"""Values of all maps per pixel for which that many pixels fit into memory; of more, fewer pixels are taken."""
SCRATCH = f".im2im-{hashlib.sha256(platform.node().encode()).hexdigest()[:8]}-"
"""How names of scratch files begin: the computer, then the process. Computers may share a folder."""
Maps = dict[str, NDArray[Any]]


class Decoder:
    """Results of blended maps, with axes, units and pixels as the outputs want them."""

    def __init__(
        self, framework: Framework, inference: Inference, plan: Plan, options: Mapping[str, Any], seed: int
    ) -> None:
        self.framework, self._inference, self._plan = framework, inference, plan
        self._options, self._seed = options, seed

    def __call__(self, maps: Mapping[str, NDArray[Any]], names: Sequence[str]) -> Maps:
        """Results ``(C, Z, Y, X)`` among `names`, of maps ``(C, Z, Y, X)``."""
        flat = {spec.name: self._squeeze(spec, maps[spec.name]) for spec in self.framework.outputs}
        context = TranslateContext(seed=self._seed, options=self._options)
        results = self.framework.postprocess(flat, context)
        specs = {spec.name: spec for spec in self.framework.results}
        return {name: self._expand(specs[name], np.asarray(results[name])) for name in names}

    def _squeeze(self, spec: OutputSpec, values: NDArray[Any]) -> NDArray[Any]:
        if is_vector(spec):
            return values[:, 0, 0, 0]
        return values[:, 0] if self._plan.dimensions == 2 or "Z" not in spec.axes else values

    def _expand(self, spec: OutputSpec, values: NDArray[Any]) -> NDArray[Any]:
        if spec.kind == "image" and self._inference.target_scaling:
            scaling = self._inference.target_scaling.scaling()
            if len(scaling.offset) in (1, len(values)):
                values = scaling.invert(values)
        return expand(spec, values, self._plan.dimensions)


def expand(spec: OutputSpec, values: NDArray[Any], dimensions: int) -> NDArray[Any]:
    """``(C, Z, Y, X)`` of an array whose dropped axes are missing."""
    if is_vector(spec):
        return values.reshape(-1, 1, 1, 1)
    return values[:, None] if dimensions == 2 or "Z" not in spec.axes else values


def streams(framework: Framework) -> bool:
    """Whether a block can be decoded without its neighbours."""
    vectors = any(is_vector(spec) for spec in (*framework.outputs, *framework.results))
    return framework.stitch == "none" and framework.decode_halo == 0 and not vectors


class Delivery:
    """Takes the tiles of one volume after the other; runs in the writing thread.

    Parameters
    ----------
    resume : tuple of int
        Volume and number of its tiles that are final already; they are blended but not written again.
    """

    def __init__(
        self,
        plan: Plan,
        blending: Blending,
        decoder: Decoder,
        outputs: Outputs,
        scratch: Path | None,
        resume: tuple[int, int],
        objects: int,
    ) -> None:
        self.plan, self._decoder, self._outputs = plan, decoder, outputs
        self._blending, self._scratch = blending, scratch
        self.frame, self._final = resume
        self.objects = objects
        self._streams = streams(decoder.framework)
        self._volume: _Volume | None = None
        self._blender: Blender | None = None

    def add(self, frame: int, number: int, maps: Mapping[str, NDArray[Any]]) -> bool:
        """Take the maps ``(C, [Z], Y, X)`` of tile `number`; whether its volume is complete."""
        if frame < self.frame:
            return False
        plan, specs = self.plan, self._decoder.framework.outputs
        if self._blender is None:
            scales = {spec.name: spec_scale(spec) for spec in specs}
            self._blender = Blender(plan.overlap, self._blending, margin=plan.margin, scales=scales)
        tile = plan.tiles[number]
        expanded = {spec.name: expand(spec, maps[spec.name], plan.dimensions) for spec in specs}
        vectors = {s.name: expanded.pop(s.name) for s in specs if is_vector(s)}
        block, blended = self._blender.add(tile, expanded)
        if self._streams:
            self._stream(number, tile, block, blended)
        else:
            self._keep(tile, block, blended, vectors)
        return self._completed(number)

    def _completed(self, number: int) -> bool:
        if number < len(self.plan.tiles) - 1:
            return False
        if self._volume is not None:
            self.objects += self._volume.decode(self._decoder, self._outputs, self.frame, self.objects)
            self._volume.close()
        self._volume = self._blender = None
        self.frame, self._final = self.frame + 1, 0
        planes = len(self.plan.frames) // len({t for t, _ in self.plan.frames})
        if self.frame % planes == 0:
            self.objects = 0  # ids are unique within a time point
        self._outputs.done(self.frame, 0, self.objects)
        return True

    def close(self) -> None:
        """Delete scratch files of a volume that was not finished."""
        if self._volume is not None:
            self._volume.close()

    def _stream(self, number: int, tile: Tile, block: Slices, maps: Maps) -> None:
        if number < self._final:
            return
        names = list(self._outputs.grids)
        for name, values in self._decoder(maps, names).items():
            grid = self._outputs.grids[name]
            placed = place_block(self.plan, grid, tile, block, values)
            if placed:
                self._outputs.write(name, self.frame, *placed)
        self._outputs.done(self.frame, number + 1, 0)

    def _keep(self, tile: Tile, block: Slices, maps: Maps, vectors: Maps) -> None:
        if self._volume is None:
            self._volume = _Volume(self.plan, self._decoder.framework, self._scratch)
        self._volume.put(block, maps)
        weight = float(np.prod([s.stop - s.start for s in tile.inner]))
        self._volume.add_vectors(vectors, weight)


class _Volume:
    """Maps of one volume until it is decoded."""

    def __init__(self, plan: Plan, framework: Framework, scratch: Path | None) -> None:
        self._plan, self._framework = plan, framework
        self._needed = plan.needed()
        self._store = _Scratch(scratch)
        spatial = [spec for spec in framework.outputs if not is_vector(spec)]
        shapes = {spec.name: (spec.channels, *_lengths(scaled(self._needed, spec_scale(spec)))) for spec in spatial}
        large = 4 * sum(int(np.prod(shape)) for shape in shapes.values()) > MEMORY_LIMIT
        self._maps = {
            name: self._store.make(shape, np.float16 if large else np.float32, large) for name, shape in shapes.items()
        }
        self._specs = {spec.name: spec for spec in framework.outputs}
        self._vectors: Maps = {}
        self._weight = 0.0

    def put(self, block: Slices, maps: Maps) -> None:
        """Keep a finished block."""
        for name, values in maps.items():
            self._maps[name][self._inside(self._specs[name], block)] = values

    def add_vectors(self, vectors: Maps, weight: float) -> None:
        """Add to the averages over the image; `weight` is the number of pixels that the tile answers for."""
        for name, values in vectors.items():
            self._vectors[name] = self._vectors.get(name, 0) + weight * values.astype(np.float64)
        self._weight += weight

    def decode(self, decoder: Decoder, outputs: Outputs, frame: int, objects: int) -> int:
        """Number of new objects, after writing every result."""
        names = list(outputs.grids)
        blocks = self._blocks()
        main = self._framework.results[0].name if self._framework.stitch == "instances" else ""
        kept: dict[str, NDArray[Any]] = {}
        stitcher: LabelStitcher | None = None
        for block in blocks:
            results = decoder(self._cut(block.outer), names)
            for name, values in results.items():
                grid = outputs.grids[name]
                if name not in kept:
                    kept[name] = self._result(grid, values)
                    if name == main:
                        mapped = [_mapped(b, grid, self._needed) for b in blocks]
                        stitcher = LabelStitcher(kept[name][0], mapped)
                self._collect(kept[name], grid, block, values, stitcher if name == main else None)
        count = stitcher.finish(objects + 1) if stitcher else 0
        for name, values in kept.items():
            self._deliver(outputs, name, frame, values)
        return count

    def close(self) -> None:
        """Delete the scratch files."""
        self._store.close()

    def _blocks(self) -> tuple[Block, ...]:
        shape = _lengths(self._needed)
        values = sum(s.channels * float(math.prod(spec_scale(s))) for s in self._specs.values() if not is_vector(s))
        pixels = DECODE_PIXELS * min(1.0, USUAL_VALUES / max(values, 1.0))
        if int(np.prod(shape)) <= pixels or any(is_vector(s) for s in self._framework.results):
            return split_blocks(shape, shape, (0, 0, 0))
        flat = shape[0] == 1
        side = round(pixels ** (1 / (2 if flat else 3))) // 16 * 16 or 16
        halo = -(-self._framework.decode_halo // 16) * 16
        # Half of the side leaves room for the halo on both sides within the pixels allowed.
        side = max(16, side // 2, halo)
        return split_blocks(shape, (shape[0] if flat else side, side, side), (0 if flat else halo, halo, halo))

    def _cut(self, outer: Slices) -> Maps:
        moved = _moved(outer, self._needed)
        cut = {n: np.asarray(a[self._inside(self._specs[n], moved)], np.float32) for n, a in self._maps.items()}
        vectors = {n: (v / max(self._weight, 1.0)).astype(np.float32) for n, v in self._vectors.items()}
        return {**cut, **vectors}

    def _inside(self, spec: OutputSpec, region: Slices) -> tuple[slice, ...]:
        scale = spec_scale(spec)
        return slice(None), *shifted(scaled(region, scale), scaled(self._needed, scale))

    def _result(self, grid: OutGrid, values: NDArray[Any]) -> NDArray[Any]:
        if is_vector(grid.spec):
            return np.zeros(values.shape, grid.dtype)
        shape = (grid.spec.channels, *_lengths(scaled(self._needed, grid.scale)))
        large = int(np.prod(shape)) * grid.dtype.itemsize > MEMORY_LIMIT
        return self._store.make(shape, grid.dtype, large)

    def _collect(
        self, kept: NDArray[Any], grid: OutGrid, block: Block, values: NDArray[Any], stitcher: LabelStitcher | None
    ) -> None:
        if is_vector(grid.spec):
            kept[:] = values
            return
        mapped = _mapped(block, grid, self._needed)
        if stitcher is not None:
            stitcher.add(mapped, values[0])
        else:
            kept[(slice(None), *mapped.core)] = values[(slice(None), *shifted(mapped.core, mapped.outer))]

    def _deliver(self, outputs: Outputs, name: str, frame: int, values: NDArray[Any]) -> None:
        """Write a result of the network grid at the source grid, part by part."""
        grid = outputs.grids[name]
        if is_vector(grid.spec):
            outputs.write(name, frame, (slice(0, 1),) * 3, values)
            return
        plan = self._plan
        map_shape = _lengths(scaled(tuple(slice(0, n) for n in plan.network), grid.scale))
        origin = scaled(self._needed, grid.scale)
        order = "nearest" if grid.spec.kind == "labels" else "linear"

        def read(region: Slices) -> NDArray[Any]:
            inside = intersect(region, origin) or origin
            part = np.asarray(values[(slice(None), *shifted(inside, origin))])
            after = [(i.start - r.start, r.stop - i.stop) for i, r in zip(inside, region, strict=True)]
            return np.pad(part, [(0, 0), *after], mode="edge")

        part = _lengths(grid.part)
        flat = part[0] == 1
        side = (part[0] if flat else 64, 1024 if flat else 256, 1024 if flat else 256)
        for block in split_blocks(part, side, (0, 0, 0)):
            region = _moved(block.core, grid.part)
            pixels = read_resampled(read, map_shape, grid.whole, region, order)  # type: ignore[arg-type]
            outputs.write(name, frame, region, rescale_vectors(plan, grid, pixels))


def _lengths(region: Slices) -> tuple[int, ...]:
    return tuple(s.stop - s.start for s in region)


def _moved(region: Slices, origin: Slices) -> Slices:
    return tuple(slice(r.start + o.start, r.stop + o.start) for r, o in zip(region, origin, strict=True))


def _mapped(block: Block, grid: OutGrid, needed: Slices) -> Block:
    """`block` of the network grid on the grid of a result, from the start of what is needed."""
    origin = scaled(needed, grid.scale)
    outer, core = (shifted(scaled(_moved(r, needed), grid.scale), origin) for r in (block.outer, block.core))
    return Block(block.index, outer, core)


def remove_leftovers(path: Path) -> None:
    """Delete what killed predictions left: parts of the output `path`, and scratch files in its folder."""
    parts = path.parent.glob(f".{escape(path.name[:180])}.*.part")
    files = path.parent.glob(f"{SCRATCH}*.scratch")
    found = [(p, p.name.removesuffix(".part").rpartition(".")[2]) for p in parts]
    found += [(p, p.name.removeprefix(SCRATCH).partition("-")[0]) for p in files]
    for place, pid in found:
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            with suppress(OSError):  # another prediction that begins now may have been faster
                remove(place)


class _Scratch:
    """Arrays in memory or in preallocated files, so that a full disk is an error and not a crash."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._paths: list[Path] = []

    def make(self, shape: Sequence[int], dtype: Any, on_disk: bool) -> NDArray[Any]:
        """Array of zeros."""
        if not on_disk:
            return np.zeros(shape, dtype)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        try:
            handle, name = tempfile.mkstemp(prefix=f"{SCRATCH}{os.getpid()}-", suffix=".scratch", dir=self._folder)
            self._paths.append(Path(name))
            _allocate(handle, size)
        except OSError as error:
            self.close()
            raise ResourceError(
                f"No room for {size / 1e9:.1f} GB of maps in {self._folder or tempfile.gettempdir()}",
                "Free space there, predict a smaller region, or write to another folder",
            ) from error
        return np.memmap(name, dtype, "r+", shape=tuple(shape))

    def close(self) -> None:
        for path in self._paths:
            path.unlink(missing_ok=True)
        self._paths.clear()


def _allocate(handle: int, size: int) -> None:
    try:
        allocate: Callable[[int, int, int], None] | None = getattr(os, "posix_fallocate", None)
        if allocate:
            allocate(handle, 0, size)
        else:
            os.truncate(handle, size)
    finally:
        os.close(handle)
