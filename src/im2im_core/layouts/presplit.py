"""Layout presplit."""

from __future__ import annotations

from typing import Literal

from im2im_core._base import Config


class PreSplitLayout(Config):
    """Layout presplit."""

    kind: Literal["presplit"] = "presplit"
