"""The network on a batch of tiles: device, precision, mirrored copies, places."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from im2im_core.axes import Region
from im2im_core.engine.frameworks.contract import Framework, OutputSpec, TranslateContext
from im2im_core.engine.predict_plan import is_vector

PRECISIONS = {"bf16": torch.bfloat16, "16": torch.float16}


class _WatchedContext(TranslateContext):
    """Notes whether the framework asked where the tile is."""

    def __getattribute__(self, name: str) -> Any:
        if name == "region":
            object.__setattr__(self, "asked", True)
        return super().__getattribute__(name)


class Translator:
    """Maps of a batch of tiles.

    The tiles of a batch lie at different places and a context names only one: a framework that asks for
    the place is given its tiles one by one.
    """

    def __init__(
        self,
        framework: Framework,
        device: torch.device,
        precision: str,
        mirrored: bool,
        seed: int,
        options: Mapping[str, Any],
    ) -> None:
        self._framework, self._device = framework, device
        self._dtype = PRECISIONS.get(precision)
        self._mirrored, self._seed, self._options = mirrored, seed, options
        self._one_by_one = False

    def __call__(self, tiles: Tensor, regions: Sequence[Region]) -> dict[str, Tensor]:
        """Float32 maps ``(B, C, [Z], Y, X)``, still on the device."""
        x = tiles.to(self._device, non_blocking=True)
        if not self._one_by_one:
            maps, asked = self._averaged(x, regions[0])
            if not asked or len(regions) == 1:
                return maps
            self._one_by_one = True
        parts = [self._averaged(x[i : i + 1], region)[0] for i, region in enumerate(regions)]
        return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}

    def _averaged(self, x: Tensor, region: Region) -> tuple[dict[str, Tensor], bool]:
        total: dict[str, Tensor] = {}
        asked, count = False, 0
        for axes in self._flips(x.ndim - 2):
            maps, once = self._once(x.flip(axes) if axes else x, region)
            asked, count = asked or once, count + 1
            for spec in self._framework.outputs:
                back = _flip_back(maps[spec.name].float(), spec, axes, x.ndim)
                back = self._framework.turn_back(spec.name, back, axes) if axes else back
                total[spec.name] = total[spec.name] + back if spec.name in total else back
        return {name: value / count if count > 1 else value for name, value in total.items()}, asked

    def _flips(self, spatial: int) -> Iterator[list[int]]:
        """Axes to mirror, counted from the last: none, and all combinations when mirroring is on."""
        axes = list(range(-spatial, 0))
        sizes = range(spatial + 1) if self._mirrored else [0]
        for size in sizes:
            yield from map(list, itertools.combinations(axes, size))

    def _once(self, x: Tensor, region: Region) -> tuple[dict[str, Tensor], bool]:
        context = _WatchedContext(region, self._seed, self._options)
        cast = torch.autocast(self._device.type, self._dtype) if self._dtype else nullcontext()
        with torch.inference_mode(), cast:
            maps = self._framework.translate(x, context)
        return maps, getattr(context, "asked", False)


def _flip_back(values: Tensor, spec: OutputSpec, axes: list[int], ndim: int) -> Tensor:
    """Map of a mirrored tile as it would be of the tile itself."""
    if not axes or is_vector(spec):
        return values
    present = [a for a in axes if not (a == -3 and values.ndim < ndim)]
    values = values.flip(present) if present else values
    if spec.kind == "vector" and spec.channels in (2, 3):
        # The components of a displacement stand along Y, X or Z, Y, X.
        sign = torch.ones(spec.channels, device=values.device)
        sign[[a for a in axes if -a <= spec.channels]] = -1
        values = values * sign.reshape(1, -1, *[1] * (values.ndim - 2))
    return values


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch, or of onnxruntime, says that memory ran out."""
    words = str(error).lower()
    said = ("out of memory", "not enough memory", "can't allocate memory", "failed to allocate memory", "alloc_failed")
    return isinstance(error, torch.OutOfMemoryError) or any(w in words for w in said)


def pixel_budget(device: torch.device) -> int:
    """Pixels of all tiles computed at once, from the free memory of the device."""
    if device.type == "cuda":
        # U-Nets hold about 500 float32 values per pixel at their widest moment; half of the memory is left.
        free, _ = torch.cuda.mem_get_info(device)
        return int(max(2**16, min(2**23, free // 2 // 2000)))
    import psutil

    return int(max(2**16, min(2**20, psutil.virtual_memory().available // 4 // 2000)))
