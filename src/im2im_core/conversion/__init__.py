"""Recipes from configurations of mmv_im2im (Sonneck et al. 2024); nothing that they name is imported."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_core.conversion.augmentation import convert_augmentation
from im2im_core.conversion.dataset import DataPart, convert_data
from im2im_core.conversion.frameworks import (
    PRESETS,
    convert_embedseg,
    require_known_framework,
    require_training,
    task_of,
)
from im2im_core.conversion.losses import convert_losses
from im2im_core.conversion.networks import Network, convert_network, output_channels, self_configured
from im2im_core.conversion.notes import Note, Notes
from im2im_core.conversion.preprocessing import Prepared, convert_preprocessing
from im2im_core.conversion.source import Named, Section, is_foreign
from im2im_core.conversion.training import budget, convert_training
from im2im_core.recipe.frameworks.embedseg import EmbedSegSettings
from im2im_core.recipe.frameworks.fcn import FcnSettings

if TYPE_CHECKING:
    import os

    from im2im_core.recipe import Recipe

__all__ = ["Conversion", "Note", "convert_content", "convert_file", "is_foreign"]

WIDTH = 116
HEADINGS = {"differs": "Done in another way here", "missing": "Has no counterpart here"}


@dataclass(frozen=True)
class Conversion:
    """A recipe, and what a person must know of how it came about."""

    recipe: Recipe
    source: str
    """Name of the file that it was made from."""
    notes: tuple[Note, ...] = ()

    def override(self, changes: dict[str, Any]) -> Conversion:
        """The same with dotted `changes` of the recipe, as ``Recipe.override`` takes them."""
        return replace(self, recipe=self.recipe.override(changes))

    def words(self) -> str:
        """Notes as lines, those without a counterpart last; empty where there are none."""
        lines: list[str] = []
        for kind, heading in HEADINGS.items():
            said = [f"{note.place}: {note.text}" for note in self.notes if note.kind == kind]
            lines += [f"{heading}:", *(_wrapped(text) for text in said)] if said else []
        return "\n".join(lines)

    def to_yaml(self) -> str:
        """Recipe as YAML, with the notes as comments above it."""
        said = self.words()
        above = f"Converted from {self.source}, a configuration of mmv_im2im.\n{said}".rstrip()
        return "".join(f"# {line}\n" for line in above.splitlines()) + self.recipe.to_yaml()


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False)


def convert_file(path: str | os.PathLike[str]) -> Conversion:
    """Recipe for a configuration of mmv_im2im; folders of images that exist from here are meant from here.

    Raises
    ------
    ConfigError
        The file is no training of mmv_im2im, or learns what nothing here learns.
    TrustError
        The file asks for Python objects, or is unreasonably large.
    """
    from im2im_core.yamlfile import read_yaml

    return convert_content(read_yaml(Path(path)), Path(path).name)


def convert_content(content: Any, name: str) -> Conversion:
    """Recipe for plain content of a configuration called `name`; raises as `convert_file`."""
    root, notes = Section(content), Notes()
    require_training(root, name)
    recipe = _Converter(root, name, notes).recipe()
    for place in root.left():
        notes.missing(place, "is not known here and was left out")
    return Conversion(recipe, name, tuple(notes.found))


class _Converter:
    """Reads the parts of one file in the order in which they need each other."""

    def __init__(self, root: Section, name: str, notes: Notes) -> None:
        self.name, self.notes = name, notes
        self.data, self.model, self.trainer = (root.section(part) for part in ("data", "model", "trainer"))
        self.net: Named | None = None
        self.criterion: Named | None = None
        self.framework = self._framework()
        self.prepared: Prepared = convert_preprocessing(self.data.several("preprocess"), notes)

    def _framework(self) -> str:
        kind = str(self.model.content.get("framework"))
        if kind in ("FCN", "nnUnet", "embedseg"):  # others name several networks, in another form
            self.net, self.criterion = self.model.named("net"), self.model.named("criterion")
        return require_known_framework(self.model, self.net, self.name)

    def recipe(self) -> Recipe:
        """Recipe made of all parts, on the ground of the preset of the task."""
        from im2im_core.presets import load_preset

        where = f"{self.name} {self.data.content.get('data_path')}"
        task = task_of(self.framework, self.criterion, self.prepared.labels, where, self.notes)
        dimensions = self._dimensions()
        base = load_preset(PRESETS[task][dimensions]).replace(task=task, name=Path(self.name).stem)
        network = self._network(dimensions, base)
        part = DataPart(self.data, self.prepared, network.divisor, dimensions, image_target="image" in _output(task))
        extra = self.data.section("extra")
        settings, batch = convert_data(base, part, self.notes)
        settings = settings.replace(augmentation=convert_augmentation(self.data.several("augmentation"), self.notes))
        framework = self._settings_of_framework(base, dimensions, extra)
        training = convert_training(base.training, (self.model, self.trainer), batch, self.notes)
        self._beside()
        return base.replace(data=settings, framework=framework, network=network.settings, training=training)

    def _dimensions(self) -> int:
        """Spatial dimensions: those of the images that are read, of the network, of the patch, or of a name."""
        if self.prepared.dimensions is not None:
            return self.prepared.dimensions
        named = self.net.params.content.get("spatial_dims") if self.net else None
        if named in (2, 3):
            return int(named)
        if self.prepared.patch is not None and len(self.prepared.patch) in (2, 3):
            return len(self.prepared.patch)
        return 3 if "3d" in f"{self.name} {self.net.path if self.net else ''}".lower() else 2

    def _network(self, dimensions: int, base: Recipe) -> Network:
        if self.framework == "nnUnet" and self.net is not None:
            return self_configured(self.net, self.notes)
        return convert_network(self.net, dimensions, base.network, self.notes)

    def _settings_of_framework(self, base: Recipe, dimensions: int, extra: Section) -> Any:
        centre = extra.take("center_method") or self.model.section("model_extra").take("center_method")
        if isinstance(base.framework, EmbedSegSettings):
            return convert_embedseg(base.framework, self.criterion, centre, dimensions, self.notes)
        assert isinstance(base.framework, FcnSettings)
        epochs = budget(self.trainer, self.model.named("scheduler"), self.notes).get("epochs", 1.0)
        terms = convert_losses(self.criterion, base.framework.output, epochs, self.notes)
        channels = output_channels(self.net)
        classes = {"classes": channels} if base.framework.output == "segmentation" and (channels or 0) >= 2 else {}
        return base.framework.replace(losses=terms, **classes)

    def _beside(self) -> None:
        """What stands beside the model: weights to start from, and how it validates."""
        extra = self.model.section("model_extra")
        for key in ("pre-train", "resume"):
            if extra.take(key) is not None:
                self.notes.missing(
                    extra.place(key),
                    "its checkpoints are not read: they are pickled. A model of ours is taught on with im2im finetune",
                )
        extra.drop("extend", "debug_segmentation", "sliding_window_params", "validation_sliding_windows", "cpu_only")
        self.model.drop("checkpoint")


def _output(task: str) -> str:
    """What the network predicts for `task`."""
    return "image" if task in ("label_free", "restoration") else "labels"
