"""The plan of a run: every automatic value resolved, with its reason, and what only decides how fast it goes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any

import yaml

from im2im_core.errors import ConfigError
from im2im_core.files import write_atomic
from im2im_core.recipe import Recipe
from im2im_core.yamlfile import read_yaml

if TYPE_CHECKING:
    from pathlib import Path

PLAN_SCHEMA = 1


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
    """Median size along Z, Y, X, after rescaling as all sizes here."""
    pixels: int
    """Pixels of all training images, time points included."""
    input_channels: int
    target_channels: int
    classes: int = 2
    voxel_size: tuple[float | None, float | None, float | None] = (None, None, None)
    object_diameter: float | None = None
    """Median over the images of the median object diameter, pixels."""
    smallest: tuple[int, int, int] = (1, 1, 1)
    channels: tuple[str, ...] = ()
    """Names of the input channels, where all images that name them agree."""
    targets_seen: int = 0
    """Label images that were looked at."""
    targets_empty: int = 0
    """Those of them in which nothing is labelled."""
    validation_labelled: bool = True
    """Whether any image that validates has a labelled object or class; true where targets are no labels."""


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
class Advice:
    """What a person should know before a training starts, and what can be done."""

    code: str
    """What it is about, for programs."""
    text: str
    cure: str = ""


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
    messages: tuple[Advice, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain content."""
        return {"schema_version": PLAN_SCHEMA, **asdict(self), "recipe": self.recipe.dump()}

    def to_file(self, path: Path) -> None:
        """Write as YAML, atomically."""
        content = yaml.safe_dump(plain(self.to_dict()), sort_keys=False, allow_unicode=True)
        write_atomic(path, content.encode())

    def adapt(self, recipe: Recipe) -> Plan:
        """Plan of `recipe`, which differs from this plan's in settings that were changed by hand.

        Budget, device, threads, workers and cache follow where they were changed; everything else stays as decided.
        """
        if recipe == self.recipe:
            return self
        per_epoch = steps_per_epoch(recipe, self.facts)
        steps = budget_steps(recipe, per_epoch)
        reasons = _still_true(self.reasons, self.recipe, recipe)
        every = recipe.training.validate_every
        if every == "auto" or "training.validate_every" in reasons:
            every = "auto" if steps is None else validation_steps(steps)
            reasons |= {"training.validate_every": "twenty times in the budget"} if steps else {}
            recipe = recipe.override({"training.validate_every": every})
        return replace(
            self,
            recipe=recipe,
            reasons=reasons,
            runtime=replace(self.runtime, **_runtime_changes(self.recipe, recipe)),
            steps=steps,
            steps_per_epoch=per_epoch,
            estimate=None,
        )

    @classmethod
    def from_dict(cls, content: Any, name: str = "plan.yaml") -> Plan:
        """Plan from its plain content.

        Raises
        ------
        ConfigError
            It is no plan, or one of a newer version.
        """
        cure = "Make one with: im2im plan PRESET --data.path FOLDER -o FILE"
        if not isinstance(content, dict) or "recipe" not in content:
            raise ConfigError(f"{name} is not a plan", cure)
        version = content.get("schema_version", PLAN_SCHEMA)
        if version != PLAN_SCHEMA:
            raise ConfigError(f"{name} is a plan of version {version!r}, known is {PLAN_SCHEMA}", f"Update, or {cure}")
        try:
            return cls._read(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{name} is not a plan: {type(error).__name__} {error}", cure) from error

    @classmethod
    def _read(cls, content: dict[str, Any]) -> Plan:
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
            messages=tuple(Advice(**m) for m in content.get("messages", ())),
        )

    @classmethod
    def from_file(cls, path: Path) -> Plan:
        """Plan from a YAML file."""
        return cls.from_dict(read_yaml(path), str(path))


def steps_per_epoch(recipe: Recipe, facts: Facts) -> float:
    """Steps that see as many pixels as the training images have; at least one."""
    training = recipe.training
    batch = recipe.batch_size * training.accumulate * training.devices * training.nodes
    return max(facts.pixels / (float(prod(recipe.patch_size)) * batch), 1.0)


def budget_steps(recipe: Recipe, per_epoch: float) -> int | None:
    """Steps of the budget of `recipe`; None where it is in minutes.

    Raises
    ------
    ConfigError
        There is no budget.
    """
    training = recipe.training
    if training.steps is training.epochs is training.minutes is None:
        raise ConfigError("The training has no budget", "Give training.steps, training.epochs or training.minutes")
    if training.epochs is not None:
        return max(1, round(training.epochs * per_epoch))
    return training.steps


def validation_steps(steps: int) -> int:
    """Steps between two validations in a budget of `steps`, so that there are about twenty."""
    return max(min(5, steps), steps // 20)


def _runtime_changes(before: Recipe, after: Recipe) -> dict[str, Any]:
    """Values of `Runtime` that the settings of `after` fix and those of `before` did not."""
    old, new = before.training, after.training
    pairs = {
        "device": (old.device, new.device),
        "threads": (old.threads, new.threads),
        "workers": (old.workers, new.workers),
        "cache": (before.data.cache.kind, after.data.cache.kind),
    }
    return {name: now for name, (then, now) in pairs.items() if now not in (then, "auto")}


def _still_true(reasons: dict[str, str], before: Recipe, after: Recipe) -> dict[str, str]:
    """Reasons of the settings that have the value they were given for."""
    old, new = before.dump(), after.dump()
    return {name: reason for name, reason in reasons.items() if _at(old, name) == _at(new, name)}


def _at(content: Any, name: str) -> Any:
    for part in name.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def plain(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value
