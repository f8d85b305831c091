"""The Recipe itself: sections, and the rules between them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from im2im_core._base import Config
from im2im_core.errors import ConfigError
from im2im_core.recipe.data import DataSettings
from im2im_core.recipe.framework import FcnSettings, FrameworkSettings
from im2im_core.recipe.migrations import SCHEMA_VERSION, lift
from im2im_core.recipe.network import BasicUNet, DynUNet, NetworkSettings
from im2im_core.recipe.plugins import require_usable
from im2im_core.recipe.training import TrainingSettings

Task = Literal["semantic_segmentation", "instance_segmentation", "label_free", "restoration"]


class LoggingSettings(Config):
    """What is written while training, beside metrics.csv and events.jsonl."""

    tensorboard: bool = False
    """Write TensorBoard logs into the run folder."""
    every: Annotated[int, Field(ge=1)] = 10
    """Steps between two points of the loss curve."""
    preview: bool = True
    """Keep the prediction of the watched region at every validation."""


class OutputSettings(Config):
    """What the finished model is packed into."""

    torchscript: bool = True
    """Add TorchScript weights, which other tools can run."""
    onnx: bool = False
    """Add ONNX weights (needs the extra 'export')."""

    @model_validator(mode="after")
    def _some_weights(self) -> Self:
        if not (self.torchscript or self.onnx):
            raise ValueError("a model package needs TorchScript or ONNX weights; both are off")
        return self


class Recipe(Config):
    """Everything that decides what is learned; the same from napari, a shell, Python and a cluster."""

    schema_version: int = SCHEMA_VERSION
    """Version of this format; older files are lifted when read."""
    name: str = "run"
    """Short name of runs and models made with this recipe."""
    task: Task = "semantic_segmentation"
    """What the model is for."""
    data: DataSettings = DataSettings()
    """The images, and how they become patches."""
    framework: Annotated[FrameworkSettings, Field(discriminator="kind")] = FcnSettings(output="segmentation")
    """How it learns."""
    network: Annotated[NetworkSettings, Field(discriminator="kind")] = BasicUNet()
    """The network."""
    training: TrainingSettings = TrainingSettings()
    """Budget, optimizer, precision, devices."""
    logging: LoggingSettings = LoggingSettings()
    """What is written while training."""
    output: OutputSettings = OutputSettings()
    """What the finished model is packed into."""

    @classmethod
    def load(cls, content: Any) -> Self:
        """Recipe from plain content of this or any older schema version."""
        content = lift(content)
        try:
            return super().load(content)
        except ConfigError:
            require_usable(content)  # says more than that the kind is not known
            raise

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Training patch along Y, X or Z, Y, X; only a planned recipe has one."""
        if self.data.patch == "auto":
            raise ConfigError("data.patch is still auto", "Make a plan first")
        return tuple(self.data.patch)

    @property
    def batch_size(self) -> int:
        """Patches per step and device; only a planned recipe has it."""
        if self.training.batch == "auto":
            raise ConfigError("training.batch is still auto", "Make a plan first")
        return self.training.batch

    def override(self, changes: dict[str, Any]) -> Self:
        """Copy with dotted `changes` applied, for example ``{"training.minutes": 10}``.

        A member of an exclusive group (steps, epochs, minutes) clears the others; a new
        ``kind`` resets the rest of its section to that kind's defaults.

        Raises
        ------
        ConfigError
            A name or value is wrong; the message says what is allowed.
        """
        from im2im_core.recipe.fields import apply_overrides

        return type(self).load(apply_overrides(type(self), self.dump(), changes))

    @model_validator(mode="after")
    def _patch_has_dimensions(self) -> Self:
        patch, dims = self.data.patch, self.data.dimensions
        if patch != "auto" and len(patch) != dims:
            raise ValueError(f"data.patch {patch} has {len(patch)} sizes but data.dimensions is {dims}; give {dims}")
        return self

    @model_validator(mode="after")
    def _network_has_dimensions(self) -> Self:
        dims = self.data.dimensions
        for name in ("strides", "kernels") if isinstance(self.network, DynUNet) else ():
            given = getattr(self.network, name)
            wrong = [level for level in given if len(level) != dims] if given != "auto" else []
            if wrong:
                raise ValueError(
                    f"network.{name} has a level {wrong[0]} but data.dimensions is {dims}; give {dims} numbers, or auto"
                )
        return self

    @model_validator(mode="after")
    def _framework_fits_task(self) -> Self:
        if self.task not in self.framework.tasks:
            raise ValueError(
                f"task {self.task} cannot be learned by framework {self.framework.kind}, "
                f"which learns {', '.join(self.framework.tasks)}"
            )
        if isinstance(self.framework, FcnSettings):
            wanted = "segmentation" if self.task == "semantic_segmentation" else "image"
            if self.framework.output != wanted:
                raise ValueError(f"task {self.task} needs framework.output {wanted}, not {self.framework.output}")
        return self
