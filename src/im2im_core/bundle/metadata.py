"""What people say about a model: authors, licence, citations, and the README made from it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import MaxLen
from pydantic import model_validator

from im2im_core._base import Config

if TYPE_CHECKING:
    from typing import Self

    from im2im_core.inference import Inference


class Author(Config):
    """Someone who made the model."""

    name: str
    """Full name."""
    affiliation: str | None = None
    """Institute or company."""
    orcid: str | None = None
    """ORCID iD, for example 0000-0001-2345-6789."""
    github_user: str | None = None
    """Name on GitHub."""


class Citation(Config):
    """Something to cite when the model is used."""

    text: str
    """Authors, title, journal."""
    doi: str | None = None
    """For example 10.1038/s41592-018-0261-2."""
    url: str | None = None
    """Where no DOI exists."""

    @model_validator(mode="after")
    def _has_doi_or_url(self) -> Self:
        if not (self.doi or self.url):
            raise ValueError("a citation needs a doi or a url")
        return self


class BundleMetadata(Config):
    """What a model package says about itself."""

    name: str = "model"
    """Name of the model."""
    description: Annotated[str, MaxLen(1024)] = ""
    """What it does, in a sentence or two."""
    task: str = ""
    """What it is for; that of the inference description where empty."""
    authors: tuple[Author, ...] = ()
    """Who made it."""
    licence: str = "MIT"
    """SPDX identifier of the licence of the weights."""
    cite: tuple[Citation, ...] = ()
    """What to cite when it is used."""
    tags: tuple[str, ...] = ()
    """Words to find it by."""
    documentation: str = ""
    """Text for the README, Markdown."""
    trained_on: str = ""
    """The training images in words: what, how many, which microscope."""
    limits: str = ""
    """When it should not be used."""
    metrics: dict[str, float] = {}
    """Metrics on images it was not trained on."""

    @property
    def standard_name(self) -> str:
        """Name with only the characters that bioimage.io allows, at least five."""
        name = re.sub(r"[^A-Za-z0-9_+\- ()]", "_", self.name)[:64].strip()
        return name if len(name) >= 5 else f"{name} model".strip()


def readme(metadata: BundleMetadata, inference: Inference, provenance: dict[str, Any], notes: tuple[str, ...]) -> str:
    """Text of the package's README: what it is, how to use it, how good it is, where it ends.

    Parameters
    ----------
    notes : tuple of str
        What other tools must know because the standard description cannot say it.
    """
    parts = [
        f"# {metadata.name}",
        metadata.description,
        metadata.documentation,
        "## What it does\n\n" + _task(metadata.task or inference.task, inference),
        "## Training\n\n" + _training(metadata, provenance),
        "## Validation\n\n" + _figures(metadata, provenance),
        "## How to use it\n\n" + _usage(inference, notes),
        "## Limits\n\n"
        + (
            metadata.limits
            or "Not tested on images that differ from the training images in "
            "modality, voxel size or staining. Check a few results by eye before relying on it."
        ),
    ]
    return "\n\n".join(p for p in parts if p) + "\n"


def _task(name: str, inference: Inference) -> str:
    shapes = inference.shapes
    outputs = "\n".join(f"* `{o.name}`: {o.kind}, {o.channels} channel(s)" for o in inference.outputs)
    task = name.replace("_", " ") or "image to image"
    return (
        f"Task: {task}, {shapes.dimensions}D. Framework `{inference.framework.kind}`, "
        f"network `{inference.network.kind}`, {shapes.input_channels} input channel(s).\n\n{outputs}"
    ).rstrip()


def _training(metadata: BundleMetadata, provenance: dict[str, Any]) -> str:
    lines = [metadata.trained_on or "The training images were not described."]
    recipe = provenance.get("recipe") or {}
    budget = {k: v for k, v in (recipe.get("training") or {}).items() if k in ("steps", "epochs", "minutes") and v}
    lines += [f"Budget: {value} {name}." for name, value in budget.items()]
    lines += _start(recipe)
    if recipe:
        lines.append("The complete recipe stands in `bioimageio.yaml` under `config.im2im.provenance`.")
    return "\n\n".join(lines)


def _start(recipe: dict[str, Any]) -> list[str]:
    """What a fine-tuned model started from."""
    from im2im_core.finetuning import start_words
    from im2im_core.recipe.start import TrainedModel

    start = (recipe.get("training") or {}).get("start") or {}
    return [" ".join(start_words(TrainedModel.load(start)))] if start.get("kind") == "model" else []


def _figures(metadata: BundleMetadata, provenance: dict[str, Any]) -> str:
    figures = {**(provenance.get("metrics") or {}), **metadata.metrics}
    if not figures:
        return "No figures were recorded. Compare predictions with a few images annotated by hand."
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in figures.items())
    return f"On data it was not trained on:\n\n| metric | value |\n|---|---|\n{rows}"


def _usage(inference: Inference, notes: tuple[str, ...]) -> str:
    lines = [
        "In napari: open the plugin napari-im2im and choose this package. In a shell: "
        "`im2im predict MODEL IMAGES -o OUT`. Any bioimage.io tool can run the standard part.",
        *notes,
    ]
    sizes = [f"{axis} {size:.4g} µm" for axis, size in zip("ZYX", inference.input.voxel_size, strict=True) if size]
    if sizes:
        lines.append(f"It was trained at a voxel size of {', '.join(sizes)}; rescale other images to it.")
    if inference.input.object_diameter:
        lines.append(f"Objects had a median diameter of {inference.input.object_diameter:.4g} pixels.")
    return "\n\n".join(lines)
