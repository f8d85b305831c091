"""Any class by import path: ``class_path`` and ``init_args``, as Lightning users know them."""

from __future__ import annotations

from typing import Any, Literal

from im2im_core._base import Config


class ClassPath(Config):
    """Any trusted class, named by its import path."""

    kind: Literal["class"] = "class"
    class_path: str
    """Import path of the class, for example ``monai.networks.nets.SegResNet``."""
    init_args: dict[str, Any] = {}
    """Arguments of its constructor; checked against its signature before anything starts."""
