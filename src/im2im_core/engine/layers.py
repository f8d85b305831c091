"""Parameters of a framework by name: which a pattern means, how deep they lie, which of them see channels."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from im2im_core.engine.networks import Network, build_network
from im2im_core.errors import ConfigError, nearest
from im2im_core.recipe.start import REGEX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from im2im_core.engine.networks import VoxelSize
    from im2im_core.recipe.network import NetworkSettings

SHOWN = 8
"""Names that a message lists."""


def fits(pattern: str, name: str) -> bool:
    """Whether a glob, or a regular expression after ``re:``, fits the whole `name`."""
    if pattern.startswith(REGEX):
        return re.fullmatch(pattern.removeprefix(REGEX), name) is not None
    return fnmatchcase(name, pattern)


def names_of(patterns: Iterable[str], names: Iterable[str], setting: str) -> set[str]:
    """Those of `names` that any of the patterns fits.

    Raises
    ------
    ConfigError
        A pattern of `setting` fits none of them.
    """
    known, found = list(names), set[str]()
    for pattern in patterns:
        meant = {name for name in known if fits(pattern, name)}
        if not meant:
            raise ConfigError(f"{setting}: no parameter is called {pattern!r}", nearest(pattern, _parts(known)))
        found |= meant
    return found


def _parts(names: Iterable[str]) -> list[str]:
    """Globs for the modules that hold the parameters `names`, where there are few, else for the parts they lie in."""
    modules = {name.rpartition(".")[0] for name in names}
    while len(modules) > 2 * SHOWN and any("." in name for name in modules):
        longest = max(name.count(".") for name in modules)
        modules = {name.rpartition(".")[0] if name.count(".") == longest else name for name in modules}
    return [f"{name}.*" if name else "*" for name in modules]


# ---- depth ----


def distances(framework: nn.Module, dimensions: int) -> dict[str, int]:
    """Parameter name -> layers between it and the end of its network, 0 for the last one.

    Layers are counted in the order in which a prediction passes through them, whatever they are called:
    every convolution or linear map begins one, and normalisation and activation after it belong to it.
    What no prediction passes through counts as last.
    """
    found = {name: 0 for name, _ in framework.named_parameters()}
    for place, module in framework.named_modules():
        if isinstance(module, Network):
            depths = _passed(module, dimensions)
            last = max(depths.values(), default=0)
            found |= {_below(place, name): last - depth for name, depth in depths.items()}
    return found


def _passed(network: Network, dimensions: int) -> dict[str, int]:
    """Parameter name -> number of the layer it belongs to, for those that an input passes."""
    probe = copy.deepcopy(network).cpu().float().eval()
    depths: dict[str, int] = {}
    state = {"layer": -1}

    def note(place: str, module: nn.Module) -> Any:
        own = dict(module.named_parameters(recurse=False))
        begins = any(parameter.ndim > 1 for parameter in own.values())

        def hook(*_: Any) -> None:
            fresh = [_below(place, name) for name in own if _below(place, name) not in depths]
            state["layer"] += bool(fresh) and (begins or state["layer"] < 0)
            depths.update(dict.fromkeys(fresh, state["layer"]))

        return module.register_forward_pre_hook(hook) if own else None

    for place, module in probe.named_modules():
        note(place, module)
    # Two pixels are left in the deepest level: normalisation layers refuse a single one.
    with torch.no_grad():
        probe(torch.zeros(1, network.in_channels, *(2 * d for d in network.divisor[-dimensions:])))
    return depths


def _below(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


# ---- channels ----


@dataclass(frozen=True)
class Ends:
    """Names of the parameters whose shape follows the channels of a network."""

    inputs: frozenset[str]
    """They read the input; their second axis is its channels."""
    outputs: frozenset[str]
    """They make the output."""
    folded: int = 1
    """Entries along the second axis per input channel: pixels that a stem folds into channels."""


def ends_of(framework: nn.Module, settings: NetworkSettings, dimensions: int, voxel_size: VoxelSize) -> Ends:
    """First and last layers of the networks that `settings` build, found by building them with other channels."""
    inputs, outputs = set[str](), set[str]()
    for place, module in framework.named_modules():
        if not isinstance(module, Network):
            continue
        more = (
            (module.in_channels + 1, module.branches),
            (module.in_channels, tuple(count + 1 for count in module.branches)),
        )
        for (reads, makes), found in zip(more, (inputs, outputs), strict=True):
            with torch.random.fork_rng(devices=[]):  # weights drawn here are nobody's
                other = build_network(settings, dimensions, reads, makes, voxel_size)
            found |= {_below(place, name) for name in _reshaped(module, other)}
    return Ends(frozenset(inputs), frozenset(outputs), settings.stem**2)


def _reshaped(one: nn.Module, other: nn.Module) -> set[str]:
    shapes = {name: value.shape for name, value in other.state_dict().items()}
    return {n for n, v in one.state_dict().items() if n in shapes and shapes[n] != v.shape}
