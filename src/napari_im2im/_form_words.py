"""Settings in plain words: labels, kinds, units and validation errors."""

from __future__ import annotations

import re
from typing import Any

_LABELS = {
    "path": "folder or table",
    "lr": "learning rate",
    "ema": "moving average",
    "clip": "gradient limit",
    "betas": "gradient memory (betas)",
    "by": "divide by",
    "more": "further folders",
    "every": "steps between points",
    "rotate90": "quarter turns",
    "rotate": "free rotation",
    "input_layer": "first layers",
    "output_layer": "last layers",
    "freeze": "frozen parameters",
    "statistics": "running statistics",
    "rates": "learning rate by parameter",
    "decay": "learning rate by depth",
    "validate_every": "validate every",
    "checkpoint_minutes": "checkpoint every",
    "non_finite_limit": "bad losses tolerated",
    "min_change": "smallest improvement",
    "min_size": "smallest object",
    "class_path": "import path",
    "first_filters": "channels of the first level",
    "most_filters": "most channels",
    "filters": "channels of each level",
    "init_args": "arguments",
    "max_cost": "highest cost",
    "disk_limit": "limit on disk",
    "memory_limit": "limit in memory",
    "torchscript": "TorchScript",
    "onnx": "ONNX",
    "tensorboard": "TensorBoard",
    "orcid": "ORCID",
    "doi": "DOI",
    "url": "URL",
}
_CHOICES = {
    "fcn": "image to image",
    "auto": "automatic",
    "basic_unet": "basic U-Net",
    "unet": "residual U-Net",
    "dynunet": "self-configuring U-Net",
    "attention_unet": "attention U-Net",
    "class": "any class",
    "adamw": "AdamW",
    "adam": "Adam",
    "sgd": "SGD",
    "l1": "L1",
    "l2": "L2",
    "ssim": "SSIM",
    "huber": "Huber",
    "ms_ssim": "SSIM over scales",
    "dice": "Dice",
    "generalized_dice": "generalised Dice",
    "tversky": "Tversky",
    "lovasz": "Lovász",
    "hausdorff": "Hausdorff",
    "cldice": "clDice (centre lines)",
    "fourier_ring": "Fourier ring",
    "start": "from a moment on",
    "zscore": "z-score",
    "centre_zscore": "z-score of the middle",
    "minmax": "smallest to largest",
    "presplit": "train, val and test folders",
    "subfolders": "one folder per role",
    "suffix": "suffixes",
    "label_free": "label-free",
    "fp32": "32 bit",
    "fp16": "16 bit",
    "bf16": "bfloat16",
}
_UNITS = (
    ("minutes", "min"),
    ("micrometres", "µm"),
    ("degrees", "°"),
    ("GB", "GB"),
    ("pixels", "px"),
    ("seconds", "s"),
    ("epochs", "epochs"),
    ("steps", "steps"),
)


def label_of(name: str) -> str:
    """Name of a setting in words."""
    return _LABELS.get(name, name.replace("_", " "))


def choice_words(value: Any) -> str:
    """A choice in words."""
    if value is None:
        return "not set"
    return _CHOICES.get(str(value), str(value).replace("_", " "))


def unit_of(name: str, description: str) -> str:
    """Unit that the description of a setting ends or continues with, for example ``px``; empty where there is none."""
    for word, unit in _UNITS:
        if name.endswith(word) or re.search(rf"(,|\bin|^Most) {word}\b", description.split(";")[0]):
            return unit
    return "steps" if description.startswith("Steps between") else ""


def problem_words(message: str) -> str:
    """A validation message as a sentence to a person."""
    text = message.removeprefix("Value error, ").replace("Input should be", "must be")
    text = re.sub(r"^Field required$", "needs a value", text)
    text = re.sub(r"\b(?:[a-z_]+\.)+([a-z_]+)\b", lambda found: f"“{label_of(found[1])}”", text)
    return text[:1].upper() + text[1:]
