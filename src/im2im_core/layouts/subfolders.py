"""Layout subfolders."""

from __future__ import annotations

from typing import Literal

from im2im_core._base import Config


class SubfolderLayout(Config):
    """Layout subfolders."""

    kind: Literal["subfolders"] = "subfolders"
