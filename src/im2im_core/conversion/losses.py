"""The criterion of the file: terms of the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from im2im_core.recipe.losses import (
    L1,
    L2,
    SSIM,
    CenterlineDice,
    Connectivity,
    CrossEntropy,
    Dice,
    Focal,
    GeneralizedDice,
    Hausdorff,
    Huber,
    LossSettings,
    Output,
    Ramp,
    Topology,
    Tversky,
    outputs_of,
)

if TYPE_CHECKING:
    from im2im_core.conversion.notes import Notes
    from im2im_core.conversion.source import Named, Section

Terms = tuple[LossSettings, ...]
SAYS_NOTHING = (
    "to_onehot_y",
    "softmax",
    "sigmoid",
    "other_act",
    "reduction",
    "batch",
    "smooth_nr",
    "smooth_dr",
    "use_softmax",
    "spatial_dims",
    "n_classes",
    "size_average",
    "reduce",
    "data_range",
    "use_costmap",
)
"""Arguments that say how a loss is called, not what it compares; cost maps count wherever there are some."""


def learned_output(criterion: Named | None, labels: bool) -> Output:
    """Classes or values that the criterion compares; by the type of the targets where it is not known."""
    names = LOSSES.get(criterion.name) if criterion else None
    if names is None:
        return "segmentation" if labels else "image"
    return names[0]


def convert_losses(criterion: Named | None, output: Output, epochs: float, notes: Notes) -> Terms:
    """Terms for the criterion; the usual ones, an empty tuple, where it has no counterpart.

    Parameters
    ----------
    epochs : float
        Budget, of which warm-up epochs are a part.
    """
    if criterion is None:
        return ()
    params = criterion.params
    if criterion.name not in LOSSES:
        params.drop(*params.content)
        usual = "Dice and cross entropy" if output == "segmentation" else "L1 and L2"
        notes.missing(criterion.title, f"{usual} are learned instead; choose others with framework.losses")
        return ()
    terms = LOSSES[criterion.name][1](params)
    if criterion.name == REGULARIZED:
        terms += _regularizers(params, epochs, notes)
    if output == "segmentation" and params.take("sigmoid", False):
        notes.differs(params.place("sigmoid"), "softmax: a pixel belongs to one class alone")
    params.drop(*SAYS_NOTHING)
    assert all(output in outputs_of(term) for term in terms)
    return terms


# ---- one term or two ----


def _weights(params: Section, key: str) -> tuple[float, ...] | None:
    """Factor of each class; None where all count alike."""
    value = params.take(key)
    return tuple(float(n) for n in value) if isinstance(value, list) else None


def _cross_entropy(params: Section) -> Terms:
    return (CrossEntropy(class_weights=_weights(params, "weight") or _weights(params, "class_weights")),)


def _dice(params: Section) -> Terms:
    return (Dice(background=_background(params)),)


def _background(params: Section) -> bool:
    return bool(params.take("include_background", True))


def _dice_and_entropy(params: Section) -> Terms:
    weights = _weights(params, "weight") or _weights(params, "ce_weight")
    return (
        Dice(background=_background(params), weight=params.number("lambda_dice", 1.0) or 0.0),
        CrossEntropy(class_weights=weights, weight=params.number("lambda_ce", 1.0) or 0.0),
    )


def _dice_and_focal(params: Section) -> Terms:
    return (
        Dice(background=_background(params), weight=params.number("lambda_dice", 1.0) or 0.0),
        _focal_term(params),
    )


def _focal_term(params: Section) -> Focal:
    weights = _weights(params, "weight") or _weights(params, "focal_weight")
    gamma, weight = params.number("gamma", 2.0) or 0.0, params.number("lambda_focal", 1.0) or 0.0
    return Focal(gamma=gamma, class_weights=weights, weight=weight)


def _generalized_dice(params: Section) -> Terms:
    return (GeneralizedDice(background=_background(params)),)


def _generalized_dice_and_focal(params: Section) -> Terms:
    dice = GeneralizedDice(background=_background(params), weight=params.number("lambda_gdl", 1.0) or 0.0)
    return dice, _focal_term(params)


def _focal(params: Section) -> Terms:
    return (_focal_term(params),)


def _tversky(params: Section) -> Terms:
    wrong, lost = params.number("alpha", 0.5) or 0.0, params.number("beta", 0.5) or 0.0
    return (Tversky(background=_background(params), false_positives=wrong, false_negatives=lost),)


def _hausdorff(params: Section) -> Terms:
    return (Hausdorff(background=_background(params), power=params.number("alpha", 2.0) or 2.0),)


def _centerline(params: Section) -> Terms:
    params.drop("smooth")
    part = params.number("alpha", 0.5) or 0.0
    return Dice(weight=1 - part), CenterlineDice(iterations=params.whole("iter_", 3) or 3, weight=part)


def _huber(params: Section) -> Terms:
    return (Huber(delta=params.number("delta", 1.0) or 1.0),)


def _smooth_l1(params: Section) -> Terms:
    """Huber's loss, which this one is divided by where it changes."""
    beta = params.number("beta", 1.0) or 1.0
    return (Huber(delta=beta, weight=1 / beta),)


