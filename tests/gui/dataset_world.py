"""Small worlds of the Dataset panel: layers, folders, and what a person presses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from qtpy.QtWidgets import QPushButton

from napari_im2im._dataset_widget import DatasetWidget

SCALE = {"scale": (0.5, 0.5), "units": ("micrometer", "micrometer")}


def squares(width: int = 96) -> np.ndarray:
    """Squares of 8 pixels on a grid of 16, each with an id of its own."""
    labels = np.zeros((96, width), np.uint32)
    for i, (y, x) in enumerate(np.ndindex(6, width // 16)):
        labels[16 * y : 16 * y + 8, 16 * x : 16 * x + 8] = i + 1
    return labels


def noise(seed: int = 0, shape: tuple[int, ...] = (96, 96)) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 999, shape).astype(np.uint16)


def settled(widget: DatasetWidget) -> bool:
    return not widget.work.name and not widget._opening.isActive() and not widget._soon.isActive()


def taught(qtbot: Any, widget: DatasetWidget, image: Any, prediction: Any, model: str = "") -> Any:
    """Labels layer that `teach` made."""
    before = set(widget._viewer.layers)
    widget.teach(image, prediction, model)
    qtbot.waitUntil(lambda: set(widget._viewer.layers) > before, timeout=30_000)
    return widget._viewer.layers.selection.active


def wait(qtbot: Any, widget: DatasetWidget) -> None:
    qtbot.waitUntil(lambda: settled(widget), timeout=30_000)


def press(widget: DatasetWidget, words: str) -> None:
    """Press the button of the message that says `words`."""
    (message,) = [m for m in widget.messages.messages() if words in m.text]
    message.button.click()


def answers(message: Any) -> list[str]:
    return [button.text() for button in message.findChildren(QPushButton)]


def press_answer(message: Any, words: str) -> None:
    next(button for button in message.findChildren(QPushButton) if button.text() == words).click()


def folder_of(root: Path, names: str) -> Path:
    for number, name in enumerate(names):
        for role, pixels in (("IM", noise(number)), ("GT", squares().astype(np.uint16))):
            (root / role).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(root / role / f"{name}.tif", pixels)
    return root
