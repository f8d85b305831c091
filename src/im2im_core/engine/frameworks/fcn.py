"""One network from image to image, learned from pairs: pixel values or a class per pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from im2im_core.engine.frameworks.contract import (
    Batch,
    Framework,
    OutputSpec,
    Player,
    TargetSpec,
    TrainContext,
    TranslateContext,
)
from im2im_core.engine.losses import Classes, build_losses
from im2im_core.engine.losses.perceptual import Perceptual
from im2im_core.engine.losses.scales import over_scales, sum_scales
from im2im_core.errors import ConfigError, DataError
from im2im_core.recipe.losses import factor_of, kinds_for, outputs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from im2im_core.engine.networks import Network
    from im2im_core.inference import Shapes
    from im2im_core.recipe.framework import FcnSettings


class Fcn(Framework):
    """A single network, trained pixel by pixel against its target.

    Images: the maps are predicted values on the normalised scale of the targets. Segmentation: the
    maps are softmax probabilities, and the class map is their argmax.

    Parameters
    ----------
    settings : FcnSettings
    make_network : callable
        ``make_network(in_channels, out_channels, deep)`` builds the network.
    shapes : Shapes
    """

    def __init__(self, settings: FcnSettings, make_network: Callable[[int, int, int], Network], shapes: Shapes) -> None:
        super().__init__()
        self.settings = settings
        self.shapes = shapes
        self.segments = settings.output == "segmentation"
        self.channels = _channels(settings, shapes)
        self.network = make_network(shapes.input_channels, self.channels, settings.deep_supervision)
        self._refuse_losses()
        self.terms = build_losses(settings.loss_terms())
        for term in self.terms:
            if isinstance(classes := getattr(term.loss, "classes", None), Classes):
                classes.check(self.channels)
        if self.segments:
            probability = OutputSpec("probability", "probability", self.channels)
            self.outputs = (probability,)
            self.results = (OutputSpec("labels", "labels", 1), probability)
            self.targets = (TargetSpec("target", 1, self._label_type, "nearest"),)
            self.monitor, self.monitor_mode = "dice", "max"
        else:
            self.outputs = self.results = (OutputSpec("image", "image", self.channels),)
            self.targets = (TargetSpec("target", self.channels),)

    @property
    def _label_type(self) -> type[np.generic]:
        return np.uint8 if self.channels <= 256 else np.uint16

    def _refuse_losses(self) -> None:
        for settings in self.settings.losses:
            if self.settings.output not in outputs_of(settings):
                raise ConfigError(
                    f"loss {settings.kind} cannot learn framework.output {self.settings.output}",
                    f"Choose from: {', '.join(kinds_for(self.settings.output))}, or change framework.output",
                )

    # ---- learning ----

    def encode(self, targets: Mapping[str, NDArray[Any]], weight: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
        """The only target: pixel values as float32, or class ids in the smallest type that holds them."""
        if len(targets) != 1:
            raise DataError(
                f"framework fcn learns one target, the data has {len(targets)}: {', '.join(targets)}", "Name one target"
            )
        (target,) = targets.values()
        if self.segments:
            return {"target": _class_ids(target, weight, self.channels).astype(self._label_type)}
        if len(target) != self.channels:
            raise DataError(
                f"the target has {len(target)} channels, the network makes {self.channels}",
                "Set data.target_channels or framework.output_channels",
            )
        return {"target": np.asarray(target, np.float32)}

    def players(self) -> tuple[Player, ...]:
        """The network alone."""
        return (Player("network", list(self.network.parameters())),)

    def losses(self, batch: Batch, player: str, context: TrainContext) -> dict[str, Tensor]:
        """Every term of the recipe; while learning with deep supervision, its mean over the scales of the network.

        A term whose factor is 0 at the moment is shown, but not learned from.
        """
        target, weight = batch["target"], batch["weight"]
        scales = self.network.scales(batch["source"]) if self.training else [self.network(batch["source"])]
        levels = over_scales(scales, target, weight, self.channels if self.segments else None)
        found = {}
        for term in self.terms:
            counts = context.used is None or factor_of(term.settings, context.used) > 0
            with torch.set_grad_enabled(counts and torch.is_grad_enabled()):
                found[term.name] = sum_scales([term.loss(p, t, w) for p, t, w in levels])
        return found

    def loss_weights(self) -> dict[str, float]:
        """Factors of the recipe."""
        return {term.name: term.weight for term in self.terms}

    def loss_factors(self, used: float) -> dict[str, float]:
        """What the schedule of each term says."""
        return {term.name: factor_of(term.settings, used) for term in self.terms}

    def rehearse(self) -> None:
        """Read the files that losses need."""
        for term in self.terms:
            if isinstance(term.loss, Perceptual):
                term.loss.read()

    # ---- predicting ----

    def translate(self, x: Tensor, context: TranslateContext) -> dict[str, Tensor]:
        """Predicted image, or probability of each class."""
        y = self.network(x).float()
        return {"probability": torch.softmax(y, 1)} if self.segments else {"image": y}

    def postprocess(self, maps: Mapping[str, NDArray[Any]], context: TranslateContext) -> dict[str, NDArray[Any]]:
        """The maps, and the class map of the most probable class."""
        if not self.segments:
            return dict(maps)
        labels = np.asarray(maps["probability"]).argmax(0)[None].astype(self._label_type)
        return {"labels": labels, **maps}

    def metrics(
        self, results: Mapping[str, NDArray[Any]], targets: Mapping[str, NDArray[Any]], weight: NDArray[Any] | None
    ) -> dict[str, float]:
        """Dice and IoU of the classes, or PSNR, SSIM and Pearson correlation of the image."""
        (truth,) = (np.asarray(target) for target in targets.values())
        result = np.asarray(results[self.results[0].name])
        known = None if weight is None else np.asarray(weight)[0].reshape(result.shape[1:])
        if self.segments:
            return _class_figures(result[0], truth, known)
        return _image_figures(result, truth, known)


def _channels(settings: FcnSettings, shapes: Shapes) -> int:
    if settings.output == "segmentation":
        return shapes.classes if settings.classes == "auto" else settings.classes
    return shapes.target_channels if settings.output_channels == "auto" else settings.output_channels


def _class_ids(target: NDArray[Any], weight: NDArray[Any] | None, classes: int) -> NDArray[Any]:
    """Class ids ``(1, Z, Y, X)``, 0 where unknown, after checking that each is one of `classes`."""
    if len(target) != 1:
        raise DataError(f"a segmentation target has {len(target)} channels", "Give one channel of class ids")
    ids = np.asarray(target) if weight is None else np.where(weight > 0, target, np.zeros((), target.dtype))
    if ids.dtype.kind == "f" and not np.equal(ids, np.round(ids)).all():
        raise DataError("a segmentation target has fractions", "Give whole class ids, or set framework.output to image")
    if ids.size and (ids.min() < 0 or ids.max() >= classes):
        found = np.unique(ids)
        shown = ", ".join(f"{value:g}" for value in found[:8]) + (" …" if len(found) > 8 else "")
        raise DataError(
            f"the target has the ids {shown}, but there are {classes} classes: 0 to {classes - 1}",
            "If these are instances, choose framework instance; else set framework.classes",
        )
    return ids


def _class_figures(pred: NDArray[Any], truth: NDArray[Any], weight: NDArray[Any] | None) -> dict[str, float]:
    """Dice and IoU of each class that occurs, background left out, and their means."""
    from im2im_core.metrics import overlaps

    found = overlaps(pred, truth.reshape(pred.shape), weight)
    figures = {f"class_{c}_dice": overlap.dice for c, overlap in found.items()}
    figures |= {f"class_{c}_iou": overlap.iou for c, overlap in found.items()}
    # Background alone on both sides is right.
    figures["dice"] = float(np.mean([overlap.dice for overlap in found.values()] or [1.0]))
    figures["iou"] = float(np.mean([overlap.iou for overlap in found.values()] or [1.0]))
    return figures


def _image_figures(pred: NDArray[Any], truth: NDArray[Any], weight: NDArray[Any] | None) -> dict[str, float]:
    """PSNR, SSIM and Pearson correlation, mean over channels, in the range of the truth."""
    from im2im_core.metrics import pearson, psnr, range_of, ssim

    rows = []
    for p, t in zip(pred, truth.reshape(pred.shape), strict=True):
        limit = range_of(t, weight)
        rows.append((psnr(p, t, limit, weight), ssim(p, t, limit, weight), pearson(p, t, weight)))
    return dict(zip(("psnr", "ssim", "pearson"), np.mean(rows, 0).tolist(), strict=True))
