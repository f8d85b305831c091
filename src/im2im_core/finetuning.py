"""Recipes that teach a trained model on: what follows from the model, and where it is; no torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_core.errors import ConfigError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from im2im_core.bundle import Bundle
    from im2im_core.inference import Inference
    from im2im_core.recipe import Recipe
    from im2im_core.recipe.start import TrainedModel

SHORT_MINUTES = 5.0
"""Budget when a trained network is taught a little more."""
_MADE = re.compile(r"^\d{8}-\d{6}_")
"""Time that the name of a run begins with."""
FILLED_IN = ("in_channels", "out_channels", "spatial_dims", "dimensions")
"""Arguments of a network class that the images decide."""


def finetuning_recipe(
    model: str | os.PathLike[str], settings: Mapping[str, Any] | None = None, base: Recipe | None = None
) -> Recipe:
    """Recipe that teaches `model` on, for five minutes where `settings` say no other budget.

    Network, framework, normalisation, rescaling and patch are those of the model, all else is that of the preset of
    its task; dotted `settings` come before both. Where its last layers are to be new, the images decide the number of
    classes and output channels.

    Parameters
    ----------
    model : path
        Run, package (folder or zip) of ours or of another tool, or file with weights.
    base : Recipe, optional
        Used in place of the preset; where it has another task than the model, its framework stays.

    Raises
    ------
    ConfigError
        A setting is wrong, or nobody says what the model is for.
    Im2ImError
        The package cannot be read.
    """
    given = dict(settings or {})
    follows = settings_of(model)
    base = base or _preset(follows, str(model))
    if base.task != follows.get("task", base.task):
        follows = {name: value for name, value in follows.items() if name not in ("task", "framework")}
    elif given.get("training.start.output_layer") == "new" and "framework" in follows:
        counted = {name: "auto" for name in ("classes", "output_channels") if name in follows["framework"]}
        follows["framework"] = {**follows["framework"], **counted}
    follows = {name: value for name, value in follows.items() if f"{name}.kind" not in given}
    start = {
        "name": f"{_MADE.sub('', start_name(model)).removesuffix('-taught')}-taught",
        "training.start": {"kind": "model", "model": str(model)},
        "training.minutes": SHORT_MINUTES,
    }
    return base.override({**start, **follows, **given})


def settings_of(model: str | os.PathLike[str]) -> dict[str, Any]:
    """Settings without which the weights of `model` mean nothing, by dotted name; empty for a file with weights.

    Raises
    ------
    Im2ImError
        The run or package cannot be read.
    """
    from im2im_core.bundle import open_bundle
    from im2im_core.recipe import Recipe

    path = Path(model)
    for place in (path, path.parent):
        if (place / "recipe.yaml").is_file():
            return _of_recipe(Recipe.from_file(place / "recipe.yaml"))
    if path.is_file() and path.suffix.lower() not in (".zip", ".yaml", ".yml"):
        return {}
    bundle = open_bundle(path)
    return _of_inference(bundle.inference) if bundle.is_ours else _of_foreign(bundle)


def _of_recipe(recipe: Recipe) -> dict[str, Any]:
    content = recipe.dump()
    data = content["data"]
    patch = {} if data["patch"] == "auto" else {"data.patch": data["patch"]}
    return {
        "task": recipe.task,
        "framework": content["framework"],
        "network": content["network"],
        "data.dimensions": data["dimensions"],
        "data.normalization": data["normalization"],
        "data.target_normalization": data["target_normalization"],
        "data.rescale": data["rescale"],
        **patch,
    }


def _of_inference(inference: Inference) -> dict[str, Any]:
    content = inference.dump()
    return {
        **({"task": inference.task} if inference.task else {}),
        "framework": content["framework"],
        "network": content["network"],
        "data.dimensions": inference.shapes.dimensions,
        "data.normalization": content["input"]["normalization"],
        "data.rescale": content["input"]["rescale"],
        "data.patch": content["patch"],
    }


def _of_foreign(bundle: Bundle) -> dict[str, Any]:
    """What the description of another tool says of its network and its input."""
    from im2im_core.bundle.foreign import current_format, tensor_specs

    bundle = current_format(bundle)
    inputs, _ = tensor_specs(bundle)
    space = [axis for axis in inputs[0].axes if axis.kind == "space"]
    found: dict[str, Any] = {"data.dimensions": len(space)} if len(space) in (2, 3) else {}
    if normalization := _normalization(inputs[0].steps):
        found["data.normalization"] = normalization
    entry = (bundle.description.get("weights") or {}).get("pytorch_state_dict") or {}
    architecture = entry.get("architecture") or {}
    if architecture.get("import_from"):  # code inside the package would have to be run to know its network
        found["network"] = {
            "kind": "class",
            "class_path": f"{architecture['import_from']}.{architecture['callable']}",
            "init_args": {k: v for k, v in (architecture.get("kwargs") or {}).items() if k not in FILLED_IN},
            "divisor": max((axis.step for axis in space if axis.size is None), default=16),
        }
    return found


def _normalization(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Normalisation that standard steps describe; empty where they are none of ours."""
    for step in steps:
        arguments = step.get("kwargs") or {}
        if step.get("id") == "zero_mean_unit_variance":
            return {"kind": "zscore"}
        if step.get("id") == "scale_range" and not arguments.get("reference_tensor"):
            limits = (arguments.get("min_percentile", 0.0), arguments.get("max_percentile", 100.0))
            low, high = limits
            return {"kind": "minmax"} if limits == (0, 100) else {"kind": "percentile", "low": low, "high": high}
    return {}


