"""Random changes of the input by classes that are named by import path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from im2im_core.errors import ConfigError
from im2im_core.trust import check_arguments, resolve_class

if TYPE_CHECKING:
    from im2im_core.recipe.classpath import ClassPath

MOVING = ("monai.transforms.spatial", "monai.transforms.croppad", "monai.transforms.regularization")
"""Modules whose transforms move or mix pixels, which the targets would not follow."""


class NamedTransform:
    """One transform of a normalised patch ``(C, [Z], Y, X)``, seeded by each call.

    Raises
    ------
    ConfigError
        The class is no transform, moves pixels, works on dictionaries, or refuses its arguments.
    """

    def __init__(self, settings: ClassPath) -> None:
        from monai.transforms.transform import MapTransform, Transform

        found = resolve_class(settings.class_path)
        if not issubclass(found, (Transform, torch.nn.Module)):
            raise ConfigError(
                f"data.augmentation.transforms: {settings.class_path} is no transform of MONAI and no torch module",
                "Name one that is, or derive yours from torch.nn.Module",
            )
        if found.__module__.startswith(MOVING):
            raise ConfigError(
                f"data.augmentation.transforms: {settings.class_path} moves pixels, and the targets would stay",
                "Use flip, rotate90, rotate and scale of data.augmentation, which move both",
            )
        if issubclass(found, MapTransform):
            raise ConfigError(
                f"data.augmentation.transforms: {settings.class_path} takes a dictionary, not an image",
                "Name the transform without the d at the end of its name",
            )
        check_arguments(found, settings.init_args)
        self.class_path = settings.class_path
        try:
            self.transform: Any = found(**settings.init_args)
        except (TypeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"data.augmentation.transforms: {settings.class_path}({settings.init_args}) failed: {error}",
                "Change its init_args",
            ) from error

    def __call__(self, patch: Tensor, seed: int) -> Tensor:
        """Changed patch, the same for the same `seed`: MONAI's random state and torch's are both set by it."""
        if hasattr(self.transform, "set_random_state"):
            self.transform.set_random_state(seed=seed)
        try:
            with torch.random.fork_rng(devices=[patch.device] if patch.is_cuda else []):
                torch.manual_seed(seed)
                found = torch.as_tensor(self.transform(patch))
        except (TypeError, ValueError, RuntimeError, AssertionError, IndexError) as error:
            raise ConfigError(
                f"data.augmentation.transforms: {self.class_path} cannot change an input {tuple(patch.shape)}: {error}",
                "Name a transform of one image (C, [Z], Y, X), or change its init_args",
            ) from error
        plain: Tensor = found.as_tensor() if hasattr(found, "as_tensor") else found
        if plain.shape != patch.shape:
            raise ConfigError(
                f"data.augmentation.transforms: {self.class_path} made {tuple(plain.shape)} of {tuple(patch.shape)}",
                "Name a transform that keeps every pixel in its place",
            )
        return plain.to(patch)


def change_by_path(source: Tensor, transforms: tuple[NamedTransform, ...], generator: torch.Generator) -> Tensor:
    """Batch ``(B, C, [Z], Y, X)`` after all `transforms`, each sample by seeds of its own."""
    if not transforms:
        return source
    seeds = torch.randint(2**31, (len(source), len(transforms)), generator=generator, device=generator.device).tolist()
    changed = []
    for patch, row in zip(source, seeds, strict=True):
        for transform, seed in zip(transforms, row, strict=True):
            patch = transform(patch, seed)
        changed.append(patch)
    return torch.stack(changed)
