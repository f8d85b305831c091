"""Layout auto."""

from __future__ import annotations

from typing import Literal

from im2im_core._base import Config


class AutoLayout(Config):
    """Layout auto."""

    kind: Literal["auto"] = "auto"
