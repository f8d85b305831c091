"""Settings of the losses that compare pixel values."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Interval

from im2im_core.recipe.losses.base import ImageLoss


class L1(ImageLoss):
    """Mean absolute difference."""

    kind: Literal["l1"] = "l1"
    target: ClassVar[str] = "im2im_core.engine.losses.differences:L1"


class L2(ImageLoss):
    """Mean squared difference (MSE)."""

    kind: Literal["l2"] = "l2"
    target: ClassVar[str] = "im2im_core.engine.losses.differences:L2"


class Huber(ImageLoss):
    """Squared difference where small, absolute where large (Huber 1964)."""

    kind: Literal["huber"] = "huber"
    target: ClassVar[str] = "im2im_core.engine.losses.differences:Huber"
    delta: Annotated[float, Gt(0)] = 1.0
    """Difference at which it changes from squared to absolute."""


class SSIM(ImageLoss):
    """One minus the structural similarity (Wang et al. 2004)."""

    kind: Literal["ssim"] = "ssim"
    target: ClassVar[str] = "im2im_core.engine.losses.structural:SSIM"
    window: Annotated[int, Ge(3)] = 7
    """Width of the window, pixels."""


class MultiScaleSSIM(ImageLoss):
    """One minus the structural similarity over several scales (Wang et al. 2003)."""

    kind: Literal["ms_ssim"] = "ms_ssim"
    target: ClassVar[str] = "im2im_core.engine.losses.structural:MultiScaleSSIM"
    window: Annotated[int, Ge(3)] = 7
    """Width of the window, pixels of each scale."""
    scales: Annotated[int, Interval(ge=1, le=5)] = 5
    """Scales, each half the size of the one before; those smaller than the window are left out."""


class FourierRing(ImageLoss):
    """One minus the mean correlation over rings (3D: shells) in Fourier space (Saxton & Baumeister 1982).

    Blind to brightness and contrast: combine it with a difference of pixel values.
    """

    kind: Literal["fourier_ring"] = "fourier_ring"
    target: ClassVar[str] = "im2im_core.engine.losses.fourier_ring:FourierRing"


class Perceptual(ImageLoss):
    """Mean squared difference of the features that a fixed network sees (Johnson et al. 2016).

    Nothing is downloaded. Without a file the features are those of four stages of fixed random filters,
    which compare edges and textures too (He et al. 2016), in 2D and 3D.
    """

    kind: Literal["perceptual"] = "perceptual"
    target: ClassVar[str] = "im2im_core.engine.losses.perceptual:Perceptual"
    weights: str | None = None
    """File of a VGG network, its weights named as torchvision does, safetensors or state dict; volumes go by plane."""