def _ssim(params: Section) -> Terms:
    params.drop("kernel_type", "kernel_sigma", "k1", "k2")
    return (SSIM(window=params.whole("win_size", 11) or 11),)


# ---- overlap with terms for shapes ----

REGULARIZED = "RegularizedGeneralizedDiceFocalLoss"
SHAPES: dict[str, tuple[str, str, Callable[..., Any] | None]] = {
    "use_fractal_regularization": ("fractal", "fractal dimension", None),
    "use_topological_regularization": ("topological", "which class lies in which", None),
    "use_connectivity_regularization": ("connectivity", "connectivity of neighbours", Connectivity),
    "use_hausdorff_regularization": ("hausdorff", "Hausdorff distance", Hausdorff),
    "use_homology_regularization": ("homology", "persistence images", Topology),
    "use_topological_complexity": ("complexity", "Betti numbers", Topology),
}
"""Switch of a term -> beginning of the names of its arguments, what it is about, and its counterpart."""
SHAPE_WORDS = (
    *(row[0] for row in SHAPES.values()),
    "kernel_shape",
    "lambda_",
    "chunks",
    "weighting_power",
    "composite",
)
"""How the arguments of those terms begin."""


def _regularized(params: Section) -> Terms:
    return GeneralizedDice(), Focal(class_weights=_weights(params, "gdl_class_weights"))


def _regularizers(params: Section, epochs: float, notes: Notes) -> Terms:
    """Terms for shapes that are switched on, each let in over its warm-up."""
    params.drop("gdl_focal_weight")
    terms: list[LossSettings] = []
    for switch, (word, words, made) in SHAPES.items():
        if not params.take(switch, False):
            continue
        if made is None:
            notes.missing(params.place(switch), f"no term for {words}")
            continue
        warm_up = (params.number(f"{word}_warmup_epochs", 10.0) or 0.0) / epochs
        schedule = {"schedule": Ramp(end=min(warm_up, 1.0))} if warm_up > 0 else {}
        weight_name = "topological_complexity_weight" if word == "complexity" else f"{word}_weight"
        term = made(weight=params.number(weight_name, 0.1), **schedule)
        terms.append(term)
        notes.differs(
            params.place(switch), f"loss {term.kind} in its place, with its weight; it is measured in another way"
        )
    params.drop(*(name for name in params.content if str(name).startswith(SHAPE_WORDS) or name in SHAPES))
    return tuple(terms)


LOSSES: dict[str, tuple[Output, Callable[[Section], Terms]]] = {
    "MSELoss": ("image", lambda _: (L2(),)),
    "L1Loss": ("image", lambda _: (L1(),)),
    "HuberLoss": ("image", _huber),
    "SmoothL1Loss": ("image", _smooth_l1),
    "SSIMLoss": ("image", _ssim),
    "CrossEntropyLoss": ("segmentation", _cross_entropy),
    "PixelWiseCrossEntropyLoss": ("segmentation", _cross_entropy),
    "DiceLoss": ("segmentation", _dice),
    "DiceCELoss": ("segmentation", _dice_and_entropy),
    "DiceFocalLoss": ("segmentation", _dice_and_focal),
    "FocalLoss": ("segmentation", _focal),
    "GeneralizedDiceLoss": ("segmentation", _generalized_dice),
    "GeneralizedDiceFocalLoss": ("segmentation", _generalized_dice_and_focal),
    "TverskyLoss": ("segmentation", _tversky),
    "HausdorffDTLoss": ("segmentation", _hausdorff),
    "SoftDiceclDiceLoss": ("segmentation", _centerline),
    REGULARIZED: ("segmentation", _regularized),
}
"""Name of a criterion -> what it compares, and its terms."""
