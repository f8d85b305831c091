"""Layout table."""

from __future__ import annotations

from typing import Literal

from im2im_core._base import Config


class TableLayout(Config):
    """Layout table."""

    kind: Literal["table"] = "table"
