"""The plan of a run: every automatic value resolved, with its reason, and what only decides how fast it goes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from im2im_core.files import write_atomic
from im2im_core.recipe import Recipe
from im2im_core.yamlfile import read_yaml

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Facts:
    """Fingerprint of the images, from sizes and labels alone."""

    training: int
    """Samples to train on."""
    validation: int
    test: int
    split: str
    """How validation images were chosen, in words."""
    shape: tuple[int, int, int]
    """Median size along Z, Y, X."""
    pixels: int
    """Pixels of all training images, time points included."""
    input_channels: int
    target_channels: int
    classes: int = 2
    voxel_size: tuple[float | None, float | None, float | None] = (None, None, None)
    object_diameter: float | None = None
    """Median over the images of the median object diameter, pixels."""
    smallest: tuple[int, int, int] = (1, 1, 1)


@dataclass(frozen=True)
class Runtime:
    """What does not change what is learned."""

    device: str = "cpu"
    threads: int = 1
    workers: int = 0
    cache: str = "memory"
    cache_held: int = 1
    """Entries a rolling cache holds."""


@dataclass(frozen=True)
class Estimate:
    """What a probe of two steps measured."""

    seconds_per_step: float
    memory_gigabytes: float
    minutes: float


@dataclass(frozen=True)
class Plan:
    """A resolved recipe and how it will be run."""

    recipe: Recipe
    reasons: dict[str, str]
    """Setting -> why it has its value."""
    facts: Facts
    runtime: Runtime
    steps: int | None = None
    """Steps of the budget; None for minutes."""
    steps_per_epoch: float = 1.0
    estimate: Estimate | None = None
    messages: tuple[str, ...] = field(default=())
    """What a person should know before it starts."""

    def to_dict(self) -> dict[str, Any]:
        """Plain content."""
        return {**asdict(self), "recipe": self.recipe.dump()}

    def to_file(self, path: Path) -> None:
        """Write as YAML, atomically."""
        content = yaml.safe_dump(plain(self.to_dict()), sort_keys=False, allow_unicode=True)
        write_atomic(path, content.encode())

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Plan:
        """Plan from its plain content."""
        facts: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content["facts"].items()}
        estimate = content.get("estimate")
        return cls(
            recipe=Recipe.load(content["recipe"]),
            reasons=dict(content["reasons"]),
            facts=Facts(**facts),
            runtime=Runtime(**content["runtime"]),
            steps=content["steps"],
            steps_per_epoch=content["steps_per_epoch"],
            estimate=Estimate(**estimate) if estimate else None,
            messages=tuple(content.get("messages", ())),
        )

    @classmethod
    def from_file(cls, path: Path) -> Plan:
        """Plan from a YAML file."""
        return cls.from_dict(read_yaml(path))


def plain(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value
