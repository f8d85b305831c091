"""The images of the file: where they are, how they are divided, and the patches that are cut from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_core.conversion.preprocessing import normalization_of
from im2im_core.errors import ConfigError
from im2im_core.layouts import AutoLayout, LayoutSettings, PreSplitLayout, SubfolderLayout

if TYPE_CHECKING:
    from im2im_core.conversion.notes import Notes
    from im2im_core.conversion.preprocessing import Prepared
    from im2im_core.conversion.source import Section
    from im2im_core.recipe import Recipe
    from im2im_core.recipe.data import DataSettings

VALIDATED = 0.1
"""Part of the images that validates where the file does not say."""
VALIDATED_FOR_ZERO = 0.2
"""Part that validates where the file says 0."""


@dataclass(frozen=True)
class DataPart:
    """What the settings of the data are made from.

    Parameters
    ----------
    divisor : tuple of int or None
        What a patch must be a multiple of; None where the plan adapts the network to the patch.
    image_target : bool
        Whether targets are images, not labels.
    """

    section: Section
    prepared: Prepared
    divisor: tuple[int, ...] | None
    dimensions: int
    image_target: bool


def convert_data(base: Recipe, part: DataPart, notes: Notes) -> tuple[DataSettings, Any]:
    """Settings of the data without their augmentation, and patches per step.

    Raises
    ------
    ConfigError
        The images are not in pairs.
    """
    section, prepared = part.section, part.prepared
    if section.take("category", "pair") == "unpair":
        raise ConfigError("data.category is unpair", "There is no framework here yet that learns without pairs")
    path, layout = _place(section.take("data_path"), notes)
    patch = _patch(part, notes)
    changes: dict[str, Any] = {
        "path": path,
        "layout": layout,
        "dimensions": part.dimensions,
        "normalization": normalization_of(prepared, "IM", notes),
        "input_channels": prepared.channels.get("IM"),
        "target_channels": prepared.channels.get("GT"),
        "split": base.data.split.replace(validation=_validated(section)),
    }
    if part.image_target:
        changes["target_normalization"] = normalization_of(prepared, "GT", notes)
    if base.task != "instance_segmentation":
        changes |= {"patch": patch or "auto", "foreground": prepared.labelled}
    elif patch is not None:
        changes["patch"] = patch
    settings = base.data.replace(**changes)
    return settings, _batch(part, base, patch, notes)


def _validated(section: Section) -> float:
    share = section.section("dataloader").number("train_val_ratio", VALIDATED)
    return share or VALIDATED_FOR_ZERO


def _batch(part: DataPart, base: Recipe, patch: tuple[int, ...] | None, notes: Notes) -> Any:
    """Patches per step: those of all images of a batch; left to preset and plan where whole images are learned."""
    section = part.section
    loaders = section.section("dataloader")
    train = loaders.section("train")
    loaders.drop("val")
    train.drop("partial_loader", "dataloader_type", "dataset_params")
    params = train.section("dataloader_params")
    images = params.whole("batch_size", 1) or 1
    params.drop(*params.content)
    section.drop("cache_path")
    if patch is not None:
        return images * part.prepared.patches
    if images > 1:
        notes.differs(params.place("batch_size"), f"{images} whole images; how many patches, preset or plan choose")
    return base.training.batch


# ---- where the images are ----


def _place(path: Any, notes: Notes) -> tuple[str | None, LayoutSettings]:
    """Folder or table, and its layout; folders named one by one need a folder in common."""
    if path is None or isinstance(path, str):
        return _from_here(path), AutoLayout()
    if not isinstance(path, dict) or not all(isinstance(p, str) for p in path.values()):
        raise ConfigError(f"data.data_path is {path!r}", "Expected is a folder, a table, or several folders by name")
    folders = {str(key).lower(): Path(value) for key, value in path.items()}
    above = {folder.parent for folder in folders.values()}
    common = _from_here(str(above.pop())) if len(above) == 1 else None
    if (
        set(folders) == {"train", "val"}
        and common
        and folders["train"].name == "train"
        and folders["val"].name == "val"
    ):
        return common, PreSplitLayout()
    if "im" in folders and "gt" in folders and common:
        weights = {"weight_folder": folders["cm"].name} if "cm" in folders else {}
        layout = SubfolderLayout(source_folder=folders["im"].name, target_folders=(folders["gt"].name,), **weights)
        return common, layout
    first = folders.get("train") or folders.get("im") or next(iter(folders.values()))
    others = ", ".join(str(folder) for folder in folders.values() if folder != first)
    notes.missing("data.data_path", f"{others} is left out; put folders train and val, or IM and GT, into one folder")
    return _from_here(str(first)), AutoLayout()


def _from_here(path: str | None) -> str | None:
    return str(Path(path).resolve()) if path and Path(path).exists() else path


# ---- patches ----


def _patch(part: DataPart, notes: Notes) -> tuple[int, ...] | None:
    """Size of the patches, a multiple of what the network needs; None where the file cuts none."""
    section, prepared = part.section, part.prepared
    named = prepared.patch or section.sizes("patch_size") or section.section("extra").sizes("patch_size")
    section.drop("patch_size")
    section.section("extra").drop("patch_size", "spacing", "modality", "vram_gb")
    if named is None or len(named) != part.dimensions:
        notes.differs("data.preprocess", "cuts no patches; here they are cut, of the size that preset or plan choose")
        return None
    divisor = part.divisor or (1,) * part.dimensions
    size = tuple(
        -(-max(n, least) // d) * d for n, d, least in zip(named, divisor, _least(part.dimensions), strict=True)
    )
    if size != named:
        notes.differs("data.preprocess", f"patches of {list(named)} became {list(size)}, as the network needs it")
    return size


def _least(dimensions: int) -> tuple[int, ...]:
    """Smallest patch that recipes take."""
    from im2im_core.recipe.data import SMALLEST_PATCH

    return (1,) * (dimensions - 2) + (SMALLEST_PATCH, SMALLEST_PATCH)
