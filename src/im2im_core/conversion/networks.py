"""The network of the file: one of ours with the same levels, a class of MONAI by its path, or the preset's."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from im2im_core.errors import ConfigError, TrustError
from im2im_core.recipe.network import AttentionUnet, BasicUNet, ClassNetwork, DynUNet, NetworkSettings, UNet
from im2im_core.trust import require_trust

if TYPE_CHECKING:
    from im2im_core.conversion.notes import Notes
    from im2im_core.conversion.source import Named, Section

MONAI_NETS = "monai.networks.nets"
NORMS = {"BATCH": "batch", "INSTANCE": "instance", "GROUP": "group"}
FILLED_IN = ("spatial_dims", "dimensions", "in_channels", "out_channels", "input_channels", "in_channel", "n_classes")
"""Arguments that follow from the images and the task."""
SUPPLIED = ("spatial_dims", "dimensions", "in_channels", "out_channels")
"""Those that a class which is named by its path gets from here; others stand in its ``init_args``."""
DIVISORS = {"HighResNet": 1, "SegResNet": 8, "SwinUNETR": 32, "FlexibleUNet": 32, "UNETR": 16, "VNet": 16}
"""What a patch must be a multiple of for networks of MONAI without strides among their arguments."""
GONE = {"SwinUNETR": ("img_size",)}
"""Arguments that networks of MONAI had and no longer need, whatever the size of a patch."""
DYNUNET_NAMES = ("DynUNet", "DynUnet", "Dynunet")
OURS_ALONE = ("task",)
"""Arguments that mmv_im2im takes out before it makes the network."""


@dataclass(frozen=True)
class Network:
    """Settings of a network, and what a patch must be a multiple of along each axis; None where the plan knows."""

    settings: NetworkSettings
    divisor: tuple[int, ...] | None = None


def output_channels(net: Named | None) -> int | None:
    """Channels of the network's output, where the file says them."""
    if net is None:
        return None
    return net.params.whole("out_channels") or net.params.whole("n_classes")


def predicts_vectors(net: Named | None) -> bool:
    """Whether the network gives one vector for a whole image."""
    return net is not None and net.params.take("task") == "regression"


def convert_network(net: Named | None, dimensions: int, usual: NetworkSettings, notes: Notes) -> Network:
    """Network with the levels of `net`, or `usual`, that of the preset, with a note."""
    if net is None:
        return Network(usual)
    net.params.drop(*FILLED_IN, *OURS_ALONE)
    if f"{net.module}.".startswith(f"{MONAI_NETS}."):
        made = _ours(net, dimensions, notes) or _by_path(net, dimensions, notes)
    elif net.module.startswith("mmv_im2im.models.nets.fnet_nn"):
        made = _fnet(net, dimensions, notes)
    else:
        made = None
    if made is not None:
        return made
    arguments = {key: net.params.take(key) for key in net.params.content if key not in (*SUPPLIED, *OURS_ALONE)}
    said = f" --network.init_args '{json.dumps(arguments)}'" if arguments else ""
    notes.missing(
        net.title,
        f"{net.path} is not used here: network {usual.kind} of the preset in its place. Where you have the package and "
        f"trust it: im2im train RECIPE --network.kind class --network.class_path {net.path}"
        f"{said} --trust {net.module.partition('.')[0]}",
    )
    return Network(usual)


# ---- networks of ours ----


def _ours(net: Named, dimensions: int, notes: Notes) -> Network | None:
    """Our network with the same levels as MONAI's `net`; None where its arguments say more than ours can."""
    makers = {"UNet": _unet, "Unet": _unet, "AttentionUnet": _attention, "BasicUNet": _basic}
    makers |= dict.fromkeys(DYNUNET_NAMES, _dynunet)
    maker = makers.get(net.name)
    try:
        made = maker(net.params, dimensions) if maker else None
    except ConfigError:  # what our settings refuse, the class itself may take
        return None
    if made is not None and net.name not in DYNUNET_NAMES:
        notes.differs(net.title, f"network {made.settings.kind} with the same levels and leaky ReLU as activation")
    return made


def _unet(params: Section, dimensions: int) -> Network | None:
    plain = {"channels", "strides", "num_res_units", "norm", "dropout", *FILLED_IN, *OURS_ALONE}
    channels, norm = params.sizes("channels"), _norm(params.content.get("norm", "INSTANCE"))
    if set(params.content) - plain or channels is None or norm is None or not _halves(params, len(channels)):
        return None
    params.drop("norm", "strides")
    settings = UNet.load(
        {
            "channels": channels,
            "residual_units": params.whole("num_res_units", 0),
            "norm": norm,
            "dropout": params.number("dropout", 0.0),
        }
    )
    return Network(settings, (2 ** (len(channels) - 1),) * dimensions)


def _attention(params: Section, dimensions: int) -> Network | None:
    plain = {"channels", "strides", "dropout", *FILLED_IN, *OURS_ALONE}
    channels = params.sizes("channels")
    if set(params.content) - plain or channels is None or not _halves(params, len(channels)):
        return None
    params.drop("strides")
    settings = AttentionUnet.load({"channels": channels, "dropout": params.number("dropout", 0.0)})
    return Network(settings, (2 ** (len(channels) - 1),) * dimensions)


def _basic(params: Section, dimensions: int) -> Network | None:
    plain = {"features", "norm", "dropout", *FILLED_IN, *OURS_ALONE}
    norm = _norm(params.content.get("norm", "INSTANCE"))
    if set(params.content) - plain or norm is None:
        return None
    params.drop("norm")
    features = params.sizes("features") or (32, 32, 64, 128, 256, 32)
    settings = BasicUNet.load({"features": features, "norm": norm, "dropout": params.number("dropout", 0.0)})
    return Network(settings, (16,) * dimensions)


