"""Settings of the losses that compare classes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Interval

from im2im_core.recipe.losses.base import ClassesLoss, RegionLoss, Weight

Thickness = Annotated[float, Gt(0)]


class CrossEntropy(ClassesLoss):
    """Cross entropy, binary for one output channel."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    target: ClassVar[str] = "im2im_core.engine.losses.entropy:CrossEntropy"


class Focal(ClassesLoss):
    """Cross entropy that looks away from what is already right (Lin et al. 2017)."""

    kind: Literal["focal"] = "focal"
    target: ClassVar[str] = "im2im_core.engine.losses.entropy:Focal"
    gamma: Annotated[float, Ge(0)] = 2.0
    """How strongly easy pixels are ignored."""


class Dice(RegionLoss):
    """One minus the Dice overlap of each class (Milletari et al. 2016)."""

    kind: Literal["dice"] = "dice"
    target: ClassVar[str] = "im2im_core.engine.losses.overlap:Dice"


class GeneralizedDice(RegionLoss):
    """One minus the Dice overlap of all classes together, rare ones counting more (Sudre et al. 2017)."""

    kind: Literal["generalized_dice"] = "generalized_dice"
    target: ClassVar[str] = "im2im_core.engine.losses.overlap:GeneralizedDice"
    background: bool = True
    """Count the background as a class."""


class Tversky(RegionLoss):
    """One minus an overlap with a price of its own for too much and too little (Salehi et al. 2017)."""

    kind: Literal["tversky"] = "tversky"
    target: ClassVar[str] = "im2im_core.engine.losses.overlap:Tversky"
    false_positives: Weight = 0.3
    """Price of a pixel too much; 0.5 and 0.5 are Dice."""
    false_negatives: Weight = 0.7
    """Price of a pixel too little."""
    gamma: Annotated[float, Interval(ge=1, le=3)] = 1.0
    """The loss is taken to the power 1/gamma; 4/3 is the focal Tversky loss (Abraham & Khan 2019)."""


class Lovasz(RegionLoss):
    """Convex extension of one minus IoU, over the classes that occur in the batch (Berman et al. 2018)."""

    kind: Literal["lovasz"] = "lovasz"
    target: ClassVar[str] = "im2im_core.engine.losses.lovasz:Lovasz"
    errors: Literal["softmax", "hinge"] = "softmax"
    """softmax: differences of probabilities. hinge: margins of each class against the others."""
    background: bool = True
    """Count the background as a class."""


class Boundary(RegionLoss):
    """Probability times signed distance to the true boundary, pixels; below 0 inside (Kervadec et al. 2019).

    Needs an overlap or an entropy beside it, and is best let in by a schedule.
    """

    kind: Literal["boundary"] = "boundary"
    target: ClassVar[str] = "im2im_core.engine.losses.distances:Boundary"
    thickness: Thickness = 1.0
    """Size of a voxel along Z relative to that in the plane; volumes only."""


class Hausdorff(RegionLoss):
    """Squared error times distance to the true and to the predicted boundary (Karimi & Salcudean 2020).

    Grows with the square of the distance in pixels: give it a small weight beside an overlap.
    """

    kind: Literal["hausdorff"] = "hausdorff"
    target: ClassVar[str] = "im2im_core.engine.losses.distances:Hausdorff"
    power: Annotated[float, Gt(0)] = 2.0
    """Exponent of the distances."""
    thickness: Thickness = 1.0
    """Size of a voxel along Z relative to that in the plane; volumes only."""


class CenterlineDice(RegionLoss):
    """One minus the agreement of soft skeletons, for what is long and thin (clDice, Shit et al. 2021)."""

    kind: Literal["cldice"] = "cldice"
    target: ClassVar[str] = "im2im_core.engine.losses.centerline:CenterlineDice"
    iterations: Annotated[int, Ge(1)] = 5
    """Erosions until nothing is left of the thickest structure: its radius in pixels."""


class Topology(RegionLoss):
    """Number of components and holes by persistent homology (Hu et al. 2019).

    As many of the most persistent components and holes of the probability as the truth has are made
    complete, all others are levelled. It does not know where they belong: let it in late, with a
    small weight, beside losses that do.
    """

    kind: Literal["topology"] = "topology"
    target: ClassVar[str] = "im2im_core.engine.losses.topology:Topology"
    holes: bool = True
    """Count holes (2D) and cavities (3D) too, not only components."""


class Connectivity(RegionLoss):
    """Cross entropy of whether neighbouring pixels belong together (Kampffmeyer et al. 2019)."""

    kind: Literal["connectivity"] = "connectivity"
    target: ClassVar[str] = "im2im_core.engine.losses.connectivity:Connectivity"
