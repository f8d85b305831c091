"""Folding of pixels into channels around a network: a quarter of the work per pixel for a factor of two."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def fold(x: Tensor, factor: int) -> Tensor:
    """``(B, C·f², [Z], Y/f, X/f)`` of ``(B, C, [Z], Y, X)``; Z is left as it is."""
    if x.ndim == 4:
        return functional.pixel_unshuffle(x, factor)
    return _stacks(functional.pixel_unshuffle(_planes(x), factor), x)


def unfold(x: Tensor, factor: int) -> Tensor:
    """Inverse of `fold`."""
    if x.ndim == 4:
        return functional.pixel_shuffle(x, factor)
    return _stacks(functional.pixel_shuffle(_planes(x), factor), x)


def _planes(x: Tensor) -> Tensor:
    """``(B·Z, C, Y, X)`` of ``(B, C, Z, Y, X)``: torch folds five axes too, ONNX four alone."""
    return x.transpose(1, 2).flatten(0, 1)


def _stacks(planes: Tensor, like: Tensor) -> Tensor:
    """``(B, C, Z, Y, X)`` of ``(B·Z, C, Y, X)``, as many stacks as in `like`."""
    return planes.reshape(like.shape[0], -1, *planes.shape[1:]).transpose(1, 2)


class Folded(nn.Module):
    """A network that sees blocks of factor × factor pixels (Y, X) as channels.

    Parameters
    ----------
    network : nn.Module
        Takes and makes factor² times the channels.
    """

    def __init__(self, network: nn.Module, factor: int) -> None:
        super().__init__()
        self.network = network
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Output on the grid of `x`."""
        return unfold(self.network(fold(x, self.factor)), self.factor)
