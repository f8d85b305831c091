"""Losses that know what is unknown: each is a mean over pixels by weight, and weight 0 leaves no trace."""

from im2im_core.engine.losses.base import SMOOTH, Loss, known_only, weighted_mean
from im2im_core.engine.losses.build import Term, build_losses
from im2im_core.engine.losses.classes import Classes

__all__ = ["SMOOTH", "Classes", "Loss", "Term", "build_losses", "known_only", "weighted_mean"]