def _preset(follows: Mapping[str, Any], model: str) -> Recipe:
    """Preset of the task, dimensions and framework of a model."""
    from im2im_core.presets import list_presets, load_preset

    task, ending = follows.get("task"), f"_{follows.get('data.dimensions')}d"
    recipes = [load_preset(info.name) for info in list_presets() if info.task == task and info.name.endswith(ending)]
    if not recipes:
        raise ConfigError(f"{model} does not say what it is for", "Name the preset of its task; see im2im presets")
    kind = follows["framework"]["kind"]
    return next((recipe for recipe in recipes if recipe.framework.kind == kind), recipes[0])


# ---- where it is ---------------------------------------------------------------


def located(model: str | os.PathLike[str], root: Path | None = None) -> Path:
    """Path of a model as a recipe names it: relative to the project `root`, or the working folder without one."""
    path = Path(model).expanduser()
    return path if root is None else root / path


def start_name(model: str | os.PathLike[str]) -> str:
    """Name of a model for people: that of its run, folder or file."""
    path = Path(model)
    return path.parent.name if path.name == "model" and path.parent.name else path.stem or str(model)


# ---- in words ------------------------------------------------------------------


def start_words(start: TrainedModel) -> list[str]:
    """What a training started from and what was done about it, one sentence each, for papers and model cards."""
    digest = f" (sha256 {start.sha256})" if start.sha256 else ""
    said = [f"Training started from the weights of the model “{start_name(start.model)}”{digest}."]
    if start.input_layer != "keep":
        how = "mean of" if start.input_layer == "average" else "weights of"
        said.append(f"Where the number of input channels differed, channels got the {how} those before.")
    if start.output_layer == "new":
        said.append("The last layers were learned anew.")
    if start.freeze:
        said.append(f"Parameters that fit {_quoted(start.freeze)} were frozen.")
    if start.rates:
        factors = [f"{factor:g} for {_quoted([pattern])}" for pattern, factor in start.rates.items()]
        said.append(f"Learning rates were multiplied by {', '.join(factors)}.")
    if start.decay < 1:
        factor = f"learning rates were multiplied by {start.decay:g}"
        said.append(f"From each layer to the one before it, {factor} (Howard & Ruder 2018).")
    return said


def _quoted(patterns: Iterable[str]) -> str:
    return ", ".join(f"`{pattern}`" for pattern in patterns)
