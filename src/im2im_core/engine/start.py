"""A training that starts from a trained network: its weights are fitted strictly, and partly held."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from im2im_core.engine.layers import Ends, distances, ends_of, fits, names_of
from im2im_core.engine.networks import Network
from im2im_core.engine.networks.stem import Folded
from im2im_core.engine.start_weights import read_start
from im2im_core.errors import ConfigError, DataError
from im2im_core.finetuning import located, start_name
from im2im_core.recipe.start import TrainedModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from im2im_core.engine.frameworks.contract import Framework
    from im2im_core.engine.networks import VoxelSize
    from im2im_core.recipe import Recipe
    from im2im_core.recipe.start import StartSettings

LISTED = 12
"""Layers that an error lists."""


@dataclass(frozen=True)
class Begun:
    """What a training started from, and what was done about it."""

    sha256: str
    text: str
    """In a sentence."""


def begin_from(framework: Framework, recipe: Recipe, voxel_size: VoxelSize, root: Path | None) -> Begun | None:
    """Weights of the model that the recipe starts from, put into `framework`; None where it starts from nothing.

    Parameters
    ----------
    voxel_size : tuple
        As the network was built with.
    root : Path, optional
        Where relative paths begin; the working folder where not given.

    Raises
    ------
    DataError
        There is no such model, it is not the one recorded, or its layers do not fit: the message lists them.
    TrustError
        Its file is not the one described, or holds more than weights.
    ConfigError
        It has no weights that can be trained on.
    """
    settings = recipe.training.start
    if not isinstance(settings, TrainedModel):
        return None
    found = read_start(located(settings.model, root))
    if settings.sha256 and settings.sha256.lower() != found.sha256:
        raise DataError(
            f"The weights of {settings.model} have sha256 {found.sha256}, the recipe says {settings.sha256}",
            "Put back the model that was meant, or set training.start.sha256 to null to start from this one",
        )
    weights = _placed(found.weights, framework)
    ends = ends_of(framework, recipe.network, framework.shapes.dimensions, voxel_size)
    own = framework.state_dict()
    adapted = _adapt_input(weights, own, ends, settings) + _adapt_output(weights, own, ends, settings)
    adapted += _adapt_heads(weights, own, framework)
    _require_fit(weights, own, ends, settings)
    framework.load_state_dict(weights)
    words = [f"Started from {start_name(settings.model)} (sha256 {found.sha256[:12]})", *adapted]
    return Begun(found.sha256, "; ".join(words))


# ---- fitting ----


def _placed(weights: Mapping[str, Tensor], framework: nn.Module) -> dict[str, Tensor]:
    """`weights` under the names of `framework`: other tools name the layers of the network alone, or put more before.

    Of all ways to exchange what stands before the names, the one with which most of them are known.
    """
    own = framework.state_dict().keys()
    split = [name.split(".")[:-1] for name in weights]
    shared = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*split, strict=False))]
    befores = [".".join([*shared[:count], ""]) for count in range(len(shared) + 1)]
    places = ["", *(f"{place}." for place in _places(framework))]
    ways = [{name: place + name.removeprefix(before) for name in weights} for before in befores for place in places]
    best = max(ways, key=lambda way: len(own & set(way.values())))
    return {best[name]: value for name, value in weights.items()}


def _places(framework: nn.Module) -> list[str]:
    """Modules that may be what another tool calls its network."""
    found = []
    for place, module in framework.named_modules():
        if isinstance(module, Network):
            inner = ["body.network"] if isinstance(module.body, Folded) else []
            found += [place, *(f"{place}.{name}" for name in ("body", *inner))]
    return found


def _adapt_input(
    weights: dict[str, Tensor], own: Mapping[str, Tensor], ends: Ends, settings: TrainedModel
) -> list[str]:
    """Give first layers the number of channels of the images where that is what differs; says which."""
    if settings.input_layer == "keep":
        return []
    said = []
    for name in sorted(ends.inputs & weights.keys()):
        before, wanted = weights[name], own[name].shape
        if before.shape == wanted or before.shape[:1] + before.shape[2:] != wanted[:1] + wanted[2:]:
            continue
        if before.shape[1] % ends.folded:
            continue
        weights[name] = with_channels(before, wanted[1], ends.folded, settings.input_layer == "average")
        how = "averaged" if settings.input_layer == "average" else "repeated"
        channels = f"{before.shape[1] // ends.folded} to {wanted[1] // ends.folded} channels"
        said.append(f"{name} {how} from {channels}")
    return said


def with_channels(weight: Tensor, channels: int, folded: int, average: bool) -> Tensor:
    """`weight` ``(O, I, …)`` for `channels` inputs, scaled so that equal images in all of them give what they gave.

    Parameters
    ----------
    folded : int
        Neighbouring inputs that are pixels of one channel.
    average : bool
        Every channel gets the mean of those before; else those before come again in turn.
    """
    split: Tensor = weight.float().unflatten(1, (-1, folded))
    before, wanted = split.shape[1], channels // folded
    if average:
        new = split.mean(1, keepdim=True).expand(-1, wanted, *split.shape[2:]) * (before / wanted)
    else:
        turn = torch.arange(wanted) % before
        times = torch.bincount(turn, minlength=before)[turn]
        new = split[:, turn] / times.view(1, -1, *[1] * (split.ndim - 2))
        if wanted < before:  # what the dropped ones gave is made up for by the others
            new = new * (before / wanted)
    adapted: Tensor = new.flatten(1, 2).to(weight.dtype).contiguous()
    return adapted


def _adapt_output(
    weights: dict[str, Tensor], own: Mapping[str, Tensor], ends: Ends, settings: TrainedModel
) -> list[str]:
    """Let last layers be new; says which."""
    if settings.output_layer == "keep":
        return []
    weights |= {name: own[name] for name in ends.outputs}
    return [f"{name} new for {own[name].shape[0]} outputs" for name in sorted(ends.outputs)]


def _adapt_heads(weights: dict[str, Tensor], own: Mapping[str, Tensor], framework: nn.Module) -> list[str]:
    """Let heads of deep supervision, which only help to learn, be dropped or new; says which.

    They stand beside the body of a network; layers of the same name within it are its own and must fit.
    """
    places = "|".join(re.escape(name) for name, part in framework.named_modules() if isinstance(part, Network))
    head = re.compile(rf"({places})\.heads\.layers\.\d+\.(weight|bias)")
    here, there = ({n for n in names if head.fullmatch(n)} for names in (own, weights))
    new = [n for n in sorted(here) if n not in there or weights[n].shape != own[n].shape]
    for name in there - here:
        del weights[name]
    weights |= {name: own[name] for name in new}
    said = [f"{len(there - here)} parameters of heads of deep supervision dropped"] if there - here else []
    return said + ([f"{len(new)} parameters of heads of deep supervision new"] if new else [])


def _require_fit(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], ends: Ends, settings: TrainedModel) -> None:
    """Do nothing where both have the same layers with the same shapes.

    Raises
    ------
    DataError
        They have not; the message lists the layers with both shapes.
    """
    reshaped = [n for n in own if n in weights and weights[n].shape != own[n].shape]
    wrong = [f"{n} is {_shape(weights[n])} in the model, {_shape(own[n])} here" for n in reshaped]
    missing = [n for n in own if n not in weights]
    wrong += [f"{n} {_shape(own[n])} is missing in the model" for n in missing]
    unknown = [n for n in weights if n not in own]
    wrong += [f"{n} {_shape(weights[n])} is not known here" for n in unknown]
    if wrong:
        more = f"; and {len(wrong) - LISTED} more" if len(wrong) > LISTED else ""
        raise DataError(
            f"{len(wrong)} layers of {settings.model} do not fit this network: {'; '.join(wrong[:LISTED])}{more}",
            _cure({*reshaped, *missing, *unknown}, ends, settings.model),
        )


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"


def _cure(wrong: set[str], ends: Ends, model: str) -> str:
    cures = []
    if wrong & ends.inputs:
        cures.append("training.start.input_layer to average or repeat for images with other channels")
    if wrong & ends.outputs:
        cures.append("training.start.output_layer to new for other classes or output channels")
    if wrong <= ends.inputs | ends.outputs:
        return f"Set {' and '.join(cures)}"
    return f"Take the network of the model: im2im finetune {model} DATA does, or copy the section network of its recipe"


# ---- holding ----


def hold_back(framework: Framework, settings: StartSettings) -> str:
    """Freeze what the settings name, in words; weights get no gradient, normalisation layers keep what they know.

    Raises
    ------
    ConfigError
        A pattern fits no parameter, or nothing is left that could learn.
    """
    if not isinstance(settings, TrainedModel):
        return ""
    known = dict(framework.named_parameters())
    frozen = names_of(settings.freeze, known, "training.start.freeze")
    for name in frozen:
        known[name].requires_grad_(False)
    for player in framework.players():
        if not any(parameter.requires_grad for parameter in player.parameters):
            raise ConfigError(
                f"training.start.freeze leaves nothing of {player.name} that could learn: "
                f"{len(frozen)} of {len(known)} parameters are frozen",
                "Take a pattern away",
            )
    for module in _kept_statistics(framework, settings):
        module.eval()
    return f"{len(frozen)} of {len(known)} parameters frozen" if frozen else ""


def _kept_statistics(framework: nn.Module, settings: TrainedModel) -> Iterable[nn.Module]:
    """Modules with running statistics that stay as they are."""
    for place, module in framework.named_modules():
        if settings.statistics == "follow" or not hasattr(module, "running_mean") or module.running_mean is None:
            continue
        own = list(module.parameters(recurse=False))
        named = any(fits(pattern, f"{place}.running_mean") for pattern in settings.freeze)
        frozen = not any(p.requires_grad for p in own) if own else named
        if settings.statistics == "keep" or frozen:
            yield module


def learning_rates(framework: nn.Module, settings: StartSettings, dimensions: int) -> dict[nn.Parameter, float]:
    """Factor of the learning rate of every parameter where they differ; empty where all learn at one rate.

    Layer-wise rates as in Howard & Ruder 2018: what lies deeper was learned from more images and changes less.

    Raises
    ------
    ConfigError
        A pattern fits no parameter.
    """
    if not isinstance(settings, TrainedModel) or (settings.decay == 1 and not settings.rates):
        return {}
    known: dict[str, Any] = dict(framework.named_parameters())
    names_of(settings.rates, known, "training.start.rates")
    depth = distances(framework, dimensions) if settings.decay < 1 else dict.fromkeys(known, 0)
    return {
        parameter: settings.decay ** depth[name]
        * next((factor for pattern, factor in settings.rates.items() if fits(pattern, name)), 1.0)
        for name, parameter in known.items()
    }
