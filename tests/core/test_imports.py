"""Large packages are imported without a search for garbage."""

from __future__ import annotations

import gc
from importlib import import_module

import pytest

from im2im_core.imports import without_collection


def test_collection_is_off_inside_and_as_before_afterwards() -> None:
    assert gc.isenabled()
    with without_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), without_collection():
        import_module("no_such_module")
    assert gc.isenabled()
    gc.disable()
    try:
        with without_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
