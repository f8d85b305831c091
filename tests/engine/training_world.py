"""The small world of the training tests: discs on noise, a tiny network, a training of a few steps on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from im2im_core import api
from im2im_core.axes import Region
from im2im_core.engine.checkpoint import Checkpoint, CheckpointFolder
from im2im_core.engine.session import Outcome, train_run
from im2im_core.events import Event
from im2im_core.image import ArrayImage
from im2im_core.plans import Plan
from im2im_core.recipe import Recipe
from im2im_core.samples import TARGET, Sample, Split

SMALL = {
    "network.kind": "basic_unet",
    "network.features": [8, 8, 8, 16, 16, 8],
    "network.stem": 1,
    "data.patch": [32, 32],
    "data.cache.kind": "memory",
    "training.batch": 2,
    "training.steps": 4,
    "training.device": "cpu",
    "training.precision": "fp32",  # auto is what the processor is good at
    "training.threads": 1,
    "training.workers": 0,
    "logging.every": 1,
}


def small_recipe(preset: str = "watershed_2d", **changes: Any) -> Recipe:
    """Recipe of a preset that takes milliseconds per step; ``__`` in a name stands for a dot."""
    named = {name.replace("__", "."): value for name, value in changes.items()}
    small = SMALL | ({"data.patch": [16, 32, 32]} if preset.endswith("3d") else {})
    return api.load_preset(preset).override(small | named)


class CountedImage:
    """Image that counts how often it is read."""

    def __init__(self, image: ArrayImage) -> None:
        self._image, self.reads = image, 0

    @property
    def info(self) -> Any:
        return self._image.info

    def read(self, region: Region | None = None) -> NDArray[Any]:
        self.reads += 1
        return self._image.read(region)


def discs(seed: int, shape: tuple[int, ...] = (48, 48), radius: int = 6) -> tuple[NDArray[Any], NDArray[Any]]:
    """Bright numbered balls on noise, one per 16 pixels along Y and X, in the middle of Z."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    grid = np.indices(shape)
    centres = [(y, x) for y in range(8, shape[-2], 16) for x in range(8, shape[-1], 16)]
    for number, (y, x) in enumerate(centres, start=1):
        middle = ([shape[0] // 2] if len(shape) == 3 else []) + [y + rng.integers(-1, 2), x + rng.integers(-1, 2)]
        distance = sum((g - m) ** 2 for g, m in zip(grid, middle, strict=True))
        labels[distance < radius**2] = number
    image = rng.normal(100, 10, shape) + 100 * (labels > 0)
    return image.astype(np.float32), labels


def sample(
    name: str,
    source: NDArray[Any],
    target: NDArray[Any],
    weight: NDArray[Any] | None = None,
    wrap: Callable[[ArrayImage], Any] = lambda image: image,
) -> Sample:
    """Sample of arrays, whose identity is its name."""
    axes = "ZYX"[-source.ndim :]

    def image(part: str, array: NDArray[Any]) -> Any:
        return wrap(ArrayImage(array, axes, name=f"{name} {part}", identity=f"{name} {part}"))

    known = None if weight is None else image("CM", weight)
    return Sample(name, name, image("IM", source), {TARGET: image("GT", target)}, known)


def split_of(
    count: int = 3,
    validation: int = 1,
    shape: tuple[int, ...] = (48, 48),
    task: str = "instance",
    wrap: Callable[[ArrayImage], Any] = lambda image: image,
) -> Split:
    """Samples of discs; targets are instances, two classes or a clean image."""
    made = []
    for seed in range(count + validation):
        image, labels = discs(seed, shape)
        target = {"instance": labels, "classes": (labels > 0).astype(np.uint8), "image": 50 + 3.0 * (labels > 0)}[task]
        made.append(sample(f"discs_{seed}", image, target, wrap=wrap))
    return Split(tuple(made[:count]), tuple(made[count:]), reason="named")


def stop_at(step: int, reason: str = "pause") -> Callable[[], str]:
    """Asks to end when it is asked the `step`-th time after the images were read."""
    asked = [0]

    def should_stop() -> str:
        asked[0] += 1
        return reason if asked[0] >= step else ""

    return should_stop


class Training:
    """One training in `folder`, which may be stopped and gone on with."""

    def __init__(self, folder: Path, recipe: Recipe, split: Split | None = None, plan: Plan | None = None) -> None:
        self.folder, self.recipe, self.plan = folder, recipe, plan
        self.split = split or split_of()
        self.events: list[Event] = []
        folder.mkdir(exist_ok=True)

    def run(self, should_stop: Callable[[], str] = lambda: "", **options: Any) -> Outcome:
        return train_run(
            self.folder,
            self.split,
            self.plan,
            self.recipe,
            on_event=self.events.append,
            should_stop=should_stop,
            **options,
        )

    def pause_after(self, steps: int) -> Outcome:
        """Run until `steps` steps of this attempt are done."""
        return self.run(stop_at(steps + len(self.split.train)))

    def of(self, kind: type[Event]) -> list[Any]:
        """Events of one kind."""
        return [e for e in self.events if isinstance(e, kind)]

    @property
    def checkpoint(self) -> Checkpoint:
        found = CheckpointFolder(self.folder / "checkpoints").newest()
        assert found is not None
        return found


def same_state(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether weights, moving average, optimizers and counters are equal, bit for bit; elapsed time aside."""
    first, second = (_comparable(c) for c in (one, other))
    return one.step == other.step and _equal(one.weights, other.weights) and _equal(first, second)


def _comparable(checkpoint: Checkpoint) -> dict[str, Any]:
    counters = {k: v for k, v in checkpoint.state["counters"].items() if k != "elapsed"}
    return {**checkpoint.state, "counters": counters}


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
