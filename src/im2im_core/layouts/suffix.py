"""Layout suffix."""

from __future__ import annotations

from typing import Literal

from im2im_core._base import Config


class SuffixLayout(Config):
    """Layout suffix."""

    kind: Literal["suffix"] = "suffix"