def _dynunet(params: Section, dimensions: int) -> Network | None:
    plain = {"kernel_size", "strides", "upsample_kernel_size", "filters", "dropout", "res_block", "norm_name"}
    norm = _norm(params.content.get("norm_name", "INSTANCE"))
    strides = _levels(params.content.get("strides"), dimensions)
    kernels = _levels(params.content.get("kernel_size"), dimensions)
    up = _levels(params.content.get("upsample_kernel_size"), dimensions)
    deep = params.content.get("deep_supervision")
    unknown = set(params.content) - plain - {"deep_supervision", *FILLED_IN, *OURS_ALONE}
    if unknown or norm is None or strides is None or kernels is None or deep or up != strides[1:]:
        return None
    filters = params.sizes("filters") or tuple(
        min(32 * 2**n, 320 if dimensions == 3 else 512) for n in range(len(strides))
    )
    settings = DynUNet.load(
        {
            "filters": filters[: len(strides)],
            "strides": strides,
            "kernels": kernels,
            "norm": norm,
            "dropout": params.number("dropout", 0.0),
            "residual": bool(params.take("res_block", False)),
        }
    )
    params.drop(*plain, "deep_supervision")
    return Network(settings, tuple(math.prod(level[axis] for level in strides) for axis in range(dimensions)))


def self_configured(net: Named, notes: Notes) -> Network:
    """Network of the framework nnUnet: its levels are planned from the images, there as here."""
    dropout, residual = net.params.number("dropout", 0.0), bool(net.params.take("res_block", False))
    net.params.drop(*net.params.content)
    notes.differs(net.title, "levels follow from the images and from network.budget, not from the memory of the GPU")
    return Network(DynUNet.load({"dropout": dropout, "residual": residual, "norm": "instance"}))


def _fnet(net: Named, dimensions: int, notes: Notes) -> Network | None:
    """U-Net of fnet's widths and depth: two convolutions per level, each level half the size of the one above."""
    depth, width = net.params.whole("depth", 4) or 0, net.params.whole("mult_chan", 32) or 0
    if depth < 2 or width < 1 or set(net.params.content) - {"depth", "mult_chan", *FILLED_IN, *OURS_ALONE}:
        return None
    flat, half = (1,) * dimensions, (2,) * dimensions
    settings = DynUNet.load(
        {
            "filters": [width * 2**level for level in range(depth + 1)],
            "strides": [flat, *[half] * depth],
            "kernels": [(3,) * dimensions] * (depth + 1),
            "norm": "batch",
        }
    )
    notes.differs(net.title, "a dynunet of the same depth and widths, two convolutions per level as there")
    return Network(settings, (2**depth,) * dimensions)


# ---- classes of MONAI ----


def _by_path(net: Named, dimensions: int, notes: Notes) -> Network | None:
    """Class of MONAI by its import path with all its arguments; None where it is not trusted."""
    try:
        require_trust(net.path)
    except TrustError:
        return None
    gone = GONE.get(net.name, ())
    net.params.drop(*gone)
    known = [key for key in net.params.content if key not in (*FILLED_IN, *OURS_ALONE, *gone)]
    arguments = {key: net.params.take(key) for key in known}
    divisor = _divisor(net, arguments, dimensions)
    if divisor is None:
        divisor = ClassNetwork.model_fields["divisor"].default
        notes.differs(net.title, f"patches are multiples of {divisor}; where it needs others: network.divisor")
    return Network(
        ClassNetwork.load({"class_path": net.path, "init_args": arguments, "divisor": divisor}), (divisor,) * dimensions
    )


def _divisor(net: Named, arguments: dict[str, Any], dimensions: int) -> int | None:
    """What a patch must be a multiple of; None where that is not known."""
    strides = arguments.get("strides")
    if not isinstance(strides, list):
        return DIVISORS.get(net.name)
    channels = arguments.get("channels")
    used = strides[: len(channels) - 1] if isinstance(channels, list) else strides
    levels = [_along(level, dimensions) for level in used]
    return math.lcm(*(math.prod(level[axis] for level in levels) for axis in range(dimensions)))


# ---- arguments ----


def _norm(value: Any) -> str | None:
    """Our name of a normalisation layer; None for one that we do not have, or with arguments of its own."""
    if isinstance(value, list) and len(value) == 2 and value[1] in ({}, {"affine": True}):
        value = value[0]
    return NORMS.get(value.upper()) if isinstance(value, str) else None


def _halves(params: Section, levels: int) -> bool:
    """Whether each level is half the size of the one above."""
    return params.content.get("strides") == [2] * (levels - 1)


def _levels(value: Any, dimensions: int) -> list[tuple[int, ...]] | None:
    """One number along each axis for each level; None where that is not what stands there."""
    if not isinstance(value, list) or not value:
        return None
    levels = [_along(level, dimensions) for level in value]
    return levels if all(len(level) == dimensions for level in levels) else None


def _along(level: Any, dimensions: int) -> tuple[int, ...]:
    """Numbers of one level along each axis.

    Raises
    ------
    ConfigError
        It is neither a whole number nor a list of them.
    """
    numbers = level if isinstance(level, list) else [level] * dimensions
    if not all(isinstance(n, int) and n > 0 for n in numbers) or len(numbers) != dimensions:
        raise ConfigError(f"the network has a level {level!r}", f"Give {dimensions} whole numbers")
    return tuple(numbers)
