"""Settings of the training: budget, optimizer, schedule, precision, devices, checkpoints."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Interval
from pydantic import Field, field_validator, model_validator

from im2im_core._base import Config
from im2im_core.errors import ConfigError
from im2im_core.recipe.classpath import ClassPath
from im2im_core.recipe.start import NewNetwork, StartSettings

Positive = Annotated[float, Gt(0)]


class AdamW(Config):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"
    target: ClassVar[str] = "torch.optim:AdamW"
    lr: Positive = 1e-3
    """Learning rate (its peak where a schedule changes it)."""
    weight_decay: Annotated[float, Ge(0)] = 1e-4
    """Pull of the weights towards zero."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Memory of the gradient and of its square."""


class Adam(Config):
    """Adam (Kingma & Ba 2015)."""

    kind: Literal["adam"] = "adam"
    target: ClassVar[str] = "torch.optim:Adam"
    lr: Positive = 1e-3
    """Learning rate (its peak where a schedule changes it)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Memory of the gradient and of its square."""


class SGD(Config):
    """Stochastic gradient descent with Nesterov momentum."""

    kind: Literal["sgd"] = "sgd"
    target: ClassVar[str] = "torch.optim:SGD"
    lr: Positive = 1e-2
    """Learning rate (its peak where a schedule changes it)."""
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.99
    """Memory of the gradient."""
    weight_decay: Annotated[float, Ge(0)] = 3e-5
    """Pull of the weights towards zero."""


class ClassOptimizer(ClassPath):
    """Any torch optimizer by import path."""

    lr: Positive = 1e-3
    """Learning rate (its peak where a schedule changes it)."""


OptimizerSettings = AdamW | Adam | SGD | ClassOptimizer


class OneCycle(Config):
    """Rises to the peak, then falls to almost zero (Smith & Topin 2018), over the whole budget."""

    kind: Literal["one_cycle"] = "one_cycle"
    warmup: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    """Part of the budget in which the learning rate rises."""
    start: Annotated[float, Interval(gt=0, le=1)] = 0.04
    """Learning rate at the start, relative to the peak."""
    end: Annotated[float, Interval(ge=0, le=1)] = 0.001
    """Learning rate at the end, relative to the peak."""


class Polynomial(Config):
    """Falls as (1 - progress) to a power (Chen et al. 2018)."""

    kind: Literal["polynomial"] = "polynomial"
    power: Positive = 0.9
    """Exponent of the fall."""


class Constant(Config):
    """The learning rate does not change."""

    kind: Literal["constant"] = "constant"


class Plateau(Config):
    """Falls each time the validation stops improving."""

    kind: Literal["plateau"] = "plateau"
    factor: Annotated[float, Interval(gt=0, lt=1)] = 0.3
    """What the learning rate is multiplied by."""
    patience: Annotated[int, Ge(0)] = 5
    """Validations without improvement before it falls."""


class ClassScheduler(ClassPath):
    """Any learning rate scheduler of torch by import path, stepped evenly over the whole budget."""

    total: Annotated[int, Ge(1)] = 1000
    """How often it is stepped over the budget; its own arguments (T_max, milestones) count in these."""


SchedulerSettings = OneCycle | Polynomial | Constant | Plateau | ClassScheduler


class EarlyStopping(Config):
    """Ends the training when the validation stops improving."""

    enabled: bool = False
    """Whether training may end before its budget is used."""
    patience: Annotated[int, Ge(1)] = 10
    """Validations without improvement before it ends."""
    min_change: Annotated[float, Ge(0)] = 0.0
    """Smaller improvements do not count."""


class TrainingSettings(Config):
    """How the network is trained."""

    exclusive: ClassVar[tuple[tuple[str, ...], ...]] = (("steps", "epochs", "minutes"),)

    steps: Annotated[int, Gt(0)] | None = None
    """Budget in steps (one step = one round of all players after accumulation)."""
    epochs: Annotated[float, Gt(0)] | None = None
    """Budget in epochs (one epoch = as many pixels as the training images have)."""
    minutes: Annotated[float, Gt(0)] | None = None
    """Budget in minutes, from the start of the process."""
    batch: Annotated[int, Ge(1)] | Literal["auto"] = "auto"
    """Patches per step and device."""
    accumulate: Annotated[int, Ge(1)] = 1
    """Batches whose gradients are summed in one step."""
    optimizer: Annotated[OptimizerSettings, Field(discriminator="kind")] = AdamW()
    """How gradients become changes of the weights."""
    scheduler: Annotated[SchedulerSettings, Field(discriminator="kind")] = OneCycle()
    """How the learning rate changes over the budget."""
    clip: Annotated[float, Gt(0)] | None = 12.0
    """Largest norm of the gradient; longer ones are shortened."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the forward pass; auto: bf16 where the device has instructions for it, else fp32."""
    ema: Annotated[float, Interval(ge=0, lt=1)] = 0.99
    """Memory of the moving average of the weights that validates and predicts; 0 = off."""
    swa: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Last part of the budget over which all weights count alike in that average (Izmailov et al. 2018); 0 = off."""
    figures: tuple[str, ...] | Literal["auto"] = "auto"
    """Figures of the validation by name, for example f1, f1@0.75, seg; auto: those of the task that are cheap."""
    metrics: tuple[ClassPath, ...] = ()
    """Further figures of the validation by import path, for example monai.metrics.MAEMetric."""
    early_stopping: EarlyStopping = EarlyStopping()
    """End when the validation stops improving."""
    validate_every: Annotated[int, Ge(1)] | Literal["auto"] = "auto"
    """Steps between validations; auto: about twenty in the budget, at most 8 % of the time."""
    checkpoint_minutes: Annotated[float, Gt(0)] = 2.0
    """Most minutes of work that a crash can lose."""
    non_finite_limit: Annotated[int, Ge(1)] = 10
    """Losses in a row that may be NaN or infinite before training stops with the last good state."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of weights, sampling and augmentation."""
    start: Annotated[StartSettings, Field(discriminator="kind")] = NewNetwork()
    """What it starts from: a new network, or a trained one."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    devices: Annotated[int, Ge(1)] = 1
    """Number of devices per node."""
    nodes: Annotated[int, Ge(1)] = 1
    """Number of nodes."""
    strategy: str = "auto"
    """Lightning strategy for several devices, for example ddp."""
    threads: Annotated[int, Ge(1)] | Literal["auto"] = "auto"
    """CPU threads for computing."""
    workers: Annotated[int, Ge(0)] | Literal["auto"] = "auto"
    """Processes that prepare patches; 0 = in the training process. Never changes the data seen."""

    @property
    def taught_on(self) -> str | None:
        """Model that it starts from, as the recipe names it; None for a new network."""
        return None if isinstance(self.start, NewNetwork) else self.start.model

    @field_validator("figures")
    @classmethod
    def _figures_exist(cls, names: tuple[str, ...] | Literal["auto"]) -> tuple[str, ...] | Literal["auto"]:
        if names == "auto":
            return names
        from im2im_core.metrics import check_figure

        for name in names:
            try:
                check_figure(name)
            except ConfigError as error:
                raise ValueError(f"{error.message}. {error.cure}") from error
        return names

    @model_validator(mode="after")
    def _one_budget(self) -> TrainingSettings:
        given = [n for n in ("steps", "epochs", "minutes") if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(f"budget is given as {' and '.join(given)}; give one of steps, epochs, minutes")
        return self
