"""What tests of the engine share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from im2im_core.engine import foreign
from im2im_core.engine.foreign_weights import ForeignWeights, load

if TYPE_CHECKING:
    from im2im_core.engine.foreign_weights import Forward


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of other tools run here: processes of their own, as in `test_foreign_process.py`, take seconds each."""

    def here(weights: ForeignWeights, device: str, threads: int) -> Forward:
        return load(weights, device)

    monkeypatch.setattr(foreign, "ForeignProcess", here)
